//! `carillon workers`.

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
                (if r.draining || asked { "draining" } else { "ready" }).to_owned(),
                format!("{}/{}", r.running, r.capacity),
                r.lateness_p99_millis.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
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
        ["WORKER", "HOST", "STATE", "RUNNING", "LATE P99", "UP", "VERSION", "RULES", "LABELS"],
        rows,
    )
}
