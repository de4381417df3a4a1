//! One pass over one file: everything that any detector wants to know of its bytes. Small files are read whole into
//! a buffer that is used again; larger ones stream through it, and what needs a whole text is not asked of them.

use std::io::{self, Read as _};

use memchr::{memchr, memmem};
use sha2::{Digest as _, Sha256};

use super::beneath::{Beneath, Files};
use super::charset::{self, Charset};
use super::links;
use super::names;
use crate::scan::mentions::Mentions;

/// A relative link, by the path it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The path in the tree.
    pub(super) target: String,
    /// Whether it was written as a folder.
    pub(super) folder: bool,
    /// The line it stands on, from 1.
    pub(super) line: usize,
}

/// What is known of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// How many.
    pub(super) size: u64,
    /// Their encoding.
    pub(super) charset: Charset,
    /// Their SHA-256; of documents only.
    pub(super) sha256: Option<[u8; 32]>,
    /// The line an unresolved conflict begins on.
    pub(super) conflict: Option<usize>,
    /// The relative links of a Markdown file.
    pub(super) links: Vec<Link>,
    /// Whether the file was too large for what needs a whole text.
    pub(super) streamed: bool,
    /// Which of the looked-for names it mentions.
    pub(super) mentions: Vec<usize>,
}

/// The buffer of one reading thread.
pub(super) struct Reader<'a> {
    files: Files<'a>,
    mentions: &'a Mentions,
    /// Files up to this size are read whole.
    whole: usize,
    buffer: Vec<u8>,
}

const CHUNK: usize = 64 * 1024;

impl<'a> Reader<'a> {
    pub(super) fn new(tree: &'a Beneath, mentions: &'a Mentions, whole: usize) -> Self {
        Self { files: tree.files(), mentions, whole, buffer: vec![0; CHUNK] }
    }

    /// Reads one file; `name` decides what is looked for, `path` is where it is.
    pub(super) fn content(&mut self, name: &str, path: &[u8]) -> io::Result<Content> {
        let (mut file, size) = self.files.open(path)?;
        let expected = usize::try_from(size).unwrap_or(usize::MAX);
        if expected > self.whole {
            return self.stream(name, &mut file);
        }
        // One byte more than the size: a read that comes back short has seen the end.
        if self.buffer.len() <= expected {
            self.buffer.resize(expected + 1, 0);
        }
        let mut length = 0;
        while length < self.buffer.len() {
            match file.read(&mut self.buffer[length..]) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if length == expected {
                break;
            }
        }
        Ok(whole(name, &self.buffer[..length], self.mentions))
    }

    fn stream(&mut self, name: &str, file: &mut std::fs::File) -> io::Result<Content> {
        let mut hash = names::is_document(name).then(Sha256::new);
        let mut utf8 = Utf8::default();
        let mut conflict = Conflict::default();
        let mut size = 0_u64;
        let mut utf16 = false;
        self.buffer.truncate(CHUNK);
        loop {
            let n = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let chunk = &self.buffer[..n];
            utf16 |= size == 0 && charset::utf16_mark(chunk).is_some();
            size += n as u64;
            utf8.feed(chunk);
            conflict.feed(chunk);
            if let Some(hash) = &mut hash {
                hash.update(chunk);
            }
        }
        let charset = match utf8.whole() && !utf16 {
            true => Charset::Utf8,
            false => Charset::Unclear("too large to convert"),
        };
        Ok(Content {
            size,
            charset,
            sha256: hash.map(|h| h.finalize().into()),
            conflict: conflict.found,
            links: Vec::new(),
            streamed: true,
            mentions: Vec::new(),
        })
    }
}

fn whole(name: &str, bytes: &[u8], mentions: &Mentions) -> Content {
    let text = std::str::from_utf8(bytes);
    let charset = match text {
        Ok(_) => Charset::Utf8,
        Err(_) if names::may_declare_encoding(name) && charset::declares_other(bytes) => Charset::Declared,
        Err(_) => match charset::decode(bytes) {
            Ok((_, from)) => Charset::Convertible(from),
            Err(why) => Charset::Unclear(why),
        },
    };
    let mut conflict = Conflict::default();
    if memmem::find(bytes, b"<<<<<<< ").is_some() {
        conflict.feed(bytes);
    }
    let links = match text {
        Ok(text) if names::is_markdown(name) => links_of(name, text),
        Ok(_) | Err(_) => Vec::new(),
    };
    Content {
        size: bytes.len() as u64,
        charset,
        sha256: names::is_document(name).then(|| Sha256::digest(bytes).into()),
        conflict: conflict.found,
        links,
        streamed: false,
        mentions: if names::is_document(name) { Vec::new() } else { mentions.of(bytes) },
    }
}

