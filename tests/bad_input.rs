//! Input that cannot be used: a stable reason, what, why, what to do, and nothing changed.

use std::process::Stdio;

use git2::Repository;

use crate::harness::{Bench, Ran};

mod repositories;

/// The reason in the first line of a failure.
fn reason(ran: &Ran) -> &str {
    let line = ran.stderr.lines().find(|line| line.starts_with("error[")).unwrap_or_else(|| panic!("{ran:?}"));
    line.trim_start_matches("error[").split(']').next().unwrap()
}

#[test]
fn failures_have_three_lines() {
    let bench = Bench::with(&[("README.md", "# x\n")]);
    let folder = bench.path().join("home");
    let mut all = String::new();
    let mut tried = |name: &str, ran: Ran| {
        let text = bench.stable(&ran.stderr);
        assert!(text.contains("\n  because: ") && text.contains("\n  do this: "), "{text}");
        all.push_str(&format!("{name} -> {}\n{text}\n", ran.code));
    };
    tried("outside of a repository", bench.run_in(&folder, &["gaps", "scan"], &[]));
    tried("a folder that is none", bench.run(&["--repo", "../home", "gaps", "scan"]));
    tried("an unknown revision", bench.run(&["policy", "eval", "--range", "nope..HEAD"]));
    tried("no range", bench.run(&["policy", "eval", "--range", "HEAD"]));
    tried("no anchor", bench.run(&["plan", "propose"]));
    tried("a missing patch", bench.run(&["policy", "eval", "--patch", "nope.diff", "--base", "HEAD"]));
    tried("governance off", bench.run_in(&bench.repo(), &["gaps", "scan"], &[("AUTOPACK_GOVERNANCE_DISABLED", "1")]));
    tried("a server", bench.run(&["runs", "list", "--server", "http://localhost:1"]));
    tried("sarif elsewhere", bench.run(&["plan", "propose", "-o", "sarif"]));
    tried("a missing config", bench.run(&["--config", "nope.toml", "config", "show"]));
    bench.run_in(&bench.repo(), &["config", "show"], &[("AUTOPACK_GOVERNANCE_DISABLED", "")]).expect(78);
    insta::assert_snapshot!(all);
}

#[test]
fn a_bare_or_empty_repository_is_refused_by_name() {
    let bench = Bench::empty();
    Repository::init_bare(bench.path().join("bare.git")).unwrap();
    let bare = bench.run(&["--repo", "../bare.git", "gaps", "scan"]).expect(2);
    assert_eq!(reason(&bare), "bare_repository");
    assert_eq!(reason(&bench.run(&["--repo", "../bare.git", "init"]).expect(2)), "bare_repository");
    Repository::init(bench.repo()).unwrap();
    for command in [&["gaps", "scan"][..], &["plan", "propose"], &["autopilot", "run"]] {
        assert_eq!(reason(&bench.run(command).expect(2)), "empty_repository", "{command:?}");
    }
}

#[test]
fn a_repository_in_an_unknown_format_is_refused() {
    let bench = Bench::with(&[("a", "1\n")]);
    let config = bench.repo().join(".git/config");
    let text = std::fs::read_to_string(&config).unwrap() + "[extensions]\n\tobjectformat = sha256\n";
    std::fs::write(&config, text.replace("repositoryformatversion = 0", "repositoryformatversion = 1")).unwrap();
    let ran = bench.run(&["policy", "eval", "--range", "HEAD..HEAD"]).expect(2);
    assert_eq!(reason(&ran), "unsupported_repository");
}

#[test]
fn a_policy_with_an_unknown_key_or_without_rules_does_not_load() {
    let bench = Bench::with(&[("a", "1\n")]);
    for (text, named) in [
        ("[policy]\nextends = \"none\"\n", "no rule"),
        ("[policy]\nalowed = [\"x/**\"]\n", "autopack.toml:2: unknown key `alowed`; did you mean `allowed`?"),
        ("[polcy]\n", "did you mean `policy`?"),
        ("not toml", "autopack.toml:1"),
    ] {
        bench.write("autopack.toml", text);
        for command in [&["policy", "check"][..], &["gaps", "scan"]] {
            let ran = bench.run(command).expect(2);
            assert!(ran.stderr.contains(named), "{command:?} {text:?}: {}", ran.stderr);
        }
    }
    bench.write("autopack.toml", "[policy]\nalowed = [\"x/**\"]\n");
    bench.commit("a policy that does not load");
    let up = bench.run(&["up"]).expect(2);
    assert!(reason(&up) == "policy_invalid" && up.stderr.contains("unknown key `alowed`"), "{}", up.stderr);
    bench.write("autopack.toml", "[worker]\nslotz = 1\n");
    let ran = bench.run(&["policy", "check"]).expect(2);
    assert!(ran.stderr.contains("did you mean `worker.slots`?"), "{}", ran.stderr);
}

#[test]
fn an_anchor_with_an_unknown_key_does_not_load() {
    let bench = Bench::with(&[("a", "1\n")]);
    bench.write(".autopack/anchor_v2.json", "{\n \"format_version\": \"v2\",\n \"mood\": 1\n}\n");
    for command in [&["gaps", "scan"][..], &["plan", "propose"], &["anchor", "show"], &["autopilot", "run"]] {
        let ran = bench.run(command).expect(2);
        assert!(ran.stderr.contains("mood"), "{command:?}: {}", ran.stderr);
    }
    let lint = bench.run(&["anchor", "lint", "-o", "json"]).expect(2).json();
    assert_eq!((&lint["valid"], lint["error"]["fix"].is_string()), (&serde_json::json!(false), true));
}

#[test]
fn a_policy_of_the_base_that_cannot_be_used_never_falls_back() {
    let bench = Bench::with(&[("autopack.toml", "[policy]\nnevver = [\"x\"]\n"), ("examples/a", "1\n")]);
    bench.write("examples/a", "2\n");
    bench.commit("two");
    let ran = bench.run(&["policy", "eval", "--range", "HEAD~1..HEAD"]).expect(2);
    assert_eq!(reason(&ran), "policy_invalid");
    bench.write("ok.toml", "[policy]\nextends = \"autopack\"\n");
    bench.write("ok.json", &bench.run(&["anchor", "new"]).expect(0).stdout);
    let named = ["policy", "eval", "--range", "HEAD~1..HEAD", "--policy", "ok.toml", "--anchor", "ok.json"];
    bench.run(&named).expect(0);
}

#[test]
fn hostile_names_never_reach_the_terminal() {
    let bench = Bench::with(&[("README.md", "# x\n")]);
    bench.write("no\u{1b}[31mte\u{202e}.md", "x\n");
    bench.commit("hostile");
    for command in [&["gaps", "scan"][..], &["policy", "explain", "--range", "HEAD~1..HEAD"]] {
        let ran = bench.run(command);
        let all = ran.stdout + &ran.stderr;
        assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}'), "{all}");
        assert!(all.contains("1b"), "the name is shown escaped: {all}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = Bench::empty();
    let mut child = bench.command(&bench.repo()).args(["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
