//! What the worker tells the processes that build a sandbox and stand in it, over the one socket they inherit: first
//! how it is built, then what runs in it, then a sign of life every second. What they answer are records, one a line.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest message either way.
const LONGEST: usize = 4 << 20;

/// What builds the sandbox is in the control group now, and may start others.
pub(crate) const GO: u8 = b'g';
/// Sign of life.
pub(crate) const BEAT: u8 = b'h';
/// Asks everything inside to end.
pub(crate) const TERM: u8 = b't';
/// Everything inside stands still.
pub(crate) const STOP: u8 = b's';
/// It goes on.
pub(crate) const CONT: u8 = b'c';

/// The user and the group inside.
pub(crate) const INSIDE_ID: u32 = 1000;
/// Where the tree is inside.
pub const WS: &str = "/ws";
/// Where files of this program are inside.
pub(crate) const AP: &str = "/run/ap";
/// The socket of the way out inside.
pub(crate) const EGRESS_SOCKET: &str = "/run/ap/egress.sock";
/// Where programs inside find the way out on their loopback.
pub const EGRESS_PORT: u16 = 3128;
/// The program inside that stands as PID 1.
pub(crate) const INIT: &str = "/run/ap/init";

/// By which means namespaces and mounts are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By bubblewrap.
    Bwrap(PathBuf),
    /// By this program.
    Builtin,
}

/// One thing of the host that is there inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// What.
    pub(crate) from: PathBuf,
    /// Where.
    pub(crate) to: PathBuf,
    /// Whether it can be written.
    pub(crate) writable: bool,
    /// Whether it is the worker's own: what the worker owns is the builder's inside.
    pub(crate) mapped: bool,
}

/// A layer left out, to prove that the attempts notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weakness {
    /// The host's network.
    Net,
    /// The host's processes.
    Pid,
    /// The host's message queues and shared memory.
    Ipc,
    /// The host's files, read-only.
    Files,
    /// No Landlock.
    Landlock,
    /// No filter of system calls.
    Seccomp,
    /// No control group.
    Cgroup,
    /// No limits of a process.
    Rlimits,
    /// The worker's own user.
    Uid,
    /// The host's users: root inside is root.
    User,
    /// Variables of the worker.
    Env,
}

/// How the sandbox is built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outer {
    /// By which means.
    pub(crate) way: Way,
    /// The user outside, where the worker is root.
    pub(crate) user: Option<u32>,
    /// Mounts, parents first.
    pub(crate) mounts: Vec<Mount>,
    /// Links in the root: name and target.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Bytes of `/tmp`.
    pub(crate) tmp_bytes: u64,
    /// Files of `/tmp`.
    pub(crate) tmp_files: u64,
    /// Marks the process outside.
    pub(crate) mark: String,
    /// Layers left out.
    pub(crate) weak: Vec<Weakness>,
}

/// Limits of one process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rlimits {
    /// Bytes of one file.
    pub(crate) file_bytes: u64,
    /// Open files.
    pub(crate) open_files: u64,
    /// Processes of the user.
    pub(crate) processes: u64,
    /// Bytes of address space, where there is no control group for memory.
    pub(crate) address_space: Option<u64>,
}

/// What runs inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Inner {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Where.
    pub(crate) cwd: PathBuf,
    /// Limits of each process.
    pub(crate) rlimits: Rlimits,
    /// What can be read and run.
    pub(crate) readable: Vec<PathBuf>,
    /// What can be written too.
    pub(crate) writable: Vec<PathBuf>,
    /// The host's network namespace: inside is another one.
    pub(crate) host_net: u64,
    /// The Landlock ABI that was found on this host.
    pub(crate) landlock_abi: i32,
    /// Only system calls that ordinary tools need are let through.
    pub(crate) strict: bool,
    /// The only ports that TCP may connect to, and none to listen at; where there are none, it is not ruled: the loopback
    /// is its own.
    pub(crate) tcp: Option<Vec<u16>>,
    /// Milliseconds without a sign of life after which everything ends.
    pub(crate) deadman_ms: u64,
    /// Layers left out.
    pub(crate) weak: Vec<Weakness>,
    /// What it reads comes over the socket as an open file; nothing otherwise.
    pub(crate) stdin: bool,
    /// The port on the loopback that leads to the way out, where there is one.
    pub(crate) egress: Option<u16>,
}

/// What is said of what runs inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// The sandbox could not be built; nothing ran.
    Failed(String),
    /// The sandbox stands, but the program cannot be started.
    NoProgram(String),
    /// It runs.
    Started,
    /// It ended with this code.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
}

/// One message with its length before it.
///
/// # Errors
/// When the message is too long.
pub(crate) fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the message is too long"))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// Reads one message and not a byte more.
///
/// # Errors
/// When the other side is gone, or says what is no such message.
pub(crate) fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0u8; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = vec![0u8; length];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}
