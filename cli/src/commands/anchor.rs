//! `anchor new|lint|show|convert`: what an owner wants and how far autonomy may go.

mod convert;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;

use autopack_shared::domain::anchor::{AnchorError, IntentionAnchorV2, Profile};
use autopack_shared::domain::path::PathRoots;
use autopack_shared::domain::project::ANCHOR_PATH;

use crate::args::local::{Anchor, AnchorFile, AnchorNew, Tolerance};
use crate::artifact::create_new;
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::rules::{anchor_path, project_of_folder, read_anchor};
use crate::terminal::line;

/// Runs `anchor`.
pub(crate) fn run(ctx: &Context, command: Anchor) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Anchor::New(args) => new(ctx, args),
        Anchor::Lint(args) => lint(ctx, &args),
        Anchor::Show(args) => show(ctx, &args),
        Anchor::Convert(args) => convert::run(ctx, &args),
    }
}

/// What a new anchor says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The project's name.
    pub(crate) project: String,
    /// Folders that may change unasked.
    pub(crate) write_roots: Vec<String>,
    /// How much risk is fine.
    pub(crate) tolerance: Tolerance,
}

/// The text of a new anchor.
pub(crate) fn draft(ctx: &Context, draft: &Draft) -> Result<String, CliError> {
    let roots: Vec<String> = draft.write_roots.iter().map(|root| root.trim_end_matches('/').to_owned()).collect();
    PathRoots::new(roots.clone()).map_err(|error| {
        CliError::invalid(
            "a write root cannot be used",
            error.to_string(),
            "name a folder of the repository: --write-root src",
        )
    })?;
    let tolerance = match draft.tolerance {
        Tolerance::Minimal => "minimal",
        Tolerance::Low => "low",
        Tolerance::Moderate => "moderate",
        Tolerance::High => "high",
    };
    let input = format!("{}\n{tolerance}\n{}", draft.project, roots.join("\n"));
    let document = json!({
        "format_version": "v2",
        "project_id": draft.project,
        "created_at": ctx.clock.wall(),
        "raw_input_digest": IntentionAnchorV2::raw_input_digest_of(&input),
        "pivot_intentions": {
            "north_star": {
                "desired_outcomes": ["the repository stays tidy, documented and tested"],
                "success_signals": ["autopack gaps scan finds nothing"],
                "non_goals": []
            },
            "safety_risk": { "never_allow": [], "requires_approval": [], "risk_tolerance": tolerance },
            "scope_boundaries": { "allowed_write_roots": roots, "protected_paths": [], "network_allowlist": [] },
            "parallelism_isolation": { "allowed": true, "isolation_model": "four_layer", "max_concurrent_runs": 2 }
        },
        "metadata": { "source": "autopack init", "tags": [] }
    });
    let anchor: IntentionAnchorV2 =
        serde_json::from_value(document).map_err(std::io::Error::from).during("make an anchor")?;
    pretty(&anchor)
}

/// An anchor as it is written to a file.
fn pretty(anchor: &IntentionAnchorV2) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(anchor).map_err(std::io::Error::from).during("write an anchor")? + "\n";
    IntentionAnchorV2::parse(&text).map_err(|error| {
        CliError::refused("invalid", "this would be no valid anchor", error.to_string(), "correct the value it names")
    })?;
    Ok(text)
}

