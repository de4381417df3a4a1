//! How a file begins, how long it may be, what it may be called, and what it may not say.

use std::collections::BTreeSet;

use super::source::{Source, is_word, line_of};

/// Lines of the longest file.
pub(crate) const MOST_LINES: usize = 400;

/// Names that say nothing: help for one type stands beside that type.
const EMPTY_NAMES: [&str; 9] =
    ["common", "helper", "helpers", "misc", "shared_types", "types", "util", "utils", "stuff"];

/// Macros that leave something for later.
const LATER: [&str; 2] = ["todo!", "unimplemented!"];

/// Folders of one machine, which mean nothing on another; in pieces, so that this file does not name them.
const HERE: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Files that cargo finds by itself, beside the tests and benchmarks of a member.
const ROOTS: [&str; 4] = ["/src/lib.rs", "/src/main.rs", "/build.rs", "tests/main.rs"];

/// Whether cargo compiles a file without being told.
fn is_root(path: &str) -> bool {
    let of_member = match path.split('/').collect::<Vec<_>>()[..] {
        [_, folder, _] => matches!(folder, "tests" | "benches"),
        _ => false,
    };
    of_member || ROOTS.iter().any(|end| path.ends_with(end))
}

/// Whether a file does not say what it is for.
pub(crate) fn headless(file: &Source) -> bool {
    file.is_rust() && !file.text.starts_with("//! ")
}

/// How many lines a file has above the limit.
pub(crate) fn surplus_lines(file: &Source) -> usize {
    file.text.lines().count().saturating_sub(MOST_LINES)
}

/// What is wrong with the name of a file, if anything.
pub(crate) fn bad_name(path: &str) -> Option<String> {
    let stem = path.rsplit('/').next()?.strip_suffix(".rs")?;
    match stem {
        "mod" => Some("a module is name.rs beside name/, not name/mod.rs".to_owned()),
        stem if EMPTY_NAMES.contains(&stem) => Some(format!("`{stem}` says nothing about what is inside")),
        _ => None,
    }
}

/// Files that no `mod` mentions: they are not compiled, whatever they say.
pub(crate) fn orphans(files: &[Source]) -> Vec<String> {
    let declared: BTreeSet<String> = files.iter().filter(|file| file.is_rust()).flat_map(children).collect();
    let rust = files.iter().filter(|file| file.is_rust()).map(|file| &file.path);
    rust.filter(|path| !is_root(path) && !declared.contains(*path)).cloned().collect()
}

/// The files that the `mod name;` lines of a file mean.
fn children(file: &Source) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    let below = if is_root(&file.path) { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut found = Vec::new();
    let mut elsewhere = None;
    for (code, text) in file.code.lines().zip(file.text.lines()) {
        if code.trim_start().starts_with("#[path") {
            elsewhere = text.split('"').nth(1).map(|path| joined(folder, path));
        }
        let Some(name) = module_name(code) else { continue };
        found.push(elsewhere.take().unwrap_or_else(|| format!("{below}/{name}.rs")));
    }
    found
}

/// The name in `mod name;`.
fn module_name(line: &str) -> Option<&str> {
    let (_, rest) = line.trim().split_once("mod ").filter(|(before, _)| !before.ends_with(is_word))?;
    rest.strip_suffix(';')
}

/// A path that is written relative to a folder.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a file has unsafe code.
pub(crate) fn has_unsafe(file: &Source) -> bool {
    file.code.match_indices("unsafe").any(|(at, word)| {
        let before = file.code[..at].ends_with(is_word);
        let after = file.code[at + word.len()..].starts_with(is_word);
        !before && !after
    })
}

/// Whether a file gives the reason for its unsafe code to the compiler.
pub(crate) fn expects_unsafe(file: &Source) -> bool {
    let squeezed: String = file.code.split_whitespace().collect();
    squeezed.contains("#[expect(unsafe_code,reason=")
}

