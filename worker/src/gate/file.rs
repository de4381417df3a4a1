//! The file that a gate command leaves as its report. It stands where patched code can write, so no link is followed,
//! only a regular file is read, and what stood there before is gone when the command starts.

use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

/// A report below one folder.
#[derive(Debug, Clone)]
pub(super) struct ReportFile {
    /// The folder.
    pub(super) root: std::path::PathBuf,
    /// Its path below it, a checked one.
    pub(super) path: String,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A pipe does not block, and a device is not opened for writing.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl ReportFile {
    /// Removes what is there.
    ///
    /// # Errors
    /// When something is there that cannot be removed, or a link leads there.
    pub(super) fn clear(&self) -> io::Result<()> {
        let (folder, name) = match self.folder() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        match unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Why it cannot be used, as the end of a sentence that begins with "the report".
    pub(super) fn read(&self, most: u64) -> Result<Vec<u8>, String> {
        let failed = |error: io::Error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            if missing { "is missing".to_owned() } else { format!("cannot be read: {error}") }
        };
        let (folder, name) = self.folder().map_err(failed)?;
        let file = openat(&folder, name, FILE, Mode::empty()).map_err(|e| failed(e.into()))?;
        let stat = fstat(&file).map_err(|e| failed(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err("is no regular file".to_owned());
        }
        // Another name of a file may be one of somebody else's.
        if stat.st_nlink != 1 {
            return Err("has more than one name".to_owned());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > most {
            return Err(format!("is larger than {most} bytes"));
        }
        Ok(bytes)
    }

    /// The folder that it is in, and its name there.
    fn folder(&self) -> io::Result<(rustix::fd::OwnedFd, &str)> {
        let mut folder = openat(CWD, Path::new(&self.root), FOLDER, Mode::empty())?;
        let mut parts = self.path.split('/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "" | "." | "..") {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain relative path"));
            }
            if parts.peek().is_none() {
                return Ok((folder, part));
            }
            folder = openat(&folder, part, FOLDER, Mode::empty())?;
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain relative path"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_regular_file_of_its_own_is_read_and_no_link_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("out")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("r.xml"), "secret").unwrap();
        let of = |path: &str| ReportFile { root: root.clone(), path: path.to_owned() };
        assert_eq!(of("out/r.xml").read(10).unwrap_err(), "is missing");
        assert_eq!(of("no/r.xml").read(10).unwrap_err(), "is missing");
        of("no/r.xml").clear().unwrap();
        std::fs::write(root.join("out/r.xml"), "0123456789").unwrap();
        assert_eq!(of("out/r.xml").read(10).unwrap(), b"0123456789");
        assert_eq!(of("out/r.xml").read(9).unwrap_err(), "is larger than 9 bytes");
        of("out/r.xml").clear().unwrap();
        assert_eq!(of("out/r.xml").read(10).unwrap_err(), "is missing");
        symlink(outside.join("r.xml"), root.join("out/r.xml")).unwrap();
        assert!(of("out/r.xml").read(10).is_err());
        of("out/r.xml").clear().unwrap();
        assert!(outside.join("r.xml").exists(), "the link is gone and not what it led to");
        symlink(&outside, root.join("way")).unwrap();
        assert!(of("way/r.xml").read(10).is_err());
        assert!(of("way/r.xml").clear().is_err());
        assert!(of("../outside/r.xml").read(10).is_err());
        std::fs::hard_link(outside.join("r.xml"), root.join("hard.xml")).unwrap();
        assert_eq!(of("hard.xml").read(10).unwrap_err(), "has more than one name");
        std::fs::create_dir(root.join("dir.xml")).unwrap();
        assert_eq!(of("dir.xml").read(10).unwrap_err(), "is no regular file");
        assert!(of("dir.xml").clear().is_err());
        nix::unistd::mkfifo(&root.join("pipe.xml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(of("pipe.xml").read(10).unwrap_err(), "is no regular file");
    }
}
