//! Version 2 as a normal host has it, on a folder that looks like one; and the kill on the real thing.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::*;

const BOUNDS: Bounds = Bounds { memory: 1 << 30, pids: 64, cpu_percent: 250 };

/// A folder that looks like version 2 with these controllers, with this process in `/svc/unit`.
fn host(controllers: &str) -> (tempfile::TempDir, Groups) {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("svc/unit");
    fs::create_dir_all(&unit).unwrap();
    fs::write(unit.join("cgroup.controllers"), controllers).unwrap();
    let groups = looked_at(dir.path());
    (dir, groups)
}

fn looked_at(root: &Path) -> Groups {
    let mounts = format!("30 23 0:26 / {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n", root.display());
    Groups::found(&mounts, "0::/svc/unit\n")
}

fn text(file: PathBuf) -> String {
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

#[tokio::test]
async fn version_2_bounds_everything_before_anything_is_in_it() {
    let (dir, groups) = host("cpuset cpu io memory pids");
    assert!(groups.v2_bounds && groups.bounds());
    let ours = dir.path().join("svc/unit/autopack");
    for folder in [ours.parent().unwrap(), &ours] {
        assert_eq!(text(folder.join("cgroup.subtree_control")), "+memory +pids +cpu");
    }
    let group = groups.make(BOUNDS).unwrap();
    let [folder] = &group.folders[..] else { panic!("{group:?}") };
    assert!(folder.starts_with(&ours));
    for (name, value) in [
        ("memory.max", "1073741824"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "64"),
        ("cpu.max", "250000 100000"),
    ] {
        assert_eq!(text(folder.join(name)), value, "{name}");
    }
    assert!(!folder.join("cgroup.procs").exists(), "nobody is in it before it is bounded");
    group.add(4711).await.unwrap();
    assert_eq!(text(folder.join("cgroup.procs")), "4711");
    assert_eq!(group.oom_kills(), 0);
    fs::write(folder.join("memory.events"), "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 1\n").unwrap();
    assert_eq!(group.oom_kills(), 2);
    group.kill();
    assert_eq!(text(folder.join("cgroup.kill")), "1");
}

#[test]
fn without_the_controllers_version_2_only_kills() {
    for controllers in ["hugetlb", "cpu memory", ""] {
        let (_dir, groups) = host(controllers);
        assert!(groups.v2.is_some() && !groups.v2_bounds && !groups.bounds(), "{controllers}");
        let group = groups.make(BOUNDS).unwrap();
        assert!(!group.folders[0].join("memory.max").exists());
    }
}

#[test]
fn a_group_with_processes_of_its_own_passes_controllers_on_from_a_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("svc/unit");
    // The kernel refuses to pass them on as long as somebody is in it; a folder in the way refuses too.
    fs::create_dir_all(unit.join("cgroup.subtree_control")).unwrap();
    fs::write(unit.join("cgroup.controllers"), "cpu memory pids").unwrap();
    let groups = looked_at(dir.path());
    assert!(!groups.bounds(), "what is refused twice is not there");
    let moved = text(unit.join("autopack-worker/cgroup.procs"));
    assert_eq!(moved, std::process::id().to_string());
}

#[tokio::test]
async fn the_real_version_2_kills_a_tree_at_once() {
    let groups = Groups::discover();
    if groups.v2.is_none() {
        // Without a right to make groups there is none to kill: a worker like that ends with its namespace of processes.
        assert!(!nix::unistd::geteuid().is_root(), "root makes groups on this kind of machine");
        return;
    }
    let group = groups.make(Bounds { memory: 64 << 20, pids: 16, cpu_percent: 100 }).unwrap();
    let mut command = Command::new("/bin/sh");
    let started = command.args(["-c", "read go; (trap '' TERM; setsid sleep 600) & sleep 600"]).process_group(0);
    let mut child = started.stdin(std::process::Stdio::piped()).spawn().unwrap();
    group.add(child.id()).await.unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    while group.processes().len() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    group.kill();
    child.wait().unwrap();
    for _ in 0..400 {
        if group.processes().is_empty() {
            group.remove();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("left: {:?}", group.processes());
}
