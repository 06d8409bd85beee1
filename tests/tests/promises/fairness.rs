//! A worker with very much to do still hears who asks for something.

use carillon_core::records::HistoryFilter;
use carillon_core::run::Outcome;
use chrono::{DateTime, TimeDelta, Utc};
use system_tests::fleet::put_after;

use crate::support::{Scene, eventually};

/// What a user can expect at any time.
const PROMPT: TimeDelta = TimeDelta::seconds(1);
/// All due at one second, and more than a worker runs at once.
const CROWD: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_an_edit_are_answered_at_once_while_a_crowd_is_due() {
    let scene = Scene::shared(1).await;
    let mut etcd = scene.stack.etcd().await.unwrap();
    let prefix = scene.fleet.prefix();
    let yearly = |name: &str, command: &str| {
        format!(r#"{{"name":"{name}","command":"{command}","cronExpr":"0 0 1 1 *"}}"#)
    };
    scene.put("long", &yearly("long", "exec sleep 60"));
    scene.put("edited", &yearly("edited", "true"));
    scene.carillon_ok(&["run", "long"]);
    let long = scene.started("long").await;

    let due = Utc::now() + TimeDelta::seconds(6);
    let due = DateTime::from_timestamp(due.timestamp(), 0).unwrap();
    for number in 0..CROWD {
        let job = format!(
            r#"{{"name":"crowd{number}","command":":","cronExpr":"@at {}"}}"#,
            due.format("%FT%TZ")
        );
        etcd.put(format!("{prefix}/jobs/crowd{number}"), job, None).await.unwrap();
    }
    let early = due - Utc::now();
    assert!(early > TimeDelta::seconds(1), "the crowd was put only {early} before it is due");
    tokio::time::sleep((early + TimeDelta::milliseconds(200)).to_std().unwrap()).await;

    let asked = Utc::now();
    let kill = etcd.put(format!("{prefix}/killer/long"), "", None).await.unwrap();
    etcd.put(format!("{prefix}/jobs/edited"), yearly("edited", "false"), None).await.unwrap();
    let revision = kill.header().unwrap().revision();
    put_after(&mut etcd, &format!("{prefix}/cursor/edited"), revision).await.unwrap();
    let edited = Utc::now();
    assert!(edited - asked < PROMPT, "the edit took {}", edited - asked);
    let killed = scene.record("long", |r| r.outcome == Outcome::Killed).await;
    assert_eq!(killed.id, long.id);
    let took = killed.end_time.unwrap() - asked;
    assert!(took < PROMPT, "the kill took {took}");

    let filter = HistoryFilter { text: Some("crowd".to_owned()), ..Default::default() };
    let mut crowd = Vec::new();
    while crowd.len() < CROWD {
        let known = crowd.len();
        crowd = eventually("more of the crowd", || async {
            let mut page = scene.records.history(&filter, None, 2 * CROWD).await.ok()?;
            page.records.retain(|r| r.outcome.is_final());
            (page.records.len() > known).then_some(page.records)
        })
        .await;
    }
    assert!(crowd.iter().all(|r| r.outcome == Outcome::Succeeded && r.scheduled_time == Some(due)));
    let mut jobs: Vec<_> = crowd.iter().map(|r| &r.job_name).collect();
    jobs.sort();
    jobs.dedup();
    assert_eq!(jobs.len(), CROWD, "each ran once");
    let last = crowd.iter().map(|r| r.start_time).max().unwrap();
    assert!(last > killed.end_time.unwrap(), "the crowd was gone before the kill");
}
