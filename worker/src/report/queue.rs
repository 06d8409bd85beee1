//! What waits in memory to be written, by run, so that each run's own order is kept while many runs
//! are written together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use carillon_core::id::{JobName, RunId};
use carillon_core::records::{Batch, Output, Progress};
use carillon_core::replica::Versioned;
use carillon_core::run::{Chunk, RunRecord};
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::Report;
use super::entry::Spooled;
use super::inbox::output_bytes;

/// The fewest and the most runs in one batch: as many documents as one insert takes well.
const BATCH_RUNS: (usize, usize) = (8, 1_000);
/// So many bytes are in a batch for each of them: at most half of what one command may carry.
const BYTES_PER_RUN: usize = 8 << 10;
/// What a batch may take to be written: one that takes longer than a call may would never end.
const GOAL: Duration = Duration::from_millis(500);
/// What a record or a piece of output takes beside its text.
const DOCUMENT_BYTES: usize = 512;
/// How long the record of a start waits for the run's end: most runs are so short that one write
/// says all.
const STARTED_WAITS: Duration = Duration::from_millis(300);

/// How much is written at once: as much as MongoDB takes in half a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Runs, or entries of the spool.
    pub(super) most: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { most: 128 }
    }
}

impl Pace {
    /// In bytes.
    pub(super) fn bytes(self) -> usize {
        self.most * BYTES_PER_RUN
    }

    /// A batch was written, and took so long.
    pub(super) fn on_written(&mut self, took: Duration) {
        let more = if took > GOAL {
            let slower = took.as_secs_f64() / GOAL.as_secs_f64();
            // The fraction of a run does not matter.
            (self.most as f64 / slower) as usize
        } else {
            self.most * 2
        };
        self.most = more.clamp(BATCH_RUNS.0, BATCH_RUNS.1);
    }

    /// A batch was not written in time.
    pub(super) fn on_failed(&mut self) {
        self.most = (self.most / 4).max(BATCH_RUNS.0);
    }
}

/// What is to be written about one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pending {
    started: Option<(Instant, Box<RunRecord>)>,
    progress: Option<Progress>,
    output: VecDeque<Chunk>,
    expire_at: Option<DateTime<Utc>>,
    done: Option<(JobName, Box<Versioned<RunRecord>>)>,
}

impl Pending {
    fn add(&mut self, report: Report, now: Instant) {
        match report {
            // The last word says all that these would have said.
            Report::Started(_) | Report::Progress(_) if self.done.is_some() => {}
            Report::Started(record) => self.started = Some((now, record)),
            Report::Progress(progress) => self.progress = Some(progress),
            Report::Output { chunks, expire_at, .. } => {
                self.output.extend(chunks);
                self.expire_at = expire_at;
            }
            Report::Done(job, done) | Report::Lingers(job, done) => {
                (self.started, self.progress) = (None, None);
                self.done.get_or_insert((job, done));
            }
        }
    }

    /// Takes what may be written now and fits: the output first, and the end only after all of it.
    fn take(&mut self, now: Instant, room: &mut usize) -> Self {
        let mut taken = Self { expire_at: self.expire_at, ..Self::default() };
        while *room > 0
            && let Some(chunk) = self.output.pop_front()
        {
            *room = room.saturating_sub(DOCUMENT_BYTES + chunk.data.len());
            taken.output.push_back(chunk);
        }
        if self.started.as_ref().is_some_and(|(since, _)| now >= *since + STARTED_WAITS) {
            taken.started = self.started.take();
        }
        if self.started.is_none() {
            taken.progress = self.progress.take();
        }
        if self.output.is_empty() {
            taken.done = self.done.take();
        }
        *room = room.saturating_sub(taken.records_size());
        taken
    }

    /// Puts what was taken back in front of what has come since.
    fn put_back(&mut self, mut taken: Self) {
        taken.output.append(&mut self.output);
        self.output = taken.output;
        self.expire_at = self.expire_at.or(taken.expire_at);
        self.done = self.done.take().or(taken.done);
        if self.done.is_none() {
            self.started = self.started.take().or(taken.started);
            self.progress = self.progress.take().or(taken.progress);
        }
    }

    fn is_empty(&self) -> bool {
        self.output.is_empty()
            && self.started.is_none()
            && self.progress.is_none()
            && self.done.is_none()
    }

    fn records_size(&self) -> usize {
        let started = self.started.iter().map(|(_, record)| record.as_ref());
        let done = self.done.iter().map(|(_, done)| &done.value);
        started.chain(done).map(|r| DOCUMENT_BYTES + r.command.len() + r.output.len()).sum()
    }

    /// How many bytes of output there are.
    pub(super) fn output_bytes(&self) -> usize {
        output_bytes(&self.output)
    }

    fn size(&self) -> usize {
        let output: usize = self.output.iter().map(|c| DOCUMENT_BYTES + c.data.len()).sum();
        output + self.records_size()
    }

