//! The rules of a canonical path (`docs/GOVERNANCE.md`, canonical paths).

use std::sync::LazyLock;

use regex::Regex;

use super::key::fold;

/// How many components a path may have, its file name included.
pub const MAX_DEPTH: usize = 64;
const MAX_COMPONENT_BYTES: usize = 255;
const MAX_PATH_BYTES: usize = 4096;

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It breaks a rule of spelling.
    #[error("unsafe path {path}: {why}")]
    Unsafe {
        /// A printable form of the path.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// It names git's own directory, in some spelling.
    #[error("path {path} is inside git's own directory")]
    GitInternal {
        /// A printable form of the path.
        path: String,
    },
}

/// Everything that is wrong with a refused path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPath {
    /// A printable form: what is not plain text is escaped.
    pub shown: String,
    /// The first rule of spelling it breaks.
    pub unsafe_because: Option<&'static str>,
    /// Whether a component is `.git` in some spelling.
    pub git_internal: bool,
}

impl RefusedPath {
    /// The most telling error.
    #[must_use]
    pub fn error(self) -> PathError {
        match self.unsafe_because {
            Some(why) => PathError::Unsafe { path: self.shown, why },
            None => PathError::GitInternal { path: self.shown },
        }
    }
}

/// Control, format, bidi and ignorable code points, and line separators.
static INVISIBLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Bidi_Control}]")
        .expect("the pattern is constant and covered by tests")
});

pub(super) fn inspect(bytes: &[u8]) -> Result<String, RefusedPath> {
    let text = std::str::from_utf8(bytes);
    let lossy = String::from_utf8_lossy(bytes);
    let unsafe_because = match text {
        Ok(text) => unsafe_because(text),
        Err(_) => Some("it is not UTF-8"),
    };
    let git_internal = names_git(&lossy);
    match (text, unsafe_because, git_internal) {
        (Ok(text), None, false) => Ok(text.to_owned()),
        (_, unsafe_because, git_internal) => Err(RefusedPath { shown: shown(bytes), unsafe_because, git_internal }),
    }
}

fn unsafe_because(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > MAX_PATH_BYTES {
        return Some("it is longer than 4096 bytes");
    }
    if text.starts_with('/') {
        return Some("it is absolute");
    }
    if text.split('/').count() > MAX_DEPTH {
        return Some("it is more than 64 components deep");
    }
    if let Some(why) = text.split('/').find_map(component_unsafe_because) {
        return Some(why);
    }
    if text.is_ascii() {
        return None;
    }
    if INVISIBLE.is_match(text) {
        return Some("it contains an invisible or direction-changing character");
    }
    if !unicode_normalization::is_nfc(text) {
        return Some("it is not in Unicode form NFC");
    }
    let key = fold(text);
    let same_shape = key.split('/').count() == text.split('/').count();
    if !same_shape || key.split('/').any(|part| component_unsafe_because(part).is_some()) {
        return Some("it contains a character that stands for a separator, a dot or a space");
    }
    None
}

fn component_unsafe_because(part: &str) -> Option<&'static str> {
    match part {
        "" => return Some("it has an empty component"),
        "." => return Some("it has a `.` component"),
        ".." => return Some("it has a `..` component"),
        _ => {}
    }
    if part.len() > MAX_COMPONENT_BYTES {
        return Some("a component is longer than 255 bytes");
    }
    if part.bytes().any(|byte| byte.is_ascii_control()) {
        return Some("it contains a control character");
    }
    if part.contains('\\') {
        return Some("it contains a backslash");
    }
    if part.contains(':') {
        return Some("it contains a colon");
    }
    if part.ends_with(['.', ' ']) {
        return Some("a component ends in a dot or a space");
    }
    if is_windows_reserved(part) {
        return Some("a component is a device name on Windows");
    }
    None
}

/// `CON`, `NUL`, `COM1` and the like, with any ending.
fn is_windows_reserved(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end_matches(' ');
    if stem.len() > 8 {
        return false;
    }
    let stem = fold(stem);
    match stem.as_str() {
        "con" | "prn" | "aux" | "nul" | "conin$" | "conout$" => true,
        _ => {
            let digit = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
            matches!(digit.map(str::as_bytes), Some([b'1'..=b'9']))
        }
    }
}

/// Whether a part of a path, between slashes of either kind, is `.git` as some file system would understand it.
pub(super) fn names_git(path: &str) -> bool {
    path.split(['/', '\\']).any(is_git_internal)
}

/// `.git` as some file system would understand it: in any case, with ignorable characters in it, with what Windows
/// strips at the end or splits off after a colon, and by its short name.
fn is_git_internal(part: &str) -> bool {
    if part.is_ascii() && part.len() < 4 {
        return false;
    }
    let visible = if part.is_ascii() { part.into() } else { INVISIBLE.replace_all(part, String::new()) };
    let key = fold(&visible);
    let stem = key.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    stem == ".git"
        || stem.strip_prefix("git~").is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A printable form of any bytes: text as it is, everything that cannot be seen or is not UTF-8 escaped.
fn shown(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                out.push_str("\\\\");
            } else if INVISIBLE.is_match(c.encode_utf8(&mut [0; 4])) {
                out.extend(c.escape_unicode());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}
