//! Hunks: their counts must equal their bodies, and their places must follow from one another.

use crate::repo::import::ImportError;

use super::Lines;

/// What a line of a hunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::repo::import) enum LineKind {
    Context,
    Added,
    Removed,
}

/// One line of a hunk, without its sign and its line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::repo::import) struct HunkLine<'a> {
    pub(in crate::repo::import) kind: LineKind,
    pub(in crate::repo::import) text: &'a [u8],
    /// Whether the file has a line feed after it.
    pub(in crate::repo::import) ends: bool,
}

/// One hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::repo::import) struct Hunk<'a> {
    /// The line of the old file it starts at, counted from 0.
    pub(in crate::repo::import) old_at: usize,
    pub(in crate::repo::import) lines: Vec<HunkLine<'a>>,
    old_range: Range,
    new_range: Range,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: usize,
    count: usize,
}

impl Range {
    /// The first line, counted from 0. An empty range names the line before it.
    const fn at(self) -> Option<usize> {
        if self.count == 0 { Some(self.start) } else { self.start.checked_sub(1) }
    }
}

const NO_LINE_FEED: &[u8] = b"\\ No newline at end of file";

impl Hunk<'_> {
    /// Whether it is the content of a new file.
    pub(super) const fn creates(&self) -> bool {
        self.old_range.count == 0 && self.old_range.start == 0 && self.new_range.count > 0
    }

    /// Whether it is the content of a deleted file.
    pub(super) const fn deletes(&self) -> bool {
        self.new_range.count == 0 && self.new_range.start == 0 && self.old_range.count > 0
    }
}

/// Reads all hunks of a file; at least one.
pub(super) fn parse_all<'a>(lines: &mut Lines<'a>) -> Result<Vec<Hunk<'a>>, ImportError> {
    let mut hunks: Vec<Hunk<'a>> = Vec::new();
    // What was added and removed so far, and where the last hunk ended in the old file.
    let (mut added, mut removed, mut end) = (0_usize, 0_usize, 0_usize);
    while let Some(ranges) = lines.peek_after("@@ -")? {
        let (old_range, new_range) =
            parse_ranges(ranges).ok_or_else(|| lines.malformed("a hunk header that cannot be read"))?;
        let places = old_range
            .at()
            .zip(new_range.at())
            .filter(|(old_at, new_at)| *old_at >= end && old_at.checked_add(added) == new_at.checked_add(removed));
        let Some((old_at, _)) = places else {
            return Err(lines.malformed("a hunk whose place does not follow from those before it"));
        };
        lines.next()?;
        let body = parse_body(lines, old_range.count, new_range.count)?;
        end = old_at.saturating_add(old_range.count);
        added = added.saturating_add(new_range.count);
        removed = removed.saturating_add(old_range.count);
        hunks.push(Hunk { old_at, lines: body, old_range, new_range });
    }
    if hunks.is_empty() { Err(lines.malformed("expected a hunk")) } else { Ok(hunks) }
}

/// `1,2 +3,4 @@ section`
fn parse_ranges(text: &[u8]) -> Option<(Range, Range)> {
    let at = text.windows(3).position(|window| window == b" @@")?;
    let section = &text[at + 3..];
    if !(section.is_empty() || section.starts_with(b" ")) {
        return None;
    }
    let (old, new) = std::str::from_utf8(&text[..at]).ok()?.split_once(" +")?;
    Some((range(old)?, range(new)?))
}

fn range(text: &str) -> Option<Range> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    match text.split_once(',') {
        Some((start, count)) => Some(Range { start: number(start)?, count: number(count)? }),
        None => Some(Range { start: number(text)?, count: 1 }),
    }
}

fn parse_body<'a>(lines: &mut Lines<'a>, mut old: usize, mut new: usize) -> Result<Vec<HunkLine<'a>>, ImportError> {
    let mut body: Vec<HunkLine<'a>> = Vec::new();
    while old > 0 || new > 0 {
        let line = lines.peek()?.ok_or_else(|| lines.malformed("the patch ends within a hunk"))?;
        let (kind, text) = match line.split_first() {
            Some((b' ', text)) => (LineKind::Context, text),
            Some((b'+', text)) => (LineKind::Added, text),
            Some((b'-', text)) => (LineKind::Removed, text),
            Some(_) | None => {
                return Err(lines.malformed("a line that does not start with a blank, + or -"));
            }
        };
        let (from_old, from_new) = match kind {
            LineKind::Context => (1, 1),
            LineKind::Added => (0, 1),
            LineKind::Removed => (1, 0),
        };
        let counts = old.checked_sub(from_old).zip(new.checked_sub(from_new));
        (old, new) = counts.ok_or_else(|| lines.malformed("the counts of the hunk differ from its lines"))?;
        lines.next()?;
        let ends = lines.take_after("\\")?.map(|rest| [b"\\", rest].concat());
        if ends.as_ref().is_some_and(|marker| marker != NO_LINE_FEED) {
            return Err(lines.malformed("a mark that is not `\\ No newline at end of file`"));
        }
        body.push(HunkLine { kind, text, ends: ends.is_none() });
    }
    if body.iter().all(|line| line.kind == LineKind::Context) {
        return Err(lines.malformed("a hunk that changes nothing"));
    }
    Ok(body)
}