    /// What of it is worth keeping on disk, in its order: figures are not.
    pub(super) fn spooled(self, run: RunId) -> impl Iterator<Item = Spooled> {
        let expire_at = self.expire_at;
        let started = self.started.map(|(_, record)| Spooled::Started(record));
        let output =
            self.output.into_iter().map(move |chunk| Spooled::Output(run, expire_at, chunk));
        let done = self.done.map(|(job, done)| Spooled::Done(job, done));
        started.into_iter().chain(output).chain(done)
    }
}

/// What is written together.
#[derive(Debug, Default)]
pub(super) struct Load {
    runs: BTreeMap<RunId, Pending>,
}

impl Load {
    /// What the entries of the spool say.
    pub(super) fn of_spooled(all: impl IntoIterator<Item = Spooled>) -> Self {
        let now = Instant::now();
        let mut load = Self::default();
        for spooled in all {
            let (run, report) = match spooled {
                Spooled::Started(record) => (record.id, Report::Started(record)),
                Spooled::Output(run, expire_at, chunk) => {
                    (run, Report::Output { run, chunks: vec![chunk], expire_at })
                }
                Spooled::Done(job, done) => (done.value.id, Report::Done(job, done)),
            };
            load.runs.entry(run).or_default().add(report, now);
        }
        load
    }

    /// The commands for it. The pieces of output are made contiguous for that.
    pub(super) fn batch(&mut self) -> Batch<'_> {
        let mut batch = Batch::default();
        for (run, pending) in &mut self.runs {
            let Pending { started, progress, output, expire_at, done } = pending;
            if !output.is_empty() {
                let chunks = &*output.make_contiguous();
                batch.output.push(Output { run: *run, expire_at: *expire_at, chunks });
            }
            batch.started.extend(started.iter().map(|(_, record)| record.as_ref()));
            batch.progress.extend(progress.iter());
            batch.finished.extend(done.iter().map(|(_, done)| &done.value));
        }
        batch
    }

    /// The decisions in it that are final.
    pub(super) fn done(&self) -> impl Iterator<Item = (&JobName, &Versioned<RunRecord>)> {
        let done = self.runs.values().filter_map(|pending| pending.done.as_ref());
        done.map(|(job, done)| (job, done.as_ref()))
    }

    /// How many bytes of output are in it.
    pub(super) fn output_bytes(&self) -> usize {
        self.runs.values().map(Pending::output_bytes).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<RunId, Pending>,
    /// Of which runs something is being written: what comes of them meanwhile waits.
    busy: BTreeSet<RunId>,
    bytes: usize,
}

impl Queue {
    pub(super) fn add(&mut self, report: Report, now: Instant) {
        let pending = self.waiting.entry(report.run()).or_default();
        self.bytes -= pending.size();
        pending.add(report, now);
        self.bytes += pending.size();
    }

    /// Takes as much as one batch holds, of the oldest runs first.
    pub(super) fn take(&mut self, now: Instant, pace: Pace) -> Load {
        let mut load = Load::default();
        let mut room = pace.bytes();
        for (run, pending) in &mut self.waiting {
            if room == 0 || load.runs.len() == pace.most {
                break;
            }
            if self.busy.contains(run) {
                continue;
            }
            let before = pending.size();
            let taken = pending.take(now, &mut room);
            self.bytes -= before - pending.size();
            if !taken.is_empty() {
                load.runs.insert(*run, taken);
            }
        }
        self.busy.extend(load.runs.keys());
        self.waiting.retain(|_, pending| !pending.is_empty());
        load
    }

    /// The load was written.
    pub(super) fn written(&mut self, load: &Load) {
        self.busy.retain(|run| !load.runs.contains_key(run));
    }

    /// The load was not written.
    pub(super) fn put_back(&mut self, load: Load) {
        self.written(&load);
        for (run, taken) in load.runs {
            let pending = self.waiting.entry(run).or_default();
            self.bytes -= pending.size();
            pending.put_back(taken);
            self.bytes += pending.size();
        }
    }

