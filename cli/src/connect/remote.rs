//! A supervisor elsewhere: reached by its URL, with the person's token and the project that is meant.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Request, Status};

use autopack_shared::runtime::telemetry::context;
use autopack_shared::wire::{PROJECT_HEADER, dial};

use crate::context::Remote;
use crate::exit::CliError;

/// How long a supervisor may take to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// What goes with every call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    token: Option<MetadataValue<Ascii>>,
    project: Option<MetadataValue<Ascii>>,
}

impl Headers {
    pub(crate) fn of(remote: &Remote) -> Result<Self, CliError> {
        let bad = |what: &str| {
            CliError::invalid(
                format!("the {what} cannot be sent"),
                "it has characters that no header can carry",
                "correct it",
            )
        };
        let token = remote.token.as_ref().map(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>());
        let mut token = token.transpose().map_err(|_| bad("token"))?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        let project = remote.project.as_ref().map(|project| project.parse()).transpose().map_err(|_| bad("project"))?;
        Ok(Self { token, project })
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut call: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            call.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(project) = &self.project {
            call.metadata_mut().insert(PROJECT_HEADER, project.clone());
        }
        for (name, value) in context::headers() {
            if let Ok(value) = value.parse() {
                call.metadata_mut().insert(name, value);
            }
        }
        Ok(call)
    }
}

/// Connects to the first of the URLs that answers; several are separated by commas.
pub(crate) async fn dial(urls: &str) -> Result<Channel, CliError> {
    let mut refused = Vec::new();
    for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        match dial::dial(url, CONNECT).await {
            Ok(channel) => return Ok(channel),
            Err(why) => refused.push(why),
        }
    }
    let why = if refused.is_empty() { "no URL is named".to_owned() } else { refused.join("; ") };
    let fix = "check --server or AUTOPACK_SERVER, and that a supervisor runs there";
    Err(CliError::refused("unavailable", "no supervisor could be reached", why, fix))
}
