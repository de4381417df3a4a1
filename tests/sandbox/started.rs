//! How long a sandbox takes to stand, over a bare start of the same program. Run it with `--run-ignored all`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_worker::process::{self, Cage};

use super::{Jail, ways};

#[tokio::test]
#[ignore = "a measurement, which means little beside other tests"]
async fn a_sandbox_stands_soon() {
    for way in ways() {
        let jail = Jail::new(way.clone());
        let confined = jail.spec(&["/bin/true"]);
        let mut bare = confined.clone();
        bare.cage = Cage::None;
        let (confined, bare) = (median(&confined).await, median(&bare).await);
        println!("{way:?}: {confined:?} against {bare:?} bare");
    }
}

async fn median(spec: &process::ProcSpec) -> Duration {
    let mut took = Vec::new();
    for _ in 0..50 {
        let began = tokio::time::Instant::now();
        process::run(spec, &CancellationToken::new()).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    took[took.len() / 2]
}
