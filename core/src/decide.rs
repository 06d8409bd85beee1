//! The cursor's next step as a pure function: run, skip, miss, rebase, or wait.
//!
//! Slots are decided in order. [`next_step`] looks at one job and says what becomes of its oldest
//! undecided slot; [`crate::steps`] has the transaction for the answer, and that transaction alone
//! decides. Nothing here reads a clock.
//!
//! A slot keeps the instant that the schedule gives it. It is *due* later where the job's starts
//! are spread; its deadline counts from there.
//!
//! # Catching up
//!
//! What no worker could start in time is a gap. Without `catchUp` it is missed as a whole. With
//! `latest` its newest slot runs late, unless a still newer one is due and in time; with `all` they
//! run one after the other, oldest first, as far back as the job's window reaches. Under `forbid` a
//! late run waits for the one before, instead of being skipped.
//!
//! # When the clock is set
//!
//! A worker's clock may be set at any time, in either direction, so an answer follows from the
//! cursor and from what the clock shows now, never from what it showed before.
//!
//! - After a step *backwards* nothing is decided again, because the cursor stands. What comes next
//!   waits until the clock shows its instant. A cursor further in the future than clocks may be
//!   apart is [`Step::Stuck`], until the clock has come near enough.
//! - After a jump *forwards* the oldest undecided slot comes first. All whose deadline was passed
//!   are one [`Move::Miss`], counted by arithmetic; the others follow, one step each.

use std::fmt;

use chrono::{DateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::fleet::{FleetSettings, rules_version};
use crate::id::{JobName, RunId, Slot};
use crate::job::{CatchUp, Checked, Concurrency, JobEntry, OnLost};
use crate::run::{LiveRun, Outcome, Running, Trigger, TriggerRequest};
use crate::schedule::{Plan, Schedule};

/// How many slots one gap record may settle; a longer gap takes several.
pub const GAP_LIMIT: usize = 100_000;

/// How old an `updatedAt` may be to be believed where there is no cursor to compare it with: a job
/// restored from a file carries the instant of its old life.
const RECENT: TimeDelta = TimeDelta::seconds(60);

/// How many times a slot is run again because its worker was lost, where the job's retries do not
/// say more: a job that brings its workers down must not go through the whole fleet for ever.
pub const RERUNS: u32 = 3;

/// The value of `cursor/<job>`: up to which instant the job's slots are decided, and for which
/// revision and schedule of the job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// etcd revision of the job this cursor belongs to.
    pub rev: i64,
    /// The schedule's text.
    pub expr: String,
    /// The zone the schedule was computed in.
    pub zone: String,
    /// The instant at which the periods of `@every` begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<DateTime<Utc>>,
    /// Whether the job was enabled.
    pub enabled: bool,
    /// The rules that it was computed by, see [`rules_version`].
    #[serde(default)]
    pub rules: String,
    /// Everything up to and including this instant is decided.
    pub through: DateTime<Utc>,
    /// By how many seconds the zone's clock was ahead of UTC then, by those rules.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: i32,
    /// The job's `updatedAt` at that revision: a later revision with the same one was written by a
    /// tool that copied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
}

fn is_zero(offset: &i32) -> bool {
    *offset == 0
}

/// By how many seconds the zone's clock is ahead of UTC.
fn offset_of(zone: Tz, at: DateTime<Utc>) -> i32 {
    zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()
}

impl Cursor {
    /// The same cursor at another instant.
    #[must_use]
    pub fn moved_to(&self, zone: Tz, through: DateTime<Utc>) -> Self {
        Self { through, offset: offset_of(zone, through), ..self.clone() }
    }
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
    /// The oldest live run of the job; of a job that runs on every worker, the oldest on this one.
    pub live: Option<RunId>,
    /// When this worker registered, for a job that runs on every worker: nothing before concerns it.
    pub registered: Option<DateTime<Utc>>,
    /// The worker's clock.
    pub now: DateTime<Utc>,
    /// How far two clocks of the fleet may be apart.
    pub max_skew: TimeDelta,
}

