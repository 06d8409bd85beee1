//! What is still to be told: one document for each event and target, in the collection `outbox`.
//!
//! A record that calls for something says so in itself ([`Call::pending`]), so that the two cannot
//! come apart. From there it is taken over into the outbox, under an `_id` that is always the same,
//! so that it does not matter how many workers do that. A document in the outbox that has `due` is
//! alive; whoever works on it moves `due` ahead first, atomically, and that is the lease: should it
//! die, the document is due again when the lease is over. What is done with stays for a while
//! without `due`, so that nothing is told anew.
//!
//! Where a recovery is to be told, a document whose event was delivered goes on as one that waits
//! for a success (`waiting`). So a success costs nothing, and no target hears of a recovery before
//! it has heard from what.

mod leftovers;

use chrono::{DateTime, TimeDelta, Utc};
use mongodb::bson::{Document, doc};
use mongodb::options::{IndexOptions, ReturnDocument};
use mongodb::{Collection, IndexModel};

use super::documents::{date, instant};
use super::{Records, RecordsError};
use crate::id::{JobName, RunId};
use crate::notice::{Call, Event};
use crate::run::{Outcome, RunRecord};

pub use leftovers::GivenUp;

/// Records that are taken over in one go.
const TAKEN_OVER: i64 = 100;
/// For how long it is tried to tell something.
pub const TRIED_FOR: TimeDelta = TimeDelta::hours(24);
/// For how long a success is waited for.
const WAITED_FOR: TimeDelta = TimeDelta::days(60);
/// When a success is looked for first, after the delivery of what it would be the recovery from.
const FIRST_LOOK: TimeDelta = TimeDelta::seconds(2);
/// For how long what is done with is kept.
const KEPT_FOR: TimeDelta = TimeDelta::days(7);

/// Something that is to be told to one target, held under a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `_id` of the document.
    pub id: String,
    /// The run or the decision that it is about.
    pub run: RunId,
    /// Its job.
    pub job: String,
    /// What is told.
    pub event: Event,
    /// To whom.
    pub target: String,
    /// How often it was tried, this time included.
    pub tries: u32,
    /// When it was first due.
    pub since: DateTime<Utc>,
    /// Whether it was told and waits for a success.
    pub waiting: bool,
    /// Whether its recovery is told too.
    recovery: bool,
    /// When the run started that a success must follow.
    follows: DateTime<Utc>,
    /// The worker whose success counts; any where absent.
    on_worker: Option<String>,
    /// Who holds the lease.
    by: String,
}

/// What a [`Delivery`] that waits for a success has found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Nothing yet.
    Nothing,
    /// A later event, whose recovery it will be.
    Superseded,
    /// The success.
    Success(RunId),
}

impl Records {
    fn outbox(&self) -> Collection<Document> {
        self.database.collection("outbox")
    }

    /// Makes the indexes that keep looking for what is due cheap: of what is alive alone.
    pub(super) async fn ensure_outbox(&self) -> Result<(), RecordsError> {
        let partial = |keys: Document, only: Document| {
            let options = IndexOptions::builder().partial_filter_expression(only).build();
            IndexModel::builder().keys(keys).options(options).build()
        };
        let calls = partial(doc! {"fleet": 1, "notify.pending": 1}, doc! {"notify.pending": true});
        self.bounded(self.log().create_index(calls)).await?;
        let due = partial(doc! {"fleet": 1, "due": 1}, doc! {"due": {"$exists": true}});
        let options = IndexOptions::builder().expire_after(std::time::Duration::ZERO).build();
        let expiry = IndexModel::builder().keys(doc! {"expireAt": 1}).options(options).build();
        self.bounded(self.outbox().create_indexes([due, expiry])).await?;
        Ok(())
    }

