use carillon_core::decide::due_at;

use super::leftovers::KEPT_OF_JOB;
use super::*;
use crate::testing::{at, cursor, put};

fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

fn changes(items: Vec<Item>) -> Feed {
    let revision = items.iter().map(|item| item.mod_revision).max().unwrap();
    Feed::Changes { revision, items }
}

fn job(name: &str, expr: &str, more: &str) -> Item {
    let json = format!(r#"{{"name":"{name}","command":"true","cronExpr":"{expr}"{more}}}"#);
    put(&format!("jobs/{name}"), &json, 5)
}

fn trigger(job: &str, id: RunId, not_before: &str) -> Item {
    let json = format!(
        r#"{{"kind":"manual","attempt":1,"notBefore":"{not_before}","notAfter":"2030-01-01T00:00:00Z","jobCreated":5,"by":"me"}}"#
    );
    put(&format!("trigger/{job}/{id}"), &json, 7)
}

fn empty() -> Schedule {
    let keys = Keys::new("/cron").unwrap();
    Schedule::new(keys, WorkerId::new("w").unwrap(), BTreeMap::new(), TimeDelta::seconds(10))
}

/// Jobs `j0000` and so on, minutely, decided up to midnight and looked at one second later.
fn minutely(count: usize) -> Schedule {
    let mut schedule = empty();
    let names = (0..count).map(|number| format!("j{number:04}"));
    let items = names.flat_map(|name| {
        [job(&name, "* * * * *", ""), cursor(&name, "* * * * *", "2026-01-01T00:00:00Z")]
    });
    let now = at("2026-01-01T00:00:01Z");
    schedule.take(&Feed::Snapshot { revision: 6, cluster: 1, items: items.collect() }, now);
    assert_eq!(look_at_due(&mut schedule, now), Vec::<String>::new());
    schedule
}

/// Looks at everything that is due, and returns the jobs that have a step to take.
fn look_at_due(schedule: &mut Schedule, now: DateTime<Utc>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(due) = schedule.pop_due(now, false) {
        let Due::Job(job) = due else { panic!("{due:?}") };
        if let Ok(Some(_)) = schedule.look_at(&job, 1, now) {
            found.push(job.to_string());
        }
    }
    found
}

#[test]
fn every_job_waits_for_its_slot() {
    let mut schedule = minutely(3);
    let slot = at("2026-01-01T00:01:00Z");
    assert_eq!(schedule.peek(), Some(slot));
    assert_eq!(schedule.pop_due(slot - TimeDelta::nanoseconds(1), true), None);
    assert_eq!(look_at_due(&mut schedule, slot), ["j0000", "j0001", "j0002"]);
    assert_eq!(schedule.peek(), None);
}

#[test]
fn a_moved_cursor_needs_no_look() {
    let mut schedule = minutely(1);
    let now = at("2026-01-01T00:01:00Z");
    schedule.take(&changes(vec![cursor("j0000", "* * * * *", "2026-01-01T00:01:00Z")]), now);
    assert_eq!(schedule.peek(), Some(at("2026-01-01T00:02:00Z")));
    // After a change of the job it does: its plan is another.
    let edited = Item { mod_revision: 8, ..job("j0000", "* * * * *", r#","owner":"me""#) };
    schedule.take(&changes(vec![edited]), now);
    assert_eq!(schedule.pop_due(now, true), Some(Due::Job(name("j0000"))));
}

#[test]
fn a_cursor_in_the_future_stops_its_job() {
    let mut schedule = minutely(1);
    let now = at("2026-01-01T00:01:00Z");
    schedule.take(&changes(vec![cursor("j0000", "* * * * *", "2026-01-01T09:00:00Z")]), now);
    assert_eq!(schedule.pop_due(now, true), Some(Due::Job(name("j0000"))));
    let why = schedule.look_at(&name("j0000"), 1, now).err().unwrap();
    assert!(why.contains("in the future"), "{why}");
}

#[test]
fn a_job_that_was_paused_or_deleted_waits_for_nothing() {
    let now = at("2026-01-01T00:00:30Z");
    let mut schedule = minutely(2);
    let paused = Item { mod_revision: 8, ..job("j0000", "* * * * *", r#","enabled":false"#) };
    let deleted = Item { value: None, ..job("j0001", "* * * * *", "") };
    schedule.take(&changes(vec![paused, deleted]), now);
    while let Some(Due::Job(job)) = schedule.pop_due(now, false) {
        if let Ok(Some(wanted)) = schedule.look_at(&job, 1, now) {
            // Its cursor follows, as the transaction has it.
            let Move::Rebase { cursor, .. } = wanted.step else { panic!("{:?}", wanted.step) };
            let cursor = serde_json::to_string(&cursor).unwrap();
            schedule.take(&changes(vec![put("cursor/j0000", &cursor, 9)]), now);
        }
    }
    // Only the cursor of the deleted one is still to go, however the clock is set.
    let (by, due) = (TimeDelta::days(2), now + KEPT_OF_JOB);
    schedule.clock_set(by, now + by);
    look_at_due(&mut schedule, now + by);
    let collected = schedule.agenda.pop_due(due + by);
    assert_eq!(collected, Some((due + by, Due::Cursor(name("j0001"), None))));
    assert_eq!(schedule.peek(), None);
}

#[test]
fn spread_starts_are_due_apart() {
    let mut schedule = empty();
    let spread = |name: &str| job(name, "@hourly", r#","spreadSecs":600"#);
    let items = ["a", "b"].map(|n| [spread(n), cursor(n, "@hourly", "2026-01-01T00:00:00Z")]);
    let now = at("2026-01-01T00:00:01Z");
    schedule.take(&changes(items.concat()), now);
    look_at_due(&mut schedule, now);
    let mut due = ["a", "b"].map(|job| {
        let checked = schedule.replica.job(&name(job)).unwrap().state.unwrap();
        (due_at(&checked, at("2026-01-01T01:00:00Z")), job)
    });
    due.sort();
    assert_ne!(due[0].0, due[1].0);
    for (instant, job) in due {
        assert_eq!(schedule.peek(), Some(instant));
        assert_eq!(schedule.pop_due(instant, false), Some(Due::Job(name(job))));
    }
}

#[test]
fn a_thousand_slots_do_not_keep_a_trigger_or_an_edit_waiting() {
    let mut schedule = minutely(1000);
    let now = at("2026-01-01T00:01:00Z");
    for _ in 0..10 {
        schedule.pop_due(now, false).unwrap();
    }
    let id = RunId::new(now);
    let edited = Item { mod_revision: 8, ..job("j0500", "* * * * *", r#","owner":"me""#) };
    schedule.take(&changes(vec![trigger("j0900", id, "2026-01-01T00:00:00Z")]), now);
    schedule.take(&changes(vec![edited]), now);
    let next: Vec<Due> = (0..4).filter_map(|_| schedule.pop_due(now, false)).collect();
    assert!(next.contains(&Due::Trigger(name("j0900"), id)), "{next:?}");
    assert!(next.contains(&Due::Job(name("j0500"))), "{next:?}");
}

#[test]
fn a_change_of_the_settings_visits_every_job_and_keeps_no_slot_waiting() {
    let mut schedule = minutely(1000);
    let now = at("2026-01-01T00:01:00Z");
    schedule.take(&changes(vec![put("settings", r#"{"retentionDays":3}"#, 9)]), now);
    assert_eq!(schedule.agenda.peek(), None, "nothing is filed for each job");
    let first: Vec<Due> = (0..20).filter_map(|_| schedule.pop_due(now, false)).collect();
    let of_the_round = (0..10).map(|number| Due::Job(name(&format!("j{number:04}"))));
    // Every other one is due anyhow: both go through the jobs in the same order here.
    assert!(of_the_round.clone().all(|due| first.iter().filter(|d| **d == due).count() == 2));
    let rest = std::iter::from_fn(|| schedule.pop_due(now, false)).count();
    assert_eq!(rest, 2 * 990);
}

#[test]
fn what_is_held_comes_when_there_is_room_and_the_oldest_first() {
    let mut schedule = minutely(2);
    let now = at("2026-01-01T00:01:00Z");
    let (old, new) = (Due::Job(name("old")), Due::Job(name("new")));
    schedule.hold(new.clone(), now);
    schedule.hold(old.clone(), now - TimeDelta::seconds(5));
    assert_eq!(schedule.pop_due(now, false), Some(Due::Job(name("j0000"))));
    let with_room: Vec<_> = std::iter::from_fn(|| schedule.pop_due(now, true)).collect();
    assert_eq!(with_room, [old, new, Due::Job(name("j0001"))]);
}

#[test]
fn a_job_that_a_wrong_clock_stopped_goes_on_when_the_clock_is_right() {
    let mut schedule = minutely(1);
    let wrong = at("2025-12-31T23:00:00Z");
    schedule.clock_set(TimeDelta::minutes(-61), wrong);
    let due = schedule.pop_due(wrong, true);
    assert_eq!(due, Some(Due::Job(name("j0000"))), "every job is looked at again");
    assert!(schedule.look_at(&name("j0000"), 1, wrong).is_err());
    // It looks again when the clock has come near enough, which setting it does at once.
    let right = at("2026-01-01T00:00:20Z");
    assert_eq!(schedule.agenda.peek(), Some(at("2025-12-31T23:59:50Z")));
    assert_eq!(look_at_due(&mut schedule, right), Vec::<String>::new());
    assert_eq!(schedule.peek(), Some(at("2026-01-01T00:01:00Z")));
}

#[test]
fn a_clock_that_is_set_does_not_change_how_long_a_dead_workers_children_have() {
    for minutes in [-90, 90] {
        let mut schedule = minutely(1);
        let now = at("2026-01-01T00:00:02Z");
        let run = RunId::new(now);
        let live = format!(
            r#"{{"worker":"gone","lease":7,"attempt":1,"since":"{now:?}","spawnBefore":"{now:?}","graceSecs":10}}"#
        );
        schedule.take(&changes(vec![put(&format!("running/j0000/{run}"), &live, 9)]), now);
        let due = Due::Lost(name("j0000"), run);
        assert_eq!(schedule.agenda.get(&due), Some(now + TimeDelta::seconds(12)));
        let by = TimeDelta::minutes(minutes);
        let set = now + by + TimeDelta::seconds(5);
        schedule.clock_set(by, set);
        assert_eq!(schedule.agenda.get(&due), Some(set + TimeDelta::seconds(7)));
    }
}

#[test]
fn a_trigger_waits_for_what_the_clock_shows() {
    let mut schedule = minutely(1);
    let now = at("2026-01-01T00:00:10Z");
    let id = RunId::new(now);
    schedule.take(&changes(vec![trigger("j0000", id, "2026-01-01T00:00:40Z")]), now);
    let due = Due::Trigger(name("j0000"), id);
    assert_eq!(schedule.pop_due(now, true), Some(due.clone()));
    assert!(schedule.look_at_trigger(&name("j0000"), id, 1, now).is_none());
    let not_before = at("2026-01-01T00:00:40Z");
    assert_eq!(schedule.peek(), Some(not_before));
    let back = now - TimeDelta::hours(1);
    schedule.clock_set(TimeDelta::hours(-1), back);
    while let Some(due) = schedule.pop_due(back, true) {
        match due {
            Due::Job(job) => drop(schedule.look_at(&job, 1, back)),
            _ => assert!(schedule.look_at_trigger(&name("j0000"), id, 1, back).is_none()),
        }
    }
    assert_eq!(schedule.agenda.get(&due), Some(not_before));
}

/// Another worker, which comes before ours for some jobs.
fn other() -> Item {
    let json = format!(
        r#"{{"host":"h","pid":1,"labels":{{}},"version":"1","rulesVersion":"{}","capacity":9,"running":0,"clock":"2026-01-01T00:00:00Z","started":"2026-01-01T00:00:00Z","watchRevision":0,"tableHash":"","spoolBytes":0}}"#,
        rules_version()
    );
    Item { lease: 7, ..put("workers/v", &json, 8) }
}

#[test]
fn a_slot_is_left_to_those_before_us_while_they_are_claiming_others() {
    let slot = at("2026-01-01T00:01:00Z");
    let mut schedule = minutely(20);
    schedule.take(&changes(vec![other()]), at("2026-01-01T00:00:02Z"));
    let jobs: Vec<JobName> = schedule.replica.jobs.keys().cloned().collect();
    let mut wanted = jobs.iter().map(|job| schedule.look_at(job, 1, slot).unwrap().unwrap());
    let second = wanted.find(|wanted| wanted.rank == 1).unwrap();
    drop(wanted);
    let later = |millis| slot + TimeDelta::milliseconds(millis);
    assert!(!schedule.is_coming_up(&second, false, later(250)), "nobody is seen claiming");

    assert!(schedule.is_coming_up(&second, true, later(250)), "etcd is slow for all");

    let claim = |millis: i64| {
        let (run, at) = (RunId::new(later(millis)), later(millis).to_rfc3339());
        let json = format!(
            r#"{{"worker":"v","lease":7,"attempt":1,"since":"{at}","spawnBefore":"{at}"}}"#
        );
        changes(vec![put(&format!("running/elsewhere/{run}"), &json, 20 + millis)])
    };
    schedule.take(&claim(240), later(240));
    assert!(schedule.is_coming_up(&second, false, later(250)));
    assert!(!schedule.is_coming_up(&second, false, later(740)), "it has stopped");
    schedule.take(&claim(1_990), later(1_990));
    assert!(!schedule.is_coming_up(&second, false, later(2_000)), "it has had its time");
    let first = Wanted { rank: 0, ..second };
    schedule.take(&claim(240), later(240));
    assert!(!schedule.is_coming_up(&first, true, later(250)), "nobody comes before us");
}

#[test]
fn a_list_is_filed_with_its_last_part() {
    let mut schedule = empty();
    let now = at("2026-01-01T00:00:01Z");
    let part = vec![cursor("gone", "* * * * *", "2026-01-01T00:00:00Z"), job("j", "@hourly", "")];
    let part = Feed::Part { revision: 6, cluster: 1, items: part };
    assert_eq!((schedule.take(&part, now).len(), schedule.peek()), (0, None));
    let rest = Feed::Snapshot { revision: 6, cluster: 1, items: vec![job("k", "@hourly", "")] };
    let touched = schedule.take(&rest, now);
    let all = [Key::Cursor(name("gone"), None), Key::Job(name("j")), Key::Job(name("k"))];
    assert_eq!(touched, all.into());
    assert_eq!(look_at_due(&mut schedule, now), ["j", "k"]);
    let unneeded = schedule.agenda.get(&Due::Cursor(name("gone"), None));
    assert_eq!(unneeded, Some(now + KEPT_OF_JOB));
}

#[test]
fn a_record_that_lingers_is_left_to_its_worker_while_that_is_there() {
    let now = at("2026-01-01T00:00:00Z");
    let mut schedule = empty();
    let record = |id, worker: &str| {
        let job = name("j");
        let outcome = carillon_core::run::Outcome::Succeeded;
        let record =
            RunRecord { worker: worker.to_owned(), ..RunRecord::new(id, &job, outcome, now) };
        put(&format!("done/j/{id}"), serde_json::to_string(&record).unwrap(), 9)
    };
    let [ours, theirs] = ["w", "v"].map(|worker| (RunId::new(now), worker));
    let items = vec![other(), record(ours.0, ours.1), record(theirs.0, theirs.1)];
    schedule.take(&changes(items), now);
    let due = |schedule: &Schedule, id| schedule.agenda.get(&Due::Lingering(name("j"), id));
    assert_eq!(due(&schedule, ours.0), Some(now + LINGERING));
    assert!(due(&schedule, theirs.0) >= Some(now + LINGERING_OF_LIVE));
    let gone = Item { value: None, ..other() };
    schedule.take(&changes(vec![gone]), now);
    assert_eq!(due(&schedule, theirs.0), Some(now + LINGERING));
}
