//! `carillon why` tells the story of a slot, `carillon recover` puts cursors right, and no slot runs
//! twice by it.

use std::collections::BTreeMap;

use carillon_core::id::Slot;
use carillon_core::records::Records;
use carillon_core::run::{Outcome, RunRecord};
use carillon_core::zones::parse_zone;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;
use system_tests::fleet::Fleet;
use system_tests::stack::Stack;

use crate::support::{Scene, carillon, eventually, put, record};

const TICK: &str = r#"{"name":"tick","command":"echo tick","cronExpr":"* * * * * *"}"#;

fn slot_of(record: &RunRecord) -> String {
    Slot::at(record.scheduled_time.unwrap()).to_string()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_who_ran_a_slot_and_what_skipped_another() {
    let scene = Scene::shared(2).await;
    scene.put(
        "busy",
        r#"{"name":"busy","command":"sleep 4","cronExpr":"*/2 * * * * *","timezone":"Europe/Berlin"}"#,
    );
    let skipped = scene.record("busy", |r| r.outcome == Outcome::Skipped).await;
    let ran = scene.record("busy", |r| r.outcome == Outcome::Succeeded).await;

    let told = scene.carillon_ok(&["why", "busy", &slot_of(&ran)]);
    for part in ["succeeded", "claimed", &ran.worker, "late, fence", "exit code 0", "1.", "2."] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = scene.carillon_ok(&["why", "busy", &slot_of(&skipped)]);
    let blocker = scene.record("busy", |r| r.outcome != Outcome::Skipped).await;
    for part in
        ["skipped", "was still live", &format!("the run {}", blocker.id), "see `carillon why"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    // The same slot by the clock of the job's zone.
    let local =
        skipped.scheduled_time.unwrap().with_timezone(&parse_zone("Europe/Berlin").unwrap());
    let local = local.format("%Y-%m-%d %H:%M:%S").to_string();
    let told = json(&scene.carillon_ok(&["why", "busy", &local, "-o", "json"]));
    assert_eq!(told["fate"], "decided");
    assert_eq!(told["decisions"][0]["because"]["run"], blocker.id.to_string());
    assert_eq!(told["decisions"][0]["because"]["worker"], blocker.worker);

    // Between two slots.
    let odd = Slot::at(ran.scheduled_time.unwrap() + TimeDelta::seconds(1)).to_string();
    let told = scene.carillon_ok(&["why", "busy", &odd]);
    assert!(told.contains("not a slot of its schedule") && told.contains("before it"), "{told}");
    let none = scene.carillon(&["why", "nobody"]);
    assert_eq!(none.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_that_nobody_takes_a_job_and_what_is_to_come() {
    let scene = Scene::shared(2).await;
    let picky = r#"{"name":"picky","command":"true","cronExpr":"* * * * * *","selector":{"gpu":"yes"},"startDeadlineSecs":1}"#;
    scene.put("picky", picky);
    // Its slots are settled when no clock is before their deadline any more.
    let overdue = eventually("a slot that is past due", || async {
        let told = json(&scene.carillon_ok(&["why", "picky", "-o", "json"]));
        (told["fate"] == "overdue").then_some(told)
    })
    .await;
    let hindrances = overdue["hindrances"].to_string();
    assert!(hindrances.contains("nobodyTakesIt"), "{hindrances}");
    let missed = scene.record("picky", |r| r.outcome == Outcome::Missed).await;
    let told = scene.carillon_ok(&["why", "picky", &slot_of(&missed)]);
    for part in ["missed", "no worker started it within 1 s", "it lacks gpu=yes", "none of the"] {
        assert!(told.contains(part), "{part}: {told}");
    }

    scene.put("yearly", r#"{"name":"yearly","command":"true","cronExpr":"0 0 1 1 *"}"#);
    let told = scene.carillon_ok(&["why", "yearly"]);
    for part in ["due in", "takes it; if it does not, w"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    scene.carillon_ok(&["pause", "yearly"]);
    let told = scene.carillon_ok(&["why", "yearly"]);
    assert!(told.contains("the job is paused"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_takes_nothing_until_it_is_undrained() {
    let scene = Scene::shared(2).await;
    let unknown = scene.carillon(&["drain", "w9"]);
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(error.contains("no worker w9 is registered (registered now: w1, w2)"), "{error}");
    let said = scene.carillon_ok(&["drain", "w1", "w2"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(scene.carillon_ok(&["drain", "w1"]), "w1 was draining already\n");
    scene.put("tick", TICK);
    let told = eventually("a slot that nobody takes", || async {
        let told = scene.carillon_ok(&["why", "tick"]);
        told.contains("past due").then_some(told)
    })
    .await;
    assert!(told.contains("w1: it is draining") && told.contains("w2: it is draining"), "{told}");
    assert_eq!(scene.carillon_ok(&["undrain", "w2"]), "w2 takes work again\n");
    let ran = scene.record("tick", |r| r.outcome == Outcome::Succeeded).await;
    assert_eq!(ran.worker, "w2");
    let refused = scene.carillon(&["undrain", "w1", "--read-only"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_in_the_future_is_recovered() {
    let scene = Scene::shared(1).await;
    scene.put("tick", TICK);
    scene.record("tick", |r| r.outcome == Outcome::Succeeded).await;
    // A worker's compare-and-swap may win against ours once.
    let key = scene.key("cursor/tick");
    let mut cursor = json(&scene.stack.etcdctl(&["get", &key, "--print-value-only"]).unwrap());
    let ahead = Utc::now() + TimeDelta::hours(1);
    cursor["through"] = ahead.to_rfc3339_opts(SecondsFormat::Secs, true).into();
    scene.stack.etcdctl(&["put", &key, &cursor.to_string()]).unwrap();
    let told = scene.carillon_ok(&[
        "why",
        "tick",
        &Slot::at(Utc::now() + TimeDelta::seconds(2)).to_string(),
    ]);
    assert!(told.contains("which is in the future"), "{told}");

    let asked = scene.carillon(&["recover"]);
    let error = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(1));
    assert!(error.contains("add --yes"), "{error}");
    let said = scene.carillon_ok(&["recover", "tick", "--dry-run", "--read-only"]);
    assert!(said.contains("tick: cursor goes from") && said.contains("in the future"), "{said}");
    let stands = json(&scene.stack.etcdctl(&["get", &key, "--print-value-only"]).unwrap());
    assert_eq!(stands["through"], cursor["through"], "a dry run writes nothing");

    let recovered = Utc::now();
    let said = scene.carillon_ok(&["recover", "tick", "--yes"]);
    assert!(said.contains("1 of 1 cursor put right"), "{said}");
    scene.record("tick", |r| r.outcome == Outcome::Succeeded && r.start_time > recovered).await;
    let said = scene.carillon_ok(&["recover", "--yes"]);
    assert!(said.starts_with("nothing to recover"), "{said}");
    let changes = scene.records.changes_of(None, 50).await.unwrap();
    assert!(changes.iter().any(|c| c.what.starts_with("recover: cursor")), "{changes:?}");
}

/// How often each first attempt was begun, by what the job itself wrote.
fn begun(file: &std::path::Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for slot in std::fs::read_to_string(file).unwrap_or_default().lines() {
        *counts.entry(slot.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_of_etcd_workers_stand_by_until_it_is_recovered() {
    let mut stack = Stack::start().await.unwrap();
    let mut fleet = Fleet::start(&stack, 2).await.unwrap();
    let prefix = fleet.prefix().to_owned();
    let records = Records::connect(&stack.mongo_uri(), &prefix).await.unwrap();
    let file = stack.folder().join("begun");
    let job = format!(
        r#"{{"name":"tick","command":"echo $CARILLON_SLOT >> {}","cronExpr":"* * * * * *","catchUp":"all"}}"#,
        file.display()
    );
    put(&stack, &prefix, "tick", &job);
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded).await;

    let snapshot = stack.folder().join("backup.db");
    stack.etcdctl(&["snapshot", "save", &snapshot.to_string_lossy()]).unwrap();
    let saved = Utc::now();
    let after = |since: DateTime<Utc>| {
        let later = since + TimeDelta::seconds(4);
        move |r: &RunRecord| r.outcome == Outcome::Succeeded && r.start_time > later
    };
    record(&records, "tick", after(saved)).await;
    stack.stop_etcd().await.unwrap();
    stack.restore_etcd(&snapshot).unwrap();
    stack.start_etcd().await.unwrap();

    let run = |arguments: &[&str]| carillon(&stack, &prefix).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let standing_by = |all: usize, says: &'static str| async move {
        let output = run(&["workers"]);
        let why = text(output.stderr);
        let do_all = text(output.stdout).matches("standing by").count() == all;
        (do_all && why.contains(says)).then_some(why)
    };
    let found = "it was restored; run `carillon recover`";
    eventually("both workers to stand by", || standing_by(2, found)).await;
    // One that remembers nothing believes those that do, and not itself.
    fleet.add("w3").await.unwrap();
    let heard = "w1 says that etcd was restored; run `carillon recover`";
    eventually("the third to stand by", || standing_by(3, heard)).await;
    let key = format!("{prefix}/workers/w3");
    let third = json(&stack.etcdctl(&["get", "--print-value-only", &key]).unwrap());
    assert_eq!(third["restored"], Value::Null, "{third}");
    let before = begun(&file);
    let told = text(run(&["why", "tick"]).stdout);
    assert!(told.contains("it stands by: etcd is at revision"), "{told}");

    let said = run(&["recover", "--yes"]);
    let (out, err) = (text(said.stdout), text(said.stderr));
    assert!(said.status.success(), "{out}{err}");
    assert!(out.contains("slots up to there are recorded") && out.contains("go on"), "{out}");
    let recovered = Utc::now();
    record(&records, "tick", after(recovered)).await;
    eventually("nobody to stand by", || standing_by(0, "")).await;
    // Again, at once: nothing is undone.
    let again = run(&["recover", "--yes"]);
    assert!(again.status.success(), "{}", text(again.stderr));
    record(&records, "tick", after(Utc::now())).await;
    let counts = begun(&file);
    assert!(counts.len() > before.len());
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
