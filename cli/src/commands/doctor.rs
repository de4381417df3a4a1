//! `doctor`: what can be seen of the repository, the data directory and the engine without opening an engine or
//! writing anything.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use autopack_shared::domain::project::{ANCHOR_PATH, FILE_NAME};
use autopack_shared::repo::locate;

use crate::connect::address::to_reach;
use crate::context::{Context, Place};
use crate::exit::{CliError, Exit};
use crate::rules::{self, Rules};
use crate::survey::work_tree;
use crate::terminal::{Tone, line, paint};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// Worth knowing.
    Note,
    /// Runs will fail.
    Bad,
}

impl Health {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
struct Check {
    name: &'static str,
    health: Health,
    found: String,
    fix: String,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, health: Health::Good, found: found.into(), fix: String::new() }
    }

    fn note(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, health: Health::Note, found: found.into(), fix: fix.into() }
    }

    fn bad(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, health: Health::Bad, found: found.into(), fix: fix.into() }
    }

    fn failed(name: &'static str, error: &CliError) -> Self {
        let [what, why, fix] = error.lines();
        Self::bad(name, format!("{what}: {why}"), fix)
    }
}

/// Runs `doctor`.
pub(crate) fn run(ctx: &Context) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let place = ctx.place()?;
    let mut checks = repository(place);
    checks.push(data_dir(&place.data_dir));
    checks.push(lock(&place.data_dir));
    checks.push(socket(&to_reach(&ctx.env, &place.data_dir)));
    checks.push(fence(&place.root));
    let worst = checks.iter().any(|check| check.health == Health::Bad);
    if ctx.out.machine() {
        let all: Vec<Value> = checks.iter().map(to_json).collect();
        ctx.out.document(
            &json!({ "format": "doctor/1", "healthy": !worst, "version": env!("CARGO_PKG_VERSION"), "checks": all }),
        )?;
    } else {
        for check in &checks {
            let tone = match check.health {
                Health::Good => Tone::Good,
                Health::Note => Tone::Warn,
                Health::Bad => Tone::Bad,
            };
            let word = paint(ctx.out.data_color, tone, &format!("{:<4}", check.health.word()));
            ctx.out.text(&format!("{word}  {:<11} {}\n", check.name, line(&check.found)))?;
            if !check.fix.is_empty() {
                ctx.out.text(&format!("      {:<11} do this: {}\n", "", line(&check.fix)))?;
            }
        }
    }
    Ok(if worst { Exit::WorkFailed } else { Exit::Done })
}

fn to_json(check: &Check) -> Value {
    let fix = (!check.fix.is_empty()).then_some(&check.fix);
    json!({ "name": check.name, "health": check.health.word(), "found": check.found, "fix": fix })
}

/// The repository: work tree, HEAD, policy and anchor.
fn repository(place: &Place) -> Vec<Check> {
    if let Err(error) = work_tree(&place.root) {
        return vec![Check::failed("repository", &error)];
    }
    let paper = match rules::paper(&place.root) {
        Ok(paper) => paper,
        Err(error) => return vec![Check::failed("repository", &error)],
    };
    let Ok(head) = paper.commit("HEAD") else {
        return vec![Check::bad("repository", "it has no commit yet", "git add . && git commit")];
    };
    let mut checks = vec![Check::good("repository", format!("{} at {}", place.root.display(), head.short()))];
    match Rules::for_run(&place.root, &paper, head, None) {
        Ok(rules) => {
            let count = rules.config.gate.commands.len();
            checks.push(match (&rules.anchor, rules.notes.first()) {
                (None, _) => Check::note(
                    "anchor",
                    format!("there is no {ANCHOR_PATH}; autopilot refuses without"),
                    "autopack init",
                ),
                (Some(_), Some(note)) => {
                    Check::note("policy", note.clone(), "commit it, or run autopack init to register it as it is")
                }
                (Some(_), None) => Check::good("policy", format!("{FILE_NAME} and {ANCHOR_PATH} are committed")),
            });
            checks.push(match count {
                0 => Check::note(
                    "gate",
                    "no command verifies what is applied",
                    format!("add [[gate.commands]] to {FILE_NAME}"),
                ),
                count => Check::good("gate", format!("{count} command(s)")),
            });
        }
        Err(error) => checks.push(Check::failed("policy", &error)),
    }
    checks
}

fn data_dir(dir: &Path) -> Check {
    let shown = dir.display();
    match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::note("data", format!("{shown} is not there yet"), "the first run makes it")
        }
        Err(error) => Check::bad("data", format!("{shown}: {error}"), "make it readable"),
        Ok(found) if !found.is_dir() => {
            Check::bad("data", format!("{shown} is no folder"), "name another with --data-dir")
        }
        Ok(_) if rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_err() => Check::bad(
            "data",
            format!("{shown} cannot be written"),
            "make it writable, or name another with --data-dir",
        ),
        Ok(_) => match rustix::fs::statvfs(dir).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) >> 20) {
            Ok(free) if free < 256 => Check::bad("data", format!("{shown}: {free} MiB free"), "free some space"),
            Ok(free) => Check::good("data", format!("{shown}, {free} MiB free")),
            Err(error) => Check::note("data", format!("{shown}: {error}"), ""),
        },
    }
}

/// Who owns the data directory. The lock is tried shared and let go at once.
fn lock(dir: &Path) -> Check {
    let path = dir.join("autopack.lock");
    let Ok(file) = File::open(&path) else {
        return Check::good("owner", "nobody has owned it yet");
    };
    match fs2::FileExt::try_lock_shared(&file) {
        Ok(()) => {
            // Letting go happens when the file is closed in any case.
            let _closed = fs2::FileExt::unlock(&file);
            Check::good("owner", "no engine is running")
        }
        Err(_) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            Check::good("owner", format!("an engine is running: {}", holder.trim().replace('\n', ", ")))
        }
    }
}

fn socket(path: &Path) -> Check {
    match UnixStream::connect(path) {
        Ok(_) => Check::good("socket", format!("{} answers", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::good("socket", "none: commands open the engine themselves")
        }
        Err(_) => Check::good("socket", format!("{} is left over; the next engine replaces it", path.display())),
    }
}

fn fence(root: &Path) -> Check {
    let Some(common) = locate::common_dir(root) else {
        return Check::note("fence", "the git folder cannot be found", "");
    };
    let packed = fs::read_to_string(common.join("packed-refs")).unwrap_or_default();
    let there = common.join("refs/autopack/fence").exists()
        || packed.lines().any(|line| line.ends_with(" refs/autopack/fence"));
    Check::good(
        "fence",
        if there { "refs/autopack/fence is there" } else { "no engine has written to this repository yet" },
    )
}
