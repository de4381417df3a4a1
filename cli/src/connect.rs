//! How a command reaches an engine: one that owns the data directory, over its socket, or one in this process, over an
//! in-memory link. Both speak the same services.

pub(crate) mod address;
pub(crate) mod providers;
pub(crate) mod remote;
mod worker;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use autopack_shared::domain::ids::{Digest, ProjectId};
use autopack_shared::domain::project::ProjectConfig;
use autopack_shared::repo::locate;
use autopack_shared::runtime::process::OnError;
use autopack_shared::wire::MAX_MESSAGE;
use autopack_shared::wire::pb::StatusRequest;
use autopack_shared::wire::pb::admin_service_client::AdminServiceClient;
use autopack_shared::wire::pb::governance_service_client::GovernanceServiceClient;
use autopack_shared::wire::pb::run_service_client::RunServiceClient;
use autopack_supervisor::coordination::file_lock::FileCoordinator;
use autopack_supervisor::engine::{Engine, EngineConfig};
use autopack_supervisor::error::Error;
use autopack_worker::daemon::{Drain, Worker, WorkerConfig};
use autopack_worker::line::{Servers, Token};

use self::remote::Headers;
pub(crate) use self::worker::{builder_env, egress_limits, provision, warm_limits};
use crate::artifact;
use crate::context::{Context, Place};
use crate::exit::{CliError, During as _};
use crate::governing::director;

/// How long a command waits for another one that is just starting or just ending.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an owner may take to answer.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// How often a lost owner's successor is looked for, and how long apart.
const RETURNS: (u32, Duration) = (10, Duration::from_millis(100));

/// What a command needs of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To look at, or say something about, what is there: attach to an owner, else open one that drives nothing.
    /// Where nothing is there it makes no data directory.
    Passive,
    /// To record something new: the same, and a data directory is made.
    Record,
    /// Attach to an owner, else own and drive.
    Drive,
    /// Must own.
    Own,
}

/// A channel with what goes along with every call.
pub(crate) type Wire = InterceptedService<Channel, Headers>;

/// A connection to an engine.
pub(crate) struct Session {
    /// Runs.
    pub(crate) runs: RunServiceClient<Wire>,
    /// Requests and decisions.
    pub(crate) governance: GovernanceServiceClient<Wire>,
    /// The engine itself.
    pub(crate) admin: AdminServiceClient<Wire>,
    far: Far,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("owns", &self.owns()).finish_non_exhaustive()
    }
}

