//! `workspace` and `collect`: a lease's worktree beside `git worktree add`, and what comes back of it.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use autopack_shared::domain::ids::{Oid, RunId};
use autopack_shared::repo::collect::CollectLimits;
use autopack_shared::repo::mirror::{Mirror, Purpose, WorkspaceKey};
use autopack_shared::repo::open;
use autopack_shared::repo::pack::{PackBudget, Quarantine};

use super::cluster::{commit_all, git};
use super::report::{Aim, Better, Figure, Floor};
use super::services::scratch;
use super::stats::Sample;
use super::{Bench, tree};
use crate::exit::{CliError, During as _};

/// Files of the tree, also where it is quick.
const FILES: (usize, usize) = (10_000, 500);
/// Files that each commit, and each builder, changes.
const CHANGED: usize = 20;
/// Leases a repetition.
const LEASES: u32 = 2;
/// Worktrees that are made at once.
const AT_ONCE: u64 = 16;

/// A repository that moves on, and a worker's mirror of it.
struct Place {
    folder: PathBuf,
    root: PathBuf,
    mirror: Mirror,
    files: usize,
    base: Oid,
    leases: u64,
}

impl Place {
    fn make(folder: &Path, files: usize) -> Result<Self, CliError> {
        let root = folder.join("repo");
        tree::make(&root, files).during("make a repository")?;
        commit_all(&root)?;
        // As a clone has it.
        git(&root, &["repack", "-a", "-d", "-q"])?;
        git(&root, &["prune-packed", "-q"])?;
        let objects = root.join(".git/objects");
        let mirror = Mirror::open_or_create(&folder.join("worker"), Some(&objects)).map_err(std::io::Error::other);
        let base = head(&root)?;
        Ok(Self { folder: folder.to_path_buf(), root, mirror: mirror.during("open a mirror")?, files, base, leases: 0 })
    }

    fn key(&mut self) -> Result<WorkspaceKey, CliError> {
        self.leases += 1;
        let run = RunId::new(format!("bench-{}", self.leases)).during("name a run")?;
        Ok(WorkspaceKey { run, epoch: 1, attempt: 1, purpose: Purpose::Build })
    }

    /// Changes some files, all over the tree, in a folder that holds it.
    fn change(&self, folder: &Path, round: u32) -> std::io::Result<()> {
        for n in 0..CHANGED {
            let module = n * self.files.div_ceil(50) / CHANGED;
            let text = format!("{{\"module\": {module}, \"round\": {round}}}\n");
            fs::write(folder.join(format!("area{}/module{module}/data8.json", module % 40)), text)?;
        }
        Ok(())
    }

    /// The next commit of the project.
    fn moves_on(&mut self, round: u32) -> Result<Oid, CliError> {
        self.change(&self.root, round).during("change files")?;
        commit_all(&self.root)?;
        let before = std::mem::replace(&mut self.base, head(&self.root)?);
        Ok(before)
    }
}

fn head(root: &Path) -> Result<Oid, CliError> {
    let text = fs::read_to_string(root.join(".git/refs/heads/main")).during("read the branch")?;
    text.trim().parse().map_err(std::io::Error::other).during("read the branch")
}

/// Measures them.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>, CliError> {
    let files = if bench.quick() { FILES.1 } else { FILES.0 };
    let folder = scratch(bench.dir(), "autopack-bench-workspace-")?;
    bench.say(&format!("workspace: making a repository of {files} files"));
    let (large, small) = (folder.path().join("large"), folder.path().join("small"));
    let mut place = Place::make(&large, files)?;
    let mut figures = vec![ready(bench, &mut place)?, collect(bench, &mut place)?];
    // What fails there are locks, however many files there are.
    figures.push(at_once(bench, &mut Place::make(&small, FILES.1)?)?);
    bench.say("workspace: removing what was made");
    Ok(figures)
}

