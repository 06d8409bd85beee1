//! Run records, output and the audit trail in MongoDB. The only file that knows its fields.
//!
//! The driver has no socket time-out, so every operation is bounded here; dropping it discards its
//! connection. `fleet` keeps several fleets apart in one database.

mod outbox;

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use mongodb::bson::{self, Binary, Bson, Document, doc, spec::BinarySubtype};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{ClientOptions, IndexOptions, WriteConcern};
use mongodb::{Client, Collection, Database, IndexModel};
use thiserror::Error as ThisError;
use tokio::time::{Instant, sleep, timeout};

use crate::id::{JobName, RunId, Slot};
use crate::job::Change;
use crate::run::{Chunk, Outcome, RunRecord, Stream, Trigger};
use crate::settings::hide_password;

pub use outbox::{Delivery, Found, GivenUp, TRIED_FOR};

/// The database's name.
const DATABASE: &str = "cron";
/// Nothing that MongoDB answers at all takes longer.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// [`Records::newest_slots`] reads every record of the fleet, once in the life of a cluster.
const CENSUS_LIMIT: Duration = Duration::from_secs(600);
/// Half of a round trip is how wrong a reading of a clock may be; a faster one is good enough.
const QUICK: Duration = Duration::from_millis(50);
/// Readings of a clock before the fastest is taken: the first may have to connect.
const READINGS: usize = 3;
/// Records of one slot: the attempts at it, its reruns and the gap that it is in.
const OF_SLOT: i64 = 100;
/// How often a tail asks for more.
const TAIL_PAUSE: Duration = Duration::from_millis(200);
/// Chunks per read of a tail: at most 64 x 64 KiB at once.
const TAIL_BATCH: i64 = 64;
/// Duplicate key.
const DUPLICATE: i32 = 11_000;
/// The fields that are stored as dates; in JSON they are RFC 3339 text.
const DATES: [&str; 8] = [
    "startTime",
    "endTime",
    "scheduledTime",
    "claimedTime",
    "fromSlot",
    "toSlot",
    "expireAt",
    "at",
];

/// Why a MongoDB operation failed.
#[derive(Debug, Clone, ThisError)]
pub enum RecordsError {
    /// Nobody answered in time.
    #[error("MongoDB {uri}: {detail}")]
    Unreachable {
        /// The connection string without its password.
        uri: String,
        /// What the driver said.
        detail: String,
    },
    /// MongoDB answered with an error.
    #[error("MongoDB {uri}: {detail}")]
    Refused {
        /// The connection string without its password.
        uri: String,
        /// What the server said.
        detail: String,
    },
    /// A document has an unexpected shape.
    #[error("MongoDB {uri}: a document in `{collection}` cannot be read: {detail}")]
    Unreadable {
        /// The connection string without its password.
        uri: String,
        /// Its collection.
        collection: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// Which records to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Of one job.
    pub job: Option<JobName>,
    /// With one outcome.
    pub outcome: Option<Outcome>,
    /// Of one worker.
    pub worker: Option<String>,
    /// With this text in the job's name, the reason, the kept output or the worker.
    pub text: Option<String>,
}

/// One page of history, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The records.
    pub records: Vec<RunRecord>,
    /// Whether there are older ones.
    pub more: bool,
}

/// What a running record shows of its run.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The run.
    pub id: RunId,
    /// Processor time so far, milliseconds.
    pub cpu_millis: Option<i64>,
    /// Peak resident memory, bytes.
    pub max_rss_bytes: Option<i64>,
    /// Output so far, bytes.
    pub output_bytes: i64,
    /// The last line of output.
    pub last_line: Option<String>,
}

/// A connection to one fleet's records. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    database: Database,
    fleet: String,
    uri: String,
}

