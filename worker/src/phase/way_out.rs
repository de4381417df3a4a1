//! Where the processes of a job may connect to, and what they tried.

use autopack_shared::domain::project::{BuilderConfig, BuilderKind, ModelConfig};
use autopack_shared::domain::record::LeasePurpose;
use autopack_shared::domain::run_file::BuilderSpec;

use super::{EventSink, Job, JobData, Runner};
use crate::builder::BuildError;
use crate::egress::{Egress, Route, Ways};
use crate::process::Cage;
use crate::process::output::Output;
use crate::sandbox::Sandbox;

/// Places that are told of one attempt.
const MOST: usize = 30;

/// The model of an attempt, where an agent is to ask one by itself.
fn model(job: &Job) -> Option<&ModelConfig> {
    let agent = matches!(job.spec.builder, BuilderSpec::Agent { .. }) && job.purpose == LeasePurpose::Build;
    let entry: &BuilderConfig = job.entry.as_ref().filter(|entry| agent && entry.kind == BuilderKind::Agent)?;
    entry.model_of(job.attempt)
}

/// The server of a URL as `host:port`.
fn server(url: &str, port: u16) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default().unwrap_or(port)))
}

impl Runner {
    /// A way out for a job's processes; none where they ask for none: then there is nothing that they could use.
    ///
    /// # Errors
    /// `egress_refused` for a host that the project may not have here.
    pub(super) async fn way_out(
        &self,
        job: &Job,
        sandbox: &Sandbox,
        output: &Output,
    ) -> Result<Option<Egress>, BuildError> {
        let rules = self.provision.given.egress(&job.project, &job.egress);
        let rules = rules.map_err(|error| BuildError::of("egress_refused", &error))?;
        // One that is not known, or has no key here, is the builder's to complain of.
        let route = model(job).and_then(|model| {
            let (name, provider) = (model.provider.clone(), self.providers.get(&model.provider)?.clone());
            Some(Route { name, provider, model: Some(model.clone()) })
        });
        if rules.is_empty() && route.is_none() {
            return Ok(None);
        }
        let mut never: Vec<String> = self.line.places().iter().filter_map(|url| server(url, 443)).collect();
        if let JobData::Server(url) = &job.data {
            never.extend(server(url, 5432));
        }
        let ways = Ways { rules, route, never, allowance: job.allowance, limits: self.egress };
        Egress::open(sandbox, ways, output.clone()).await.map(Some).map_err(|e| BuildError::of("sandbox_failed", &e))
    }
}

impl EventSink {
    /// Tells which hosts a job's processes tried, and keeps it for the result.
    pub(super) async fn tell_contacts(&self, cage: &Cage) {
        let Cage::Sandboxed(_, place) = cage else { return };
        let all = place.egress.as_ref().map(|egress| egress.contacts()).unwrap_or_default();
        let mut lines: Vec<String> = all.iter().take(MOST).map(ToString::to_string).collect();
        if all.len() > MOST {
            lines.push(format!("egress: {} more places", all.len() - MOST));
        }
        for line in &lines {
            self.send("egress.contact", line.clone()).await;
        }
        self.has_contacts(lines);
    }
}
