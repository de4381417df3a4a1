//! Scans that a session's worker is given, and what it answers. A survey is any worker's; whoever writes its row first
//! has it, and gives it back when its stream ends.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use autopack_shared::domain::gap::GapReportV1;
use autopack_shared::domain::ids::{RowId, Timestamp};
use autopack_shared::domain::secret::redact;
use autopack_shared::domain::survey::{MAX_REPORT, Survey, SurveyFailure};
use autopack_shared::wire::pb;

use super::session::SessionTask;
use crate::error::Error;
use crate::store::StoreError;

/// Tries of a write that somebody else's came before.
const TRIES: usize = 3;

/// Characters of what a worker says of a failure.
const MAX_MESSAGE: usize = 500;

impl SessionTask {
    /// The order that this stream has to bring, where there is one: for a survey that its worker has and that this
    /// stream did not tell it of, or for the oldest that nobody has.
    pub(super) async fn scan_order(&self, open: Vec<Survey>) -> Result<Option<pb::ScanOrder>, Error> {
        let told = self.scanning();
        if open.is_empty() {
            *self.scan.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(None);
        }
        let now = self.cores.store().now().await?;
        let mine = open.iter().find(|survey| survey.is_with(&self.worker, &self.session, now)).cloned();
        let given = match mine {
            Some(survey) if told.as_ref() == Some(&survey.id) => return Ok(None),
            Some(survey) => Some(survey),
            None if open.is_empty() || self.is_leaving() => None,
            None => self.first_claimed(open, now).await?,
        };
        let order = given.as_ref().map(order).transpose()?;
        *self.scan.lock().unwrap_or_else(PoisonError::into_inner) = given.map(|survey| survey.id);
        Ok(order)
    }

    /// The survey that this stream has told its worker of.
    fn scanning(&self) -> Option<RowId> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the worker gets no more work; so it is while nobody can say.
    fn is_leaving(&self) -> bool {
        !self.stays.load(Ordering::Relaxed)
    }

    /// The first of the free ones that nobody else was faster with.
    async fn first_claimed(&self, open: Vec<Survey>, now: Timestamp) -> Result<Option<Survey>, Error> {
        // Mostly somebody has it, which needs no transaction to be seen.
        for mut survey in open.into_iter().filter(|survey| survey.is_free(now)) {
            let mut tx = self.cores.store().tx(&[]).await?;
            let now = tx.now();
            if !survey.is_free(now) {
                continue;
            }
            let given = survey.claim(&self.worker, &self.session, now);
            match tx.update_survey(&mut survey).await {
                Ok(()) => tx.commit().await?,
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            if given {
                return Ok(Some(survey));
            }
        }
        Ok(None)
    }

    /// The worker is alive, and so is its scan.
    pub(super) async fn renew_scan(&self) -> Result<(), Error> {
        let Some(id) = self.scanning() else { return Ok(()) };
        self.change(&id, |survey, now| {
            let mine = survey.is_with(&self.worker, &self.session, now);
            if mine {
                survey.renew(now);
            }
            mine
        })
        .await
    }

    /// The stream is over: another worker may do it.
    pub(super) async fn leave_scan(&self) -> Result<(), Error> {
        let Some(id) = self.scanning() else { return Ok(()) };
        self.change(&id, |survey, now| {
            let mine = survey.is_with(&self.worker, &self.session, now);
            if mine {
                survey.give_back();
            }
            mine
        })
        .await
    }

    /// Takes what the worker answered; what nobody waits for any more is dropped.
    pub(super) async fn scanned(&self, result: &pb::ScanResult) -> Result<(), Error> {
        let id = RowId::new(result.survey_id.clone())?;
        let answer = read_answer(result);
        if let Err(failure) = &answer {
            tracing::warn!(survey = %id, worker = %self.worker, reason = failure.reason, why = failure.message, "a scan failed");
        }
        self.change(&id, |survey, _| {
            // Also late: an answer is worth the same, whoever has the survey by now.
            let theirs = survey.state.is_open() && survey.was_given_to(&self.worker, &self.session);
            if theirs {
                survey.answer(answer.clone());
            }
            theirs
        })
        .await?;
        self.scan.lock().unwrap_or_else(PoisonError::into_inner).take_if(|told| *told == id);
        Ok(())
    }

    /// Writes a survey that `change` has changed, on top of whatever others wrote.
    async fn change(&self, id: &RowId, change: impl Fn(&mut Survey, Timestamp) -> bool) -> Result<(), Error> {
        for _ in 0..TRIES {
            let mut tx = self.cores.store().tx(&[]).await?;
            let Some(mut survey) = tx.survey(id).await? else { return Ok(()) };
            if !change(&mut survey, tx.now()) {
                return Ok(());
            }
            match tx.update_survey(&mut survey).await {
                Ok(()) => return Ok(tx.commit().await?),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict { what: "survey", id: id.to_string(), expected: 0 }.into())
    }
}

/// A survey as an order.
fn order(survey: &Survey) -> Result<pb::ScanOrder, Error> {
    let ask = &survey.ask;
    let anchor = ask.anchor.as_ref().map(serde_json::to_string).transpose().map_err(|e| Error::Bug(e.to_string()))?;
    Ok(pb::ScanOrder {
        survey_id: survey.id.to_string(),
        project: ask.project.to_string(),
        commit: ask.commit.to_string(),
        branch: ask.branch.clone().unwrap_or_default(),
        since: ask.since.map(|oid| oid.to_string()).unwrap_or_default(),
        deep: ask.deep,
        anchor_json: anchor.unwrap_or_default(),
    })
}

/// What a worker answered, which is not trusted: what is no report of a size that ours have is none.
fn read_answer(result: &pb::ScanResult) -> Result<GapReportV1, SurveyFailure> {
    let failure = |reason: &str, message: String| SurveyFailure { reason: reason.to_owned(), message };
    if result.report_json.is_empty() {
        let word = !result.reason.is_empty()
            && result.reason.len() <= 40
            && result.reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let reason = if word { result.reason.as_str() } else { "scan_failed" };
        return Err(failure(reason, redact(&result.message).chars().take(MAX_MESSAGE).collect()));
    }
    if result.report_json.len() > MAX_REPORT {
        let size = result.report_json.len();
        return Err(failure("malformed", format!("the worker sent a report of {size} bytes; {MAX_REPORT} are taken")));
    }
    serde_json::from_str(&result.report_json)
        .map_err(|error| failure("malformed", format!("the worker sent what is no report: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_report_is_a_failure_of_the_worker_and_no_last_word() {
        let answer = |report: String, reason: &str| {
            let result = pb::ScanResult {
                survey_id: "s".to_owned(),
                report_json: report,
                reason: reason.to_owned(),
                message: String::new(),
            };
            read_answer(&result).unwrap_err().reason
        };
        let report = "{\"format_version\":\"v1\",\"project_id\":\"p\",\"run_id\":\"r\",\"generated_at\":\"2026-01-01T00:00:00Z\"}";
        assert_eq!(answer(format!("{report}{}", " ".repeat(MAX_REPORT)), ""), "malformed");
        assert_eq!(answer("{\"format_version\":\"v1\",\"surprise\":1}".to_owned(), ""), "malformed");
        assert_eq!(answer(String::new(), "disk_full"), "disk_full");
        assert_eq!(answer(String::new(), "Any \u{1b}[31m thing"), "scan_failed");
        assert_eq!(answer(String::new(), ""), "scan_failed");
    }
}
