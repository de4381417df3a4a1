//! The strict profile: ordinary tools work in it, what they do not need seems not to exist, and TCP leads nowhere.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use autopack_shared::domain::sandbox::SandboxProfile;
use autopack_worker::process::{self, Cage, ProcEnd};

use super::{Jail, ways};

fn strict(way: Option<std::path::PathBuf>) -> Jail {
    Jail::with(way, |config| config.profile = SandboxProfile::Strict)
}

/// Calls that no tool here needs and that the default profile does not refuse, by their numbers on this architecture,
/// which are the same on all that have them.
#[cfg(target_arch = "x86_64")]
const UNLISTED: [(&str, i64); 8] = [
    ("io_setup", libc::SYS_io_setup),
    ("mq_open", libc::SYS_mq_open),
    ("mbind", libc::SYS_mbind),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("set_mempolicy", libc::SYS_set_mempolicy),
    ("remap_file_pages", libc::SYS_remap_file_pages),
    ("get_mempolicy", libc::SYS_get_mempolicy),
    ("io_destroy", libc::SYS_io_destroy),
];

#[tokio::test]
async fn ordinary_tools_work() {
    let c = "printf '#include <stdio.h>\\nint main(void) { puts(\"built\"); return 0; }\\n' > a.c; \
             printf 'a: a.c\\n\\tcc -O1 -o a a.c\\n' > Makefile; make >/dev/null && ./a";
    let python = "python3 -c 'import subprocess, threading, tempfile, json, multiprocessing, asyncio; \
                  t = threading.Thread(target=print, args=(1,)); t.start(); t.join(); \
                  open(tempfile.mkstemp()[1], \"w\").write(\"x\"); asyncio.run(asyncio.sleep(0)); \
                  print(subprocess.check_output([\"echo\", \"two\"]).decode().strip())'";
    let all = [
        ("sh", "for i in 1 2 3; do echo $i; done | sort -r | head -1; mkfifo p; test -p p && ls -la >/dev/null", "3"),
        ("cc", c, "built"),
        ("make", c, "built"),
        ("python3", python, "1\ntwo"),
        ("perl", "perl -e 'my $p = fork; if (!$p) { exit 0 } waitpid($p, 0); print \"ok\"'", "ok"),
        (
            "node",
            "node -e 'setTimeout(() => require(\"fs\").readFile(\"file\", (e, d) => console.log(`${d}`)), 1)'",
            "of the tree",
        ),
        ("tar", "mkdir d; echo x > d/x; tar czf d.tgz d && tar tzf d.tgz | wc -l", "2"),
        ("cargo", "cargo --version | cut -d' ' -f1", "cargo"),
    ];
    for way in ways() {
        let jail = strict(way);
        let mut tried = Vec::new();
        for (tool, script, says) in all {
            // What is not installed here, or not below the folders that are there inside, cannot be tried.
            if jail.sh(&format!("command -v {tool} >/dev/null")).await.end != ProcEnd::Exit(0) {
                continue;
            }
            assert_eq!(jail.says(script).await, says, "{tool}");
            tried.push(tool);
        }
        assert!(["sh", "cc", "make", "python3", "perl", "tar"].iter().all(|tool| tried.contains(tool)), "{tried:?}");
        println!("under strict: {tried:?}");
    }
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn what_is_not_listed_seems_not_to_exist() {
    let errno = |number: i64| format!("perl -e 'syscall({number}, -1, -1, -1); print $!+0'");
    for way in ways() {
        let (strict, usual) = (strict(way.clone()), Jail::new(way));
        for (name, number) in UNLISTED {
            assert_eq!(strict.says(&errno(number)).await, libc::ENOSYS.to_string(), "{name}");
            assert_ne!(usual.says(&errno(number)).await, libc::ENOSYS.to_string(), "{name} in the default profile");
        }
        // What is refused by name is so in both, and says so.
        for jail in [&strict, &usual] {
            assert_eq!(jail.says(&errno(libc::SYS_ptrace)).await, libc::EPERM.to_string());
            assert_eq!(jail.says(&errno(libc::SYS_io_uring_setup)).await, libc::ENOSYS.to_string());
        }
    }
}

/// Calls by x32 numbers, and by those of 32-bit programs, end the process in both profiles.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn calls_of_another_kind_end_the_process() {
    for way in ways() {
        for jail in [strict(way.clone()), Jail::new(way)] {
            let report = jail.sh("exec perl -e 'syscall(0x40000000 + 39); print \"alive\"'").await;
            assert_eq!(report.end, ProcEnd::Signal(libc::SIGSYS), "{report:?}");
            let Some(program) = with_int80(&jail.path("tree")) else { panic!("no C compiler") };
            let report = jail.sh(&format!("exec ./{program}")).await;
            assert_eq!(report.end, ProcEnd::Signal(libc::SIGSYS), "{report:?}");
        }
    }
}

/// A program that makes a call by the 32-bit way into the kernel.
#[cfg(target_arch = "x86_64")]
fn with_int80(folder: &Path) -> Option<&'static str> {
    let source =
        "int main(void) { long r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(20)); return r > 0 ? 0 : 1; }\n";
    std::fs::write(folder.join("old.c"), source).ok()?;
    let built = std::process::Command::new("cc").args(["-o", "old", "old.c"]).current_dir(folder).status().ok()?;
    built.success().then_some("old")
}

#[tokio::test]
async fn tcp_leads_to_the_one_port_and_nowhere_else() {
    let listen = |port: u16| {
        format!(
            "perl -MSocket -e 'socket(my $s, AF_INET, SOCK_STREAM, 0); bind($s, pack_sockaddr_in({port}, INADDR_LOOPBACK)) \
             or exit 7'"
        )
    };
    let connect = |port: u16| {
        format!(
            "perl -MSocket -e 'socket(my $s, AF_INET, SOCK_STREAM, 0); connect($s, pack_sockaddr_in({port}, INADDR_LOOPBACK)); \
             print $!+0'"
        )
    };
    for way in ways() {
        let jail = strict(way.clone());
        jail.refuses(&listen(4712)).await;
        assert_eq!(jail.says(&connect(4713)).await, libc::EACCES.to_string());
        let spec = |port| {
            let mut spec = jail.spec(&["/bin/sh", "-c", &connect(4713)]);
            let Cage::Sandboxed(_, place) = &mut spec.cage else { panic!("it is confined") };
            place.port = Some(port);
            spec
        };
        // Nobody listens there, but the way is free.
        for (port, errno) in [(4713, libc::ECONNREFUSED), (4714, libc::EACCES)] {
            let report = process::run(&spec(port), &CancellationToken::new()).await.unwrap();
            assert_eq!(report.tail.trim(), errno.to_string(), "{port}");
        }
        assert_eq!(Jail::new(way).says(&connect(4713)).await, libc::ECONNREFUSED.to_string());
    }
}