/// What a file says that no file should.
pub(crate) fn unwanted_words(file: &Source) -> Vec<String> {
    let later = LATER.iter().flat_map(|word| file.code.match_indices(word)).map(|(at, word)| (at, word, &file.code));
    let starts =
        |at: usize| !file.text[..at].ends_with(|c: char| is_word(c) || matches!(c, '.' | '-' | '*' | '~' | '}' | '>'));
    let here = HERE.iter().flat_map(|word| file.text.match_indices(word));
    let here = here.filter(|(at, _)| starts(*at)).map(|(at, word)| (at, word, &file.text));
    later.chain(here).map(|(at, word, text)| format!("{}: {word}", line_of(text, at))).collect()
}

/// Dependencies of a member's manifest that do not take their version from the workspace.
pub(crate) fn own_versions(file: &Source) -> Vec<String> {
    if !file.path.ends_with("/Cargo.toml") {
        return Vec::new();
    }
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
            found.push(format!("{}: {line}", number + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(path: &str, text: &str) -> Source {
        Source::new(path, text)
    }

    #[test]
    fn a_header_is_asked_for() {
        assert!(headless(&rust("a.rs", "use std::fs;\n")));
        assert!(headless(&rust("a.rs", "//!\n")));
        assert!(!headless(&rust("a.rs", "//! What it is for.\n")));
        assert!(!headless(&rust("a.md", "# A\n")));
    }

    #[test]
    fn length_is_counted() {
        assert_eq!(surplus_lines(&rust("a.rs", &"x\n".repeat(401))), 1);
        assert_eq!(surplus_lines(&rust("a.rs", &"x\n".repeat(400))), 0);
    }

    #[test]
    fn names_say_something() {
        assert!(bad_name("a/src/x/mod.rs").is_some());
        assert!(bad_name("a/src/utils.rs").is_some());
        assert!(bad_name("a/src/types.rs").is_some());
        assert!(bad_name("a/src/utility_room.rs").is_none());
        assert!(bad_name("docs/types.md").is_none());
    }

    #[test]
    fn a_forgotten_file_is_found() {
        let files = [
            rust("a/src/lib.rs", "//! A.\npub mod one;\n#[cfg(test)]\npub(crate) mod two;\n// mod three;\n"),
            rust("a/src/one.rs", "mod deep;\nmod inline {}\n"),
            rust("a/src/one/deep.rs", ""),
            rust("a/src/two.rs", ""),
            rust("a/src/three.rs", ""),
            rust("a/src/deep.rs", ""),
            rust("a/tests/whole.rs", "mod beside;\n#[path = \"../../b/far.rs\"]\nmod far;\n"),
            rust("a/tests/beside.rs", ""),
            rust("a/tests/whole/lost.rs", ""),
            rust("b/far.rs", ""),
        ];
        assert_eq!(orphans(&files), ["a/src/three.rs", "a/src/deep.rs", "a/tests/whole/lost.rs"]);
    }

    #[test]
    fn unsafe_code_is_told_from_the_word() {
        let gives = |text: &str| {
            let file = rust("a.rs", text);
            (has_unsafe(&file), expects_unsafe(&file))
        };
        assert_eq!(gives("// unsafe\nlet unsafe_path = \"unsafe\";"), (false, false));
        assert_eq!(gives("fn f() { unsafe { g() } }"), (true, false));
        assert_eq!(gives("#[expect(\n unsafe_code,\n reason = \"x\")]\nfn f() { unsafe { g() } }"), (true, true));
    }

    #[test]
    fn what_was_left_for_later_or_means_one_machine_is_found() {
        let words = |text: &str| unwanted_words(&rust("a.rs", text)).len();
        assert_eq!(words(concat!("fn f() { to", "do!() }")), 1);
        assert_eq!(words("// todo!\n"), 0);
        assert_eq!(words(concat!("let x = \"/wo", "rk/a\";")), 1);
        assert_eq!(words(concat!("let x = \"./wo", "rk/a and x/wo", "rk/b\";")), 0);
    }

    #[test]
    fn versions_come_from_the_workspace() {
        let text = "[package]\nname = \"a\"\n[dependencies]\nserde.workspace = true\nfs2 = \"0.4\"\n";
        assert_eq!(own_versions(&rust("a/Cargo.toml", text)), ["5: fs2 = \"0.4\""]);
    }
}
