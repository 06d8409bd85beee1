//! The output of one run, in bounded memory whatever it writes, and not slowing it unless it is to be.
//!
//! What is read becomes chunks, and each byte goes one of three ways. The first part of the output
//! waits in a *backlog* until the receiver takes it; when the receiver is so slow that the backlog
//! is full, what comes then is dropped. Past the head that the job's limit allows, only a *tail* is
//! kept, and it is delivered at the end. Where bytes are missing stands a note that counts them.
//!
//! The order of the two streams is approximate: they are two pipes, and nobody can see which was
//! written first. Within a stream it is exact.

mod pipes;
mod summary;
mod tail;

use std::collections::VecDeque;
use std::time::Duration;

use carillon_core::run::{Chunk, Stream};
use chrono::{DateTime, Utc};
use tokio::time::Instant;

pub(crate) use pipes::Pipes;
use summary::Summary;
use tail::Tail;

/// The size of a read and of the largest chunk: what a pipe holds, and what one document takes.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// How long bytes may wait for more before they are made a chunk, while more keep coming.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The same after a quiet spell, so that a lone line is seen at once.
const FIRST_FLUSH_AFTER: Duration = Duration::from_millis(10);

/// How often within [`FLUSH_AFTER`] a change of the stream starts a new chunk. It keeps an error
/// message beside the output that it belongs to, and the number of chunks bounded.
const TURNS: u32 = 16;

/// How much the receiver may be behind, in bytes, before output is dropped: minutes of a talkative
/// job, a few seconds of a flood.
pub(crate) const BACKLOG_BYTES: usize = 4 << 20;

/// Every chunk is charged this on top of its data, so that tiny ones are bounded too.
const CHUNK_COST: usize = 128;

/// The most output handed over at once, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// How much of the end is kept once the limit is reached; a quarter of a limit below 4 MiB.
const TAIL_BYTES: u64 = 1 << 20;

/// Everything that is kept of a run's output.
#[derive(Debug)]
pub(crate) struct Output {
    waiting: [Waiting; 2],
    window: Option<Instant>,
    /// When bytes had waited long enough the last time.
    flushed: Option<Instant>,
    turns: u32,
    next_seq: u64,
    head_left: u64,
    backlog: VecDeque<Chunk>,
    backlog_cost: usize,
    /// Bytes dropped since the backlog was full; 0 while it is not.
    gap: u64,
    tail: Tail,
    summary: Summary,
    dropped: u64,
}

/// Bytes of one stream that are not a chunk yet.
#[derive(Debug, Default)]
struct Waiting {
    data: Vec<u8>,
    since: Option<(Instant, DateTime<Utc>)>,
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl Output {
    /// Keeps at most `limit` bytes, notes of what is dropped not counted.
    pub(crate) fn new(limit: u64) -> Self {
        let tail = TAIL_BYTES.min(limit / 4);
        Self {
            waiting: Default::default(),
            window: None,
            flushed: None,
            turns: 0,
            next_seq: 0,
            head_left: limit - tail,
            backlog: VecDeque::new(),
            backlog_cost: 0,
            gap: 0,
            tail: Tail::new(usize::try_from(tail).unwrap_or(usize::MAX)),
            summary: Summary::default(),
            dropped: 0,
        }
    }

    /// Takes bytes that were read: `now` for the flush, `at` for the record.
    pub(crate) fn accept(&mut self, stream: Stream, bytes: &[u8], now: Instant, at: DateTime<Utc>) {
        self.summary.push(bytes);
        if self.window.is_none_or(|w| now >= w + FLUSH_AFTER) {
            self.window = Some(now);
            self.turns = 0;
        }
        let other = match stream {
            Stream::Stdout => Stream::Stderr,
            Stream::Stderr => Stream::Stdout,
        };
        if self.turns < TURNS && !self.waiting_of(other).data.is_empty() {
            self.turns += 1;
            self.flush(other);
        }
        if self.waiting_of(stream).data.len() + bytes.len() > CHUNK_BYTES {
            self.flush(stream);
        }
        let waiting = self.waiting_of(stream);
        waiting.data.extend_from_slice(bytes);
        waiting.since.get_or_insert((now, at));
        if waiting.data.len() >= CHUNK_BYTES {
            self.flush(stream);
        }
    }

    /// When [`Output::flush_due`] wants to be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (since, _) = self.waiting.iter().filter_map(|w| w.since).min()?;
        let first = since + FIRST_FLUSH_AFTER;
        Some(self.flushed.map_or(first, |flushed| first.max(flushed + FLUSH_AFTER)))
    }

