//! Checked names, digests, epochs and instants. Every value that becomes a path, a ref or a SQL name is one of
//! these; the only constructors are the validators.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A name that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {why}")]
pub struct InvalidName {
    /// Which kind of name (`run id`, `phase id`, ...).
    pub what: &'static str,
    /// The text that was refused, cut to 80 characters.
    pub value: String,
    /// The rule it breaks.
    pub why: &'static str,
}

/// Names that the data directory itself uses; a run may not take them (`interfaces.md` 2).
const RESERVED: &[&str] = &[
    "locks",
    "autopack.db",
    "autopack.sock",
    "autopack.addr",
    "autopack.lock",
    "autopack.log",
    "registered",
    "tmp",
    "mirror.git",
    "mirror.lock",
];

/// Beginnings of such names: the database and its journals, the socket, the locks, the notices.
const RESERVED_PREFIXES: [&str; 2] = ["autopack.", "notices."];

fn check(what: &'static str, value: &str) -> Result<(), InvalidName> {
    let refuse = |why| Err(InvalidName { what, value: value.chars().take(80).collect(), why });
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    match value.as_bytes() {
        [] => return refuse("it is empty"),
        bytes if bytes.len() > 63 => return refuse("it is longer than 63 characters"),
        [first, ..] if !ok(*first) => return refuse("it must start with a lower-case letter or a digit"),
        bytes if !bytes.iter().all(|c| ok(*c) || matches!(c, b'.' | b'_' | b'-')) => {
            return refuse("only a-z, 0-9, '.', '_' and '-' are allowed");
        }
        _ => {}
    }
    if value.contains("..") {
        return refuse("it must not contain '..'");
    }
    if value.ends_with('.') || value.ends_with(".lock") {
        return refuse("it must not end in '.' or '.lock'");
    }
    if RESERVED.contains(&value) || RESERVED_PREFIXES.iter().any(|p| value.starts_with(p)) {
        return refuse("the data directory uses this name itself");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a name against `^[a-z0-9][a-z0-9._-]{0,62}$` and the rules of `interfaces.md` 2.
            ///
            /// # Errors
            /// [`InvalidName`] names the rule that the text breaks.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidName> {
                let value = value.into();
                check($what, &value)?;
                Ok(Self(value))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Names one run; becomes a folder, a branch and a lock file.
    RunId, "run id"
);
name!(
    /// Names one phase of a run.
    PhaseId, "phase id"
);
name!(
    /// Names a project: one repository under one supervisor.
    ProjectId, "project id"
);
name!(
    /// Names an approval request.
    RequestId, "request id"
);
name!(
    /// Names a worker.
    WorkerId, "worker id"
);
name!(
    /// Names a lease, an apply, a decision or another row that only Autopack makes.
    RowId, "row id"
);

/// A SHA-256 digest, shown as `sha256:` plus 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Hashes the canonical JSON of a value: keys sorted, no white space.
    ///
    /// # Errors
    /// When the value cannot be written as JSON (a map with keys that are no text).
    pub fn of_json<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        let mut value = serde_json::to_value(value)?;
        // Whether maps keep the order they were made in is decided by any dependency (`preserve_order`), so they are sorted.
        value.sort_all_objects();
        Ok(Self::of(serde_json::to_string(&value)?.as_bytes()))
    }

    /// Wraps 32 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hex digits without the prefix.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let bad = |why| InvalidName { what: "digest", value: value.chars().take(80).collect(), why };
        let text = value.strip_prefix("sha256:").unwrap_or(value);
        let bytes = hex::decode(text).map_err(|_| bad("it must be 64 hex digits, with or without 'sha256:'"))?;
        Ok(Self(bytes.try_into().map_err(|_| bad("it must be 64 hex digits, with or without 'sha256:'"))?))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}

impl From<Digest> for String {
    fn from(value: Digest) -> Self {
        value.to_string()
    }
}

/// A git object id (SHA-1), 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Oid([u8; 20]);

impl Oid {
    /// The all-zero id: "no object".
    pub const ZERO: Self = Self([0; 20]);

    /// Wraps 20 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Oid {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let bad = || InvalidName {
            what: "object id",
            value: value.chars().take(80).collect(),
            why: "it must be 40 hex digits",
        };
        let bytes = hex::decode(value).map_err(|_| bad())?;
        Ok(Self(bytes.try_into().map_err(|_| bad())?))
    }
}

impl TryFrom<String> for Oid {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}

impl From<Oid> for String {
    fn from(value: Oid) -> Self {
        value.to_string()
    }
}

/// An instant: milliseconds since 1970 in UTC, shown and stored in JSON as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "jiff::Timestamp", into = "jiff::Timestamp")]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970, kept within years -9999..=9999.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(jiff::Timestamp::MIN.as_millisecond() + 1, jiff::Timestamp::MAX.as_millisecond() - 1))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant plus a number of seconds.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self::from_millis(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Milliseconds from `earlier` to this instant; negative if it is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp: jiff::Timestamp = (*self).into();
        write!(f, "{stamp:.3}")
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(value: jiff::Timestamp) -> Self {
        Self::from_millis(value.as_millisecond())
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(value: Timestamp) -> Self {
        Self::from_millisecond(value.0).unwrap_or(Self::UNIX_EPOCH)
    }
}

/// A fencing token: which life of the cluster, and which holder within it (`coordination.md` D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FencingToken {
    /// Rises when a store is restored or made anew over a hub that already has one.
    pub incarnation: u32,
    /// Rises with every grant of the scope.
    pub epoch: u64,
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.epoch)
    }
}

/// What a fence guards. The order is the order in which a transaction checks them (`coordination.md` 3.4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// The one director.
    Director,
    /// A repository (the hub).
    Repo(ProjectId),
    /// A run.
    Run(RunId),
    /// A workspace, by the run it belongs to.
    Workspace(RunId),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Director => f.write_str("director"),
            Self::Repo(id) => write!(f, "repo/{id}"),
            Self::Run(id) => write!(f, "run/{id}"),
            Self::Workspace(id) => write!(f, "ws/{id}"),
        }
    }
}

/// A scope and the epoch its writer believes to hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    /// What is written to.
    pub scope: Scope,
    /// The writer's epoch; the write is refused unless it is the current one.
    pub epoch: u64,
}

#[cfg(test)]
mod tests;
