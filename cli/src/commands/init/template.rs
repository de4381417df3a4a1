//! The `autopack.toml` that `init` writes, and what it says about each line.

use std::path::Path;

/// A gate that the files of a repository suggest: what it is called, and the command line.
pub(super) type Gate = (&'static str, &'static str);

/// Build files and the command that usually tests such a project; the first that is there counts.
const GATES: &[(&str, Gate)] = &[
    ("justfile", ("check", "just check")),
    ("Cargo.toml", ("tests", "cargo test --workspace")),
    ("go.mod", ("tests", "go test ./...")),
    ("package.json", ("tests", "npm test")),
    ("pyproject.toml", ("tests", "python -m pytest -q")),
    ("setup.py", ("tests", "python -m pytest -q")),
    ("pom.xml", ("tests", "mvn -q test")),
    ("build.gradle", ("tests", "./gradlew test")),
    ("CMakeLists.txt", ("tests", "cmake -B build && cmake --build build && ctest --test-dir build")),
    ("Makefile", ("tests", "make test")),
];

/// The gate that a repository suggests.
pub(super) fn gate_of(root: &Path) -> Gate {
    GATES.iter().find(|(file, _)| root.join(file).is_file()).map_or(("tests", "./run-tests"), |(_, gate)| *gate)
}

/// What each part of the configuration is for.
pub(super) const ABOUT_CONFIG: &[(&str, &str)] = &[
    ("[project] id", "the project's name in runs, audit log and requests"),
    (
        "[policy] extends = \"autopack\"",
        "start from the built-in lists: secrets, CI and policy are never touched unasked",
    ),
    ("[policy] allowed", "paths that may change without asking (commented out)"),
    ("[policy] protected, never", "paths that always ask, or need an elevated approval (commented out)"),
    (
        "[policy.approval] timeout_seconds",
        "an unanswered request counts as a rejection after this long (commented out)",
    ),
    ("[[gate.commands]]", "runs on every applied change; red means rolled back (commented out: a suggestion)"),
    ("[builders.NAME]", "a program that mends gaps which have no built-in remediation (commented out)"),
    ("[worker] slots", "how many phases are worked on at once (commented out)"),
];

/// What each part of the anchor is for.
pub(super) const ABOUT_ANCHOR: &[(&str, &str)] = &[
    ("north_star", "what the project wants; shown to approvers, checked by nothing"),
    ("safety_risk.risk_tolerance", "minimal and low ask more often; moderate and high follow the tiers as they are"),
    ("safety_risk.never_allow", "path:GLOB entries that nobody can approve"),
    (
        "governance_review.auto_approve_rules",
        "makes autopilot actions automatic: rules with conditions like path:examples/** (none yet)",
    ),
    ("scope_boundaries.allowed_write_roots", "folders that runs may change without asking"),
    ("scope_boundaries.protected_paths", "paths that always ask, whatever the policy allows"),
    (
        "parallelism_isolation",
        "how many runs may be active at once; each has its own worktree, lease, lock and records",
    ),
];

/// The file.
pub(super) fn config(project: &str, (name, run): Gate) -> String {
    format!(
        r#"# How runs may change this repository. Runs read this file from the commit they fork from, never from the
# change they make. Check it with: autopack policy check

[project]
id = "{project}"

[policy]
# Start from the built-in lists (autopack policy explain names the rule behind each answer). Deny wins over allow,
# and what no list names asks.
extends = "autopack"
# allowed = ["examples/**"]      # may change without asking
# protected = ["src/core/**"]    # always asks
# never = ["deploy/keys/**"]     # needs an elevated approval with a written reason

# [policy.approval]
# timeout_seconds = 3600         # 60 to 86400; an unanswered request counts as a rejection

# Commands that must pass on every applied change; when one fails, the change is rolled back. They are yours, but they
# run the patched files: what they may reach, a patch may reach.
# [[gate.commands]]
# name = "{name}"
# run = "{run}"
# timeout_seconds = 600

# A program for gaps without a built-in remediation. It works in a sandbox (autopack sandbox selftest).
# [builders.mend]
# kind = "command"
# argv = ["./tools/mend"]
# gaps = ["test_infra_drift"]
# timeout_seconds = 600

# [worker]
# slots = 2                      # phases worked on at once
"#
    )
}

#[cfg(test)]
mod tests {
    use autopack_shared::domain::project::ProjectConfig;
    use autopack_shared::runtime::config::{Environment, Settings};

    use super::*;

    #[test]
    fn the_template_and_every_suggestion_in_it_can_be_used() {
        let text = config("shop", ("tests", "make test"));
        ProjectConfig::parse(&text, "f").unwrap();
        let is_setting = |line: &str| line.contains(" = ") || line.starts_with('[');
        let woken: Vec<String> = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line).to_owned())
            .collect();
        let woken = woken.join("\n");
        let config = ProjectConfig::parse(&woken, "f").unwrap();
        assert_eq!((config.gate.commands.len(), config.builders.len()), (1, 1));
        Settings::resolve(Some((&woken, "f")), &Environment::default(), &[]).unwrap();
    }

    #[test]
    fn the_gate_follows_the_build_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(gate_of(dir.path()).1, "./run-tests");
        std::fs::write(dir.path().join("Makefile"), "").unwrap();
        assert_eq!(gate_of(dir.path()).1, "make test");
        std::fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        assert_eq!(gate_of(dir.path()).1, "cargo test --workspace");
    }
}
