//! Results to MongoDB, in order for each run, without ever holding up a run.
//!
//! While MongoDB is away, reports wait in bounded memory. Outcomes are safe in etcd's `done/` keys
//! until MongoDB has acknowledged them; output beyond the bound is dropped, and the log says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use carillon_core::claims::Step;
use carillon_core::id::{JobName, RunId};
use carillon_core::records::{Progress, Records, RecordsError};
use carillon_core::replica::Versioned;
use carillon_core::run::{Chunk, RunRecord};
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::courier::Courier;

/// Reports on their way to the reporter: senders never wait longer than it takes to file them.
pub(crate) const REPORTS_BOUND: usize = 1024;
/// Output that may wait for MongoDB, in bytes.
const OUTPUT_BOUND: usize = 64 << 20;
/// Writes under way at once: the driver's pool has eight connections.
const WRITES: usize = 6;
/// Pieces of output in one insert.
const BATCH: usize = 64;
/// Decisions that may wait for MongoDB here; any more wait in etcd alone and are completed later.
const DONE_BOUND: usize = 10_000;
/// Pauses after a failure grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Something to write down about one run.
#[derive(Debug, Clone)]
pub(crate) enum Report {
    /// It started.
    Started(Box<RunRecord>),
    /// It wrote something.
    Output {
        /// The run.
        run: RunId,
        /// The pieces, in order.
        chunks: Vec<Chunk>,
        /// When they are deleted.
        expire_at: Option<DateTime<Utc>>,
    },
    /// It goes on.
    Progress(Progress),
    /// A decision is final; etcd holds it until this is acknowledged.
    Done(JobName, Box<Versioned<RunRecord>>),
}

impl Report {
    fn run(&self) -> RunId {
        match self {
            Self::Started(record) => record.id,
            Self::Output { run, .. } => *run,
            Self::Progress(progress) => progress.id,
            Self::Done(_, done) => done.value.id,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Output { chunks, .. } => chunks.iter().map(|c| c.data.len()).sum(),
            _ => 0,
        }
    }
}

/// Writes reports until its channel is closed and all is written, or `patience` is over then.
pub(crate) struct Reporter {
    pub records: Records,
    pub courier: Courier,
    pub reports: mpsc::Receiver<Report>,
    /// How long to go on after the channel was closed.
    pub patience: Duration,
}

#[derive(Default)]
struct Queue {
    /// What waits, by run; a run whose report is under way is in `busy`.
    waiting: BTreeMap<RunId, VecDeque<Report>>,
    busy: BTreeSet<RunId>,
    bytes: usize,
    done: usize,
    dropped: usize,
}

impl Queue {
    fn add(&mut self, report: Report) {
        let size = report.size();
        if size > 0 && self.bytes + size > OUTPUT_BOUND {
            self.dropped += size;
            return;
        }
        if matches!(report, Report::Done(..)) {
            let queued = self.waiting.get(&report.run());
            let is_done = |report: &Report| matches!(report, Report::Done(..));
            if self.done >= DONE_BOUND || queued.is_some_and(|queue| queue.iter().any(is_done)) {
                return;
            }
            self.done += 1;
            // It says all that these would have said.
            if let Some(queue) = self.waiting.get_mut(&report.run()) {
                queue.retain(|report| matches!(report, Report::Output { .. }));
            }
        }
        self.bytes += size;
        let queue = self.waiting.entry(report.run()).or_default();
        match (queue.back_mut(), report) {
            // Only the newest telemetry matters, and small pieces of output travel together.
            (Some(Report::Progress(old)), Report::Progress(new)) => *old = new,
            (Some(Report::Output { chunks: old, .. }), Report::Output { chunks: new, .. })
                if old.len() + new.len() <= BATCH =>
            {
                old.extend(new);
            }
            (_, report) => queue.push_back(report),
        }
    }

    /// The oldest report of a run that has none under way.
    fn next(&mut self) -> Option<Report> {
        let run = *self.waiting.keys().find(|run| !self.busy.contains(run))?;
        let queue = self.waiting.get_mut(&run)?;
        let report = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&run);
        }
        self.busy.insert(run);
        if matches!(report, Some(Report::Done(..))) {
            self.done -= 1;
        }
        report
    }

    fn back(&mut self, report: Report) {
        if matches!(report, Report::Done(..)) {
            self.done += 1;
        }
        self.waiting.entry(report.run()).or_default().push_front(report);
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.busy.is_empty()
    }
}

