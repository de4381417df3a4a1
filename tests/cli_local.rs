//! The commands that need no engine, on real repositories.

use std::process::Stdio;

use crate::harness::Bench;

fn gappy() -> Bench {
    Bench::with(&[
        ("README.md", "# x\n\nSee [the guide](docs/giude.md).\n"),
        ("docs/guide.md", "# Guide\n\nWords that make it long enough to be a document of its own, and a bit more.\n"),
        ("NOTES-old.md", "# Old notes\n"),
    ])
}

#[test]
fn init_writes_explains_and_never_overwrites() {
    let bench = Bench::with(&[("Cargo.toml", "[workspace]\n")]);
    let first = bench.run(&["init", "--write-root", "examples", "--risk-tolerance", "moderate"]).expect(0);
    for named in ["wrote autopack.toml", "wrote .autopack/anchor_v2.json", "allowed_write_roots", "[[gate.commands]]"] {
        assert!(first.stdout.contains(named), "{named}: {}", first.stdout);
    }
    let read = |name: &str| std::fs::read_to_string(bench.repo().join(name)).unwrap();
    assert!(read("autopack.toml").contains("cargo test --workspace"));
    let anchor: serde_json::Value = serde_json::from_str(&read(".autopack/anchor_v2.json")).unwrap();
    assert_eq!(anchor["project_id"], "repo");
    assert_eq!(anchor["pivot_intentions"]["scope_boundaries"]["allowed_write_roots"][0], "examples");

    let both = (read("autopack.toml"), read(".autopack/anchor_v2.json"));
    let second = bench.run(&["init", "--write-root", "other", "-o", "json"]).expect(0);
    assert_eq!(second.json()["wrote"], serde_json::json!([]));
    assert_eq!(both, (read("autopack.toml"), read(".autopack/anchor_v2.json")));

    bench.run(&["policy", "check"]).expect(0);
    bench.run(&["anchor", "lint"]).expect(0);
}

#[test]
fn init_says_which_write_roots_change_nothing_and_what_makes_actions_automatic() {
    let bench = Bench::with(&[("a", "1\n")]);
    let ran = bench.run(&["init", "--write-root", "tests", "--write-root", "notes"]).expect(0);
    assert!(ran.stderr.contains("--write-root tests has no effect"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("--write-root notes"), "{}", ran.stderr);
    assert!(ran.stderr.contains("auto_approve_rules"), "{}", ran.stderr);
}

#[test]
fn an_auto_approve_rule_is_only_told_about_when_it_never_holds() {
    let bench = Bench::with(&[("a", "1\n")]);
    let anchor = bench.run(&["anchor", "new"]).expect(0).stdout;
    let lint = |condition: &str| {
        let mut anchor: serde_json::Value = serde_json::from_str(&anchor).unwrap();
        anchor["pivot_intentions"]["governance_review"]["auto_approve_rules"] =
            serde_json::json!([{ "rule_id": "notes", "description": "x", "conditions": [condition] }]);
        bench.write("anchor.json", &anchor.to_string());
        bench.run(&["anchor", "lint", "anchor.json", "-o", "json"]).expect(0).json()["warnings"].clone()
    };
    assert_eq!(lint("path:examples/**"), serde_json::json!([]));
    assert!(lint("be nice")[0].as_str().unwrap().contains("never holds"));
}

#[test]
fn an_anchor_that_would_allow_more_is_not_converted() {
    let bench = Bench::with(&[("a", "1\n")]);
    bench.write("old.yaml", "project_id: shop\nnorth_star: tidy\nconstraints: {must_not: [be rude], tabs: 2}\n");
    let ran = bench.run(&["anchor", "convert", "old.yaml"]).expect(2);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("constraints.tabs"), "{ran:?}");
    bench.write("old.yaml", "project_id: shop\nnorth_star: tidy\nconstraints: {tabs: 2}\n");
    let ran = bench.run(&["anchor", "convert", "old.yaml"]).expect(0);
    assert!(ran.stderr.contains("constraints.tabs has no place"), "{ran:?}");
    assert_eq!(ran.json()["pivot_intentions"]["north_star"]["desired_outcomes"], serde_json::json!(["tidy"]));
}

#[test]
fn init_refuses_a_file_it_cannot_use_and_writes_nothing() {
    let bench = Bench::with(&[("a", "1\n")]);
    bench.write("autopack.toml", "[policy]\nx = 1\n");
    bench.run(&["init"]).expect(2);
    assert!(!bench.repo().join(".autopack").exists());
    let bad_root = bench.run(&["anchor", "new", "--write-root", "../out"]).expect(2);
    assert!(bad_root.stderr.contains("write root"), "{}", bad_root.stderr);
}

#[test]
fn two_scans_give_the_same_report_and_change_nothing() {
    let bench = gappy();
    let scan = || {
        let mut report = bench.run(&["gaps", "scan", "-o", "json"]).expect(0).json();
        report["generated_at"] = serde_json::Value::Null;
        report
    };
    let report = scan();
    assert_eq!(report, scan());
    assert_eq!(report["format"], "gap_report/1");
    let kinds: Vec<&str> =
        report["gaps"].as_array().unwrap().iter().map(|gap| gap["gap_type"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"root_clutter") && kinds.contains(&"doc_drift"), "{kinds:?}");
    assert!(!bench.repo().join(".autonomous_runs").exists(), "read-only unless --write");
}

