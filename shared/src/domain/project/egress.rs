//! `[egress]`: which hosts the gate and the builders of a project want to reach. Whether they may is said by the operator of
//! a worker; without an entry they reach nothing but the model of an agent's own provider.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secrets::listed;
use crate::domain::egress::{HostRule, MOST_RULES};
use crate::domain::record::LeasePurpose;
use crate::domain::run_file::PhaseSpec;

/// `[egress]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSection {
    /// For the commands of the gate, which execute patched files.
    pub gate: Vec<String>,
    /// For each builder of `[builders]`.
    pub builders: BTreeMap<String, Vec<String>>,
}

impl EgressSection {
    /// A rule that can be none, and why.
    pub(super) fn unfit(&self) -> Option<(&str, String)> {
        let lists = std::iter::once(&self.gate).chain(self.builders.values());
        for list in lists {
            if let Some(last) = list.get(MOST_RULES) {
                return Some((last, format!("a list has {MOST_RULES} hosts at most")));
            }
            for text in list {
                match text.parse::<HostRule>() {
                    Ok(rule) if rule.is_any() => return Some((text, "name the hosts".to_owned())),
                    Ok(_) => {}
                    Err(error) => return Some((text, error.to_string())),
                }
            }
        }
        None
    }

    /// What a lease's processes want to reach: a builder under the name that it has in the configuration, so that a run
    /// file that brings its own command reaches nothing.
    #[must_use]
    pub fn asked_by(&self, purpose: LeasePurpose, phase: &PhaseSpec) -> Vec<String> {
        listed(&self.gate, &self.builders, purpose, phase)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ProjectConfig;

    #[test]
    fn a_list_names_hosts() {
        let text = "[egress]\ngate = [\"crates.io\"]\nbuilders.fast = [\"*.npmjs.org\", \"private:127.0.0.1:80\"]\n";
        assert_eq!(ProjectConfig::parse(text, "f").unwrap().egress.builders["fast"].len(), 2);
        for (bad, why) in [
            ("gate = [\"*\"]", "name the hosts"),
            ("gate = [\"http://x\"]", "its port is none"),
            ("gate = [\"a b\"]", "no host has this name"),
            ("builders.fast = [\"x:0\"]", "its port is none"),
            ("hosts = []", "unknown key `hosts`"),
        ] {
            let error = ProjectConfig::parse(&format!("[egress]\n{bad}\n"), "f").unwrap_err().to_string();
            assert!(error.starts_with("f:2: ") && error.contains(why), "{error}");
        }
    }
}
