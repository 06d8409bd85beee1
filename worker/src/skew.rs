//! Whose clock is off. Pure: it is told what other clocks show, and never reads one.
//!
//! A skewed clock doubles no run, but a fast one fires early. So each worker compares its own with
//! those of the others, which their registrations carry, and with MongoDB's, and goes by the median
//! of all: as long as most are right, it is right, whatever the others show.
//!
//! An offset counts from the moment of reading, so it is only as good as the reading was fresh. A
//! registration found in a list may be as old as a renewal: it tells that the worker is there
//! ([`Skew::is_there`]), and the next one that the watch brings tells its clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use carillon_core::id::WorkerId;
use chrono::TimeDelta;

/// From here on a clock is said to be off.
const OFF: TimeDelta = TimeDelta::seconds(2);
/// Back within this, it is right again: nothing is said twice of a clock that wavers.
const RIGHT: TimeDelta = TimeDelta::seconds(1);
/// How long a reading counts. A worker that lives is read every few seconds.
const FRESH: Duration = Duration::from_secs(60);
/// How long a new worker waits for somebody to compare its clock with: longer than it takes until
/// every live worker has renewed its registration.
const PATIENCE: Duration = Duration::from_secs(5);

/// A clock other than our own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Another worker's.
    Worker(WorkerId),
    /// MongoDB's.
    Mongo,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(id) => write!(f, "worker {id}"),
            Self::Mongo => f.write_str("MongoDB"),
        }
    }
}

/// What is to be thought of our own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Near enough to the median.
    Fine,
    /// More than 2 s off the median, by this much: ahead where positive. To be warned of.
    Off(TimeDelta),
    /// Further off than clocks may be: nothing may be claimed, for this reason.
    Barred(String),
    /// Not compared with anyone's yet: nothing may be claimed.
    Unknown,
    /// There is nobody to compare it with, so nobody to disagree.
    Alone,
}

impl Verdict {
    /// Why nothing may be claimed, for an operator; `None` where it may.
    pub fn bars(&self) -> Option<&str> {
        match self {
            Self::Barred(why) => Some(why),
            Self::Unknown => Some("its clock was not compared with anyone's yet"),
            Self::Fine | Self::Off(_) | Self::Alone => None,
        }
    }
}

/// The last that was heard of another clock.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Theirs minus ours; `None` while only its being there is known.
    offset: Option<TimeDelta>,
    /// When, since boot.
    at: Duration,
}

/// Our clock among the others. Instants are times since boot, which no setting of a clock moves.
#[derive(Debug)]
pub(crate) struct Skew {
    max_skew: TimeDelta,
    started: Duration,
    readings: BTreeMap<Source, Reading>,
    /// The clocks that are off, and were said to be.
    told: BTreeSet<Source>,
    told_of_ours: bool,
    told_alone: bool,
}

impl Skew {
    /// Nobody heard of yet, at a worker's start.
    pub fn new(max_skew: TimeDelta, started: Duration) -> Self {
        Self {
            max_skew,
            started,
            readings: BTreeMap::new(),
            told: BTreeSet::new(),
            told_of_ours: false,
            told_alone: false,
        }
    }

    /// A clock was read at `at`: `offset` is theirs minus ours.
    pub fn hear(&mut self, source: Source, offset: TimeDelta, at: Duration) {
        self.readings.insert(source, Reading { offset: Some(offset), at });
    }

    /// Another worker is registered; what its clock shows is not known, or already is.
    pub fn is_there(&mut self, worker: WorkerId, at: Duration) {
        self.readings.entry(Source::Worker(worker)).or_insert(Reading { offset: None, at });
    }

    /// Only these workers are still there.
    pub fn keep(&mut self, there: impl Fn(&WorkerId) -> bool) {
        let keep = |source: &Source| match source {
            Source::Worker(id) => there(id),
            Source::Mongo => true,
        };
        self.readings.retain(|source, _| keep(source));
        self.told.retain(keep);
    }

    /// Our own clock was moved by this much: all others are that much less ahead.
    pub fn clock_set(&mut self, by: TimeDelta) {
        for offset in self.readings.values_mut().filter_map(|reading| reading.offset.as_mut()) {
            *offset -= by;
        }
    }

    /// When the wait for somebody to compare with is over, since boot.
    pub fn waits_until(&self) -> Duration {
        self.started + PATIENCE
    }

