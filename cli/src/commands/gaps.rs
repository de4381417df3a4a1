//! `gaps scan`: what is wrong in the work tree, or at a commit of a project elsewhere.

mod sarif;

use std::fmt::Write as _;

use autopack_shared::domain::gap::{GapReportV1, RiskClass};
use autopack_shared::domain::ids::RunId;

use crate::args::local::{Gaps, GapsScan};
use crate::artifact::{self, RunDir};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::output::Format;
use crate::survey::{REPORT, Survey, Wish, far};
use crate::terminal::{Tone, line, paint};

/// Paths that are named before the rest is counted.
const SHOWN: usize = 5;

/// Runs `gaps`.
pub(crate) async fn run(ctx: &Context, command: Gaps) -> Result<Exit, CliError> {
    match command {
        Gaps::Scan(args) => scan(ctx, args).await,
    }
}

async fn scan(ctx: &Context, args: GapsScan) -> Result<Exit, CliError> {
    let run = args.run_id.map_or_else(|| default_run(ctx, "scan", args.write), Ok)?;
    let kept = if args.write { Some(RunDir::new(&ctx.kept_in()?, &run)) } else { None };
    let wish = Wish { run, since: args.since, deep: args.deep, anchor: None, at: args.at };
    let found = if ctx.is_remote() { far::gaps(ctx, &wish).await? } else { Survey::take(ctx, wish).await?.report };
    let report = &found;
    if let Some(dir) = kept {
        let path = dir.write_json(REPORT, report)?;
        ctx.out.note(&format!("wrote {}", path.display()));
    }
    for file in &args.sarif {
        let log = serde_json::to_vec_pretty(&sarif::log(report)).map_err(std::io::Error::from);
        log.and_then(|log| artifact::replace(file, &log)).during(format!("write {}", file.display()))?;
    }
    match ctx.out.format {
        Format::Json | Format::Jsonl => ctx.out.document(report)?,
        Format::Sarif => ctx.out.document(&sarif::log(report))?,
        Format::Text => {
            ctx.out.text(&render(report, ctx.out.data_color))?;
            ctx.out.note(if report.gaps.is_empty() {
                "next: autopack runs submit FILE"
            } else {
                "next: autopack plan propose"
            });
        }
    }
    Ok(Exit::Done)
}

/// The run a report is for when none was named: always the same where nothing is kept, so that equal trees give equal
/// reports.
pub(crate) fn default_run(ctx: &Context, word: &str, kept: bool) -> Result<RunId, CliError> {
    let name = if kept { format!("{word}-{}", ctx.ids.short()) } else { word.to_owned() };
    RunId::new(name).during("name the run")
}

/// The report for people.
pub(crate) fn render(report: &GapReportV1, color: bool) -> String {
    let mut text = String::new();
    let sum = &report.summary;
    if report.gaps.is_empty() {
        let _ = writeln!(text, "no gaps found");
    } else {
        let classes = [
            ("critical", sum.critical_gaps),
            ("high", sum.high_gaps),
            ("medium", sum.medium_gaps),
            ("low", sum.low_gaps),
        ];
        let counts: Vec<String> =
            classes.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
        let block = if sum.autopilot_blockers > 0 {
            format!(", {} block autopilot", sum.autopilot_blockers)
        } else {
            String::new()
        };
        let _ = writeln!(text, "{} gap(s): {}{block}", sum.total_gaps, counts.join(", "));
    }
    for gap in &report.gaps {
        let (word, tone) = risk(gap.risk_classification);
        let title = gap.title.as_deref().unwrap_or(gap.gap_type.as_str());
        let _ = writeln!(text, "\n{}  {}", paint(color, tone, word), line(title));
        let _ = writeln!(text, "  {}", paint(color, Tone::Faint, &line(&gap.gap_id)));
        if let Some(description) = &gap.description {
            let _ = writeln!(text, "  {}", line(description));
        }
        let paths = &gap.evidence.file_paths;
        for path in paths.iter().take(SHOWN) {
            let _ = writeln!(text, "    {}", line(path));
        }
        let more = paths.len().saturating_sub(SHOWN) as u64 + gap.evidence.omitted_paths;
        if more > 0 {
            let _ = writeln!(text, "    and {more} more");
        }
        if let Some(approach) = &gap.safe_remediation.approach {
            let _ = writeln!(text, "  do: {}", line(approach));
        }
    }
    let about = report.metadata.workspace_state.iter().chain(&report.metadata.notices);
    let about: Vec<String> = about.map(|note| line(note)).collect();
    if !about.is_empty() {
        let _ = writeln!(text, "\n{}", paint(color, Tone::Faint, &about.join(" · ")));
    }
    text
}

const fn risk(class: RiskClass) -> (&'static str, Tone) {
    match class {
        RiskClass::Critical => ("critical", Tone::Bad),
        RiskClass::High => ("high    ", Tone::Bad),
        RiskClass::Medium => ("medium  ", Tone::Warn),
        RiskClass::Low => ("low     ", Tone::Strong),
        RiskClass::Info => ("info    ", Tone::Faint),
    }
}
