//! A worker that is killed in the middle of a large upload: its run is built again, and what had come of the first
//! result is nowhere, also when the rest of it arrives at last.

use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository};
use serde_json::{Value, json};

use super::site::Cluster;
use super::{ONE, pending, proof, text, until, work};
use crate::harness::wire::Wire;

/// Bytes of the upload that get through. A result has about nine million.
const THROUGH: u64 = 4_000_000;

/// A run that writes much into a few files, and something else each time; it keeps a copy of the first.
fn large(run: &str, copy: &Path) -> Value {
    let phases = ["one", "two", "three", "four"];
    let (mut file, paths) =
        (work::commands(run, &phases[..1], 0.0, false), phases.map(|phase| work::page(run, phase).0));
    // As hexadecimal digits: text, in which nothing looks like a secret.
    let noise = "head -c 2200000 /dev/urandom | od -An -v -tx1 -w1024 | tr -d ' '";
    let (written, first, copy) = (paths.join(" "), &paths[0], copy.display());
    let script = format!(
        "for file in {written}; do {noise} > $file; done; \
         if test -e {copy}.1; then cp {first} {copy}.2; else cp {first} {copy}.1; fi"
    );
    file["phases"][0]["builder"]["argv"][2] = json!(script);
    file["phases"][0]["scope"]["paths"] = json!(paths);
    file
}

/// What is in a folder, by the names that fit.
fn left(folder: &Path, fits: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| fits(name)).collect()
}

/// The results that a hub keeps.
fn kept(hub: &Repository) -> Vec<String> {
    let refs = hub.references_glob("refs/autopack/q/**").unwrap();
    refs.map(|one| one.unwrap().name().unwrap().to_owned()).collect()
}

#[test]
fn what_a_worker_had_sent_before_it_was_killed_is_no_result() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut cluster = Cluster::start(1, 1, 0);
    let port = cluster.url(0).rsplit_once(':').unwrap().1.parse().unwrap();
    let wire = runtime.block_on(Wire::to(port));
    cluster.add_worker("w1", &wire.endpoints(), 1);
    let copy = cluster.roots().join("copy");
    wire.hold_after(THROUGH);
    cluster.ann.submit(&large("big", &copy)).expect(0);
    let told = || cluster.ann.run(&["runs", "logs", "big"]).stdout;
    assert!(until(ONE, || wire.is_held()), "nothing is uploaded:\n{}{}", told(), cluster.logs());
    cluster.workers[0].kill();
    let hub = Repository::open(cluster.hub()).unwrap();
    assert_eq!(kept(&hub), [""; 0], "half a result is none");
    let urls = cluster.urls();
    cluster.add_worker("w2", &urls, 1);
    assert!(until(ONE, || !pending(&cluster.ann).is_empty()), "it is not built again:\n{}", cluster.logs());
    // What its machine had in its buffers comes now, and then the end of its stream.
    wire.release();

    let tried =
        || cluster.sql("SELECT number, state, doc->>'epoch' FROM autopack.attempt WHERE run_id = 'big' ORDER BY 1");
    let (first, second) = (tried()[0].clone(), tried()[1].clone());
    assert!(first.starts_with("1|lost|") && second.starts_with("2|collected|"), "{:?}", tried());
    let epoch = second.rsplit_once('|').unwrap().1;
    assert_eq!(kept(&hub), [format!("refs/autopack/q/big/{epoch}/2/one")]);
    let request = pending(&cluster.ann).remove(0);
    let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
    cluster.bob.run(&["approvals", "approve", id, "--expect-digest", digest]).expect(0);
    let done = || cluster.ann.ask(&["runs", "show", "big"])["state"] == "SUCCEEDED";
    assert!(until(ONE, done), "it does not end:\n{}", cluster.logs());

    let states: Vec<String> = tried().iter().map(|row| row.rsplit_once('|').unwrap().0.to_owned()).collect();
    assert_eq!(states, ["1|lost", "2|succeeded"]);
    assert_eq!(cluster.number("SELECT count(*) FROM autopack.apply WHERE state = 'committed'"), 1);
    let blob = |n: usize| {
        let file = PathBuf::from(format!("{}.{n}", copy.display()));
        Oid::hash_file(ObjectType::Blob, file).unwrap()
    };
    let tree = hub.find_reference("refs/heads/autopack/big").unwrap().peel_to_tree().unwrap();
    let (path, _) = work::page("big", "one");
    assert_eq!(tree.get_path(Path::new(&path)).unwrap().id(), blob(2), "the second one is there");
    assert!(!hub.odb().unwrap().exists(blob(1)), "nothing of the first one is");
    let scratch = cluster.state_of(0).join("tmp/shop");
    let clear = || left(&scratch, |_| true).is_empty() && kept(&hub).is_empty();
    assert!(until(ONE, clear), "{:?} and {:?} are left", left(&scratch, |_| true), kept(&hub));
    let packs = hub.path().join("objects/pack");
    assert_eq!(left(&packs, |name| !name.starts_with("pack-")), [""; 0], "packs that are not whole are left");
    cluster.workers.remove(0);
    proof::nothing_is_left(&cluster);
    cluster.ann.run(&["audit", "verify"]).expect(0);
}
