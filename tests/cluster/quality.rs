//! The quality gate on a cluster: whichever worker has it, what one has learned of the base and of flaky tests serves all.

use git2::Repository;
use serde_json::{Value, json};

use super::site::{Cluster, Size};
use super::{ONE, until};

/// Each file `examples/NAME.t` is a test: its text says what becomes of it.
const SUITE: &str = r#"
bad=0
{
  echo "<testsuite name='s'>"
  for file in examples/*.t; do
    name=$(basename "$file" .t)
    word=$(cat "$file")
    if [ "$word" = flaky ] && [ -e "./.seen" ]; then word=pass; fi
    if [ "$word" = flaky ]; then : > "./.seen"; fi
    if [ "$word" = pass ]; then echo "<testcase name='$name'/>"; continue; fi
    bad=1
    echo "<testcase name='$name'><failure message='$word'/></testcase>"
  done
  echo "</testsuite>"
} > "$AUTOPACK_REPORT"
exit $bad
"#;

const RULES: &str = "[policy]\nextends = \"autopack\"\n[[gate.commands]]\nname = \"suite\"\nrun = \"sh ci/suite.sh\"\n\
                     report = \"junit\"\ntimeout_seconds = 60\n";

/// A run that adds one test and is applied by itself.
fn adds(run: &str, test: &str, word: &str) -> Value {
    let path = format!("examples/{test}.t");
    let diff = format!(
        "diff --git a/{path} b/{path}\nnew file mode 100644\nindex 0000000..1111111\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{word}\n"
    );
    let phase = json!({
        "id": "one", "goal": format!("add {path}"), "category": "documentation", "scope": { "paths": [path] },
        "builder": { "kind": "patch", "diff": diff },
    });
    json!({ "run_id": run, "phases": [phase] })
}

#[test]
fn a_gate_charges_what_is_new_whoever_runs_it() {
    let files = [("autopack.toml", RULES), ("ci/suite.sh", SUITE), ("examples/old.t", "fail\n")];
    let cluster = Cluster::start_with_files(&files, &Size { members: 1, supervisors: 2, workers: 2 });
    let gate = |run: &str, test: &str, word: &str| {
        cluster.ann.submit(&adds(run, test, word)).expect(0);
        let state = || cluster.ann.ask(&["runs", "show", run])["state"].as_str().unwrap_or_default().to_owned();
        let ended = || matches!(state().as_str(), "SUCCEEDED" | "FAILED");
        assert!(until(ONE, ended), "{run} does not end:\n{}", cluster.logs());
        let phase = cluster.ann.ask(&["runs", "show", run])["phases"][0].clone();
        (phase["state"].clone(), phase["gate"]["commands"][0].clone())
    };
    let (state, suite) = gate("good", "new", "pass");
    assert_eq!((&state, &suite["known"]), (&json!("APPLIED"), &json!(["s::old"])), "{suite}");
    assert_eq!(suite["baseline"], json!("measured"));
    let (state, suite) = gate("bad", "broken", "fail");
    assert_eq!((&state, &suite["new"][0]["test"]), (&json!("ROLLED_BACK"), &json!("s::broken")), "{suite}");
    assert_eq!(suite["baseline"], json!("stored"));
    let (state, suite) = gate("now-and-then", "loose", "flaky");
    assert_eq!((&state, &suite["flaky"]), (&json!("APPLIED"), &json!(["s::loose"])), "{suite}");

    let flaky = cluster.bob.ask(&["gate", "flaky"])["flaky_tests"].clone();
    assert_eq!(
        (&flaky[0]["test"], &flaky[0]["count"], &flaky[0]["last_run"]),
        (&json!("s::loose"), &json!(1), &json!("now-and-then"))
    );
    let fork = Repository::open(cluster.hub()).unwrap().refname_to_id("refs/heads/main").unwrap().to_string();
    let known = cluster.bob.at(cluster.url(1)).ask(&["gate", "baseline", &fork, "--forget", "--reason", "looked at"]);
    assert_eq!((&known["baselines"][0]["failing"], &known["baselines"][0]["code"]), (&json!(["s::old"]), &json!(1)));
    assert_eq!(cluster.number("SELECT count(*) FROM autopack.gate_baseline"), 0);
    let (_, suite) = gate("after", "newer", "pass");
    assert_eq!(suite["baseline"], json!("measured"), "what is forgotten is measured again");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}
