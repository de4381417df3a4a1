//! `first-byte`: from the call that submits a run to what its builder does first, on a cluster that has nothing else to
//! do. The builder tells the time itself.

use super::cluster::Cluster;
use super::life::Life;
use super::report::{Aim, Better, Figure};
use super::stats::Sample;
use super::{Bench, EACH};
use crate::exit::CliError;

/// Measures it.
pub(super) async fn measure(bench: &Bench<'_>, cluster: &mut Cluster) -> Result<Figure, CliError> {
    cluster.work().await?;
    let mut life = Life::new(bench, cluster, "first").await?;
    let mut sample = Sample::default();
    // The first run brings the project to the worker.
    for n in 0..=bench.repeat() * EACH {
        let waiting = life.submit().await?;
        if n > 0 {
            sample.add_millis(waiting.first_byte);
        }
        life.cancel(waiting).await?;
    }
    bench.say(&format!("first-byte: {:.1} ms", sample.median()));
    Ok(Figure {
        name: "first-byte",
        what: "submit to the builder's first act, idle cluster, one worker".to_owned(),
        unit: "ms",
        better: Better::Less,
        measured: sample,
        floors: Vec::new(),
        aim: Some(Aim::AtMost(100.0)),
    })
}
