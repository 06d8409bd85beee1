//! `carillon-worker`: arguments in, exit code out.

mod agenda;
mod burst;
mod claim;
mod clock;
mod courier;
mod daemon;
mod decider;
mod ending;
mod ends;
mod execute;
mod fault;
mod lease;
mod memory;
mod metrics;
mod notify;
mod report;
mod room;
mod runs;
mod schedule;
#[cfg(test)]
mod simulation;
mod skew;
mod state;
mod supervise;
#[cfg(test)]
mod testing;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carillon_core::fleet::MAX_SKEW;
use carillon_core::id::WorkerId;
use carillon_core::settings::{MongoUri, Partial};
use chrono::TimeDelta;
use clap::{Parser, Subcommand};
use fault::Fault;
use metrics::{Desk, Metrics};
use notify::Targets;
use state::StateDir;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// Runs the jobs of a Carillon fleet on this machine.
///
/// Every worker knows every job; for each firing one etcd transaction decides which of them runs
/// it. SIGTERM drains: nothing new is taken, live runs may finish within --drain-timeout.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// etcd endpoints, separated by commas [default: http://127.0.0.1:2379]
    #[arg(long, value_name = "URL,…", env = "CARILLON_ETCD")]
    etcd: Option<String>,
    /// Whom etcd knows us as, where it asks for users
    #[arg(long, value_name = "USER", env = "CARILLON_ETCD_USER")]
    etcd_user: Option<String>,
    /// File with that user's password, on one line
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_PASSWORD_FILE")]
    etcd_password_file: Option<PathBuf>,
    /// File with the authorities to check etcd's certificates against, in PEM
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_CA")]
    etcd_ca: Option<PathBuf>,
    /// File with our certificate for etcd, in PEM
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_CERT")]
    etcd_cert: Option<PathBuf>,
    /// File with the key of that certificate, in PEM
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_KEY")]
    etcd_key: Option<PathBuf>,
    /// MongoDB connection string [default: mongodb://127.0.0.1:27017]; put one with a password
    /// into the variable or the file, where `ps` does not show it
    #[arg(long, value_name = "URI", env = "CARILLON_MONGO", hide_env_values = true)]
    mongo: Option<MongoUri>,
    /// Key prefix in etcd, which names the fleet [default: /cron]
    #[arg(long, env = "CARILLON_PREFIX")]
    prefix: Option<String>,
    /// Configuration file with etcd, mongo, prefix and the like
    #[arg(long, value_name = "FILE", env = "CARILLON_CONFIG")]
    config: Option<PathBuf>,
    /// The worker's name, unique in the fleet [default: the host name]
    #[arg(long, env = "CARILLON_WORKER_ID")]
    id: Option<String>,
    /// A label that jobs can select workers by; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// How many runs to take at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    capacity: u32,
    /// Folder for the worker's own state [default: the user's state folder]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How much output and results may wait in that folder while MongoDB is away, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    spool_limit: u32,
    /// How large etcd may grow before it takes no more writes, in MiB: its --quota-backend-bytes,
    /// where it is older than 3.6 and does not say so itself
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    etcd_quota: u32,
    /// Seconds that live runs may take to finish after SIGTERM before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_timeout: u64,
    /// Seconds that two clocks of the fleet may be apart
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_SKEW.num_seconds() as u32)]
    max_skew: u32,
    /// Where to serve metrics for Prometheus (/metrics) and the state for probes (/healthz), for
    /// example 127.0.0.1:9464; nowhere where not given
    #[arg(long, value_name = "HOST:PORT", env = "CARILLON_METRICS_ADDR")]
    metrics_addr: Option<String>,
    /// File with the targets of notifications: where they are, and their secrets
    #[arg(long, value_name = "FILE", env = "CARILLON_NOTIFY_FILE", global = true)]
    notify_file: Option<PathBuf>,
    /// Where to die, for tests: claimed, started, ended, settled or due, or with panic- before it, where
    /// the supervisor of a run is to
    #[arg(long, value_name = "POINT", env = "CARILLON_FAULT", hide = true)]
    fault: Option<String>,
    /// A file with milliseconds by which to set this worker's clock off, for tests
    #[arg(long, value_name = "FILE", env = "CARILLON_CLOCK_OFFSET_FILE", hide = true)]
    clock_offset_file: Option<PathBuf>,
    /// What to log, for example `info` or `carillon_worker=debug`
    #[arg(long, value_name = "FILTER", env = "CARILLON_LOG", default_value = "info")]
    log: String,
}

