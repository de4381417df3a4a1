//! The command line of bubblewrap. A pure function: what it says is what the built-in way does by itself.

use std::ffi::OsString;

use super::outer::lacks;
use super::spec::{INIT, INSIDE_ID, Outer, Weakness};

/// What bubblewrap is called with.
pub(super) fn arguments(spec: &Outer) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut say = |more: &[&dyn AsRef<std::ffi::OsStr>]| words.extend(more.iter().map(|w| w.as_ref().to_owned()));
    let own_users = !lacks(&spec.weak, Weakness::User);
    say(&[&"--unshare-uts", &"--unshare-cgroup"]);
    if own_users {
        say(&[&"--unshare-user"]);
    }
    for (layer, flag) in
        [(Weakness::Ipc, "--unshare-ipc"), (Weakness::Pid, "--unshare-pid"), (Weakness::Net, "--unshare-net")]
    {
        if !lacks(&spec.weak, layer) {
            say(&[&flag]);
        }
    }
    if own_users && !lacks(&spec.weak, Weakness::Seccomp) {
        say(&[&"--disable-userns"]);
    }
    if !lacks(&spec.weak, Weakness::Pid) {
        say(&[&"--as-pid-1"]);
    }
    let id = INSIDE_ID.to_string();
    say(&[&"--die-with-parent", &"--new-session", &"--clearenv", &"--cap-drop", &"ALL"]);
    say(&[&"--hostname", &"ap"]);
    if own_users {
        say(&[&"--uid", &id, &"--gid", &id]);
    }
    for (name, target) in &spec.links {
        say(&[&"--symlink", target, name]);
    }
    say(&[&"--proc", &"/proc", &"--dev", &"/dev"]);
    if spec.user.is_none() {
        let size = spec.tmp_bytes.to_string();
        say(&[&"--size", &size, &"--tmpfs", &"/tmp"]);
    }
    for mount in &spec.mounts {
        let how = if mount.writable { "--bind" } else { "--ro-bind" };
        say(&[&how, &mount.from, &mount.to]);
    }
    say(&[&"--remount-ro", &"/", &"--chdir", &"/", &"--", &INIT, &"sandbox-init"]);
    words
}