fn links_of(name: &str, text: &str) -> Vec<Link> {
    // Most documents have no links at all, and a search is a tenth of a parse.
    let marks = ["](", "]:", "<"];
    if !marks.iter().any(|mark| memmem::find(text.as_bytes(), mark.as_bytes()).is_some()) {
        return Vec::new();
    }
    let (mut line, mut counted) = (1, 0);
    let mut found = Vec::new();
    for destination in links::destinations(text) {
        let Some(meaning) = links::meaning(name, &destination.url) else {
            continue;
        };
        line += memchr::memchr_iter(b'\n', &text.as_bytes()[counted..destination.range.start]).count();
        counted = destination.range.start;
        found.push(Link { target: meaning.path, folder: meaning.folder, line });
    }
    found
}

/// UTF-8 checked piece by piece.
#[derive(Debug, Default)]
struct Utf8 {
    /// The beginning of a character that the last piece cut.
    carry: Vec<u8>,
    broken: bool,
}

impl Utf8 {
    fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !self.carry.is_empty() && !self.broken {
            let Some((first, tail)) = rest.split_first() else {
                return;
            };
            self.carry.push(*first);
            rest = tail;
            match std::str::from_utf8(&self.carry) {
                Ok(_) => self.carry.clear(),
                Err(e) => self.broken = e.error_len().is_some(),
            }
        }
        if let Err(e) = std::str::from_utf8(rest) {
            match e.error_len() {
                Some(_) => self.broken = true,
                None => self.carry = rest[e.valid_up_to()..].to_owned(),
            }
        }
    }

    fn whole(&self) -> bool {
        !self.broken && self.carry.is_empty()
    }
}

/// The three marks git leaves where two sides changed the same lines, each at the start of a line and in order.
#[derive(Debug, Default)]
struct Conflict {
    line: usize,
    /// The first bytes of the current line.
    head: Vec<u8>,
    marks: usize,
    began: usize,
    found: Option<usize>,
}

impl Conflict {
    const MARKS: [&'static [u8]; 3] = [b"<<<<<<< ", b"=======", b">>>>>>> "];

    fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while self.found.is_none() && !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let text = &rest[..end.unwrap_or(rest.len())];
            let room = 9 - self.head.len().min(9);
            self.head.extend(text.iter().take(room));
            match end {
                Some(end) => {
                    self.end_of_line();
                    rest = &rest[end + 1..];
                }
                None => {
                    // A closing mark may be the last line and have no end.
                    if self.marks == 2 && self.head.starts_with(Self::MARKS[2]) {
                        self.found = Some(self.began);
                    }
                    return;
                }
            }
        }
    }

    fn end_of_line(&mut self) {
        self.line += 1;
        let head = std::mem::take(&mut self.head);
        let bare = head.strip_suffix(b"\r").unwrap_or(&head);
        if head.starts_with(Self::MARKS[0]) {
            (self.marks, self.began) = (1, self.line);
        } else if self.marks == 1 && bare == Self::MARKS[1] {
            self.marks = 2;
        } else if self.marks == 2 && head.starts_with(Self::MARKS[2]) {
            self.found = Some(self.began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_judged_like_the_whole() {
        let good = "aé€😀z".repeat(50).into_bytes();
        let mut bad = good.clone();
        bad[100] = 0xff;
        let cut = &good[..good.len() - 2];
        for (bytes, want) in [(&good[..], true), (&bad[..], false), (cut, std::str::from_utf8(cut).is_ok())] {
            for size in 1..9 {
                let mut utf8 = Utf8::default();
                bytes.chunks(size).for_each(|c| utf8.feed(c));
                assert_eq!(utf8.whole(), want, "pieces of {size}");
            }
        }
    }

    #[test]
    fn conflicts_are_three_marks_in_order() {
        let text = b"a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n";
        for size in [1, 3, 8, 100] {
            let mut conflict = Conflict::default();
            text.chunks(size).for_each(|c| conflict.feed(c));
            assert_eq!(conflict.found, Some(2), "pieces of {size}");
        }
        for text in
            ["Title\n=======\n>>>>>>> x\n", "  <<<<<<< x\n=======\n>>>>>>> y\n", "<<<<<<< x\n========\n>>>>>>> y\n"]
        {
            let mut conflict = Conflict::default();
            conflict.feed(text.as_bytes());
            assert_eq!(conflict.found, None, "{text}");
        }
    }
}
