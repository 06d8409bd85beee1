//! Where results go: to MongoDB, and then out of etcd.

use std::collections::BTreeSet;

use carillon_core::claims::Step;
use carillon_core::id::{JobName, RunId};
use carillon_core::records::{Records, RecordsError};
use carillon_core::replica::Versioned;
use carillon_core::run::RunRecord;
use tokio::sync::watch;
use tracing::{error, warn};

use super::queue::Load;
use crate::courier::Courier;

/// The two stores.
#[derive(Clone)]
pub(crate) struct Store {
    pub records: Records,
    pub courier: Courier,
    /// Whether etcd is so full that outcomes that the disk holds should not stay in it.
    pub crowded: watch::Receiver<bool>,
}

impl Store {
    /// Writes all of it, after the indexes where that is asked for.
    ///
    /// # Errors
    /// When MongoDB does not take it now.
    pub(super) async fn write(&self, load: &mut Load, index: bool) -> Result<(), RecordsError> {
        if index {
            match self.records.ensure_indexes().await {
                Err(e @ RecordsError::Unreachable { .. }) => return Err(e),
                // Records without indexes are better than none.
                Err(e) => warn!("the indexes are not made: {e}"),
                Ok(()) => {}
            }
        }
        let refused = self.records.write(&load.batch()).await?;
        for refused in &refused {
            error!(run = %refused.run, "MongoDB refuses it: {}", refused.detail);
        }
        let refused: BTreeSet<RunId> = refused.into_iter().map(|refused| refused.run).collect();
        for (job, done) in load.done().filter(|(_, done)| !refused.contains(&done.value.id)) {
            self.forget(job, done).await;
        }
        Ok(())
    }

    /// Has etcd forget an outcome. Left behind, it is completed again later, which changes nothing.
    pub(super) async fn forget(&self, job: &JobName, done: &Versioned<RunRecord>) {
        self.courier.post(Step::acknowledged(self.courier.keys(), job, done)).await;
    }
}