impl Reporter {
    /// Runs until there is nothing more to report.
    pub async fn run(mut self) {
        let mut queue = Queue::default();
        let mut writes = JoinSet::new();
        let mut pause = Duration::from_millis(100);
        let mut not_before = Instant::now();
        let mut away = false;
        let mut indexed = false;
        let mut give_up = None;
        loop {
            let may_write = Instant::now() >= not_before;
            // The first write makes the indexes, and nothing is written beside that.
            let limit = if indexed { WRITES } else { 1 };
            while may_write && writes.len() < limit {
                let Some(report) = queue.next() else { break };
                let (records, courier) = (self.records.clone(), self.courier.clone());
                let index = !indexed;
                writes.spawn(async move {
                    let answer = write(&records, &courier, &report, index).await;
                    (report, answer)
                });
            }
            if give_up.is_some() && queue.is_empty() {
                return;
            }
            tokio::select! {
                report = self.reports.recv(), if give_up.is_none() => match report {
                    Some(report) => queue.add(report),
                    None => give_up = Some(Instant::now() + self.patience),
                },
                Some(Ok((report, answer))) = writes.join_next() => {
                    queue.busy.remove(&report.run());
                    match answer {
                        Ok(()) => {
                            indexed = true;
                            queue.bytes = queue.bytes.saturating_sub(report.size());
                            if std::mem::take(&mut away) {
                                info!("MongoDB answers again");
                            }
                            if queue.dropped > 0 {
                                warn!("{} bytes of output were dropped while MongoDB was away", queue.dropped);
                                queue.dropped = 0;
                            }
                            pause = Duration::from_millis(100);
                        }
                        Err(RecordsError::Unreachable { uri, detail }) => {
                            if !std::mem::replace(&mut away, true) {
                                warn!("MongoDB {uri}: {detail}; records wait in etcd, output in memory up to {} MiB", OUTPUT_BOUND >> 20);
                            }
                            queue.back(report);
                            not_before = Instant::now() + pause;
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                        Err(e) => {
                            indexed = true;
                            queue.bytes = queue.bytes.saturating_sub(report.size());
                            error!(run = %report.run(), "not written: {e}");
                        }
                    }
                }
                () = tokio::time::sleep_until(not_before), if !may_write => {}
                () = sleep_until(give_up), if give_up.is_some() => {
                    warn!("leaving with reports unwritten: outcomes are safe in etcd, some output is lost");
                    return;
                }
            }
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn write(
    records: &Records,
    courier: &Courier,
    report: &Report,
    index: bool,
) -> Result<(), RecordsError> {
    if index {
        match records.ensure_indexes().await {
            Err(e @ RecordsError::Unreachable { .. }) => return Err(e),
            // Records without indexes are better than none.
            Err(e) => warn!("the indexes are not made: {e}"),
            Ok(()) => {}
        }
    }
    match report {
        Report::Started(record) => records.started(record).await,
        Report::Output { run, chunks, expire_at } => {
            records.store_output(*run, chunks, *expire_at).await
        }
        Report::Progress(progress) => records.progress(progress).await,
        Report::Done(job, done) => {
            records.finished(&done.value).await?;
            // Left behind, it is completed again later, which changes nothing.
            courier.post(Step::acknowledged(courier.keys(), job, done)).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::run::Stream;

    fn output(run: RunId, seq: u64, size: usize) -> Report {
        let chunk = Chunk { seq, at: Utc::now(), stream: Stream::Stdout, data: vec![0; size] };
        Report::Output { run, chunks: vec![chunk], expire_at: None }
    }

    #[test]
    fn reports_of_one_run_stay_in_order_and_travel_together() {
        let mut queue = Queue::default();
        let run = RunId::new(Utc::now());
        for seq in 0..100 {
            queue.add(output(run, seq, 10));
        }
        let Some(Report::Output { chunks, .. }) = queue.next() else { panic!() };
        assert_eq!(chunks.len(), BATCH);
        assert!(queue.next().is_none(), "the same run has a report under way");
        queue.busy.clear();
        let Some(Report::Output { chunks, .. }) = queue.next() else { panic!() };
        assert_eq!((chunks[0].seq, chunks.len()), (BATCH as u64, 100 - BATCH));
    }

    #[test]
    fn a_decision_that_lingers_is_queued_once() {
        let mut queue = Queue::default();
        let job = JobName::new("j").unwrap();
        let now = Utc::now();
        let value = RunRecord::new(RunId::new(now), &job, carillon_core::run::Outcome::Missed, now);
        let done = Report::Done(job, Box::new(Versioned { value, mod_revision: 1 }));
        for _ in 0..100 {
            queue.add(done.clone());
        }
        assert!(queue.next().is_some());
        queue.busy.clear();
        assert!(queue.next().is_none());
    }

    #[test]
    fn output_is_bounded_and_what_is_dropped_is_counted() {
        let mut queue = Queue::default();
        let run = RunId::new(Utc::now());
        for seq in 0..80 {
            queue.add(output(run, seq, 1 << 20));
        }
        assert_eq!(queue.bytes, OUTPUT_BOUND);
        assert_eq!(queue.dropped, 16 << 20);
    }
}
