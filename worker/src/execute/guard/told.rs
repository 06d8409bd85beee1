//! What a guard has to know, and what it was told of that. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carillon_core::id::RunId;

use super::line::{Line, Terms};

/// What the guard has to know. The newest is told, however often it changed meanwhile: nothing
/// queues up, and a new guard is told all of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) runs: BTreeMap<RunId, Terms>,
    pub(super) lease: Option<Lease>,
    /// The runs that came, went or got a keeper since the guard was told.
    pub(super) changed: BTreeSet<RunId>,
}

/// Until when a lease is certain, since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Its number in etcd.
    pub(crate) id: i64,
    /// When the last acknowledged renewal was sent, and the lease's time to live.
    pub(crate) until: Duration,
}

/// What one guard knows.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The runs, and whether it knows the keeper.
    runs: BTreeMap<RunId, bool>,
    lease: Option<Duration>,
}

impl Known {
    /// Where nothing was told yet, everything is new.
    pub(super) fn tell_again(&mut self) {
        self.changed = self.runs.keys().copied().collect();
    }
}

impl Told {
    /// The lines that tell what is new in `known`. The lease comes first: a new run is under the new
    /// one.
    pub(super) fn catch_up(&mut self, known: &mut Known) -> String {
        let lease = known.lease.map(|lease| lease.until);
        let lease = lease.filter(|_| lease != self.lease).map(Line::Lease);
        let changes = std::mem::take(&mut known.changed);
        let runs = changes.into_iter().filter_map(|run| {
            match (self.runs.get(&run), known.runs.get(&run)) {
                (Some(true), Some(_)) | (None, None) => None,
                (Some(false), Some(terms)) if terms.keeper.is_none() => None,
                (_, Some(&terms)) => Some(Line::Run(run, terms)),
                (Some(_), None) => Some(Line::End(run)),
            }
        });
        let lines: Vec<Line> = lease.into_iter().chain(runs).collect();
        let mut text = String::new();
        for line in lines {
            text.push_str(&format!("{line}\n"));
            match line {
                Line::Run(run, terms) => drop(self.runs.insert(run, terms.keeper.is_some())),
                Line::End(run) => drop(self.runs.remove(&run)),
                Line::Lease(until) => self.lease = Some(until),
                Line::Start(..) => {}
            }
        }
        text
    }

    /// It is asked to start the run: it knows the keeper that it forks off.
    pub(super) fn started(&mut self, run: RunId) {
        self.runs.entry(run).and_modify(|knows_keeper| *knows_keeper = true);
    }
}

/// Until when a run may be started that was claimed under this lease and has this deadline, if the
/// lease of now is `held`: under another it may have been settled as lost.
pub(super) fn deadline(
    lease: Option<i64>,
    held: Option<Lease>,
    start_by: Option<Duration>,
) -> Option<Duration> {
    let certain = lease.map(|lease| {
        held.filter(|held| held.id == lease).map_or(Duration::ZERO, |held| held.until)
    });
    certain.into_iter().chain(start_by).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_something_is_told_the_difference() {
        let terms = Terms { grace: Duration::from_secs(1), keep: false, keeper: None };
        let (a, b) = (RunId::FIRST, RunId::LAST);
        let (mut guard, mut known) = (Told::default(), Known::default());
        assert_eq!(guard.catch_up(&mut known), "");
        known.lease = Some(lease(1, 9));
        known.runs.insert(a, terms);
        known.tell_again();
        assert_eq!(guard.catch_up(&mut known), format!("lease 9000\nrun {a} 1000 kill\n"));
        known.tell_again();
        assert_eq!(guard.catch_up(&mut known), "");
        known.runs = BTreeMap::from([(b, terms)]);
        known.changed = BTreeSet::from([a, b]);
        assert_eq!(guard.catch_up(&mut known), format!("end {a}\nrun {b} 1000 kill\n"));
        known.runs.clear();
        known.changed = BTreeSet::from([a, b]);
        assert_eq!(guard.catch_up(&mut known), format!("end {b}\n"), "it has forgotten the other");
    }

    fn lease(id: i64, secs: u64) -> Lease {
        Lease { id, until: Duration::from_secs(secs) }
    }

    #[test]
    fn a_start_may_wait_until_its_own_lease_or_its_deadline_is_over() {
        let until = |under, held| deadline(under, held, None).map(|until| until.as_secs());
        assert_eq!(until(None, Some(lease(1, 9))), None);
        assert_eq!(until(Some(1), Some(lease(1, 9))), Some(9));
        assert_eq!(until(Some(1), Some(lease(2, 12))), Some(0), "it may be settled as lost");
        assert_eq!(until(Some(1), None), Some(0));
        let start_by = |secs| Some(Duration::from_secs(secs));
        assert_eq!(deadline(Some(1), Some(lease(1, 9)), start_by(5)), start_by(5));
        assert_eq!(deadline(Some(1), Some(lease(1, 9)), start_by(15)), start_by(9));
        assert_eq!(deadline(None, None, start_by(5)), start_by(5));
    }

    #[test]
    fn a_guard_learns_of_the_keeper_that_an_earlier_one_has_forked_off() {
        let terms = Terms { grace: Duration::ZERO, keep: false, keeper: None };
        let mut known = Known::default();
        let (ours, earlier) = (RunId::FIRST, RunId::LAST);
        known.runs = [ours, earlier].map(|run| (run, terms)).into();
        known.tell_again();
        let mut guard = Told::default();
        guard.catch_up(&mut known);
        guard.started(ours);
        for (run, keeper) in [(ours, 5), (earlier, 6)] {
            known.runs.insert(run, Terms { keeper: Some(keeper), ..terms });
        }
        known.tell_again();
        assert_eq!(guard.catch_up(&mut known), format!("run {earlier} 0 kill 6\n"));
        assert_eq!(guard.catch_up(&mut known), "");
    }
}
