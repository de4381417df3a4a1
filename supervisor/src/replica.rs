//! One supervisor of a cluster: serves whoever comes, and directs while it is elected. Any number of them share one
//! PostgreSQL, one etcd and the hubs (`coordination.md` 3.1).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::server::TcpIncoming;

use autopack_shared::domain::ids::{FencingToken, Scope};
use autopack_shared::domain::record::Project;
use autopack_shared::runtime::clock::{Clock, IdSource};
use autopack_shared::runtime::process::{OnError, Tasks};

use crate::api::cores::{Cores, Opener};
use crate::api::workers::{Lookout, Room, Transfers};
use crate::api::{Core, DirectorSlot};
use crate::coordination::Coordinator;
use crate::coordination::etcd::EtcdCoordinator;
use crate::coordination::etcd::config::{EtcdConfig, Replica as Seat, StoreIdentity};
use crate::coordination::timers::Timers;
use crate::director::{DirectorConfig, Governing, Home, run_blocking};
use crate::door::Door;
use crate::error::Error;
use crate::hub::{Hub, HubError, HubOptions, LocalHub, Place, RemoteHub, RemoteOptions};
use crate::policy::PolicyBook;
use crate::run_data::RunDatabases;
use crate::run_data::postgres::{ControlPlace, PostgresRunDatabases, RunDatabaseConfig};
use crate::services::Services;
use crate::store::postgres::{PostgresConfig, PostgresStore};
use crate::store::{Store, StoreError};
use crate::workers::Workers;

mod fences;
mod lead;
pub mod recovery;

/// How long shutdown waits for what is under way.
const GRACE: Duration = Duration::from_secs(10);

/// What a supervisor of a cluster is made of.
pub struct ReplicaConfig {
    /// Its name; unique among the live ones.
    pub id: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it; shown to people.
    pub advertise: String,
    /// The control store.
    pub store: PostgresConfig,
    /// The server for data of runs; without one each run has a file on its worker.
    pub run_data: Option<RunDataConfig>,
    /// The members of etcd.
    pub etcd: Vec<String>,
    /// Names the cluster in etcd.
    pub cluster_id: String,
    /// Times of sessions and of the election.
    pub timers: Timers,
    /// Where this process keeps exports, journals and scratch files.
    pub state_dir: PathBuf,
    /// The folder with what git servers want to see before they let this process in.
    pub hub_credentials: Option<PathBuf>,
    /// Who may come in.
    pub door: Door,
    /// How much of packs is in memory at once.
    pub transfers: Transfers,
    /// Limits of the director.
    pub director: DirectorConfig,
}

/// The server for data of runs, and how long it keeps that of ended ones.
#[derive(Debug, Clone)]
pub struct RunDataConfig {
    /// The server.
    pub server: RunDatabaseConfig,
    /// How long data is kept after a run's last work.
    pub retention: Duration,
}

/// A running supervisor.
pub struct Replica {
    services: Services,
    store: Arc<dyn Store>,
    coordinator: Arc<dyn Coordinator>,
    run_data: Option<Arc<dyn RunDatabases>>,
    tasks: Tasks,
    address: SocketAddr,
}

/// Opens the hubs of projects.
struct HubOpener {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    state_dir: PathBuf,
    run_data: Option<Arc<dyn RunDatabases>>,
    hub_credentials: Option<PathBuf>,
    governing: Governing,
}

#[async_trait]
impl Opener for HubOpener {
    async fn open(&self, project: &Project) -> Result<Core, Error> {
        let hub = self.open_hub(project).await?;
        let book = Arc::new(PolicyBook::new(project.id.clone(), hub.clone(), self.store.clone()));
        Ok(Core {
            project: project.id.clone(),
            store: self.store.clone(),
            hub,
            book,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            director: DirectorSlot::default(),
            run_data: self.run_data.clone(),
            governing: self.governing,
            mode: "cluster",
        })
    }
}

