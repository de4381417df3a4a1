//! Packs and results by hand: cut at any byte, damaged, of another tree. None of it is half accepted.

use std::sync::Arc;

use git2::{Oid, Repository};
use serde_json::json;
use tokio_stream::StreamExt as _;

use autopack_shared::repo::pack::pack_new_objects;
use autopack_shared::runtime::clock::SystemClock;
use autopack_shared::wire::pb::{self, upload_chunk, worker_message};

use super::hand::{Hand, NAME, SESSION, result};
use super::harness::{Rig, Site, reason};

/// Bytes of one chunk, as workers send them.
const CHUNK: usize = 256 * 1024;

/// A tree over the site's commit that only the worker has, as a pack.
struct Made {
    tree: Oid,
    pack: Vec<u8>,
}

fn made(site: &Site, base: &str) -> Made {
    let there = tempfile::tempdir().unwrap();
    let repo = Repository::clone(site.repo().to_str().unwrap(), there.path()).unwrap();
    // Bytes that do not compress, for a pack of several chunks.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}\n")
    };
    let text: String = (0..70_000).map(|_| noise()).collect();
    let blob = repo.blob(text.as_bytes()).unwrap();
    let from = repo.find_commit(base.parse().unwrap()).unwrap().tree().unwrap();
    let docs = repo.find_tree(from.get_name("docs").unwrap().id()).unwrap();
    let mut docs = repo.treebuilder(Some(&docs)).unwrap();
    docs.insert("noise.md", blob, 0o100_644).unwrap();
    let mut root = repo.treebuilder(Some(&from)).unwrap();
    root.insert("docs", docs.write().unwrap(), 0o040_000).unwrap();
    let tree = root.write().unwrap();
    let pack = pack_new_objects(&repo, base.parse().unwrap(), tree.to_string().parse().unwrap()).unwrap();
    Made { tree, pack }
}

fn header(grant: &pb::Grant, made: &Made) -> pb::UploadChunk {
    let header = pb::UploadHeader {
        worker_id: NAME.to_owned(),
        session: SESSION.to_owned(),
        run_id: grant.run_id.clone(),
        epoch: grant.epoch,
        phase_id: grant.phase_id.clone(),
        attempt: grant.attempt,
        base: grant.base.clone(),
        result_tree: made.tree.to_string(),
        size: made.pack.len() as u64,
    };
    pb::UploadChunk { body: Some(upload_chunk::Body::Header(header)) }
}

fn chunks(grant: &pb::Grant, made: &Made, bytes: &[u8]) -> Vec<pb::UploadChunk> {
    let data = bytes.chunks(CHUNK).map(|part| pb::UploadChunk { body: Some(upload_chunk::Body::Data(part.to_vec())) });
    std::iter::once(header(grant, made)).chain(data).collect()
}

/// Whether anything of it is in the repository.
fn is_there(site: &Site, made: &Made) -> bool {
    let repo = Repository::open(site.repo()).unwrap();
    let kept = repo.references_glob("refs/autopack/q/**").unwrap().count();
    repo.find_tree(made.tree).is_ok() || kept > 0
}

