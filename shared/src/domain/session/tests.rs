//! Tests of the session: its life as a table, and what it records.

use std::collections::BTreeMap;

use super::*;
use crate::domain::anchor::IntentionAnchorV2;
use crate::domain::gap::{Gap, GapReportV1, GapType, ReportHead, RiskClass};
use crate::domain::plan::{PlanProposalV1, ProposeOptions, propose};
use crate::domain::policy::Policy;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn plan(gaps: Vec<Gap>) -> PlanProposalV1 {
    let text = r#"{"format_version":"v2","project_id":"p","created_at":"2026-01-01T00:00:00Z","raw_input_digest":"0123456789abcdef","pivot_intentions":{}}"#;
    let head = ReportHead {
        project_id: "p".into(),
        run_id: "r".into(),
        generated_at: at(0),
        digest: None,
        workspace_state: vec![],
        notices: vec![],
    };
    let builders = BTreeMap::new();
    let options = ProposeOptions { now: at(0), builders: &builders, first_build: false };
    let anchor = IntentionAnchorV2::parse(text).unwrap();
    propose(&GapReportV1::assemble(head, gaps), &anchor, &Policy::builtin(), &options)
}

#[test]
fn the_table_of_moves() {
    let mut table = String::new();
    for from in SessionStatus::ALL {
        let to: Vec<String> =
            SessionStatus::ALL.into_iter().filter(|to| from.allows(*to)).map(|to| format!("{to:?}")).collect();
        table += &format!("{from:?} ({}): {}\n", if from.is_open() { "open" } else { "over" }, to.join(" "));
        assert!(from.is_open() != to.is_empty(), "{from:?}");
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_session_begins_as_what_it_is() {
    let gap = Gap::new(GapType::Unknown, RiskClass::High, &["x".into()]);
    let some = plan(vec![gap]);
    let begin = |plan: &PlanProposalV1, enabled| AutopilotSessionV1::begin("autopilot-1".into(), plan, enabled, at(5));
    assert_eq!(begin(&some, true).status, SessionStatus::Planned);
    let dry = begin(&some, false);
    assert_eq!((dry.status, dry.completed_at), (SessionStatus::DryRun, Some(at(5))));
    assert_eq!(begin(&plan(vec![]), true).status, SessionStatus::NothingToDo);
    assert_eq!(dry.approval_requests.len(), 1);
    assert_eq!(dry.approval_requests[0].approval_status, ApprovalStatus::Blocked);
    assert_eq!(dry.approval_requests[0].action_digest, some.actions[0].digest().ok());
    assert_eq!(dry.plan_proposal_id, some.id());
}

#[test]
fn what_is_executed_is_counted_and_the_end_is_the_end() {
    let gap = Gap::new(GapType::Unknown, RiskClass::High, &["x".into()]);
    let mut session = AutopilotSessionV1::begin("autopilot-1".into(), &plan(vec![gap]), true, at(5));
    session.go(SessionStatus::Running, None, at(6)).unwrap();
    session.record("a", Ok(()));
    let error = SessionError {
        timestamp: at(7),
        action_id: Some("b".into()),
        error_type: "unsupported".into(),
        error_message: "x".into(),
    };
    session.record("b", Err(error));
    let sum = session.execution_summary;
    assert_eq!((sum.executed_actions, sum.successful_actions, sum.failed_actions), (2, 1, 1));
    session.go(SessionStatus::AwaitingApproval, Some("one action waits".into()), at(8)).unwrap();
    assert_eq!(session.completed_at, None);
    session.go(SessionStatus::Failed, None, at(105)).unwrap();
    assert_eq!(session.metadata.session_duration_ms, Some(100));
    assert!(session.go(SessionStatus::Running, None, at(106)).is_err());
    let json = serde_json::to_string(&session).unwrap();
    assert_eq!(serde_json::from_str::<AutopilotSessionV1>(&json).unwrap(), session);
    let old = json.replace("\"failed\"", "\"blocked_approval_required\"");
    let old: AutopilotSessionV1 = serde_json::from_str(&old).unwrap();
    assert_eq!(old.status, SessionStatus::AwaitingApproval, "the predecessor's name is read");
}
