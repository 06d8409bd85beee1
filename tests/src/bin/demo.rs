//! `make demo`: everything on this machine, with sample jobs, and the console on it.
//!
//! Without a terminal it shows a first finished run instead of the console. It stops what it
//! started when the console is left, and on Ctrl-C, SIGTERM and SIGHUP.

use std::fs;
use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_current_process_group, pidfd_open, pidfd_send_signal,
};
use system_tests::demo::Demo;
use system_tests::{faults, programs};
use tokio::signal::unix::{SignalKind, signal};

/// How long a first run may take; the most frequent job runs every five seconds.
const FIRST_RUN_LIMIT: Duration = Duration::from_secs(60);
/// How long the console may take to restore the screen before it is killed.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// Runs etcd, a MongoDB-protocol server, three workers and sample jobs, and opens the console.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where data and logs go [default: target/demo]
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Runtime::new()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(until_signalled(arguments)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo until it ends or is asked to; what runs then is dropped, and so ended.
async fn until_signalled(arguments: Arguments) -> Result<ExitCode> {
    const CANNOT: &str = "cannot listen for signals";
    let mut interrupt = signal(SignalKind::interrupt()).context(CANNOT)?;
    let mut terminate = signal(SignalKind::terminate()).context(CANNOT)?;
    let mut hangup = signal(SignalKind::hangup()).context(CANNOT)?;
    let kind = tokio::select! {
        outcome = run(arguments) => return outcome.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hangup.recv() => SignalKind::hangup(),
    };
    tell("stopped");
    let code = kind.as_raw_value().saturating_add(128);
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

async fn run(arguments: Arguments) -> Result<()> {
    let began = Instant::now();
    let folder = arguments.folder.unwrap_or_else(|| programs::root().join("target/demo"));
    let demo = Demo::start(&folder, tell).await?;
    tell(&format!("ready after {:.1} s", began.elapsed().as_secs_f64()));
    tell(&format!("logs are in {}", demo.folder().display()));
    let env = demo.folder().join("env");
    fs::write(&env, environment(&demo)?)
        .with_context(|| format!("cannot write {}", env.display()))?;
    tell(&format!("from another terminal: . {} && carillon jobs", env.display()));

    let outcome = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        show_console(&demo).await
    } else {
        show_first_run(&demo).await
    };
    tell("stopping the workers and the servers");
    // What it points to is gone.
    let _ = fs::remove_file(&env);
    demo.stop().await?;
    outcome
}

async fn show_console(demo: &Demo) -> Result<()> {
    let status = Foreground::start(demo)?.left().await?;
    ensure!(status.success(), "the console ended with {status}");
    Ok(())
}

async fn show_first_run(demo: &Demo) -> Result<()> {
    tell("there is no terminal for the console; waiting for a first finished run");
    let record = demo.succeeded(1, FIRST_RUN_LIMIT).await?;
    let text = serde_json::to_string_pretty(&record).context("cannot show the record")?;
    writeln!(std::io::stdout(), "{text}").context("cannot write")
}

/// The console, on the demo's own terminal. Dropping it asks it to restore the screen and end.
struct Foreground {
    child: Child,
    handle: OwnedFd,
}

impl Foreground {
    fn start(demo: &Demo) -> Result<Self> {
        let mut child = demo.carillon()?.spawn().context("cannot start the console")?;
        let handle = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process without an id")
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        match handle {
            Ok(handle) => Ok(Self { child, handle }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context("cannot watch over the console"))
            }
        }
    }

    /// Waits until the console is left. When it is suspended with Ctrl-Z, so is the demo, or the
    /// shell would not come back.
    async fn left(&mut self) -> Result<ExitStatus> {
        let mut children = signal(SignalKind::child()).context("cannot listen for signals")?;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the console")? {
                return Ok(status);
            }
            if faults::is_stopped(self.child.id()) {
                kill_current_process_group(Signal::TSTP).context("cannot suspend")?;
            }
            children.recv().await;
        }
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = pidfd_send_signal(&self.handle, Signal::TERM);
        let _ = pidfd_send_signal(&self.handle, Signal::CONT);
        let mut ended = [PollFd::new(&self.handle, PollFlags::IN)];
        if let Ok(limit) = LEAVE_LIMIT.try_into() {
            let _ = poll(&mut ended, Some(&limit));
        }
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What a shell reads so that `carillon` is found, and finds the demo.
fn environment(demo: &Demo) -> Result<String> {
    let program = programs::own("carillon")?;
    let folder = program.parent().context("a program in no folder")?;
    let mut lines = format!("export PATH='{}':\"$PATH\"\n", folder.display());
    for pair in demo.connection().chunks_exact(2) {
        let [flag, value] = pair else { continue };
        let name = flag.trim_start_matches('-').to_uppercase();
        lines += &format!("export CARILLON_{name}='{value}'\n");
    }
    Ok(lines)
}

/// What the user is told is for reading along, so a closed output is no reason to stop.
fn tell(text: &str) {
    let _ = writeln!(std::io::stdout(), "demo: {text}");
}