    /// Makes chunks of what has waited long enough.
    pub(crate) fn flush_due(&mut self, now: Instant) {
        if self.due().is_some_and(|due| now >= due) {
            self.flushed = Some(now);
            self.flush_all();
        }
    }

    /// Whether nothing is dropped if more is read: half of the backlog is kept for what is left in
    /// the pipes when the run ends. Past the limit only the tail is kept, for which there always is.
    pub(crate) fn has_room(&self) -> bool {
        self.head_left == 0 || self.backlog_cost <= BACKLOG_BYTES / 2
    }

    /// Takes the next chunks for the receiver, in order; empty when there are none.
    pub(crate) fn take_batch(&mut self) -> Vec<Chunk> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(chunk) = self.backlog.pop_front()
        {
            self.backlog_cost -= cost(&chunk);
            bytes += cost(&chunk);
            batch.push(chunk);
        }
        batch
    }

    /// Whether [`Output::take_batch`] has anything to give.
    pub(crate) fn has_batch(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// All bytes read so far, kept or not.
    pub(crate) fn bytes(&self) -> u64 {
        self.summary.total
    }

    /// The last line with anything in it, at most 200 characters.
    pub(crate) fn last_line(&self) -> String {
        self.summary.last_line()
    }

    /// Ends the capture: everything that the receiver has not had yet.
    pub(crate) fn finish(mut self, at: DateTime<Utc>) -> Kept {
        self.flush_all();
        self.close_gap(at);
        let tail = std::mem::take(&mut self.tail);
        if tail.dropped > 0 {
            self.dropped += tail.dropped;
            self.note_dropped(tail.dropped, at);
        }
        for piece in tail.pieces {
            self.enqueue(piece.stream, piece.data, piece.at);
        }
        Kept {
            rest: self.backlog.into(),
            bytes: self.summary.total,
            text: self.summary.text(),
            truncated: self.dropped > 0,
        }
    }

    #[allow(clippy::indexing_slicing, reason = "two streams, two places")]
    fn waiting_of(&mut self, stream: Stream) -> &mut Waiting {
        &mut self.waiting[index(stream)]
    }

    fn flush_all(&mut self) {
        let since = |o: &mut Self, s| o.waiting_of(s).since;
        let mut order = [Stream::Stdout, Stream::Stderr];
        if since(self, Stream::Stderr) < since(self, Stream::Stdout) {
            order.reverse();
        }
        for stream in order {
            self.flush(stream);
        }
    }

    fn flush(&mut self, stream: Stream) {
        let waiting = std::mem::take(self.waiting_of(stream));
        let Some((_, at)) = waiting.since else { return };
        let mut data = waiting.data;
        let head = usize::try_from(self.head_left).unwrap_or(usize::MAX);
        let beyond = data.split_off(head.min(data.len()));
        if !data.is_empty() {
            self.offer(stream, data, at);
        }
        if !beyond.is_empty() {
            self.head_left = 0;
            self.tail.push(stream, beyond, at);
        }
    }

    /// Puts a chunk into the backlog if there is room. Once full, the backlog must be half empty
    /// before it takes more: a few long gaps read better than many short ones.
    fn offer(&mut self, stream: Stream, data: Vec<u8>, at: DateTime<Utc>) {
        let length = data.len() as u64;
        let full = if self.gap > 0 {
            self.backlog_cost > BACKLOG_BYTES / 2
        } else {
            self.backlog_cost + data.len() > BACKLOG_BYTES
        };
        if full {
            self.gap += length;
            return;
        }
        self.head_left -= length;
        self.close_gap(at);
        self.enqueue(stream, data, at);
    }

    fn close_gap(&mut self, at: DateTime<Utc>) {
        let gap = std::mem::take(&mut self.gap);
        if gap > 0 {
            self.dropped += gap;
            self.note_dropped(gap, at);
        }
    }

    fn note_dropped(&mut self, dropped: u64, at: DateTime<Utc>) {
        self.enqueue(Stream::Stdout, dropped_note(dropped).into_bytes(), at);
    }

    fn enqueue(&mut self, stream: Stream, data: Vec<u8>, at: DateTime<Utc>) {
        let chunk = Chunk { seq: self.next_seq, at, stream, data };
        self.next_seq += 1;
        self.backlog_cost += cost(&chunk);
        self.backlog.push_back(chunk);
    }
}

fn cost(chunk: &Chunk) -> usize {
    chunk.data.len() + CHUNK_COST
}

/// What stands where so many bytes are missing.
pub(crate) fn dropped_note(dropped: u64) -> String {
    format!("\n[… {dropped} bytes dropped …]\n")
}

