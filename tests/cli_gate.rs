//! The quality gate at the command line: tried here, and what it has learned.

use serde_json::json;

use crate::harness::Bench;

const SUITE: &str =
    "[project]\nid = \"shop\"\n[[gate.commands]]\nname = \"suite\"\nreport = \"junit\"\nvanished = \"block\"\nrun = '''
cat > $AUTOPACK_REPORT < report.xml
grep -q failure report.xml && exit 1
exit 0
'''\n[[gate.commands]]\nname = \"lint\"\nrun = \"true\"\n";

const GOOD: &str = "<testsuite name='s'><testcase name='a'/></testsuite>";
const BAD: &str = "<testsuite name='s'><testcase name='a'><failure message='1 is not 2'/></testcase></testsuite>";

#[test]
fn a_gate_is_tried_in_the_work_tree() {
    let bench = Bench::with(&[("autopack.toml", SUITE), ("report.xml", GOOD)]);
    let ran = bench.run(&["gate", "try"]).expect(0);
    assert_eq!(ran.stdout, "suite passed (1 tests)\nlint passed (0 tests)\n");
    bench.write("report.xml", BAD);
    let ran = bench.run(&["gate", "try", "--only", "suite", "-o", "json"]).expect(1).json();
    assert_eq!((&ran["format"], ran["commands"].as_array().unwrap().len()), (&json!("gate_try/1"), 1));
    assert_eq!(ran["commands"][0]["new"], json!([{ "test": "s::a", "message": "1 is not 2\n" }]));
    assert_eq!(ran["commands"][0]["runs"], json!([{ "exit": 1 }, { "exit": 1 }]));
    let ran = bench.run(&["gate", "try"]).expect(1);
    assert!(
        ran.stdout.contains("suite exited with 1, 1 new failures") && ran.stdout.contains("  s::a: 1 is not 2"),
        "{ran:?}"
    );
    bench.write("report.xml", "<!DOCTYPE x [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><testsuite/>");
    let ran = bench.run(&["gate", "try", "--only", "suite"]).expect(1);
    assert!(ran.stdout.contains("its report has a document type, which is refused"), "{ran:?}");
    bench.run(&["gate", "try", "--only", "nothing"]).expect(3);
}

#[test]
fn what_nothing_is_known_of_says_so() {
    let bench = Bench::with(&[("a", "1\n")]);
    let ran = bench.run(&["gate", "flaky"]).expect(0);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("no gate has seen a flaky test"), "{ran:?}");
    assert_eq!(bench.run(&["gate", "flaky", "-o", "json"]).expect(0).json()["flaky_tests"], json!([]));
    let commit = "0123456789012345678901234567890123456789";
    let ran = bench.run(&["gate", "baseline", commit]).expect(0);
    assert!(ran.stderr.contains("nothing is known of this commit"), "{ran:?}");
    bench.run(&["gate", "baseline", "main"]).expect(2);
    bench.run(&["gate", "baseline", commit, "--reason", "x"]).expect(2);
}
