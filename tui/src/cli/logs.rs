//! `carillon logs`: the output of a run, stored or arriving.

use carillon_core::id::{JobName, RunId};
use carillon_core::records::HistoryFilter;
use carillon_core::run::{Outcome, RunRecord};

use super::print::OutputSink;
use super::{Failure, print, run};
use crate::operator::Operator;

/// Records per read while a run is looked for.
const PAGE: usize = 200;
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

/// A run by its id, or of a job: its live run, else its newest one. Slots that did not run have no
/// output and are passed over.
async fn find(operator: &Operator, what: &str) -> Result<RunId, Failure> {
    if let Ok(id) = what.parse::<RunId>()
        && operator.records.get(id).await?.is_some()
    {
        return Ok(id);
    }
    let job = JobName::new(what).map_err(|e| Failure::Failed(format!("{what:?}: {e}")))?;
    let of = |outcome| HistoryFilter { job: Some(job.clone()), outcome, ..Default::default() };
    let live = of(Some(Outcome::Running));
    if let Some(record) = operator.records.history(&live, None, 1).await?.records.pop() {
        return Ok(record.id);
    }
    let mut before = None;
    loop {
        let page = operator.records.history(&of(None), before, PAGE).await?;
        let ran = |r: &&RunRecord| !matches!(r.outcome, Outcome::Skipped | Outcome::Missed);
        if let Some(record) = page.records.iter().find(ran) {
            return Ok(record.id);
        }
        before = page.records.last().map(|r| (r.start_time, r.id));
        if !page.more || before.is_none() {
            let message = format!("{what} is neither a run nor a job that has run");
            return Err(Failure::Failed(message));
        }
    }
}
