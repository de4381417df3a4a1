//! What stands in files: attributes and submodule tables, moves into and out of what is protected, modes, and content
//! that hides. T010 to T012, T017 to T019, T023, T028, T030, T031, T035, T036.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use autopack_shared::repo::open::{from_git, to_git};

use super::{Attack, said, stops};

/// T010 and T011: the table of submodules.
#[test]
fn t010_t011_a_submodule_table_is_never_approved_by_itself() {
    let table = "[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/owned\n";
    for (name, linked) in [(".gitmodules", false), (".GITMODULES", false), (".gitmodules", true)] {
        let a = Attack::new();
        if linked {
            a.write("examples/table", table);
            symlink("examples/table", a.at(name)).unwrap();
        } else {
            a.write(name, table);
        }
        let verdict = a.judged();
        let code = if linked { "gitmodules_symlink" } else { "path_never" };
        assert!(stops(&verdict, code), "{name} {linked}: {}", said(&verdict));
        assert!(!a.at("x").exists() && !a.canary().with_file_name("owned").exists());
    }
}

/// T012: attributes are judged, and nothing that they say is done: files are taken byte for byte.
#[test]
fn t012_attributes_change_no_byte() {
    let canary = tempfile::tempdir().unwrap();
    let attributes = "* text eol=crlf ident filter=evil diff=evil merge=evil working-tree-encoding=UTF-16\n";
    let a = Attack::on(&[(".gitattributes", attributes.as_bytes()), ("id.txt", b"$Id$\r\nline\n".as_slice())]);
    assert_eq!(fs::read(a.at("id.txt")).unwrap(), b"$Id$\r\nline\n", "written as it is");
    let evil = canary.path().join("ran");
    let config = format!("[filter \"evil\"]\n\tclean = touch {0}\n\tsmudge = touch {0}\n", evil.display());
    a.write("examples/.gitconfig", &config);
    a.write(".git/config", &config);
    let text = b"$Id: 1234 $\r\nmixed\nends\r\n\xef\xbb\xbf";
    a.write("examples/a.txt", text);
    a.write("examples/.gitattributes", "*.txt -text filter=evil\n");
    let found = a.collect().unwrap();
    let repo = a.mirror.repository().unwrap();
    let change = found.changed.iter().find(|change| change.path == b"examples/a.txt").unwrap();
    assert_eq!(repo.find_blob(to_git(change.new.unwrap().oid)).unwrap().content(), text);
    let raw = git2::Oid::hash_object(git2::ObjectType::Blob, text).unwrap();
    assert_eq!(change.new.unwrap().oid, from_git(raw));
    assert!(!evil.exists(), "a filter ran");
    assert!(stops(&a.judged(), "path_never"), "{}", said(&a.judged()));
}

/// T017 to T019: into, a copy into, and out of what is protected.
#[test]
fn t017_t018_t019_moves_are_judged_by_both_ends() {
    let (code, core) = ("path_protected", "src/autopack/zz.py");
    let a = Attack::new();
    fs::rename(a.at("examples/a.txt"), a.at(core)).unwrap();
    assert!(stops(&a.judged(), code), "{}", said(&a.judged()));
    let b = Attack::new();
    fs::copy(b.at("examples/a.txt"), b.at(core)).unwrap();
    assert!(stops(&b.judged(), code), "{}", said(&b.judged()));
    let c = Attack::new();
    fs::rename(c.at("docs/guide.md"), c.at("examples/guide.md")).unwrap();
    assert!(stops(&c.judged(), code), "{}", said(&c.judged()));
    let d = Attack::new();
    fs::remove_file(d.at("src/autopack/main.py")).unwrap();
    assert!(stops(&d.judged(), "path_never"), "{}", said(&d.judged()));
}

/// T023: a name that only begins like a listed one is judged for itself.
#[test]
fn t023_a_longer_name_is_another_name() {
    let a = Attack::new();
    a.write("src/autopack/main.pyevil.py", "x = 1\n");
    let said = said(&a.judged());
    assert!(said.contains("path_protected") && !said.contains("path_never"), "{said}");
    let b = Attack::new();
    b.write("examplesevil/x.txt", "x\n");
    assert!(stops(&b.judged(), "path_default_deny"), "{}", super::said(&b.judged()));
}

/// T028: the executable bit.
#[test]
fn t028_an_executable_bit_is_told() {
    let run = |path: &str| {
        let a = Attack::new();
        a.write("examples/new.sh", "#!/bin/sh\n");
        fs::set_permissions(a.at(path), fs::Permissions::from_mode(0o755)).unwrap();
        said(&a.judged())
    };
    for path in ["examples/a.txt", "examples/new.sh"] {
        assert!(run(path).contains("mode_change"), "{}", run(path));
    }
    // Bits that git does not keep are no change, and set-id bits do not arrive.
    let a = Attack::new();
    fs::set_permissions(a.at("examples/a.txt"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(a.changed().is_empty());
    fs::set_permissions(a.at("examples/a.txt"), fs::Permissions::from_mode(0o4755)).unwrap();
    let found = a.collect().unwrap();
    assert_eq!(found.changed[0].new.unwrap().mode, 0o100_755);
}

/// T030 and T036: content that nobody can read.
#[test]
fn t030_t036_what_hides_needs_a_person() {
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("nul", b"text\0more\n".to_vec(), "binary"),
        ("late-nul", [vec![b'x'; 70_000], b"\n\0".to_vec()].concat(), "binary"),
        ("long", [vec![b'y'; 4 << 20], b"\n".to_vec()].concat(), "long_line"),
        ("spaces", [b"ok".to_vec(), vec![b' '; 3_000], b"evil\n".to_vec()].concat(), "long_line"),
    ];
    for (name, bytes, code) in cases {
        let a = Attack::new();
        a.write(&format!("examples/{name}"), bytes);
        assert!(stops(&a.judged(), code), "{name}: {}", said(&a.judged()));
    }
}

/// T031 and T035: the size is what was added and what was removed.
#[test]
fn t031_t035_size_is_gross() {
    let lines = |from: u32, to: u32| (from..to).map(|n| format!("line {n}\n")).collect::<String>();
    let a = Attack::on(&[("examples/long.txt", lines(0, 1_000).as_bytes())]);
    a.write("examples/long.txt", lines(1_000, 2_000));
    let verdict = a.judged();
    assert_eq!((verdict.facts.added, verdict.facts.removed), (1_000, 1_000));
    assert!(stops(&verdict, "size_over_200") && stops(&verdict, "removed_over_200"), "{}", said(&verdict));
    let b = Attack::new();
    b.write("examples/many.txt", lines(0, 100_001));
    assert!(stops(&b.judged(), "too_large"), "{}", said(&b.judged()));
}
