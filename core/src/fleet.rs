//! The workers as the fleet sees them: their registrations, whose clock is off, and the settings
//! that all of them share.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::WorkerId;
use crate::zones::parse_zone;

/// The version of the rules by which slots are computed: the tz database and the dialect, such as
/// `2025b/2`.
///
/// A worker whose version is not the fleet's claims nothing.
pub fn rules_version() -> &'static str {
    static RULES: LazyLock<String> =
        LazyLock::new(|| format!("{}/{DIALECT}", chrono_tz::IANA_TZDB_VERSION));
    &RULES
}

/// The version of the schedule dialect, which is part of the rules.
const DIALECT: u32 = 2;

/// How far two clocks of the fleet may be apart, where the workers were told nothing else.
pub const MAX_SKEW: TimeDelta = TimeDelta::seconds(10);

/// Whether rules of the version `one` are older than those of `other`.
pub fn is_older(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let (zones, dialect) = text.split_once('/').unwrap_or((text, ""));
        (dialect.parse::<u32>().unwrap_or(0), zones.to_owned())
    };
    parts(one) < parts(other)
}

/// The value of `workers/<worker>`, written by the worker under its lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Host name.
    pub host: String,
    /// Process id of the worker.
    pub pid: u32,
    /// What jobs select workers by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Version of the program.
    pub version: String,
    /// See [`rules_version`].
    pub rules_version: String,
    /// How many runs it takes at once.
    pub capacity: u32,
    /// How many it has now.
    #[serde(default)]
    pub running: u32,
    /// 99th percentile of the delay from when a slot was due to the start, over the last starts, in
    /// milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_p99_millis: Option<u64>,
    /// The worker's clock when it wrote this.
    pub clock: DateTime<Utc>,
    /// When the worker started.
    pub started: DateTime<Utc>,
    /// Whether it takes nothing new.
    #[serde(default)]
    pub draining: bool,
    /// Whether it has as many runs as it takes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// Why it claims nothing although it lives; absent where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing_by: Option<String>,
    /// Whether that is because it found etcd restored from a backup itself; not where it only hears
    /// so from others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// The etcd revision that its watch has reached.
    #[serde(default)]
    pub watch_revision: i64,
    /// What [`crate::replica::Replica::table_hash`] says of the jobs it knows, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table_hash: String,
    /// Output waiting for MongoDB, in bytes.
    #[serde(default)]
    pub spool_bytes: u64,
}

/// A worker as found in etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerEntry {
    /// From the key.
    pub id: WorkerId,
    /// The lease that the key hangs on; 0 where somebody wrote it by hand.
    pub lease: i64,
    /// etcd revision of the last write.
    pub mod_revision: i64,
    /// The registration, or why it cannot be read.
    pub value: Result<Registration, String>,
    /// The writer's clock minus the reader's at the moment of reading.
    pub skew: Option<TimeDelta>,
}

/// The value of `settings`: what holds for the whole fleet.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetSettings {
    /// The zone of jobs that name none; UTC where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_timezone: Option<String>,
    /// For how many days records are kept; for ever where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// The rules the fleet computes by; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules_version: Option<String>,
    /// Nothing is claimed while this is set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// When `carillon recover` last put the cursors right after a restore of etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<DateTime<Utc>>,
    /// Fields of later versions, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl FleetSettings {
    /// The default zone.
    ///
    /// # Errors
    /// Says that the stored zone is not one: then nothing without a zone of its own may run.
    pub fn zone(&self) -> Result<Tz, String> {
        self.default_timezone.as_deref().map_or(Ok(Tz::UTC), parse_zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_older_by_their_dialect_first_and_then_by_their_zones() {
        let order = ["2026a/1", "2024b/2", "2025a/2", "2025b/2", "2020a/10"];
        for pair in order.windows(2) {
            assert!(is_older(pair[0], pair[1]) && !is_older(pair[1], pair[0]), "{pair:?}");
        }
        assert!(!is_older(rules_version(), rules_version()));
    }

    #[test]
    fn settings_default_to_utc_and_name_a_wrong_zone() {
        assert_eq!(FleetSettings::default().zone(), Ok(Tz::UTC));
        let wrong =
            FleetSettings { default_timezone: Some("Nowhere".into()), ..Default::default() };
        assert_eq!(wrong.zone(), Err("`Nowhere` is not a time zone such as Asia/Shanghai".into()));
    }
}
