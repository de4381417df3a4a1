//! What every command on gaps starts with: the rules in force, a scan of the work tree, a plan over what it found.
//! With a supervisor elsewhere it does all of that, by the same functions.

pub(crate) mod far;

use std::path::{Path, PathBuf};

use autopack_shared::domain::gap::GapReportV1;
use autopack_shared::domain::ids::{Oid, RunId};
use autopack_shared::domain::plan::{PlanProposalV1, ProposeOptions, propose};
use autopack_shared::repo::locate;
use autopack_worker::scan::{ScanError, ScanOptions, protected_by, scan};

use crate::context::Context;
use crate::exit::{CliError, During as _};
use crate::rules::{self, Rules, judged, project_id};

/// Where in a run's folder the report is.
pub(crate) const REPORT: &str = "gaps/gap_report_v1.json";
/// Where in a run's folder the plan is.
pub(crate) const PLAN: &str = "planning/plan_proposal_v1.json";

/// What to look at.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// The run it is for.
    pub(crate) run: RunId,
    /// Only what changed since this revision.
    pub(crate) since: Option<String>,
    /// Whether every object is read.
    pub(crate) deep: bool,
    /// Another anchor than the repository's.
    pub(crate) anchor: Option<PathBuf>,
    /// The branch or commit that is meant, by a supervisor elsewhere.
    pub(crate) at: Option<String>,
}

/// What was found, and by which rules.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The commit that is checked out.
    pub(crate) head: Oid,
    /// The rules a run from it would have.
    pub(crate) rules: Rules,
    /// The report.
    pub(crate) report: GapReportV1,
}

impl Survey {
    /// Scans the work tree.
    pub(crate) async fn take(ctx: &Context, wish: Wish) -> Result<Self, CliError> {
        let root = ctx.place()?.root.clone();
        if wish.at.is_some() {
            let why = "without --server the work tree is scanned, as it is";
            return Err(CliError::invalid("--at has no meaning here", why, "leave it out, or name a supervisor"));
        }
        work_tree(&root)?;
        let paper = rules::paper(&root)?;
        let head = paper.commit("HEAD").map_err(|_| {
            CliError::refused(
                "empty_repository",
                "there is nothing to scan",
                format!("{} has no commit yet", root.display()),
                "git add . && git commit",
            )
        })?;
        let rules = Rules::for_run(&root, &paper, head, wish.anchor.as_deref())?;
        let mut options = ScanOptions::new(wish.run, project_id(&root, &rules.config), ctx.clock.wall());
        options.deep = wish.deep;
        options.since = wish.since.as_deref().map(|name| paper.commit(name).map_err(judged)).transpose()?;
        options.protected = protected_by(rules.config.policy.clone(), rules.anchor.as_ref());
        options.anchor.clone_from(&rules.anchor);
        drop(paper);
        rules.notes.iter().for_each(|note| ctx.out.warn(note));
        let scanned = tokio::task::spawn_blocking(move || scan(&root, &options)).await;
        let report =
            scanned.map_err(|panic| std::io::Error::other(panic.to_string())).during("scan")?.map_err(unscanned)?;
        Ok(Self { head, rules, report })
    }

    /// The plan over the report.
    pub(crate) fn plan(&self, ctx: &Context) -> Result<PlanProposalV1, CliError> {
        let anchor = self.rules.require_anchor()?;
        let config = &self.rules.config;
        let options = ProposeOptions { now: ctx.clock.wall(), builders: &config.builders, first_build: false };
        Ok(propose(&self.report, anchor, &config.policy, &options))
    }
}

/// Refuses what has no files to work on.
pub(crate) fn work_tree(root: &Path) -> Result<(), CliError> {
    if !root.join(".git").exists() && locate::is_git_dir(root) {
        return Err(CliError::refused(
            "bare_repository",
            "there is no work tree here",
            format!("{} is a bare repository", root.display()),
            "git clone it and work in the clone",
        ));
    }
    Ok(())
}

fn unscanned(error: ScanError) -> CliError {
    let reason = error.reason();
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let fix = match reason {
        "not_a_repository" => "name the top folder of a repository with --repo",
        "bare_repository" => "git clone it and work in the clone",
        "empty_repository" => "git add . && git commit",
        "repository_not_owned" => "run as its owner, or make it yours with chown",
        "not_found" => "git log --oneline shows what there is",
        _ => "git fsck shows whether the repository is whole",
    };
    CliError::refused(reason, "cannot scan the repository", format!("{error}{cause}"), fix)
}
