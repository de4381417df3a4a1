//! What counts as a path, which spellings are equal, and what a glob matches.

use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> RefusedPath {
    RepoPath::inspect(text.as_bytes()).unwrap_err()
}

#[test]
fn plain_names_are_paths() {
    for good in [
        "a",
        ".gitkeep",
        "examples/git~notes.md",
        "a b/-rf",
        "examples/é.py",
        "x.y/z~1",
        "日本/語",
        "console/comx",
        "com10",
    ] {
        assert_eq!(RepoPath::parse(good).unwrap().as_str(), good);
    }
}

#[test]
fn unsafe_spellings_are_refused() {
    let long = "n".repeat(256);
    let deep = vec!["d"; 65].join("/");
    for bad in [
        "",
        "/a",
        "a//b",
        "./a",
        "a/.",
        "a/../b",
        "a\\b",
        "c:/x",
        "a:ads",
        "dir./x",
        "x ",
        "...",
        "e\u{301}",
        "a\nb",
        "a\u{7f}b",
        "a\u{202e}b",
        "a\u{200b}",
        "\u{feff}a",
        "a\u{2028}b",
        "CON",
        "nul.txt",
        "x/Com1.log",
        "aux .c",
        "COM¹",
        "ＮＵＬ",
        &long,
        &deep,
        "examples／x",
        "a/．．/b",
        "foo…",
        "x\u{a0}",
        "a：b",
        "\u{3164}",
    ] {
        assert!(refused(bad).unsafe_because.is_some(), "{bad:?}");
    }
    assert!(RepoPath::inspect(b"examples/\xff\xfe").unwrap_err().shown.ends_with("\\xff\\xfe"));
    assert!(RepoPath::parse(&vec!["d"; 64].join("/")).is_ok());
    assert_eq!(refused("a\u{202e}b\\c").shown, "a\\u{202e}b\\\\c");
}

#[test]
fn git_directories_are_known_in_every_spelling() {
    for bad in [
        ".git",
        ".GIT/config",
        "a/.git/x",
        "git~1",
        "GIT~2/x",
        ".ｇｉｔ/x",
        ".g\u{200c}it/config",
        ".git./c",
        ".git /c",
        ".git::$INDEX/x",
        "a\\.git\\x",
    ] {
        assert!(refused(bad).git_internal, "{bad:?}");
    }
    for good in [".gitignore", ".github/x", "git", "a.git", "git~x"] {
        assert!(RepoPath::parse(good).is_ok(), "{good}");
    }
}

#[test]
fn spellings_that_some_file_system_takes_for_equal_share_a_key() {
    for (a, b) in [
        ("SRC", "src"),
        ("ſrc", "src"),
        ("ｓｒｃ", "src"),
        ("straße", "STRASSE"),
        ("ẞ", "ss"),
        ("proﬁle", "profile"),
        ("ΣΑΣ", "σας"),
        ("K", "k"),
    ] {
        assert_eq!(MatchKey::of(a), MatchKey::of(b), "{a} {b}");
    }
    assert_ne!(MatchKey::of("ı"), MatchKey::of("i"));
}

fn glob(pattern: &str, path: &str) -> bool {
    PathSet::compile([pattern]).unwrap().find(&RepoPath::parse(path).unwrap().key().parts()).is_some()
}

#[test]
fn globs_go_component_by_component() {
    for (pattern, path) in [
        (".env*", ".env"),
        (".env*", "a/b/.env.local"),
        (".envs", ".envs/x"),
        ("*.db", "a/x.DB"),
        ("*.sqlite*", "x.sqlite-wal"),
        ("docs/**", "docs/a/b"),
        ("docs/**", "docs"),
        ("docs/", "docs/a"),
        ("/docs", "docs"),
        ("scripts/check_*", "scripts/check_x.py"),
        ("**/migrations/**", "migrations/1"),
        ("**/migrations/**", "a/b/migrations/1"),
        ("scripts/{ci,tidy}/**", "scripts/tidy/x"),
        ("a/**/z", "a/z"),
        ("a/**/z", "a/b/c/z"),
        ("a?c", "abc"),
        ("x[0-9]", "x7"),
        ("app/[id].tsx", "app/[id].tsx"),
        ("app/[id].tsx", "app/i.tsx"),
        ("SRC/ſ", "src/s"),
        ("a*b*c", "aXbYbZc"),
        ("**", "anything/at/all"),
        ("*", "a"),
        ("[!a]x", "bx"),
    ] {
        assert!(glob(pattern, path), "{pattern} {path}");
    }
    for (pattern, path) in [
        ("docs/*.md", "docs/a/b.md"),
        ("scripts/check_*", "scripts/check_links/readme.md"),
        ("scripts/check_*", "scripts/tools/check_x"),
        ("main.py", "main.py.evil"),
        ("docs/**", "a/docs/b"),
        ("/docs", "a/docs"),
        ("src/a/**", "src/ab/x"),
        ("*.db", "x.dbx"),
        ("＊", "anything"),
        ("x[0-9]", "xa"),
        ("[!a]x", "ax"),
        ("a/**/z", "a/b"),
    ] {
        assert!(!glob(pattern, path), "{pattern} {path}");
    }
    for bad in ["", ".", "a//b", "../x", "a/./b", "{a", "a}", "a\\b"] {
        assert!(PathSet::compile([bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn roots_are_normalised_and_end_at_a_component() {
    let contains = |entry: &str, path: &str| PathRoot::parse(entry).unwrap().contains(&MatchKey::of(path).parts());
    assert!(contains("src\\utils\\", "src/utils/helper.py"));
    assert!(contains(".\\src\\web.py  ", "src/web.py"));
    assert!(contains("././a/x/../b", "A/b/c"));
    assert!(contains(".", "anything"));
    assert!(contains("docs/*.md", "docs/a.md"));
    assert!(!contains("examples/ab/", "examples/abc/x"));
    assert!(!contains("docs", "a/docs/x"));
    assert!(PathRoot::parse("docs").unwrap().guards(&["a", "docs", "x"]));
    assert!(PathRoot::parse("a/*/keys").unwrap().guards(&["a", "b", "keys", "x"]));
    assert!(PathRoot::parse("a/../../b").is_err());
    assert!(PathRoot::parse(" ").is_err());
}

proptest! {
    #[test]
    fn the_key_is_a_fixed_point(text in "\\PC{0,12}") {
        let key = MatchKey::of(&text);
        prop_assert_eq!(MatchKey::of(key.as_str()), key);
    }

    #[test]
    fn respelling_never_leaves_a_glob(name in "[a-z]{1,6}", upper in any::<u8>()) {
        let respelt: String = name
            .chars()
            .enumerate()
            .map(|(i, c)| if upper >> (i % 8) & 1 == 0 { c } else { char::from_u32(u32::from(c) - 0x61 + 0xff21).unwrap() })
            .collect();
        let pattern = format!("{name}/**");
        let path = format!("{respelt}/x");
        prop_assert!(glob(&pattern, &path));
    }

    #[test]
    fn accepted_paths_keep_their_shape_under_folding(text in "[a-zA-Z.:/\\\\ \u{ff0e}\u{ff0f}\u{2026}\u{a0}ſß]{0,12}") {
        if let Ok(path) = RepoPath::parse(&text) {
            let key = path.key();
            prop_assert_eq!(key.parts().len(), path.components().count());
            prop_assert!(RepoPath::parse(key.as_str()).is_ok());
        }
    }
}