impl Records {
    /// Prepares the connection; nothing is sent yet, so this succeeds while MongoDB is away.
    ///
    /// # Errors
    /// A connection string that is not one.
    pub async fn connect(uri: &str, fleet: &str) -> Result<Self, RecordsError> {
        let shown = hide_password(uri);
        let refused = |e: Error| RecordsError::Refused { uri: shown.clone(), detail: plain(&e) };
        let mut options = ClientOptions::parse(uri).await.map_err(refused)?;
        options.server_selection_timeout = Some(Duration::from_secs(2));
        options.connect_timeout.get_or_insert(Duration::from_secs(2));
        options.app_name.get_or_insert_with(|| "carillon".to_owned());
        options.max_pool_size.get_or_insert(8);
        let client = Client::with_options(options).map_err(refused)?;
        Ok(Self { database: client.database(DATABASE), fleet: fleet.to_owned(), uri: shown })
    }

    /// The connection string without its password, for messages.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    fn log(&self) -> Collection<Document> {
        self.database.collection("log")
    }

    fn output(&self) -> Collection<Document> {
        self.database.collection("output")
    }

    fn changes(&self) -> Collection<Document> {
        self.database.collection("changes")
    }

    async fn bounded<T>(
        &self,
        call: impl IntoFuture<Output = Result<T, Error>>,
    ) -> Result<T, RecordsError> {
        self.within(CALL_LIMIT, call).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        call: impl IntoFuture<Output = Result<T, Error>>,
    ) -> Result<T, RecordsError> {
        match timeout(limit, call.into_future()).await {
            Ok(answer) => answer.map_err(|e| self.error(&e)),
            Err(_) => Err(RecordsError::Unreachable {
                uri: self.uri.clone(),
                detail: format!("no answer within {} s", limit.as_secs()),
            }),
        }
    }

    /// A write that may be sent again: one that was carried out before counts as done.
    async fn write<T>(
        &self,
        call: impl IntoFuture<Output = Result<T, Error>>,
    ) -> Result<(), RecordsError> {
        self.bounded(async {
            match call.into_future().await {
                Err(e) if is_duplicate(&e) => Ok(()),
                other => other.map(drop),
            }
        })
        .await
    }

    fn error(&self, e: &Error) -> RecordsError {
        let (uri, detail) = (self.uri.clone(), plain(e));
        // During an election a server answers, and what it says is that nobody does.
        if e.contains_label("RetryableWriteError") {
            return RecordsError::Unreachable { uri, detail };
        }
        match *e.kind {
            ErrorKind::Command(_) | ErrorKind::Write(_) | ErrorKind::InsertMany(_) => {
                RecordsError::Refused { uri, detail }
            }
            _ => RecordsError::Unreachable { uri, detail },
        }
    }

    /// The time of one round trip.
    ///
    /// # Errors
    /// When MongoDB does not answer.
    pub async fn ping(&self) -> Result<Duration, RecordsError> {
        let sent = Instant::now();
        self.bounded(self.database.run_command(doc! {"ping": 1})).await?;
        Ok(sent.elapsed())
    }

    /// MongoDB's clock minus ours, right to half of a round trip.
    ///
    /// # Errors
    /// When MongoDB does not answer or does not tell the time.
    pub async fn clock_offset(&self) -> Result<TimeDelta, RecordsError> {
        self.bounded(async {
            let mut best: Option<(Duration, Option<TimeDelta>)> = None;
            for _ in 0..READINGS {
                let sent = Instant::now();
                let answer = self.database.run_command(doc! {"hello": 1}).await?;
                let (took, now) = (sent.elapsed(), Utc::now());
                let theirs = answer.get_datetime("localTime").ok();
                if best.is_none_or(|(least, _)| took < least) {
                    best = Some((took, theirs.map(|at| offset(instant(*at), now, took))));
                }
                if took < QUICK {
                    break;
                }
            }
            Ok(best.and_then(|(_, offset)| offset))
        })
        .await?
        .ok_or_else(|| RecordsError::Refused {
            uri: self.uri.clone(),
            detail: "its answer to `hello` has no localTime".to_owned(),
        })
    }

    /// Makes the indexes that are missing.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn ensure_indexes(&self) -> Result<(), RecordsError> {
        let by = |keys: Document| IndexModel::builder().keys(keys).build();
        let expiry = || {
            let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
            IndexModel::builder().keys(doc! {"expireAt": 1}).options(options).build()
        };
        // Of the gaps alone, which are few.
        let gaps = || {
            let only = doc! {"toSlot": {"$exists": true}};
            let options = IndexOptions::builder().partial_filter_expression(only).build();
            IndexModel::builder().keys(doc! {"jobName": 1, "toSlot": 1}).options(options).build()
        };
        let log = [
            by(doc! {"jobName": 1, "startTime": -1}),
            by(doc! {"outcome": 1, "startTime": -1}),
            by(doc! {"worker": 1, "startTime": -1}),
            by(doc! {"startTime": -1}),
            by(doc! {"jobName": 1, "scheduledTime": -1}),
            gaps(),
            expiry(),
        ];
        self.bounded(self.log().create_indexes(log)).await?;
        self.bounded(self.output().create_index(expiry())).await?;
        self.bounded(self.changes().create_index(by(doc! {"jobName": 1, "_id": -1}))).await?;
        self.ensure_outbox().await
    }

    /// Records that a run has started. A record that exists already is left as it is.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn started(&self, record: &RunRecord) -> Result<(), RecordsError> {
        let document = self.to_document(record)?;
        self.write(self.log().insert_one(document)).await
    }

    /// Refreshes what a running record shows; a finished one is left as it is.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn progress(&self, progress: &Progress) -> Result<(), RecordsError> {
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
        let filter = doc! {"_id": progress.id.to_string(), "outcome": Outcome::Running.as_str()};
        self.bounded(self.log().update_one(filter, doc! {"$set": set})).await.map(drop)
    }

    /// Records what became of a run or a slot, on a majority and in the journal. A record that is
    /// final already is left as it is.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn finished(&self, record: &RunRecord) -> Result<(), RecordsError> {
        let id = record.id.to_string();
        let mut document = self.to_document(record)?;
        document.remove("_id");
        let not_final = doc! {"$in": [Outcome::Running.as_str(), Bson::Null]};
        let filter = doc! {"_id": id, "outcome": not_final};
        let concern = WriteConcern::builder()
            .w(mongodb::options::Acknowledgment::Majority)
            .journal(true)
            .build();
        let log = self.log();
        let update = log
            .update_one(filter, doc! {"$set": document, "$unset": {"lastLine": ""}})
            .upsert(true)
            .write_concern(concern);
        self.write(update).await
    }

    /// Notes what a run that was taken for lost reported afterwards.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn late_result(&self, run: RunId, late: &str) -> Result<(), RecordsError> {
        let filter = doc! {"_id": run.to_string()};
        let update = doc! {"$set": {"lateResult": late}};
        self.bounded(self.log().update_one(filter, update)).await.map(drop)
    }

    /// Stores pieces of output. Pieces that are stored already are left as they are.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn store_output(
        &self,
        run: RunId,
        chunks: &[Chunk],
        expire_at: Option<DateTime<Utc>>,
    ) -> Result<(), RecordsError> {
        let documents: Vec<Document> = chunks
            .iter()
            .map(|chunk| {
                let mut document = doc! {
                    "_id": chunk_id(run, chunk.seq),
                    "at": date(chunk.at),
                    "stream": match chunk.stream { Stream::Stdout => "stdout", Stream::Stderr => "stderr" },
                    "data": Binary { subtype: BinarySubtype::Generic, bytes: chunk.data.clone() },
                };
                if let Some(at) = expire_at {
                    document.insert("expireAt", date(at));
                }
                document
            })
            .collect();
        if documents.is_empty() {
            return Ok(());
        }
        self.write(self.output().insert_many(documents).ordered(false)).await
    }

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
        let range = doc! {"$gte": chunk_id(run, from), "$lt": format!("{run}}}")};
        let output = self.output();
        let find = output.find(doc! {"_id": range}).sort(doc! {"_id": 1}).limit(limit);
        let documents = self.collect(find).await?;
        documents.iter().map(|d| self.chunk(d)).collect()
    }

    /// Output and record of a run, from piece `from` on, as they arrive.
    pub fn tail(&self, run: RunId, from: u64) -> Tail {
        Tail { records: self.clone(), run, next: from, ended: None }
    }

    /// One record.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn get(&self, run: RunId) -> Result<Option<RunRecord>, RecordsError> {
        let filter = doc! {"_id": run.to_string(), "fleet": &self.fleet};
        match self.bounded(self.log().find_one(filter)).await? {
            Some(document) => self.record(document).map(Some),
            None => Ok(None),
        }
    }

    /// Records, newest first, from before the record at `before` on.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn history(
        &self,
        filter: &HistoryFilter,
        before: Option<(DateTime<Utc>, RunId)>,
        limit: usize,
    ) -> Result<Page, RecordsError> {
        let mut query = doc! {"fleet": &self.fleet};
        if let Some(job) = &filter.job {
            query.insert("jobName", job.as_str());
        }
        if let Some(outcome) = filter.outcome {
            query.insert("outcome", outcome.as_str());
        }
        if let Some(worker) = &filter.worker {
            query.insert("worker", worker);
        }
        let mut alternatives = Vec::new();
        if let Some(text) = &filter.text {
            let pattern = doc! {"$regex": escape(text), "$options": "i"};
            let fields = ["jobName", "err", "output", "worker"];
            alternatives.push(fields.map(|field| doc! {field: pattern.clone()}).to_vec());
        }
        if let Some((start, id)) = before {
            let start = date(start);
            let same_instant = doc! {"startTime": start, "_id": {"$lt": id.to_string()}};
            alternatives.push(vec![doc! {"startTime": {"$lt": start}}, same_instant]);
        }
        if !alternatives.is_empty() {
            let all: Vec<Document> = alternatives.into_iter().map(|or| doc! {"$or": or}).collect();
            query.insert("$and", all);
        }
        let log = self.log();
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX - 1);
        let find = log.find(query).sort(doc! {"startTime": -1, "_id": -1}).limit(wanted + 1);
        let mut documents = self.collect(find).await?;
        let more = documents.len() > limit;
        documents.truncate(limit);
        // A document that another tool wrote in another shape must not hide the rest.
        let records = documents.into_iter().filter_map(|d| self.record(d).ok()).collect();
        Ok(Page { records, more })
    }

    /// The records of one slot, oldest first, at most 100: every attempt at it, its reruns, and the
    /// gap that it is in.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn of_slot(&self, job: &JobName, slot: Slot) -> Result<Vec<RunRecord>, RecordsError> {
        let (job, at) = (job.as_str(), date(slot.instant()));
        // The job in both, so that each has its index.
        let alone = doc! {"jobName": job, "scheduledTime": at};
        let in_a_gap = doc! {"jobName": job, "toSlot": {"$gte": at}, "fromSlot": {"$lte": at}};
        let query = doc! {"fleet": &self.fleet, "$or": [alone, in_a_gap]};
        let log = self.log();
        let find = log.find(query).sort(doc! {"startTime": 1, "_id": 1}).limit(OF_SLOT);
        let documents = self.collect(find).await?;
        // As in the history: what cannot be read must not hide the rest.
        Ok(documents.into_iter().filter_map(|d| self.record(d).ok()).collect())
    }

    /// The newest slot of every job that the schedule has decided and that is recorded, whatever
    /// became of it. Computed by the server from all records of the fleet, so it may take minutes.
    ///
    /// # Errors
    /// When MongoDB does not answer within ten minutes, or refuses.
    pub async fn newest_slots(&self) -> Result<BTreeMap<JobName, Slot>, RecordsError> {
        let decided = doc! {
            "fleet": &self.fleet,
            "trigger": Trigger::Schedule.to_string(),
            "scheduledTime": {"$type": "date"},
        };
        let newest = doc! {"$max": {"$max": ["$scheduledTime", "$toSlot"]}};
        let pipeline =
            [doc! {"$match": decided}, doc! {"$group": {"_id": "$jobName", "newest": newest}}];
        let log = self.log();
        let documents: Vec<Document> = self
            .within(CENSUS_LIMIT, async {
                log.aggregate(pipeline).allow_disk_use(true).await?.try_collect().await
            })
            .await?;
        // A name that is none came from elsewhere: no cursor can have it.
        let read = |d: &Document| {
            let job = JobName::new(d.get_str("_id").ok()?).ok()?;
            Some((job, Slot::at(instant(*d.get_datetime("newest").ok()?))))
        };
        Ok(documents.iter().filter_map(read).collect())
    }

    /// The records of runs that are live, with their telemetry.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn live(&self, limit: usize) -> Result<Vec<RunRecord>, RecordsError> {
        let running = HistoryFilter { outcome: Some(Outcome::Running), ..Default::default() };
        Ok(self.history(&running, None, limit).await?.records)
    }

    /// Writes down who changed what.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn record_change(&self, change: &Change) -> Result<(), RecordsError> {
        let mut document = self.document_of("changes", change)?;
        document.insert("fleet", &self.fleet);
        document.insert("at", date(change.id.made_at()));
        self.write(self.changes().insert_one(document)).await
    }

    /// The changes of one job or of all, newest first.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn changes_of(
        &self,
        job: Option<&JobName>,
        limit: i64,
    ) -> Result<Vec<Change>, RecordsError> {
        let mut query = doc! {"fleet": &self.fleet};
        if let Some(job) = job {
            query.insert("jobName", job.as_str());
        }
        let changes = self.changes();
        let find = changes.find(query).sort(doc! {"_id": -1}).limit(limit);
        let documents = self.collect(find).await?;
        documents.into_iter().map(|d| self.read("changes", d)).collect()
    }

    async fn collect<'a, F>(&self, find: F) -> Result<Vec<Document>, RecordsError>
    where
        F: IntoFuture<Output = Result<mongodb::Cursor<Document>, Error>> + 'a,
    {
        self.bounded(async move { find.into_future().await?.try_collect().await }).await
    }

    fn to_document(&self, record: &RunRecord) -> Result<Document, RecordsError> {
        let mut document = self.document_of("log", record)?;
        document.insert("fleet", &self.fleet);
        Ok(document)
    }

    fn document_of(
        &self,
        collection: &'static str,
        value: &impl serde::Serialize,
    ) -> Result<Document, RecordsError> {
        let mut document = bson::serialize_to_document(value)
            .map_err(|e| self.unreadable(collection, e.to_string()))?;
        for field in DATES {
            if let Some(Bson::String(text)) = document.get(field)
                && let Ok(instant) = DateTime::<Utc>::from_str(text)
            {
                document.insert(field, date(instant));
            }
        }
        Ok(document)
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        collection: &'static str,
        mut document: Document,
    ) -> Result<T, RecordsError> {
        for field in DATES {
            if let Some(Bson::DateTime(at)) = document.get(field) {
                let text = instant(*at).to_rfc3339();
                document.insert(field, text);
            }
        }
        bson::deserialize_from_document(document)
            .map_err(|e| self.unreadable(collection, e.to_string()))
    }

    fn record(&self, document: Document) -> Result<RunRecord, RecordsError> {
        self.read("log", document)
    }

    fn chunk(&self, document: &Document) -> Result<Chunk, RecordsError> {
        let wrong = || self.unreadable("output", "not a piece of output".to_owned());
        let id = document.get_str("_id").map_err(|_| wrong())?;
        let seq = id.rsplit('|').next().and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
        Ok(Chunk {
            seq,
            at: document.get_datetime("at").map(|at| instant(*at)).map_err(|_| wrong())?,
            stream: match document.get_str("stream") {
                Ok("stderr") => Stream::Stderr,
                _ => Stream::Stdout,
            },
            data: document.get_binary_generic("data").map_err(|_| wrong())?.clone(),
        })
    }

    fn unreadable(&self, collection: &'static str, detail: String) -> RecordsError {
        RecordsError::Unreadable { uri: self.uri.clone(), collection, detail }
    }
}

