//! `AdminService`: what operators ask of the engine itself.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as Call, Response, Status};

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::ids::{Digest, Scope};
use autopack_shared::domain::project::{FILE_NAME, ProjectConfig};
use autopack_shared::domain::record::{Principal, Project};
use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::wire::PROTOCOL;
use autopack_shared::wire::pb;
use autopack_shared::wire::pb::admin_service_server::AdminService;

use super::cores::{Cores, caller};
use super::{Core, show};
use crate::coordination::Coordinator;
use crate::director::moves;
use crate::error::Error;
use crate::store::{Store, verify};
use crate::workers::Workers;

mod builders;
mod gates;
mod leases;
mod operate;

/// Audit records read at a time.
const PAGE: u32 = 1000;

/// The service.
pub struct AdminApi {
    /// The projects.
    pub cores: Arc<Cores>,
    /// Liveness.
    pub coordinator: Arc<dyn Coordinator>,
    /// The workers that are connected here.
    pub workers: Arc<Workers>,
    /// Owned tasks.
    pub tasks: Tasks,
}

type Entries = Pin<Box<dyn Stream<Item = Result<pb::AuditEntry, Status>> + Send>>;

#[tonic::async_trait]
impl AdminService for AdminApi {
    type ExportAuditStream = Entries;

    async fn status(&self, call: Call<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        Ok(Response::new(self.cores.asked(&call).await?.status().await?))
    }

    async fn leases(&self, call: Call<pb::LeasesRequest>) -> Result<Response<pb::LeasesResponse>, Status> {
        let core = self.cores.asked(&call).await?;
        Ok(Response::new(core.leases(self.coordinator.as_ref(), &call.into_inner()).await?))
    }

    async fn break_lease(&self, call: Call<pb::BreakLeaseRequest>) -> Result<Response<pb::BreakLeaseResponse>, Status> {
        let principal = caller(&call);
        let call = call.into_inner();
        let core = self.cores.of_run(&call.run_id).await?;
        Ok(Response::new(core.break_lease(self.coordinator.as_ref(), call, principal).await?))
    }

    async fn builders(&self, call: Call<pb::BuildersRequest>) -> Result<Response<pb::BuildersResponse>, Status> {
        Ok(Response::new(self.cores.asked(&call).await?.builders().await?))
    }

    async fn reset_builder(&self, call: Call<pb::ResetBuilderRequest>) -> Result<Response<pb::Builder>, Status> {
        let (core, principal) = (self.cores.asked(&call).await?, caller(&call));
        Ok(Response::new(core.reset_builder(call.into_inner(), principal).await?))
    }

    async fn drain_worker(&self, call: Call<pb::DrainWorkerRequest>) -> Result<Response<pb::Worker>, Status> {
        let principal = caller(&call);
        Ok(Response::new(self.drain(call.into_inner(), principal).await?))
    }

    async fn flaky_tests(&self, call: Call<pb::FlakyTestsRequest>) -> Result<Response<pb::FlakyTestsResponse>, Status> {
        Ok(Response::new(self.cores.asked(&call).await?.flaky_tests(call.get_ref()).await?))
    }

    async fn baselines(&self, call: Call<pb::BaselinesRequest>) -> Result<Response<pb::BaselinesResponse>, Status> {
        let (core, principal) = (self.cores.asked(&call).await?, caller(&call));
        Ok(Response::new(core.baselines(call.into_inner(), principal).await?))
    }

    async fn register(&self, call: Call<pb::RegisterRequest>) -> Result<Response<pb::RegisterResponse>, Status> {
        let (core, principal) = (self.cores.asked(&call).await?, caller(&call));
        Ok(Response::new(core.register(call.into_inner(), principal).await?))
    }

    async fn add_project(&self, call: Call<pb::AddProjectRequest>) -> Result<Response<pb::Project>, Status> {
        let principal = caller(&call);
        Ok(Response::new(self.cores.add(call.into_inner(), principal).await?))
    }

    async fn projects(&self, _call: Call<pb::ProjectsRequest>) -> Result<Response<pb::ProjectsResponse>, Status> {
        let mut tx = self.cores.store().read().await.map_err(Error::from)?;
        let projects = tx.projects().await.map_err(Error::from)?;
        Ok(Response::new(pb::ProjectsResponse { projects: projects.iter().map(show::project).collect() }))
    }

