//! From facts to a verdict, for a change of 200 lines in 10 files. The goal is 50 µs; the same step took the
//! predecessor 9.5 ms, and every line of output says so.

use std::hint::black_box;

use criterion::Criterion;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::change::{ChangeFacts, Entry, EntryPath, FileMode};
use autopack_shared::domain::evaluate::{PhaseScope, Window, evaluate};
use autopack_shared::domain::policy::Policy;

/// What the predecessor needed for the same step, measured on the same kind of machine.
const PREDECESSOR: &str = "predecessor 9.5 ms";

const ANCHOR: &str = r#"{
  "format_version": "v2", "project_id": "bench", "created_at": "2026-01-01T00:00:00Z",
  "raw_input_digest": "0123456789abcdef",
  "pivot_intentions": {
    "scope_boundaries": {"allowed_write_roots": ["src/", "tools/"], "protected_paths": ["src/core/"]},
    "safety_risk": {"risk_tolerance": "moderate", "never_allow": ["path:src/frozen/**"]}
  }
}"#;

/// Ten files with 20 changed lines each, in folders of their own.
fn change(prefix: &str) -> ChangeFacts {
    let entry = |n: usize| Entry {
        added: 12,
        removed: 8,
        ..Entry::new(
            EntryPath::of(format!("{prefix}/part_{}/deep/file_{n}.rs", n / 3).as_bytes()),
            FileMode::FILE,
            FileMode::FILE,
        )
    };
    ChangeFacts::from_entries((0..10).map(entry).collect())
}

fn verdicts(criterion: &mut Criterion) {
    let policy = Policy::builtin();
    let anchor = IntentionAnchorV2::parse(ANCHOR).expect("the anchor above is valid");
    let (scope, window) = (PhaseScope::default(), Window::default());
    let mut group = criterion.benchmark_group("evaluate 200 lines, 10 files");
    for (name, prefix) in [("allowed", "src"), ("protected", "docs"), ("never", ".github/workflows")] {
        let facts = change(prefix);
        assert_eq!((facts.size, facts.files), (200, 10));
        group.bench_function(format!("{name} ({PREDECESSOR})"), |bencher| {
            // Its caller keeps a verdict: dropping it is not part of the step.
            bencher.iter_with_large_drop(|| evaluate(black_box(&facts), &policy, Some(&anchor), &scope, &window));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    verdicts(&mut criterion);
    criterion.final_summary();
}
