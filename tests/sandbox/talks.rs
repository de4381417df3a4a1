//! Talking with a process in a sandbox, line by line, beside the socket by which the sandbox itself is held.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_worker::process::piped::{Heard, Lines, Writer, converse};
use autopack_worker::process::{ProcEnd, ProcReport};

use super::{Jail, running, ways};

async fn talk(jail: &Jail, script: &str, say: &'static str) -> (Option<Vec<String>>, ProcReport) {
    let talk = |mut writer: Writer, mut lines: Lines| async move {
        let _gone = writer.write(say).await;
        drop(writer);
        let mut all = Vec::new();
        while let Heard::Line(line) = lines.next().await {
            all.push(line);
        }
        all
    };
    converse(&jail.spec(&["/bin/sh", "-c", script]), 1000, &CancellationToken::new(), talk).await.unwrap()
}

#[tokio::test]
async fn lines_go_in_and_out_and_errors_apart() {
    for way in ways() {
        let jail = Jail::new(way);
        let (said, report) =
            talk(&jail, "cat; echo $PWD; ls /proc/self/fd | tr '\\n' ' '; echo; echo oops >&2; exit 3", "one\ntwo\n")
                .await;
        // The last one is the folder that `ls` reads.
        assert_eq!(said.unwrap(), ["one", "two", "/ws", "0 1 2 3 "]);
        assert_eq!((report.end, report.tail.as_str()), (ProcEnd::Exit(3), "oops\n"));
    }
}

#[tokio::test]
async fn who_waits_for_more_meets_the_end_of_his_time() {
    for way in ways() {
        let mut jail = Jail::new(way);
        jail.timeout = Duration::from_secs(2);
        let (said, report) =
            talk(&jail, "trap '' TERM; read a; echo $a; while :; do sleep 47.1; done", "hello\n").await;
        assert_eq!((said, report.end), (None, ProcEnd::Timeout));
        assert!(running("sleep 47.1").is_empty());
    }
}

#[tokio::test]
async fn a_talk_outlasts_the_deadman_and_a_plain_process_still_reads_nothing() {
    let jail = Jail::new(None);
    let (said, report) = talk(&jail, "sleep 14; cat", "still here\n").await;
    assert_eq!((said.unwrap(), report.end), (vec!["still here".to_owned()], ProcEnd::Exit(0)));
    assert_eq!(jail.says("cat; readlink /proc/self/fd/0").await, "/dev/null");
}
