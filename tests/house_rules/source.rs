//! Source files as the house rules see them: the text, and the code in it with comments and literals blanked out, so
//! that a rule about code never trips over a sentence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Names under which nothing of ours is kept.
const SKIPPED: [&str; 4] = ["target", ".git", ".autonomous_runs", "node_modules"];

/// One text file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path from the root, with `/`.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
    /// The code in it: same lines, comments and literals blanked.
    pub(crate) code: String,
}

impl Source {
    /// A file of which the path and the text are known.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = if path.ends_with(".rs") { blank(&text) } else { String::new() };
        Self { path, text, code }
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether nothing of it reaches the product.
    pub(crate) fn is_test(&self) -> bool {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let folders = stem.split('/').any(|part| matches!(part, "tests" | "benches" | "examples"));
        folders || stem.ends_with("/fixture")
    }

    /// The code that reaches the product: without the tests at the foot.
    pub(crate) fn shipped(&self) -> &str {
        let foot = self.code.match_indices("#[cfg(test)]").find(|(at, found)| {
            let rest = self.code[at + found.len()..].trim_start();
            rest.starts_with("mod ") && rest.find('{') < rest.find(';')
        });
        foot.map_or(&self.code[..], |(at, _)| &self.code[..at])
    }

    /// The module of the file inside its crate: `shared/src/repo/raw.rs` is `repo::raw`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inside = self.path.split_once("/src/").map_or("", |(_, rest)| rest);
        let stem = inside.strip_suffix(".rs").unwrap_or(inside);
        stem.split('/').filter(|part| !matches!(*part, "" | "lib" | "main")).collect()
    }
}

/// The root of the repository this was compiled from.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Every text file of the repository in path order.
pub(crate) fn repository() -> io::Result<Vec<Source>> {
    let mut found = Vec::new();
    walk(&root(), "", &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // In a linked worktree `.git` is a file.
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), found)?;
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            found.push(Source::new(path, text));
        }
    }
    Ok(())
}

/// The line of a byte, counted from one.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Replaces comments and the insides of literals by spaces. Lines stay where they are.
pub(crate) fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, 1),
            'b' | 'c' | 'r' if !is_word(before) => literal(rest),
            '\'' => character(rest),
            _ => 0,
        };
        let (taken, keep) = if length == 0 { (first.len_utf8(), true) } else { (length, false) };
        let (piece, tail) = rest.split_at(taken);
        if keep {
            out.push_str(piece);
        } else {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        before = piece.chars().next_back().unwrap_or(' ');
        rest = tail;
    }
    out
}

/// Whether a character can be part of a name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else if let Some(c) = rest.chars().next() {
            at += c.len_utf8();
        } else {
            break;
        }
    }
    text.len()
}

/// The length of a string with escapes whose text starts after `open` bytes.
fn quoted(text: &str, open: usize) -> usize {
    let mut escaped = false;
    for (at, c) in text[open..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return open + at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a literal with a prefix (`b"`, `r#"`, `br"`, `c"`); 0 where there is none.
fn literal(text: &str) -> usize {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r')).unwrap_or(text.len());
    let raw = text[..prefix].contains('r');
    let hashes = text[prefix..].chars().take_while(|c| *c == '#').count();
    let after = &text[prefix + hashes..];
    if prefix > 2 || !after.starts_with('"') || (!raw && hashes > 0) {
        return 0;
    }
    if !raw {
        return quoted(text, prefix + 1);
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let open = prefix + hashes + 1;
    text[open..].find(&close).map_or(text.len(), |at| open + at + close.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inner = text.chars().skip(1);
    match (inner.next(), inner.next()) {
        (Some('\\'), Some(_)) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(0, |at| at + 4),
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let blanked = |text: &str| blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(blanked("a // git2\nb"), "a b");
        assert_eq!(blanked("a /* x /* y */ z */ b"), "a b");
        assert_eq!(blanked(r#"a("git2 \" x", b"y", 'z', '\'', '"') + b"#), "a( , , , , ) + b");
        assert_eq!(blanked("a r#\"x \" y\"# b"), "a b");
        assert_eq!(blanked("fn f<'a>(x: &'a str) -> r::b"), "fn f<'a>(x: &'a str) -> r::b");
        assert_eq!(blank("\"a\nb\"\nc").lines().count(), 3);
    }

    #[test]
    fn tests_at_the_foot_are_not_shipped() {
        let file = Source::new(
            "shared/src/a.rs",
            "#[cfg(test)]\nmod fixture;\nfn a() {}\n#[cfg(test)]\nmod tests { use git2; }\n",
        );
        assert!(file.shipped().contains("fn a()"));
        assert!(!file.shipped().contains("git2"));
    }

    #[test]
    fn a_file_knows_its_module() {
        assert_eq!(Source::new("shared/src/repo/raw.rs", "").module(), ["repo", "raw"]);
        assert!(Source::new("shared/src/lib.rs", "").module().is_empty());
    }
}
