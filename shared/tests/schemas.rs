//! The artifacts ship as JSON Schema, generated from the types; this keeps `docs/schemas/` equal to them.

#![allow(clippy::unwrap_used, reason = "a step that cannot be taken must fail its test")]

use std::path::Path;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::gap::GapReportV1;
use autopack_shared::domain::plan::PlanProposalV1;
use autopack_shared::domain::run_file::RunFile;
use autopack_shared::domain::sandbox::SandboxSelftestV1;
use autopack_shared::domain::session::AutopilotSessionV1;

fn check(name: &str, schema: &schemars::Schema) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas").join(format!("{name}.schema.json"));
    let wanted = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    // As values: the order of keys is that of whichever map serde_json was built with.
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let found = std::fs::read_to_string(&path).unwrap();
    assert_eq!(value(&found), value(&wanted), "{} is out of date: remove it and run this test again", path.display());
}

#[test]
fn the_schemas_are_those_of_the_types() {
    check("intention_anchor_v2", &schemars::schema_for!(IntentionAnchorV2));
    check("gap_report_v1", &schemars::schema_for!(GapReportV1));
    check("plan_proposal_v1", &schemars::schema_for!(PlanProposalV1));
    check("autopilot_session_v1", &schemars::schema_for!(AutopilotSessionV1));
    check("sandbox_selftest_v1", &schemars::schema_for!(SandboxSelftestV1));
    check("run_file", &schemars::schema_for!(RunFile));
}
