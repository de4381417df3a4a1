//! `[secrets]`: which secrets, by name, the gate and the builders of a project are to have. What they are, and whether a
//! project may have them, is said by the operator of a worker and never here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::provision::is_secret_name;
use crate::domain::record::LeasePurpose;
use crate::domain::run_file::{BuilderSpec, PhaseSpec};

/// `[secrets]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsSection {
    /// For the commands of the gate, which execute patched files.
    pub gate: Vec<String>,
    /// For each builder of `[builders]`.
    pub builders: BTreeMap<String, Vec<String>>,
}

impl SecretsSection {
    /// A name that can be none.
    pub(super) fn unfit(&self) -> Option<&str> {
        let all = self.gate.iter().chain(self.builders.values().flatten());
        all.map(String::as_str).find(|name| !is_secret_name(name))
    }

    /// The secrets that a lease's processes are to have: a builder gets them under the name that it has in the
    /// configuration, so that a run file that brings its own command gets none.
    #[must_use]
    pub fn asked_by(&self, purpose: LeasePurpose, phase: &PhaseSpec) -> Vec<String> {
        listed(&self.gate, &self.builders, purpose, phase)
    }

    /// Whether a gate runs without secrets that the project's configuration names for it.
    #[must_use]
    pub fn withheld(&self, purpose: LeasePurpose, phase: &PhaseSpec) -> bool {
        purpose == LeasePurpose::Verify && !self.gate.is_empty() && self.asked_by(purpose, phase).is_empty()
    }
}

/// The list of a lease's processes: that of the gate, or that of the builder under its name.
pub(super) fn listed(
    gate: &[String],
    builders: &BTreeMap<String, Vec<String>>,
    purpose: LeasePurpose,
    phase: &PhaseSpec,
) -> Vec<String> {
    let name = match (purpose, &phase.builder) {
        // Commands that a run file brings run beside the project's own: then nobody gets any.
        (LeasePurpose::Verify, _) if phase.gate.is_empty() => return gate.to_vec(),
        (LeasePurpose::Verify, _) => return Vec::new(),
        (LeasePurpose::Build, BuilderSpec::Command { name: Some(name), .. }) => name,
        (LeasePurpose::Build, BuilderSpec::Agent { preset }) => preset,
        (
            LeasePurpose::Build,
            BuilderSpec::Command { name: None, .. }
            | BuilderSpec::Llm { .. }
            | BuilderSpec::Patch { .. }
            | BuilderSpec::Landing { .. }
            | BuilderSpec::Remediation { .. },
        ) => return Vec::new(),
    };
    builders.get(name).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::ProjectConfig;
    use super::*;

    #[test]
    fn only_who_is_named_is_given_any() {
        let text = "[secrets]\ngate = [\"npm\"]\nbuilders.fast = [\"db\", \"npm\"]\n";
        let config = ProjectConfig::parse(text, "f").unwrap();
        let asked = |purpose, name: Option<&str>| {
            let builder = BuilderSpec::Command { name: name.map(str::to_owned), argv: vec!["fast".to_owned()] };
            let json = r#"{"id":"p","goal":"x","builder":{"kind":"patch","diff":""}}"#;
            let phase = PhaseSpec { builder, ..serde_json::from_str(json).unwrap() };
            config.secrets.asked_by(purpose, &phase)
        };
        assert_eq!(asked(LeasePurpose::Verify, None), ["npm"]);
        assert_eq!(asked(LeasePurpose::Build, Some("fast")), ["db", "npm"]);
        assert!(asked(LeasePurpose::Build, Some("other")).is_empty() && asked(LeasePurpose::Build, None).is_empty());
        let own = r#"{"id":"p","goal":"x","builder":{"kind":"patch","diff":""},"gate":[{"name":"own","run":"true"}]}"#;
        let own: PhaseSpec = serde_json::from_str(own).unwrap();
        let without = PhaseSpec { gate: Vec::new(), ..own.clone() };
        assert!(config.secrets.withheld(LeasePurpose::Verify, &own));
        assert!(!config.secrets.withheld(LeasePurpose::Verify, &without));
        assert!(!config.secrets.withheld(LeasePurpose::Build, &own));
        assert!(!SecretsSection::default().withheld(LeasePurpose::Verify, &own));
        for bad in ["gate = [\"../x\"]", "builders.fast = [\"\"]", "gates = []"] {
            assert!(ProjectConfig::parse(&format!("[secrets]\n{bad}\n"), "f").is_err(), "{bad}");
        }
    }
}