    /// Our clock minus the median of all, our own included; `None` where there is no other.
    pub fn deviation(&self, now: Duration) -> Option<TimeDelta> {
        self.median(now).map(|median| -median)
    }

    /// Every other clock minus the median of all.
    pub fn others(&self, now: Duration) -> Vec<(&Source, TimeDelta)> {
        let median = self.median(now).unwrap_or_default();
        self.offsets(now).map(|(source, offset)| (source, offset - median)).collect()
    }

    /// What is to be thought of our own clock.
    pub fn verdict(&self, now: Duration) -> Verdict {
        match self.deviation(now) {
            Some(by) if by.abs() > self.max_skew => Verdict::Barred(self.why_barred(by, now)),
            Some(by) if by.abs() > OFF => Verdict::Off(by),
            Some(_) => Verdict::Fine,
            None if now < self.waits_until() || self.fresh(now).next().is_some() => {
                Verdict::Unknown
            }
            None => Verdict::Alone,
        }
    }

    /// What an operator should be told since this was asked before: each clock that is off, once
    /// until it is right again, and once that there is none to compare with.
    pub fn news(&mut self, now: Duration) -> Vec<String> {
        let mut news = Vec::new();
        let deviation = self.deviation(now);
        if let Some(by) = deviation {
            if by.abs() > OFF && !self.told_of_ours {
                self.told_of_ours = true;
                let clocks = self.offsets(now).count() + 1;
                news.push(format!("our clock is {} the median of {clocks}", shown(by)));
            } else if by.abs() < RIGHT && std::mem::take(&mut self.told_of_ours) {
                news.push("our clock is right again".to_owned());
            }
        }
        if self.verdict(now) == Verdict::Alone && !std::mem::replace(&mut self.told_alone, true) {
            news.push(
                "nobody to compare our clock with, neither a worker nor MongoDB: trusting it"
                    .to_owned(),
            );
        }
        let (mut off, mut right) = (Vec::new(), Vec::new());
        for (source, by) in self.others(now) {
            if by.abs() > OFF && !self.told.contains(source) {
                news.push(format!("the clock of {source} is {} the median", shown(by)));
                off.push(source.clone());
            } else if by.abs() < RIGHT && self.told.contains(source) {
                news.push(format!("the clock of {source} is right again"));
                right.push(source.clone());
            }
        }
        self.told.extend(off);
        self.told.retain(|source| !right.contains(source));
        news
    }

    /// Those of whom something was heard lately.
    fn fresh(&self, now: Duration) -> impl Iterator<Item = (&Source, &Reading)> {
        self.readings.iter().filter(move |(_, r)| now.saturating_sub(r.at) <= FRESH)
    }

    fn offsets(&self, now: Duration) -> impl Iterator<Item = (&Source, TimeDelta)> {
        self.fresh(now).filter_map(|(source, reading)| Some((source, reading.offset?)))
    }

    /// Of all clocks, ours being zero; `None` where it is the only one.
    fn median(&self, now: Duration) -> Option<TimeDelta> {
        let mut all: Vec<TimeDelta> = self.offsets(now).map(|(_, offset)| offset).collect();
        if all.is_empty() {
            return None;
        }
        all.push(TimeDelta::zero());
        all.sort_unstable();
        // The same one twice where their number is odd.
        let (low, high) = (all.get((all.len() - 1) / 2)?, all.get(all.len() / 2)?);
        Some(*low + (*high - *low) / 2)
    }

    fn why_barred(&self, by: TimeDelta, now: Duration) -> String {
        let most = self.max_skew.as_seconds_f64();
        let others: Vec<_> = self.offsets(now).collect();
        match others.as_slice() {
            [(source, offset)] => format!(
                "its clock and that of {source} are {:.1} s apart, more than twice the {most} s of \
                 --max-skew, and there is no third to tell which is wrong",
                offset.abs().as_seconds_f64()
            ),
            _ => format!(
                "its clock is {} the median of {}, more than the {most} s of --max-skew",
                shown(by),
                others.len() + 1
            ),
        }
    }
}