/// What there is beside the worker.
#[derive(Debug, Subcommand)]
enum Other {
    /// Starts the runs of the worker at the other end of standard input, and ends them when it dies
    /// or freezes
    #[command(hide = true)]
    Guard,
    /// Sends a sample to a target of the --notify-file and prints what it answers
    NotifyTest {
        /// The target's name
        target: String,
    },
    /// Runs a command many times without any store, for `make bench`
    #[command(hide = true)]
    Trial(execute::trial::Trial),
    /// Fills and empties a spool without any store, for `make bench`
    #[command(hide = true)]
    SpoolTrial(report::trial::Trial),
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        // The guard may outlive whoever reads its log.
        .log_internal_errors(false)
        .init();
    let ended = match arguments.other {
        Some(Other::Guard) => execute::guard::serve().context("the guard failed"),
        Some(Other::NotifyTest { target }) => notify_test(&target, arguments.notify_file),
        Some(Other::Trial(trial)) => runtime().and_then(|r| r.block_on(trial.run())),
        Some(Other::SpoolTrial(trial)) => trial.run(),
        None => start(arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

fn start(mut arguments: Arguments) -> Result<()> {
    let metrics_addr = arguments.metrics_addr.take();
    let clock_offset_file = arguments.clock_offset_file.take();
    let options = options(arguments)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        if let Some(file) = clock_offset_file {
            clock::follow(file);
        }
        let metrics = Metrics::new(&options.id);
        if let Some(address) = metrics_addr {
            let desk = Desk::open(&address).await?;
            tracing::info!("metrics on http://{}/metrics", desk.address()?);
            tokio::spawn(desk.serve(metrics.clone()));
        }
        let (stop, stops) = mpsc::channel(2);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stop.send(()).await.is_err() {
                    return;
                }
            }
        });
        daemon::run(options, metrics, stops).await
    });
    // Not held up by the look-up of a name, which cannot be called off.
    runtime.shutdown_background();
    ended
}

fn notify_test(target: &str, file: Option<PathBuf>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(notify::test(target, file))
}

fn options(arguments: Arguments) -> Result<daemon::Options> {
    let file = match &arguments.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Partial::from_toml(&path.display().to_string(), &text)?
        }
        None => Partial::default(),
    };
    let given = Partial {
        etcd: arguments.etcd,
        mongo: arguments.mongo,
        prefix: arguments.prefix,
        etcd_user: arguments.etcd_user,
        etcd_password_file: arguments.etcd_password_file,
        etcd_ca: arguments.etcd_ca,
        etcd_cert: arguments.etcd_cert,
        etcd_key: arguments.etcd_key,
    };
    let given = given.or(file);
    given.exposed_files().for_each(|exposed| tracing::warn!("{exposed}"));
    let connection = given.resolve()?;
    let host = nix::unistd::gethostname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned());
    let id = arguments.id.unwrap_or_else(|| host.clone());
    let id = WorkerId::new(&id).with_context(|| format!("{id:?} cannot name a worker"))?;
    let state_dir = match arguments.state_dir {
        Some(dir) => dir,
        None => default_state_dir()?.join(id.as_str()),
    };
    let shown = state_dir.display().to_string();
    let state = StateDir::take(state_dir)
        .with_context(|| format!("cannot use the state folder {shown}"))?;
    Ok(daemon::Options {
        id,
        host,
        labels: BTreeMap::from_iter(arguments.labels),
        capacity: arguments.capacity,
        state,
        spool_bytes: u64::from(arguments.spool_limit) << 20,
        etcd_quota: u64::from(arguments.etcd_quota) << 20,
        drain_timeout: Duration::from_secs(arguments.drain_timeout),
        max_skew: TimeDelta::seconds(arguments.max_skew.into()),
        fault: Fault::at(arguments.fault.as_deref()),
        connection,
        targets: arguments
            .notify_file
            .as_deref()
            .map_or_else(|| Ok(Targets::default()), Targets::read)?,
    })
}

fn default_state_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_STATE_HOME").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir).join("carillon"));
    }
    match std::env::var_os("HOME").filter(|d| !d.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/state/carillon")),
        None => bail!("neither XDG_STATE_HOME nor HOME is set: give --state-dir"),
    }
}
