//! Whether a repository is whole: references, the trees of HEAD and the index resolve; with `fsck`, every object
//! that is stored can be read, has the name it should have, and names only objects that are there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use git2::{ErrorCode, ObjectType, Odb};

use super::{Checkout, StatusError, Tracked, TrackedKind, WorkTree};
use crate::domain::ids::Oid;
use crate::repo::open::to_git;

/// As many problems as are worth naming; a broken repository has thousands.
const MOST: usize = 50;

impl WorkTree {
    /// What does not resolve, one short sentence each, in a stable order; at most 50.
    ///
    /// # Errors
    /// Where the object database itself cannot be opened.
    pub fn problems(&self) -> Result<Vec<String>, StatusError> {
        match self.tracked() {
            Ok(tracked) => self.problems_with(&tracked, Vec::new()),
            Err(StatusError::Unreadable { source, .. }) => {
                self.problems_with(&[], vec![format!("the index cannot be read: {}", source.message())])
            }
            Err(other) => Err(other),
        }
    }

    /// The same, where the entries of the index are known already.
    ///
    /// # Errors
    /// Where the object database itself cannot be opened.
    pub fn problems_among(&self, tracked: &[Tracked]) -> Result<Vec<String>, StatusError> {
        self.problems_with(tracked, Vec::new())
    }

    fn problems_with(&self, tracked: &[Tracked], mut found: Vec<String>) -> Result<Vec<String>, StatusError> {
        let odb = self.repo.odb().map_err(StatusError::unreadable("the object database"))?;
        found.extend(self.broken_refs(&odb)?);
        malformed_refs(&self.repo.commondir().join("refs"), "refs", &mut found);
        found.extend(self.broken_head());
        let missing = |entry: &&Tracked| {
            entry.kind != TrackedKind::Submodule && entry.id != Oid::ZERO && !odb.exists(to_git(entry.id))
        };
        if !self.checkout().partial {
            let missing = tracked.iter().filter(missing).take(MOST);
            found.extend(
                missing.map(|e| format!("the index names {} for {:?}, which is missing", e.id, super::lossy(&e.path))),
            );
        }
        found.sort();
        found.truncate(MOST);
        Ok(found)
    }

    fn broken_refs(&self, odb: &Odb<'_>) -> Result<Vec<String>, StatusError> {
        let mut found = Vec::new();
        let what = "the references";
        let mut all = self.repo.references().map_err(StatusError::unreadable(what))?;
        let mut names = Vec::new();
        for name in all.names() {
            match name {
                Ok(name) => names.push(name.to_owned()),
                Err(e) => found.push(format!("a reference cannot be read: {}", e.message())),
            }
        }
        for name in names {
            match self.repo.find_reference(&name) {
                Ok(reference) => {
                    if let Some(id) = reference.target().filter(|id| !odb.exists(*id)) {
                        found.push(format!("{name} points to {id}, which is missing"));
                    }
                }
                Err(e) if e.code() == ErrorCode::NotFound => {}
                Err(e) => found.push(format!("{name} cannot be read: {}", e.message())),
            }
        }
        Ok(found)
    }

    fn broken_head(&self) -> Vec<String> {
        let tree = match self.repo.head().and_then(|head| head.peel_to_tree()) {
            Ok(tree) => tree,
            Err(e) => return vec![format!("HEAD does not resolve to a tree: {}", e.message())],
        };
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut open = vec![tree.id()];
        while let Some(id) = open.pop() {
            match self.repo.find_tree(id) {
                Ok(tree) => {
                    let below = tree.iter().filter(|e| e.kind() == Some(ObjectType::Tree));
                    open.extend(below.map(|e| e.id()).filter(|id| seen.insert(*id)));
                }
                Err(e) => found.push(format!("tree {id} of HEAD cannot be read: {}", e.message())),
            }
        }
        found
    }

