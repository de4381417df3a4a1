//! `approve`: from the call that approves a change to the start of its apply, as somebody who watches the run hears of it.

use super::cluster::Cluster;
use super::life::Life;
use super::report::{Aim, Better, Figure};
use super::stats::Sample;
use super::{Bench, EACH};
use crate::exit::CliError;

/// Measures it.
pub(super) async fn measure(bench: &Bench<'_>, cluster: &mut Cluster) -> Result<Figure, CliError> {
    cluster.work().await?;
    let mut life = Life::new(bench, cluster, "approve").await?;
    let mut sample = Sample::default();
    for n in 0..=bench.repeat() * EACH {
        let waiting = life.submit().await?;
        let took = life.approve(waiting).await?;
        if n > 0 {
            sample.add_millis(took);
        }
    }
    bench.say(&format!("approve: {:.1} ms", sample.median()));
    Ok(Figure {
        name: "approve",
        what: "approve to apply started, as a watcher hears it".to_owned(),
        unit: "ms",
        better: Better::Less,
        measured: sample,
        floors: Vec::new(),
        aim: Some(Aim::AtMost(50.0)),
    })
}
