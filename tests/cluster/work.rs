//! What the cluster is given to do: runs that write files of their own, each file in one piece of a line.

use std::path::Path;

use serde_json::{Value, json};

/// The file of a phase, and what is in it in the end.
pub(super) fn page(run: &str, phase: &str) -> (String, String) {
    (format!("examples/{run}-{phase}.md"), format!("{run} {phase}\n"))
}

/// A run of commands that take a while and append their line: done twice, it would be there twice. Each asks a person.
pub(super) fn commands(run: &str, phases: &[&str], seconds: f64, gate: bool) -> Value {
    let mut before: Option<&str> = None;
    let mut listed = Vec::new();
    for phase in phases {
        let (path, line) = page(run, phase);
        let script = format!("sleep {seconds}; echo '{}' >> {path}", line.trim());
        let gates = if gate {
            json!([{ "name": "once", "run": format!("sleep 0.3; test $(wc -l < {path}) -eq 1") }])
        } else {
            json!([])
        };
        listed.push(json!({
            "id": phase, "goal": format!("write {path}"), "category": "documentation", "scope": { "paths": [path] },
            "builder": { "kind": "command", "argv": ["sh", "-c", script] }, "gate": gates,
            "depends_on": before.into_iter().collect::<Vec<_>>(),
        }));
        before = Some(phase);
    }
    json!({ "run_id": run, "phases": listed })
}

/// A run that is applied by itself.
pub(super) fn patch(run: &str) -> Value {
    let (path, line) = page(run, "one");
    let diff = format!(
        "diff --git a/{path} b/{path}\nnew file mode 100644\nindex 0000000..1111111\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}"
    );
    let phase = json!({
        "id": "one", "goal": format!("add {path}"), "category": "documentation", "scope": { "paths": [path] },
        "builder": { "kind": "patch", "diff": diff },
    });
    json!({ "run_id": run, "phases": [phase] })
}

/// A run of one command that takes long when it is first tried, and leaves its process id in a file; tried again, it
/// is quick.
pub(super) fn long(run: &str, seconds: u32, seen: &Path) -> Value {
    let (mut file, (path, line)) = (commands(run, &["one"], 0.0, false), page(run, "one"));
    let seen = seen.display();
    let script =
        format!("test -e {seen} || {{ echo $$ > {seen}; sleep {seconds}; }}; echo '{}' >> {path}", line.trim());
    file["phases"][0]["builder"]["argv"][2] = json!(script);
    file
}

/// Twenty: of each four, one is a patch, one has two phases, two are gated.
pub(super) fn twenty() -> Vec<Value> {
    let run = |at: usize| {
        let name = format!("r{at:02}");
        match at % 4 {
            0 => commands(&name, &["one", "two"], 1.5, true),
            1 => patch(&name),
            2 => commands(&name, &["one"], 3.0, false),
            _ => commands(&name, &["one"], 2.5, true),
        }
    };
    (0..20).map(run).collect()
}
