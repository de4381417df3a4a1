//! The projects of one supervisor, and which of them a call is about.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tonic::Request as Call;

use autopack_shared::domain::ids::{ProjectId, RequestId, RunId};
use autopack_shared::domain::record::{Principal, Project, Request};
use autopack_shared::repo::locate::{is_bare, is_repository};
use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::wire::{PROJECT_HEADER, pb};

use super::{Core, show};
use crate::director::{moves, run_blocking};
use crate::error::Error;
use crate::hub::{HubError, Place};
use crate::store::{RequestFilter, Store, Tx};

/// The gate that additions of projects wait at.
const ADDING: &str = "projects";

/// Whether two paths lead to the same folder.
fn one_repository(one: &str, other: &str) -> bool {
    let real = |path: &str| Path::new(path).canonicalize().ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

/// The project that it is already, if it is; refuses one whose name or repository is another's.
fn taken(projects: &[Project], project: &Project) -> Result<Option<Project>, Error> {
    for known in projects {
        let same = one_repository(&known.repo, &project.repo);
        if known.id == project.id && same {
            return Ok(Some(known.clone()));
        }
        if known.id == project.id {
            let hint = "use another name, or the repository it stands for";
            return Err(Error::Exists { what: "project", id: format!("{} ({})", known.id, known.repo), hint });
        }
        if same {
            let hint = "a repository has one name: use it, or another repository";
            return Err(Error::Exists { what: "project", id: format!("{} ({})", known.id, known.repo), hint });
        }
    }
    Ok(None)
}

/// Makes what a project needs when it is first asked for.
#[async_trait]
pub trait Opener: Send + Sync {
    /// Opens a project.
    async fn open(&self, project: &Project) -> Result<Core, Error>;
}

/// The projects that are open, and how others are opened.
pub struct Cores {
    store: Arc<dyn Store>,
    opener: Option<Arc<dyn Opener>>,
    // Never held across an await.
    open: Arc<RwLock<Open>>,
    /// Who opens which project now: one at a time for each.
    turns: Mutex<BTreeMap<ProjectId, Arc<tokio::sync::Mutex<()>>>>,
    tasks: Tasks,
}

type Open = BTreeMap<ProjectId, Arc<Core>>;

/// How long somebody waits for a project to be opened. What opens it goes on.
const OPENING: Duration = Duration::from_secs(5);

/// Takes an opened project in. Whoever came first is kept: a project has one core.
fn keep(open: &RwLock<Open>, core: Core) -> Arc<Core> {
    let mut open = open.write().unwrap_or_else(PoisonError::into_inner);
    open.entry(core.project.clone()).or_insert_with(|| Arc::new(core)).clone()
}

/// A repository that is registered was one when it was: now it is away.
fn away(error: Error, project: &Project) -> Error {
    let Error::Hub(HubError::Open(source)) = error else { return error };
    HubError::Away { path: project.repo.clone().into(), source }.into()
}

impl Cores {
    /// The one project of an embedded engine.
    #[must_use]
    pub fn one(core: Arc<Core>) -> Self {
        let store = core.store.clone();
        let open = Arc::new(RwLock::new(BTreeMap::from([(core.project.clone(), core)])));
        Self { store, opener: None, open, turns: Mutex::default(), tasks: Tasks::new() }
    }

    /// Whatever projects the store knows.
    #[must_use]
    pub fn of_store(store: Arc<dyn Store>, opener: Arc<dyn Opener>, tasks: Tasks) -> Self {
        Self { store, opener: Some(opener), open: Arc::default(), turns: Mutex::default(), tasks }
    }

    /// The store of all projects.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Those that are open.
    #[must_use]
    pub fn opened(&self) -> Vec<Arc<Core>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A project that is open.
    #[must_use]
    pub fn known(&self, id: &ProjectId) -> Option<Arc<Core>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// A project by name.
    ///
    /// # Errors
    /// When the store does not know it, or its repository cannot be used, or does not answer in time.
    pub async fn named(&self, id: &ProjectId) -> Result<Arc<Core>, Error> {
        if let Some(core) = self.known(id) {
            return Ok(core);
        }
        let missing = || Error::NotFound { what: "project", id: id.to_string() };
        let Some(opener) = &self.opener else { return Err(missing()) };
        let project = self.store.read().await?.project(id).await?.ok_or_else(missing)?;
        self.opened_once(opener.clone(), project).await
    }

    /// Opens a project, once whoever asks: a hub that hangs takes one thread, and nobody's call for long.
    async fn opened_once(&self, opener: Arc<dyn Opener>, project: Project) -> Result<Arc<Core>, Error> {
        let deadline = Instant::now() + OPENING;
        let silent = HubError::Silent { project: project.id.to_string(), seconds: OPENING.as_secs() };
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(project.id.clone()).or_default().clone()
        };
        let Ok(turn) = timeout_at(deadline, turn.lock_owned()).await else { return Err(silent.into()) };
        if let Some(core) = self.known(&project.id) {
            return Ok(core);
        }
        let (done, opened) = oneshot::channel();
        let open = self.open.clone();
        self.tasks.spawn("open-project", OnError::Log, async move {
            let core = opener.open(&project).await.map(|core| keep(&open, core));
            drop(turn);
            // Whoever asked may not wait any more; the next one finds it open.
            let _left = done.send(core.map_err(|error| away(error, &project)));
            Ok::<(), Error>(())
        });
        match timeout_at(deadline, opened).await {
            Ok(Ok(core)) => core,
            Ok(Err(_)) | Err(_) => Err(silent.into()),
        }
    }

    /// The project that a call names, or the only one there is.
    ///
    /// # Errors
    /// When it names none and there are several.
    pub async fn asked<T>(&self, call: &Call<T>) -> Result<Arc<Core>, Error> {
        if let Some(named) = call.metadata().get(PROJECT_HEADER) {
            let field = || "project".to_owned();
            let text =
                named.to_str().map_err(|_| Error::Invalid { field: field(), why: "it is no text".to_owned() })?;
            return self.named(&ProjectId::new(text)?).await;
        }
        let mut opened = self.opened();
        if self.opener.is_none()
            && let Some(only) = opened.pop()
        {
            return Ok(only);
        }
        let projects = self.store.read().await?.projects().await?;
        match projects.as_slice() {
            [only] => self.named(&only.id).await,
            [] => Err(Error::NotFound { what: "project", id: "(none was added yet)".to_owned() }),
            several => {
                let names: Vec<&str> = several.iter().map(|project| project.id.as_str()).collect();
                let why = format!("name one of {} with --project", names.join(", "));
                Err(Error::Invalid { field: "project".to_owned(), why })
            }
        }
    }

    /// Makes a repository known under a name.
    ///
    /// # Errors
    /// When the name stands for another repository, or this one cannot be a hub.
    pub async fn add(&self, call: pb::AddProjectRequest, principal: Principal) -> Result<pb::Project, Error> {
        let id = ProjectId::new(call.name)?;
        let place = Place::parse(&call.repo)?;
        let Some(opener) = &self.opener else {
            let why = "an embedded engine has the one project it was started for".to_owned();
            return Err(Error::Invalid { field: "name".to_owned(), why });
        };
        if let Place::Path(repo) = &place
            && !is_bare(repo)
            && is_repository(repo)
        {
            let why = "it has a work tree of somebody's, and a hub is written by supervisors only: git clone --bare it";
            return Err(Error::Invalid { field: "repo".to_owned(), why: why.to_owned() });
        }
        let created_at = self.store.now().await?;
        let project = Project { id: id.clone(), repo: call.repo, registered: BTreeMap::new(), created_at };
        // What cannot be opened, or cannot do what hubs do, is not added.
        let hub = opener.open(&project).await?.hub;
        let mut tx = self.store.read().await?;
        if let Some(known) = taken(&tx.projects().await?, &project)? {
            return Ok(show::project(&known));
        }
        let cluster = tx.cluster_id().await?;
        drop(tx);
        run_blocking(move || hub.check().and_then(|()| hub.claim(&cluster))).await?;
        let mut tx = self.store.tx(&[]).await?;
        // One at a time, whatever their names: two could take the same repository.
        tx.lock_gate(&ProjectId::new(ADDING)?).await?;
        if let Some(known) = taken(&tx.projects().await?, &project)? {
            return Ok(show::project(&known));
        }
        let why = ("project.added", project.repo.as_str());
        moves::project(tx.as_mut(), &project, &principal, why, BTreeMap::new()).await?;
        tx.commit().await?;
        Ok(show::project(&project))
    }

    /// The project of a run.
    ///
    /// # Errors
    /// When there is no such run.
    pub async fn of_run(&self, id: &str) -> Result<Arc<Core>, Error> {
        let id = RunId::new(id)?;
        let found = self.store.read().await?.run(&id).await?;
        let run = found.ok_or_else(|| Error::NotFound { what: "run", id: id.to_string() })?;
        self.named(&run.project).await
    }

    /// The project of a request, by its id or by a prefix that fits only one.
    ///
    /// # Errors
    /// When there is no such request.
    pub async fn of_request(&self, id: &str) -> Result<Arc<Core>, Error> {
        let mut tx = self.store.read().await?;
        let request = find_request(tx.as_mut(), id).await?;
        drop(tx);
        self.of_run(request.run.as_str()).await
    }
}

/// A request by its id or by a prefix that fits only one.
pub(super) async fn find_request(tx: &mut dyn Tx, id: &str) -> Result<Request, Error> {
    let missing = || Error::NotFound { what: "request", id: id.to_owned() };
    let exact = RequestId::new(id)?;
    if let Some(request) = tx.request(&exact).await? {
        return Ok(request);
    }
    let filter = RequestFilter { limit: 10_000, ..RequestFilter::default() };
    let mut fitting: Vec<Request> = tx.requests(&filter).await?;
    fitting.retain(|r| r.id.as_str().starts_with(id) || r.id.as_str().trim_start_matches("req-").starts_with(id));
    match fitting.len() {
        1 => fitting.pop().ok_or_else(missing),
        0 => Err(missing()),
        n => Err(Error::Invalid {
            field: "request_id".to_owned(),
            why: format!("{n} requests begin with {id:?}: name more of it"),
        }),
    }
}

/// Who calls: as the door has found, or the owner, where the only door is the owner's socket.
pub(super) fn caller<T>(call: &Call<T>) -> Principal {
    let owner = || Principal { id: "local:owner".to_owned(), method: "socket".to_owned() };
    call.extensions().get::<Principal>().cloned().unwrap_or_else(owner)
}
