//! Everything that a worker has to say of its runs at one moment, in at most three commands.
//!
//! Each write may be sent again: pieces of output and records have ids that are known before, and
//! a record that is final is never changed. A record is written as it should end, and only where
//! it is there already is it updated: most runs are short, and an update costs a server several
//! times as much as one of many documents that are inserted together.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use mongodb::error::ErrorKind;
use mongodb::options::{Acknowledgment, WriteConcern};
use serde::Deserialize;

use super::documents::{chunk_id, date};
use super::{DUPLICATE, Progress, Records, RecordsError};
use crate::id::RunId;
use crate::run::{Chunk, Outcome, RunRecord, Stream};

/// What is written together.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    /// Output, written on a majority and in the journal.
    pub output: Vec<Output<'a>>,
    /// The records of runs that have started. One that exists already is left as it is.
    pub started: Vec<&'a RunRecord>,
    /// What running records show. A finished one is left as it is.
    pub progress: Vec<&'a Progress>,
    /// What became of runs and slots, written on a majority and in the journal, once all of the
    /// output is. A record that is final already is left as it is.
    pub finished: Vec<&'a RunRecord>,
}

/// Output of one run.
#[derive(Debug, Clone)]
pub struct Output<'a> {
    /// The run.
    pub run: RunId,
    /// When the pieces are deleted.
    pub expire_at: Option<DateTime<Utc>>,
    /// The pieces, in order.
    pub chunks: &'a [Chunk],
}

/// Something that the server will not take, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whose record or output.
    pub run: RunId,
    /// What the server said.
    pub detail: String,
}

/// What is wrong with the document itself, by MongoDB's error codes: BadValue, FailedToParse,
/// TypeMismatch, InvalidBSON, Overflow, DollarPrefixedFieldName, DottedFieldName, EmptyFieldName,
/// DocumentValidationFailure, BSONObjectTooLarge, KeyTooLong. Whatever else goes wrong with one, such as
/// a full disk, may go well the next time.
/// <https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml>
const UNFIT: [i32; 11] = [2, 9, 14, 15, 22, 52, 56, 57, 121, 10_334, 17_280];

/// An answer to an `update` or a `delete` command.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    #[serde(default)]
    write_errors: Vec<Failed>,
    write_concern_error: Option<Failed>,
}

impl Written {
    /// What went wrong, if something did.
    pub(super) fn problem(self) -> Option<String> {
        let first = self.write_errors.into_iter().chain(self.write_concern_error).next();
        first.map(|failed| failed.message)
    }
}

#[derive(Debug, Deserialize)]
struct Failed {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    code: i32,
    #[serde(default, rename = "errmsg")]
    message: String,
}

impl Records {
    /// Writes all of it, and returns what the server refused for good; the rest is written.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses as a whole. Some of it may be written then; it may
    /// be sent again.
    pub async fn write(&self, batch: &Batch<'_>) -> Result<Vec<Refused>, RecordsError> {
        let mut refused = self.write_output(batch).await?;
        let known = self.insert_records(batch, &mut refused).await?;
        self.update_records(batch, &known, &mut refused).await?;
        Ok(refused)
    }

    async fn write_output(&self, batch: &Batch<'_>) -> Result<Vec<Refused>, RecordsError> {
        let pieces = batch.output.iter().flat_map(|Output { run, expire_at, chunks }| {
            chunks.iter().map(|chunk| (*run, piece(*run, chunk, *expire_at)))
        });
        let (runs, documents): (Vec<RunId>, Vec<Document>) = pieces.unzip();
        // What is acknowledged is forgotten here: it must outlive a crash there.
        let failed = self.insert(self.output(), documents, durable()).await?;
        Ok(of_runs(&runs, failed.refused))
    }

