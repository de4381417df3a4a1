//! Where an owner's socket is: in the data directory, or, where that path is too long for a socket, in the user's
//! runtime folder, with `autopack.addr` in the data directory to say where.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use autopack_shared::domain::ids::Digest;
use autopack_shared::runtime::config::Environment;

use crate::artifact::replace;
use crate::exit::CliError;

/// The socket in the data directory.
const SOCKET: &str = "autopack.sock";

/// The file that names a socket elsewhere.
const ADDRESS: &str = "autopack.addr";

/// The longest path of a unix socket on Linux, less the final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Where an owner of the data directory listens.
pub(super) fn to_serve(env: &Environment, data_dir: &Path) -> PathBuf {
    let plain = data_dir.join(SOCKET);
    if fits(&plain) {
        return plain;
    }
    let name = Digest::of(data_dir.as_os_str().as_bytes()).to_hex();
    let folder = env.get("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    folder.map_or_else(std::env::temp_dir, PathBuf::from).join(format!("autopack-{}.sock", &name[..16]))
}

/// Where an owner is reached: its environment may have named another runtime folder than ours.
pub(crate) fn to_reach(env: &Environment, data_dir: &Path) -> PathBuf {
    let plain = data_dir.join(SOCKET);
    if fits(&plain) && plain.exists() {
        return plain;
    }
    named(data_dir).unwrap_or_else(|| to_serve(env, data_dir))
}

/// Says where the socket is, where it is not in the data directory.
pub(super) fn publish(data_dir: &Path, socket: &Path) -> io::Result<()> {
    if socket.parent() == Some(data_dir) {
        // One that an earlier owner left would lead elsewhere.
        return withdraw(data_dir);
    }
    replace(&data_dir.join(ADDRESS), &[socket.as_os_str().as_bytes(), b"\n"].concat())
}

/// Takes back what was said.
pub(super) fn withdraw(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(ADDRESS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Refuses a socket that somebody else made: whoever listens there would be told everything.
pub(super) fn must_be_ours(socket: &Path) -> Result<(), CliError> {
    let me = rustix::process::geteuid().as_raw();
    match fs::symlink_metadata(socket) {
        Ok(found) if found.uid() != me => Err(CliError::refused(
            "forbidden",
            "refusing to talk to a socket of somebody else",
            format!("{} belongs to user {}, this is user {me}", socket.display(), found.uid()),
            "look who put it there, and remove it",
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn named(data_dir: &Path) -> Option<PathBuf> {
    let mut bytes = fs::read(data_dir.join(ADDRESS)).ok()?;
    while bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    (path.is_absolute() && fits(&path)).then_some(path)
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_path_is_plain_and_leaves_no_address() {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment::default();
        let socket = to_serve(&env, dir.path());
        assert_eq!(socket, dir.path().join(SOCKET));
        fs::write(dir.path().join(ADDRESS), "/elsewhere.sock\n").unwrap();
        publish(dir.path(), &socket).unwrap();
        assert!(!dir.path().join(ADDRESS).exists(), "an old address leads astray");
    }

    #[test]
    fn a_long_path_is_reached_by_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("d".repeat(120));
        fs::create_dir(&data).unwrap();
        let env = Environment::default();
        assert!(fits(&to_serve(&env, &data)));
        publish(&data, Path::new("/run/user/7/x.sock")).unwrap();
        assert_eq!(to_reach(&env, &data), Path::new("/run/user/7/x.sock"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(data.join(ADDRESS)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        withdraw(&data).unwrap();
        assert_eq!(to_reach(&env, &data), to_serve(&env, &data));
        fs::write(data.join(ADDRESS), "relative.sock").unwrap();
        assert_eq!(to_reach(&env, &data), to_serve(&env, &data), "only a whole path is an address");
    }

    #[test]
    fn a_socket_of_our_own_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        must_be_ours(&socket).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        must_be_ours(&socket).unwrap();
    }
}
