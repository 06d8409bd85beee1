//! `make soak`: everything that can be done to a fleet, in a random order, for as long as asked.
//!
//! After each fault the outside oracle judges all that has happened so far. The same seed makes the
//! same faults in the same order; what they meet is up to the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use clap::{Parser, ValueEnum};
use system_tests::oracle::check::{Kind, Report};
use system_tests::programs;
use system_tests::proxy::Mode;
use system_tests::trial::{CutOff, Load, Options, POINTS, Trial};
use tokio::time::{Instant, sleep};

/// Room for etcd, small enough to be filled in seconds, in bytes.
const QUOTA: u64 = 160 << 20;
/// How many revisions etcd keeps when it compacts, every five minutes.
const KEPT_REVISIONS: u32 = 1_000;
/// Past the lease of a worker, of ten seconds.
const PAST_LEASE: Duration = Duration::from_secs(14);

/// Does random faults to a fleet under load, and judges it from outside.
#[derive(Debug, Parser)]
struct Arguments {
    /// For how long
    #[arg(long, env = "MINUTES", default_value_t = 30.0)]
    minutes: f64,
    /// What the order of faults follows from [default: another one each time]
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many jobs, most of which run every second
    #[arg(long, env = "JOBS", default_value_t = 60)]
    jobs: usize,
    /// How many workers
    #[arg(long, env = "WORKERS", default_value_t = 4)]
    workers: usize,
    /// Faults to leave out, separated by commas
    #[arg(long, env = "WITHOUT", value_delimiter = ',')]
    without: Vec<Fault>,
    /// The only faults to do, separated by commas
    #[arg(long, env = "ONLY", value_delimiter = ',')]
    only: Vec<Fault>,
}

/// What can be done to a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Fault {
    KillWorker,
    DieAtPoint,
    PauseWorker,
    RollingRestart,
    KillLeader,
    KillFollower,
    PauseLeader,
    LoseQuorum,
    CutOff,
    LoseAnswers,
    SlowNetwork,
    Compact,
    FillEtcd,
    ClockAhead,
    ClockBehind,
    ClockSteps,
    ChangeJobs,
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_of<T: Clone>(&mut self, list: &[T]) -> Result<T> {
        let count = u64::try_from(list.len())?.max(1);
        let index = usize::try_from(self.next() % count)?;
        list.get(index).cloned().context("nothing to choose from")
    }

    /// Between so many seconds.
    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        let millis = from * 1_000 + self.next() % ((to - from) * 1_000).max(1);
        Duration::from_millis(millis)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Box::pin(soak(&arguments)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("soak: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as promised.
async fn soak(arguments: &Arguments) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| Utc::now().timestamp_millis().unsigned_abs());
    let faults: Vec<Fault> = Fault::value_variants()
        .iter()
        .copied()
        .filter(|fault| arguments.only.is_empty() || arguments.only.contains(fault))
        .filter(|fault| !arguments.without.contains(fault))
        .collect();
    tell(&format!("soak: SEED={seed}, {} minutes, {} jobs", arguments.minutes, arguments.jobs));
    let mut random = Random(seed);
    // Compacted now and then, as every etcd should be: it keeps all that ever was otherwise.
    let etcd_arguments = vec![
        format!("--quota-backend-bytes={QUOTA}"),
        "--auto-compaction-mode=revision".to_owned(),
        format!("--auto-compaction-retention={KEPT_REVISIONS}"),
    ];
    // Of the last soak only: it may be many gigabytes.
    let folder = programs::root().join("target/soak");
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    tell(&format!("soak: data and logs in {}", folder.display()));
    let options = Options { workers: arguments.workers, etcd_arguments, folder: Some(folder) };
    let mut trial = Trial::start(options).await?;
    for number in 0..arguments.jobs {
        trial.put(&format!("job-{number}"), &load(number)).await?;
    }
    trial.fires().await?;

    let until = Instant::now() + Duration::from_secs_f64(arguments.minutes.max(0.0) * 60.0);
    let mut done: BTreeMap<Fault, usize> = BTreeMap::new();
    let mut last = Report::default();
    while Instant::now() < until {
        let fault = random.one_of(&faults)?;
        tell(&format!("{} {fault:?}", Utc::now().format("%T")));
        suffer(&mut trial, fault, &mut random).await.with_context(|| format!("{fault:?}"))?;
        *done.entry(fault).or_default() += 1;
        sleep(random.seconds(0, 3)).await;
        let report = trial.verify().await?;
        let mut news = report.clone();
        news.violations.retain(|violation| !last.violations.contains(violation));
        if !news.violations.is_empty() {
            tell(&format!("new after {fault:?}: {news}"));
        }
        last = report;
    }
    let report = trial.verify_anew().await?;
    summary(&report, &done, seed);
    Ok(report.violations.is_empty())
}

