//! A collector on the official protocol that keeps all it is sent; or one that takes everything and never answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1 as trace;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as spans;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A span as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) facts: BTreeMap<String, String>,
}

/// All that arrived.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) spans: Vec<Span>,
    /// Body and trace of each record.
    pub(crate) logs: Vec<(String, String)>,
    /// Attributes of the points of each metric, as `key=value`; sums besides as `=value`.
    pub(crate) metrics: BTreeMap<String, BTreeSet<String>>,
    /// The upper bounds of each histogram.
    pub(crate) bounds: BTreeMap<String, Vec<f64>>,
    pub(crate) resources: BTreeMap<String, String>,
    pub(crate) calls: usize,
}

/// What is never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silent {
    Nothing,
    Traces,
    Everything,
}

/// A running collector; it ends with the test.
pub(crate) struct Collector {
    port: u16,
    arrived: Arc<Mutex<Arrived>>,
    runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Receiver {
    arrived: Arc<Mutex<Arrived>>,
    silent: Silent,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn facts(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let of = |pair: &KeyValue| (pair.key.clone(), text(pair.value.as_ref().and_then(|value| value.value.as_ref())));
    pairs.iter().map(of).collect()
}

fn resource(resource: Option<&Resource>) -> BTreeMap<String, String> {
    resource.map(|resource| facts(&resource.attributes)).unwrap_or_default()
}

/// The points of a metric: their attributes, and what a sum came to.
fn points(data: Option<&Data>) -> (BTreeSet<String>, Vec<f64>) {
    let shown = |pairs: &[KeyValue]| facts(pairs).into_iter().map(|(key, value)| format!("{key}={value}"));
    let mut found = BTreeSet::new();
    let mut bounds = Vec::new();
    match data {
        Some(Data::Gauge(gauge)) => found.extend(gauge.data_points.iter().flat_map(|point| shown(&point.attributes))),
        Some(Data::Sum(sum)) => found.extend(sum.data_points.iter().flat_map(|point| shown(&point.attributes))),
        Some(Data::Histogram(histogram)) => {
            found.extend(histogram.data_points.iter().flat_map(|point| shown(&point.attributes)));
            bounds.extend(histogram.data_points.iter().take(1).flat_map(|point| point.explicit_bounds.clone()));
        }
        other => panic!("{other:?}"),
    }
    (found, bounds)
}

impl Receiver {
    async fn receive(&self, silent: bool, take: impl FnOnce(&mut Arrived)) {
        {
            let mut arrived = self.arrived.lock().unwrap();
            arrived.calls += 1;
            take(&mut arrived);
        }
        if silent {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        call: Request<trace::ExportTraceServiceRequest>,
    ) -> Result<Response<trace::ExportTraceServiceResponse>, Status> {
        let call = call.into_inner();
        self.receive(self.silent != Silent::Nothing, |arrived| {
            for group in call.resource_spans {
                let from = resource(group.resource.as_ref());
                let service = from.get("service.name").cloned().unwrap_or_default();
                arrived.resources.extend(from);
                arrived.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Span {
                    service: service.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    facts: facts(&span.attributes),
                }));
            }
        })
        .await;
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        call: Request<metrics::ExportMetricsServiceRequest>,
    ) -> Result<Response<metrics::ExportMetricsServiceResponse>, Status> {
        let call = call.into_inner();
        self.receive(self.silent == Silent::Everything, |arrived| {
            let scopes = call.resource_metrics.into_iter().flat_map(|group| group.scope_metrics);
            for metric in scopes.flat_map(|scope| scope.metrics) {
                let (found, bounds) = points(metric.data.as_ref());
                arrived.metrics.entry(metric.name.clone()).or_default().extend(found);
                arrived.bounds.insert(metric.name, bounds);
            }
        })
        .await;
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        call: Request<logs::ExportLogsServiceRequest>,
    ) -> Result<Response<logs::ExportLogsServiceResponse>, Status> {
        let call = call.into_inner();
        self.receive(self.silent == Silent::Everything, |arrived| {
            let scopes = call.resource_logs.into_iter().flat_map(|group| group.scope_logs);
            for record in scopes.flat_map(|scope| scope.log_records) {
                let body = text(record.body.as_ref().and_then(|body| body.value.as_ref()));
                arrived.logs.push((body, hex(&record.trace_id)));
            }
        })
        .await;
        Ok(Response::new(Default::default()))
    }
}

impl Collector {
    /// Starts one.
    pub(crate) fn start(silent: Silent) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let arrived: Arc<Mutex<Arrived>> = Arc::default();
        let receiver = Receiver { arrived: arrived.clone(), silent };
        let incoming = {
            let _inside = runtime.enter();
            TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap()
        };
        let port = incoming.local_addr().unwrap().port();
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(receiver.clone()))
            .add_service(MetricsServiceServer::new(receiver.clone()))
            .add_service(LogsServiceServer::new(receiver))
            .serve_with_incoming(incoming);
        runtime.spawn(serving);
        Self { port, arrived, runtime }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The variables of a process that exports here, soon.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let soon = [("OTEL_METRIC_EXPORT_INTERVAL", "500"), ("OTEL_BSP_SCHEDULE_DELAY", "200")];
        let mut env = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), self.url())];
        env.extend(soon.map(|(key, value)| (key.to_owned(), value.to_owned())));
        env
    }

    /// Looks at what arrived.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Arrived) -> T) -> T {
        at(&self.arrived.lock().unwrap())
    }

    /// The first span of a service with a name.
    pub(crate) fn span(&self, service: &str, name: &str) -> Option<Span> {
        let fits = |span: &&Span| span.service == service && span.name == name;
        self.look(|arrived| arrived.spans.iter().find(fits).cloned())
    }

    /// Sends a span the way a program would that was started with this `TRACEPARENT`.
    pub(crate) fn go_on(&self, traceparent: &str, name: &str) {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
        };
        let parts: Vec<&str> = traceparent.split('-').collect();
        let span = spans::Span {
            trace_id: bytes(parts[1]),
            span_id: vec![7; 8],
            parent_span_id: bytes(parts[2]),
            name: name.to_owned(),
            ..Default::default()
        };
        let scope = spans::ScopeSpans { spans: vec![span], ..Default::default() };
        let group = spans::ResourceSpans { scope_spans: vec![scope], ..Default::default() };
        let call = trace::ExportTraceServiceRequest { resource_spans: vec![group] };
        let sent = self.runtime.block_on(async {
            let mut client = TraceServiceClient::connect(self.url()).await.unwrap();
            tokio::time::timeout(Duration::from_secs(10), client.export(call)).await
        });
        sent.unwrap().unwrap();
    }
}
