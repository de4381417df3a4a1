//! The one binary: reads the command line, runs the command on its own runtime, and turns how it ended into an exit
//! code.

mod args;
mod artifact;
mod bench;
mod commands;
mod connect;
mod console;
mod context;
mod drive;
mod exit;
mod follow;
mod output;
mod rules;
mod show;
mod survey;
mod telemetry;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use tracing::Instrument as _;

use autopack_shared::runtime::config::Environment;
use autopack_shared::runtime::telemetry::context::Within as _;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::exit::{AUDIT_USAGE, CliError, Exit};

/// The variable that would switch governance off, if anything could.
const GOVERNANCE_OFF: &str = "AUTOPACK_GOVERNANCE_DISABLED";

fn main() -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|words| Ok((telemetry::name_of(&words), Cli::from_arg_matches(&words)?)));
    let (name, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(help_or_error) => {
            // Nobody is left to tell when the streams are gone.
            let _ = help_or_error.print();
            return ExitCode::from(code_of(&help_or_error));
        }
    };
    let mut global = cli.global;
    global.output = cli.command.format().unwrap_or(global.output);
    if matches!(cli.command, Command::Projects(_)) {
        // There it names a project's repository, not the one that the person is in.
        global.repo = None;
    }
    let context = Context::new(global, cli.command.settings(), Environment::of_process());
    let ended = run(&context, cli.command, &name);
    let exit = ended.unwrap_or_else(|error| {
        context.out.failure(&error);
        error.exit()
    });
    ExitCode::from(exit.code())
}

/// How a command line that was not understood, or asked for help, ends the process.
fn code_of(help_or_error: &clap::Error) -> u8 {
    let code = u8::try_from(help_or_error.exit_code()).unwrap_or(Exit::Usage.code());
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let verifies = words
        .iter()
        .position(|word| word == "audit")
        .is_some_and(|audit| words[audit..].iter().any(|word| word == "verify"));
    if code == Exit::Usage.code() && verifies { AUDIT_USAGE } else { code }
}

fn run(context: &Context, command: args::Command, name: &str) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("autopack")
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "cannot start".to_owned(), source })?;
    let telemetry = {
        // The exporters talk on this runtime.
        let _inside = runtime.enter();
        telemetry::start(context, &command)
    };
    let (span, parent) = telemetry::span_of(context, &command, name);
    let ended = refuse_switched_off();
    // The caller's own context besides: it is passed on where nothing is exported.
    let ended =
        ended.and_then(|()| runtime.block_on(commands::run(context, command).instrument(span).with_context(parent)));
    runtime.block_on(telemetry.flush());
    // A blocking read of stdin cannot be cancelled; it must not keep a command that has ended.
    runtime.shutdown_background();
    ended
}

fn refuse_switched_off() -> Result<(), CliError> {
    // Set is set, also to nothing: no value of it may seem to have worked.
    if std::env::var_os(GOVERNANCE_OFF).is_none() {
        return Ok(());
    }
    Err(CliError::refused(
        "unsafe_config",
        format!("refusing to start with {GOVERNANCE_OFF} set"),
        "governance has no off switch: an environment variable leaves no trace of who bypassed what",
        format!(
            "unset {GOVERNANCE_OFF}; a way through for emergencies that is recorded (break-glass) is planned, not in \
             this version"
        ),
    ))
}
