//! `approvals` and `governance`: what waits for a person, and deciding it.

use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use autopack_shared::domain::ids::Digest;
use autopack_shared::wire::pb::{Choice, ListRequestsRequest, Request, RequestDetail, WatchRequestsRequest};

use super::decide::{self, Decision, detail, record};
use crate::args::operate::{Approvals, Approve, Governance, Reject, RequestsList, RequestsWatch};
use crate::connect::{Need, connect};
use crate::console::Console;
use crate::context::Context;
use crate::drive::Leave;
use crate::exit::{CliError, During as _, Exit};
use crate::output::tagged;
use crate::show::{request_json, span};
use crate::terminal::{Table, line};

/// Runs `approvals`.
pub(crate) async fn run(ctx: &Context, command: Approvals) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Approvals::List(args) => list(ctx, args).await,
        Approvals::Show(args) => show(ctx, &args.id).await,
        Approvals::Approve(args) => approve(ctx, args).await,
        Approvals::Reject(args) => reject(ctx, args).await,
        Approvals::Watch(args) => watch(ctx, args).await,
    }
}

/// Runs `governance`: the same under the seed's names.
pub(crate) async fn governance(ctx: &Context, command: Governance) -> Result<Exit, CliError> {
    let list = |args: RequestsWatch, all| RequestsList { run_id: args.run_id, state: Vec::new(), all, limit: 100 };
    let command = match command {
        Governance::Pending(args) => Approvals::List(list(args, false)),
        Governance::Request(args) => Approvals::Show(args),
        Governance::History(args) => Approvals::List(list(args, true)),
    };
    Box::pin(run(ctx, command)).await
}

async fn list(ctx: &Context, args: RequestsList) -> Result<Exit, CliError> {
    let states =
        if args.all { vec!["ALL".to_owned()] } else { args.state.iter().map(|state| state.to_uppercase()).collect() };
    let all = args.all || !args.state.is_empty();
    let run_id = args.run_id.map(String::from).unwrap_or_default();
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.governance.list(ListRequestsRequest { states, run_id, limit: args.limit }).await;
    session.close().await;
    let requests = answer.during("list requests")?.into_inner().requests;
    if ctx.out.machine() {
        ctx.out.list("requests", "request", requests.iter().map(request_json).collect())?;
    } else if requests.is_empty() {
        let (what, next) = if all {
            ("no requests", "autopack runs list")
        } else {
            ("nothing waits for a decision", "autopack approvals list --all")
        };
        ctx.out.note(&format!("{what}; next: {next}"));
    } else {
        ctx.out.table(&table(ctx, &requests))?;
        if !all {
            ctx.out.note("next: autopack approvals show ID");
        }
    }
    Ok(Exit::Done)
}

fn table(ctx: &Context, requests: &[Request]) -> Table {
    let now = ctx.clock.wall().as_millis();
    let mut table = Table::new(["ID", "STATE", "TIER", "RISK", "LEFT", "RUN", "PHASE", "PATHS"]);
    for request in requests {
        let left = if request.state == "PENDING" { span(request.expires_at_ms - now) } else { "-".to_owned() };
        table.row([
            request.id.clone(),
            request.state.clone(),
            request.tier.to_string(),
            request.risk_level.clone(),
            left,
            request.run_id.clone(),
            request.phase_id.clone(),
            request.violated_paths.join(" "),
        ]);
    }
    table
}

fn detail_json(found: &RequestDetail) -> Value {
    let request = found.request.as_ref().map(request_json).unwrap_or_default();
    let votes = found
        .votes
        .iter()
        .map(|vote| json!({ "principal": vote.principal, "approve": vote.approve, "notes": vote.notes }));
    tagged(
        "request_detail",
        json!({
            "request": request, "goal": found.goal, "votes": votes.collect::<Vec<_>>(),
            "verdict": serde_json::from_str::<Value>(&found.verdict_json).unwrap_or(Value::Null),
            "diff": String::from_utf8_lossy(&found.diff), "diff_truncated": found.diff_truncated,
        }),
    )
}

async fn show(ctx: &Context, id: &str) -> Result<Exit, CliError> {
    let found = look(ctx, id).await?;
    if ctx.out.machine() {
        ctx.out.document(&detail_json(&found))?;
        return Ok(Exit::Done);
    }
    ctx.out.text(&decide::text(&found, ctx.clock.wall(), ctx.out.data_color, true))?;
    if let Some(request) = found.request.filter(|request| request.state == "PENDING") {
        let (id, digest) = (line(&request.id), line(&request.subject_digest));
        ctx.out.note(&format!("next: autopack approvals approve {id} --expect-digest {digest} --reason '...'"));
        ctx.out.note(&format!("  or: autopack approvals reject {id} --reason '...'"));
    }
    Ok(Exit::Done)
}

/// Looks at a request and lets go of the engine: nobody else waits while a person reads.
async fn look(ctx: &Context, id: &str) -> Result<RequestDetail, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let found = detail(&mut session, id).await;
    session.close().await;
    found
}

