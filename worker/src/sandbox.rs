//! What a builder and a gate may see and do. A sandbox is built by bubblewrap or by this program, with the same
//! contract; whatever fails before the program inside is started means that nothing runs. How far it holds is measured
//! by attempts to get out, never taken from what was asked for.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;

mod builtin;
mod bwrap;
mod cgroup;
mod config;
mod confined;
mod door;
mod entry;
mod etc;
mod forward;
mod handover;
mod init;
mod landlocked;
mod layout;
mod outer;
mod preflight;
mod probe;
mod quota;
mod selftest;
mod slots;
mod spec;
mod standing;
mod syscalls;

pub use cgroup::Bounds;
pub use config::{Sandbox, SandboxConfig, SandboxError};
pub(crate) use confined::Confined;
pub use door::DatabaseDoor;
pub(crate) use door::listen;
pub use entry::enter;
pub use layout::Place;
pub use selftest::Report;
pub use spec::{EGRESS_PORT, WS, Way, Weakness};
pub use standing::Standing;

use spec::Record;

/// The code of a process that could not build its sandbox.
const BROKEN: u8 = 125;

/// Why a sandbox could not be built, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble(String);

impl Trouble {
    fn of(what: impl Into<String>, error: &io::Error) -> Self {
        Self(format!("{}: {error}", what.into()))
    }
}

/// Tells the worker; the code to end with. A worker that is gone needs no telling.
fn say(socket: &UnixStream, record: &Record) -> u8 {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    let _gone = (&*socket).write_all(&line);
    match record {
        Record::Failed(_) => BROKEN,
        Record::NoProgram(_) => 127,
        Record::Started => 0,
        Record::Exit(code) => u8::try_from(*code).unwrap_or(255),
        Record::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
    }
}
