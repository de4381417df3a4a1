//! `demo`: the product on a scratch clone, step by step. Each step is the real command, run as a person would.

mod ending;
mod stage;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::args::demo::Demo;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};

use stage::Stage;

/// Runs `demo`.
pub(super) async fn run(ctx: &Context, args: &Demo) -> Result<Exit, CliError> {
    if !args.yes && !ctx.out.interactive {
        let why = "the demo asks you for decisions, and there is no terminal to ask on";
        ctx.out.warn(&format!("{why}; go on with: autopack demo --yes, which decides by itself"));
        return Ok(Exit::Waiting);
    }
    let source = ctx.root()?;
    let folder = tempfile::Builder::new().prefix("autopack-demo-").tempdir().during("make a folder for the demo")?;
    let stage = Stage::set(ctx, &source, folder.path())?;
    let show = Show { ctx, repo: stage.repo.clone(), state: folder.path().join("state") };
    show.title("A scratch clone", &format!("{} -> {}", source.display(), stage.repo.display()));
    show.step(&["init", "--write-root", "examples", "--risk-tolerance", "moderate", "-q"], &[0]).await?;
    stage.open_the_playground(ctx)?;

    show.title("1. What is wrong here?", "a deterministic scan; reads only");
    show.step(&["gaps", "scan"], &[0]).await?;
    show.title("2. What could be done, and who would be asked?", "a plan, forecast by the same policy that will judge");
    show.step(&["plan", "propose"], &[0]).await?;

    show.title("3. Do it", "in worktrees of its own; every change is judged");
    show.step(&["autopilot", "run", "--enable", "--no-wait", "--run-id", "tidy"], &[0, 4, 5]).await?;

    show.title("4. All four outcomes, and a gate that fails", "two runs at once, behind the parallelism gate");
    let (outcomes, red) = (stage.outcomes.display().to_string(), stage.red.display().to_string());
    show.step(&["runs", "submit", &outcomes], &[0]).await?;
    show.step(&["runs", "submit", &red], &[0]).await?;
    let both = ["autopilot", "supervise", "--run-ids", "outcomes,red-gate", "--workers", "2", "--no-wait"];
    show.step(&both, &[0, 1, 4, 5]).await?;

    show.title("5. Your decision", "what needs a person waits, and holds nothing while it does");
    show.step(&["approvals", "list"], &[0]).await?;
    if !decide(&show, args.yes).await? {
        ctx.out.warn("the terminal was closed before you decided; go on with: autopack demo");
        return Ok(Exit::Waiting);
    }
    for run in ["tidy", "outcomes"] {
        show.step(&["runs", "resume", run, "--no-wait"], &[0, 1, 4, 5]).await?;
    }
    show.title("6. Is the record whole?", "every decision is in a hash-chained log");
    show.step(&["audit", "verify"], &[0]).await?;
    let mut told = Vec::new();
    for run in ["tidy", "outcomes", "red-gate"] {
        told.extend(ending::lines(&show.json(&["runs", "show", run, "-o", "json"]).await?));
    }
    finish(&show, args.keep, folder, &told);
    Ok(Exit::Done)
}

/// Approves what tier 3 asks, rejects what tier 4 blocked; false when nobody is there to answer any more.
async fn decide(show: &Show<'_>, yes: bool) -> Result<bool, CliError> {
    let list: Value = show.json(&["approvals", "list", "-o", "json"]).await?;
    let requests = list["approvals"].as_array().or_else(|| list["requests"].as_array()).cloned().unwrap_or_default();
    let mut console = Console::new(&show.ctx.out);
    for request in &requests {
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
        let (id, digest, what) =
            (text("request_id"), text("subject_digest"), format!("{}/{}", text("run_id"), text("phase_id")));
        if request["tier"].as_u64() == Some(4) {
            let words = "the demo never lets a secret in";
            show.step(&["approvals", "reject", &id, "--expect-digest", &digest, "--reason", words], &[0]).await?;
            continue;
        }
        let approve = if yes {
            true
        } else {
            show.step(&["approvals", "show", &id], &[0]).await?;
            let Some(answer) = console.ask(&format!("Approve {what}? [Y/n] ")).await? else { return Ok(false) };
            !answer.trim().to_lowercase().starts_with('n')
        };
        let verb = if approve { "approve" } else { "reject" };
        let words = if approve { "looked at it in the demo" } else { "not like this" };
        show.step(&["approvals", verb, &id, "--expect-digest", &digest, "--reason", words], &[0]).await?;
    }
    Ok(true)
}

fn finish(show: &Show<'_>, keep: bool, folder: tempfile::TempDir, told: &[String]) {
    let out = &show.ctx.out;
    show.title("What happened", "");
    told.iter().for_each(|line| out.note(&format!("  {line}")));
    out.note("  Nothing was written to the repository you started in, nor to the checkout of the clone.");
    out.note("\nOn your own repository:");
    out.note("  autopack init && git add autopack.toml .autopack && git commit -m 'autopack'");
    out.note("  autopack autopilot run            # a dry run: report and plan, nothing else");
    out.note("  autopack autopilot run --enable   # the same, carried out on the branch autopack/<run>");
    if keep {
        let kept = folder.keep();
        out.note(&format!(
            "\nThe clone is in {}: try git -C {} log --oneline --all --graph",
            kept.display(),
            show.repo.display()
        ));
    }
}

/// Runs commands of this program on the stage and shows them.
struct Show<'a> {
    ctx: &'a Context,
    repo: PathBuf,
    state: PathBuf,
}

impl Show<'_> {
    fn title(&self, text: &str, more: &str) {
        let more = if more.is_empty() { String::new() } else { format!("  ({more})") };
        self.ctx.out.note(&format!("\n== {text}{more}"));
    }

    fn command(&self, args: &[&str]) -> Result<tokio::process::Command, CliError> {
        let program = std::env::current_exe().during("find this program")?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(args)
            .arg("--repo")
            .arg(&self.repo)
            .env("XDG_STATE_HOME", &self.state)
            .current_dir(parent(&self.repo))
            .kill_on_drop(true);
        // The scratch clone is no place of theirs: a data directory or a server of the person's is left alone.
        let ours = |name: &OsString| name.as_bytes().starts_with(b"AUTOPACK_");
        for name in std::env::vars_os().map(|(name, _)| name).filter(ours) {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Runs a command in sight of the person; another exit code than those expected ends the demo.
    async fn step(&self, args: &[&str], expected: &[i32]) -> Result<(), CliError> {
        self.ctx.out.note(&format!("\n$ autopack {}", args.join(" ")));
        let status = self.command(args)?.stdin(Stdio::null()).status().await.during("run a step of the demo")?;
        if status.code().is_some_and(|code| expected.contains(&code)) {
            return Ok(());
        }
        let what = format!("the step `autopack {}` ended with {status}", args.join(" "));
        Err(CliError::refused("internal", what, "the demo did not expect that", "autopack doctor"))
    }

    async fn json(&self, args: &[&str]) -> Result<Value, CliError> {
        let output = self.command(args)?.stdin(Stdio::null()).output().await.during("run a step of the demo")?;
        serde_json::from_slice(&output.stdout).map_err(std::io::Error::from).during("read a step of the demo")
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
