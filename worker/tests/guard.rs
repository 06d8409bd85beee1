//! The guard process, told by hand what a worker would tell it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a scenario that meets something unexpected has failed"
)]

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use carillon_core::id::RunId;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Long enough on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(10);

struct Guard {
    child: Child,
    channel: Option<UnixStream>,
}

impl Guard {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_carillon-worker"))
            .arg("guard")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self { child, channel: Some(ours) }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.channel.as_ref().unwrap(), "{line}").unwrap();
    }

    /// As if the worker had died.
    fn close(&mut self) {
        self.channel = None;
    }

    fn ends(&mut self) {
        until("the guard has ended", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A run as a worker would start it; it is killed with the test.
struct Run {
    id: RunId,
    shell: Child,
}

impl Run {
    /// Starts `command`, and waits until it consists of so many processes.
    fn start(command: &str, processes: usize) -> Self {
        let id = RunId::new(chrono::Utc::now());
        let shell = Command::new("/bin/sh")
            .args(["-c", command])
            .env("CARILLON_RUN", id.to_string())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let run = Self { id, shell };
        until("the run is up", || run.alive().len() >= processes);
        run
    }

    fn alive(&self) -> Vec<i32> {
        let marker = format!("CARILLON_RUN={}", self.id);
        processes(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|entry| entry == marker.as_bytes())
        })
    }

    /// Its processes with a command line like this, whatever their environment.
    fn in_group(&self) -> Vec<i32> {
        let group = self.shell.id().to_string();
        processes(|pid| stat(pid).get(2) == Some(&group))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for pid in self.alive().into_iter().chain(self.in_group()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        self.shell.wait().ok();
    }
}

/// The fields of /proc/PID/stat from the third on, which is the state.
fn stat(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split(' ').map(str::to_owned).collect()
}

fn processes(wanted: impl Fn(i32) -> bool) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| wanted(pid) && !matches!(stat(pid)[0].as_str(), "" | "Z")).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < limit, "waited {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn since_boot() -> u128 {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap()).as_millis()
}

#[test]
fn a_closed_socket_ends_every_process_of_a_run_wherever_it_went() {
    let escape = "setsid sh -c 'trap \"\" TERM; sleep 600 & sleep 600'";
    let run = Run::start(&format!("{escape} & sleep 600"), 5);
    let mut guard = Guard::start();
    guard.tell(&format!("run {} 500 kill", run.id));
    until("it is deaf", || {
        let status = format!("/proc/{}/status", guard.child.id());
        fs::read_to_string(status).unwrap().contains("SigBlk:\t0000000000014007")
    });
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        kill(Pid::from_raw(i32::try_from(guard.child.id()).unwrap()), signal).unwrap();
    }
    let closed = Instant::now();
    guard.close();
    until("who obeys is gone", || run.alive().len() == 3);
    assert!(closed.elapsed() < Duration::from_millis(500));
    until("all are gone", || run.alive().is_empty());
    assert!(closed.elapsed() >= Duration::from_millis(500));
    guard.ends();
}

#[test]
fn without_a_marker_the_group_is_enough() {
    let run = Run::start("env -i sh -c 'trap \"\" TERM; sleep 600; true' & sleep 600", 2);
    until("the other is up", || run.in_group().len() == 4);
    let mut guard = Guard::start();
    guard.tell(&format!("run {} 200 continue", run.id));
    guard.close();
    guard.ends();
    assert_eq!(run.in_group(), [] as [i32; 0]);
}

#[test]
fn a_lease_that_runs_out_ends_the_runs_that_are_not_to_be_kept() {
    let (lost, kept) = (Run::start("sleep 600 & wait", 2), Run::start("sleep 600 & wait", 2));
    let mut guard = Guard::start();
    guard.tell(&format!("run {} 10000 kill", lost.id));
    guard.tell(&format!("run {} 10000 continue", kept.id));
    let deadline = since_boot() + 400;
    guard.tell(&format!("lease {deadline}"));
    until("the deadline passes", || {
        let alive = lost.alive().len();
        alive < 2 || since_boot() >= deadline
    });
    assert!(since_boot() >= deadline);
    until("the lost run is gone", || lost.alive().is_empty());
    // It is over, and stays so with a new lease: what a worker starts late is ended too.
    guard.tell(&format!("lease {}", since_boot() + 60_000));
    let mut late = Command::new("/bin/sleep")
        .arg("600")
        .env("CARILLON_RUN", lost.id.to_string())
        .spawn()
        .unwrap();
    guard.tell(&format!("lease {}", since_boot() + 60_000));
    until("the late process is gone", || late.try_wait().unwrap().is_some());
    assert_eq!(kept.alive().len(), 2);
    guard.close();
    until("the kept run is gone", || kept.alive().is_empty());
    guard.ends();
}

#[test]
fn what_an_ended_run_left_in_the_background_is_left_alone() {
    let run = Run::start("setsid sleep 600 & sleep 600 & true", 2);
    let mut guard = Guard::start();
    guard.tell(&format!("run {} 0 kill", run.id));
    guard.tell(&format!("end {}", run.id));
    guard.close();
    guard.ends();
    assert_eq!(run.alive().len(), 2);
}
