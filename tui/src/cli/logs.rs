//! `carillon logs`: the output of a run, stored or arriving.

use carillon_core::id::{JobName, RunId};
use carillon_core::records::HistoryFilter;

use super::print::OutputSink;
use super::{Failure, print, run};
use crate::operator::Operator;

/// Pieces of output per read.
const BATCH: i64 = 64;

pub(super) async fn logs(operator: &Operator, what: &str, follow: bool) -> Result<(), Failure> {
    let id = find(operator, what).await?;
    if follow {
        let record = run::follow(operator, id, None).await?;
        if let Some(record) = record.filter(|r| !r.err.is_empty()) {
            print::note(&format!("{}: {}", record.outcome, record.err));
        }
        return Ok(());
    }
    let sink = OutputSink::new();
    let mut next = 0;
    loop {
        let chunks = operator.records.output_from(id, next, BATCH).await?;
        let Some(last) = chunks.last() else {
            return Ok(());
        };
        next = last.seq + 1;
        for chunk in &chunks {
            sink.write(&chunk.data)?;
        }
    }
}

/// A run by its id, or the newest run of a job.
async fn find(operator: &Operator, what: &str) -> Result<RunId, Failure> {
    if let Ok(id) = what.parse::<RunId>()
        && operator.records.get(id).await?.is_some()
    {
        return Ok(id);
    }
    let job = JobName::new(what).map_err(|e| Failure::Failed(format!("{what:?}: {e}")))?;
    let filter = HistoryFilter { job: Some(job), ..HistoryFilter::default() };
    let newest = operator.records.history(&filter, None, 1).await?.records.pop();
    newest
        .map(|record| record.id)
        .ok_or_else(|| Failure::Failed(format!("{what} is neither a run nor a job that has run")))
}
