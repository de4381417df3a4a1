//! `gate try`, `gate flaky`, `gate baseline`: what the quality gate does here, and what it has learned.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::gate::{CommandReport, Observation, Source, Vanished, judge};
use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::project::FILE_NAME;
use autopack_shared::wire::pb::{Baseline, BaselinesRequest, FlakyTest, FlakyTestsRequest};
use autopack_worker::gate::{self, GateContext, MAX_REPORT};
use autopack_worker::process::Cage;
use autopack_worker::process::output::Output;

use crate::args::local::{GateBaseline, GateFlaky, GateTry};
use crate::connect::{Need, builder_env, connect};
use crate::context::Context;
use crate::drive::Leave;
use crate::exit::{CliError, During as _, Exit};
use crate::rules::config_on_disk;
use crate::terminal::{Table, Tone, line, paint};

/// Tests that are shown of a command.
const SHOWN: usize = 20;

/// Bytes of output that are read of one command.
const LOG_BUDGET: u64 = 64 * 1024 * 1024;

/// `gate try`: each command, once more where it fails, in the work tree as it is.
pub(super) async fn attempt(ctx: &Context, args: &GateTry) -> Result<Exit, CliError> {
    let place = ctx.place()?;
    let config = config_on_disk(&place.root)?;
    let mut commands = config.gate.commands;
    commands.retain(|command| args.only.as_ref().is_none_or(|only| *only == command.name));
    if commands.is_empty() {
        let (why, fix) = match &args.only {
            Some(only) => (format!("{FILE_NAME} has no gate command {only:?}"), "see [[gate.commands]] there"),
            None => (format!("{FILE_NAME} has no gate command"), "add [[gate.commands]] there: see docs/GATES.md"),
        };
        return Err(CliError::refused("not_found", "there is nothing to try", why, fix));
    }
    let scratch = tempfile::tempdir().during("make a folder for reports")?;
    let context = GateContext {
        tree: place.root.clone(),
        scratch: scratch.path().to_path_buf(),
        env: builder_env(ctx),
        lease: "gate-try".to_owned(),
        log_budget: LOG_BUDGET,
        cage: Cage::None,
        frozen: tokio::sync::watch::channel(false).1,
        report_limit: MAX_REPORT,
    };
    let (mut leave, cancel) = (Leave::new()?, CancellationToken::new());
    let mut reports = Vec::new();
    for command in commands {
        let command = command.as_command();
        let tried = async {
            let first = gate::observe(&context, &command, &Output::default(), &cancel).await?;
            let again = !first.failures().is_empty();
            let second =
                if again { Some(gate::observe(&context, &command, &Output::default(), &cancel).await?) } else { None };
            Ok::<_, autopack_worker::builder::BuildError>((first, second))
        };
        tokio::pin!(tried);
        let ended = tokio::select! {
            ended = &mut tried => ended,
            () = leave.asked() => {
                cancel.cancel();
                tried.await
            }
        };
        let Ok((first, second)) = ended else { return Ok(Exit::Interrupted) };
        let runs: Vec<&Observation> = std::iter::once(&first).chain(&second).collect();
        // There is no base here, so nothing is said of what vanished.
        let verdict = judge(None, &runs, Vanished::Report);
        let ends = runs.iter().map(|run| run.end.clone()).collect();
        let tests = runs.last().map_or(0, |run| run.count());
        let report = CommandReport::new(&command.name, ends, tests, verdict, Source::NotNeeded);
        if !ctx.out.machine() {
            ctx.out.text(&told(&report, ctx.out.data_color))?;
        }
        reports.push(report);
    }
    if ctx.out.machine() {
        ctx.out.document(&json!({ "format": "gate_try/1", "commands": reports }))?;
    }
    Ok(if reports.iter().all(|report| report.green) { Exit::Done } else { Exit::WorkFailed })
}

fn told(report: &CommandReport, color: bool) -> String {
    let tone = if report.green { Tone::Good } else { Tone::Bad };
    let mut text = format!("{} ({} tests)\n", paint(color, tone, &line(&report.line())), report.tests);
    for finding in report.new.iter().take(SHOWN) {
        let name = if finding.test.is_empty() { "the command" } else { &finding.test };
        text.push_str(&format!("  {}: {}\n", line(name), line(finding.message.trim_end())));
    }
    for name in report.flaky.iter().take(SHOWN) {
        text.push_str(&format!("  flaky: {}\n", line(if name.is_empty() { &report.name } else { name })));
    }
    text
}

/// `gate flaky`.
pub(super) async fn flaky(ctx: &Context, args: &GateFlaky) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.flaky_tests(FlakyTestsRequest { limit: args.limit }).await;
    session.close().await;
    let tests = answer.during("list flaky tests")?.into_inner().tests;
    if ctx.out.machine() {
        ctx.out.list("flaky_tests", "flaky_test", tests.iter().map(flaky_json).collect())?;
    } else if tests.is_empty() {
        ctx.out.note("no gate has seen a flaky test; next: autopack gate try");
    } else {
        let mut table = Table::new(["COMMAND", "TEST", "SEEN", "LAST", "RUN"]);
        for test in &tests {
            let name = if test.test.is_empty() { "(the command)" } else { &test.test };
            let last = Timestamp::from_millis(test.last_seen_ms).to_string();
            table.row([test.command.clone(), name.to_owned(), test.count.to_string(), last, test.last_run.clone()]);
        }
        ctx.out.table(&table)?;
    }
    Ok(Exit::Done)
}

fn flaky_json(test: &FlakyTest) -> Value {
    json!({
        "command": test.command, "test": test.test, "count": test.count, "last_run": test.last_run,
        "first_seen": Timestamp::from_millis(test.first_seen_ms), "last_seen": Timestamp::from_millis(test.last_seen_ms),
    })
}

/// `gate baseline`.
pub(super) async fn baseline(ctx: &Context, args: &GateBaseline) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let call = BaselinesRequest { base: args.base.to_string(), forget: args.forget, reason: args.reason.clone() };
    let answer = session.admin.baselines(call).await;
    session.close().await;
    let known = answer.during(format!("look at what is known of {}", args.base.short()))?.into_inner().baselines;
    if ctx.out.machine() {
        ctx.out.list("baselines", "baseline", known.iter().map(baseline_json).collect())?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for one in &known {
        let short = one.command.get(..19).unwrap_or(&one.command);
        text.push_str(&format!("{short}  exits with {}, {} tests ran\n", one.code, one.tests));
        for (what, names) in [("fails", &one.failing), ("flaky", &one.flaky)] {
            for name in names.iter().take(SHOWN) {
                text.push_str(&format!(
                    "  {what}: {}\n",
                    if name.is_empty() { "the command".to_owned() } else { line(name) }
                ));
            }
        }
    }
    ctx.out.text(&text)?;
    match (known.is_empty(), args.forget) {
        (true, _) => ctx.out.note("nothing is known of this commit; a gate that needs it measures it"),
        (false, true) => ctx.out.note("forgotten; the next gate that needs it measures it"),
        (false, false) => {}
    }
    Ok(Exit::Done)
}

fn baseline_json(known: &Baseline) -> Value {
    json!({
        "command": known.command, "code": known.code, "failing": known.failing, "flaky": known.flaky,
        "tests": known.tests, "whole": known.whole,
    })
}
