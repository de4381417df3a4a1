//! A survey: the scan of one commit that somebody waits for, as the store keeps it until a worker has done it. It
//! changes nothing and holds no lease; a report that nobody could get twice is worth no fence.

use serde::{Deserialize, Serialize};

use super::anchor::IntentionAnchorV2;
use super::gap::{GapReportV1, SCANNER_VERSION};
use super::ids::{Digest, Oid, ProjectId, RowId, Timestamp, WorkerId};
use super::state::UnknownState;

/// How long a worker may be silent about a survey before another one takes it.
pub const CLAIM_SECONDS: i64 = 120;

/// How long a survey is waited for, and its report used again.
pub const LIFE_SECONDS: i64 = 600;

/// Workers that are tried.
pub const MAX_CLAIMS: usize = 3;

/// Bytes of a report as JSON.
pub const MAX_REPORT: usize = 1024 * 1024;

/// Where a survey stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SurveyState {
    /// No worker has it.
    Requested,
    /// A worker scans.
    Claimed,
    /// There is a report.
    Done,
    /// There will be none.
    Failed,
}

impl SurveyState {
    /// The word that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Claimed => "claimed",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether somebody still has to do something.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Requested | Self::Claimed => true,
            Self::Done | Self::Failed => false,
        }
    }
}

impl std::str::FromStr for SurveyState {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        let all = [Self::Requested, Self::Claimed, Self::Done, Self::Failed];
        let found = all.into_iter().find(|state| state.as_str() == word);
        found.ok_or_else(|| UnknownState { machine: "survey", value: word.to_owned() })
    }
}

/// What is to be scanned, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SurveyAsk {
    /// Of which project.
    pub project: ProjectId,
    /// The commit.
    pub commit: Oid,
    /// The branch it stands for, without `refs/heads/`; none for a commit that was named by itself.
    pub branch: Option<String>,
    /// Only what changed since this commit.
    pub since: Option<Oid>,
    /// Whether every stored object is read.
    pub deep: bool,
    /// The anchor in force.
    pub anchor: Option<IntentionAnchorV2>,
}

impl SurveyAsk {
    /// The same for everything that gives the same report.
    ///
    /// # Errors
    /// Never for an anchor that was read from JSON.
    pub fn key(&self) -> Result<Digest, serde_json::Error> {
        Digest::of_json(&(SCANNER_VERSION, self))
    }
}

/// A worker that was given a survey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyClaim {
    /// The worker.
    pub worker: WorkerId,
    /// Its session.
    pub session: String,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyFailure {
    /// A stable code.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl SurveyFailure {
    /// Whether every other worker would say the same.
    fn is_final(&self) -> bool {
        matches!(self.reason.as_str(), "not_found" | "unsafe_path" | "too_large")
    }
}

/// A survey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Its name.
    pub id: RowId,
    /// Where it stands.
    pub state: SurveyState,
    /// Rises with every write.
    pub version: u64,
    /// What is to be scanned.
    pub ask: SurveyAsk,
    /// See [`SurveyAsk::key`].
    pub key: Digest,
    /// Who was given it, newest last.
    pub claims: Vec<SurveyClaim>,
    /// Until when the newest of them has it.
    pub deadline: Option<Timestamp>,
    /// What was found.
    pub report: Option<GapReportV1>,
    /// Why nothing was, last.
    pub failure: Option<SurveyFailure>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// From when on nobody waits for it, or uses its report.
    pub expires_at: Timestamp,
}