/// Connects.
pub(crate) async fn connect(ctx: &Context, need: Need) -> Result<Session, CliError> {
    if let Some(remote) = ctx.remote()? {
        let channel = remote::dial(&remote.url).await?;
        return Ok(session_of(channel, Headers::of(&remote)?, Far::default()));
    }
    let place = ctx.place()?;
    let start = ctx.clock.monotonic();
    loop {
        if need != Need::Own
            && let Some(session) = attach(ctx).await?
        {
            return Ok(session);
        }
        let opened = if need == Need::Passive && !has_store(&place.data_dir) {
            look_at_nothing(ctx, place).await
        } else {
            own(ctx, place, matches!(need, Need::Drive | Need::Own)).await
        };
        match opened {
            Err(error)
                if error.reason() == "data_dir_locked"
                    && ctx.clock.monotonic().saturating_sub(start) < patience(need) => {}
            done => return done,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A command that only looked has the lock for a moment; an owner keeps it, and who wants to own is told so.
const fn patience(need: Need) -> Duration {
    match need {
        Need::Own => Duration::from_secs(1),
        Need::Passive | Need::Record | Need::Drive => PATIENCE,
    }
}

/// Connects to an owner; none where there is none.
async fn attach(ctx: &Context) -> Result<Option<Session>, CliError> {
    if let Some(remote) = ctx.remote()? {
        let channel = remote::dial(&remote.url).await.ok();
        let headers = Headers::of(&remote)?;
        return Ok(channel.map(|channel| session_of(channel, headers, Far::default())));
    }
    let socket = address::to_reach(&ctx.env, &ctx.place()?.data_dir);
    address::must_be_ours(&socket)?;
    let Some(channel) = dial(&socket).await else { return Ok(None) };
    let mut session = session(channel, Far { socket, ..Far::default() });
    same_repository(ctx, &mut session).await?;
    Ok(Some(session))
}

/// Refuses an engine of another repository: what is meant for this one must not be done there.
async fn same_repository(ctx: &Context, session: &mut Session) -> Result<(), CliError> {
    let place = ctx.place()?;
    // One that ends just now is found by what is asked of it next.
    let Ok(status) = session.admin.status(StatusRequest {}).await else { return Ok(()) };
    let theirs = status.into_inner().repo;
    let ours = common_dir(place);
    if locate::common_dir(Path::new(&theirs)).is_none_or(|theirs| theirs == ours) {
        return Ok(());
    }
    let error = Error::OtherRepository {
        data_dir: place.data_dir.display().to_string(),
        known: theirs,
        asked: place.root.display().to_string(),
    };
    Err(CliError::Engine { what: "cannot attach to the engine that runs".to_owned(), status: Box::new(error.into()) })
}

/// Connects to the next owner after one went away, for a moment; never becomes one.
pub(crate) async fn attach_again(ctx: &Context) -> Result<Option<Session>, CliError> {
    let (tries, apart) = RETURNS;
    for _ in 0..tries {
        if let Some(session) = attach(ctx).await? {
            return Ok(Some(session));
        }
        tokio::time::sleep(apart).await;
    }
    Ok(None)
}

/// Whether an engine ever kept anything in a data directory.
pub(crate) fn has_store(data_dir: &Path) -> bool {
    data_dir.join("autopack.db").exists()
}

impl Session {
    /// Ends the connection; an engine that is owned is stopped within its grace period.
    pub(crate) async fn close(self) {
        let Far { engine, socket, data_dir, scratch } = self.far;
        if let Some(engine) = engine {
            if engine.core.director().is_some() {
                // Before the lock is given back: afterwards it could be the next owner's. A stale one is harmless.
                let _gone = std::fs::remove_file(&socket);
                let _withdrawn = address::withdraw(&data_dir);
            }
            engine.shutdown().await;
        }
        drop(scratch);
    }

    /// Whether the engine runs in this process.
    pub(crate) const fn owns(&self) -> bool {
        self.far.engine.is_some()
    }

    /// Completes when the engine went away: the owner ended, or the one in this process stopped by itself.
    pub(crate) async fn lost(&self) {
        match &self.far.engine {
            Some(engine) => engine.tasks().stop().cancelled().await,
            None => {
                while dial(&self.far.socket).await.is_some() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Starts the worker of an engine in this process; why it cannot is told before anything is asked of the engine.
    async fn work(&self, config: WorkerConfig, channel: Channel) -> Result<(), CliError> {
        let Some(engine) = &self.far.engine else { return Ok(()) };
        let worker = Worker::open(config, Servers::Here(channel), Token::default())
            .await
            .map_err(io::Error::from)
            .during("start the worker")?;
        let tasks = engine.tasks().clone();
        engine.tasks().spawn("worker", OnError::Stop, worker.serve(tasks, Drain::default()));
        Ok(())
    }

    /// The socket that others reach this engine by.
    pub(crate) fn socket(&self) -> &Path {
        &self.far.socket
    }
}

/// Who is at the other end of a connection.
#[derive(Default)]
struct Far {
    engine: Option<Engine>,
    socket: PathBuf,
    data_dir: PathBuf,
    // Where an engine reads that has no store to read.
    scratch: Option<TempDir>,
}

fn session(channel: Channel, far: Far) -> Session {
    session_of(channel, Headers::default(), far)
}

fn session_of(channel: Channel, headers: Headers, far: Far) -> Session {
    let channel = InterceptedService::new(channel, headers);
    Session {
        runs: RunServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
        governance: GovernanceServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
        admin: AdminServiceClient::new(channel),
        far,
    }
}

/// Connects to an owner's socket; none when nobody answers there.
async fn dial(socket: &Path) -> Option<Channel> {
    // Tried by hand first: a lazily connected channel would only fail at the first call.
    drop(UnixStream::connect(socket).await.ok()?);
    let socket = socket.to_path_buf();
    let connector = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://autopack.local")
        .connect_timeout(CALL_DEADLINE)
        .http2_keep_alive_interval(Duration::from_secs(3))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true);
    tokio::time::timeout(CALL_DEADLINE, endpoint.connect_with_connector(connector)).await.ok()?.ok()
}

/// Opens an engine in this process.
async fn own(ctx: &Context, place: &Place, drive: bool) -> Result<Session, CliError> {
    let data_dir = place.data_dir.clone();
    // A full or read-only disk is told here as what it is.
    artifact::probe(&data_dir).during(format!("write in the data directory {}", data_dir.display()))?;
    let root = worker_root(ctx, place);
    let worker = if drive { Some(worker::config(ctx, place, root.clone())?) } else { None };
    let (engine, channel) = Box::pin(open(ctx, place, &data_dir, &root, drive)).await.map_err(unopened)?;
    let socket = address::to_serve(&ctx.env, &data_dir);
    if drive {
        listen(&engine, &data_dir, &socket)?;
    }
    let session = session(channel.clone(), Far { engine: Some(engine), socket, data_dir, scratch: None });
    if let Some(worker) = worker
        && let Err(error) = session.work(worker, channel).await
    {
        session.close().await;
        return Err(error);
    }
    Ok(session)
}

/// Opens an engine over a store that was never made: it is empty, and looking at it leaves nothing behind.
async fn look_at_nothing(ctx: &Context, place: &Place) -> Result<Session, CliError> {
    let scratch = tempfile::tempdir().during("make a scratch folder")?;
    let (data_dir, root) = (scratch.path().join("data"), scratch.path().join("work"));
    artifact::probe(&data_dir).during("make a scratch folder")?;
    let (engine, channel) = Box::pin(open(ctx, place, &data_dir, &root, false)).await.map_err(unopened)?;
    Ok(session(channel, Far { engine: Some(engine), socket: PathBuf::new(), data_dir, scratch: Some(scratch) }))
}

async fn open(
    ctx: &Context,
    place: &Place,
    data_dir: &Path,
    root: &Path,
    drive: bool,
) -> Result<(Engine, Channel), Error> {
    let coordinator = Arc::new(FileCoordinator::open(data_dir, root, ctx.clock.clone())?);
    let config = EngineConfig {
        project: project_id(place),
        repo: place.root.clone(),
        data_dir: data_dir.to_path_buf(),
        drive,
        director: director(&place.settings.spend),
    };
    let engine = Engine::open(config, coordinator, ctx.clock.clone(), ctx.ids.clone()).await?;
    let channel = engine.connect_in_memory().await?;
    Ok((engine, channel))
}

fn unopened(error: Error) -> CliError {
    CliError::Engine { what: "cannot open the engine".to_owned(), status: Box::new(error.into()) }
}

/// Serves the owner's socket, readable by its owner only.
fn listen(engine: &Engine, data_dir: &Path, socket: &Path) -> Result<(), CliError> {
    address::must_be_ours(socket)?;
    let what = format!("listen on {}", socket.display());
    // The data directory's lock is held, so whoever made this socket is gone.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).during(what),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).during(what.clone())?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600)).during(what)?;
    address::publish(data_dir, socket).during("say where the socket is")?;
    engine.serve("socket", UnixListenerStream::new(listener));
    Ok(())
}

/// Where the worker's mirror and worktrees are: outside of the user's checkout.
pub(crate) fn worker_root(ctx: &Context, place: &Place) -> PathBuf {
    if let Some(root) = &place.settings.worker_root {
        return root.clone();
    }
    let state = match (ctx.env.get("XDG_STATE_HOME"), ctx.env.get("HOME")) {
        (Some(state), _) if !state.is_empty() => PathBuf::from(state),
        (Some(_) | None, Some(home)) => Path::new(home).join(".local/state"),
        (Some(_) | None, None) => std::env::temp_dir(),
    };
    let name = Digest::of(common_dir(place).as_os_str().as_encoded_bytes()).to_hex();
    state.join("autopack").join(&name[..16])
}

/// The folder that all work trees of the repository share.
fn common_dir(place: &Place) -> PathBuf {
    let dot_git = place.root.join(".git");
    locate::common_dir(&place.root).unwrap_or(dot_git)
}

fn objects_dir(place: &Place) -> PathBuf {
    common_dir(place).join("objects")
}

/// The project's id: named in its policy file, else made of its folder's name.
fn project_id(place: &Place) -> ProjectId {
    let named = std::fs::read_to_string(place.root.join("autopack.toml"))
        .ok()
        .and_then(|text| ProjectConfig::parse(&text, "autopack.toml").ok())
        .and_then(|config| config.project.id);
    named.unwrap_or_else(|| crate::commands::project_of_folder(&place.root))
}
