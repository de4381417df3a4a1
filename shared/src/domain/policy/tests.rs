//! What the built-in policy lists, and how a project's own file changes it.

use super::*;
use crate::domain::path::MatchKey;

fn class(policy: &Policy, path: &str) -> PathClass {
    policy.classify(&MatchKey::of(path).parts()).0
}

#[test]
fn the_built_in_policy_lists_what_the_rules_say() {
    let policy = Policy::builtin();
    for path in [
        "src/autopack/models.py",
        "a/.env",
        "SRC/Autopack/Main.py",
        "x/y.db",
        "a/anchor_v2.json",
        ".github/workflows/ci.yml",
        ".husky",
    ] {
        assert_eq!(class(&policy, path), PathClass::Never, "{path}");
    }
    for path in [
        "src/autopack/x.py",
        "a/b/Cargo.lock",
        "tests/a",
        "x/migrations/1.py",
        "scripts/ci/x",
        ".github/CODEOWNERS",
        "alembic/versions/a/b.py",
    ] {
        assert_eq!(class(&policy, path), PathClass::Protected, "{path}");
    }
    assert_eq!(class(&policy, "README.md"), PathClass::Unlisted);
    assert_eq!(class(&policy, "scripts/x.py"), PathClass::Allowed);
    for pattern in section::FLOOR {
        assert!(policy.never().rules().iter().any(|rule| rule.pattern == *pattern), "{pattern}");
    }
}

#[test]
fn a_rule_knows_its_line() {
    let policy = Policy::builtin();
    let key = MatchKey::of("examples/a.py");
    let (_, rule) = policy.classify(&key.parts());
    let rule = rule.unwrap();
    let line: usize = rule.origin.strip_prefix("builtin/autopack.toml:").unwrap().parse().unwrap();
    assert!(BUILTIN_TEXT.lines().nth(line - 1).unwrap().contains(&rule.pattern));
    assert_eq!(policy.rule_at(&rule.origin), Some(rule));
}

#[test]
fn one_line_moves_a_protected_directory() {
    let policy = Policy::parse("[policy]\nallowed = [\"docs/**\"]\n", "autopack.toml").unwrap();
    assert_eq!(class(&policy, "docs/a.md"), PathClass::Allowed);
    assert_eq!(class(&policy, "tests/a"), PathClass::Protected);
    assert_eq!(class(&policy, "docs/.env"), PathClass::Never);
    assert_eq!(policy.relaxed(), [Rule { pattern: "docs/**".into(), origin: "autopack.toml:2".into() }]);
    assert_ne!(policy.digest(), Policy::builtin().digest());
}

#[test]
fn a_policy_of_its_own_keeps_the_floor() {
    let policy =
        Policy::parse("[policy]\nextends = \"none\"\nallowed = [\"**\"]\nprotected = [\"core/\"]\n", "p").unwrap();
    assert_eq!(class(&policy, "src/autopack/models.py"), PathClass::Allowed);
    assert_eq!(class(&policy, "core/x/y"), PathClass::Protected);
    assert_eq!(class(&policy, "autopack.toml"), PathClass::Never);
}

#[test]
fn what_weakens_or_says_nothing_is_refused() {
    for (text, says) in [
        ("[policy]\n", "no rule"),
        ("[policy]\nextends = \"none\"\n", "no rule"),
        ("", "no rule"),
        ("[policy]\nallowed = [\".env*\"]\n", "p:2"),
        ("[policy]\nextends = \"none\"\nallowed = [\"autopack.toml\"]\n", "never list"),
        ("[policy]\nprotected = [\"a\",\n \"../b\"]\n", "p:3"),
        ("[policy]\nalowed = [\"a\"]\n", "`allowed`"),
        ("[polcy]\nallowed = [\"a\"]\n", "`policy`"),
        ("[policy]\nallowed = [\"a\"]\n[policy.approval]\ntimeout_seconds = 5\n", "60"),
        ("line 1 of xyz\n", "p:1"),
    ] {
        let error = Policy::parse(text, "p").unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
    }
}

#[test]
fn the_digest_ignores_order_and_place() {
    let a = Policy::parse("[policy]\nprotected = [\"a\", \"b\"]\n", "one").unwrap();
    let b = Policy::parse("\n\n[policy]\nprotected = [\"b\", \"a\"]\n", "two").unwrap();
    assert_eq!(a.digest(), b.digest());
}
