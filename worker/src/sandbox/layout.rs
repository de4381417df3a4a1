//! What of the host is where inside, and how a process that was described in the host's paths is described in those.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use autopack_shared::domain::sandbox::SandboxProfile;

use super::cgroup::Bounds;
use super::door::DatabaseDoor;
use super::spec::{AP, EGRESS_SOCKET, INIT, Mount, WS};
use crate::egress::Egress;
use crate::process::ProcSpec;

/// Folders of the system. Where one is a link it is a link inside too.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Variables that go inside with the value they have.
const VARIABLES: [&str; 15] = [
    "PATH",
    "LANG",
    "TERM",
    "CI",
    "TRACEPARENT",
    "TRACESTATE",
    "DATABASE_URL",
    "AUTOPACK_RUN",
    "AUTOPACK_PHASE",
    "AUTOPACK_ATTEMPT",
    "AUTOPACK_GOAL",
    "AUTOPACK_TASK",
    "AUTOPACK_BASE",
    "AUTOPACK_REPORT",
    "AUTOPACK_SECRETS",
];

/// Variables that are there in any case.
const ALWAYS: [(&str, &str); 3] = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("TERM", "dumb")];

/// Where one process works, in the host's paths.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The tree, which is `/ws` inside.
    pub tree: PathBuf,
    /// The folder of the task, to be read at `/run/ap/task`.
    pub scratch: PathBuf,
    /// Whether that can be written: for reports of a gate, and for what an agent keeps beside the tree.
    pub reports: bool,
    /// A folder for the run's own data, at `/run/ap/data`.
    pub data: Option<PathBuf>,
    /// The way to the server for the run's data.
    pub door: Option<Arc<DatabaseDoor>>,
    /// The way out.
    pub egress: Option<Arc<Egress>>,
    /// Folders that are there as they are on the host, where the files are left open to prove a point.
    pub exposed: Vec<PathBuf>,
    /// Variables that go inside besides the ones that always do.
    pub variables: Vec<String>,
    /// Folders that are there with the owners they have, to be read below `/run/ap`.
    pub unmapped: Vec<(PathBuf, String)>,
    /// How much is let through, where the worker asks for nothing stricter.
    pub profile: SandboxProfile,
    /// The one port that TCP may connect to in a strict sandbox.
    pub port: Option<u16>,
    /// Bounds other than the worker's.
    pub bounds: Option<Bounds>,
    /// Bytes and files of `/tmp` and bytes of one file other than the worker's.
    pub small: Option<(u64, u64, u64)>,
}

impl Place {
    /// Host paths and what they are inside, longest first.
    fn names(&self) -> Vec<(String, String)> {
        let mut names = vec![
            (self.tree.display().to_string(), WS.to_owned()),
            (self.scratch.display().to_string(), format!("{AP}/task")),
        ];
        names.extend(self.data.iter().map(|data| (data.display().to_string(), format!("{AP}/data"))));
        names.retain(|(from, _)| !from.is_empty());
        names.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        names
    }

    /// A text with the paths it has inside.
    pub(crate) fn inside(&self, text: &str) -> String {
        self.names().iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// The environment inside: what is allowed of what was given, and nothing else.
    pub(super) fn environment(&self, spec: &ProcSpec, all: bool) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> =
            vec![("HOME".to_owned(), "/tmp/home".to_owned()), ("TMPDIR".to_owned(), "/tmp".to_owned())];
        env.extend(self.egress.iter().flat_map(|egress| egress.variables()));
        for (name, value) in &spec.env {
            if all || VARIABLES.contains(&name.as_str()) || self.variables.contains(name) {
                env.retain(|(other, _)| other != name);
                env.push((name.clone(), self.inside(value)));
            }
        }
        for (name, value) in ALWAYS {
            if !env.iter().any(|(other, _)| other == name) {
                env.push((name.to_owned(), value.to_owned()));
            }
        }
        env
    }

