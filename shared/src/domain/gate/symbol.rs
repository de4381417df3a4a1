//! Symbols that a phase has to deliver: `path::name`. A name counts as there when it stands in the file as a word of
//! its own. This reads no language: a name in a comment or a text counts, one that a macro makes does not.

use crate::domain::path::RepoPath;

/// A symbol and the file that should have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolRef {
    /// The file.
    pub path: RepoPath,
    /// What is looked for; the last part of a qualified name.
    pub name: String,
}

impl SymbolRef {
    /// Reads `path::name`, or `path::outer::name`, of which the last part is looked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, name) = text.split_once("::").ok_or("a symbol is PATH::NAME")?;
        let name = name.rsplit("::").next().unwrap_or_default();
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(format!("{name:?} is no name: letters, digits and _"));
        }
        let path = RepoPath::parse(path).map_err(|e| format!("{path}: {e}"))?;
        Ok(Self { path, name: name.to_owned() })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a name stands in a text as a word of its own.
#[must_use]
pub fn has_symbol(text: &str, name: &str) -> bool {
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
}
