//! `policy eval|check|explain`: what the supervisor would say about a change, on paper. Branches and work tree are
//! never touched; objects of a patch stay in memory.

mod explain;

use std::io::Read as _;
use std::path::Path;

use serde_json::json;

use autopack_shared::domain::evaluate::{Decision, PhaseScope, Verdict, Window};
use autopack_shared::domain::path::PathRoots;
use autopack_shared::domain::policy::Policy as PolicyRules;
use autopack_shared::domain::project::FILE_NAME;
use autopack_shared::domain::score::Severity;
use autopack_shared::repo::judge::{Paper, Proposal, Terms};

pub(crate) use explain::{render, sentence};

use crate::args::local::{Policy, PolicyCheck, PolicyEval, Risk};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::rules::{self, Rules, judged};

/// Runs `policy`.
pub(crate) fn run(ctx: &Context, command: &Policy) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Policy::Eval(args) => eval(ctx, args, false),
        Policy::Explain(args) => eval(ctx, args, true),
        Policy::Check(args) => check(ctx, args),
    }
}

/// How a verdict ends a command.
pub(crate) const fn exit(verdict: Decision) -> Exit {
    match verdict {
        Decision::AutoApproved | Decision::NotifyAndProceed | Decision::NoChange => Exit::Done,
        Decision::ApprovalRequired => Exit::Waiting,
        Decision::Blocked | Decision::Rejected | Decision::Conflict => Exit::Refused,
    }
}

fn eval(ctx: &Context, args: &PolicyEval, explain: bool) -> Result<Exit, CliError> {
    let root = ctx.root()?;
    let paper = rules::paper(&root)?;
    let (verdict, policy) = judge(&paper, args)?;
    if ctx.out.machine() {
        ctx.out.document(&verdict)?;
    } else {
        ctx.out.text(&render(&verdict, &policy, explain, ctx.out.data_color))?;
    }
    Ok(exit(verdict.verdict))
}

fn judge(paper: &Paper, args: &PolicyEval) -> Result<(Verdict, PolicyRules), CliError> {
    let commit = |name: &str| paper.commit(name).map_err(judged);
    let (base, head) = match (&args.range, &args.base) {
        (Some(range), _) => {
            let (from, to) = ends(range)?;
            (commit(from)?, Some(commit(to)?))
        }
        (None, base) => (commit(base.as_deref().unwrap_or("HEAD"))?, None),
    };
    // Files that were named are read instead of the commit's: one that cannot be used must not stand in the way.
    let (policy, anchor, broken) = match (&args.policy, &args.anchor) {
        (Some(policy), Some(anchor)) => (rules::read_policy(policy)?, Some(rules::read_anchor(anchor)?), None),
        (policy, anchor) => {
            let (committed, broken) = Rules::at(paper, base)?;
            let policy = policy.as_deref().map_or(Ok(committed.config.policy), rules::read_policy)?;
            let anchor = anchor.as_deref().map(rules::read_anchor).transpose()?.or(committed.anchor);
            (policy, anchor, broken)
        }
    };
    let patch = args.patch.as_deref().map(read_patch).transpose()?;
    let proposal = match (&patch, head) {
        (Some(text), _) => Proposal::Patch(text),
        (None, Some(head)) => Proposal::Commit(head),
        (None, None) => {
            return Err(CliError::invalid("nothing to judge", "no change was named", "give --range or --patch"));
        }
    };
    let (scope, window) = (scope(args)?, Window::default());
    let terms = Terms { policy: &policy, anchor: anchor.as_ref(), scope: &scope, window: &window };
    let verdict = paper.judge(base, proposal, terms).map_err(judged)?;
    match broken {
        // What every policy refuses is refused; the change that mends a broken policy can still be looked at.
        Some(error) if exit(verdict.verdict) != Exit::Refused => Err(error),
        Some(_) | None => Ok((verdict, policy)),
    }
}

fn scope(args: &PolicyEval) -> Result<PhaseScope, CliError> {
    let paths = PathRoots::new(args.scope.clone()).map_err(|error| {
        CliError::invalid("the scope cannot be used", error.to_string(), "name folders, files or globs: --scope src/")
    })?;
    let defaults = PhaseScope::default();
    Ok(PhaseScope {
        paths,
        category: args.category.clone().unwrap_or(defaults.category),
        description: args.description.clone(),
        claimed_risk: args.claimed_risk.map(|risk| match risk {
            Risk::Low => Severity::Low,
            Risk::Medium => Severity::Medium,
            Risk::High => Severity::High,
            Risk::Critical => Severity::Critical,
        }),
        sandboxed: true,
    })
}

