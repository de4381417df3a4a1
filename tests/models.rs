//! The `llm` builder from a run file to the run's history, against a stand-in that speaks the real wire formats; and
//! what it does where a provider answers badly, late, or never.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use autopack_shared::runtime::clock::{Clock as _, SystemClock};

use crate::harness::standin::{Say, Standin};
use crate::harness::{Bench, Ran, SITE};

/// A repository whose `writer` asks two models, the second one from the second attempt on; and a run with one phase.
fn site(entry: &str, phase: &str) -> Bench {
    let bench = Bench::with(SITE);
    let policy = "[policy]\nextends = \"autopack\"\n\n[[gate.commands]]\nname = \"says-three\"\n\
                  run = \"test ! -e examples/count.md || grep three examples/count.md || { echo it stops too early; exit 1; }\"\n\n";
    let builder = "[builders.writer]\nkind = \"llm\"\n";
    let models = "[[builders.writer.models]]\nprovider = \"openai\"\nmodel = \"small\"\ninput_price = 1000000\n\
                  output_price = 2000000\n[[builders.writer.models]]\nprovider = \"openai\"\nmodel = \"large\"\n";
    bench.write("autopack.toml", &format!("{policy}{builder}{entry}{models}"));
    bench.commit("a writer");
    bench.write(
        "../run.yaml",
        &format!(
            "run_id: m\nphases:\n  - id: count\n    goal: count to three in examples/count.md\n    category: documentation\n    \
             scope: {{paths: [examples/]}}\n    deliverables: [examples/count.md]\n    builder: {{kind: llm, model: writer}}\n{phase}"
        ),
    );
    bench
}

/// Runs the run to its end against a server.
fn run(bench: &Bench, server: &Standin, code: i32) -> Value {
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let env = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &server.url())];
    resumed(bench, &env).expect(code);
    let shown = bench.run(&["runs", "show", "m", "-o", "json"]).expect(0).json();
    assert!(!shown.to_string().contains(KEY), "{shown}");
    shown["phases"][0].clone()
}

fn resumed(bench: &Bench, env: &[(&str, &str)]) -> Ran {
    bench.run_in(&bench.repo(), &["runs", "resume", "m", "--no-wait"], env)
}

const KEY: &str = "sk-proj-keykeykeykeykeykeykeykey";

fn file(text: &str) -> Say {
    Say::text(format!("Here it is.\n=== write examples/count.md\n{text}\n=== end\n"))
}

