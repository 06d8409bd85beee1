//! `carillon history`.

use carillon_core::records::HistoryFilter;
use carillon_core::run::RunRecord;
use chrono::{DateTime, Local, Utc};

use super::{Failure, Format, print};
use crate::operator::Operator;
use crate::text;

/// Records per page.
const PAGE: usize = 500;

pub(super) async fn history(
    operator: &Operator,
    filter: &HistoryFilter,
    limit: usize,
    format: Format,
) -> Result<(), Failure> {
    let (mut records, mut before) = (Vec::new(), None);
    let mut told = false;
    while records.len() < limit {
        let wanted = PAGE.min(limit - records.len());
        let page = operator.records.history(filter, before, wanted).await?;
        before = page.reached;
        let found = page.records.len();
        records.extend(page.records);
        let Some((at, _)) = before.filter(|_| page.more) else { break };
        if found < wanted && !std::mem::replace(&mut told, true) {
            print::aside(&format!("looked back to {} so far", clock(at)));
        }
    }
    if format == Format::Json {
        return print::json(&records);
    }
    let now = Utc::now();
    let rows = records.into_iter().map(|r| {
        [
            clock(r.start_time),
            slot(&r),
            r.outcome.to_string(),
            text::duration(r.duration(now)),
            r.trigger.to_string(),
            r.worker,
            r.id.to_string(),
            r.job_name,
            r.err,
        ]
    });
    let header =
        ["STARTED", "SLOT", "OUTCOME", "TOOK", "TRIGGER", "WORKER", "RUN", "JOB", "REASON"];
    print::table(header, rows)
}

fn clock(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// The slot, or the first of a gap and how many it has; a dash for a run outside the schedule.
fn slot(record: &RunRecord) -> String {
    match (record.from_slot, record.count, record.scheduled_time) {
        (Some(from), Some(count), _) if count > 1 => {
            format!("{} and {} more", clock(from), count - 1)
        }
        (Some(at), ..) | (_, _, Some(at)) => clock(at),
        _ => "-".to_owned(),
    }
}