#[test]
fn a_report_is_kept_where_the_seed_says_and_stays_out_of_git() {
    let bench = gappy();
    bench.run(&["gaps", "scan", "--write", "--run-id", "r1", "--sarif", "../gaps.sarif"]).expect(0);
    let kept = bench.repo().join(".autonomous_runs/r1/gaps/gap_report_v1.json");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(report["run_id"], "r1");
    let sarif: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.path().join("gaps.sarif")).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"].as_array().unwrap().len(), report["gaps"].as_array().unwrap().len());
    let home = bench.path().join("home");
    let repo_arg = bench.repo().display().to_string();
    bench.run_in(&home, &["--repo", &repo_arg, "gaps", "scan", "--sarif", "s.sarif"], &[]).expect(0);
    assert!(home.join("s.sarif").exists(), "a bare name is in the current folder");
    let repo = git2::Repository::open(bench.repo()).unwrap();
    assert!(repo.statuses(None).unwrap().iter().all(|status| status.status() == git2::Status::IGNORED));
}

#[test]
fn a_plan_names_builder_status_and_reason() {
    let bench = gappy();
    bench.run(&["init", "--write-root", "docs", "--risk-tolerance", "moderate"]).expect(0);
    bench.commit("init");
    let plan = bench.run(&["plan", "propose", "-o", "json", "--write", "--run-id", "p1"]).expect(0).json();
    assert_eq!(plan["format"], "plan_proposal/1");
    for action in plan["actions"].as_array().unwrap() {
        assert!(action["approval_status"].is_string() && action["approval_reason"].is_string(), "{action}");
    }
    assert!(bench.repo().join(".autonomous_runs/p1/planning/plan_proposal_v1.json").exists());
    let shown = bench.run(&["plan", "propose"]).expect(0);
    assert!(shown.stdout.contains("action(s):"), "{}", shown.stdout);
}

#[test]
fn the_policy_of_the_base_judges_and_not_that_of_the_change() {
    let bench = Bench::with(&[("lib/a.py", "1\n")]);
    let policy = "[policy]\nextends = \"autopack\"\nallowed = [\"lib/**\"]\n";
    bench.write("autopack.toml", policy);
    bench.write("lib/a.py", "2\n");
    bench.commit("loosen");
    let codes = |args: &[&str]| {
        let verdict = bench.run(args).json();
        let codes = verdict["reasons"].as_array().unwrap().iter().map(|r| r["code"].as_str().unwrap().to_owned());
        (verdict["verdict"].as_str().unwrap().to_owned(), codes.collect::<Vec<_>>())
    };
    let (verdict, reasons) = codes(&["policy", "eval", "--range", "HEAD~1..HEAD", "-o", "json"]);
    assert_eq!(verdict, "BLOCKED");
    assert!(reasons.contains(&"path_default_deny".to_owned()), "{reasons:?}");
    bench.write("lib/a.py", "3\n");
    bench.commit("three");
    bench.write("anchor.json", &bench.run(&["anchor", "new", "--risk-tolerance", "moderate"]).stdout);
    let (verdict, _) = codes(&["policy", "eval", "--range", "HEAD~1..HEAD", "--anchor", "anchor.json", "-o", "json"]);
    assert_eq!(verdict, "AUTO_APPROVED");
}

#[test]
fn a_patch_is_read_from_stdin_and_explained() {
    use std::io::Write as _;
    let bench = Bench::with(&[("examples/a.py", "1\n")]);
    let args = ["policy", "explain", "--patch", "-", "--base", "HEAD"];
    let mut child =
        bench.command(&bench.repo()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"no patch at all\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("malformed_patch") && text.contains("nothing is guessed"), "{text}");
}

#[test]
fn settings_name_where_they_came_from() {
    let bench = Bench::with(&[("autopack.toml", "[policy]\nextends = \"autopack\"\n[worker]\nslots = 3\n")]);
    let shown = bench.run_in(
        &bench.repo(),
        &["config", "show", "-o", "json", "--data-dir", "/d"],
        &[("AUTOPACK_LIMITS_FILES", "9")],
    );
    let shown = shown.expect(0).json();
    let origin = |key: &str| {
        let all = shown["settings"].as_array().unwrap();
        all.iter().find(|one| one["key"] == key).unwrap()["origin"].as_str().unwrap().to_owned()
    };
    assert_eq!(origin("worker.slots"), "autopack.toml:4");
    assert_eq!(origin("limits.files"), "$AUTOPACK_LIMITS_FILES");
    assert_eq!(origin("data_dir"), "--data-dir");
    assert_eq!(origin("supervisor.grace_seconds"), "default");
}

#[test]
fn the_gate_on_paper_answers_also_what_cannot_be_read() {
    let bench = Bench::with(&[("a", "1\n")]);
    let check = |more: &[&str], code| {
        let ran = bench.run(&[&["gate", "check", "--workers", "2", "-o", "json"], more].concat()).expect(code).json();
        (ran["allow"].clone(), ran["reason"].as_str().unwrap().to_owned())
    };
    let no = |reason: &str| (serde_json::json!(false), reason.to_owned());
    assert_eq!(check(&["--anchor", "/nope", "--runs", "2"], 5), no("anchor_invalid"));
    assert_eq!(check(&["--anchor", ".", "--runs", "2"], 5), no("anchor_invalid"));
    assert_eq!(check(&["--runs", "99999999999999999999"], 2), no("invalid_input"));
}
