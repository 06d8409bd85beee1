//! A queue on disk for what MongoDB does not take now: first in, first out, through any crash.
//!
//! It is a folder of segments, numbered files of entries. An entry is its length, a checksum, and
//! that many bytes; what they mean is not known here. A crash in the middle of a write leaves a torn
//! tail, which is cut off when the folder is opened again; whatever else is damaged costs the rest of
//! its segment. What cannot be read now, for want of file descriptors for example, is no damage.
//!
//! A segment is deleted when all of it was taken. So after a crash up to a segment of what was
//! taken comes again, which is harmless where writing it twice is.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How large a segment grows, in bytes: a crash repeats no more, and no more is lost with a bad
/// sector.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Length and checksum, both little-endian.
const HEADER_BYTES: usize = 8;
/// No entry is longer: a length beyond is none.
const LONGEST_ENTRY: usize = 32 << 20;
/// How much of the disk is kept free for what matters most, in bytes.
const RESERVE_BYTES: u64 = 256 << 10;

/// Whether something may use the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// Output: what is lost of it is marked.
    Output,
    /// What became of a run.
    Status,
}

/// An entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub rank: Rank,
    pub bytes: Vec<u8>,
}

/// Up to where entries were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mark {
    segment: u64,
    offset: u64,
}

/// A part of the queue, from its head.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub entries: Vec<Vec<u8>>,
    /// To be given to [`Spool::taken`]; absent where the queue is empty.
    pub mark: Option<Mark>,
    /// Bytes that could not be read, and are passed over.
    pub lost: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    /// The most bytes on disk, in all.
    limit: u64,
    segments: VecDeque<Segment>,
    /// The number of the next segment.
    next: u64,
    /// Where the head is in the first segment.
    head: u64,
    /// The last segment, once something was appended to it.
    tail: Option<File>,
    reserved: bool,
    /// The disk was full, and nothing was taken since.
    full: bool,
}

impl Spool {
    /// Opens the folder, which is made where it is missing, with all that an earlier life left.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut numbers: Vec<u64> = fs::read_dir(folder)?
            .filter_map(|entry| number(&entry.ok()?.file_name().to_string_lossy()))
            .collect();
        numbers.sort_unstable();
        let mut spool = Self {
            folder: folder.to_owned(),
            limit,
            segments: VecDeque::new(),
            next: numbers.last().map_or(0, |last| last + 1),
            head: 0,
            tail: None,
            reserved: false,
            full: false,
        };
        for number in numbers {
            let bytes = fs::metadata(spool.path(number))?.len();
            spool.segments.push_back(Segment { number, bytes });
        }
        spool.cut_torn_tail()?;
        spool.reserve();
        Ok(spool)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// How much waits, in bytes.
    pub fn bytes(&self) -> u64 {
        let all: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        all.saturating_sub(self.head)
    }

