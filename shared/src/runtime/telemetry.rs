//! Telemetry of one process: the log on stderr and, where a collector is named, traces, metrics and logs by OTLP.
//! Nothing waits for the collector: queues are bounded, what does not fit is dropped and counted, and the end of the
//! process waits for it only a moment.

pub mod context;
pub mod instruments;
mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, RetryPolicy, SpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchConfigBuilder as LogQueue, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream};
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchConfigBuilder as SpanQueue, BatchSpanProcessor, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use crate::runtime::config::Environment;

use self::queue::{Bounded, Counted, Load, QUEUE};

/// Upper bounds of the buckets of durations, in seconds: the defaults are meant for milliseconds.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0, 86_400.0];

/// Whether this process exports.
static ON: AtomicBool = AtomicBool::new(false);

/// Whether anybody reads what is measured; what costs something to measure asks first.
#[must_use]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Who a process is, for those who read its telemetry.
#[derive(Debug, Clone)]
pub struct Role {
    /// `autopack-supervisor`, ...; `OTEL_SERVICE_NAME` wins.
    pub service: &'static str,
    /// Which one of them.
    pub instance: String,
    /// How long the end of the process may wait for the collector.
    pub patience: Duration,
    /// Whether a collector that is away for a moment is tried again.
    pub retries: bool,
}

/// The log on stderr.
#[derive(Debug)]
pub struct Log {
    /// What is told.
    pub filter: EnvFilter,
    /// In colour.
    pub ansi: bool,
}

/// Where telemetry goes: nowhere unless a collector is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Export {
    // None where the standard variables name it; then those of each signal count too.
    endpoint: Option<String>,
    service: Option<String>,
    off: [bool; 3],
}

impl Export {
    /// By `[otel]` of the settings, else by the standard variables; none where neither names a collector, or
    /// `OTEL_SDK_DISABLED` is `true`.
    #[must_use]
    pub fn of(endpoint: Option<&str>, env: &Environment) -> Option<Self> {
        let is = |name: &str, word: &str| env.get(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        let named = endpoint.is_some() || env.get("OTEL_EXPORTER_OTLP_ENDPOINT").is_some();
        if !named || is("OTEL_SDK_DISABLED", "true") {
            return None;
        }
        let off = ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"].map(|name| is(name, "none"));
        Some(Self {
            endpoint: endpoint.map(str::to_owned),
            service: env.get("OTEL_SERVICE_NAME").map(str::to_owned),
            off,
        })
    }
}

/// What has to be flushed when the process ends.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    logs: Option<SdkLoggerProvider>,
    loads: Loads,
    patience: Duration,
}

#[derive(Debug, Clone, Default)]
struct Loads {
    traces: Arc<Load>,
    metrics: Arc<Load>,
    logs: Arc<Load>,
}

impl Loads {
    /// Signal, reason and count of all that was dropped.
    fn dropped(&self) -> Vec<(&'static str, &'static str, u64)> {
        let signals = [("traces", &self.traces), ("metrics", &self.metrics), ("logs", &self.logs)];
        let of = |(signal, load): (&'static str, &Arc<Load>)| load.dropped().map(|(why, count)| (signal, why, count));
        signals.into_iter().flat_map(of).filter(|(_, _, count)| *count > 0).collect()
    }
}

/// The filter of what is exported: ours, never that of the exporter itself.
fn ours() -> Targets {
    Targets::new().with_target("autopack", LevelFilter::INFO)
}

/// Starts the log and, where a collector is named, the export; inside the runtime that the process runs on. A log that
/// is there already stays, and then nothing is exported.
///
/// # Errors
/// When the collector's address cannot be used; the log is there all the same.
pub fn start(log: Log, role: &Role, export: Option<&Export>) -> Result<Telemetry, ExporterBuildError> {
    let built = export.map(|export| build(role, export)).transpose();
    let mut telemetry = Telemetry::default();
    let mut failed = None;
    match built {
        Ok(Some(built)) => telemetry = built,
        Ok(None) => {}
        Err(error) => failed = Some(error),
    }
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(log.ansi).with_target(false);
    let spans = telemetry.traces.as_ref().map(|traces| {
        let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer("autopack"));
        // Attributes by the conventions are given where a span is made.
        let layer = layer.with_location(false).with_threads(false).with_target(false).with_level(false);
        let layer = layer.with_tracked_inactivity(false);
        layer.with_filter(ours().and(filter_fn(|metadata| metadata.is_span())))
    });
    let records = telemetry.logs.as_ref().map(|logs| OpenTelemetryTracingBridge::new(logs).with_filter(ours()));
    // The log's filter counts for the log alone.
    let layers = Registry::default().with(spans).with(records).with(stderr.with_filter(log.filter));
    if layers.try_init().is_ok()
        && let Some(metrics) = &telemetry.metrics
    {
        global::set_meter_provider(metrics.clone());
        let loads = telemetry.loads.clone();
        instruments::watch_dropped(&global::meter("autopack"), move || loads.dropped());
        ON.store(true, Ordering::Relaxed);
    }
    failed.map_or(Ok(telemetry), Err)
}

