//! The services of a supervisor behind one router, whatever door they are served through.

use std::sync::Arc;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

use autopack_shared::runtime::process::Tasks;
use autopack_shared::wire::MAX_MESSAGE;
use autopack_shared::wire::dial::KEEPALIVE;
use autopack_shared::wire::pb::admin_service_server::AdminServiceServer;
use autopack_shared::wire::pb::governance_service_server::GovernanceServiceServer;
use autopack_shared::wire::pb::run_service_server::RunServiceServer;
use autopack_shared::wire::pb::worker_service_server::WorkerServiceServer;

use crate::api::admin::AdminApi;
use crate::api::cores::Cores;
use crate::api::governance::GovernanceApi;
use crate::api::runs::RunApi;
use crate::api::workers::{Lookout, Room, WorkerApi};
use crate::coordination::Coordinator;
use crate::coordination::timers::Timers;
use crate::director::Governing;
use crate::door::Door;
use crate::traced::Tracing;
use crate::workers::Workers;

/// What the services are made of.
#[derive(Clone)]
pub struct Services {
    /// The projects.
    pub cores: Arc<Cores>,
    /// The workers that are connected here.
    pub workers: Arc<Workers>,
    /// Liveness.
    pub coordinator: Arc<dyn Coordinator>,
    /// Times of sessions.
    pub timers: Timers,
    /// What attempts may use.
    pub governing: Governing,
    /// Whether workers' sessions outlive their streams.
    pub lingers: bool,
    /// Looks for leases for all of them.
    pub lookout: Arc<Lookout>,
    /// Who may come in.
    pub door: Door,
    /// Room for transfers.
    pub room: Room,
    /// Owned tasks.
    pub tasks: Tasks,
}

impl Services {
    /// All of them.
    #[must_use]
    pub fn router(&self) -> Router<Stack<Tracing, Identity>> {
        let (cores, tasks) = (self.cores.clone(), self.tasks.clone());
        let runs = RunServiceServer::new(RunApi {
            cores: cores.clone(),
            coordinator: self.coordinator.clone(),
            tasks: tasks.clone(),
        });
        let governance = GovernanceServiceServer::new(GovernanceApi { cores: cores.clone(), tasks: tasks.clone() });
        let admin = AdminServiceServer::new(AdminApi {
            cores: cores.clone(),
            coordinator: self.coordinator.clone(),
            workers: self.workers.clone(),
            tasks: tasks.clone(),
        });
        let workers = WorkerServiceServer::new(WorkerApi {
            cores,
            workers: self.workers.clone(),
            coordinator: self.coordinator.clone(),
            timers: self.timers.clone(),
            governing: self.governing,
            lingers: self.lingers,
            room: self.room.clone(),
            lookout: self.lookout.clone(),
            tasks,
        });
        let runs = runs.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        let governance = governance.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        let admin = admin.max_decoding_message_size(MAX_MESSAGE);
        let workers = workers.max_decoding_message_size(MAX_MESSAGE);
        let people = |door: &Door| {
            let door = door.clone();
            move |call| door.person(call)
        };
        let door = self.door.clone();
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .layer(Tracing)
            .add_service(InterceptedService::new(runs, people(&self.door)))
            .add_service(InterceptedService::new(governance, people(&self.door)))
            .add_service(InterceptedService::new(admin, people(&self.door)))
            .add_service(InterceptedService::new(workers, move |call| door.worker(call)))
    }
}
