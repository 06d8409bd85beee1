//! `carillon purge`: deletes records and output that nobody wants to keep.

use carillon_core::id::JobName;
use carillon_core::records::Purged;
use chrono::Utc;

use super::when::When;
use super::{Failure, confirmed, print, told};
use crate::operator::Operator;
use crate::text;

/// What is to be deleted, and asked.
#[derive(Debug, clap::Args)]
pub struct Purge {
    /// Started before then: an instant in RFC 3339, or how long ago, like 30d
    #[arg(long, value_name = "WHEN")]
    pub(super) older_than: When,
    /// Only of this job
    #[arg(long)]
    pub(super) job: Option<JobName>,
    /// Say what would be done and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
}

pub(super) async fn purge(operator: &Operator, asked: &Purge) -> Result<(), Failure> {
    let job = asked.job.as_ref();
    let now = Utc::now();
    let older_than = asked.older_than.instant(now);
    if older_than > now {
        return Err(Failure::Failed("--older-than is in the future".to_owned()));
    }
    if asked.dry_run || !asked.yes {
        let mut count = operator.records.purge(older_than, job, false);
        let mut found = Purged::default();
        while let Some(so_far) = count.next().await? {
            found = so_far;
        }
        let of = job.map(|job| format!(" of {job}")).unwrap_or_default();
        let before = older_than.format("%Y-%m-%d %H:%M:%S UTC");
        print::clean_line(&format!(
            "{}{of}, started before {before}: to be deleted",
            shown(found)
        ))?;
        if asked.dry_run || found.records == 0 {
            return Ok(());
        }
        if !confirmed()? {
            return Err(Failure::Failed("nothing was done".to_owned()));
        }
    }
    let progress = |so_far| print::aside(&format!("{} deleted so far", shown(so_far)));
    let done = told(operator.purge(older_than, job, now, progress).await?);
    print::line(&format!("{} deleted", shown(done)))
}

fn shown(purged: Purged) -> String {
    let output = text::bytes(purged.bytes);
    format!("{} with {output} of output", text::count(purged.records, "record"))
}
