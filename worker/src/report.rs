//! Results to MongoDB, in order for each run, without ever holding up a run.
//!
//! What is reported is written at once, and what comes while a write is under way travels together
//! in the next. While MongoDB is away or too slow, everything waits on disk ([`spool`]) in the order
//! in which it came, and is written from there, oldest first, when MongoDB is back. Outcomes are
//! safe in etcd's `done/` keys as well until MongoDB has acknowledged them, or, once etcd is half
//! full, until the disk has them. Output for which the disk has no room is dropped, and a mark stands
//! in its place.

use std::io;
use std::path::Path;
use std::time::Duration;

use carillon_core::fleet::Registration;
use carillon_core::id::{JobName, RunId};
use carillon_core::records::{Progress, RecordsError};
use carillon_core::replica::Versioned;
use carillon_core::run::{Chunk, RunRecord};
use chrono::{DateTime, Utc};
use tokio::select;
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock::until;
use crate::metrics::Metrics;
use disk::{Disk, kib};
use inbox::REPORTS_BOUND;
use queue::{Load, Pace, Queue};
use spool::Mark;

mod disk;
mod entry;
mod inbox;
mod queue;
mod spool;
mod store;
pub(crate) mod trial;

pub(crate) use inbox::{Inbox, Reports, way};
pub(crate) use store::Store;

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

/// Writes reports until no more can come and all is written, or waits on disk, or `patience` is over
/// then.
pub(crate) struct Reporter {
    store: Store,
    inbox: Inbox,
    patience: Duration,
    queue: Queue,
    pace: Pace,
    disk: Disk,
    /// Up to where etcd has been relieved of the outcomes that the disk holds.
    relieved: Option<Mark>,
    outage: Outage,
    /// Patience is over: what is left goes to disk, and nothing more is written.
    leaving: bool,
    /// The first write makes the indexes.
    indexed: bool,
    told: Instant,
    telling: Telling,
}

/// Who hears how it goes.
pub(crate) struct Telling {
    pub metrics: Metrics,
    pub registration: watch::Sender<Registration>,
}

