//! Two projects that want the slots of one worker, directed by one supervisor, then by another one, and by two of which
//! the first does not know yet that it directs no more.

use git2::build::RepoBuilder;

use super::faults::director;
use super::services::submit_to;
use super::site::{AT_ONCE, Cluster};
use super::{ALL, ONE, proof, until, work};

const PROJECTS: [&str; 2] = ["shop", "other"];
/// Fewer than both projects would take.
const SLOTS: u32 = 3;

/// The most leases at once after any commit, of a worker or of a project.
fn peak(cluster: &Cluster, of: &str) -> i64 {
    cluster.number(&format!(
        "SELECT max(active) FROM (SELECT sum(sum(h.change)) OVER (PARTITION BY {of} ORDER BY h.commit_no) AS active \
         FROM autopack.lease_history AS h JOIN autopack.lease AS l ON l.id = h.lease GROUP BY {of}, h.commit_no) AS p"
    ))
}

#[test]
fn two_projects_never_get_more_than_the_slots_of_a_worker() {
    let mut cluster = Cluster::start(1, 2, 0);
    let other = cluster.hub().with_file_name("other.git");
    RepoBuilder::new().bare(true).clone(cluster.hub().to_str().unwrap(), &other).unwrap();
    cluster.ann.run(&["projects", "add", "other", "--hub", other.to_str().unwrap()]).expect(0);
    let mut files = Vec::new();
    let mut wave = |cluster: &Cluster, each: usize| {
        for n in 0..each * PROJECTS.len() {
            let (project, file) = (PROJECTS[n % 2], work::patch(&format!("{}-{:02}", PROJECTS[n % 2], files.len())));
            assert!(until(ONE, || submit_to(cluster, project, &file).code == 0), "{}", cluster.logs());
            files.push((project, file));
        }
    };
    // All of them wait when the worker comes, so that both projects reach for it at the same moment; and again whenever
    // one of its slots is free.
    wave(&cluster, 12);
    let urls = cluster.urls();
    cluster.add_worker("w1", &urls, SLOTS);
    let done = || cluster.number("SELECT count(*) FROM autopack.run WHERE state = 'succeeded'");
    assert!(until(ONE, || done() >= 4), "nothing moves:\n{}", cluster.logs());
    let old = director(&cluster);
    let at = cluster.supervisors.iter().position(|one| one.name == old).unwrap();
    cluster.supervisors[at].freeze();
    assert!(until(ONE, || director(&cluster) != old), "nobody else directs:\n{}", cluster.logs());
    // It wakes up in the middle of what it did, and the other one is at it.
    cluster.supervisors[at].thaw();
    wave(&cluster, 4);
    let all = i64::try_from(files.len()).unwrap();
    assert!(until(ALL, || done() == all), "{} of {all}:\n{}", done(), cluster.logs());

    let (of_worker, of_project) = (peak(&cluster, "l.doc->>'worker'"), peak(&cluster, "h.project"));
    assert_eq!(of_worker, i64::from(SLOTS), "all of its slots were used, and no more");
    assert!(of_project <= AT_ONCE, "{of_project} of one project at once");
    assert_eq!(cluster.number("SELECT count(*) FROM autopack.lease WHERE state IN ('granting', 'held')"), 0);
    for (project, file) in &files {
        let hub = if *project == "shop" { cluster.hub() } else { other.clone() };
        proof::is_applied_once(&hub, file);
    }
    proof::nothing_is_left(&cluster);
    cluster.ann.run(&["audit", "verify"]).expect(0);
}