impl HubOpener {
    /// Opens a project's hub, by its path or at its git server.
    async fn open_hub(&self, project: &Project) -> Result<Arc<dyn Hub>, Error> {
        let (name, state_dir) = (project.id.to_string(), self.state_dir.clone());
        match Place::parse(&project.repo)? {
            Place::Path(path) => run_blocking(move || open_local(&path, &state_dir, &name)).await,
            Place::Server(address) => {
                let options = RemoteOptions::cluster(&state_dir, &name, self.hub_credentials.clone());
                let (clock, ids) = (self.clock.clone(), self.ids.clone());
                let open = move || RemoteHub::open(address, options, clock, ids.as_ref());
                Ok(Arc::new(run_blocking(open).await?))
            }
        }
    }
}

fn open_local(path: &Path, state_dir: &Path, name: &str) -> Result<Arc<dyn Hub>, HubError> {
    let options = HubOptions::cluster(state_dir, name);
    if let Some(folder) = options.journal.parent() {
        std::fs::create_dir_all(folder).map_err(|source| HubError::Io { path: folder.to_path_buf(), source })?;
    }
    let hub = LocalHub::open(path, options)?;
    hub.sweep_scratch();
    Ok(Arc::new(hub))
}

/// Takes the address; where a port was left open, the one that was given.
fn listen(wanted: SocketAddr) -> Result<(TcpIncoming, SocketAddr), Error> {
    let refused = |why: String| Error::Invalid { field: "listen".to_owned(), why: format!("{wanted}: {why}") };
    let incoming = TcpIncoming::bind(wanted).map_err(|e| refused(e.to_string()))?.with_nodelay(Some(true));
    let address = incoming.local_addr().map_err(|e| refused(e.to_string()))?;
    Ok((incoming, address))
}

/// Serves whoever comes; where.
fn serve(wanted: SocketAddr, services: &Services) -> Result<SocketAddr, Error> {
    let (incoming, address) = listen(wanted)?;
    let (router, stop) = (services.router(), services.tasks.stop().clone());
    services.tasks.spawn("api", OnError::Stop, async move {
        router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
    });
    Ok(address)
}

/// Refuses a store that knows less than a hub, and a hub that is another cluster's. The hub is read first: whoever raises
/// both begins with the store.
async fn refuse_others(cores: &Cores, ours: &str) -> Result<(), Error> {
    for hub in fences::of_hubs(cores).await? {
        if let Some(found) = hub.cluster.filter(|found| found != ours) {
            return Err(HubError::Foreign { hub: hub.project.repo, found, ours: ours.to_owned() }.into());
        }
        let Some(found) = hub.fence else { continue };
        let mut tx = cores.store().read().await?;
        // A new store takes the next incarnation.
        let Some(epoch) = tx.epoch(&Scope::Director).await? else { continue };
        let stands = FencingToken { incarnation: tx.incarnation().await?, epoch };
        if found > stands {
            let (hub_at, store) = (found.to_string(), stands.to_string());
            return Err(StoreError::Restored { project: hub.project.id.to_string(), hub: hub_at, store }.into());
        }
    }
    Ok(())
}

/// Refuses a store whose supervisors meet under another name: each of the two would have its director.
async fn meet(store: &dyn Store, name: &str) -> Result<(), Error> {
    let mut known = store.read().await?.coordination().await?;
    if known.is_none() {
        let mut tx = store.tx(&[]).await?;
        tx.set_coordination(None, name).await?;
        tx.commit().await?;
        // Somebody else may have been faster.
        known = store.read().await?.coordination().await?;
    }
    match known {
        Some(known) if known != name => Err(StoreError::Elsewhere { known, asked: name.to_owned() }.into()),
        Some(_) | None => Ok(()),
    }
}

