//! What the attempts aim at, outside of the sandbox, and what is seen from there afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

use crate::sandbox::cgroup::Bounds;
use crate::sandbox::layout::Place;
use crate::sandbox::probe::{Aims, Tried};
use crate::sys;

/// Bounds of the sandbox that the attempts are made in: small, so that they are met soon.
const BOUNDS: Bounds = Bounds { memory: 256 << 20, pids: 64, cpu_percent: 400 };

/// Variables that may be there.
const VARIABLES: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "TERM"];

/// Namespaces that have to be other ones.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// All of it, as long as it is held.
pub(super) struct Canaries {
    folder: tempfile::TempDir,
    aims: Aims,
    udp: UdpSocket,
    tcp: TcpListener,
    path: UnixListener,
    hidden: UnixListener,
}

impl Canaries {
    /// Sets them.
    pub(super) fn set() -> io::Result<Self> {
        // Where everybody could reach it, if it were in reach.
        let folder = tempfile::Builder::new().prefix("autopack-canary-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let at = |name: &str| folder.path().join(name);
        for name in ["tree", "task", "private"] {
            fs::create_dir(at(name))?;
        }
        fs::write(at("secret"), "canary")?;
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o644))?;
        fs::write(at("private/file"), "canary")?;
        fs::set_permissions(at("private"), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(at("private/file"), fs::Permissions::from_mode(0o600))?;
        let mark = format!("{}", folder.path().file_name().unwrap_or_default().display());
        let path = UnixListener::bind(at("socket"))?;
        fs::set_permissions(at("socket"), fs::Permissions::from_mode(0o777))?;
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&mark)?)?;
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        for nonblocking in [path.set_nonblocking(true), hidden.set_nonblocking(true)] {
            nonblocking?;
        }
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        let aims = Aims {
            secret: at("secret"),
            private: "/run/ap/private/file".into(),
            socket: at("socket"),
            hidden: mark.clone(),
            tcp: tcp.local_addr()?.port(),
            udp: udp.local_addr()?.port(),
            shared_memory: share()?,
            worker: i32::try_from(std::process::id()).unwrap_or(i32::MAX),
            namespaces: namespaces()?,
            pids: BOUNDS.pids,
            memory: BOUNDS.memory,
            tmp_bytes: TMP_BYTES,
            tmp_files: TMP_FILES,
            file_bytes: FILE_BYTES,
            variables: VARIABLES.map(str::to_owned).to_vec(),
            mark,
        };
        fs::write(at("task/aims.json"), serde_json::to_vec(&aims)?)?;
        Ok(Self { folder, aims, udp, tcp, path, hidden })
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.folder.path().join("task")
    }

    pub(super) fn place(&self) -> Place {
        Place {
            tree: self.tree(),
            scratch: self.scratch(),
            unmapped: vec![(self.folder.path().join("private"), "private".to_owned())],
            exposed: vec![self.folder.path().to_owned()],
            bounds: Some(BOUNDS),
            small: Some((TMP_BYTES, TMP_FILES, FILE_BYTES)),
            ..Place::default()
        }
    }

    /// What only the outside can tell.
    pub(super) async fn judge(&self, tried: &mut BTreeMap<String, Tried>) {
        let mut reached = |name: &str, what: &str| {
            if let Some(tried) = tried.get_mut(name) {
                tried.denied = false;
                what.clone_into(&mut tried.detail);
            }
        };
        if self.udp.recv(&mut [0u8; 64]).is_ok() {
            reached("udp_host", "a datagram arrived");
        }
        if self.tcp.accept().is_ok() {
            reached("tcp_host", "a connection arrived");
        }
        if self.path.accept().is_ok() {
            reached("unix_path", "a connection arrived");
        }
        if self.hidden.accept().is_ok() {
            reached("unix_abstract", "a connection arrived");
        }
        if fs::read_to_string(&self.aims.secret).is_ok_and(|text| text != "canary") {
            reached("link_out", "the file outside was changed");
        }
        if !self.gone().await {
            reached("outlive", "a process is left");
        }
    }

    /// Whether the process that tried to outlive all is gone.
    async fn gone(&self) -> bool {
        for _ in 0..100 {
            if !is_running(&self.aims.mark) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        let id = sys::call(libc::SYS_shmget, [self.aims.shared_memory, 0, 0, 0, 0]);
        // Where it is gone already there is nothing to remove.
        let _removed = id.and_then(|id| sys::call(libc::SYS_shmctl, [id, libc::IPC_RMID.into(), 0, 0, 0]));
    }
}

/// Bytes of `/tmp`.
const TMP_BYTES: u64 = 8 << 20;
/// Files of `/tmp`.
const TMP_FILES: u64 = 200;
/// Bytes of one file.
const FILE_BYTES: u64 = 16 << 20;

/// Whether a process with this mark among its words runs.
fn is_running(mark: &str) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    let has = |entry: fs::DirEntry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    };
    entries.flatten().any(has)
}

/// Shared memory that everybody of this host may read; its key.
fn share() -> io::Result<i64> {
    let key = 0x0a70_0000 + i64::from(std::process::id());
    sys::call(libc::SYS_shmget, [key, 4096, i64::from(libc::IPC_CREAT) | 0o666, 0, 0])?;
    Ok(key)
}

fn namespaces() -> io::Result<Vec<(String, u64)>> {
    let of = |name: &str| Ok((name.to_owned(), fs::metadata(format!("/proc/self/ns/{name}"))?.ino()));
    NAMESPACES.into_iter().map(of).collect()
}
