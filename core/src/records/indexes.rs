//! The indexes, which are all that keeps a question about a million records short.

use std::time::Duration;

use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;

use super::{Records, RecordsError};

impl Records {
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
        Ok(())
    }
}
