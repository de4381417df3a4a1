//! A whole cluster on free ports in folders of its own: etcd, PostgreSQL, supervisors, workers, a hub, people.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use git2::build::RepoBuilder;
use serde_json::Value;
use tempfile::TempDir;

use super::net::Net;
use super::process::Process;
use super::server::GitServer;
use super::{ONE, until};
use crate::harness::etcd::Etcd;
use crate::harness::postgres::Server;
use crate::harness::{Bench, Ran, ran};

const ANCHOR: &str = r#"{"format_version":"v2","project_id":"shop","created_at":"2026-01-01T00:00:00Z",
"raw_input_digest":"0123456789abcdef","pivot_intentions":{"safety_risk":{"risk_tolerance":"moderate"},
"scope_boundaries":{"allowed_write_roots":["examples"]},
"parallelism_isolation":{"allowed":true,"isolation_model":"four_layer","max_concurrent_runs":4},
"governance_review":{"default_policy":"deny","auto_approve_rules":[
{"rule_id":"pages","description":"pages in examples","conditions":["path:examples/**"]}]}}}"#;

/// The most runs at once that the anchor allows.
pub(super) const AT_ONCE: i64 = 4;

const FILES: &[(&str, &str)] = &[
    ("README.md", "# Shop\n"),
    ("examples/README.md", "# Examples\n"),
    ("config/baseline_policy.yaml", "version: 1\n"),
    (".autopack/anchor_v2.json", ANCHOR),
    ("autopack.toml", "[policy]\nextends = \"autopack\"\n"),
];

/// Somebody who talks to the cluster through the command line.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    folder: PathBuf,
    servers: String,
    token: Option<String>,
    env: Vec<(String, String)>,
}

impl Desk {
    /// Runs a command.
    pub(super) fn run(&self, args: &[&str]) -> Ran {
        ran(&self.command(args).output().unwrap())
    }

    /// A command, ready to be started.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autopack"));
        command.env_clear().env("HOME", &self.folder).env("PATH", "/usr/bin:/bin").env("COLUMNS", "100");
        command.env("AUTOPACK_SERVER", &self.servers).envs(self.token.iter().map(|token| ("AUTOPACK_TOKEN", token)));
        command.envs(self.env.iter().cloned());
        command.current_dir(&self.folder).stdin(Stdio::null()).args(args);
        command
    }

    /// Runs a command that has to succeed, and reads its document.
    pub(super) fn ask(&self, args: &[&str]) -> Value {
        self.run(&[args, &["-o", "json"]].concat()).expect(0).json()
    }

    /// Submits a run whose builders need no sandbox.
    pub(super) fn submit(&self, file: &Value) -> Ran {
        self.run(&["runs", "submit", "--insecure-no-sandbox", &self.written(file)])
    }

    /// Submits a run whose builders and gates are in sandboxes.
    pub(super) fn submit_sandboxed(&self, file: &Value) -> Ran {
        self.run(&["runs", "submit", &self.written(file)])
    }

    fn written(&self, file: &Value) -> String {
        let path = self.folder.join(format!("{}.json", file["run_id"].as_str().unwrap()));
        std::fs::write(&path, file.to_string()).unwrap();
        path.display().to_string()
    }

    /// The same person at one supervisor.
    pub(super) fn at(&self, server: String) -> Self {
        Self { servers: server, ..self.clone() }
    }

    /// The first supervisor.
    pub(super) fn server(&self) -> String {
        self.servers.split(',').next().unwrap().to_owned()
    }

    /// What proves who calls.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.token.as_deref().unwrap())
    }

    /// The same place with another token.
    pub(super) fn with(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }
}

/// How the supervisors reach the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Hub {
    /// By its path.
    #[default]
    Path,
    /// At a git server, and in no other way.
    Served,
}

/// The cluster. What is listed first ends first.
pub(super) struct Cluster {
    pub(super) workers: Vec<Process>,
    pub(super) supervisors: Vec<Process>,
    pub(super) postgres: Server,
    pub(super) etcd: Etcd,
    /// Who submits.
    pub(super) ann: Desk,
    /// Who approves.
    pub(super) bob: Desk,
    /// The workers' token.
    pub(super) worker_token: String,
    git_server: Option<GitServer>,
    bench: Bench,
    roots: TempDir,
}

/// How many of what a cluster has.
pub(super) struct Size {
    pub(super) members: usize,
    pub(super) supervisors: usize,
    pub(super) workers: usize,
}

/// What is different where it is not all on one machine.
pub(super) struct Apart<'a> {
    /// The network, which has a place for each part.
    pub(super) net: &'a Net,
    /// More environment, by the name of a daemon.
    pub(super) env: &'a dyn Fn(&str) -> Vec<(String, String)>,
}

/// What a cluster has beside its parts.
#[derive(Clone, Copy, Default)]
struct More<'a> {
    /// The places of its parts, where they are not all at one.
    apart: Option<&'a Apart<'a>>,
    /// The database for data of runs.
    runs: Option<&'a str>,
    /// More environment for every process.
    env: &'a [(String, String)],
    /// More files in the project.
    files: &'a [(&'a str, &'a str)],
    place: Hub,
}

