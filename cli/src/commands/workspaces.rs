//! `workspaces`: what stands on this machine, of which lease, and what of it can go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use autopack_shared::repo::mirror::{self, Mirror, MirrorError, WorkspaceKey};
use autopack_shared::wire::pb::{Lease, LeasesRequest};

use crate::args::cluster::{Workspaces, WorkspacesCleanup, WorkspacesList};
use crate::connect::{Need, Session, connect, worker_root};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::terminal::{Table, line};

/// What is known of a worktree's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Its lease is open.
    Live,
    /// Its lease ended by a result: what there was to hand in was handed in.
    Ended,
    /// Its lease was taken away: what is in it was never handed in.
    Lost,
    /// Nobody here knows its run.
    Unknown,
}

impl Stand {
    fn of(leases: Option<&[Lease]>, epoch: u64) -> Self {
        let lease = leases.and_then(|leases| leases.iter().find(|lease| lease.epoch == epoch));
        match lease.map(|lease| lease.state.as_str()) {
            None => Self::Unknown,
            Some("GRANTING" | "HELD") => Self::Live,
            Some("RELEASED") => Self::Ended,
            Some(_) => Self::Lost,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Ended => "ENDED",
            Self::Lost => "LOST",
            Self::Unknown => "UNKNOWN",
        }
    }

    const fn can_go(self, discard: bool) -> bool {
        match self {
            Self::Live => false,
            Self::Ended => true,
            Self::Lost | Self::Unknown => discard,
        }
    }
}

/// A worktree.
struct Found {
    mirror: PathBuf,
    key: WorkspaceKey,
    path: PathBuf,
    stand: Stand,
}

impl Found {
    fn json(&self) -> Value {
        json!({
            "run_id": self.key.run, "epoch": self.key.epoch, "attempt": self.key.attempt,
            "purpose": self.key.purpose.folder(), "state": self.stand.word(), "path": self.path.display().to_string(),
        })
    }
}

/// Runs `workspaces`.
pub(crate) async fn run(ctx: &Context, command: Workspaces) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Workspaces::List(args) => list(ctx, &args).await,
        Workspaces::Cleanup(args) => cleanup(ctx, &args).await,
    }
}

async fn list(ctx: &Context, args: &WorkspacesList) -> Result<Exit, CliError> {
    let found = look(ctx, args).await?;
    if ctx.out.machine() {
        ctx.out.list("workspaces", "workspace", found.iter().map(Found::json).collect())?;
    } else if found.is_empty() {
        ctx.out.note("no worktrees stand here; next: autopack leases list");
    } else {
        ctx.out.table(&table(&found))?;
        ctx.out.note("next: autopack workspaces cleanup --dry-run");
    }
    Ok(Exit::Done)
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new(["STATE", "RUN", "EPOCH", "ATTEMPT", "FOR", "FOLDER"]);
    for one in found {
        table.row([
            one.stand.word().to_owned(),
            one.key.run.to_string(),
            one.key.epoch.to_string(),
            one.key.attempt.to_string(),
            one.key.purpose.folder().to_owned(),
            one.path.display().to_string(),
        ]);
    }
    table
}

async fn cleanup(ctx: &Context, args: &WorkspacesCleanup) -> Result<Exit, CliError> {
    let found = look(ctx, &args.place).await?;
    let (gone, kept): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|one| one.stand.can_go(args.discard));
    if !args.dry_run {
        for one in &gone {
            let removed = Mirror::open_or_create(&one.mirror, None).and_then(|mirror| mirror.remove(&one.key));
            removed.map_err(|error| unusable(&one.path, &error))?;
        }
    }
    if ctx.out.machine() {
        let all = |found: &[Found]| found.iter().map(Found::json).collect::<Vec<_>>();
        ctx.out.document(&json!({
            "format": "cleanup/1", "dry_run": args.dry_run, "removed": all(&gone), "kept": all(&kept),
        }))?;
        return Ok(Exit::Done);
    }
    let word = if args.dry_run { "would be removed" } else { "removed" };
    for one in &gone {
        ctx.out.text(&format!("{}  {word}\n", line(&one.path.display().to_string())))?;
    }
    let unpushed = kept.iter().filter(|one| one.stand != Stand::Live).count();
    let live = kept.len() - unpushed;
    ctx.out.note(&format!("{} {word}, {live} in use, {unpushed} kept with work that was never handed in", gone.len()));
    if unpushed > 0 {
        ctx.out.note("look at them (autopack workspaces list); --discard removes them as well");
    }
    Ok(Exit::Done)
}

