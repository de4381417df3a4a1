//! `scan`: the gap scan of a large repository, beside `git status` and `git ls-files` on the same tree.

use std::path::Path;

use tokio::time::Instant;

use autopack_shared::domain::ids::{ProjectId, RunId, Timestamp};
use autopack_worker::scan::{ScanOptions, scan};

use super::cluster::{commit_all, git};
use super::report::{Aim, Better, Figure, Floor};
use super::services::scratch;
use super::stats::Sample;
use super::{Bench, tree};
use crate::exit::{CliError, During as _};

/// Files of the tree, also where it is quick.
const FILES: (usize, usize) = (50_000, 500);
/// Memory, where there is some to have a file system on: the disk is not what is measured.
const MEMORY: &str = "/dev/shm";

/// Measures it.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Figure, CliError> {
    let files = if bench.quick() { FILES.1 } else { FILES.0 };
    let place = bench.dir().or_else(|| Some(Path::new(MEMORY)).filter(|memory| memory.is_dir()));
    let folder = scratch(place, "autopack-bench-scan-")?;
    let root = folder.path();
    bench.say(&format!("scan: making a repository of {files} files"));
    tree::make(root, files).during("make a repository")?;
    commit_all(root)?;
    // As a clone has it.
    git(root, &["repack", "-a", "-d", "-q"])?;
    git(root, &["prune-packed", "-q"])?;
    let options = ScanOptions::new(
        RunId::new("bench").during("name a run")?,
        ProjectId::new("bench").during("name a project")?,
        Timestamp::from_millis(1_767_225_600_000),
    );
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    // The first round warms caches and lets git refresh its index.
    for round in 0..=bench.repeat() * 2 {
        let from = Instant::now();
        git(root, &["status", "--porcelain"])?;
        git(root, &["ls-files"])?;
        let looked = from.elapsed();
        let from = Instant::now();
        scan(root, &options).map_err(std::io::Error::other).during("scan")?;
        let scanned = from.elapsed();
        if round > 0 {
            theirs.add_millis(looked);
            ours.add_millis(scanned);
        }
    }
    bench.say(&format!("scan: {:.0} ms beside {:.0} ms", ours.median(), theirs.median()));
    Ok(Figure {
        name: "scan",
        what: format!("gap scan of {files} files, warm"),
        unit: "ms",
        better: Better::Less,
        measured: ours,
        floors: vec![Floor { what: "git status + ls-files", sample: theirs }],
        aim: Some(Aim::Ratio(1.5)),
    })
}
