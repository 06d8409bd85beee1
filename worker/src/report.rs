//! Results to MongoDB, in order for each run, without ever holding up a run.
//!
//! What is reported is written at once, and what comes while a write is under way travels together
//! in the next. While MongoDB is away or too slow, everything waits on disk ([`spool`]) in the order
//! in which it came, and is written from there, oldest first, when MongoDB is back. Outcomes are
//! safe in etcd's `done/` keys as well until MongoDB has acknowledged them. Output for which the
//! disk has no room is dropped, and a mark stands in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use carillon_core::claims::Step;
use carillon_core::fleet::Registration;
use carillon_core::id::{JobName, RunId};
use carillon_core::records::{Progress, Records, RecordsError};
use carillon_core::replica::Versioned;
use carillon_core::run::{Chunk, RunRecord, Stream};
use chrono::{DateTime, Utc};
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock::until;
use crate::courier::Courier;
use crate::execute::dropped_note;
use crate::metrics::Metrics;
use entry::Spooled;
use queue::{Load, Pace, Pending, Queue};
use spool::{Entry, Mark, Rank, Spool};

mod entry;
mod queue;
mod spool;
pub(crate) mod trial;

/// Reports on their way to the reporter: senders never wait longer than it takes to file them.
pub(crate) const REPORTS_BOUND: usize = 1024;
/// What may wait in memory while MongoDB answers, in bytes: a slow one has the rest go to disk.
const MEMORY_BOUND: usize = 8 << 20;
/// With less than this in memory, in bytes, there is time for what others have left behind.
const IDLE_BELOW: usize = 1 << 20;
/// Batches under way at once: more would only make them smaller.
const WRITES: usize = 2;
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often the log hears how far it has come with what waited on disk.
const TOLD_EVERY: Duration = Duration::from_secs(5);

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
    /// A decision of somebody else, or of an earlier life, that nobody has acknowledged for long.
    /// Passed over while there is enough to do: it is seen again, and on many workers.
    Lingers(JobName, Box<Versioned<RunRecord>>),
}

impl Report {
    fn run(&self) -> RunId {
        match self {
            Self::Started(record) => record.id,
            Self::Output { run, .. } => *run,
            Self::Progress(progress) => progress.id,
            Self::Done(_, done) | Self::Lingers(_, done) => done.value.id,
        }
    }
}

/// Writes reports until its channel is closed and all is written, or waits on disk, or `patience`
/// is over then.
pub(crate) struct Reporter {
    store: Store,
    reports: mpsc::Receiver<Report>,
    patience: Duration,
    queue: Queue,
    pace: Pace,
    disk: Disk,
    /// Up to where etcd has been relieved of the outcomes that the disk holds.
    relieved: Option<Mark>,
    /// MongoDB does not answer.
    away: bool,
    /// Patience is over: what is left goes to disk, and nothing more is written.
    leaving: bool,
    not_before: Instant,
    pause: Duration,
    /// The first write makes the indexes.
    indexed: bool,
    told: Instant,
    telling: Telling,
}

/// A decision that is final, and its job's name.
type Final = (JobName, Box<Versioned<RunRecord>>);

/// Where it goes.
#[derive(Clone)]
pub(crate) struct Store {
    pub records: Records,
    pub courier: Courier,
    /// Whether etcd is so full that outcomes that the disk holds should not stay in it.
    pub crowded: watch::Receiver<bool>,
}

/// Who hears how it goes.
pub(crate) struct Telling {
    pub metrics: Metrics,
    pub registration: watch::Sender<Registration>,
}

/// A write that has ended.
struct Written {
    load: Load,
    /// Where it came from the disk, up to where.
    mark: Option<Mark>,
    /// How long it took.
    answer: Result<Duration, RecordsError>,
}