/// Both ends of `A..B`; an end left out is `HEAD`.
fn ends(range: &str) -> Result<(&str, &str), CliError> {
    match range.split_once("..") {
        Some(("", "")) | None => Err(not_a_range(range)),
        Some((_, to)) if to.starts_with('.') => Err(not_a_range(range)),
        Some((from, to)) => {
            let [from, to] = [from, to].map(|name| if name.is_empty() { "HEAD" } else { name });
            Ok((from, to))
        }
    }
}

fn not_a_range(range: &str) -> CliError {
    CliError::invalid("not a range", format!("{range:?} is not of the form A..B"), "write it as BASE..HEAD")
}

fn read_patch(file: &Path) -> Result<Vec<u8>, CliError> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).during("read the patch from stdin")?;
        return Ok(bytes);
    }
    std::fs::read(file).during(format!("read {}", file.display()))
}

/// Whether the files of the work tree can be used, and what they say.
fn check(ctx: &Context, args: &PolicyCheck) -> Result<Exit, CliError> {
    let root = if args.policy.is_some() && args.anchor.is_some() { None } else { Some(ctx.root()?) };
    let root = root.as_deref().unwrap_or_else(|| Path::new("."));
    let file = args.policy.clone().unwrap_or_else(|| root.join(FILE_NAME));
    let builtin = args.policy.is_none() && !file.exists();
    let config = if builtin { None } else { Some(rules::read_config(&file)?) };
    // The host's part of the file is checked as well: it is the same file to the person who wrote it.
    ctx.settings(Some(root))?;
    let anchor_file = rules::anchor_path(root, args.anchor.as_ref());
    let no_anchor = args.anchor.is_none() && !anchor_file.exists();
    let anchor = if no_anchor { None } else { Some(rules::read_anchor(&anchor_file)?) };
    let policy = config.as_ref().map_or_else(PolicyRules::builtin, |config| config.policy.clone());
    let counts = [policy.never(), policy.protected(), policy.allowed()].map(|list| list.rules().len());
    let source = if builtin { "built in".to_owned() } else { file.display().to_string() };
    let anchor_digest = anchor.as_ref().map(autopack_shared::domain::anchor::IntentionAnchorV2::digest);
    let warnings =
        anchor.as_ref().map(autopack_shared::domain::anchor::IntentionAnchorV2::warnings).unwrap_or_default();
    if ctx.out.machine() {
        ctx.out.document(&json!({
            "format": "policy_check/1", "valid": true, "policy": source, "policy_digest": policy.digest(),
            "rules": { "never": counts[0], "protected": counts[1], "allowed": counts[2] },
            "relaxed": policy.relaxed(), "anchor": (!no_anchor).then(|| anchor_file.display().to_string()),
            "anchor_digest": anchor_digest, "warnings": warnings,
        }))?;
    } else {
        let [never, protected, allowed] = counts;
        let mut text = format!("policy  {source}: {never} never, {protected} protected, {allowed} allowed\n");
        text.push_str(&format!("        {}\n", policy.digest()));
        for rule in policy.relaxed() {
            text.push_str(&format!(
                "        {} is allowed though the built-in policy protects it ({})\n",
                rule.pattern, rule.origin
            ));
        }
        text.push_str(&match anchor_digest {
            Some(digest) => format!("anchor  {}\n        {digest}\n", anchor_file.display()),
            None => {
                "anchor  none: the strict profile holds, and autopilot refuses; autopack init writes one\n".to_owned()
            }
        });
        ctx.out.text(&text)?;
    }
    warnings.iter().for_each(|warning| ctx.out.warn(warning));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_two_ends() {
        assert_eq!(ends("main..x").unwrap(), ("main", "x"));
        assert_eq!(ends("main..").unwrap(), ("main", "HEAD"));
        assert_eq!(ends("..x").unwrap(), ("HEAD", "x"));
        for bad in ["main", "..", "a...b", ""] {
            assert_eq!(ends(bad).unwrap_err().exit(), Exit::Usage, "{bad}");
        }
    }
}
