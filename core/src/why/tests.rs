use super::*;
use crate::fleet::MAX_SKEW;
use crate::run::RunState;
use crate::testing::{self, at};

const NOW: &str = "2026-01-01T12:00:30Z";
const JOB: &str = r#"{"name":"j","command":"c","cronExpr":"0 * * * *"}"#;

fn slot(text: &str) -> Slot {
    Slot::at(at(text))
}

fn job() -> JobName {
    JobName::new("j").unwrap()
}

fn cursor(through: &str) -> (String, String) {
    let rules = crate::fleet::rules_version();
    let value = format!(
        r#"{{"rev":2,"expr":"0 * * * *","zone":"UTC","enabled":true,"rules":"{rules}","through":"{through}"}}"#
    );
    ("cursor/j".to_owned(), value)
}

fn worker(name: &str, more: &str) -> (String, String) {
    let rules = crate::fleet::rules_version();
    let value = format!(
        r#"{{"host":"h","pid":1,"version":"1","rulesVersion":"{rules}","capacity":2,
        "clock":"{NOW}","started":"2026-01-01T00:00:00Z"{more}}}"#
    );
    (format!("workers/{name}"), value)
}

fn running(slot: &str) -> (String, String) {
    let run = RunId::new(at("2026-01-01T11:00:00Z"));
    let value = format!(
        r#"{{"worker":"w1","lease":7,"attempt":1,"slot":"{slot}","since":"{slot}",
        "spawnBefore":"2026-01-01T13:00:00Z","jobRevision":2}}"#
    );
    (format!("running/j/{run}"), value)
}

fn replica(job: &str, more: &[(String, String)]) -> Replica {
    let job = ("jobs/j".to_owned(), job.to_owned());
    testing::replica(&[&[job], more].concat(), NOW)
}

fn tell(replica: &Replica, records: &[RunRecord], of: &str) -> Story {
    let (job, others, now) = (job(), &[][..], at(NOW));
    let known = Known { replica, job: &job, records, others, now, max_skew: MAX_SKEW };
    story(&known, slot(of))
}

fn ran(of: &str, outcome: Outcome) -> RunRecord {
    RunRecord {
        scheduled_time: Some(at(of)),
        claimed_time: Some(at(of) + TimeDelta::milliseconds(12)),
        job_revision: 2,
        ..RunRecord::new(RunId::new(at(of)), &job(), outcome, at(of))
    }
}

#[test]
fn a_run_is_told_with_how_late_it_was_claimed() {
    let replica = replica(JOB, &[cursor("2026-01-01T12:00:00Z"), worker("w1", "")]);
    let record = ran("2026-01-01T12:00:00Z", Outcome::Succeeded);
    let story = tell(&replica, &[record], "2026-01-01T12:00:00Z");
    let Fate::Decided { decisions, undecided } = &story.fate else { panic!("{story:?}") };
    assert_eq!((decisions.len(), undecided.len()), (1, 0));
    assert_eq!((decisions[0].late_millis, decisions[0].job_changed), (Some(12), false));
    assert_eq!(story.next.unwrap().slot, slot("2026-01-01T13:00:00Z"));
    assert_eq!(story.hindrances, []);
}

#[test]
fn a_gap_speaks_of_the_slots_of_the_schedule_and_of_no_instant_between() {
    let replica = replica(JOB, &[cursor("2026-01-01T12:00:00Z")]);
    let gap = RunRecord {
        scheduled_time: Some(at("2026-01-01T09:00:00Z")),
        from_slot: Some(at("2026-01-01T09:00:00Z")),
        to_slot: Some(at("2026-01-01T11:00:00Z")),
        claimed_time: None,
        ..ran("2026-01-01T11:30:00Z", Outcome::Missed)
    };
    let story = tell(&replica, std::slice::from_ref(&gap), "2026-01-01T10:00:00Z");
    assert!(matches!(story.fate, Fate::Decided { .. }), "{story:?}");
    assert_eq!(story.hindrances, [Hindrance::NoWorkers]);
    let story = tell(&replica, &[gap], "2026-01-01T10:30:00Z");
    let around =
        [Some("2026-01-01T10:00:00Z"), Some("2026-01-01T11:00:00Z")].map(|text| text.map(slot));
    let [before, after] = around;
    assert_eq!(story.fate, Fate::NoSlot { before, after });
}

#[test]
fn a_slot_before_the_cursor_without_a_record_is_not_made_up() {
    let replica = replica(JOB, &[cursor("2026-01-01T12:00:00Z")]);
    let story = tell(&replica, &[], "2026-01-01T10:00:00Z");
    assert_eq!(story.fate, Fate::Unrecorded { through: at("2026-01-01T12:00:00Z") });
}

