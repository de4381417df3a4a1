//! The rules in force for a repository: policy, gate, builders and anchor, from a commit, from the work tree where
//! the commit has none, or built in. Never from the change that is judged.

use std::path::{Path, PathBuf};

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::ids::{Oid, ProjectId};
use autopack_shared::domain::path::RepoPath;
use autopack_shared::domain::policy::Policy;
use autopack_shared::domain::project::{ANCHOR_PATH, FILE_NAME, ProjectConfig};
use autopack_shared::repo::judge::{JudgeError, Paper};
use autopack_shared::repo::open::OpenError;

use crate::exit::{CliError, During as _};

/// Policy, gate, builders and anchor.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// What `autopack.toml` says, or the built-in policy.
    pub(crate) config: ProjectConfig,
    /// The anchor, if there is one.
    pub(crate) anchor: Option<IntentionAnchorV2>,
    /// What people should know: a copy that is not committed, or differs.
    pub(crate) notes: Vec<String>,
}

impl Rules {
    /// The rules of a commit alone; what it lacks is built in. A file that cannot be used is replaced by the built-in
    /// policy or by no anchor, and comes back as the failure it is: the caller must not let anything pass on it.
    pub(crate) fn at(paper: &Paper, commit: Oid) -> Result<(Self, Option<CliError>), CliError> {
        let config = text_at(paper, commit, FILE_NAME)?.map(|text| config_of(&text, FILE_NAME)).transpose();
        let anchor = text_at(paper, commit, ANCHOR_PATH)?.map(|text| anchor_of(&text, ANCHOR_PATH)).transpose();
        let mut broken = None;
        let mut usable = |error| {
            broken.get_or_insert(error);
        };
        let config = config.map_err(&mut usable).ok().flatten().unwrap_or_default();
        let anchor = anchor.map_err(&mut usable).ok().flatten();
        Ok((Self { config, anchor, notes: Vec::new() }, broken))
    }

    /// The rules a run from `commit` would have: those of the commit, and where it lacks a file, the copy in the work
    /// tree, which `init` registered. `anchor` names another anchor file.
    pub(crate) fn for_run(root: &Path, paper: &Paper, commit: Oid, anchor: Option<&Path>) -> Result<Self, CliError> {
        let mut notes = Vec::new();
        let mut pick = |path: &str| -> Result<Option<String>, CliError> {
            let committed = text_at(paper, commit, path)?;
            let on_disk = read_if_there(&root.join(path))?;
            match (committed, on_disk) {
                (Some(text), Some(disk)) => {
                    if text != disk {
                        notes.push(format!("{path} differs from commit {}: the committed one holds", commit.short()));
                    }
                    Ok(Some(text))
                }
                (Some(text), None) => Ok(Some(text)),
                (None, Some(disk)) => {
                    let why = "the copy that `autopack init` registered holds until it is committed";
                    notes.push(format!("{path} is not committed: {why}"));
                    Ok(Some(disk))
                }
                (None, None) => Ok(None),
            }
        };
        let config =
            pick(FILE_NAME)?.map_or_else(|| Ok(ProjectConfig::default()), |text| config_of(&text, FILE_NAME))?;
        let anchor = match anchor {
            Some(file) => Some(read_anchor(file)?),
            None => pick(ANCHOR_PATH)?.map(|text| anchor_of(&text, ANCHOR_PATH)).transpose()?,
        };
        Ok(Self { config, anchor, notes })
    }

    /// The anchor, which autonomous work cannot do without.
    pub(crate) fn require_anchor(&self) -> Result<&IntentionAnchorV2, CliError> {
        self.anchor.as_ref().ok_or_else(|| {
            CliError::refused(
                "anchor_required",
                "autonomous work needs an anchor",
                format!("this repository has no {ANCHOR_PATH}: nobody said what may be changed here"),
                "autopack init",
            )
        })
    }
}

/// The project's name: as configured, else made from the folder's.
pub(crate) fn project_id(root: &Path, config: &ProjectConfig) -> ProjectId {
    config.project.id.clone().unwrap_or_else(|| project_of_folder(root))
}

/// A valid project name made from the name of a folder.
pub(crate) fn project_of_folder(root: &Path) -> ProjectId {
    let name = root.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut id = String::new();
    for c in name.chars() {
        match c {
            c if fits(c) || (matches!(c, '-' | '_') && !id.is_empty()) => id.push(c),
            _ if id.ends_with('-') || id.is_empty() => {}
            _ => id.push('-'),
        }
    }
    id.truncate(60);
    let id = id.trim_end_matches(['-', '_']);
    ProjectId::new(id).unwrap_or_else(|_| fallback())
}

