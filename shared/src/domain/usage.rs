//! What work has cost, and what it may cost: tokens, money and calls of models.

use serde::{Deserialize, Serialize};

/// What models were asked for; untrusted where a builder says it of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Tokens sent.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens received.
    #[serde(default)]
    pub output_tokens: u64,
    /// Money, in millionths of the price list's currency.
    #[serde(default)]
    pub cost_micros: u64,
    /// Calls of models.
    #[serde(default)]
    pub calls: u64,
    /// What of it nobody said; not kept, as what counts instead is.
    #[serde(skip)]
    pub unsaid: Unsaid,
}

/// The units of which nobody said how much was used: zero stands there, and means nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsaid {
    /// Tokens, either way.
    pub tokens: bool,
    /// Money.
    pub cost: bool,
    /// Calls.
    pub calls: bool,
}

impl Unsaid {
    /// Nothing was said.
    pub const ALL: Self = Self { tokens: true, cost: true, calls: true };

    /// What neither of two words says.
    #[must_use]
    pub const fn still(self, other: Self) -> Self {
        Self { tokens: self.tokens && other.tokens, cost: self.cost && other.cost, calls: self.calls && other.calls }
    }
}

impl Usage {
    /// Of a builder of which nobody knows anything yet.
    pub const UNSAID: Self = Self { input_tokens: 0, output_tokens: 0, cost_micros: 0, calls: 0, unsaid: Unsaid::ALL };

    /// Tokens in both directions.
    #[must_use]
    pub const fn tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Both together: what one of them says is said.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            unsaid: self.unsaid.still(other.unsaid),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cost_micros: self.cost_micros.saturating_add(other.cost_micros),
            calls: self.calls.saturating_add(other.calls),
        }
    }
}

/// What an attempt may use at most; what is absent does not bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Tokens in both directions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, in millionths of the price list's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Calls of models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Tokens of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_tokens: Option<u64>,
    /// Money of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_cost_micros: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_never_wrap() {
        let huge = Usage { input_tokens: u64::MAX, output_tokens: 1, cost_micros: 5, calls: 1, ..Usage::default() };
        assert_eq!(huge.tokens(), u64::MAX);
        let both = huge.and(huge);
        assert_eq!((both.input_tokens, both.output_tokens, both.cost_micros, both.calls), (u64::MAX, 2, 10, 2));
    }

    #[test]
    fn what_one_of_two_says_is_said() {
        let calls = Usage { calls: 1, unsaid: Unsaid { calls: false, ..Unsaid::ALL }, ..Usage::default() };
        let both = Usage::UNSAID.and(calls);
        assert_eq!(both.unsaid, Unsaid { tokens: true, cost: true, calls: false });
        assert_eq!(both.and(Usage::default()).unsaid, Unsaid::default());
    }
}