    /// Takes everything of the runs of which nothing is being written.
    pub(super) fn take_all(&mut self) -> Vec<(RunId, Pending)> {
        let (busy, idle): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(r, _)| self.busy.contains(r));
        self.waiting = busy;
        self.bytes = self.waiting.values().map(Pending::size).sum();
        idle.into_iter().collect()
    }

    /// When something that waits for its time may be taken.
    pub(super) fn ripe(&self) -> Option<Instant> {
        let idle = self.waiting.iter().filter(|(run, _)| !self.busy.contains(run));
        idle.filter_map(|(_, p)| p.started.as_ref()).map(|(since, _)| *since + STARTED_WAITS).min()
    }

    /// What waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.busy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::run::{Outcome, Stream};

    const WIDE: Pace = Pace { most: BATCH_RUNS.1 };

    #[test]
    fn a_slow_server_gets_smaller_batches_and_a_fast_one_larger() {
        let mut pace = Pace { most: 800 };
        pace.on_written(GOAL * 4);
        assert_eq!(pace.most, 200);
        pace.on_failed();
        assert_eq!((pace.most, pace.bytes()), (50, 400 << 10));
        (0..9).for_each(|_| pace.on_failed());
        assert_eq!(pace.most, BATCH_RUNS.0);
        (0..9).for_each(|_| pace.on_written(GOAL / 2));
        assert_eq!(pace.most, BATCH_RUNS.1);
    }

    fn chunk(seq: u64, size: usize) -> Chunk {
        Chunk { seq, at: Utc::now(), stream: Stream::Stdout, data: vec![0; size] }
    }

    fn output(run: RunId, seq: u64, size: usize) -> Report {
        Report::Output { run, chunks: vec![chunk(seq, size)], expire_at: None }
    }

    fn record(run: RunId, outcome: Outcome) -> RunRecord {
        RunRecord::new(run, &JobName::new("j").unwrap(), outcome, Utc::now())
    }

    fn done(run: RunId) -> Report {
        let value = record(run, Outcome::Succeeded);
        let done = Versioned { value, mod_revision: 1 };
        Report::Done(JobName::new("j").unwrap(), Box::new(done))
    }

    fn numbers(load: &mut Load) -> Vec<u64> {
        let batch = load.batch();
        batch.output.iter().flat_map(|pieces| pieces.chunks.iter().map(|c| c.seq)).collect()
    }

    #[test]
    fn the_last_word_comes_after_all_of_the_output_and_alone() {
        let (mut queue, now, run) = (Queue::default(), Instant::now(), RunId::new(Utc::now()));
        queue.add(Report::Started(Box::new(record(run, Outcome::Running))), now);
        for seq in 0..20 {
            queue.add(output(run, seq, 1 << 20), now);
        }
        queue.add(done(run), now);
        let mut load = queue.take(now, WIDE);
        assert_eq!(load.batch().started.len(), 0, "it would say nothing that the end does not");
        assert_eq!(load.done().count(), 0);
        assert!(queue.take(now, WIDE).is_empty(), "the same run has a batch under way");
        let first = numbers(&mut load).len() as u64;
        assert!(first < 20);
        queue.put_back(load);
        let mut seen = Vec::new();
        loop {
            let mut load = queue.take(now, WIDE);
            seen.extend(numbers(&mut load));
            queue.written(&load);
            if load.done().count() == 1 {
                break;
            }
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
        assert!(queue.is_empty() && queue.bytes() == 0);
    }

    #[test]
    fn a_start_waits_a_moment_for_the_end_and_figures_for_the_start() {
        let (mut queue, now, run) = (Queue::default(), Instant::now(), RunId::new(Utc::now()));
        let progress = Progress {
            id: run,
            cpu_millis: None,
            max_rss_bytes: None,
            output_bytes: 1,
            last_line: None,
        };
        queue.add(Report::Started(Box::new(record(run, Outcome::Running))), now);
        queue.add(Report::Progress(progress.clone()), now);
        queue.add(output(run, 0, 1), now);
        let mut load = queue.take(now, WIDE);
        assert_eq!((load.batch().started.len(), load.batch().output.len()), (0, 1));
        assert_eq!(queue.ripe(), None, "it is busy");
        queue.written(&load);
        let later = queue.ripe().unwrap();
        let mut load = queue.take(later, WIDE);
        let batch = load.batch();
        assert_eq!((batch.started.len(), batch.progress), (1, vec![&progress]));
    }

    #[test]
    fn many_runs_travel_together() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for _ in 0..2 * WIDE.most {
            queue.add(done(RunId::new(Utc::now())), now);
        }
        assert_eq!(queue.take(now, WIDE).done().count(), WIDE.most);
        assert_eq!(queue.take(now, WIDE).done().count(), WIDE.most);
        assert!(queue.take(now, WIDE).is_empty() && !queue.is_empty());
    }

    #[test]
    fn a_decision_that_lingers_is_written_once() {
        let (mut queue, now, run) = (Queue::default(), Instant::now(), RunId::new(Utc::now()));
        (0..100).for_each(|_| queue.add(done(run), now));
        assert_eq!(queue.take(now, WIDE).done().count(), 1);
    }

    #[test]
    fn what_goes_to_the_disk_leaves_the_runs_that_are_being_written() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let (a, b) = (RunId::FIRST, RunId::LAST);
        queue.add(output(a, 0, 10), now);
        let load = queue.take(now, WIDE);
        queue.add(output(a, 1, 10), now);
        queue.add(output(b, 0, 10), now);
        let seqs = |all: Vec<(RunId, Pending)>| -> Vec<(RunId, u64)> {
            let of = |(run, pending): (RunId, Pending)| {
                pending.output.into_iter().map(move |chunk| (run, chunk.seq))
            };
            all.into_iter().flat_map(of).collect()
        };
        assert_eq!(seqs(queue.take_all()), [(b, 0)]);
        queue.put_back(load);
        assert_eq!(seqs(queue.take_all()), [(a, 0), (a, 1)]);
        assert!(queue.is_empty() && queue.bytes() == 0);
    }
}
