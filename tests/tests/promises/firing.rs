//! A job fires at its time, once in the fleet, and its record says so.

use carillon_core::id::Slot;
use carillon_core::run::Outcome;
use carillon_core::schedule::spread_of;
use chrono::{TimeDelta, Utc};
use mongodb::bson::{Bson, Document, doc};

use crate::support::{Scene, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn three_fields_put_with_etcdctl_fire_within_their_second() {
    let scene = Scene::shared(1).await;
    let json = r#"{"name":"plain","command":"echo out; echo err >&2","cronExpr":"* * * * * *"}"#;
    scene.put("plain", json);
    let record = scene.finished("plain").await;
    let lateness = record.start_time - record.scheduled_time.unwrap();
    assert!(lateness < TimeDelta::seconds(1), "started {lateness} after its slot");
    assert_eq!(record.outcome, Outcome::Succeeded);

    // As any other reader of the collection finds it, with the original fields and types.
    let log = scene.stack.mongo().await.unwrap().database("cron").collection::<Document>("log");
    let found = log.find_one(doc! {"_id": record.id.to_string()}).await.unwrap().unwrap();
    assert_eq!(found.get_str("jobName").unwrap(), "plain");
    assert_eq!(found.get_str("command").unwrap(), "echo out; echo err >&2");
    assert_eq!(found.get_str("err").unwrap(), "");
    let output = found.get_str("output").unwrap();
    assert!(output.contains("out\n") && output.contains("err\n"), "{output:?}");
    assert!(matches!(found.get("startTime"), Some(Bson::DateTime(_))), "{found}");
    assert!(matches!(found.get("endTime"), Some(Bson::DateTime(_))), "{found}");

    // The decision is acknowledged: nothing of it is left in etcd.
    let done = format!("{}/done/plain/{}", scene.fleet.prefix(), record.id);
    eventually("the done/ key to go", || async {
        scene.stack.etcdctl(&["get", &done]).unwrap().is_empty().then_some(())
    })
    .await;
}

/// The outside oracle: each run appends its slot to a file that Carillon knows nothing of.
#[tokio::test(flavor = "multi_thread")]
async fn three_workers_run_every_second_of_a_minute_exactly_once() {
    const SECONDS: usize = 60;
    let scene = Scene::shared(3).await;
    let file = scene.file("slots");
    let json = format!(
        r#"{{"name":"tick","command":"echo $CARILLON_SLOT $CARILLON_WORKER >> {}","cronExpr":"* * * * * *","concurrency":"allow"}}"#,
        file.display()
    );
    scene.put("tick", &json);
    let mut lines = String::new();
    while lines.lines().count() < SECONDS {
        let known = lines.lines().count();
        lines = eventually("another slot", || async {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            (text.lines().count() > known).then_some(text)
        })
        .await;
    }
    let mut slots: Vec<Slot> =
        lines.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    slots.sort();
    for pair in slots.windows(2) {
        let step = pair[1].instant() - pair[0].instant();
        assert_eq!(step, TimeDelta::seconds(1), "{} then {}", pair[0], pair[1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spread_start_is_put_off_and_keeps_its_slot() {
    let scene = Scene::shared(1).await;
    let off = TimeDelta::seconds(spread_of("put-off", 5).into());
    assert!(off > TimeDelta::seconds(1), "the name was chosen for that");
    let slot = Slot::at(Utc::now() + TimeDelta::seconds(2));
    let json = format!(
        r#"{{"name":"put-off","command":"echo $CARILLON_SLOT","cronExpr":"@at {slot}","spreadSecs":5}}"#
    );
    scene.put("put-off", &json);
    let record = scene.finished("put-off").await;
    assert_eq!(record.scheduled_time, Some(slot.instant()));
    assert_eq!(record.output, format!("{slot}\n"));
    let lateness = record.start_time - (slot.instant() + off);
    assert!(lateness >= TimeDelta::zero(), "started {lateness} before it was due");
    assert!(lateness < TimeDelta::seconds(1), "started {lateness} after it was due");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_knows_what_it_is() {
    let scene = Scene::shared(1).await;
    let json = r#"{"name":"每日清算","command":"env | grep ^CARILLON_ | sort; pwd; echo $GREETING","cronExpr":"* * * * * *","cwd":"/usr","env":{"GREETING":"good day"}}"#;
    scene.put("每日清算", json);
    let record = scene.finished("每日清算").await;
    let run = record.id.to_string();
    let fence = record.fencing_token.to_string();
    let slot = Slot::at(record.scheduled_time.unwrap()).to_string();
    let expected = [
        "CARILLON_ATTEMPT=1",
        &format!("CARILLON_FENCE={fence}"),
        "CARILLON_JOB=每日清算",
        &format!("CARILLON_RUN={run}"),
        &format!("CARILLON_SLOT={slot}"),
        "CARILLON_WORKER=w1",
        "/usr",
        "good day",
        "",
    ];
    assert_eq!(record.output, expected.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_skipped_while_an_earlier_run_is_live_and_says_so() {
    let scene = Scene::shared(2).await;
    scene.put("slow", r#"{"name":"slow","command":"sleep 2.5","cronExpr":"* * * * * *"}"#);
    let skipped = scene.record("slow", |r| r.outcome == Outcome::Skipped).await;
    assert!(skipped.err.contains("was still live"), "{}", skipped.err);
    assert!(skipped.scheduled_time.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_ends_the_earlier_run_first() {
    let scene = Scene::shared(2).await;
    let json = r#"{"name":"fresh","command":"sleep 60","cronExpr":"*/2 * * * * *","concurrency":"replace"}"#;
    scene.put("fresh", json);
    let killed = scene.record("fresh", |r| r.outcome == Outcome::Killed).await;
    assert!(killed.killed_by.unwrap().contains("replace"));
    scene.started("fresh").await;
}