    /// Inserts the records, and returns which of the finished ones are there already.
    async fn insert_records<'a>(
        &self,
        batch: &Batch<'a>,
        refused: &mut Vec<Refused>,
    ) -> Result<Vec<&'a RunRecord>, RecordsError> {
        let all: Vec<&RunRecord> = batch.started.iter().chain(&batch.finished).copied().collect();
        let documents: Result<Vec<Document>, RecordsError> =
            all.iter().map(|record| self.to_document(record)).collect();
        let concern = if batch.finished.is_empty() { acknowledged() } else { durable() };
        let failed = self.insert(self.log(), documents?, concern).await?;
        let runs: Vec<RunId> = all.iter().map(|record| record.id).collect();
        refused.extend(of_runs(&runs, failed.refused));
        let finished = failed.known.into_iter().filter_map(|index| {
            batch.finished.get(index.checked_sub(batch.started.len())?).copied()
        });
        Ok(finished.collect())
    }

    async fn update_records(
        &self,
        batch: &Batch<'_>,
        known: &[&RunRecord],
        refused: &mut Vec<Refused>,
    ) -> Result<(), RecordsError> {
        let mut runs = Vec::new();
        let mut updates = Vec::new();
        for progress in &batch.progress {
            runs.push(progress.id);
            updates.push(shown(progress));
        }
        for record in known {
            runs.push(record.id);
            updates.push(self.finish(record)?);
        }
        if updates.is_empty() {
            return Ok(());
        }
        let concern = if known.is_empty() {
            doc! {"w": 1}
        } else {
            doc! {"w": "majority", "j": true}
        };
        // One command for all of them: the driver's own bulk write needs a MongoDB 8.
        let command = doc! {
            "update": self.log().name(), "updates": updates, "ordered": false,
            "writeConcern": concern,
        };
        let answer = self.bounded(self.database.run_command(command)).await?;
        let answer: Written = self.read("log", answer)?;
        if let Some(failed) = answer.write_concern_error {
            return Err(self.unreachable(failed.message));
        }
        let mut failed = BTreeMap::new();
        for error in answer.write_errors {
            self.unfit(error.code, &error.message)?;
            failed.insert(error.index, error.message);
        }
        refused.extend(of_runs(&runs, failed));
        Ok(())
    }

    /// What makes a record that is there final, if it is not.
    fn finish(&self, record: &RunRecord) -> Result<Document, RecordsError> {
        let mut document = self.to_document(record)?;
        document.remove("_id");
        let not_final = doc! {"$in": [Outcome::Running.as_str(), Bson::Null]};
        Ok(doc! {
            "q": {"_id": record.id.to_string(), "outcome": not_final},
            "u": {"$set": document, "$unset": {"lastLine": ""}},
        })
    }

    /// Inserts what is not there yet.
    async fn insert(
        &self,
        into: mongodb::Collection<Document>,
        documents: Vec<Document>,
        concern: WriteConcern,
    ) -> Result<NotInserted, RecordsError> {
        let mut failed = NotInserted::default();
        if documents.is_empty() {
            return Ok(failed);
        }
        let insert = into.insert_many(documents).ordered(false).write_concern(concern);
        let answer = self
            .bounded(async {
                match insert.await {
                    Err(e) => match &*e.kind {
                        ErrorKind::InsertMany(many) if many.write_concern_error.is_none() => {
                            Ok(many.write_errors.clone().unwrap_or_default())
                        }
                        _ => Err(e),
                    },
                    Ok(_) => Ok(Vec::new()),
                }
            })
            .await?;
        for error in answer {
            match error.code {
                DUPLICATE => failed.known.push(error.index),
                code => {
                    self.unfit(code, &error.message)?;
                    failed.refused.insert(error.index, error.message);
                }
            }
        }
        Ok(failed)
    }

    /// Whether it is the document's own fault that it was not written.
    ///
    /// # Errors
    /// When it is not: then all of it is sent again.
    fn unfit(&self, code: i32, message: &str) -> Result<(), RecordsError> {
        match UNFIT.contains(&code) {
            true => Ok(()),
            false => Err(self.unreachable(message.to_owned())),
        }
    }
}

/// By their places in what was to be inserted.
#[derive(Debug, Default)]
struct NotInserted {
    /// Those that are there already.
    known: Vec<usize>,
    /// Those that the server refused, and why.
    refused: BTreeMap<usize, String>,
}

fn of_runs(runs: &[RunId], refused: BTreeMap<usize, String>) -> Vec<Refused> {
    let of = |(index, detail)| Some(Refused { run: *runs.get(index)?, detail });
    refused.into_iter().filter_map(of).collect()
}

fn acknowledged() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Nodes(1)).build()
}

fn durable() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build()
}

fn piece(run: RunId, chunk: &Chunk, expire_at: Option<DateTime<Utc>>) -> Document {
    let stream = match chunk.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let mut document = doc! {
        "_id": chunk_id(run, chunk.seq),
        "at": date(chunk.at),
        "stream": stream,
        "data": Binary { subtype: BinarySubtype::Generic, bytes: chunk.data.clone() },
    };
    if let Some(at) = expire_at {
        document.insert("expireAt", date(at));
    }
    document
}

/// What refreshes a running record.
fn shown(progress: &Progress) -> Document {
    let mut set = doc! {"outputBytes": progress.output_bytes};
    for (field, value) in
        [("cpuMillis", progress.cpu_millis), ("maxRssBytes", progress.max_rss_bytes)]
    {
        if let Some(value) = value {
            set.insert(field, value);
        }
    }
    if let Some(line) = &progress.last_line {
        set.insert("lastLine", line);
    }
    let running = Outcome::Running.as_str();
    doc! {"q": {"_id": progress.id.to_string(), "outcome": running}, "u": {"$set": set}}
}

#[cfg(test)]
mod tests {
    use mongodb::bson;

    use super::*;

    #[test]
    fn a_write_that_was_not_done_whole_has_a_problem() {
        let read = |answer| bson::deserialize_from_document::<Written>(answer).unwrap().problem();
        assert_eq!(read(doc! {"ok": 1.0, "n": 3}), None);
        let failed = doc! {"index": 1, "code": 13, "errmsg": "not allowed"};
        let some = doc! {"ok": 1.0, "n": 2, "writeErrors": [failed]};
        assert_eq!(read(some).as_deref(), Some("not allowed"));
        let unsafe_yet = doc! {"code": 64, "errmsg": "waiting for replication timed out"};
        let unsafe_yet = doc! {"ok": 1.0, "n": 3, "writeConcernError": unsafe_yet};
        assert_eq!(read(unsafe_yet).as_deref(), Some("waiting for replication timed out"));
    }
}
