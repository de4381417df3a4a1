//! Settings of the host as limits of its director.

use autopack_shared::domain::breaker::BreakerConfig;
use autopack_shared::domain::budget::{BudgetConfig, Caps, micros};
use autopack_shared::runtime::config::{ScopeSettings, SpendSettings};
use autopack_supervisor::director::{DirectorConfig, Governing};

/// The director's limits.
pub(crate) fn director(spend: &SpendSettings) -> DirectorConfig {
    let budgets = BudgetConfig {
        call: caps(&spend.call),
        attempt: caps(&spend.attempt),
        phase: caps(&spend.phase),
        project: caps(&spend.project),
        day: caps(&spend.day),
    };
    let breakers = BreakerConfig {
        failures: spend.breaker_failures,
        cooldown_seconds: i64::from(spend.breaker_seconds),
        credential_uses: spend.credential_uses,
    };
    DirectorConfig { governing: Governing { budgets, breakers }, ..DirectorConfig::default() }
}

fn caps(scope: &ScopeSettings) -> Caps {
    let ScopeSettings { tokens, cost, calls, seconds, files } = *scope;
    Caps { tokens, cost_micros: cost.map(micros), calls, seconds, files }
}
