//! Agents as builders: real packages that work offline against the stand-in, and a run with one phase of each kind.
//!
//! The packages come from PyPI and npm into a folder below `target/`, once. Where that cannot be done, the test says so
//! loudly and passes; with AUTOPACK_AGENTS=required it fails instead. What downloads very much is run with
//! AUTOPACK_AGENTS=all only, which requires the others too.

mod caged;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::standin::{Asked, Say, Standin};
use crate::harness::{Bench, SITE, kinds};

const MINI: &str = "mini-swe-agent==2.4.6";
/// The key, which only the worker and the stand-in know.
const KEY: &str = "canary-of-the-key-5f1d2a";

const OPENCODE: &str = "opencode-linux-x64@1.18.33";
const AIDER: &str = "aider-chat==0.86.2";
const CLAUDE: &str = "@anthropic-ai/claude-code@2.1.197";

/// Whether the word that says which agents are run is one of these.
fn asked_for(words: &[&str]) -> bool {
    std::env::var_os("AUTOPACK_AGENTS").is_some_and(|said| words.iter().any(|word| said == *word))
}

/// Where packages are kept between runs.
fn cache(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR"));
    own.parent().unwrap_or(own).join("agents").join(name)
}

/// Runs the steps of an installation, one process at a time over all tests; the program that it makes.
fn installed(name: &str, program: &str, steps: &dyn Fn(&Path) -> Vec<Command>) -> Option<PathBuf> {
    let folder = cache(name);
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.with_extension("lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    let program = folder.join(program);
    let done = folder.join(".done");
    if !done.exists() {
        for mut step in steps(&folder) {
            let ran = step.stdin(std::process::Stdio::null()).output();
            if !ran.as_ref().is_ok_and(|output| output.status.success()) {
                assert!(!asked_for(&["required", "all"]), "{name} cannot be installed: {step:?}: {ran:?}");
                println!("SKIPPED: {name} cannot be installed here, and this test has shown nothing: {step:?}");
                return None;
            }
        }
        std::fs::write(done, "").unwrap();
    }
    Some(program)
}

/// The program of mini-swe-agent, and the folders that it needs in a sandbox.
pub(crate) fn mini() -> Option<(PathBuf, Vec<PathBuf>)> {
    let program = installed("mini", "bin/mini", &|folder| {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(folder);
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", MINI]);
        vec![venv, pip]
    })?;
    // Its interpreter is another folder's.
    let python = cache("mini").join("bin/python3").canonicalize().unwrap();
    Some((program, vec![cache("mini"), python.ancestors().nth(2).unwrap().to_path_buf()]))
}

/// The same of OpenCode.
pub(crate) fn opencode() -> Option<(PathBuf, Vec<PathBuf>)> {
    let program = installed("opencode", "node_modules/opencode-linux-x64/bin/opencode", &|folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(folder).arg(OPENCODE);
        vec![npm]
    })?;
    Some((program, vec![cache("opencode")]))
}

/// Whether agents are run that download very much.
fn all(name: &str) -> bool {
    if !asked_for(&["all"]) {
        println!("SKIPPED: {name} is run with AUTOPACK_AGENTS=all, and this test has shown nothing");
    }
    asked_for(&["all"])
}

/// Some 690 MB.
fn aider() -> Option<PathBuf> {
    if !all("aider") {
        return None;
    }
    installed("aider", "bin/aider", &|folder| {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(folder);
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", AIDER]);
        vec![venv, pip]
    })
}

/// Some 250 MB, its program among them.
fn claude() -> Option<PathBuf> {
    if !all("claude-code") {
        return None;
    }
    installed("claude", "node_modules/@anthropic-ai/claude-code-linux-x64/claude", &|folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(folder).arg(CLAUDE);
        vec![npm]
    })
}

/// A repository with an agent `coder`, and a run whose one phase it does.
fn site(agent: &str) -> Bench {
    site_of("openai", agent)
}

fn site_of(provider: &str, agent: &str) -> Bench {
    let bench = Bench::with(SITE);
    let model =
        format!("[[builders.coder.models]]\nprovider = {provider:?}\nmodel = \"stand-in\"\ninput_price = 1000000\n");
    bench.write(
        "autopack.toml",
        &format!("[policy]\nextends = \"autopack\"\n\n[builders.coder]\nkind = \"agent\"\n{agent}{model}"),
    );
    bench.commit("an agent");
    let phase = "  - id: code\n    goal: write examples/made.md\n    scope: {paths: [examples/]}\n    \
                 deliverables: [examples/made.md]\n    builder: {kind: agent, preset: coder}\n    max_attempts: 1\n    timeout: 90\n";
    bench.write("../run.yaml", &format!("run_id: a\nphases:\n{phase}"));
    bench
}

