//! What the host has to forbid before anybody untrusted works here: second names for files of others, and links of
//! others in folders that all may write (T043).

use std::fs;

/// Where the kernel says it.
const HARDLINKS: &str = "/proc/sys/fs/protected_hardlinks";
const SYMLINKS: &str = "/proc/sys/fs/protected_symlinks";

/// What there is to do about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// Nothing.
    Fine,
    /// Nothing untrusted may run here.
    Refuse,
    /// Links of others are followed: root turns that off; without root, nothing here follows links anyway.
    Protect,
}

fn judge(root: bool, hardlinks: Option<&str>, symlinks: Option<&str>) -> Finding {
    let off = |value: Option<&str>| value.is_none_or(|value| value.trim() == "0");
    match (off(hardlinks), off(symlinks)) {
        (true, _) => Finding::Refuse,
        (false, true) if root => Finding::Protect,
        (false, _) => Finding::Fine,
    }
}

/// Sees to it; why nothing untrusted may run here, where it may not.
pub(super) fn check(root: bool) -> Option<String> {
    let read = |file: &str| fs::read_to_string(file).ok();
    match judge(root, read(HARDLINKS).as_deref(), read(SYMLINKS).as_deref()) {
        Finding::Fine => None,
        Finding::Refuse => Some(
            "fs.protected_hardlinks is off, so that a builder could give a file of somebody else a second name: \
             sysctl -w fs.protected_hardlinks=1"
                .to_owned(),
        ),
        Finding::Protect => {
            match fs::write(SYMLINKS, "1") {
                Ok(()) => tracing::warn!("fs.protected_symlinks was off on this host, and is now on"),
                // What is collected is opened without following any link.
                Err(error) => tracing::warn!(%error, "fs.protected_symlinks is off: sysctl -w fs.protected_symlinks=1"),
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_lets_files_be_renamed_by_others_is_refused() {
        assert_eq!(judge(true, Some("1\n"), Some("1\n")), Finding::Fine);
        assert_eq!(judge(false, Some("1\n"), Some("0\n")), Finding::Fine);
        assert_eq!(judge(true, Some("1\n"), Some("0\n")), Finding::Protect);
        for symlinks in [Some("1\n"), Some("0\n"), None] {
            for root in [true, false] {
                assert_eq!(judge(root, Some("0\n"), symlinks), Finding::Refuse);
                assert_eq!(judge(root, None, symlinks), Finding::Refuse, "what cannot be read is not on");
            }
        }
    }
}
