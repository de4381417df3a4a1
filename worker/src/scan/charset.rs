//! Which encoding a text is in, and the same text as UTF-8. Certain or not at all: text in a wrong guess is damaged,
//! so what might be anything else than UTF-16 with a mark or a Western European text is left to a person.

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// What a file that should be UTF-8 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    /// UTF-8, with or without a mark.
    Utf8,
    /// Something else, and the file says so itself.
    Declared,
    /// Something else that can be converted without a doubt.
    Convertible(&'static str),
    /// Something else.
    Unclear(&'static str),
}

/// Whether the first bytes are a UTF-16 mark.
pub(crate) fn utf16_mark(head: &[u8]) -> Option<&'static Encoding> {
    match head {
        [0xff, 0xfe, 0, 0, ..] => None,
        [0xff, 0xfe, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] => Some(UTF_16BE),
        _ => None,
    }
}

/// Whether one of the first two lines declares an encoding other than UTF-8 (PEP 263, also of Ruby).
pub(crate) fn declares_other(bytes: &[u8]) -> bool {
    let head = bytes.splitn(3, |b| *b == b'\n').take(2);
    head.filter(|line| line.first() == Some(&b'#')).any(|line| {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        let Some((_, name)) = line.split_once("coding") else {
            return false;
        };
        let name = name.trim_start_matches([':', '=', ' ', '\t']);
        !name.is_empty() && !name.starts_with("utf-8") && !name.starts_with("utf8")
    })
}

/// The text of a file that is not UTF-8, and the encoding it was in.
///
/// # Errors
/// Why nobody can be sure.
pub(crate) fn decode(bytes: &[u8]) -> Result<(String, &'static str), &'static str> {
    if let Some(encoding) = utf16_mark(bytes) {
        let (text, _, broken) = encoding.decode(bytes);
        if broken || text.contains('\0') {
            return Err("marked as UTF-16, but malformed");
        }
        return Ok((text.into_owned(), encoding.name()));
    }
    if bytes.contains(&0) {
        return Err("not text");
    }
    let mixed = bytes.utf8_chunks().any(|chunk| !chunk.valid().is_ascii());
    if mixed {
        return Err("partly UTF-8 and partly something else");
    }
    if !looks_western(bytes) {
        return Err("an encoding that cannot be told for certain");
    }
    let text = WINDOWS_1252.decode_without_bom_handling(bytes).0;
    Ok((text.into_owned(), WINDOWS_1252.name()))
}

/// In Western European text a letter with a mark stands between plain ones. Runs of high bytes are another alphabet,
/// and the five bytes windows-1252 does not define are no text of it.
fn looks_western(bytes: &[u8]) -> bool {
    if bytes.iter().any(|b| matches!(b, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d)) {
        return false;
    }
    let runs = bytes.split(u8::is_ascii).filter(|run| !run.is_empty());
    let (long, all) = runs.fold((0_usize, 0_usize), |(long, all), run| (long + usize::from(run.len() > 2), all + 1));
    long * 10 <= all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn western_and_utf16_text_is_converted() {
        assert_eq!(decode(b"caf\xe9 \x93x\x94\r\n").unwrap().0, "café “x”\r\n");
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("é\n".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(decode(&utf16).unwrap(), ("é\n".to_owned(), "UTF-16LE"));
        assert_eq!(decode(b"\xfe\xff\0a").unwrap(), ("a".to_owned(), "UTF-16BE"));
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        let cyrillic = b"\xcf\xf0\xe8\xe2\xe5\xf2 \xec\xe8\xf0\xf3";
        let shift_jis = b"\x93\xfa\x96\x7b\x8c\xea";
        let mixed = b"caf\xc3\xa9 and caf\xe9";
        for bytes in [&cyrillic[..], shift_jis, mixed, b"\xff\xfe\0\0a\0\0\0", b"a\xe9\0b", b"\xff\xfe\0\xd8"] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_declared_encoding_is_seen() {
        assert!(declares_other(b"#!/usr/bin/python\n# -*- coding: latin-1 -*-\n"));
        assert!(declares_other(b"# vim: set fileencoding=cp1252 :\n"));
        assert!(!declares_other(b"# coding: utf-8\n"));
        assert!(!declares_other(b"x = 1\n\n# coding: latin-1\n"));
        assert!(!declares_other(b"# about decoding\n"));
    }
}
