//! Workers that die, freeze or are restarted.

use carillon_core::id::RunId;
use system_tests::faults::with_environment;
use system_tests::trial::POINTS;

use crate::support::{assert_well, secs, trial};

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_die_leave_no_slot_undecided_and_none_decided_twice() {
    let mut trial = trial(3).await;
    for point in POINTS {
        trial.die_at(&format!("dies-{point}"), point).await.unwrap();
    }
    let report = assert_well(&mut trial, "kill -9 at each point").await;
    assert!(report.outcomes.get("lost").is_some_and(|lost| *lost >= 2), "{report}");

    trial.kill_worker("w1").unwrap();
    trial.fires().await.unwrap();
    trial.start_worker("w1", &[]).await.unwrap();
    trial.works("w1").await.unwrap();
    assert_well(&mut trial, "kill -9 in the middle of runs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_past_its_lease_doubles_nothing() {
    let mut trial = trial(3).await;
    trial.pause_worker("w2").await.unwrap();
    trial.works("w2").await.unwrap();
    assert_well(&mut trial, "SIGSTOP past the lease, then CONT").await;
    // It was alive all the time, and its own children are its to end.
    tokio::time::sleep(secs(2)).await;
    assert_eq!(trial.left_behind(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing() {
    let mut trial = trial(3).await;
    trial.restart_all().await.unwrap();
    let report = assert_well(&mut trial, "a rolling restart").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");
    assert_eq!(report.outcomes.get("lost"), None, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_children_of_a_killed_worker_end() {
    let mut trial = trial(2).await;
    let run: RunId = trial.line("a long run", |line| line.job == "replace").await.unwrap().run;
    let victim = trial.log("w1").contains(&run.to_string());
    trial.kill_worker(if victim { "w1" } else { "w2" }).unwrap();
    assert_well(&mut trial, "kill -9").await;
    assert_eq!(with_environment("CARILLON_RUN", &run.to_string()), [] as [u32; 0]);
    assert_eq!(trial.left_behind(), []);
}