    /// Appends the entry, and returns whether there was room for it. It is on the disk once
    /// [`Spool::sync`] has returned.
    ///
    /// # Errors
    /// When it cannot be written; then none of it is. A full disk is no error but has no room.
    pub fn append(&mut self, entry: &Entry) -> io::Result<bool> {
        if !self.has_room(entry) {
            return Ok(false);
        }
        match self.write(entry) {
            Err(e) if is_full(&e) => {
                self.full = true;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Has on the disk what was appended.
    ///
    /// # Errors
    /// When the disk says that it is not.
    pub fn sync(&self) -> io::Result<()> {
        self.tail.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Reads from the head, at least one entry where there is one, and no more than so many or so
    /// many bytes. It stays in the queue.
    ///
    /// # Errors
    /// When it cannot be read now.
    pub fn peek(&self, most: usize, most_bytes: usize) -> io::Result<Part> {
        self.peek_from(None, most, most_bytes)
    }

    /// The same from a mark on, or from the head where that is past it.
    ///
    /// # Errors
    /// When it cannot be read now.
    pub fn peek_from(
        &self,
        mark: Option<Mark>,
        most: usize,
        most_bytes: usize,
    ) -> io::Result<Part> {
        let first = self.segments.front().map_or(0, |segment| segment.number);
        let from = Mark { segment: first, offset: self.head }.max(mark.unwrap_or_default());
        let mut part = Part::default();
        let (mut bytes, mut offset) = (0, from.offset);
        for segment in self.segments.iter().filter(|segment| segment.number >= from.segment) {
            let read = self.read(segment, offset, |entry| {
                let fits = part.entries.is_empty() || bytes + entry.len() <= most_bytes;
                let takes = fits && part.entries.len() < most;
                if takes {
                    bytes += entry.len();
                    part.entries.push(entry);
                }
                takes
            })?;
            part.mark = Some(Mark { segment: segment.number, offset: read.end });
            match read.stop {
                Stop::Refused => break,
                Stop::End => {}
                Stop::Damaged => {
                    part.lost += segment.bytes.saturating_sub(read.end);
                    part.mark = Some(Mark { segment: segment.number, offset: segment.bytes });
                }
            }
            offset = 0;
        }
        Ok(part)
    }

    /// Takes everything up to the mark off the queue.
    ///
    /// # Errors
    /// When a segment cannot be deleted. It is forgotten all the same, and comes again after the
    /// next start.
    pub fn taken(&mut self, mark: Mark) -> io::Result<()> {
        let mut failed = Ok(());
        while let Some(first) = self.segments.front() {
            let whole = first.number < mark.segment
                || first.number == mark.segment && mark.offset >= first.bytes;
            if !whole {
                if first.number == mark.segment {
                    self.head = mark.offset;
                }
                break;
            }
            let path = self.path(first.number);
            self.segments.pop_front();
            (self.head, self.full) = (0, false);
            if self.segments.is_empty() {
                self.tail = None;
            }
            if let Err(e) = fs::remove_file(path) {
                failed = Err(e);
            }
        }
        if self.segments.is_empty() {
            self.reserve();
        }
        failed
    }

    /// Whether there may be room for the entry.
    pub fn has_room(&self, entry: &Entry) -> bool {
        if self.full && entry.rank == Rank::Output {
            return false;
        }
        let kept = match entry.rank {
            // A sixteenth is for what matters more.
            Rank::Output => self.limit / 16,
            Rank::Status => 0,
        };
        let on_disk: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let size = (HEADER_BYTES + entry.bytes.len()) as u64;
        on_disk.saturating_add(size) <= self.limit.saturating_sub(kept)
    }

    /// Writes one entry, or none of it.
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let record = framed(&entry.bytes);
        match self.write_whole(&record) {
            // The disk is full, and this is what the reserve is for.
            Err(e) if is_full(&e) && entry.rank == Rank::Status && self.reserved => {
                fs::remove_file(self.reserve_path())?;
                self.reserved = false;
                self.write_whole(&record)
            }
            other => other,
        }
    }

    fn write_whole(&mut self, record: &[u8]) -> io::Result<()> {
        if self.segments.back().is_none_or(|last| last.bytes >= SEGMENT_BYTES) {
            self.begin_segment()?;
        }
        let Some(number) = self.segments.back().map(|last| last.number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.tail.is_none() {
            self.tail = Some(OpenOptions::new().append(true).open(self.path(number))?);
        }
        let (Some(file), Some(last)) = (self.tail.as_mut(), self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Err(e) = file.write_all(record) {
            // Half an entry would hide all that follows.
            if file.set_len(last.bytes).is_err() {
                self.begin_segment()?;
            }
            return Err(e);
        }
        last.bytes += record.len() as u64;
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        if let Some(full) = self.tail.take() {
            full.sync_data()?;
        }
        let number = self.next;
        // Whatever becomes of the file, the next one has another name.
        self.next += 1;
        let mut options = OpenOptions::new();
        let file = options.create_new(true).append(true).mode(0o600).open(self.path(number))?;
        // The name, too, must outlive a power cut.
        File::open(&self.folder)?.sync_all()?;
        self.tail = Some(file);
        self.segments.push_back(Segment { number, bytes: 0 });
        Ok(())
    }

    /// Gives `take` the entries from the offset on, until it takes one no more.
    ///
    /// # Errors
    /// When it cannot be read now.
    fn read(
        &self,
        segment: &Segment,
        offset: u64,
        mut take: impl FnMut(Vec<u8>) -> bool,
    ) -> io::Result<Run> {
        let mut end = offset;
        let mut file = match File::open(self.path(segment.number)) {
            Err(e) if is_damage(&e) => return Ok(Run { end, stop: Stop::Damaged }),
            file => file?,
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut file = io::BufReader::new(file.take(segment.bytes.saturating_sub(offset)));
        while end < segment.bytes {
            let entry = match next_entry(&mut file) {
                Err(e) if is_damage(&e) => None,
                entry => entry?,
            };
            let Some(entry) = entry else { return Ok(Run { end, stop: Stop::Damaged }) };
            let size = (HEADER_BYTES + entry.len()) as u64;
            if !take(entry) {
                return Ok(Run { end, stop: Stop::Refused });
            }
            end += size;
        }
        Ok(Run { end, stop: Stop::End })
    }

    fn cut_torn_tail(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back() else { return Ok(()) };
        let whole = self.read(last, 0, |_| true)?.end;
        if whole < last.bytes {
            OpenOptions::new().write(true).open(self.path(last.number))?.set_len(whole)?;
        }
        if let Some(last) = self.segments.back_mut() {
            last.bytes = whole;
        }
        Ok(())
    }

    /// Takes room on the disk while there is some; without it the queue works all the same.
    fn reserve(&mut self) {
        if self.reserved {
            return;
        }
        let path = self.reserve_path();
        let mut options = OpenOptions::new();
        let made =
            options.create(true).truncate(true).write(true).mode(0o600).open(&path).and_then(
                |file| Ok(fallocate(&file, FallocateFlags::empty(), 0, self.reserve_bytes())?),
            );
        self.reserved = made.is_ok();
        if made.is_err() {
            fs::remove_file(path).ok();
        }
    }

    fn reserve_bytes(&self) -> u64 {
        RESERVE_BYTES.min(self.limit / 16).max(1)
    }

    fn reserve_path(&self) -> PathBuf {
        self.folder.join("reserve")
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}.spool"))
    }
}

/// How far a segment was read.
struct Run {
    end: u64,
    stop: Stop,
}

enum Stop {
    End,
    Refused,
    Damaged,
}

fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".spool")?, 16).ok()
}

/// Whether it is of no use to read it again: the file was cut or deleted, or the disk is broken.
fn is_damage(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
        || e.raw_os_error() == Some(Errno::IO.raw_os_error())
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length[..], &checksum(length, bytes).to_le_bytes(), bytes].concat()
}

/// Of the length too: a tail of zeros is no entry.
fn checksum(length: [u8; 4], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(bytes);
    hasher.finalize()
}

/// The next entry; nothing where there is none that is whole.
fn next_entry(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let (mut length, mut sum) = ([0; 4], [0; 4]);
    from.read_exact(&mut length)?;
    from.read_exact(&mut sum)?;
    let size = u32::from_le_bytes(length) as usize;
    if size > LONGEST_ENTRY {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    from.take(size as u64).read_to_end(&mut bytes)?;
    let whole = bytes.len() == size && checksum(length, &bytes) == u32::from_le_bytes(sum);
    Ok(whole.then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes: &[u8]) -> Entry {
        Entry { rank: Rank::Output, bytes: bytes.to_vec() }
    }

    fn status(bytes: &[u8]) -> Entry {
        Entry { rank: Rank::Status, bytes: bytes.to_vec() }
    }

    /// How many of them there was room for.
    fn append(spool: &mut Spool, entries: &[Entry]) -> usize {
        let kept = entries.iter().filter(|entry| spool.append(entry).unwrap()).count();
        spool.sync().unwrap();
        kept
    }

    fn all(spool: &Spool) -> Vec<Vec<u8>> {
        spool.peek(usize::MAX, usize::MAX).unwrap().entries
    }

    /// Of sizes around what a buffer holds.
    fn entries(count: u8) -> Vec<Entry> {
        (0..count).map(|i| output(&vec![i; usize::from(i) * 7])).collect()
    }

    #[test]
    fn what_goes_in_first_comes_out_first_and_through_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        let entries = entries(100);
        assert_eq!(append(&mut spool, &entries[..50]), 50);
        let part = spool.peek(10, usize::MAX).unwrap();
        assert_eq!(part.entries.len(), 10);
        spool.taken(part.mark.unwrap()).unwrap();
        append(&mut spool, &entries[50..]);
        let wanted: Vec<_> = entries.iter().map(|e| e.bytes.clone()).collect();
        assert_eq!(all(&spool), wanted[10..]);
        let again = Spool::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(all(&again), wanted, "what was taken of a segment comes again");
        let mark = spool.peek(usize::MAX, usize::MAX).unwrap().mark.unwrap();
        spool.taken(mark).unwrap();
        assert!(spool.is_empty() && Spool::open(dir.path(), 1 << 20).unwrap().is_empty());
        append(&mut spool, &[status(b"on")]);
        assert_eq!(all(&spool), [b"on"]);
    }

    #[test]
    fn a_crash_at_any_byte_leaves_the_whole_entries_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        let entries = entries(12);
        append(&mut spool, &entries);
        let file = spool.path(0);
        let written = fs::read(&file).unwrap();
        let mut whole = 0;
        let mut ends: Vec<usize> = entries.iter().map(|e| HEADER_BYTES + e.bytes.len()).collect();
        ends.iter_mut().for_each(|end| {
            whole += *end;
            *end = whole;
        });
        for cut in 0..=written.len() {
            fs::write(&file, &written[..cut]).unwrap();
            let mut torn = Spool::open(dir.path(), 1 << 20).unwrap();
            let before = ends.iter().filter(|&&end| end <= cut).count();
            append(&mut torn, &[status(b"after")]);
            let mut wanted: Vec<_> = entries[..before].iter().map(|e| e.bytes.clone()).collect();
            wanted.push(b"after".to_vec());
            assert_eq!(all(&torn), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn a_byte_that_has_changed_anywhere_never_yields_a_wrong_entry() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        let entries = entries(6);
        append(&mut spool, &entries);
        let file = spool.path(0);
        let written = fs::read(&file).unwrap();
        for place in 0..written.len() {
            let mut bad = written.clone();
            bad[place] ^= 0x40;
            fs::write(&file, &bad).unwrap();
            let part = spool.peek(usize::MAX, usize::MAX).unwrap();
            let good = entries.iter().zip(&part.entries).all(|(e, read)| e.bytes == *read);
            assert!(good && part.entries.len() < entries.len() && part.lost > 0, "{place}");
            assert_eq!(part.mark.unwrap().offset, written.len() as u64);
        }
    }

    #[test]
    fn what_cannot_be_read_now_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        append(&mut spool, &[status(b"kept")]);
        let (file, aside) = (spool.path(0), dir.path().join("aside"));
        // As with any error that says nothing about the file: a link that turns in a circle.
        fs::rename(&file, &aside).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        assert!(spool.peek(1, 1).is_err());
        assert!(Spool::open(dir.path(), 1 << 20).is_err(), "no tail is cut off");
        fs::rename(&aside, &file).unwrap();
        assert_eq!(all(&spool), [b"kept"]);
        // That of a file which is gone does not come back.
        fs::remove_file(&file).unwrap();
        let part = spool.peek(1, 1).unwrap();
        assert!(part.entries.is_empty() && part.lost > 0 && part.mark.is_some());
    }

    #[test]
    fn segments_follow_one_another_and_go_when_they_were_taken() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        let big = vec![7; 3 << 20];
        for i in 0..9_u8 {
            assert_eq!(append(&mut spool, &[output(&big), status(&[i])]), 2);
        }
        assert!(spool.segments.len() > 2);
        let mut seen = Vec::new();
        while !spool.is_empty() {
            let part = spool.peek(3, 4 << 20).unwrap();
            seen.extend(part.entries.iter().filter(|e| e.len() == 1).map(|e| e[0]));
            spool.taken(part.mark.unwrap()).unwrap();
        }
        assert_eq!(seen, (0..9).collect::<Vec<_>>());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "the reserve");
    }

    #[test]
    fn output_leaves_room_for_what_became_of_runs() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 16_000).unwrap();
        let outputs: Vec<_> = (0..200).map(|_| output(&[0; 92])).collect();
        assert_eq!(append(&mut spool, &outputs), 150);
        assert_eq!(append(&mut spool, &[output(b"x")]), 0);
        let statuses: Vec<_> = (0..200).map(|_| status(&[0; 92])).collect();
        assert_eq!(append(&mut spool, &statuses), 10);
    }

    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        append(&mut spool, &[output(b"secret")]);
        for file in fs::read_dir(dir.path()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
