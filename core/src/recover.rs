//! What `carillon recover` does, as a pure function: which cursors are put where after etcd was
//! restored from a backup or a clock was wrong, and what a restored etcd still believes that is
//! over. Nothing that is recorded is decided again.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::decide::{Cursor, retention_days};
use crate::id::{JobName, RunId, Slot, WorkerId};
use crate::keys::Keys;
use crate::replica::{Replica, Versioned};
use crate::run::{Outcome, RunRecord, TriggerRequest};
use crate::steps::Step;

/// Why a trigger of a restored etcd does not run.
const RESTORED: &str = "etcd was restored before the run could start";

/// What is known, and what is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The fleet's state in etcd.
    pub replica: &'a Replica,
    /// The newest recorded slot of each job: [`crate::records::Records::newest_slots`].
    pub newest: &'a BTreeMap<JobName, Slot>,
    /// Only these jobs; all of them where it is empty.
    pub only: &'a [JobName],
    /// Whether etcd was restored.
    pub restored: bool,
    /// The asker's clock.
    pub now: DateTime<Utc>,
    /// How far two clocks of the fleet may be apart.
    pub max_skew: TimeDelta,
}

/// A cursor that is put elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Reset {
    /// The job.
    pub job: JobName,
    /// The worker whose own cursor it is, where the job runs on every worker.
    pub on: Option<WorkerId>,
    /// Where it stands.
    pub from: DateTime<Utc>,
    /// Revision at which it stands there.
    pub revision: i64,
    /// The cursor that it becomes.
    pub cursor: Cursor,
    /// Why.
    pub why: Wrong,
}

/// What is wrong with a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Slots after it are recorded: it is of the past.
    Behind,
    /// It is in the future.
    Ahead,
}

impl Reset {
    /// The transaction.
    pub fn step(&self, keys: &Keys) -> Step {
        Step::reset(keys, &self.job, self.on.as_ref(), self.revision, &self.cursor)
    }
}

/// Whether a worker stands by because etcd was restored, and has not heard of a recovery since.
pub fn is_restored(replica: &Replica) -> bool {
    doubters(replica).next().is_some()
}

/// The workers that do, by what they have seen themselves.
pub fn doubters<J>(replica: &Replica<J>) -> impl Iterator<Item = &WorkerId> {
    let recovered = replica.settings.as_ref().and_then(|settings| settings.value.recovered);
    replica.workers.values().filter_map(move |worker| {
        let registration = worker.value.as_ref().ok()?;
        let doubts = registration.restored && recovered.is_none_or(|at| registration.clock > at);
        doubts.then_some(&worker.id)
    })
}

/// The cursors that are wrong, and where they belong: never before a slot that is recorded, or that
/// etcd knows to be taken.
pub fn resets(known: &Known<'_>) -> Vec<Reset> {
    let replica = known.replica;
    let wanted = |job: &JobName| known.only.is_empty() || known.only.contains(job);
    let cursors = replica.cursors.names().filter(|job| wanted(job));
    let shared = cursors.filter_map(|job| Some((job, None, replica.cursors.get(job)?)));
    let own =
        replica.own_cursors.iter().filter(|(job, _)| wanted(job)).flat_map(|(job, own)| {
            own.iter().map(move |(on, cursor)| (job, Some(on), cursor.clone()))
        });
    shared.chain(own).filter_map(|(job, on, cursor)| reset(known, job, on, &cursor)).collect()
}

fn reset(
    known: &Known<'_>,
    job: &JobName,
    on: Option<&WorkerId>,
    cursor: &Versioned<Cursor>,
) -> Option<Reset> {
    let Known { replica, now, .. } = *known;
    let from = cursor.value.through;
    let newest = replica.newest_decided(job).max(known.newest.get(job).copied());
    let ahead = from > now + known.max_skew;
    let through = match newest {
        newest if ahead => newest.map_or(now, |slot| slot.instant().max(now)),
        Some(newest) => from.max(newest.instant()),
        None => from,
    };
    // What is recorded of other workers says nothing about this one, unless a restore has lost what
    // it has decided itself.
    let through = if on.is_some() && !known.restored { through.min(from) } else { through };
    (through != from).then(|| Reset {
        job: job.clone(),
        on: on.cloned(),
        from,
        revision: cursor.mod_revision,
        // One whose zone nobody knows is computed anew before it is used.
        cursor: cursor.value.moved_to(cursor.value.zone.parse().unwrap_or(Tz::UTC), through),
        why: if ahead { Wrong::Ahead } else { Wrong::Behind },
    })
}

