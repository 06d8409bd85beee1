//! Instants, names and a fleet's state, for the tests of several modules.

use chrono::{DateTime, Utc};

use crate::id::JobName;
use crate::keys::Keys;
use crate::replica::{Feed, Item, Replica};

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub(crate) fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

/// A key of the fleet `/cron` with its value, written at this revision.
pub(crate) fn put(key: &str, value: &str, revision: i64) -> Item {
    Item {
        key: format!("/cron/{key}").into(),
        value: Some(value.into()),
        mod_revision: revision,
        create_revision: revision,
        lease: 0,
    }
}

/// The state after these keys were written one after the other under lease 7, as it is read at
/// `now`.
pub(crate) fn replica<K: AsRef<str>>(items: &[(K, String)], now: &str) -> Replica {
    let items = items.iter().zip(2..);
    let items = items.map(|((key, value), rev)| Item { lease: 7, ..put(key.as_ref(), value, rev) });
    let feed = Feed::Snapshot { revision: 99, cluster: 1, items: items.collect() };
    let mut replica = Replica::default();
    replica.apply(&Keys::new("/cron").unwrap(), &feed, at(now));
    replica
}
