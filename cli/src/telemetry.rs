//! What a command tells of itself: the log on stderr, and its span, the root of a trace or the child of the caller's.

use std::time::Duration;

use clap::ArgMatches;
use tracing::Span;
use tracing_subscriber::EnvFilter;

use autopack_shared::runtime::telemetry::context::{self, Parent};
use autopack_shared::runtime::telemetry::{self, Export, Log, Role, Telemetry};

use crate::args::Command;
use crate::context::Context;

/// How long a command that has ended waits for the collector at most.
const MOMENT: Duration = Duration::from_secs(2);

/// How long a daemon does.
const WHILE: Duration = Duration::from_secs(5);

/// The words of a command, without what they are about: `autopack runs submit`.
pub(crate) fn name_of(words: &ArgMatches) -> String {
    let (mut name, mut at) = ("autopack".to_owned(), words);
    while let Some((word, below)) = at.subcommand() {
        name.push(' ');
        name.push_str(word);
        at = below;
    }
    name
}

/// Starts the log, which goes to stderr: failures always, all of it with `-v` or `AUTOPACK_LOG`; and the export, where
/// a collector is named.
pub(crate) fn start(ctx: &Context, command: &Command) -> Telemetry {
    let default = if ctx.verbose { "info,autopack_supervisor=debug,autopack_worker=debug" } else { "error" };
    let filter = EnvFilter::try_new(ctx.env.get("AUTOPACK_LOG").unwrap_or(default));
    let log = Log { filter: filter.unwrap_or_else(|_| EnvFilter::new(default)), ansi: ctx.out.color };
    // What is wrong with the settings is told by the command that needs them.
    let endpoint = ctx.host_settings().ok().and_then(|settings| settings.otel_endpoint);
    let export = Export::of(endpoint.as_deref(), &ctx.env);
    match telemetry::start(log, &role_of(ctx, command), export.as_ref()) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            ctx.out.warn(&format!("nothing is exported: {error}"));
            Telemetry::default()
        }
    }
}

fn role_of(ctx: &Context, command: &Command) -> Role {
    let daemon = |service, instance: String| Role { service, instance, patience: WHILE, retries: true };
    if let Command::Supervisor(args) = command {
        return daemon("autopack-supervisor", args.id.clone());
    }
    if let Command::Worker(args) = command {
        return daemon("autopack-worker", args.name.to_string());
    }
    let retries = matches!(command, Command::Up(_));
    Role { service: "autopack", instance: ctx.ids.fresh("cli"), patience: MOMENT, retries }
}

/// The span of a command, and the trace that its caller named. What runs until it is stopped has neither: what it does
/// belongs to others' traces.
pub(crate) fn span_of(ctx: &Context, command: &Command, name: &str) -> (Span, Parent) {
    if matches!(command, Command::Supervisor(_) | Command::Worker(_) | Command::Up(_)) {
        return (Span::none(), Parent::new());
    }
    let parent = context::read(|header| ctx.env.get(&header.to_uppercase()));
    let span = tracing::info_span!("command", otel.name = name);
    context::adopt(&span, &parent);
    (span, parent)
}
