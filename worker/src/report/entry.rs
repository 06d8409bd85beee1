//! How a report stands in the spool: one byte that says what it is, and then, for a piece of
//! output, its numbers and bytes; for records, JSON, which later versions can read.

use carillon_core::id::{JobName, RunId};
use carillon_core::replica::Versioned;
use carillon_core::run::{Chunk, RunRecord, Stream};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::spool::{Entry, Rank};

const OUTPUT: u8 = b'o';
const STARTED: u8 = b's';
const DONE: u8 = b'd';

/// What an entry of the spool says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Spooled {
    Started(Box<RunRecord>),
    Output(RunId, Option<DateTime<Utc>>, Chunk),
    Done(JobName, Box<Versioned<RunRecord>>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    job: String,
    mod_revision: i64,
    record: RunRecord,
}

impl Spooled {
    /// Whose it is.
    pub(super) fn run(&self) -> RunId {
        match self {
            Self::Started(record) => record.id,
            Self::Output(run, ..) => *run,
            Self::Done(_, done) => done.value.id,
        }
    }

    /// The entry for it; none for what cannot be written down, which is nothing that exists.
    pub(super) fn entry(&self) -> Option<Entry> {
        let json = |kind: u8, text: serde_json::Result<Vec<u8>>| {
            let bytes = [&[kind][..], &text.ok()?].concat();
            Some(Entry { rank: Rank::Status, bytes })
        };
        match self {
            Self::Started(record) => json(STARTED, serde_json::to_vec(record)),
            Self::Done(job, done) => {
                let record = done.value.clone();
                let done = Done { job: job.to_string(), mod_revision: done.mod_revision, record };
                json(DONE, serde_json::to_vec(&done))
            }
            Self::Output(run, expire_at, chunk) => {
                let stream = match chunk.stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                let expiry = expire_at.map_or(i64::MIN, |at| at.timestamp_millis());
                let bytes = [
                    &[OUTPUT, stream][..],
                    &expiry.to_le_bytes(),
                    &chunk.at.timestamp_millis().to_le_bytes(),
                    &chunk.seq.to_le_bytes(),
                    run.to_string().as_bytes(),
                    &chunk.data,
                ]
                .concat();
                Some(Entry { rank: Rank::Output, bytes })
            }
        }
    }

    /// Reads an entry; none for one of a kind that this version does not know.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            STARTED => Some(Self::Started(Box::new(serde_json::from_slice(rest).ok()?))),
            DONE => {
                let Done { job, mod_revision, record } = serde_json::from_slice(rest).ok()?;
                let done = Versioned { value: record, mod_revision };
                Some(Self::Done(JobName::new(&job).ok()?, Box::new(done)))
            }
            OUTPUT => {
                let (stream, rest) = rest.split_first()?;
                let (expiry, rest) = rest.split_first_chunk()?;
                let (at, rest) = rest.split_first_chunk()?;
                let (seq, rest) = rest.split_first_chunk()?;
                let (run, data) = rest.split_at_checked(RunId::FIRST.to_string().len())?;
                let chunk = Chunk {
                    seq: u64::from_le_bytes(*seq),
                    at: DateTime::from_timestamp_millis(i64::from_le_bytes(*at))?,
                    stream: if *stream == 2 { Stream::Stderr } else { Stream::Stdout },
                    data: data.to_vec(),
                };
                let expire_at = DateTime::from_timestamp_millis(i64::from_le_bytes(*expiry));
                let run = std::str::from_utf8(run).ok()?.parse().ok()?;
                Some(Self::Output(run, expire_at, chunk))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::run::Outcome;

    #[test]
    fn what_is_read_is_what_was_written() {
        let at = DateTime::from_timestamp_millis(1_800_000_000_123).unwrap();
        let job = JobName::new("每日清算").unwrap();
        let mut record = RunRecord::new(RunId::new(at), &job, Outcome::Failed, at);
        record.output = "\u{0}\u{1b}[31m\n".to_owned();
        let chunk = |data: Vec<u8>| Chunk { seq: 7, at, stream: Stream::Stderr, data };
        let bytes: Vec<u8> = (0..=255).collect();
        for spooled in [
            Spooled::Started(Box::new(record.clone())),
            Spooled::Done(job, Box::new(Versioned { value: record, mod_revision: 9 })),
            Spooled::Output(RunId::new(at), Some(at), chunk(bytes)),
            Spooled::Output(RunId::LAST, None, chunk(Vec::new())),
        ] {
            let entry = spooled.entry().unwrap();
            assert_eq!(Spooled::read(&entry.bytes), Some(spooled));
            for cut in 0..entry.bytes.len().min(50) {
                Spooled::read(&entry.bytes[..cut]);
            }
        }
        assert_eq!(Spooled::read(b""), None);
        assert_eq!(Spooled::read(b"?from a later version"), None);
    }
}
