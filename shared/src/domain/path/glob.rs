//! Globs over folded paths, one component at a time: `*`, `?` and `[a-z]` never cross a `/`, `**` does, and a bare name
//! matches at any depth and everything below it.

use super::key::fold;

/// A glob that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no usable pattern: {why}")]
pub struct GlobError {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// One compiled glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    segments: Vec<Segment>,
    bare: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// `**`: any number of components.
    AnyDepth,
    Exact(String),
    /// `name*`
    Prefix(String),
    /// `*name`
    Suffix(String),
    Pattern(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

const MAX_ALTERNATIVES: usize = 64;

impl Glob {
    /// Compiles a pattern. Braces make several globs of it, and a component with brackets also stands for itself as
    /// it is written, because `[id].tsx` is a name people really use.
    ///
    /// # Errors
    /// [`GlobError`] for an empty pattern, unbalanced braces, backslashes, `.` and `..`.
    pub fn parse(pattern: &str) -> Result<Vec<Self>, GlobError> {
        let refuse = |why| GlobError { pattern: pattern.chars().take(200).collect(), why };
        let mut text = pattern.trim();
        let anchored = text.trim_end_matches('/').contains('/') || text.ends_with('/');
        while let Some(rest) = text.strip_prefix("./") {
            text = rest;
        }
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() || text == "." {
            return Err(refuse("it is empty; write `**` for everything"));
        }
        let directory = text.ends_with('/');
        let mut globs = Vec::new();
        for alternative in expand(text.trim_end_matches('/'), &refuse)? {
            if alternative.contains('\\') {
                return Err(refuse("it contains a backslash"));
            }
            if alternative.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(refuse("it has an empty, `.` or `..` component"));
            }
            let bare = !anchored && !alternative.contains("**");
            for mut segments in compile(&alternative) {
                if directory {
                    segments.push(Segment::AnyDepth);
                }
                globs.push(Self { segments, bare });
            }
        }
        Ok(globs)
    }

    /// Whether the glob matches a folded path.
    ///
    /// `dir/**` matches `dir` itself as well: a file or a link in the place of a protected directory is as protected.
    #[must_use]
    pub fn matches(&self, parts: &[&str]) -> bool {
        if self.bare {
            return match self.segments.as_slice() {
                [segment] => parts.iter().any(|part| segment.matches(part)),
                [] | [_, ..] => false,
            };
        }
        matches(&self.segments, parts)
    }

    /// The components before the first wildcard of a glob with a directory; empty for a bare one.
    #[must_use]
    pub fn literal_prefix(&self) -> Vec<&str> {
        if self.bare { Vec::new() } else { self.segments.iter().map_while(Segment::literal).collect() }
    }
}

/// Several patterns, compiled once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathSet {
    globs: Vec<(usize, Glob)>,
}

impl PathSet {
    /// Compiles patterns.
    ///
    /// # Errors
    /// [`GlobError`] for the first that cannot be read.
    pub fn compile<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, GlobError> {
        let mut globs = Vec::new();
        for (index, pattern) in patterns.into_iter().enumerate() {
            globs.extend(Glob::parse(pattern)?.into_iter().map(|glob| (index, glob)));
        }
        Ok(Self { globs })
    }

    /// The index of the first pattern that matches a folded path.
    #[must_use]
    pub fn find(&self, parts: &[&str]) -> Option<usize> {
        self.globs.iter().find(|(_, glob)| glob.matches(parts)).map(|(index, _)| *index)
    }

    /// The index of the first pattern that is rooted below a folded directory, whatever exists there.
    #[must_use]
    pub fn find_rooted_below(&self, directory: &[&str]) -> Option<usize> {
        self.globs
            .iter()
            .find(|(_, glob)| {
                let prefix = glob.literal_prefix();
                !prefix.is_empty() && prefix.starts_with(directory)
            })
            .map(|(index, _)| *index)
    }
}

impl Segment {
    const fn literal(&self) -> Option<&str> {
        match self {
            Self::Exact(name) => Some(name.as_str()),
            Self::AnyDepth | Self::Prefix(_) | Self::Suffix(_) | Self::Pattern(_) => None,
        }
    }

    fn matches(&self, part: &str) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Exact(name) => name == part,
            Self::Prefix(name) => part.starts_with(name.as_str()),
            Self::Suffix(name) => part.ends_with(name.as_str()),
            Self::Pattern(tokens) => tokens_match(tokens, part),
        }
    }
}

fn matches(segments: &[Segment], parts: &[&str]) -> bool {
    match (segments, parts) {
        ([], _) => parts.is_empty(),
        ([Segment::AnyDepth], _) => true,
        ([Segment::AnyDepth, rest @ ..], _) => (0..=parts.len()).any(|skipped| matches(rest, &parts[skipped..])),
        ([_, ..], []) => false,
        ([segment, rest @ ..], [part, below @ ..]) => segment.matches(part) && matches(rest, below),
    }
}