/// From a lease to a worktree that is ready, the project one commit further than what was prepared. Nothing is removed in
/// between: a file system that has just deleted much makes files slowly.
fn ready(bench: &Bench<'_>, place: &mut Place) -> Result<Figure, CliError> {
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    for round in 0..=bench.repeat() * LEASES {
        let before = place.moves_on(round)?;
        let prepared = place.mirror.prepare(before, u64::MAX, &|| true).map_err(std::io::Error::other);
        let prepared = prepared.during("prepare a worktree")?;
        let (key, base) = (place.key()?, place.base);
        let from = Instant::now();
        place.mirror.create_from(&key, base, prepared).map_err(std::io::Error::other).during("make a worktree")?;
        let made = from.elapsed();
        let path = place.folder.join(format!("reference-{round}"));
        let from = Instant::now();
        git(&place.root, &["worktree", "add", "-q", "--detach", &path.display().to_string(), &base.to_string()])?;
        let added = from.elapsed();
        // The first round warms caches.
        if round > 0 {
            ours.add_millis(made);
            theirs.add_millis(added);
        }
    }
    bench.say(&format!("workspace: p95 {:.0} ms beside {:.0} ms", ours.p95(), theirs.median()));
    Ok(Figure {
        name: "workspace",
        what: format!("lease to ready, {} files, {CHANGED} of them changed since; p95 at most 200 ms", place.files),
        unit: "ms",
        better: Better::Less,
        measured: ours,
        floors: vec![Floor { what: "git worktree add", sample: theirs }],
        aim: Some(Aim::Ratio(1.0 / 3.0)),
    })
}

/// Many leases at once, none prepared.
fn at_once(bench: &Bench<'_>, place: &mut Place) -> Result<Figure, CliError> {
    let mut failed = Sample::default();
    for _ in 0..bench.repeat() {
        let keys = (0..AT_ONCE).map(|_| place.key()).collect::<Result<Vec<_>, _>>()?;
        let (mirror, base) = (&place.mirror, place.base);
        let count = std::thread::scope(|scope| {
            let threads: Vec<_> =
                keys.iter().map(|key| scope.spawn(move || mirror.create(key, base).is_ok())).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|made| *made).count()
        });
        failed.add((AT_ONCE as usize - count) as f64);
    }
    Ok(Figure {
        name: "workspace-at-once",
        what: format!("failures of {AT_ONCE} creations at once"),
        unit: "",
        better: Better::Less,
        measured: failed,
        floors: Vec::new(),
        aim: Some(Aim::AtMost(0.0)),
    })
}

/// What a builder changed, from its death to the hub's objects; the way over the network is not in it.
fn collect(bench: &Bench<'_>, place: &mut Place) -> Result<Figure, CliError> {
    let reference = place.folder.join("reference-1");
    let hub = open::open_bare(&place.root.join(".git")).map_err(std::io::Error::other).during("open the hub")?;
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    let prepared = place.mirror.prepare(place.base, u64::MAX, &|| true).map_err(std::io::Error::other);
    let key = place.key()?;
    let space = place.mirror.create_from(&key, place.base, prepared.during("prepare a worktree")?);
    let space = space.map_err(std::io::Error::other).during("make a worktree")?;
    let upload = |tree| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let pack = place.mirror.pack(space.base(), tree)?;
        let quarantine = Quarantine::new(&place.root.join(".git/objects"), &place.folder.join("quarantine"))?;
        quarantine.ingest(&pack, &PackBudget::default())?;
        quarantine.verify(space.base(), tree)?;
        Ok(quarantine.promote(&hub, space.base(), tree)?)
    };
    for round in 0..=bench.repeat() * LEASES {
        place.change(space.path(), 1_000 + round).during("change files")?;
        place.change(&reference, 1_000 + round).during("change files")?;
        let from = Instant::now();
        let collected = place.mirror.collect(&space, &CollectLimits::default()).map_err(std::io::Error::other);
        upload(collected.during("collect")?.result_tree).map_err(std::io::Error::other).during("upload")?;
        let taken = from.elapsed();
        let from = Instant::now();
        git(&reference, &["add", "-A"])?;
        git(&reference, &["write-tree"])?;
        let written = from.elapsed();
        if round > 0 {
            ours.add_millis(taken);
            theirs.add_millis(written);
        }
    }
    bench.say(&format!("collect: {:.0} ms beside {:.0} ms", ours.median(), theirs.median()));
    Ok(Figure {
        name: "collect",
        what: format!("collect and upload {CHANGED} changed of {} files, quarantine and hub included", place.files),
        unit: "ms",
        better: Better::Less,
        measured: ours,
        floors: vec![Floor { what: "git add -A + write-tree", sample: theirs }],
        aim: Some(Aim::AtMost(300.0)),
    })
}
