//! The invariants, as a pure function of what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use carillon_core::id::{RunId, Slot};
use carillon_core::run::Outcome;
use chrono::{DateTime, TimeDelta, Utc};

use super::expected::{Healthy, Life, Verdict, had_to_run};
use super::witness::Line;

/// How long before its slot a command may start: as far as two clocks of a fleet may be apart.
const EARLY: TimeDelta = TimeDelta::seconds(10);
/// How many violations a message shows.
const SHOWN: usize = 20;

/// A record of a decision, as any reader of MongoDB finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id: the run's.
    pub id: RunId,
    /// The job.
    pub job: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The slot; the first one of a gap; `None` for a run outside the schedule.
    pub slot: Option<Slot>,
    /// The last slot of a gap, and how many it has.
    pub gap: Option<(Slot, i64)>,
    /// The attempt, from 1.
    pub attempt: u32,
}

/// Everything that the oracle looks at.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What the commands wrote down.
    pub lines: Vec<Line>,
    /// What Carillon recorded.
    pub records: Vec<Record>,
    /// Up to which instant each job's slots are decided and settled. What is later is not judged.
    pub through: BTreeMap<String, DateTime<Utc>>,
}

/// What should have happened.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// The jobs. Of others it is only checked that nothing ran twice.
    pub lives: BTreeMap<String, Life>,
    /// When the fleet was able to run what was due.
    pub healthy: Vec<Healthy>,
}

/// A way in which a promise can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One attempt at one slot was started twice.
    StartedTwice,
    /// Two processes of a job whose runs must not overlap were alive at the same time.
    Overlapped,
    /// A slot neither ran nor was recorded as not run.
    Unexplained,
    /// What ran or was recorded is no slot of the job.
    Unexpected,
    /// One attempt at one slot has two records.
    TwoRecords,
    /// A record is not final although its run is over.
    NotFinal,
    /// A run has no record.
    Unrecorded,
    /// A run that is recorded as succeeded never ran.
    NeverRan,
    /// A slot that is recorded as not run did run.
    RanAnyway,
    /// A slot was recorded as missed although it could have run.
    WronglyMissed,
    /// A slot was skipped although its runs may overlap.
    WronglySkipped,
    /// A gap has another number of slots than it says.
    WrongCount,
    /// A command started before its time.
    Early,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// The job.
    pub job: String,
    /// The slot, where it is about one.
    pub slot: Option<Slot>,
    /// The particulars.
    pub detail: String,
}

/// What the oracle found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many commands started.
    pub firings: usize,
    /// How many slots ran or are recorded, up to where each job is decided.
    pub accounted: usize,
    /// How many slots are recorded with each outcome.
    pub outcomes: BTreeMap<&'static str, usize>,
    /// What was broken.
    pub violations: Vec<Violation>,
}

impl Report {
    /// How often a promise was broken in one way.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.violations.iter().filter(|violation| violation.kind == kind).count()
    }

    fn add(&mut self, kind: Kind, job: &str, slot: Option<Slot>, detail: impl fmt::Display) {
        let (job, detail) = (job.to_owned(), detail.to_string());
        self.violations.push(Violation { kind, job, slot, detail });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} firings, {} slots accounted for", self.firings, self.accounted)?;
        for (outcome, count) in &self.outcomes {
            write!(f, ", {count} {outcome}")?;
        }
        let kinds: BTreeSet<Kind> = self.violations.iter().map(|v| v.kind).collect();
        for kind in kinds {
            write!(f, "\n  {kind:?}: {}", self.count(kind))?;
        }
        for violation in self.violations.iter().take(SHOWN) {
            let Violation { kind, job, slot, detail } = violation;
            let slot = slot.map(|slot| slot.to_string()).unwrap_or_default();
            write!(f, "\n    {kind:?} {job} {slot}: {detail}")?;
        }
        Ok(())
    }
}

