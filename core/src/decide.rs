//! The cursor's next step as a pure function: run, skip, miss, rebase, or wait.
//!
//! Slots are decided in order. [`next_step`] looks at one job and says what becomes of its oldest
//! undecided slot; [`crate::claims`] turns the answer into one transaction, and that transaction
//! alone decides. Nothing here reads a clock.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::id::{RunId, Slot};
use crate::job::{CatchUp, Checked, Concurrency, Job, JobEntry, Limits, Overflow, Scope};
use crate::schedule::Schedule;

/// How many slots one gap record may settle; a longer gap takes several.
pub const GAP_LIMIT: usize = 100_000;

/// How old an `updatedAt` may be to be believed where there is no cursor to compare it with: a job
/// restored from a file carries the instant of its old life.
const RECENT: TimeDelta = TimeDelta::seconds(60);

/// The value of `cursor/<job>`: up to which instant the job's slots are decided, and for which
/// revision and schedule of the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// etcd revision of the job this cursor belongs to.
    pub rev: i64,
    /// The schedule's text.
    pub expr: String,
    /// The zone the schedule was computed in.
    pub zone: String,
    /// Whether the job was enabled.
    pub enabled: bool,
    /// Everything up to and including this instant is decided.
    pub through: DateTime<Utc>,
    /// The job's `updatedAt` at that revision: a later revision with the same one was written by a
    /// tool that copied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
}

/// One or more slots that are settled by one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The first slot.
    pub from: Slot,
    /// The last slot.
    pub to: Slot,
    /// How many, both included.
    pub count: usize,
    /// Why they did not run, for an operator.
    pub reason: String,
}

/// What a worker knows of one job when it asks for the next step.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The job as stored.
    pub entry: &'a JobEntry,
    /// The job's own zone or the fleet's.
    pub zone: Tz,
    /// Its cursor; `None` where it has none yet.
    pub cursor: Option<&'a Cursor>,
    /// The oldest live run of the job.
    pub live: Option<RunId>,
    /// The worker's clock.
    pub now: DateTime<Utc>,
    /// How far two clocks of the fleet may be apart.
    pub max_skew: TimeDelta,
}

/// What comes next for a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing is due before this instant; `None`: not until something changes.
    Wait(Option<DateTime<Utc>>),
    /// The cursor moves, in one transaction.
    Move(Move),
    /// The job cannot be scheduled at all, and why.
    Stuck(String),
}

/// A move of the cursor: what becomes of the oldest undecided slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// The cursor must first follow a change of the job.
    Rebase {
        /// The new cursor.
        cursor: Cursor,
        /// What the old schedule still owed.
        owed: Option<Gap>,
    },
    /// The slot runs.
    Run {
        /// The slot.
        slot: Slot,
        /// The cursor after it.
        cursor: Cursor,
        /// No process is started after this instant.
        spawn_before: DateTime<Utc>,
    },
    /// The slot does not run, because an earlier run is live.
    Skip {
        /// The slot.
        slot: Slot,
        /// The cursor after it.
        cursor: Cursor,
        /// The live run.
        because: RunId,
    },
    /// The deadline of these slots has passed.
    Miss {
        /// The slots.
        gap: Gap,
        /// The cursor after them.
        cursor: Cursor,
    },
}

/// The next step of one job.
pub fn next_step(s: &Situation<'_>) -> Step {
    let checked = match &s.entry.state {
        Ok(checked) => checked,
        Err(problems) => return Step::Stuck(problems.to_string()),
    };
    if checked.job.scope == Scope::EveryWorker {
        return Step::Stuck("scope `everyWorker` is not supported by this version".to_owned());
    }
    let Some(cursor) = s.cursor else {
        return rebase(s, checked, None);
    };
    if cursor.rev != s.entry.mod_revision || cursor.zone != s.zone.name() {
        return rebase(s, checked, Some(cursor));
    }
    if cursor.through > s.now + s.max_skew {
        return Step::Stuck(format!(
            "its slots are decided up to {}, which is in the future: a clock is or was wrong",
            Slot::at(cursor.through)
        ));
    }
    if !checked.job.enabled {
        return Step::Wait(None);
    }
    let Some(due) = checked.schedule.next_after(s.zone, cursor.through) else {
        return Step::Wait(None);
    };
    if due > s.now {
        return Step::Wait(Some(due));
    }
    decide_due(s, checked, cursor, due)
}

