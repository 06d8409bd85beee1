//! `carillon info`: versions, paths and the state of both stores.

use std::path::Path;

use carillon_core::fleet::rules_version;
use carillon_core::settings::Connection;
use serde_json::{Value, json};

use super::{Failure, Format, print};
use crate::operator::Operator;

pub(super) async fn info(
    operator: &Operator,
    connection: &Connection,
    config: &Path,
    state: &Path,
    format: Format,
) -> Result<(), Failure> {
    let (etcd, mongo) = tokio::join!(operator.etcd.ping(), operator.records.ping());
    let etcd_state = match &etcd {
        Ok((rtt, revision)) => format!("answers in {rtt:.1?}, revision {revision}"),
        Err(e) => e.to_string(),
    };
    let mongo_state = match &mongo {
        Ok(rtt) => format!("answers in {rtt:.1?}"),
        Err(e) => e.to_string(),
    };
    let facts = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("rules", rules_version().to_owned()),
        ("user", operator.who.to_string()),
        ("config", config.display().to_string()),
        ("state", state.display().to_string()),
        ("prefix", connection.keys.fleet().to_owned()),
        ("etcd", connection.endpoints.join(",")),
        ("etcdState", etcd_state),
        ("mongo", connection.mongo.to_string()),
        ("mongoState", mongo_state),
    ];
    if format == Format::Json {
        let object: serde_json::Map<String, Value> =
            facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        print::json(&object)?;
    } else {
        for (name, value) in &facts {
            let (name, value) = match (*name, value.split_once('/')) {
                ("rules", Some((zones, rules))) => {
                    ("time zones", format!("{zones} (IANA), schedule rules {rules}"))
                }
                (name, _) => (name, value.clone()),
            };
            print::clean_line(&format!("{name:<11} {value}"))?;
        }
    }
    if etcd.is_err() || mongo.is_err() { Err(Failure::Exit(3)) } else { Ok(()) }
}