/// Whether MongoDB answers, and when it is asked again.
struct Outage {
    away: bool,
    not_before: Instant,
    pause: Duration,
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
    /// life has left there. `patience`: how long to go on when no more reports can come.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(
        store: Store,
        folder: &Path,
        limit: u64,
        inbox: Inbox,
        patience: Duration,
        telling: Telling,
    ) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            store,
            inbox,
            patience,
            queue: Queue::default(),
            pace: Pace::default(),
            disk: Disk::open(folder, limit)?,
            relieved: None,
            outage: Outage { away: false, not_before: now, pause: PAUSES.0 },
            leaving: false,
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
                // Nobody knows of them in the next life.
                self.disk.save_marks();
                return;
            }
            let wake = match self.outage.may_try() {
                false => Some(self.outage.not_before),
                // With no room for another batch there is nothing to wake for.
                true if writes.len() >= self.most_writes() => None,
                true => self.queue.ripe(),
            };
            let reports = self.inbox.reports.recv_many(&mut arrived, REPORTS_BOUND);
            select! {
                count = reports, if give_up.is_none() => {
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
        let idle = !self.outage.away && self.disk.is_empty() && self.queue.bytes() < IDLE_BELOW;
        let report = match report {
            Report::Lingers(..) if !idle => return,
            Report::Done(job, mut done) | Report::Lingers(job, mut done) => {
                done.value.output_truncated |= self.disk.has_cut(done.value.id);
                Report::Done(job, done)
            }
            other => other,
        };
        self.queue.add(report, Instant::now());
    }

    fn is_over(&self, writes: &JoinSet<Written>) -> bool {
        let waits = !self.disk.is_empty();
        let over = match self.leaving {
            // What was not under way is on disk.
            true => writes.is_empty(),
            false => self.queue.is_empty() && (self.outage.away || !waits && writes.is_empty()),
        };
        if over && waits {
            info!("{} wait on disk for the next start", kib(self.disk.bytes()));
        }
        over
    }

    /// How many batches may be under way: nothing is written beside what makes the indexes, or
    /// finds out whether MongoDB is back.
    fn most_writes(&self) -> usize {
        if self.indexed && !self.outage.away { WRITES } else { 1 }
    }

    /// Has everything go to disk while MongoDB is away, or does not keep up, or something is there
    /// already: what comes later must not be written before.
    fn save(&mut self) {
        let behind = self.queue.bytes() > MEMORY_BOUND;
        if !self.outage.away && !self.leaving && !behind && self.disk.is_empty() {
            return;
        }
        let all = self.queue.take_all();
        if !all.is_empty() {
            let output = all.iter().map(|(_, pending)| pending.output_bytes()).sum();
            let dropped = block_in_place(|| self.disk.save(all));
            self.telling.metrics.output_dropped(dropped);
            self.inbox.release(output);
        }
    }

    /// Starts what may be written now.
    fn write(&mut self, writes: &mut JoinSet<Written>) {
        while !self.leaving && self.outage.may_try() && writes.len() < self.most_writes() {
            let (mut load, mark) = if self.disk.is_empty() {
                (self.queue.take(Instant::now(), self.pace), None)
            } else if writes.is_empty() {
                match block_in_place(|| self.disk.load(self.pace)) {
                    Ok(part) => part,
                    Err(e) => {
                        warn!("what waits on disk cannot be read yet: {e}");
                        self.outage.wait();
                        break;
                    }
                }
            } else {
                break;
            };
            match mark {
                None if load.is_empty() => break,
                // Nothing that can be written: no answer to this would tell anything.
                Some(mark) if load.is_empty() => self.disk.taken(mark),
                mark => {
                    let (store, index) = (self.store.clone(), !self.indexed);
                    writes.spawn(async move {
                        let sent = Instant::now();
                        let answer = store.write(&mut load, index).await;
                        Written { load, mark, answer: answer.map(|()| sent.elapsed()) }
                    });
                }
            }
        }
    }

    fn on_written(&mut self, written: Written) {
        match written.answer {
            Ok(took) => {
                self.pace.on_written(took);
                self.indexed = true;
                self.outage.is_over();
                match written.mark {
                    Some(mark) => self.disk.taken(mark),
                    None => {
                        self.inbox.release(written.load.output_bytes());
                        self.queue.written(&written.load);
                    }
                }
            }
            Err(e) => {
                self.pace.on_failed();
                self.outage.goes_on(&e);
                if written.mark.is_none() {
                    self.queue.put_back(written.load);
                }
            }
        }
    }

    /// While etcd is crowded, has it forget the outcomes that are safe on disk.
    fn relieve(&mut self, relief: &mut JoinSet<()>) {
        let crowded = *self.store.crowded.borrow();
        if !crowded || !self.disk.is_sound() || self.disk.is_empty() || !relief.is_empty() {
            return;
        }
        // What cannot be read now is looked for again with the next report.
        let Ok((outcomes, mark)) = block_in_place(|| self.disk.outcomes(self.relieved)) else {
            return;
        };
        if std::mem::replace(&mut self.relieved, mark) == mark {
            return;
        }
        let store = self.store.clone();
        relief.spawn(async move {
            for (job, done) in outcomes {
                store.forget(&job, &done).await;
            }
        });
    }

    fn tell(&mut self) {
        let bytes = self.disk.bytes();
        self.telling.metrics.spool(bytes, self.outage.away);
        // With the next renewal.
        self.telling.registration.send_if_modified(|registration| {
            registration.spool_bytes = bytes;
            false
        });
        if bytes > 0 && !self.outage.away && self.told.elapsed() >= TOLD_EVERY {
            info!("{} still wait on disk to be written", kib(bytes));
            self.told = Instant::now();
        }
    }
}

impl Outage {
    fn may_try(&self) -> bool {
        Instant::now() >= self.not_before
    }

    /// MongoDB answers.
    fn is_over(&mut self) {
        self.pause = PAUSES.0;
        if std::mem::take(&mut self.away) {
            info!("MongoDB answers again");
        }
    }

    /// MongoDB does not answer, or refuses.
    fn goes_on(&mut self, e: &RecordsError) {
        if !std::mem::replace(&mut self.away, true) {
            warn!("{e}; results wait on disk");
        }
        self.wait();
    }

    /// Nothing is tried for a while, each time longer.
    fn wait(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}
