//! A store that goes away comes back, and nothing that was decided is lost.

use std::net::Ipv4Addr;

use carillon_core::etcd::Etcd;
use carillon_core::keys::Keys;
use carillon_core::records::Records;
use carillon_core::replica::Feed;
use carillon_core::run::Outcome;
use system_tests::fleet::{Fleet, WorkerOptions};
use system_tests::proxy::{Mode, Proxy};
use system_tests::stack::Stack;
use tokio::time::timeout;

use crate::support::{PATIENCE, Scene, eventually, put, record};

const TICK: &str = r#"{"name":"tick","command":"echo tick","cronExpr":"* * * * * *"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn workers_go_on_after_etcd_was_restarted() {
    let mut stack = Stack::start().await.unwrap();
    let fleet = Fleet::start(&stack, 2).await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), fleet.prefix()).await.unwrap();
    put(&stack, fleet.prefix(), "tick", TICK);
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded).await;

    stack.stop_etcd().await.unwrap();
    stack.start_etcd().await.unwrap();
    let back = chrono::Utc::now();
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded && r.start_time > back).await;
    // A job written after the restart arrives too: the watch is alive, not only the timetable.
    put(&stack, fleet.prefix(), "later", &TICK.replace("tick", "later"));
    record(&records, "later", |r| r.outcome == Outcome::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_compaction() {
    let mut stack = Stack::start().await.unwrap();
    let fleet = Fleet::start(&stack, 1).await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), fleet.prefix()).await.unwrap();
    put(&stack, fleet.prefix(), "tick", TICK);
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded).await;

    // While the worker is frozen, what it would watch from is compacted away.
    fleet.pause("w1").unwrap();
    put(&stack, fleet.prefix(), "new", &TICK.replace("tick", "new"));
    stack.etcdctl(&["del", &format!("{}/jobs/tick", fleet.prefix())]).unwrap();
    let mut etcd = stack.etcd().await.unwrap();
    let answer = etcd.get("any", None).await.unwrap();
    etcd.compact(answer.header().unwrap().revision(), None).await.unwrap();
    stack.stop_etcd().await.unwrap();
    stack.start_etcd().await.unwrap();
    fleet.resume("w1").unwrap();

    record(&records, "new", |r| r.outcome == Outcome::Succeeded).await;
    let cursor = format!("{}/cursor/tick", fleet.prefix());
    let before = stack.etcdctl(&["get", &cursor]).unwrap();
    let now = chrono::Utc::now();
    record(&records, "new", |r| r.start_time > now + chrono::TimeDelta::seconds(2)).await;
    assert_eq!(stack.etcdctl(&["get", &cursor]).unwrap(), before, "a deleted job goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_does_not_go_on_in_another_cluster() {
    let (one, other) = (Stack::start().await.unwrap(), Stack::start().await.unwrap());
    let answer = one.etcd().await.unwrap().get("x", None).await.unwrap();
    let cluster_of_one = answer.header().unwrap().cluster_id();
    let endpoints = [one.etcd_url(), other.etcd_url()];
    let etcd = Etcd::connect(&endpoints, Keys::new("/cron").unwrap()).await.unwrap();
    let mut feed = etcd.feed();
    let mut listed = async || {
        let cluster = async {
            loop {
                if let Feed::Snapshot { cluster, .. } = feed.recv().await.unwrap() {
                    break cluster;
                }
            }
        };
        timeout(PATIENCE, cluster).await.unwrap()
    };
    let first = listed().await;
    let (mut first_of, next) = if first == cluster_of_one { (one, other) } else { (other, one) };
    // Ahead of what was read, so that a watch from there is nothing strange.
    for _ in 0..20 {
        next.etcdctl(&["put", "x", ""]).unwrap();
    }
    first_of.stop_etcd().await.unwrap();
    assert_ne!(listed().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_its_worker_is_cut_off_is_a_late_result() {
    let mut scene = Scene::shared(1).await;
    let proxy = Proxy::start(Ipv4Addr::LOCALHOST, scene.stack.etcd_ports()[0]).await.unwrap();
    let far = WorkerOptions {
        etcd: Some(format!("http://{}", proxy.address())),
        arguments: ["--label", "place=far"].map(str::to_owned).to_vec(),
        ..WorkerOptions::default()
    };
    scene.fleet.add_with("far", &far).await.unwrap();
    scene.put(
        "long",
        r#"{"name":"long","command":"sleep 3","cronExpr":"0 0 1 1 *","onLeaseLoss":"continue",
        "selector":{"place":"far"},"startDeadlineSecs":2,"timeoutSecs":5,"killGraceSecs":1}"#,
    );
    scene.carillon_ok(&["run", "long"]);
    let run = scene.started("long").await.id;
    // It is asked for its end again and again, and nobody knows what became of that.
    proxy.set(Mode::Drop);
    scene.record("long", |r| r.id == run && r.outcome == Outcome::Lost).await;
    proxy.set(Mode::Pass);
    let told = scene.record("long", |r| r.late_result.is_some()).await;
    assert_eq!((told.id, told.outcome), (run, Outcome::Lost));
    assert!(told.late_result.unwrap().starts_with("succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_and_fires_without_mongodb_and_records_it_later() {
    let mut stack = Stack::start().await.unwrap();
    stack.stop_mongo().await.unwrap();
    let fleet = Fleet::start(&stack, 1).await.unwrap();
    let file = stack.folder().join("ran");
    let json = format!(
        r#"{{"name":"offline","command":"echo x | tee -a {}","cronExpr":"* * * * * *"}}"#,
        file.display()
    );
    put(&stack, fleet.prefix(), "offline", &json);
    eventually("three runs", || async {
        let ran = std::fs::read_to_string(&file).unwrap_or_default();
        (ran.lines().count() >= 3).then_some(())
    })
    .await;

    stack.start_mongo().await.unwrap();
    let back = chrono::Utc::now();
    let records = Records::connect(&stack.mongo_uri(), fleet.prefix()).await.unwrap();
    let early =
        record(&records, "offline", |r| r.outcome == Outcome::Succeeded && r.start_time < back)
            .await;
    assert_eq!(early.output, "x\n");
    let chunks = eventually("its output", || async {
        let chunks = records.output_from(early.id, 0, 10).await.ok()?;
        (!chunks.is_empty()).then_some(chunks)
    })
    .await;
    assert_eq!(chunks[0].data, b"x\n");
    eventually("no decision left in etcd", || async {
        let prefix = format!("{}/done/", fleet.prefix());
        let left = stack.etcdctl(&["get", "--prefix", "--keys-only", &prefix]).ok()?;
        // The newest may be on its way.
        (left.split_whitespace().count() <= 1).then_some(())
    })
    .await;
}