/// Holds what was seen against what should have been.
#[must_use]
pub fn check(expected: &Expectation, seen: &Evidence) -> Report {
    let mut report = Report::default();
    started_twice(seen, &mut report);
    overlapped(expected, seen, &mut report);
    for (job, life) in &expected.lives {
        let Some(through) = seen.through.get(job).copied() else { continue };
        let book = Book::of(job, life, through, seen);
        book.check_runs(&mut report);
        book.check_slots(&mut report);
        book.check_gaps(&mut report);
        book.check_reasons(&expected.healthy, &mut report);
    }
    report
}

fn started_twice(seen: &Evidence, report: &mut Report) {
    let mut attempts: BTreeMap<(&str, Slot, u32), Vec<&Line>> = BTreeMap::new();
    let mut runs: BTreeMap<RunId, Vec<&Line>> = BTreeMap::new();
    for line in seen.lines.iter().filter(|line| line.start) {
        report.firings += 1;
        runs.entry(line.run).or_default().push(line);
        if let Some(slot) = line.slot {
            attempts.entry((&line.job, slot, line.attempt)).or_default().push(line);
        }
    }
    let told = |lines: &[&Line]| {
        let each =
            |line: &&Line| format!("run {} as process {} at {}", line.run, line.pid, line.at);
        lines.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    for ((job, slot, _), lines) in attempts.iter().filter(|(_, lines)| lines.len() > 1) {
        report.add(Kind::StartedTwice, job, Some(*slot), told(lines));
    }
    // Those with a slot are told already.
    for lines in runs.values().filter(|lines| lines.len() > 1) {
        if let Some(line) = lines.iter().find(|line| line.slot.is_none()) {
            report.add(Kind::StartedTwice, &line.job, None, told(lines));
        }
    }
}

/// The order of the lines tells who was alive when somebody started, whatever clocks show. Of a
/// process that was killed it is known only that it was alive when it started.
fn overlapped(expected: &Expectation, seen: &Evidence, report: &mut Report) {
    let process = |line: &Line| (line.run, line.pid);
    let ends = seen.lines.iter().filter(|line| !line.start);
    let ended: BTreeSet<(RunId, u32)> = ends.map(process).collect();
    let mut alive: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in &seen.lines {
        let others = alive.entry(&line.job).or_default();
        if !line.start {
            others.retain(|other| process(other) != process(line));
            continue;
        }
        if let (Some(other), Some(slot)) = (others.first(), line.slot)
            && expected.lives.get(&line.job).is_some_and(|life| life.forbids_overlap(slot))
        {
            let detail = format!("run {} started while {} was alive", line.run, other.run);
            report.add(Kind::Overlapped, &line.job, Some(slot), detail);
        }
        if ended.contains(&process(line)) {
            others.push(line);
        }
    }
}

/// What was seen of one job, up to where it is decided.
struct Book<'a> {
    job: &'a str,
    life: &'a Life,
    through: DateTime<Utc>,
    starts: Vec<(Slot, &'a Line)>,
    records: Vec<(Slot, &'a Record)>,
}

impl<'a> Book<'a> {
    fn of(job: &'a str, life: &'a Life, through: DateTime<Utc>, seen: &'a Evidence) -> Self {
        let decided = |slot: Slot| slot.instant() <= through;
        let starts = seen.lines.iter().filter(|line| line.start && line.job == job);
        let starts = starts.filter_map(|line| Some((line.slot?, line)));
        let records = seen.records.iter().filter(|record| record.job == job);
        let records = records.filter_map(|record| Some((record.slot?, record)));
        Self {
            job,
            life,
            through,
            starts: starts.filter(|(slot, _)| decided(*slot)).collect(),
            records: records.filter(|(slot, _)| decided(*slot)).collect(),
        }
    }

    /// Each run has its record, and each record of a run its run.
    fn check_runs(&self, report: &mut Report) {
        let recorded: BTreeSet<RunId> = self.records.iter().map(|(_, r)| r.id).collect();
        let started: BTreeSet<RunId> = self.starts.iter().map(|(_, line)| line.run).collect();
        for (slot, line) in &self.starts {
            if !recorded.contains(&line.run) {
                report.add(Kind::Unrecorded, self.job, Some(*slot), format!("run {}", line.run));
            }
            if slot.instant() - line.at > EARLY {
                report.add(Kind::Early, self.job, Some(*slot), format!("started at {}", line.at));
            }
        }
        for (slot, record) in &self.records {
            let ran = started.contains(&record.id);
            let kind = match record.outcome {
                Outcome::Running => Kind::NotFinal,
                Outcome::Succeeded if !ran => Kind::NeverRan,
                Outcome::Skipped | Outcome::Missed if ran => Kind::RanAnyway,
                _ => continue,
            };
            report.add(kind, self.job, Some(*slot), format!("record {}", record.id));
        }
    }

    /// The slots that a record speaks of.
    fn covered(&self, slot: Slot, record: &Record) -> Vec<Slot> {
        let Some((to, _)) = record.gap else { return vec![slot] };
        // About a change it cannot be told which schedule's slots are meant.
        let mut slots = self.life.within(slot, to);
        slots
            .retain(|between| *between == slot || *between == to || self.life.is_certain(*between));
        slots
    }

    /// Expected less executed slots are the recorded ones, and each has one record.
    fn check_slots(&self, report: &mut Report) {
        let mut recorded: BTreeMap<(Slot, u32), Vec<&Record>> = BTreeMap::new();
        for (slot, record) in &self.records {
            for slot in self.covered(*slot, record) {
                recorded.entry((slot, record.attempt)).or_default().push(record);
                *report.outcomes.entry(record.outcome.as_str()).or_default() += 1;
            }
        }
        for ((slot, _), records) in recorded.iter().filter(|(_, records)| records.len() > 1) {
            let told: Vec<_> = records.iter().map(|r| format!("{} {}", r.id, r.outcome)).collect();
            report.add(Kind::TwoRecords, self.job, Some(*slot), told.join(", "));
        }
        let mut accounted: BTreeSet<Slot> = recorded.keys().map(|(slot, _)| *slot).collect();
        accounted.extend(self.starts.iter().map(|(slot, _)| *slot));
        report.accounted += accounted.len();
        for slot in &accounted {
            if self.life.verdict(*slot) == Verdict::MustNot {
                report.add(Kind::Unexpected, self.job, Some(*slot), "no slot of the job");
            }
        }
        for slot in self.life.required(accounted.first().copied(), self.through) {
            if !accounted.contains(&slot) {
                report.add(Kind::Unexplained, self.job, Some(slot), "neither run nor recorded");
            }
        }
    }

    fn check_gaps(&self, report: &mut Report) {
        for (slot, record) in &self.records {
            let Some((to, count)) = record.gap else { continue };
            let possible = self.life.within(*slot, to);
            let certain = possible.iter().all(|slot| self.life.is_certain(*slot));
            let slots = i64::try_from(possible.len()).unwrap_or(i64::MAX);
            if count > slots || certain && count != slots {
                let detail = format!("record {} to {to} says {count}, not {slots}", record.id);
                report.add(Kind::WrongCount, self.job, Some(*slot), detail);
            }
        }
    }

    /// What did not run could not, or must not.
    fn check_reasons(&self, healthy: &[Healthy], report: &mut Report) {
        for (first, record) in &self.records {
            for slot in self.covered(*first, record) {
                let Some(era) = self.life.at(slot) else { continue };
                let must = self.life.verdict(slot) == Verdict::Must;
                let kind = match record.outcome {
                    Outcome::Missed if must && had_to_run(slot, era.deadline, healthy) => {
                        Kind::WronglyMissed
                    }
                    Outcome::Skipped if era.overlaps && !self.life.changes_about(slot) => {
                        Kind::WronglySkipped
                    }
                    _ => continue,
                };
                report.add(kind, self.job, Some(slot), format!("record {}", record.id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that meets something unexpected has failed"
    )]

    use super::super::expected::Era;
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn slot(second: i64) -> Slot {
        Slot::at(at(second))
    }

    /// A job with a slot every second from 1 on, decided up to 20.
    fn expectation() -> Expectation {
        let deadline = TimeDelta::seconds(20);
        let era = Era { every: 1, overlaps: true, deadline, from: at(0) };
        let lives = BTreeMap::from([("j".to_owned(), Life(vec![era]))]);
        Expectation { lives, healthy: vec![Healthy { from: at(0), to: at(100) }] }
    }

    fn record(slot: Slot, outcome: Outcome) -> Record {
        let id = RunId::new(slot.instant());
        Record { id, job: "j".to_owned(), outcome, slot: Some(slot), gap: None, attempt: 1 }
    }

    fn start(record: &Record) -> Line {
        let slot = record.slot.unwrap();
        Line {
            start: true,
            job: record.job.clone(),
            slot: Some(slot),
            attempt: record.attempt,
            run: record.id,
            pid: 1,
            at: slot.instant(),
        }
    }

    /// All is well: each slot ran and is recorded.
    fn evidence() -> Evidence {
        let records: Vec<Record> =
            (1..=20).map(|second| record(slot(second), Outcome::Succeeded)).collect();
        let lines = records.iter().map(start).collect();
        Evidence { lines, records, through: BTreeMap::from([("j".to_owned(), at(20))]) }
    }

    fn kinds(expected: &Expectation, seen: &Evidence) -> Vec<Kind> {
        check(expected, seen).violations.iter().map(|violation| violation.kind).collect()
    }

    fn forget(seen: &mut Evidence, second: i64) {
        seen.lines.retain(|line| line.slot != Some(slot(second)));
        seen.records.retain(|record| record.slot != Some(slot(second)));
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        let report = check(&expectation(), &evidence());
        assert_eq!((report.firings, report.accounted), (20, 20));
        assert_eq!(report.violations, []);
    }

    #[test]
    fn what_is_later_than_the_cursor_is_not_judged() {
        let mut seen = evidence();
        let later = record(slot(21), Outcome::Running);
        seen.lines.push(start(&later));
        seen.records.push(later);
        assert_eq!(kinds(&expectation(), &seen), []);
    }

    #[test]
    fn a_second_start_is_found() {
        let mut seen = evidence();
        let again = Line { run: RunId::new(at(99)), pid: 2, ..seen.lines[7].clone() };
        seen.records.push(Record { id: again.run, ..seen.records[7].clone() });
        seen.lines.push(again);
        assert_eq!(kinds(&expectation(), &seen), [Kind::StartedTwice, Kind::TwoRecords]);

        let mut manual = evidence();
        for pid in [3, 4] {
            manual.lines.push(Line {
                slot: None,
                pid,
                run: RunId::FIRST,
                ..manual.lines[0].clone()
            });
        }
        assert_eq!(kinds(&expectation(), &manual), [Kind::StartedTwice]);
    }

    #[test]
    fn runs_that_overlap_are_found_where_they_must_not() {
        let mut seen = evidence();
        let line = |second: usize, start| Line { start, ..seen.lines[second - 1].clone() };
        // The seventh ends in time, the eighth when the ninth has started, the tenth is killed.
        let lines = [
            line(7, true),
            line(7, false),
            line(8, true),
            line(9, true),
            line(8, false),
            line(9, false),
            line(10, true),
            line(11, true),
            line(11, false),
        ];
        seen.lines.splice(6..11, lines);
        let mut expected = expectation();
        assert_eq!(kinds(&expected, &seen), []);
        expected.lives.get_mut("j").unwrap().0[0].overlaps = false;
        let report = check(&expected, &seen);
        assert_eq!(report.count(Kind::Overlapped), 1, "{report}");
        assert_eq!(report.violations[0].slot, Some(slot(9)));
        // One that was killed is known to have been alive at its start.
        seen.lines.swap(12, 13);
        assert_eq!(check(&expected, &seen).count(Kind::Overlapped), 2);
        seen.lines.swap(13, 14);
        assert_eq!(check(&expected, &seen).count(Kind::Overlapped), 1);
    }

    #[test]
    fn another_attempt_is_no_second_start() {
        let mut seen = evidence();
        let id = RunId::new(at(99));
        let retry = Record { id, attempt: 2, ..seen.records[7].clone() };
        seen.lines.push(start(&retry));
        seen.records.push(retry);
        assert_eq!(kinds(&expectation(), &seen), []);
    }

    #[test]
    fn a_slot_that_vanished_is_found() {
        for second in [3, 9, 20] {
            let mut seen = evidence();
            forget(&mut seen, second);
            let report = check(&expectation(), &seen);
            assert_eq!(report.count(Kind::Unexplained), 1);
            assert_eq!(report.violations[0].slot, Some(slot(second)));
        }
    }

    #[test]
    fn what_is_no_slot_is_found() {
        let mut expected = expectation();
        expected.lives.get_mut("j").unwrap().0[0].every = 2;
        assert_eq!(kinds(&expected, &evidence()), [Kind::Unexpected; 10]);
    }

    #[test]
    fn a_second_record_is_found_also_in_a_gap() {
        let mut seen = evidence();
        let gap = Some((slot(9), 2));
        seen.records.push(Record { gap, ..record(slot(8), Outcome::Lost) });
        assert_eq!(kinds(&expectation(), &seen), [Kind::TwoRecords; 2]);
    }

    #[test]
    fn runs_and_records_that_do_not_belong_together_are_found() {
        let mut seen = evidence();
        seen.records[4].outcome = Outcome::Running;
        seen.records[5].outcome = Outcome::Missed;
        let unrecorded = seen.records.remove(7);
        seen.lines.retain(|line| line.slot != Some(slot(11)));
        let expected = Expectation { healthy: Vec::new(), ..expectation() };
        let found = kinds(&expected, &seen);
        assert_eq!(found, [Kind::Unrecorded, Kind::NotFinal, Kind::RanAnyway, Kind::NeverRan]);
        assert_eq!(check(&expected, &seen).violations[0].slot, unrecorded.slot);
    }

    #[test]
    fn a_lost_run_may_have_run_or_not() {
        let mut seen = evidence();
        seen.records[4].outcome = Outcome::Lost;
        seen.records[5].outcome = Outcome::Lost;
        seen.lines.remove(5);
        assert_eq!(kinds(&expectation(), &seen), []);
    }

    #[test]
    fn a_gap_accounts_for_its_slots_and_has_to_count_them() {
        let mut seen = evidence();
        (8..=12).for_each(|second| forget(&mut seen, second));
        let gap =
            |count| Record { gap: Some((slot(12), count)), ..record(slot(8), Outcome::Missed) };
        let outage = Expectation { healthy: Vec::new(), ..expectation() };
        seen.records.push(gap(5));
        assert_eq!(kinds(&outage, &seen), []);
        assert_eq!(kinds(&expectation(), &seen), [Kind::WronglyMissed; 5]);
        seen.records.pop();
        seen.records.push(gap(4));
        assert_eq!(kinds(&outage, &seen), [Kind::WrongCount]);
    }

    #[test]
    fn skipping_is_for_jobs_whose_runs_do_not_overlap() {
        let mut seen = evidence();
        seen.lines.remove(9);
        seen.records[9].outcome = Outcome::Skipped;
        let mut expected = expectation();
        assert_eq!(kinds(&expected, &seen), [Kind::WronglySkipped]);
        expected.lives.get_mut("j").unwrap().0[0].overlaps = false;
        assert_eq!(kinds(&expected, &seen), []);
    }

    #[test]
    fn a_start_long_before_its_time_is_found() {
        let mut seen = evidence();
        seen.lines[9].at -= TimeDelta::seconds(90);
        assert_eq!(kinds(&expectation(), &seen), [Kind::Early]);
    }
}
