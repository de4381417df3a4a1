//! A new incarnation: what an operator says when a store that was restored to an older state is the one to go on with.
//! Everything of the life before it is older from then on, in the store, in etcd and, once somebody directs, in the hubs.
//! What the hubs have and the store does not know of is listed, and kept in the audit log (`coordination.md` 3.13).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use autopack_shared::domain::audit::AuditDraft;
use autopack_shared::domain::ids::{FencingToken, Oid, ProjectId, RunId};
use autopack_shared::domain::record::{Principal, Project};
use autopack_shared::runtime::clock::{Clock, IdSource};

use super::HubOpener;
use crate::coordination::etcd::config::{EtcdConfig, Replica as Seat, StoreIdentity};
use crate::coordination::etcd::{Recovery, Standing};
use crate::coordination::timers::Timers;
use crate::director::{Governing, run_blocking};
use crate::error::Error;
use crate::hub::names::RUNS;
use crate::hub::{Hub, HubError, HubRead as _};
use crate::store::postgres::{PostgresConfig, PostgresStore};
use crate::store::{RunFilter, Store};

/// The chain of what is about the whole cluster.
const CHAIN: &str = "cluster";

/// Commits of one branch that are listed.
const LISTED: usize = 50;

/// What a new incarnation is made from.
#[derive(Debug, Clone)]
pub struct RecoveryConfig {
    /// The control store.
    pub store: PostgresConfig,
    /// The members of etcd.
    pub etcd: Vec<String>,
    /// The cluster's name there; none for the one that the store knows.
    pub cluster_id: Option<String>,
    /// The cluster gets that name from now on, where it had another one.
    pub rename: bool,
    /// Where journals, scratch files and caches may be kept.
    pub state_dir: PathBuf,
    /// The folder with what git servers want to see.
    pub hub_credentials: Option<PathBuf>,
    /// Why; kept in the audit log.
    pub reason: String,
    /// Nothing is written.
    pub dry_run: bool,
}

/// What it came to.
#[derive(Debug, Clone)]
pub struct NewIncarnation {
    /// The cluster's name in etcd before; none where no supervisor said one.
    pub name_before: Option<String>,
    /// The one from now on.
    pub name: String,
    /// The store's incarnation before.
    pub before: u32,
    /// The one that stands in etcd; none where nobody ever was there.
    pub etcd: Option<u32>,
    /// The one from now on.
    pub after: u32,
    /// What stands in the hubs.
    pub fences: BTreeMap<ProjectId, FencingToken>,
    /// What is in the hubs and not in the store.
    pub foreign: Vec<ForeignBranch>,
}

/// A branch of a run with commits that the store does not know.
#[derive(Debug, Clone)]
pub struct ForeignBranch {
    /// The project.
    pub project: ProjectId,
    /// Its full name.
    pub name: String,
    /// Where it is.
    pub tip: Oid,
    /// Whether the store knows the run.
    pub run_known: bool,
    /// Its commits, newest first: id and first line.
    pub commits: Vec<(Oid, String)>,
}

/// Makes a new incarnation, above all that is found. Every hub has to answer: what is not seen could be higher.
///
/// # Errors
/// When a service does not answer, a supervisor is alive, or a hub cannot be read or is another cluster's.
pub async fn new_incarnation(
    config: RecoveryConfig,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    who: Principal,
) -> Result<NewIncarnation, Error> {
    let store = if config.dry_run {
        PostgresStore::look(&config.store).await?
    } else {
        PostgresStore::open(&config.store, ids.clone()).await?
    };
    let store: Arc<dyn Store> = Arc::new(store);
    let mut tx = store.read().await?;
    let (before, cluster, known) = (tx.incarnation().await?, tx.cluster_id().await?, tx.coordination().await?);
    let projects = tx.projects().await?;
    drop(tx);
    let name = name_of(known.as_deref(), config.cluster_id.as_deref(), config.rename)?;
    let identity = StoreIdentity { incarnation: before, cluster: cluster.clone() };
    let places = meeting_places(&config, &identity, known.as_deref(), &name).await?;
    let opener = HubOpener {
        store: store.clone(),
        clock,
        ids,
        state_dir: config.state_dir.clone(),
        run_data: None,
        hub_credentials: config.hub_credentials.clone(),
        governing: Governing::default(),
    };
    let mut found = NewIncarnation {
        name_before: known,
        name,
        before,
        etcd: places.iter().filter_map(|(_, standing)| standing.incarnation).max(),
        after: before,
        fences: BTreeMap::new(),
        foreign: Vec::new(),
    };
    for project in &projects {
        let hub = opener.open_hub(project).await?;
        look(store.as_ref(), project, hub, &cluster, &mut found).await?;
    }
    let highest = found.fences.values().map(|fence| fence.incarnation).chain(found.etcd).max().unwrap_or(0);
    found.after = highest.max(before).saturating_add(1);
    if !config.dry_run {
        write(store.as_ref(), &config, &found, &who).await?;
        for (etcd, standing) in &places {
            if !etcd.raise(standing, found.after).await? {
                let why = "something moved in etcd meanwhile, and the store has the new one: stop every supervisor, \
                           and again";
                let (what, id, state) = ("incarnation", found.after.to_string(), "HALF DONE".to_owned());
                return Err(Error::State { what, id, state, why: why.to_owned(), reason: "illegal_move" });
            }
        }
    }
    store.close().await;
    Ok(found)
}

