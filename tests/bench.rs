//! `autopack bench`, in small numbers: that each figure is measured, with real services; never how good it is.

use serde_json::Value;

use crate::harness::Bench;

fn figure<'a>(report: &'a Value, name: &str) -> &'a Value {
    let figures = report["figures"].as_array().unwrap();
    figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("{name} in {report:#}"))
}

#[test]
fn figures_are_measured_beside_their_floors() {
    let bench = Bench::empty();
    let args = ["bench", "transitions", "idle", "first-byte", "scan", "--quick", "--workers", "20", "--repeat", "1"];
    let ran = bench.run(&[&args[..], &["-o", "json"]].concat()).expect(0);
    let report = ran.json();
    assert_eq!((&report["format"], &report["build"]), (&"bench/1".into(), &"debug".into()));
    assert!(ran.stderr.contains("this is a debug build"), "{}", ran.stderr);
    for name in ["transitions", "transitions-1", "scan"] {
        let figure = figure(&report, name);
        assert!(figure["ratio"].as_f64().unwrap() > 0.0, "{figure:#}");
        assert!(figure["floors"][0]["measured"]["median"].as_f64().unwrap() > 0.0, "{figure:#}");
    }
    let first = figure(&report, "first-byte");
    assert_eq!((&first["measured"]["n"], &first["aim"]["value"]), (&10.into(), &100.0.into()));
    assert!(first["measured"]["median"].as_f64().unwrap() > 0.0, "{first:#}");
    // The one figure that does not depend on the machine: heartbeats never write.
    assert_eq!(figure(&report, "idle-writes")["measured"]["max"], 0.0);
}

#[test]
fn a_service_that_is_missing_is_named_with_its_package() {
    let bench = Bench::empty();
    for (variable, package) in [("AUTOPACK_PG_BIN", "postgresql"), ("AUTOPACK_ETCD_BIN", "etcd-server")] {
        let ran = bench.run_in(&bench.path().join("home"), &["bench", "grants"], &[(variable, "/nowhere")]).expect(7);
        assert!(
            ran.stderr.contains("is not installed") && ran.stderr.contains(&format!(" {package}, or set {variable}")),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn sandboxes_are_measured_beside_a_bare_start() {
    let bench = Bench::empty();
    let report = bench.run(&["bench", "sandbox", "--quick", "--repeat", "1", "-o", "json"]).expect(0).json();
    for name in ["sandbox", "sandbox-builtin"] {
        let figure = figure(&report, name);
        assert_eq!((&figure["measured"]["n"], &figure["aim"]["value"]), (&10.into(), &50.0.into()), "{figure:#}");
        // What it costs is more than nothing.
        assert!(figure["measured"]["median"].as_f64().unwrap() > 1.0, "{figure:#}");
        assert!(figure["floors"][0]["measured"]["median"].as_f64().unwrap() > 0.0, "{figure:#}");
    }
}

#[test]
fn worktrees_are_measured_beside_gits() {
    let bench = Bench::empty();
    let ran = bench.run(&["bench", "workspace", "--quick", "--repeat", "1", "-o", "json"]).expect(0);
    let report = ran.json();
    for name in ["workspace", "collect"] {
        let figure = figure(&report, name);
        assert!(figure["measured"]["median"].as_f64().unwrap() > 0.0, "{figure:#}");
        assert!(figure["floors"][0]["measured"]["median"].as_f64().unwrap() > 0.0, "{figure:#}");
    }
    assert_eq!(figure(&report, "workspace-at-once")["measured"]["max"], 0.0, "none fails");
}
