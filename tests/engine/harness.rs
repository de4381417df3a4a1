//! One engine on one small repository, and the few questions that the tests ask it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use git2::{Oid, Repository, Signature};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;

use autopack_shared::domain::ids::ProjectId;
use autopack_shared::domain::record::Command;
use autopack_shared::runtime::clock::{Clock, SystemClock, SystemIds};
use autopack_shared::runtime::process::OnError;
use autopack_shared::wire::pb::admin_service_client::AdminServiceClient;
use autopack_shared::wire::pb::governance_service_client::GovernanceServiceClient;
use autopack_shared::wire::pb::run_service_client::RunServiceClient;
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::pb::{self, Choice};
use autopack_supervisor::coordination::Coordinator;
use autopack_supervisor::coordination::file_lock::FileCoordinator;
use autopack_supervisor::director::{DirectorConfig, Governing};
use autopack_supervisor::engine::{Engine, EngineConfig};
use autopack_supervisor::store::Store;
use autopack_worker::daemon::{self, WorkerConfig};
use autopack_worker::link::Identity;
use autopack_worker::pool::WarmLimits;
use autopack_worker::provision::Provision;
use autopack_worker::runners::Objects;
use autopack_worker::sandbox::SandboxConfig;

/// How long anything may take before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(100);

/// A repository with its state folders.
pub(super) struct Site {
    /// Keeps the folders.
    pub(super) dir: TempDir,
    /// What its operator gives.
    pub(super) provision: Provision,
}

/// An engine on it.
pub(super) struct Rig {
    engine: Engine,
    pub(super) runs: RunServiceClient<Channel>,
    pub(super) governance: GovernanceServiceClient<Channel>,
    pub(super) admin: AdminServiceClient<Channel>,
    pub(super) channel: Channel,
    pub(super) workers: WorkerServiceClient<Channel>,
}

/// A normal-profile anchor that allows two runs at once.
pub(super) const ANCHOR: &str = r#"{"format_version":"v2","project_id":"site","created_at":"2026-01-01T00:00:00Z",
"raw_input_digest":"0123456789abcdef","pivot_intentions":{"safety_risk":{"risk_tolerance":"moderate"},
"parallelism_isolation":{"allowed":true,"isolation_model":"four_layer","max_concurrent_runs":2}}}"#;

impl Site {
    /// A repository with a few files; `policy` becomes `autopack.toml` where it is not empty.
    pub(super) fn new(policy: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap(), provision: Provision::default() };
        let repo = Repository::init(site.repo()).unwrap();
        repo.set_head("refs/heads/main").unwrap();
        site.write("README.md", "# Site\n");
        site.write("examples/a.txt", "one\ntwo\nthree\n");
        site.write("docs/guide.md", "# Guide\n");
        site.write(".autopack/anchor_v2.json", ANCHOR);
        if !policy.is_empty() {
            site.write("autopack.toml", policy);
        }
        site.commit("first");
        site
    }

    pub(super) fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let file = self.repo().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Commits everything on the checked-out branch.
    pub(super) fn commit(&self, message: &str) -> Oid {
        let repo = Repository::open(self.repo()).unwrap();
        let mut index = repo.index().unwrap();
        index.add_all(["*"], git2::IndexAddOption::DEFAULT, None).unwrap();
        index.write().unwrap();
        let tree = repo.find_tree(index.write_tree().unwrap()).unwrap();
        let who = Signature::now("t", "t@t").unwrap();
        let parent = repo.head().ok().map(|h| h.peel_to_commit().unwrap());
        let parents: Vec<_> = parent.iter().collect();
        repo.commit(Some("HEAD"), &who, &who, message, &tree, &parents).unwrap()
    }

    /// The text of a file at a ref; none where there is none.
    pub(super) fn text_at(&self, name: &str, path: &str) -> Option<String> {
        let repo = Repository::open(self.repo()).unwrap();
        let tree = repo.find_reference(name).ok()?.peel_to_tree().unwrap();
        let blob = tree.get_path(Path::new(path)).ok()?.to_object(&repo).unwrap().peel_to_blob().unwrap();
        Some(String::from_utf8_lossy(blob.content()).into_owned())
    }

    /// Commits on a run's branch, newest first, as messages.
    pub(super) fn log(&self, run: &str) -> Vec<String> {
        let repo = Repository::open(self.repo()).unwrap();
        let mut walk = repo.revwalk().unwrap();
        walk.push_ref(&format!("refs/heads/autopack/{run}")).unwrap();
        walk.map(|oid| repo.find_commit(oid.unwrap()).unwrap().summary().unwrap().unwrap_or("").to_owned()).collect()
    }
}

