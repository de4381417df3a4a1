//! The stage of the demo: a scratch clone with a policy, an anchor that lets the playground be mended unasked, and two
//! run files.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use autopack_shared::domain::project::ANCHOR_PATH;
use autopack_shared::repo::scratch;

use crate::context::Context;
use crate::exit::{CliError, During as _};

/// A prepared scratch clone.
pub(super) struct Stage {
    /// The clone.
    pub(super) repo: PathBuf,
    /// A run with one change of each tier.
    pub(super) outcomes: PathBuf,
    /// A run whose change the gate refuses.
    pub(super) red: PathBuf,
}

/// Small faults in an own folder, so that the demo has something to mend in any repository.
const PLAYGROUND: [(&str, &[u8]); 4] = [
    ("examples/autopack-demo/guide.md", b"# Guide\n\nThe [recipe](recipes/bread.md) was moved.\n"),
    ("examples/autopack-demo/kitchen/bread.md", b"# Bread\n\nFlour, water, salt, time.\n"),
    (
        "examples/autopack-demo/oven.md",
        b"# Oven\n\nTwo hundred and forty degrees, with steam, for the first ten minutes.\n",
    ),
    (
        "examples/autopack-demo/kitchen/oven-copy.md",
        b"# Oven\n\nTwo hundred and forty degrees, with steam, for the first ten minutes.\n",
    ),
];

impl Stage {
    /// Clones and writes what the demo needs.
    pub(super) fn set(ctx: &Context, source: &Path, folder: &Path) -> Result<Self, CliError> {
        let repo = folder.join("repo");
        scratch::clone(source, &repo).map_err(|e| failed("clone the repository", &e))?;
        for (path, bytes) in PLAYGROUND {
            let file = repo.join(path);
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent).during("write the playground")?;
            }
            std::fs::write(&file, bytes).during("write the playground")?;
        }
        commit(ctx, &repo, "a playground with faults")?;
        let stage = Self { repo, outcomes: folder.join("outcomes.json"), red: folder.join("red-gate.json") };
        write_json(&stage.outcomes, &outcomes())?;
        write_json(&stage.red, &red())?;
        Ok(stage)
    }

    /// Adds to what `init` wrote: the playground may be mended unasked, a gate command guards it, two runs at once.
    pub(super) fn open_the_playground(&self, ctx: &Context) -> Result<(), CliError> {
        let path = self.repo.join(ANCHOR_PATH);
        let text = std::fs::read_to_string(&path).during("read the anchor")?;
        let mut anchor: Value = serde_json::from_str(&text).map_err(std::io::Error::from).during("read the anchor")?;
        let pivots = &mut anchor["pivot_intentions"];
        pivots["governance_review"]["auto_approve_rules"] = json!([
            { "rule_id": "playground", "description": "mend the playground unasked", "conditions": ["path:examples/**"] }
        ]);
        pivots["parallelism_isolation"] =
            json!({ "allowed": true, "isolation_model": "four_layer", "max_concurrent_runs": 2 });
        write_json(&path, &anchor)?;
        let policy = self.repo.join("autopack.toml");
        let mut text = std::fs::read_to_string(&policy).during("read the policy")?;
        text.push_str("\n[[gate.commands]]\nname = \"no-demo-fault\"\nrun = \"! grep -rqs DEMO-FAULT examples\"\ntimeout_seconds = 60\n");
        std::fs::write(&policy, text).during("write the policy")?;
        commit(ctx, &self.repo, "policy and anchor for the demo")
    }
}

fn commit(ctx: &Context, repo: &Path, message: &str) -> Result<(), CliError> {
    let seconds = ctx.clock.wall().as_seconds();
    scratch::commit_all(repo, message, seconds).map_err(|e| failed("commit to the scratch clone", &e))?;
    Ok(())
}

fn failed(what: &str, error: &scratch::ScratchError) -> CliError {
    let why = error.to_string();
    CliError::refused("unavailable", format!("cannot {what}"), why, "start it in a git repository with a commit")
}

fn write_json(path: &Path, value: &Value) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from).during("write JSON")?;
    std::fs::write(path, text + "\n").during(format!("write {}", path.display()))
}

/// One change of each tier.
fn outcomes() -> Value {
    let many: Vec<(String, String)> =
        (1..=6).map(|n| (format!("examples/autopack-demo/many/{n}.md"), format!("# Note {n}\n"))).collect();
    json!({ "run_id": "outcomes", "phases": [
        phase("small", "a small note where notes may be written", &[("examples/autopack-demo/small.md".to_owned(), "# Small\n".to_owned())], &["examples/"]),
        phase("many", "six notes at once", &many, &["examples/"]),
        phase("docs", "a page of documentation", &[("docs/autopack-demo.md".to_owned(), "# Demo\n".to_owned())], &["docs/"]),
        phase("secrets", "a file that should not be here", &[("examples/.env".to_owned(), "TOKEN=none\n".to_owned())], &["examples/"]),
    ] })
}

/// A change that the gate's command refuses.
fn red() -> Value {
    let fault = [("examples/autopack-demo/fault.md".to_owned(), "DEMO-FAULT\n".to_owned())];
    json!({ "run_id": "red-gate", "phases": [phase("fault", "a note that breaks the project's rule", &fault, &["examples/autopack-demo/fault.md"])] })
}

fn phase(id: &str, goal: &str, files: &[(String, String)], scope: &[&str]) -> Value {
    let diff: String = files.iter().map(|(path, text)| new_file(path, text)).collect();
    json!({ "id": id, "goal": goal, "scope": { "paths": scope }, "builder": { "kind": "patch", "diff": diff }, "max_attempts": 1 })
}

/// A new file as a git diff. The id of the blob is shown, not trusted, so a stand-in of its length will do.
fn new_file(path: &str, text: &str) -> String {
    let id: String = Sha256::digest(text.as_bytes()).iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    let lines = text.lines().count();
    let body: String = text.lines().map(|line| format!("+{line}\n")).collect();
    format!(
        "diff --git a/{path} b/{path}\nnew file mode 100644\nindex {}..{id}\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{lines} @@\n{body}",
        "0".repeat(40)
    )
}
