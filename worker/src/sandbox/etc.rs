//! The `/etc` of a sandbox: one user, no names of the host, certificates.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::spec::{INSIDE_ID, Mount};

/// What is taken from the host where it is there, and only to be read.
const TAKEN: [&str; 9] = [
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "ssl/certs",
    "ssl/openssl.cnf",
];

/// Writes the folder, with places for what is taken from the host.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let id = INSIDE_ID;
    for (name, text) in [
        ("passwd", format!("builder:x:{id}:{id}:builder:/tmp/home:/bin/sh\n")),
        ("group", format!("builder:x:{id}:\n")),
        ("hosts", "127.0.0.1 localhost ap\n::1 localhost\n".to_owned()),
        ("hostname", "ap\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
        ("resolv.conf", String::new()),
    ] {
        let file = folder.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    }
    for mount in taken() {
        let place = folder.join(mount.to.strip_prefix("/etc").unwrap_or(&mount.to));
        let made = if mount.from.is_dir() { place.as_path() } else { place.parent().unwrap_or(folder) };
        fs::create_dir_all(made)?;
        if !mount.from.is_dir() && !place.exists() {
            fs::write(&place, "")?;
        }
    }
    Ok(())
}

/// The mounts of what is taken.
pub(super) fn taken() -> Vec<Mount> {
    let of = |name: &str| {
        let path = Path::new("/etc").join(name);
        // What a link points to is mounted, not the link.
        let from: PathBuf = path.canonicalize().ok()?;
        Some(Mount { from, to: path, writable: false, mapped: false })
    };
    TAKEN.iter().filter_map(|name| of(name)).collect()
}
