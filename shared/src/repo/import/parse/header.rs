//! The lines between `diff --git` and the first hunk. Each may stand once, and together they must make sense.

use crate::domain::change::FileMode;
use crate::repo::import::{ImportError, name};

use super::{Action, Hunk, Lines};

/// The headers of one file.
pub(super) struct Header {
    pub(super) action: Action,
    similarity: Option<u8>,
    index: Option<Index>,
}

/// An `index` line.
struct Index {
    old_is_zero: bool,
    new_is_zero: bool,
    mode: Option<FileMode>,
}

/// The header lines as written.
#[derive(Default)]
struct Raw {
    old_mode: Option<FileMode>,
    new_mode: Option<FileMode>,
    created: Option<FileMode>,
    deleted: Option<FileMode>,
    rename_from: Option<Vec<u8>>,
    rename_to: Option<Vec<u8>>,
    copy_from: Option<Vec<u8>>,
    copy_to: Option<Vec<u8>>,
    similarity: Option<u8>,
    dissimilarity: Option<u8>,
    index: Option<Index>,
}

pub(super) fn parse(lines: &mut Lines<'_>) -> Result<Header, ImportError> {
    let Some(names) = lines.take_after("diff --git ")? else {
        return Err(lines.malformed("expected `diff --git a/... b/...`"));
    };
    let mut raw = Raw::default();
    while raw.read_line(lines)? {}
    let action = raw.action(names).ok_or_else(|| lines.malformed("the headers of this file contradict each other"))?;
    Ok(Header { action, similarity: raw.similarity, index: raw.index })
}

impl Raw {
    /// Reads one header line; false where there is none.
    fn read_line(&mut self, lines: &mut Lines<'_>) -> Result<bool, ImportError> {
        let Some(line) = lines.peek()? else {
            return Ok(false);
        };
        let after = |word: &str| line.strip_prefix(word.as_bytes());
        let once = if let Some(rest) = after("old mode ") {
            set(&mut self.old_mode, mode(rest))
        } else if let Some(rest) = after("new mode ") {
            set(&mut self.new_mode, mode(rest))
        } else if let Some(rest) = after("new file mode ") {
            set(&mut self.created, mode(rest))
        } else if let Some(rest) = after("deleted file mode ") {
            set(&mut self.deleted, mode(rest))
        } else if let Some(rest) = after("rename from ") {
            set(&mut self.rename_from, name::whole(rest))
        } else if let Some(rest) = after("rename to ") {
            set(&mut self.rename_to, name::whole(rest))
        } else if let Some(rest) = after("copy from ") {
            set(&mut self.copy_from, name::whole(rest))
        } else if let Some(rest) = after("copy to ") {
            set(&mut self.copy_to, name::whole(rest))
        } else if let Some(rest) = after("similarity index ") {
            set(&mut self.similarity, percent(rest))
        } else if let Some(rest) = after("dissimilarity index ") {
            set(&mut self.dissimilarity, percent(rest))
        } else if let Some(rest) = after("index ") {
            set(&mut self.index, index(rest))
        } else {
            return Ok(false);
        };
        if !once {
            return Err(lines.malformed("a header line that cannot be read or stands twice"));
        }
        lines.next()?;
        Ok(true)
    }

    /// Whether the `index` line and another header both state a mode.
    fn states_mode_twice(&self) -> bool {
        let others = [self.old_mode, self.created, self.deleted];
        self.index.as_ref().is_some_and(|index| index.mode.is_some()) && others.iter().any(Option::is_some)
    }

