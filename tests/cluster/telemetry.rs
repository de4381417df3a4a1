//! One trace from the command line to the builder, read back from a collector that whole processes export to.

use std::collections::BTreeSet;

use serde_json::Value;
use tonic::metadata::MetadataValue;

use autopack_shared::wire::pb::run_service_client::RunServiceClient;
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::pb::{FetchRequest, ListRunsRequest};

use super::site::{Cluster, Size};
use super::{ONE, pending, text, until, work};
use crate::harness::collector::{Collector, Silent, Span};

const CLI: &str = "autopack";
const SUPERVISOR: &str = "autopack-supervisor";
const WORKER: &str = "autopack-worker";

/// A run whose builder writes down where in the trace it is.
fn telling(run: &str, file: &str, seconds: f64) -> Value {
    let mut run = work::commands(run, &["one"], seconds, true);
    let argv = &mut run["phases"][0]["builder"]["argv"];
    let script = argv[2].as_str().unwrap().to_owned();
    argv[2] = format!("{script}; printf '%s' \"$TRACEPARENT\" > {file}").into();
    run
}

fn approve(cluster: &Cluster) {
    assert!(until(ONE, || !pending(&cluster.ann).is_empty()), "nobody asks:\n{}", cluster.logs());
    let request = pending(&cluster.ann).remove(0);
    let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
    cluster.bob.run(&["approvals", "approve", id, "--expect-digest", digest, "--reason", "read it"]).expect(0);
}

fn is(cluster: &Cluster, run: &str, state: &str) {
    let there = || cluster.ann.ask(&["runs", "show", run])["state"] == state;
    assert!(until(ONE, there), "{run} is not {state}:\n{}", cluster.logs());
}

/// The span once it arrived.
fn arrived(collector: &Collector, service: &str, name: &str) -> Span {
    let there = || collector.span(service, name).is_some();
    assert!(until(ONE, there), "no {name} of {service}: {:#?}", collector.look(|all| all.spans.clone()));
    collector.span(service, name).unwrap()
}

#[test]
fn one_trace_leads_from_the_command_line_to_the_builder() {
    let collector = Collector::start(Silent::Nothing);
    let mut env = collector.env();
    env.push(("OTEL_RESOURCE_ATTRIBUTES".to_owned(), "deployment.environment.name=test".to_owned()));
    let cluster = Cluster::start_with(&Size { members: 1, supervisors: 1, workers: 1 }, &env);
    let told = cluster.roots().join("traceparent");
    let file = telling("told", told.to_str().unwrap(), 0.1);
    cluster.ann.submit(&file).expect(0);
    approve(&cluster);
    is(&cluster, "told", "SUCCEEDED");
    collector.go_on(&std::fs::read_to_string(&told).unwrap(), "the builder's own");

    let root = arrived(&collector, CLI, "autopack runs submit");
    assert_eq!(root.parent, "", "the command is where it begins");
    let mut links: Vec<(Span, &str)> = Vec::new();
    let submit = arrived(&collector, SUPERVISOR, "autopack.v1.RunService/Submit");
    let grant = arrived(&collector, SUPERVISOR, "grant");
    let lease = arrived(&collector, WORKER, "lease");
    let build = arrived(&collector, WORKER, "build");
    let upload = arrived(&collector, WORKER, "upload");
    let judge = arrived(&collector, SUPERVISOR, "judge");
    let apply = arrived(&collector, SUPERVISOR, "apply");
    for (span, parent) in [(&submit, &root), (&grant, &submit), (&judge, &submit), (&apply, &submit), (&lease, &grant)]
    {
        links.push((span.clone(), &parent.id));
    }
    for name in ["fetch", "workspace", "build", "collect", "upload"] {
        links.push((arrived(&collector, WORKER, name), &lease.id));
    }
    links.push((arrived(&collector, WORKER, "gate"), ""));
    links.push((arrived(&collector, SUPERVISOR, "autopack.v1.WorkerService/UploadObjects"), &upload.id));
    links.push((arrived(&collector, "", "the builder's own"), &build.id));
    for (span, parent) in links {
        assert_eq!(span.trace, root.trace, "{span:?}");
        assert!(parent.is_empty() || span.parent == parent, "{span:?} is no child of {parent}");
    }
    for span in [&grant, &judge, &apply, &lease] {
        let fact = |key: &str| span.facts.get(key).map(String::as_str);
        assert_eq!((fact("run"), fact("phase")), (Some("told"), Some("one")), "{span:?}");
        assert_eq!(fact("cicd.pipeline.run.id"), Some("told"), "{span:?}");
        assert!(fact("epoch").is_some(), "{span:?}");
    }
    assert_eq!((judge.facts["tier"].as_str(), apply.facts["tier"].as_str()), ("3", "3"));
    assert_eq!(grant.facts["epoch"], lease.facts["epoch"]);
    for told in ["granted", "judged", "applied"] {
        let there = || collector.look(|all| all.logs.iter().any(|(body, trace)| body == told && *trace == root.trace));
        assert!(until(ONE, there), "{told} is not in the trace: {:#?}", collector.look(|all| all.logs.clone()));
    }
    let environment = collector.look(|all| all.resources["deployment.environment.name"].clone());
    assert_eq!(environment, "test");
    what_a_stranger_sends_is_ignored(&cluster);
    it_is_measured(&collector, &cluster);
}

