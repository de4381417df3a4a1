//! `supervisor` and `worker`: the daemons of a cluster; `token`: who may talk to them.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::sandbox::SandboxLevel;
use autopack_shared::runtime::process::Tasks;
use autopack_supervisor::api::workers::Transfers;
use autopack_supervisor::coordination::timers::Timers;
use autopack_supervisor::door::Door;
use autopack_supervisor::error::Error;
use autopack_supervisor::replica::{Replica, ReplicaConfig, RunDataConfig};
use autopack_supervisor::run_data::postgres::RunDatabaseConfig;
use autopack_supervisor::store::postgres::PostgresConfig;
use autopack_worker::daemon::{DaemonError, Drain, Worker, WorkerConfig};
use autopack_worker::line::{Servers, Token as Header};
use autopack_worker::link::Identity;
use autopack_worker::runners::Objects;

use crate::args::cluster::{Role, Supervisor, Token, TokenNew, WorkerArgs};
use crate::commands::sandbox;
use crate::connect::{builder_env, egress_limits, provision, warm_limits};
use crate::context::Context;
use crate::drive::Leave;
use crate::exit::{CliError, During as _, Exit};
use crate::governing::director;

/// The variable with the database's URL: it may hold a password, so it is no flag.
const DATABASE_URL: &str = "AUTOPACK_DATABASE_URL";

/// How long what a worker still does may take to end when it stops.
const STOP: Duration = Duration::from_secs(10);

/// The same for the database of runs.
const RUN_DATABASE_URL: &str = "AUTOPACK_RUN_DATABASE_URL";

/// Bytes of output that are kept of one process.
const LOG_BUDGET: u64 = 64 * 1024 * 1024;

/// Runs `supervisor` until it is stopped.
pub(crate) async fn supervisor(ctx: &Context, args: Supervisor) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let door = Door::with_tokens(&args.tokens).map_err(|error| {
        let fix = "autopack token new --help shows how tokens are made";
        CliError::refused("unsafe_config", "the tokens cannot be used", error.to_string(), fix)
    })?;
    if !args.listen.ip().is_loopback() {
        ctx.out.warn("tokens cross the network in the clear: put TLS or a private network in front of this address");
    }
    private_dir(&args.state_dir)?;
    let mut leave = Leave::new()?;
    let config = ReplicaConfig {
        advertise: args.advertise.clone().unwrap_or_else(|| format!("http://{}", args.listen)),
        id: args.id.clone(),
        listen: args.listen,
        store: PostgresConfig::new(database_url(ctx, args.database_url_file.as_deref())?),
        run_data: run_data(ctx, &args)?,
        etcd: args.etcd,
        cluster_id: args.cluster_id,
        timers: Timers::default(),
        state_dir: args.state_dir,
        hub_credentials: args.hub_credentials,
        door,
        transfers: Transfers {
            uploads: u64::from(args.upload_memory) << 20,
            fetches: u64::from(args.fetch_memory) << 20,
        },
        director: director(&ctx.host_settings()?.spend),
    };
    let replica = Box::pin(Replica::open(config, ctx.clock.clone(), ctx.ids.clone())).await.map_err(unopened)?;
    let address = replica.address().to_string();
    if ctx.out.machine() {
        ctx.out.event(&json!({ "format": "supervisor/1", "id": args.id, "address": address }))?;
    } else {
        ctx.out.text(&format!("supervisor {} on {address}\n", args.id))?;
    }
    let stopped = tokio::select! {
        () = leave.asked() => true,
        () = replica.stopped() => false,
    };
    tokio::select! {
        () = replica.shutdown() => {}
        () = leave.asked() => return Ok(Exit::Interrupted),
    }
    ended(stopped, "the supervisor")
}

fn unopened(error: Error) -> CliError {
    CliError::Engine { what: "cannot start the supervisor".to_owned(), status: Box::new(error.into()) }
}

fn ended(stopped: bool, who: &str) -> Result<Exit, CliError> {
    if stopped {
        return Ok(Exit::Done);
    }
    let fix = "read its log (-v) and start it again";
    Err(CliError::refused("unavailable", format!("{who} stopped by itself"), "a part of it failed", fix))
}

/// The URL of the control store.
pub(crate) fn database_url(ctx: &Context, file: Option<&Path>) -> Result<String, CliError> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).during(format!("read {}", file.display()))?;
        return Ok(text.trim().to_owned());
    }
    ctx.env.get(DATABASE_URL).map(str::to_owned).ok_or_else(|| {
        let fix = format!("set {DATABASE_URL}, or name a file with --database-url-file");
        CliError::invalid("no database is named", "a supervisor keeps everything in PostgreSQL", fix)
    })
}

/// The server for data of runs, where one is named.
fn run_data(ctx: &Context, args: &Supervisor) -> Result<Option<RunDataConfig>, CliError> {
    let url = match &args.run_database_url_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).during(format!("read {}", file.display()))?;
            text.trim().to_owned()
        }
        None => match ctx.env.get(RUN_DATABASE_URL) {
            Some(url) => url.to_owned(),
            None if args.run_database_host.is_some() => {
                let fix = format!("set {RUN_DATABASE_URL}, or name a file with --run-database-url-file");
                let why = "--run-database-host says where workers reach it";
                return Err(CliError::invalid("no database for runs is named", why, fix));
            }
            None => return Ok(None),
        },
    };
    let server = RunDatabaseConfig { host: args.run_database_host.clone(), ..RunDatabaseConfig::new(url) };
    let retention = Duration::from_secs(u64::from(args.run_data_retention) * 3600);
    Ok(Some(RunDataConfig { server, retention }))
}

