//! What is recorded, on a real server: how long a page of history and a search take among very many
//! records, how soon output is with its reader, how many records a second are written through
//! Carillon's own functions against the driver's bare insert, and the worker's spool against bare
//! appends.
//!
//! A million records are stored first, which SecantusDB takes about ten minutes for;
//! `BENCH_RECORDS=100000` stores fewer. `RESULTS_BENCH=latency,writes` runs these parts only. What
//! is asked of all this stands at the end, each with whether it holds; nothing fails anything.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "../fleet/bars.rs"]
#[allow(dead_code, reason = "what the benchmark of a fleet needs, this one does not need all of")]
mod bars;
mod history;
mod latency;
mod spool;
mod writes;

use std::time::Instant;

use bars::Bars;
use carillon_core::id::{JobName, RunId};
use carillon_core::run::{Outcome, RunRecord, Trigger};
use chrono::{DateTime, TimeDelta, Utc};
use system_tests::stack::Stack;
use tokio::runtime::Runtime;

fn main() {
    let only = std::env::var("RESULTS_BENCH").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|only| only == part);
    let runtime = Runtime::new().unwrap();
    let begun = Instant::now();
    let mut bars = Bars::default();
    let stack = runtime.block_on(Stack::start()).unwrap();
    if wanted("latency") {
        runtime.block_on(latency::run(&stack, &mut bars));
    }
    if wanted("spool") {
        spool::run();
    }
    if wanted("writes") {
        runtime.block_on(writes::run(&stack));
    }
    if wanted("history") {
        runtime.block_on(history::run(&stack, &mut bars));
    }
    bars.print();
    println!("in {:.0} s", begun.elapsed().as_secs_f64());
}

/// The record of a run that ended, the `n`th before `now` of runs that begin a second apart: one of
/// 500 jobs, one in a thousand failed, one in a hundred asked for by hand, and every 50,000th of a
/// job that runs seldom.
fn record(n: u32, now: DateTime<Utc>) -> RunRecord {
    let at = now - TimeDelta::seconds(n.into());
    let name = if n % 50_000 == 7 { "seldom".to_owned() } else { format!("job-{}", n % 500) };
    let failed = n % 1_000 == 3;
    let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
    let mut record = RunRecord::new(RunId::new(at), &JobName::new(&name).unwrap(), outcome, at);
    record.command = "/opt/pay/settle.sh --all".to_owned();
    record.output = format!("line {n}: nothing special happened\n").repeat(5);
    record.end_time = Some(at + TimeDelta::milliseconds(i64::from(n % 5_000)));
    record.scheduled_time = Some(at);
    record.claimed_time = Some(at);
    record.worker = format!("w{}", n % 7);
    if failed {
        record.err = "exit code 3".to_owned();
    }
    if n.is_multiple_of(100) {
        record.trigger = Trigger::Manual;
    }
    record
}
