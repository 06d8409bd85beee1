//! What is left in the outbox: what is given up, what nobody sends, and how much it is.

use chrono::{DateTime, Utc};
use mongodb::bson::doc;
use mongodb::options::ReturnDocument;

use super::{KEPT_FOR, Records, RecordsError, date};
use crate::id::RunId;
use crate::notice::Event;

/// Deliveries that are given up in one go: each takes two round trips.
const GIVEN_UP: usize = 50;
/// Names of targets that nobody knows, in one answer.
const STRANGERS: i64 = 50;

/// Something that is tried no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// The run or the decision.
    pub run: RunId,
    /// Its job.
    pub job: String,
    /// What was not told.
    pub event: Event,
    /// To whom.
    pub target: String,
    /// How often it was tried; 0 where no worker knows the target.
    pub tries: u32,
}

impl Records {
    /// Gives up what could not be told in time, at most fifty of it, and notes that in its record.
    /// What somebody holds is left until the lease is over. What waited in vain for a success ends
    /// without a note.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn give_up(&self, now: DateTime<Utc>) -> Result<Vec<GivenUp>, RecordsError> {
        let mut given_up = Vec::new();
        for _ in 0..GIVEN_UP {
            let filter = doc! {
                "fleet": &self.fleet,
                "due": {"$lte": date(now)},
                "until": {"$lte": date(now)},
            };
            let set =
                doc! {"state": "givenUp", "endedAt": date(now), "expireAt": date(now + KEPT_FOR)};
            let outbox = self.outbox();
            let ended = outbox
                .find_one_and_update(filter, doc! {"$set": set, "$unset": {"due": ""}})
                .return_document(ReturnDocument::Before);
            let Some(document) = self.bounded(ended).await? else { break };
            let Ok(delivery) = self.delivery(&document) else { continue };
            if delivery.waiting {
                continue;
            }
            let tries = document.get_i32("tries").ok().and_then(|n| n.try_into().ok());
            let one = GivenUp {
                run: delivery.run,
                job: delivery.job,
                event: delivery.event,
                target: delivery.target,
                tries: tries.unwrap_or(0),
            };
            let note = match one.tries {
                0 => format!("{} was not told to {}: no worker knows it", one.event, one.target),
                n => format!("{} was not told to {} in {n} tries", one.event, one.target),
            };
            let log = self.log();
            let noted = doc! {"$set": {"notifyNote": note}};
            self.bounded(log.update_one(doc! {"_id": one.run.to_string()}, noted)).await?;
            given_up.push(one);
        }
        Ok(given_up)
    }

    /// The targets beside `known` for which something has waited since before `since`.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn strangers(
        &self,
        known: &[&str],
        since: DateTime<Utc>,
    ) -> Result<Vec<String>, RecordsError> {
        let query = doc! {
            "fleet": &self.fleet,
            "due": {"$lte": date(since)},
            "target": {"$nin": known},
            "tries": 0,
        };
        let outbox = self.outbox();
        let documents = self.collect(outbox.find(query).limit(STRANGERS)).await?;
        let mut names: Vec<String> =
            documents.iter().filter_map(|d| d.get_str("target").ok()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// How much is still to be told, in the whole fleet.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn pending(&self) -> Result<u64, RecordsError> {
        let query = doc! {
            "fleet": &self.fleet,
            "due": {"$exists": true},
            "state": "pending",
        };
        self.bounded(self.outbox().count_documents(query)).await
    }
}
