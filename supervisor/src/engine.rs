//! Wires the ports into one supervisor: store, hub, coordination, director, services.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use autopack_shared::domain::ids::ProjectId;
use autopack_shared::domain::record::{Principal, Project};
use autopack_shared::repo::locate::common_dir;
use autopack_shared::runtime::clock::{Clock, IdSource};
use autopack_shared::runtime::process::{OnError, Tasks};

use crate::api::cores::Cores;
use crate::api::workers::{Lookout, Room};
use crate::api::{Core, DirectorSlot};
use crate::census;
use crate::coordination::Coordinator;
use crate::coordination::timers::Timers;
use crate::director::{Claim, Director, DirectorConfig, DirectorParts, moves, run_blocking};
use crate::door::Door;
use crate::error::Error;
use crate::export::Exporter;
use crate::hub::names::EMBEDDED;
use crate::hub::{Hub, HubOptions, LocalHub};
use crate::notify::FileNotifier;
use crate::policy::PolicyBook;
use crate::services::Services;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;
use crate::store::verify::{AuditReport, verify};
use crate::workers::Workers;

/// Bytes that may lie in the in-memory link in each direction.
const LINK_BUFFER: usize = 256 * 1024;

/// How long shutdown waits for what is under way.
const GRACE: Duration = Duration::from_secs(10);

/// What an embedded engine is made of.
pub struct EngineConfig {
    /// The project.
    pub project: ProjectId,
    /// The user's repository.
    pub repo: PathBuf,
    /// Where the store, the locks and the exports are.
    pub data_dir: PathBuf,
    /// Whether it directs: grants, applies, lets requests run out. Without it, it only records.
    pub drive: bool,
    /// Limits of the director.
    pub director: DirectorConfig,
}

/// A running supervisor.
pub struct Engine {
    /// What the services share.
    pub core: Arc<Core>,
    services: Services,
    coordinator: Arc<dyn Coordinator>,
    tasks: Tasks,
}

async fn open_hub(config: &EngineConfig) -> Result<Arc<dyn Hub>, Error> {
    let (repo, data_dir) = (config.repo.clone(), config.data_dir.clone());
    Ok(Arc::new(run_blocking(move || LocalHub::open(&repo, HubOptions::embedded(&data_dir))).await?))
}

fn services(core: &Arc<Core>, workers: Arc<Workers>, coordinator: Arc<dyn Coordinator>, tasks: &Tasks) -> Services {
    Services {
        cores: Arc::new(Cores::one(core.clone())),
        workers,
        coordinator,
        timers: Timers::default(),
        governing: core.governing,
        lingers: false,
        lookout: Lookout::start(core.store.clone(), tasks),
        door: Door::of_the_owner(),
        room: Room::default(),
        tasks: tasks.clone(),
    }
}

