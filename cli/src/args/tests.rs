//! The definition of the command line, and what it accepts.

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("autopack").chain(line.split_whitespace()))
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for line in ["-o json --repo /r gaps scan", "gaps scan -o json --repo /r"] {
        let cli = parse(line).unwrap();
        assert_eq!((cli.global.output, cli.global.repo), (Format::Json, Some(PathBuf::from("/r"))), "{line}");
    }
}

#[test]
fn what_belongs_together_is_asked_for_together() {
    for (line, good) in [
        ("policy eval --range a..b", true),
        ("policy eval --patch x --base b", true),
        ("policy eval --patch x", false),
        ("policy eval --base b", false),
        ("policy eval --patch x --base b --range a..b", false),
        ("policy eval --range a..b --claimed-risk HIGH", true),
        ("policy eval --range a..b --claimed-risk huge", false),
        ("gate check --runs -1 --workers -2", true),
        ("autopilot run --no-wait --enable", true),
        ("autopilot run --no-wait --interactive --enable", false),
        ("autopilot supervise --run-ids a,b --workers 2 --per-run-sqlite", true),
        ("autopilot supervise --run-ids a,../b --workers 2", false),
        ("autopilot supervise --run-ids a --workers 0", false),
        ("autopilot supervise --list-worktrees", true),
        ("approvals reject id --reason no", true),
        ("runs submit - --run-id ok", true),
    ] {
        assert_eq!(parse(line).is_ok(), good, "{line}");
    }
}

#[test]
fn run_ids_are_checked_at_the_door() {
    for bad in ["A", "a/b", "../x", "a.lock", "locks"] {
        assert!(parse(&format!("runs show {bad}")).is_err(), "{bad}");
    }
}