impl Survey {
    /// One that no worker has yet.
    ///
    /// # Errors
    /// As [`SurveyAsk::key`].
    pub fn new(id: RowId, ask: SurveyAsk, now: Timestamp) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id,
            state: SurveyState::Requested,
            version: 0,
            key: ask.key()?,
            ask,
            claims: Vec::new(),
            deadline: None,
            report: None,
            failure: None,
            created_at: now,
            expires_at: now.plus_seconds(LIFE_SECONDS),
        })
    }

    /// Whether whoever asks for the same now may wait for this one, or have its report.
    #[must_use]
    pub fn serves(&self, now: Timestamp) -> bool {
        now < self.expires_at && self.state != SurveyState::Failed
    }

    /// Whether a worker may be given it now.
    #[must_use]
    pub fn is_free(&self, now: Timestamp) -> bool {
        let unclaimed = match self.state {
            SurveyState::Requested => true,
            SurveyState::Claimed => self.deadline.is_none_or(|deadline| deadline <= now),
            SurveyState::Done | SurveyState::Failed => false,
        };
        unclaimed && now < self.expires_at
    }

    /// Whether a session has it now.
    #[must_use]
    pub fn is_with(&self, worker: &WorkerId, session: &str, now: Timestamp) -> bool {
        self.state == SurveyState::Claimed
            && self.deadline.is_some_and(|deadline| now < deadline)
            && self.claims.last().is_some_and(|claim| claim.worker == *worker && claim.session == session)
    }

    /// Whether a session was ever given it: what it reports is worth as much as what another would.
    #[must_use]
    pub fn was_given_to(&self, worker: &WorkerId, session: &str) -> bool {
        self.claims.iter().any(|claim| claim.worker == *worker && claim.session == session)
    }

    /// Gives it to a session, or fails it where enough were tried; whether it was given.
    pub fn claim(&mut self, worker: &WorkerId, session: &str, now: Timestamp) -> bool {
        if self.claims.len() >= MAX_CLAIMS {
            self.state = SurveyState::Failed;
            self.failure.get_or_insert_with(|| SurveyFailure {
                reason: "scan_failed".to_owned(),
                message: format!("{MAX_CLAIMS} workers were given the scan and none answered"),
            });
            return false;
        }
        self.state = SurveyState::Claimed;
        self.claims.push(SurveyClaim { worker: worker.clone(), session: session.to_owned() });
        self.deadline = Some(now.plus_seconds(CLAIM_SECONDS));
        true
    }

    /// Its worker is alive.
    pub fn renew(&mut self, now: Timestamp) {
        self.deadline = Some(now.plus_seconds(CLAIM_SECONDS));
    }

    /// Its worker is gone, or cannot do it: another one may.
    pub fn give_back(&mut self) {
        self.state = SurveyState::Requested;
        self.deadline = None;
    }

    /// Takes what a worker answered. What another worker may do better is asked of another.
    pub fn answer(&mut self, answer: Result<GapReportV1, SurveyFailure>) {
        match answer {
            Ok(report) => {
                self.state = SurveyState::Done;
                (self.report, self.failure, self.deadline) = (Some(report), None, None);
            }
            Err(failure) => {
                let last = failure.is_final() || self.claims.len() >= MAX_CLAIMS;
                self.failure = Some(failure);
                self.give_back();
                if last {
                    self.state = SurveyState::Failed;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(0).plus_seconds(seconds)
    }

    fn survey() -> Survey {
        let ask = SurveyAsk {
            project: ProjectId::new("shop").unwrap(),
            commit: Oid::ZERO,
            branch: Some("main".to_owned()),
            since: None,
            deep: false,
            anchor: None,
        };
        Survey::new(RowId::new("survey-1").unwrap(), ask, at(0)).unwrap()
    }

    fn worker(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }

    #[test]
    fn a_survey_is_with_one_session_until_its_time_is_up() {
        let (mut survey, w1, w2) = (survey(), worker("w1"), worker("w2"));
        assert!(survey.is_free(at(0)) && survey.claim(&w1, "s", at(0)));
        assert!(!survey.is_free(at(1)) && survey.is_with(&w1, "s", at(1)) && !survey.is_with(&w2, "s", at(1)));
        survey.renew(at(10));
        assert!(survey.is_with(&w1, "s", at(CLAIM_SECONDS + 9)));
        let late = at(CLAIM_SECONDS + 10);
        assert!(survey.is_free(late) && !survey.is_with(&w1, "s", late));
        assert!(survey.claim(&w2, "t", late) && survey.was_given_to(&w1, "s") && !survey.was_given_to(&w1, "t"));
        assert!(!survey.is_free(at(LIFE_SECONDS)), "nobody waits any more");
    }

    #[test]
    fn a_few_workers_are_tried_and_no_more() {
        let mut survey = survey();
        for n in 0..MAX_CLAIMS {
            assert!(survey.claim(&worker(&format!("w{n}")), "s", at(0)));
            survey.give_back();
        }
        assert!(!survey.claim(&worker("w"), "s", at(0)));
        assert_eq!((survey.state, survey.failure.unwrap().reason.as_str()), (SurveyState::Failed, "scan_failed"));
    }

    #[test]
    fn a_failure_of_one_worker_is_not_the_last_word_unless_it_is_about_the_commit() {
        let failure = |reason: &str| SurveyFailure { reason: reason.to_owned(), message: String::new() };
        let mut survey = survey();
        survey.claim(&worker("w1"), "s", at(0));
        survey.answer(Err(failure("disk_full")));
        assert!(survey.state == SurveyState::Requested && survey.serves(at(1)));
        survey.claim(&worker("w2"), "s", at(0));
        survey.answer(Err(failure("not_found")));
        assert!(survey.state == SurveyState::Failed && !survey.serves(at(1)));
    }
}
