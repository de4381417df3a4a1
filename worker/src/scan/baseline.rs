//! `baseline_policy_drift`: `config/baseline_policy.yaml` is missing.

use autopack_shared::domain::gap::{Gap, GapType, RiskClass};

use super::detector::DetectorError;
use super::facts::Facts;
use crate::remediation::BASELINE_POLICY;

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    if facts.listing()?.contains(BASELINE_POLICY) || !facts.concerns(BASELINE_POLICY) {
        return Ok(Vec::new());
    }
    let path = vec![BASELINE_POLICY.to_owned()];
    let mut gap = Gap::new(GapType::BaselinePolicyDrift, RiskClass::Medium, &path);
    gap.title = Some("The baseline policy is missing".to_owned());
    gap.detection_signals = vec![format!("missing: {BASELINE_POLICY}")];
    gap.evidence.file_paths = path.clone();
    gap.safe_remediation.approach = Some("Write one that allows nothing by itself and says what it is for.".to_owned());
    gap.safe_remediation.estimated_actions = Some(1);
    gap.safe_remediation.target_paths = Some(path);
    Ok(vec![gap])
}
