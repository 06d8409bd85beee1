//! No process of a run outlives its worker by more than the run's grace, nor the lease of a worker
//! that is frozen.

use std::fs;
use std::time::Duration;

use carillon_core::id::RunId;
use carillon_core::run::{Outcome, RunRecord};
use system_tests::faults::{self, Signal};
use system_tests::fleet::WorkerOptions;
use tokio::time::{Instant, sleep};

use crate::support::{Scene, eventually};

/// The `killGraceSecs` of the jobs here.
const GRACE: Duration = Duration::from_secs(2);
/// What a busy machine may need to notice, to look and to kill.
const MARGIN: Duration = Duration::from_secs(3);
/// The lease's time to live.
const TTL: Duration = Duration::from_secs(10);
/// It ignores SIGTERM, and half of it is in a session of its own.
const STUBBORN: &str = "trap '' TERM; setsid sleep 600 & sleep 600; true";

/// Starts a job of three processes, with further fields like `"timeoutSecs":60`.
async fn start(scene: &Scene, name: &str, further: &str) -> RunRecord {
    let json = format!(
        r#"{{"name":"{name}","command":"{STUBBORN}","cronExpr":"0 0 1 1 *","killGraceSecs":2{further}}}"#
    );
    scene.put(name, &json);
    scene.carillon_ok(&["run", name]);
    let live = scene.started(name).await;
    eventually("its three processes", || async { (alive(live.id) == 3).then_some(()) }).await;
    live
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_supervisor_fails_is_settled_and_leaves_nothing() {
    let mut scene = Scene::shared(0).await;
    let arguments = ["--fault", "panic-started"].map(str::to_owned).into();
    let options = WorkerOptions { arguments, ..WorkerOptions::default() };
    scene.fleet.add_with("w1", &options).await.unwrap();
    let job = format!(r#"{{"name":"failed","command":"{STUBBORN}","cronExpr":"0 0 1 1 *"}}"#);
    scene.put("failed", &job);
    scene.carillon_ok(&["run", "failed"]);
    let record = scene.finished("failed").await;
    assert_eq!(record.outcome, Outcome::Lost);
    assert_eq!(record.err, "the worker failed while it ran; see its log");
    assert_eq!(alive(record.id), 0);
    // Nothing of it keeps the worker from leaving: there is no drain time to be waited for.
    let asked = Instant::now();
    assert!(scene.fleet.stop("w1").await.unwrap().success());
    assert!(asked.elapsed() < TTL, "{:?}", asked.elapsed());
}

fn alive(run: RunId) -> usize {
    faults::with_environment("CARILLON_RUN", &run.to_string()).len()
}

/// How long it takes until nothing of the run is left.
async fn gone(run: RunId) -> Duration {
    let begin = Instant::now();
    while alive(run) > 0 {
        assert!(begin.elapsed() < TTL + GRACE + MARGIN, "alive after {:?}", begin.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    begin.elapsed()
}

fn guard(scene: &Scene) -> Option<u32> {
    let is_guard = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "carillon-guard\n")
    };
    faults::descendants(scene.fleet.worker("w1").unwrap().pid()).into_iter().find(is_guard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_leaves_no_process_of_its_runs() {
    let mut scene = Scene::shared(1).await;
    let live = start(&scene, "orphaned", "").await;
    let guard = guard(&scene).unwrap();
    scene.fleet.kill9("w1").unwrap();
    let took = gone(live.id).await;
    println!("the last process was gone {took:?} after the worker, its grace is {GRACE:?}");
    assert!(took < GRACE + MARGIN, "{took:?}");
    eventually("the guard's end", || async { (!faults::is_running(guard)).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_lease_keeps_only_the_runs_that_it_may_keep() {
    let scene = Scene::shared(1).await;
    let lost = start(&scene, "lost", "").await;
    let kept = start(&scene, "kept", r#","onLeaseLoss":"continue","timeoutSecs":600"#).await;
    scene.fleet.pause("w1").unwrap();
    let took = gone(lost.id).await;
    println!("the last process was gone {took:?} after the worker froze, its grace is {GRACE:?}");
    // The last renewal is at most a third of the time to live old.
    assert!(took > TTL / 2, "{took:?}");
    assert_eq!(alive(kept.id), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_guard_is_started_again() {
    let mut scene = Scene::shared(1).await;
    let live = start(&scene, "guarded", "").await;
    let first = guard(&scene).unwrap();
    faults::signal(first, Signal::KILL).unwrap();
    eventually("another guard", || async { guard(&scene).filter(|&pid| pid != first) }).await;
    eventually("a word about it", || async {
        let log = fs::read_to_string(scene.fleet.log("w1")).unwrap();
        log.contains("no guard over the runs: it ended").then_some(())
    })
    .await;
    assert_eq!(alive(live.id), 3);
    scene.fleet.kill9("w1").unwrap();
    let took = gone(live.id).await;
    assert!(took < GRACE + MARGIN, "{took:?}");
}
