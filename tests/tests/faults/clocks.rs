//! One worker's clock is wrong.

use std::time::Duration;

use crate::support::{assert_well, secs, trial};

/// A worker looks at its clock's file a few times a second.
const HEARD: Duration = Duration::from_secs(1);
/// For a cursor that a fast clock moved, and for what it put off.
const SETTLES: u64 = 15;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_fast_fires_nothing_early() {
    let mut trial = trial(3).await;
    trial.set_clock("w1", 90_000).unwrap();
    tokio::time::sleep(secs(SETTLES)).await;
    trial.set_clock("w1", 0).unwrap();
    tokio::time::sleep(secs(SETTLES)).await;
    let report = assert_well(&mut trial, "a clock 90 s ahead").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_slow_or_steps_back_loses_nothing() {
    let mut trial = trial(3).await;
    trial.set_clock("w1", -90_000).unwrap();
    tokio::time::sleep(secs(SETTLES)).await;
    trial.set_clock("w1", 0).unwrap();
    tokio::time::sleep(HEARD).await;
    trial.works("w1").await.unwrap();
    assert_well(&mut trial, "a clock 90 s behind").await;

    // Within what clocks may be apart, so that it goes on firing.
    for millis in [3_000, -2_000, 1_000, 0] {
        trial.set_clock("w2", millis).unwrap();
        tokio::time::sleep(secs(4)).await;
    }
    trial.works("w2").await.unwrap();
    let report = assert_well(&mut trial, "a clock that steps back").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");
}

/// The clock of the whole process, not only what it takes for its clock. Where libfaketime is
/// installed; elsewhere it says that it is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_deceived_about_the_time_claims_nothing() {
    let mut trial = trial(2).await;
    if !trial.start_worker_deceived("w3", "+90s").await.unwrap() {
        eprintln!("skipped: libfaketime is not installed");
        return;
    }
    tokio::time::sleep(secs(SETTLES)).await;
    let report = assert_well(&mut trial, "a process 90 s ahead").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");
    let log = trial.log("w3");
    assert!(log.contains("clock") && !log.contains("outcome="), "it took part:\n{log}");
}
