//! A whole cluster on free ports in folders of its own: etcd, PostgreSQL, supervisors, workers, a hub, people.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use git2::build::RepoBuilder;
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
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
}

impl Desk {
    /// Runs a command.
    pub(super) fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autopack"));
        command.env_clear().env("HOME", &self.folder).env("PATH", "/usr/bin:/bin").env("COLUMNS", "100");
        command.env("AUTOPACK_SERVER", &self.servers).envs(self.token.iter().map(|token| ("AUTOPACK_TOKEN", token)));
        ran(&command.current_dir(&self.folder).stdin(Stdio::null()).args(args).output().unwrap())
    }

    /// Runs a command that has to succeed, and reads its document.
    pub(super) fn ask(&self, args: &[&str]) -> Value {
        self.run(&[args, &["-o", "json"]].concat()).expect(0).json()
    }

    /// Submits a run.
    pub(super) fn submit(&self, file: &Value) -> Ran {
        let path = self.folder.join(format!("{}.json", file["run_id"].as_str().unwrap()));
        std::fs::write(&path, file.to_string()).unwrap();
        self.run(&["runs", "submit", "--insecure-no-sandbox", path.to_str().unwrap()])
    }

    /// The same person at one supervisor.
    pub(super) fn at(&self, server: String) -> Self {
        Self { servers: server, ..self.clone() }
    }

    /// The same place with another token.
    pub(super) fn with(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }
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
    bench: Bench,
    roots: TempDir,
}

impl Cluster {
    /// Starts everything and makes the project known.
    pub(super) fn start(members: usize, supervisors: usize, workers: usize) -> Self {
        Self::start_with(&[], members, supervisors, workers)
    }

    /// The same with more files in the project.
    pub(super) fn start_with(more: &[(&str, &str)], members: usize, supervisors: usize, workers: usize) -> Self {
        let bench = Bench::with(&[FILES, more].concat());
        let roots = tempfile::Builder::new().prefix("autopack-cluster-").tempdir_in("/dev/shm");
        let roots = roots.or_else(|_| tempfile::tempdir()).unwrap();
        let (etcd, postgres) = (Etcd::start(members), Server::start(&[]));
        let folder = bench.path().to_path_buf();
        let tokens = folder.join("tokens").display().to_string();
        let token = |name: &str, role: &str| {
            let args = ["token", "new", "--name", name, "--role", role, "--tokens", &tokens, "-q"];
            bench.run_in(&folder, &args, &[]).expect(0).stdout.trim().to_owned()
        };
        let (ann, bob, worker_token) = (token("ann", "person"), token("bob", "person"), token("workers", "worker"));
        let held: Vec<TcpListener> = (0..supervisors).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|held| held.local_addr().unwrap().port()).collect();
        drop(held);
        let urls: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let supervisor = |(at, port): (usize, &u16)| supervisor(&folder, at + 1, *port, &etcd, &postgres, &tokens);
        let supervisors = ports.iter().enumerate().map(supervisor).collect();
        let worker = |at: usize| worker(&folder, at + 1, &urls, roots.path(), &worker_token);
        let workers = (0..workers).map(worker).collect();
        let desk = |token| Desk { folder: folder.clone(), servers: urls.join(","), token: Some(token) };
        let (ann, bob) = (desk(ann), desk(bob));
        let cluster = Self { workers, supervisors, postgres, etcd, ann, bob, worker_token, bench, roots };
        RepoBuilder::new().bare(true).clone(cluster.bench.repo().to_str().unwrap(), &cluster.hub()).unwrap();
        cluster.ann.run(&["projects", "add", "shop", "--hub", cluster.hub().to_str().unwrap()]).expect(0);
        cluster
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

    /// The folder of the workers' roots.
    pub(super) fn roots(&self) -> &Path {
        self.roots.path()
    }

    /// What the store answers, a row a line, its columns separated by `|`.
    pub(super) fn sql(&self, query: &str) -> Vec<String> {
        let port = self.postgres.port().to_string();
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres", "-X", "-A", "-t", "-c", query]);
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

fn supervisor(folder: &Path, at: usize, port: u16, etcd: &Etcd, postgres: &Server, tokens: &str) -> Process {
    let (id, state) = (format!("s{at}"), folder.join(format!("s{at}")).display().to_string());
    let mut args = texts(&["supervisor", "--id", &id, "--listen", &format!("127.0.0.1:{port}")]);
    args.extend(texts(&["--state-dir", &state, "--tokens", tokens, "-v"]));
    args.extend(etcd.endpoints().iter().flat_map(|url| texts(&["--etcd", url])));
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port());
    let env = vec![("AUTOPACK_DATABASE_URL".to_owned(), url)];
    Process::start(&id, args, env, format!("supervisor {id} on"), folder.to_path_buf())
}

fn worker(folder: &Path, at: usize, urls: &[String], roots: &Path, token: &str) -> Process {
    let (name, root) = (format!("w{at}"), roots.join(format!("w{at}")).display().to_string());
    let mut args = texts(&["worker", "--name", &name, "--root", &root, "-v"]);
    args.extend(urls.iter().flat_map(|url| texts(&["--supervisor", url])));
    let env = vec![("AUTOPACK_TOKEN".to_owned(), token.to_owned())];
    Process::start(&name, args, env, format!("worker {name} with"), folder.to_path_buf())
}
