//! What runs without a sandbox has no PID 1 that ends it with its worker. So a process beside each such job listens for
//! the worker's signs of life; where they end, it kills what bears the job's mark. Who takes the mark out of its
//! environment is not found: nothing but a sandbox holds a builder that does not want to be held.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::process::kill_marked;

/// The word for this process.
pub(crate) const WATCH: &str = "job-watch";

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);

/// How long a worker may be silent, as in a sandbox.
const PATIENCE: Duration = Duration::from_secs(12);

/// How often it is looked again after the end, for what was being started meanwhile, and the pause before.
const AGAIN: (u32, Duration) = (20, Duration::from_millis(50));

/// Does work beside a process that ends what is left of it, should this one be killed or stand still.
pub(crate) async fn beside<T>(program: Option<&Path>, mark: &str, work: impl Future<Output = T>) -> T {
    let watch = program.map(|program| start(program, mark)).transpose();
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => {
            // The work itself needs it only where this process does not end as it should.
            tracing::warn!(%error, "nobody watches over what runs without a sandbox");
            None
        }
    };
    let done = tokio::select! {
        done = work => done,
        never = beat(watch.as_mut()) => match never {},
    };
    if let Some(mut watch) = watch {
        drop(watch.stdin.take());
        // It kills what is left, and ends.
        let _ended = tokio::time::timeout(PATIENCE, watch.wait()).await;
    }
    done
}

fn start(program: &Path, mark: &str) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args([WATCH, mark]).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Not of the terminal's group: it is there for when all of that is gone.
    command.process_group(0).spawn()
}

async fn beat(watch: Option<&mut Child>) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(BEAT);
    if let Some(pipe) = watch.and_then(|watch| watch.stdin.as_mut()) {
        loop {
            ticks.tick().await;
            if pipe.write_all(b".").await.is_err() {
                tracing::warn!("the watch over what runs without a sandbox is gone");
                break;
            }
        }
    }
    std::future::pending().await
}

/// Listens on the standard input until its end; the code to end with.
pub(crate) fn stand(mark: &str) -> u8 {
    let mut heard = now();
    let stdin = io::stdin();
    loop {
        let left = PATIENCE.saturating_sub(now().saturating_sub(heard));
        if left.is_zero() {
            // It may go on later, and start more: so does this.
            kill_marked(mark);
            heard = now();
            continue;
        }
        let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut waits = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut waits, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => match stdin.lock().read(&mut [0; 64]) {
                Ok(1..) => heard = now(),
                Ok(0) => return end(mark),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return end(mark),
            },
            Err(_) => return end(mark),
        }
    }
}

/// Kills until nothing is left that bears the mark.
fn end(mark: &str) -> u8 {
    for _ in 0..AGAIN.0 {
        if kill_marked(mark) == 0 {
            return 0;
        }
        std::thread::sleep(AGAIN.1);
    }
    1
}

/// A clock that goes on while the machine sleeps.
fn now() -> Duration {
    let at = clock_gettime(ClockId::Boottime);
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0))
}
