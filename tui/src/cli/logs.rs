//! `carillon logs`: the output of a run, stored or arriving.

use carillon_core::id::{JobName, RunId};
use carillon_core::records::HistoryFilter;
use carillon_core::run::{Outcome, RunRecord, Stream};

use super::print::OutputSink;
use super::{Failure, print, run};
use crate::operator::Operator;

/// Records per read while a run is looked for.
const PAGE: usize = 200;
/// How it is to be printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<u64>,
    pub only: Option<Stream>,
    /// Unchanged also onto a terminal.
    pub raw: bool,
}

pub(super) async fn logs(operator: &Operator, what: &str, how: How) -> Result<(), Failure> {
    let id = find(operator, what).await?;
    let sink = OutputSink::new(how.raw);
    let mut pieces = operator.records.output_of(id).only(how.only);
    if let Some(lines) = how.tail {
        pieces = pieces.last_lines(lines);
    }
    if how.follow {
        let record = run::follow(operator, id, pieces.follow(), &sink, None).await?;
        if let Some(record) = record.filter(|r| !r.err.is_empty()) {
            print::note(&format!("{}: {}", record.outcome, record.err));
        }
        return Ok(());
    }
    loop {
        let chunks = pieces.read().await?;
        if chunks.is_empty() {
            return Ok(());
        }
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
        before = page.reached;
        if !page.more || before.is_none() {
            let message = format!("{what} is neither a run nor a job that has run");
            return Err(Failure::Failed(message));
        }
    }
}
