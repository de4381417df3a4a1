//! `init`: writes `autopack.toml` and a first anchor for this repository, explains each line, and registers both with
//! the engine so that runs use them before they are committed. Never overwrites.

mod template;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::path::MatchKey;
use autopack_shared::domain::policy::{PathClass, Policy};
use autopack_shared::domain::project::{ANCHOR_PATH, FILE_NAME, ProjectConfig};
use autopack_shared::wire::pb::RegisterRequest;

use super::anchor::{Draft, draft};
use crate::args::local::Init;
use crate::artifact::create_new;
use crate::connect::{Need, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::rules::{project_of_folder, read_anchor, read_config};
use crate::survey::work_tree;
use crate::terminal::{Tone, line, paint};

/// Runs `init`.
pub(crate) async fn run(ctx: &Context, args: Init) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let root = ctx.root()?;
    work_tree(&root)?;
    // Anything that is there is checked before anything is written.
    let existing = root.join(FILE_NAME).exists().then(|| read_config(&root.join(FILE_NAME))).transpose()?;
    if root.join(ANCHOR_PATH).exists() {
        read_anchor(&root.join(ANCHOR_PATH))?;
    }
    let project = existing.and_then(|config| config.project.id).unwrap_or_else(|| project_of_folder(&root));
    let config = template::config(project.as_str(), template::gate_of(&root));
    // What is written must be what is read: a broken template would be found here and not by the first run.
    let parsed = ProjectConfig::parse(&config, FILE_NAME);
    parsed
        .map_err(|error| CliError::refused("internal", "the template is broken", error.to_string(), "report this"))?;
    let wish =
        Draft { project: project.to_string(), write_roots: args.write_root.clone(), tolerance: args.risk_tolerance };
    let anchor = draft(ctx, &wish)?;
    let mut wrote = Vec::new();
    for (name, text) in [(FILE_NAME, &config), (ANCHOR_PATH, &anchor)] {
        match create_new(&root.join(name), text.as_bytes()) {
            Ok(()) => wrote.push(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                ctx.out.note(&format!("{name} is there and stays as it is"));
            }
            Err(error) => return Err(error).during(format!("write {name}")),
        }
    }
    register(ctx, &root).await?;
    let policy = read_config(&root.join(FILE_NAME))?.policy;
    without_effect(&args.write_root, &policy).iter().for_each(|note| ctx.out.warn(note));
    report(ctx, project.as_str(), &wrote, &anchor)
}

/// Write roots that lie in what the policy protects: deny wins over allow, so naming them changes nothing.
fn without_effect(roots: &[String], policy: &Policy) -> Vec<String> {
    let told = |root: &String| {
        let key = MatchKey::of(root.trim_end_matches('/'));
        let below: Vec<&str> = key.parts().into_iter().chain(["x"]).collect();
        let (class, rule) = policy.classify(&below);
        let rule = rule.filter(|_| matches!(class, PathClass::Protected | PathClass::Never))?;
        Some(format!(
            "--write-root {} has no effect: the list of protected paths wins ({}, {}), and changes there are asked about",
            line(root),
            line(&rule.pattern),
            line(&rule.origin)
        ))
    };
    roots.iter().filter_map(told).collect()
}

/// Gives the engine copies of both files; a repository that cannot have an engine yet is told what to do instead.
async fn register(ctx: &Context, root: &Path) -> Result<(), CliError> {
    let mut files = HashMap::new();
    for name in [FILE_NAME, ANCHOR_PATH] {
        let text = std::fs::read_to_string(root.join(name)).during(format!("read {name}"))?;
        files.insert(name.to_owned(), text);
    }
    let mut session = match connect(ctx, Need::Record).await {
        Ok(session) => session,
        Err(error) => {
            let [_, why, _] = error.lines();
            ctx.out.warn(&format!("not registered ({}): runs use the files once they are committed", line(&why)));
            return Ok(());
        }
    };
    let call = RegisterRequest { idempotency_key: ctx.ids.fresh("init"), files };
    let answer = session.admin.register(call).await.during("register the policy and the anchor");
    session.close().await;
    answer.map(|_| ())
}

fn report(ctx: &Context, project: &str, wrote: &[&str], anchor: &str) -> Result<Exit, CliError> {
    if ctx.out.machine() {
        let document = serde_json::json!({ "format": "init/1", "project": project, "wrote": wrote });
        ctx.out.document(&document)?;
        return Ok(Exit::Done);
    }
    for name in wrote {
        let lines = if *name == FILE_NAME { template::ABOUT_CONFIG } else { template::ABOUT_ANCHOR };
        ctx.out.text(&format!("{}\n", paint(ctx.out.data_color, Tone::Strong, &format!("wrote {name}"))))?;
        for (field, about) in lines {
            ctx.out.text(&format!("  {field:<38} {about}\n"))?;
        }
    }
    if wrote.is_empty() {
        ctx.out.text("nothing written: both files are there; they are registered as they are\n")?;
    }
    if let Ok(anchor) = IntentionAnchorV2::parse(anchor)
        && wrote.contains(&ANCHOR_PATH)
        && anchor.allowed_write_roots().is_empty()
    {
        ctx.out
            .note("no write root is named: runs will ask about nearly every change (autopack init --write-root DIR)");
    }
    if wrote.contains(&ANCHOR_PATH) {
        ctx.out.note(
            "beyond the smallest fixes, autopilot asks about its actions until the anchor's \
             governance_review.auto_approve_rules say which are automatic (README, \"On your own repository\")",
        );
    }
    if !wrote.is_empty() {
        ctx.out.note(
            "next: read them, commit them (git add autopack.toml .autopack && git commit), then autopack gaps scan",
        );
    }
    Ok(Exit::Done)
}