/// What comes next for a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The next slot is due at this instant; `None`: no slot is, until something changes.
    Next(Option<DateTime<Utc>>),
    /// Nothing is to be done before this instant, which is not a slot's.
    Wait(DateTime<Utc>),
    /// A slot that is caught up waits for the end of this run.
    Blocked(RunId),
    /// The cursor moves, in one transaction.
    Move(Move),
    /// The job cannot be scheduled.
    Stuck {
        /// Why, for an operator.
        why: String,
        /// From when on it can; `None`: not until something changes.
        until: Option<DateTime<Utc>>,
    },
}

impl Step {
    fn stuck(why: impl fmt::Display) -> Self {
        Self::Stuck { why: why.to_string(), until: None }
    }
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
        /// Whether it was missed and is caught up.
        caught_up: bool,
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
        Err(problems) => return Step::stuck(problems),
    };
    let Some(cursor) = s.cursor else {
        return rebase(s, checked, None);
    };
    if cursor.rev != s.entry.mod_revision
        || cursor.zone != s.zone.name()
        || cursor.rules != rules_version()
    {
        return rebase(s, checked, Some(cursor));
    }
    if cursor.through > s.now + s.max_skew {
        let why = format!(
            "its slots are decided up to {}, which is in the future: a clock is or was wrong",
            Slot::at(cursor.through)
        );
        return Step::Stuck { why, until: Some(cursor.through - s.max_skew) };
    }
    if !checked.job.enabled {
        return Step::Next(None);
    }
    let Some(slot) = checked.schedule.next_after(s.zone, cursor.through) else {
        return Step::Next(None);
    };
    let due = due_at(checked, slot);
    if due > s.now {
        return Step::Next(Some(due));
    }
    decide_due(s, checked, cursor, slot, due)
}

/// When a slot of the job is due: at its instant, put off by the job's share of the spread.
pub fn due_at(checked: &Checked, slot: DateTime<Utc>) -> DateTime<Utc> {
    slot + TimeDelta::seconds(checked.job.spread().into())
}

/// When the first slot of the job that is due after `now` is due.
pub fn next_due(checked: &Checked, zone: Tz, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let spread = TimeDelta::seconds(checked.job.spread().into());
    Some(checked.schedule.next_after(zone, now - spread)? + spread)
}

/// When the job's slots are due, for a [`Timetable`](crate::timetable::Timetable).
pub fn plan(checked: &Checked, zone: Tz) -> Plan {
    Plan::new(&checked.schedule, zone, checked.job.spread())
}

/// For how many days a job's records are kept: its own word, or the fleet's; for ever where neither
/// says.
pub fn retention_days(job: Option<&JobEntry>, fleet: &FleetSettings) -> Option<u32> {
    job.and_then(|entry| entry.job()?.retention_days).or(fleet.retention_days)
}

fn decide_due(
    s: &Situation<'_>,
    checked: &Checked,
    cursor: &Cursor,
    through: DateTime<Utc>,
    due: DateTime<Utc>,
) -> Step {
    let slot = Slot::at(through);
    let within = TimeDelta::seconds(checked.job.start_deadline_secs.into());
    let spawn_before = due + within;
    if s.now < spawn_before {
        let cursor = cursor.moved_to(s.zone, through);
        return Step::Move(match s.live {
            Some(because) if checked.job.concurrency == Concurrency::Forbid => {
                Move::Skip { slot, cursor, because }
            }
            _ => Move::Run { slot, cursor, spawn_before, caught_up: false },
        });
    }
    // Another worker's clock may be behind: it could still run the slot in time. But no later slot
    // waits for that: one in time would pass its own deadline meanwhile, and so the next, for ever.
    let spread = due - through;
    let next = checked.schedule.next_after(s.zone, s.now - within - spread);
    let next_due = next.map(|next| next + spread);
    let settled_at = spawn_before + s.max_skew;
    if next_due.is_some_and(|next| next <= s.now) {
        return settle_gap(s, checked, cursor, slot, spread, TimeDelta::zero());
    }
    if s.now < settled_at {
        return Step::Wait(next_due.map_or(settled_at, |next| next.min(settled_at)));
    }
    settle_gap(s, checked, cursor, slot, spread, s.max_skew)
}