    /// Reads every object that is stored, and follows every reference and the index to its last object, as
    /// `git fsck --full` does; at most 50 problems.
    ///
    /// # Errors
    /// Where the object database cannot be listed at all.
    pub fn fsck(&self) -> Result<Vec<String>, StatusError> {
        let odb = self.repo.odb().map_err(StatusError::unreadable("the object database"))?;
        let checkout = self.checkout();
        let mut found = Vec::new();
        let mut seen: HashSet<git2::Oid> = HashSet::new();
        // Roots that are missing are told by `problems`.
        let mut open = self.roots();
        open.retain(|(id, _)| odb.exists(*id));
        while let Some((id, from)) = open.pop() {
            if found.len() >= MOST {
                return Ok(found);
            }
            if !seen.insert(id) {
                continue;
            }
            // Reading an object hashes it and compares the name.
            match odb.read(id).and_then(|object| self.named_by(id, object.kind(), &checkout)) {
                Ok(named) => open.extend(named.into_iter().map(|other| (other, id.to_string()))),
                Err(e) if e.code() == ErrorCode::NotFound && checkout.partial => {}
                Err(e) => found.push(format!("{id}, named by {from}: {}", e.message())),
            }
        }
        let mut rest = Vec::new();
        odb.foreach(|id| {
            if !seen.contains(id) {
                rest.push(*id);
            }
            true
        })
        .map_err(StatusError::unreadable("the list of objects"))?;
        rest.sort_unstable();
        let broken = rest.into_iter().filter_map(|id| odb.read(id).err().map(|e| (id, e)));
        found.extend(broken.take(MOST).map(|(id, e)| format!("{id}: {}", e.message())));
        found.sort();
        found.truncate(MOST);
        Ok(found)
    }

    /// Where reachability starts: HEAD, every reference that resolves, and the index.
    fn roots(&self) -> Vec<(git2::Oid, String)> {
        let mut roots = Vec::new();
        if let Some(id) = self.repo.head().ok().and_then(|head| head.target()) {
            roots.push((id, "HEAD".to_owned()));
        }
        for reference in self.repo.references().into_iter().flatten().flatten() {
            let name = super::lossy(reference.name_bytes());
            roots.extend(reference.target().map(|id| (id, name)));
        }
        if let Ok(index) = self.repo.index() {
            let stored = index.iter().filter(|e| e.mode & 0o170_000 != 0o160_000);
            roots.extend(stored.map(|e| (e.id, "the index".to_owned())));
        }
        roots
    }

    /// The objects an object names and that have to be there.
    fn named_by(&self, id: git2::Oid, kind: ObjectType, checkout: &Checkout) -> Result<Vec<git2::Oid>, git2::Error> {
        Ok(match kind {
            ObjectType::Commit => {
                let commit = self.repo.find_commit(id)?;
                let parents = commit.parent_ids();
                let known = |p: &git2::Oid| !checkout.shallow || self.repo.find_commit(*p).is_ok();
                parents.filter(known).chain([commit.tree_id()]).collect()
            }
            ObjectType::Tree => {
                let tree = self.repo.find_tree(id)?;
                let stored = tree.iter().filter(|e| e.kind() != Some(ObjectType::Commit));
                stored.map(|e| e.id()).collect()
            }
            ObjectType::Tag => vec![self.repo.find_tag(id)?.target_id()],
            ObjectType::Blob | ObjectType::Any => Vec::new(),
        })
    }
}

/// Files under `refs/` that hold no reference: libgit2 passes over them in silence, and an empty one is what a crash
/// leaves behind.
fn malformed_refs(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        found.push(format!("{prefix} cannot be read"));
        return;
    };
    for entry in entries.flatten() {
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => malformed_refs(&entry.path(), &name, found),
            Ok(kind) if kind.is_file() && !name.ends_with(".lock") => {
                let mut text = Vec::new();
                let read = File::open(entry.path()).and_then(|f| f.take(4096).read_to_end(&mut text));
                let text = text.trim_ascii();
                let id = text.len() == 40 && text.iter().all(u8::is_ascii_hexdigit);
                if read.is_err() || !(id || text.starts_with(b"ref: ")) {
                    found.push(format!("{name} is not a reference"));
                }
            }
            Ok(_) | Err(_) => {}
        }
    }
}
