//! Tables and diagrams in the documents, compared with the code they describe; and links that lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use autopack_shared::domain::parallelism::GateReason;
use autopack_shared::domain::reason::ReasonCode;
use autopack_shared::domain::state::{ApplyState, AttemptState, LeaseState, PhaseState, RequestState, RunState};
use autopack_shared::runtime::telemetry::instruments::INSTRUMENTS;

use crate::house_rules::source::{repository, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("the tests run in a clone that can be read")
}

/// What the parallelism gate can answer.
const GATE: [GateReason; 8] = [
    GateReason::Allowed,
    GateReason::InvalidInput,
    GateReason::AnchorInvalid,
    GateReason::AnchorRequired,
    GateReason::PolicyUndefined,
    GateReason::NotAllowed,
    GateReason::OverLimit,
    GateReason::IsolationInsufficient,
];

/// The words in backticks that open the rows of the first table after a mark.
fn first_column(text: &str, mark: &str) -> Vec<String> {
    let after = text.split_once(mark).map_or("", |(_, rest)| rest);
    let rows = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let word = |row: &str| row.strip_prefix("| `")?.split_once('`').map(|(word, _)| word.to_owned());
    rows.filter_map(word).collect()
}

/// Every word in backticks in the first cells of the first table after a mark.
fn first_cells(text: &str, mark: &str) -> BTreeSet<String> {
    let after = text.split_once(mark).map_or("", |(_, rest)| rest);
    let rows = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The words that a source hands over right after a mark.
fn first_arguments(text: &str, mark: &str) -> BTreeSet<String> {
    let word = |rest: &str| rest.trim_start().strip_prefix('"')?.split_once('"').map(|(word, _)| word.to_owned());
    text.split(mark).skip(1).filter_map(word).collect()
}

/// The arrows of the diagram after a mark, as `from --> to: event`.
fn arrows(text: &str, mark: &str) -> BTreeSet<String> {
    let after = text.split_once(mark).map_or("", |(_, rest)| rest);
    let lines = after.lines().skip_while(|line| *line != "stateDiagram-v2").skip(1).take_while(|line| *line != "```");
    let mut found = BTreeSet::new();
    for line in lines.map(str::trim) {
        match line.split_once(": ") {
            Some((ends, events)) => found.extend(events.split(", ").map(|event| format!("{ends}: {event}"))),
            None => {
                found.insert(line.to_owned());
            }
        }
    }
    found
}

/// A Markdown text without its code blocks.
fn prose(text: &str) -> String {
    let outside = text.split("\n```").step_by(2);
    outside.collect::<Vec<_>>().join("\n")
}

/// Targets of the relative links of a prose text, without their anchors.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let paths = targets.filter(|t| !t.contains(':') && !t.starts_with('#') && !t.contains(' '));
    paths.map(|target| target.split('#').next().unwrap_or(target)).collect()
}

macro_rules! diagram_of {
    ($text:expr, $state:ident) => {
        let mut wanted: BTreeSet<String> =
            $state::MOVES.iter().map(|(from, on, to)| format!("{from} --> {to}: {}", on.as_str())).collect();
        wanted.insert(format!("[*] --> {}", $state::ALL[0]));
        wanted.extend($state::ALL.iter().filter(|state| state.is_terminal()).map(|state| format!("{state} --> [*]")));
        assert_eq!(arrows($text, &format!("<!-- machine: {} -->", $state::MACHINE)), wanted, "{}", $state::MACHINE);
    };
}

#[test]
fn every_move_is_drawn_and_no_other() {
    let text = read("docs/ARCHITECTURE.md");
    diagram_of!(&text, RunState);
    diagram_of!(&text, PhaseState);
    diagram_of!(&text, AttemptState);
    diagram_of!(&text, RequestState);
    diagram_of!(&text, LeaseState);
    diagram_of!(&text, ApplyState);
}

#[test]
fn every_reason_is_listed_in_the_order_of_the_code() {
    let listed = first_column(&read("docs/GOVERNANCE.md"), "<!-- reasons -->");
    let wanted: Vec<&str> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(listed, wanted);
}

#[test]
fn every_reason_of_the_parallelism_gate_is_listed() {
    let listed = first_column(&read("docs/GATES.md"), "## The parallelism gate");
    assert_eq!(listed, GATE.map(GateReason::as_str));
}

