//! A session with agents that are small shell scripts: good ones, and ones that keep to nothing.

use std::path::Path;

use super::*;
use crate::process::{ProcSpec, piped};
use autopack_shared::domain::project::Preset;

/// Talks with a script in an empty tree; what came of it, the transcript, and how long it took.
async fn met(script: &str, tree: &Path, seconds: u64) -> (Result<(), BuildError>, Vec<String>) {
    met_until(script, tree, seconds, &CancellationToken::new()).await
}

async fn met_until(
    script: &str,
    tree: &Path,
    seconds: u64,
    cancel: &CancellationToken,
) -> (Result<(), BuildError>, Vec<String>) {
    let spec = ProcSpec {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        cwd: tree.to_path_buf(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        lease: format!("acp-{}", std::process::id()),
        // Longer than the talk, which says how it ended.
        timeout: Duration::from_secs(seconds + 20),
        log_budget: 1 << 20,
        frozen: tokio::sync::watch::channel(false).1,
        output: crate::process::output::Output::default(),
        cage: crate::process::Cage::None,
    };
    let mut transcript = Transcript::of(Preset::Acp);
    let host = Host::new(tree, tree.canonicalize().unwrap().display().to_string(), &["src/".to_owned()], &[]).unwrap();
    let talking = |writer, lines| {
        let order = Order { prompt: "do it", time: Duration::from_secs(seconds), cancel };
        talk(host, (writer, lines), order, &mut transcript)
    };
    let by_itself = CancellationToken::new();
    let (said, _) = piped::converse(&spec, 10_000, &by_itself, talking).await.unwrap();
    (said.expect("it says how it ended"), transcript.done().0)
}

const HELLO: &str = r#"read a; echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}'
read b; echo '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s"}}'; read c; "#;

const DONE: &str = r#"echo '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'"#;

#[tokio::test]
async fn a_session_from_hello_to_the_end_of_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let script = format!(
        r#"say() {{ printf '%s\n' "$1"; }}; {HELLO}
echo 'a word on the wrong stream'
say '{{"jsonrpc":"2.0","method":"session/update","params":{{"update":{{"sessionUpdate":"agent_message_chunk","content":{{"type":"text","text":"I be"}}}}}}}}'
say '{{"jsonrpc":"2.0","method":"session/update","params":{{"update":{{"sessionUpdate":"agent_message_chunk","content":{{"type":"text","text":"gin\n"}}}}}}}}'
echo '{{"jsonrpc":"2.0","id":"w","method":"fs/write_text_file","params":{{"path":"{root}/src/a","content":"new"}}}}'; read d
echo '{{"jsonrpc":"2.0","id":"x","method":"fs/write_text_file","params":{{"path":"{root}/b","content":"new"}}}}'; read e
echo "$e" >&2
case "$e" in *error*) {DONE};; esac"#,
        root = root.display()
    );
    let (ended, said) = met(&script, dir.path(), 30).await;
    ended.unwrap();
    assert!(dir.path().join("src/a").exists() && !dir.path().join("b").exists());
    assert_eq!(said[..2], ["a word on the wrong stream", "I begin"]);
    assert!(said[2].contains("fs/write_text_file was refused: it is outside of the scope"), "{said:?}");
}

#[tokio::test]
async fn who_does_not_keep_to_the_protocol_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let long = "head -c 20000 /dev/zero | tr '\\0' x; echo";
    for (script, reason, why) in [
        ("read a; exit 0".to_owned(), "agent_protocol", "before it answered initialize"),
        ("cat".to_owned(), "builder_failed", "initialize is not offered here"),
        (
            "read a; echo '{\"id\":1,\"result\":{\"protocolVersion\":7}}'; cat >&2".to_owned(),
            "agent_protocol",
            "version 7",
        ),
        (
            "read a; echo '{\"id\":1,\"error\":{\"message\":\"no key\"}}'; cat >&2".to_owned(),
            "builder_failed",
            "no key",
        ),
        ("while :; do echo noise; done".to_owned(), "agent_protocol", "something else than messages"),
        (format!("{HELLO} {long}; cat >&2"), "agent_protocol", "too long"),
        (format!("{HELLO} echo '{{\"id\":3,\"result\":{{}}}}'"), "agent_protocol", "without a reason"),
        (format!("{HELLO} echo '{{\"id\":3,\"result\":{{\"stopReason\":\"refusal\"}}}}'"), "builder_failed", "refusal"),
        (format!("{HELLO} exec sleep 60"), "timeout", "told to stop"),
    ] {
        let (ended, _) = met(&script, dir.path(), 4).await;
        let error = ended.unwrap_err();
        assert!(error.reason == reason && error.message.contains(why), "{script}: {error:?}");
    }
}

#[tokio::test]
async fn an_agent_is_told_when_its_lease_ends() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{HELLO} read d; echo \"$d\" > told; cat >/dev/null");
    let cancel = CancellationToken::new();
    let later = async {
        while !dir.path().join("told").exists() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        }
    };
    let ((ended, _), ()) = tokio::join!(met_until(&script, dir.path(), 60, &cancel), later);
    assert_eq!(ended.unwrap_err().reason, "cancelled");
    assert!(std::fs::read_to_string(dir.path().join("told")).unwrap().contains("session/cancel"));
}
