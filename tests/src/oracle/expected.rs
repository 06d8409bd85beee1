//! What should have happened, by brute force: no schedule engine, only whole seconds counted one
//! by one.

use carillon_core::id::Slot;
use chrono::{DateTime, TimeDelta, Utc};

/// How long after a change of a job its slots may still be those of before: a worker has to hear
/// of it.
const HEARD: TimeDelta = TimeDelta::seconds(5);

/// A job as it was between two of its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Era {
    /// Seconds from slot to slot, counted from the Unix epoch; 0 while it is paused or deleted.
    pub every: i64,
    /// Whether runs may overlap, so that no slot is skipped.
    pub overlaps: bool,
    /// How late a run may start.
    pub deadline: TimeDelta,
    /// When the change was made.
    pub from: DateTime<Utc>,
}

/// All eras of one job, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life(pub Vec<Era>);

/// What the oracle says of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It must be accounted for.
    Must,
    /// It may be: the job was changed about then.
    May,
    /// It is no slot of the job.
    MustNot,
}

impl Era {
    /// Whether an instant is one of its slots.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        self.every > 0 && slot.instant().timestamp() % self.every == 0
    }
}

impl Life {
    /// The era that an instant is in.
    fn current(&self, at: DateTime<Utc>) -> Option<&Era> {
        self.0.iter().rev().find(|era| era.from <= at)
    }

    /// The eras that a slot may belong to: about a change, the one before and the one after.
    fn near(&self, slot: Slot) -> impl Iterator<Item = &Era> {
        let at = slot.instant();
        self.0.iter().enumerate().filter_map(move |(index, era)| {
            let end = self.0.get(index + 1).map(|next| next.from);
            // A slot is a whole second, the change is made within one.
            let begun = era.from <= at + TimeDelta::seconds(1);
            (begun && end.is_none_or(|end| at <= end + HEARD)).then_some(era)
        })
    }

    /// What is to be said of a slot.
    #[must_use]
    pub fn verdict(&self, slot: Slot) -> Verdict {
        let at = slot.instant();
        match self.current(at) {
            Some(era) if era.has(slot) && at > era.from + HEARD => Verdict::Must,
            _ if self.near(slot).any(|era| era.has(slot)) => Verdict::May,
            _ => Verdict::MustNot,
        }
    }

    /// The era in which a slot is decided.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<&Era> {
        self.current(slot.instant())
    }

    /// Whether the run of this slot certainly must not start while another one is alive.
    #[must_use]
    pub fn forbids_overlap(&self, slot: Slot) -> bool {
        self.at(slot).is_some_and(|era| !era.overlaps) && !self.changes_about(slot)
    }

    /// Whether the job was changed about this slot: what it owed then is skipped.
    #[must_use]
    pub fn changes_about(&self, slot: Slot) -> bool {
        let at = slot.instant();
        self.0.iter().any(|era| (era.from - at).abs() <= HEARD)
    }

    /// The slots up to `through` that must be accounted for. `first` is the first that is: what
    /// comes after it must be too, however soon after the job was made.
    #[must_use]
    pub fn required(&self, first: Option<Slot>, through: DateTime<Utc>) -> Vec<Slot> {
        let Some(begin) = self.0.first().map(|era| era.from) else { return Vec::new() };
        let begun = |slot: &Slot| first.is_some_and(|first| *slot >= first);
        seconds(begin, through)
            .filter(|slot| match self.verdict(*slot) {
                Verdict::Must => true,
                Verdict::May => begun(slot) && self.near(*slot).count() == 1,
                Verdict::MustNot => false,
            })
            .collect()
    }

    /// The slots from `from` to `to`, both included, that a gap may speak of.
    #[must_use]
    pub fn within(&self, from: Slot, to: Slot) -> Vec<Slot> {
        seconds(from.instant(), to.instant())
            .filter(|slot| self.verdict(*slot) != Verdict::MustNot)
            .collect()
    }

    /// Whether a slot may belong to one era only.
    #[must_use]
    pub fn is_certain(&self, slot: Slot) -> bool {
        self.near(slot).count() == 1
    }
}

fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> impl Iterator<Item = Slot> {
    (from.timestamp()..=to.timestamp())
        .filter_map(|second| DateTime::from_timestamp(second, 0))
        .map(Slot::at)
}

/// A span of time in which etcd had a majority, and a worker that may run the jobs was healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Healthy {
    /// Its start.
    pub from: DateTime<Utc>,
    /// Its end.
    pub to: DateTime<Utc>,
}

/// How long of a slot's start deadline has to be healthy for it to have to run: a lease, and 2 s.
pub const ENOUGH: TimeDelta = TimeDelta::seconds(12);

/// Whether a slot had to run, as protocol.md guarantees.
#[must_use]
pub fn had_to_run(slot: Slot, deadline: TimeDelta, healthy: &[Healthy]) -> bool {
    let (from, to) = (slot.instant(), slot.instant() + deadline);
    healthy.iter().any(|span| span.to.min(to) - span.from.max(from) >= ENOUGH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail that way")]

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 500_000_000).unwrap()
    }

    fn slot(second: i64) -> Slot {
        Slot::at(at(second))
    }

    fn era(every: i64, from: i64) -> Era {
        Era { every, overlaps: true, deadline: TimeDelta::seconds(20), from: at(from) }
    }

    #[test]
    fn slots_are_the_multiples_of_the_period() {
        let life = Life(vec![era(3, 0)]);
        let required = life.required(None, at(12));
        assert_eq!(required, [6, 9, 12].map(slot));
        assert_eq!(life.required(Some(slot(3)), at(12)), [3, 6, 9, 12].map(slot));
        assert_eq!(life.verdict(slot(7)), Verdict::MustNot);
        assert_eq!(life.verdict(slot(-3)), Verdict::MustNot, "before it was made");
    }

    #[test]
    fn about_a_change_the_slots_of_both_eras_may_be() {
        let life = Life(vec![era(2, 0), era(5, 20), era(0, 40)]);
        assert_eq!(life.verdict(slot(18)), Verdict::Must);
        for may in [22, 24, 25] {
            assert_eq!(life.verdict(slot(may)), Verdict::May, "{may}");
        }
        assert_eq!(life.verdict(slot(28)), Verdict::MustNot);
        assert_eq!(life.verdict(slot(30)), Verdict::Must);
        assert_eq!(life.verdict(slot(45)), Verdict::May);
        assert_eq!(life.verdict(slot(50)), Verdict::MustNot, "it is paused");
        assert!(life.changes_about(slot(18)) && !life.changes_about(slot(30)));
    }

    #[test]
    fn a_slot_has_to_run_with_twelve_healthy_seconds_before_its_deadline() {
        let deadline = TimeDelta::seconds(20);
        let healthy =
            |from: i64, to: i64| [Healthy { from: slot(from).instant(), to: slot(to).instant() }];
        assert!(had_to_run(slot(0), deadline, &healthy(8, 99)));
        assert!(!had_to_run(slot(0), deadline, &healthy(9, 99)));
        assert!(!had_to_run(slot(0), deadline, &healthy(-50, 11)));
        assert!(had_to_run(slot(0), deadline, &healthy(-50, 12)));
    }
}
