//! `config show` and `completions`.

use clap::CommandFactory as _;
use serde_json::json;

use crate::args::Cli;
use crate::args::local::{Completions, Config};
use crate::context::Context;
use crate::exit::{CliError, Exit};
use crate::terminal::Table;

/// Runs `config`.
pub(crate) fn config(ctx: &Context, command: &Config) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Config::Show => show(ctx),
    }
}

fn show(ctx: &Context) -> Result<Exit, CliError> {
    // Outside of a repository the settings are those of the environment and the flags.
    let settings = ctx.settings(ctx.root().ok().as_deref())?;
    if ctx.out.machine() {
        let values = settings.shown().iter().map(
            |one| json!({ "key": one.key, "value": one.value, "origin": one.origin.to_string(), "about": one.about }),
        );
        ctx.out.list("settings", "setting", values.collect())?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["SETTING", "VALUE", "FROM", "FOR"]);
    for one in settings.shown() {
        let value = one.value.clone().unwrap_or_else(|| "-".to_owned());
        table.row([one.key.to_owned(), value, one.origin.to_string(), one.about.to_owned()]);
    }
    ctx.out.table(&table)?;
    Ok(Exit::Done)
}

/// Runs `completions`.
pub(crate) fn completions(ctx: &Context, args: &Completions) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "autopack", &mut script);
    ctx.out.raw(&script)?;
    Ok(Exit::Done)
}
