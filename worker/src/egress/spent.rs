//! What the models of one job were asked for, as it went over the wire, what is left of its allowance, and whether its
//! provider asks to be left alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use autopack_shared::domain::budget::Unit;
use autopack_shared::domain::project::ModelConfig;
use autopack_shared::domain::usage::{Allowance, Usage};

use super::usage::Tap;
use crate::builder::llm::meter;

/// Bytes of a question that are taken for one token where its provider does not say.
const BYTES_A_TOKEN: u64 = 3;

/// The account of one provider.
#[derive(Debug)]
pub(super) struct Spent {
    allowance: Allowance,
    model: Option<ModelConfig>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    usage: Usage,
    /// The status of the last answer; 0 for none.
    last: Option<u16>,
    rests: Option<Instant>,
    refused: Option<Unit>,
}

/// How the provider was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It answers, or was not asked.
    Well,
    /// It asks to be left alone, perhaps for so long.
    Busy(Option<Duration>),
    /// It was not there, or met an error of its own.
    Away,
    /// It will not answer: a wrong key, say.
    Refuses(u16),
    /// Nothing may be spent any more.
    UsedUp(Unit),
}

impl Spent {
    pub(super) fn new(allowance: Allowance, model: Option<ModelConfig>) -> Self {
        Self { allowance, model, now: Mutex::default() }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call; it counts from here on.
    ///
    /// # Errors
    /// `budget_exhausted`, or `resting` with how long still.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Arc<Call>, (&'static str, Duration)> {
        let mut now = self.now();
        if let Some(left) =
            now.rests.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
        {
            return Err(("resting", left));
        }
        let Allowance { tokens, cost_micros, calls, .. } = self.allowance;
        let over = |used: u64, most: Option<u64>| most.is_some_and(|most| used >= most);
        let used = now.usage;
        // What is free needs no money.
        let paid = used.cost_micros > 0 && over(used.cost_micros, cost_micros);
        let all = [
            (over(used.tokens(), tokens), Unit::Tokens),
            (paid, Unit::CostMicros),
            (over(used.calls, calls), Unit::Calls),
        ];
        if let Some((_, unit)) = all.into_iter().find(|(over, _)| *over) {
            now.refused = Some(unit);
            return Err(("budget_exhausted", Duration::ZERO));
        }
        now.usage.calls += 1;
        Ok(Arc::new(Call { spent: Some(self.clone()), asked: AtomicU64::new(0), settled: AtomicBool::new(false) }))
    }

    /// An answer came, or none.
    pub(super) fn heard(&self, status: Option<u16>, after: Option<Duration>) {
        let mut now = self.now();
        now.last = Some(status.unwrap_or(0));
        if let (Some(429 | 503 | 529), Some(after)) = (status, after) {
            now.rests = Instant::now().checked_add(after);
        }
    }

    /// What was used.
    pub(super) fn usage(&self) -> Usage {
        self.now().usage
    }

    /// How the provider was last seen.
    pub(super) fn seen(&self) -> Seen {
        let now = self.now();
        if let Some(unit) = now.refused {
            return Seen::UsedUp(unit);
        }
        let left = now.rests.map(|until| until.saturating_duration_since(Instant::now()));
        match now.last {
            Some(429 | 529) => Seen::Busy(left),
            Some(0 | 408 | 500..) => Seen::Away,
            Some(status @ 401..=403) => Seen::Refuses(status),
            Some(_) | None => Seen::Well,
        }
    }
}

/// One call that is under way.
#[derive(Debug)]
pub(super) struct Call {
    spent: Option<Arc<Spent>>,
    asked: AtomicU64,
    settled: AtomicBool,
}

impl Call {
    /// One that is not charged: it asks for nothing that costs.
    pub(super) fn free() -> Arc<Self> {
        Arc::new(Self { spent: None, asked: AtomicU64::new(0), settled: AtomicBool::new(true) })
    }

    /// Counts bytes of the question.
    pub(super) fn asked(&self, bytes: u64) {
        self.asked.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It was turned away, or went nowhere: it costs no tokens.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Charges it with what its answer said.
    pub(super) fn done(&self, tap: &Tap) {
        self.settle();
        let (input_tokens, output_tokens) = tap.tokens(self.asked.load(Ordering::Relaxed));
        self.charge(input_tokens, output_tokens);
    }

    fn charge(&self, input_tokens: u64, output_tokens: u64) {
        let Some(spent) = &self.spent else { return };
        let one = Usage { input_tokens, output_tokens, ..Usage::default() };
        let cost_micros = spent.model.as_ref().map_or(0, |model| meter::cost(model, one));
        let mut now = spent.now();
        now.usage = now.usage.and(Usage { cost_micros, ..one });
    }
}

impl Drop for Call {
    /// Whoever hangs up before the answer has asked all the same.
    fn drop(&mut self) {
        let asked = *self.asked.get_mut();
        if !*self.settled.get_mut() && asked > 0 {
            self.charge(asked.div_ceil(BYTES_A_TOKEN), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(allowance: Allowance) -> Arc<Spent> {
        Arc::new(Spent::new(allowance, None))
    }

    #[test]
    fn calls_and_tokens_are_counted_and_bounded() {
        let one = spent(Allowance { calls: Some(2), ..Allowance::default() });
        assert!(one.begin().is_ok() && one.begin().is_ok());
        assert_eq!(one.begin().unwrap_err().0, "budget_exhausted");
        assert_eq!((one.usage().calls, one.seen()), (2, Seen::UsedUp(Unit::Calls)));

        let one = spent(Allowance { tokens: Some(100), ..Allowance::default() });
        let mut tap = Tap::default();
        tap.look(br#"{"prompt_tokens":90,"completion_tokens":20}"#);
        one.begin().unwrap().done(&tap);
        assert_eq!((one.usage().tokens(), one.begin().unwrap_err().0), (110, "budget_exhausted"));
    }

    #[test]
    fn who_hangs_up_has_asked() {
        let one = spent(Allowance::default());
        let call = one.begin().unwrap();
        call.asked(3000);
        drop(call);
        assert_eq!((one.usage().tokens(), one.usage().calls), (1000, 1));
        let turned_away = one.begin().unwrap();
        turned_away.asked(3000);
        turned_away.settle();
        drop(turned_away);
        assert_eq!((one.usage().tokens(), one.usage().calls), (1000, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_to_be_left_alone_is() {
        let one = spent(Allowance::default());
        one.heard(Some(429), Some(Duration::from_secs(30)));
        assert_eq!(one.begin().unwrap_err(), ("resting", Duration::from_secs(30)));
        assert_eq!(one.seen(), Seen::Busy(Some(Duration::from_secs(30))));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(one.begin().is_ok());
        one.heard(Some(200), None);
        assert_eq!(one.seen(), Seen::Well);
        for (status, seen) in
            [(None, Seen::Away), (Some(500), Seen::Away), (Some(401), Seen::Refuses(401)), (Some(404), Seen::Well)]
        {
            one.heard(status, None);
            assert_eq!(one.seen(), seen);
        }
    }
}
