//! Single records: of a run, of a slot, and the newest slot of every job.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::{Document, doc};

use super::documents::{date, instant};
use super::{Records, RecordsError};
use crate::id::{JobName, RunId, Slot};
use crate::run::{RunRecord, Trigger};

/// [`Records::newest_slots`] reads every record of the fleet, once in the life of a cluster.
const CENSUS_LIMIT: Duration = Duration::from_secs(600);
/// Records of one slot: the attempts at it, its reruns and the gap that it is in.
const OF_SLOT: i64 = 100;

impl Records {
    /// One record.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn get(&self, run: RunId) -> Result<Option<RunRecord>, RecordsError> {
        let filter = doc! {"_id": run.to_string(), "fleet": &self.fleet};
        match self.bounded(self.log().find_one(filter)).await? {
            Some(document) => self.record(document).map(Some),
            None => Ok(None),
        }
    }

    /// The records of one slot, oldest first, at most 100: every attempt at it, its reruns, and the
    /// gap that it is in.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn of_slot(&self, job: &JobName, slot: Slot) -> Result<Vec<RunRecord>, RecordsError> {
        let (job, at) = (job.as_str(), date(slot.instant()));
        // The job in both, so that each has its index.
        let alone = doc! {"jobName": job, "scheduledTime": at};
        let in_a_gap = doc! {"jobName": job, "toSlot": {"$gte": at}, "fromSlot": {"$lte": at}};
        let query = doc! {"fleet": &self.fleet, "$or": [alone, in_a_gap]};
        let log = self.log();
        let find = log.find(query).sort(doc! {"startTime": 1, "_id": 1}).limit(OF_SLOT);
        let documents = self.collect(find).await?;
        // As in the history: what cannot be read must not hide the rest.
        Ok(documents.into_iter().filter_map(|d| self.record(d).ok()).collect())
    }

    /// The newest slot of every job that the schedule has decided and that is recorded, whatever
    /// became of it. Computed by the server from all records of the fleet, so it may take minutes.
    ///
    /// # Errors
    /// When MongoDB does not answer within ten minutes, or refuses.
    pub async fn newest_slots(&self) -> Result<BTreeMap<JobName, Slot>, RecordsError> {
        let decided = doc! {
            "fleet": &self.fleet,
            "trigger": Trigger::Schedule.to_string(),
            "scheduledTime": {"$type": "date"},
        };
        let newest = doc! {"$max": {"$max": ["$scheduledTime", "$toSlot"]}};
        let pipeline =
            [doc! {"$match": decided}, doc! {"$group": {"_id": "$jobName", "newest": newest}}];
        let log = self.log();
        let documents: Vec<Document> = self
            .within(CENSUS_LIMIT, async {
                log.aggregate(pipeline).allow_disk_use(true).await?.try_collect().await
            })
            .await?;
        // A name that is none came from elsewhere: no cursor can have it.
        let read = |d: &Document| {
            let job = JobName::new(d.get_str("_id").ok()?).ok()?;
            Some((job, Slot::at(instant(*d.get_datetime("newest").ok()?))))
        };
        Ok(documents.iter().filter_map(read).collect())
    }
}
