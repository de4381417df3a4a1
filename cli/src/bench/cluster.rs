//! A cluster that is made to be measured: throwaway services, one supervisor and one worker of this same program, and a
//! small project. Everybody talks to it over gRPC.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;

use autopack_shared::domain::ids::Digest;
use autopack_shared::wire::MAX_MESSAGE;
use autopack_shared::wire::pb::admin_service_client::AdminServiceClient;
use autopack_shared::wire::pb::governance_service_client::GovernanceServiceClient;
use autopack_shared::wire::pb::run_service_client::RunServiceClient;
use autopack_shared::wire::pb::{AddProjectRequest, WorkersRequest};

use super::guard::{Guarded, Way};
use super::services::{Etcd, Postgres, free_port, scratch};
use crate::connect::Wire;
use crate::connect::remote::{Headers, dial};
use crate::context::{Context, Remote};
use crate::exit::{CliError, During as _};

/// The project's name.
const PROJECT: &str = "bench";

/// As many runs at once as anybody asks for: how many there can be is what is measured.
const ANCHOR: &str = r#"{"format_version":"v2","project_id":"bench","created_at":"2026-01-01T00:00:00Z",
"raw_input_digest":"0123456789abcdef","pivot_intentions":{"safety_risk":{"risk_tolerance":"moderate"},
"scope_boundaries":{"allowed_write_roots":["examples"]},
"parallelism_isolation":{"allowed":true,"isolation_model":"four_layer","max_concurrent_runs":100000},
"governance_review":{"default_policy":"deny","auto_approve_rules":[
{"rule_id":"pages","description":"pages in examples","conditions":["path:examples/**"]}]}}}"#;

const FILES: &[(&str, &str)] = &[
    ("README.md", "# Bench\n"),
    ("examples/README.md", "# Examples\n"),
    ("config/baseline_policy.yaml", "version: 1\n"),
    (".autopack/anchor_v2.json", ANCHOR),
    ("autopack.toml", "[policy]\nextends = \"autopack\"\n"),
];

/// Who somebody is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Submits.
    Author,
    /// Approves.
    Approver,
    /// Works, under any name.
    Worker,
}

impl Who {
    const ALL: [(Self, &'static str, &'static str); 3] =
        [(Self::Author, "author", "person"), (Self::Approver, "approver", "person"), (Self::Worker, "*", "worker")];
}

/// The cluster. What is listed first ends first.
#[derive(Debug)]
pub(super) struct Cluster {
    worker: Option<Guarded>,
    supervisor: Guarded,
    pub(super) etcd: Etcd,
    pub(super) postgres: Postgres,
    url: String,
    tokens: Vec<(Who, String)>,
    folder: TempDir,
}

/// The services of a cluster, for one person.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) runs: RunServiceClient<Wire>,
    pub(super) governance: GovernanceServiceClient<Wire>,
    pub(super) admin: AdminServiceClient<Wire>,
}

impl Cluster {
    /// Starts everything but the worker.
    pub(super) async fn start(ctx: &Context, dir: Option<&Path>) -> Result<Self, CliError> {
        let folder = scratch(dir, "autopack-bench-")?;
        let postgres = Postgres::start(ctx, dir).await?;
        let etcd = Etcd::start(ctx, dir).await?;
        let (tokens, file) = tokens(folder.path())?;
        let hub = hub(folder.path())?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let state = text(&folder.path().join("supervisor"));
        let args =
            ["supervisor", "--id", "bench", "--listen", &listen, "--state-dir", &state, "--tokens", &file, "--etcd"];
        let env = [("AUTOPACK_DATABASE_URL", postgres.url("postgres"))];
        let way = Way { env: &env, signal: "KILL", ..Way::default() };
        let args = args.into_iter().chain([etcd.url()]);
        let log = folder.path().join("supervisor.log");
        let supervisor = Guarded::start("the supervisor", &itself()?, args, &log, &way)?;
        supervisor.until(async || supervisor.says("supervisor bench on")).await?;
        let url = format!("http://{listen}");
        let cluster = Self { worker: None, supervisor, etcd, postgres, url, tokens, folder };
        let project = AddProjectRequest { name: PROJECT.to_owned(), repo: text(&hub) };
        cluster.person(Who::Author).await?.admin.add_project(project).await.during("make the project known")?;
        Ok(cluster)
    }

