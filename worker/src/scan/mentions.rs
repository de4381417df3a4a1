//! Whether code or configuration mentions a file of the root by name: such a file is in use where it is.

use aho_corasick::AhoCorasick;

/// The names that are looked for.
#[derive(Debug)]
pub(super) struct Mentions {
    names: Vec<String>,
    search: Option<AhoCorasick>,
}

/// More names than this are a heap of clutter and not files in use; they are not looked for.
const MOST: usize = 500;

impl Mentions {
    /// Looks for these names.
    pub(super) fn new(mut names: Vec<String>) -> Self {
        names.sort();
        names.truncate(MOST);
        let search = match names.is_empty() {
            true => None,
            false => AhoCorasick::new(&names).ok(),
        };
        Self { names, search }
    }

    /// The names, by the numbers [`Mentions::of`] gives.
    pub(super) fn name(&self, number: usize) -> &str {
        &self.names[number]
    }

    /// Which names stand in these bytes, not as a part of a longer name.
    pub(super) fn of(&self, bytes: &[u8]) -> Vec<usize> {
        let Some(search) = &self.search else {
            return Vec::new();
        };
        let part = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let mut found: Vec<usize> = search
            .find_overlapping_iter(bytes)
            .filter(|hit| !part(bytes[..hit.start()].last()) && !part(bytes.get(hit.end())))
            .map(|hit| hit.pattern().as_usize())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_count() {
        let mentions = Mentions::new(vec!["PLAN.md".into(), "NOTES.md".into()]);
        let found = mentions.of(b"readme = \"PLAN.md\"  # MY_NOTES.md NOTES.mdx");
        assert_eq!(found.iter().map(|n| mentions.name(*n)).collect::<Vec<_>>(), ["PLAN.md"]);
        assert!(Mentions::new(vec![]).of(b"PLAN.md").is_empty());
    }
}
