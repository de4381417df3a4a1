//! Builders by their breakers: which of them are left alone, and how one is used again.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::AuditDraft;
use autopack_shared::domain::breaker::BreakerState;
use autopack_shared::domain::record::Principal;
use autopack_shared::wire::pb;

use super::operate::reason_of;
use crate::api::{Core, show};
use crate::error::Error;

impl Core {
    /// The builders of a project that have failed or use a credential, by name.
    pub(super) async fn builders(&self) -> Result<pb::BuildersResponse, Error> {
        let mut tx = self.store.read().await?;
        let (now, mut builders) = (tx.now(), Vec::new());
        for breaker in tx.breakers(&self.project).await? {
            let credential = match &breaker.credential {
                Some(name) => tx.credential(name).await?,
                None => None,
            };
            builders.push(show::builder(&breaker, credential.as_ref(), now));
        }
        Ok(pb::BuildersResponse { builders })
    }

    /// Has a builder used again. The log says who thought so and why.
    pub(super) async fn reset_builder(
        &self,
        call: pb::ResetBuilderRequest,
        principal: Principal,
    ) -> Result<pb::Builder, Error> {
        let reason = reason_of(&call.reason);
        if reason.is_empty() {
            let why = "say why: it is kept in the audit log".to_owned();
            return Err(Error::Invalid { field: "reason".to_owned(), why });
        }
        let mut tx = self.store.tx(&[]).await?;
        if tx.breaker(&self.project, &call.builder).await?.is_none() {
            return Err(Error::NotFound { what: "builder that has failed", id: call.builder });
        }
        let mut breaker = tx.lock_breaker(&self.project, &call.builder).await?;
        let before = breaker.state;
        breaker.close();
        tx.update_breaker(&mut breaker).await?;
        tx.append_audit(AuditDraft {
            chain: format!("project/{}", self.project),
            actor: principal,
            op: "builder.reset".to_owned(),
            object_type: "builder".to_owned(),
            object_id: breaker.builder.clone(),
            before: Some(before.as_str().to_owned()),
            after: Some(BreakerState::Closed.as_str().to_owned()),
            fence: None,
            digests: BTreeMap::new(),
            reason,
            request: BTreeMap::new(),
        })
        .await?;
        let now = tx.now();
        tx.commit().await?;
        Ok(show::builder(&breaker, None, now))
    }
}
