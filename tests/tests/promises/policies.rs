//! What a job's policies promise: other attempts, catching up, every worker, and going on without
//! a lease.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon_core::run::{Outcome, RunRecord, Trigger};
use chrono::{DateTime, Utc};
use system_tests::fleet::{Fleet, Options};
use system_tests::stack::Stack;

use crate::support::{Scene, eventually};

/// No slot of it comes during a test.
const NEVER: &str = "0 0 1 1 *";

fn job(name: &str, command: &str, schedule: &str, further: &str) -> String {
    format!(r#"{{"name":"{name}","command":"{command}","cronExpr":"{schedule}"{further}}}"#)
}

/// Workers that take two clocks of the fleet to be a second apart at most: what passed is settled
/// soon.
async fn exact(workers: usize) -> Scene {
    let stack = Stack::shared().await.unwrap();
    let arguments = ["--max-skew", "1"].map(str::to_owned).to_vec();
    let options = Options { arguments, ..Options::default() };
    let fleet = Fleet::start_with(&stack, workers, options).await.unwrap();
    Scene::of(stack, fleet).await
}

/// The records of a job that `wanted` accepts, oldest first, once there are `count`.
async fn records(
    scene: &Scene,
    job: &str,
    count: usize,
    wanted: impl Fn(&RunRecord) -> bool,
) -> Vec<RunRecord> {
    eventually(&format!("{count} records of {job}"), || async {
        let mut found = scene.records_of(job).await?;
        found.retain(&wanted);
        (found.len() >= count).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_tried_again_as_often_as_the_job_says() {
    let scene = Scene::shared(2).await;
    let retries = r#","retries":{"max":2,"delaySecs":1,"maxDelaySecs":1}"#;
    scene.put("flaky", &job("flaky", "exit 3", NEVER, retries));
    scene.carillon(&["run", "flaky"]);
    let tries = records(&scene, "flaky", 3, |r| r.outcome == Outcome::Failed).await;
    let told: Vec<_> = tries.iter().map(|r| (r.attempt, r.trigger)).collect();
    assert_eq!(told, [(1, Trigger::Manual), (2, Trigger::Retry), (3, Trigger::Retry)]);
    for pair in tries.windows(2) {
        let pause = pair[1].start_time - pair[0].end_time.unwrap();
        assert!((900..5_000).contains(&pause.num_milliseconds()), "{pause}");
    }
    let waiting = scene.stack.etcdctl(&["get", "--prefix", &scene.key("trigger/flaky/")]).unwrap();
    assert_eq!(waiting, "", "nothing follows the last attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_is_not_tried_again() {
    let scene = Scene::shared(2).await;
    let retries = r#","retries":{"max":5,"delaySecs":3}"#;
    scene.put("halted", &job("halted", "exit 3", NEVER, retries));
    scene.carillon(&["run", "halted"]);
    scene.record("halted", |r| r.outcome == Outcome::Failed).await;
    scene.carillon_ok(&["pause", "halted"]);
    let skipped = scene.record("halted", |r| r.outcome == Outcome::Skipped).await;
    assert_eq!((skipped.attempt, skipped.trigger), (2, Trigger::Retry));
    assert!(skipped.err.contains("paused"), "{}", skipped.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_a_run_that_was_killed() {
    let scene = Scene::shared(2).await;
    let retries = r#","retries":{"max":5,"delaySecs":0}"#;
    // It fails by itself when it is told to end: the kill is what counts.
    let command = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
    scene.put("unwanted", &job("unwanted", command, NEVER, retries));
    scene.carillon_ok(&["run", "unwanted"]);
    scene.started("unwanted").await;
    scene.carillon_ok(&["kill", "unwanted", "--wait"]);
    let ended = scene.finished("unwanted").await;
    assert_eq!(ended.outcome, Outcome::Killed);
    let waiting = scene.stack.etcdctl(&["get", "--prefix", &scene.key("trigger/")]).unwrap();
    assert_eq!(waiting, "");
}

/// Stops the fleet until slots were missed for certain, and starts it again. Returns when it was
/// away.
async fn outage(scene: &mut Scene, length: Duration) -> (DateTime<Utc>, DateTime<Utc>) {
    scene.fleet.stop_all(Duration::from_secs(20)).await.unwrap();
    let from = Utc::now();
    // How long it is away is the point.
    tokio::time::sleep(length).await;
    let to = Utc::now();
    scene.fleet.add("w1").await.unwrap();
    (from, to)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_the_newest_slot_is_caught_up() {
    let mut scene = exact(1).await;
    let further = r#","catchUp":"latest","startDeadlineSecs":1"#;
    scene.put("latest", &job("latest", "true", "*/4 * * * * *", further));
    scene.finished("latest").await;
    let (from, to) = outage(&mut scene, Duration::from_secs(14)).await;
    let gap = scene
        .record("latest", |r| r.outcome == Outcome::Missed && r.scheduled_time.unwrap() > from)
        .await;
    let last_missed = gap.to_slot.or(gap.scheduled_time).unwrap();
    let late = scene
        .record("latest", |r| r.scheduled_time.unwrap() > last_missed && r.outcome.is_final())
        .await;
    assert_eq!(late.outcome, Outcome::Succeeded, "{late:?}");
    assert!((late.scheduled_time.unwrap() - last_missed).num_seconds() == 4);
    assert!(late.start_time > to);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_all_slots_are_caught_up_one_after_the_other() {
    let mut scene = exact(1).await;
    let further = r#","catchUp":"all","startDeadlineSecs":1"#;
    scene.put("all", &job("all", "sleep 0.3", "*/3 * * * * *", further));
    scene.finished("all").await;
    let (from, to) = outage(&mut scene, Duration::from_secs(13)).await;
    let between = |r: &RunRecord| {
        let slot = r.scheduled_time.unwrap();
        r.outcome.is_final() && slot > from && slot + chrono::TimeDelta::seconds(2) < to
    };
    let runs = records(&scene, "all", 3, between).await;
    for run in &runs {
        assert_eq!(run.outcome, Outcome::Succeeded, "{run:?}");
    }
    for pair in runs.windows(2) {
        assert!(pair[0].end_time.unwrap() <= pair[1].claimed_time.unwrap(), "{pair:?}");
        assert!(pair[0].scheduled_time < pair[1].scheduled_time);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_every_worker_runs_once_on_each() {
    let scene = Scene::shared(3).await;
    let file = scene.file("each");
    let command = format!("echo $CARILLON_SLOT $CARILLON_WORKER >> {}", file.display());
    scene.put("each", &job("each", &command, "* * * * * *", r#","scope":"everyWorker""#));
    let by_slot = eventually("five slots on three workers", || async {
        let mut by_slot: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in std::fs::read_to_string(&file).ok()?.lines() {
            let (slot, worker) = line.split_once(' ')?;
            by_slot.entry(slot.to_owned()).or_default().push(worker.to_owned());
        }
        (by_slot.len() >= 7).then_some(by_slot)
    })
    .await;
    // The first was there before all had a cursor, the last may be on its way.
    let whole = by_slot.len() - 2;
    for (slot, workers) in by_slot.iter().skip(1).take(whole) {
        let mut workers = workers.clone();
        workers.sort();
        assert_eq!(workers, ["w1", "w2", "w3"], "{slot}");
    }
    let cursors = ["get", "--prefix", "--keys-only", &scene.key("cursor/each")];
    let cursors = scene.stack.etcdctl(&cursors).unwrap();
    assert_eq!(cursors.split_whitespace().count(), 3, "{cursors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_worker_dies_is_run_again_where_the_job_says_so() {
    let mut scene = Scene::shared(2).await;
    let further = r#","onLost":"rerun","killGraceSecs":1"#;
    let file = scene.file("attempts");
    let command = format!("echo $CARILLON_ATTEMPT >> {}; sleep 4", file.display());
    scene.put("dear", &job("dear", &command, NEVER, further));
    scene.carillon_ok(&["run", "dear"]);
    let first = scene.started("dear").await;
    scene.fleet.kill9(&first.worker).unwrap();
    let again = scene.record("dear", |r| r.outcome == Outcome::Succeeded).await;
    assert_eq!((again.attempt, again.trigger), (2, Trigger::Rerun));
    assert_ne!(again.worker, first.worker);
    let lost = scene.record("dear", |r| r.id == first.id && r.outcome.is_final()).await;
    assert_eq!(lost.outcome, Outcome::Lost);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_without_its_lease_where_the_job_says_so() {
    let scene = Scene::shared(2).await;
    let further = r#","onLeaseLoss":"continue","timeoutSecs":60,"killGraceSecs":1"#;
    scene.put("steady", &job("steady", "sleep 16; echo done", NEVER, further));
    scene.carillon_ok(&["run", "steady"]);
    let run = scene.started("steady").await;
    scene.fleet.pause(&run.worker).unwrap();
    let worker = scene.key(&format!("workers/{}", run.worker));
    eventually("the end of its lease", || async {
        scene.stack.etcdctl(&["get", &worker]).unwrap().is_empty().then_some(())
    })
    .await;
    scene.fleet.resume(&run.worker).unwrap();
    let ended = scene.finished("steady").await;
    assert_eq!((ended.id, ended.outcome), (run.id, Outcome::Succeeded), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_hands_its_slots_over() {
    let mut scene = Scene::shared(3).await;
    for n in 0..6 {
        let name = format!("tick{n}");
        scene.put(&name, &job(&name, "true", "* * * * * *", r#","startDeadlineSecs":5"#));
    }
    for n in 0..6 {
        scene.finished(&format!("tick{n}")).await;
    }
    let from = Utc::now();
    for worker in ["w1", "w2"] {
        assert!(scene.fleet.stop(worker).await.unwrap().success());
    }
    let to = Utc::now() + chrono::TimeDelta::seconds(2);
    for n in 0..6 {
        let name = format!("tick{n}");
        scene.record(&name, |r| r.scheduled_time.unwrap() > to && r.outcome.is_final()).await;
        let all = scene.records_of(&name).await.unwrap();
        let between =
            |r: &&RunRecord| r.scheduled_time.unwrap() > from && r.scheduled_time.unwrap() < to;
        let mut slots = Vec::new();
        for run in all.iter().filter(between) {
            assert_eq!(run.outcome, Outcome::Succeeded, "{run:?}");
            let slot = run.scheduled_time.unwrap();
            // Far below the ten seconds of a lease.
            assert!((run.start_time - slot).num_milliseconds() < 2_000, "{run:?}");
            slots.push(slot);
        }
        for pair in slots.windows(2) {
            assert_eq!((pair[1] - pair[0]).num_seconds(), 1, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_agree_on_the_rules_and_on_the_jobs() {
    let scene = Scene::shared(2).await;
    scene.put("one", &job("one", "true", NEVER, ""));
    scene.put("two", &job("two", "true", NEVER, ""));
    let rules = carillon_core::fleet::rules_version();
    eventually("the fleet's rules", || async {
        let settings = scene.stack.etcdctl(&["get", &scene.key("settings")]).unwrap();
        settings.contains(rules).then_some(())
    })
    .await;
    let etcd = scene.etcd().await;
    eventually("the same hash as a fresh list", || async {
        let mut fresh: carillon_core::replica::Replica = Default::default();
        fresh.apply(etcd.keys(), &etcd.snapshot().await.unwrap(), Utc::now());
        let wanted = format!("{:016x}", fresh.table_hash());
        let told = fresh.workers.values().map(|w| w.value.as_ref().unwrap().table_hash.clone());
        let told: Vec<String> = told.collect();
        (told.len() == 2 && told.iter().all(|hash| *hash == wanted)).then_some(())
    })
    .await;
}
