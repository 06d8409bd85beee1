//! The audit trail: who changed what.

use mongodb::bson::doc;

use super::documents::date;
use super::{Records, RecordsError};
use crate::id::JobName;
use crate::job::Change;

impl Records {
    /// Writes down who changed what.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn record_change(&self, change: &Change) -> Result<(), RecordsError> {
        let mut document = self.document_of("changes", change)?;
        document.insert("fleet", &self.fleet);
        document.insert("at", date(change.id.made_at()));
        self.once(self.changes().insert_one(document)).await
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
}
