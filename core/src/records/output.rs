//! Stored output, read in pieces: from any piece on, or the end of it without what comes before.

use mongodb::bson::{Document, doc};

use super::documents::chunk_id;
use super::tail::Tail;
use super::{Records, RecordsError};
use crate::id::RunId;
use crate::run::{Chunk, Stream};

/// Pieces per read: at most 64 x 64 KiB at once.
const BATCH: u64 = 64;
/// The most pieces that are read backwards for the end of an output.
const BACK_MAX: usize = 16_384;

impl Records {
    /// The pieces of a run's output from `from` on, at most `limit`.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn output_from(
        &self,
        run: RunId,
        from: u64,
        limit: i64,
    ) -> Result<Vec<Chunk>, RecordsError> {
        self.forwards(run, from, None, None, limit).await
    }

    /// A reader of a run's stored output, from its beginning on.
    pub fn output_of(&self, run: RunId) -> Pieces {
        let records = self.clone();
        Pieces { records, run, next: 0, only: None, end: None, behind: true }
    }

    async fn forwards(
        &self,
        run: RunId,
        from: u64,
        to: Option<u64>,
        only: Option<Stream>,
        limit: i64,
    ) -> Result<Vec<Chunk>, RecordsError> {
        let output = self.output();
        let find = output.find(range(run, from, to, only)).sort(doc! {"_id": 1}).limit(limit);
        let documents = self.collect(find).await?;
        documents.iter().map(|d| self.chunk(d)).collect()
    }

    /// The newest pieces before `to`, newest first.
    async fn backwards(
        &self,
        run: RunId,
        to: Option<u64>,
        only: Option<Stream>,
    ) -> Result<Vec<Chunk>, RecordsError> {
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let output = self.output();
        let last =
            |from: u64| output.find(range(run, from, to, only)).sort(doc! {"_id": -1}).limit(limit);
        let mut documents = Vec::new();
        if let Some(near) = to.and_then(|to| to.checked_sub(BATCH)) {
            documents = self.collect(last(near)).await?;
        }
        // What was dropped leaves a gap, in which nothing is near.
        if documents.is_empty() && to != Some(0) {
            documents = self.collect(last(0)).await?;
        }
        documents.iter().map(|d| self.chunk(d)).collect()
    }
}

/// The pieces from `from` on and before `to`.
fn range(run: RunId, from: u64, to: Option<u64>, only: Option<Stream>) -> Document {
    let end = to.map_or_else(|| format!("{run}}}"), |to| chunk_id(run, to));
    let mut query = doc! {"_id": {"$gte": chunk_id(run, from), "$lt": end}};
    if let Some(stream) = only {
        query.insert("stream", stream.as_str());
    }
    query
}

/// How much of an output's end is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Lines(u64),
    Bytes(u64),
}

/// Reads the stored output of one run in order.
pub struct Pieces {
    records: Records,
    run: RunId,
    /// The number of the next piece.
    next: u64,
    only: Option<Stream>,
    /// Only the end is wanted; `None` once that was read.
    end: Option<End>,
    /// Whether there is likely more than one batch ahead.
    behind: bool,
}

impl Pieces {
    /// From piece `seq` on.
    #[must_use]
    pub fn starting_at(self, seq: u64) -> Self {
        Self { next: seq, ..self }
    }

    /// Of one stream, or of both.
    #[must_use]
    pub fn only(self, stream: Option<Stream>) -> Self {
        Self { only: stream, ..self }
    }

    /// Only the last `count` lines; an unfinished one counts.
    #[must_use]
    pub fn last_lines(self, count: u64) -> Self {
        Self { end: Some(End::Lines(count)), ..self }
    }

    /// Only the last pieces, which together have at least `bytes` bytes where there are as many.
    #[must_use]
    pub fn last_bytes(self, bytes: u64) -> Self {
        Self { end: Some(End::Bytes(bytes)), ..self }
    }

    /// The same output, and what is added to it, to its end.
    pub fn follow(self) -> Tail {
        Tail::new(self)
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    pub(super) fn run(&self) -> RunId {
        self.run
    }

    /// The number of the piece that should come next; `None` where pieces may well be missing.
    pub(super) fn expected(&self) -> Option<u64> {
        (self.end.is_none() && self.only.is_none()).then_some(self.next)
    }

    /// Reads from this piece on again.
    pub(super) fn rewind(&mut self, seq: u64) {
        self.next = seq;
    }

    /// The next pieces; none where everything stored was read. After an error it can be asked
    /// again; nothing is skipped.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn read(&mut self) -> Result<Vec<Chunk>, RecordsError> {
        let chunks = match self.end {
            Some(end) => self.read_end(end).await?,
            None => self.read_on().await?,
        };
        self.end = None;
        if let Some(last) = chunks.last() {
            self.next = last.seq + 1;
        }
        Ok(chunks)
    }

