//! The guard process, told by hand what a worker would tell it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a scenario that meets something unexpected has failed"
)]

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use carillon_core::id::RunId;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

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

    /// Has a run started, and returns the worker's end of its keeper's socket.
    fn start_run(&mut self, run: RunId, launch: &serde_json::Value) -> UnixStream {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let null = || OwnedFd::from(File::create("/dev/null").unwrap());
        let files = [null(), null(), theirs.into()];
        let files = files.each_ref().map(AsFd::as_fd);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(along.push(SendAncillaryMessage::ScmRights(&files)));
        let line = format!("start {run}\n");
        let channel = self.channel.as_ref().unwrap();
        sendmsg(channel, &[IoSlice::new(line.as_bytes())], &mut along, SendFlags::empty()).unwrap();
        writeln!(ours, "{launch}").unwrap();
        ours
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

/// The control group of this process, where it may make others in it.
fn own_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|mount| mount[2] == "cgroup2")?;
    let folder = Path::new(mount[1]).join(own);
    let probe = folder.join(format!("carillon-test-{}", std::process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).ok().map(|()| folder)
}

/// A run whose start hangs half-way: it is born in a control group that is frozen.
struct Hanging {
    folder: tempfile::TempDir,
    cgroup: PathBuf,
    keeper: i32,
    child: i32,
    talk: Option<UnixStream>,
}

impl Hanging {
    /// Nothing where no control group can be made.
    fn start(guard: &mut Guard) -> Option<Self> {
        let Some(own) = own_cgroup() else {
            println!("skipped: no control group can be made here");
            return None;
        };
        let run = RunId::new(chrono::Utc::now());
        let folder = tempfile::tempdir().unwrap();
        let cgroup = own.join(format!("carillon-run-{run}"));
        fs::create_dir(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
        guard.tell(&format!("run {run} 60000 kill"));
        let launch = serde_json::json!({
            "command": format!("touch {}", folder.path().join("ran").display()),
            "shell": "/bin/sh",
            "env": {},
            "vars": [["CARILLON_RUN", run.to_string()]],
            "limits": {},
            "cgroup": cgroup,
        });
        let talk = Some(guard.start_run(run, &launch));
        let below = |parent: u32| {
            processes(|pid| stat(pid).get(1) == Some(&parent.to_string())).first().copied()
        };
        let (mut keeper, mut child) = (0, 0);
        until("its start hangs", || {
            keeper = below(guard.child.id()).unwrap_or_default();
            child = below(keeper.unsigned_abs()).filter(|_| keeper > 0).unwrap_or_default();
            child > 0
        });
        Some(Self { folder, cgroup, keeper, child, talk })
    }

    fn is_gone(&self) -> bool {
        processes(|pid| [self.keeper, self.child].contains(&pid)).is_empty()
    }

    /// Lets it go on, and asserts that it leaves without a trace.
    fn goes_on_to_nothing(&self) {
        fs::write(self.cgroup.join("cgroup.freeze"), "0").unwrap();
        until("it has left", || self.is_gone());
        assert!(!self.folder.path().join("ran").exists(), "the command was executed");
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        for pid in [self.keeper, self.child] {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        until("its control group is empty", || {
            fs::remove_dir(&self.cgroup).is_ok() || !self.cgroup.exists()
        });
    }
}

#[test]
fn a_start_that_hangs_ends_with_the_lease_and_with_the_worker() {
    let mut guard = Guard::start();
    let Some(first) = Hanging::start(&mut guard) else { return };
    guard.tell(&format!("lease {}", since_boot()));
    until("the first is gone", || first.is_gone());
    guard.tell(&format!("lease {}", since_boot() + 60_000));
    let second = Hanging::start(&mut guard).unwrap();
    guard.close();
    guard.ends();
    until("the second is gone", || second.is_gone());
}

#[test]
fn a_start_that_hangs_until_worker_and_guard_are_gone_starts_nothing() {
    let mut guard = Guard::start();
    let Some(mut hanging) = Hanging::start(&mut guard) else { return };
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    hanging.talk = None;
    hanging.goes_on_to_nothing();
}

#[test]
fn a_start_that_hangs_until_its_keeper_is_gone_starts_nothing() {
    let mut guard = Guard::start();
    let Some(hanging) = Hanging::start(&mut guard) else { return };
    kill(Pid::from_raw(hanging.keeper), Signal::SIGKILL).unwrap();
    until("its keeper is gone", || {
        stat(hanging.keeper).first().is_none_or(|state| matches!(state.as_str(), "" | "Z"))
    });
    hanging.goes_on_to_nothing();
}
