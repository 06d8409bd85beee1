//! Stored output, read in pieces.

use mongodb::bson::doc;

use super::documents::chunk_id;
use super::{Records, RecordsError};
use crate::id::RunId;
use crate::run::Chunk;

impl Records {
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
}