    async fn read_on(&mut self) -> Result<Vec<Chunk>, RecordsError> {
        let (run, next, only) = (self.run, self.next, self.only);
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        if self.behind {
            // Some servers look at all that a question is about, so it is not about the rest.
            let to = Some(next.saturating_add(BATCH));
            let near = self.records.forwards(run, next, to, only, limit).await?;
            if !near.is_empty() {
                return Ok(near);
            }
        }
        let chunks = self.records.forwards(run, next, None, only, limit).await?;
        self.behind = chunks.len() as u64 >= BATCH;
        Ok(chunks)
    }

    async fn read_end(&mut self, end: End) -> Result<Vec<Chunk>, RecordsError> {
        let (mut newest_first, mut to) = (Vec::<Chunk>::new(), None);
        let (mut ends, mut bytes) = (0, 0);
        self.behind = false;
        if end == End::Lines(0) {
            let last = self.records.backwards(self.run, None, self.only).await?;
            self.next = last.first().map_or(self.next, |last| last.seq + 1);
            return Ok(Vec::new());
        }
        while newest_first.len() < BACK_MAX && to != Some(0) {
            let before = self.records.backwards(self.run, to, self.only).await?;
            let Some(first) = before.last() else { break };
            to = Some(first.seq);
            for chunk in before {
                ends += line_ends(&chunk.data, newest_first.is_empty());
                bytes += chunk.data.len() as u64;
                newest_first.push(chunk);
                let enough = match end {
                    End::Lines(count) => ends >= count,
                    End::Bytes(count) => bytes >= count,
                };
                if enough {
                    return Ok(cut(newest_first, end, ends));
                }
            }
        }
        Ok(cut(newest_first, end, 0))
    }
}

/// How many lines end before the last byte of a piece; of the last piece that byte is not looked
/// at, since it ends the last line and not one before.
fn line_ends(data: &[u8], last: bool) -> u64 {
    let looked_at = if last { data.len().saturating_sub(1) } else { data.len() };
    data.iter().take(looked_at).filter(|byte| **byte == b'\n').count() as u64
}

/// Puts pieces in order. Where lines were counted, the first begins after the line end that is the
/// `count`th from behind of `ends`.
fn cut(mut pieces: Vec<Chunk>, end: End, ends: u64) -> Vec<Chunk> {
    pieces.reverse();
    let End::Lines(count) = end else { return pieces };
    let Some(over) = ends.checked_sub(count) else { return pieces };
    if let Some(first) = pieces.first_mut() {
        let mut lines = first.data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let nth = usize::try_from(over).unwrap_or(usize::MAX);
        if let Some((at, _)) = lines.nth(nth) {
            first.data.drain(..=at);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn last_lines(pieces: &[&str], count: u64) -> String {
        let (mut newest_first, mut ends) = (Vec::new(), 0);
        for (seq, text) in pieces.iter().enumerate().rev() {
            ends += line_ends(text.as_bytes(), newest_first.is_empty());
            let (at, stream, data) = (Utc::now(), Stream::Stdout, text.as_bytes().to_vec());
            newest_first.push(Chunk { seq: seq as u64, at, stream, data });
            if ends >= count {
                break;
            }
        }
        let kept = cut(newest_first, End::Lines(count), ends);
        String::from_utf8(kept.into_iter().flat_map(|chunk| chunk.data).collect()).unwrap()
    }

    #[test]
    fn the_last_lines_are_counted_across_pieces() {
        let pieces = ["one\ntw", "o\nthree\n", "four\nfive\n"];
        assert_eq!(last_lines(&pieces, 1), "five\n");
        assert_eq!(last_lines(&pieces, 2), "four\nfive\n");
        assert_eq!(last_lines(&pieces, 3), "three\nfour\nfive\n");
        assert_eq!(last_lines(&pieces, 4), "two\nthree\nfour\nfive\n");
        assert_eq!(last_lines(&pieces, 5), "one\ntwo\nthree\nfour\nfive\n");
        assert_eq!(last_lines(&pieces, 9), "one\ntwo\nthree\nfour\nfive\n");
        assert_eq!(last_lines(&["a\nb\n", "c"], 1), "c");
        assert_eq!(last_lines(&["a\nb\n", "c"], 2), "b\nc");
        assert_eq!(last_lines(&["\n", "\n"], 1), "\n");
    }
}
