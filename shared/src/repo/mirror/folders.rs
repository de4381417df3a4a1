//! The worker's folder: which workspaces are in it, and how one goes away. A workspace is moved into `.trash` first,
//! so that a removal that is interrupted never leaves half a workspace where one is expected.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{MirrorError, Purpose, WorkspaceKey, io_error};
use crate::domain::ids::RunId;

/// Moves a workspace into the trash; `None` when there is none.
pub(super) fn trash(root: &Path, workspace: &Path, name: &str) -> Result<Option<PathBuf>, MirrorError> {
    let trash = root.join(".trash");
    fs::create_dir_all(&trash).map_err(io_error(&trash))?;
    let place = tempfile::Builder::new().prefix(name).tempdir_in(&trash).map_err(io_error(&trash))?;
    match fs::rename(workspace, place.path().join("tree")) {
        Ok(()) => Ok(Some(place.keep())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(workspace)(error)),
    }
}

/// Removes the attempt's and the run's folders, if they are empty now.
pub(super) fn remove_empty_parents(root: &Path, workspace: &Path) {
    let parents = workspace.ancestors().skip(1).take_while(|parent| *parent != root);
    for parent in parents {
        if fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

/// Deletes a folder that a builder has written to, whatever permissions it set. What is mounted in it is not his.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    if let Some(mount) = mounted_below(path) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{} is mounted", mount.display())));
    }
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match gone(fs::remove_dir_all(path)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            gone(fs::remove_dir_all(path))
        }
        other => other,
    }
}

/// The first place at or below `path` where something is mounted.
fn mounted_below(path: &Path) -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    // The table writes a blank as an escape.
    places.map(|place| PathBuf::from(place.replace("\\040", " "))).find(|place| place.starts_with(path))
}

/// Makes every folder below `path` one that can be emptied. Links are not followed.
fn unlock(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

/// Deletes what removals left when they were interrupted; says what resists, and why.
pub(super) fn empty_trash(root: &Path) -> io::Result<Vec<(PathBuf, io::Error)>> {
    let paths = children(&root.join(".trash"))?.into_iter();
    Ok(paths.filter_map(|path| delete(&path).err().map(|error| (path, error))).collect())
}

/// Removes the folders of runs and attempts in which nothing is: a workspace was about to be made, or just gone.
pub(super) fn sweep_empty(root: &Path) -> io::Result<()> {
    for folder in children(root)? {
        if file_name(&folder).is_some_and(|name| RunId::new(name).is_ok()) {
            let is_attempt = |path: &PathBuf| {
                let numbers = file_name(path).and_then(|name| name.split_once('-'));
                numbers
                    .is_some_and(|(epoch, attempt)| number::<u64>(epoch).is_some() && number::<u32>(attempt).is_some())
            };
            let attempts: Vec<PathBuf> = children(&folder)?.into_iter().filter(is_attempt).collect();
            for attempt_folder in &attempts {
                remove_if_empty(attempt_folder)?;
            }
            // One without any attempt was never ours.
            if !attempts.is_empty() {
                remove_if_empty(&folder)?;
            }
        }
    }
    Ok(())
}

fn remove_if_empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What a mirror knows of workspaces, whole or half made, and where.
pub(super) fn registered(git_dir: &Path) -> io::Result<Vec<(WorkspaceKey, PathBuf)>> {
    let entries = children(&git_dir.join("worktrees"))?.into_iter();
    Ok(entries.filter_map(|entry| Some((parse_name(file_name(&entry)?)?, entry))).collect())
}

/// Removes every lock file of git's in a mirror, but for those of objects, which block nobody.
pub(super) fn sweep_locks(git_dir: &Path) -> io::Result<()> {
    let mut folders = vec![git_dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if entry.file_name() != "objects" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| end == "lock") {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// The workspaces on disk.
pub(super) fn list(root: &Path) -> io::Result<Vec<WorkspaceKey>> {
    let mut keys = Vec::new();
    for folder in children(root)? {
        let Some(run) = file_name(&folder).and_then(|name| RunId::new(name).ok()) else {
            continue;
        };
        // One that cannot be read is nobody's workspace any more.
        for attempt_folder in children(&folder).unwrap_or_default() {
            let numbers = file_name(&attempt_folder).and_then(|name| name.split_once('-'));
            let Some((epoch, attempt)) = numbers.and_then(|(epoch, attempt)| Some((number(epoch)?, number(attempt)?)))
            else {
                continue;
            };
            for purpose in Purpose::ALL {
                if attempt_folder.join(purpose.folder()).symlink_metadata().is_ok() {
                    keys.push(WorkspaceKey { run: run.clone(), epoch, attempt, purpose });
                }
            }
        }
    }
    keys.sort();
    Ok(keys)
}

/// The key in the name of a mirror's worktree entry; the reverse of [`WorkspaceKey::name`].
pub(super) fn parse_name(name: &str) -> Option<WorkspaceKey> {
    let mut parts = name.rsplitn(4, '.');
    let folder = parts.next()?;
    let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.folder() == folder)?;
    let (attempt, epoch) = (number(parts.next()?)?, number(parts.next()?)?);
    Some(WorkspaceKey { run: RunId::new(parts.next()?).ok()?, epoch, attempt, purpose })
}

/// The key in the name of a workspace's branch; the reverse of [`WorkspaceKey::branch`].
pub(super) fn parse_branch(name: &str) -> Option<WorkspaceKey> {
    let (run, rest) = name.strip_prefix("refs/heads/wt/")?.split_once('/')?;
    let (numbers, purpose) = rest.split_once('/')?;
    parse_name(&format!("{run}.{}.{purpose}", numbers.replacen('-', ".", 1)))
}

/// A number in the one way we write it: `01` and `+1` are not ours.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|value| value.to_string() == text)
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The real folders in a folder; none if it is not there.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}
