//! What the scenarios share: a fleet under trial with a mixed load, and the verdict.

use std::time::Duration;

use system_tests::oracle::check::Report;
use system_tests::trial::{Load, Options, Trial};

/// A start deadline of some of the jobs, in seconds: short enough that an outage of twenty seconds
/// makes them miss slots, long enough that others still have to run.
pub const SHORT: u32 = 20;

/// A fleet with jobs of every kind, about eight firings a second.
pub async fn trial(workers: usize) -> Trial {
    with_options(Options { workers, ..Options::default() }).await
}

pub async fn with_options(options: Options) -> Trial {
    let mut trial = Box::pin(Trial::start(options)).await.unwrap();
    for number in 0..4 {
        trial.put(&format!("each-{number}"), &Load::default()).await.unwrap();
    }
    let load = Load::default;
    let loads = [
        ("short", Load { deadline_secs: SHORT, ..load() }),
        ("slow", Load { every: 2, work: "sleep 3", ..load() }),
        ("alone", Load { concurrency: "forbid", work: "sleep 0.3", ..load() }),
        ("alone-slow", Load { concurrency: "forbid", work: "sleep 2.5", ..load() }),
        ("replace", Load { every: 5, concurrency: "replace", work: "sleep 30", ..load() }),
        ("fails", Load { every: 3, work: "false", ..load() }),
    ];
    for (name, load) in loads {
        trial.put(name, &load).await.unwrap();
    }
    trial.fires().await.unwrap();
    trial
}

/// All that has happened was as promised.
pub async fn assert_well(trial: &mut Trial, after: &str) -> Report {
    let report = trial.verify().await.unwrap_or_else(|error| fail(&format!("{after}: {error:#}")));
    eprintln!("{after}: {report}");
    if !report.violations.is_empty() {
        fail(&format!("after {after}: {report}"));
    }
    report
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[allow(clippy::panic, reason = "that is how a scenario fails")]
fn fail(told: &str) -> ! {
    panic!("{told}")
}
