//! The same by a supervisor elsewhere: a worker scans the commit that is meant, and the supervisor plans over it.

use std::io;

use serde::de::DeserializeOwned;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::gap::GapReportV1;
use autopack_shared::domain::ids::Oid;
use autopack_shared::domain::plan::PlanProposalV1;
use autopack_shared::domain::project::ProjectConfig;
use autopack_shared::wire::pb::{PlanResponse, SurveyRequest};

use super::{Survey, Wish};
use crate::connect::{Need, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _};
use crate::rules::{Rules, read_anchor};
use crate::terminal::line;

/// A plan and what it was made over.
pub(crate) struct Planned {
    /// What was found, with the anchor the plan was made under.
    pub(crate) survey: Survey,
    /// The plan.
    pub(crate) plan: PlanProposalV1,
}

/// What is asked of the supervisor.
pub(crate) fn request(wish: &Wish) -> Result<SurveyRequest, CliError> {
    let anchor = wish.anchor.as_deref().map(read_anchor).transpose()?;
    let anchor = anchor.map(|anchor| serde_json::to_string(&anchor)).transpose().map_err(io::Error::from);
    Ok(SurveyRequest {
        run_id: wish.run.to_string(),
        at: wish.at.clone().unwrap_or_default(),
        since: wish.since.clone().unwrap_or_default(),
        deep: wish.deep,
        anchor_json: anchor.during("send the anchor")?.unwrap_or_default(),
    })
}

/// What is wrong at a commit.
pub(crate) async fn gaps(ctx: &Context, wish: &Wish) -> Result<GapReportV1, CliError> {
    let call = request(wish)?;
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.runs.gaps(call).await.during("scan the project");
    session.close().await;
    let answer = answer?.into_inner();
    warn(ctx, &answer.warnings);
    read("report", &answer.report_json)
}

/// What would be done about it.
pub(crate) async fn plan(ctx: &Context, wish: &Wish) -> Result<Planned, CliError> {
    let call = request(wish)?;
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.runs.plan(call).await.during("plan for the project");
    session.close().await;
    planned(ctx, &answer?.into_inner())
}

/// Reads a plan of the supervisor's, and tells what it has to say beside it.
pub(crate) fn planned(ctx: &Context, answer: &PlanResponse) -> Result<Planned, CliError> {
    warn(ctx, &answer.warnings);
    let head = answer.commit.parse::<Oid>().during("read the commit that was scanned")?;
    let anchor = if answer.anchor_json.is_empty() {
        None
    } else {
        Some(read::<IntentionAnchorV2>("anchor", &answer.anchor_json)?)
    };
    // The rest of the rules stays where the plan was made.
    let rules = Rules { config: ProjectConfig::default(), anchor, notes: Vec::new() };
    let report = read("report", &answer.report_json)?;
    Ok(Planned { survey: Survey { head, rules, report }, plan: read("plan", &answer.plan_json)? })
}

fn warn(ctx: &Context, warnings: &[String]) {
    warnings.iter().for_each(|warning| ctx.out.warn(&line(warning)));
}

fn read<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, CliError> {
    serde_json::from_str(text).map_err(|error| {
        let why = format!("the supervisor's {what}: {error}");
        CliError::refused("version", "the answer cannot be read", why, "run the same autopack on both sides")
    })
}
