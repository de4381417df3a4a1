//! `runs logs`: what happened, and what happens; `runs transcript`: what a builder printed.

use serde_json::json;
use tokio_stream::StreamExt as _;

use autopack_shared::domain::ids::{Digest, RunId};
use autopack_shared::wire::pb::{Event, TranscriptHead, TranscriptRequest, WatchRequest, transcript_part};

use crate::args::runs::{Logs, Transcript};
use crate::connect::{Need, Session, attach_again, connect};
use crate::context::Context;
use crate::drive::Leave;
use crate::exit::{CliError, During as _, Exit};
use crate::show::{event_json, event_text};
use crate::terminal::block_bytes;

/// `runs logs`.
pub(super) async fn logs(ctx: &Context, args: &Logs) -> Result<Exit, CliError> {
    let phase = args.phase.as_ref().map(ToString::to_string);
    let run = &args.named.run;
    let mut session = connect(ctx, Need::Passive).await?;
    let fits = |event: &Event| phase.as_ref().is_none_or(|phase| *phase == event.phase_id);
    // Where nobody drives there is a history and no future, and holding the engine would only keep others out.
    let idle = session.owns();
    if args.follow && !idle {
        return follow(ctx, session, args, fits).await;
    }
    let printed = print_history(ctx, &mut session, run, (args.after, true), fits).await;
    session.close().await;
    if printed?.0 == 0 {
        ctx.out.note(&format!("no such events; next: autopack runs show {run}"));
    }
    if args.follow {
        ctx.out.note(&format!("no engine is running here; next: autopack runs resume {run}"));
    }
    Ok(Exit::Done)
}

/// Prints until the run ends or the person leaves; over a supervisor that goes away, if there is another.
async fn follow(
    ctx: &Context,
    mut session: Session,
    args: &Logs,
    fits: impl Fn(&Event) -> bool,
) -> Result<Exit, CliError> {
    let mut leave = Leave::new()?;
    let mut after = args.after;
    loop {
        let printed = tokio::select! {
            printed = print_history(ctx, &mut session, &args.named.run, (after, false), &fits) => printed,
            () = leave.asked() => {
                session.close().await;
                return Ok(Exit::Interrupted);
            }
        };
        session.close().await;
        match printed {
            Ok((_, _, None)) => return Ok(Exit::Done),
            Ok((_, last, Some(broken))) => {
                after = after.max(last);
                session = attach_again(ctx).await?.ok_or(broken)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Prints events: how many, the number of the last one that came, and what broke the stream, if it broke.
pub(super) async fn print_history(
    ctx: &Context,
    session: &mut Session,
    run: &RunId,
    (after_seq, once): (u64, bool),
    fits: impl Fn(&Event) -> bool,
) -> Result<(usize, u64, Option<CliError>), CliError> {
    let what = format!("read the history of the run {run}");
    let call = WatchRequest { run_id: run.to_string(), after_seq, once };
    let mut events = session.runs.watch(call).await.during(what.clone())?.into_inner();
    let (mut printed, mut last) = (0, after_seq);
    while let Some(event) = events.next().await {
        let event = match event.during(what.clone()) {
            Ok(event) => event,
            Err(error) if !once && error.exit() == Exit::Unavailable => return Ok((printed, last, Some(error))),
            Err(error) => return Err(error),
        };
        last = event.seq;
        if !fits(&event) {
            continue;
        }
        printed += 1;
        if ctx.out.machine() {
            ctx.out.event(&event_json(&event))?;
        } else {
            ctx.out.text(&format!("{}\n", event_text(&event, ctx.out.data_color)))?;
        }
    }
    Ok((printed, last, None))
}

/// `runs transcript`.
pub(super) async fn transcript(ctx: &Context, args: &Transcript) -> Result<Exit, CliError> {
    let (run, phase) = (&args.named.run, &args.phase);
    let call = TranscriptRequest {
        run_id: run.to_string(),
        phase_id: phase.to_string(),
        attempt: args.attempt.unwrap_or_default(),
        gate: args.gate.clone().unwrap_or_default(),
    };
    let mut session = connect(ctx, Need::Passive).await?;
    let got = receive(&mut session, call, format!("read what {phase} of the run {run} printed")).await;
    session.close().await;
    let (head, body) = got?;
    if Digest::of(&body).to_string() != head.digest {
        let what = format!("the transcript of {phase} cannot be shown");
        let why = format!("its bytes are not those of {}", head.digest);
        return Err(CliError::refused("internal", what, why, "autopack audit verify"));
    }
    if ctx.out.machine() {
        ctx.out.document(&json!({
            "format": "transcript/1", "run_id": run, "phase_id": phase, "attempt": head.attempt, "digest": head.digest,
            "gate": args.gate,
            "size": head.size, "text": String::from_utf8_lossy(&body),
        }))?;
    } else {
        ctx.out.text(&block_bytes(&body))?;
    }
    Ok(Exit::Done)
}

async fn receive(
    session: &mut Session,
    call: TranscriptRequest,
    what: String,
) -> Result<(TranscriptHead, Vec<u8>), CliError> {
    let mut parts = session.runs.transcript(call).await.during(what.clone())?.into_inner();
    let (mut head, mut body) = (TranscriptHead::default(), Vec::new());
    while let Some(part) = parts.next().await {
        match part.during(what.clone())?.body {
            Some(transcript_part::Body::Head(told)) => head = told,
            Some(transcript_part::Body::Data(data)) => body.extend(data),
            None => {}
        }
    }
    Ok((head, body))
}
