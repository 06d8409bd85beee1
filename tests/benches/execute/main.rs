//! What running a command costs: runs per second against a bare loop of posix_spawn, how soon a
//! process is there with a small and with a large worker, and how fast and in how much memory output
//! is taken against a pipe into nothing. No store takes part.
//!
//! Every figure that can be is a ratio of two things measured in turns in this run. None fails
//! anything.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

#[path = "../fleet/bars.rs"]
#[allow(dead_code, reason = "what the benchmark of a fleet needs, this one does not need all of")]
mod bars;
#[path = "../../../core/benches/time/ratio.rs"]
#[allow(dead_code, reason = "what the benchmarks of time need, this one does not need all of")]
mod ratio;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bars::Bars;
use ratio::Ratio;
use serde_json::Value;
use system_tests::programs;

const ROUNDS: usize = 5;
const RUNS: usize = 1_000;
/// What writes a gigabyte.
const FLOOD: &str = "head -c 1000000000 /dev/zero";

fn main() {
    let mut bars = Bars::default();
    rate(&mut bars);
    latency(&mut bars);
    output(&mut bars);
    bars.print();
}

/// Runs a command through a worker's executor.
fn trial(command: &str, times: usize, further: &[&str]) -> Value {
    let output = Command::new(programs::own("carillon-worker").unwrap())
        .args(["trial", command, "--times", &times.to_string()])
        .args(further)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn figure(told: &Value, name: &str) -> f64 {
    told[name].as_f64().unwrap()
}

fn secs(told: &Value) -> Duration {
    Duration::from_secs_f64(figure(told, "secs"))
}

/// The standard library uses posix_spawn where nothing but this is asked for.
fn bare(times: usize) -> Duration {
    let begun = Instant::now();
    for _ in 0..times {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "true"]).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(shell.status().unwrap().success());
    }
    begun.elapsed()
}

fn rate(bars: &mut Bars) {
    println!("`sh -c true` {RUNS} times, {ROUNDS} rounds");
    for at_once in ["1", "8"] {
        let ours = || secs(&trial("true", RUNS, &["--at-once", at_once]));
        let ratio = Ratio::measure(ROUNDS, (RUNS, RUNS), || bare(RUNS), ours);
        println!(
            "  {at_once} at once  {:6.0} runs/s, a bare loop {:6.0}/s: {:.2} ({:.2}-{:.2})",
            1.0 / ratio.ours,
            1.0 / ratio.theirs,
            ratio.middle,
            ratio.low,
            ratio.high
        );
        bars.at_least(
            &format!("runs, {at_once} at once, against bare spawns"),
            ratio.middle,
            0.5,
            "",
        );
    }
}

fn latency(bars: &mut Bars) {
    println!("from the order to the started shell, one after the other");
    let mut worst = [0.0_f64; 2];
    let mut p99s = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (n, resident) in ["50", "1024"].into_iter().enumerate() {
            let told = trial("true", RUNS, &["--resident", resident]);
            let (p50, p99) = (figure(&told, "startP50Millis"), figure(&told, "startP99Millis"));
            println!("  {resident:>4} MB resident  p50 {p50:.2} ms  p99 {p99:.2} ms");
            worst[n] = worst[n].max(p99);
            p99s[n].push(p99);
        }
    }
    let middle = |figures: &mut Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let (small, large) = (middle(&mut p99s[0]), middle(&mut p99s[1]));
    println!("  worst p99 {:.2} and {:.2} ms", worst[0], worst[1]);
    bars.at_most("p99 of a start at 1 GB resident against 50 MB", large / small, 1.3, "");
}

fn output(bars: &mut Bars) {
    println!("a gigabyte of output");
    let mut grown = 0.0_f64;
    let piped = || {
        let begun = Instant::now();
        let line = format!("{FLOOD} | cat > /dev/null");
        assert!(Command::new("/bin/sh").args(["-c", &line]).status().unwrap().success());
        begun.elapsed()
    };
    let ours = || {
        let told = trial(FLOOD, 1, &[]);
        grown = grown.max(figure(&told, "grownKib") / 1024.0);
        secs(&told)
    };
    let ratio = Ratio::measure(3, (1, 1), piped, ours);
    println!(
        "  {:.2} GB/s, into `cat` {:.2} GB/s: {:.2} ({:.2}-{:.2}), memory grew by {grown:.1} MiB",
        1.0 / ratio.ours,
        1.0 / ratio.theirs,
        ratio.middle,
        ratio.low,
        ratio.high
    );
    bars.at_least("output taken against a pipe into cat", ratio.middle, 0.5, "");
    bars.at_most("memory for a gigabyte of output", grown, 8.0, " MiB");
    for (what, command) in [
        ("yes", "yes | head -c 100000000"),
        ("100 MB without a newline", "head -c 100000000 /dev/zero | tr '\\0' x"),
        ("random bytes", "head -c 100000000 /dev/urandom"),
    ] {
        let grown = figure(&trial(command, 1, &[]), "grownKib") / 1024.0;
        println!("  {what}: memory grew by {grown:.1} MiB");
        bars.at_most(&format!("memory for {what}"), grown, 8.0, " MiB");
    }
}
