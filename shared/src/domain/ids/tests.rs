//! Names, digests and instants.

use super::*;

#[test]
fn run_ids_follow_the_grammar() {
    for good in ["a", "fix-docs", "tidy.2", "a_b", &"x".repeat(63)] {
        assert!(RunId::new(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "A",
        "a/b",
        "../x",
        "a..b",
        "a.",
        "a.lock",
        "-a",
        ".a",
        "é",
        "locks",
        "autopack.db-wal",
        "notices.jsonl",
        &"x".repeat(64),
        "a\n",
    ] {
        assert!(RunId::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn timestamps_show_milliseconds_and_round_trip() {
    let at = Timestamp::from_millis(1_767_225_600_123);
    assert_eq!(at.to_string(), "2026-01-01T00:00:00.123Z");
    let json = serde_json::to_string(&at).unwrap();
    assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
}

#[test]
fn digest_of_json_ignores_key_order() {
    let a: serde_json::Value = serde_json::from_str(r#"{"b":1,"a":[2]}"#).unwrap();
    let b: serde_json::Value = serde_json::from_str(r#"{"a":[2],"b":1}"#).unwrap();
    assert_eq!(Digest::of_json(&a).unwrap(), Digest::of_json(&b).unwrap());
}