/// Submits and drives the run in sandboxes that have these folders; its one phase.
fn driven(bench: &Bench, server: &Standin, folders: &[PathBuf], more: &[(&str, &str)], code: i32) -> Value {
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let folders = std::env::join_paths(folders).unwrap().into_string().unwrap();
    let url = server.url();
    let mut env = vec![("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &url), ("AUTOPACK_WORKER_SANDBOX_PATHS", &folders)];
    env.extend([("ANTHROPIC_API_KEY", KEY), ("ANTHROPIC_BASE_URL", &url)]);
    env.extend(more);
    let resumed = bench.run_in(&bench.repo(), &["runs", "resume", "a", "--no-wait"], &env);
    assert_eq!(resumed.code, code, "{resumed:?} {:?}", server.asked().iter().map(Asked::text).collect::<Vec<_>>());
    bench.run(&["runs", "show", "a", "-o", "json"]).expect(0).json()["phases"][0].clone()
}

/// Everything that people can see of the run.
fn told(bench: &Bench) -> String {
    let mut text = String::new();
    for words in [
        &["runs", "logs", "a"][..],
        &["runs", "show", "a", "-o", "json"],
        &["runs", "diff", "a"],
        &["runs", "transcript", "a", "code"],
    ] {
        let ran = bench.run(words);
        text.push_str(&ran.stdout);
        text.push_str(&ran.stderr);
    }
    text
}

/// Whether every question came with the real key, and nothing else was asked with it.
fn asked_with_the_key(server: &Standin) -> bool {
    let asked = server.asked();
    !asked.is_empty()
        && asked.iter().all(|one| one.headers.to_lowercase().contains(&format!("authorization: bearer {KEY}")))
}

/// Whether the model was told what a tool came to.
pub(crate) fn has_tool_result(asked: &Asked) -> bool {
    asked.body["messages"].as_array().is_some_and(|all| all.iter().any(|one| one["role"] == "tool"))
}

#[test]
fn mini_swe_agent_works_offline() {
    let Some((program, folders)) = mini() else { return };
    let server = Standin::by(|asked| {
        let command = if has_tool_result(asked) {
            "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
        } else {
            "echo '# Made' > examples/made.md"
        };
        Say::tool("bash", json!({ "command": command }))
    });
    let bench = site(&format!("preset = \"mini-swe-agent\"\nargv = [{program:?}]\n"));
    let phase = driven(&bench, &server, &folders, &[], 0);
    assert_eq!(phase["state"], "APPLIED", "{phase}");
    assert!(asked_with_the_key(&server) && !told(&bench).contains(KEY));
    let asked = server.asked();
    assert!(asked.len() >= 2 && asked[0].path == "/v1/chat/completions", "{}", asked.len());
    assert!(asked[0].text().contains("write examples/made.md"), "{}", asked[0].text());
}

/// What OpenCode is told: write the file, then stop.
fn writes_once(asked: &Asked) -> Say {
    let text = asked.text();
    let tools = asked.body["tools"].as_array().is_some_and(|all| !all.is_empty());
    let tree = text.split("Working directory: ").nth(1).and_then(|rest| rest.split("\\n").next()).unwrap_or_default();
    if !tools || has_tool_result(asked) {
        return Say::text("Done.");
    }
    Say::tool("write", json!({ "filePath": format!("{}/examples/made.md", tree.trim()), "content": "# Made\n" }))
}

#[test]
fn opencode_works_offline() {
    let Some((program, folders)) = opencode() else { return };
    let server = Standin::by(writes_once);
    let bench = site(&format!("preset = \"opencode\"\nargv = [{program:?}]\n"));
    let phase = driven(&bench, &server, &folders, &[], 0);
    assert_eq!(phase["state"], "APPLIED", "{phase}");
    assert!(asked_with_the_key(&server) && !told(&bench).contains(KEY));
}

/// What Claude Code is told: write the file, then stop.
fn writes_in_claudes_way(asked: &Asked) -> Say {
    let text = asked.text();
    let offers =
        |tool: &str| asked.body["tools"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == tool));
    if !offers("Edit") || text.contains("\"tool_result\"") {
        return Say::text("Done.");
    }
    // An edit of nothing makes a file.
    Say::tool("Edit", json!({ "file_path": "examples/made.md", "old_string": "", "new_string": "# Made\n" }))
}

#[test]
fn aider_works_offline() {
    let Some(program) = aider() else { return };
    let server = Standin::by(|_| Say::text("Here it is.\n\nexamples/made.md\n```\n# Made\n```\n"));
    let bench = site(&format!("preset = \"aider\"\nargv = [{program:?}]\n"));
    let python = cache("aider").join("bin/python3").canonicalize().unwrap();
    let folders = [cache("aider"), python.ancestors().nth(2).unwrap().to_path_buf()];
    let phase = driven(&bench, &server, &folders, &[], 0);
    assert_eq!(phase["state"], "APPLIED", "{phase}");
    assert!(server.asked()[0].text().contains("write examples/made.md"));
    let usage = &phase["attempts"][0]["usage"];
    assert!(usage["input_tokens"].as_u64().unwrap() >= 100 && usage["calls"].as_u64().unwrap() >= 1, "{usage}");
}

#[test]
fn claude_code_works_offline() {
    let Some(program) = claude() else { return };
    let server = Standin::by(writes_in_claudes_way);
    let bench = site_of("anthropic", &format!("preset = \"claude-code\"\nargv = [{program:?}]\n"));
    let phase = driven(&bench, &server, &[cache("claude")], &[], 0);
    assert_eq!(phase["state"], "APPLIED", "{phase}");
    let asked = server.asked();
    assert!(asked.iter().any(|one| one.text().contains("write examples/made.md")), "{}", asked.len());
    assert!(asked.iter().all(|one| one.path == "/v1/messages" && one.headers.contains(KEY)));
    let usage = &phase["attempts"][0]["usage"];
    assert!(usage["input_tokens"].as_u64().unwrap() >= 200 && usage["calls"].as_u64().unwrap() >= 2, "{usage}");
}

/// An agent of the protocol in a few lines of shell: it asks for leave to edit, and for leave to run something.
const ACP_AGENT: &str = r#"#!/bin/sh
say() { printf '%s\n' "$1"; }
read a; say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{}}}'
read b; say '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s1"}}'
read c
options='[{"optionId":"y","name":"Yes","kind":"allow_once"},{"optionId":"n","name":"No","kind":"reject_once"}]'
ask() { say '{"jsonrpc":"2.0","id":"'$1'","method":"session/request_permission","params":{"sessionId":"s1","toolCall":{"toolCallId":"'$1'","title":"t","kind":"'$2'","locations":[{"path":"'"$PWD/$3"'"}]},"options":'"$options"'}}'; read answer; }
ask e1 edit examples/made.md
case "$answer" in *'"optionId":"y"'*) say '{"jsonrpc":"2.0","id":"w","method":"fs/write_text_file","params":{"sessionId":"s1","path":"'"$PWD/examples/made.md"'","content":"made"}}'; read d;; esac
ask e2 execute .
case "$answer" in *'"optionId":"n"'*) ;; *) echo run > ran;; esac
ask e3 edit README.md
case "$answer" in *'"optionId":"n"'*) ;; *) echo run > ran;; esac
say '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'
read e
"#;

