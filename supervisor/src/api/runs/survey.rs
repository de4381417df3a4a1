//! Scans of a commit: asked of whatever worker is connected to whichever supervisor, through the store, and waited for.

use std::sync::Arc;
use std::time::Duration;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::gap::GapReportV1;
use autopack_shared::domain::ids::{Oid, RowId, RunId};
use autopack_shared::domain::survey::{Survey, SurveyAsk, SurveyState};
use autopack_shared::wire::pb;

use super::submit::warnings;
use crate::api::Core;
use crate::coordination::Coordinator;
use crate::director::run_blocking;
use crate::error::Error;
use crate::hub::{Hub, HubRead as _, RefName};
use crate::policy::PolicyInForce;
use crate::store::StoreError;

/// How long somebody waits for a report.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks whether any worker is there.
const LOOK: Duration = Duration::from_secs(2);

/// A commit that was scanned, and the rules that a run from it would have.
pub(super) struct Found {
    pub(super) run: RunId,
    pub(super) commit: Oid,
    /// The branch that was named, by its full name.
    pub(super) target: Option<String>,
    pub(super) report: GapReportV1,
    pub(super) policy: Arc<PolicyInForce>,
    /// The anchor in force, or the other one that was given.
    pub(super) anchor: Option<IntentionAnchorV2>,
    pub(super) warnings: Vec<String>,
}

impl Core {
    /// What is wrong at a commit.
    pub(super) async fn gaps(
        &self,
        alive: &dyn Coordinator,
        call: &pb::SurveyRequest,
    ) -> Result<pb::GapsResponse, Error> {
        let found = self.survey(alive, call).await?;
        Ok(pb::GapsResponse {
            commit: found.commit.to_string(),
            report_json: json(&found.report)?,
            warnings: found.warnings,
        })
    }

    /// Has a commit scanned.
    pub(super) async fn survey(&self, alive: &dyn Coordinator, call: &pb::SurveyRequest) -> Result<Found, Error> {
        let run = RunId::new(call.run_id.clone())?;
        let (commit, branch, target) = self.place(&call.at).await?;
        let since = match call.since.as_str() {
            "" => None,
            name => Some(self.revision(name).await?),
        };
        let policy = self.book.at(commit, None).await?;
        let anchor = match call.anchor_json.as_str() {
            "" => policy.anchor.clone(),
            text => Some(
                IntentionAnchorV2::parse(text)
                    .map_err(|e| Error::Invalid { field: "anchor".to_owned(), why: e.to_string() })?,
            ),
        };
        let project = self.project.clone();
        let ask = SurveyAsk { project, commit, branch, since, deep: call.deep, anchor: anchor.clone() };
        let mut report = self.report_of(alive, &ask).await?;
        report.project_id = self.project.to_string();
        report.run_id = run.to_string();
        report.generated_at = self.clock.wall();
        let warnings = warnings(commit, &policy);
        Ok(Found { run, commit, target, report, policy, anchor, warnings })
    }

    /// The commit, the short name of the branch it stands for, and the full one where it was named.
    async fn place(&self, at: &str) -> Result<(Oid, Option<String>, Option<String>), Error> {
        let short = |name: &String| name.trim_start_matches("refs/heads/").to_owned();
        if at.is_empty() {
            let (commit, target) = self.fork("", None).await?;
            return Ok((commit, target.as_ref().map(short), None));
        }
        let full = if at.starts_with("refs/heads/") { at.to_owned() } else { format!("refs/heads/{at}") };
        if let Ok(name) = RefName::target(&full) {
            let hub = self.hub.clone();
            if let Some(tip) = run_blocking(move || hub.tip(&name)).await? {
                return Ok((tip, Some(short(&full)), Some(full)));
            }
        }
        Ok((self.revision(at).await?, None, None))
    }

    async fn revision(&self, name: &str) -> Result<Oid, Error> {
        let (hub, asked): (Arc<dyn Hub>, _) = (self.hub.clone(), name.to_owned());
        let found = run_blocking(move || hub.revision(&asked)).await?;
        found.ok_or_else(|| Error::NotFound { what: "branch or commit", id: name.chars().take(80).collect() })
    }

    /// The report that somebody has, or a new one.
    async fn report_of(&self, alive: &dyn Coordinator, ask: &SurveyAsk) -> Result<GapReportV1, Error> {
        let mut changes = self.store.changes();
        let mut look = tokio::time::interval(LOOK);
        let late = tokio::time::sleep(PATIENCE);
        tokio::pin!(late);
        let mut mine = None;
        loop {
            changes.mark_unchanged();
            let survey = self.ask_for(ask, mine.as_ref()).await?;
            match survey.state {
                SurveyState::Done => {
                    return survey.report.ok_or_else(|| Error::Bug(format!("{} is done without a report", survey.id)));
                }
                SurveyState::Failed => {
                    let failure = survey.failure.map(|failure| (failure.reason, failure.message));
                    let (reason, why) = failure.unwrap_or_default();
                    return Err(Error::Scan { reason, why });
                }
                SurveyState::Requested | SurveyState::Claimed => mine = Some(survey.id),
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return Err(Error::Bug("the store is gone".to_owned()));
                },
                _ = look.tick() => if alive.sessions().await?.is_empty() {
                    return Err(Error::NoWorker);
                },
                () = &mut late => {
                    let why = format!("no worker has done it within {} s", PATIENCE.as_secs());
                    return Err(Error::Scan { reason: "scan_failed".to_owned(), why });
                }
            }
        }
    }

    /// The survey that answers: the one that is waited for, one that somebody else has asked for, or a new one.
    async fn ask_for(&self, ask: &SurveyAsk, mine: Option<&RowId>) -> Result<Survey, Error> {
        let broken = |e: serde_json::Error| Error::Bug(e.to_string());
        let key = ask.key().map_err(broken)?;
        let serves = |survey: &Survey, now| survey.serves(now) || mine == Some(&survey.id);
        let mut view = self.store.read().await?;
        let now = view.now();
        if let Some(survey) = view.newest_survey(&key).await?.filter(|survey| serves(survey, now)) {
            return Ok(survey);
        }
        drop(view);
        let mut tx = self.store.tx(&[]).await?;
        let now = tx.now();
        tx.drop_surveys(now).await?;
        let survey = Survey::new(RowId::new(self.ids.fresh("survey"))?, ask.clone(), now).map_err(broken)?;
        match tx.insert_survey(&survey).await {
            Ok(()) => {
                tx.commit().await?;
                Ok(survey)
            }
            // Somebody else was faster with the same question.
            Err(StoreError::Exists { .. }) => {
                drop(tx);
                let there = self.store.read().await?.newest_survey(&key).await?;
                there.ok_or_else(|| Error::NotFound { what: "survey", id: key.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A document as the wire has it.
pub(super) fn json<T: serde::Serialize>(document: &T) -> Result<String, Error> {
    serde_json::to_string(document).map_err(|e| Error::Bug(e.to_string()))
}
