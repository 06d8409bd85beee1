//! Records, newest first, in pages.

use chrono::{DateTime, Utc};
use mongodb::bson::{Document, doc};

use super::documents::date;
use super::{Records, RecordsError};
use crate::id::{JobName, RunId};
use crate::run::{Outcome, RunRecord};

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

impl Records {
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

    /// The records of runs that are live, with their telemetry.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn live(&self, limit: usize) -> Result<Vec<RunRecord>, RecordsError> {
        let running = HistoryFilter { outcome: Some(Outcome::Running), ..Default::default() };
        Ok(self.history(&running, None, limit).await?.records)
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
