//! Private keys as they are printed: their lines have no mark of their own, so all of them are followed from the first
//! one to the last.

use std::borrow::Cow;

/// Lines of one key, at most: what goes on for longer is no key.
const MOST_LINES: u32 = 400;

/// What stands in a key's place.
pub const MARK: &str = "[private key]";

/// The shortest run of key characters that is taken for one without a beginning.
const LEAST: usize = 40;

/// What a line is to the keys of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLine {
    /// None of theirs.
    Other,
    /// A key begins at this byte; all that follows on the line may be of it, its line ends escaped.
    Begins(usize),
    /// It is in the middle of one, or its end.
    Inside,
}

/// Follows the lines of one stream, in whatever pieces they come.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyLines {
    left: u32,
    /// Where the first line began: what stands before it on each line is a log's or a diff's.
    column: usize,
}

impl KeyLines {
    /// Before the first line.
    pub const OUTSIDE: Self = Self { left: 0, column: 0 };

    /// Whether the next line may be one of a key.
    #[must_use]
    pub const fn inside(self) -> bool {
        self.left > 0
    }

    /// What the next line is.
    pub fn next(&mut self, line: &[u8]) -> KeyLine {
        if self.left > 0 && (is_of_key(line) || line.get(self.column..).is_some_and(is_of_key)) {
            self.left = if find(line, b"-----END").is_some() { 0 } else { self.left - 1 };
            return KeyLine::Inside;
        }
        self.left = 0;
        let begin = find(line, b"-----BEGIN").filter(|at| find(&line[*at..], b"PRIVATE KEY").is_some());
        let Some(at) = begin else { return KeyLine::Other };
        self.left = if find(&line[at..], b"-----END").is_some() { 0 } else { MOST_LINES };
        self.column = at;
        KeyLine::Begins(at)
    }
}

fn find(line: &[u8], what: &[u8]) -> Option<usize> {
    line.windows(what.len()).position(|window| window == what)
}

const fn is_of_body(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'"' | b'\\' | b',')
}

/// Whether a line looks like one of a private key: no words, but for the headers that some have, and for what a diff or
/// a log puts before each line.
fn is_of_key(line: &[u8]) -> bool {
    let text = line.trim_ascii();
    let text = text.strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-")).unwrap_or(text);
    let plain = text.strip_prefix(b"+").unwrap_or(text);
    let heads = [b"Proc-Type:".as_slice(), b"DEK-Info:", b"Comment:", b"-----"];
    heads.iter().any(|head| plain.starts_with(head)) || text.iter().all(|byte| is_of_body(*byte)) || ends_long(text)
}

/// Whether the last word of a line is long and could be of a key.
fn ends_long(text: &[u8]) -> bool {
    let word = text.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    word.len() >= LEAST && (word.iter().all(|byte| is_of_body(*byte)) || find(word, b"-----END").is_some())
}

/// A text without the private keys in it: each is one mark. One that lost its beginning is found by its end.
#[must_use]
pub(super) fn without_keys(text: &str) -> Cow<'_, str> {
    if !text.contains("PRIVATE KEY") {
        return Cow::Borrowed(text);
    }
    let mut lines = KeyLines::default();
    let mut kept: Vec<Cow<'_, str>> = Vec::new();
    for line in text.split_inclusive('\n') {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        match lines.next(line.as_bytes()) {
            KeyLine::Inside => {}
            KeyLine::Begins(at) => kept.push(format!("{}{MARK}{end}", line.get(..at).unwrap_or_default()).into()),
            KeyLine::Other => match line.find("-----END").filter(|at| line[*at..].contains("PRIVATE KEY")) {
                Some(_) => {
                    drop_body(&mut kept);
                    kept.push(format!("{MARK}{end}").into());
                }
                None => kept.push(line.into()),
            },
        }
    }
    kept.concat().into()
}

/// Takes back the lines before the end of a key whose beginning was not seen.
fn drop_body(kept: &mut Vec<Cow<'_, str>>) {
    if kept.last().is_some_and(|last| is_of_key(last.as_bytes())) {
        kept.pop();
    }
    let whole = |line: &str| line.trim().len() >= LEAST && is_of_key(line.as_bytes());
    while kept.last().is_some_and(|line| whole(line)) {
        kept.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "MIIEpAIBAAKCAQEA7bq8x9MIIEpAIBAAKCAQEA7bq8x9MIIEpAIBAAKCAQEA7bq";

    fn key(prefix: &str) -> String {
        let name = ["PRIVATE", "KEY"].join(" ");
        format!(
            "{prefix}-----BEGIN RSA {name}-----\n{prefix}{BODY}\n{prefix}{BODY}\n{prefix}abc=\n{prefix}-----END RSA {name}-----\n"
        )
    }

    #[test]
    fn the_whole_block_goes() {
        for prefix in ["", "+", "-", "  ", "12:00:01 app: "] {
            let shown = without_keys(&format!("before\n{}after\n", key(prefix))).into_owned();
            assert_eq!(shown, format!("before\n{prefix}{MARK}\nafter\n"));
        }
        assert_eq!(without_keys(&format!("a\n{}b", key(""))), "a\n[private key]\nb");
    }

    #[test]
    fn half_a_key_goes_too() {
        let key = key("");
        let (first, second) = key.split_at(key.len() / 2);
        for half in [first, second] {
            let shown = without_keys(&format!("talk of it\n{half}\nafter")).into_owned();
            assert!(!shown.contains(&BODY[..20]), "{shown}");
        }
        let end = format!("done\n{BODY}\n-----END {}-----\n", ["PRIVATE", "KEY"].join(" "));
        assert_eq!(without_keys(&end), "done\n[private key]\n", "words stay");
    }

    #[test]
    fn who_only_talks_of_keys_is_heard() {
        let text = "a PRIVATE KEY is kept\nand nothing else\n";
        assert!(matches!(without_keys(text), Cow::Borrowed(_)) || without_keys(text) == text);
        assert_eq!(without_keys("none"), "none");
    }
}
