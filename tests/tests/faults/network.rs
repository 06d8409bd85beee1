//! Workers that are cut off, and answers that are lost.

use system_tests::proxy::Mode;
use system_tests::trial::CutOff;

use crate::support::{assert_well, secs, trial};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_is_replaced_and_comes_back() {
    let mut trial = trial(4).await;
    // Two at once: the other two are healthy throughout.
    for (first, second, from) in
        [("w1", "w2", CutOff::Etcd), ("w3", "w4", CutOff::Mongo), ("w1", "w2", CutOff::Both)]
    {
        trial.set_network(first, from, Mode::Drop).unwrap();
        trial.set_network(second, from, Mode::Hang).unwrap();
        tokio::time::sleep(secs(14)).await;
        trial.set_network(first, from, Mode::Pass).unwrap();
        trial.set_network(second, from, Mode::Pass).unwrap();
        trial.works(first).await.unwrap();
        trial.works(second).await.unwrap();
        let report = assert_well(&mut trial, &format!("cut off from {from:?}")).await;
        assert_eq!(report.outcomes.get("missed"), None, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_adopted_and_never_doubled() {
    let mut trial = trial(2).await;
    for _ in 0..3 {
        // Shorter than the lease: what it claimed meanwhile is still its own.
        trial.network("w1", CutOff::Etcd, Mode::LoseAnswers, secs(3)).await.unwrap();
        trial.works("w1").await.unwrap();
    }
    let report = assert_well(&mut trial, "answers lost after commit").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");
    let log = trial.log("w1");
    assert!(log.contains("adopted"), "no claim was adopted:\n{log}");

    trial.network("w2", CutOff::Both, Mode::Delay(secs(1) / 5), secs(8)).await.unwrap();
    let report = assert_well(&mut trial, "a slow network").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");
}

/// Where root and `ip` are at hand; elsewhere it says that it is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_cable_is_pulled_is_replaced_and_comes_back() {
    let mut trial = trial(2).await;
    if !trial.start_worker_far("far").await.unwrap() {
        eprintln!("skipped: it takes root, ip(8) and network namespaces");
        return;
    }
    // Once for less than its lease, once for longer.
    for away in [4, 14] {
        trial.works("far").await.unwrap();
        trial.pull_cable("far", secs(away)).await.unwrap();
        trial.works("far").await.unwrap();
        let report = assert_well(&mut trial, &format!("no cable for {away} s")).await;
        assert_eq!(report.outcomes.get("missed"), None, "{report}");
    }
}
