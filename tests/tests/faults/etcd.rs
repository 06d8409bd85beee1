//! Members of etcd that die, freeze, forget, or have no room.

use system_tests::proxy::Mode;
use system_tests::trial::{CutOff, Options};

use crate::support::{assert_well, secs, trial, with_options};

#[tokio::test(flavor = "multi_thread")]
async fn members_of_etcd_die_one_after_the_other() {
    let mut trial = trial(3).await;
    let leader = trial.stack().etcd_leader().await.unwrap();
    trial.kill_member(leader, secs(3)).await.unwrap();
    let leader = trial.stack().etcd_leader().await.unwrap();
    for follower in (0..3).filter(|member| *member != leader) {
        trial.kill_member(follower, secs(2)).await.unwrap();
    }
    let report = assert_well(&mut trial, "kill -9 of the leader and of each follower").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");

    trial.pause_leader(secs(8)).await.unwrap();
    let report = assert_well(&mut trial, "SIGSTOP of the leader, then CONT").await;
    assert_eq!(report.outcomes.get("missed"), None, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_seconds_without_a_majority_are_accounted_for() {
    let mut trial = trial(3).await;
    trial.lose_quorum(secs(20)).await.unwrap();
    for id in trial.workers() {
        trial.works(&id).await.unwrap();
    }
    // The slots with a short deadline that were missed are settled at deadline and skew, and must
    // not keep those behind them from running.
    tokio::time::sleep(secs(12)).await;
    let now = chrono::Utc::now();
    trial.line("`short` to run again", |line| line.job == "short" && line.at > now).await.unwrap();
    assert_well(&mut trial, "two of three members away for 20 s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_takes_nothing_from_a_worker_that_was_away() {
    let mut trial = trial(3).await;
    trial.compact_behind("w1").await.unwrap();
    trial.works("w1").await.unwrap();

    // More than one page of keys, so that a list is still being read when it is compacted.
    trial.fill_keys(12_000).await.unwrap();
    trial.set_network("w2", CutOff::Etcd, Mode::Drop).unwrap();
    trial.set_network("w2", CutOff::Etcd, Mode::Delay(secs(1) / 10)).unwrap();
    for _ in 0..10 {
        trial.compact().await.unwrap();
        tokio::time::sleep(secs(1) / 4).await;
    }
    trial.set_network("w2", CutOff::Etcd, Mode::Pass).unwrap();
    trial.works("w2").await.unwrap();
    assert_well(&mut trial, "compaction behind a watch and during a list").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_without_room_delays_and_loses_nothing() {
    let quota = format!("--quota-backend-bytes={}", 64 << 20);
    let mut trial =
        with_options(Options { etcd_arguments: vec![quota], ..Options::default() }).await;
    trial.fill_etcd(secs(6)).await.unwrap();
    for id in trial.workers() {
        trial.works(&id).await.unwrap();
    }
    assert_well(&mut trial, "etcd out of space").await;
}
