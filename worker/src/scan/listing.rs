//! The files of the tree by name: everything that is tracked or new, present, and not ignored. What a link can mean
//! is looked up here and not on the disk, so that every clone gives the same answer.

use std::collections::{BTreeMap, HashMap, HashSet};

use autopack_shared::repo::status::{Change, ChangeKind, Tracked, TrackedKind};

use super::names;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its path; where that is not UTF-8, with `\xNN` for the bytes that are not.
    pub(crate) name: String,
    /// Its path as bytes, where `name` is not it.
    pub(crate) raw: Option<Vec<u8>>,
    /// Whether it is a regular file.
    pub(crate) regular: bool,
}

impl Entry {
    pub(crate) fn new(path: &[u8], regular: bool) -> Self {
        match std::str::from_utf8(path) {
            Ok(name) => Self {
                name: name.to_owned(),
                raw: None,
                regular,
            },
            Err(_) => Self {
                name: escape(path),
                raw: Some(path.to_owned()),
                regular,
            },
        }
    }

    /// The path as bytes.
    pub(crate) fn path(&self) -> &[u8] {
        self.raw.as_deref().unwrap_or(self.name.as_bytes())
    }
}

/// A path for people: bytes that are not UTF-8 become `\xNN`.
pub(crate) fn escape(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Every file, in path order.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    folders: HashSet<String>,
    submodules: Vec<String>,
    by_base: HashMap<String, Vec<usize>>,
}

/// What a path of the tree turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A file, by its real name: sites let authors leave the ending out.
    File(&'a str),
    /// A folder, or something inside a submodule.
    Other,
}

impl Listing {
    /// Joins what the index lists with what differs from it.
    pub(crate) fn new(tracked: &[Tracked], changes: &[Change]) -> Self {
        let mut files: BTreeMap<&[u8], bool> = BTreeMap::new();
        let mut this = Self::default();
        for entry in tracked {
            if entry.kind == TrackedKind::Submodule {
                this.submodules.push(escape(&entry.path));
            } else {
                files.insert(&entry.path, entry.kind == TrackedKind::File);
            }
        }
        for change in changes {
            match change.kind {
                ChangeKind::Deleted => {
                    files.remove(&change.path[..]);
                }
                ChangeKind::Untracked | ChangeKind::Modified | ChangeKind::Conflicted => {
                    if let Some(nested) = change.path.strip_suffix(b"/") {
                        this.submodules.push(escape(nested));
                    } else {
                        files.insert(&change.path, change.regular);
                    }
                }
            }
        }
        this.entries = files
            .into_iter()
            .map(|(path, regular)| Entry::new(path, regular))
            .collect();
        this.index();
        this
    }

    /// Files by their bytes and whether they are regular, and folders that are there for somebody else's files.
    pub(crate) fn of_files(mut files: Vec<(Vec<u8>, bool)>, submodules: &[Vec<u8>]) -> Self {
        files.sort();
        let mut this = Self {
            submodules: submodules.iter().map(|p| escape(p)).collect(),
            ..Self::default()
        };
        this.entries = files
            .iter()
            .map(|(path, regular)| Entry::new(path, *regular))
            .collect();
        this.index();
        this
    }

    fn index(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            let mut folder = names::folder(&entry.name);
            while !folder.is_empty() && !self.folders.contains(folder) {
                self.folders.insert(folder.to_owned());
                folder = names::folder(folder);
            }
            let base = names::base_name(&entry.name).to_lowercase();
            self.by_base.entry(base).or_default().push(at);
            self.by_name.insert(entry.name.clone(), at);
        }
    }

    /// Every file, in path order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The file of that name.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|at| &self.entries[*at])
    }

    /// Whether a file of that name is there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// What a link to this path reaches, if anything. Sites of documents are allowed their habits: `guide` for
    /// `guide.md` or `guide/index.md`, and `guide.html` for what becomes it.
    pub(crate) fn find(&self, path: &str) -> Option<Found<'_>> {
        if path.is_empty() || self.folders.contains(path) {
            return Some(Found::Other);
        }
        if let Some((name, _)) = self.by_name.get_key_value(path) {
            return Some(Found::File(name));
        }
        let inside = |module: &String| {
            path.strip_prefix(module.as_str())
                .is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        if self.submodules.iter().any(inside) {
            return Some(Found::Other);
        }
        let stem = path.strip_suffix(".html").unwrap_or(path);
        ["", "/index", "/README"]
            .iter()
            .flat_map(|middle| ["md", "mdx", "rst"].map(|end| format!("{stem}{middle}.{end}")))
            .find_map(|name| self.by_name.get_key_value(&name))
            .map(|(name, _)| Found::File(name))
    }

    /// The one file a broken link can mean: the only one of that name anywhere, or the only one if case is ignored.
    pub(crate) fn only_namesake(&self, from: &str, path: &str) -> Option<&str> {
        let base = names::base_name(path);
        let all = self.by_base.get(&base.to_lowercase())?;
        let names = || {
            let names = all
                .iter()
                .map(|at| &self.entries[*at])
                .filter(|e| e.raw.is_none() && e.regular);
            names
                .map(|e| e.name.as_str())
                .filter(|n| *n != from && !names::is_specimen(n))
        };
        let mut exact = names().filter(|n| names::base_name(n) == base);
        match (exact.next(), exact.next()) {
            (Some(only), None) => Some(only),
            (Some(_), Some(_)) => None,
            (None, _) => {
                let mut any = names();
                any.next().filter(|_| any.next().is_none())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let change = |p: &&str| Change {
            path: p.as_bytes().to_owned(),
            kind: ChangeKind::Untracked,
            regular: true,
        };
        Listing::new(&[], &paths.iter().map(change).collect::<Vec<_>>())
    }

    #[test]
    fn links_reach_files_folders_and_pages() {
        let all = listing(&["docs/a.md", "docs/guide/index.md", "sub/", "x/y.rst"]);
        assert_eq!(all.find("docs/a.md"), Some(Found::File("docs/a.md")));
        assert_eq!(all.find("docs/a"), Some(Found::File("docs/a.md")));
        assert_eq!(all.find("x/y.html"), Some(Found::File("x/y.rst")));
        assert_eq!(all.find("docs/guide"), Some(Found::Other));
        assert_eq!(all.find("sub/anything"), Some(Found::Other));
        assert_eq!(all.find("docs/A.md"), None);
        assert_eq!(all.find("doc"), None);
    }

    #[test]
    fn a_namesake_is_only_one_when_it_is_the_only_one() {
        let all = listing(&[
            "a/x.md",
            "b/y.md",
            "c/y.md",
            "d/Case.md",
            "vendor/z.md",
            "tests/fixtures/x.md",
        ]);
        assert_eq!(all.only_namesake("m.md", "old/x.md"), Some("a/x.md"));
        assert_eq!(all.only_namesake("m.md", "old/y.md"), None);
        assert_eq!(all.only_namesake("m.md", "case.md"), Some("d/Case.md"));
        assert_eq!(all.only_namesake("m.md", "z.md"), None);
        assert_eq!(
            all.only_namesake("a/x.md", "q/x.md"),
            None,
            "the file itself"
        );
    }

    #[test]
    fn odd_names_are_shown_and_kept() {
        let entry = Entry::new(b"caf\xe9.md", true);
        assert_eq!(entry.name, "caf\\xe9.md");
        assert_eq!(entry.path(), b"caf\xe9.md");
    }
}
