//! Relative links in Markdown: where they stand, which file of the tree they mean, and the same text with other
//! destinations. Read by a CommonMark parser, so code and escapes are told apart from links.

use std::ops::Range;
use std::sync::LazyLock;

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd};
use regex::Regex;

use super::names;

/// A destination as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Its bytes in the text.
    pub range: Range<usize>,
    /// What it is after escapes.
    pub url: String,
}

/// What a destination means: a path in the tree, and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// The path, without `.` and `..`; empty for the root folder.
    pub path: String,
    /// `?query` and `#fragment`, as written.
    pub suffix: String,
    /// Whether it was written as a folder.
    pub folder: bool,
}

static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)\b(?:href|src)\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)')"#).expect("the expression is well formed")
});

/// Every destination in a Markdown text that can be changed in place, in order.
pub(crate) fn destinations(text: &str) -> Vec<Destination> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let parser = Parser::new_ext(text, options);
    let mut found: Vec<Destination> = Vec::new();
    for (_, definition) in parser.reference_definitions().iter() {
        let span = definition.span.clone();
        if let Some(at) = text[span.clone()].find("]:") {
            found.extend(written(text, span.start + at + 2..span.end, &definition.dest));
        }
    }
    let mut open: Vec<(Range<usize>, usize, Option<String>)> = Vec::new();
    for (event, range) in parser.into_offset_iter() {
        if let Event::Start(Tag::Link { link_type, dest_url, .. } | Tag::Image { link_type, dest_url, .. }) = &event {
            let url = (*link_type == LinkType::Inline).then(|| dest_url.to_string());
            open.push((range.clone(), range.start, url));
            continue;
        }
        if matches!(event, Event::End(TagEnd::Link | TagEnd::Image)) {
            if let Some((whole, label_end, Some(url))) = open.pop()
                && let Some(at) = text[label_end..whole.end].find("](")
            {
                found.extend(written(text, label_end + at + 2..whole.end, &url));
            }
        } else if matches!(event, Event::Html(_) | Event::InlineHtml(_)) {
            attributes(text, &range, &mut found);
        }
        if let Some((_, label_end, _)) = open.last_mut() {
            *label_end = (*label_end).max(range.end);
        }
    }
    found.sort_by_key(|d| d.range.start);
    found.dedup();
    found
}

fn attributes(text: &str, range: &Range<usize>, found: &mut Vec<Destination>) {
    for hit in ATTRIBUTE.captures_iter(&text[range.clone()]) {
        if let Some(value) = hit.get(1).or_else(|| hit.get(2)) {
            let range = range.start + value.start()..range.start + value.end();
            found.push(Destination { url: value.as_str().to_owned(), range });
        }
    }
}

/// The destination that starts in `within`, if it is written there as the parser understood it.
fn written(text: &str, within: Range<usize>, url: &str) -> Option<Destination> {
    let rest = &text[within.clone()];
    let start = within.start + (rest.len() - rest.trim_start().len());
    let rest = &text[start..within.end];
    let (start, length) = match rest.strip_prefix('<') {
        Some(inner) => (start + 1, inner.find('>')?),
        None => (start, bare_length(rest)),
    };
    let range = start..start + length;
    let plain = text[range.clone()].replace('\\', "");
    (plain == url).then(|| Destination { range, url: url.to_owned() })
}

/// How far a destination without angle brackets goes: to white space or the parenthesis that closes the link.
fn bare_length(text: &str) -> usize {
    let (mut depth, mut escaped) = (0_usize, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match c {
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' if depth == 0 => return at,
            ')' => depth -= 1,
            c if c.is_ascii_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// Where a destination leads.
enum Direction {
    /// To another site, a place in the same file, a path from a site's root, or what a template makes of it.
    Elsewhere,
    /// Above the root of the tree.
    Above,
    /// To a path of the tree.
    Inside(Meaning),
}

/// The path of the tree a destination in file `from` means, if it means one.
pub(crate) fn meaning(from: &str, url: &str) -> Option<Meaning> {
    match direction(from, url) {
        Direction::Inside(meaning) => Some(meaning),
        Direction::Elsewhere | Direction::Above => None,
    }
}

fn direction(from: &str, url: &str) -> Direction {
    let cut = url.find(['#', '?']).unwrap_or(url.len());
    let (path, suffix) = url.split_at(cut);
    let foreign = path.is_empty()
        || path.starts_with('/')
        || path.contains([':', '{', '}', '<', '>', '*', '$', '\\', '|'])
        || path.contains("...");
    let Some(decoded) = percent_decode(path).filter(|_| !foreign) else {
        return Direction::Elsewhere;
    };
    let mut parts: Vec<&str> = names::folder(from).split('/').filter(|p| !p.is_empty()).collect();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Direction::Above;
                }
            }
            name => parts.push(name),
        }
    }
    let folder = decoded.ends_with('/');
    Direction::Inside(Meaning { path: parts.join("/"), suffix: suffix.to_owned(), folder })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%'
            && let Some(byte) = tail.get(..2).and_then(|two| hex::decode(two).ok())
        {
            out.push(byte[0]);
            rest = &tail[2..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok().filter(|s| !s.contains('\0'))
}

/// How file `from` writes a link to a path of the tree.
pub(crate) fn relative(from: &str, to: &str) -> String {
    let here: Vec<&str> = names::folder(from).split('/').filter(|p| !p.is_empty()).collect();
    let there: Vec<&str> = to.split('/').filter(|p| !p.is_empty()).collect();
    let common = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", here.len() - common);
    let path = up.chain(there[common..].iter().copied()).collect::<Vec<_>>().join("/");
    let mut out = String::with_capacity(path.len());
    for c in if path.is_empty() { "." } else { &path }.chars() {
        match c {
            ' ' | '(' | ')' | '<' | '>' | '"' | '\'' | '%' | '#' | '?' | '\\' | '`' | '*' | '[' | ']' => {
                out.push_str(&format!("%{:02X}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

/// The text of a file that was at `from` and is to be at `to`, with every relative link meaning what `moved` makes
/// of its path; none where nothing changes.
pub(crate) fn relink(text: &str, from: &str, to: &str, moved: &dyn Fn(&Meaning) -> Option<String>) -> Option<String> {
    let same_folder = names::folder(from) == names::folder(to);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for destination in destinations(text) {
        let meaning = match direction(from, &destination.url) {
            Direction::Elsewhere => continue,
            Direction::Above => None,
            Direction::Inside(meaning) => Some(meaning),
        };
        let new = match (meaning.as_ref().and_then(moved), meaning) {
            (None, _) if same_folder => continue,
            (None, None) => format!("{}/{}", relative(to, names::folder(from)), destination.url),
            (target, Some(meaning)) => {
                let slash = if meaning.folder { "/" } else { "" };
                let target = target.unwrap_or(meaning.path);
                format!("{}{slash}{}", relative(to, &target), meaning.suffix)
            }
            (Some(_), None) => continue,
        };
        out.push_str(&text[done..destination.range.start]);
        out.push_str(&new);
        done = destination.range.end;
    }
    out.push_str(&text[done..]);
    (out != text).then_some(out)
}

#[cfg(test)]
mod tests;
