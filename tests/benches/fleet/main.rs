//! How a whole fleet does, on real servers and with real workers: claims against raw transactions
//! of etcd, how late commands start against a bare burst of spawns, how soon a dead or a leaving
//! worker is replaced, how many runs a second go from end to end, and how soon and in how much memory a worker knows all jobs against the
//! bare list of them.
//!
//! Every figure that can be is a ratio of two things measured in turns in this run, because
//! machines are noisy and differ. What is asked of the fleet, its bars, stands at the end, each
//! with whether it holds; none fails anything.
//!
//! `FLEET_BENCH=claims,cold` runs these parts only; `BENCH_MILLION=1` also starts a worker with a
//! million jobs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs
)]

mod bars;
mod burst;
mod claims;
mod cold;
mod lateness;
#[path = "../../../core/benches/time/ratio.rs"]
#[allow(dead_code, reason = "what the benchmarks of time need, this one does not need all of")]
mod ratio;
mod runs;
mod scene;
mod takeover;

use std::time::Instant;

use bars::Bars;
use system_tests::stack::Stack;
use tokio::runtime::Runtime;

fn main() {
    let only = std::env::var("FLEET_BENCH").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|only| only == part);
    let runtime = Runtime::new().unwrap();
    let begun = Instant::now();
    let mut bars = Bars::default();
    let stack = runtime.block_on(Stack::start()).unwrap();
    if wanted("claims") {
        claims::run(&runtime, &stack, &mut bars);
    }
    if wanted("burst") {
        runtime.block_on(burst::run(&stack, &mut bars));
    }
    if wanted("lateness") {
        runtime.block_on(lateness::run(&stack, &mut bars));
    }
    if wanted("takeover") {
        runtime.block_on(takeover::run(&stack, &mut bars));
    }
    if wanted("runs") {
        runtime.block_on(runs::run(&stack));
    }
    if wanted("cold") {
        runtime.block_on(cold::run(&stack, &mut bars));
    }
    bars.print();
    println!("in {:.0} s", begun.elapsed().as_secs_f64());
}
