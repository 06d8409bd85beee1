//! The harness's fleets: workers register, come back after they were killed, and leave nothing.

use std::time::Duration;

use futures::StreamExt;
use mongodb::bson::{Document, doc};
use system_tests::faults;
use system_tests::fleet::Fleet;
use system_tests::stack::Stack;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_comes_back_under_its_name() {
    let stack = Stack::shared().await.unwrap();
    let mut fleet = Fleet::start(&stack, 2).await.unwrap();
    let first = fleet.worker("w1").unwrap().pid();

    fleet.kill9("w1").unwrap();
    assert!(!faults::is_running(first));
    fleet.add("w1").await.unwrap();

    assert_ne!(fleet.worker("w1").unwrap().pid(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_takes_its_registration_along() {
    let stack = Stack::shared().await.unwrap();
    let mut fleet = Fleet::start(&stack, 2).await.unwrap();

    let status = fleet.stop("w2").await.unwrap();

    assert!(status.success(), "{status}");
    let workers = format!("{}/workers/", fleet.prefix());
    let keys = stack.etcdctl(&["get", "--prefix", "--keys-only", &workers]).unwrap();
    assert_eq!(keys.split_whitespace().collect::<Vec<_>>(), [format!("{workers}w1")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_fleet_nor_of_its_runs() {
    let stack = Stack::shared().await.unwrap();
    let fleet = Fleet::start(&stack, 2).await.unwrap();
    let job = r#"{"name": "long", "command": "sleep 1000", "cronExpr": "* * * * * *"}"#;
    stack.etcdctl(&["put", &format!("{}/jobs/long", fleet.prefix()), job]).unwrap();
    let mut pids: Vec<u32> = fleet.ids().map(|id| fleet.worker(id).unwrap().pid()).collect();
    let run = first_run(&stack, fleet.prefix()).await.unwrap();
    let run = faults::with_environment("CARILLON_RUN", &run);
    assert!(!run.is_empty());
    pids.extend(run);

    drop(fleet);

    assert!(pids.iter().all(|&pid| !faults::is_running(pid)));
}

/// The id of the first run that a worker has recorded as started.
async fn first_run(stack: &Stack, fleet: &str) -> anyhow::Result<String> {
    let log = stack.mongo().await?.database("cron").collection::<Document>("log");
    let mut changes = log.watch().await?;
    let wait = async {
        loop {
            let of_fleet = doc! { "fleet": fleet, "outcome": "running" };
            if let Some(record) = log.find_one(of_fleet).await? {
                return Ok(record.get_str("_id")?.to_owned());
            }
            changes.next().await.ok_or_else(|| anyhow::anyhow!("the watch ended"))??;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await?
}
