//! Tells a full disk from every other failure: it is nobody's fault, and the same work succeeds once there is room.

use std::error::Error;

/// What the system says; libgit2 passes on its text and not its number.
const WORDS: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Whether an error, or one of its causes, is a disk or a quota that is full.
#[must_use]
pub fn is_full(error: &dyn Error) -> bool {
    let says = |error: &dyn Error| WORDS.iter().any(|words| error.to_string().contains(words));
    let mut next = error.source();
    while let Some(cause) = next {
        if says(cause) {
            return true;
        }
        next = cause.source();
    }
    says(error)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write it")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_words_are_those_of_the_system() {
        let full = |number| is_full(&Outer(io::Error::from_raw_os_error(number)));
        let (no_space, quota, not_found) = (28, 122, 2);
        assert!(full(no_space) && full(quota) && !full(not_found));
    }
}
