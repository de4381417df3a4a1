//! Agents that look around in their sandbox: no key is there, no host is reached that nobody allowed, and what the way to
//! their model saw is what is said of them.

use std::path::PathBuf;

use serde_json::json;

use super::{KEY, asked_with_the_key, driven, site, told};
use crate::harness::Bench;
use crate::harness::standin::{Say, Standin};

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
        told.contains("credential_cooling").then_some(told)
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
