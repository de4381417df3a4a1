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

/// Fields that are lists; a single text in an older form is a list of one.
const LISTS: &[&str] = &[
    "protected_paths",
    "allowed_write_roots",
    "network_allowlist",
    "never_allow",
    "requires_approval",
    "success_signals",
    "desired_outcomes",
    "non_goals",
];

/// Names of keys that narrow what a run may do: an anchor without them would allow more.
const NARROWING: &[&str] = &[
    "must_not",
    "never_allow",
    "never",
    "forbidden",
    "forbidden_paths",
    "deny",
    "scope",
    "scope_boundaries",
    "protected_paths",
    "allowed_paths",
    "allowed_write_roots",
    "network_allowlist",
    "requires_approval",
    "read_only_context",
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
    let text = pretty(&anchor)?;
    left.iter().for_each(|key| ctx.out.warn(&format!("{} has no place in an anchor and was left out", line(key))));
    let narrowing: Vec<&str> = left.iter().map(String::as_str).filter(|key| narrows(key)).collect();
    if !narrowing.is_empty() {
        return Err(CliError::invalid(
            "cannot make an anchor of it",
            format!("it would allow more than the old file did: {} would be lost", narrowing.join(", ")),
            "say it as path:GLOB in safety_risk.never_allow, or as a path in scope_boundaries.protected_paths",
        ));
    }
    ctx.out.text(&text)?;
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
    let mut left: Vec<String> = Vec::new();
    match old.remove("pivot_intentions") {
        Some(Value::Object(given)) => pivots.extend(given),
        Some(other) => leaves("pivot_intentions", &other, &mut left),
        None => {}
    }
    for (path, pivot, field) in MOVED {
        if let Some(value) = take(&mut old, path) {
            put(&mut pivots, (*pivot, *field), value, &path.join("."), &mut left);
        }
    }
    for name in PIVOTS {
        match old.remove(*name) {
            Some(Value::Object(fields)) => {
                for (field, value) in fields {
                    put(&mut pivots, (*name, field.as_str()), value, &format!("{name}.{field}"), &mut left);
                }
            }
            Some(text @ Value::String(_)) if *name == "north_star" => {
                put(&mut pivots, (*name, "desired_outcomes"), text, name, &mut left);
            }
            Some(other) => leaves(name, &other, &mut left),
            None => {}
        }
    }
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
    for about_itself in ["format_version", "schema_version", "version"] {
        old.remove(about_itself);
    }
    old.sort_keys();
    old.values_mut().for_each(Value::sort_all_objects);
    old.iter().for_each(|(key, value)| leaves(key, value, &mut left));
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
            left.push(format!("safety_risk.never_allow {rule}"));
        }
        known
    });
}

/// The full names of everything in a value that says something.
fn leaves(path: &str, value: &Value, left: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| leaves(&format!("{path}.{key}"), value, left));
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => left.push(path.to_owned()),
    }
}

/// Whether a key that is left out, or one above it, narrows.
fn narrows(key: &str) -> bool {
    let path = key.split(' ').next().unwrap_or(key);
    path.split('.').any(|name| NARROWING.contains(&name))
}

fn take(from: &mut Map<String, Value>, path: &[&str]) -> Option<Value> {
    match path {
        [] => None,
        [last] => from.get(*last).filter(|value| !value.is_object()).is_some().then(|| from.remove(*last)).flatten(),
        [first, rest @ ..] => take(from.get_mut(*first)?.as_object_mut()?, rest),
    }
}

/// Lists are joined; of single values the one that is there stays, and another one is named.
fn put(
    pivots: &mut Map<String, Value>,
    (pivot, field): (&str, &str),
    value: Value,
    from: &str,
    left: &mut Vec<String>,
) {
    let value = if value.is_string() && LISTS.contains(&field) { Value::Array(vec![value]) } else { value };
    let Some(fields) = pivots.entry(pivot).or_insert_with(|| json!({})).as_object_mut() else {
        return leaves(from, &value, left);
    };
    match (fields.get_mut(field), value) {
        (Some(Value::Array(there)), Value::Array(more)) => there.extend(more),
        (Some(there), value) if *there == value => {}
        (Some(_), value) => leaves(from, &value, left),
        (None, value) => {
            fields.insert(field.to_owned(), value);
        }
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
        assert_eq!(left, ["safety_risk.never_allow \"be rude\"", "mood"]);
        assert!(narrows(&left[0]) && !narrows(&left[1]));
    }

    #[test]
    fn what_is_dropped_is_named_in_full() {
        let (anchor, left) = converted(
            "north_star: tidy\nconstraints:\n  must_not: 'path:keys/**'\n  style: {tabs: 2, empty: []}\n  \
             scope: {paths: [src/]}\nmetadata: {author: me}\n",
        );
        assert_eq!(anchor.pivot_intentions.north_star.as_ref().unwrap().desired_outcomes, ["tidy"]);
        assert_eq!(anchor.never_allow(), ["path:keys/**"]);
        assert_eq!(left, ["constraints.scope.paths", "constraints.style.tabs", "metadata.author"]);
        let lost: Vec<&String> = left.iter().filter(|key| narrows(key)).collect();
        assert_eq!(lost, ["constraints.scope.paths"]);
    }

    #[test]
    fn what_stands_in_a_pivot_wins_over_the_short_form() {
        let (anchor, left) = converted(
            r#"{"schema_version": 1, "risk_tolerance": "high", "pivot_intentions": {"safety_risk": {"risk_tolerance": "low"}}}"#,
        );
        assert_eq!(anchor.profile(), autopack_shared::domain::anchor::Profile::Strict);
        assert_eq!((anchor.project_id.as_str(), left), ("here", vec!["risk_tolerance".to_owned()]));
    }
}