/// A text as a regular expression that matches just that text.
fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_alphanumeric() && !c.is_whitespace() && c.is_ascii() {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// `<run>|<seq>`, with the number padded so that text order is its order.
fn chunk_id(run: RunId, seq: u64) -> String {
    format!("{run}|{seq:012}")
}

/// An error's message without the driver's inner structure.
fn plain(e: &Error) -> String {
    match &*e.kind {
        ErrorKind::Command(c) => c.message.clone(),
        ErrorKind::Write(WriteFailure::WriteError(w)) => w.message.clone(),
        ErrorKind::ServerSelection { .. } => "no server answers".to_owned(),
        other => other.to_string(),
    }
}

/// Whether all that went wrong is that the documents exist already: the write was done before.
fn is_duplicate(e: &Error) -> bool {
    match &*e.kind {
        ErrorKind::Write(WriteFailure::WriteError(w)) => w.code == DUPLICATE,
        ErrorKind::Command(c) => c.code == DUPLICATE,
        ErrorKind::InsertMany(many) => {
            many.write_concern_error.is_none()
                && many
                    .write_errors
                    .as_ref()
                    .is_some_and(|all| all.iter().all(|w| w.code == DUPLICATE))
        }
        _ => false,
    }
}

fn date(instant: DateTime<Utc>) -> bson::DateTime {
    bson::DateTime::from_millis(instant.timestamp_millis())
}

fn instant(date: bson::DateTime) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(date.timestamp_millis()).unwrap_or_default()
}

