//! The fences of all hubs, asked for at once. A hub that does not answer keeps nobody waiting for the others: its own
//! director is refused by its fence, if that is higher.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::time::timeout;

use autopack_shared::domain::ids::FencingToken;
use autopack_shared::domain::record::Project;

use crate::api::cores::Cores;
use crate::director::run_blocking;
use crate::error::Error;
use crate::hub::HubError;

/// How long a hub may take: more than a conversation with a git server.
const ANSWER: Duration = Duration::from_secs(25);

/// Hubs that are asked at once.
const AT_ONCE: usize = 16;

/// What stands in a hub.
pub(super) struct Found {
    /// Whose it is here.
    pub(super) project: Project,
    /// The token in force.
    pub(super) fence: Option<FencingToken>,
    /// The cluster whose hub it is.
    pub(super) cluster: Option<String>,
}

/// What stands in the hubs that answer in time.
///
/// # Errors
/// Those of the store.
pub(super) async fn of_hubs(cores: &Cores) -> Result<Vec<Found>, Error> {
    let projects = cores.store().read().await?.projects().await?;
    let found = stream::iter(projects).map(|project| of_hub(cores, project)).buffer_unordered(AT_ONCE);
    Ok(found.filter_map(std::future::ready).collect().await)
}

async fn of_hub(cores: &Cores, project: Project) -> Option<Found> {
    let read = async {
        let hub = cores.named(&project.id).await?.hub.clone();
        run_blocking(move || Ok::<_, HubError>((hub.fence()?, hub.cluster()?))).await
    };
    let silent = || HubError::Silent { project: project.id.to_string(), seconds: ANSWER.as_secs() };
    match timeout(ANSWER, read).await.unwrap_or_else(|_| Err(silent().into())) {
        Ok((fence, cluster)) => Some(Found { project, fence, cluster }),
        Err(error) => {
            tracing::warn!(project = %project.id, %error, "the hub cannot be read");
            None
        }
    }
}
