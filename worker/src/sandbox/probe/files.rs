//! Attempts on files: read, write, link and look where nothing should be.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{Aims, Attempt, every, reached};
use crate::sandbox::spec::WS;

/// Names and attempts.
pub(super) const ATTEMPTS: &[(&str, Attempt)] = &[
    ("read_host_file", |aims| reached(fs::read(&aims.secret), "read a file of the host")),
    ("read_shadow", |_| reached(fs::read("/etc/shadow"), "read /etc/shadow")),
    ("read_passwd", passwd),
    ("read_private_file", |aims| reached(fs::read(&aims.private), "read what only the worker may")),
    ("see_host_folders", folders),
    ("see_git", |_| reached(fs::symlink_metadata(Path::new(WS).join(".git")), "there is a .git")),
    ("write_outside", write),
    ("link_out", link_out),
    ("proc_roads", proc_roads),
    ("devices", devices),
    // Only Landlock denies this one.
    ("write_beside_rules", |_| reached(fs::write("/dev/canary", "x"), "wrote where no rule allows it")),
    ("set_id_bits", set_id),
    ("environment", environment),
];

/// The one user of the sandbox is all there is.
fn passwd(_: &Aims) -> Result<String, String> {
    let text = fs::read_to_string("/etc/passwd").map_err(|e| e.to_string())?;
    if text.lines().count() == 1 { Err("one user is there".to_owned()) } else { Ok("read /etc/passwd".to_owned()) }
}

fn folders(_: &Aims) -> Result<String, String> {
    every(["/home", "/root", "/sys", "/var", "/boot", "/mnt", "/run/autopack-slots"].map(|path| {
        let shown = fs::read_dir(path).map(|mut entries| entries.next().is_some());
        match shown {
            Ok(true) => Ok(format!("{path} is there")),
            Ok(false) => Err("empty".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }))
}

fn write(aims: &Aims) -> Result<String, String> {
    let beside = aims.secret.with_extension("written");
    let places =
        ["/canary", "/etc/canary", "/usr/canary", "/run/ap/canary", "/run/ap/task/canary", "/proc/sys/kernel/hostname"];
    let places = places.iter().map(Path::new).chain([beside.as_path()]);
    every(places.map(|path| reached(fs::write(path, "x"), &format!("wrote {}", path.display()))))
}

fn link_out(aims: &Aims) -> Result<String, String> {
    let link = Path::new(WS).join("link");
    let _earlier = fs::remove_file(&link);
    symlink(&aims.secret, &link).map_err(|e| e.to_string())?;
    let by_link = reached(fs::read(&link), "read through a link");
    let written = reached(fs::write(&link, "x"), "wrote through a link");
    let hard = reached(fs::hard_link(&aims.secret, Path::new(WS).join("hard")), "made a hard link");
    let up = reached(
        fs::read(Path::new(WS).join("../../../..").join(aims.secret.strip_prefix("/").unwrap_or(&aims.secret))),
        "went up and out",
    );
    let _gone = fs::remove_file(&link);
    every([by_link, written, hard, up])
}

fn proc_roads(aims: &Aims) -> Result<String, String> {
    let below = aims.secret.strip_prefix("/").unwrap_or(&aims.secret);
    let roads = [
        Path::new("/proc/1/root").join(below),
        Path::new("/proc/self/root").join(below),
        Path::new("/proc/1/cwd").join(below),
        Path::new("/proc/self/fd/0/../..").join(below),
        "/proc/1/environ".into(),
        "/proc/1/mem".into(),
        "/proc/kcore".into(),
        "/proc/sysrq-trigger".into(),
        format!("/proc/{}/environ", aims.worker).into(),
    ];
    let by_descriptor = (0..64).map(|n| format!("/proc/1/fd/{n}").into());
    every(
        roads.into_iter().chain(by_descriptor).map(|path| reached(fs::File::open(&path), &path.display().to_string())),
    )
}

fn devices(_: &Aims) -> Result<String, String> {
    let there =
        ["/dev/sda", "/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control"];
    let there = there.map(|path| reached(fs::File::open(path), path));
    let made = nix::sys::stat::mknod(
        &Path::new(WS).join("node"),
        nix::sys::stat::SFlag::S_IFBLK,
        nix::sys::stat::Mode::from_bits_truncate(0o600),
        nix::sys::stat::makedev(8, 0),
    );
    every(there.into_iter().chain([reached(made.map_err(io::Error::from), "made a device")]))
}

/// Files of the tree are the worker's on disk: a set-id bit on one would be a way up for whoever reaches it.
fn set_id(_: &Aims) -> Result<String, String> {
    let file = Path::new(WS).join("set-id");
    fs::write(&file, "x").map_err(|e| e.to_string())?;
    reached(fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)), "set the set-user-id bit")
}

fn environment(aims: &Aims) -> Result<String, String> {
    let strange = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let strange: Vec<String> = strange.filter(|name| !aims.variables.contains(name)).collect();
    if strange.is_empty() { Err("only what is allowed".to_owned()) } else { Ok(strange.join(" ")) }
}
