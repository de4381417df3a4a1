//! Where `flock` keeps its word: on file systems of this machine. On others it may be local to each client, or be lost
//! with a connection, and SQLite's write-ahead log does not work there either.

use std::path::Path;

use crate::coordination::CoordinationError;

/// Magic numbers of file systems that live elsewhere or pass calls on to a program.
const REMOTE: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x786f_4256, "a VirtualBox shared folder"),
    (0x564c, "NCP"),
];

/// The name of a file system that locks cannot be trusted on.
fn remote(magic: u64) -> Option<&'static str> {
    // The kernel's type is signed on some machines; magic numbers have 32 bits.
    REMOTE.iter().find(|(known, _)| *known == magic & 0xffff_ffff).map(|(_, name)| *name)
}

/// Refuses a folder on such a file system.
pub(super) fn refuse_remote(path: &Path) -> Result<(), CoordinationError> {
    let unusable = |why: String| CoordinationError::Unusable { path: path.display().to_string(), why };
    let found = rustix::fs::statfs(path).map_err(|e| unusable(e.to_string()))?;
    match remote(found.f_type.cast_unsigned()) {
        Some(name) => Err(unusable(format!("it is on {name}, where locks cannot be trusted: use a local disk"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_file_systems_are_known_and_local_ones_pass() {
        assert_eq!(remote(0x6969), Some("NFS"));
        assert_eq!(remote(0xff53_4d42), Some("CIFS"));
        assert_eq!(remote((-0xac_b2be_i64).cast_unsigned()), Some("CIFS"), "sign-extended");
        // ext4, xfs, btrfs, zfs, tmpfs, overlayfs.
        for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630] {
            assert_eq!(remote(local), None, "{local:#x}");
        }
    }

    #[test]
    fn proc_is_no_place_but_a_temporary_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        refuse_remote(folder.path()).unwrap();
        assert!(refuse_remote(&folder.path().join("missing")).is_err());
    }
}