    /// Takes what records call for over into the outbox, at most a hundred records; returns how many
    /// there were.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn take_over(&self, now: DateTime<Utc>) -> Result<usize, RecordsError> {
        let log = self.log();
        let calling = doc! {"fleet": &self.fleet, "notify.pending": true};
        let documents = self.collect(log.find(calling).limit(TAKEN_OVER)).await?;
        let found = documents.len();
        for document in documents {
            let id = document.get_str("_id").unwrap_or_default().to_owned();
            let mut taken = doc! {"notify.pending": false};
            match self.record(document) {
                Ok(record) => {
                    if let Some(call) = record.notify.as_deref() {
                        self.put_out(&record, call, now).await?;
                    }
                }
                // It must not keep the others from being told.
                Err(e) => drop(taken.insert("notifyNote", format!("it cannot be told: {e}"))),
            }
            self.bounded(log.update_one(doc! {"_id": id}, doc! {"$set": taken})).await?;
        }
        Ok(found)
    }

    /// Puts one event into the outbox, for each of its targets. What is there already is left as it
    /// is.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn put_out(
        &self,
        record: &RunRecord,
        call: &Call,
        now: DateTime<Utc>,
    ) -> Result<(), RecordsError> {
        let (run, event) = (record.id.to_string(), call.event.as_str());
        let documents = call.to.iter().map(|target| {
            let mut document = doc! {
                "_id": format!("{run}:{event}:{target}"),
                "fleet": &self.fleet,
                "run": &run,
                "jobName": &record.job_name,
                "event": event,
                "target": target,
                "state": "pending",
                "tries": 0,
                "since": date(now),
                "due": date(now),
                "until": date(now + TRIED_FOR),
                "recovery": call.recovery && call.event.is_bad(),
                "follows": date(record.start_time),
            };
            if let Some(worker) = &call.on_worker {
                document.insert("onWorker", worker);
            }
            document
        });
        let documents: Vec<Document> = documents.collect();
        if documents.is_empty() {
            return Ok(());
        }
        self.once(self.outbox().insert_many(documents).ordered(false)).await
    }

    /// What is due for one of these targets and not yet to be given up, at most `limit`, the oldest
    /// first: each by its id, with its target.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn due(
        &self,
        targets: &[&str],
        limit: usize,
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, String)>, RecordsError> {
        let query = doc! {"fleet": &self.fleet, "due": {"$lte": date(now)}, "until": {"$gt": date(now)}, "target": {"$in": targets}};
        let outbox = self.outbox();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let documents = self.collect(outbox.find(query).sort(doc! {"due": 1}).limit(limit)).await?;
        let text = |d: &Document, field| d.get_str(field).ok().map(str::to_owned);
        Ok(documents.iter().filter_map(|d| Some((text(d, "_id")?, text(d, "target")?))).collect())
    }

    /// Takes hold of what is due, for as long as the lease is; `None` where somebody else was faster,
    /// or it is to be given up.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn hold(
        &self,
        id: &str,
        by: &str,
        lease: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Option<Delivery>, RecordsError> {
        let filter = doc! {"_id": id, "due": {"$lte": date(now)}, "until": {"$gt": date(now)}};
        let update = doc! {"$set": {"due": date(now + lease), "by": by}, "$inc": {"tries": 1}};
        let outbox = self.outbox();
        let held =
            outbox.find_one_and_update(filter, update).return_document(ReturnDocument::After);
        match self.bounded(held).await? {
            Some(document) => self.delivery(&document).map(Some),
            None => Ok(None),
        }
    }

    fn delivery(&self, document: &Document) -> Result<Delivery, RecordsError> {
        let wrong = |what: &str| RecordsError::Unreadable {
            uri: self.uri.clone(),
            collection: "outbox",
            detail: format!("no {what}"),
        };
        let text =
            |field: &str| document.get_str(field).map(str::to_owned).map_err(|_| wrong(field));
        let time = |field: &str| {
            document.get_datetime(field).map(|at| instant(*at)).map_err(|_| wrong(field))
        };
        Ok(Delivery {
            id: text("_id")?,
            run: text("run")?.parse().map_err(|_| wrong("run"))?,
            job: text("jobName")?,
            event: text("event")?.parse().map_err(|_| wrong("event"))?,
            target: text("target")?,
            tries: document.get_i32("tries").ok().and_then(|n| n.try_into().ok()).unwrap_or(1),
            since: time("since")?,
            waiting: document.get_str("state").ok() == Some("waiting"),
            recovery: document.get_bool("recovery").unwrap_or(false),
            follows: time("follows")?,
            on_worker: document.get_str("onWorker").ok().map(str::to_owned),
            by: document.get_str("by").unwrap_or_default().to_owned(),
        })
    }

    /// Changes what we hold; where the lease is over and somebody else holds it, nothing.
    async fn change(&self, held: &Delivery, update: Document) -> Result<(), RecordsError> {
        let tries = i32::try_from(held.tries).unwrap_or(i32::MAX);
        let filter = doc! {"_id": &held.id, "by": &held.by, "tries": tries};
        self.bounded(self.outbox().update_one(filter, update)).await.map(drop)
    }

    /// It was told: it is done with, or waits for a success.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn told(&self, held: &Delivery, now: DateTime<Utc>) -> Result<(), RecordsError> {
        if !held.recovery {
            return self.settle_delivery(held, "sent", now).await;
        }
        let waiting = doc! {
            "state": "waiting",
            "sentAt": date(now),
            "due": date(now + FIRST_LOOK),
            "until": date(now + WAITED_FOR),
        };
        self.change(held, doc! {"$set": waiting, "$unset": {"lastError": ""}}).await
    }

    /// It need not be told any more, because the run has ended or its record is gone, or because
    /// a later event takes over the wait for a success.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn dropped(&self, held: &Delivery, now: DateTime<Utc>) -> Result<(), RecordsError> {
        self.settle_delivery(held, "dropped", now).await
    }

    async fn settle_delivery(
        &self,
        held: &Delivery,
        state: &str,
        now: DateTime<Utc>,
    ) -> Result<(), RecordsError> {
        let set = doc! {"state": state, "endedAt": date(now), "expireAt": date(now + KEPT_FOR)};
        self.change(held, doc! {"$set": set, "$unset": {"due": ""}}).await
    }

    /// It is tried again at `due`; `why` it was not told must have no secret in it.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn put_off(
        &self,
        held: &Delivery,
        due: DateTime<Utc>,
        why: Option<&str>,
    ) -> Result<(), RecordsError> {
        let mut set = doc! {"due": date(due)};
        if let Some(why) = why {
            set.insert("lastError", why);
        }
        self.change(held, doc! {"$set": set}).await
    }

    /// What became of the job after what a delivery has told.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn look_for_success(&self, held: &Delivery) -> Result<Found, RecordsError> {
        let bad: Vec<&str> =
            Event::CHOICES.iter().filter(|e| e.is_bad()).map(|e| e.as_str()).collect();
        let telling = [
            doc! {"outcome": Outcome::Succeeded.as_str()},
            doc! {"notify.event": {"$in": bad}, "notify.to": &held.target},
        ];
        let (start, run) = (date(held.follows), held.run.to_string());
        let later = [
            doc! {"startTime": {"$gt": start}},
            // Of two that began in the same instant one is the later one.
            doc! {"startTime": start, "_id": {"$gt": run}},
        ];
        let mut query = doc! {
            "fleet": &self.fleet,
            "jobName": &held.job,
            "startTime": {"$gte": start},
            "$and": [{"$or": later.to_vec()}, {"$or": telling.to_vec()}],
        };
        if let Some(worker) = &held.on_worker {
            query.insert("worker", worker);
        }
        let log = self.log();
        let first = log.find_one(query).sort(doc! {"startTime": 1, "_id": 1});
        let Some(document) = self.bounded(first).await? else { return Ok(Found::Nothing) };
        if document.get_str("outcome").ok() != Some(Outcome::Succeeded.as_str()) {
            return Ok(Found::Superseded);
        }
        Ok(self.record(document).map_or(Found::Nothing, |record| Found::Success(record.id)))
    }

    /// The success is there: a delivery that waited for it is to tell of that, from now on.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn recovered(
        &self,
        held: &Delivery,
        success: RunId,
        now: DateTime<Utc>,
    ) -> Result<(), RecordsError> {
        let set = doc! {
            "state": "pending",
            "event": Event::Recovery.as_str(),
            "of": held.run.to_string(),
            "run": success.to_string(),
            "recovery": false,
            "tries": 0,
            "since": date(now),
            "due": date(now),
            "until": date(now + TRIED_FOR),
        };
        self.change(held, doc! {"$set": set}).await
    }

    /// Has those that wait for a success of one of these jobs look at once.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn wake_waiting(
        &self,
        jobs: &[JobName],
        now: DateTime<Utc>,
    ) -> Result<(), RecordsError> {
        let names: Vec<&str> = jobs.iter().map(JobName::as_str).collect();
        let filter = doc! {
            "fleet": &self.fleet,
            "due": {"$gt": date(now)},
            "state": "waiting",
            "jobName": {"$in": names},
        };
        let update = doc! {"$set": {"due": date(now)}};
        self.bounded(self.outbox().update_many(filter, update)).await.map(drop)
    }
}