/// A trace that cannot be read is nobody's error.
fn what_a_stranger_sends_is_ignored(cluster: &Cluster) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = RunServiceClient::connect(cluster.ann.server()).await.unwrap();
        let long = "0".repeat(6000);
        for bytes in ["00-zz", &long, "\u{e9}-1-2-3", "00-00000000000000000000000000000000-0000000000000000-01"] {
            let mut call = tonic::Request::new(ListRunsRequest::default());
            call.metadata_mut().insert("authorization", cluster.ann.bearer().parse().unwrap());
            for name in ["traceparent", "tracestate"] {
                call.metadata_mut().insert(name, MetadataValue::try_from(bytes.as_bytes()).unwrap());
            }
            let answer = tokio::time::timeout(ONE, client.list(call)).await.unwrap();
            assert_eq!(answer.unwrap().into_inner().runs.len(), 1, "{bytes:.40}");
        }
        // What is refused for its epoch is counted.
        let mut worker = WorkerServiceClient::connect(cluster.ann.server()).await.unwrap();
        let old = FetchRequest {
            worker_id: "w1".to_owned(),
            run_id: "told".to_owned(),
            epoch: 1,
            commit: "0".repeat(40),
            ..Default::default()
        };
        let mut call = tonic::Request::new(old);
        call.metadata_mut().insert("authorization", format!("Bearer {}", cluster.worker_token).parse().unwrap());
        let refused = tokio::time::timeout(ONE, worker.fetch_objects(call)).await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    });
}

/// What the first run brought, and what waiting, cancelling and rolling back bring.
fn it_is_measured(collector: &Collector, cluster: &Cluster) {
    cluster.ann.submit(&work::commands("slow", &["one"], 60.0, false)).expect(0);
    is(cluster, "slow", "RUNNING");
    let mut same = work::commands("slower", &["one"], 0.1, false);
    same["phases"][0]["scope"]["paths"] = serde_json::json!(["examples"]);
    cluster.ann.submit(&same).expect(0);
    let wanted: [(&str, &[&str]); 15] = [
        ("autopack.runs", &["autopack.project=shop", "autopack.state=succeeded"]),
        ("autopack.phases", &["autopack.state=applied"]),
        ("autopack.gate.leases", &["autopack.state=held"]),
        ("autopack.gate.denials", &["autopack.reason=scope_overlap"]),
        ("autopack.grant.wait.duration", &["autopack.purpose=build", "autopack.purpose=verify"]),
        ("autopack.grant.duration", &["autopack.purpose=build"]),
        ("autopack.approval.wait.duration", &["autopack.tier=3", "autopack.channel=token"]),
        ("autopack.verdicts", &["autopack.tier=3", "autopack.verdict=APPROVAL_REQUIRED"]),
        ("autopack.verdict.reasons", &["autopack.tier=3"]),
        ("autopack.apply.duration", &["autopack.apply.kind=patch", "autopack.apply.kind=revert"]),
        ("autopack.rollbacks", &["autopack.reason=ordered"]),
        ("autopack.lease.losses", &["autopack.reason=revoke"]),
        ("autopack.fenced_writes", &["autopack.guard=api"]),
        ("autopack.worker.slots", &["autopack.state=used", "autopack.state=free"]),
        ("autopack.workspace.ready.duration", &["autopack.purpose=build", "autopack.purpose=verify"]),
    ];
    let lacking = || {
        collector.look(|all| {
            let there = |name: &str, pair: &str| all.metrics.get(name).is_some_and(|found| found.contains(pair));
            let pairs = wanted.iter().flat_map(|(name, pairs)| pairs.iter().map(move |pair| (*name, *pair)));
            pairs.filter(|(name, pair)| !there(name, pair)).collect::<BTreeSet<_>>()
        })
    };
    // What passes is counted before it has passed.
    let passing = [("autopack.gate.leases", "autopack.state=held"), ("autopack.phases", "autopack.state=applied")];
    assert!(until(ONE, || passing.iter().all(|pair| !lacking().contains(pair))), "{:?}", lacking());
    cluster.ann.run(&["runs", "cancel", "slow"]).expect(0);
    cluster.ann.run(&["rollback", "told", "--reason", "not wanted"]).expect(0);
    assert!(until(ONE, || lacking().is_empty()), "{:?} of {:#?}", lacking(), collector.look(|all| all.metrics.clone()));
    let bounds = collector.look(|all| all.bounds["autopack.grant.duration"].clone());
    assert_eq!((bounds.first(), bounds.last()), (Some(&0.001), Some(&86_400.0)), "buckets are for seconds");
}
