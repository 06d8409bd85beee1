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
        // One for each condition of the history, in the order of a page: so a page is a walk along
        // one of them, from where it begins to where it is full.
        let newest_first =
            |field: &str| by(doc! {"fleet": 1, field: 1, "startTime": -1, "_id": -1});
        let log = [
            newest_first("jobName"),
            newest_first("outcome"),
            newest_first("worker"),
            newest_first("trigger"),
            by(doc! {"fleet": 1, "startTime": -1, "_id": -1}),
            by(doc! {"jobName": 1, "scheduledTime": -1}),
            gaps(),
            expiry(),
        ];
        // `_id` alone would do where the server keeps it in order, as mongod does. The stream with
        // it finds the few pieces of one stream among the many of the other.
        let output = [by(doc! {"_id": 1, "stream": 1}), expiry()];
        self.bounded(self.log().create_indexes(log)).await?;
        self.bounded(self.output().create_indexes(output)).await?;
        self.bounded(self.changes().create_index(by(doc! {"jobName": 1, "_id": -1}))).await?;
        self.ensure_outbox().await
    }
}