impl Cluster {
    /// Starts everything, over a hub that is named by its path.
    pub(super) fn start(members: usize, supervisors: usize, workers: usize) -> Self {
        Self::start_with(&Size { members, supervisors, workers }, &[])
    }

    /// The same, with more environment for every process.
    pub(super) fn start_with(size: &Size, env: &[(String, String)]) -> Self {
        Self::build(size, &More { env, ..More::default() })
    }

    /// The same, with more files in the project.
    pub(super) fn start_with_files(files: &[(&str, &str)], size: &Size) -> Self {
        Self::build(size, &More { files, ..More::default() })
    }

    /// The same, with both.
    pub(super) fn start_with_both(files: &[(&str, &str)], size: &Size, env: &[(String, String)]) -> Self {
        Self::build(size, &More { files, env, ..More::default() })
    }

    /// The same over a hub on a git server.
    pub(super) fn served(members: usize, supervisors: usize, workers: usize) -> Self {
        Self::build(&Size { members, supervisors, workers }, &More { place: Hub::Served, ..More::default() })
    }

    /// The same, with a database for data of runs.
    pub(super) fn start_for_runs(size: &Size, runs: &str) -> Self {
        Self::build(size, &More { runs: Some(runs), ..More::default() })
    }

    /// The same over a network: etcd is at `etcd`, PostgreSQL at `pg`, each daemon at a place of its own name.
    pub(super) fn apart(size: &Size, apart: &Apart<'_>) -> Self {
        Self::build(size, &More { apart: Some(apart), ..More::default() })
    }

    fn build(size: &Size, &More { apart, runs, env, files, place }: &More<'_>) -> Self {
        let bench = Bench::with(&[FILES, files].concat());
        let roots = tempfile::Builder::new().prefix("autopack-cluster-").tempdir_in("/dev/shm");
        let roots = roots.or_else(|_| tempfile::tempdir()).unwrap();
        let etcd = at(apart, "etcd", |host| Etcd::start_at(size.members, host));
        let postgres = at(apart, "pg", |host| Server::start_at(host, &[]));
        let folder = bench.path().to_path_buf();
        let tokens = folder.join("tokens").display().to_string();
        let token = |name: &str, role: &str| {
            let args = ["token", "new", "--name", name, "--role", role, "--tokens", &tokens, "-q"];
            bench.run_in(&folder, &args, &[]).expect(0).stdout.trim().to_owned()
        };
        let (ann, bob, worker_token) = (token("ann", "person"), token("bob", "person"), token("w*", "worker"));
        let hold = |n: usize| at(apart, &format!("s{}", n + 1), |host| TcpListener::bind((host, 0)).unwrap());
        let held: Vec<TcpListener> = (0..size.supervisors).map(hold).collect();
        let listens: Vec<SocketAddr> = held.iter().map(|held| held.local_addr().unwrap()).collect();
        drop(held);
        let urls: Vec<String> = listens.iter().map(|listen| format!("http://{listen}")).collect();
        let more = |name: &str| [env.to_vec(), apart.map_or_else(Vec::new, |apart| (apart.env)(name))].concat();
        let supervisor = |(n, listen): (usize, &SocketAddr)| {
            let id = format!("s{}", n + 1);
            let services = (&etcd, &postgres);
            let mut env = more(&id);
            env.extend(runs.map(|url| ("AUTOPACK_RUN_DATABASE_URL".to_owned(), url.to_owned())));
            at(apart, &id, |_| supervisor((&folder, &tokens), &id, *listen, services, env))
        };
        let supervisors = listens.iter().enumerate().map(supervisor).collect();
        let worker = |n: usize| {
            let name = format!("w{}", n + 1);
            let env = [more(&name), vec![("AUTOPACK_TOKEN".to_owned(), worker_token.clone())]].concat();
            at(apart, &name, |_| worker(&folder, &name, (&urls, 2), roots.path(), env))
        };
        let workers = (0..size.workers).map(worker).collect();
        let desk =
            |token| Desk { folder: folder.clone(), servers: urls.join(","), token: Some(token), env: env.to_vec() };
        let (ann, bob) = (desk(ann), desk(bob));
        let git_server = (place == Hub::Served).then(|| GitServer::start(&folder));
        let cluster = Self { workers, supervisors, postgres, etcd, ann, bob, worker_token, git_server, bench, roots };
        RepoBuilder::new().bare(true).clone(cluster.bench.repo().to_str().unwrap(), &cluster.hub()).unwrap();
        let repo = match &cluster.git_server {
            Some(server) => server.address("hub.git"),
            None => cluster.hub().display().to_string(),
        };
        cluster.ann.run(&["projects", "add", "shop", "--repo", &repo]).expect(0);
        cluster
    }

    /// One more worker, with so many slots, that asks at these addresses.
    pub(super) fn add_worker(&mut self, name: &str, urls: &[String], slots: u32) {
        let env = vec![("AUTOPACK_TOKEN".to_owned(), self.worker_token.clone())];
        let worker = worker(self.bench.path(), name, (urls, slots), self.roots.path(), env);
        self.workers.push(worker);
    }

