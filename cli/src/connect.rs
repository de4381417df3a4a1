//! How a command reaches an engine: one that owns the data directory, over its socket, or one in this process, over an
//! in-memory link. Both speak the same services.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use autopack_shared::domain::ids::{Digest, ProjectId};
use autopack_shared::domain::project::ProjectConfig;
use autopack_shared::runtime::process::OnError;
use autopack_shared::wire::MAX_MESSAGE;
use autopack_shared::wire::pb::admin_service_client::AdminServiceClient;
use autopack_shared::wire::pb::governance_service_client::GovernanceServiceClient;
use autopack_shared::wire::pb::run_service_client::RunServiceClient;
use autopack_supervisor::coordination::CoordinationError;
use autopack_supervisor::coordination::file_lock::FileCoordinator;
use autopack_supervisor::director::DirectorConfig;
use autopack_supervisor::engine::{Engine, EngineConfig};
use autopack_supervisor::error::Error;
use autopack_worker::daemon::{self, WorkerConfig};
use autopack_worker::link::Identity;

use crate::context::{Context, Place};
use crate::exit::{CliError, During as _};

/// How long a command waits for another one that is just starting or just ending.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an owner may take to answer.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// The longest path of a unix socket on Linux, less the final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// What a command needs of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Any engine: attach to an owner, else open one that records but drives nothing.
    Passive,
    /// Attach to an owner, else own and drive.
    Drive,
    /// Must own.
    Own,
}

/// A connection to an engine.
pub(crate) struct Session {
    /// Runs.
    pub(crate) runs: RunServiceClient<Channel>,
    /// Requests and decisions.
    pub(crate) governance: GovernanceServiceClient<Channel>,
    /// The engine itself.
    pub(crate) admin: AdminServiceClient<Channel>,
    engine: Option<Engine>,
    socket: PathBuf,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("owns", &self.owns()).finish_non_exhaustive()
    }
}

/// Connects.
pub(crate) async fn connect(ctx: &Context, need: Need) -> Result<Session, CliError> {
    let place = ctx.place()?;
    let socket = socket_path(ctx, &place.data_dir);
    let start = ctx.clock.monotonic();
    loop {
        if need != Need::Own
            && let Some(channel) = dial(&socket).await
        {
            return Ok(session(channel, None, socket));
        }
        match own(ctx, place, need != Need::Passive, &socket).await {
            Ok(opened) => return Ok(opened),
            Err(Error::Coordination(CoordinationError::DataDirLocked { .. }))
                if need != Need::Own && ctx.clock.monotonic().saturating_sub(start) < PATIENCE => {}
            Err(error) => return Err(tonic::Status::from(error)).during("open the engine"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Session {
    /// Ends the connection; an engine that is owned is stopped within its grace period.
    pub(crate) async fn close(self) {
        if let Some(engine) = self.engine {
            if engine.core.director.is_some() {
                // Before the lock is given back: afterwards it could be the next owner's. A stale one is harmless.
                let _gone = std::fs::remove_file(&self.socket);
            }
            engine.shutdown().await;
        }
    }

    /// Whether the engine runs in this process.
    pub(crate) const fn owns(&self) -> bool {
        self.engine.is_some()
    }

    /// Completes when the engine went away: the owner ended, or the one in this process stopped by itself.
    pub(crate) async fn lost(&self) {
        match &self.engine {
            Some(engine) => engine.tasks().stop().cancelled().await,
            None => {
                while dial(&self.socket).await.is_some() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// The socket that others reach this engine by.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

fn session(channel: Channel, engine: Option<Engine>, socket: PathBuf) -> Session {
    Session {
        runs: RunServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
        governance: GovernanceServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
        admin: AdminServiceClient::new(channel),
        engine,
        socket,
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
async fn own(ctx: &Context, place: &Place, drive: bool, socket: &Path) -> Result<Session, Error> {
    let root = worker_root(ctx, place);
    let coordinator = Arc::new(FileCoordinator::open(&place.data_dir, &root, ctx.clock.clone())?);
    let config = EngineConfig {
        project: project_id(place),
        repo: place.root.clone(),
        data_dir: place.data_dir.clone(),
        drive,
        director: DirectorConfig::default(),
    };
    let engine = Engine::open(config, coordinator, ctx.clock.clone(), ctx.ids.clone()).await?;
    let channel = engine.connect_in_memory().await?;
    if drive {
        listen(&engine, place, socket)?;
        start_worker(ctx, place, root, &engine, channel.clone());
    }
    Ok(session(channel, Some(engine), socket.to_path_buf()))
}

/// Serves the owner's socket, readable by its owner only.
fn listen(engine: &Engine, place: &Place, socket: &Path) -> Result<(), Error> {
    let failed = |e: std::io::Error| CoordinationError::of(socket, &e);
    // The data directory's lock is held, so whoever made this socket is gone.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error).into()),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    let addr = place.data_dir.join("autopack.addr");
    std::fs::write(&addr, format!("{}\n", socket.display())).map_err(failed)?;
    engine.serve("socket", UnixListenerStream::new(listener));
    Ok(())
}

fn start_worker(ctx: &Context, place: &Place, root: PathBuf, engine: &Engine, channel: Channel) {
    let identity = Identity {
        worker: "embedded".to_owned(),
        session: ctx.ids.fresh("session"),
        boot_id: std::process::id().to_string(),
        slots: place.settings.worker_slots,
        // The sandbox is a later feature; nothing is claimed that was not measured.
        sandbox_level: "S0".to_owned(),
    };
    let env = ["PATH", "HOME", "LANG", "LC_ALL", "TERM", "USER", "CARGO_HOME", "RUSTUP_HOME"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), ctx.env.get(name)?.to_owned())))
        .collect();
    let config = WorkerConfig {
        identity,
        root,
        objects: objects_dir(place),
        run_data: Some(place.data_dir.clone()),
        env,
        log_budget: 64 * 1024 * 1024,
    };
    engine.tasks().spawn("worker", OnError::Stop, daemon::run(config, channel, engine.tasks().clone()));
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
    autopack_shared::repo::locate::common_dir(&place.root).unwrap_or(dot_git)
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

/// `<data-dir>/autopack.sock`, or a short path in the user's runtime folder where that one is too long.
pub(crate) fn socket_path(ctx: &Context, data_dir: &Path) -> PathBuf {
    let plain = data_dir.join("autopack.sock");
    if plain.as_os_str().len() <= MAX_SOCKET_PATH {
        return plain;
    }
    let name = Digest::of(data_dir.as_os_str().as_encoded_bytes()).to_hex();
    let folder = ctx.env.get("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    folder.join(format!("autopack-{}.sock", &name[..16]))
}