    async fn workers(&self, _call: Call<pb::WorkersRequest>) -> Result<Response<pb::WorkersResponse>, Status> {
        let sessions = self.coordinator.sessions().await.map_err(Error::from)?;
        let mut tx = self.cores.store().read().await.map_err(Error::from)?;
        let leases = tx.active_leases(None).await.map_err(Error::from)?;
        let workers = sessions.iter().map(|session| show::worker(session, &leases)).collect();
        Ok(Response::new(pb::WorkersResponse { workers }))
    }

    async fn verify_audit(
        &self,
        _call: Call<pb::VerifyAuditRequest>,
    ) -> Result<Response<pb::VerifyAuditResponse>, Status> {
        let report = verify::verify(self.cores.store().as_ref()).await.map_err(Error::from)?;
        Ok(Response::new(pb::VerifyAuditResponse {
            code: report.exit_code(),
            records: report.records,
            chains: report.chains,
            problems: report.problems(),
        }))
    }

    async fn export_audit(&self, call: Call<pb::ExportAuditRequest>) -> Result<Response<Entries>, Status> {
        let wanted = call.into_inner().chain;
        let (out, stream) = mpsc::channel(256);
        let (store, stop) = (self.cores.store().clone(), self.tasks.stop().clone());
        self.tasks.spawn("export-audit", OnError::Log, async move {
            // A reader that stalls does not hold up the end of the engine.
            let exported = tokio::select! {
                exported = export(store.as_ref(), &wanted, &out) => exported,
                () = stop.cancelled() => Ok(()),
            };
            match exported {
                Ok(()) => Ok(()),
                // The reader must not take a failure for the end.
                Err(error) => out.send(Err(error.into())).await.map_err(|_| Error::Bug("the reader left".to_owned())),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

async fn export(
    store: &dyn Store,
    wanted: &str,
    out: &mpsc::Sender<Result<pb::AuditEntry, Status>>,
) -> Result<(), Error> {
    let mut tx = store.read().await?;
    let heads = tx.audit_heads().await?;
    drop(tx);
    for (chain, end, _) in heads {
        if !wanted.is_empty() && wanted != chain {
            continue;
        }
        let mut from = 1;
        while from <= end {
            // One view a page: a slow reader keeps no view open.
            let page = store.read().await?.audit(&chain, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.seq + 1;
            for r in page.into_iter().filter(|r| r.seq <= end) {
                let entry = pb::AuditEntry {
                    leaf_index: r.position(),
                    chain: r.chain,
                    seq: r.seq,
                    body: r.body,
                    prev_hash: r.prev_hash.to_hex(),
                    hash: r.hash.to_hex(),
                    at_ms: r.at.as_millis(),
                };
                if out.send(Ok(entry)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

impl Core {
    async fn status(&self) -> Result<pb::StatusResponse, Error> {
        let mut tx = self.store.read().await?;
        let project = tx.project(&self.project).await?;
        Ok(pb::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            cluster_id: tx.cluster_id().await?,
            incarnation: tx.incarnation().await?,
            director_epoch: tx.epoch(&Scope::Director).await?.unwrap_or(0),
            mode: self.mode.to_owned(),
            project: self.project.to_string(),
            pid: std::process::id(),
            repo: project.map(|project| project.repo).unwrap_or_default(),
        })
    }

    /// Takes copies of policy files for commits that lack them. What cannot be used is not registered.
    async fn register(&self, call: pb::RegisterRequest, principal: Principal) -> Result<pb::RegisterResponse, Error> {
        for (path, text) in &call.files {
            let refused = |why: String| Error::Invalid { field: path.clone(), why };
            if path == FILE_NAME {
                ProjectConfig::parse(text, FILE_NAME).map_err(|e| refused(e.to_string()))?;
            } else if path.ends_with(".json") {
                IntentionAnchorV2::parse(text).map_err(|e| refused(e.to_string()))?;
            } else {
                return Err(refused("only autopack.toml and an anchor can be registered".to_owned()));
            }
        }
        let mut tx = self.store.tx(&[]).await?;
        let mut project = match tx.project(&self.project).await? {
            Some(project) => project,
            None => Project {
                id: self.project.clone(),
                repo: String::new(),
                registered: std::collections::BTreeMap::new(),
                created_at: tx.now(),
            },
        };
        let digests =
            call.files.iter().map(|(path, text)| (path.clone(), Digest::of(text.as_bytes()).to_string())).collect();
        project.registered.extend(call.files);
        let why = ("policy.registered", "copies of policy files for commits that lack them");
        moves::project(tx.as_mut(), &project, &principal, why, digests).await?;
        tx.commit().await?;
        Ok(pb::RegisterResponse { project: self.project.to_string() })
    }
}
