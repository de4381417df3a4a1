//! `anchor convert`: reads what the predecessor and the seed wrote, in JSON or YAML, and prints a whole anchor. What
//! has no place in it is named and left out, never guessed.

use serde_json::{Map, Value, json};

use autopack_shared::domain::anchor::IntentionAnchorV2;

use super::pretty;
use crate::args::local::AnchorConvert;
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::rules::project_of_folder;
use crate::terminal::line;

/// The nine pivots by name.
const PIVOTS: &[&str] = &[
    "north_star",
    "safety_risk",
    "evidence_verification",
    "scope_boundaries",
    "budget_cost",
    "memory_continuity",
    "governance_review",
    "parallelism_isolation",
    "deployment",
];

/// Keys of older forms and where they belong: the old path, the pivot, the field.
const MOVED: &[(&[&str], &str, &str)] = &[
    (&["constraints", "protected_paths"], "scope_boundaries", "protected_paths"),
    (&["constraints", "allowed_paths"], "scope_boundaries", "allowed_write_roots"),
    (&["constraints", "allowed_write_roots"], "scope_boundaries", "allowed_write_roots"),
    (&["constraints", "must_not"], "safety_risk", "never_allow"),
    (&["constraints", "never_allow"], "safety_risk", "never_allow"),
    (&["success_criteria"], "north_star", "success_signals"),
    (&["goals"], "north_star", "desired_outcomes"),
    (&["non_goals"], "north_star", "non_goals"),
    (&["parallelism", "allowed"], "parallelism_isolation", "allowed"),
    (&["parallelism", "max_concurrent_runs"], "parallelism_isolation", "max_concurrent_runs"),
    (&["parallelism", "isolation_model"], "parallelism_isolation", "isolation_model"),
    (&["parallelism", "isolation_level"], "parallelism_isolation", "isolation_model"),
    (&["parallelism_isolation", "isolation_level"], "parallelism_isolation", "isolation_model"),
    (&["protected_paths"], "scope_boundaries", "protected_paths"),
    (&["allowed_write_roots"], "scope_boundaries", "allowed_write_roots"),
    (&["risk_tolerance"], "safety_risk", "risk_tolerance"),
    (&["budgets", "max_tokens"], "budget_cost", "token_cap_global"),
];

/// Runs `anchor convert`.
pub(super) fn run(ctx: &Context, args: &AnchorConvert) -> Result<Exit, CliError> {
    let text = std::fs::read_to_string(&args.file).during(format!("read {}", args.file.display()))?;
    if let Ok(anchor) = IntentionAnchorV2::parse(&text) {
        ctx.out.text(&pretty(&anchor)?)?;
        ctx.out.note("it is a whole anchor already; only its layout changed");
        return Ok(Exit::Done);
    }
    // YAML reads JSON as well.
    let document: Value = serde_norway::from_str(&text).map_err(|error| {
        CliError::invalid("cannot read the file", error.to_string(), "give an anchor in JSON or YAML")
    })?;
    let Value::Object(old) = document else {
        return Err(CliError::invalid(
            "cannot read the file",
            "it holds no table of keys",
            "give an anchor in JSON or YAML",
        ));
    };
    let fallback = || match (&args.project_id, ctx.root()) {
        (Some(name), _) => name.clone(),
        (None, Ok(root)) => project_of_folder(&root).to_string(),
        (None, Err(_)) => "project".to_owned(),
    };
    let (new, left) = convert(old, &text, fallback, json!(ctx.clock.wall()));
    let anchor: IntentionAnchorV2 = serde_json::from_value(new).map_err(|error| {
        CliError::invalid("cannot make an anchor of it", error.to_string(), "correct the value in the old file")
    })?;
    ctx.out.text(&pretty(&anchor)?)?;
    left.iter().for_each(|key| ctx.out.warn(&format!("{} has no place in an anchor and was left out", line(key))));
    Ok(Exit::Done)
}

