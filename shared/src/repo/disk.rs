//! Tells a full disk from every other failure: it is nobody's fault, and the same work succeeds once there is room.

use std::error::Error;
use std::io;

/// How the last cause ends where the system says it: as an error of std, and as one of libgit2, which passes on the
/// system's text and not its number.
const ENDS: [&str; 4] = [
    "No space left on device (os error 28)",
    "Disk quota exceeded (os error 122)",
    ": No space left on device; class=Os (2)",
    ": Disk quota exceeded; class=Os (2)",
];

/// Whether an error came of a disk or a quota that is full. Only the end of its last cause counts, which is what the
/// system said: the rest of an error's text holds names that a builder chose.
#[must_use]
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut last = error;
    loop {
        let kind = last.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind.is_some_and(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        match last.source() {
            Some(cause) => last = cause,
            None => break,
        }
    }
    let said = last.to_string();
    ENDS.iter().any(|end| said.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write it")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("{0} cannot be taken: No space left on device")]
    struct Named(&'static str, #[source] git2::Error);

    fn git(class: git2::ErrorClass, message: &str) -> git2::Error {
        git2::Error::new(git2::ErrorCode::GenericError, class, message)
    }

    #[test]
    fn the_numbers_are_those_of_the_system() {
        let full = |number| is_full(&Outer(io::Error::from_raw_os_error(number)));
        let (no_space, quota, not_found) = (28, 122, 2);
        assert!(full(no_space) && full(quota) && !full(not_found));
        assert!(is_full(&io::Error::from(io::ErrorKind::StorageFull)));
        assert!(is_full(&io::Error::other(io::Error::from_raw_os_error(no_space))));
    }

    #[test]
    fn the_library_ends_with_the_words_of_the_system() {
        let os = git2::ErrorClass::Os;
        assert!(is_full(&git(os, "failed to write chunk to /m/objects/ab: No space left on device")));
        assert!(is_full(&Named("it", git(os, "could not write: Disk quota exceeded"))));
        assert!(!is_full(&git(os, "could not open 'No space left on device/x': Permission denied")));
        assert!(!is_full(&git(git2::ErrorClass::Odb, "object: No space left on device")));
    }

    #[test]
    fn a_name_that_a_builder_chose_is_no_full_disk() {
        let plain = git(git2::ErrorClass::Odb, "not found");
        assert!(!is_full(&Named("No space left on device", plain)));
        assert!(!is_full(&Outer(io::Error::other("No space left on device"))));
        assert!(!is_full(&Outer(io::Error::other("No space left on device (os error 28) goes past the limit"))));
    }
}