fn new(ctx: &Context, args: AnchorNew) -> Result<Exit, CliError> {
    let root = ctx.root();
    let project = match (args.project_id, &root) {
        (Some(name), _) => name,
        (None, Ok(root)) => project_of_folder(root).to_string(),
        (None, Err(_)) => "project".to_owned(),
    };
    let text = draft(ctx, &Draft { project, write_roots: args.write_root, tolerance: args.risk_tolerance })?;
    if !args.write {
        ctx.out.text(&text)?;
        return Ok(Exit::Done);
    }
    let path = root?.join(ANCHOR_PATH);
    match create_new(&path, text.as_bytes()) {
        Ok(()) => ctx.out.note(&format!("wrote {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let why = format!("{} is there, and an anchor is never overwritten", path.display());
            return Err(CliError::refused(
                "exists",
                "cannot write a new anchor",
                why,
                "edit it, or move it away first",
            ));
        }
        Err(error) => return Err(error).during(format!("write {}", path.display())),
    }
    Ok(Exit::Done)
}

fn file_of(ctx: &Context, args: &AnchorFile) -> Result<PathBuf, CliError> {
    match &args.file {
        Some(file) => Ok(file.clone()),
        None => Ok(anchor_path(&ctx.root()?, None)),
    }
}

fn lint(ctx: &Context, args: &AnchorFile) -> Result<Exit, CliError> {
    let file = file_of(ctx, args)?;
    let text = std::fs::read_to_string(&file).during(format!("read {}", file.display()))?;
    let parsed = IntentionAnchorV2::parse(&text);
    let warnings = parsed.as_ref().map(IntentionAnchorV2::warnings).unwrap_or_default();
    if ctx.out.machine() {
        let error = parsed.as_ref().err().map(|error| json!({ "message": error.to_string(), "fix": fix_of(error) }));
        let digest = parsed.as_ref().ok().map(IntentionAnchorV2::digest);
        ctx.out.document(&json!({
            "format": "anchor_lint/1", "file": file.display().to_string(), "valid": parsed.is_ok(),
            "digest": digest, "error": error, "warnings": warnings,
        }))?;
    }
    match parsed {
        Ok(anchor) => {
            if !ctx.out.machine() {
                ctx.out.text(&format!("{} is valid\n{}\n", file.display(), anchor.digest()))?;
            }
            warnings.iter().for_each(|warning| ctx.out.warn(warning));
            Ok(Exit::Done)
        }
        Err(error) => {
            let fix = fix_of(&error);
            Err(CliError::invalid(format!("{} is no valid anchor", file.display()), error.to_string(), fix))
        }
    }
}

/// How an error of an anchor is mended.
fn fix_of(error: &AnchorError) -> &'static str {
    match error {
        AnchorError::Syntax { message, .. } if message.starts_with("unknown field") => {
            "rename or remove the key: one that is not read would promise a control that does not exist"
        }
        AnchorError::Syntax { message, .. } if message.starts_with("unknown variant") => {
            "use one of the words it expects"
        }
        AnchorError::Syntax { message, .. } if message.starts_with("missing field") => {
            "add the field; autopack anchor new shows a whole anchor"
        }
        AnchorError::Syntax { .. } => "correct the JSON there; an older form is read by autopack anchor convert FILE",
        AnchorError::Invalid { .. } => "change the value as it says",
    }
}

fn show(ctx: &Context, args: &AnchorFile) -> Result<Exit, CliError> {
    let anchor = read_anchor(&file_of(ctx, args)?)?;
    if ctx.out.machine() {
        let profile = anchor.profile();
        ctx.out.document(
            &json!({ "format": "anchor/1", "digest": anchor.digest(), "profile": profile, "anchor": anchor }),
        )?;
        return Ok(Exit::Done);
    }
    let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { line(&items.join(", ")) };
    let profile = match anchor.profile() {
        Profile::Strict => "strict: what is only told elsewhere is asked about here",
        Profile::Normal => "normal: the tiers as they are",
    };
    let parallel = anchor.pivot_intentions.parallelism_isolation.as_ref().filter(|pivot| pivot.allowed);
    let runs = parallel.map_or(1, |pivot| pivot.max_concurrent_runs);
    let mut text = String::new();
    for (name, value) in [
        ("project", line(&anchor.project_id)),
        ("digest", anchor.digest().to_string()),
        ("profile", profile.to_owned()),
        ("write roots", list(anchor.allowed_write_roots())),
        ("protected", list(anchor.protected_paths())),
        ("never", list(anchor.never_allow())),
        ("runs at once", runs.to_string()),
    ] {
        let _ = writeln!(text, "{name:<13} {value}");
    }
    ctx.out.text(&text)?;
    anchor.warnings().iter().for_each(|warning| ctx.out.warn(warning));
    Ok(Exit::Done)
}
