use carillon_core::fleet::rules_version;
use carillon_core::id::{JobName, RunId};
use carillon_core::keys::Keys;
use carillon_core::replica::{Feed, Item, Replica};
use carillon_core::why::{Known, story};

use super::*;

const NOW: &str = "2026-01-01T12:00:30Z";
const RUN: &str = "01KDWG0Z40TESTTESTTESTTEST";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn replica(more: &str, through: &str) -> Replica {
    let keys = Keys::new("/cron").unwrap();
    let rules = rules_version();
    let job = format!(
        r#"{{"name":"j","command":"c","cronExpr":"0 * * * *","timezone":"Europe/Berlin"{more}}}"#
    );
    let cursor = format!(
        r#"{{"rev":2,"expr":"0 * * * *","zone":"Europe/Berlin","enabled":true,"rules":"{rules}","through":"{through}"}}"#
    );
    let worker = |more: &str| {
        format!(
            r#"{{"host":"h","pid":1,"version":"1","rulesVersion":"{rules}","capacity":2,
            "clock":"{NOW}","started":"2026-01-01T11:30:00Z"{more}}}"#
        )
    };
    let items = [
        ("jobs/j", job),
        ("cursor/j", cursor),
        ("workers/w1", worker("")),
        ("workers/w2", worker(r#","draining":true"#)),
    ];
    let items = items.into_iter().zip(2..).map(|((key, value), rev)| Item {
        key: format!("/cron/{key}").into(),
        value: Some(value.into()),
        mod_revision: rev,
        create_revision: rev,
        lease: 7,
    });
    let mut replica = Replica::default();
    let feed = Feed::Snapshot { revision: 9, cluster: 1, items: items.collect() };
    replica.apply(&keys, &feed, at(NOW));
    replica
}

fn record(of: &str, outcome: Outcome) -> RunRecord {
    let job = JobName::new("j").unwrap();
    let run: RunId = RUN.parse().unwrap();
    RunRecord {
        scheduled_time: Some(at(of)),
        worker: "w1".to_owned(),
        job_revision: 2,
        fencing_token: 812,
        ..RunRecord::new(run, &job, outcome, at(of) + TimeDelta::milliseconds(20))
    }
}

fn told(replica: &Replica, records: &[RunRecord], of: &str) -> String {
    let (job, now) = (JobName::new("j").unwrap(), at(NOW));
    let known = Known { replica, job: &job, records, others: records, now, max_skew: MAX_SKEW };
    lines(&story(&known, Slot::at(at(of))), now).join("\n")
}

#[test]
fn a_run_is_told_from_its_claim_to_its_end() {
    let of = "2026-01-01T12:00:00Z";
    let record = RunRecord {
        claimed_time: Some(at(of) + TimeDelta::milliseconds(12)),
        end_time: Some(at("2026-01-01T12:00:02.120Z")),
        exit_code: Some(3),
        err: "exit code 3".to_owned(),
        pid: Some(77),
        ..record(of, Outcome::Failed)
    };
    let expected = "\
j, 2026-01-01 13:00:00 +01:00: failed
  due        13:00:00.000, to be started within 60 s
  attempt 1  failed: run 01KDWG0Z40TESTTESTTESTTEST
    claimed  13:00:00.012 by w1, 12ms late, fence 812
    started  13:00:00.020 as process 77
    ended    13:00:02.120 after 2.1s: exit code 3
    reason   exit code 3
  workers    as they are registered now, in the order in which they take the job
    1.       w1
    -        w2: it is draining
  next slot  2026-01-01 14:00:00 +01:00";
    assert_eq!(told(&replica("", of), &[record], of), expected);
}

#[test]
fn a_missed_slot_is_told_with_its_gap_and_who_was_not_there() {
    let of = "2026-01-01T10:00:00Z";
    let reason = "no worker started it within 60 s of its time".to_owned();
    let record = RunRecord {
        from_slot: Some(at("2026-01-01T09:00:00Z")),
        to_slot: Some(at("2026-01-01T11:00:00Z")),
        count: Some(3),
        reason: Some(reason),
        start_time: at("2026-01-01T11:30:01Z"),
        fencing_token: 0,
        ..record(of, Outcome::Missed)
    };
    let expected = "\
j, 2026-01-01 11:00:00 +01:00: missed
  due        11:00:00.000, to be started within 60 s
  missed     no worker started it within 60 s of its time
    settled  12:30:01.000 by w1, record 01KDWG0Z40TESTTESTTESTTEST
    with     3 slots from 2026-01-01 10:00:00 +01:00 to 2026-01-01 12:00:00 +01:00
  absent     w1, which started only at 12:30:00.000
  absent     w2, which started only at 12:30:00.000
  workers    as they are registered now, in the order in which they take the job
    1.       w1
    -        w2: it is draining
  next slot  2026-01-01 14:00:00 +01:00";
    assert_eq!(told(&replica("", "2026-01-01T12:00:00Z"), &[record], of), expected);
}

#[test]
fn what_is_to_come_overdue_or_no_slot_is_told_as_things_stand() {
    let replica_ = replica(r#","selector":{"gpu":"yes"}"#, "2026-01-01T11:00:00Z");
    let expected = "\
j, 2026-01-01 13:00:00 +01:00: past due and not decided
  due        13:00:00.000, to be started within 60 s
  now        it may start until 13:01:00.000, and no worker takes it
  hindered   none of the registered workers takes the job
  workers    as they are registered now, in the order in which they take the job
    -        w1: it is not selected: it lacks gpu=yes
    -        w2: it is draining";
    assert_eq!(told(&replica_, &[], "2026-01-01T12:00:00Z"), expected);

    let expected = "\
j, 2026-01-01 14:00:00 +01:00: due in 59m30s
  due        14:00:00.000, to be started within 60 s
  expected   w1 takes it
  workers    as they are registered now, in the order in which they take the job
    1.       w1
    -        w2: it is draining";
    let replica = replica("", "2026-01-01T12:00:00Z");
    assert_eq!(told(&replica, &[], "2026-01-01T13:00:00Z"), expected);

    let expected = "\
j, 2026-01-01 13:30:00 +01:00: not a slot of its schedule
  before it  2026-01-01 13:00:00 +01:00
  after it   2026-01-01 14:00:00 +01:00";
    assert_eq!(told(&replica, &[], "2026-01-01T12:30:00Z"), expected);
}

#[test]
fn a_lost_run_and_a_late_result_are_told() {
    let of = "2026-01-01T12:00:00Z";
    let record = RunRecord {
        claimed_time: Some(at(of)),
        end_time: Some(at("2026-01-01T12:00:25Z")),
        err: "the worker w1 died or lost its lease during the run".to_owned(),
        late_result: Some("exit code 0".to_owned()),
        ..record(of, Outcome::Lost)
    };
    let told = told(&replica("", of), &[record], of);
    for part in [
        "    noticed  13:00:25.000: the worker w1 died or lost its lease during the run",
        "    later    after it was taken for lost its worker reported: exit code 0",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn what_every_worker_runs_for_itself_has_no_order() {
    let each = replica(r#","scope":"everyWorker""#, "2026-01-01T12:00:00Z");
    let expected = "\
j, 2026-01-01 14:00:00 +01:00: due in 59m30s
  due        14:00:00.000, to be started within 60 s
  expected   w1, each for itself
  workers    as they are registered now, each runs the job
    +        w1
    -        w2: it is draining";
    assert_eq!(told(&each, &[], "2026-01-01T13:00:00Z"), expected);
    let of = "2026-01-01T12:00:00Z";
    let told = told(&each, &[record(of, Outcome::Succeeded)], of);
    assert!(told.contains(&format!("  attempt 1  on w1 succeeded: run {RUN}")), "{told}");
}
