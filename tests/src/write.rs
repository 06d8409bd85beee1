//! One thing at a time into MongoDB, as scenarios and benchmarks want it, the way workers write it.

use anyhow::{Result, ensure};
use carillon_core::id::RunId;
use carillon_core::records::{Batch, Output, Records};
use carillon_core::run::{Chunk, RunRecord};

/// Records that a run has started.
///
/// # Errors
///
/// When MongoDB does not take it.
pub async fn started(records: &Records, record: &RunRecord) -> Result<()> {
    write(records, Batch { started: vec![record], ..Batch::default() }).await
}

/// Records what became of a run or a slot.
///
/// # Errors
///
/// When MongoDB does not take it.
pub async fn finished(records: &Records, record: &RunRecord) -> Result<()> {
    write(records, Batch { finished: vec![record], ..Batch::default() }).await
}

/// Stores output that is kept for ever.
///
/// # Errors
///
/// When MongoDB does not take it.
pub async fn output(records: &Records, run: RunId, chunks: &[Chunk]) -> Result<()> {
    let output = Output { run, expire_at: None, chunks };
    write(records, Batch { output: vec![output], ..Batch::default() }).await
}

async fn write(records: &Records, batch: Batch<'_>) -> Result<()> {
    let refused = records.write(&batch).await?;
    ensure!(refused.is_empty(), "refused: {refused:?}");
    Ok(())
}
