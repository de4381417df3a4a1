//! What builders print, as a person at a terminal sees it: while they work, and afterwards.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Bench, Ran, SITE};

/// How long a line may take to be seen on a machine that does much else.
const SOON: Duration = Duration::from_secs(60);

/// The lines of a command as they come; it ends with this.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    fn of(mut command: std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines }
    }

    /// Waits for a line with these words.
    fn until(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("never: {words}"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A run that prints, waits for a flag, and prints again; a terminal would obey what it prints.
pub(crate) fn talks(flag: &Path) -> Value {
    let script = format!(
        "printf 'hello \\033[31mred\\n'; while [ ! -e {} ]; do sleep 0.05; done; echo later; echo x >> examples/page.md",
        flag.display()
    );
    let phase = json!({
        "id": "p", "goal": "talk", "category": "documentation", "scope": { "paths": ["examples/"] },
        "builder": { "kind": "command", "argv": ["sh", "-c", script] },
    });
    json!({ "run_id": "talks", "phases": [phase] })
}

/// Follows the run while it works, lets it go on, and looks at what is left of it.
pub(crate) fn is_followed(follow: std::process::Command, flag: &Path, ask: impl Fn(&[&str]) -> Ran) {
    let seen = Lines::of(follow);
    let line = seen.until("hello");
    assert!(line.ends_with("hello \\x1b[31mred"), "{line}");
    // Only now does it go on: what it printed was seen while it worked.
    std::fs::write(flag, "").unwrap();
    seen.until("later");
    seen.until("approval_pending");
    let shown = ask(&["runs", "show", "talks", "-o", "json"]).expect(0).json();
    let digest = shown["phases"][0]["transcript"].as_str().unwrap().to_owned();
    assert!(digest.starts_with("sha256:"), "{shown:#}");
    assert!(ask(&["runs", "show", "talks"]).expect(0).stdout.contains(&format!("printed {digest}")));
    assert_eq!(ask(&["runs", "transcript", "talks", "p"]).expect(0).stdout, "hello \\x1b[31mred\nlater\n");
    let whole = ask(&["runs", "transcript", "talks", "p", "--attempt", "1", "-o", "json"]).expect(0).json();
    assert_eq!(
        (&whole["digest"], &whole["attempt"], &whole["text"]),
        (&json!(digest), &json!(1), &json!("hello \u{1b}[31mred\nlater\n"))
    );
    ask(&["runs", "transcript", "talks", "p", "--attempt", "2"]).expect(3);
}

#[test]
fn a_builder_is_heard_while_it_works() {
    let bench = Bench::with(SITE);
    let flag = bench.path().join("go");
    let file = bench.path().join("talks.json");
    std::fs::write(&file, talks(&flag).to_string()).unwrap();
    let start = |args: &[&str]| {
        let mut command = bench.command(&bench.repo());
        command.args(args);
        command
    };
    let up = Lines::of(start(&["up"]));
    up.until("up:");
    bench.run(&["runs", "submit", file.to_str().unwrap(), "--insecure-no-sandbox"]).expect(0);
    is_followed(start(&["runs", "logs", "talks", "-f"]), &flag, |args| bench.run(args));
    drop(up);
    let idle = bench.run(&["runs", "logs", "talks", "-f"]).expect(0);
    assert!(idle.stdout.contains("later") && idle.stderr.contains("no engine is running here"), "{idle:?}");
    bench.run(&["audit", "verify"]).expect(0);
}
