//! `carillon next`: when a schedule fires, without any store.

use carillon_core::schedule::Schedule;
use carillon_core::zones::parse_zone;
use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use serde_json::json;

use super::{Failure, Format, print};

pub(super) fn next(
    expression: &str,
    zone: &str,
    from: Option<DateTime<FixedOffset>>,
    n: u32,
    format: Format,
) -> Result<(), Failure> {
    let schedule = Schedule::parse(expression)
        .map_err(|e| Failure::Failed(format!("{e}\n{}", e.caret(expression))))?;
    let zone = parse_zone(zone).map_err(Failure::Failed)?;
    let from = from.map_or_else(Utc::now, |at| at.to_utc());
    let firings: Vec<String> = schedule
        .upcoming(zone, from)
        .take(n as usize)
        .map(|at| {
            let local = at.with_timezone(&zone);
            let text = local.to_rfc3339_opts(SecondsFormat::Secs, false);
            match schedule.dst_note(zone, at) {
                Some(note) if format == Format::Table => format!("{text}  {note}"),
                _ => text,
            }
        })
        .collect();
    if format == Format::Json {
        return print::json(&json!({
            "expression": expression,
            "zone": zone.name(),
            "description": schedule.describe(),
            "firings": firings,
        }));
    }
    for firing in &firings {
        print::line(firing)?;
    }
    if firings.is_empty() {
        print::note("it never fires again");
    }
    Ok(())
}
