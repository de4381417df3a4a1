//! `builders`: which builders are left alone because they failed again and again, and how one is used again.

use serde_json::{Value, json};

use autopack_shared::domain::ids::Timestamp;
use autopack_shared::wire::pb::{Builder, BuildersRequest, ResetBuilderRequest};

use crate::args::operate::Builders;
use crate::connect::{Need, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::output::tagged;
use crate::show::clock;
use crate::terminal::{Table, line};

/// Runs `builders`.
pub(crate) async fn run(ctx: &Context, command: Builders) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Builders::List(_) => list(ctx).await,
        Builders::Reset(args) => reset(ctx, args.builder, args.reason).await,
    }
}

async fn list(ctx: &Context) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.builders(BuildersRequest {}).await;
    session.close().await;
    let builders = answer.during("list builders")?.into_inner().builders;
    if ctx.out.machine() {
        ctx.out.list("builders", "builder", builders.iter().map(builder_json).collect())?;
        return Ok(Exit::Done);
    }
    if builders.is_empty() {
        ctx.out.note("no builder has failed; next: autopack runs list");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["BUILDER", "STATE", "FAILURES", "TRIED AGAIN", "CREDENTIAL", "WHY"]);
    for one in &builders {
        let when = |millis: i64| if millis > 0 { clock(millis) } else { "-".to_owned() };
        let probe = if one.probe.is_empty() { when(one.probes_at_ms) } else { format!("by {}", line(&one.probe)) };
        let rests = match one.credential_rests_until_ms {
            0 => String::new(),
            until => format!(" (rests until {})", clock(until)),
        };
        let credential =
            if one.credential.is_empty() { "-".to_owned() } else { format!("{}{rests}", line(&one.credential)) };
        let (name, state) = (line(&one.builder), one.state.to_uppercase());
        table.row([name, state, one.failures.to_string(), probe, credential, line(&one.reason)]);
    }
    ctx.out.table(&table)?;
    Ok(Exit::Done)
}

async fn reset(ctx: &Context, builder: String, reason: String) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.reset_builder(ResetBuilderRequest { builder: builder.clone(), reason }).await;
    session.close().await;
    let found = answer.during(format!("reset the builder {}", line(&builder)))?.into_inner();
    if ctx.out.machine() {
        ctx.out.document(&tagged("builder", builder_json(&found)))?;
    } else {
        ctx.out.text(&format!("{} is used again\n", line(&found.builder)))?;
    }
    Ok(Exit::Done)
}

fn builder_json(builder: &Builder) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let at = |millis: i64| (millis > 0).then(|| Timestamp::from_millis(millis));
    json!({
        "builder": builder.builder, "state": builder.state, "failures": builder.failures, "reason": some(&builder.reason),
        "opened_at": at(builder.opened_at_ms), "probes_at": at(builder.probes_at_ms), "probe": some(&builder.probe),
        "credential": some(&builder.credential), "credential_rests_until": at(builder.credential_rests_until_ms),
    })
}
