//! The files of the tree by name: everything that is tracked or new, present, and not ignored. What a link can mean
//! is looked up here and not on the disk, so that every clone gives the same answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

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
            Ok(name) => Self { name: name.to_owned(), raw: None, regular },
            Err(_) => Self { name: escape(path), raw: Some(path.to_owned()), regular },
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

/// Every file, in the order of names.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    entries: Vec<Entry>,
    submodules: Vec<String>,
    /// By the last component in lower case; made when the first broken link asks for it.
    by_base: OnceLock<HashMap<String, Vec<usize>>>,
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
        this.fill(files.into_iter());
        this
    }

    /// Files by their bytes and whether they are regular, and folders that are there for somebody else's files.
    pub(crate) fn of_files(files: &[(Vec<u8>, bool)], submodules: &[Vec<u8>]) -> Self {
        let submodules = submodules.iter().map(|path| escape(path)).collect();
        let mut this = Self { submodules, ..Self::default() };
        this.fill(files.iter().map(|(path, regular)| (&path[..], *regular)));
        this
    }

    fn fill<'a>(&mut self, files: impl Iterator<Item = (&'a [u8], bool)>) {
        self.entries = files.map(|(path, regular)| Entry::new(path, regular)).collect();
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Every file, in the order of names.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The file of that name.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name));
        at.ok().map(|at| &self.entries[at])
    }

    /// Whether a file of that name is there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Whether some file is below a folder of that name.
    fn has_folder(&self, name: &str) -> bool {
        let prefix = format!("{name}/");
        let at = self.entries.partition_point(|entry| entry.name < prefix);
        self.entries.get(at).is_some_and(|entry| entry.name.starts_with(&prefix))
    }

    /// What a link to this path reaches, if anything. Sites of documents are allowed their habits: `guide` for
    /// `guide.md` or `guide/index.md`, and `guide.html` for what becomes it.
    pub(crate) fn find(&self, path: &str) -> Option<Found<'_>> {
        if let Some(entry) = self.entry(path) {
            return Some(Found::File(&entry.name));
        }
        if path.is_empty() || self.has_folder(path) {
            return Some(Found::Other);
        }
        let inside =
            |module: &String| path.strip_prefix(module.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        if self.submodules.iter().any(inside) {
            return Some(Found::Other);
        }
        let stem = path.strip_suffix(".html").unwrap_or(path);
        ["", "/index", "/README"]
            .iter()
            .flat_map(|middle| ["md", "mdx", "rst"].map(|end| format!("{stem}{middle}.{end}")))
            .find_map(|name| self.entry(&name))
            .map(|entry| Found::File(&entry.name))
    }

    /// The one file a broken link can mean: the only one of that name anywhere, or the only one if case is ignored.
    pub(crate) fn only_namesake(&self, from: &str, path: &str) -> Option<&str> {
        let base = names::base_name(path);
        let by_base = self.by_base.get_or_init(|| {
            let mut by_base: HashMap<String, Vec<usize>> = HashMap::new();
            for (at, entry) in self.entries.iter().enumerate() {
                let base = names::base_name(&entry.name).to_lowercase();
                by_base.entry(base).or_default().push(at);
            }
            by_base
        });
        let all = by_base.get(&base.to_lowercase())?;
        let names = || {
            let names = all.iter().map(|at| &self.entries[*at]).filter(|e| e.raw.is_none() && e.regular);
            names.map(|e| e.name.as_str()).filter(|n| *n != from && !names::is_specimen(n))
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
        let change = |p: &&str| Change { path: p.as_bytes().to_owned(), kind: ChangeKind::Untracked, regular: true };
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
        let all = listing(&["a/x.md", "b/y.md", "c/y.md", "d/Case.md", "vendor/z.md", "tests/fixtures/x.md"]);
        assert_eq!(all.only_namesake("m.md", "old/x.md"), Some("a/x.md"));
        assert_eq!(all.only_namesake("m.md", "old/y.md"), None);
        assert_eq!(all.only_namesake("m.md", "case.md"), Some("d/Case.md"));
        assert_eq!(all.only_namesake("m.md", "z.md"), None);
        assert_eq!(all.only_namesake("a/x.md", "q/x.md"), None, "the file itself");
    }

    #[test]
    fn odd_names_are_shown_and_kept() {
        let entry = Entry::new(b"caf\xe9.md", true);
        assert_eq!(entry.name, "caf\\xe9.md");
        assert_eq!(entry.path(), b"caf\xe9.md");
    }
}
