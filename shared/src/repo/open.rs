//! Opens repositories: by explicit path only, without the settings of the machine or the user, and with a reason
//! that a person can act on when it cannot be done. Everything that touches git2 opens through here.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use git2::{ConfigLevel, ErrorCode, Repository, RepositoryInitOptions, RepositoryOpenFlags};

use crate::domain::ids::Oid;

/// Why a repository could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing at the path is a git repository.
    #[error("{} is not a git repository", path.display())]
    NotARepository {
        /// The path as given.
        path: PathBuf,
    },
    /// The repository uses a format that libgit2 cannot read.
    #[error("{} uses {what}, which is not supported", path.display())]
    Unsupported {
        /// The path as given.
        path: PathBuf,
        /// The format, in words: `SHA-256 object ids`, `the reftable format`.
        what: String,
    },
    /// The repository belongs to another user of the machine.
    #[error("{} belongs to another user", path.display())]
    NotOwned {
        /// The path as given.
        path: PathBuf,
    },
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// Opens the repository whose work tree or git folder is exactly `path`; never searches upwards.
///
/// # Errors
/// [`OpenError`] says why not.
pub fn open(path: &Path) -> Result<Repository, OpenError> {
    isolate()?;
    let nowhere: [&Path; 0] = [];
    Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, nowhere).map_err(|error| explain(path, error))
}

/// Opens a git folder as if it were bare: no work tree, no index, no attribute file of a checkout is looked at.
///
/// # Errors
/// [`OpenError`] says why not.
pub fn open_bare(path: &Path) -> Result<Repository, OpenError> {
    isolate()?;
    Repository::open_bare(path).map_err(|error| explain(path, error))
}

/// Makes a bare repository, without templates (hooks), or opens the one that is there.
///
/// # Errors
/// When the folder cannot be written.
pub fn init_bare(path: &Path) -> Result<Repository, OpenError> {
    isolate()?;
    let mut options = RepositoryInitOptions::new();
    options.bare(true).mkpath(true).external_template(false).initial_head("refs/heads/none");
    Repository::init_opts(path, &options).map_err(|error| explain(path, error))
}

/// Lets the repository in `git_dir` read the objects of another, which must outlive it (`objects/info/alternates`).
///
/// # Errors
/// When the file cannot be written, or the path cannot be said in it.
pub fn borrow_objects(git_dir: &Path, objects: &Path) -> std::io::Result<()> {
    let objects = objects.canonicalize()?;
    let mut line = objects.into_os_string().into_encoded_bytes();
    if line.contains(&b'\n') || line.starts_with(b"#") || line.starts_with(b"\"") {
        let why = "git cannot borrow objects from a folder with such a name";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    line.push(b'\n');
    let info = git_dir.join("objects/info");
    std::fs::create_dir_all(&info)?;
    if std::fs::read(info.join("alternates")).is_ok_and(|there| there == line) {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(&info)?;
    std::io::Write::write_all(&mut file, &line)?;
    file.persist(info.join("alternates"))?;
    Ok(())
}

/// Our id of an object as libgit2's.
#[must_use]
pub fn to_git(oid: Oid) -> git2::Oid {
    // `from_bytes` fails on a wrong length only, and ours is 20 bytes by type.
    git2::Oid::from_bytes(oid.as_bytes()).unwrap_or(git2::Oid::ZERO_SHA1)
}

/// libgit2's id of an object as ours.
#[must_use]
pub fn from_git(oid: git2::Oid) -> Oid {
    <[u8; 20]>::try_from(oid.as_bytes()).map_or(Oid::ZERO, Oid::from_bytes)
}

/// Takes the configuration of the machine and of the user away from libgit2, once a process.
#[expect(
    unsafe_code,
    reason = "libgit2 has one global search path a level; it is set once, before any repository is open"
)]
pub(super) fn isolate() -> Result<(), git2::Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| {
        for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
            // SAFETY: `OnceLock` runs this exactly once, and every repository is opened after it has returned.
            unsafe { git2::opts::set_search_path(level, "") }.map_err(|error| error.message().to_owned())?;
        }
        Ok(())
    })
    .clone()
    .map_err(|message| git2::Error::from_str(&message))
}

fn explain(path: &Path, error: git2::Error) -> OpenError {
    let path = path.to_path_buf();
    if error.code() == ErrorCode::Owner {
        return OpenError::NotOwned { path };
    }
    if let Some(what) = unsupported(&path) {
        return OpenError::Unsupported { path, what };
    }
    if error.code() == ErrorCode::NotFound {
        return OpenError::NotARepository { path };
    }
    if error.message().contains("unsupported") {
        return OpenError::Unsupported { path, what: error.message().to_owned() };
    }
    OpenError::Git(error)
}

/// Reads the format extensions of a repository that libgit2 refused.
fn unsupported(path: &Path) -> Option<String> {
    let dot_git = path.join(".git");
    let linked = std::fs::read_to_string(&dot_git).ok().and_then(|text| {
        let admin = path.join(text.strip_prefix("gitdir:")?.trim());
        let common = std::fs::read_to_string(admin.join("commondir")).ok()?;
        Some(admin.join(common.trim()))
    });
    let candidates = [linked, Some(dot_git), Some(path.to_path_buf())];
    let file = candidates.into_iter().flatten().map(|dir| dir.join("config")).find(|file| file.is_file())?;
    let config = git2::Config::open(&file).ok()?;
    let extension = |name: &str| config.get_string(name).ok().map(|value| value.to_ascii_lowercase());
    match (extension("extensions.objectformat").as_deref(), extension("extensions.refstorage").as_deref()) {
        (Some(format), _) if format != "sha1" => Some(format!("{format} object ids")),
        (_, Some(storage)) if storage != "files" => Some(format!("the {storage} ref format")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_their_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::NotARepository { .. })));
        assert!(matches!(open(&dir.path().join("absent")), Err(OpenError::NotARepository { .. })));

        for (line, word) in [("objectformat = sha256", "sha256"), ("refstorage = reftable", "reftable")] {
            let repo = dir.path().join(word);
            Repository::init(&repo).unwrap();
            let config = format!("[core]\n\trepositoryformatversion = 1\n[extensions]\n\t{line}\n");
            std::fs::write(repo.join(".git/config"), config).unwrap();
            let error = open(&repo).err().unwrap();
            assert!(matches!(&error, OpenError::Unsupported { what, .. } if what.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_folder_inside_a_repository_is_not_searched_upwards() {
        let dir = tempfile::tempdir().unwrap();
        Repository::init(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        assert!(open(dir.path()).is_ok());
        assert!(matches!(open(&dir.path().join("sub")), Err(OpenError::NotARepository { .. })));
    }
}
