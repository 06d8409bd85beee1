//! Run records, output and the audit trail in MongoDB. Nobody but this file and its rooms knows
//! its fields.
//!
//! The driver has no socket time-out, so every operation is bounded here; dropping it discards its
//! connection. `fleet` keeps several fleets apart in one database.

mod batch;
mod changes;
mod documents;
mod history;
mod indexes;
mod outbox;
mod output;
mod purge;
mod runs;
mod stats;
mod tail;

use std::future::IntoFuture;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection, Database};
use thiserror::Error as ThisError;
use tokio::time::{Instant, timeout};

pub use self::batch::{Batch, Output, Refused};
use self::documents::instant;
pub use self::history::{HistoryFilter, Page, Place, StepCost};
pub use self::outbox::{Delivery, Found, GivenUp, TRIED_FOR};
pub use self::output::Pieces;
pub use self::purge::{Purge, Purged};
pub use self::stats::{Durations, JobStats, STATS_MAX, Window};
pub use self::tail::{Tail, TailEvent};
use crate::id::RunId;
use crate::run::Outcome;
use crate::settings::hide_password;

/// The database's name.
const DATABASE: &str = "cron";
/// Nothing that MongoDB answers at all takes longer.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Half of a round trip is how wrong a reading of a clock may be; a faster one is good enough.
const QUICK: Duration = Duration::from_millis(50);
/// Readings of a clock before the fastest is taken: the first may have to connect.
const READINGS: usize = 3;
/// Duplicate key.
const DUPLICATE: i32 = 11_000;

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
    async fn once<T>(
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

    /// MongoDB's clock minus `clock`, the asker's, right to half of a round trip.
    ///
    /// # Errors
    /// When MongoDB does not answer or does not tell the time.
    pub async fn clock_offset(
        &self,
        clock: fn() -> DateTime<Utc>,
    ) -> Result<TimeDelta, RecordsError> {
        self.bounded(async {
            let mut best: Option<(Duration, Option<TimeDelta>)> = None;
            for _ in 0..READINGS {
                let sent = Instant::now();
                let answer = self.database.run_command(doc! {"hello": 1}).await?;
                let (took, now) = (sent.elapsed(), clock());
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

    /// Notes what a run that was taken for lost reported afterwards; one that ended otherwise is
    /// left as it is. Returns whether that is all: not while there is no final record.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn late_result(&self, run: RunId, late: &str) -> Result<bool, RecordsError> {
        let Some(record) = self.get(run).await?.filter(|record| record.outcome.is_final()) else {
            return Ok(false);
        };
        if record.outcome == Outcome::Lost {
            let filter = doc! {"_id": run.to_string(), "outcome": Outcome::Lost.as_str()};
            let update = doc! {"$set": {"lateResult": late}};
            self.bounded(self.log().update_one(filter, update)).await?;
        }
        Ok(true)
    }
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

/// Their clock minus ours, which showed `now` when the answer came that `took` so long.
fn offset(theirs: DateTime<Utc>, now: DateTime<Utc>, took: Duration) -> TimeDelta {
    theirs - (now - TimeDelta::from_std(took / 2).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

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
