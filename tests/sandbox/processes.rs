//! Processes: T117, T118, T119, T125, T129, T130: nothing is left, and nothing else is reached.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_worker::process::{self, ProcEnd};

use super::{Jail, running, ways};

/// A number of seconds to sleep that nobody else sleeps: it marks a process.
fn mark() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("sleep {}.{}", 70_000 + std::process::id() % 10_000, NEXT.fetch_add(1, Ordering::Relaxed) + 1)
}

#[tokio::test]
async fn a_daemon_ends_with_its_builder() {
    for way in ways() {
        let jail = Jail::new(way);
        let sleep = mark();
        let script =
            format!("(setsid sh -c '(trap \"\" TERM HUP; {sleep}) >/dev/null 2>&1 &' &) ; sleep 0.3; echo done");
        assert_eq!(jail.says(&script).await, "done");
        assert_eq!(running(&sleep), Vec::<i32>::new());
    }
}

#[tokio::test]
async fn whoever_ignores_signals_ends_with_its_time_and_with_its_lease() {
    for way in ways() {
        let mut jail = Jail::new(way);
        jail.timeout = Duration::from_secs(2);
        let sleep = mark();
        let script =
            format!("trap '' TERM INT HUP; (trap '' TERM; setsid {sleep}) & {sleep} & while :; do sleep 0.1; done");
        assert_eq!(jail.sh(&script).await.end, ProcEnd::Timeout);
        assert_eq!(running(&sleep), Vec::<i32>::new());

        jail.timeout = Duration::from_secs(60);
        let lease = CancellationToken::new();
        let spec = jail.spec(&["/bin/sh", "-c", &script]);
        let (report, ()) = tokio::join!(process::run(&spec, &lease), async {
            while running(&sleep).is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            lease.cancel();
        });
        assert_eq!(report.unwrap().end, ProcEnd::Cancelled);
        assert_eq!(running(&sleep), Vec::<i32>::new());
    }
}

#[tokio::test]
async fn a_builder_that_is_asked_to_end_may_tidy_up() {
    for way in ways() {
        let mut jail = Jail::new(way);
        jail.timeout = Duration::from_secs(2);
        let report = jail.sh("trap 'echo tidied > tidy; exit 0' TERM; while :; do sleep 0.1; done").await;
        assert_eq!(report.end, ProcEnd::Timeout);
        assert_eq!(std::fs::read_to_string(jail.path("tree/tidy")).unwrap(), "tidied\n");
    }
}

#[tokio::test]
async fn only_its_own_processes_are_seen_and_reached() {
    for way in ways() {
        let jail = Jail::new(way);
        let worker = std::process::id();
        assert!(jail.says("ls -d /proc/[0-9]* | wc -l").await.parse::<u32>().unwrap() < 8);
        jail.refuses(&format!("kill -0 {worker}")).await;
        // PID 1 is not to be ended, stopped, traced or starved from inside.
        let alive = jail.says("kill -9 1; kill -STOP 1; prlimit --pid 1 --cpu=0 2>/dev/null; cat /proc/1/maps 2>/dev/null; echo alive").await;
        assert!(alive.ends_with("alive"), "{alive}");
        for script in [
            "unshare -r true",
            "unshare -Urmpf true",
            "unshare -n true",
            "nsenter -t 1 -a true",
            "chroot / true",
            "setpriv --reuid 0 true",
            "prlimit --pid 1 --nofile=1",
            "hostname other",
            "mount --bind /ws /tmp",
        ] {
            jail.refuses(script).await;
        }
        assert_eq!(
            jail.says("tty; test -e /dev/tty && (: > /dev/tty) 2>/dev/null || echo none").await,
            "not a tty\nnone"
        );
        assert_eq!(
            jail.says("ulimit -c; ulimit -Hc; sh -c 'kill -SEGV $$' 2>/dev/null || ls | tr '\\n' ' '").await,
            "0\n0\nfile"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_built_runs_nothing() {
    for way in ways() {
        let jail = Jail::new(way.clone());
        let error = jail.try_run(&["/no/such/program"]).await.unwrap_err();
        assert_eq!(error.reason(), "builder_unavailable", "{error}");
        // A tree that went away, a helper that is none, a bubblewrap that is none.
        let gone = Jail::new(way.clone());
        std::fs::remove_dir_all(gone.path("tree")).unwrap();
        assert_eq!(gone.try_run(&["/bin/true"]).await.unwrap_err().reason(), "sandbox_failed");
        for helper in ["/bin/true", "/bin/false", "/no/such/helper"] {
            let broken = Jail::with(way.clone(), |config| config.helper = helper.into());
            assert_eq!(broken.try_run(&["/bin/true"]).await.unwrap_err().reason(), "sandbox_failed", "{helper}");
        }
    }
    for bwrap in ["/bin/true", "/bin/false", "/bin/sh", "/no/such/bwrap"] {
        let broken = Jail::new(Some(bwrap.into()));
        assert_eq!(broken.try_run(&["/bin/touch", "ran"]).await.unwrap_err().reason(), "sandbox_failed", "{bwrap}");
        assert!(!broken.path("tree/ran").exists());
    }
}
