//! Bounded queues in front of the exporters. Whoever records never waits: what finds no room, and what a collector did
//! not take, is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::logs::Severity;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

/// Spans, and as many log records, that may wait for the collector.
pub(super) const QUEUE: usize = 2048;

/// What waits of one signal, and what was dropped.
#[derive(Debug, Default)]
pub(super) struct Load {
    waiting: AtomicUsize,
    full: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Whether there is room for one more; it then has to be taken again by [`Load::settle`].
    fn admit(&self) -> bool {
        let room = |waiting: usize| (waiting < QUEUE).then_some(waiting + 1);
        let admitted = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok();
        if !admitted {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn settle(&self, count: usize, sent: bool) {
        // What came in after the end was never counted in.
        let fewer = |waiting: usize| Some(waiting.saturating_sub(count));
        let _always = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
        if !sent {
            self.failed.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Gives up what still waits.
    pub(super) fn abandon(&self) {
        self.settle(self.waiting.load(Ordering::Acquire), false);
    }

    /// Dropped because the queue was full, and because the collector did not take it.
    pub(super) fn dropped(&self) -> [(&'static str, u64); 2] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("queue_full", count(&self.full)), ("export_failed", count(&self.failed))]
    }
}

/// A processor that takes in what there is room for. The queue behind it is larger, so that nothing is lost there.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    pub(super) inner: P,
    pub(super) load: Arc<Load>,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.load.admit() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<P: LogProcessor> LogProcessor for Bounded<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.load.admit() {
            self.inner.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter that says what became of each batch.
#[derive(Debug)]
pub(super) struct Counted<E> {
    pub(super) inner: E,
    pub(super) load: Arc<Load>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.inner.export(batch).await;
        self.load.settle(count, sent.is_ok());
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let count = batch.iter().count();
        let sent = self.inner.export(batch).await;
        self.load.settle(count, sent.is_ok());
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let sent = self.inner.export(metrics).await;
        if sent.is_err() {
            // Sums go on from where they were: what is lost is one look at them.
            self.load.settle(1, false);
        }
        sent
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_and_what_is_not_taken_is_counted() {
        let load = Load::default();
        assert_eq!((0..QUEUE + 3).filter(|_| load.admit()).count(), QUEUE);
        load.settle(500, true);
        load.settle(12, false);
        assert_eq!(load.dropped(), [("queue_full", 3), ("export_failed", 12)]);
        assert_eq!((0..600).filter(|_| load.admit()).count(), 512, "the room that was made");
        load.abandon();
        assert_eq!(load.dropped(), [("queue_full", 91), ("export_failed", 12 + QUEUE as u64)]);
    }
}
