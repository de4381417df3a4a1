//! The self-test: the level is what is denied, and a layer that is missing is noticed.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::ran;

fn selftest(bwrap: &str, weak: &str, user: Option<u32>) -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut program = Path::new(env!("CARGO_BIN_EXE_autopack")).to_path_buf();
    if user.is_some() {
        // Where everybody may run it.
        let copy = folder.path().join("autopack");
        std::fs::copy(&program, &copy).unwrap();
        program = copy;
    }
    let mut command = Command::new(program);
    command.args(["sandbox", "selftest", "-o", "json", "--bwrap", bwrap]).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("TMPDIR", folder.path()).env("HOME", folder.path()).current_dir("/");
    if !weak.is_empty() {
        command.env("AUTOPACK_SANDBOX_WEAKEN", weak);
    }
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    ran(&command.output().unwrap()).json()
}

fn reached(report: &Value) -> Vec<&str> {
    let of = |result: &Value| (result["denied"] == false).then_some(());
    let results = report["results"].as_array().unwrap();
    results.iter().filter(|r| of(r).is_some()).map(|r| r["name"].as_str().unwrap()).collect()
}

#[test]
fn everything_is_denied_as_root() {
    for bwrap in ["/usr/bin/bwrap", "none"] {
        let report = selftest(bwrap, "", None);
        assert_eq!((report["level"].as_str(), reached(&report)), (Some("S3"), Vec::new()), "{report:#}");
        assert_eq!(report["denied"], report["attempts"]);
        assert!(report["attempts"].as_u64().unwrap() >= 26, "{report:#}");
    }
}

#[test]
fn without_root_it_is_what_the_host_allows() {
    for bwrap in ["/usr/bin/bwrap", "none"] {
        let report = selftest(bwrap, "", Some(1001));
        assert_eq!(report["level"], "S2", "{report:#}");
        assert!(reached(&report).contains(&"read_private_file"), "it is the user of the worker: {report:#}");
    }
}

#[test]
fn a_layer_that_is_missing_is_noticed() {
    let cases: [(&str, &str, &[&str]); 12] = [
        ("net", "S1", &["tcp_host", "udp_host", "host_namespaces"]),
        ("pid", "S1", &["see_processes"]),
        ("ipc", "S1", &["shared_memory"]),
        ("files", "S0", &["read_host_file", "unix_path"]),
        ("files,landlock", "S0", &["read_host_file", "unix_path"]),
        ("user", "S0", &["host_namespaces", "become_root"]),
        ("env", "S0", &["environment"]),
        ("landlock", "S0", &["write_beside_rules"]),
        ("seccomp", "S0", &["new_user_namespace", "ptrace", "keyring", "terminal_input"]),
        ("cgroup", "S2", &["memory"]),
        ("rlimits", "S0", &["large_file", "core_dump"]),
        ("uid", "S2", &["read_private_file"]),
    ];
    for bwrap in ["/usr/bin/bwrap", "none"] {
        for (weak, level, noticed) in cases {
            let report = selftest(bwrap, weak, None);
            assert_eq!(report["level"], level, "{bwrap} without {weak}: {report:#}");
            for name in noticed {
                assert!(reached(&report).contains(name), "{bwrap} without {weak}, {name}: {report:#}");
            }
        }
    }
}

#[test]
fn what_is_no_sandbox_is_s0() {
    let report = selftest("/bin/true", "", None);
    assert_eq!((report["level"].as_str(), report["attempts"].as_u64()), (Some("S0"), Some(0)));
    assert!(report["trouble"].as_str().unwrap().contains("could not be built"), "{report:#}");
}
