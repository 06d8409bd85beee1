//! Deleting what is older than somebody wants to keep: records and their output.

use std::time::Duration;

use chrono::{DateTime, Utc};
use mongodb::bson::{Document, doc};

use super::batch::Written;
use super::history::{Place, Walk};
use super::{HistoryFilter, Records, RecordsError};
use crate::id::{JobName, RunId};
use crate::run::Outcome;

/// Records per batch: what is told of as progress.
const BATCH: usize = 500;
/// Bytes of output that are deleted by one command, but for a single run that has more.
const AT_ONCE: u64 = 64 * 1_024 * 1_024;
/// So much may take a while.
const DELETE_LIMIT: Duration = Duration::from_secs(60);

/// What a purge found, or deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Records.
    pub records: u64,
    /// Bytes of output, by what the records say.
    pub bytes: u64,
}

/// Goes through the records of a fleet that are final and started before an instant, from the
/// newest of them to the oldest.
pub struct Purge {
    records: Records,
    filter: HistoryFilter,
    reached: Option<Place>,
    delete: bool,
    over: bool,
    so_far: Purged,
}

impl Records {
    /// Prepares to count what started before `older_than` and is over, or to delete it with its
    /// output. Nothing is done yet.
    pub fn purge(&self, older_than: DateTime<Utc>, job: Option<&JobName>, delete: bool) -> Purge {
        let filter =
            HistoryFilter { job: job.cloned(), until: Some(older_than), ..Default::default() };
        let (records, so_far) = (self.clone(), Purged::default());
        Purge { records, filter, reached: None, delete, over: false, so_far }
    }

    /// Output before records: broken off in between, the next purge finds the records again.
    async fn delete_runs(&self, runs: &[RunId]) -> Result<(), RecordsError> {
        let pieces = |run: &RunId| {
            let range = doc! {"$gte": format!("{run}|"), "$lt": format!("{run}}}")};
            doc! {"q": {"_id": range}, "limit": 0}
        };
        let statements: Vec<Document> = runs.iter().map(pieces).collect();
        let command = doc! {"delete": "output", "deletes": statements, "ordered": false};
        let answer = self.within(DELETE_LIMIT, self.database.run_command(command)).await?;
        // Without its record nobody would find what is left of the output.
        if let Some(detail) = self.read::<Written>("output", answer)?.problem() {
            return Err(RecordsError::Refused { uri: self.uri.clone(), detail });
        }
        let ids: Vec<String> = runs.iter().map(RunId::to_string).collect();
        // Once more who they are of and that they are over: it cannot be taken back.
        let query = doc! {
            "_id": {"$in": ids},
            "fleet": &self.fleet,
            "outcome": {"$ne": Outcome::Running.as_str()},
        };
        self.within(DELETE_LIMIT, self.log().delete_many(query)).await.map(drop)
    }
}

impl Purge {
    /// Does one batch and returns what was found so far; `None` when there is no more. After an
    /// error it can be asked again.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn next(&mut self) -> Result<Option<Purged>, RecordsError> {
        if self.over {
            return Ok(None);
        }
        let mut walk = Walk::new(&self.records, &self.filter, self.reached);
        let fields = doc! {"outcome": 1, "outputBytes": 1, "startTime": 1};
        let (mut found, mut seen) = (Vec::new(), 0);
        while seen < BATCH && !walk.over {
            let documents = walk.step(BATCH - seen, Some(&fields), &mut |_| ()).await?;
            seen += documents.len();
            let is_over =
                |d: &Document| d.get_str("outcome").ok() != Some(Outcome::Running.as_str());
            found.extend(documents.into_iter().filter(is_over));
        }
        let found: Vec<(RunId, u64)> = found.iter().filter_map(size_of_run).collect();
        let mut rest = found.as_slice();
        while self.delete && !rest.is_empty() {
            let mut bytes = 0;
            let together = rest.iter().take_while(|(_, size)| {
                let first = bytes == 0;
                bytes += size;
                first || bytes <= AT_ONCE
            });
            let (now, later) = rest.split_at(together.count());
            let runs: Vec<RunId> = now.iter().map(|(run, _)| *run).collect();
            self.records.delete_runs(&runs).await?;
            rest = later;
        }
        (self.reached, self.over) = (walk.place(), walk.over);
        self.so_far.records += found.len() as u64;
        self.so_far.bytes += found.iter().map(|(_, size)| size).sum::<u64>();
        Ok(Some(self.so_far))
    }
}

/// A run and its output's size; `None` for what another tool named in its own way, which is not
/// ours to delete.
fn size_of_run(document: &Document) -> Option<(RunId, u64)> {
    let run = document.get_str("_id").ok()?.parse().ok()?;
    let bytes = document.get_i64("outputBytes");
    let bytes = bytes.or_else(|_| document.get_i32("outputBytes").map(i64::from)).unwrap_or(0);
    Some((run, u64::try_from(bytes).unwrap_or(0)))
}