/// The cluster's name from now on. Another one than the store knows is a slip of the hand, unless it is asked for: its
/// supervisors are alive under the one that is known, and nobody is under the other.
fn name_of(known: Option<&str>, asked: Option<&str>, rename: bool) -> Result<String, Error> {
    let refused = |why: String| Error::Invalid { field: "cluster_id".to_owned(), why };
    match (known, asked) {
        (Some(known), Some(asked)) if known != asked && !rename => Err(refused(format!(
            "the supervisors of this control store meet under the name {known}, not {asked}: leave it out, or give the \
             cluster that name with --rename"
        ))),
        (_, Some(asked)) => Ok(asked.to_owned()),
        (Some(known), None) => Ok(known.to_owned()),
        (None, None) => Err(refused("the control store does not know the cluster's name in etcd: give it".to_owned())),
    }
}

/// Where supervisors of the store may be alive: under the name that is known, and under the new one. Nobody may be.
async fn meeting_places(
    config: &RecoveryConfig,
    store: &StoreIdentity,
    known: Option<&str>,
    name: &str,
) -> Result<Vec<(Recovery, Standing)>, Error> {
    let mut places = Vec::new();
    for name in known.into_iter().filter(|known| *known != name).chain([name]) {
        let etcd = EtcdConfig {
            endpoints: config.etcd.clone(),
            cluster_id: name.to_owned(),
            replica: Seat { id: "admin".to_owned(), addr: String::new() },
            store: store.clone(),
            user: None,
            tls: None,
            timers: Timers::default(),
        };
        let etcd = Recovery::connect(&etcd).await?;
        let standing = etcd.standing().await?;
        if let Some(alive) = standing.alive.first() {
            let why = "it is alive; stop every supervisor first: what one of them writes meanwhile would be lost";
            let (what, id, state) = ("supervisor", alive.clone(), "ALIVE".to_owned());
            return Err(Error::State { what, id, state, why: why.to_owned(), reason: "illegal_move" });
        }
        places.push((etcd, standing));
    }
    Ok(places)
}

/// Looks what a hub has.
async fn look(
    store: &dyn Store,
    project: &Project,
    hub: Arc<dyn Hub>,
    cluster: &str,
    found: &mut NewIncarnation,
) -> Result<(), Error> {
    let mut tx = store.read().await?;
    let filter = RunFilter { project: Some(project.id.clone()), ..RunFilter::default() };
    let mut known: HashSet<Oid> = HashSet::new();
    let mut runs: BTreeSet<RunId> = BTreeSet::new();
    for run in tx.runs(&filter).await? {
        known.insert(run.fork_commit);
        known.extend(tx.applies(&run.id).await?.into_iter().flat_map(|apply| [apply.old, apply.new]));
        runs.insert(run.id);
    }
    drop(tx);
    let (ours, id) = (cluster.to_owned(), project.id.clone());
    let (fence, mut foreign) = run_blocking(move || {
        if let Some(theirs) = hub.cluster()?.filter(|theirs| *theirs != ours) {
            return Err(HubError::Foreign { hub: id.to_string(), found: theirs, ours });
        }
        let mut foreign = Vec::new();
        for (name, tip) in hub.run_branches()?.into_iter().filter(|(_, tip)| !known.contains(tip)) {
            let run_known = name.strip_prefix(RUNS).is_some_and(|run| runs.iter().any(|known| known.as_str() == run));
            // Where nothing of the run is known, what was before it is not either: only what was made here is listed.
            let commits = hub.unknown(tip, &known, LISTED)?.into_iter().take_while(|(_, _, made)| run_known || *made);
            let commits = commits.map(|(commit, text, _)| (commit, text)).collect();
            foreign.push(ForeignBranch { project: id.clone(), name, tip, run_known, commits });
        }
        Ok((hub.fence()?, foreign))
    })
    .await?;
    found.fences.extend(fence.map(|fence| (project.id.clone(), fence)));
    found.foreign.append(&mut foreign);
    Ok(())
}

async fn write(
    store: &dyn Store,
    config: &RecoveryConfig,
    found: &NewIncarnation,
    who: &Principal,
) -> Result<(), Error> {
    let mut tx = store.tx(&[]).await?;
    tx.set_incarnation(found.after).await?;
    if !tx.set_coordination(found.name_before.as_deref(), &found.name).await? {
        let why = "somebody gave the cluster another name meanwhile: stop every supervisor, and again".to_owned();
        let (what, id, state) = ("cluster", found.name.clone(), "RENAMED".to_owned());
        return Err(Error::State { what, id, state, why, reason: "illegal_move" });
    }
    let kept = |op: &str, object: &str, id: String, digests| AuditDraft {
        chain: CHAIN.to_owned(),
        actor: who.clone(),
        op: op.to_owned(),
        object_type: object.to_owned(),
        object_id: id,
        before: None,
        after: None,
        fence: None,
        digests,
        reason: config.reason.chars().take(500).collect(),
        request: BTreeMap::new(),
    };
    let mut renewed = kept("cluster.new_incarnation", "cluster", found.name.clone(), BTreeMap::new());
    (renewed.before, renewed.after) = (Some(found.before.to_string()), Some(found.after.to_string()));
    tx.append_audit(renewed).await?;
    for branch in &found.foreign {
        let digests = BTreeMap::from([("tip".to_owned(), branch.tip.to_string())]);
        tx.append_audit(kept("hub.foreign", "ref", format!("{} {}", branch.project, branch.name), digests)).await?;
    }
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_keeps_its_name_unless_another_one_is_asked_for() {
        for (known, asked, rename, name) in [
            (Some("prod"), None, false, Some("prod")),
            (Some("prod"), None, true, Some("prod")),
            (Some("prod"), Some("prod"), false, Some("prod")),
            (Some("prod"), Some("autopack"), false, None),
            (Some("prod"), Some("autopack"), true, Some("autopack")),
            (None, Some("prod"), false, Some("prod")),
            (None, None, true, None),
        ] {
            assert_eq!(name_of(known, asked, rename).ok().as_deref(), name, "{known:?} {asked:?} {rename}");
        }
    }
}
