//! An agent in a sandbox: what it is told of the tree and of its model, and what its way out knows of what it did there.

use std::path::Path;

use autopack_shared::domain::budget::Stop;
use autopack_shared::domain::project::ModelConfig;
use autopack_shared::domain::usage::{Unsaid, Usage};

use crate::builder::BuildError;
use crate::egress::{Egress, Seen};
use crate::process::Cage;
use crate::providers::Provider;
use crate::sandbox::WS;

/// The way out of a cage.
pub(super) fn egress(cage: &Cage) -> Option<&Egress> {
    match cage {
        Cage::None => None,
        Cage::Sandboxed(_, place) => place.egress.as_deref(),
    }
}

/// The tree as an agent knows it.
pub(super) fn tree(cage: &Cage, tree: &Path) -> Result<String, BuildError> {
    match cage {
        Cage::Sandboxed(..) => Ok(WS.to_owned()),
        Cage::None => {
            let tree = tree.canonicalize().map_err(|e| BuildError::of("workspace", &e))?;
            Ok(tree.display().to_string())
        }
    }
}

/// The model with its provider, as the agent is told of them.
pub(super) fn model<'a>(
    cage: &Cage,
    asked: Option<(&'a ModelConfig, &'a Provider)>,
    shown: Option<&'a Provider>,
) -> Result<Option<(&'a ModelConfig, &'a Provider)>, BuildError> {
    match (cage, asked, shown) {
        (Cage::None, asked, _) => Ok(asked),
        (Cage::Sandboxed(..), None, _) => Ok(None),
        (Cage::Sandboxed(..), Some((model, _)), Some(shown)) => Ok(Some((model, shown))),
        (Cage::Sandboxed(..), Some(_), None) => Err(BuildError::new("sandbox_failed", "no way leads to its model")),
    }
}

/// The same cage, into which these variables of the agent's plan go too, and its home.
pub(super) fn with_variables(cage: &Cage, plan: &[(String, String)]) -> Cage {
    let mut cage = cage.clone();
    if let Cage::Sandboxed(_, place) = &mut cage {
        place.variables.push("HOME".to_owned());
        place.variables.extend(plan.iter().map(|(name, _)| name.clone()));
    }
    cage
}

/// What was used: what an agent says of itself, and no less than what went over the wire.
pub(super) fn measured(egress: Option<&Egress>, said: Usage) -> Usage {
    // Without a route to a model nothing was seen of it.
    let Some(seen) = egress.filter(|egress| egress.shown().is_some()).map(Egress::usage) else { return said };
    Usage {
        unsaid: Unsaid::default(),
        input_tokens: said.input_tokens.max(seen.input_tokens),
        output_tokens: said.output_tokens.max(seen.output_tokens),
        cost_micros: said.cost_micros.max(seen.cost_micros),
        calls: said.calls.max(seen.calls),
    }
}

/// Why an agent failed: what its provider did last says more than the agent's own end, and is no fault of the agent.
pub(super) fn cause(egress: Option<&Egress>, credential: Option<&str>, error: BuildError) -> BuildError {
    let (Some(seen), Some(name)) = (egress.map(Egress::seen), credential) else { return error };
    if !matches!(error.reason, "builder_failed" | "agent_protocol" | "timeout") {
        return error;
    }
    let told = |reason, what: &str| BuildError::new(reason, format!("{name} {what}; {}", error.message));
    match seen {
        Seen::Well => error,
        Seen::Busy(left) => told("provider_rate_limited", "answered 429").of_credential(name, left),
        Seen::Away => {
            told("provider_unavailable", "did not answer, or with an error of its own").of_credential(name, None)
        }
        Seen::Refuses(status) => told("provider_refused", &format!("answered {status}")).of_credential(name, None),
        Seen::UsedUp(unit) => {
            let text = format!("{name} was not asked any more: the attempt's allowance is used up; {}", error.message);
            BuildError::exhausted(Stop::Unit(unit), text)
        }
    }
}