    /// What the headers say together; nothing where they contradict each other.
    fn action(&self, names: &[u8]) -> Option<Action> {
        let known = |from: &Option<Vec<u8>>, to: &Option<Vec<u8>>| match (from, to) {
            (Some(from), Some(to)) => Some(Some((from.clone(), to.clone()))),
            (None, None) => Some(None),
            (Some(_), None) | (None, Some(_)) => None,
        };
        let rename = known(&self.rename_from, &self.rename_to)?;
        let copy = known(&self.copy_from, &self.copy_to)?;
        let modes_agree = match (self.old_mode, self.new_mode) {
            (Some(old), Some(new)) => old != new && old.kind() == new.kind(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let moved = rename.is_some() || copy.is_some();
        let kinds = [self.created.is_some(), self.deleted.is_some(), rename.is_some(), copy.is_some()];
        if !modes_agree
            || self.states_mode_twice()
            || kinds.iter().filter(|kind| **kind).count() > 1
            || moved != self.similarity.is_some()
            || (moved && self.dissimilarity.is_some())
        {
            return None;
        }
        let index_mode = self.index.as_ref().and_then(|index| index.mode);
        let old_mode = self.old_mode.or(index_mode);
        let new_mode = self.new_mode.or(index_mode);
        if let Some((from, to)) = rename {
            name::pair(names, Some((&from, &to)))?;
            return (from != to).then_some(Action::Rename { from, to, old_mode, new_mode });
        }
        if let Some((from, to)) = copy {
            name::pair(names, Some((&from, &to)))?;
            return (from != to).then_some(Action::Copy { from, to, old_mode, new_mode });
        }
        let (path, _) = name::pair(names, None)?;
        match (self.created, self.deleted, self.old_mode) {
            (Some(mode), None, None) => Some(Action::Create { path, mode }),
            (None, Some(mode), None) => Some(Action::Delete { path, mode }),
            (None, None, _) => Some(Action::Modify { path, old_mode, new_mode }),
            (Some(_), _, _) | (_, Some(_), _) => None,
        }
    }
}

impl Header {
    /// Checks the headers against the presence of content.
    pub(super) fn check_against(&self, hunks: &[Hunk<'_>], lines: &Lines<'_>) -> Result<(), ImportError> {
        let sides = self.index.as_ref().map(|index| (index.old_is_zero, index.new_is_zero));
        let fits = match &self.action {
            Action::Create { .. } => {
                sides == Some((true, false)) && hunks.len() <= 1 && hunks.iter().all(Hunk::creates)
            }
            Action::Delete { .. } => {
                sides == Some((false, true)) && hunks.len() <= 1 && hunks.iter().all(Hunk::deletes)
            }
            Action::Modify { old_mode, .. } if hunks.is_empty() => sides.is_none() && old_mode.is_some(),
            Action::Modify { .. } => sides == Some((false, false)),
            Action::Rename { .. } | Action::Copy { .. } if hunks.is_empty() => {
                sides.is_none() && self.similarity == Some(100)
            }
            Action::Rename { .. } | Action::Copy { .. } => sides == Some((false, false)) && self.similarity < Some(100),
        };
        if fits { Ok(()) } else { Err(lines.malformed("the headers and the content of this file do not fit together")) }
    }
}

/// Reads `---` and `+++`; they must name what the headers name.
pub(super) fn parse_file_lines(lines: &mut Lines<'_>, action: &Action) -> Result<(), ImportError> {
    let (old, new) = match action {
        Action::Create { path, .. } => (None, Some(path)),
        Action::Delete { path, .. } => (Some(path), None),
        Action::Modify { path, .. } => (Some(path), Some(path)),
        Action::Rename { from, to, .. } | Action::Copy { from, to, .. } => (Some(from), Some(to)),
    };
    for (word, prefix, expected) in [("--- ", "a/", old), ("+++ ", "b/", new)] {
        let text = lines.peek_after(word)?.unwrap_or_default();
        let agrees = match expected {
            None => text == b"/dev/null",
            Some(path) => {
                let full = [prefix.as_bytes(), path].concat();
                name::of_file_line(text) == Some(full)
            }
        };
        if !agrees {
            return Err(lines.malformed("this line does not name the file of the header"));
        }
        lines.next()?;
    }
    Ok(())
}

/// Sets a header once; false for one that cannot be read or was there.
fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let free = slot.is_none() && value.is_some();
    if free {
        *slot = value;
    }
    free
}

fn mode(text: &[u8]) -> Option<FileMode> {
    let digits = std::str::from_utf8(text).ok()?;
    let all_octal = digits.len() == 6 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    all_octal.then(|| u32::from_str_radix(digits, 8).ok().map(FileMode)).flatten()
}

fn percent(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.strip_suffix(b"%")?).ok()?;
    let value: u8 = digits.parse().ok()?;
    (value <= 100 && !digits.starts_with('+')).then_some(value)
}

fn index(text: &[u8]) -> Option<Index> {
    let text = std::str::from_utf8(text).ok()?;
    let (ids, mode_text) = match text.split_once(' ') {
        Some((ids, mode_text)) => (ids, Some(mode_text)),
        None => (text, None),
    };
    let (old, new) = ids.split_once("..")?;
    let is_id = |id: &str| (4..=40).contains(&id.len()) && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if !is_id(old) || !is_id(new) {
        return None;
    }
    let mode = match mode_text {
        Some(text) => Some(mode(text.as_bytes())?),
        None => None,
    };
    let is_zero = |id: &str| id.bytes().all(|c| c == b'0');
    Some(Index { old_is_zero: is_zero(old), new_is_zero: is_zero(new), mode })
}
