//! What waits on disk for MongoDB, and what found no room there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use carillon_core::id::{JobName, RunId};
use carillon_core::replica::Versioned;
use carillon_core::run::{Chunk, RunRecord, Stream};
use chrono::{DateTime, Utc};
use tracing::{error, info, warn};

use super::entry::Spooled;
use super::queue::{Load, Pace, Pending};
use super::spool::{Entry, Mark, Rank, Spool};
use crate::execute::dropped_note;

/// How many runs are remembered of which output was dropped: the newest.
const CUT: usize = 10_000;
/// How much is read at once to find outcomes, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A decision that is final, and its job's name.
pub(super) type Final = (JobName, Box<Versioned<RunRecord>>);

/// The spool, and what found no room there.
pub(super) struct Disk {
    spool: Spool,
    /// Output that was dropped and that no mark counts yet.
    gaps: BTreeMap<RunId, Gap>,
    /// Runs of which output was dropped.
    cut: BTreeSet<RunId>,
    /// Whether the log was told that there is no room.
    told: bool,
    /// Whether the disk has kept what it said that it would.
    sound: bool,
}

/// The last piece of output that was dropped, and how many bytes all of them had. The mark takes its
/// place: the first of them may be in MongoDB although no answer came.
struct Gap {
    seq: u64,
    at: DateTime<Utc>,
    expire_at: Option<DateTime<Utc>>,
    bytes: u64,
}

impl Disk {
    /// Opens the spool in `folder`, which may take `limit` bytes of the disk.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let spool = Spool::open(folder, limit)?;
        if !spool.is_empty() {
            info!("{} of output and records wait on disk for MongoDB", kib(spool.bytes()));
        }
        let (gaps, cut) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { spool, gaps, cut, told: false, sound: true })
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.spool.is_empty()
    }

    /// How much waits, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.spool.bytes()
    }

    /// Whether what waits is certain to outlive this process.
    pub(super) fn is_sound(&self) -> bool {
        self.sound
    }

    /// Whether output of the run was dropped.
    pub(super) fn has_cut(&self, run: RunId) -> bool {
        self.cut.contains(&run)
    }

    /// Writes all of it down, and returns how many bytes of output were dropped.
    pub(super) fn save(&mut self, all: Vec<(RunId, Pending)>) -> u64 {
        let spooled = all.into_iter().flat_map(|(run, pending)| pending.spooled(run));
        let dropped = spooled.map(|spooled| self.save_one(spooled)).sum();
        self.sync();
        dropped
    }

    /// Puts the marks that are still owed: nothing more comes before there is room for them.
    pub(super) fn save_marks(&mut self) {
        if self.gaps.is_empty() {
            return;
        }
        let runs: Vec<RunId> = self.gaps.keys().copied().collect();
        for run in runs {
            self.mark(run);
        }
        self.sync();
    }

    fn save_one(&mut self, mut spooled: Spooled) -> u64 {
        let run = spooled.run();
        if let Spooled::Done(_, done) = &mut spooled {
            done.value.output_truncated |= self.cut.contains(&run);
        }
        let Some(entry) = spooled.entry() else { return 0 };
        if self.spool.has_room(&entry) && self.mark(run) && self.append(&entry) {
            return 0;
        }
        // What became of it stays in etcd, where the others find it too.
        let Spooled::Output(_, expire_at, Chunk { seq, at, data, .. }) = spooled else { return 0 };
        let bytes = data.len() as u64;
        let gap = self.gaps.entry(run).or_insert(Gap { seq, at, expire_at, bytes: 0 });
        (gap.seq, gap.at) = (seq, at);
        gap.bytes += bytes;
        self.cut.insert(run);
        while self.cut.len() > CUT {
            self.cut.pop_first();
        }
        self.complain("its limit is reached, or the disk is full; output is dropped");
        bytes
    }

    /// Puts a mark where output of the run was dropped, if some was. Returns whether that could be
    /// done.
    fn mark(&mut self, run: RunId) -> bool {
        let Some(&Gap { seq, at, expire_at, bytes }) = self.gaps.get(&run) else { return true };
        let data = dropped_note(bytes).into_bytes();
        let chunk = Chunk { seq, at, stream: Stream::Stdout, data };
        let Some(entry) = Spooled::Output(run, expire_at, chunk).entry() else { return true };
        // As small as it is, it may use what is kept free.
        let marked = self.append(&Entry { rank: Rank::Status, ..entry });
        if marked {
            self.gaps.remove(&run);
        }
        marked
    }

    fn append(&mut self, entry: &Entry) -> bool {
        self.spool.append(entry).unwrap_or_else(|e| {
            self.complain(&e.to_string());
            false
        })
    }

    fn sync(&mut self) {
        if let Err(e) = self.spool.sync() {
            self.sound = false;
            self.complain(&format!("{e}; it may not outlive a power cut"));
        }
    }

    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            warn!("what waits for MongoDB is not safe on disk: {why}");
        }
    }

    /// What is to be written next. What is damaged is passed over.
    ///
    /// # Errors
    /// When it cannot be read now.
    pub(super) fn load(&self, pace: Pace) -> io::Result<(Load, Option<Mark>)> {
        let part = self.spool.peek(pace.most, pace.bytes())?;
        if part.lost > 0 {
            error!("{} of what waited on disk for MongoDB are damaged, and lost", kib(part.lost));
        }
        let spooled = part.entries.iter().filter_map(|entry| Spooled::read(entry));
        Ok((Load::of_spooled(spooled), part.mark))
    }

    /// Outcomes on disk from a mark on, and up to where they were looked for.
    ///
    /// # Errors
    /// When they cannot be read now.
    pub(super) fn outcomes(&self, from: Option<Mark>) -> io::Result<(Vec<Final>, Option<Mark>)> {
        let part = self.spool.peek_from(from, usize::MAX, READ_BYTES)?;
        let outcomes = part.entries.iter().filter_map(|entry| match Spooled::read(entry)? {
            Spooled::Done(job, done) => Some((job, done)),
            Spooled::Started(_) | Spooled::Output(..) => None,
        });
        Ok((outcomes.collect(), part.mark.or(from)))
    }

    /// Everything up to the mark is in MongoDB.
    pub(super) fn taken(&mut self, mark: Mark) {
        if let Err(e) = self.spool.taken(mark) {
            warn!("cannot delete what was written to MongoDB from disk: {e}");
        }
        if self.spool.is_empty() {
            // A run that says nothing more, or whose next word would go another way, has its mark
            // before that.
            self.save_marks();
        }
        if self.spool.is_empty() {
            info!("all that waited on disk is written");
            self.told = false;
        }
    }
}

