//! The providers of models that a worker of this process may ask.

use std::path::Path;
use std::sync::Arc;

use autopack_worker::providers::Providers;

use crate::context::Context;
use crate::exit::{CliError, During as _};

/// Whom the worker's models are asked of, with the keys of this process's environment.
pub(crate) fn providers(ctx: &Context, file: Option<&Path>) -> Result<Arc<Providers>, CliError> {
    let text = match file {
        Some(file) => Some(std::fs::read_to_string(file).during(format!("read {}", file.display()))?),
        None => None,
    };
    let origin = file.map(|file| file.display().to_string()).unwrap_or_default();
    let named = text.as_deref().map(|text| (text, origin.as_str()));
    let opened = Providers::open(&ctx.env, named).map_err(|error| {
        let fix = "docs/BUILDERS.md shows what it holds";
        CliError::invalid("the providers of models cannot be used", error.to_string(), fix)
    })?;
    Ok(Arc::new(opened))
}
