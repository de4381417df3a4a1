//! Names in the headers of a patch: plain, or in C quotes.

/// Reads a C-quoted name at the start of a text. Returns the name and the rest after the closing quote.
pub(super) fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut name = Vec::new();
    loop {
        let (first, after) = rest.split_first()?;
        rest = after;
        match first {
            b'"' => return Some((name, rest)),
            b'\\' => {
                let (escape, after) = rest.split_first()?;
                rest = after;
                name.push(match escape {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    b'"' => b'"',
                    b'\\' => b'\\',
                    b'0'..=b'3' => {
                        let [second @ b'0'..=b'7', third @ b'0'..=b'7', after @ ..] = rest else {
                            return None;
                        };
                        rest = after;
                        (escape - b'0') << 6 | (second - b'0') << 3 | (third - b'0')
                    }
                    _ => return None,
                });
            }
            other => name.push(*other),
        }
    }
}

/// Reads a whole text as one name.
pub(super) fn whole(text: &[u8]) -> Option<Vec<u8>> {
    if text.starts_with(b"\"") {
        let (name, rest) = unquote(text)?;
        return rest.is_empty().then_some(name);
    }
    is_plain(text).then(|| text.to_vec())
}

/// Reads the name of a `---` or `+++` line: git ends one that has a space in it with a tab.
pub(super) fn of_file_line(text: &[u8]) -> Option<Vec<u8>> {
    match text.strip_suffix(b"\t") {
        Some(name) if name.contains(&b' ') && !name.starts_with(b"\"") => whole(name),
        Some(_) => None,
        None => whole(text),
    }
}

/// Reads the two names of a `diff --git` line without their prefixes. Two plain names can only be told apart when they
/// are equal or when the headers below say what they are.
pub(super) fn pair(text: &[u8], known: Option<(&[u8], &[u8])>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (old, new) = if text.starts_with(b"\"") {
        let (old, rest) = unquote(text)?;
        (old, whole(rest.strip_prefix(b" ")?)?)
    } else if text.ends_with(b"\"") {
        let at = text.windows(2).position(|pair| pair == b" \"")?;
        (whole(&text[..at])?, whole(&text[at + 1..])?)
    } else {
        let length = match known {
            Some((old, _)) => old.len() + 2,
            None => text.len().checked_sub(1)? / 2,
        };
        (whole(text.get(..length)?)?, whole(text.get(length..)?.strip_prefix(b" ")?)?)
    };
    let old = old.strip_prefix(b"a/")?.to_vec();
    let new = new.strip_prefix(b"b/")?.to_vec();
    let fits = known.map_or(old == new, |(from, to)| old == from && new == to);
    fits.then_some((old, new))
}

/// A plain name has no character that git would quote.
fn is_plain(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| byte.is_ascii_control() || matches!(byte, b'"' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_names_are_decoded_or_refused() {
        assert_eq!(unquote(br#""a\303\251\t\"" x"#), Some((b"a\xc3\xa9\t\"".to_vec(), &b" x"[..])));
        for bad in [&br#""a"#[..], br#""\q""#, br#""\400""#, br#""\30""#, b"a"] {
            assert_eq!(unquote(bad), None);
        }
    }

    #[test]
    fn pairs_need_prefixes_and_agreement() {
        let ok = |text: &[u8]| pair(text, None).is_some();
        assert!(ok(b"a/x y b/x y"));
        assert!(ok(br#""a/x\ty" "b/x\ty""#));
        for bad in [&b"x x"[..], b"a/x b/y", b"a/x a/x", b"b/x a/x", b"a/x  b/x", b"", b"a/\rx b/\rx"] {
            assert!(!ok(bad), "{}", String::from_utf8_lossy(bad));
        }
        assert!(pair(b"a/x b/longer name", Some((b"x", b"longer name"))).is_some());
        assert!(pair(b"a/x b/other", Some((b"x", b"longer"))).is_none());
        assert_eq!(of_file_line(b"b/a b\t"), Some(b"b/a b".to_vec()));
        assert_eq!(of_file_line(b"b/ab\t"), None);
    }
}
