//! Output as it arrives.
//!
//! On a replica set a change stream says that there is something new; elsewhere, or when the stream
//! fails or is refused, it is looked for again and again. What is new is read by its number either
//! way, so neither can miss, repeat or reorder anything. The stream is opened before the first read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::change_stream::ChangeStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::output::Pieces;
use super::{CALL_LIMIT, Records, RecordsError};
use crate::id::RunId;
use crate::run::{Chunk, RunRecord};

/// How often a tail without a change stream asks for more.
const POLL: Duration = Duration::from_millis(200);
/// How often one with a change stream does so all the same.
const LOOK_ANYWAY: Duration = Duration::from_secs(2);
/// For how long a piece is waited for that later ones have overtaken.
const LATE: Duration = Duration::from_millis(500);
/// For how long a change stream may take to open before it is done without.
const OPENING: Duration = Duration::from_secs(2);
/// For how long the server keeps a question of a change stream before it says that nothing changed.
const AWAIT: Duration = Duration::from_secs(1);

impl Records {
    /// Output and record of a run, from piece `from` on, as they arrive.
    pub fn tail(&self, run: RunId, from: u64) -> Tail {
        self.output_of(run).starting_at(from).follow()
    }

    /// What changes in the output and the record of a run: where, and nothing else.
    async fn changes_in(&self, run: RunId) -> Option<ChangeStream<Document>> {
        let (from, to) = (format!("{run}|"), format!("{run}}}"));
        let output = doc! {"ns.coll": "output", "documentKey._id": {"$gte": from, "$lt": to}};
        let record = doc! {"ns.coll": "log", "documentKey._id": run.to_string()};
        let of_run = doc! {"$match": {"$or": [output, record]}};
        let watch = self.database.watch().pipeline([of_run, doc! {"$project": {"ns": 1}}]);
        let opened = timeout(OPENING, async { watch.max_await_time(AWAIT).await }).await;
        opened.ok()?.ok().map(ChangeStream::with_type)
    }
}

/// Follows one run: its output, then its final record.
pub struct Tail {
    pieces: Pieces,
    news: News,
    ended: Option<Box<RunRecord>>,
    /// When the record was last asked for.
    asked: Option<Instant>,
    /// The piece that is waited for although later ones are there, and since when.
    missing: Option<(u64, Instant)>,
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
    pub(super) fn new(pieces: Pieces) -> Self {
        Self { pieces, news: News::Unknown, ended: None, asked: None, missing: None }
    }

    /// The same without a change stream, as where there can be none.
    #[must_use]
    pub fn by_polling(self) -> Self {
        Self { news: News::Poll, ..self }
    }

    /// Waits for the next event. After an error it can be asked again; nothing is skipped.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn next(&mut self) -> Result<TailEvent, RecordsError> {
        if matches!(self.news, News::Unknown) {
            let changes = self.pieces.records().changes_in(self.pieces.run()).await;
            self.news = changes.map_or(News::Poll, |changes| News::Stream(Watcher::of(changes)));
        }
        loop {
            let expected = self.pieces.expected();
            let chunks = self.pieces.read().await?;
            let chunks = self.before_gap(expected, chunks);
            if let Some(last) = chunks.last() {
                self.missing = self.missing.filter(|(seq, _)| *seq > last.seq);
                return Ok(TailEvent::Output(chunks));
            }
            // The record is written after the last piece, so one more look sees all of them.
            if let Some(record) = self.ended.take() {
                return Ok(TailEvent::Ended(record));
            }
            if self.record_is_due() {
                self.asked = Some(Instant::now());
                match self.pieces.records().get(self.pieces.run()).await {
                    Ok(Some(record)) if record.outcome.is_final() => {
                        self.ended = Some(Box::new(record));
                        continue;
                    }
                    Ok(_) => {}
                    Err(e) => {
                        self.asked = None;
                        return Err(e);
                    }
                }
            }
            match self.missing {
                Some(_) => sleep(POLL).await,
                None => self.news.wait().await,
            }
        }
    }

    /// Pieces of one write can become visible in any order, so one that is missing is waited for a
    /// little before it counts as dropped: what stands before it is yielded, and the rest later.
    fn before_gap(&mut self, expected: Option<u64>, mut chunks: Vec<Chunk>) -> Vec<Chunk> {
        let (Some(expected), None) = (expected, &self.ended) else { return chunks };
        let Some(gap) = (expected..).zip(&chunks).position(|(seq, chunk)| chunk.seq != seq) else {
            return chunks;
        };
        let missing = expected.saturating_add(gap as u64);
        let since = match self.missing {
            Some((seq, since)) if seq == missing => since,
            _ => self.missing.insert((missing, Instant::now())).1,
        };
        if since.elapsed() >= LATE {
            return chunks;
        }
        self.pieces.rewind(missing);
        chunks.truncate(gap);
        chunks
    }

    /// Whether the record may have changed since it was last asked for.
    fn record_is_due(&self) -> bool {
        let Some(asked) = self.asked else { return true };
        match &self.news {
            News::Stream(watcher) => {
                watcher.flags.record.swap(false, Ordering::Relaxed)
                    || asked.elapsed() >= LOOK_ANYWAY
            }
            News::Unknown | News::Poll => true,
        }
    }
}

/// Where a tail learns that something is new.
enum News {
    Unknown,
    Stream(Watcher),
    Poll,
}

impl News {
    async fn wait(&mut self) {
        match self {
            Self::Stream(watcher) if !watcher.task.is_finished() => {
                timeout(LOOK_ANYWAY, watcher.flags.news.notified()).await.ok();
            }
            Self::Stream(_) => *self = Self::Poll,
            Self::Unknown | Self::Poll => sleep(POLL).await,
        }
    }
}

#[derive(Default)]
struct Flags {
    news: Notify,
    /// Whether the news is of the record.
    record: AtomicBool,
}

/// Listens to a change stream until that fails.
struct Watcher {
    flags: Arc<Flags>,
    task: JoinHandle<()>,
}

impl Watcher {
    fn of(mut changes: ChangeStream<Document>) -> Self {
        let flags = Arc::new(Flags::default());
        let told = Arc::clone(&flags);
        let task = tokio::spawn(async move {
            while changes.is_alive() {
                match timeout(AWAIT + CALL_LIMIT, changes.next_if_any()).await {
                    Ok(Ok(None)) => continue,
                    Ok(Ok(Some(change))) => {
                        let ns = change.get_document("ns").ok();
                        if ns.and_then(|ns| ns.get_str("coll").ok()) == Some("log") {
                            told.record.store(true, Ordering::Relaxed);
                        }
                    }
                    Ok(Err(_)) | Err(_) => break,
                }
                told.news.notify_one();
            }
            // So that nobody waits for news that cannot come.
            told.record.store(true, Ordering::Relaxed);
            told.news.notify_one();
        });
        Self { flags, task }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
