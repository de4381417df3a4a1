//! What an attempt that ended has used, what its end says of its surroundings, and whether a budget ended it.

use autopack_shared::domain::breaker::{is_of_provider, was_not_asked, word_of};
use autopack_shared::domain::budget::{Bound, Ending, Short, Spend, Stop};
use autopack_shared::domain::record::{Lease, Phase, Principal};
use autopack_shared::domain::usage::{Unsaid, Usage};
use autopack_shared::wire::pb;

use crate::director::breaker::{self, Heard};
use crate::director::budget::Met;
use crate::director::{Governing, budget, moves};
use crate::error::Error;
use crate::store::Tx;

/// What a builder says that was not allowed to use any more.
const BUDGET_EXHAUSTED: &str = "budget_exhausted";

/// How an attempt stands to the budgets it falls in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// None of them ended it.
    Plain,
    /// A wider one than its own did; what it got and was not enough, where others hold the rest.
    Short(Option<Short>),
}

/// Settles what an attempt reserved, and says what its end means to others.
pub(super) async fn settle(
    tx: &mut dyn Tx,
    phase: &Phase,
    lease: &Lease,
    result: &pb::AttemptResult,
    governing: &Governing,
) -> Result<Account, Error> {
    let failed = result.outcome() == pb::Outcome::Failed;
    let usage = usage(result, failed);
    // By the supervisor's clock; what was begun counts.
    let millis = u64::try_from(tx.now().millis_since(lease.granted_at)).unwrap_or(0);
    let seconds = millis.div_ceil(1000);
    let spend = budget::settle(tx, lease, Ending::Reported(usage, seconds)).await?;
    let bound = spend.as_ref().filter(|_| failed).and_then(|spend| short_of(spend, result, seconds, governing));
    // Time that a budget cut short says nothing of the builder.
    let reason = if bound.is_some() { BUDGET_EXHAUSTED } else { result.reason.as_str() };
    let heard = Heard {
        word: word_of(failed.then_some(reason), usage.is_some_and(|usage| usage.tokens() > 0)),
        reason,
        credential: &result.credential,
        retry_after_ms: result.retry_after_ms,
    };
    breaker::heard(tx, phase, &lease.project, heard, &governing.breakers).await?;
    let (Some(spend), Some(bound), Some(mut run)) = (spend, bound, tx.run(&lease.run).await?) else {
        return Ok(Account::Plain);
    };
    Ok(match budget::met(tx, &run, phase, bound, &governing.budgets).await? {
        Met::Held => Account::Short(spend.granted.get(bound.unit).map(|got| Short { unit: bound.unit, got })),
        Met::Budget(hit) => {
            // It pauses when its lease is released, which is next.
            let why = hit.to_string();
            run.budget.hit = Some(hit);
            moves::update_run(tx, &mut run, &Principal::system(), &why).await?;
            Account::Short(None)
        }
    })
}

/// What its models were asked for: what its worker says; nothing where it was never asked, or where a provider gave no
/// answer; and where nobody knows, none. A change that came of no call at all is not believed.
fn usage(result: &pb::AttemptResult, failed: bool) -> Option<Usage> {
    let said = result.usage.map(|usage| Usage {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cost_micros: usage.cost_micros,
        calls: usage.calls,
        unsaid: Unsaid { tokens: usage.tokens_unsaid, cost: usage.cost_unsaid, calls: usage.calls_unsaid },
    });
    let nothing = failed && (is_of_provider(&result.reason) || was_not_asked(&result.reason));
    said.filter(|usage| failed || *usage != Usage::default()).or(nothing.then(Usage::default))
}

/// The wider budget that ended an attempt before it was done, if one did.
fn short_of(spend: &Spend, result: &pb::AttemptResult, seconds: u64, governing: &Governing) -> Option<Bound> {
    match result.reason.as_str() {
        BUDGET_EXHAUSTED => {
            let call = governing.budgets.call;
            let of_call = call.tokens.is_some() || call.cost_micros.is_some();
            spend.ended_by(Stop::read(&result.budget_unit), of_call)
        }
        // A builder whose time is up while its provider has not answered says the one or the other.
        "timeout" | "provider_unavailable" => spend.out_of_time(seconds),
        _ => None,
    }
}
