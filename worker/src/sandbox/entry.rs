//! Where this program is started as a part of a sandbox, before it does anything else.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::builtin::Side;
use super::spec::{Outer, Record, read_frame};
use super::{BROKEN, Trouble, init, outer, probe, say};
use crate::watch;

/// The word for the process that builds a sandbox.
pub(super) const BUILD: &str = "sandbox-build";
/// The word for PID 1 inside.
pub(super) const INIT: &str = "sandbox-init";
/// The word for the attempts to get out.
pub(super) const PROBE: &str = "sandbox-probe";

/// Does what the first word asks for and returns the code to end with; `None` where it is none of these words. Must be
/// called while this process has one thread.
#[must_use]
pub fn enter(words: &[String]) -> Option<u8> {
    match words.first()?.as_str() {
        BUILD => Some(socket().map_or(BROKEN, build)),
        INIT => Some(socket().map_or(BROKEN, inside)),
        PROBE => Some(probe::run(&words[1..])),
        watch::WATCH => Some(words.get(1).map_or(BROKEN, |mark| watch::stand(mark))),
        _ => None,
    }
}

/// The socket to the worker, which is the standard input; it stays there for what is started next.
fn socket() -> Option<UnixStream> {
    let held: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).ok()?;
    Some(UnixStream::from(held))
}

fn build(mut socket: UnixStream) -> u8 {
    let spec = read_frame::<Outer>(&mut socket).map_err(|e| Trouble::of("cannot read how to build it", &e));
    match spec.and_then(|spec| outer::build(spec, &mut socket)) {
        Ok(Side::Outside(code)) => code,
        Ok(Side::Inside) => inside(socket),
        Err(trouble) => say(&socket, &Record::Failed(trouble.0)),
    }
}

fn inside(socket: UnixStream) -> u8 {
    // What runs inside must not inherit the socket.
    let nothing = std::fs::File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdin(&null)?));
    match nothing {
        Ok(()) => init::stand(socket),
        Err(error) => say(&socket, &Record::Failed(format!("cannot let go of the socket: {error}"))),
    }
}