/// The exporters of the three signals. Each metric goes through one provider, whose readers may become more.
fn build(role: &Role, export: &Export) -> Result<Telemetry, ExporterBuildError> {
    let (resource, loads) = (resource_of(role, export), Loads::default());
    let [no_traces, no_metrics, no_logs] = export.off;
    let traces = if no_traces {
        None
    } else {
        let inner = reach(SpanExporter::builder().with_tonic(), role, export).build()?;
        let config = SpanQueue::default().with_max_queue_size(QUEUE * 2).build();
        let load = loads.traces.clone();
        let inner = BatchSpanProcessor::new(Counted { inner, load: load.clone() }, config);
        let processor = Bounded { inner, load };
        Some(SdkTracerProvider::builder().with_resource(resource.clone()).with_span_processor(processor).build())
    };
    let logs = if no_logs {
        None
    } else {
        let inner = reach(LogExporter::builder().with_tonic(), role, export).build()?;
        let config = LogQueue::default().with_max_queue_size(QUEUE * 2).build();
        let load = loads.logs.clone();
        let exporter = Counted { inner, load: load.clone() };
        let inner = BatchLogProcessor::builder(exporter).with_batch_config(config).build();
        let processor = Bounded { inner, load };
        Some(SdkLoggerProvider::builder().with_resource(resource.clone()).with_log_processor(processor).build())
    };
    let mut metrics = SdkMeterProvider::builder().with_resource(resource).with_view(view);
    if !no_metrics {
        let inner = reach(MetricExporter::builder().with_tonic(), role, export).build()?;
        let exporter = Counted { inner, load: loads.metrics.clone() };
        metrics = metrics.with_reader(PeriodicReader::builder(exporter).build());
    }
    Ok(Telemetry { traces, metrics: Some(metrics.build()), logs, loads, patience: role.patience })
}

fn reach<B: WithExportConfig + WithTonicConfig>(builder: B, role: &Role, export: &Export) -> B {
    let builder = match &export.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    if role.retries { builder } else { builder.with_retry_policy(RetryPolicy::disabled()) }
}

/// Buckets for seconds.
fn view(instrument: &Instrument) -> Option<Stream> {
    if instrument.unit() != "s" {
        return None;
    }
    let buckets = Aggregation::ExplicitBucketHistogram { boundaries: SECONDS.to_vec(), record_min_max: true };
    Stream::builder().with_aggregation(buckets).build().ok()
}

fn resource_of(role: &Role, export: &Export) -> Resource {
    let ours = [
        KeyValue::new("service.name", role.service),
        KeyValue::new("service.namespace", "autopack"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", role.instance.clone()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    let resource = Resource::builder_empty().with_attributes(ours);
    // What the operator says wins.
    let resource = resource.with_detector(Box::new(TelemetryResourceDetector));
    let resource = resource.with_detector(Box::new(EnvResourceDetector::new()));
    match &export.service {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

impl Telemetry {
    /// Sends what waits, for a moment at most; what then still waits is dropped. What was dropped in all is logged.
    pub async fn flush(self) {
        ON.store(false, Ordering::Relaxed);
        let (traces, logs, metrics, half) = (self.traces, self.logs, self.metrics, self.patience / 2);
        let traces = move || traces.is_some_and(|traces| traces.shutdown_with_timeout(half).is_err());
        let logs = move || logs.is_some_and(|logs| logs.shutdown_with_timeout(half).is_err());
        within(half, traces, logs).await;
        self.loads.traces.abandon();
        self.loads.logs.abandon();
        // Last, so that it tells what the others dropped.
        within(half, move || metrics.is_some_and(|metrics| metrics.shutdown_with_timeout(half).is_err()), || false)
            .await;
        for (signal, reason, count) in self.loads.dropped() {
            tracing::warn!(signal, reason, count, "telemetry was dropped");
        }
    }
}

/// Waits for two blocking calls, for so long; they are left behind where they take longer.
async fn within<A, B>(limit: Duration, a: A, b: B)
where
    A: FnOnce() -> bool + Send + 'static,
    B: FnOnce() -> bool + Send + 'static,
{
    let (a, b) = (tokio::task::spawn_blocking(a), tokio::task::spawn_blocking(b));
    let both = async { (a.await, b.await) };
    let _late = tokio::time::timeout(limit, both).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_exported_unless_a_collector_is_named() {
        let none = Environment::from([("OTEL_SERVICE_NAME", "x"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "1")]);
        assert_eq!(Export::of(None, &none), None);
        let env = Environment::from([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_LOGS_EXPORTER", "none")]);
        let export = Export::of(None, &env).unwrap();
        assert_eq!((export.endpoint, export.off), (None, [false, false, true]));
        assert_eq!(Export::of(Some("http://d:4317"), &none).unwrap().endpoint.unwrap(), "http://d:4317");
        let off = Environment::from([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_SDK_DISABLED", "TRUE")]);
        assert_eq!(Export::of(Some("http://d:4317"), &off), None);
    }
}
