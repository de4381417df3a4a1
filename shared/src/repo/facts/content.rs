//! What changed inside a file: lines as `git diff` counts them, binary content, long lines, secrets.

use git2::{DiffOptions, Odb, Patch};

use crate::domain::change::{Entry, FileMode};
use crate::domain::secret;
use crate::repo::raw;

use super::FactsError;
use super::walk::{Change, Side};

/// Content without a line feed above this length is taken for binary.
const MAX_LINELESS_BYTES: usize = 1024 * 1024;

/// Fills in what the content of a changed path says. Links and submodules have no lines, and neither has an exact move.
pub(super) fn measure(odb: &Odb<'_>, change: &Change, moved: bool, entry: &mut Entry) -> Result<(), FactsError> {
    let regular = |side: Option<Side>| side.filter(|side| side.entry.mode.is_regular());
    let (old, new) = (regular(change.old), regular(change.new));
    if let Some(link) = change.new.filter(|side| side.entry.mode == FileMode::SYMLINK) {
        entry.bytes = raw::blob_size(odb, link.entry.id)?;
    }
    let new_blob = new.map(|side| raw::read_blob(odb, side.entry.id)).transpose()?;
    let new_data = new_blob.as_ref().map(git2::OdbObject::data);
    if let Some(data) = new_data {
        entry.bytes = data.len() as u64;
        entry.new_binary = is_binary(data);
    }
    let same = old.zip(new).is_some_and(|(old, new)| old.entry.id == new.entry.id);
    if moved || same {
        entry.binary = entry.new_binary && !same;
        entry.new_binary = entry.binary;
        return Ok(());
    }
    let old_blob = old.map(|side| raw::read_blob(odb, side.entry.id)).transpose()?;
    let old_data = old_blob.as_ref().map(git2::OdbObject::data);
    let old_binary = old_data.is_some_and(is_binary);
    // Deleting a binary file is judged by its path alone.
    entry.binary = new.is_some() && (entry.new_binary || old_binary);
    match (old_data, new_data) {
        (Some(old), Some(new)) if !entry.binary => compare(old, new, entry),
        (Some(_), Some(new)) => {
            // git shows no lines here, but whatever is new may still hold a secret.
            entry.secrets = secret::scan(new, 1);
            Ok(())
        }
        (None, Some(new)) => {
            entry.added = if entry.new_binary { 0 } else { count_lines(new) };
            entry.longest_line = if entry.new_binary { 0 } else { longest_line(new) };
            entry.secrets = secret::scan(new, 1);
            Ok(())
        }
        (Some(old), None) => {
            entry.removed = if old_binary { 0 } else { count_lines(old) };
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn is_binary(data: &[u8]) -> bool {
    data.contains(&0) || (data.len() > MAX_LINELESS_BYTES && !data.contains(&b'\n'))
}

fn count_lines(data: &[u8]) -> u64 {
    let ends = data.iter().filter(|byte| **byte == b'\n').count() as u64;
    ends + u64::from(data.last().is_some_and(|byte| *byte != b'\n'))
}

fn longest_line(data: &[u8]) -> u64 {
    data.split(|byte| *byte == b'\n').map(chars).max().unwrap_or(0)
}

/// Characters of a line; every byte that is no UTF-8 counts as one.
fn chars(line: &[u8]) -> u64 {
    line.utf8_chunks().map(|chunk| (chunk.valid().chars().count() + chunk.invalid().len()) as u64).sum()
}

/// Counts the lines of a difference and looks at those that are added.
fn compare(old: &[u8], new: &[u8], entry: &mut Entry) -> Result<(), FactsError> {
    let path = entry.path.shown().to_owned();
    let failed = |source| FactsError::Lines { path: path.clone(), source };
    let mut options = DiffOptions::new();
    options.context_lines(0).interhunk_lines(0).force_text(true);
    let patch = Patch::from_buffers(old, None, new, None, Some(&mut options)).map_err(failed)?;
    let (_, added, removed) = patch.line_stats().map_err(failed)?;
    entry.added = added as u64;
    entry.removed = removed as u64;
    for hunk in 0..patch.num_hunks() {
        let mut text = Vec::new();
        let mut first_line = None;
        for index in 0..patch.num_lines_in_hunk(hunk).map_err(failed)? {
            let line = patch.line_in_hunk(hunk, index).map_err(failed)?;
            if line.origin() == '+' {
                first_line = first_line.or_else(|| line.new_lineno());
                text.extend_from_slice(line.content());
            }
        }
        if !text.is_empty() {
            entry.longest_line = entry.longest_line.max(longest_line(&text));
            entry.secrets.extend(secret::scan(&text, first_line.unwrap_or(1)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_like_git() {
        for (data, lines) in [(&b""[..], 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)] {
            assert_eq!(count_lines(data), lines);
        }
        assert_eq!(longest_line("äöü\nab".as_bytes()), 3);
        assert_eq!(longest_line(b"\xff\xfe"), 2);
    }

    #[test]
    fn a_long_text_without_a_line_is_binary() {
        assert!(!is_binary(&vec![b'x'; MAX_LINELESS_BYTES]));
        assert!(is_binary(&vec![b'x'; MAX_LINELESS_BYTES + 1]));
        assert!(is_binary(b"late\0"));
    }
}
