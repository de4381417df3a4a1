//! Attempts by system calls that no builder needs. Each is made so that a kernel which looks at it would say something
//! else than the filter does.

use std::fs;
use std::os::fd::AsFd as _;

use nix::sys::signal::{Signal, kill};

use super::{Aims, Attempt, every, reached};
use crate::sys;

/// Names and attempts.
pub(super) const ATTEMPTS: &[(&str, Attempt)] = &[
    ("new_user_namespace", user_namespace),
    ("join_namespace", |_| each(&[("setns", libc::SYS_setns, [-1, 0, 0, 0, 0])])),
    ("mount", mount),
    ("ptrace", trace),
    ("kernel_programs", kernel),
    ("keyring", keyring),
    ("file_handles", |_| {
        each(&[
            ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
            ("name_to_handle_at", libc::SYS_name_to_handle_at, [-1, 0, 0, 0, 0]),
        ])
    }),
    ("become_root", root),
    ("chroot", |_| each(&[("chroot", libc::SYS_chroot, [0; 5])])),
    ("personality", |_| each(&[("personality", libc::SYS_personality, [0x004_0000, 0, 0, 0, 0])])),
    ("limits_of_init", |_| each(&[("prlimit64", libc::SYS_prlimit64, [1, 7, 0, 0, 0])])),
    ("terminal_input", terminal),
];

/// Denied is what the filter says; anything else got past it.
fn each(calls: &[(&str, i64, [i64; 5])]) -> Result<String, String> {
    every(calls.iter().map(|(name, number, arguments)| match sys::call(*number, *arguments) {
        Ok(_) => Ok(format!("{name} succeeded")),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::ENOSYS) => Err(error.to_string()),
            _ => Ok(format!("{name} reached the kernel: {error}")),
        },
    }))
}

fn user_namespace(_: &Aims) -> Result<String, String> {
    let new = i64::from(libc::CLONE_NEWUSER);
    let cloned = sys::call(libc::SYS_clone, [new | i64::from(libc::SIGCHLD), 0, 0, 0, 0]);
    if cloned.as_ref().is_ok_and(|pid| *pid == 0) {
        // The child that should not be.
        let _gone = kill(nix::unistd::getpid(), Signal::SIGKILL);
    }
    every([
        each(&[("unshare", libc::SYS_unshare, [new, 0, 0, 0, 0]), ("clone3", libc::SYS_clone3, [0; 5])]),
        reached(cloned, "clone made a user namespace"),
    ])
}

fn mount(_: &Aims) -> Result<String, String> {
    each(&[
        ("mount", libc::SYS_mount, [0; 5]),
        ("umount2", libc::SYS_umount2, [0; 5]),
        ("pivot_root", libc::SYS_pivot_root, [0; 5]),
        ("fsopen", libc::SYS_fsopen, [0; 5]),
        ("open_tree", libc::SYS_open_tree, [-1, 0, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [-1, 0, -1, 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [-1, 0, 0, 0, 0]),
    ])
}

fn trace(_: &Aims) -> Result<String, String> {
    each(&[
        ("process_vm_readv", libc::SYS_process_vm_readv, [i64::from(std::process::id()), 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [i64::from(std::process::id()), 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [0; 5]),
    ])
}

fn kernel(_: &Aims) -> Result<String, String> {
    each(&[
        ("bpf", libc::SYS_bpf, [0; 5]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 5]),
        ("init_module", libc::SYS_init_module, [0; 5]),
        ("kexec_load", libc::SYS_kexec_load, [0; 5]),
        ("syslog", libc::SYS_syslog, [10, 0, 0, 0, 0]),
    ])
}

fn keyring(_: &Aims) -> Result<String, String> {
    each(&[
        ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [0; 5]),
        ("request_key", libc::SYS_request_key, [0; 5]),
    ])
}

fn root(_: &Aims) -> Result<String, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let says =
        |wanted: &str| status.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == wanted);
    if !says("NoNewPrivs: 1") {
        return Ok("privileges can be gained".to_owned());
    }
    if !says("CapEff: 0000000000000000") || !says("CapBnd: 0000000000000000") {
        return Ok("capabilities are left".to_owned());
    }
    let become_root = nix::unistd::setuid(nix::unistd::Uid::from_raw(0));
    reached(become_root.map_err(std::io::Error::from), "became root")
}

/// TIOCSTI and TIOCLINUX, and a terminal to use them on.
fn terminal(_: &Aims) -> Result<String, String> {
    let input = std::io::stdin();
    let typed = [0x5412u32, 0x541c].map(|request| match sys::ioctl_null(input.as_fd(), request) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error.to_string()),
        Ok(()) => Ok("typed into a terminal".to_owned()),
        Err(error) => Ok(format!("ioctl reached the kernel: {error}")),
    });
    every(typed.into_iter().chain([reached(fs::File::open("/dev/tty"), "there is a terminal")]))
}