fn summary(report: &Report, done: &BTreeMap<Fault, usize>, seed: u64) {
    let faults: Vec<String> =
        done.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
    let told = [Kind::StartedTwice, Kind::Overlapped, Kind::Unexplained, Kind::WronglyMissed];
    let others = report.violations.iter().filter(|v| !told.contains(&v.kind)).count();
    tell(&format!("{report}"));
    tell(&format!(
        "soak: {} firings, {} duplicates, {} overlaps, {} unexplained slots, {} wrongly missed, \
         {others} other violations; SEED={seed}; faults: {}",
        report.firings,
        report.count(Kind::StartedTwice),
        report.count(Kind::Overlapped),
        report.count(Kind::Unexplained),
        report.count(Kind::WronglyMissed),
        faults.join(", ")
    ));
}

/// The load: three quarters run every second, all policies are there.
fn load(number: usize) -> Load {
    let every_second = Load::default();
    match number % 12 {
        0 => Load { every: 2, work: "sleep 3", ..every_second },
        1 => Load { concurrency: "forbid", work: "sleep 0.2", ..every_second },
        2 => Load { every: 4, concurrency: "forbid", work: "sleep 6", ..every_second },
        3 => Load { every: 5, concurrency: "replace", work: "sleep 30", ..every_second },
        4 => Load { deadline_secs: 20, ..every_second },
        5 => Load { work: "false", ..every_second },
        _ => every_second,
    }
}

/// Does one fault to the fleet, and waits until what was stopped runs again.
async fn suffer(trial: &mut Trial, fault: Fault, random: &mut Random) -> Result<()> {
    let victim = random.one_of(&trial.workers())?;
    match fault {
        Fault::KillWorker => {
            trial.kill_worker(&victim)?;
            Box::pin(trial.start_worker(&victim, &[])).await
        }
        Fault::DieAtPoint => {
            let point = random.one_of(&POINTS)?;
            Box::pin(trial.restart_to_die(&victim, point)).await?;
            Box::pin(trial.start_worker(&victim, &[])).await
        }
        Fault::PauseWorker => trial.pause_worker(&victim).await,
        Fault::RollingRestart => Box::pin(trial.restart_all()).await,
        Fault::KillLeader => {
            let leader = trial.stack().etcd_leader().await?;
            trial.kill_member(leader, random.seconds(1, 8)).await
        }
        Fault::KillFollower => {
            let leader = trial.stack().etcd_leader().await?;
            let follower = random.one_of(&[(leader + 1) % 3, (leader + 2) % 3])?;
            trial.kill_member(follower, random.seconds(1, 8)).await
        }
        Fault::PauseLeader => trial.pause_leader(random.seconds(2, 12)).await,
        Fault::LoseQuorum => trial.lose_quorum(random.seconds(2, 30)).await,
        Fault::CutOff => {
            let from = random.one_of(&[CutOff::Etcd, CutOff::Mongo, CutOff::Both])?;
            let mode = random.one_of(&[Mode::Drop, Mode::Hang])?;
            trial.network(&victim, from, mode, random.seconds(2, 20)).await
        }
        Fault::LoseAnswers => {
            let from = random.one_of(&[CutOff::Etcd, CutOff::Mongo, CutOff::Both])?;
            trial.network(&victim, from, Mode::LoseAnswers, random.seconds(1, 14)).await
        }
        Fault::SlowNetwork => {
            let mode = Mode::Delay(Duration::from_millis(20 + random.next() % 400));
            trial.network(&victim, CutOff::Both, mode, random.seconds(2, 10)).await
        }
        Fault::Compact => trial.compact_behind(&victim).await,
        Fault::FillEtcd => trial.fill_etcd(random.seconds(1, 15)).await,
        Fault::ClockAhead => clock(trial, &victim, &[90_000]).await,
        Fault::ClockBehind => clock(trial, &victim, &[-90_000]).await,
        Fault::ClockSteps => clock(trial, &victim, &[4_000, -3_000, 2_000]).await,
        Fault::ChangeJobs => trial.change_at_slots("changed", &Load::default()).await,
    }
}

/// Sets a worker's clock to each of these, and then right again.
async fn clock(trial: &Trial, victim: &str, millis: &[i64]) -> Result<()> {
    for &millis in millis {
        trial.set_clock(victim, millis)?;
        sleep(PAST_LEASE / 2).await;
    }
    trial.set_clock(victim, 0)
}

fn tell(text: &str) {
    // Nobody reads it any more: no reason to end.
    writeln!(std::io::stdout(), "{text}").ok();
}
