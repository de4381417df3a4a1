//! What an anchor may say, and how a wrong one is refused.

use super::*;

fn text(pivots: &str) -> String {
    format!(
        "{{\n\"format_version\":\"v2\",\n\"project_id\":\"p\",\n\"created_at\":\"2026-01-01T00:00:00Z\",\n\
         \"raw_input_digest\":\"0123456789abcdef\",\n\"pivot_intentions\":{pivots}\n}}"
    )
}

#[test]
fn defaults_are_the_predecessors() {
    let anchor =
        IntentionAnchorV2::parse(&text(r#"{"parallelism_isolation":{},"budget_cost":{},"safety_risk":{}}"#)).unwrap();
    let pivots = &anchor.pivot_intentions;
    assert_eq!(pivots.parallelism_isolation, Some(ParallelismIsolation::default()));
    assert_eq!(pivots.budget_cost.as_ref().unwrap().cost_escalation_policy, CostEscalation::RequestApproval);
    assert_eq!(anchor.profile(), Profile::Strict);
    assert!(pivots.deployment.is_none());
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let error = IntentionAnchorV2::parse(&text("{\"parallelism_isolation\":{\n\"isolation_level\":1}}")).unwrap_err();
    let AnchorError::Syntax { field, line, message, .. } = error else { panic!("{error}") };
    assert_eq!(line, 7);
    assert!(field.starts_with("pivot_intentions.parallelism_isolation"), "{field}");
    assert!(message.contains("isolation_level"), "{message}");
}

#[test]
fn values_that_break_a_rule_are_named() {
    let cases = [
        (text("{}").replace("\"v2\"", "\"v1\""), "format_version", 2),
        (text("{}").replace("\"p\"", "\" \""), "project_id", 3),
        (text("{}").replace("0123456789abcdef", "XYZ"), "raw_input_digest", 5),
        (
            text(r#"{"parallelism_isolation":{"max_concurrent_runs":0}}"#),
            "pivot_intentions.parallelism_isolation.max_concurrent_runs",
            6,
        ),
        (
            text(r#"{"safety_risk":{"never_allow":["path:a/**","delete prod"]}}"#),
            "pivot_intentions.safety_risk.never_allow[1]",
            6,
        ),
        (text(r#"{"safety_risk":{"never_allow":["path:"]}}"#), "pivot_intentions.safety_risk.never_allow[0]", 6),
        (
            text(r#"{"scope_boundaries":{"allowed_write_roots":["../x"]}}"#),
            "pivot_intentions.scope_boundaries.allowed_write_roots[0]",
            6,
        ),
    ];
    for (text, expected, at) in cases {
        let error = IntentionAnchorV2::parse(&text).unwrap_err();
        let AnchorError::Invalid { field, line, .. } = error else { panic!("{error}") };
        assert_eq!((field.as_str(), line), (expected, at));
    }
}

#[test]
fn the_digest_depends_on_what_is_said_and_not_on_how() {
    let a = IntentionAnchorV2::parse(&text(r#"{"north_star":{"desired_outcomes":["x"],"non_goals":[]}}"#)).unwrap();
    let b = IntentionAnchorV2::parse(&text(
        r#"{"north_star": {"non_goals":[], "success_signals":[], "desired_outcomes":["x"]}}"#,
    ))
    .unwrap();
    let c = IntentionAnchorV2::parse(&text(r#"{"north_star":{"desired_outcomes":["y"]}}"#)).unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_ne!(a.digest(), c.digest());
    let again = IntentionAnchorV2::parse(&serde_json::to_string_pretty(&a).unwrap()).unwrap();
    assert_eq!(again, a);
}

#[test]
fn trailing_text_and_duplicate_keys_are_refused() {
    assert!(IntentionAnchorV2::parse(&format!("{} x", text("{}"))).is_err());
    assert!(
        IntentionAnchorV2::parse(
            &text("{}").replace("\"project_id\":\"p\",", "\"project_id\":\"p\",\"project_id\":\"q\",")
        )
        .is_err()
    );
}

#[test]
fn where_runs_keep_their_data_is_one_of_three_words() {
    let said = |pivot: &str| IntentionAnchorV2::parse(&text(&format!(r#"{{"parallelism_isolation":{pivot}}}"#)));
    assert_eq!(said("{}").unwrap().run_data(), None);
    for (word, model) in
        [("sqlite", RunDataModel::Sqlite), ("schema", RunDataModel::Schema), ("database", RunDataModel::Database)]
    {
        assert_eq!(said(&format!(r#"{{"run_data":"{word}"}}"#)).unwrap().run_data(), Some(model));
    }
    let error = said(r#"{"run_data":"mysql"}"#).unwrap_err().to_string();
    assert!(error.starts_with("pivot_intentions.parallelism_isolation.run_data (line 6"), "{error}");
    assert!(error.contains("expected one of `sqlite`, `schema`, `database`"), "{error}");
}