fn decide_due(s: &Situation<'_>, checked: &Checked, cursor: &Cursor, due: DateTime<Utc>) -> Step {
    let slot = Slot::at(due);
    let deadline = TimeDelta::seconds(checked.job.start_deadline_secs.into());
    let moved_to = |through| Cursor { through, ..cursor.clone() };
    if s.now < due + deadline {
        return match s.live {
            Some(because) if checked.job.concurrency == Concurrency::Forbid => {
                Step::Move(Move::Skip { slot, cursor: moved_to(due), because })
            }
            _ => {
                Step::Move(Move::Run { slot, cursor: moved_to(due), spawn_before: due + deadline })
            }
        };
    }
    // Another worker's clock may be behind: it could still run the slot in time.
    let settled_at = due + deadline + s.max_skew;
    if s.now < settled_at {
        return Step::Wait(Some(settled_at));
    }
    let until = s.now - deadline - s.max_skew;
    let reason =
        format!("no worker started it within {} s of its time", checked.job.start_deadline_secs);
    match gap(&checked.schedule, s.zone, cursor.through, until, reason) {
        Some(gap) => {
            let cursor = moved_to(gap.to.instant());
            Step::Move(Move::Miss { gap, cursor })
        }
        None => Step::Wait(Some(settled_at)),
    }
}

/// The slots of `schedule` after `after` up to and including `until`, at most [`GAP_LIMIT`].
fn gap(
    schedule: &Schedule,
    zone: Tz,
    after: DateTime<Utc>,
    until: DateTime<Utc>,
    reason: String,
) -> Option<Gap> {
    let from = schedule.next_after(zone, after)?;
    let (count, last) = schedule.slots_between(zone, after, until, GAP_LIMIT);
    let to = last?;
    Some(Gap { from: Slot::at(from), to: Slot::at(to), count, reason })
}

/// Makes the cursor follow the job.
///
/// The slots between the old cursor and the change were owed by the old schedule and are settled
/// as skipped. When nothing that matters for slots changed, nothing is owed and `through` stays.
fn rebase(s: &Situation<'_>, checked: &Checked, old: Option<&Cursor>) -> Step {
    let fresh = |through| Cursor {
        rev: s.entry.mod_revision,
        expr: checked.job.cron_expr.clone(),
        zone: s.zone.name().to_owned(),
        enabled: checked.job.enabled,
        through,
        updated_at: checked.job.updated_at,
    };
    let Some(old) = old else {
        return Step::Move(Move::Rebase {
            cursor: fresh(changed_at(s, checked, None)),
            owed: None,
        });
    };
    // A job that was deleted and made again is another one, whatever its schedule.
    let recreated = s.entry.create_revision > old.rev;
    let same_schedule = old.expr == checked.job.cron_expr
        && old.zone == s.zone.name()
        && old.enabled == checked.job.enabled;
    if same_schedule && !recreated {
        return Step::Move(Move::Rebase { cursor: fresh(old.through), owed: None });
    }
    let through = old.through.max(changed_at(s, checked, Some(old)));
    let owed = if old.enabled && !recreated { owed_by(old, through) } else { None };
    Step::Move(Move::Rebase { cursor: fresh(through), owed })
}

/// When the job was changed: what the writer says, unless that is a copy from an earlier life or
/// in the future, else now.
fn changed_at(s: &Situation<'_>, checked: &Checked, old: Option<&Cursor>) -> DateTime<Utc> {
    let fresh = |at: &DateTime<Utc>| match old {
        Some(old) => *at > old.through && old.updated_at != Some(*at),
        None => *at > s.now - RECENT,
    };
    checked.job.updated_at.filter(fresh).map_or(s.now, |at| at.min(s.now))
}

fn owed_by(old: &Cursor, through: DateTime<Utc>) -> Option<Gap> {
    let schedule = Schedule::parse(&old.expr).ok()?;
    let zone = old.zone.parse().ok()?;
    let reason = "the job was changed before its time came".to_owned();
    gap(&schedule, zone, old.through, through, reason)
}

