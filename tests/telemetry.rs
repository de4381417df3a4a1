//! Telemetry of the engine in one process: the same trace as in a cluster; a collector that is away, or that never
//! answers, costs nobody a decision; and nothing leaves a process that was not told where to.

use std::time::{Duration, Instant};

use crate::harness::collector::{Collector, Silent};
use crate::harness::{Bench, Ran, SITE};

/// How long a command waits for the collector at its end, and as much again for a machine that does much else.
const MOMENT: Duration = Duration::from_secs(4);

/// The calls of the tests that do not care how long they take.
const RUN: [&str; 6] = ["autopilot", "run", "--enable", "--no-wait", "--run-id", "r1"];

/// A run in a repository of its own: how it went, and how long it took.
fn ran(env: &[(&str, &str)]) -> (Bench, Ran, Duration) {
    let bench = Bench::with(SITE);
    let from = now();
    let ran = bench.run_in(&bench.repo(), &RUN, env);
    (bench, ran, from.elapsed())
}

#[expect(clippy::disallowed_methods, reason = "a deadline of a test, in real time")]
fn now() -> Instant {
    Instant::now()
}

/// What a run came to, without what differs from run to run.
fn outcome(bench: &Bench) -> String {
    let shown = bench.run(&["runs", "show", "r1", "-o", "json"]).expect(0).json();
    let phases = shown["phases"].as_array().unwrap().iter();
    let phases: Vec<String> = phases.map(|phase| format!("{} {}", phase["id"], phase["state"])).collect();
    format!("{} {phases:?}", shown["state"])
}

#[test]
fn one_process_tells_the_same_trace() {
    let collector = Collector::start(Silent::Nothing);
    let bench = Bench::with(SITE);
    bench.write(
        "autopack.toml",
        &format!("[policy]\nextends = \"autopack\"\n[otel]\nendpoint = {:?}\n", collector.url()),
    );
    bench.commit("a collector");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    bench.run_in(&bench.repo(), &RUN, &[("TRACEPARENT", parent)]).expect(4);
    let span = |name: &str| collector.span("autopack", name).unwrap_or_else(|| panic!("no {name}"));
    let root = span("autopack autopilot run");
    assert_eq!((root.trace.as_str(), root.parent.as_str()), (&parent[3..35], &parent[36..52]), "the caller's trace");
    let submit = span("autopack.v1.RunService/Submit");
    assert_eq!((&submit.trace, &submit.parent), (&root.trace, &root.id));
    for (name, parent) in
        [("grant", &submit.id), ("judge", &submit.id), ("lease", &span("grant").id), ("build", &span("lease").id)]
    {
        let span = span(name);
        assert_eq!((&span.trace, &span.parent), (&root.trace, parent), "{span:?}");
    }
    let lies = [("TRACEPARENT", "00-zz-1-1"), ("TRACESTATE", "x"), ("OTEL_SERVICE_NAME", "ours")];
    bench.run_in(&bench.repo(), &["runs", "list"], &lies).expect(0);
    let list = collector.span("ours", "autopack runs list").expect("the name that the operator gave");
    assert_eq!(list.parent, "", "what cannot be read is as good as absent");
}

#[test]
fn a_collector_that_is_away_or_never_answers_slows_nothing() {
    let (bench, alone, took) = ran(&[]);
    alone.expect(4);
    let wanted = outcome(&bench);
    let silent = Collector::start(Silent::Everything);
    let away = {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", closed.local_addr().unwrap())
    };
    for url in [silent.url(), away] {
        let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "10")];
        let (bench, ran, longer) = ran(&[&env[..], &[("AUTOPACK_LOG", "warn")]].concat());
        let ran = ran.expect(4);
        assert_eq!(outcome(&bench), wanted, "{url}");
        // A span that waited for its collector would wait for ten seconds.
        assert!(longer < took * 2 + MOMENT, "{url}: {longer:?}, alone {took:?}");
        assert!(ran.stderr.contains("telemetry was dropped"), "{url}: {}", ran.stderr);
        assert!(ran.stderr.contains("export_failed"), "{url}: {}", ran.stderr);
    }
    assert!(silent.look(|all| all.calls) > 0, "it was asked");
}

#[test]
fn what_is_dropped_is_told_as_a_metric() {
    let collector = Collector::start(Silent::Traces);
    let url = collector.url();
    let (_bench, ran, _) = ran(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    ran.expect(4);
    let dropped = collector.look(|all| all.metrics.get("autopack.telemetry.dropped").cloned().unwrap_or_default());
    for pair in ["autopack.signal=traces", "autopack.reason=export_failed"] {
        assert!(dropped.contains(pair), "{dropped:?}");
    }
}

#[test]
fn nothing_is_exported_unless_somebody_says_so() {
    let collector = Collector::start(Silent::Nothing);
    let url = collector.url();
    for env in [
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SDK_DISABLED", "true")][..],
        &[("OTEL_SERVICE_NAME", "x"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &url)],
    ] {
        ran(env).1.expect(4);
    }
    assert_eq!(collector.look(|all| all.calls), 0);
    ran(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).1.expect(4);
    assert!(collector.look(|all| all.calls) > 0);
}

#[test]
fn a_trace_is_passed_on_by_who_makes_no_spans() {
    let bench = Bench::with(SITE);
    std::fs::remove_file(bench.repo().join("NOTES-old.md")).unwrap();
    bench.write("examples/page.md", "# Page\n\nSee [it](nowhere.md).\n");
    let told = bench.path().join("told");
    let script = format!("printf '%s %s' $TRACEPARENT $TRACESTATE | tee {} > examples/page.md", told.display());
    let builder =
        format!("[builders.mend]\nkind = \"command\"\ngaps = [\"doc_drift\"]\nargv = [\"sh\", \"-c\", {script:?}]\n");
    bench.write("autopack.toml", &format!("[policy]\nextends = \"autopack\"\n{builder}"));
    bench.commit("a builder");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let run = [&RUN[..], &["--insecure-no-sandbox"]].concat();
    bench.run_in(&bench.repo(), &run, &[("TRACEPARENT", parent), ("TRACESTATE", "vendor=x")]).expect(4);
    assert_eq!(std::fs::read_to_string(told).unwrap(), format!("{parent} vendor=x"));
}