#[test]
fn a_run_with_one_phase_of_each_kind() {
    let server = kinds::server();
    let (config, real) = kinds::config();
    let bench = Bench::with(SITE);
    bench.write("autopack.toml", &config);
    bench.commit("builders");
    bench.write("../run.json", &kinds::run_file("a").to_string());
    bench.run(&["runs", "submit", "../run.json"]).expect(0);
    approved(&bench, &server, &mini().map(|(_, folders)| folders).unwrap_or_default());
    let shown = bench.run(&["runs", "show", "a", "-o", "json"]).expect(0).json();
    kinds::is_done(&shown, &bench.run(&["runs", "diff", "a"]).expect(0).stdout);
    if real {
        kinds::agent_worked(&server);
    }
}

/// Drives the run to its end in sandboxes that have these folders; what is asked about is approved.
fn approved(bench: &Bench, server: &Standin, folders: &[PathBuf]) {
    let folders = std::env::join_paths(folders).unwrap().into_string().unwrap();
    let url = server.url();
    let mut env = vec![("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", url.as_str())];
    env.extend((!folders.is_empty()).then_some(("AUTOPACK_WORKER_SANDBOX_PATHS", folders.as_str())));
    for _ in 0..6 {
        let ran = bench.run_in(&bench.repo(), &["runs", "resume", "a", "--no-wait"], &env);
        if ran.code == 0 {
            return;
        }
        assert_eq!(ran.code, 4, "{ran:?}");
        let list = bench.run(&["approvals", "list", "-o", "json"]).expect(0).json();
        for request in list["requests"].as_array().unwrap() {
            let field = |name: &str| request[name].as_str().unwrap().to_owned();
            let (id, digest) = (field("request_id"), field("subject_digest"));
            bench.run(&["approvals", "approve", &id, "--expect-digest", &digest, "--reason", "read it"]).expect(0);
        }
    }
    panic!("it does not end");
}

#[test]
fn what_an_agent_asks_leave_for_is_answered_by_policy() {
    let server = Standin::of([]);
    let bench = Bench::with(SITE);
    bench.write("../tools/agent.sh", ACP_AGENT);
    let tools = bench.path().join("tools");
    let agent = tools.join("agent.sh");
    let config =
        format!("[policy]\nextends = \"autopack\"\n\n[builders.coder]\nkind = \"agent\"\nargv = [\"sh\", {agent:?}]\n");
    bench.write("autopack.toml", &config);
    bench.commit("an agent");
    let phase = "  - id: agent\n    goal: add a page\n    category: documentation\n    scope: {paths: [examples/]}\n    \
                 builder: {kind: agent, preset: coder}\n";
    bench.write("../run.yaml", &format!("run_id: a\nphases:\n{phase}"));
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    approved(&bench, &server, &[tools]);
    let diff = bench.run(&["runs", "diff", "a"]).expect(0).stdout;
    assert!(diff.contains("+made"), "{diff}");
    assert!(!diff.contains("b/ran"), "leave to run something was refused: {diff}");
    let logs = bench.run(&["runs", "logs", "a"]).expect(0).stdout;
    assert!(logs.contains("asks leave"), "{logs}");
}
