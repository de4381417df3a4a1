//! The form under which paths are compared: NFKC and full case folding, to a fixed point.

use unicode_normalization::UnicodeNormalization as _;

/// A path folded so that every spelling of it that some file system takes for the same is equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MatchKey(String);

impl MatchKey {
    /// Folds a path or a name.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(fold(text))
    }

    /// The folded text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folded components, for [`super::PathSet::find`].
    #[must_use]
    pub fn parts(&self) -> Vec<&str> {
        self.0.split('/').collect()
    }
}

pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = text.to_owned();
    // Two rounds reach the fixed point for every assigned character; the bound guards against future ones.
    for _ in 0..4 {
        let next: String = folded.nfkc().flat_map(fold_char).nfkc().collect();
        if next == folded {
            break;
        }
        folded = next;
    }
    folded
}

/// Full case folding by way of lower, upper, lower: the same equivalence as Unicode's `CaseFolding.txt`, save for the
/// dotless i, whose capital is shared with i and which therefore stays as it is.
fn fold_char(c: char) -> impl Iterator<Item = char> {
    let dotless = (c == 'ı').then_some(c);
    let other = (c != 'ı').then_some(c);
    let folded =
        other.into_iter().flat_map(char::to_lowercase).flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    dotless.into_iter().chain(folded)
}