/// Greedy matching with one point to come back to: linear in practice, never exponential.
fn tokens_match(tokens: &[Token], part: &str) -> bool {
    let chars: Vec<char> = part.chars().collect();
    let (mut at, mut token) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < chars.len() {
        match tokens.get(token) {
            Some(Token::Many) => {
                retry = Some((at, token));
                token += 1;
            }
            Some(single) if single.matches(chars[at]) => {
                at += 1;
                token += 1;
            }
            Some(_) | None => {
                let Some((from, star)) = retry else {
                    return false;
                };
                retry = Some((from + 1, star));
                at = from + 1;
                token = star + 1;
            }
        }
    }
    tokens[token..].iter().all(|rest| *rest == Token::Many)
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Char(expected) => *expected == c,
            Self::One => true,
            Self::Many => false,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

/// Expands `{a,b}`, nested ones too.
fn expand(text: &str, refuse: &impl Fn(&'static str) -> GlobError) -> Result<Vec<String>, GlobError> {
    let Some(open) = text.find('{') else {
        return if text.contains('}') { Err(refuse("a brace is not opened")) } else { Ok(vec![text.to_owned()]) };
    };
    let (mut depth, mut close, mut cuts) = (0_usize, None, vec![open]);
    for (index, c) in text.char_indices().skip_while(|(index, _)| *index < open) {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    close = Some(index);
                    break;
                }
            }
            ',' if depth == 1 => cuts.push(index),
            _ => {}
        }
    }
    let Some(close) = close else {
        return Err(refuse("a brace is not closed"));
    };
    cuts.push(close);
    let mut expanded = Vec::new();
    for cut in cuts.windows(2) {
        let choice = &text[cut[0] + 1..cut[1]];
        expanded.extend(expand(&format!("{}{choice}{}", &text[..open], &text[close + 1..]), refuse)?);
        if expanded.len() > MAX_ALTERNATIVES {
            return Err(refuse("it has more than 64 alternatives"));
        }
    }
    Ok(expanded)
}

/// Compiles the components; more than one result where a component has brackets.
fn compile(text: &str) -> Vec<Vec<Segment>> {
    let mut results = vec![Vec::new()];
    for part in text.split('/') {
        let segments = compile_segment(part);
        results = results
            .iter()
            .flat_map(|done: &Vec<Segment>| {
                segments.iter().map(|segment| {
                    let mut next = done.clone();
                    next.push(segment.clone());
                    next
                })
            })
            .take(MAX_ALTERNATIVES)
            .collect();
    }
    results
}

fn compile_segment(part: &str) -> Vec<Segment> {
    if part == "**" {
        return vec![Segment::AnyDepth];
    }
    let tokens = tokenize(part, true);
    let simple = |tokens: &[Token]| match tokens {
        tokens if tokens.iter().all(is_char) => Segment::Exact(text_of(tokens)),
        [rest @ .., Token::Many] if rest.iter().all(is_char) => Segment::Prefix(text_of(rest)),
        [Token::Many, rest @ ..] if rest.iter().all(is_char) => Segment::Suffix(text_of(rest)),
        tokens => Segment::Pattern(tokens.to_vec()),
    };
    let mut segments = vec![simple(&tokens)];
    if tokens.iter().any(|token| matches!(token, Token::Class { .. })) {
        segments.push(simple(&tokenize(part, false)));
    }
    segments
}

const fn is_char(token: &Token) -> bool {
    matches!(token, Token::Char(_))
}

fn text_of(tokens: &[Token]) -> String {
    let char_of = |token: &Token| match token {
        Token::Char(c) => Some(*c),
        Token::One | Token::Many | Token::Class { .. } => None,
    };
    tokens.iter().filter_map(char_of).collect()
}

/// Splits a component into tokens; wildcards are found before folding, so that no look-alike becomes one.
fn tokenize(part: &str, classes: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = part;
    while let Some(c) = rest.chars().next() {
        let class = if classes && c == '[' { read_class(rest) } else { None };
        if let Some((token, length)) = class {
            tokens.push(token);
            rest = &rest[length..];
            continue;
        }
        match c {
            '*' => {
                if tokens.last() != Some(&Token::Many) {
                    tokens.push(Token::Many);
                }
                rest = &rest[1..];
            }
            '?' => {
                tokens.push(Token::One);
                rest = &rest[1..];
            }
            _ => {
                let wild = |c: char| matches!(c, '*' | '?') || (classes && c == '[');
                let end = rest[c.len_utf8()..].find(wild).map_or(rest.len(), |at| at + c.len_utf8());
                tokens.extend(fold(&rest[..end]).chars().map(Token::Char));
                rest = &rest[end..];
            }
        }
    }
    tokens
}

/// Reads `[abc]`, `[a-z]` or `[!a-z]` at the start of a text; nothing where it is not closed.
fn read_class(text: &str) -> Option<(Token, usize)> {
    let inner_start = if text[1..].starts_with(['!', '^']) { 2 } else { 1 };
    let length = text[inner_start..].char_indices().skip(1).find(|(_, c)| *c == ']')?.0;
    let inner: Vec<char> = fold(&text[inner_start..inner_start + length]).chars().collect();
    let mut ranges = Vec::new();
    let mut rest = inner.as_slice();
    while let [first, tail @ ..] = rest {
        if let ['-', last, after @ ..] = tail {
            ranges.push((*first, *last));
            rest = after;
        } else {
            ranges.push((*first, *first));
            rest = tail;
        }
    }
    Some((Token::Class { negated: inner_start == 2, ranges }, inner_start + length + 1))
}
