//! How far a sandbox of a worker holds, as it was measured, and what may run in it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A level. The order is the order of strength.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SandboxLevel {
    /// Nothing was denied that counts.
    S0,
    /// Files and system calls are fenced; other sockets and processes are in reach.
    S1,
    /// Besides, nothing of the host is in reach.
    S2,
    /// Besides, memory and processes are bounded together, and it runs as a user of its own.
    #[default]
    S3,
}

impl SandboxLevel {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S0 => "S0",
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
        }
    }
}

impl fmt::Display for SandboxLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a sandbox lets through of what no rule forbids by name. The order is the order of strictness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxProfile {
    /// Every system call but those that are refused, and TCP on a loopback of its own.
    #[default]
    Default,
    /// Only system calls that ordinary tools need, and no TCP but to the one port that is given.
    Strict,
}

impl SandboxProfile {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Strict => "strict",
        }
    }
}

/// Not the name of a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sandbox profile: default or strict")]
pub struct InvalidSandboxProfile(String);

impl FromStr for SandboxProfile {
    type Err = InvalidSandboxProfile;

    fn from_str(text: &str) -> Result<Self, InvalidSandboxProfile> {
        [Self::Default, Self::Strict]
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| InvalidSandboxProfile(text.chars().take(20).collect()))
    }
}

/// Not the name of a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sandbox level: S0, S1, S2 or S3")]
pub struct InvalidSandboxLevel(String);

impl FromStr for SandboxLevel {
    type Err = InvalidSandboxLevel;

    fn from_str(text: &str) -> Result<Self, InvalidSandboxLevel> {
        [Self::S0, Self::S1, Self::S2, Self::S3]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| InvalidSandboxLevel(text.chars().take(20).collect()))
    }
}

/// What an attempt to get out tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxLayer {
    /// Files and system calls: needed for S1.
    Fence,
    /// The host is out of reach: needed for S2.
    Apart,
    /// Bounds for all together, and a user of its own: needed for S3.
    Bounds,
}

/// One attempt to get out of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelftestResult {
    /// Its name.
    pub name: String,
    /// What it tells about.
    pub layer: SandboxLayer,
    /// Whether it was denied.
    pub denied: bool,
    /// By what, or what it reached.
    pub detail: String,
}

/// What `autopack sandbox selftest -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxSelftestV1 {
    /// `sandbox_selftest/1`.
    pub format: String,
    /// The level: what was denied.
    pub level: SandboxLevel,
    /// By which means the sandbox was built.
    pub means: String,
    /// Why there was none, where there was none.
    pub trouble: Option<String>,
    /// How many attempts there are.
    pub attempts: usize,
    /// How many of them were denied.
    pub denied: usize,
    /// Each of them.
    pub results: Vec<SelftestResult>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_ordered() {
        assert!("S2".parse::<SandboxLevel>().unwrap() < SandboxLevel::default());
        assert!("s2".parse::<SandboxLevel>().is_err() && "".parse::<SandboxLevel>().is_err());
        assert!("strict".parse::<SandboxProfile>().unwrap() > SandboxProfile::default());
        assert!("Strict".parse::<SandboxProfile>().is_err());
    }
}
