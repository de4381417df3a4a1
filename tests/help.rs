//! What the binary says about itself.

use crate::harness::Bench;

/// Every command with its own help.
const COMMANDS: &[&str] = &[
    "",
    "init",
    "anchor",
    "anchor new",
    "anchor lint",
    "anchor show",
    "anchor convert",
    "gaps scan",
    "plan propose",
    "autopilot run",
    "autopilot supervise",
    "runs",
    "runs submit",
    "runs list",
    "runs show",
    "runs watch",
    "runs logs",
    "runs diff",
    "runs cancel",
    "runs pause",
    "runs resume",
    "runs retry",
    "runs explain",
    "runs land",
    "rollback",
    "savepoints list",
    "savepoints diff",
    "savepoints restore",
    "approvals",
    "approvals list",
    "approvals show",
    "approvals approve",
    "approvals reject",
    "approvals watch",
    "governance pending",
    "governance request",
    "governance history",
    "leases list",
    "leases break",
    "workers list",
    "workers drain",
    "workspaces list",
    "workspaces cleanup",
    "policy eval",
    "policy check",
    "policy explain",
    "gate check",
    "audit",
    "audit verify",
    "audit export",
    "audit query",
    "admin new-incarnation",
    "up",
    "doctor",
    "bench",
    "config show",
    "completions",
];

/// Groups that only lead to their commands, whose help has the examples.
const GROUPS: &[&str] = &["anchor", "runs", "approvals", "audit"];

#[test]
fn every_command_has_help_with_examples() {
    let bench = Bench::empty();
    let mut all = String::new();
    for command in COMMANDS {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let ran = bench.run(&args).expect(0);
        assert!(ran.stdout.contains("Examples:") || GROUPS.contains(command), "{command}");
        // The global options are the same everywhere: they are shown once.
        let own = if command.is_empty() {
            ran.stdout
        } else {
            ran.stdout.split("Global options:").next().unwrap().to_owned()
        };
        all.push_str(&format!("$ autopack {command}\n{own}\n"));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_typing_error_is_answered_with_what_was_meant() {
    let bench = Bench::empty();
    let mut all = String::new();
    for args in [
        &["gapz", "scan"][..],
        &["gaps", "scan", "--wirte"],
        &["runs", "show", "No Such"],
        &["autopilot", "supervise", "--workers", "2"],
        &["autopilot", "run", "--interactive"],
        &["policy", "eval"],
        &["gaps", "scan", "-o", "yaml"],
        &["approvals", "reject", "x"],
    ] {
        let ran = bench.run(args).expect(2);
        assert_eq!(ran.stdout, "", "errors do not belong on stdout");
        all.push_str(&format!("$ autopack {}\n{}\n", args.join(" "), ran.stderr));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn completions_are_printed_for_shells() {
    let bench = Bench::empty();
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.run(&["completions", shell]).expect(0).stdout.contains("autopilot"), "{shell}");
    }
}
