//! Output as it arrives.

use std::time::Duration;

use tokio::time::sleep;

use super::{Records, RecordsError};
use crate::id::RunId;
use crate::run::{Chunk, RunRecord};

/// How often a tail asks for more.
const TAIL_PAUSE: Duration = Duration::from_millis(200);
/// Chunks per read of a tail: at most 64 x 64 KiB at once.
const TAIL_BATCH: i64 = 64;

impl Records {
    /// Output and record of a run, from piece `from` on, as they arrive.
    pub fn tail(&self, run: RunId, from: u64) -> Tail {
        Tail { records: self.clone(), run, next: from, ended: None }
    }
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