impl Reporter {
    /// Opens the spool in `folder`, which may take `limit` bytes of the disk, with what an earlier
    /// life has left there. `patience`: how long to go on after the channel was closed.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(
        store: Store,
        folder: &Path,
        limit: u64,
        reports: mpsc::Receiver<Report>,
        patience: Duration,
        telling: Telling,
    ) -> io::Result<Self> {
        let disk = Disk {
            spool: Spool::open(folder, limit)?,
            gaps: BTreeMap::new(),
            told: false,
            sound: true,
        };
        if !disk.spool.is_empty() {
            info!("{} of output and records wait on disk for MongoDB", kib(disk.spool.bytes()));
        }
        let now = Instant::now();
        Ok(Self {
            store,
            reports,
            patience,
            queue: Queue::default(),
            pace: Pace::default(),
            disk,
            relieved: None,
            away: false,
            leaving: false,
            not_before: now,
            pause: PAUSES.0,
            indexed: false,
            told: now,
            telling,
        })
    }

    /// Runs until there is nothing more to report.
    pub async fn run(mut self) {
        let mut writes: JoinSet<Written> = JoinSet::new();
        let mut relief = JoinSet::new();
        let mut give_up = None;
        let mut arrived = Vec::new();
        loop {
            self.save();
            self.tell();
            self.write(&mut writes);
            self.relieve(&mut relief);
            if give_up.is_some() && self.is_over(&writes) {
                return;
            }
            let wake = match self.may_write() {
                false => Some(self.not_before),
                // With no room for another batch there is nothing to wake for.
                true if writes.len() >= self.most_writes() => None,
                true => self.queue.ripe(),
            };
            select! {
                count = self.reports.recv_many(&mut arrived, REPORTS_BOUND), if give_up.is_none() => {
                    if count == 0 {
                        give_up = Some(Instant::now() + self.patience);
                    }
                    arrived.drain(..).for_each(|report| self.file(report));
                }
                Some(written) = writes.join_next() => match written {
                    Ok(written) => self.on_written(written),
                    // Only a bug gets here. Outcomes are in etcd, where the others find them.
                    Err(e) => error!("a write of results failed: {e}"),
                },
                Some(_) = relief.join_next() => {}
                Ok(()) = self.store.crowded.changed() => {}
                () = until(wake), if wake.is_some() => {}
                // What is under way ends by itself, each call of it in five seconds.
                () = until(give_up), if give_up.is_some() && !self.leaving => self.leaving = true,
            }
        }
    }

    fn file(&mut self, report: Report) {
        let idle = !self.away && self.disk.spool.is_empty() && self.queue.bytes() < IDLE_BELOW;
        let report = match report {
            Report::Lingers(..) if !idle => return,
            Report::Lingers(job, done) => Report::Done(job, done),
            other => other,
        };
        self.queue.add(report, Instant::now());
    }

    fn is_over(&self, writes: &JoinSet<Written>) -> bool {
        let waits = !self.disk.spool.is_empty();
        let over = match self.leaving {
            // What was not under way is on disk.
            true => writes.is_empty(),
            false => self.queue.is_empty() && (self.away || !waits && writes.is_empty()),
        };
        if over && waits {
            info!("{} wait on disk for the next start", kib(self.disk.spool.bytes()));
        }
        over
    }

    /// How many batches may be under way: nothing is written beside what makes the indexes, or
    /// finds out whether MongoDB is back.
    fn most_writes(&self) -> usize {
        if self.indexed && !self.away { WRITES } else { 1 }
    }

    fn may_write(&self) -> bool {
        Instant::now() >= self.not_before
    }

    /// Has everything go to disk while MongoDB is away, or does not keep up, or something is there
    /// already: what comes later must not be written before.
    fn save(&mut self) {
        let behind = self.queue.bytes() > MEMORY_BOUND;
        if !self.away && !self.leaving && !behind && self.disk.spool.is_empty() {
            return;
        }
        let all = self.queue.take_all();
        if !all.is_empty() {
            let lost = block_in_place(|| self.disk.save(all));
            self.telling.metrics.output_dropped(lost);
        }
    }

    /// Starts what may be written now.
    fn write(&mut self, writes: &mut JoinSet<Written>) {
        while !self.leaving && self.may_write() && writes.len() < self.most_writes() {
            let (mut load, mark) = if self.disk.spool.is_empty() {
                (self.queue.take(Instant::now(), self.pace), None)
            } else if writes.is_empty() {
                block_in_place(|| self.disk.load(self.pace))
            } else {
                break;
            };
            if load.is_empty() && mark.is_none() {
                break;
            }
            let (store, index) = (self.store.clone(), !self.indexed);
            writes.spawn(async move {
                let sent = Instant::now();
                let answer = store.write(&mut load, index).await;
                Written { load, mark, answer: answer.map(|()| sent.elapsed()) }
            });
        }
    }

    fn on_written(&mut self, written: Written) {
        match written.answer {
            Ok(took) => {
                self.pace.on_written(took);
                self.indexed = true;
                self.pause = PAUSES.0;
                if std::mem::take(&mut self.away) {
                    info!("MongoDB answers again");
                }
                match written.mark {
                    Some(mark) => self.disk.taken(mark),
                    None => self.queue.written(&written.load),
                }
            }
            Err(e) => {
                self.pace.on_failed();
                if !std::mem::replace(&mut self.away, true) {
                    warn!("{e}; results wait on disk");
                }
                if written.mark.is_none() {
                    self.queue.put_back(written.load);
                }
                self.not_before = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSES.1);
            }
        }
    }

    /// While etcd is crowded, has it forget the outcomes that are safe on disk.
    fn relieve(&mut self, relief: &mut JoinSet<()>) {
        let crowded = *self.store.crowded.borrow();
        if !crowded || !self.disk.sound || self.disk.spool.is_empty() || !relief.is_empty() {
            return;
        }
        let (done, mark) = block_in_place(|| self.disk.done(self.relieved));
        if std::mem::replace(&mut self.relieved, mark) == mark {
            return;
        }
        let store = self.store.clone();
        relief.spawn(async move {
            for (job, done) in done {
                store.forget(&job, &done).await;
            }
        });
    }

    fn tell(&mut self) {
        let bytes = self.disk.spool.bytes();
        self.telling.metrics.spool(bytes, self.away);
        // With the next renewal.
        self.telling.registration.send_if_modified(|registration| {
            registration.spool_bytes = bytes;
            false
        });
        if bytes > 0 && !self.away && self.told.elapsed() >= TOLD_EVERY {
            info!("{} still wait on disk to be written", kib(bytes));
            self.told = Instant::now();
        }
    }
}

