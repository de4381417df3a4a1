//! What some measurements say together.

use std::time::Duration;

use serde_json::{Value, json};

/// Measurements of one thing.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample(Vec<f64>);

impl Sample {
    /// One value.
    #[cfg(test)]
    pub(super) fn of(value: f64) -> Self {
        Self(vec![value])
    }

    /// Adds one.
    pub(super) fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|other| *other < value);
        self.0.insert(at, value);
    }

    /// Adds a duration, in milliseconds.
    pub(super) fn add_millis(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    /// Adds how many a second there were.
    pub(super) fn add_rate(&mut self, count: u32, time: Duration) {
        self.add(f64::from(count) / time.as_secs_f64().max(1e-9));
    }

    /// The value that `share` of all are not above.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last);
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// All but one of twenty are not above it.
    pub(super) fn p95(&self) -> f64 {
        self.quantile(0.95)
    }

    /// The smallest and the largest.
    pub(super) fn range(&self) -> (f64, f64) {
        (self.quantile(0.0), self.quantile(1.0))
    }

    /// As a document.
    pub(super) fn json(&self) -> Value {
        let (min, max) = self.range();
        json!({ "n": self.0.len(), "median": self.median(), "p95": self.p95(), "min": min, "max": max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut sample = Sample::default();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0] {
            sample.add(value);
        }
        assert_eq!((sample.median(), sample.p95(), sample.range()), (3.0, 5.0, (1.0, 5.0)));
        assert_eq!(Sample::of(7.0).median(), 7.0);
        let mut twenty = Sample::default();
        (1..=20).for_each(|value| twenty.add(f64::from(value)));
        assert_eq!((twenty.median(), twenty.p95()), (10.0, 19.0));
    }
}
