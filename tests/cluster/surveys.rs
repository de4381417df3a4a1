//! Gaps, plans and autopilot on a project that is elsewhere.

use std::path::Path;
use std::thread;

use git2::Repository;
use serde_json::{Value, json};

use super::site::{Cluster, Size};
use super::{ONE, now, pending, text, until};

/// A link that is mended without asking, and a note in the wrong place that somebody is asked about.
const GAPS: &[(&str, &str)] = &[
    ("docs/guide.md", "# Guide\n\nA page of its own.\n"),
    ("NOTES-old.md", "# Old notes\n"),
    ("examples/page.md", "# Page\n\nSee [it](other.md).\n"),
    ("examples/deep/other.md", "# Other\n\nA page of its own.\n"),
    (".gitattributes", "*.md text eol=crlf\n"),
];

/// The same document as of the same project at the same time.
fn like(mut document: Value, other: &Value) -> Value {
    for key in ["project_id", "generated_at"] {
        assert!(document[key].is_string());
        document[key] = other[key].clone();
    }
    document
}

fn file_at(hub: &Path, branch: &str, path: &str) -> Option<String> {
    let repo = Repository::open(hub).unwrap();
    let tree = repo.find_reference(branch).unwrap().peel_to_tree().unwrap();
    let blob = tree.get_path(Path::new(path)).ok()?.to_object(&repo).unwrap().peel_to_blob().unwrap();
    Some(String::from_utf8(blob.content().to_vec()).unwrap())
}

#[test]
fn a_project_elsewhere_is_scanned_planned_for_and_mended() {
    let cluster = Cluster::start_with_files(GAPS, &Size { members: 1, supervisors: 2, workers: 1 });
    // The worker is connected to the first supervisor.
    let desk = cluster.ann.at(cluster.url(1));
    let scanned = desk.ask(&["gaps", "scan"]);
    let local = cluster.here(&["gaps", "scan"]);
    assert!(local["summary"]["total_gaps"].as_u64() >= Some(2), "{local:#}");
    assert_eq!(like(scanned, &local), local);
    let plan = desk.ask(&["plan", "propose"]);
    let local_plan = cluster.here(&["plan", "propose"]);
    assert_eq!(like(plan, &local_plan), local_plan);
    let surveys = "SELECT count(*) FROM autopack.survey";
    assert_eq!(cluster.number(surveys), 1, "the same question is asked once");
    let since = desk.ask(&["gaps", "scan", "--since", "main"]);
    assert_eq!(since["summary"]["total_gaps"], 0, "nothing changed since");

    desk.run(&["gaps", "scan", "--at", "no-such-branch"]).expect(3);
    desk.run(&["gaps", "scan", "--project", "no-such-project"]).expect(3);
    let nowhere = desk.run(&["plan", "propose", "--write"]).expect(2);
    assert!(nowhere.stderr.contains("--data-dir"), "{}", nowhere.stderr);
    desk.run(&["plan", "propose", "--write", "--run-id", "kept", "--data-dir", "kept-here"]).expect(0);
    let kept = cluster.folder().join("kept-here/kept");
    assert!(kept.join("gaps/gap_report_v1.json").is_file() && kept.join("planning/plan_proposal_v1.json").is_file());

    let dry = desk.ask(&["autopilot", "run"]);
    let local_dry = cluster.here(&["autopilot", "run"]);
    assert_eq!(dry["format"], local_dry["format"]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys(&dry), keys(&dry["session"])), (keys(&local_dry), keys(&local_dry["session"])));
    assert_eq!(desk.ask(&["runs", "list"])["runs"], json!([]), "a dry run is dry");

    let began = desk.run(&["autopilot", "run", "--enable", "-o", "json"]).expect(4).json();
    let run = text(&began["run"], "run_id").to_owned();
    assert_eq!(began["session"]["status"], "awaiting_approval");
    let again = desk.run(&["autopilot", "run", "--enable", "-o", "json"]).expect(4);
    assert_eq!(again.json()["run"]["run_id"], run.as_str(), "an unfinished run of the same plan is gone on with");
    assert!(until(ONE, || !pending(&cluster.bob).is_empty()), "nobody asks:\n{}", cluster.logs());
    let request = pending(&cluster.bob).remove(0);
    let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
    let approve = ["approvals", "approve", id, "--expect-digest", digest, "--reason", "read it"];
    cluster.bob.run(&approve).expect(0);
    let ended = desk.run(&["autopilot", "run", "--enable", "--run-id", &run, "-o", "json"]);
    let done = || cluster.ann.ask(&["runs", "show", &run])["state"] == "SUCCEEDED";
    assert!(until(ONE, done), "it does not end: {ended:?}\n{}", cluster.logs());
    let session = desk.run(&["autopilot", "run", "--enable", "--run-id", &run, "-o", "json"]).expect(0).json();
    assert_eq!(session["session"]["status"], "completed");
    assert_eq!(session["session"]["executed_action_ids"].as_array().unwrap().len(), 2, "{session:#}");
    let branch = format!("refs/heads/autopack/{run}");
    let page = file_at(&cluster.hub(), &branch, "examples/page.md").unwrap();
    assert!(page.contains("(deep/other.md)"), "{page}");
    assert_eq!(file_at(&cluster.hub(), &branch, "NOTES-old.md"), None);
    assert!(file_at(&cluster.hub(), "refs/heads/main", "NOTES-old.md").is_some(), "the target is as it was");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_scan_outlives_the_worker_that_had_it() {
    let mut cluster = Cluster::start_with_files(GAPS, &Size { members: 1, supervisors: 1, workers: 2 });
    // Frozen, they are given the scan and do not do it.
    cluster.workers.iter().for_each(|worker| worker.freeze());
    let desk = cluster.ann.clone();
    let asked = thread::spawn(move || desk.run(&["gaps", "scan", "-o", "json"]));
    let claimed = "SELECT doc->'claims'->-1->>'worker' FROM autopack.survey WHERE state = 'claimed'";
    let given = until(ONE, || !cluster.sql(claimed).is_empty());
    assert!(given, "nobody has it:\n{}", cluster.logs());
    let first = cluster.sql(claimed).remove(0);
    let at = cluster.workers.iter().position(|worker| worker.name == first).unwrap();
    let from = now();
    cluster.workers[at].kill();
    cluster.workers[1 - at].thaw();
    let report = asked.join().unwrap().expect(0).json();
    assert!(from.elapsed() < ONE, "it is taken over when its stream ends, and not when its time is up");
    assert!(report["summary"]["total_gaps"].as_u64() >= Some(2), "{report:#}");
    let claims = cluster.sql("SELECT doc->'claims' FROM autopack.survey WHERE state = 'done'").remove(0);
    let claims: Value = serde_json::from_str(&claims).unwrap();
    let names: Vec<&str> = claims.as_array().unwrap().iter().map(|claim| text(claim, "worker")).collect();
    assert_eq!(names, [first.as_str(), cluster.workers[1 - at].name.as_str()]);
}
