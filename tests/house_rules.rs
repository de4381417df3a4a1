//! The rules of the house that no compiler checks, each a pure function over the text of a file with small tests of
//! its own beside it: headers, lengths, names, forgotten files, who may import whom, where unsafe code stands.

mod imports;
mod layout;
pub(crate) mod source;

use self::source::{Source, repository};

/// Files above the length limit, each with the reason why it is not split.
const LONG_FILES: &[(&str, &str)] = &[];

/// Files with unsafe code, at most one a crate.
const UNSAFE_FILES: &[&str] = &["shared/src/repo/open.rs", "worker/src/sys.rs"];

fn rust() -> Vec<Source> {
    let mut files = repository().expect("the tests run in a clone that can be read");
    files.retain(Source::is_rust);
    files
}

/// Fails with one line a finding.
#[track_caller]
fn none(rule: &str, found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// Every finding of a check, with the file it is in.
fn each(files: &[Source], check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let in_file =
        |file: &Source| check(file).into_iter().map(|found| format!("{}:{found}", file.path)).collect::<Vec<_>>();
    files.iter().flat_map(in_file).collect()
}

#[test]
fn the_whole_tree_is_seen() {
    let files = rust();
    for path in ["cli/src/main.rs", "shared/src/lib.rs", "tests/main.rs", "worker/src/lib.rs", "shared/build.rs"] {
        assert!(files.iter().any(|file| file.path == path), "{path}");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    none("a file opens with `//! `", rust().iter().filter(|f| layout::headless(f)).map(|f| f.path.clone()));
}

/// Verbs of the store whose rows the audit log pins, and that must not be called past it.
const LOGGED: &[&str] = &[
    ".update_run(",
    ".update_phase(",
    ".update_attempt(",
    ".update_lease(",
    ".update_request(",
    ".update_apply(",
    ".insert_notice(",
    ".mark_sent(",
    ".finish_command(",
    ".put_project(",
    ".bump(",
];

#[test]
fn rows_are_written_where_they_are_logged() {
    let mut files = rust();
    let ours = ["supervisor/src/store", "supervisor/src/director/moves"];
    files.retain(|f| f.path.starts_with("supervisor/src/") && !ours.iter().any(|ours| f.path.starts_with(ours)));
    assert!(files.len() > 30);
    let past =
        |file: &Source| LOGGED.iter().filter(|verb| file.text.contains(**verb)).map(ToString::to_string).collect();
    none("a write goes through `director::moves`", each(&files, past));
}

#[test]
fn files_are_short() {
    let files = rust();
    let excused = |file: &&Source| !LONG_FILES.iter().any(|(path, _)| file.path == *path);
    let long = files.iter().filter(excused).filter(|f| layout::surplus_lines(f) > 0);
    let told = long.map(|f| format!("{} is {} lines over {}", f.path, layout::surplus_lines(f), layout::MOST_LINES));
    none("a file stays under its limit", told);
    let stale =
        LONG_FILES.iter().filter(|(path, _)| !files.iter().any(|f| f.path == *path && layout::surplus_lines(f) > 0));
    none("an exception is needed", stale.map(|(path, _)| (*path).to_owned()));
}

#[test]
fn names_say_something() {
    let files = rust();
    let bad = files.iter().filter_map(|f| layout::bad_name(&f.path).map(|why| format!("{}: {why}", f.path)));
    none("a module has a name", bad);
}

#[test]
fn every_file_is_compiled() {
    none("a `mod` names every file", layout::orphans(&rust()));
}

#[test]
fn rooms_keep_to_themselves() {
    none("who may import whom", each(&rust(), imports::misplaced));
}

#[test]
fn imports_stand_in_three_blocks() {
    none("std, other crates, ours", each(&rust(), imports::mixed_blocks));
}

#[test]
fn unsafe_code_stands_where_it_is_listed() {
    let files = rust();
    let with: Vec<&Source> = files.iter().filter(|file| layout::has_unsafe(file)).collect();
    let paths: Vec<&str> = with.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, UNSAFE_FILES);
    none("unsafe code gives its reason", with.iter().filter(|f| !layout::expects_unsafe(f)).map(|f| f.path.clone()));
}

#[test]
fn nothing_is_left_for_later_or_tied_to_one_machine() {
    let files = repository().expect("the tests run in a clone that can be read");
    none("unwanted words", each(&files, layout::unwanted_words));
}

#[test]
fn versions_stand_in_one_place() {
    let files = repository().expect("the tests run in a clone that can be read");
    none("a member's dependency says `workspace = true`", each(&files, layout::own_versions));
}