impl Store {
    async fn write(&self, load: &mut Load, index: bool) -> Result<(), RecordsError> {
        if index {
            match self.records.ensure_indexes().await {
                Err(e @ RecordsError::Unreachable { .. }) => return Err(e),
                // Records without indexes are better than none.
                Err(e) => warn!("the indexes are not made: {e}"),
                Ok(()) => {}
            }
        }
        let refused = self.records.write(&load.batch()).await?;
        for refused in &refused {
            error!(run = %refused.run, "MongoDB refuses it: {}", refused.detail);
        }
        let refused: BTreeSet<RunId> = refused.into_iter().map(|refused| refused.run).collect();
        for (job, done) in load.done().filter(|(_, done)| !refused.contains(&done.value.id)) {
            self.forget(job, done).await;
        }
        Ok(())
    }

    /// Has etcd forget an outcome. Left behind, it is completed again later, which changes nothing.
    async fn forget(&self, job: &JobName, done: &Versioned<RunRecord>) {
        self.courier.post(Step::acknowledged(self.courier.keys(), job, done)).await;
    }
}

/// The spool, and what found no room there.
struct Disk {
    spool: Spool,
    /// Of the live runs of which output was dropped.
    gaps: BTreeMap<RunId, Gap>,
    /// Whether the log was told that there is no room.
    told: bool,
    /// Whether the disk has kept what it said that it would.
    sound: bool,
}

/// Output that was dropped since the last piece that was kept.
struct Gap {
    seq: u64,
    at: DateTime<Utc>,
    /// 0 where a mark says how many they were.
    bytes: u64,
}

impl Disk {
    /// Writes all of it down, and returns how many bytes of output were dropped.
    fn save(&mut self, all: Vec<(RunId, Pending)>) -> u64 {
        let mut dropped = 0;
        for spooled in all.into_iter().flat_map(|(run, pending)| pending.spooled(run)) {
            dropped += self.save_one(spooled);
        }
        if let Err(e) = self.spool.sync() {
            self.sound = false;
            self.complain(&e.to_string());
        }
        dropped
    }

    fn save_one(&mut self, mut spooled: Spooled) -> u64 {
        let run = spooled.run();
        if let Spooled::Done(_, done) = &mut spooled {
            done.value.output_truncated |= self.gaps.contains_key(&run);
        }
        let Some(entry) = spooled.entry() else { return 0 };
        if self.spool.has_room(&entry) && self.mark(&spooled) && self.append(&entry) {
            if matches!(spooled, Spooled::Done(..)) {
                self.gaps.remove(&run);
            }
            return 0;
        }
        match spooled {
            Spooled::Output(run, _, Chunk { seq, at, data, .. }) => {
                let bytes = data.len() as u64;
                let gap = self.gaps.entry(run).or_insert(Gap { seq, at, bytes: 0 });
                if gap.bytes == 0 {
                    (gap.seq, gap.at) = (seq, at);
                }
                gap.bytes += bytes;
                self.complain("its limit is reached, or the disk is full");
                bytes
            }
            // What became of it is safe in etcd, where the others find it.
            Spooled::Done(..) | Spooled::Started(_) => {
                self.gaps.remove(&run);
                0
            }
        }
    }

