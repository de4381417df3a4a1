//! What models may still be asked for, decided before every call; and what a call is charged with. A pure core.

use autopack_shared::domain::budget::{Stop, Unit};
use autopack_shared::domain::project::ModelConfig;
use autopack_shared::domain::usage::{Allowance, Unsaid, Usage};

/// An answer of fewer tokens cannot hold a change, and is not asked for.
const LEAST_ANSWER: u64 = 64;

/// A million, as prices are given for.
const MILLION: u128 = 1_000_000;

/// Why nothing may be asked any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spent {
    /// Which bound.
    pub(super) stop: Stop,
    /// For people.
    pub(super) why: String,
}

/// Counts one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    allowance: Allowance,
    used: Usage,
}

impl Meter {
    pub(super) const fn new(allowance: Allowance) -> Self {
        Self { allowance, used: Usage { unsaid: Unsaid { tokens: false, cost: false, calls: false }, ..Usage::UNSAID } }
    }

    pub(super) const fn used(&self) -> Usage {
        self.used
    }

    /// How many tokens of an answer may be asked for, for a question of so many bytes.
    ///
    /// # Errors
    /// What is used up; nothing may be asked then.
    pub(super) fn reserve(&self, model: &ModelConfig, question: usize) -> Result<u32, Spent> {
        let question = expected(question);
        if let Some(calls) = self.allowance.calls
            && self.used.calls >= calls
        {
            let why = format!("{calls} calls of models are allowed, and all are used");
            return Err(Spent { stop: Stop::Unit(Unit::Calls), why });
        }
        let mut answer = u64::from(model.max_output_tokens);
        let spent = self.used.tokens();
        let all = (Stop::Unit(Unit::Tokens), self.allowance.tokens, spent);
        let tokens = [all, (Stop::Call, self.allowance.call_tokens, 0)];
        for (stop, tokens, spent) in tokens.into_iter().filter_map(|(stop, most, spent)| Some((stop, most?, spent))) {
            let left = tokens.saturating_sub(spent);
            let after = left.saturating_sub(question);
            if after < LEAST_ANSWER.min(answer) {
                let why = format!("{left} tokens are left of {tokens}, and the question alone takes about {question}");
                return Err(Spent { stop, why });
            }
            answer = answer.min(after);
        }
        let all = (Stop::Unit(Unit::CostMicros), self.allowance.cost_micros, self.used.cost_micros);
        let costs = [all, (Stop::Call, self.allowance.call_cost_micros, 0)];
        for (stop, micros, spent) in costs.into_iter().filter_map(|(stop, most, spent)| Some((stop, most?, spent))) {
            let left = micros.saturating_sub(spent);
            let after = left.saturating_sub(price(question, model.input_price));
            let affordable = match model.output_price {
                0 => u64::MAX,
                price => u64::try_from(u128::from(after) * MILLION / u128::from(price)).unwrap_or(u64::MAX),
            };
            let free = model.input_price == 0 && model.output_price == 0;
            if !free && (after == 0 || affordable < LEAST_ANSWER.min(answer)) {
                let why = format!("{left} millionths of the currency are left of {micros}, which pays no answer");
                return Err(Spent { stop, why });
            }
            answer = answer.min(affordable);
        }
        Ok(u32::try_from(answer).unwrap_or(u32::MAX))
    }

    /// Charges a call: with what the provider says, and where it says nothing, with what it must have been.
    pub(super) fn charge(&mut self, model: &ModelConfig, said: (Option<u64>, Option<u64>), bytes: (usize, usize)) {
        let one = Usage {
            input_tokens: said.0.unwrap_or_else(|| expected(bytes.0)),
            output_tokens: said.1.unwrap_or_else(|| expected(bytes.1)),
            calls: 1,
            ..Usage::default()
        };
        let cost = cost(model, one);
        self.used = self.used.and(Usage { cost_micros: cost, ..one });
    }

    /// Charges a call that was sent and brought nothing back: whoever answers it may do so all the same.
    pub(super) fn charge_cut(&mut self, model: &ModelConfig, question: usize, most_tokens: u32) {
        self.charge(model, (None, Some(u64::from(most_tokens))), (question, 0));
    }