#[tokio::test]
async fn an_upload_that_is_cut_or_damaged_leaves_nothing() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let mut hand = Hand::open(&mut rig).await;
    rig.submit("cut", &[("p", "true", json!({}))]).await;
    let grant = hand.granted().await;
    let made = made(&site, &grant.base);
    let whole = made.pack.len();
    assert!(whole > 2 * CHUNK + 1, "{whole}");

    let ends = (0..=whole / CHUNK).flat_map(|n| [n * CHUNK, n * CHUNK + 1, (n * CHUNK).saturating_sub(1)]);
    let mut ends: Vec<usize> = ends.chain([whole / 2, whole - 1]).filter(|end| *end < whole).collect();
    ends.sort_unstable();
    ends.dedup();
    for end in ends {
        let cut = tokio_stream::iter(chunks(&grant, &made, &made.pack[..end]));
        let refused = rig.workers.upload_objects(cut).await.unwrap_err();
        assert_eq!(reason(&refused), "UPLOAD_CUT", "{end} of {whole}: {refused}");
        assert!(!is_there(&site, &made), "{end} of {whole}");
        hand.beat(Some(&grant)).await;
    }
    // A stream that breaks is one that never ends.
    let begun = chunks(&grant, &made, &made.pack[..CHUNK + 7]);
    let broken = tokio_stream::iter(begun).chain(tokio_stream::pending());
    let call = tokio::time::timeout(std::time::Duration::from_millis(200), rig.workers.upload_objects(broken)).await;
    assert!(call.is_err() && !is_there(&site, &made));
    let longer = [&made.pack[..], b"x"].concat();
    let refused = rig.workers.upload_objects(tokio_stream::iter(chunks(&grant, &made, &longer))).await.unwrap_err();
    assert_eq!(reason(&refused), "TOO_LARGE");
    for at in [0, 7, 12, whole / 2, whole - 1] {
        let mut damaged = made.pack.clone();
        damaged[at] ^= 0x40;
        let sent = tokio_stream::iter(chunks(&grant, &made, &damaged));
        let refused = rig.workers.upload_objects(sent).await.unwrap_err();
        assert!(["MALFORMED_PACK", "TOO_LARGE"].contains(&reason(&refused).as_str()), "at {at}: {refused}");
        assert!(!is_there(&site, &made), "at {at}");
    }

    // Before anything came, and with another tree than came, a result is refused at once.
    hand.say(says(&grant, &made.tree)).await;
    assert_eq!(hand.revoked(grant.epoch).await, "tree_mismatch");
    rig.workers.upload_objects(tokio_stream::iter(chunks(&grant, &made, &made.pack))).await.unwrap();
    rig.workers.upload_objects(tokio_stream::iter(chunks(&grant, &made, &made.pack))).await.unwrap();
    let base = Repository::open(site.repo()).unwrap().find_commit(grant.base.parse().unwrap()).unwrap().tree_id();
    hand.say(says(&grant, &base)).await;
    assert_eq!(hand.revoked(grant.epoch).await, "tree_mismatch");
    assert_eq!(rig.run("cut").await.phases[0].state, "EXECUTING");
    hand.say(says(&grant, &made.tree)).await;
    let run = rig.until("cut", "a verdict", |run| run.phases[0].state == "APPROVAL_PENDING").await;
    assert_eq!(run.phases[0].tree, made.tree.to_string());
    rig.audit_is_whole().await;
    rig.close().await;
}

/// A result that says it left a tree.
fn says(grant: &pb::Grant, tree: &Oid) -> worker_message::Body {
    let worker_message::Body::Result(of) = result(grant, grant.epoch) else { unreachable!() };
    let (outcome, base) = (pb::Outcome::Ok.into(), grant.base.clone());
    worker_message::Body::Result(pb::AttemptResult { outcome, result_tree: tree.to_string(), base, ..of })
}

#[tokio::test]
async fn a_result_that_came_while_the_hub_was_away_is_checked_when_it_is_judged() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let mut hand = Hand::open(&mut rig).await;
    rig.submit("blind", &[("p", "true", json!({ "max_attempts": 2 }))]).await;
    let grant = hand.granted().await;
    // The tree is in the hub, for it is that of a commit; this attempt has not uploaded it.
    let base = Repository::open(site.repo()).unwrap().find_commit(grant.base.parse().unwrap()).unwrap().tree_id();
    let (there, away) = (site.repo().join(".git"), site.repo().join(".git-away"));
    std::fs::rename(&there, &away).unwrap();
    hand.say(says(&grant, &base)).await;
    rig.until("blind", "what was said", |run| run.phases[0].state != "EXECUTING").await;
    assert_eq!(rig.run("blind").await.phases[0].state, "COLLECTED", "one hub that is away holds up no results");
    std::fs::rename(&away, &there).unwrap();
    let again = hand.granted().await;
    assert_eq!((again.attempt, again.feedback.len()), (2, 1));
    assert!(again.feedback[0].contains("tree_mismatch: "), "{:?}", again.feedback);
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_result_whose_upload_cannot_be_read_is_refused() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let mut hand = Hand::open(&mut rig).await;
    rig.submit("odd", &[("p", "true", json!({}))]).await;
    let grant = hand.granted().await;
    let made = made(&site, &grant.base);
    rig.workers.upload_objects(tokio_stream::iter(chunks(&grant, &made, &made.pack))).await.unwrap();
    let place = format!("refs/autopack/q/odd/{}/{}/p", grant.epoch, grant.attempt);
    std::fs::write(site.repo().join(".git").join(place), "ref: refs/heads/main\n").unwrap();
    hand.say(says(&grant, &made.tree)).await;
    assert_eq!(hand.revoked(grant.epoch).await, "invalid");
    assert_eq!(rig.run("odd").await.phases[0].state, "EXECUTING", "nothing of it was taken");
    rig.close().await;
}