/// What [`Output::finish`] leaves.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The chunks that were not taken.
    pub(crate) rest: Vec<Chunk>,
    /// The first and the last 32 KiB of both streams, as text.
    pub(crate) text: String,
    /// All bytes read, kept or not.
    pub(crate) bytes: u64,
    /// Whether any were dropped.
    pub(crate) truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(chunks: &[Chunk]) -> Vec<u8> {
        chunks.iter().flat_map(|c| c.data.clone()).collect()
    }

    fn feed(output: &mut Output, parts: &[(Stream, &[u8])]) {
        let now = Instant::now();
        for (stream, bytes) in parts {
            output.accept(*stream, bytes, now, Utc::now());
        }
    }

    #[test]
    fn the_streams_take_turns_a_bounded_number_of_times() {
        let mut output = Output::new(1 << 20);
        let pair: [(Stream, &[u8]); 2] = [(Stream::Stdout, b"o"), (Stream::Stderr, b"e")];
        for _ in 0..1000 {
            feed(&mut output, &pair);
        }
        let kept = output.finish(Utc::now());
        assert_eq!(bytes_of(&kept.rest[..4]), b"oeoe");
        assert!(kept.rest.len() <= 20, "{}", kept.rest.len());
        assert_eq!(bytes_of(&kept.rest).len(), 2000);
        assert!(kept.rest.iter().map(|c| c.seq).eq(0..kept.rest.len() as u64));
    }

    #[test]
    fn exactly_the_limit_is_kept_whole_and_one_byte_more_is_not() {
        for limit in [1_u64, 3, 100, 400_000] {
            let data: Vec<u8> = (0..=limit).map(|n| b'a' + (n % 26) as u8).collect();
            let mut output = Output::new(limit);
            for part in data[..data.len() - 1].chunks(CHUNK_BYTES) {
                feed(&mut output, &[(Stream::Stdout, part)]);
            }
            let kept = output.finish(Utc::now());
            assert!(!kept.truncated, "{limit}");
            assert_eq!(bytes_of(&kept.rest), &data[..data.len() - 1]);

            let mut output = Output::new(limit);
            for part in data.chunks(CHUNK_BYTES) {
                feed(&mut output, &[(Stream::Stderr, part)]);
            }
            let kept = output.finish(Utc::now());
            assert!(kept.truncated, "{limit}");
            let text = String::from_utf8(bytes_of(&kept.rest)).unwrap();
            assert!(text.contains("\n[… 1 bytes dropped …]\n"), "{limit}");
            assert_eq!(text.len() as u64, limit + dropped_note(1).len() as u64);
        }
    }

    #[test]
    fn a_receiver_that_falls_behind_gets_a_note_and_then_the_present() {
        let mut output = Output::new(100 << 20);
        let block = vec![b'x'; CHUNK_BYTES];
        for _ in 0..200 {
            feed(&mut output, &[(Stream::Stdout, &block)]);
        }
        assert!(output.backlog_cost <= BACKLOG_BYTES + CHUNK_BYTES);
        let mut got = Vec::new();
        while output.has_batch() {
            got.extend(output.take_batch());
        }
        feed(&mut output, &[(Stream::Stdout, b"back again")]);
        let kept = output.finish(Utc::now());
        assert!(kept.truncated);
        let missing = kept.bytes - 10 - bytes_of(&got).len() as u64;
        let expected = format!("{}back again", dropped_note(missing));
        assert_eq!(String::from_utf8(bytes_of(&kept.rest)).unwrap(), expected);
    }

    #[test]
    fn a_lone_line_is_flushed_at_once_and_what_follows_every_100_ms() {
        let mut output = Output::new(1 << 20);
        let begin = Instant::now();
        let mut at = begin;
        let (mut flushes, mut first) = (0, None);
        while at < begin + Duration::from_secs(1) {
            output.accept(Stream::Stdout, b"x", at, Utc::now());
            at += Duration::from_millis(1);
            output.flush_due(at);
            if output.has_batch() {
                output.take_batch();
                first.get_or_insert(at - begin);
                flushes += 1;
            }
        }
        assert_eq!(first, Some(FIRST_FLUSH_AFTER));
        assert!((9..=11).contains(&flushes), "{flushes}");
    }

    #[test]
    fn there_is_room_until_half_of_the_backlog_waits_and_again_past_the_limit() {
        let mut output = Output::new(16 << 20);
        let block = vec![b'x'; CHUNK_BYTES];
        while output.has_room() {
            feed(&mut output, &[(Stream::Stdout, &block)]);
        }
        assert!(output.backlog_cost > BACKLOG_BYTES / 2 && output.gap == 0);
        output.take_batch();
        assert!(output.has_room());
        output.head_left = 0;
        feed(&mut output, &[(Stream::Stdout, &block)]);
        assert!(output.has_room());
    }
}