/// Sandboxes as the program itself builds them.
fn sandbox(folder: &Path) -> SandboxConfig {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_autopack"));
    let bwrap = Some(PathBuf::from("/usr/bin/bwrap")).filter(|path| path.exists());
    SandboxConfig { bwrap, ..SandboxConfig::new(program, folder.to_path_buf()) }
}

impl Rig {
    /// Opens an engine with a worker.
    pub(super) async fn open(site: &Site) -> Self {
        Self::open_at(site, Arc::new(SystemClock::default())).await
    }

    /// Opens an engine whose store goes by this clock.
    pub(super) async fn open_at(site: &Site, clock: Arc<dyn Clock>) -> Self {
        Self::open_over(site, clock, |locks| locks).await
    }

    /// Opens an engine whose locks somebody stands in front of.
    pub(super) async fn open_over(
        site: &Site,
        clock: Arc<dyn Clock>,
        locks: impl FnOnce(Arc<dyn Coordinator>) -> Arc<dyn Coordinator>,
    ) -> Self {
        let rig = Self::engine(site, clock, (true, DirectorConfig::default()), locks).await;
        rig.with_worker(site)
    }

    /// Gives it a real worker.
    fn with_worker(self, site: &Site) -> Self {
        let rig = self;
        let worker = WorkerConfig {
            identity: Identity {
                worker: "embedded".into(),
                session: format!("s-{}", rig.engine.core.ids.short()),
                boot_id: "b".into(),
                slots: 4,
                sandbox_level: "S0".into(),
            },
            root: site.dir.path().join("worker"),
            objects: Objects::Borrowed(site.repo().join(".git/objects")),
            run_data: Some(site.data()),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            sandbox: Some(sandbox(&site.dir.path().join("worker/.sandbox"))),
            log_budget: 1 << 20,
            transcript_limit: 1 << 20,
            report_limit: 16 << 20,
            providers: Arc::default(),
            warm: WarmLimits { count: 1, ..WarmLimits::default() },
            provision: site.provision.clone(),
            egress: autopack_worker::egress::Limits::default(),
        };
        let serving = daemon::run(worker, rig.channel.clone(), rig.engine.tasks().clone());
        rig.engine.tasks().spawn("worker", OnError::Log, serving);
        rig
    }

    /// Opens an engine that has no worker.
    pub(super) async fn alone(site: &Site, clock: Arc<dyn Clock>) -> Self {
        Self::governed(site, clock, Governing::default()).await
    }

    /// Opens an engine that has no worker, with budgets and breakers.
    pub(super) async fn governed(site: &Site, clock: Arc<dyn Clock>, governing: Governing) -> Self {
        let director = DirectorConfig { governing, ..DirectorConfig::default() };
        Self::engine(site, clock, (true, director), |locks| locks).await
    }

    /// Opens an engine with a worker, with budgets and breakers.
    pub(super) async fn governed_with_worker(site: &Site, governing: Governing) -> Self {
        Self::governed(site, Arc::new(SystemClock::default()), governing).await.with_worker(site)
    }

