//! Namespaces, mounts and the loss of all capabilities without bubblewrap: the same calls in the same order.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Trouble;
use super::outer::lacks;
use super::spec::{INSIDE_ID, Mount, Outer, Weakness};
use crate::sys::{self, MountAttributes};

/// Where the new root is put together.
const ROOT: &str = "/tmp";

/// Devices that are there inside.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// On which side of the fork this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// PID 1 of the sandbox, all set up.
    Inside,
    /// Outside, where the sandbox has ended with this code.
    Outside(u8),
}

/// Makes the namespaces and forks. Inside everything is in place.
pub(super) fn enter(spec: &Outer) -> Result<Side, Trouble> {
    let mut flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET;
    for (layer, flag) in [
        (Weakness::Ipc, CloneFlags::CLONE_NEWIPC),
        (Weakness::Pid, CloneFlags::CLONE_NEWPID),
        (Weakness::Net, CloneFlags::CLONE_NEWNET),
        (Weakness::User, CloneFlags::CLONE_NEWUSER),
    ] {
        if lacks(&spec.weak, layer) {
            flags.remove(flag);
        }
    }
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    unshare(flags).map_err(|e| Trouble::of("cannot make namespaces", &e.into()))?;
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        map_ids(uid, gid).map_err(|e| Trouble::of("cannot map the user", &e))?;
    }
    let Some(child) = sys::fork().map_err(|e| Trouble::of("cannot fork", &e))? else {
        inside(spec)?;
        return Ok(Side::Inside);
    };
    Ok(Side::Outside(outlive(child)))
}

/// Waits for the sandbox; it dies with this process.
fn outlive(child: Pid) -> u8 {
    // The socket belongs to the side inside: its end has to be seen when that side is gone.
    let _null = fs::File::open("/dev/null").map(|null| rustix::stdio::dup2_stdin(&null));
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return u8::try_from(code).unwrap_or(255),
            Ok(WaitStatus::Signaled(_, signal, _)) => return u8::try_from(128 + signal as i32).unwrap_or(255),
            Err(nix::Error::EINTR) | Ok(_) => {}
            Err(_) => return 255,
        }
    }
}

fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    // The files below belong to root as long as this process is not dumpable, as after a change of user.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{INSIDE_ID} {uid} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("{INSIDE_ID} {gid} 1\n"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn inside(spec: &Outer) -> Result<(), Trouble> {
    let own = |what: &'static str| move |e: io::Error| Trouble::of(what, &e);
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| Trouble::of("cannot be tied to the process outside", &e.into()))?;
    // A sandbox without a session of its own could reach a terminal.
    let _leads_already = nix::unistd::setsid();
    nix::unistd::sethostname("ap").map_err(|e| Trouble::of("cannot name the host", &e.into()))?;
    if !lacks(&spec.weak, Weakness::Net) {
        sys::loopback_up().map_err(own("cannot bring lo up"))?;
    }
    root(spec).map_err(own("cannot put the root together"))?;
    if !lacks(&spec.weak, Weakness::Seccomp) && !lacks(&spec.weak, Weakness::User) {
        no_more_users().map_err(own("cannot forbid user namespaces"))?;
    }
    no_capabilities().map_err(own("cannot give up capabilities"))
}

/// The new root, and the old one gone.
fn root(spec: &Outer) -> io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // Sources may be below the place of the new root.
    let mut taken = Vec::new();
    for mount in &spec.mounts {
        taken.push((take(mount)?, mount.from.is_dir()));
    }
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    tmpfs(Path::new(ROOT), plain, "mode=755,size=1m")?;
    let at = |path: &Path| Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path));
    for (name, target) in &spec.links {
        symlink(target, at(name))?;
    }
    for folder in ["proc", "dev", "tmp"] {
        fs::create_dir(Path::new(ROOT).join(folder))?;
    }
    let proc = at(Path::new("/proc"));
    if lacks(&spec.weak, Weakness::Pid) {
        rustix::mount::mount_bind_recursive("/proc", &proc)?;
    } else {
        rustix::mount::mount("proc", &proc, "proc", plain | MountFlags::NOEXEC, None)?;
    }
    devices(&at(Path::new("/dev")))?;
    if spec.user.is_none() {
        let options = format!("mode=1777,size={},nr_inodes={}", spec.tmp_bytes, spec.tmp_files);
        tmpfs(&at(Path::new("/tmp")), plain, &options)?;
    }
    for (mount, (tree, is_dir)) in spec.mounts.iter().zip(taken) {
        let place = at(&mount.to);
        let missing = place.symlink_metadata().is_err();
        if missing && is_dir {
            fs::create_dir_all(&place)?;
        } else if missing {
            place.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&place, "")?;
        }
        rustix::mount::move_mount(&tree, "", rustix::fs::CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    rustix::process::chdir(ROOT)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::mount::mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | plain, c"")?;
    Ok(())
}

fn take(mount: &Mount) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, &mount.from, flags)?;
    sys::mount_setattr(tree.as_fd(), true, MountAttributes { read_only: !mount.writable, mapped: None })?;
    Ok(tree)
}

fn tmpfs(place: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    rustix::mount::mount("tmpfs", place, "tmpfs", flags, &*CString::new(options)?)?;
    Ok(())
}

fn devices(dev: &Path) -> io::Result<()> {
    tmpfs(dev, MountFlags::NOSUID | MountFlags::NOEXEC, "mode=755,size=64k")?;
    for name in DEVICES {
        let place = dev.join(name);
        fs::write(&place, "")?;
        rustix::mount::mount_bind(Path::new("/dev").join(name), &place)?;
    }
    for (name, folder) in [("pts", "devpts"), ("shm", "tmpfs")] {
        let place: PathBuf = dev.join(name);
        fs::create_dir(&place)?;
        let options = if folder == "devpts" { c"newinstance,ptmxmode=0666,mode=620" } else { c"mode=1777,size=64m" };
        rustix::mount::mount(folder, &place, folder, MountFlags::NOSUID | MountFlags::NOEXEC, options)?;
    }
    symlink("pts/ptmx", dev.join("ptmx"))?;
    symlink("/proc/self/fd", dev.join("fd"))?;
    for (number, name) in ["stdin", "stdout", "stderr"].into_iter().enumerate() {
        symlink(format!("/proc/self/fd/{number}"), dev.join(name))?;
    }
    Ok(())
}

/// No user namespace can be made from here on, whatever a filter of system calls lets through.
fn no_more_users() -> io::Result<()> {
    fs::write("/proc/sys/user/max_user_namespaces", "1")?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    map_ids(INSIDE_ID, INSIDE_ID)
}

fn no_capabilities() -> io::Result<()> {
    for number in 0..=63u32 {
        let Some(one) = CapabilitySet::from_bits(1 << number) else { continue };
        // A capability that the kernel does not know is not there either.
        let _unknown = rustix::thread::remove_capability_from_bounding_set(one);
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}