    /// A connection of its own.
    pub(super) async fn wire(&self, who: Who) -> Result<Wire, CliError> {
        let token = self.tokens.iter().find(|(of, _)| *of == who).map(|(_, token)| token.clone());
        let remote = Remote { url: self.url.clone(), token, project: Some(PROJECT.to_owned()) };
        Ok(InterceptedService::new(dial(&remote.url).await?, Headers::of(&remote)?))
    }

    /// A person with a connection of their own.
    pub(super) async fn person(&self, who: Who) -> Result<Person, CliError> {
        let wire = self.wire(who).await?;
        Ok(Person {
            runs: RunServiceClient::new(wire.clone()).max_decoding_message_size(MAX_MESSAGE),
            governance: GovernanceServiceClient::new(wire.clone()).max_decoding_message_size(MAX_MESSAGE),
            admin: AdminServiceClient::new(wire),
        })
    }

    /// Starts the worker, where it does not run yet.
    pub(super) async fn work(&mut self) -> Result<(), CliError> {
        if self.worker.is_some() {
            return Ok(());
        }
        let root = text(&self.folder.path().join("worker"));
        let args = ["worker", "--name", "bench-worker", "--supervisor", &self.url, "--root", &root];
        let token = self.tokens.iter().find(|(of, _)| *of == Who::Worker).map(|(_, token)| token.clone());
        let env = [("AUTOPACK_TOKEN", token.unwrap_or_default())];
        let way = Way { env: &env, signal: "KILL", ..Way::default() };
        let log = self.folder.path().join("worker.log");
        let worker = Guarded::start("the worker", &itself()?, args, &log, &way)?;
        let person = self.person(Who::Author).await?;
        let connected = async || {
            let listed = person.admin.clone().workers(WorkersRequest::default()).await;
            listed.is_ok_and(|listed| listed.get_ref().workers.iter().any(|worker| worker.worker_id == "bench-worker"))
        };
        worker.until(connected).await?;
        self.worker = Some(worker);
        Ok(())
    }

    /// The supervisor's process.
    pub(super) const fn supervisor(&self) -> u32 {
        self.supervisor.pid()
    }
}

fn itself() -> Result<PathBuf, CliError> {
    std::env::current_exe().during("find this program")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Makes tokens: who has which, and the file that supervisors read.
fn tokens(folder: &Path) -> Result<(Vec<(Who, String)>, String), CliError> {
    let (mut lines, mut tokens) = (String::new(), Vec::new());
    for (who, name, role) in Who::ALL {
        let secret: [u8; 32] = rand::random();
        let token = format!("ap_{}", secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        lines.push_str(&format!("{} {role} {name}\n", Digest::of(token.as_bytes())));
        tokens.push((who, token));
    }
    let file = folder.join("tokens");
    std::fs::write(&file, lines).during("write the tokens")?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).during("write the tokens")?;
    Ok((tokens, text(&file)))
}

/// A bare repository with one commit.
fn hub(folder: &Path) -> Result<PathBuf, CliError> {
    let tree = folder.join("project");
    for (path, content) in FILES {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(&tree)).during("make the project")?;
        std::fs::write(path, content).during("make the project")?;
    }
    commit_all(&tree)?;
    let hub = folder.join("hub.git");
    git(folder, &["clone", "-q", "--bare", &text(&tree), &text(&hub)])?;
    Ok(hub)
}

/// Makes a folder a repository, and its files its first commit.
pub(super) fn commit_all(tree: &Path) -> Result<(), CliError> {
    git(tree, &["init", "-q", "-b", "main"])?;
    git(tree, &["add", "-A"])?;
    git(tree, &["-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-q", "-m", "bench"])
}

/// Runs git without anybody's configuration.
pub(super) fn git(folder: &Path, args: &[&str]) -> Result<(), CliError> {
    let what = || format!("run git {}", args.first().copied().unwrap_or_default());
    let mut git = Command::new("git");
    git.current_dir(folder).args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]).args(args);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    let done = git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output().during(what())?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr).trim().replace('\n', " / ");
    Err(CliError::refused("unavailable", format!("cannot {}", what()), why, "git has to work here"))
}
