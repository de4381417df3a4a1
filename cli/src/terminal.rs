//! What is safe and pleasant to show on a terminal: escaping of text from repositories and builders, tables that fit,
//! few colours.

use std::fmt::Write as _;

/// Escapes text of one line: every control character, also line ends and tabs, and every character that reorders
/// text is shown as its code.
pub(crate) fn line(text: &str) -> String {
    escape(text, |_| false)
}

/// Escapes text of many lines; line ends and tabs stay.
pub(crate) fn block(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// Escapes bytes that may be no UTF-8; line ends and tabs stay.
pub(crate) fn block_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&block(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if keep(c) || !is_hostile(c) {
            shown.push(c);
        } else if u32::from(c) < 0x100 {
            let _ = write!(shown, "\\x{:02x}", u32::from(c));
        } else {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
    }
    shown
}

/// C0 and C1 controls, DEL, line and paragraph separators, marks that reorder, join or hide text, and tags.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Cuts a line to `width` characters, with an ellipsis where something was cut.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// What a piece of text means; colour follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A heading.
    Strong,
    /// It went well.
    Good,
    /// It needs a person.
    Warn,
    /// It failed.
    Bad,
    /// Less important.
    Faint,
}

/// Colours text, or leaves it alone.
pub(crate) fn paint(color: bool, tone: Tone, text: &str) -> String {
    if !color {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Strong => "1",
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Faint => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The tone of a run's, phase's, request's or action's state word.
pub(crate) fn tone_of(state: &str) -> Tone {
    match state.to_ascii_uppercase().as_str() {
        "SUCCEEDED" | "APPLIED" | "APPROVED" | "CONSUMED" | "AUTO_APPROVED" | "NOTIFY_AND_PROCEED" | "COMPLETED"
        | "COMMITTED" => Tone::Good,
        "WAITING" | "APPROVAL_PENDING" | "PENDING" | "APPROVAL_REQUIRED" | "REQUIRES_APPROVAL" | "PAUSED" => Tone::Warn,
        "FAILED" | "BLOCKED" | "REJECTED" | "ROLLED_BACK" | "TIMED_OUT" | "CONFLICT" | "CANCELLED" => Tone::Bad,
        _ => Tone::Strong,
    }
}

/// A table whose last column takes what is left of the line. Cells are escaped here; state columns are coloured.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(head: impl Into<Vec<&'static str>>) -> Self {
        Self { head: head.into(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| line(&cell)).collect());
    }

    /// The table as text of at most `width` columns; the last column is cut, never another.
    pub(crate) fn render(&self, width: usize, color: bool) -> String {
        let count = |text: &str| text.chars().count();
        let last = self.head.len().saturating_sub(1);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| count(cell));
                cells.chain([count(self.head[column])]).max().unwrap_or(0)
            })
            .collect();
        let used: usize = widths.iter().take(last).map(|w| w + 2).sum();
        let room = width.saturating_sub(used).max(12);
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        for (index, row) in std::iter::once(&head).chain(&self.rows).enumerate() {
            let mut out = String::new();
            for (column, cell) in row.iter().enumerate() {
                let cell = if column == last { cut(cell, room) } else { cell.clone() };
                let pad = if column == last { 0 } else { widths[column].saturating_sub(count(&cell)) + 2 };
                let tone = match (index, self.head.get(column)) {
                    (0, _) => Some(Tone::Faint),
                    (_, Some(&"STATE" | &"STATUS" | &"VERDICT")) => Some(tone_of(&cell)),
                    _ => None,
                };
                out.push_str(&tone.map_or_else(|| cell.clone(), |tone| paint(color, tone, &cell)));
                out.extend(std::iter::repeat_n(' ', pad));
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_reaches_a_terminal() {
        assert_eq!(line("a\x1b[31mb\n\tc\x7f\u{9b}2J"), "a\\x1b[31mb\\x0a\\x09c\\x7f\\x9b2J");
        assert_eq!(line("user\u{202e}gpj.exe \u{2066}x\u{200b}"), "user\\u{202e}gpj.exe \\u{2066}x\\u{200b}");
        assert_eq!(line("schön 日本 ✓"), "schön 日本 ✓");
        assert_eq!(block("a\n\tb\r\x07"), "a\n\tb\\x0d\\x07");
        assert_eq!(block_bytes(b"ok\n\xff\x1b]0;x\x07"), "ok\n\\xff\\x1b]0;x\\x07");
    }

    #[test]
    fn every_control_character_is_escaped() {
        for code in 0..=0x9f_u32 {
            let c = char::from_u32(code).unwrap();
            assert_eq!(line(&c.to_string()).contains(c), !c.is_control(), "{code:#x}");
        }
    }

    #[test]
    fn a_table_cuts_its_last_column_only() {
        let mut table = Table::new(["RUN", "STATE", "GOAL"]);
        table.row(["tidy".to_owned(), "WAITING".to_owned(), "move the notes where they\nbelong".to_owned()]);
        table.row(["a-long-run-name".to_owned(), "OK".to_owned(), "x".to_owned()]);
        assert_eq!(
            table.render(40, false),
            "RUN              STATE    GOAL\n\
             tidy             WAITING  move the note…\n\
             a-long-run-name  OK       x\n"
        );
    }

    #[test]
    fn colour_is_asked_for_and_never_changes_the_text() {
        assert_eq!(paint(false, Tone::Bad, "x"), "x");
        assert_eq!(paint(true, Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
