//! The process between the worker and the sandbox. As root it first takes what the worker owns into mounts that
//! translate owners, and becomes a user of the slot; then bubblewrap, or this program, makes the namespaces.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

use super::Trouble;
use super::spec::{GO, Outer, Way, Weakness};
use super::{builtin, bwrap};
use crate::process::LEASE_MARK;
use crate::sys::{self, MountAttributes};

/// Where mounts are gathered before they go into the sandbox; seen by nobody else.
const STAGE: &str = "/run";

/// Builds the sandbox and never returns where bubblewrap goes on; the built-in way returns as PID 1 inside.
pub(super) fn build(mut spec: Outer, socket: &mut UnixStream) -> Result<builtin::Side, Trouble> {
    let own = |what: &'static str| move |e: io::Error| Trouble::of(what, &e);
    if let Some(user) = spec.user {
        stage(&mut spec, user)?;
        become_user(user).map_err(own("cannot become the slot's user"))?;
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| Trouble::of("cannot be tied to the worker", &e.into()))?;
    // Nothing but the three streams goes on.
    sys::call(libc::SYS_close_range, [3, i64::from(u32::MAX), libc::CLOSE_RANGE_CLOEXEC.into(), 0, 0])
        .map_err(own("cannot close files"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Whatever is started before this process is in its control group would stay outside of that.
    let mut word = [0u8];
    let heard = socket.read_exact(&mut word).map_err(own("cannot hear from the worker"));
    heard.and_then(|()| if word == [GO] { Ok(()) } else { Err(Trouble("the worker does not say go".to_owned())) })?;
    match &spec.way {
        Way::Bwrap(program) => {
            let error =
                Command::new(program).args(bwrap::arguments(&spec)).env_clear().env(LEASE_MARK, &spec.mark).exec();
            Err(Trouble::of("cannot start bubblewrap", &error))
        }
        Way::Builtin => builtin::enter(&spec),
    }
}

/// Takes every mount into a folder that only this process sees, with the owners the slot's user should see.
fn stage(spec: &mut Outer, user: u32) -> Result<(), Trouble> {
    let nix = |what: &'static str| move |e: nix::Error| Trouble::of(what, &e.into());
    let rus = |what: &'static str| move |e: rustix::io::Errno| Trouble::of(what, &e.into());
    unshare(CloneFlags::CLONE_NEWNS).map_err(nix("cannot make a mount namespace"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(rus("cannot make mounts private"))?;
    let owners = owners_of(user).map_err(|e| Trouble::of("cannot make a map of owners", &e))?;
    // Sources below the stage have to be taken before it hides them.
    let mut taken = Vec::new();
    for mount in &spec.mounts {
        let tree = take(&mount.from, mount.mapped.then_some(&owners), !mount.writable)
            .map_err(|e| Trouble::of(format!("cannot take {}", mount.from.display()), &e))?;
        taken.push((tree, mount.from.is_dir()));
    }
    rustix::mount::mount("tmpfs", STAGE, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755,size=1m")
        .map_err(rus("cannot make the stage"))?;
    let etc = spec.mounts.iter().position(|mount| mount.to == Path::new("/etc"));
    let mut carried = Vec::new();
    for (index, (tree, is_dir)) in taken.into_iter().enumerate() {
        // What belongs into the folder of ours travels in it: each mount less is one that bubblewrap need not look for.
        if let Some(inner) = etc.and_then(|etc| within(&spec.mounts[index].to, etc)) {
            put(&tree, &inner).map_err(|e| Trouble::of("cannot place a mount", &e))?;
            carried.push(spec.mounts[index].to.clone());
            continue;
        }
        let place = Path::new(STAGE).join(index.to_string());
        let made = if is_dir { fs::create_dir(&place) } else { fs::write(&place, "") };
        made.map_err(|e| Trouble::of("cannot make a place", &e))?;
        put(&tree, &place).map_err(|e| Trouble::of("cannot place a mount", &e))?;
        spec.mounts[index].from = place;
    }
    spec.mounts.retain(|mount| !carried.contains(&mount.to));
    let tmp = Path::new(STAGE).join("tmp");
    fs::create_dir(&tmp).map_err(|e| Trouble::of("cannot make a place", &e))?;
    let options = format!("mode=1777,size={},nr_inodes={}", spec.tmp_bytes, spec.tmp_files);
    let options = std::ffi::CString::new(options).unwrap_or_default();
    rustix::mount::mount("tmpfs", &tmp, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options)
        .map_err(rus("cannot make /tmp"))?;
    // First, so that nothing below it is hidden.
    spec.mounts.insert(0, super::spec::Mount { from: tmp, to: PathBuf::from("/tmp"), writable: true, mapped: false });
    Ok(())
}

/// Where something of `/etc` belongs in the folder that is staged for that, where there is a place for it.
fn within(to: &Path, etc: usize) -> Option<PathBuf> {
    let below = to.strip_prefix("/etc").ok().filter(|below| !below.as_os_str().is_empty())?;
    let place = Path::new(STAGE).join(etc.to_string()).join(below);
    place.symlink_metadata().is_ok().then_some(place)
}

fn take(from: &Path, owners: Option<&OwnedFd>, read_only: bool) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, from, flags)?;
    sys::mount_setattr(tree.as_fd(), true, MountAttributes { read_only, mapped: owners.map(|fd| fd.as_fd()) })?;
    Ok(tree)
}

fn put(tree: &OwnedFd, place: &Path) -> io::Result<()> {
    rustix::mount::move_mount(tree, "", rustix::fs::CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// A user namespace in which root is the slot's user, as a map of owners.
fn owners_of(user: u32) -> io::Result<OwnedFd> {
    let (ready, say) = nix::unistd::pipe()?;
    let Some(child) = sys::fork()? else {
        drop(ready);
        let made = unshare(CloneFlags::CLONE_NEWUSER).is_ok();
        let _told = nix::unistd::write(&say, &[u8::from(made)]);
        drop(say);
        // Killed as soon as the namespace is held.
        loop {
            nix::unistd::pause();
        }
    };
    drop(say);
    let held = hold(child, &ready, user);
    let _gone = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
    let _reaped = nix::sys::wait::waitpid(child, None);
    held
}

fn hold(child: Pid, ready: &OwnedFd, user: u32) -> io::Result<OwnedFd> {
    let mut made = [0u8];
    if nix::unistd::read(ready, &mut made)? != 1 || made != [1] {
        return Err(io::Error::other("no user namespace can be made"));
    }
    let map = format!("0 {user} 1\n");
    fs::write(format!("/proc/{child}/uid_map"), &map)?;
    fs::write(format!("/proc/{child}/gid_map"), &map)?;
    Ok(fs::File::open(format!("/proc/{child}/ns/user"))?.into())
}

fn become_user(user: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// Whether a layer is left out.
pub(super) fn lacks(weak: &[Weakness], layer: Weakness) -> bool {
    weak.contains(&layer)
}
