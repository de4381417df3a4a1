//! Layers, places and refusals of settings.

use super::*;

fn origin_of<'a>(settings: &'a Settings, key: &str) -> &'a Origin {
    &settings.shown().iter().find(|r| r.key == key).unwrap().origin
}

#[test]
fn nothing_said_means_defaults() {
    let settings = Settings::resolve(None, &Environment::default(), &[]).unwrap();
    assert_eq!((settings.worker_slots, settings.grace_seconds), (2, 10));
    assert_eq!((&settings.server, &settings.limits), (&None, &LimitSettings::default()));
    assert!(settings.shown().iter().all(|r| r.origin == Origin::Default));
}

#[test]
fn each_layer_beats_the_one_below() {
    let file = "[project]\nid = \"x\"\n\n[worker]\nslots = 3\n[limits]\ncost = 1.5\n";
    let env = Environment::from([("AUTOPACK_WORKER_SLOTS", "4"), ("AUTOPACK_DATA_DIR", "/d"), ("AUTOPACK_SERVER", "")]);
    let resolve = |file, env: &Environment, flags: &[(&str, String)]| Settings::resolve(file, env, flags).unwrap();
    let file = Some((file, "autopack.toml"));

    let low = resolve(file, &Environment::default(), &[]);
    assert_eq!((low.worker_slots, low.limits.cost), (3, Some(1.5)));
    assert_eq!(origin_of(&low, "worker.slots").to_string(), "autopack.toml:5");

    let middle = resolve(file, &env, &[]);
    assert_eq!((middle.worker_slots, middle.server.as_deref()), (4, None), "an empty variable is none");
    assert_eq!(origin_of(&middle, "worker.slots").to_string(), "$AUTOPACK_WORKER_SLOTS");

    let high = resolve(file, &env, &[("worker.slots", "5".to_owned()), ("data_dir", "/f".to_owned())]);
    assert_eq!((high.worker_slots, high.data_dir), (5, Some(PathBuf::from("/f"))));
}

#[test]
fn a_wrong_key_is_refused_with_the_right_one() {
    for (text, expected) in [
        ("[worker]\nslot = 1\n", "f:2: unknown key `worker.slot`; did you mean `worker.slots`?"),
        ("\n[wroker]\n", "f:2: unknown key `wroker`; did you mean `worker`?"),
        ("[etcd]\nendpoints = [\"x\"]\n", "f:2: unknown key `etcd.endpoints`"),
        ("[worker.deep]\nslots = 1\n", "f:2: unknown key `worker.deep.slots`"),
        ("worker = 1\n", "f:1: unknown key `worker`"),
    ] {
        let error = Settings::resolve(Some((text, "f")), &Environment::default(), &[]).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_refused_with_its_place() {
    let bad = |text: &str| Settings::resolve(Some((text, "f")), &Environment::default(), &[]).unwrap_err().to_string();
    assert_eq!(bad("[worker]\nslots = 0\n"), "f:2: worker.slots = \"0\": the number is too small");
    assert_eq!(bad("[worker]\nslots = \"many\"\n"), "f:2: worker.slots = \"many\": it must be a whole number");
    assert_eq!(bad("[limits]\ncost = -1.0\n"), "f:2: limits.cost = \"-1.0\": it must be a number that is not negative");
    assert!(bad("[worker\n").starts_with("f:1: "));
}

#[test]
fn every_bound_of_every_scope_is_read() {
    let mut text = "[limits]\nbreaker_failures = 3\ncalls = 9\n".to_owned();
    let mut number = 10;
    let mut wanted = Vec::new();
    for setting in SETTINGS {
        let Some((scope, unit)) = setting.key.strip_prefix("limits.").and_then(|rest| rest.split_once('_')) else {
            continue;
        };
        if matches!(scope, "call" | "attempt" | "phase" | "project" | "day") {
            number += 1;
            text.push_str(&format!("{scope}_{unit} = {number}\n"));
            wanted.push((scope, unit, number));
        }
    }
    let spend = Settings::resolve(Some((&text, "f")), &Environment::default(), &[]).unwrap().spend;
    assert_eq!((spend.breaker_failures, wanted.len()), (3, 20));
    for (scope, unit, number) in wanted {
        let scope = match scope {
            "call" => spend.call,
            "attempt" => spend.attempt,
            "phase" => spend.phase,
            "project" => spend.project,
            _ => spend.day,
        };
        let found = match unit {
            "tokens" => scope.tokens,
            "cost" => scope.cost.map(|cost| cost as u64),
            "calls" => scope.calls,
            "seconds" => scope.seconds,
            _ => scope.files,
        };
        assert_eq!(found, Some(number), "{unit}");
    }
}
