//! `carillon workers`.

use carillon_core::fleet::Registration;
use chrono::Utc;
use serde_json::json;

use super::{Failure, Format, print, replica};
use crate::operator::Operator;
use crate::text;

pub(super) async fn workers(operator: &Operator, format: Format) -> Result<(), Failure> {
    let replica = replica(operator).await?;
    let now = Utc::now();
    if format == Format::Json {
        let all: Vec<_> = replica
            .workers
            .values()
            .map(|w| match &w.value {
                Ok(value) => json!({"id": w.id, "registration": value}),
                Err(problem) => json!({"id": w.id, "problem": problem}),
            })
            .collect();
        return print::json(&all);
    }
    let rows = replica.workers.values().map(|worker| match &worker.value {
        Ok(r) => {
            let labels: Vec<String> = r.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let asked = replica.drains.contains(&worker.id);
            [
                worker.id.to_string(),
                r.host.clone(),
                state(r, asked).to_owned(),
                format!("{}/{}", r.running, r.capacity),
                r.lateness_p99_millis.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
                if r.spool_bytes == 0 { String::new() } else { text::bytes(r.spool_bytes) },
                text::ago(now - r.started),
                r.version.clone(),
                r.rules_version.clone(),
                labels.join(","),
            ]
        }
        Err(problem) => {
            let mut row = std::array::from_fn(|_| "-".to_owned());
            row[0] = worker.id.to_string();
            row[2] = format!("unreadable: {problem}");
            row
        }
    });
    print::table(
        [
            "WORKER", "HOST", "STATE", "RUNNING", "LATE P99", "SPOOL", "UP", "VERSION", "RULES",
            "LABELS",
        ],
        rows,
    )?;
    for worker in replica.workers.values() {
        let why = worker.value.as_ref().ok().and_then(|r| r.standing_by.as_ref());
        if let Some(why) = why {
            print::note(&format!("{} stands by: {why}", worker.id));
        }
    }
    Ok(())
}

fn state(r: &Registration, asked_to_drain: bool) -> &'static str {
    match r {
        _ if r.draining || asked_to_drain => "draining",
        _ if r.standing_by.is_some() => "standing by",
        _ if r.full => "full",
        _ => "ready",
    }
}
