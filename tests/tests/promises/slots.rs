//! What became of a slot is found in the records, however it was decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_core::id::{JobName, RunId, Slot};
use carillon_core::records::Records;
use carillon_core::run::{Outcome, RunRecord, Trigger};
use chrono::{DateTime, TimeDelta, Utc};
use mongodb::bson::{Document, doc};
use system_tests::stack::Stack;
use system_tests::write;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn job(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

/// The records of a fleet that no worker serves.
async fn records() -> (Arc<Stack>, Records) {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    records.ensure_indexes().await.unwrap();
    (stack, records)
}

async fn finished(records: &Records, record: &RunRecord) {
    write::finished(records, record).await.unwrap();
}

/// Of a slot that ran, or is a gap's first, and was decided 5 s after it.
fn decided(name: &str, slot: &str, outcome: Outcome) -> RunRecord {
    let (slot, decided) = (at(slot), at(slot) + TimeDelta::seconds(5));
    let record = RunRecord::new(RunId::new(decided), &job(name), outcome, decided);
    RunRecord { scheduled_time: Some(slot), end_time: Some(decided), ..record }
}

fn gap(name: &str, from: &str, to: &str) -> RunRecord {
    RunRecord {
        from_slot: Some(at(from)),
        to_slot: Some(at(to)),
        count: Some(2),
        ..decided(name, from, Outcome::Missed)
    }
}

fn later(record: RunRecord, by: TimeDelta, trigger: Trigger, attempt: u32) -> RunRecord {
    let start_time = record.start_time + by;
    RunRecord { id: RunId::new(start_time), start_time, trigger, attempt, ..record }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_a_slot_is_found_oldest_first() {
    let (stack, records) = records().await;
    let first = decided("j", "2026-01-01T10:00:00Z", Outcome::Failed);
    let retry = later(first.clone(), TimeDelta::seconds(10), Trigger::Retry, 2);
    let rerun = later(first.clone(), TimeDelta::days(2), Trigger::Rerun, 1);
    let missed = gap("j", "2026-01-01T11:00:00Z", "2026-01-01T14:00:00Z");
    let inside = later(
        decided("j", "2026-01-01T12:00:00Z", Outcome::Succeeded),
        TimeDelta::days(1),
        Trigger::Backfill,
        1,
    );
    let of_others = [
        decided("other", "2026-01-01T10:00:00Z", Outcome::Succeeded),
        gap("other", "2026-01-01T09:00:00Z", "2026-01-01T14:00:00Z"),
        decided("j", "2026-01-01T09:00:00Z", Outcome::Succeeded),
    ];
    for record in [&rerun, &first, &inside, &retry, &missed].into_iter().chain(&of_others) {
        finished(&records, record).await;
    }
    let another = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    finished(&another, &decided("j", "2026-01-01T10:00:00Z", Outcome::Succeeded)).await;

    for (slot, expected) in [
        ("2026-01-01T10:00:00Z", vec![&first, &retry, &rerun]),
        ("2026-01-01T10:30:00Z", vec![]),
        ("2026-01-01T11:00:00Z", vec![&missed]),
        ("2026-01-01T12:00:00Z", vec![&missed, &inside]),
        ("2026-01-01T14:00:00Z", vec![&missed]),
        ("2026-01-01T15:00:00Z", vec![]),
    ] {
        let found = records.of_slot(&job("j"), Slot::at(at(slot))).await.unwrap();
        let found: Vec<RunId> = found.iter().map(|r| r.id).collect();
        let expected: Vec<RunId> = expected.iter().map(|r| r.id).collect();
        assert_eq!(found, expected, "{slot}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_slot_at_most_a_hundred_records_are_read() {
    let (_stack, records) = records().await;
    let first = decided("often", "2026-01-01T10:00:00Z", Outcome::Failed);
    for n in 0..105 {
        let again = later(first.clone(), TimeDelta::seconds(n), Trigger::Rerun, 1);
        finished(&records, &again).await;
    }
    let found = records.of_slot(&job("often"), Slot::at(at("2026-01-01T10:00:00Z"))).await.unwrap();
    assert_eq!(found.len(), 100);
    assert_eq!(found[0].start_time, first.start_time, "the oldest are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_looked_up_by_index() {
    let (stack, records) = records().await;
    finished(&records, &gap("j", "2026-01-01T11:00:00Z", "2026-01-01T14:00:00Z")).await;
    let log = stack.mongo().await.unwrap().database("cron").collection::<Document>("log");
    let names = log.list_index_names().await.unwrap();
    for index in ["jobName_1_scheduledTime_-1", "jobName_1_toSlot_1"] {
        assert!(names.iter().any(|name| name == index), "{index} is not among {names:?}");
    }
    let slot = mongodb::bson::DateTime::from_millis(at("2026-01-01T12:00:00Z").timestamp_millis());
    let alone = doc! {"jobName": "j", "scheduledTime": slot};
    let in_a_gap = doc! {"jobName": "j", "fromSlot": {"$lte": slot}, "toSlot": {"$gte": slot}};
    let either = doc! {"$or": [alone.clone(), in_a_gap.clone()]};
    let database = stack.mongo().await.unwrap().database("cron");
    for (query, simple) in [(alone, true), (in_a_gap, false), (either, false)] {
        let explain = doc! {"explain": {"find": "log", "filter": query}};
        let answer = database.run_command(explain).await.unwrap();
        // SecantusDB uses neither a partial index nor one for each side of an `$or`.
        if simple
            || answer.get_document("serverInfo").unwrap().get_str("host").unwrap() != "secantus"
        {
            let plan = answer.get_document("queryPlanner").unwrap().get("winningPlan").unwrap();
            let plan = plan.to_string();
            assert!(plan.contains("IXSCAN") && !plan.contains("COLLSCAN"), "{plan}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_decided_slot_of_every_job_is_known() {
    let (stack, records) = records().await;
    assert_eq!(records.newest_slots().await.unwrap(), BTreeMap::new());
    let run = decided("ran", "2026-01-01T10:00:00Z", Outcome::Succeeded);
    let manual = RunRecord {
        scheduled_time: None,
        ..later(run.clone(), TimeDelta::days(9), Trigger::Manual, 1)
    };
    let all = [
        run.clone(),
        decided("ran", "2026-01-01T09:00:00Z", Outcome::Lost),
        later(run, TimeDelta::days(3), Trigger::Rerun, 1),
        manual,
        // Ended by a gap, whose first slot is older than another record.
        gap("missed", "2026-01-01T08:00:00Z", "2026-01-01T20:00:00Z"),
        decided("missed", "2026-01-01T07:00:00Z", Outcome::Skipped),
        // Begun, not ended.
        decided("running", "2026-01-02T00:00:00Z", Outcome::Running),
        // Only ever asked for by hand: its schedule has decided nothing.
        later(
            decided("asked", "2026-01-01T10:00:00Z", Outcome::Failed),
            TimeDelta::zero(),
            Trigger::Backfill,
            1,
        ),
    ];
    for record in &all {
        finished(&records, record).await;
    }
    let another = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    finished(&another, &decided("ran", "2027-01-01T10:00:00Z", Outcome::Missed)).await;

    let expected = [
        ("missed", "2026-01-01T20:00:00Z"),
        ("ran", "2026-01-01T10:00:00Z"),
        ("running", "2026-01-02T00:00:00Z"),
    ];
    let expected: BTreeMap<JobName, Slot> =
        expected.into_iter().map(|(name, slot)| (job(name), Slot::at(at(slot)))).collect();
    assert_eq!(records.newest_slots().await.unwrap(), expected);
}