/// Opens the server for data of runs, and closes the control store to what runs log in as.
async fn open_run_data(
    wanted: Option<&RunDataConfig>,
    store: &PostgresStore,
    identity: &StoreIdentity,
) -> Result<Option<Arc<dyn RunDatabases>>, Error> {
    let Some(wanted) = wanted else { return Ok(None) };
    let place = store.close_to_others().await?;
    let control = ControlPlace {
        system: place.system,
        database: place.database,
        cluster: identity.cluster.clone(),
        open: place.open,
    };
    Ok(Some(Arc::new(PostgresRunDatabases::open(wanted.server.clone(), control).await?)))
}

/// How a replica comes to etcd.
fn etcd_of(config: &ReplicaConfig, store: StoreIdentity) -> EtcdConfig {
    EtcdConfig {
        endpoints: config.etcd.clone(),
        cluster_id: config.cluster_id.clone(),
        replica: Seat { id: config.id.clone(), addr: config.advertise.clone() },
        store,
        user: None,
        tls: None,
        timers: config.timers.clone(),
    }
}

impl Replica {
    /// Opens the store, joins the cluster and starts serving.
    ///
    /// # Errors
    /// When PostgreSQL or etcd refuse or cannot be reached, or the address is taken.
    pub async fn open(config: ReplicaConfig, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Self, Error> {
        let postgres = Arc::new(PostgresStore::open(&config.store, ids.clone()).await?);
        let mut tx = postgres.read().await?;
        let identity = StoreIdentity { incarnation: tx.incarnation().await?, cluster: tx.cluster_id().await? };
        drop(tx);
        let run_data = open_run_data(config.run_data.as_ref(), &postgres, &identity).await?;
        let store: Arc<dyn Store> = postgres;
        meet(store.as_ref(), &config.cluster_id).await?;
        let cluster = identity.cluster.clone();
        let home = Home { name: config.cluster_id.clone(), incarnation: identity.incarnation };
        let etcd = etcd_of(&config, identity);
        let coordinator: Arc<dyn Coordinator> = Arc::new(EtcdCoordinator::connect(&etcd, clock.clone()).await?);
        let opener = HubOpener {
            store: store.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            state_dir: config.state_dir.clone(),
            run_data: run_data.clone(),
            governing: config.director.governing,
            hub_credentials: config.hub_credentials,
        };
        let tasks = Tasks::new();
        let cores = Arc::new(Cores::of_store(store.clone(), Arc::new(opener), tasks.clone()));
        refuse_others(&cores, &cluster).await?;
        let services = Services {
            cores,
            workers: Arc::new(Workers::default()),
            coordinator: coordinator.clone(),
            timers: config.timers.clone(),
            governing: config.director.governing,
            lingers: true,
            lookout: Lookout::start(store.clone(), &tasks),
            door: config.door,
            room: Room::with(config.transfers),
            tasks: tasks.clone(),
        };
        let address = serve(config.listen, &services)?;
        let lead = Arc::new(lead::Lead {
            id: config.id,
            cluster,
            home,
            services: services.clone(),
            store: store.clone(),
            coordinator: coordinator.clone(),
            clock,
            ids,
            state_dir: config.state_dir,
            run_data: run_data.clone().zip(config.run_data.map(|wanted| wanted.retention)),
            director: DirectorConfig { reap: true, worker_self: config.timers.worker_self, ..config.director },
        });
        let stop = tasks.stop().clone();
        tasks.spawn("election", OnError::Stop, async move { lead.run(&stop).await });
        Ok(Self { services, store, coordinator, run_data, tasks, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when it stops by itself.
    pub async fn stopped(&self) {
        self.tasks.stop().cancelled().await;
    }

    /// Stops: no new work, what is under way ends or is cancelled; another replica takes over at once.
    pub async fn shutdown(&self) {
        self.tasks.shutdown(GRACE).await;
        for core in self.services.cores.opened() {
            core.direct(None);
        }
        if let Some(run_data) = &self.run_data {
            run_data.close().await;
        }
        if let Err(error) = self.coordinator.resign().await {
            tracing::warn!(%error, "the directorship could not be given back; it runs out by itself");
        }
        self.store.close().await;
    }
}