fn feedback(phase: &Value) -> Vec<&str> {
    phase["feedback"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

#[test]
fn malformed_then_red_then_good() {
    let server = Standin::of([Say::text("I would write one two three."), file("one two"), file("one two three")]);
    let bench = site("", "");
    let phase = run(&bench, &server, 0);
    assert_eq!((phase["state"].as_str(), phase["attempt"].as_u64()), (Some("APPLIED"), Some(3)), "{phase}");
    let said = feedback(&phase);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("(malformed_patch): line 1 of the answer: it names no file"), "{said:?}");
    assert!(said[1].contains("(gate_failed): says-three exited with 1"), "{said:?}");
    assert!(said[1].contains("- the command says-three: ") && said[1].contains("it stops too early"), "{said:?}");

    let asked = server.asked();
    let models: Vec<&str> = asked.iter().filter_map(|one| one.body["model"].as_str()).collect();
    assert_eq!(models, ["small", "large", "large"], "the second attempt climbs, and the last one stays");
    assert!(asked[0].headers.contains(&format!("Bearer {KEY}")), "{}", asked[0].headers);
    assert!(!asked[0].text().contains("Earlier attempts"), "{}", asked[0].text());
    assert!(asked[1].text().contains("it names no file"), "{}", asked[1].text());
    assert!(asked[2].text().contains("it stops too early"), "{}", asked[2].text());
    three_attempts_are_told(&bench, &phase);
    let logs = bench.run(&["runs", "logs", "m"]).expect(0).stdout;
    assert!(logs.contains("small of openai: 100 tokens in, 20 out") || logs.contains("large of openai"), "{logs}");
    let printed = "autopack runs transcript m count --attempt 2 --gate \"says-three\"";
    assert!(logs.contains(printed) && !logs.contains(KEY), "{logs}");
    let whole = ["runs", "transcript", "m", "count", "--attempt", "2", "--gate", "says-three"];
    let whole = bench.run(&whole).expect(0).stdout;
    // Once, and once more because it failed; the base has no such file, so that nothing is printed of it.
    assert_eq!(whole.lines().filter(|line| *line == "it stops too early").count(), 2, "{whole}");
    assert!(whole.contains("(on the change)") && whole.contains("(on the base)"), "{whole}");
    bench.run(&["audit", "verify"]).expect(0);
}

/// What `runs show` says of three attempts: why each came to nothing, what the next one was told, what it did with it.
fn three_attempts_are_told(bench: &Bench, phase: &Value) {
    let attempts = phase["attempts"].as_array().unwrap();
    let of = |at: usize, key: &str| attempts[at][key].as_str().unwrap_or_default();
    let states = [of(0, "state"), of(1, "state"), of(2, "state")];
    assert_eq!(states, ["FAILED", "FAILED", "SUCCEEDED"], "{phase}");
    assert!(of(0, "reason").starts_with("malformed_patch: "), "{phase}");
    assert!(of(1, "reason").starts_with("gate_failed: says-three exited with 1"), "{phase}");
    let red = &attempts[1]["gate"]["commands"][0];
    assert_eq!((&red["name"], &red["green"]), (&Value::from("says-three"), &Value::from(false)), "{phase}");
    assert!(red["transcript"].as_str().unwrap().starts_with("sha256:"), "{phase}");
    assert_eq!((&phase["told"][1]["attempt"], &phase["told"][1]["kind"]), (&2.into(), &"gate_report".into()));
    let run = bench.run(&["runs", "show", "m", "-o", "json"]).expect(0).json();
    let between = run["interdiffs"].as_array().unwrap();
    assert_eq!(between.len(), 1, "the first attempt left nothing: {run}");
    assert_eq!((&between[0]["from"], &between[0]["to"]), (&2.into(), &3.into()));
    let diff = between[0]["diff"].as_str().unwrap();
    assert!(diff.contains("-one two\n+one two three\n"), "{diff}");

    let show = bench.run(&["runs", "show", "m"]).expect(0).stdout;
    let mut rest = show.as_str();
    for line in [
        "attempt 1 FAILED: malformed_patch: ",
        "told: attempt 1: the builder failed (malformed_patch)",
        "attempt 2 FAILED: gate_failed: says-three exited with 1",
        "gate says-three exited with 1",
        "printed: autopack runs transcript m count --attempt 2 --gate \"says-three\"",
        "told: attempt 2: the quality gate failed (gate_failed)",
        "    it stops too early",
        "attempt 3 SUCCEEDED",
        "gate says-three passed",
        "changed since attempt 2:",
        "-one two\n",
        "+one two three\n",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is not there, or not there: {show}"));
        rest = &rest[at + line.len()..];
    }
    assert!(!show.contains(KEY));
}

#[test]
fn a_diff_is_imported_strictly() {
    let diff = |context: &str| {
        Say::text(format!(
            "```diff\ndiff --git a/examples/count.md b/examples/count.md\nnew file mode 100644\nindex 0000000..1111111\n--- /dev/null\n\
             +++ b/examples/count.md\n@@ -0,0 +1{context} @@\n+one two three\n```"
        ))
    };
    let server = Standin::of([diff(",7"), diff("")]);
    let bench = site("answer = \"diff\"\n", "");
    let phase = run(&bench, &server, 0);
    let said = feedback(&phase);
    assert!(said.len() == 1 && said[0].contains("(malformed_patch): "), "{said:?}");
    assert_eq!(bench.run(&["runs", "diff", "m"]).expect(0).stdout.matches("+one two three").count(), 1);
}

#[test]
fn nothing_leaves_the_tree_and_its_scope() {
    let write = |path: &str| Say::text(format!("=== write {path}\nthree\n=== end"));
    let server =
        Standin::of(["../out", ".git/hooks/post-commit", "README.md", "/tmp/out", "examples/.GIT/x"].map(write));
    let bench = site("", "");
    let phase = run(&bench, &server, 1);
    let said = feedback(&phase);
    let reasons: Vec<&str> = said.iter().filter_map(|line| line.split(['(', ')']).nth(1)).collect();
    let malformed = "malformed_patch";
    assert_eq!(reasons, [malformed, malformed, "out_of_scope", malformed, malformed], "{said:?}");
}

/// Drives the run of a site, which may never end.
fn driven(bench: &Bench, server: &Standin) -> Child {
    let mut command = bench.command(&bench.repo());
    command.args(["runs", "resume", "m", "--no-wait"]).env("OPENAI_API_KEY", KEY).env("OPENAI_BASE_URL", server.url());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Why the first attempt failed, once it has.
fn first_reason(bench: &Bench) -> String {
    for _ in 0..1200 {
        let shown = bench.run(&["runs", "show", "m", "-o", "json"]).expect(0).json();
        if let Some(reason) = shown["phases"][0]["attempts"][0]["reason"].as_str() {
            return reason.to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the first attempt does not end");
}

/// The reason of the first attempt, of a few seconds. Where its provider is at fault another one follows, and ends when
/// the script has.
fn reason(server: &Standin, seconds: u32) -> String {
    let bench = site("", &format!("    max_attempts: 1\n    timeout: {seconds}\n"));
    run(&bench, server, 1)["attempts"][0]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_provider_that_is_too_busy_is_waited_for_or_given_up() {
    let busy = |wait: &'static str| Say::Status(429, wait, "{\"error\":\"slow down\"}".to_owned());
    let server = Standin::of([busy("retry-after: 1"), Say::Status(500, "", "{}".to_owned()), file("three")]);
    let bench = site("", "    max_attempts: 1\n");
    let clock = SystemClock::default();
    let began = clock.monotonic();
    assert_eq!(run(&bench, &server, 0)["state"], "APPLIED");
    assert!(clock.monotonic() - began >= Duration::from_secs(2), "1 s was asked for, and 1 s is the second pause");
}

/// What a run says that waits for time alone: when it goes on and why, at once and to whoever looks later.
fn rests(bench: &Bench, server: &Standin, env: &[(&str, &str)], why: &str) -> Value {
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let clock = SystemClock::default();
    let url = server.url();
    let env = [env, &[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", url.as_str())]].concat();
    let ended = resumed(bench, &env).expect(4);
    assert!(clock.monotonic() < Duration::from_secs(45), "it is not waited for: {:?}", clock.monotonic());
    assert!(ended.stderr.contains("m waits until 2") && ended.stderr.contains(why), "{ended:?}");
    assert!(ended.stderr.contains("with: autopack runs resume m"), "{ended:?}");
    let run = bench.run(&["runs", "show", "m", "-o", "json"]).expect(0).json();
    assert_eq!(run["state"], "QUEUED", "{run}");
    assert!(run["rests_until"].is_string() && run["rests"].as_str().unwrap().contains(why), "{run}");
    assert!(bench.run(&["runs", "show", "m"]).expect(0).stdout.contains("  waits until 2"));
    let told = bench.run(&["runs", "explain", "m"]).expect(0).stdout;
    assert!(told.contains("resting: ") && told.contains(why), "nobody drives it, and it is known all the same: {told}");
    // Asked again, the answer is the same, and nobody asks the provider.
    let asked = server.asked().len();
    resumed(bench, &env).expect(4);
    assert_eq!(server.asked().len(), asked);
    bench.run(&["audit", "verify"]).expect(0);
    run
}

#[test]
fn a_credential_that_rests_for_an_hour_is_told_at_once() {
    let mut date = std::process::Command::new("date");
    date.env("LC_ALL", "C").args(["-u", "-d", "+1 hour", "+%a, %d %b %Y %H:%M:%S GMT"]);
    let date = String::from_utf8(date.output().unwrap().stdout).unwrap();
    let date = date.trim();
    for header in ["retry-after: 3600".to_owned(), format!("retry-after: {date}")] {
        let header: &'static str = Box::leak(header.into_boxed_str());
        let server = Standin::of([Say::Status(429, header, "{\"error\":\"slow down\"}".to_owned())]);
        let bench = site("", "    max_attempts: 1\n    timeout: 60\n");
        let run = rests(&bench, &server, &[], "its provider told the credential openai to wait until");
        let first = run["phases"][0]["attempts"][0]["reason"].as_str().unwrap().to_owned();
        assert!(first.starts_with("provider_rate_limited: ") && first.contains("due in 3"), "{header}: {first}");
        assert_eq!(server.asked().len(), 1);
        let log = bench.run(&["audit", "query", "--op", "credential.resting", "-o", "json"]).expect(0).stdout;
        assert!(log.contains("its provider told it to wait"), "{log}");
    }
}

#[test]
fn an_hour_of_errors_is_not_waited_for() {
    hour_of("    timeout: 5\n", || Say::Status(500, "", "{}".to_owned()), "provider_unavailable");
}

#[test]
fn an_hour_of_silence_is_not_waited_for() {
    hour_of("    timeout: 4\n", || Say::Never, "provider_unavailable");
}

#[test]
fn an_hour_of_rubbish_is_not_waited_for() {
    hour_of("    timeout: 20\n", || Say::Status(200, "", "{\"choices\":[{\"mess".to_owned()), "provider_malformed");
}

#[test]
fn an_hour_of_too_many_requests_is_not_waited_for() {
    let server = Standin::by(|_| Say::Status(429, "", "{}".to_owned()));
    let bench = site("", "    max_attempts: 1\n    timeout: 4\n");
    rests(&bench, &server, &[], "its provider told the credential openai to wait until");
    assert!(server.asked().len() < 10, "{}", server.asked().len());
}

/// A provider that does nothing but this: its builder is left alone after two attempts, and no attempt counts.
fn hour_of(phase: &str, say: impl Fn() -> Say + Send + 'static, reason: &str) {
    let server = Standin::by(move |_| say());
    let bench = site("", &format!("    max_attempts: 1\n{phase}"));
    let run =
        rests(&bench, &server, &[("AUTOPACK_LIMITS_BREAKER_FAILURES", "2")], "llm:writer failed 2 times in a row");
    let attempts = run["phases"][0]["attempts"].as_array().unwrap();
    let lost = |one: &Value| one["state"] == "LOST" && one["reason"].as_str().unwrap().starts_with(reason);
    assert!(attempts.len() == 2 && attempts.iter().all(lost), "{run}");
    assert!(server.asked().len() < 20, "{}", server.asked().len());
    let log = bench.run(&["audit", "query", "--op", "breaker.open", "-o", "json"]).expect(0).stdout;
    assert!(log.contains(&format!("2 failures: {reason}")), "{log}");
}

#[test]
fn rubbish_is_paid_for_three_times_and_named() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"choices\":[";
    let no_json = Say::Status(200, "", "<html>hello".to_owned());
    let empty = Say::Status(200, "", "{\"choices\":[]}".to_owned());
    let server = Standin::of([Say::Raw(half.into()), no_json, empty]);
    let reason = reason(&server, 60);
    assert!(reason.starts_with("provider_malformed: ") && reason.contains("3 answers could not be read"), "{reason}");
}

#[test]
fn a_provider_that_never_answers_ends_with_the_attempt() {
    let bench = site("", "    max_attempts: 1\n    timeout: 4\n");
    let attempt = run(&bench, &Standin::of([Say::Never]), 1)["attempts"][0].clone();
    let reason = attempt["reason"].as_str().unwrap();
    assert!(reason.starts_with("provider_unavailable: ") && reason.contains("no answer within"), "{reason}");
    let tokens = |way: &str| attempt["usage"][way].as_u64().unwrap();
    assert!(tokens("input_tokens") > 0 && tokens("output_tokens") > 0, "it was asked, and may answer: {attempt}");
}

#[test]
fn an_answer_without_an_end_is_cut() {
    let server = Standin::by(|_| Say::Endless);
    let bench = site("", "    max_attempts: 1\n    timeout: 5\n");
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let mut goes_on = driven(&bench, &server);
    let reason = first_reason(&bench);
    goes_on.kill().unwrap();
    goes_on.wait().unwrap();
    assert!(reason.starts_with("provider_unavailable: ") && reason.contains("is longer than"), "{reason}");
}

#[test]
fn a_refused_key_is_asked_about_once_and_never_shown() {
    let body = format!("{{\"error\":{{\"message\":\"Incorrect API key provided: {KEY}\"}}}}");
    let server = Standin::of([Say::Status(401, "", body)]);
    let reason = reason(&server, 60);
    assert!(reason.starts_with("provider_refused: ") && reason.contains("[key]") && !reason.contains(KEY), "{reason}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_key_that_is_not_there_is_named() {
    let bench = site("", "    max_attempts: 1\n");
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    resumed(&bench, &[]).expect(1);
    let shown = bench.run(&["runs", "show", "m", "-o", "json"]).expect(0).json();
    let reason = shown["phases"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("key_missing: ") && reason.contains("OPENAI_API_KEY"), "{reason}");
}

#[test]
fn a_file_of_the_operators_names_more_providers() {
    let server = Standin::of([file("three")]);
    let bench = site("", "");
    let place = bench.repo().join("autopack.toml");
    let text = std::fs::read_to_string(&place).unwrap().replace("\"openai\"", "\"local\"");
    std::fs::write(place, text).unwrap();
    bench.commit("another provider");
    bench.write("../providers.toml", &format!("[local]\napi = \"anthropic\"\nurl = \"{}\"\n", server.url()));
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let named = bench.path().join("providers.toml");
    resumed(&bench, &[("AUTOPACK_PROVIDERS_FILE", named.to_str().unwrap())]).expect(0);
    let asked = server.asked();
    assert!(asked[0].path == "/v1/messages" && asked[0].headers.contains("anthropic-version"), "{asked:?}");
    assert_eq!(asked[0].body["max_tokens"], 16_000);
}
