//! `carillon history`.

use carillon_core::records::HistoryFilter;
use chrono::{Local, Utc};

use super::{Failure, Format, print};
use crate::operator::Operator;
use crate::text;

pub(super) async fn history(
    operator: &Operator,
    filter: &HistoryFilter,
    limit: usize,
    format: Format,
) -> Result<(), Failure> {
    let page = operator.records.history(filter, None, limit).await?;
    if format == Format::Json {
        return print::json(&page.records);
    }
    let now = Utc::now();
    let rows = page.records.into_iter().map(|r| {
        [
            r.start_time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string(),
            r.outcome.to_string(),
            text::duration(r.duration(now)),
            r.worker,
            r.id.to_string(),
            r.job_name,
            r.err,
        ]
    });
    print::table(["STARTED", "OUTCOME", "TOOK", "WORKER", "RUN", "JOB", "REASON"], rows)
}
