//! Builds the two trees of a case as raw objects, names and modes exactly as written.

use std::collections::BTreeMap;

use git2::{ObjectType, Repository, Signature, Time};

use autopack_shared::domain::change::FileMode;
use autopack_shared::domain::ids::{Digest, Oid};
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::raw::{RawEntry, write_tree};

use super::model::{Content, File, Part, Step};

/// What is at a path: a mode, and bytes or the commit of a submodule.
#[derive(Clone)]
struct Node {
    mode: FileMode,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Bytes(Vec<u8>),
    Commit(Oid),
}

type Snapshot = BTreeMap<Vec<u8>, Node>;

pub(crate) struct Bench {
    pub(crate) repo: Repository,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { repo: Repository::init_bare(dir.path()).unwrap(), _dir: dir }
    }

    /// Commits the base.
    pub(crate) fn base(&self, files: &[File]) -> Oid {
        let tree = self.write(&snapshot(files));
        let tree = self.repo.find_tree(to_git(tree)).unwrap();
        let author = Signature::new("cases", "cases@example.invalid", &Time::new(0, 0)).unwrap();
        from_git(self.repo.commit(None, &author, &author, "base", &tree, &[]).unwrap())
    }

    /// Writes the tree of the changed base.
    pub(crate) fn changed(&self, files: &[File], steps: &[Step]) -> Oid {
        let mut nodes = snapshot(files);
        for step in steps.iter().flat_map(|step| expand(step, step.count, |copy, path| copy.path = path)) {
            apply(&mut nodes, &step);
        }
        self.write(&nodes)
    }

    fn write(&self, nodes: &Snapshot) -> Oid {
        let odb = self.repo.odb().unwrap();
        let mut leaves: BTreeMap<Vec<u8>, RawEntry> = BTreeMap::new();
        for (path, node) in nodes {
            let id = match &node.data {
                Data::Bytes(bytes) => from_git(odb.write(ObjectType::Blob, bytes).unwrap()),
                Data::Commit(commit) => *commit,
            };
            leaves.insert(path.clone(), RawEntry { mode: node.mode, padded: false, id });
        }
        write_directory(&odb, &leaves)
    }
}

fn write_directory(odb: &git2::Odb<'_>, leaves: &BTreeMap<Vec<u8>, RawEntry>) -> Oid {
    let mut tree = Vec::new();
    let mut below: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, RawEntry>> = BTreeMap::new();
    for (path, entry) in leaves {
        match path.iter().position(|byte| *byte == b'/') {
            Some(at) => {
                below.entry(path[..at].to_vec()).or_default().insert(path[at + 1..].to_vec(), *entry);
            }
            None => tree.push((path.clone(), *entry)),
        }
    }
    for (name, inner) in below {
        let id = write_directory(odb, &inner);
        tree.push((name, RawEntry { mode: FileMode::TREE, padded: false, id }));
    }
    write_tree(odb, tree).unwrap()
}

fn snapshot(files: &[File]) -> Snapshot {
    let all = files.iter().flat_map(|file| expand(file, file.count, |copy, path| copy.path = path));
    all.map(|file| (path_of(file.path.as_deref(), file.path_b64.as_deref()), node_of(&file))).collect()
}

/// A spec with a count stands for that many, `{i}` in its path being 1 to the count.
fn expand<T: Clone + HasPath>(spec: &T, count: Option<usize>, set: impl Fn(&mut T, Option<String>)) -> Vec<T> {
    let Some(count) = count else {
        return vec![spec.clone()];
    };
    let numbered = |i: usize| {
        let mut copy = spec.clone();
        let path = spec.path().map(|path| path.replace("{i}", &i.to_string()));
        set(&mut copy, path);
        copy
    };
    (1..=count).map(numbered).collect()
}

trait HasPath {
    fn path(&self) -> Option<&str>;
}

impl HasPath for File {
    fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }
}

impl HasPath for Step {
    fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }
}

fn path_of(path: Option<&str>, path_b64: Option<&str>) -> Vec<u8> {
    path.map_or_else(|| base64(path_b64.unwrap()), |path| path.as_bytes().to_vec())
}

fn node_of(file: &File) -> Node {
    let path = path_of(file.path.as_deref(), file.path_b64.as_deref());
    if let Some(target) = &file.symlink {
        return Node { mode: FileMode::SYMLINK, data: Data::Bytes(target.clone().into_bytes()) };
    }
    if let Some(commit) = &file.gitlink {
        return Node { mode: FileMode::GITLINK, data: Data::Commit(commit.parse().unwrap()) };
    }
    let bytes = bytes_of(
        &tag(file.seed.as_deref(), &path),
        file.content.as_ref(),
        file.lines,
        file.bytes,
        file.blob_b64.as_deref(),
    );
    Node { mode: mode_of(file.mode.as_deref()).unwrap_or(FileMode::FILE), data: Data::Bytes(bytes.unwrap()) }
}

