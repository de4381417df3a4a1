//! PID 1 of a sandbox: limits itself, starts the one program, reaps what is left over, and ends, and everything with
//! it, when the program ends, when the worker is gone, and when the worker is silent for too long.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::outer::lacks;
use super::spec::{BEAT, CONT, Inner, Record, Rlimits, STOP, TERM, Weakness, read_frame};
use super::{Trouble, forward, handover, landlocked, say, syscalls};

/// The code of a sandbox that ended because its worker is gone or silent.
pub(super) const ORPHANED: u8 = 124;

/// Stands as PID 1 until the end; the code this process ends with.
pub(super) fn stand(mut socket: UnixStream) -> u8 {
    let ready =
        read_frame::<Inner>(&mut socket).map_err(|e| Trouble::of("cannot read what to run", &e)).and_then(|inner| {
            let input = inner.stdin.then(|| handover::receive(&socket)).transpose();
            let input = input.map_err(|e| Trouble::of("cannot take what it reads", &e))?;
            // Before the rules hold, which may let nothing listen; and before the program, which may want it at once.
            let way_out = inner.egress.map(forward::listen).transpose();
            let way_out = way_out.map_err(|e| Trouble::of("cannot listen for the way out", &e))?;
            harden(&inner).map(|()| (inner, input, way_out))
        });
    let (inner, input, way_out) = match ready {
        Ok(ready) => ready,
        Err(trouble) => return say(&socket, &Record::Failed(trouble.0)),
    };
    match watch_and_run(&socket, &inner, (input, way_out)) {
        Ok(code) => code,
        Err(error) => say(&socket, &Record::Failed(format!("cannot watch what runs inside: {error}"))),
    }
}

/// Everything that has to hold before anything runs.
fn harden(inner: &Inner) -> Result<(), Trouble> {
    let rus = |what: &'static str| move |e: rustix::io::Errno| Trouble::of(what, &e.into());
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _leads_already = nix::unistd::setsid();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(rus("cannot hide from others"))?;
    rustix::thread::set_no_new_privs(true).map_err(rus("cannot give up new privileges"))?;
    if !lacks(&inner.weak, Weakness::Net) {
        let net = std::fs::metadata("/proc/self/ns/net").map_err(|e| Trouble::of("cannot see the network", &e))?;
        if net.ino() == inner.host_net {
            return Err(Trouble("the network is the host's".to_owned()));
        }
    }
    if !lacks(&inner.weak, Weakness::Rlimits) {
        limit(inner.rlimits).map_err(|e| Trouble::of("cannot set limits", &e))?;
    }
    if !lacks(&inner.weak, Weakness::Landlock) {
        landlocked::apply(inner).map_err(|why| Trouble(format!("Landlock does not hold: {why}")))?;
    }
    if !lacks(&inner.weak, Weakness::Seccomp) {
        syscalls::apply(inner.strict)
            .map_err(|why| Trouble(format!("the filter of system calls does not hold: {why}")))?;
    }
    Ok(())
}

fn limit(limits: Rlimits) -> io::Result<()> {
    let mut set = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_MEMLOCK, 64 << 10),
    ];
    set.extend(limits.address_space.map(|bytes| (Resource::RLIMIT_AS, bytes)));
    for (what, most) in set {
        let (_, hard) = nix::sys::resource::getrlimit(what)?;
        // Without privileges a limit is only lowered.
        let most = most.min(hard);
        setrlimit(what, most, most)?;
    }
    Ok(())
}

fn watch_and_run(
    socket: &UnixStream,
    inner: &Inner,
    (input, way_out): (Option<OwnedFd>, Option<TcpListener>),
) -> io::Result<u8> {
    let child = match start(inner, input) {
        Ok(child) => child,
        Err(error) => return Ok(say(socket, &Record::NoProgram(error.to_string()))),
    };
    // Only now: what is started inherits which signals are held back, and a shell would wait for its own for ever.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    ends.thread_block()?;
    // Its thread holds the same signals back.
    way_out.map(forward::carry).transpose()?;
    let ended = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    say(socket, &Record::Started);
    socket.set_nonblocking(true)?;
    let mut heard = now();
    loop {
        // Before the first wait too: it may have ended before its end was listened for.
        if let Some(record) = reap(&child) {
            return Ok(say(socket, &record));
        }
        let patience = Duration::from_millis(inner.deadman_ms).saturating_sub(now().saturating_sub(heard));
        if patience.is_zero() {
            return Ok(ORPHANED);
        }
        let mut waits = [PollFd::new(socket, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        let limit = Timespec { tv_sec: 0, tv_nsec: 0 } + span(patience.min(Duration::from_secs(1)));
        match poll(&mut waits, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !waits[0].revents().is_empty() {
            match listen(socket, &child)? {
                Heard::Nothing => {}
                Heard::Beat => heard = now(),
                Heard::End => return Ok(ORPHANED),
            }
        }
        while ended.read_signal()?.is_some() {}
    }
}

fn span(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

/// A clock that goes on while the machine sleeps.
fn now() -> Duration {
    let at = clock_gettime(ClockId::Boottime);
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0))
}

fn start(inner: &Inner, input: Option<OwnedFd>) -> io::Result<Child> {
    let (program, arguments) =
        inner.argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program is named"))?;
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(inner.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&inner.cwd)
        .stdin(input.map_or_else(Stdio::null, Stdio::from))
        .process_group(0)
        .spawn()
}

enum Heard {
    Nothing,
    Beat,
    End,
}

fn listen(socket: &UnixStream, child: &Child) -> io::Result<Heard> {
    let mut bytes = [0u8; 64];
    let mut heard = Heard::Nothing;
    loop {
        match io::Read::read(&mut &*socket, &mut bytes) {
            Ok(0) => return Ok(Heard::End),
            Ok(n) => {
                for byte in &bytes[..n] {
                    match *byte {
                        TERM => tell(child, Signal::SIGTERM),
                        STOP => tell(child, Signal::SIGSTOP),
                        CONT => tell(child, Signal::SIGCONT),
                        BEAT => heard = Heard::Beat,
                        _ => return Ok(Heard::End),
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A worker that is gone resets the socket.
            Err(_) => return Ok(Heard::End),
        }
    }
}

/// Sends a signal to everything inside.
fn tell(child: &Child, signal: Signal) {
    let whom = if std::process::id() == 1 { -1 } else { -i32::try_from(child.id()).unwrap_or(i32::MAX) };
    // Nobody is left to ask where this fails.
    let _gone = kill(Pid::from_raw(whom), signal);
}

/// Takes in everything that ended; how the one program did, once it has.
fn reap(child: &Child) -> Option<Record> {
    let mut record = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if is(pid, child) => record = Some(Record::Exit(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if is(pid, child) => record = Some(Record::Signal(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return record,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return record,
        }
    }
}

fn is(pid: Pid, child: &Child) -> bool {
    u32::try_from(pid.as_raw()) == Ok(child.id())
}
