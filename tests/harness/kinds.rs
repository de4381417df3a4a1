//! A run with one phase of each builder kind. Its agent is a real package that works against the stand-in; where it
//! cannot be installed, one of a few lines takes its place, and the test says so.

use serde_json::{Value, json};

use super::standin::{Asked, Say, Standin};
use crate::agents;

/// The phases, in their order.
pub(crate) const KINDS: [&str; 5] = ["command", "agent", "llm", "patch", "remediation"];

/// A page with a link that has moved, and where it moved to.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("examples/page.md", "# Page\n\nSee [it](other.md).\n"),
    ("examples/deep/other.md", "# Other\n\nA page of its own.\n"),
];

/// What each phase adds to the run's branch.
const ADDED: [&str; 5] = ["+by a command", "+by an agent", "+by a model", "+by a patch", "+See [it](deep/other.md)."];

/// An agent of the protocol in a few lines of shell, for where there is no other.
const SMALL: &str = r#"say() { printf '%s\n' "$1"; }
read a; say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{}}}'
read b; say '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s1"}}'
read c; echo 'by an agent' > examples/agent.md
say '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'
read d
"#;

/// The project's configuration, and whether its agent is a real one.
pub(crate) fn config() -> (String, bool) {
    let models = |name: &str| format!("[[builders.{name}.models]]\nprovider = \"openai\"\nmodel = \"stand-in\"\n");
    let mini = agents::mini();
    let agent = match &mini {
        Some((program, _)) => format!("preset = \"mini-swe-agent\"\nargv = [{program:?}]\n{}", models("coder")),
        None => format!("argv = [\"sh\", \"-c\", {SMALL:?}]\n"),
    };
    let builders =
        format!("[builders.coder]\nkind = \"agent\"\n{agent}\n[builders.writer]\nkind = \"llm\"\n{}", models("writer"));
    (format!("[policy]\nextends = \"autopack\"\n\n{builders}"), mini.is_some())
}

/// The models of both: the agent's is offered tools, the other one is not.
pub(crate) fn server() -> Standin {
    Standin::by(|asked: &Asked| {
        if asked.body["tools"].as_array().is_none_or(Vec::is_empty) {
            return Say::text("=== write examples/llm.md\nby a model\n=== end");
        }
        let command = if agents::has_tool_result(asked) {
            "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
        } else {
            "echo 'by an agent' > examples/agent.md"
        };
        Say::tool("bash", json!({ "command": command }))
    })
}

/// The run file.
pub(crate) fn run_file(run: &str) -> Value {
    let diff = "diff --git a/examples/patch.md b/examples/patch.md\nnew file mode 100644\nindex 0000000..1111111\n\
                --- /dev/null\n+++ b/examples/patch.md\n@@ -0,0 +1 @@\n+by a patch\n";
    let builders = [
        json!({ "kind": "command", "argv": ["sh", "-c", "echo by a command > examples/command.md"] }),
        json!({ "kind": "agent", "preset": "coder" }),
        json!({ "kind": "llm", "model": "writer" }),
        json!({ "kind": "patch", "diff": diff }),
        json!({ "kind": "remediation", "gap_type": "doc_drift", "gap_id": "gap-1", "paths": ["examples/page.md"] }),
    ];
    let phase = |(id, builder): (&str, Value)| {
        let page = if id == "remediation" { "page" } else { id };
        // A repair says beforehand which files it changes.
        let scope = if id == "remediation" { "examples/page.md" } else { "examples/" };
        json!({
            "id": id, "goal": format!("write examples/{page}.md"), "category": "documentation",
            "scope": { "paths": [scope] }, "deliverables": [format!("examples/{page}.md")], "builder": builder,
        })
    };
    json!({ "run_id": run, "phases": KINDS.into_iter().zip(builders).map(phase).collect::<Vec<_>>() })
}

/// That a run has done all of it, by what `runs show` and `runs diff` say.
pub(crate) fn is_done(shown: &Value, diff: &str) {
    let phases = shown["phases"].as_array().unwrap();
    let states: Vec<_> = phases.iter().map(|one| (&one["phase_id"], &one["state"])).collect();
    let wanted: Vec<_> = KINDS.iter().map(|kind| (json!(kind), json!("APPLIED"))).collect();
    assert_eq!(states, wanted.iter().map(|(id, state)| (id, state)).collect::<Vec<_>>(), "{shown}");
    for line in ADDED {
        assert!(diff.lines().any(|one| one == line), "{line}: {diff}");
    }
}

/// That the real agent was at work: its model was told what the phase is about.
pub(crate) fn agent_worked(server: &Standin) {
    let asked = server.asked();
    let told = |one: &Asked| one.body["tools"].is_array() && one.text().contains("write examples/agent.md");
    assert!(asked.iter().any(told), "{} questions", asked.len());
}
