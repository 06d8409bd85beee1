//! A kill ends a run with all of its children, whoever asks for it and however.

use carillon_core::run::{Outcome, RunState, Running};
use etcd_client::{EventType, WatchOptions};
use system_tests::faults;

use crate::support::{Scene, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_killer_key_ends_the_shell_and_its_children() {
    let scene = Scene::shared(2).await;
    let json = r#"{"name":"tree","command":"sleep 300 & sleep 300 & (sleep 300; true) & wait","cronExpr":"0 0 1 1 *"}"#;
    scene.put("tree", json);
    scene.carillon_ok(&["run", "tree"]);
    let live = scene.started("tree").await;
    let run = live.id.to_string();
    eventually("four processes and the shell", || async {
        (faults::with_environment("CARILLON_RUN", &run).len() >= 5).then_some(())
    })
    .await;

    let killer = format!("{}/killer/tree", scene.fleet.prefix());
    scene.stack.etcdctl(&["put", &killer, ""]).unwrap();
    let record = scene.finished("tree").await;
    assert_eq!(record.id, live.id);
    assert_eq!(record.outcome, Outcome::Killed);
    assert!(record.err.starts_with("killed by "), "{}", record.err);
    assert_eq!(faults::with_environment("CARILLON_RUN", &run), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ignores_sigterm_is_killed_after_its_grace() {
    let scene = Scene::shared(1).await;
    let json = r#"{"name":"stubborn","command":"trap '' TERM; while :; do sleep 1; done","cronExpr":"0 0 1 1 *","killGraceSecs":1}"#;
    scene.put("stubborn", json);
    scene.carillon_ok(&["run", "stubborn"]);
    let live = scene.started("stubborn").await;
    let said = scene.carillon_ok(&["kill", "stubborn", "--wait"]);
    assert!(said.contains("kill requested") && said.contains("gone"), "{said}");
    let record = scene.finished("stubborn").await;
    assert_eq!((record.outcome, record.signal), (Outcome::Killed, Some(9)), "{}", record.err);
    let run = live.id.to_string();
    assert_eq!(faults::with_environment("CARILLON_RUN", &run), Vec::<u32>::new());
    let ladder = [
        RunState::Claimed,
        RunState::Running,
        RunState::Received,
        RunState::Terminated,
        RunState::Killed,
    ];
    assert_eq!(states(&scene, "stubborn").await, ladder);
}

/// All states that the run of a job went through in etcd, until its key was gone.
async fn states(scene: &Scene, job: &str) -> Vec<RunState> {
    let mut etcd = scene.stack.etcd().await.unwrap();
    let options = WatchOptions::new().with_prefix().with_start_revision(1);
    let key = scene.key(&format!("running/{job}/"));
    let mut watch = etcd.watch(key, Some(options)).await.unwrap();
    let mut states = Vec::new();
    while let Some(answer) = watch.message().await.unwrap() {
        for event in answer.events() {
            if event.event_type() == EventType::Delete {
                return states;
            }
            let run: Running = serde_json::from_slice(event.kv().unwrap().value()).unwrap();
            states.push(run.state);
        }
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_ends_the_run() {
    let scene = Scene::shared(1).await;
    let json = r#"{"name":"late","command":"sleep 60","cronExpr":"0 0 1 1 *","timeoutSecs":1}"#;
    scene.put("late", json);
    let output = scene.carillon(&["run", "late", "--wait"]);
    assert_eq!(output.status.code(), Some(143), "128 + SIGTERM");
    let record = scene.finished("late").await;
    assert_eq!(record.outcome, Outcome::TimedOut);
    assert!(record.err.starts_with("timed out after 1"), "{}", record.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_finishes_its_runs_and_leaves() {
    let mut scene = Scene::shared(1).await;
    scene.put("short", r#"{"name":"short","command":"sleep 2; echo end","cronExpr":"0 0 1 1 *"}"#);
    scene.carillon_ok(&["run", "short"]);
    scene.started("short").await;
    let status = scene.fleet.stop("w1").await.unwrap();
    assert!(status.success(), "{status}");
    let record = scene.finished("short").await;
    assert_eq!((record.outcome, record.output.as_str()), (Outcome::Succeeded, "end\n"));
    let key = format!("{}/workers/w1", scene.fleet.prefix());
    assert_eq!(scene.stack.etcdctl(&["get", &key]).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_dead_worker_is_recorded_as_lost_even_if_the_worker_comes_back() {
    let mut scene = Scene::shared(1).await;
    let json = r#"{"name":"orphan","command":"sleep 60","cronExpr":"0 0 1 1 *","killGraceSecs":0}"#;
    scene.put("orphan", json);
    scene.carillon_ok(&["run", "orphan"]);
    let live = scene.started("orphan").await;
    scene.fleet.kill9(&live.worker).unwrap();
    scene.fleet.add(&live.worker).await.unwrap();
    let record = scene.finished("orphan").await;
    assert_eq!((record.id, record.outcome), (live.id, Outcome::Lost));
    assert!(record.err.contains(&live.worker), "{}", record.err);
}
