//! The harness's own promises: the servers are real, keep their data over a restart, and leave
//! nothing behind.

use std::path::PathBuf;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use system_tests::faults;
use system_tests::stack::{Options, Stack};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_its_data_over_a_restart() {
    let mut stack = Stack::start().await.unwrap();
    stack.etcdctl(&["put", "/t/greeting", "钟"]).unwrap();

    stack.stop_etcd().await.unwrap();
    assert!(stack.etcdctl(&["--command-timeout=300ms", "get", "/t/greeting"]).is_err());
    stack.start_etcd().await.unwrap();

    let mut client = stack.etcd().await.unwrap();
    let answer = client.get("/t/greeting", None).await.unwrap();
    assert_eq!(answer.kvs()[0].value_str().unwrap(), "钟");
}

#[tokio::test(flavor = "multi_thread")]
async fn mongo_keeps_its_data_over_a_restart() {
    let mut stack = Stack::start().await.unwrap();
    let log = stack.mongo().await.unwrap().database("cron").collection::<Document>("log");
    let documents = (0..1000).map(|number| doc! { "_id": number, "jobName": "钟" });
    log.insert_many(documents).await.unwrap();

    stack.stop_mongo().await.unwrap();
    assert!(log.find_one(doc! {}).await.is_err());
    stack.start_mongo().await.unwrap();

    let log = stack.mongo().await.unwrap().database("cron").collection::<Document>("log");
    assert_eq!(log.count_documents(doc! { "jobName": "钟" }).await.unwrap(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_answers_again_when_it_is_resumed() {
    let stack = Stack::start().await.unwrap();
    let mut client = stack.etcd().await.unwrap();

    stack.pause_etcd().unwrap();
    assert!(timeout(Duration::from_millis(300), client.get("/t/a", None)).await.is_err());
    stack.resume_etcd().unwrap();

    timeout(Duration::from_secs(10), client.get("/t/a", None)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_form_one_etcd() {
    let stack = Stack::start_with(&Options { etcd_nodes: 3, ..Options::default() }).await.unwrap();

    assert_eq!(stack.etcdctl(&["member", "list"]).unwrap().lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_stack() {
    let stack = Stack::start().await.unwrap();
    let folder: PathBuf = stack.folder().to_owned();
    let pids = stack.pids();
    assert_eq!(pids.len(), 2);
    assert!(folder.is_dir() && pids.iter().all(|&pid| faults::is_running(pid)));

    drop(stack);

    assert!(!folder.exists());
    assert!(pids.iter().all(|&pid| !faults::is_running(pid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_of_one_program_share_a_stack_and_keep_apart_by_prefix() {
    let one = Stack::shared().await.unwrap();
    let other = Stack::shared().await.unwrap();

    assert_eq!(one.pids(), other.pids());
    assert_ne!(one.fresh_prefix(), other.fresh_prefix());
}
