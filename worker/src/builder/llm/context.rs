//! Which files a model is shown: what its phase delivers, reads, may change, and names in its goal, as far as the room
//! goes. No link is followed, and a file with a secret in it stays here.

use std::io;
use std::path::Path;

use autopack_shared::domain::path::{PathRoots, RepoPath};
use autopack_shared::domain::run_file::{PhaseSpec, ReadOnly};
use autopack_shared::domain::secret;

use crate::scan::beneath::Beneath;

/// Files of a tree that are looked at.
const MOST_SEEN: usize = 50_000;

/// Paths that are listed.
const MOST_LISTED: usize = 400;

/// Folders within each other that are entered.
const DEEPEST: usize = 64;

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Paths of files that are there.
    pub(super) listing: Vec<String>,
    /// Files with their text.
    pub(super) files: Vec<(String, String)>,
    /// What would have been shown, and why it is not.
    pub(super) left_out: Vec<String>,
}

/// Gathers what a phase is about, at most `room` bytes of it.
pub(super) fn gather(tree: &Path, phase: &PhaseSpec, room: usize) -> io::Result<Shown> {
    let mut paths = Vec::new();
    walk(tree, "", 0, &mut paths)?;
    paths.sort();
    let root = Beneath::open(tree)?;
    let mut wanted = Vec::new();
    let reads: Vec<String> = phase.scope.read_only_context.iter().map(|one: &ReadOnly| one.path().to_owned()).collect();
    for roots in [phase.deliverables.clone(), reads, phase.scope.paths.clone()] {
        let Ok(roots) = PathRoots::new(roots) else { continue };
        if !roots.is_empty() {
            pick(&paths, &mut wanted, |path| roots.find(&path.key().parts()).is_some());
        }
    }
    pick(&paths, &mut wanted, |path| names(&phase.goal, path.as_str()));
    let mut shown = Shown { listing: listing(&paths), ..Shown::default() };
    let mut left = room;
    for path in wanted {
        match read(&root, path, left) {
            Ok(text) => {
                left -= text.len();
                shown.files.push((path.clone(), text));
            }
            Err(why) if shown.left_out.len() < MOST_LISTED => shown.left_out.push(format!("{path}: {why}")),
            Err(_) => {}
        }
    }
    Ok(shown)
}

fn pick<'a>(paths: &'a [String], wanted: &mut Vec<&'a String>, fits: impl Fn(&RepoPath) -> bool) {
    for path in paths {
        if !wanted.contains(&path) && RepoPath::parse(path).is_ok_and(|parsed| fits(&parsed)) {
            wanted.push(path);
        }
    }
}

/// Whether a text names a path, as a word of its own.
fn names(text: &str, path: &str) -> bool {
    text.split(|c: char| c.is_whitespace() || "'\"`,;:()[]".contains(c)).any(|word| word.trim_end_matches('.') == path)
}

fn listing(paths: &[String]) -> Vec<String> {
    let mut listed: Vec<String> = paths.iter().take(MOST_LISTED).cloned().collect();
    if paths.len() > MOST_LISTED {
        listed.push(format!("and {} more", paths.len() - MOST_LISTED));
    }
    listed
}

fn read(root: &Beneath, path: &str, left: usize) -> Result<String, &'static str> {
    let bytes = root.read(path, left as u64).map_err(|error| {
        if error.kind() == io::ErrorKind::FileTooLarge { "there is no room for it" } else { "it cannot be read" }
    })?;
    let text = String::from_utf8(bytes).map_err(|_| "it is no text")?;
    if text.contains('\0') {
        return Err("it is no text");
    }
    if !secret::scan(text.as_bytes(), 1).is_empty() {
        return Err("it holds a secret");
    }
    Ok(text)
}

fn walk(tree: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(tree.join(prefix))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if found.len() >= MOST_SEEN || name.eq_ignore_ascii_case(".git") {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() && depth < DEEPEST {
            walk(tree, &path, depth + 1, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(text: &str) -> PhaseSpec {
        let builder = r#""builder":{"kind":"llm","model":"m"}"#;
        serde_json::from_str(&format!("{{\"id\":\"p\",{builder},{text}}}")).unwrap()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("src/a.rs", "fn a() {}\n"),
            ("src/big.rs", &"x".repeat(5000)),
            ("docs/b.md", "# B\n"),
            ("key.env", "AWS=AKIAQ3EGRIDTZ7VKS2WB\n"),
            ("bin", "\u{0}\u{1}"),
        ] {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("src/link.rs")).unwrap();
        dir
    }

    #[test]
    fn what_the_phase_is_about_is_shown_and_nothing_else() {
        let dir = tree();
        let goal = r#""goal":"Mend docs/b.md, key.env and bin.","scope":{"paths":["src/"]}"#;
        let shown = gather(dir.path(), &phase(goal), 1000).unwrap();
        let files: Vec<&str> = shown.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(files, ["src/a.rs", "docs/b.md"]);
        let left: Vec<&str> = shown.left_out.iter().map(String::as_str).collect();
        let why = ["src/big.rs: there is no room for it", "bin: it is no text", "key.env: it holds a secret"];
        assert_eq!(left, why);
        assert_eq!(shown.listing, ["bin", "docs/b.md", "key.env", "src/a.rs", "src/big.rs"], "a link is no file");
    }

    #[test]
    fn a_phase_without_a_scope_is_not_shown_everything() {
        let shown = gather(tree().path(), &phase(r#""goal":"make it faster""#), 1000).unwrap();
        assert!(shown.files.is_empty() && shown.listing.len() == 5);
    }
}