    /// The mounts, parents first.
    pub(super) fn mounts(&self, helper: &Path, etc: &Path, readable: &[PathBuf]) -> Vec<Mount> {
        let plain =
            |from: &Path, to: &Path| Mount { from: from.to_owned(), to: to.to_owned(), writable: false, mapped: false };
        let own =
            |from: &Path, to: String, writable| Mount { from: from.to_owned(), to: to.into(), writable, mapped: true };
        let mut mounts: Vec<Mount> = SYSTEM
            .iter()
            .map(Path::new)
            .filter(|path| path.is_dir() && !path.is_symlink())
            .map(|path| plain(path, path))
            .collect();
        mounts.push(own(etc, "/etc".to_owned(), false));
        mounts.extend(super::etc::taken());
        mounts.extend(readable.iter().filter(|path| path.exists()).map(|path| plain(path, path)));
        mounts.push(own(&self.tree, WS.to_owned(), true));
        mounts.push(plain(helper, Path::new(INIT)));
        mounts.push(own(&self.scratch, format!("{AP}/task"), self.reports));
        mounts.extend(self.data.iter().map(|data| own(data, format!("{AP}/data"), true)));
        let door = self.door.as_ref().map(|door| door.mounted());
        mounts.extend(door.iter().map(|(from, name)| own(from, format!("{AP}/{name}"), false)));
        mounts.extend(self.egress.iter().map(|egress| own(&egress.socket(), EGRESS_SOCKET.to_owned(), false)));
        mounts.extend(self.unmapped.iter().map(|(from, name)| plain(from, &Path::new(AP).join(name))));
        mounts
    }

    /// What can be written inside.
    pub(super) fn writable(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = [WS, "/tmp", "/dev/shm"].iter().map(PathBuf::from).collect();
        paths.extend(self.reports.then(|| PathBuf::from(format!("{AP}/task"))));
        paths.extend(self.data.iter().map(|_| PathBuf::from(format!("{AP}/data"))));
        paths
    }
}

/// Links in the root.
pub(super) fn links() -> Vec<(PathBuf, PathBuf)> {
    let link = |path: &&str| Some((PathBuf::from(path), std::fs::read_link(path).ok()?));
    SYSTEM.iter().filter_map(link).collect()
}

/// What can be read inside.
pub(super) fn readable(more: &[PathBuf]) -> Vec<PathBuf> {
    let system = SYSTEM.iter().map(PathBuf::from).filter(|path| path.is_dir());
    let ours = ["/etc", "/proc", "/dev", AP].iter().map(PathBuf::from);
    system.chain(ours).chain(more.iter().filter(|path| path.exists()).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::Cage;

    #[test]
    fn a_process_is_told_the_paths_it_sees_and_no_more_than_is_allowed() {
        let place = Place { tree: "/w/tree".into(), scratch: "/w/tree-1".into(), ..Place::default() };
        let env =
            [("TMPDIR", "/w/tree-1"), ("AUTOPACK_TASK", "/w/tree-1/task.json"), ("AWS_SECRET", "x"), ("PATH", "/bin")];
        let spec = ProcSpec {
            argv: vec!["sh".to_owned()],
            cwd: "/w/tree".into(),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            lease: String::new(),
            timeout: Duration::from_secs(1),
            log_budget: 1,
            output: crate::process::output::Output::default(),
            frozen: tokio::sync::watch::channel(false).1,
            cage: Cage::None,
        };
        let mut inside = place.environment(&spec, false);
        inside.sort();
        let inside: Vec<_> = inside.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("AUTOPACK_TASK", "/run/ap/task/task.json"),
            ("HOME", "/tmp/home"),
            ("LANG", "C.UTF-8"),
            ("PATH", "/bin"),
            ("TERM", "dumb"),
            ("TMPDIR", "/tmp"),
        ];
        assert_eq!(inside, expected);
    }
}