/// The transaction that settles a trigger which a restored etcd still holds. One whose run is
/// recorded was taken before: it only goes.
pub fn settle(
    keys: &Keys,
    known: &Known<'_>,
    (job, id): &(JobName, RunId),
    trigger: &Versioned<TriggerRequest>,
    recorded: bool,
    by: &str,
) -> Step {
    let Known { replica, now, .. } = *known;
    if recorded {
        return Step::withdraw(keys, job, (*id, trigger.mod_revision));
    }
    let entry = replica.jobs.get(job).map(|entry| &**entry);
    let record = RunRecord::of_none(*id, job, Outcome::Missed, by, now, RESTORED)
        .asked_for(&trigger.value)
        .kept_for(retention_days(entry, &replica.settings().0));
    Step::settle_trigger(keys, job, (*id, trigger.mod_revision), &record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Write;
    use crate::testing::{self, at, name};

    fn replica(items: &[(&str, String)]) -> Replica {
        testing::replica(items, "2026-01-01T12:00:00Z")
    }

    fn cursor(through: &str) -> String {
        format!(
            r#"{{"rev":2,"expr":"* * * * *","zone":"Europe/Berlin","enabled":true,
                "rules":"x","through":"{through}","offset":3600,"updatedAt":"2025-01-01T00:00:00Z"}}"#
        )
    }

    fn resets_of(replica: &Replica, newest: &[(&str, &str)], only: &[JobName]) -> Vec<Reset> {
        resets_after(false, replica, newest, only)
    }

    fn resets_after(
        restored: bool,
        replica: &Replica,
        newest: &[(&str, &str)],
        only: &[JobName],
    ) -> Vec<Reset> {
        let newest = newest.iter().map(|(job, slot)| (name(job), Slot::at(at(slot)))).collect();
        let now = at("2026-07-01T12:00:00Z");
        let max_skew = TimeDelta::seconds(10);
        resets(&Known { replica, newest: &newest, only, restored, now, max_skew })
    }

    #[test]
    fn a_cursor_of_the_past_goes_to_the_newest_recorded_slot_and_keeps_the_rest() {
        let replica = replica(&[("cursor/a", cursor("2026-01-01T11:00:00Z"))]);
        let [reset] = &resets_of(&replica, &[("a", "2026-07-01T11:59:00Z")], &[])[..] else {
            panic!()
        };
        assert_eq!((reset.why, reset.revision), (Wrong::Behind, 2));
        assert_eq!(reset.cursor.through, at("2026-07-01T11:59:00Z"));
        // Summer time by now.
        assert_eq!((reset.cursor.offset, reset.cursor.rules.as_str()), (7200, "x"));
        assert_eq!(reset.cursor.updated_at, Some(at("2025-01-01T00:00:00Z")));
        // Nothing newer is recorded: it stands where it belongs.
        assert_eq!(resets_of(&replica, &[("a", "2026-01-01T10:00:00Z")], &[]), []);
        assert_eq!(resets_of(&replica, &[], &[]), []);
    }

    #[test]
    fn a_cursor_in_the_future_goes_to_now_but_not_before_what_is_recorded() {
        let replica = replica(&[
            ("cursor/a", cursor("2026-07-01T13:00:00Z")),
            ("cursor/b", cursor("2026-07-01T13:00:00Z")),
            ("cursor/c", cursor("2026-07-01T12:00:09Z")),
        ]);
        let found = resets_of(&replica, &[("b", "2026-07-01T12:30:00Z")], &[]);
        let found: Vec<_> = found.iter().map(|r| (r.job.as_str(), r.cursor.through)).collect();
        let (a, b) = (at("2026-07-01T12:00:00Z"), at("2026-07-01T12:30:00Z"));
        assert_eq!(found, [("a", a), ("b", b)], "c is as far off as clocks may be");
        assert_eq!(resets_of(&replica, &[], &[name("b")]).len(), 1);
    }

    #[test]
    fn a_workers_own_cursor_stands_unless_etcd_was_restored() {
        let replica = replica(&[
            ("cursor/a/w1", cursor("2026-07-01T11:00:00Z")),
            ("cursor/a/w2", cursor("2026-07-01T13:00:00Z")),
        ]);
        let found = |restored, newest| {
            let found = resets_after(restored, &replica, &[("a", newest)], &[]);
            let place = |r: &Reset| (r.on.as_ref().unwrap().to_string(), r.cursor.through);
            found.iter().map(place).collect::<Vec<_>>()
        };
        let (recorded, later) = ("2026-07-01T12:30:00Z", "2026-07-01T14:00:00Z");
        let (w1, w2) = ("w1".to_owned(), "w2".to_owned());
        // Only the one in the future moves, and never forwards.
        assert_eq!(found(false, recorded), [(w2.clone(), at(recorded))]);
        assert_eq!(found(false, later), []);
        // Lost with the restore: any of them may have decided what one has.
        assert_eq!(found(true, later), [(w1, at(later)), (w2, at(later))]);
    }

    #[test]
    fn what_etcd_knows_to_be_taken_counts_as_recorded() {
        let id = RunId::new(at("2026-01-01T00:00:00Z"));
        let running = r#"{"worker":"w","lease":7,"attempt":1,"slot":"2026-07-01T12:30:00Z",
            "since":"2026-07-01T11:58:00Z","spawnBefore":"2026-07-01T12:31:00Z"}"#;
        let replica = replica(&[
            ("cursor/a", cursor("2026-07-01T13:00:00Z")),
            (&format!("running/a/{id}"), running.to_owned()),
        ]);
        let found = resets_of(&replica, &[], &[]);
        assert_eq!(found[0].cursor.through, at("2026-07-01T12:30:00Z"));
    }

    #[test]
    fn a_worker_tells_that_etcd_was_restored_until_it_was_recovered() {
        let worker = |clock: &str| {
            let value = format!(
                r#"{{"host":"h","pid":1,"version":"1","rulesVersion":"x","capacity":1,
                "clock":"{clock}","started":"{clock}","standingBy":"why","restored":true}}"#
            );
            ("workers/w", value)
        };
        let settings = ("settings", r#"{"recovered":"2026-07-01T12:00:00Z"}"#.to_owned());
        let doubting = replica(&[worker("2026-07-01T11:00:00Z")]);
        assert!(is_restored(&doubting));
        assert_eq!(doubters(&doubting).map(WorkerId::as_str).collect::<Vec<_>>(), ["w"]);
        assert!(!is_restored(&replica(&[worker("2026-07-01T11:00:00Z"), settings.clone()])));
        assert!(is_restored(&replica(&[worker("2026-07-01T13:00:00Z"), settings])));
        assert!(!is_restored(&Replica::default()));
    }

    #[test]
    fn a_trigger_that_was_taken_goes_and_another_is_recorded_as_missed() {
        let keys = Keys::new("/cron").unwrap();
        let id = RunId::new(at("2026-01-01T00:00:00Z"));
        let request = r#"{"kind":"retry","attempt":2,"notBefore":"2026-01-01T00:00:00Z",
            "notAfter":"2026-01-01T00:01:00Z","jobCreated":2,"by":"x"}"#;
        let replica = replica(&[(&format!("trigger/a/{id}"), request.to_owned())]);
        let (key, trigger) = replica.triggers.iter().next().unwrap();
        let known = Known {
            replica: &replica,
            newest: &BTreeMap::new(),
            only: &[],
            restored: true,
            now: at("2026-01-01T01:00:00Z"),
            max_skew: TimeDelta::seconds(10),
        };
        let step = |recorded| settle(&keys, &known, key, trigger, recorded, "alice@ops1");
        assert_eq!(step(true).then, [Write::Delete(keys.trigger(&name("a"), id))]);
        let [Write::Delete(_), Write::Put(key, value)] = &step(false).then[..] else { panic!() };
        assert_eq!(*key, keys.done(&name("a"), id));
        let record: RunRecord = serde_json::from_slice(value).unwrap();
        assert_eq!((record.outcome, record.attempt), (Outcome::Missed, 2));
        assert_eq!(record.err, RESTORED);
    }
}