#[tokio::test]
async fn a_result_is_taken_whatever_keeps_its_hub_from_answering() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let mut hand = Hand::open(&mut rig).await;
    rig.submit("sick", &[("p", "true", json!({}))]).await;
    let grant = hand.granted().await;
    let made = made(&site, &grant.base);
    rig.workers.upload_objects(tokio_stream::iter(chunks(&grant, &made, &made.pack))).await.unwrap();
    let place = site.repo().join(format!(".git/refs/autopack/q/sick/{}/{}/p", grant.epoch, grant.attempt));
    let kept = std::fs::read(&place).unwrap();
    // As a disk that fails: neither there nor away.
    std::fs::write(&place, "nothing that can be read\n").unwrap();
    hand.say(says(&grant, &made.tree)).await;
    rig.until("sick", "what was said", |run| run.phases[0].state == "COLLECTED").await;
    std::fs::write(&place, kept).unwrap();
    rig.until("sick", "a verdict", |run| run.phases[0].state == "APPROVAL_PENDING").await;
    rig.audit_is_whole().await;
    rig.close().await;
}

/// The packs of the repository.
fn packs(site: &Site) -> std::collections::BTreeSet<std::path::PathBuf> {
    let folder = std::fs::read_dir(site.repo().join(".git/objects/pack")).unwrap();
    folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "pack")).collect()
}

/// A pack, and what was in it before its middle was torn.
struct Torn(std::path::PathBuf, Vec<u8>);

impl Torn {
    fn put(&self, bytes: &[u8]) {
        // Another file in its place: what has the old one open keeps it.
        let fresh = self.0.with_extension("fresh");
        std::fs::write(&fresh, bytes).unwrap();
        std::fs::rename(&fresh, &self.0).unwrap();
    }
}

/// Brings the run "torn" to an approved change whose objects are damaged; the commit that it started from.
async fn damaged(site: &Site, rig: &mut Rig) -> (Torn, String) {
    let mut hand = Hand::open(rig).await;
    let before = packs(site);
    rig.submit("torn", &[("p", "true", json!({}))]).await;
    let grant = hand.granted().await;
    let made = made(site, &grant.base);
    rig.workers.upload_objects(tokio_stream::iter(chunks(&grant, &made, &made.pack))).await.unwrap();
    hand.say(says(&grant, &made.tree)).await;
    rig.until("torn", "a verdict", |run| run.phases[0].state == "APPROVAL_PENDING").await;
    let pack = packs(site).difference(&before).next().unwrap().clone();
    let whole = std::fs::read(&pack).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0);
    let torn = Torn(pack, whole);
    torn.put(&bytes);
    let request = rig.pending("torn").await;
    rig.decide(&request, pb::Choice::Approve, "ok").await.unwrap();
    let mut looks = 0;
    loop {
        let call = pb::GetRunRequest { run_id: "torn".to_owned() };
        let blockers = rig.runs.explain(call).await.unwrap().into_inner().blockers;
        if blockers.iter().any(|one| one.kind == "hub_corrupt") {
            break;
        }
        looks += 1;
        assert!(looks < 1500, "{blockers:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    (torn, grant.base)
}

fn tip(site: &Site) -> String {
    Repository::open(site.repo()).unwrap().refname_to_id("refs/heads/autopack/torn").unwrap().to_string()
}

#[tokio::test]
async fn what_was_damaged_since_it_was_judged_is_not_applied() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let (torn, base) = damaged(&site, &mut rig).await;
    assert_eq!(tip(&site), base, "nothing is moved to what cannot be read");
    torn.put(&torn.1);
    rig.until("torn", "its end", |run| run.state == "SUCCEEDED").await;
    assert_ne!(tip(&site), base);
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn what_was_damaged_since_it_was_judged_can_be_cancelled() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let (_torn, base) = damaged(&site, &mut rig).await;
    rig.steer("torn", pb::SteerOp::Cancel).await;
    let run = rig.until("torn", "its end", |run| run.state == "CANCELLED").await;
    assert_eq!(run.phases[0].state, "CANCELLED");
    assert_eq!(tip(&site), base, "nothing is moved to what cannot be read");
    rig.audit_is_whole().await;
    rig.close().await;
}
