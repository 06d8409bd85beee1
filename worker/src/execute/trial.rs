//! One command, many times, without any store: what a benchmark asks the worker's program for.

use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use carillon_core::id::RunId;
use carillon_core::job::Job;
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cgroup::Cgroups;
use super::guard::Guard;
use super::{Event, Executor, Spec};
use crate::clock;

/// What to run, and how often.
#[derive(Debug, Args)]
pub(crate) struct Trial {
    /// The command, for the shell
    command: String,
    /// How often
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// How many of them at once
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// How many megabytes are resident meanwhile
    #[arg(long, default_value_t = 0)]
    resident: usize,
    /// With a control group for each run
    #[arg(long)]
    cgroups: bool,
}

/// One run, as seen by a receiver that takes everything at once.
struct Seen {
    started_after: Duration,
    output_bytes: u64,
}

impl Trial {
    /// Runs it and prints one line of JSON: seconds in all, the starts' percentiles, and how much the
    /// memory grew.
    ///
    /// # Errors
    /// A run did not succeed.
    pub(crate) async fn run(self) -> Result<()> {
        run(self).await
    }
}

async fn run(trial: Trial) -> Result<()> {
    let ballast = vec![1_u8; trial.resident << 20];
    let cgroups = trial.cgroups.then(Cgroups::find).transpose().map_err(anyhow::Error::msg)?;
    let executor = Executor::new(Guard::start()).grouping(cgroups);
    // The first one waits for the guard.
    one(&executor, "true").await?;
    let before = memory("VmRSS:");
    let begun = Instant::now();
    let (mut under_way, mut all) = (JoinSet::new(), Vec::new());
    for _ in 0..trial.times {
        if under_way.len() >= trial.at_once
            && let Some(seen) = under_way.join_next().await
        {
            all.push(seen??);
        }
        let (executor, command) = (executor.clone(), trial.command.clone());
        under_way.spawn(async move { one(&executor, &command).await });
    }
    while let Some(seen) = under_way.join_next().await {
        all.push(seen??);
    }
    let secs = begun.elapsed().as_secs_f64();
    let mut starts: Vec<Duration> = all.iter().map(|seen| seen.started_after).collect();
    starts.sort_unstable();
    let percentile = |n: usize| {
        let start = starts.get(starts.len().saturating_sub(1) * n / 100).copied();
        start.unwrap_or_default().as_secs_f64() * 1e3
    };
    let told = json!({
        "secs": secs,
        "startP50Millis": percentile(50),
        "startP99Millis": percentile(99),
        "outputBytes": all.iter().map(|seen| seen.output_bytes).sum::<u64>(),
        "grownKib": memory("VmHWM:").saturating_sub(before),
        "residentMib": ballast.iter().filter(|byte| **byte == 1).count() >> 20,
    });
    writeln!(io::stdout(), "{told}")?;
    Ok(())
}

async fn one(executor: &Executor, command: &str) -> Result<Seen> {
    let job = Job { command: command.to_owned(), ..Job::default() };
    let run = RunId::new(clock::now());
    let spec = Spec::new(run, &job, vec![("CARILLON_RUN".to_owned(), run.to_string())]);
    let (_orders, ordered) = mpsc::channel(1);
    let (events, mut happened) = mpsc::channel(4);
    let asked = Instant::now();
    let mut started = None;
    let following = async {
        while let Some(event) = happened.recv().await {
            if matches!(event, Event::Started { .. }) {
                started = Some(asked.elapsed());
            }
        }
    };
    let (finished, ()) = tokio::join!(executor.run(spec, ordered, events), following);
    anyhow::ensure!(finished.err.is_empty(), "{command}: {}", finished.err);
    let started_after = started.context("it never said that it had started")?;
    Ok(Seen { started_after, output_bytes: finished.output_bytes })
}

/// A line of /proc/self/status, in KiB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let figure = status.lines().find_map(|l| l.strip_prefix(line));
    figure.and_then(|f| f.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
