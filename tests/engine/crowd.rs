//! Many runs at once: whoever waits for work gets it in the order of arrival, and never more at a time than the gate
//! allows.

use serde_json::json;
use tokio::task::JoinSet;

use autopack_shared::wire::pb;

use super::harness::{Rig, Site};

const ASKING: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_holds_against_many_who_ask_at_once() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let mut asking = JoinSet::new();
    for n in 0..ASKING {
        let mut runs = rig.runs.clone();
        let (run, path) = (format!("r-{n}"), format!("examples/{n}.txt"));
        let phase = json!({
            "id": "p", "goal": "add a page", "scope": { "paths": [path] },
            "builder": { "kind": "command", "argv": ["sh", "-c", format!("echo {n} > {path}")] },
        });
        let file = json!({ "run_id": run, "phases": [phase] }).to_string();
        asking.spawn(async move {
            let call = pb::SubmitRequest { run_file_json: file, insecure_no_sandbox: true, ..Default::default() };
            runs.submit(call).await.unwrap();
        });
    }
    asking.join_all().await;
    for n in 0..ASKING {
        // Each was built once, and asks a person.
        let run = rig.until_state(&format!("r-{n}"), "WAITING").await;
        assert_eq!(run.phases[0].attempt, 1, "{run:?}");
    }
    assert_eq!(rig.peak().await, 2, "as many as the anchor allows, and no more");
    rig.audit_is_whole().await;
    rig.close().await;
}
