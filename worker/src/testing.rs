//! Instants and a fleet's state, for the tests of several modules.

use carillon_core::decide::Cursor;
use carillon_core::fleet::rules_version;
use carillon_core::replica::Item;
use chrono::{DateTime, Utc};

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A key of the fleet `/cron` with its value, written at this revision.
pub(crate) fn put(key: &str, value: impl AsRef<[u8]>, revision: i64) -> Item {
    Item {
        key: format!("/cron/{key}").into(),
        value: Some(value.as_ref().to_vec()),
        mod_revision: revision,
        create_revision: revision,
        lease: 0,
    }
}

/// The cursor of a job that was revision 5 when it was decided up to `through`.
pub(crate) fn cursor(job: &str, expr: &str, through: &str) -> Item {
    let cursor = Cursor {
        rev: 5,
        expr: expr.to_owned(),
        zone: "UTC".to_owned(),
        anchor: None,
        enabled: true,
        rules: rules_version().to_owned(),
        through: at(through),
        offset: 0,
        updated_at: None,
    };
    put(&format!("cursor/{job}"), serde_json::to_vec(&cursor).unwrap(), 6)
}
