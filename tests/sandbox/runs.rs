//! Runs in sandboxes: a builder of the operator's without `--insecure-no-sandbox`, and what a policy asks for.

use serde_json::{Value, json};

use crate::harness::{Bench, SITE};

fn site(policy: &str, script: &str) -> Bench {
    let bench = Bench::with(SITE);
    bench.write("examples/page.md", "# Page\n\nSee [it](nowhere.md).\n");
    let builder = json!(["sh", "-ec", script]);
    let text = format!(
        "[policy]\nextends = \"autopack\"\n{policy}\n[[gate.commands]]\nname = \"page\"\nrun = \"test -f examples/page.md \
         && test ! -e /etc/shadow\"\n[builders.mend]\nkind = \"command\"\ngaps = [\"doc_drift\"]\nargv = {builder}\n"
    );
    bench.write("autopack.toml", &text);
    bench.commit("a builder");
    bench
}

const RUN: [&str; 7] = ["autopilot", "run", "--enable", "--no-wait", "--run-id", "k", "-o"];

fn run(bench: &Bench, env: &[(&str, &str)]) -> crate::harness::Ran {
    bench.run_in(&bench.repo(), &[&RUN[..], &["json"]].concat(), env)
}

fn phase(ended: &Value) -> &Value {
    ended["run"]["phases"]
        .as_array()
        .unwrap_or_else(|| panic!("{ended}"))
        .iter()
        .find(|phase| phase["attempt"] != 0)
        .unwrap_or_else(|| panic!("{ended}"))
}

#[test]
fn a_builder_and_a_gate_work_in_a_sandbox() {
    let script = "test ! -e /etc/shadow; test -s $AUTOPACK_TASK; test $PWD = /ws; case $DATABASE_URL in \
                  sqlite:///run/ap/data/k.db*) echo x > /run/ap/data/k.db;; *) exit 9;; esac; echo '# Page' > examples/page.md";
    let bench = site("", script);
    let ended = run(&bench, &[]);
    assert!(ended.code == 0 || ended.code == 4, "{ended:?}");
    let ended = ended.json();
    let phase = phase(&ended);
    assert!(["APPLIED", "APPROVAL_PENDING"].contains(&phase["state"].as_str().unwrap()), "{ended:#}");
    assert_eq!(std::fs::read_to_string(bench.repo().join(".autonomous_runs/k/k.db")).unwrap(), "x\n");
}

#[test]
fn a_sandbox_that_is_too_weak_gets_no_work() {
    let bench = site("", "echo '# Page' > examples/page.md");
    let weak = [("AUTOPACK_SANDBOX_WEAKEN", "cgroup")];
    let mut child = bench.command(&bench.repo());
    child.args(RUN).arg("json").envs(weak).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = child.spawn().unwrap();
    let began = super::now();
    let explained = loop {
        let told = bench.run(&["runs", "explain", "k", "-o", "json"]).stdout;
        if told.contains("sandbox_too_weak") || began.elapsed() > std::time::Duration::from_secs(40) {
            break told;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        explained.contains("sandbox_too_weak") && explained.contains("S3") && explained.contains("S2"),
        "{explained}"
    );

    // The policy may ask for less.
    let bench = site("min_sandbox = \"S2\"", "echo '# Page' > examples/page.md");
    let ended = run(&bench, &weak);
    assert!(ended.code == 0 || ended.code == 4, "{ended:?}");
}

/// T122 and T123 as a run tells them: a limit that was met is no failure of the builder's own.
#[test]
fn a_limit_that_is_met_is_told_as_one() {
    let memory = ("AUTOPACK_WORKER_SANDBOX_MEMORY_MB", "128");
    let tree = ("AUTOPACK_WORKER_SANDBOX_TREE_MB", "32");
    let much = "perl -e '$x = \"x\" x (300 << 20); print length $x'";
    let fill = "i=0; while :; do i=$((i+1)); dd if=/dev/zero of=fill$i bs=1M count=8 2>/dev/null; sleep 0.05; done";
    for (script, limit, why) in [(much, memory, "more memory"), (fill, tree, "32 MiB of the disk")] {
        let bench = site("", script);
        let ended = run(&bench, &[limit, ("AUTOPACK_WORKER_WARM", "0")]);
        assert_ne!(ended.code, 0, "{ended:?}");
        let shown = bench.run(&["runs", "show", "k", "-o", "json"]).expect(0).stdout;
        assert!(shown.contains("resource_limit") && shown.contains(why), "{shown}");
        assert!(!shown.contains("builder_failed"), "{shown}");
    }
}