/// Makes a folder that only this user reads.
pub(crate) fn private_dir(path: &Path) -> Result<(), CliError> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path).during(format!("make {}", path.display()))
}

/// Runs `worker` until it is stopped.
pub(crate) async fn worker(ctx: &Context, args: WorkerArgs) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    private_dir(&args.root)?;
    let root = args.root.canonicalize().during(format!("open {}", args.root.display()))?;
    let token = ctx.token()?;
    let header = Header::new(token.as_deref())
        .map_err(|why| CliError::invalid("the token cannot be used", why, "autopack token new makes one that can"))?;
    let leave = Leave::new()?;
    let settings = ctx.host_settings()?;
    let config = WorkerConfig {
        identity: Identity {
            worker: args.name.to_string(),
            session: ctx.ids.fresh("session"),
            boot_id: std::process::id().to_string(),
            slots: args.slots,
            // What was measured takes its place.
            sandbox_level: SandboxLevel::S0.to_string(),
        },
        run_data: Some(root.join("data")),
        root: root.join("mirrors"),
        objects: Objects::Fetched,
        env: builder_env(ctx),
        sandbox: Some(sandbox::config(ctx, &args.sandbox, &root.join("sandbox"))?),
        log_budget: LOG_BUDGET,
        transcript_limit: args.transcript_mib * 1024 * 1024,
        report_limit: args.report_mib * 1024 * 1024,
        providers: crate::connect::providers::providers(ctx, settings.providers_file.as_deref())?,
        warm: warm_limits(args.warm),
        provision: provision(args.provision.as_deref())?,
        egress: egress_limits(&settings.worker_egress),
    };
    private_dir(&config.root)?;
    let worker = Worker::open(config, Servers::Any(args.supervisor), header)
        .await
        .map_err(std::io::Error::from)
        .during("start the worker")?;
    if ctx.out.machine() {
        ctx.out.event(&json!({ "format": "worker/1", "name": args.name, "slots": args.slots }))?;
    } else {
        ctx.out.text(&format!("worker {} with {} slots\n", args.name, args.slots))?;
    }
    until_left(ctx, worker, Duration::from_secs(args.drain_grace), leave).await
}

/// Serves until the worker is drained, by an operator or by a first signal; a second one, or the end of the grace, stops
/// what is under way in order, and a third one ends at once.
async fn until_left(ctx: &Context, worker: Worker, grace: Duration, mut leave: Leave) -> Result<Exit, CliError> {
    let (tasks, drain) = (Tasks::new(), Drain::default());
    let mut serving = Box::pin(worker.serve(tasks.clone(), drain.clone()));
    let asked = tokio::select! {
        () = leave.asked() => None,
        served = &mut serving => Some(served),
    };
    if let Some(served) = asked {
        tasks.shutdown(STOP).await;
        joined(served)?;
        ctx.out.note("drained: the supervisors give it no more work until it is started again");
        return Ok(Exit::Done);
    }
    drain.ask();
    ctx.out.note("draining: it ends when its work is done; a second signal gives the work back now");
    let (drained, again) = tokio::select! {
        served = &mut serving => (Some(served), false),
        () = tokio::time::sleep(grace) => (None, false),
        () = leave.asked() => (None, true),
    };
    tasks.stop().cancel();
    let served = tokio::select! {
        served = async { match drained { Some(served) => served, None => serving.await } } => served,
        () = leave.asked() => return Ok(Exit::Interrupted),
    };
    tasks.shutdown(STOP).await;
    joined(served)?;
    Ok(if again { Exit::Interrupted } else { Exit::Done })
}

fn joined(served: Result<(), DaemonError>) -> Result<(), CliError> {
    served.map_err(|error| {
        CliError::refused("version", "the worker cannot join", error.to_string(), "run the same autopack on both sides")
    })
}

/// Runs `token`.
pub(crate) fn token(ctx: &Context, command: Token) -> Result<Exit, CliError> {
    let Token::New(args) = command;
    new_token(ctx, &args)
}

fn new_token(ctx: &Context, args: &TokenNew) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    let pool = matches!(args.role, Role::Worker) && args.name.ends_with('*');
    let name = if pool { &args.name[..args.name.len() - 1] } else { args.name.as_str() };
    if args.name.is_empty() || args.name.len() > 64 || !name.chars().all(plain) {
        let why = "1 to 64 letters, digits, '.', '_', '-' and '@'; a worker's may end with '*'";
        return Err(CliError::invalid("the name cannot be used", why, "choose another --name"));
    }
    let secret: [u8; 32] = rand::random();
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("ap_{text}");
    let role = match args.role {
        Role::Person => "person",
        Role::Worker => "worker",
    };
    let line = format!("{} {role} {}\n", Digest::of(token.as_bytes()), args.name);
    let what = format!("add to {}", args.tokens.display());
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&args.tokens);
    let mut file = file.during(what.clone())?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).during(what)?;
    if ctx.out.machine() {
        ctx.out.document(&json!({ "format": "token/1", "name": args.name, "role": role, "token": token }))?;
    } else {
        ctx.out.text(&format!("{token}\n"))?;
    }
    ctx.out.note("this is the only time it is shown; supervisors read their file of tokens when they start");
    Ok(Exit::Done)
}
