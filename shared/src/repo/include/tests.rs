//! What is brought into a worktree besides its commit, and what is not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::collect::CollectLimits;
use super::super::mirror::tests::{Fixture, key};
use super::super::mirror::{Mirror, Workspace};
use super::*;

const BASE: &[(u32, &str, &str)] = &[
    (0o100_644, ".gitignore", ".env*\n/local/\n*.key\n"),
    (0o100_644, LIST, "# what a build needs\n.env\n!other/.env\nlocal/conf\nsrc/*.key\nREADME.md\nnot-ignored\n"),
    (0o100_644, "README.md", "of the commit\n"),
    (0o100_644, "src/x.rs", "x\n"),
    (0o120_000, "conf", "local"),
];

struct Bench {
    f: Fixture,
    mirror: Mirror,
    ws: Workspace,
}

impl Bench {
    fn new() -> Self {
        let f = Fixture::new();
        let commit = f.commit(BASE);
        let mirror = f.mirror();
        let ws = mirror.create(&key("r", 1), commit).unwrap();
        fs::create_dir(f.dir.path().join("theirs")).unwrap();
        Self { f, mirror, ws }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn source(&self) -> std::path::PathBuf {
        self.f.dir.path().join("theirs")
    }

    fn bring(&self, limits: &IncludeLimits) -> Result<Included, IncludeError> {
        self.mirror.include(&self.ws, self.ws.base(), &self.source(), limits)
    }

    fn has(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.ws.path().join(path)).ok()
    }
}

#[test]
fn what_is_listed_and_ignored_is_brought_and_never_collected() {
    let b = Bench::new();
    for path in [".env", "src/.env", "other/.env", "local/conf/deep/a", "local/else", "src/a.key", "b.key"] {
        b.write(path, path);
    }
    b.write("README.md", "of the folder\n");
    b.write("not-ignored", "x\n");
    b.write(".git/.env", "x\n");
    let found = b.bring(&IncludeLimits::default()).unwrap();
    assert_eq!(found.files, [".env", "local/conf/deep/a", "src/.env", "src/a.key"]);
    assert_eq!(found.left_out, [("not-ignored".to_owned(), "the commit does not ignore it")]);
    for path in [".env", "local/conf/deep/a", "src/.env", "src/a.key"] {
        assert_eq!(b.has(path).as_deref(), Some(path));
    }
    for path in ["other/.env", "local/else", "b.key", "not-ignored", ".git/.env"] {
        assert_eq!(b.has(path), None, "{path}");
    }
    assert_eq!(b.has("README.md").unwrap(), "of the commit\n");
    let collected = b.mirror.collect(&b.ws, &CollectLimits::default()).unwrap();
    assert_eq!(collected.changed, []);
}

#[test]
fn links_and_odd_names_are_not_followed() {
    let b = Bench::new();
    let outside = b.f.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join(".env"), "SECRET\n").unwrap();
    fs::write(outside.join("plain"), "SECRET\n").unwrap();
    symlink(outside.join("plain"), b.source().join(".env")).unwrap();
    symlink(&outside, b.source().join("src")).unwrap();
    b.write("dir/.env", "fine\n");
    b.write("a:b/.env", "x\n");
    let found = b.bring(&IncludeLimits::default()).unwrap();
    assert_eq!(found.files, ["dir/.env"]);
    let left: Vec<_> = found.left_out.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    assert_eq!(left, [".env: it is no regular file", "a:b/.env: its name is not safe"]);
    assert_eq!((b.has(".env"), b.has("src/.env")), (None, None));
}

#[test]
fn a_link_of_the_commit_leads_nowhere() {
    let f = Fixture::new();
    let commit = f.commit(&[
        (0o100_644, ".gitignore", "*.key\n"),
        (0o100_644, LIST, "*.key\n"),
        (0o120_000, "way-out", "../../../../theirs-too"),
    ]);
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 1), commit).unwrap();
    let (source, target) = (f.dir.path().join("theirs"), f.dir.path().join("theirs-too"));
    fs::create_dir_all(source.join("way-out")).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(source.join("way-out/a.key"), "k\n").unwrap();
    let refused = mirror.include(&ws, commit, &source, &IncludeLimits::default());
    assert!(matches!(refused, Err(IncludeError::Io { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
}

#[test]
fn there_is_an_end_to_it() {
    let b = Bench::new();
    b.write(".env", "12345");
    b.write("src/.env", "12345");
    let all = IncludeLimits::default();
    let refused = |limits| b.bring(&limits).unwrap_err().to_string();
    assert!(refused(IncludeLimits { entries: 1, ..all }).contains("1 entries"));
    assert!(refused(IncludeLimits { files: 1, ..all }).contains("1 files"));
    let missing = b.mirror.include(&b.ws, b.ws.base(), Path::new("/nowhere/at/all"), &all).unwrap_err();
    assert!(matches!(missing, IncludeError::Io { .. }));
    let c = Bench::new();
    c.write(".env", "12345");
    assert!(c.bring(&IncludeLimits { bytes: 4, ..all }).unwrap_err().to_string().contains("4 bytes"));
}

#[test]
fn without_a_list_nothing_is_looked_at() {
    let f = Fixture::new();
    let commit = f.commit(&[(0o100_644, ".gitignore", ".env\n")]);
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 1), commit).unwrap();
    fs::write(f.dir.path().join(".env"), "x").unwrap();
    let none = IncludeLimits { files: 0, bytes: 0, entries: 0 };
    assert_eq!(mirror.include(&ws, commit, f.dir.path(), &none).unwrap(), Included::default());
}

#[test]
fn a_change_has_no_say_in_what_it_is_given() {
    let f = Fixture::new();
    let fork = f.commit(&[(0o100_644, ".gitignore", ".env*\n"), (0o100_644, LIST, ".env.test\n.env.gone\n")]);
    let change = f.commit(&[
        (0o100_644, ".gitignore", ".env*\n*.pem\n!.env.gone\n"),
        (0o100_644, LIST, ".env.production\n*.pem\n"),
    ]);
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 1), change).unwrap();
    let source = f.dir.path().join("theirs");
    fs::create_dir(&source).unwrap();
    for name in [".env.test", ".env.gone", ".env.production", "server.pem"] {
        fs::write(source.join(name), "x\n").unwrap();
    }
    let found = mirror.include(&ws, fork, &source, &IncludeLimits::default()).unwrap();
    assert_eq!(found.files, [".env.test"]);
    // The change no longer ignores it, so it would be collected.
    assert_eq!(found.left_out, [(".env.gone".to_owned(), "the commit does not ignore it")]);
}

#[test]
fn what_a_build_leaves_and_the_data_of_runs_is_not_looked_into() {
    let f = Fixture::new();
    let ignores = "/target/\n/local/\n.env\n.autonomous_runs/\n";
    let commit = f.commit(&[(0o100_644, ".gitignore", ignores), (0o100_644, LIST, ".env\nlocal/conf\n")]);
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 1), commit).unwrap();
    let source = f.dir.path().join("theirs");
    for folder in ["target/debug", "local/else", ".autonomous_runs"] {
        fs::create_dir_all(source.join(folder)).unwrap();
        fs::write(source.join(folder).join(".env"), "x\n").unwrap();
    }
    for at in 0..50 {
        fs::write(source.join("target").join(at.to_string()), "x\n").unwrap();
    }
    fs::write(source.join("local/conf"), "x\n").unwrap();
    let few = IncludeLimits { entries: 10, ..IncludeLimits::default() };
    assert_eq!(mirror.include(&ws, commit, &source, &few).unwrap().files, ["local/conf"]);
}
