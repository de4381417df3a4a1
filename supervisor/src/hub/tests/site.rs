//! Hubs of both kinds over the same bare repository, for tests: any number of supervisors, a git server, a git that
//! can be made to die.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use autopack_shared::runtime::clock::{SystemClock, SystemIds};

use super::*;
use crate::hub::place::Address;

/// Which kind of hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By its path.
    Path,
    /// At `file://`: git's own receiver.
    File,
    /// At `git://`: a server process.
    Served,
}

/// `git daemon` over a folder.
pub(super) struct Daemon {
    child: Child,
    pub(super) port: u16,
}

impl Daemon {
    /// Starts one, on this port or on a free one.
    pub(super) fn start(folder: &Path, port: Option<u16>) -> Self {
        for _ in 0..10 {
            let port = port.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
            let mut command = Command::new("git");
            command.args(["daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1"]);
            command.arg(format!("--port={port}")).arg(format!("--base-path={}", folder.display())).arg(folder);
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").process_group(0);
            let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            for _ in 0..1000 {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() && child.try_wait().unwrap().is_none() {
                    return Self { child, port };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("git daemon does not start");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _reaped = self.child.wait();
    }
}

/// A git that dies when it is told to: see [`Site::tell_git`].
const MORTAL: &str = r#"#!/bin/sh
here=$(dirname "$0")
case " $* " in
*" push "*)
    if [ -e "$here/die-before" ]; then rm "$here/die-before"; kill -9 $$; fi
    if [ -e "$here/die-after" ]; then rm "$here/die-after"; git "$@" >/dev/null 2>&1; kill -9 $$; fi
    if [ -e "$here/die-inside" ]; then
        rm "$here/die-inside"
        git "$@" >/dev/null 2>&1 & inner=$!
        while ! [ -e "$here/inside" ]; do sleep 0.01; done
        kill -9 $inner
        kill -9 $$
    fi
    if [ -e "$here/hang" ]; then rm "$here/hang"; sleep 600; fi
    ;;
esac
exec git "$@"
"#;

/// A bare repository with one commit on `main`, and a hub over it with the fence at 1.1.
pub(super) struct Site {
    pub(super) dir: TempDir,
    kind: Kind,
    pub(super) daemon: Option<Daemon>,
    pub(super) hub: Box<dyn Hub>,
    pub(super) base: Oid,
}

impl Site {
    pub(super) fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = git2::RepositoryInitOptions::new();
        let repo = Repository::init_opts(dir.path().join("repo.git"), options.bare(true).initial_head("main")).unwrap();
        let blob = repo.blob(b"a\n").unwrap();
        let mut tree = repo.treebuilder(None).unwrap();
        tree.insert("a.txt", blob, 0o100_644).unwrap();
        let tree = repo.find_tree(tree.write().unwrap()).unwrap();
        let who = git2::Signature::new("u", "u@example.com", &git2::Time::new(1_700_000_000, 0)).unwrap();
        let base = from_git(repo.commit(Some("refs/heads/main"), &who, &who, "first\n", &tree, &[]).unwrap());
        let git = dir.path().join("git");
        fs::write(&git, MORTAL).unwrap();
        fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
        let daemon = (kind == Kind::Served).then(|| Daemon::start(dir.path(), None));
        let hub = open(kind, dir.path(), daemon.as_ref(), "one");
        hub.bump_fence(token(1)).unwrap();
        Self { dir, kind, daemon, hub, base }
    }

    /// A supervisor with nothing of its own yet, or the next life of one.
    pub(super) fn supervisor(&self, name: &str) -> Box<dyn Hub> {
        open(self.kind, self.dir.path(), self.daemon.as_ref(), name)
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The repository that is the truth.
    pub(super) fn truth(&self) -> Repository {
        Repository::open(self.dir.path().join("repo.git")).unwrap()
    }

    /// Where a ref truly is.
    pub(super) fn at(&self, name: &RefName) -> Option<Oid> {
        self.truth().refname_to_id(name.as_str()).ok().map(from_git)
    }

    /// All refs.
    pub(super) fn refs(&self) -> Vec<(String, git2::Oid)> {
        let repo = self.truth();
        let all = repo.references().unwrap().map(|found| {
            let found = found.unwrap();
            (found.name().unwrap().to_owned(), found.target().unwrap())
        });
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    }

    /// Makes the git of every supervisor here do this once, at its next push.
    pub(super) fn tell_git(&self, what: &str) {
        fs::write(self.dir.path().join(what), "").unwrap();
    }

    /// Gives the server a hook.
    pub(super) fn hook(&self, name: &str, script: &str) {
        let hook = self.dir.path().join("repo.git/hooks").join(name);
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A tree of a hub's with one file more than a commit's.
    pub(super) fn tree_of(hub: &dyn Hub, parent: Oid, name: &str, text: &str) -> Oid {
        let repo = hub.repository(&[parent]).unwrap();
        let odb = repo.odb().unwrap();
        let mut entries = tree::read(&odb, tree::tree_of(&repo, parent).unwrap()).unwrap();
        entries.retain(|entry| entry.name != name.as_bytes());
        let oid = from_git(odb.write(ObjectType::Blob, text.as_bytes()).unwrap());
        entries.push(Entry { mode: 0o100_644, name: name.as_bytes().to_vec(), oid });
        tree::write(&odb, entries).unwrap()
    }

    /// A commit of a hub's that no ref names.
    pub(super) fn commit(hub: &dyn Hub, parent: Oid, text: &str) -> Oid {
        let tree = Self::tree_of(hub, parent, "b.txt", text);
        let (parents, message) = (vec![parent], "apply x".to_owned());
        hub.commit(&CommitSpec { tree, parents, message, seconds: 1_767_225_600 }).unwrap()
    }

    /// Somebody else's push: a commit that no supervisor has.
    pub(super) fn pushed(&self, name: &str, parent: Oid, file: &str) -> Oid {
        let repo = self.truth();
        let parent = repo.find_commit(to_git(parent)).unwrap();
        let mut tree = repo.treebuilder(Some(&parent.tree().unwrap())).unwrap();
        tree.insert(file, repo.blob(b"theirs\n").unwrap(), 0o100_644).unwrap();
        let tree = repo.find_tree(tree.write().unwrap()).unwrap();
        let who = git2::Signature::new("u", "u@example.com", &git2::Time::new(1_700_000_001, 0)).unwrap();
        let made = repo.commit(None, &who, &who, "theirs\n", &tree, &[&parent]).unwrap();
        repo.reference(name, made, true, "").unwrap();
        from_git(made)
    }
}

/// How a supervisor's remote hub is used here.
pub(super) fn options(dir: &Path, name: &str) -> RemoteOptions {
    RemoteOptions {
        program: dir.join("git"),
        recent: Duration::ZERO,
        talk: Duration::from_secs(60),
        carry: Duration::from_secs(60),
        ..RemoteOptions::cluster(&dir.join(name), "shop", None)
    }
}

/// A remote hub at an address.
pub(super) fn at(address: &str, options: RemoteOptions) -> Result<RemoteHub, HubError> {
    RemoteHub::open(Address::parse(address).unwrap(), options, Arc::new(SystemClock::default()), &SystemIds)
}

fn open(kind: Kind, dir: &Path, daemon: Option<&Daemon>, name: &str) -> Box<dyn Hub> {
    let repo: PathBuf = dir.join("repo.git");
    let address = match kind {
        Kind::Path => {
            let state = dir.join(name);
            fs::create_dir_all(&state).unwrap();
            let options = HubOptions { lock_wait: Duration::from_secs(30), ..HubOptions::cluster(&state, "shop") };
            return Box::new(LocalHub::open(&repo, options).unwrap());
        }
        Kind::File => format!("file://{}", repo.display()),
        Kind::Served => format!("git://127.0.0.1:{}/repo.git", daemon.unwrap().port),
    };
    Box::new(at(&address, options(dir, name)).unwrap())
}