/// Their clock minus ours, which showed `now` when the answer came that `took` so long.
fn offset(theirs: DateTime<Utc>, now: DateTime<Utc>, took: Duration) -> TimeDelta {
    theirs - (now - TimeDelta::from_std(took / 2).unwrap_or_default())
}

/// Follows one run: its output, then its final record.
pub struct Tail {
    records: Records,
    run: RunId,
    next: u64,
    ended: Option<Box<RunRecord>>,
}

/// What a [`Tail`] yields.
#[derive(Debug, Clone, PartialEq)]
pub enum TailEvent {
    /// More output, in order.
    Output(Vec<Chunk>),
    /// The run is over and all of its output was yielded.
    Ended(Box<RunRecord>),
}

impl Tail {
    /// Waits for the next event. After an error it can be asked again; nothing is skipped.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn next(&mut self) -> Result<TailEvent, RecordsError> {
        loop {
            let chunks = self.records.output_from(self.run, self.next, TAIL_BATCH).await?;
            if let Some(last) = chunks.last() {
                self.next = last.seq + 1;
                return Ok(TailEvent::Output(chunks));
            }
            // The record is written after the last piece, so one more look sees all of them.
            if let Some(record) = self.ended.take() {
                return Ok(TailEvent::Ended(record));
            }
            match self.records.get(self.run).await? {
                Some(record) if record.outcome.is_final() => self.ended = Some(Box::new(record)),
                _ => sleep(TAIL_PAUSE).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_ids_sort_as_their_numbers_and_end_before_the_next_run() {
        let run: RunId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert!(chunk_id(run, 9) < chunk_id(run, 10));
        assert!(chunk_id(run, 999_999_999_999) < format!("{run}}}"));
    }

    #[test]
    fn a_clock_that_is_ahead_has_a_positive_offset_and_half_the_way_back_is_ours() {
        let now: DateTime<Utc> = "2026-01-01T00:00:10Z".parse().unwrap();
        let way = Duration::from_millis(200);
        let read_at = now - TimeDelta::milliseconds(100);
        for by in [TimeDelta::seconds(3), TimeDelta::zero(), TimeDelta::seconds(-3)] {
            assert_eq!(offset(read_at + by, now, way), by);
        }
    }
}