/// Decides slots that nobody started in time, of which `first` is the oldest. `spread` is by how
/// much each is due after its instant, `patience` how long after its deadline one is given up.
fn settle_gap(
    s: &Situation<'_>,
    checked: &Checked,
    cursor: &Cursor,
    first: Slot,
    spread: TimeDelta,
    patience: TimeDelta,
) -> Step {
    let secs = checked.job.start_deadline_secs;
    let within = TimeDelta::seconds(secs.into());
    let until = s.now - patience - within - spread;
    let late = format!("no worker started it within {secs} s of its time");
    let miss = |until, reason| match gap(&checked.schedule, s.zone, cursor.through, until, reason) {
        Some(gap) => {
            let cursor = cursor.moved_to(s.zone, gap.to.instant());
            Step::Move(Move::Miss { gap, cursor })
        }
        None => Step::Wait(first.instant() + spread + within + patience),
    };
    let run = |slot: Slot| match s.live {
        Some(because) if checked.job.concurrency == Concurrency::Forbid => Step::Blocked(because),
        _ => Step::Move(Move::Run {
            slot,
            cursor: cursor.moved_to(s.zone, slot.instant()),
            spawn_before: s.now + within,
            caught_up: true,
        }),
    };
    let window = TimeDelta::seconds(checked.job.catch_up_window_secs.into());
    let reaches = s.now - window;
    match checked.job.catch_up {
        CatchUp::None => miss(until, late),
        CatchUp::All if first.instant() > reaches => run(first),
        CatchUp::All => {
            miss(until.min(reaches), format!("{late}, and catch-up does not reach that far back"))
        }
        CatchUp::Latest => {
            let (count, newest) =
                checked.schedule.slots_between(s.zone, cursor.through, until, GAP_LIMIT);
            let next = newest.and_then(|newest| checked.schedule.next_after(s.zone, newest));
            match newest {
                Some(newest)
                    if count < GAP_LIMIT
                        && newest > reaches
                        && next.is_none_or(|next| next + spread > s.now) =>
                {
                    if count > 1 {
                        let before = newest - TimeDelta::seconds(1);
                        miss(before, format!("{late}, and only the newest is caught up"))
                    } else {
                        run(Slot::at(newest))
                    }
                }
                _ => miss(until, late),
            }
        }
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
        anchor: checked.job.anchor,
        enabled: checked.job.enabled,
        rules: rules_version().to_owned(),
        through,
        offset: offset_of(s.zone, through),
        updated_at: checked.job.updated_at,
    };
    let Some(old) = old else {
        let from = changed_at(s, checked, None);
        let cursor = fresh(s.registered.map_or(from, |registered| from.max(registered)));
        return Step::Move(Move::Rebase { cursor, owed: None });
    };
    // A job that was deleted and made again is another one, whatever its schedule.
    let recreated = s.entry.create_revision > old.rev;
    let same_schedule = old.expr == checked.job.cron_expr
        && old.zone == s.zone.name()
        && old.anchor == checked.job.anchor
        && old.enabled == checked.job.enabled;
    if same_schedule && !recreated {
        let through = same_slot_by_new_rules(s, checked, old).unwrap_or(old.through);
        return Step::Move(Move::Rebase { cursor: fresh(through), owed: None });
    }
    let through = old.through.max(changed_at(s, checked, Some(old)));
    let owed = (old.enabled && !recreated).then(|| owed_by(old, &checked.name, through)).flatten();
    Step::Move(Move::Rebase { cursor: fresh(through), owed })
}

/// Where the rules have changed: the next slot, if its clock shows what it showed at the newest
/// decided one. A government has moved it, and it has run already.
fn same_slot_by_new_rules(
    s: &Situation<'_>,
    checked: &Checked,
    old: &Cursor,
) -> Option<DateTime<Utc>> {
    if old.rules.is_empty() || old.rules == rules_version() {
        return None;
    }
    let next = checked.schedule.next_after(s.zone, old.through)?;
    let clock = |at: DateTime<Utc>, offset: i32| at + TimeDelta::seconds(offset.into());
    let same = clock(next, offset_of(s.zone, next)) == clock(old.through, old.offset);
    same.then_some(next)
}

