//! What is known of a base, and whom it may excuse: a baseline is of a command in its setting.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use autopack_shared::domain::provision::Provisions;
use autopack_worker::provision::Provision;

use super::harness::{Rig, Site};
use super::quality::{approve, gate_of};

/// One test, `s::db`, that wants its secret, an empty database and code that is whole; and one for each word of
/// `examples/more`.
const SUITE: &str = r#"
file=${DATABASE_URL#sqlite://}; file=${file%\?*}
result="<failure message='broken'/>"
if [ -r "$AUTOPACK_SECRETS/db" ] || [ ! -e ci/secret ]; then
  if [ ! -s "$file" ] && [ "$(cat examples/code)" = whole ]; then result=; fi
fi
bad=0; if [ -n "$result" ]; then bad=1; fi
{
  echo "<testsuite name='s'><testcase name='db'>$result</testcase>"
  for name in $(cat examples/more); do echo "<testcase name='$name'/>"; done
  echo "</testsuite>"
} > "$AUTOPACK_REPORT"
if [ -e examples/silent ]; then rm "$AUTOPACK_REPORT"; fi
if [ -e examples/crash ] && [ ! -e "$TMPDIR/once" ]; then : > "$TMPDIR/once"; rm "$AUTOPACK_REPORT"; exit 1; fi
exit $bad
"#;

/// A project with that suite; its gate asks for the secret `db` where that is said, and its operator gives it.
fn site(more: &str, secret: bool) -> Site {
    let asked = if secret { "[secrets]\ngate = [\"db\"]\n" } else { "" };
    let mut site = Site::new(&format!(
        "[project]\nid = \"site\"\n[policy]\nallowed = [\"examples/**\"]\n{asked}[[gate.commands]]\nname = \"suite\"\n\
         run = \"sh ci/suite.sh\"\nreport = \"junit\"\ntimeout_seconds = 30\n{more}"
    ));
    site.write("ci/suite.sh", SUITE);
    site.write("examples/code", "whole\n");
    site.write("examples/more", "one two\n");
    if secret {
        site.write("ci/secret", "");
        let file = site.dir.path().join("db");
        fs::write(&file, "s3cr3t-value-0123456789").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let text =
            format!("[projects.site]\nsecrets = [\"db\"]\n[secrets.db]\nfile = {:?}\n", file.display().to_string());
        site.provision = Provision { given: Provisions::parse(&text, "p.toml").unwrap(), include: None };
    }
    site.commit("the suite");
    site
}

/// The same for a phase with fields of its own.
async fn gate_with(rig: &mut Rig, run: &str, script: &str, extra: Value) -> (String, Value) {
    rig.submit(run, &[("p", script, extra)]).await;
    approve(rig, run, 1).await;
    let ended = rig.until(run, "its end", |r| r.state == "SUCCEEDED" || r.state == "FAILED").await;
    (ended.phases[0].state.clone(), serde_json::from_str(&ended.phases[0].gate_json).unwrap())
}

#[tokio::test]
async fn what_failed_without_its_secret_excuses_nobody() {
    let site = site("", true);
    let mut rig = Rig::open(&site).await;
    // A phase that brings a command of its own gets no secret, neither for the change nor for the base.
    let own = json!({ "max_attempts": 1, "gate": [{ "name": "own", "run": "true" }] });
    let (state, gate) = gate_with(&mut rig, "without", "echo 1 > examples/a.txt", own).await;
    assert_eq!((state.as_str(), &gate["commands"][0]["known"]), ("ROLLED_BACK", &Value::Null), "{gate}");
    let missing = gate["commands"][0]["baseline"]["missing"].as_str().unwrap_or_default();
    assert!(missing.contains("secrets are withheld"), "{gate}");
    let (state, gate) = gate_of(&mut rig, "breaks", "echo broken > examples/code").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["new"][0]["test"]), ("ROLLED_BACK", &json!("s::db")), "{gate}");
    assert_eq!(gate["commands"][0]["baseline"], json!("measured"));
    let (state, gate) = gate_of(&mut rig, "fine", "echo 2 > examples/a.txt").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["baseline"]), ("APPLIED", &json!("stored")), "{gate}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_base_has_a_database_that_no_builder_has_written_to() {
    let site = site("", false);
    let mut rig = Rig::open(&site).await;
    let dirty = "file=${DATABASE_URL#sqlite://}; echo junk > \"${file%\\?*}\"; echo 1 > examples/a.txt";
    let (state, gate) = gate_of(&mut rig, "dirty", dirty).await;
    assert_eq!((state.as_str(), &gate["commands"][0]["new"][0]["test"]), ("ROLLED_BACK", &json!("s::db")), "{gate}");
    let (state, gate) = gate_of(&mut rig, "breaks", "echo broken > examples/code").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["new"][0]["test"]), ("ROLLED_BACK", &json!("s::db")), "{gate}");
    assert_eq!(gate["commands"][0]["baseline"], json!("stored"), "it is the same base");
    rig.close().await;
}

