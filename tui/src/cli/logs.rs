//! `carillon logs`: the output of a run, stored or arriving.

use carillon_core::id::{JobName, RunId};
use carillon_core::records::HistoryFilter;
use carillon_core::run::{Outcome, RunRecord, Stream};

use super::print::OutputSink;
use super::{Failure, print, run};
use crate::operator::Operator;

/// Records per read while a run is looked for.
const PAGE: usize = 200;
/// Whose output, how much of it, and how it is printed.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// A run id or a job
    pub(super) what: String,
    /// Follow a live run to its end
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(super) tail: Option<u64>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    pub(super) stdout: bool,
    /// Only standard error
    #[arg(long)]
    pub(super) stderr: bool,
    /// Every byte as the job wrote it, also onto a terminal, which may obey it
    #[arg(long)]
    pub(super) raw: bool,
}

pub(super) async fn logs(operator: &Operator, asked: &Logs) -> Result<(), Failure> {
    let id = find(operator, &asked.what).await?;
    let only = match (asked.stdout, asked.stderr) {
        (true, _) => Some(Stream::Stdout),
        (_, true) => Some(Stream::Stderr),
        _ => None,
    };
    let sink = OutputSink::new(asked.raw);
    let mut pieces = operator.records.output_of(id).only(only);
    if let Some(lines) = asked.tail {
        pieces = pieces.last_lines(lines);
    }
    if asked.follow {
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
    if let Some(record) = operator.records.overview(&live, None, 1).await?.records.pop() {
        return Ok(record.id);
    }
    let mut before = None;
    loop {
        let page = operator.records.overview(&of(None), before, PAGE).await?;
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