/// The attempt that follows a run which ended so, if the job wants one, and the id that its run
/// will have.
pub fn follow_up(
    entry: &JobEntry,
    live: &LiveRun,
    outcome: Outcome,
    now: DateTime<Utc>,
) -> Option<(RunId, TriggerRequest)> {
    let job = entry.job()?;
    let (Running { attempt, slot, .. }, retries) = (&live.value, &job.retries);
    let (kind, delay) = match outcome {
        Outcome::Failed | Outcome::TimedOut if *attempt <= retries.max => {
            (Trigger::Retry, retries.delay_before(*attempt + 1))
        }
        Outcome::Lost if job.on_lost == OnLost::Rerun && *attempt <= retries.max.max(RERUNS) => {
            (Trigger::Rerun, 0)
        }
        _ => return None,
    };
    let not_before = now + TimeDelta::seconds(delay.into());
    let request = TriggerRequest {
        kind,
        slot: *slot,
        attempt: attempt + 1,
        not_before,
        not_after: not_before + TimeDelta::seconds(job.start_deadline_secs.into()),
        on: live.on.clone(),
        job_created: entry.create_revision,
        by: format!("attempt {attempt}, which {outcome}"),
    };
    Some((RunId::new(now), request))
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

fn owed_by(old: &Cursor, name: &JobName, through: DateTime<Utc>) -> Option<Gap> {
    let schedule = Schedule::for_job(&old.expr, name.as_str(), old.anchor).ok()?;
    let zone = old.zone.parse().ok()?;
    let reason = "the job was changed before its time came".to_owned();
    gap(&schedule, zone, old.through, through, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::spread_of;
    use crate::testing::at;

    fn entry(json: &str, mod_revision: i64, create_revision: i64) -> JobEntry {
        JobEntry::read(JobName::new("j").unwrap(), json.as_bytes(), mod_revision, create_revision)
    }

    const MINUTELY: &str = r#"{"name":"j","command":"c","cronExpr":"* * * * *"}"#;

    fn cursor(through: &str) -> Cursor {
        Cursor {
            rev: 5,
            expr: "* * * * *".into(),
            zone: "UTC".into(),
            anchor: None,
            enabled: true,
            rules: rules_version().to_owned(),
            through: at(through),
            offset: 0,
            updated_at: None,
        }
    }

    fn situation<'a>(entry: &'a JobEntry, cursor: Option<&'a Cursor>, now: &str) -> Situation<'a> {
        let max_skew = TimeDelta::seconds(10);
        let (zone, now) = (Tz::UTC, at(now));
        Situation { entry, zone, cursor, live: None, registered: None, now, max_skew }
    }

    #[test]
    fn a_new_job_starts_now_and_never_fires_the_past() {
        let job = entry(MINUTELY, 5, 5);
        let step = next_step(&situation(&job, None, "2026-01-01T00:00:30Z"));
        let Step::Move(Move::Rebase { cursor, owed: None }) = step else { panic!("{step:?}") };
        assert_eq!(cursor.through, at("2026-01-01T00:00:30Z"));
        let step = next_step(&situation(&job, Some(&cursor), "2026-01-01T00:00:31Z"));
        assert_eq!(step, Step::Next(Some(at("2026-01-01T00:01:00Z"))));
    }

    #[test]
    fn a_due_slot_runs_until_its_deadline_and_is_missed_after_the_skew() {
        let job = entry(&MINUTELY.replace("* * * * *", "0 * * * *"), 5, 5);
        let c = Cursor { expr: "0 * * * *".into(), ..cursor("2026-01-01T00:00:00Z") };
        let run = next_step(&situation(&job, Some(&c), "2026-01-01T01:00:59Z"));
        let Step::Move(Move::Run { slot, cursor, spawn_before, caught_up: false }) = run else {
            panic!("{run:?}")
        };
        assert_eq!(slot.to_string(), "2026-01-01T01:00:00Z");
        assert_eq!(cursor.through, slot.instant());
        assert_eq!(spawn_before, at("2026-01-01T01:01:00Z"));
        let wait = next_step(&situation(&job, Some(&c), "2026-01-01T01:01:05Z"));
        assert_eq!(wait, Step::Wait(at("2026-01-01T01:01:10Z")));
        let miss = next_step(&situation(&job, Some(&c), "2026-01-01T01:01:10Z"));
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
    fn a_slot_in_time_does_not_wait_for_those_that_were_missed() {
        // Every second, and eight seconds behind: by less than clocks may be apart.
        let json = MINUTELY.replace("* * * * *", "* * * * * *");
        let job = entry(&json.replace('}', r#","startDeadlineSecs":3}"#), 5, 5);
        let c = Cursor { expr: "* * * * * *".into(), ..cursor("2026-01-01T00:00:00Z") };
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T00:00:08Z"));
        let Step::Move(Move::Miss { gap, cursor }) = step else { panic!("{step:?}") };
        assert_eq!((gap.count, gap.to.to_string().as_str()), (5, "2026-01-01T00:00:05Z"));
        let step = next_step(&situation(&job, Some(&cursor), "2026-01-01T00:00:08Z"));
        let Step::Move(Move::Run { slot, .. }) = step else { panic!("{step:?}") };
        assert_eq!(slot.to_string(), "2026-01-01T00:00:06Z");
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
    fn a_pause_waits_and_a_broken_job_is_stuck() {
        let paused = entry(&MINUTELY.replace('}', r#","enabled":false}"#), 5, 5);
        let c = Cursor { enabled: false, ..cursor("2026-01-01T00:00:00Z") };
        let now = "2026-01-01T00:03:30Z";
        assert_eq!(next_step(&situation(&paused, Some(&c), now)), Step::Next(None));
        let broken = entry("{", 5, 5);
        let step = next_step(&situation(&broken, Some(&c), now));
        assert!(matches!(step, Step::Stuck { until: None, .. }), "{step:?}");
    }

    #[test]
    fn a_clock_set_backwards_decides_nothing_again() {
        let job = entry(MINUTELY, 5, 5);
        let c = cursor("2026-01-01T01:00:00Z");
        // By less than clocks may be apart: the next slot waits for the clock.
        let next = Step::Next(Some(at("2026-01-01T01:01:00Z")));
        assert_eq!(next_step(&situation(&job, Some(&c), "2026-01-01T00:59:50Z")), next);
        // By more: the job stops and says so, until the clock has come near enough.
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T00:30:00Z"));
        let Step::Stuck { why, until: Some(until) } = step else { panic!("{step:?}") };
        assert!(why.contains("2026-01-01T01:00:00Z, which is in the future"), "{why}");
        assert_eq!(next_step(&situation(&job, Some(&c), &until.to_rfc3339())), next);
    }

    #[test]
    fn a_clock_set_forwards_settles_what_it_passed_in_one_step() {
        let job = entry(&MINUTELY.replace("* * * * *", "*/5 * * * * *"), 5, 5);
        let c = Cursor { expr: "*/5 * * * * *".into(), ..cursor("2026-01-01T00:00:00Z") };
        let now = "2026-01-04T00:00:00Z";
        let step = next_step(&situation(&job, Some(&c), now));
        let Step::Move(Move::Miss { gap, cursor }) = step else { panic!("{step:?}") };
        assert_eq!(gap.from.to_string(), "2026-01-01T00:00:05Z");
        assert_eq!((gap.to.to_string().as_str(), gap.count), ("2026-01-03T23:59:00Z", 51_828));
        let step = next_step(&situation(&job, Some(&cursor), now));
        let Step::Move(Move::Run { slot, .. }) = step else { panic!("{step:?}") };
        assert_eq!(slot.to_string(), "2026-01-03T23:59:05Z", "the first that is in time");
    }

    /// The hourly job `j` with its starts spread over an hour, and by how much its own is put off.
    fn spread_job() -> (JobEntry, Cursor, TimeDelta) {
        let json = MINUTELY
            .replace("* * * * *", "0 * * * *")
            .replace('}', r#","spreadSecs":3600,"startDeadlineSecs":20}"#);
        let off = TimeDelta::seconds(spread_of("j", 3600).into());
        assert!(off > TimeDelta::minutes(1) && off < TimeDelta::minutes(59), "{off}");
        let c = Cursor { expr: "0 * * * *".into(), ..cursor("2026-01-01T00:00:00Z") };
        (entry(&json, 5, 5), c, off)
    }

    #[test]
    fn a_spread_slot_is_due_later_and_its_deadline_counts_from_there() {
        let (job, c, off) = spread_job();
        let due = at("2026-01-01T01:00:00Z") + off;
        let look = |now: DateTime<Utc>, c: &Cursor| {
            next_step(&Situation { now, ..situation(&job, Some(c), "2026-01-01T00:00:00Z") })
        };
        assert_eq!(look(due - TimeDelta::seconds(1), &c), Step::Next(Some(due)));
        let checked = job.state.as_ref().unwrap();
        for (now, next) in [(due - TimeDelta::seconds(1), due), (due, due + TimeDelta::hours(1))] {
            assert_eq!(next_due(checked, Tz::UTC, now), Some(next));
        }
        for late in [0, 19] {
            let step = look(due + TimeDelta::seconds(late), &c);
            let Step::Move(Move::Run { slot, cursor, spawn_before, .. }) = step else {
                panic!("{step:?}")
            };
            assert_eq!(slot.to_string(), "2026-01-01T01:00:00Z");
            assert_eq!(cursor.through, slot.instant());
            assert_eq!(spawn_before, due + TimeDelta::seconds(20));
            let next = Step::Next(Some(due + TimeDelta::hours(1)));
            assert_eq!(look(due + TimeDelta::seconds(late), &cursor), next);
        }
        let settled_at = due + TimeDelta::seconds(30);
        assert_eq!(look(due + TimeDelta::seconds(20), &c), Step::Wait(settled_at));
        let step = look(settled_at, &c);
        let Step::Move(Move::Miss { gap, .. }) = step else { panic!("{step:?}") };
        assert_eq!((gap.from, gap.to, gap.count), (Slot::at(due - off), Slot::at(due - off), 1));
    }

    #[test]
    fn a_gap_of_spread_slots_ends_before_the_first_that_is_not_due() {
        let (job, c, off) = spread_job();
        let now = at("2026-01-01T09:00:00Z") + off - TimeDelta::seconds(1);
        let step =
            next_step(&Situation { now, ..situation(&job, Some(&c), "2026-01-01T00:00:00Z") });
        let Step::Move(Move::Miss { gap, cursor }) = step else { panic!("{step:?}") };
        assert_eq!((gap.to.to_string().as_str(), gap.count), ("2026-01-01T08:00:00Z", 8));
        let step =
            next_step(&Situation { now, ..situation(&job, Some(&cursor), "2026-01-01T00:00:00Z") });
        assert_eq!(step, Step::Next(Some(at("2026-01-01T09:00:00Z") + off)));
    }

    #[test]
    fn a_changed_anchor_is_a_changed_schedule() {
        let json = MINUTELY
            .replace("* * * * *", "@every 7m")
            .replace('}', r#","anchor":"2026-01-01T00:03:00Z"}"#);
        let job = entry(&json, 9, 5);
        let was = Some(at("2026-01-01T00:01:00Z"));
        let c = Cursor { expr: "@every 7m".into(), anchor: was, ..cursor("2026-01-01T00:01:00Z") };
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T00:09:30Z"));
        let Step::Move(Move::Rebase { cursor, owed: Some(gap) }) = step else { panic!("{step:?}") };
        assert_eq!((gap.count, gap.to.to_string().as_str()), (1, "2026-01-01T00:08:00Z"));
        assert_eq!(
            (cursor.anchor, cursor.through),
            (checked_anchor(&job), at("2026-01-01T00:09:30Z"))
        );
        let same = Cursor { anchor: cursor.anchor, ..c };
        let step = next_step(&situation(&job, Some(&same), "2026-01-01T00:09:30Z"));
        let Step::Move(Move::Rebase { cursor, owed: None }) = step else { panic!("{step:?}") };
        assert_eq!(cursor.through, same.through);
    }

    /// The minutely job with a catch-up policy, and its cursor at midnight.
    fn late_job(policy: &str) -> (JobEntry, Cursor) {
        let json = MINUTELY.replace('}', &format!(r#","catchUp":{policy}}}"#));
        (entry(&json, 5, 5), cursor("2026-01-01T00:00:00Z"))
    }

    /// What becomes of everything up to `now`: each gap's count, each run's slot, `live` runs.
    fn settled(job: &JobEntry, mut c: Cursor, now: &str) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            match next_step(&situation(job, Some(&c), now)) {
                Step::Move(Move::Miss { gap, cursor }) => {
                    found.push(format!("{} missed", gap.count));
                    c = cursor;
                }
                Step::Move(Move::Run { slot, cursor, caught_up, .. }) => {
                    let late = if caught_up { "late" } else { "in time" };
                    found.push(format!("{} {late}", slot.instant().format("%H:%M")));
                    c = cursor;
                }
                _ => return found,
            }
        }
    }

    #[test]
    fn catching_up_the_latest_runs_the_newest_slot_once() {
        // 00:05 is over and settled, 00:06 not yet due.
        let (job, c) = late_job(r#""latest","startDeadlineSecs":5"#);
        assert_eq!(settled(&job, c.clone(), "2026-01-01T00:05:30Z"), ["4 missed", "00:05 late"]);
        // 00:06 is due and in time: that one is the newest.
        assert_eq!(settled(&job, c.clone(), "2026-01-01T00:06:02Z"), ["5 missed", "00:06 in time"]);
        // 00:06 may still be started by a clock that is behind.
        assert_eq!(settled(&job, c.clone(), "2026-01-01T00:06:08Z"), ["5 missed"]);
        assert_eq!(settled(&job, c, "2026-01-01T00:06:20Z"), ["5 missed", "00:06 late"]);
    }

    #[test]
    fn catching_up_all_goes_oldest_first_as_far_back_as_its_window() {
        let (job, c) = late_job(r#""all","startDeadlineSecs":5,"catchUpWindowSecs":150"#);
        let found = settled(&job, c, "2026-01-01T00:05:30Z");
        assert_eq!(found, ["3 missed", "00:04 late", "00:05 late"]);
    }

    #[test]
    fn a_late_run_waits_for_the_one_before_it() {
        for policy in ["\"all\"", "\"latest\""] {
            let (job, c) = late_job(&format!(r#"{policy},"startDeadlineSecs":5"#));
            let c = Cursor { through: at("2026-01-01T00:04:00Z"), ..c };
            let run = RunId::new(c.through);
            let s = situation(&job, Some(&c), "2026-01-01T00:05:30Z");
            let blocked = next_step(&Situation { live: Some(run), ..s });
            assert_eq!(blocked, Step::Blocked(run));
            let Step::Move(Move::Run { spawn_before, caught_up: true, .. }) = next_step(&s) else {
                panic!()
            };
            assert_eq!(spawn_before, at("2026-01-01T00:05:35Z"), "counted from the claim");
        }
    }

    #[test]
    fn an_outage_longer_than_the_window_is_missed() {
        let (job, c) = late_job(r#""latest","startDeadlineSecs":5,"catchUpWindowSecs":20"#);
        assert_eq!(settled(&job, c, "2026-01-01T00:05:30Z"), ["5 missed"]);
    }

    #[test]
    fn new_rules_do_not_fire_the_same_wall_clock_time_twice() {
        let json = MINUTELY
            .replace("* * * * *", "0 2 * * *")
            .replace('}', r#","timezone":"Europe/Berlin"}"#);
        let job = entry(&json, 5, 5);
        // By the old rules Berlin was at UTC+2 in January: 02:00 was at midnight UTC, and has run.
        let old = Cursor {
            expr: "0 2 * * *".into(),
            zone: "Europe/Berlin".into(),
            rules: "1999a/2".into(),
            offset: 7200,
            ..cursor("2026-01-01T00:00:00Z")
        };
        let s = situation(&job, Some(&old), "2026-01-01T00:30:00Z");
        let s = Situation { zone: Tz::Europe__Berlin, ..s };
        let Step::Move(Move::Rebase { cursor, owed: None }) = next_step(&s) else { panic!() };
        assert_eq!(cursor.through, at("2026-01-01T01:00:00Z"));
        assert_eq!((cursor.rules.as_str(), cursor.offset), (rules_version(), 3600));
        // Where the next slot shows another time, it is another slot.
        let other = Cursor { offset: 3600, ..old.clone() };
        let s = Situation { cursor: Some(&other), ..s };
        let Step::Move(Move::Rebase { cursor, owed: None }) = next_step(&s) else { panic!() };
        assert_eq!(cursor.through, other.through);
    }

    #[test]
    fn on_every_worker_nothing_before_its_registration_is_owed() {
        let json =
            MINUTELY.replace('}', r#","scope":"everyWorker","updatedAt":"2026-01-01T00:03:00Z"}"#);
        let job = entry(&json, 5, 5);
        let registered = Some(at("2026-01-01T00:03:20Z"));
        let s = situation(&job, None, "2026-01-01T00:03:30Z");
        let step = next_step(&Situation { registered, ..s });
        let Step::Move(Move::Rebase { cursor, owed: None }) = step else { panic!("{step:?}") };
        assert_eq!(Some(cursor.through), registered);
    }

    #[test]
    fn attempts_follow_a_failure_with_growing_pauses_and_a_loss_at_once() {
        let json = MINUTELY.replace(
            '}',
            r#","retries":{"max":3,"delaySecs":10,"maxDelaySecs":25},"onLost":"rerun"}"#,
        );
        let job = entry(&json, 5, 4);
        let now = at("2026-01-01T00:00:00Z");
        let next = |attempt, outcome| {
            let live = crate::run::tests::live_run(&job.name, attempt);
            follow_up(&job, &live, outcome, now).map(|(_, request)| {
                assert_eq!((request.attempt, request.job_created), (attempt + 1, 4));
                assert_eq!(request.not_after, request.not_before + TimeDelta::seconds(60));
                (request.kind, (request.not_before - now).num_seconds())
            })
        };
        let failed: Vec<_> = (1..=4).map(|n| next(n, Outcome::Failed)).collect();
        let retry = |secs| Some((Trigger::Retry, secs));
        assert_eq!(failed, [retry(10), retry(20), retry(25), None]);
        assert_eq!(next(1, Outcome::TimedOut), retry(10));
        assert_eq!(next(2, Outcome::Lost), Some((Trigger::Rerun, 0)));
        assert_eq!(next(4, Outcome::Lost), None);
        for outcome in [Outcome::Succeeded, Outcome::Killed, Outcome::Missed] {
            assert_eq!(next(1, outcome), None, "{outcome}");
        }
    }

    #[test]
    fn a_jobs_own_word_on_its_records_counts_before_the_fleets() {
        let own = entry(&MINUTELY.replace('{', r#"{"retentionDays":3,"#), 5, 5);
        let fleet = FleetSettings { retention_days: Some(90), ..FleetSettings::default() };
        assert_eq!(retention_days(Some(&own), &fleet), Some(3));
        assert_eq!(retention_days(Some(&entry(MINUTELY, 5, 5)), &fleet), Some(90));
        assert_eq!(retention_days(None, &FleetSettings::default()), None);
    }

    fn checked_anchor(job: &JobEntry) -> Option<DateTime<Utc>> {
        job.job().and_then(|job| job.anchor)
    }

    #[test]
    fn what_a_schedule_with_chosen_values_owed_is_chosen_by_the_name() {
        let job = entry(&MINUTELY.replace("* * * * *", "@daily"), 9, 5);
        let c = Cursor { expr: "~ * * * *".into(), ..cursor("2026-01-01T00:00:00Z") };
        let step = next_step(&situation(&job, Some(&c), "2026-01-01T01:00:00Z"));
        let Step::Move(Move::Rebase { owed: Some(gap), .. }) = step else { panic!("{step:?}") };
        let hourly = Schedule::for_job("~ * * * *", "j", None).unwrap();
        let slot = hourly.next_after(Tz::UTC, c.through).unwrap();
        assert_eq!((gap.count, gap.from), (1, Slot::at(slot)));
    }
}