async fn approve(ctx: &Context, args: Approve) -> Result<Exit, CliError> {
    let id = args.named.id;
    let (id, digest) = match args.expect_digest {
        Some(digest) => (id, digest),
        None => match confirmed(ctx, &id).await? {
            Some(request) => (request.id, request.subject_digest),
            None => {
                ctx.out.note("not approved");
                return Ok(Exit::Waiting);
            }
        },
    };
    let decision = Decision { request: id, choice: Choice::Approve, digest, reason: args.reason, code: String::new() };
    decided(ctx, decision).await
}

/// Shows a request and asks whether exactly this is approved; refused where nobody can be asked.
async fn confirmed(ctx: &Context, id: &str) -> Result<Option<Request>, CliError> {
    let found = look(ctx, id).await?;
    let Some(request) = &found.request else { return Ok(None) };
    if !ctx.out.interactive || ctx.out.machine() {
        return Err(CliError::invalid(
            format!("cannot approve {}", request.id),
            "an approval names the digest of what was looked at, and nobody can be asked here",
            format!(
                "read it (autopack approvals show {0}), then: autopack approvals approve {0} --expect-digest {1}",
                request.id, request.subject_digest
            ),
        ));
    }
    ctx.out.note(&decide::text(&found, ctx.clock.wall(), ctx.out.color, true));
    let mut console = Console::new(&ctx.out);
    console.done();
    let answer = console.ask("approve exactly this change? [y/N]").await?;
    let yes = answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "y" | "yes"));
    Ok(found.request.filter(|_| yes))
}

async fn reject(ctx: &Context, args: Reject) -> Result<Exit, CliError> {
    let (id, digest) = match args.expect_digest {
        Some(digest) => (args.named.id, digest),
        None => {
            let found = look(ctx, &args.named.id).await?;
            found.request.map(|request| (request.id, request.subject_digest)).unwrap_or_default()
        }
    };
    decided(ctx, Decision { request: id, choice: Choice::Reject, digest, reason: args.reason, code: args.code }).await
}

async fn decided(ctx: &Context, decision: Decision) -> Result<Exit, CliError> {
    // A digest that was cut or mistyped is about no change at all, and so about another one than this.
    if decision.digest.starts_with("sha256:") && decision.digest.parse::<Digest>().is_err() {
        let why = format!("{} is no whole digest", decision.digest);
        let fix = format!("look again: autopack approvals show {}", decision.request);
        let what = format!("cannot decide the request {}", decision.request);
        return Err(CliError::refused("approval_subject_mismatch", what, why, fix));
    }
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = record(ctx, &mut session, decision).await;
    let attached = !session.owns();
    session.close().await;
    let request = answer?;
    if ctx.out.machine() {
        ctx.out.document(&tagged("request", request_json(&request)))?;
    } else {
        ctx.out.text(&format!("{} {}\n", line(&request.id), request.state))?;
    }
    if request.state == "PENDING" {
        ctx.out.note(&format!("{} of {} approvals are there", request.approvers_so_far, request.approvers_needed));
    } else if attached {
        ctx.out.note(&format!("the running engine goes on with it: autopack runs watch {}", line(&request.run_id)));
    } else {
        ctx.out.note(&format!(
            "recorded; nothing is running here, so next: autopack runs resume {}",
            line(&request.run_id)
        ));
    }
    Ok(Exit::Done)
}

async fn watch(ctx: &Context, args: RequestsWatch) -> Result<Exit, CliError> {
    let run_id = args.run_id.map(String::from).unwrap_or_default();
    let mut leave = Leave::new()?;
    let mut session = connect(ctx, Need::Passive).await?;
    if session.owns() {
        session.close().await;
        ctx.out.note("no engine is running here, so nothing will change; next: autopack up");
        let list = RequestsList { run_id: run_id.parse().ok(), state: Vec::new(), all: false, limit: 100 };
        return self::list(ctx, list).await;
    }
    let watched = session.governance.watch(WatchRequestsRequest { run_id }).await.during("watch requests");
    let ended = match watched {
        Ok(stream) => tokio::select! {
            done = print_all(ctx, stream.into_inner()) => done,
            () = leave.asked() => Ok(Exit::Interrupted),
        },
        Err(error) => Err(error),
    };
    session.close().await;
    if matches!(ended, Ok(Exit::Interrupted)) {
        ctx.out.note("left; watch again with: autopack approvals watch");
    }
    ended
}

async fn print_all(ctx: &Context, mut stream: tonic::Streaming<Request>) -> Result<Exit, CliError> {
    while let Some(request) = stream.next().await {
        let request = request.during("watch requests")?;
        if ctx.out.machine() {
            ctx.out.event(&tagged("request", request_json(&request)))?;
        } else {
            let paths = request.violated_paths.join(" ");
            let text = format!(
                "{}  {}  tier {}  {}/{}  {paths}",
                request.id, request.state, request.tier, request.run_id, request.phase_id
            );
            ctx.out.text(&format!("{}\n", line(&text)))?;
        }
    }
    ctx.out.note("the engine ended; watch again with: autopack approvals watch");
    Ok(Exit::Unavailable)
}