/// The new document, and the keys that have no place in it.
fn convert(
    mut old: Map<String, Value>,
    text: &str,
    project: impl FnOnce() -> String,
    now: Value,
) -> (Value, Vec<String>) {
    let mut pivots = Map::new();
    if let Some(Value::Object(given)) = old.remove("pivot_intentions") {
        pivots.extend(given);
    }
    for (path, pivot, field) in MOVED {
        if let Some(value) = take(&mut old, path) {
            put(&mut pivots, pivot, field, value);
        }
    }
    for name in PIVOTS {
        if let Some(Value::Object(fields)) = old.remove(*name) {
            for (field, value) in fields {
                put(&mut pivots, name, &field, value);
            }
        }
    }
    let mut left: Vec<String> = Vec::new();
    tidy(&mut pivots, &mut left);
    let text_of = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let digest = text_of(old.remove("raw_input_digest"));
    let new = json!({
        "format_version": "v2",
        "project_id": text_of(old.remove("project_id")).unwrap_or_else(project),
        "created_at": old.remove("created_at").unwrap_or(now),
        "raw_input_digest": digest.unwrap_or_else(|| IntentionAnchorV2::raw_input_digest_of(text)),
        "pivot_intentions": pivots,
        "metadata": { "source": "autopack anchor convert", "tags": [] },
    });
    for known in ["format_version", "schema_version", "version", "updated_at", "metadata", "anchor_id", "run_id"] {
        old.remove(known);
    }
    left.extend(old.into_iter().filter(|(_, value)| !is_empty(value)).map(|(key, _)| key));
    (new, left)
}

/// Predicates that are no predicates are words that nothing would follow: an anchor that keeps them is refused.
fn tidy(pivots: &mut Map<String, Value>, left: &mut Vec<String>) {
    let Some(Value::Array(rules)) = pivots.get_mut("safety_risk").and_then(|pivot| pivot.get_mut("never_allow")) else {
        return;
    };
    rules.retain(|rule| {
        let known = rule.as_str().is_some_and(|rule| rule.starts_with("path:"));
        if !known {
            left.push(format!("never_allow {rule}"));
        }
        known
    });
}

fn take(from: &mut Map<String, Value>, path: &[&str]) -> Option<Value> {
    match path {
        [] => None,
        [last] => from.get(*last).filter(|value| !value.is_object()).is_some().then(|| from.remove(*last)).flatten(),
        [first, rest @ ..] => take(from.get_mut(*first)?.as_object_mut()?, rest),
    }
}

/// Lists are joined; of single values the one that is there stays.
fn put(pivots: &mut Map<String, Value>, pivot: &str, field: &str, value: Value) {
    let Some(fields) = pivots.entry(pivot).or_insert_with(|| json!({})).as_object_mut() else { return };
    match (fields.get_mut(field), value) {
        (Some(Value::Array(there)), Value::Array(more)) => there.extend(more),
        (Some(_), _) => {}
        (None, value) => {
            fields.insert(field.to_owned(), value);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(text: &str) -> (IntentionAnchorV2, Vec<String>) {
        let Value::Object(old) = serde_norway::from_str(text).unwrap() else { panic!("a table") };
        let (new, left) = convert(old, text, || "here".to_owned(), json!("2026-01-01T00:00:00Z"));
        (IntentionAnchorV2::parse(&new.to_string()).unwrap(), left)
    }

    #[test]
    fn the_seeds_short_form_finds_its_pivots() {
        let (anchor, left) = converted(
            "project_id: shop\nconstraints:\n  protected_paths: [src/core/**]\n  must_not: ['path:keys/**', be rude]\n\
             parallelism_isolation:\n  allowed: true\n  isolation_level: four_layer\n  max_concurrent_runs: 3\nmood: good\n",
        );
        assert_eq!((anchor.project_id.as_str(), anchor.protected_paths()), ("shop", &["src/core/**".to_owned()][..]));
        assert_eq!(anchor.never_allow(), ["path:keys/**"]);
        assert_eq!(anchor.pivot_intentions.parallelism_isolation.unwrap().max_concurrent_runs, 3);
        assert_eq!(left, ["never_allow \"be rude\"", "mood"]);
    }

    #[test]
    fn what_stands_in_a_pivot_wins_over_the_short_form() {
        let (anchor, left) = converted(
            r#"{"schema_version": 1, "risk_tolerance": "high", "pivot_intentions": {"safety_risk": {"risk_tolerance": "low"}}}"#,
        );
        assert_eq!(anchor.profile(), autopack_shared::domain::anchor::Profile::Strict);
        assert_eq!((anchor.project_id.as_str(), left.len()), ("here", 0));
    }
}