    /// The supervisor that directs, once one does.
    pub(super) fn director(&self) -> usize {
        let directs = |at: &usize| {
            let seats = self.etcd_keys("/autopack/v1/autopack/director");
            seats.iter().any(|(_, seat)| seat.contains(&self.supervisors[*at].name))
        };
        let found = || (0..self.supervisors.len()).find(directs);
        assert!(until(ONE, || found().is_some()), "nobody directs:\n{}", self.logs());
        found().unwrap()
    }

    /// Starts a worker that knows one of the supervisors only.
    pub(super) fn join(&mut self, name: &str, at: usize) {
        let env = vec![("AUTOPACK_TOKEN".to_owned(), self.worker_token.clone())];
        let joined = worker(self.bench.path(), name, (&[self.url(at)], 2), self.roots.path(), env);
        self.workers.push(joined);
    }

    /// The bare repository that only the supervisors write.
    pub(super) fn hub(&self) -> PathBuf {
        self.bench.path().join("hub.git")
    }

    /// One of the supervisors.
    pub(super) fn url(&self, at: usize) -> String {
        self.ann.servers.split(',').nth(at).unwrap().to_owned()
    }

    /// Where the people are.
    pub(super) fn folder(&self) -> &Path {
        self.bench.path()
    }

    /// What a command says of the project's commit in a checkout here.
    pub(super) fn here(&self, args: &[&str]) -> Value {
        self.bench.run(&[args, &["-o", "json"]].concat()).expect(0).json()
    }

    /// Where the supervisors are.
    pub(super) fn urls(&self) -> Vec<String> {
        self.ann.servers.split(',').map(str::to_owned).collect()
    }

    /// The state folder of a supervisor.
    pub(super) fn state_of(&self, at: usize) -> PathBuf {
        self.bench.path().join(&self.supervisors[at].name)
    }

    /// The folder of the workers' roots.
    pub(super) fn roots(&self) -> &Path {
        self.roots.path()
    }

    /// What the store answers, a row a line, its columns separated by `|`.
    pub(super) fn sql(&self, query: &str) -> Vec<String> {
        let port = self.postgres.port().to_string();
        let mut psql = Command::new("psql");
        psql.args([
            "-h",
            self.postgres.host(),
            "-p",
            &port,
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-X",
            "-A",
            "-t",
            "-c",
            query,
        ]);
        let answer = ran(&psql.output().unwrap()).expect(0);
        answer.stdout.lines().map(str::to_owned).collect()
    }

    /// The one number that the store answers.
    pub(super) fn number(&self, query: &str) -> i64 {
        self.sql(query)[0].parse().unwrap_or_else(|_| panic!("{query}: {:?}", self.sql(query)))
    }

    /// The keys of etcd below a prefix, with their values.
    pub(super) fn etcd_keys(&self, prefix: &str) -> Vec<(String, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = etcd_client::GetOptions::new().with_prefix();
        let found = runtime.block_on(async {
            let mut client = etcd_client::Client::connect(self.etcd.endpoints(), None).await.unwrap();
            client.get(prefix, Some(options)).await.unwrap()
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        found.kvs().iter().map(|pair| (text(pair.key()), text(pair.value()))).collect()
    }

    /// What the daemons wrote.
    pub(super) fn logs(&self) -> String {
        self.supervisors.iter().chain(&self.workers).map(Process::told).collect()
    }
}

fn texts(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

/// Does something where a part is to be, with the address of that place.
fn at<T>(apart: Option<&Apart<'_>>, name: &str, work: impl FnOnce(&str) -> T) -> T {
    match apart {
        Some(Apart { net, .. }) => net.inside(name, || work(net.address(name))),
        None => work("127.0.0.1"),
    }
}

fn supervisor(
    (folder, tokens): (&Path, &str),
    id: &str,
    listen: SocketAddr,
    (etcd, postgres): (&Etcd, &Server),
    mut env: Vec<(String, String)>,
) -> Process {
    let state = folder.join(id).display().to_string();
    let mut args = texts(&["supervisor", "--id", id, "--listen", &listen.to_string()]);
    args.extend(texts(&["--state-dir", &state, "--tokens", tokens, "-v"]));
    args.extend(etcd.endpoints().iter().flat_map(|url| texts(&["--etcd", url])));
    let url = format!("postgres://postgres@{}:{}/postgres", postgres.host(), postgres.port());
    env.push(("AUTOPACK_DATABASE_URL".to_owned(), url));
    Process::start(id, args, env, format!("supervisor {id} on"), folder.to_path_buf())
}

fn worker(
    folder: &Path,
    name: &str,
    (urls, slots): (&[String], u32),
    roots: &Path,
    env: Vec<(String, String)>,
) -> Process {
    let root = roots.join(name).display().to_string();
    let mut args = texts(&["worker", "--name", name, "--root", &root, "--slots", &slots.to_string(), "-v"]);
    args.extend(urls.iter().flat_map(|url| texts(&["--supervisor", url])));
    Process::start(name, args, env, format!("worker {name} with"), folder.to_path_buf())
}