    /// Opens an engine that only records.
    pub(super) async fn undriven(site: &Site) -> Self {
        let passive = (false, DirectorConfig::default());
        Self::engine(site, Arc::new(SystemClock::default()), passive, |locks| locks).await
    }

    async fn engine(
        site: &Site,
        clock: Arc<dyn Clock>,
        (drive, director): (bool, DirectorConfig),
        locks: impl FnOnce(Arc<dyn Coordinator>) -> Arc<dyn Coordinator>,
    ) -> Self {
        let root = site.dir.path().join("worker");
        let coordinator = locks(Arc::new(FileCoordinator::open(&site.data(), &root, clock.clone()).unwrap()));
        let config = EngineConfig {
            project: ProjectId::new("site").unwrap(),
            repo: site.repo(),
            data_dir: site.data(),
            drive,
            director,
        };
        let engine = Box::pin(Engine::open(config, coordinator, clock, Arc::new(SystemIds))).await.unwrap();
        let channel = engine.connect_in_memory().await.unwrap();
        Self {
            runs: RunServiceClient::new(channel.clone()),
            governance: GovernanceServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel.clone()),
            workers: WorkerServiceClient::new(channel.clone()),
            channel,
            engine,
        }
    }

    /// The flaky tests of the project: command, test, how often.
    pub(super) async fn flaky(&self) -> Vec<(String, String, u64)> {
        let project = ProjectId::new("site").unwrap();
        let found = self.engine.core.store.read().await.unwrap().flaky_tests(&project, 0).await.unwrap();
        found.into_iter().map(|test| (test.command, test.test, test.count)).collect()
    }

    /// How many transcripts of a run have gone.
    pub(super) async fn gone_transcripts(&self, run: &str) -> usize {
        let mut view = self.engine.core.store.read().await.unwrap();
        view.gone_transcripts(&run.parse().unwrap()).await.unwrap().len()
    }

    pub(super) async fn close(self) {
        self.engine.shutdown().await;
    }

    /// Submits a run of command phases: (id, shell script, extra fields).
    pub(super) async fn submit(&mut self, run: &str, phases: &[(&str, &str, Value)]) -> pb::Run {
        let phases: Vec<Value> = phases
            .iter()
            .map(|(id, script, extra)| {
                let mut phase = json!({ "id": id, "goal": "change the example", "builder": { "kind": "command", "argv": ["sh", "-c", script] } });
                for (key, value) in extra.as_object().into_iter().flatten() {
                    phase[key] = value.clone();
                }
                phase
            })
            .collect();
        self.submit_file(&json!({ "run_id": run, "phases": phases })).await
    }

    pub(super) async fn submit_file(&mut self, file: &Value) -> pb::Run {
        let call =
            pb::SubmitRequest { run_file_json: file.to_string(), insecure_no_sandbox: true, ..Default::default() };
        self.runs.submit(call).await.unwrap().into_inner().run.unwrap()
    }

    pub(super) async fn run(&mut self, run: &str) -> pb::Run {
        self.runs.get(pb::GetRunRequest { run_id: run.into() }).await.unwrap().into_inner()
    }

    /// Waits until a run satisfies a condition; the store's events wake it, nothing sleeps.
    pub(super) async fn until(&mut self, run: &str, what: &str, holds: impl Fn(&pb::Run) -> bool) -> pb::Run {
        let mut events = self
            .runs
            .watch(pb::WatchRequest { run_id: run.into(), after_seq: 0, once: false })
            .await
            .unwrap()
            .into_inner();
        let wait = async {
            loop {
                let seen = self.runs.get(pb::GetRunRequest { run_id: run.into() }).await.unwrap().into_inner();
                if holds(&seen) {
                    return seen;
                }
                if events.message().await.unwrap().is_none() {
                    let last = self.runs.get(pb::GetRunRequest { run_id: run.into() }).await.unwrap().into_inner();
                    assert!(holds(&last), "{run} ended without {what}: {last:#?}");
                    return last;
                }
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(seen) => seen,
            Err(_) => {
                let why =
                    self.runs.explain(pb::GetRunRequest { run_id: run.into() }).await.unwrap().into_inner().blockers;
                panic!(
                    "{run} never came to {what}: {:#?}\n{why:#?}\n{:#?}",
                    self.run(run).await,
                    self.history(run).await
                )
            }
        }
    }

    pub(super) async fn until_state(&mut self, run: &str, state: &str) -> pb::Run {
        self.until(run, state, |r| r.state == state).await
    }

    /// The one pending request of a run.
    pub(super) async fn pending(&mut self, run: &str) -> pb::Request {
        let call = pb::ListRequestsRequest { run_id: run.into(), ..Default::default() };
        let mut found = self.governance.list(call).await.unwrap().into_inner().requests;
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }

    /// Decides a request by the digest it shows.
    pub(super) async fn decide(
        &mut self,
        request: &pb::Request,
        choice: Choice,
        reason: &str,
    ) -> Result<pb::Request, tonic::Status> {
        let call = pb::DecideRequest {
            request_id: request.id.clone(),
            choice: choice.into(),
            expected_digest: request.subject_digest.clone(),
            reason: reason.into(),
            ..Default::default()
        };
        Ok(self.governance.decide(call).await?.into_inner())
    }

    pub(super) async fn steer(&mut self, run: &str, op: pb::SteerOp) {
        let call = pb::SteerRequest { run_id: run.into(), op: op.into(), ..Default::default() };
        self.runs.steer(call).await.unwrap();
    }

    /// Puts a command into the store as if it had been recorded before, and waits for what becomes of it.
    pub(super) async fn performed(&self, command: Command) -> String {
        let store = &self.engine.core.store;
        let mut tx = store.tx(&[]).await.unwrap();
        tx.insert_command(&command).await.unwrap();
        tx.commit().await.unwrap();
        let done = async {
            loop {
                let found = store.read().await.unwrap().command(&command.id).await.unwrap().unwrap();
                match found.result {
                    Some(result) => return result,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(DEADLINE, done).await.unwrap()
    }

    /// What the engine writes down.
    pub(super) fn store(&self) -> &dyn Store {
        self.engine.core.store.as_ref()
    }

    /// What a run's history says, as `kind text` lines.
    pub(super) async fn history(&mut self, run: &str) -> Vec<String> {
        let call = pb::WatchRequest { run_id: run.into(), after_seq: 0, once: true };
        let mut stream = self.runs.watch(call).await.unwrap().into_inner();
        let mut lines = Vec::new();
        while let Some(event) = stream.message().await.unwrap() {
            lines.push(format!("{} {}", event.kind, event.text));
        }
        lines
    }

    /// The most leases that were active at once.
    pub(super) async fn peak(&self) -> u64 {
        let mut view = self.engine.core.store.read().await.unwrap();
        view.peak_leases(&self.engine.core.project).await.unwrap()
    }

    /// What the log says of one kind in a chain.
    pub(super) async fn logged(&self, chain: &str, op: &str) -> Vec<Value> {
        let mut view = self.engine.core.store.read().await.unwrap();
        let records = view.audit(chain, 1, 1000).await.unwrap();
        let bodies = records.iter().map(|record| serde_json::from_str::<Value>(&record.body).unwrap());
        bodies.filter(|body| body["op"] == op).collect()
    }

    /// The audit log is whole and agrees with the tables.
    pub(super) async fn audit_is_whole(&mut self) {
        let report = self.admin.verify_audit(pb::VerifyAuditRequest {}).await.unwrap().into_inner();
        assert_eq!(report.code, 0, "{:?}", report.problems);
        assert!(report.records > 0);
    }
}

/// The reason code of a refusal.
pub(super) fn reason(status: &tonic::Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_error_details().error_info().map(|i| i.reason.clone()).unwrap_or_default()
}