/// The policies of a job that this version keeps and shows but does not act on yet.
pub fn not_acted_on(job: &Job) -> Vec<&'static str> {
    let list = [
        (job.scope == Scope::EveryWorker, "scope everyWorker (the job does not run)"),
        (job.catch_up != CatchUp::None, "catchUp (missed slots are recorded, not run)"),
        (job.retries.max > 0, "retries"),
        (job.on_lease_loss != Default::default(), "onLeaseLoss continue"),
        (job.on_lost != Default::default(), "onLost rerun"),
        (job.spread_secs > 0, "spreadSecs"),
        (job.umask.is_some(), "umask"),
        (job.limits != Limits::default(), "limits"),
        (job.overflow == Overflow::Block, "overflow block (the middle is dropped)"),
        (!job.notify.is_empty(), "notify"),
    ];
    list.into_iter().filter_map(|(set, what)| set.then_some(what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::JobName;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn entry(json: &str, mod_revision: i64, create_revision: i64) -> JobEntry {
        JobEntry::read(JobName::new("j").unwrap(), json.as_bytes(), mod_revision, create_revision)
    }

    const MINUTELY: &str = r#"{"name":"j","command":"c","cronExpr":"* * * * *"}"#;

    fn cursor(through: &str) -> Cursor {
        Cursor {
            rev: 5,
            expr: "* * * * *".into(),
            zone: "UTC".into(),
            enabled: true,
            through: at(through),
            updated_at: None,
        }
    }

    fn situation<'a>(entry: &'a JobEntry, cursor: Option<&'a Cursor>, now: &str) -> Situation<'a> {
        let max_skew = TimeDelta::seconds(10);
        Situation { entry, zone: Tz::UTC, cursor, live: None, now: at(now), max_skew }
    }

    #[test]
    fn a_new_job_starts_now_and_never_fires_the_past() {
        let job = entry(MINUTELY, 5, 5);
        let step = next_step(&situation(&job, None, "2026-01-01T00:00:30Z"));
        let Step::Move(Move::Rebase { cursor, owed: None }) = step else { panic!("{step:?}") };
        assert_eq!(cursor.through, at("2026-01-01T00:00:30Z"));
        let step = next_step(&situation(&job, Some(&cursor), "2026-01-01T00:00:31Z"));
        assert_eq!(step, Step::Wait(Some(at("2026-01-01T00:01:00Z"))));
    }

    #[test]
    fn a_due_slot_runs_until_its_deadline_and_is_missed_after_the_skew() {
        let job = entry(MINUTELY, 5, 5);
        let c = cursor("2026-01-01T00:00:00Z");
        let run = next_step(&situation(&job, Some(&c), "2026-01-01T00:01:59Z"));
        let Step::Move(Move::Run { slot, cursor, spawn_before }) = run else { panic!("{run:?}") };
        assert_eq!(slot.to_string(), "2026-01-01T00:01:00Z");
        assert_eq!(cursor.through, slot.instant());
        assert_eq!(spawn_before, at("2026-01-01T00:02:00Z"));
        let wait = next_step(&situation(&job, Some(&c), "2026-01-01T00:02:05Z"));
        assert_eq!(wait, Step::Wait(Some(at("2026-01-01T00:02:10Z"))));
        let miss = next_step(&situation(&job, Some(&c), "2026-01-01T00:02:10Z"));
        let Step::Move(Move::Miss { gap, cursor }) = miss else { panic!("{miss:?}") };
        assert_eq!((gap.from, gap.to, gap.count), (slot, slot, 1));
        assert_eq!(cursor.through, slot.instant());
    }

    #[test]
    fn an_outage_is_one_gap_and_the_newest_slots_still_run() {
        let job = entry(MINUTELY, 5, 5);
        let c = cursor("2026-01-01T00:00:00Z");
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T03:00:20Z"));
        let Step::Move(Move::Miss { gap, cursor }) = step else { panic!("{step:?}") };
        assert_eq!((gap.from.to_string().as_str(), gap.count), ("2026-01-01T00:01:00Z", 179));
        assert_eq!(gap.to.to_string(), "2026-01-01T02:59:00Z");
        let step = next_step(&situation(&job, Some(&cursor), "2026-01-01T03:00:20Z"));
        assert!(matches!(step, Step::Move(Move::Run { .. })), "{step:?}");
    }

    #[test]
    fn an_earlier_live_run_skips_the_slot_only_under_forbid() {
        let c = cursor("2026-01-01T00:00:00Z");
        let run = RunId::new(at("2026-01-01T00:00:00Z"));
        for (policy, skipped) in [("forbid", true), ("allow", false), ("replace", false)] {
            let json = MINUTELY.replace('}', &format!(r#","concurrency":"{policy}"}}"#));
            let job = entry(&json, 5, 5);
            let mut s = situation(&job, Some(&c), "2026-01-01T00:01:00Z");
            s.live = Some(run);
            assert_eq!(matches!(next_step(&s), Step::Move(Move::Skip { .. })), skipped, "{policy}");
        }
    }

    #[test]
    fn an_edit_settles_what_the_old_schedule_owed_and_fires_nothing_past() {
        let json = MINUTELY.replace("* * * * *", "0 0 1 1 *");
        let job = entry(&json, 9, 5);
        let c = cursor("2026-01-01T00:00:00Z");
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T00:03:30Z"));
        let Step::Move(Move::Rebase { cursor, owed: Some(gap) }) = step else { panic!("{step:?}") };
        assert_eq!((gap.count, gap.to.to_string().as_str()), (3, "2026-01-01T00:03:00Z"));
        assert_eq!((cursor.rev, cursor.through), (9, at("2026-01-01T00:03:30Z")));
    }

    #[test]
    fn an_edit_of_other_fields_keeps_the_slots() {
        let job = entry(&MINUTELY.replace("\"c\"", "\"other\""), 9, 5);
        let c = cursor("2026-01-01T00:00:00Z");
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T00:03:30Z"));
        let Step::Move(Move::Rebase { cursor, owed: None }) = step else { panic!("{step:?}") };
        assert_eq!((cursor.rev, cursor.through), (9, c.through));
    }

    #[test]
    fn a_recreated_job_owes_nothing_and_starts_anew() {
        let job = entry(MINUTELY, 9, 9);
        let c = cursor("2026-01-01T00:00:00Z");
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T00:03:30Z"));
        let Step::Move(Move::Rebase { cursor, owed: None }) = step else { panic!("{step:?}") };
        assert_eq!(cursor.through, at("2026-01-01T00:03:30Z"));
    }

    #[test]
    fn a_stale_or_future_updated_at_is_not_believed() {
        let c = cursor("2026-01-01T00:00:00Z");
        for updated in ["2025-12-31T00:00:00Z", "2026-06-01T00:00:00Z"] {
            let json = MINUTELY
                .replace("* * * * *", "@hourly")
                .replace('}', &format!(r#","updatedAt":"{updated}"}}"#));
            let job = entry(&json, 9, 5);
            let step = next_step(&situation(&job, Some(&c), "2026-01-01T00:03:30Z"));
            let Step::Move(Move::Rebase { cursor, .. }) = step else { panic!("{step:?}") };
            assert_eq!(cursor.through, at("2026-01-01T00:03:30Z"), "{updated}");
        }
    }

    #[test]
    fn a_copied_updated_at_is_not_believed() {
        let updated = "2026-01-01T09:00:00Z";
        let c = Cursor { updated_at: Some(at(updated)), ..cursor("2026-01-01T00:00:00Z") };
        let json = MINUTELY
            .replace("* * * * *", "0 12 * * *")
            .replace('}', &format!(r#","updatedAt":"{updated}"}}"#));
        let job = entry(&json, 9, 5);
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T17:00:00Z"));
        let Step::Move(Move::Rebase { cursor, .. }) = step else { panic!("{step:?}") };
        assert_eq!(cursor.through, at("2026-01-01T17:00:00Z"));
    }

    #[test]
    fn a_pause_waits_a_broken_job_and_a_future_cursor_are_stuck() {
        let paused = entry(&MINUTELY.replace('}', r#","enabled":false}"#), 5, 5);
        let c = Cursor { enabled: false, ..cursor("2026-01-01T00:00:00Z") };
        let now = "2026-01-01T00:03:30Z";
        assert_eq!(next_step(&situation(&paused, Some(&c), now)), Step::Wait(None));
        let broken = entry("{", 5, 5);
        assert!(matches!(next_step(&situation(&broken, Some(&c), now)), Step::Stuck(_)));
        let job = entry(MINUTELY, 5, 5);
        let future = cursor("2026-01-01T01:00:00Z");
        assert!(matches!(next_step(&situation(&job, Some(&future), now)), Step::Stuck(_)));
    }
}
