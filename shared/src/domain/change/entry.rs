//! One changed path.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::ids::Oid;
use crate::domain::path::{RefusedPath, RepoPath};
use crate::domain::secret::SecretHit;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// It was not there.
    Add,
    /// Its content is another.
    Modify,
    /// It is not there any more.
    Delete,
    /// A file became a link or a submodule, or the other way round.
    Type,
    /// Only its mode is another.
    Mode,
}

/// A mode exactly as the tree stores it, `000000` where there is none. Shown as six octal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct FileMode(pub u32);

impl FileMode {
    /// No such side.
    pub const ABSENT: Self = Self(0);
    /// A plain file.
    pub const FILE: Self = Self(0o100_644);
    /// An executable file.
    pub const EXECUTABLE: Self = Self(0o100_755);
    /// A symlink.
    pub const SYMLINK: Self = Self(0o120_000);
    /// A submodule.
    pub const GITLINK: Self = Self(0o160_000);
    /// A directory.
    pub const TREE: Self = Self(0o040_000);

    /// Whether git knows it as the mode of a leaf.
    #[must_use]
    pub fn is_valid(self) -> bool {
        [Self::FILE, Self::EXECUTABLE, Self::SYMLINK, Self::GITLINK].contains(&self)
    }

    /// The bits that tell files from links and submodules.
    #[must_use]
    pub const fn kind(self) -> u32 {
        self.0 & 0o170_000
    }

    /// Whether it is that of a regular file, valid or not.
    #[must_use]
    pub const fn is_regular(self) -> bool {
        self.kind() == 0o100_000
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06o}", self.0)
    }
}

impl From<FileMode> for String {
    fn from(value: FileMode) -> Self {
        value.to_string()
    }
}

impl TryFrom<String> for FileMode {
    type Error = std::num::ParseIntError;
    fn try_from(value: String) -> Result<Self, Self::Error> {
        u32::from_str_radix(&value, 8).map(Self)
    }
}

/// The path of an entry: canonical, or a printable form of one that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub enum EntryPath {
    /// A path like any other.
    Safe(RepoPath),
    /// A path that no change may have.
    Refused {
        /// A printable form.
        shown: String,
        /// The rule of spelling it breaks, if any.
        unsafe_because: Option<String>,
        /// Whether it lies in git's own directory.
        git_internal: bool,
    },
}

impl EntryPath {
    /// Judges the bytes of a path.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match RepoPath::inspect(bytes) {
            Ok(path) => Self::Safe(path),
            Err(refused) => refused.into(),
        }
    }

    /// The path, or the printable form of it.
    #[must_use]
    pub fn shown(&self) -> &str {
        match self {
            Self::Safe(path) => path.as_str(),
            Self::Refused { shown, .. } => shown,
        }
    }

    /// The directory that holds it, empty for the root.
    #[must_use]
    pub fn parent(&self) -> &str {
        self.shown().rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

/// In the order in which they are shown.
impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.shown().cmp(other.shown())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<RefusedPath> for EntryPath {
    fn from(value: RefusedPath) -> Self {
        let RefusedPath { shown, unsafe_because, git_internal } = value;
        Self::Refused { shown, unsafe_because: unsafe_because.map(str::to_owned), git_internal }
    }
}

/// A printable form is refused as its original was: what was escaped has a backslash in it, the rest is unchanged.
impl From<String> for EntryPath {
    fn from(value: String) -> Self {
        match Self::of(value.as_bytes()) {
            Self::Refused { unsafe_because, git_internal, .. } => {
                Self::Refused { shown: value, unsafe_because, git_internal }
            }
            safe @ Self::Safe(_) => safe,
        }
    }
}

impl From<EntryPath> for String {
    fn from(value: EntryPath) -> Self {
        value.shown().to_owned()
    }
}

/// The other half of an exact move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MovedFrom {
    /// Where the content was.
    pub path: String,
    /// The mode it had there.
    pub mode: FileMode,
}

/// Where a symlink leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkTarget {
    /// The text of the link, printable.
    pub text: String,
    /// Where that is.
    pub end: LinkEnd,
}

/// Where a symlink ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkEnd {
    /// Not inside the repository, or not to be told by its text.
    Outside {
        /// Why.
        why: String,
    },
    /// The whole repository.
    Root,
    /// Inside.
    Inside {
        /// The path the text names and, where that is a link itself, every further one.
        hops: Vec<EntryPath>,
        /// What the result tree holds below it, where it is a folder.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        contents: Vec<RepoPath>,
        /// Whether there is more below it than was listed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
}

/// One changed path and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Where.
    pub path: EntryPath,
    /// What happened.
    pub op: Op,
    /// The mode in the base.
    pub old_mode: FileMode,
    /// The mode in the result.
    pub new_mode: FileMode,
    /// Whether git would show no lines for it.
    pub binary: bool,
    /// Added lines.
    pub added: u64,
    /// Removed lines.
    pub removed: u64,
    /// The content in the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub new_id: Option<Oid>,
    /// Its length in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Whether the content in the result, taken alone, is binary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_binary: bool,
    /// Characters of the longest added line.
    #[serde(default)]
    pub longest_line: u64,
    /// The partner of an exact move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<MovedFrom>,
    /// Secrets in added lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretHit>,
    /// Where it leads, for a symlink that is new or another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkTarget>,
    /// Whether the base has a symlink among its parents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub below_symlink: bool,
    /// Whether the base has a submodule among its parents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub below_gitlink: bool,
    /// Whether the tree writes the new mode in a form git does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub odd_mode: bool,
}

impl Entry {
    /// A change of a plain file, to start from.
    #[must_use]
    pub fn new(path: EntryPath, old_mode: FileMode, new_mode: FileMode) -> Self {
        let op = match (old_mode, new_mode) {
            (FileMode::ABSENT, _) => Op::Add,
            (_, FileMode::ABSENT) => Op::Delete,
            (old, new) if old.kind() != new.kind() => Op::Type,
            (_, _) => Op::Modify,
        };
        Self {
            path,
            op,
            old_mode,
            new_mode,
            binary: false,
            added: 0,
            removed: 0,
            new_id: None,
            bytes: 0,
            new_binary: false,
            longest_line: 0,
            moved_from: None,
            secrets: Vec::new(),
            link: None,
            below_symlink: false,
            below_gitlink: false,
            odd_mode: false,
        }
    }

    /// Whether it is a submodule on either side.
    #[must_use]
    pub fn is_gitlink(&self) -> bool {
        [self.old_mode, self.new_mode].contains(&FileMode::GITLINK)
    }

    /// Whether it is a symlink in the result that is new there or leads elsewhere.
    #[must_use]
    pub fn is_new_symlink(&self) -> bool {
        self.new_mode == FileMode::SYMLINK && self.op != Op::Mode
    }

    /// Whether the executable bit or the type is another than before. An exact move that keeps its mode is not.
    #[must_use]
    pub fn changes_mode(&self) -> bool {
        match self.op {
            Op::Add => {
                let before = self.moved_from.as_ref().map_or(FileMode::FILE, |from| from.mode);
                self.new_mode.is_regular() && self.new_mode != before
            }
            Op::Modify | Op::Type | Op::Mode => self.old_mode != self.new_mode,
            Op::Delete => false,
        }
    }
}
