//! Moves a folder that holds one tree to another tree: only what differs is touched, and each file that differs is made
//! anew, never written over. The folder must hold exactly the first tree.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use git2::Odb;
use rustix::fs::{AtFlags, unlinkat};

use super::super::marks::{Marks, Written};
use super::super::tree::{self, Entry, TreeError};
use super::checkout::{self, join, make_dir, open_below};
use super::{MirrorError, io_error};
use crate::domain::ids::Oid;

/// One move.
pub(super) struct Advance<'a, 'repo> {
    odb: &'a Odb<'repo>,
    shown: &'a Path,
    marks: &'a mut Marks,
    written: Vec<Written>,
    /// Files, links and folders that may still be touched.
    left: usize,
    most: usize,
}

impl<'a, 'repo> Advance<'a, 'repo> {
    /// A move that touches at most `most` entries; `shown` is the folder, for errors.
    pub(super) fn new(odb: &'a Odb<'repo>, shown: &'a Path, marks: &'a mut Marks, most: usize) -> Self {
        Self { odb, shown, marks, written: Vec::new(), left: most, most }
    }

    /// Moves the folder; after an error it holds neither tree.
    pub(super) fn run(mut self, old: Oid, new: Oid, dir: BorrowedFd<'_>) -> Result<(), MirrorError> {
        self.folder(old, new, dir, b"", 0)?;
        self.marks.add(self.written);
        Ok(())
    }

    fn folder(
        &mut self,
        old: Oid,
        new: Oid,
        dir: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
    ) -> Result<(), MirrorError> {
        if old == new {
            return Ok(());
        }
        tree::deep(depth)?;
        let mut before = tree::by_name(self.odb, Some(old))?;
        let mut fresh = Vec::new();
        for entry in tree::read(self.odb, new)? {
            match before.remove(&entry.name) {
                Some(same) if same == entry => {}
                Some(was) if was.is_tree() && entry.is_tree() => {
                    let path = join(path, &entry.name);
                    let child = self.open(dir, &entry.name, &path)?;
                    self.folder(was.oid, entry.oid, child.as_fd(), &path, depth + 1)?;
                }
                Some(was) => {
                    before.insert(was.name.clone(), was);
                    fresh.push(entry);
                }
                None => fresh.push(entry),
            }
        }
        for gone in before.values() {
            self.remove(gone, dir, path, depth)?;
        }
        for entry in fresh {
            self.write(&entry, dir, path, depth)?;
        }
        Ok(())
    }

    fn remove(&mut self, gone: &Entry, dir: BorrowedFd<'_>, above: &[u8], depth: usize) -> Result<(), MirrorError> {
        self.touch()?;
        let path = join(above, &gone.name);
        if gone.is_tree() {
            tree::deep(depth)?;
            let child = self.open(dir, &gone.name, &path)?;
            for entry in tree::read(self.odb, gone.oid)? {
                self.remove(&entry, child.as_fd(), &path, depth + 1)?;
            }
        }
        let folder = gone.is_tree() || gone.is_gitlink();
        let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(dir, gone.name.as_slice(), flags).map_err(|error| io_error(&self.shown(&path))(error.into()))?;
        self.marks.forget(&path);
        Ok(())
    }

    fn write(&mut self, entry: &Entry, dir: BorrowedFd<'_>, above: &[u8], depth: usize) -> Result<(), MirrorError> {
        self.touch()?;
        let path = join(above, &entry.name);
        checkout::refuse_unsafe(entry, &path)?;
        let shown = self.shown(&path);
        if !entry.is_tree() && !entry.is_gitlink() {
            checkout::leaf(self.odb, entry, dir, &path, &shown, &mut self.written)?;
            return Ok(());
        }
        make_dir(dir, &entry.name).map_err(io_error(&shown))?;
        if entry.is_tree() {
            tree::deep(depth)?;
            let child = self.open(dir, &entry.name, &path)?;
            for entry in tree::read(self.odb, entry.oid)? {
                self.write(&entry, child.as_fd(), &path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn touch(&mut self) -> Result<(), MirrorError> {
        let too_complex = TreeError::TooComplex { limit: self.most, unit: "changed entries" };
        self.left = self.left.checked_sub(1).ok_or(too_complex)?;
        Ok(())
    }

    fn open(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<std::os::fd::OwnedFd, MirrorError> {
        open_below(dir, name).map_err(io_error(&self.shown(path)))
    }

    fn shown(&self, path: &[u8]) -> std::path::PathBuf {
        self.shown.join(String::from_utf8_lossy(path).as_ref())
    }
}