    /// Puts a mark where output was dropped before this, if some was. Returns whether that could be
    /// done.
    fn mark(&mut self, before: &Spooled) -> bool {
        let Some(gap) = self.gaps.get_mut(&before.run()).filter(|gap| gap.bytes > 0) else {
            return true;
        };
        let data = dropped_note(gap.bytes).into_bytes();
        let chunk = Chunk { seq: gap.seq, at: gap.at, stream: Stream::Stdout, data };
        gap.bytes = 0;
        let mark = Spooled::Output(before.run(), before.expire_at(), chunk).entry();
        // As small as it is, it may use what is kept free.
        mark.is_none_or(|mark| self.append(&Entry { rank: Rank::Status, ..mark }))
    }

    fn append(&mut self, entry: &Entry) -> bool {
        match self.spool.append(entry) {
            Ok(kept) => kept,
            Err(e) => {
                self.complain(&e.to_string());
                false
            }
        }
    }

    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            warn!("what waits for MongoDB has no room on disk: {why}; output is dropped");
        }
    }

    /// What is to be written next.
    fn load(&mut self, pace: Pace) -> (Load, Option<Mark>) {
        let part = self.spool.peek(pace.most, pace.bytes());
        if part.lost > 0 {
            error!(
                "{} of what waited on disk for MongoDB cannot be read, and are lost",
                kib(part.lost)
            );
        }
        (Load::of_spooled(part.entries.iter().filter_map(|entry| Spooled::read(entry))), part.mark)
    }

    /// Outcomes on disk from a mark on, and up to where they were looked for.
    fn done(&self, from: Option<Mark>) -> (Vec<Final>, Option<Mark>) {
        let part = self.spool.peek_from(from, usize::MAX, IDLE_BELOW);
        let done = part.entries.iter().filter_map(|entry| match Spooled::read(entry)? {
            Spooled::Done(job, done) => Some((job, done)),
            Spooled::Started(_) | Spooled::Output(..) => None,
        });
        (done.collect(), part.mark.or(from))
    }

    fn taken(&mut self, mark: Mark) {
        if let Err(e) = self.spool.taken(mark) {
            warn!("cannot delete what was written to MongoDB from disk: {e}");
        }
        if self.spool.is_empty() {
            info!("all that waited on disk is written");
            self.told = false;
        }
    }
}

fn kib(bytes: u64) -> String {
    match bytes >> 10 {
        kib @ 0..10_240 => format!("{kib} KiB"),
        kib => format!("{} MiB", kib >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::records::Output;
    use carillon_core::run::Outcome;

    fn piece(run: RunId, seq: u64, size: usize) -> Report {
        let chunk = Chunk { seq, at: Utc::now(), stream: Stream::Stderr, data: vec![b'x'; size] };
        Report::Output { run, chunks: vec![chunk], expire_at: None }
    }

    #[test]
    fn a_mark_stands_where_output_found_no_room_and_the_record_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), 64 << 10).unwrap();
        let mut disk = Disk { spool, gaps: BTreeMap::new(), told: false, sound: true };
        let (run, now) = (RunId::new(Utc::now()), Instant::now());
        let mut dropped = 0;
        for seq in 0..100 {
            let mut queue = Queue::default();
            queue.add(piece(run, seq, 1000), now);
            dropped += disk.save(queue.take_all());
        }
        assert!(dropped > 0 && dropped.is_multiple_of(1000));
        let job = JobName::new("j").unwrap();
        let value = RunRecord::new(run, &job, Outcome::Succeeded, Utc::now());
        let mut queue = Queue::default();
        queue.add(Report::Done(job, Box::new(Versioned { value, mod_revision: 1 })), now);
        assert_eq!(disk.save(queue.take_all()), 0);

        let (mut load, mark) = disk.load(Pace { most: 1_000 });
        let batch = load.batch();
        let [Output { chunks, .. }] = batch.output[..] else { panic!("{batch:?}") };
        let seqs: Vec<u64> = chunks.iter().map(|chunk| chunk.seq).collect();
        assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>(), "gapless");
        let last = String::from_utf8(chunks.last().unwrap().data.clone()).unwrap();
        assert!(last.contains(&format!("{dropped} bytes dropped")), "{last}");
        assert_eq!(1000 * (seqs.len() as u64 - 1) + dropped, 100_000);
        assert!(batch.finished.iter().all(|record| record.output_truncated));
        assert!(disk.gaps.is_empty());
        disk.taken(mark.unwrap());
        assert!(disk.spool.is_empty());
    }
}
