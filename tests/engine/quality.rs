//! What the quality gate makes of reports: a project whose test suite is a small script that writes JUnit XML, with
//! tests that pass, fail, fail once, or are hostile.

use serde_json::{Value, json};

use autopack_shared::domain::budget::{BudgetConfig, Caps};
use autopack_shared::wire::pb::{self, Choice};
use autopack_supervisor::director::Governing;

use super::harness::{Rig, Site};

/// Each file `examples/NAME.t` is a test: its text says what becomes of it.
const SUITE: &str = r#"
bad=0
{
  echo "<testsuites><testsuite name='s'>"
  for file in examples/*.t; do
    name=$(basename "$file" .t)
    word=$(cat "$file")
    if [ "$word" = loose ] && [ -e "$TMPDIR/$name.twice" ]; then word=pass; fi
    if [ "$word" = loose ] && [ -e "$TMPDIR/$name.once" ]; then : > "$TMPDIR/$name.twice"; fi
    if [ "$word" = loose ]; then : > "$TMPDIR/$name.once"; fi
    if [ "$word" = flaky ] && [ -e "$TMPDIR/$name.seen" ]; then word=pass; fi
    if [ "$word" = flaky ]; then : > "$TMPDIR/$name.seen"; word=fail; fi
    if [ "$word" = pass ]; then
      echo "<testcase name='$name'/>"
    else
      bad=1
      echo "<testcase name='$name'><failure message='$word: token AKIAQ3EGWMZ6XJ4N2PLT'>line two</failure></testcase>"
    fi
  done
  echo "</testsuite></testsuites>"
} > "$AUTOPACK_REPORT"
if [ -e examples/laughs ]; then cp examples/laughs "$AUTOPACK_REPORT"; fi
if [ -e examples/large ]; then head -c 17000000 /dev/zero > "$AUTOPACK_REPORT"; fi
if [ -e examples/link ]; then ln -sf /etc/passwd "$AUTOPACK_REPORT"; fi
if [ -e examples/silent ]; then rm "$AUTOPACK_REPORT"; fi
exit $bad
"#;

fn policy(more: &str) -> String {
    format!(
        "[project]\nid = \"site\"\n[policy]\nallowed = [\"examples/**\"]\n[[gate.commands]]\nname = \"suite\"\n\
         run = \"sh ci/suite.sh\"\nreport = \"junit\"\ntimeout_seconds = 30\n{more}"
    )
}

fn site(tests: &[(&str, &str)]) -> Site {
    let site = Site::new(&policy(""));
    site.write("ci/suite.sh", SUITE);
    for (name, word) in tests {
        site.write(&format!("examples/{name}.t"), word);
    }
    site.commit("the suite");
    site
}

pub(super) async fn approve(rig: &mut Rig, run: &str, attempt: u32) {
    rig.until(run, "its request", |r| r.phases[0].attempt == attempt && r.phases[0].state == "APPROVAL_PENDING").await;
    let call = autopack_shared::wire::pb::ListRequestsRequest { run_id: run.into(), ..Default::default() };
    let found = rig.governance.list(call).await.unwrap().into_inner().requests;
    let request = found.into_iter().find(|request| request.attempt == attempt).unwrap();
    rig.decide(&request, Choice::Approve, "ok").await.unwrap();
}

/// Submits one phase of a script, approves its first attempt, and waits for the end.
pub(super) async fn gate_of(rig: &mut Rig, run: &str, script: &str) -> (String, Value) {
    rig.submit(run, &[("p", script, json!({ "max_attempts": 1 }))]).await;
    approve(rig, run, 1).await;
    let ended = rig.until(run, "its end", |r| r.state == "SUCCEEDED" || r.state == "FAILED").await;
    (ended.phases[0].state.clone(), serde_json::from_str(&ended.phases[0].gate_json).unwrap())
}

#[tokio::test]
async fn a_new_failure_is_taken_back_and_told_to_the_next_attempt() {
    let site = site(&[("old", "pass")]);
    let mut rig = Rig::open(&site).await;
    let script = "if [ $AUTOPACK_ATTEMPT = 1 ]; then echo fail > examples/new.t; exit; fi; \
                  grep -q 's::new' $AUTOPACK_TASK || exit 9; echo pass > examples/new.t";
    rig.submit("again", &[("p", script, json!({}))]).await;
    approve(&mut rig, "again", 1).await;
    approve(&mut rig, "again", 2).await;
    let run = rig.until_state("again", "SUCCEEDED").await;
    let log = ["autopack: again/p attempt 2", "autopack: roll back again/p attempt 1", "autopack: again/p attempt 1"];
    assert_eq!(site.log("again")[..3], log);
    assert_eq!(site.text_at("refs/heads/autopack/again", "examples/new.t").as_deref(), Some("pass\n"));
    let told = &run.phases[0].feedback[0];
    assert!(told.contains("(gate_failed): suite exited with 1, 1 new failures\n- s::new: fail: token AKIA"), "{told}");
    assert!(!told.contains("Q3EGWMZ6XJ4N2PLT"), "{told}");
    let gate: Value = serde_json::from_str(&run.phases[0].gate_json).unwrap();
    assert_eq!((&gate["green"], &gate["commands"][0]["baseline"]), (&json!(true), &json!("stored")));
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn files_that_were_taken_back_count_no_more() {
    let site = site(&[("old", "pass")]);
    let one = Caps { files: Some(1), ..Caps::default() };
    let budgets = BudgetConfig { phase: one, day: one, ..BudgetConfig::default() };
    let mut rig = Rig::governed_with_worker(&site, Governing { budgets, ..Governing::default() }).await;
    let script = "if [ $AUTOPACK_ATTEMPT = 1 ]; then echo fail > examples/new.t; else echo pass > examples/new.t; fi";
    rig.submit("again", &[("p", script, json!({}))]).await;
    approve(&mut rig, "again", 1).await;
    let second = |r: &pb::Run| r.phases[0].attempt > 1 && r.phases[0].state != "EXECUTING";
    let run = rig.until("again", "its second attempt", |r| second(r) && r.phases[0].state != "QUEUED").await;
    assert_eq!((run.phases[0].attempt, run.phases[0].reason.contains("limit_files")), (2, false), "{run:#?}");
    approve(&mut rig, "again", 2).await;
    rig.until_state("again", "SUCCEEDED").await;
    // What stays is counted.
    rig.submit("more", &[("p", "echo pass > examples/more.t", json!({ "max_attempts": 1 }))]).await;
    let run = rig.until_state("more", "FAILED").await;
    assert!(run.phases[0].reason.contains("limit_files: the day would have changed 2 files of 1"), "{run:#?}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_change_that_the_gate_refused_is_asked_about_once() {
    let site = site(&[("old", "pass")]);
    let mut rig = Rig::open(&site).await;
    rig.submit("same", &[("p", "echo fail > examples/new.t", json!({ "max_attempts": 3 }))]).await;
    approve(&mut rig, "same", 1).await;
    let run = rig.until_state("same", "FAILED").await;
    assert_eq!((run.phases[0].state.as_str(), run.phases[0].attempt), ("FAILED", 3));
    assert!(run.phases[0].reason.contains("the change of attempt 1 again"), "{run:#?}");
    assert!(site.text_at("refs/heads/autopack/same", "examples/new.t").is_none());
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_flaky_test_passes_and_is_remembered() {
    let site = site(&[("old", "pass")]);
    let mut rig = Rig::open(&site).await;
    for (n, run) in ["one", "two"].into_iter().enumerate() {
        let (state, gate) = gate_of(&mut rig, run, "echo flaky > examples/now-and-then.t").await;
        assert_eq!((state.as_str(), &gate["commands"][0]["flaky"]), ("APPLIED", &json!(["s::now-and-then"])));
        assert_eq!(gate["commands"][0]["runs"], json!([{ "exit": 1 }, { "exit": 0 }]));
        let seen = ("suite".to_owned(), "s::now-and-then".to_owned(), n as u64 + 1);
        assert_eq!(rig.flaky().await, [seen]);
    }
    // Known by now: it may fail twice, and only it may.
    let (state, gate) = gate_of(&mut rig, "three", "echo loose > examples/now-and-then.t").await;
    assert_eq!((state.as_str(), gate["commands"][0]["runs"].as_array().unwrap().len()), ("APPLIED", 3), "{gate}");
    let (state, gate) = gate_of(&mut rig, "four", "echo loose > examples/other.t").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["new"][0]["test"]), ("ROLLED_BACK", &json!("s::other")), "{gate}");
    let (state, gate) = gate_of(&mut rig, "five", "echo fail > examples/now-and-then.t").await;
    assert_eq!((state.as_str(), gate["commands"][0]["runs"].as_array().unwrap().len()), ("ROLLED_BACK", 3), "{gate}");
    rig.close().await;
}

#[tokio::test]
async fn what_the_base_fails_too_is_not_charged() {
    let site = site(&[("old", "fail"), ("fine", "pass")]);
    let mut rig = Rig::open(&site).await;
    let (state, gate) = gate_of(&mut rig, "good", "echo pass > examples/new.t").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["known"]), ("APPLIED", &json!(["s::old"])), "{gate}");
    assert_eq!(gate["commands"][0]["baseline"], json!("measured"));
    let (state, gate) = gate_of(&mut rig, "bad", "echo fail > examples/fine.t").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["new"][0]["test"]), ("ROLLED_BACK", &json!("s::fine")), "{gate}");
    assert_eq!(gate["commands"][0]["baseline"], json!("stored"));
    let (state, gate) = gate_of(&mut rig, "gone", "rm examples/fine.t").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["vanished"]), ("APPLIED", &json!(["s::fine"])), "{gate}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_report_that_is_missing_or_hostile_fails_closed() {
    let site = site(&[("old", "pass")]);
    let mut rig = Rig::open(&site).await;
    let laughs = "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY l1 \"&lol;&lol;&lol;\">]><testsuite><testcase name=\"&l1;\"/></testsuite>";
    let outside = "<!DOCTYPE x [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><testsuite><testcase name=\"a\">&x;</testcase></testsuite>";
    for (run, script, why) in [
        ("silent", "echo 1 > examples/silent".to_owned(), "is missing"),
        ("laughs", format!("printf '%s' '{laughs}' > examples/laughs"), "document type"),
        ("outside", format!("printf '%s' '{outside}' > examples/laughs"), "document type"),
        ("deep", "yes '<testsuite>' | head -100000 > examples/laughs".to_owned(), "nested"),
        ("large", "echo 1 > examples/large".to_owned(), "is larger than"),
        ("link", "echo 1 > examples/link".to_owned(), "cannot be read"),
        ("none", "echo '<testsuites/>' > examples/laughs".to_owned(), "has no tests"),
    ] {
        let (state, gate) = gate_of(&mut rig, run, &script).await;
        let said = gate["commands"][0]["new"][0]["message"].as_str().unwrap_or_default();
        assert!(state == "ROLLED_BACK" && said.contains(why), "{run}: {state} {gate}");
    }
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_base_that_cannot_be_measured_excuses_nothing() {
    let site = site(&[("old", "fail")]);
    // Silent on the base: there is no report to compare with.
    site.write("examples/silent", "1");
    site.commit("silent");
    let mut rig = Rig::open(&site).await;
    let (state, gate) = gate_of(&mut rig, "charged", "rm examples/silent").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["new"][0]["test"]), ("ROLLED_BACK", &json!("s::old")), "{gate}");
    let missing = gate["commands"][0]["baseline"]["missing"].as_str().unwrap_or_default();
    assert!(missing.contains("is missing"), "{gate}");
    rig.close().await;
}

#[tokio::test]
async fn an_exit_code_that_the_base_has_too_is_not_charged() {
    let site = Site::new(
        "[project]\nid = \"site\"\n[policy]\nallowed = [\"examples/**\"]\n[[gate.commands]]\nname = \"lint\"\n\
         run = \"exit $(cat examples/code)\"\n",
    );
    site.write("examples/code", "3");
    site.commit("red");
    let mut rig = Rig::open(&site).await;
    let (state, gate) = gate_of(&mut rig, "same", "echo x > examples/b.txt").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["known"]), ("APPLIED", &json!([""])), "{gate}");
    let (state, gate) = gate_of(&mut rig, "other", "echo 4 > examples/code").await;
    assert_eq!((state.as_str(), &gate["commands"][0]["green"]), ("ROLLED_BACK", &json!(false)), "{gate}");
    rig.close().await;
}

#[tokio::test]
async fn a_phases_own_exit_code_is_no_matter_of_the_base() {
    let site = site(&[("old", "pass")]);
    let mut rig = Rig::open(&site).await;
    // On the base this fails in the same way.
    let own = json!({ "max_attempts": 1, "gate": [{ "name": "done", "run": "test -e examples/wanted" }] });
    rig.submit("not", &[("p", "echo pass > examples/other.t", own.clone())]).await;
    approve(&mut rig, "not", 1).await;
    let run = rig.until_state("not", "FAILED").await;
    assert!(run.phases[0].state == "ROLLED_BACK" && run.phases[0].reason.contains("done exited with 1"), "{run:#?}");
    rig.submit("done", &[("p", "echo 1 > examples/wanted", own)]).await;
    approve(&mut rig, "done", 1).await;
    rig.until_state("done", "SUCCEEDED").await;
    rig.close().await;
}

#[tokio::test]
async fn symbols_that_are_not_there_fail_the_attempt() {
    let site = site(&[("old", "pass")]);
    let mut rig = Rig::open(&site).await;
    let wanted = json!({ "max_attempts": 1, "symbols": ["examples/lib.rs::parse_config"] });
    rig.submit("without", &[("p", "echo 'fn parse_configs() {}' > examples/lib.rs", wanted.clone())]).await;
    let run = rig.until_state("without", "FAILED").await;
    assert!(run.phases[0].reason.starts_with("symbols_missing: examples/lib.rs"), "{run:#?}");
    // A link is no file, also where what it leads to has the symbol.
    let link = "echo 'fn parse_config() {}' > examples/real.rs; ln -s real.rs examples/lib.rs";
    rig.submit("link", &[("p", link, wanted.clone())]).await;
    let run = rig.until_state("link", "FAILED").await;
    assert!(run.phases[0].reason.starts_with("symbols_missing"), "{run:#?}");
    rig.submit("with", &[("p", "echo 'fn parse_config() {}' > examples/lib.rs", wanted)]).await;
    approve(&mut rig, "with", 1).await;
    rig.until_state("with", "SUCCEEDED").await;
    rig.close().await;
}