#[test]
fn every_word_of_explain_is_listed() {
    let listed = first_cells(&read("docs/AUTOPILOT_OPERATIONS.md"), "## Why does it not move?");
    let files = repository().expect("the tests run in a clone that can be read");
    let mut said = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.starts_with("supervisor/src/")) {
        said.extend(first_arguments(&file.text, "Denial::new("));
        if file.path.ends_with("/explain.rs") {
            said.extend(first_arguments(&file.text, "blocker("));
            said.extend(first_arguments(&file.text, "kind: "));
        }
    }
    assert!(said.contains("lease") && said.contains("approval") && said.contains("no_slot"), "{said:?}");
    said.extend(
        GATE.iter()
            .filter(|reason| !matches!(reason, GateReason::Allowed | GateReason::InvalidInput))
            .map(|r| r.as_str().to_owned()),
    );
    // What a failed step says for itself is open; these are the ones that a person can do something about.
    said.extend(["disk_full", "read_only", "locked", "unavailable", "hub_unavailable"].map(str::to_owned));
    assert_eq!(listed, said);
}

#[test]
fn every_instrument_is_listed() {
    let text = read("docs/TELEMETRY.md");
    let after = text.split_once("<!-- instruments -->").map_or("", |(_, rest)| rest);
    let rows = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cell = |row: &str, at: usize| row.split('|').nth(at).unwrap_or("").trim().trim_matches('`').to_owned();
    let listed: Vec<(String, String)> = rows.skip(2).map(|row| (cell(row, 1), cell(row, 2))).collect();
    let wanted = INSTRUMENTS.map(|one| (one.name.to_owned(), one.unit.to_owned()));
    assert_eq!(listed, wanted);
}

#[test]
fn tests_that_are_said_to_prove_something_exist() {
    let text = read("tests/cluster/README.md");
    let files = repository().expect("the tests run in a clone that can be read");
    let is_there = |name: &str| files.iter().any(|file| file.text.contains(&format!("fn {name}(")));
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    for threat in 95..=110 {
        assert!(rows.iter().any(|row| row.starts_with(&format!("| T{threat:03} "))), "T{threat:03} has no row");
    }
    let mut named = BTreeSet::new();
    for row in rows {
        // The last cell of the first table has reasons and metrics.
        let cells = row.split('|').skip(2).take(if row.starts_with("| T") { 1 } else { 2 });
        named.extend(cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned));
    }
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(named.len() > 40 && missing.is_empty(), "{} are named, and these are not there: {missing:?}", named.len());
}

#[test]
fn links_lead_somewhere() {
    let files = repository().expect("the tests run in a clone that can be read");
    // The playground's faults are its purpose.
    let ours = files.iter().filter(|file| file.path.ends_with(".md") && !file.path.starts_with("examples/playground/"));
    let mut broken = Vec::new();
    for file in ours {
        let folder = root().join(&file.path).parent().map(ToOwned::to_owned).unwrap_or_default();
        let prose = prose(&file.text);
        let dead = links(&prose).into_iter().filter(|target| !folder.join(target).exists());
        broken.extend(dead.map(|target| format!("{} -> {target}", file.path)));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The subcommands of a line of shell that calls the program: its words up to the first that is a value or an option.
fn subcommands(line: &str) -> Option<Vec<&str>> {
    let words = line.trim_start().trim_start_matches("$ ").strip_prefix("autopack ")?.split_whitespace();
    Some(
        words
            .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-'))
            .collect(),
    )
}

#[test]
fn commands_in_the_documents_exist() {
    let files = repository().expect("the tests run in a clone that can be read");
    let pages = files.iter().filter(|file| file.path.ends_with(".md"));
    let called: BTreeSet<Vec<&str>> = pages.flat_map(|file| file.text.lines().filter_map(subcommands)).collect();
    assert!(called.len() > 10, "{called:?}");
    for words in called {
        let output = Command::new(env!("CARGO_BIN_EXE_autopack")).args(&words).arg("--help").output().unwrap();
        assert!(output.status.success(), "autopack {}", words.join(" "));
    }
}

#[test]
fn tables_diagrams_and_links_are_read() {
    let text = "a\n<!-- x -->\n\n| code | why |\n|---|---|\n| `one` | `no` |\n| two | x |\n\n| `three` |\n";
    assert_eq!(first_column(text, "<!-- x -->"), ["one"]);
    let text = "<!-- x -->\n```mermaid\nstateDiagram-v2\n    [*] --> a\n    a --> b: go, run\n```\nc --> d: no\n";
    let drawn: Vec<String> = arrows(text, "<!-- x -->").into_iter().collect();
    assert_eq!(drawn, ["[*] --> a", "a --> b: go", "a --> b: run"]);
    assert_eq!(links(&prose("[a](b)\n```text\n[c](d)\n```\n[e](f)")), ["b", "f"]);
    assert_eq!(subcommands("autopack runs show RUN # x"), Some(vec!["runs", "show"]));
    assert_eq!(subcommands("  $ autopack up --data-dir x"), Some(vec!["up"]));
    assert_eq!(subcommands("cargo run"), None);
    assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g) [h](i/)"), ["b.md", "i/"]);
}
