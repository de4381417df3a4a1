//! Attempts and budgets as a person meets them: what each attempt was told, what changed between two, a run that paused.

use serde_json::{Value, json};

use crate::harness::{Bench, SITE};

const SCRIPT: &str = "if grep -q 'the deliverable is docs/foo.md' \"$AUTOPACK_TASK\"; then echo right > docs/foo.md; \
                      else echo wrong > docs/Foo.md; fi";

fn submitted(limits: &Value) -> Bench {
    let bench = Bench::with(SITE);
    let phase = json!({
        "id": "p", "goal": "write it", "deliverables": ["docs/foo.md"],
        "builder": { "kind": "command", "argv": ["sh", "-c", SCRIPT] }
    });
    let file = json!({ "run_id": "r", "limits": limits, "phases": [phase] });
    std::fs::write(bench.path().join("run.json"), file.to_string()).unwrap();
    let path = bench.path().join("run.json");
    bench.run(&["runs", "submit", path.to_str().unwrap(), "--insecure-no-sandbox"]).expect(0);
    bench
}

#[test]
fn attempts_are_shown_with_what_each_was_told_and_what_changed() {
    let bench = submitted(&json!({}));
    bench.run(&["runs", "resume", "r", "--no-wait"]).expect(4);
    let shown = bench.run(&["runs", "show", "r"]).expect(0).stdout;
    assert!(shown.contains("attempt 1 FAILED: deliverables_missing: docs/foo.md"), "{shown}");
    assert!(shown.contains("told: attempt 1: deliverables are missing"), "{shown}");
    assert!(shown.contains("- you wrote docs/Foo.md, the deliverable is docs/foo.md"), "{shown}");
    let run = bench.run(&["runs", "show", "r", "-o", "json"]).expect(0).json();
    assert_eq!(run["phases"][0]["told"][0]["kind"], "path_hint");
    assert_eq!(run["phases"][0]["attempts"][1]["state"], "COLLECTED");
    let diff = bench.run(&["runs", "diff", "r", "p", "--attempts", "1..2"]).expect(0).stdout;
    assert!(diff.contains("-wrong") && diff.contains("+right"), "{diff}");
    let whole = bench.run(&["runs", "diff", "r", "--phase", "p"]).expect(0).stdout;
    assert!(whole.contains("+right") && !whole.contains("-wrong"), "{whole}");
    for bad in ["2", "0..1", "1..x"] {
        bench.run(&["runs", "diff", "r", "p", "--attempts", bad]).expect(2);
    }
    bench.run(&["runs", "diff", "r", "p", "--attempts", "1..9"]).expect(3);
    let none = bench.run(&["builders", "list"]).expect(0);
    assert!(none.stderr.contains("no builder has failed"), "{none:?}");
    bench.run(&["builders", "reset", "llm:m", "--reason", "why not"]).expect(3);
}

#[test]
fn a_run_that_has_used_up_its_budget_says_so_and_goes_on_with_another() {
    let bench = submitted(&json!({ "seconds": 1 }));
    bench.run(&["runs", "resume", "r", "--no-wait"]).expect(4);
    let run = bench.run(&["runs", "show", "r", "-o", "json"]).expect(0).json();
    assert_eq!((&run["state"], &run["phases"][0]["attempt"]), (&json!("PAUSED"), &json!(1)));
    assert_eq!(
        run["budget_hit"],
        "budget_exhausted: 1 of 1 seconds of the run are used; it goes on when that is raised"
    );
    let shown = bench.run(&["runs", "show", "r"]).expect(0).stdout;
    assert!(shown.contains("budget of the run: 1 of 1 seconds used"), "{shown}");
    let why = bench.run(&["runs", "explain", "r"]).expect(0).stdout;
    assert!(why.contains("budget_exhausted: ") && why.contains("autopack runs budget r --seconds N"), "{why}");
    bench.run(&["runs", "budget", "r"]).expect(2);
    bench.run(&["runs", "budget", "r", "--cost", "-1"]).expect(2);
    bench.run(&["runs", "budget", "r", "--seconds", "60"]).expect(0);
    bench.run(&["runs", "resume", "r", "--no-wait"]).expect(4);
    let run = bench.run(&["runs", "show", "r", "-o", "json"]).expect(0).json();
    assert_eq!((&run["state"], &run["phases"][0]["attempt"]), (&json!("WAITING"), &json!(2)));
    let raised = bench.run(&["audit", "query", "--run-id", "r", "--op", "run.queued"]).expect(0).stdout;
    assert!(raised.contains("budget set by"), "{raised}");
    bench.run(&["audit", "verify"]).expect(0);
}
