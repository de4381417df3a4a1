//! `runs submit`: a run file becomes a run.

use std::io::Read as _;
use std::path::Path;

use autopack_shared::domain::run_file::{RunFile, RunLimits};
use autopack_shared::runtime::config::LimitSettings;
use autopack_shared::wire::pb::{SubmitRequest, SubmitResponse};

use super::drive_one;
use crate::args::runs::Submit;
use crate::connect::{Need, Session, connect};
use crate::context::Context;
use crate::drive::Manner;
use crate::exit::{CliError, During as _, Exit};
use crate::output::tagged;
use crate::show::run_json;
use crate::terminal::line;

/// Runs `runs submit`.
pub(super) async fn run(ctx: &Context, args: Submit) -> Result<Exit, CliError> {
    let mut file = read(&args.file)?;
    if let Some(id) = args.run_id {
        file.run_id.get_or_insert(id);
    }
    file.limits = limits(file.limits, &ctx.host_settings()?.limits);
    let need = if args.watch { Need::Drive } else { Need::Record };
    let mut session = connect(ctx, need).await?;
    let answer = submit(ctx, &mut session, &file, "", args.insecure_no_sandbox).await;
    let attached = !session.owns();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            session.close().await;
            return Err(error);
        }
    };
    answer.warnings.iter().for_each(|warning| ctx.out.warn(&line(warning)));
    let run = answer.run.unwrap_or_default();
    let word = if answer.created { "submitted" } else { "is there already with the same file" };
    if ctx.out.machine() && !args.watch {
        ctx.out.document(&tagged("run", run_json(&run)))?;
    } else if !ctx.out.machine() {
        ctx.out.text(&format!("{} {word}: {} phase(s)\n", line(&run.id), run.phases.len()))?;
    }
    if args.watch {
        let manner = Manner { wait: ctx.out.interactive, data: true, ..Manner::default() };
        return drive_one(ctx, session, &run.id, manner).await;
    }
    session.close().await;
    let next = if attached { "watch" } else { "resume" };
    ctx.out.note(&format!("next: autopack runs {next} {}", line(&run.id)));
    Ok(Exit::Done)
}

/// Records a run.
pub(crate) async fn submit(
    ctx: &Context,
    session: &mut Session,
    file: &RunFile,
    plan_digest: &str,
    insecure_no_sandbox: bool,
) -> Result<SubmitResponse, CliError> {
    let call = SubmitRequest {
        idempotency_key: ctx.ids.fresh("submit"),
        run_file_json: serde_json::to_string(file).map_err(std::io::Error::from).during("write the run file")?,
        plan_digest: plan_digest.to_owned(),
        insecure_no_sandbox,
        fork_commit: String::new(),
    };
    let name = file.run_id.as_ref().map_or_else(|| "the run".to_owned(), |id| format!("the run {id}"));
    Ok(session.runs.submit(call).await.during(format!("submit {name}"))?.into_inner())
}

fn read(path: &Path) -> Result<RunFile, CliError> {
    let name = path.display().to_string();
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).during("read the run file from stdin")?;
        text
    } else {
        std::fs::read_to_string(path).during(format!("read {name}"))?
    };
    let bad = |why: String| {
        CliError::invalid(format!("{name} is no run file"), why, "autopack runs submit --help shows an example")
    };
    // YAML reads JSON as well.
    let file: RunFile = serde_norway::from_str(&text).map_err(|error| bad(error.to_string()))?;
    file.validate().map_err(|error| bad(error.to_string()))?;
    Ok(file)
}

/// The run's own bounds, and where it names none, the host's.
pub(crate) fn limits(own: RunLimits, host: &LimitSettings) -> RunLimits {
    RunLimits {
        tokens: own.tokens.or(host.tokens),
        seconds: own.seconds.or(host.seconds),
        files: own.files.or(host.files),
        cost: own.cost.or(host.cost),
        calls: own.calls.or(host.calls),
    }
}