/// What stands below the roots of mirrors, and what the engine knows of it.
async fn look(ctx: &Context, args: &WorkspacesList) -> Result<Vec<Found>, CliError> {
    let mut standing = Vec::new();
    for root in roots(ctx, args)? {
        let here = mirror::standing(&root).map_err(|error| unusable(&root, &error))?;
        standing.extend(here.into_iter().map(|(key, path)| (root.clone(), key, path)));
    }
    if standing.is_empty() {
        return Ok(Vec::new());
    }
    let mut session = connect(ctx, Need::Passive).await?;
    let known = known(&mut session, &standing).await;
    session.close().await;
    let known = known?;
    let found = |(mirror, key, path): (PathBuf, WorkspaceKey, PathBuf)| {
        let stand = Stand::of(known.get(key.run.as_str()).map(Vec::as_slice), key.epoch);
        Found { mirror, key, path, stand }
    };
    Ok(standing.into_iter().map(found).collect())
}

/// The leases of every run that has a worktree here.
async fn known(
    session: &mut Session,
    standing: &[(PathBuf, WorkspaceKey, PathBuf)],
) -> Result<BTreeMap<String, Vec<Lease>>, CliError> {
    let mut known = BTreeMap::new();
    for (_, key, _) in standing {
        let run = key.run.to_string();
        if known.contains_key(&run) {
            continue;
        }
        let call = LeasesRequest { all: true, run_id: run.clone() };
        match session.admin.leases(call).await.during(format!("look at the leases of {run}")) {
            Ok(answer) => drop(known.insert(run, answer.into_inner().leases)),
            Err(error) if error.reason() == "not_found" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// The roots of mirrors: the folder itself, or one a project in a worker's `mirrors`.
fn roots(ctx: &Context, args: &WorkspacesList) -> Result<Vec<PathBuf>, CliError> {
    let root = match &args.root {
        Some(root) => root.canonicalize().during(format!("open {}", root.display()))?,
        None if ctx.is_remote() => {
            let why = "a server does not say where its workers keep their worktrees";
            return Err(CliError::invalid("no worker's folder is named", why, "name it with --root DIR"));
        }
        None => worker_root(ctx, ctx.place()?),
    };
    if mirror::is_root(&root) {
        return Ok(vec![root]);
    }
    let mut roots = Vec::new();
    for entry in std::fs::read_dir(root.join("mirrors")).into_iter().flatten().flatten() {
        if mirror::is_root(&entry.path()) {
            roots.push(entry.path());
        }
    }
    roots.sort();
    Ok(roots)
}

fn unusable(path: &Path, error: &MirrorError) -> CliError {
    let fix = "check the folder, and that no other process keeps it busy";
    CliError::refused("unavailable", format!("cannot use {}", path.display()), error.to_string(), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_in_goes_by_itself() {
        let lease = |state: &str| Lease { epoch: 3, state: state.to_owned(), ..Lease::default() };
        for (state, stand, goes) in [
            ("GRANTING", Stand::Live, false),
            ("HELD", Stand::Live, false),
            ("RELEASED", Stand::Ended, true),
            ("EXPIRED", Stand::Lost, false),
            ("REVOKED", Stand::Lost, false),
        ] {
            assert_eq!(Stand::of(Some(&[lease(state)]), 3), stand);
            assert_eq!((stand.can_go(false), stand.can_go(true)), (goes, stand != Stand::Live));
        }
        assert_eq!(Stand::of(Some(&[lease("HELD")]), 4), Stand::Unknown);
        assert_eq!(Stand::of(None, 3), Stand::Unknown);
        assert!(!Stand::Unknown.can_go(false));
    }
}