    /// Charges a call that was turned away: a call, and no tokens.
    pub(super) fn charge_refused(&mut self) {
        self.used = self.used.and(Usage { calls: 1, ..Usage::default() });
    }
}

/// What a price list makes of what was used.
pub(crate) fn cost(model: &ModelConfig, used: Usage) -> u64 {
    price(used.input_tokens, model.input_price).saturating_add(price(used.output_tokens, model.output_price))
}

/// The tokens of so many bytes, rather too many than too few.
const fn expected(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(3)
}

/// Rounded up: what was used was not free.
fn price(tokens: u64, per_million: u64) -> u64 {
    u64::try_from((u128::from(tokens) * u128::from(per_million)).div_ceil(MILLION)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model() -> ModelConfig {
        ModelConfig {
            provider: "p".to_owned(),
            model: "m".to_owned(),
            max_output_tokens: 1000,
            input_price: 400_000,
            output_price: 1_600_000,
        }
    }

    #[test]
    fn what_is_left_bounds_the_answer_and_refuses_the_call() {
        let meter = |allowance| Meter::new(allowance).reserve(&model(), 300);
        assert_eq!(meter(Allowance::default()), Ok(1000));
        assert_eq!(meter(Allowance { tokens: Some(400), ..Allowance::default() }), Ok(300));
        assert!(meter(Allowance { tokens: Some(150), ..Allowance::default() }).unwrap_err().why.contains("150 tokens"));
        assert_eq!(meter(Allowance { tokens: Some(900), call_tokens: Some(400), ..Allowance::default() }), Ok(300));
        let none = meter(Allowance { calls: Some(0), ..Allowance::default() }).unwrap_err();
        assert!(none.why.contains("0 calls") && none.stop == Stop::Unit(Unit::Calls), "{none:?}");
        let one = Allowance { tokens: Some(900), call_tokens: Some(100), ..Allowance::default() };
        assert_eq!(meter(one).unwrap_err().stop, Stop::Call, "what one call may take");
        // 100 tokens for the question cost 40, 360 pay 225 tokens.
        assert_eq!(meter(Allowance { cost_micros: Some(400), ..Allowance::default() }), Ok(225));
        assert!(meter(Allowance { cost_micros: Some(60), ..Allowance::default() }).is_err());
        let free = ModelConfig { input_price: 0, output_price: 0, ..model() };
        let nothing = Allowance { cost_micros: Some(0), ..Allowance::default() };
        assert_eq!(Meter::new(nothing).reserve(&free, 300), Ok(1000), "what is free needs no money");
    }

    #[test]
    fn a_provider_that_says_nothing_is_charged_all_the_same() {
        let mut meter = Meter::new(Allowance::default());
        meter.charge(&model(), (None, Some(10)), (300, 3000));
        assert_eq!(
            meter.used(),
            Usage { input_tokens: 100, output_tokens: 10, cost_micros: 56, calls: 1, ..Usage::default() }
        );
        meter.charge_refused();
        assert_eq!((meter.used().calls, meter.used().tokens()), (2, 110));
        meter.charge_cut(&model(), 300, 1000);
        assert_eq!((meter.used().calls, meter.used().tokens()), (3, 1210), "it may have been answered to the end");
    }

    proptest! {
        #[test]
        fn what_was_reserved_never_goes_beyond_the_allowance(
            tokens in 0u64..5000, micros in 0u64..5000, question in 0usize..4000, said in 0u64..5000,
        ) {
            let allowance = Allowance { tokens: Some(tokens), cost_micros: Some(micros), calls: Some(9), ..Allowance::default() };
            let mut meter = Meter::new(allowance);
            while let Ok(answer) = meter.reserve(&model(), question) {
                let input = expected(question);
                meter.charge(&model(), (Some(input), Some(said.min(u64::from(answer)))), (question, 0));
                prop_assert!(meter.used().tokens() <= tokens);
                // Two prices are rounded up.
                prop_assert!(meter.used().cost_micros <= micros + meter.used().calls);
            }
        }
    }
}
