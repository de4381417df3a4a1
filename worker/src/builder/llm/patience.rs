//! When a provider that did not answer is asked again, and when no more. A pure core: it is told the time that is left.

use std::time::Duration;

/// The first pause; it doubles with each try.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause that nobody asked for.
const LONGEST: Duration = Duration::from_secs(60);

/// The time that a try has at least.
const LEAST: Duration = Duration::from_secs(1);

/// How often one question is asked at most.
const TRIES: u32 = 10;

/// How often an answer that cannot be read is asked for again: each of them costs money.
const GARBAGE: u32 = 3;

/// What became of a call that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Too many requests; perhaps it says when to come back.
    Busy { after: Option<Duration>, why: String },
    /// It is not there, or met an error of its own.
    Away { after: Option<Duration>, why: String },
    /// It was asked, and then it broke off or said nothing in time: what it does may cost all the same.
    Cut { why: String },
    /// It answered, and nothing could be read from it.
    Garbage { why: String },
    /// It will not answer this, however often it is asked.
    Refused { why: String },
}

impl Trouble {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "provider_rate_limited",
            Self::Away { .. } | Self::Cut { .. } => "provider_unavailable",
            Self::Garbage { .. } => "provider_malformed",
            Self::Refused { .. } => "provider_refused",
        }
    }

    /// How long the provider asked to wait.
    pub(super) const fn after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } | Self::Away { after, .. } => *after,
            Self::Cut { .. } | Self::Garbage { .. } | Self::Refused { .. } => None,
        }
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Busy { why, .. } | Self::Away { why, .. } => why,
            Self::Cut { why } | Self::Garbage { why } | Self::Refused { why } => why,
        }
    }
}

/// Counts the tries of one question.
#[derive(Debug, Default)]
pub(super) struct Patience {
    tries: u32,
    garbage: u32,
}

impl Patience {
    /// How long to wait before the next try; or why there is none.
    pub(super) fn next(&mut self, trouble: &Trouble, left: Duration) -> Result<Duration, String> {
        self.tries += 1;
        let grown = FIRST.saturating_mul(1 << (self.tries - 1).min(20)).min(LONGEST);
        let pause = match trouble {
            Trouble::Refused { .. } => return Err("it is not asked again".to_owned()),
            Trouble::Garbage { .. } => {
                self.garbage += 1;
                if self.garbage >= GARBAGE {
                    return Err(format!("{GARBAGE} answers could not be read"));
                }
                grown
            }
            Trouble::Busy { after, .. } | Trouble::Away { after, .. } => after.unwrap_or(grown).max(FIRST),
            Trouble::Cut { .. } => grown,
        };
        if self.tries >= TRIES {
            return Err(format!("it was asked {TRIES} times"));
        }
        // A try without time for an answer would only hide what went wrong before.
        if pause + LEAST >= left {
            let (pause, left) = (pause.as_secs().max(1), left.as_secs());
            return Err(format!("the next try is due in {pause} s and the attempt has {left} s left"));
        }
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn away() -> Trouble {
        Trouble::Away { after: None, why: "500".to_owned() }
    }

    #[test]
    fn pauses_grow_to_a_minute_and_end() {
        let mut patience = Patience::default();
        let pauses: Vec<u64> =
            std::iter::from_fn(|| patience.next(&away(), HOUR).ok()).map(|pause| pause.as_millis() as u64).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn what_the_provider_asks_for_is_honoured_or_the_attempt_ends() {
        let busy = |after| Trouble::Busy { after: Some(Duration::from_secs(after)), why: String::new() };
        assert_eq!(Patience::default().next(&busy(120), HOUR), Ok(Duration::from_secs(120)));
        let why = Patience::default().next(&busy(3600), Duration::from_secs(20)).unwrap_err();
        assert_eq!(why, "the next try is due in 3600 s and the attempt has 20 s left");
        assert_eq!(Patience::default().next(&busy(0), HOUR), Ok(FIRST), "never at once");
    }

    #[test]
    fn garbage_is_paid_for_three_times() {
        let mut patience = Patience::default();
        let garbage = Trouble::Garbage { why: String::new() };
        assert!(patience.next(&garbage, HOUR).is_ok() && patience.next(&away(), HOUR).is_ok());
        assert!(patience.next(&garbage, HOUR).is_ok() && patience.next(&garbage, HOUR).is_err());
        assert!(Patience::default().next(&Trouble::Refused { why: String::new() }, HOUR).is_err());
    }
}
