//! Agents as builders: real packages that work offline against the stand-in, and a run with one phase of each kind.
//!
//! The packages come from PyPI and npm into a folder below `target/`, once. Where that cannot be done, the test says so
//! loudly and passes; with AUTOPACK_AGENTS=required it fails instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::standin::{Asked, Say, Standin};
use crate::harness::{Bench, SITE};

const MINI: &str = "mini-swe-agent==2.4.6";
/// The key, which only the worker and the stand-in know.
const KEY: &str = "canary-of-the-key-5f1d2a";

const OPENCODE: &str = "opencode-linux-x64@1.18.33";

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
                let required = std::env::var_os("AUTOPACK_AGENTS").is_some_and(|word| word == "required");
                assert!(!required, "{name} cannot be installed: {step:?}: {ran:?}");
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

/// A repository with an agent `coder`, and a run whose one phase it does.
fn site(agent: &str) -> Bench {
    let bench = Bench::with(SITE);
    let model = "[[builders.coder.models]]\nprovider = \"openai\"\nmodel = \"stand-in\"\ninput_price = 1000000\n";
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

fn has_tool_result(asked: &Asked) -> bool {
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

/// A site whose agent is a script in a folder of its own.
fn scripted(script: &str, more: &str) -> (Bench, PathBuf) {
    let bench = site("preset = \"aider\"\nargv = [\"sh\", \"TOOLS/agent.sh\"]\n");
    let tools = bench.path().join("tools");
    bench.write("../tools/agent.sh", script);
    let file = bench.repo().join("autopack.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("TOOLS", &tools.display().to_string());
    std::fs::write(file, format!("{text}{more}")).unwrap();
    bench.commit("a script");
    (bench, tools)
}

/// Asks the model as the variables say, and writes down all that it can see.
const SPY: &str = r#"
{ env; cat /proc/*/environ /proc/*/cmdline | tr '\0' '\n'; find /run /ws /tmp /etc -path /etc/ssl -prune -o -type f -size -200k \
  -exec cat {} +; } > /tmp/seen 2>/dev/null
curl -sS -X POST -H "authorization: Bearer $OPENAI_API_KEY" -H 'content-type: application/json' \
  -d '{"messages":[{"role":"user","content":"hello"}]}' "$OPENAI_BASE_URL/chat/completions" > /tmp/said || exit 3
grep -q 'by the model' /tmp/said || exit 4
cat /tmp/seen /tmp/said >&2
echo made > examples/made.md
"#;

#[test]
fn an_agent_never_holds_the_key() {
    let server = Standin::of([Say::text("by the model")]);
    let (bench, tools) = scripted(SPY, "");
    let phase = driven(&bench, &server, &[tools], &[], 0);
    assert!(asked_with_the_key(&server), "{phase}");
    let seen = told(&bench);
    assert!(
        seen.contains("by the model") && seen.contains("OPENAI_BASE_URL=http://127.0.0.1:3128/ap/openai/v1"),
        "{seen}"
    );
    assert!(!seen.contains(KEY), "the key was seen inside");
    assert!(seen.contains("egress allowed model:openai: 1 times"), "{seen}");
}

#[test]
fn hosts_that_nobody_allowed_are_refused_and_told() {
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = canary.local_addr().unwrap().port();
    let script = format!(
        "curl -sS -p --noproxy '' -o /tmp/x -x \"$HTTPS_PROXY\" http://127.0.0.1:{port}/ 2> /tmp/why; grep -q 403 /tmp/why || exit 5\n\
         echo done > examples/made.md\n"
    );
    let server = Standin::of([]);
    let (bench, tools) = scripted(&script, "");
    driven(&bench, &server, &[tools], &[], 0);
    canary.set_nonblocking(true).unwrap();
    assert!(canary.accept().is_err(), "the canary heard somebody");
    let told = told(&bench);
    assert!(told.contains(&format!("egress refused 127.0.0.1:{port}: not_listed")), "{told}");

    // What the project asks for and the operator does not allow is no reason to go on without.
    let more = format!("\n[egress]\nbuilders.coder = [\"private:127.0.0.1:{port}\"]\n");
    let asks = script.replace("grep -q 403 /tmp/why || exit 5", "grep -q 403 /tmp/why && exit 6");
    let (bench, tools) = scripted(&asks, &more);
    let phase = driven(&bench, &server, &[tools], &[], 1);
    let reason = phase["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("egress_refused: this worker lets repo reach no private:127.0.0.1:"), "{phase}");

    let (bench, tools) = scripted(&asks, &more);
    bench.write("../p.toml", &format!("[projects.repo]\negress = [\"private:127.0.0.1:{port}\"]\n"));
    let answers = std::thread::spawn(move || {
        canary.set_nonblocking(false).unwrap();
        let (mut stream, _) = canary.accept().unwrap();
        let mut buffer = [0u8; 1024];
        let read = std::io::Read::read(&mut stream, &mut buffer).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.0 200 OK\r\n\r\nyes").unwrap();
        buffer[..read].to_vec()
    });
    let provision = bench.path().join("p.toml").display().to_string();
    driven(&bench, &server, &[tools], &[("AUTOPACK_PROVISION_FILE", &provision)], 0);
    assert!(answers.join().unwrap().starts_with(b"GET / "));
}

#[test]
fn a_provider_that_wants_rest_is_the_reason() {
    let server = Standin::by(|_| Say::Status(429, "retry-after: 3600", "{}".to_owned()));
    let (bench, tools) = scripted(SPY, "");
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let mut child = bench.command(&bench.repo());
    child.args(["runs", "resume", "a", "--no-wait"]).env("OPENAI_API_KEY", KEY).env("OPENAI_BASE_URL", server.url());
    child
        .env("AUTOPACK_WORKER_SANDBOX_PATHS", tools)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut child = child.spawn().unwrap();
    let told = (0..300).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let told = bench.run(&["runs", "explain", "a", "-o", "json"]).stdout;
        (told.contains("provider_rate_limited") || told.contains("rests")).then_some(told)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.is_some(), "{}", bench.run(&["runs", "show", "a", "-o", "json"]).stdout);
    assert_eq!(server.asked().len(), 1, "it is left alone");
}

#[test]
fn without_a_sandbox_an_agent_is_marked() {
    let server = Standin::of([]);
    let (bench, _tools) = scripted("echo made > examples/made.md\n", "");
    bench.run(&["runs", "submit", "../run.yaml", "--insecure-no-sandbox"]).expect(0);
    let env = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &server.url())];
    bench.run_in(&bench.repo(), &["runs", "resume", "a", "--no-wait"], &env).expect(4);
    let shown = bench.run(&["runs", "show", "a", "-o", "json"]).expect(0).json();
    assert_eq!(
        (&shown["insecure"], &shown["phases"][0]["state"]),
        (&json!(true), &json!("APPROVAL_PENDING")),
        "{shown}"
    );
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
    let server = Standin::of([Say::text("=== write examples/model.md\nby a model\n=== end")]);
    let bench = Bench::with(SITE);
    bench.write("../tools/agent.sh", ACP_AGENT);
    let tools = bench.path().join("tools");
    let agent = tools.join("agent.sh");
    let models = "[[builders.writer.models]]\nprovider = \"openai\"\nmodel = \"stand-in\"\n";
    bench.write(
        "autopack.toml",
        &format!(
            "[policy]\nextends = \"autopack\"\n\n[builders.coder]\nkind = \"agent\"\nargv = [\"sh\", {agent:?}]\n\n\
             [builders.writer]\nkind = \"llm\"\n{models}"
        ),
    );
    bench.commit("builders");
    let phase = |id: &str, builder: &str| {
        format!(
            "  - id: {id}\n    goal: add a page\n    category: documentation\n    scope: {{paths: [examples/]}}\n    builder: {builder}\n"
        )
    };
    let diff = "diff --git a/examples/patch.md b/examples/patch.md\\nnew file mode 100644\\nindex 0000000..1111111\\n--- /dev/null\\n\
                +++ b/examples/patch.md\\n@@ -0,0 +1 @@\\n+by a patch\\n";
    let file = [
        phase("command", "{kind: command, argv: [sh, -c, echo by a command > examples/command.md]}"),
        phase("agent", "{kind: agent, preset: coder}"),
        phase("llm", "{kind: llm, model: writer}"),
        phase("patch", &format!("{{kind: patch, diff: \"{diff}\"}}")),
    ];
    bench.write("../run.yaml", &format!("run_id: a\nphases:\n{}", file.concat()));
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let (url, tools) = (server.url(), tools.display().to_string());
    let env = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &url), ("AUTOPACK_WORKER_SANDBOX_PATHS", &tools)];
    let ran = bench.run_in(&bench.repo(), &["runs", "resume", "a", "--no-wait", "-o", "json"], &env).expect(0).json();
    let states: Vec<&str> = ran["phases"].as_array().unwrap().iter().filter_map(|one| one["state"].as_str()).collect();
    assert_eq!(states, ["APPLIED"; 4], "{ran}");
    let diff = bench.run(&["runs", "diff", "a"]).expect(0).stdout;
    for line in ["+by a command", "+made", "+by a model", "+by a patch"] {
        assert!(diff.contains(line), "{line}: {diff}");
    }
    assert!(!diff.contains("b/ran"), "leave to run something was refused: {diff}");
    let logs = bench.run(&["runs", "logs", "a"]).expect(0).stdout;
    assert!(logs.contains("asks leave"), "{logs}");
}
