//! Settings of the host as limits of its director.

use autopack_shared::domain::breaker::BreakerConfig;
use autopack_shared::domain::budget::{BudgetConfig, Caps, micros};
use autopack_shared::runtime::config::{ScopeSettings, SpendSettings};
use autopack_supervisor::director::{DirectorConfig, Governing, Retention};

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
    let retention = Retention { days: spend.transcript_days, bytes: u64::from(spend.transcript_mib) << 20 };
    DirectorConfig { governing: Governing { budgets, breakers, retention }, ..DirectorConfig::default() }
}

fn caps(scope: &ScopeSettings) -> Caps {
    let ScopeSettings { tokens, cost, calls, seconds, files } = *scope;
    Caps { tokens, cost_micros: cost.map(micros), calls, seconds, files }
}
