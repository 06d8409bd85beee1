//! `carillon history`.

use carillon_core::id::JobName;
use carillon_core::records::HistoryFilter;
use carillon_core::run::{Outcome, RunRecord, Trigger};
use chrono::Utc;

use super::print::{self, clock};
use super::when::When;
use super::{Failure, Format, FormatArgument};
use crate::operator::Operator;
use crate::text;

/// Records per page.
const PAGE: usize = 500;

/// Which records, and how they are printed.
#[derive(Debug, clap::Args)]
pub struct History {
    /// Only of this job
    #[arg(long)]
    pub(super) job: Option<JobName>,
    /// Only with this outcome: running, succeeded, failed, timedOut, killed, lost, skipped
    /// or missed
    #[arg(long)]
    pub(super) outcome: Option<Outcome>,
    /// Only of this worker
    #[arg(long)]
    pub(super) worker: Option<String>,
    /// Only started for this reason: schedule, manual, retry, rerun, backfill or after
    #[arg(long)]
    pub(super) trigger: Option<Trigger>,
    /// Only started since then: an instant in RFC 3339, or how long ago, like 2h or 7d
    #[arg(long, value_name = "WHEN")]
    pub(super) since: Option<When>,
    /// Only started before then
    #[arg(long, value_name = "WHEN")]
    pub(super) until: Option<When>,
    /// Only with this text in the job's name, the reason, the kept output or the worker
    #[arg(long)]
    pub(super) text: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) format: FormatArgument,
}

pub(super) async fn history(operator: &Operator, asked: History) -> Result<(), Failure> {
    let now = Utc::now();
    let at = |when: When| when.instant(now);
    let (limit, format) = (asked.limit as usize, asked.format.output);
    let filter = HistoryFilter {
        job: asked.job,
        outcome: asked.outcome,
        worker: asked.worker,
        trigger: asked.trigger,
        since: asked.since.map(at),
        until: asked.until.map(at),
        text: asked.text,
    };
    let (mut records, mut before) = (Vec::new(), None);
    let mut told = false;
    while records.len() < limit {
        let wanted = PAGE.min(limit - records.len());
        let page = match format {
            Format::Json => operator.records.history(&filter, before, wanted).await?,
            Format::Table => operator.records.overview(&filter, before, wanted).await?,
        };
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
    let rows = records.into_iter().map(|r| {
        [
            clock(r.start_time),
            slot(&r),
            r.outcome.to_string(),
            r.took(now).map_or_else(|| "-".to_owned(), text::duration),
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