/// Bytes as a person reads them.
pub(super) fn kib(bytes: u64) -> String {
    match bytes >> 10 {
        kib @ 0..10_240 => format!("{kib} KiB"),
        kib => format!("{} MiB", kib >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Report;
    use super::super::queue::Queue;
    use super::*;
    use carillon_core::records::Output;
    use carillon_core::run::Outcome;
    use tokio::time::Instant;

    fn save(disk: &mut Disk, report: Report) -> u64 {
        let mut queue = Queue::default();
        queue.add(report, Instant::now());
        disk.save(queue.take_all())
    }

    fn piece(run: RunId, seq: u64, size: usize) -> Report {
        let chunk = Chunk { seq, at: Utc::now(), stream: Stream::Stderr, data: vec![b'x'; size] };
        Report::Output { run, chunks: vec![chunk], expire_at: None }
    }

    fn done(run: RunId) -> Report {
        let job = JobName::new("j").unwrap();
        let value = RunRecord::new(run, &job, Outcome::Succeeded, Utc::now());
        Report::Done(job, Box::new(Versioned { value, mod_revision: 1 }))
    }

    /// Fills the disk with a hundred pieces of a thousand bytes, and returns how many found no room.
    fn fill(disk: &mut Disk, run: RunId) -> u64 {
        let dropped: u64 = (0..100).map(|seq| save(disk, piece(run, seq, 1000))).sum();
        assert!(dropped > 0 && dropped.is_multiple_of(1000) && disk.has_cut(run));
        dropped
    }

    /// Reads and takes all, and returns the numbers of the pieces and the text of the last one.
    fn drain(disk: &mut Disk) -> (Vec<u64>, String) {
        let (mut load, mark) = disk.load(Pace { most: 1_000 }).unwrap();
        let batch = load.batch();
        let [Output { chunks, .. }] = batch.output[..] else { panic!("{batch:?}") };
        let seqs = chunks.iter().map(|chunk| chunk.seq).collect();
        let last = String::from_utf8(chunks.last().unwrap().data.clone()).unwrap();
        disk.taken(mark.unwrap());
        (seqs, last)
    }

    #[test]
    fn a_mark_stands_where_output_found_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path(), 64 << 10).unwrap();
        let run = RunId::new(Utc::now());
        let dropped = fill(&mut disk, run);
        assert_eq!(save(&mut disk, done(run)), 0);
        assert!(disk.gaps.is_empty(), "the mark comes before the end");
        let (outcomes, _) = disk.outcomes(None).unwrap();
        assert!(outcomes.iter().all(|(_, done)| done.value.output_truncated));
        let (seqs, last) = drain(&mut disk);
        let kept = 100 - dropped / 1000;
        assert_eq!(seqs, (0..kept).chain([99]).collect::<Vec<_>>());
        assert!(last.contains(&format!("{dropped} bytes dropped")), "{last}");
        assert!(disk.is_empty());
    }

    /// What comes after it goes to MongoDB, and never by the disk.
    #[test]
    fn a_mark_is_written_even_when_its_run_says_nothing_more_before_the_disk_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path(), 64 << 10).unwrap();
        let run = RunId::new(Utc::now());
        let dropped = fill(&mut disk, run);
        drain(&mut disk);
        assert!(!disk.is_empty(), "the mark is still to be written");
        let (seqs, last) = drain(&mut disk);
        assert_eq!(seqs, [99]);
        assert!(last.contains(&format!("{dropped} bytes dropped")), "{last}");
        assert!(disk.is_empty() && disk.has_cut(run));
    }

    #[test]
    fn outcomes_are_found_from_where_they_were_looked_for_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path(), 1 << 20).unwrap();
        let (a, b) = (RunId::FIRST, RunId::LAST);
        save(&mut disk, piece(a, 0, 10));
        save(&mut disk, done(a));
        let ids =
            |found: Vec<Final>| found.iter().map(|(_, done)| done.value.id).collect::<Vec<_>>();
        let (found, mark) = disk.outcomes(None).unwrap();
        assert_eq!(ids(found), [a]);
        save(&mut disk, done(b));
        let (found, mark) = disk.outcomes(mark).unwrap();
        assert_eq!(ids(found), [b]);
        let (found, same) = disk.outcomes(mark).unwrap();
        assert_eq!((ids(found), same), (vec![], mark));
        // Another segment has begun since.
        disk.taken(mark.unwrap());
        save(&mut disk, done(a));
        assert_eq!(ids(disk.outcomes(mark).unwrap().0), [a]);
    }
}