fn mode_of(text: Option<&str>) -> Option<FileMode> {
    text.map(|digits| FileMode(u32::from_str_radix(digits, 8).unwrap()))
}

fn tag(seed: Option<&str>, path: &[u8]) -> String {
    seed.map_or_else(|| Digest::of(path).to_hex()[..8].to_owned(), str::to_owned)
}

fn bytes_of(
    tag: &str,
    content: Option<&Content>,
    lines: Option<usize>,
    bytes: Option<usize>,
    blob_b64: Option<&str>,
) -> Option<Vec<u8>> {
    let parts = |parts: &[Part]| {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Repeat { repeat, times } => repeat.repeat(*times),
        };
        parts.iter().map(text).collect::<String>()
    };
    match (content, lines, bytes, blob_b64) {
        (Some(Content::Text(text)), ..) => Some(text.clone().into_bytes()),
        (Some(Content::Parts(list)), ..) => Some(parts(list).into_bytes()),
        (None, Some(count), ..) => Some(numbered("line", count, tag)),
        (None, None, Some(count), _) => {
            let mut data = [b"\0", tag.as_bytes()].concat();
            data.resize(count, 0);
            Some(data)
        }
        (None, None, None, Some(text)) => Some(base64(text)),
        (None, None, None, None) => None,
    }
}

fn numbered(word: &str, count: usize, tag: &str) -> Vec<u8> {
    (1..=count).map(|i| format!("{word} {i} of {tag}\n")).collect::<String>().into_bytes()
}

fn apply(nodes: &mut Snapshot, step: &Step) {
    let path = step.path.is_some() || step.path_b64.is_some();
    let path = if path { path_of(step.path.as_deref(), step.path_b64.as_deref()) } else { Vec::new() };
    let mode = mode_of(step.mode.as_deref());
    match step.op.as_str() {
        "add" | "binary" => {
            let data = Data::Bytes(content(step, &path).unwrap());
            nodes.insert(path, Node { mode: mode.unwrap_or(FileMode::FILE), data });
        }
        "modify" => {
            let node = nodes.get(&path).unwrap().clone();
            let data = content(step, &path).map_or_else(|| edit(&node, step, &path), Data::Bytes);
            nodes.insert(path, Node { mode: mode.unwrap_or(node.mode), data });
        }
        "delete" => assert!(nodes.remove(&path).is_some()),
        "rename" | "copy" => transfer(nodes, step, mode),
        "chmod" => nodes.get_mut(&path).unwrap().mode = mode.unwrap(),
        "symlink" => {
            let data = Data::Bytes(step.target.clone().unwrap().into_bytes());
            nodes.insert(path, Node { mode: FileMode::SYMLINK, data });
        }
        "gitlink" => {
            let data = Data::Commit(step.commit.as_ref().unwrap().parse().unwrap());
            nodes.insert(path, Node { mode: FileMode::GITLINK, data });
        }
        other => panic!("no such op: {other}"),
    }
}

fn content(step: &Step, path: &[u8]) -> Option<Vec<u8>> {
    let tag = tag(step.seed.as_deref(), path);
    bytes_of(&tag, step.content.as_ref(), step.lines, step.bytes, step.blob_b64.as_deref())
}

fn transfer(nodes: &mut Snapshot, step: &Step, mode: Option<FileMode>) {
    let from = step.from.as_ref().unwrap().as_bytes();
    let to = step.to.as_ref().unwrap().as_bytes();
    let node = nodes.get(from).unwrap().clone();
    if step.op == "rename" {
        nodes.remove(from);
    }
    let data = if step.added.is_some() { edit(&node, step, to) } else { node.data };
    nodes.insert(to.to_vec(), Node { mode: mode.unwrap_or(node.mode), data });
}

/// The first lines dropped, new ones appended.
fn edit(node: &Node, step: &Step, path: &[u8]) -> Data {
    let Data::Bytes(old) = &node.data else { panic!("a submodule has no lines") };
    let lines: Vec<&[u8]> = old.split_inclusive(|byte| *byte == b'\n').collect();
    let mut data = lines[step.removed.unwrap()..].concat();
    data.extend(numbered("added", step.added.unwrap(), &tag(step.seed.as_deref(), path)));
    Data::Bytes(data)
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        bits = bits << 6 | u32::try_from(DIGITS.iter().position(|digit| *digit == c).unwrap()).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    out
}
