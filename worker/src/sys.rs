//! The system calls that no safe wrapper offers: the only `unsafe` of this crate. Each function here takes and returns
//! plain values and is safe to call as its text says.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::unistd::{ForkResult, Pid};
use tokio::process::Command;

/// The kernel ends the child when the thread that started it ends.
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call, async-signal-safe, and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
}

/// Forks. `None` in the child.
///
/// # Errors
/// The system's word; `InvalidInput` where this process has more than one thread.
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a process of many threads is not forked"));
    }
    // SAFETY: there is one thread, as was just seen, so the child's memory is consistent.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Attributes of a mount, as `mount_setattr` has them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountAttributes<'a> {
    /// Nothing below can be written.
    pub(crate) read_only: bool,
    /// The user namespace by which owners are translated.
    pub(crate) mapped: Option<BorrowedFd<'a>>,
}

/// Changes a mount that a descriptor stands for, and with `recursive` all below it. Set-id bits and device files never
/// count on it afterwards.
///
/// # Errors
/// The system's word; `EINVAL` where the file system cannot translate owners.
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: MountAttributes<'_>) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if attr.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if attr.mapped.is_some() {
        set |= libc::MOUNT_ATTR_IDMAP;
    }
    let wanted = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: attr.mapped.map_or(0, |fd| fd.as_raw_fd().unsigned_abs().into()),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, the structure lives until the call returns and its size is its own.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a system call whose arguments are numbers only. No argument may be an address other than zero.
///
/// # Errors
/// The system's word.
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
pub(crate) fn call(number: i64, arguments: [i64; 5]) -> io::Result<i64> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: with numbers and null addresses only, the kernel writes nothing into this process.
    let done = unsafe { libc::syscall(number, a, b, c, d, e, 0i64) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// Brings `lo` up in a network namespace of our own.
///
/// # Errors
/// The system's word.
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all bytes zero is a value of this structure of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from).unwrap_or(0);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: the kernel reads one structure, which lives until the call returns.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks the terminal or queue behind a descriptor for something that takes no memory: for probes.
///
/// # Errors
/// The system's word.
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
pub(crate) fn ioctl_null(descriptor: BorrowedFd<'_>, request: u32) -> io::Result<()> {
    // SAFETY: the argument is a null address, which the kernel refuses to read with `EFAULT`.
    let done = unsafe { libc::syscall(libc::SYS_ioctl, descriptor.as_raw_fd(), u64::from(request), 0usize) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