impl Engine {
    /// Opens the stores, takes over, and starts directing if it is to drive.
    ///
    /// # Errors
    /// When another engine owns the data directory, or a store, the hub or a policy file cannot be used.
    pub async fn open(
        config: EngineConfig,
        coordinator: Arc<dyn Coordinator>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, Error> {
        coordinator.campaign("embedded").await?;
        let governing = config.director.governing;
        let hub = open_hub(&config).await?;
        // After the hub: a data directory gets a store only where there is something to keep in it.
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&config.data_dir.join("autopack.db"), clock.clone(), ids.clone()).await?);
        register(store.as_ref(), &config).await?;
        let book = Arc::new(PolicyBook::new(config.project.clone(), hub.clone(), store.clone()));
        let workers = Arc::new(Workers::default());
        let tasks = Tasks::new();
        let director = if config.drive {
            let fence = hub.clone();
            // A cluster's fences and ours say nothing of each other.
            let found = run_blocking(move || fence.claim(EMBEDDED).and_then(|()| fence.fence())).await?;
            let parts = DirectorParts {
                project: config.project.clone(),
                store: store.clone(),
                hub: hub.clone(),
                coordinator: coordinator.clone(),
                workers: workers.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
                book: book.clone(),
                run_data: None,
                exporter: Arc::new(Exporter::new(config.data_dir.clone())),
                notifier: Arc::new(FileNotifier::new(config.data_dir.join("notices.jsonl"))),
                config: config.director,
            };
            let director = {
                let claim = Claim::raise(store.as_ref(), "embedded", found, None).await?;
                Arc::new(Box::pin(Director::take_over(parts, claim)).await?)
            };
            let (serving, stop) = (director.clone(), tasks.stop().clone());
            tasks.spawn("director", OnError::Stop, async move { serving.serve(&stop).await });
            census::start(store.clone(), &tasks);
            Some(director)
        } else {
            None
        };
        let core = Core {
            project: config.project,
            store,
            hub,
            book,
            clock,
            ids,
            director: DirectorSlot::default(),
            run_data: None,
            governing,
            mode: "embedded",
        };
        core.direct(director);
        let core = Arc::new(core);
        let services = services(&core, workers, coordinator.clone(), &tasks);
        Ok(Self { core, services, coordinator, tasks })
    }

    /// The tasks of this engine; cancelled when it stops by itself.
    #[must_use]
    pub const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Serves every connection of a stream, until the engine stops.
    pub fn serve<S, IO, E>(&self, name: &'static str, incoming: S)
    where
        S: Stream<Item = Result<IO, E>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        IO::ConnectInfo: Clone + Send + Sync + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let router = self.services.router();
        let stop = self.tasks.stop().clone();
        self.tasks.spawn(name, OnError::Log, async move {
            router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
        });
    }

    /// A channel to this engine whose every connection is a pipe in memory: the same router and client as over a
    /// network.
    ///
    /// # Errors
    /// When the engine is stopping.
    pub async fn connect_in_memory(&self) -> Result<Channel, Error> {
        let (dialled, incoming) = mpsc::channel::<DuplexStream>(16);
        self.serve("in-memory", ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>));
        let connector = service_fn(move |_: Uri| {
            let dialled = dialled.clone();
            async move {
                let (near, far) = tokio::io::duplex(LINK_BUFFER);
                dialled.send(far).await.map_err(|_| std::io::Error::other("the engine has stopped"))?;
                Ok::<_, std::io::Error>(TokioIo::new(near))
            }
        });
        Endpoint::from_static("http://autopack.memory")
            .connect_with_connector(connector)
            .await
            .map_err(|e| Error::Bug(format!("the in-memory link: {e}")))
    }

    /// Stops: no new work, what is under way ends or is cancelled, the store is closed.
    pub async fn shutdown(&self) {
        self.tasks.shutdown(GRACE).await;
        self.core.store.close().await;
        if let Err(error) = self.coordinator.resign().await {
            tracing::warn!(%error, "the data directory's lock could not be given back");
        }
    }
}

/// Verifies the records of a data directory alone: what they say needs no repository.
///
/// # Errors
/// When an engine owns the data directory, or its store cannot be read at all.
pub async fn verify_alone(
    data_dir: &Path,
    coordinator: &dyn Coordinator,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
) -> Result<AuditReport, Error> {
    coordinator.campaign("audit").await?;
    let store = SqliteStore::open(&data_dir.join("autopack.db"), clock, ids).await?;
    let report = verify(&store).await;
    store.close().await;
    coordinator.resign().await?;
    Ok(report?)
}

/// Makes the project known to the store.
async fn register(store: &dyn Store, config: &EngineConfig) -> Result<(), Error> {
    let mut tx = store.read().await?;
    let known = tx.project(&config.project).await?;
    let projects = tx.projects().await?;
    drop(tx);
    let repo = config.repo.display().to_string();
    // A repository that was moved has left its old place; one that is still there is another.
    let ours = common_dir(&config.repo);
    let other = |path: &str| common_dir(Path::new(path)).is_some_and(|theirs| Some(theirs) != ours);
    if let Some(project) = projects.into_iter().find(|project| other(&project.repo)) {
        let data_dir = config.data_dir.display().to_string();
        return Err(Error::OtherRepository { data_dir, known: project.repo, asked: repo });
    }
    // Who only looks leaves nothing behind.
    if !config.drive || known.as_ref().is_some_and(|p| p.repo == repo) {
        return Ok(());
    }
    let mut tx = store.tx(&[]).await?;
    let project = Project {
        id: config.project.clone(),
        repo,
        registered: known.map(|p| p.registered).unwrap_or_default(),
        created_at: tx.now(),
    };
    let why = ("project.registered", "its repository");
    moves::project(tx.as_mut(), &project, &Principal::system(), why, BTreeMap::new()).await?;
    Ok(tx.commit().await?)
}