fn fallback() -> ProjectId {
    ProjectId::new("project").expect("the word follows the grammar of names")
}

/// Opens a repository for judging on paper.
pub(crate) fn paper(root: &Path) -> Result<Paper, CliError> {
    Paper::open(root).map_err(judged)
}

/// A failure to read a repository, in words.
pub(crate) fn judged(error: JudgeError) -> CliError {
    let why = error.to_string();
    match error {
        JudgeError::Open(OpenError::NotARepository { .. }) => {
            CliError::refused("not_a_repository", "cannot open the repository", why, "name one with --repo DIR")
        }
        JudgeError::Open(OpenError::Unsupported { .. }) => {
            let fix = "use a repository with SHA-1 ids and the files ref format";
            CliError::refused("unsupported_repository", "cannot open the repository", why, fix)
        }
        JudgeError::Open(OpenError::NotOwned { .. }) => {
            let fix = "run as its owner, or make it yours with chown";
            CliError::refused("repository_not_owned", "cannot open the repository", why, fix)
        }
        JudgeError::Revision { .. } => {
            CliError::refused("not_found", "no such revision", why, "git log --oneline shows what there is")
        }
        JudgeError::Open(OpenError::Git(_)) | JudgeError::Object(_) | JudgeError::Facts(_) | JudgeError::Import(_) => {
            let fix = "git fsck shows whether the repository is whole";
            CliError::refused("unreadable", "cannot read the repository", why, fix)
        }
    }
}

/// Reads a policy file.
pub(crate) fn read_policy(file: &Path) -> Result<Policy, CliError> {
    let name = file.display().to_string();
    let text = read(file)?;
    Policy::parse(&text, &name).map_err(|error| bad_policy(&error.to_string()))
}

/// Reads a whole `autopack.toml`.
pub(crate) fn read_config(file: &Path) -> Result<ProjectConfig, CliError> {
    config_of(&read(file)?, &file.display().to_string())
}

/// Reads an anchor file.
pub(crate) fn read_anchor(file: &Path) -> Result<IntentionAnchorV2, CliError> {
    anchor_of(&read(file)?, &file.display().to_string())
}

/// Where the anchor of a work tree is.
pub(crate) fn anchor_path(root: &Path, named: Option<&PathBuf>) -> PathBuf {
    named.cloned().unwrap_or_else(|| root.join(ANCHOR_PATH))
}

fn read(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).during(format!("read {}", file.display()))
}

/// What `autopack.toml` says on disk, or what holds without one.
pub(crate) fn config_on_disk(root: &Path) -> Result<ProjectConfig, CliError> {
    let text = read_if_there(&root.join(FILE_NAME))?;
    text.map(|text| config_of(&text, FILE_NAME)).transpose().map(Option::unwrap_or_default)
}

fn read_if_there(file: &Path) -> Result<Option<String>, CliError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).during(format!("read {}", file.display())),
    }
}

fn text_at(paper: &Paper, commit: Oid, path: &str) -> Result<Option<String>, CliError> {
    let canonical = RepoPath::parse(path).map_err(|error| bad_policy(&error.to_string()))?;
    let bytes = paper.read(commit, &canonical).map_err(judged)?;
    let utf8 =
        |bytes| String::from_utf8(bytes).map_err(|_| bad_policy(&format!("{path} at {} is not UTF-8", commit.short())));
    bytes.map(utf8).transpose()
}

fn config_of(text: &str, name: &str) -> Result<ProjectConfig, CliError> {
    ProjectConfig::parse(text, name).map_err(|error| bad_policy(&error.to_string()))
}

fn anchor_of(text: &str, name: &str) -> Result<IntentionAnchorV2, CliError> {
    IntentionAnchorV2::parse(text).map_err(|error| {
        let fix = "autopack anchor lint explains each error";
        CliError::refused("policy_invalid", format!("{name} cannot be used"), error.to_string(), fix)
    })
}

fn bad_policy(why: &str) -> CliError {
    CliError::refused("policy_invalid", "the policy cannot be used", why, "correct it; autopack policy check tries it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_a_valid_name() {
        for (folder, id) in [
            ("/a/My Shop", "my-shop"),
            ("/a/_x_", "x"),
            ("/a/日本", "project"),
            ("/", "project"),
            ("/a/.Dot.v2", "dot-v2"),
        ] {
            assert_eq!(project_of_folder(Path::new(folder)).as_str(), id, "{folder}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert_eq!(project_of_folder(Path::new(&long)).as_str().len(), 60);
    }
}