/// `3.2 s ahead of` or `3.2 s behind`.
fn shown(by: TimeDelta) -> String {
    let side = if by > TimeDelta::zero() { "ahead of" } else { "behind" };
    format!("{:.1} s {side}", by.abs().as_seconds_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: TimeDelta = TimeDelta::seconds(10);
    const START: Duration = Duration::from_secs(1000);
    /// After the wait for others.
    const LATER: Duration = Duration::from_secs(1006);

    fn worker(n: usize) -> Source {
        Source::Worker(WorkerId::new(&format!("w{n}")).unwrap())
    }

    fn millis(n: i64) -> TimeDelta {
        TimeDelta::milliseconds(n)
    }

    /// A worker that has just read other workers' clocks, offsets in milliseconds.
    fn among(offsets: &[i64]) -> Skew {
        let mut skew = Skew::new(MAX, START);
        for (n, offset) in offsets.iter().enumerate() {
            skew.hear(worker(n), millis(*offset), LATER);
        }
        skew
    }

    fn barred(skew: &Skew) -> String {
        match skew.verdict(LATER) {
            Verdict::Barred(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_middle_two() {
        for (offsets, deviation) in [
            (&[][..], None),
            (&[300], Some(-150)),
            (&[300, 500], Some(-300)),
            (&[-300, 500], Some(0)),
            (&[100, 300, 9_000], Some(-200)),
            (&[-4_000, -4_000, -4_000], Some(4_000)),
        ] {
            assert_eq!(among(offsets).deviation(LATER), deviation.map(millis), "{offsets:?}");
        }
    }

    #[test]
    fn a_clock_is_fine_off_or_barred_by_its_distance_from_the_median() {
        for (offset, verdict) in [
            (0, Verdict::Fine),
            (2_000, Verdict::Fine),
            (-2_001, Verdict::Off(millis(2_001))),
            (10_000, Verdict::Off(millis(-10_000))),
        ] {
            assert_eq!(among(&[offset, offset]).verdict(LATER), verdict, "{offset}");
            assert_eq!(verdict.bars(), None);
        }
        assert_eq!(
            barred(&among(&[-10_001, -10_001])),
            "its clock is 10.0 s ahead of the median of 3, more than the 10 s of --max-skew"
        );
        let two = among(&[-25_000]);
        assert_eq!(
            barred(&two),
            "its clock and that of worker w0 are 25.0 s apart, more than twice the 10 s of \
             --max-skew, and there is no third to tell which is wrong"
        );
        assert_eq!(two.verdict(LATER).bars(), Some(barred(&two).as_str()));
    }

    #[test]
    fn a_new_worker_waits_for_somebody_to_compare_with_and_then_goes_on_alone() {
        let mut skew = Skew::new(MAX, START);
        let end = skew.waits_until();
        assert_eq!(skew.verdict(START), Verdict::Unknown);
        assert!(skew.verdict(START).bars().is_some());
        assert!(skew.news(START).is_empty());
        assert_eq!(skew.verdict(end), Verdict::Alone);
        assert_eq!(skew.verdict(end).bars(), None);
        assert_eq!(skew.news(end).len(), 1);
        assert!(skew.news(end).is_empty(), "it is said once");
        // Whoever answers is compared with, early or late.
        skew.hear(Source::Mongo, millis(100), end);
        assert_eq!(skew.verdict(end), Verdict::Fine);
        let mut early = Skew::new(MAX, START);
        early.hear(Source::Mongo, millis(100), START);
        assert_eq!(early.verdict(START), Verdict::Fine);
    }

    #[test]
    fn with_another_worker_there_it_waits_for_its_clock() {
        let mut skew = Skew::new(MAX, START);
        let Source::Worker(id) = worker(1) else { unreachable!() };
        skew.is_there(id.clone(), START);
        assert_eq!(skew.verdict(LATER), Verdict::Unknown);
        skew.hear(worker(1), millis(30_000), LATER);
        assert!(matches!(skew.verdict(LATER), Verdict::Barred(_)));
        // Seen again in a list, it keeps what its clock showed.
        skew.is_there(id, LATER);
        assert!(matches!(skew.verdict(LATER), Verdict::Barred(_)));
        skew.keep(|_| false);
        assert_eq!(skew.verdict(LATER), Verdict::Alone);
    }

    #[test]
    fn readings_are_forgotten_when_they_are_old() {
        let mut skew = among(&[30_000]);
        skew.hear(Source::Mongo, millis(0), LATER + Duration::from_secs(1));
        assert!(matches!(skew.verdict(LATER + FRESH), Verdict::Fine), "the mean of 0 and 0");
        let after = LATER + FRESH + Duration::from_millis(1);
        assert_eq!(skew.others(after), [(&Source::Mongo, millis(0))]);
        // The last worker of a fleet whose MongoDB is away goes on.
        assert_eq!(skew.verdict(after + FRESH), Verdict::Alone);
    }

    #[test]
    fn setting_our_clock_moves_all_others_the_other_way() {
        let mut skew = among(&[30_000, 30_100]);
        assert!(matches!(skew.verdict(LATER), Verdict::Barred(_)));
        skew.clock_set(millis(30_000));
        assert_eq!(skew.verdict(LATER), Verdict::Fine);
        assert_eq!(skew.deviation(LATER), Some(millis(0)));
    }

    #[test]
    fn who_is_off_is_named_once_until_it_is_right_again() {
        let mut skew = among(&[100, 3_000, -50]);
        assert_eq!(skew.news(LATER), ["the clock of worker w1 is 3.0 s ahead of the median"]);
        assert!(skew.news(LATER).is_empty());
        // Wavering is not news.
        for offset in [1_900, 2_100, 1_500] {
            skew.hear(worker(1), millis(offset), LATER);
            assert!(skew.news(LATER).is_empty());
        }
        skew.hear(worker(1), millis(500), LATER);
        assert_eq!(skew.news(LATER), ["the clock of worker w1 is right again"]);
        skew.hear(Source::Mongo, millis(-60_000), LATER);
        assert_eq!(skew.news(LATER), ["the clock of MongoDB is 60.0 s behind the median"]);

        let mut ours = among(&[5_000, 5_000, 5_000]);
        assert_eq!(ours.news(LATER), ["our clock is 5.0 s behind the median of 4"]);
        ours.clock_set(millis(5_000));
        assert_eq!(ours.news(LATER), ["our clock is right again"]);
    }

    /// The offset of a right clock, of one that is wrong anyhow, milliseconds.
    fn right() -> impl Strategy<Value = i64> {
        -250..=250_i64
    }

    fn wrong() -> impl Strategy<Value = i64> {
        -1_000_000_000_000..=1_000_000_000_000_i64
    }

    /// So many right others, and at most as many wrong ones: with ours, most are right.
    fn mostly_right() -> impl Strategy<Value = (Vec<i64>, Vec<i64>)> {
        prop::collection::vec(right(), 0..8).prop_flat_map(|r| {
            let most = r.len();
            (Just(r), prop::collection::vec(wrong(), 0..=most))
        })
    }

    proptest! {
        #[test]
        fn a_minority_of_wrong_clocks_never_bars_a_right_one((right, wrong) in mostly_right()) {
            let skew = among(&[right, wrong].concat());
            let verdict = skew.verdict(LATER);
            prop_assert!(matches!(verdict, Verdict::Fine | Verdict::Alone), "{verdict:?}");
        }

        #[test]
        fn a_wrong_clock_among_a_majority_of_right_ones_is_barred(
            ((right, wrong), ours) in (mostly_right(), 10_501..1_000_000_000_000_i64),
            behind: bool,
        ) {
            // Ours is the wrong one more, so one right one more.
            let ours = if behind { -ours } else { ours };
            let seen: Vec<i64> =
                [right, wrong, vec![0, 0]].concat().iter().map(|offset| offset - ours).collect();
            let skew = among(&seen);
            prop_assert!(matches!(skew.verdict(LATER), Verdict::Barred(_)), "{seen:?}");
        }

        #[test]
        fn all_workers_think_the_same_of_each_clock(
            clocks in prop::collection::vec(wrong(), 2..9),
        ) {
            let view = |us: usize| {
                let mut skew = Skew::new(MAX, START);
                for (n, clock) in clocks.iter().enumerate().filter(|(n, _)| *n != us) {
                    // Even, so that means of two are whole.
                    skew.hear(worker(n), millis(2 * (clock - clocks[us])), LATER);
                }
                skew
            };
            let first = view(0);
            for (source, deviation) in first.others(LATER) {
                let us = (1..clocks.len()).find(|n| worker(*n) == *source).unwrap();
                prop_assert_eq!(view(us).deviation(LATER), Some(deviation));
            }
        }
    }
}
