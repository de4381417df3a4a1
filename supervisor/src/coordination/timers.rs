//! Every time that liveness rests on, in one table, and the relations that must hold between them
//! (`coordination.md` 3.3). A table that breaks one is refused before anything is asked of a service.

use std::time::Duration;

use super::CoordinationError;

/// How long a worker may take to end its builder once it decided to.
const END_BUILDER: Duration = Duration::from_secs(1);

/// The times of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats of a worker.
    pub heartbeat: Duration,
    /// A worker without an acknowledged heartbeat freezes its builder after this.
    pub worker_soft: Duration,
    /// It ends its builder after this.
    pub worker_self: Duration,
    /// A session without a renewal ends after this, on the service's side. Whole seconds.
    pub session_ttl: Duration,
    /// A directorship without a renewal ends after this, on the service's side. Whole seconds.
    pub director_ttl: Duration,
    /// Between two renewals of the directorship.
    pub director_renew: Duration,
    /// A director stops acting this long after it sent the last renewal that was answered.
    pub step_down: Duration,
    /// What a local deadline stays before the service's.
    pub margin: Duration,
    /// One try of a call.
    pub request: Duration,
    /// A call with its repetitions.
    pub patience: Duration,
    /// A watch that says nothing for so long is made anew.
    pub silence: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            worker_soft: Duration::from_secs(8),
            worker_self: Duration::from_secs(12),
            session_ttl: Duration::from_secs(15),
            director_ttl: Duration::from_secs(10),
            director_renew: Duration::from_millis(2500),
            step_down: Duration::from_secs(6),
            margin: Duration::from_secs(2),
            request: Duration::from_secs(2),
            patience: Duration::from_secs(5),
            silence: Duration::from_secs(30),
        }
    }
}

impl Timers {
    /// Checks every relation.
    ///
    /// # Errors
    /// [`CoordinationError::Setting`] names the relation that does not hold.
    pub fn checked(self) -> Result<Self, CoordinationError> {
        let whole = |ttl: Duration| ttl.subsec_nanos() == 0 && ttl >= Duration::from_secs(2);
        let relations = [
            (!self.heartbeat.is_zero(), "heartbeat > 0"),
            (self.heartbeat * 3 < self.worker_soft, "3 heartbeats < worker_soft"),
            (self.worker_soft < self.worker_self, "worker_soft < worker_self"),
            // Clocks of two machines run differently; the worker is gone before its session is.
            (self.worker_self.mul_f64(1.1) + END_BUILDER < self.session_ttl, "worker_self * 1.1 + 1 s < session_ttl"),
            (whole(self.session_ttl), "session_ttl in whole seconds, at least 2"),
            (whole(self.director_ttl), "director_ttl in whole seconds, at least 2"),
            (!self.director_renew.is_zero(), "director_renew > 0"),
            // One renewal may be lost.
            (self.director_renew * 2 < self.step_down, "2 director_renew < step_down"),
            (!self.margin.is_zero(), "margin > 0"),
            (self.step_down + self.margin <= self.director_ttl, "step_down + margin <= director_ttl"),
            (!self.request.is_zero(), "request > 0"),
            (self.request <= self.patience, "request <= patience"),
            (!self.silence.is_zero(), "silence > 0"),
        ];
        match relations.iter().find(|(holds, _)| !holds) {
            Some((_, relation)) => {
                Err(CoordinationError::Setting { what: "timers".to_owned(), why: format!("not so: {relation}") })
            }
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(change: impl FnOnce(&mut Timers)) -> String {
        let mut timers = Timers::default();
        change(&mut timers);
        timers.checked().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_hold_and_each_relation_is_checked() {
        assert_eq!(Timers::default().checked().unwrap(), Timers::default());
        let seconds = Duration::from_secs;
        assert!(refusal(|t| t.heartbeat = seconds(3)).contains("3 heartbeats"));
        assert!(refusal(|t| t.worker_self = seconds(8)).contains("worker_soft < worker_self"));
        assert!(refusal(|t| t.worker_self = seconds(13)).contains("1.1"));
        assert!(refusal(|t| t.session_ttl = Duration::from_millis(15_500)).contains("session_ttl in whole"));
        assert!(refusal(|t| t.director_ttl = Duration::from_millis(10_001)).contains("director_ttl in whole"));
        assert!(refusal(|t| t.director_renew = seconds(3)).contains("2 director_renew"));
        assert!(refusal(|t| t.step_down = seconds(9)).contains("step_down + margin"));
        assert!(refusal(|t| t.margin = Duration::ZERO).contains("margin > 0"));
        assert!(refusal(|t| t.request = seconds(6)).contains("patience"));
        assert!(refusal(|t| t.silence = Duration::ZERO).contains("silence"));
    }

    proptest! {
        /// What matters: whatever table is accepted, a director stops before its key can be gone, and a worker ends
        /// its builder before its session can be given to another.
        #[test]
        fn who_holds_stops_before_the_service_lets_go(millis in prop::array::uniform9(1_u64..20_000)) {
            let [a, b, c, d, e, f, g, h, i] = millis.map(Duration::from_millis);
            let whole = |ttl: Duration| Duration::from_secs(ttl.as_secs());
            let timers = Timers {
                heartbeat: a.min(b / 4), worker_soft: b, worker_self: c, session_ttl: whole(d),
                director_ttl: whole(e), director_renew: f.min(g / 3), step_down: g, margin: h, request: i,
                patience: i * 2, silence: a,
            };
            if let Ok(timers) = timers.checked() {
                prop_assert!(timers.step_down < timers.director_ttl);
                prop_assert!(timers.director_renew < timers.step_down);
                prop_assert!(timers.worker_self < timers.session_ttl);
                prop_assert!(timers.heartbeat < timers.worker_soft);
            }
        }
    }
}
