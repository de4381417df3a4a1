//! Every kind of builder on a cluster: the work is done by a worker that has the project from its supervisor alone.

use super::approver::Approver;
use super::site::{Cluster, Size};
use super::until;
use crate::agents;
use crate::harness::kinds;

/// How long five phases may take, one of them by an agent that is started cold.
const ALL: std::time::Duration = std::time::Duration::from_secs(180);

#[test]
fn a_run_with_one_phase_of_each_kind_goes_through_a_cluster() {
    let server = kinds::server();
    let (config, real) = kinds::config();
    let files = [&[("autopack.toml", config.as_str())], kinds::FILES].concat();
    let folders = agents::mini().map(|(_, folders)| folders).unwrap_or_default();
    let folders = std::env::join_paths(folders).unwrap().into_string().unwrap();
    let env = [
        ("OPENAI_API_KEY", "sk-stand-in".to_owned()),
        ("OPENAI_BASE_URL", server.url()),
        ("AUTOPACK_WORKER_SANDBOX_PATHS", folders),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value));
    let size = Size { members: 1, supervisors: 1, workers: 1 };
    let cluster = Cluster::start_with_both(&files, &size, &env);
    // In sandboxes: the agent reaches its model through its worker, which has the key.
    cluster.ann.submit_sandboxed(&kinds::run_file("kinds")).expect(0);
    let approver = Approver::start(cluster.bob.clone());
    let shown = || cluster.ann.ask(&["runs", "show", "kinds"]);
    let done = until(ALL, || matches!(shown()["state"].as_str(), Some("SUCCEEDED" | "FAILED" | "BLOCKED")));
    let seen = approver.stop();
    assert!(done && shown()["state"] == "SUCCEEDED", "{seen}: {}\n{}", shown(), cluster.logs());
    kinds::is_done(&shown(), &cluster.ann.run(&["runs", "diff", "kinds"]).expect(0).stdout);
    if real {
        kinds::agent_worked(&server);
        let printed = cluster.ann.run(&["runs", "transcript", "kinds", "agent"]).expect(0).stdout;
        assert!(!printed.trim().is_empty());
    }
    // What a verdict was about is linked from it, by digest.
    let linked = cluster.number(
        "SELECT count(*) FROM autopack.decision d JOIN autopack.transcript t ON t.run_id = d.run_id \
         AND 'sha256:' || t.digest = d.doc->>'transcript'",
    );
    assert!(linked >= i64::from(real), "{linked}");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}