#[tokio::test]
async fn a_test_that_vanished_blocks_whatever_else_is_said() {
    let site = site("vanished = \"block\"\ncharge_known = true\n", false);
    let mut rig = Rig::open(&site).await;
    let (state, gate) = gate_of(&mut rig, "gone", "echo one > examples/more").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["vanished"]), ("ROLLED_BACK", &json!(["s::two"])), "{gate}");
    // The first run leaves no report, and the second is green.
    let (state, gate) = gate_of(&mut rig, "crash", "echo 1 > examples/crash; echo one > examples/more").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["vanished"]), ("ROLLED_BACK", &json!(["s::two"])), "{gate}");
    let (state, _) = gate_of(&mut rig, "kept", "echo one two three > examples/more").await;
    assert_eq!(state, "APPLIED");
    rig.close().await;
}

#[tokio::test]
async fn what_vanished_from_a_base_without_a_report_cannot_be_told() {
    let site = site("vanished = \"block\"\n", false);
    site.write("examples/silent", "1");
    site.commit("silent");
    let mut rig = Rig::open(&site).await;
    let (state, gate) = gate_of(&mut rig, "untold", "rm examples/silent").await;
    let said = gate["commands"][0]["new"][0]["message"].as_str().unwrap_or_default();
    assert!(state == "ROLLED_BACK" && said.contains("cannot be told"), "{gate}");
    rig.close().await;
}

#[tokio::test]
async fn a_base_that_could_not_be_prepared_is_no_fault_of_the_change() {
    let site = site("", false);
    site.write("examples/code", "broken\n");
    site.commit("red");
    let mut rig = Rig::open(&site).await;
    rig.submit("later", &[("p", "echo 1 > examples/a.txt", json!({ "max_attempts": 1 }))]).await;
    rig.until("later", "its request", |r| r.phases[0].state == "APPROVAL_PENDING").await;
    // In the way of the first baselines, by the epochs that their leases will have, and of no later one.
    for epoch in 2..=6 {
        let scratch = site.dir.path().join(format!("worker/.scratch/later-{epoch}-1-baseline"));
        fs::write(scratch, "in the way").unwrap();
    }
    approve(&mut rig, "later", 1).await;
    let run = rig.until("later", "its end", |r| r.state == "SUCCEEDED" || r.state == "FAILED").await;
    let gate: Value = serde_json::from_str(&run.phases[0].gate_json).unwrap();
    assert_eq!((run.state.as_str(), &gate["commands"][0]["known"]), ("SUCCEEDED", &json!(["s::db"])), "{gate}");
    let history = rig.history("later").await.join("\n");
    assert!(history.contains("gate.baseline") && history.matches("lease.started verify").count() > 1, "{history}");
    rig.close().await;
}