#[test]
fn an_overdue_slot_names_what_stands_in_its_way() {
    let due = "2026-01-01T12:00:00Z";
    let before = cursor("2026-01-01T11:00:00Z");
    let prospect = |replica: &Replica| match tell(replica, &[], due).fate {
        Fate::Overdue { prospect, .. } => prospect,
        other => panic!("{other:?}"),
    };
    let until = at("2026-01-01T12:01:00Z");
    let free = replica(JOB, &[before.clone(), worker("w1", "")]);
    assert_eq!(prospect(&free), Prospect::Runs { late: false, until });

    let live = replica(JOB, &[before.clone(), running("2026-01-01T11:00:00Z")]);
    assert_eq!(prospect(&live), Prospect::Skipped);
    let story = tell(&live, &[], due);
    assert!(story.hindrances.iter().any(|h| matches!(h, Hindrance::Live(_))), "{story:?}");

    let paused = JOB.replace('}', r#","enabled":false}"#);
    let story = tell(&replica(&paused, std::slice::from_ref(&before)), &[], due);
    assert!(story.hindrances.contains(&Hindrance::Paused), "{story:?}");

    let frozen = ("settings".to_owned(), r#"{"frozen":true}"#.to_owned());
    let story = tell(&replica(JOB, &[before.clone(), frozen]), &[], due);
    assert!(story.hindrances.contains(&Hindrance::Frozen), "{story:?}");

    let none = JOB.replace('}', r#","selector":{"gpu":"yes"}}"#);
    let story = tell(&replica(&none, &[before.clone(), worker("w1", "")]), &[], due);
    assert!(story.hindrances.contains(&Hindrance::NobodyTakesIt), "{story:?}");
    let reason = story.workers[0].reason.as_deref();
    assert_eq!(reason, Some("it is not selected: it lacks gpu=yes"));

    let short = JOB.replace('}', r#","startDeadlineSecs":25}"#);
    let wait = prospect(&replica(&short, &[before]));
    assert_eq!(wait, Prospect::Settled { at: at("2026-01-01T12:00:35Z") });
}

#[test]
fn a_cursor_in_the_future_a_broken_job_and_a_lost_one_are_named() {
    let ahead = replica(JOB, &[cursor("2026-01-01T14:00:00Z")]);
    let story = tell(&ahead, &[], "2026-01-01T13:00:00Z");
    let through = at("2026-01-01T14:00:00Z");
    assert_eq!(story.fate, Fate::Unrecorded { through });
    assert!(story.hindrances.contains(&Hindrance::CursorAhead { through }), "{story:?}");
    let story = tell(&replica("{", &[]), &[], "2026-01-01T13:00:00Z");
    assert_eq!((story.fate, story.due), (Fate::Unknown, None));
    assert!(matches!(story.hindrances[0], Hindrance::Broken { .. }));
    let story = tell(&Replica::default(), &[], "2026-01-01T13:00:00Z");
    assert_eq!(story.hindrances, [Hindrance::Gone, Hindrance::NoWorkers]);
}

#[test]
fn a_coming_slot_names_who_takes_it_and_why_the_others_do_not() {
    let more = [
        cursor("2026-01-01T12:00:00Z"),
        worker("w1", ""),
        worker("w2", r#","draining":true"#),
        worker("w3", r#","full":true,"running":2"#),
        worker("w4", r#","standingBy":"a clock is off""#),
    ];
    let story = tell(&replica(JOB, &more), &[], "2026-01-01T13:00:00Z");
    assert_eq!(story.fate, Fate::Ahead);
    let told: Vec<_> = story.workers.iter().map(|w| (w.rank, w.reason.as_deref())).collect();
    let reasons = ["it is draining", "it is full: 2 of 2 runs", "it stands by: a clock is off"];
    let expected: Vec<_> = [(Some(0), None)]
        .into_iter()
        .chain(reasons.iter().map(|reason| (None, Some(*reason))))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn a_live_run_and_what_mongodb_has_not_acknowledged_are_found_in_etcd() {
    let of = "2026-01-01T12:00:00Z";
    let live = replica(JOB, &[cursor(of), running(of)]);
    let Fate::Decided { decisions, .. } = tell(&live, &[], of).fate else { panic!() };
    assert_eq!(decisions[0].state, Some(RunState::Claimed));
    assert!(decisions[0].unacknowledged);
    assert_eq!(newest_decided(&live, &job(), &[]), Some(slot(of)));

    let record = ran(of, Outcome::Failed);
    let done = (format!("done/j/{}", record.id), serde_json::to_string(&record).unwrap());
    let started = RunRecord { outcome: Outcome::Running, ..record };
    let replica = replica(JOB, &[cursor(of), done]);
    let Fate::Decided { decisions, .. } = tell(&replica, &[started], of).fate else { panic!() };
    assert_eq!((decisions.len(), decisions[0].record.outcome), (1, Outcome::Failed));
}

#[test]
fn the_run_that_blocked_a_slot_is_read_from_its_record() {
    let run = RunId::new(at(NOW));
    let record = ran("2026-01-01T12:00:00Z", Outcome::Skipped);
    let reason = Some(format!("the run {run} was still live"));
    assert_eq!(blocked_by(&RunRecord { reason: reason.clone(), ..record.clone() }), Some(run));
    let missed = RunRecord { reason, outcome: Outcome::Missed, ..record };
    assert_eq!(blocked_by(&missed), None);
}
