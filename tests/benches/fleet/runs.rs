//! Runs a second from end to end: claimed in etcd, started, ended, settled there, and recorded in
//! MongoDB.

use std::time::{Duration, Instant};

use system_tests::stack::Stack;
use tokio::time::sleep;

use crate::scene::{Numbers, Scene};

/// Each due once a second: more than a worker here runs.
const JOBS: usize = 1_000;
/// How long it works before anything is counted, and how long is counted.
const WARM: Duration = Duration::from_secs(5);
const COUNTED: Duration = Duration::from_secs(10);

pub(crate) async fn run(stack: &Stack) {
    println!("\nruns from end to end, {JOBS} jobs each second\n");
    for workers in [1, 3] {
        let mut scene = Scene::start(stack, workers).await;
        scene.put_jobs("full", JOBS, "* * * * * *").await;
        sleep(WARM).await;
        let (before, begun) = (counted(&mut scene).await, Instant::now());
        sleep(COUNTED).await;
        let (after, secs) = (counted(&mut scene).await, begun.elapsed().as_secs_f64());
        let rate = |n: usize| (after[n] - before[n]) / secs;
        println!(
            "{:9}   {:6.0} a second end; {:6.0} records a second more wait for MongoDB",
            crate::bars::workers(workers),
            rate(0),
            rate(1),
        );
        scene.clear().await;
    }
}

/// Runs that have ended, and records, of skipped slots too, that MongoDB has not acknowledged.
async fn counted(scene: &mut Scene) -> [f64; 2] {
    let ended = Numbers::of(&scene.desks()).sum("runs_ended_total");
    let (waiting, _) = scene.count("done/").await;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let waiting = waiting as f64;
    [ended, waiting]
}
