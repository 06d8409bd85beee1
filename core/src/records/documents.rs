//! Values to documents and back: dates are BSON dates there and text in serde.

use std::future::IntoFuture;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use mongodb::bson::{self, Bson, Document};
use mongodb::error::Error;

use super::{Records, RecordsError};
use crate::id::RunId;
use crate::run::{Chunk, RunRecord, Stream};

/// The fields that are stored as dates; in JSON they are RFC 3339 text.
const DATES: [&str; 8] = [
    "startTime",
    "endTime",
    "scheduledTime",
    "claimedTime",
    "fromSlot",
    "toSlot",
    "expireAt",
    "at",
];

impl Records {
    pub(super) async fn collect<'a, F>(&self, find: F) -> Result<Vec<Document>, RecordsError>
    where
        F: IntoFuture<Output = Result<mongodb::Cursor<Document>, Error>> + 'a,
    {
        self.bounded(async move { find.into_future().await?.try_collect().await }).await
    }

    pub(super) fn to_document(&self, record: &RunRecord) -> Result<Document, RecordsError> {
        let mut document = self.document_of("log", record)?;
        document.insert("fleet", &self.fleet);
        Ok(document)
    }

    pub(super) fn document_of(
        &self,
        collection: &'static str,
        value: &impl serde::Serialize,
    ) -> Result<Document, RecordsError> {
        let mut document = bson::serialize_to_document(value)
            .map_err(|e| self.unreadable(collection, e.to_string()))?;
        for field in DATES {
            if let Some(Bson::String(text)) = document.get(field)
                && let Ok(instant) = DateTime::<Utc>::from_str(text)
            {
                document.insert(field, date(instant));
            }
        }
        Ok(document)
    }

    pub(super) fn read<T: serde::de::DeserializeOwned>(
        &self,
        collection: &'static str,
        mut document: Document,
    ) -> Result<T, RecordsError> {
        for field in DATES {
            if let Some(Bson::DateTime(at)) = document.get(field) {
                let text = instant(*at).to_rfc3339();
                document.insert(field, text);
            }
        }
        bson::deserialize_from_document(document)
            .map_err(|e| self.unreadable(collection, e.to_string()))
    }

    pub(super) fn record(&self, document: Document) -> Result<RunRecord, RecordsError> {
        self.read("log", document)
    }

    pub(super) fn chunk(&self, document: &Document) -> Result<Chunk, RecordsError> {
        let wrong = || self.unreadable("output", "not a piece of output".to_owned());
        let id = document.get_str("_id").map_err(|_| wrong())?;
        let seq = id.rsplit('|').next().and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
        Ok(Chunk {
            seq,
            at: document.get_datetime("at").map(|at| instant(*at)).map_err(|_| wrong())?,
            stream: match document.get_str("stream") {
                Ok("stderr") => Stream::Stderr,
                _ => Stream::Stdout,
            },
            data: document.get_binary_generic("data").map_err(|_| wrong())?.clone(),
        })
    }

    pub(super) fn unreachable(&self, detail: String) -> RecordsError {
        RecordsError::Unreachable { uri: self.uri.clone(), detail }
    }

    pub(super) fn unreadable(&self, collection: &'static str, detail: String) -> RecordsError {
        RecordsError::Unreadable { uri: self.uri.clone(), collection, detail }
    }
}

/// `<run>|<seq>`, with the number padded so that text order is its order.
pub(super) fn chunk_id(run: RunId, seq: u64) -> String {
    format!("{run}|{seq:012}")
}

pub(super) fn date(instant: DateTime<Utc>) -> bson::DateTime {
    bson::DateTime::from_millis(instant.timestamp_millis())
}

pub(super) fn instant(date: bson::DateTime) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(date.timestamp_millis()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_ids_sort_as_their_numbers_and_end_before_the_next_run() {
        let run: RunId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert!(chunk_id(run, 9) < chunk_id(run, 10));
        assert!(chunk_id(run, 999_999_999_999) < format!("{run}}}"));
    }
}
