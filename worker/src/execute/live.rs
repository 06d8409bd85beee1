//! The loop of one run: between the start of its shell and the last word about it.
//!
//! It follows the process tree, does what the [ladder](super::ladder) says of orders and the time-out,
//! and never waits for a receiver.

use std::collections::{HashSet, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use carillon_core::run::Outcome;
use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use rustix::process::Signal as ToOne;
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::capture::{Output, Pipes};
use super::cgroup::Cgroups;
use super::ladder::{Cause, Ladder, PROGRESS_EVERY, Phase, Step};
use super::marker::{self, Process};
use super::process::{self, Tree};
use super::run::{Event, Finished, Order, Progress, Spec};
use super::usage::{Census, Group, Groups};
use crate::clock;

/// The age up to which somebody else's look at `/proc` is as good as a new one, for figures.
const FRESH: Duration = Duration::from_secs(1);

/// The orders of a run.
pub(super) struct Orders {
    /// Until whoever gives them is gone.
    from: Option<mpsc::Receiver<Order>>,
    /// One that has come and was not taken.
    first: Option<Order>,
}

impl Orders {
    pub(super) fn new(from: mpsc::Receiver<Order>) -> Self {
        Self { from: Some(from), first: None }
    }

    /// An order that has come already.
    pub(super) fn already(&mut self) -> Option<Order> {
        self.first.take().or_else(|| self.from.as_mut()?.try_recv().ok())
    }

    /// Waits for an order, and does not take it; for ever once there can be none.
    pub(super) async fn coming(&mut self) -> &Order {
        let order = self.next().await;
        self.first.insert(order)
    }

    /// The next order; waits for ever once there can be none.
    async fn next(&mut self) -> Order {
        if let Some(order) = self.already() {
            return order;
        }
        if let Some(orders) = &mut self.from
            && let Some(order) = orders.recv().await
        {
            return order;
        }
        self.from = None;
        std::future::pending().await
    }
}

/// A started run.
pub(super) struct Live {
    spec: Spec,
    tree: Tree,
    pipes: Pipes,
    output: Output,
    ladder: Ladder,
    /// Its keeper was killed.
    unkept: bool,
    /// Processes that are left because the worker may not signal them.
    survivors: Vec<i32>,
    /// Groups and sessions that processes of the run were seen to lead.
    groups: HashSet<i32>,
    /// The most seen of each figure.
    peak: Group,
    census: Census,
    cgroups: Option<Cgroups>,
    look: Option<JoinHandle<Seen>>,
    /// Events that are not output, and not sent yet.
    notices: VecDeque<Event>,
    reported: Progress,
    started: DateTime<Utc>,
    /// When the shell had ended; where all of the run had to, when that had.
    ended: Option<(Instant, DateTime<Utc>)>,
}

impl Live {
    /// A run whose shell has just been started.
    pub(super) fn new(spec: Spec, tree: Tree, pipes: Pipes, census: Census) -> Self {
        let started = clock::now();
        let pid = tree.id().unsigned_abs();
        Self {
            pipes,
            output: Output::new(spec.output_limit),
            ladder: Ladder::new(spec.grace, spec.timeout, Instant::now()),
            spec,
            unkept: false,
            survivors: Vec::new(),
            groups: HashSet::from([tree.id()]),
            peak: tree.at_start().clone(),
            tree,
            census,
            cgroups: None,
            look: None,
            notices: VecDeque::from([Event::Started { pid, at: started }]),
            reported: Progress::default(),
            started,
            ended: None,
        }
    }

    /// The same, which is in a control group of its own.
    pub(super) fn in_cgroup(self, cgroups: Option<Cgroups>) -> Self {
        Self { cgroups, ..self }
    }

    /// Follows the run until nothing more comes of it.
    pub(super) async fn follow(
        mut self,
        orders: &mut Orders,
        events: &mpsc::Sender<Event>,
    ) -> Self {
        let mut heard = true;
        loop {
            let phase = self.ladder.phase();
            if let Phase::Draining(until) = phase
                && (self.pipes.are_closed() || Instant::now() >= until)
            {
                while let Some(notice) = self.notices.pop_front()
                    && events.try_send(notice).is_ok()
                {}
                return self;
            }
            let draining = matches!(phase, Phase::Draining(_));
            // In this order: a run that is over cannot be killed any more, and no amount of output
            // keeps an order or a time-out waiting.
            select! {
                biased;
                () = self.tree.exited(), if phase == Phase::Running => self.on_exit(),
                () = self.tree.abandoned(), if !self.unkept => {
                    self.unkept = true;
                    let steps = self.ladder.abandon(Instant::now());
                    self.climb(steps);
                }
                order = orders.next(), if !draining => {
                    let steps = self.ladder.order(&order, Instant::now());
                    self.climb(steps);
                }
                () = sleep_until(self.wake_at()) => self.on_time(Instant::now()),
                seen = look(&mut self.look), if self.look.is_some() => self.on_look(&seen),
                permit = events.reserve(), if heard && self.has_event() => match permit {
                    Ok(permit) => self.hand_over(permit),
                    Err(_) => heard = false,
                },
                read = self.pipes.read(), if self.may_read(heard) => if let Some((stream, bytes)) = read {
                    self.output.accept(stream, bytes, Instant::now(), clock::now());
                },
            }
        }
    }

    /// Whether output is taken now, or left in the pipes, where it stops the run that goes on writing.
    /// One that is being ended, or has ended, is not stopped any more, nor one that nobody follows.
    fn may_read(&self, heard: bool) -> bool {
        let free =
            self.ladder.ending().is_some() || self.ladder.phase() != Phase::Running || !heard;
        free || !self.spec.blocks || self.output.has_room()
    }

    fn on_exit(&mut self) {
        let now = Instant::now();
        self.ended = Some((now, clock::now()));
        self.ladder.exit(now);
        self.look_again();
    }

    /// What is left after this is to be seen: a look that has begun before does not count.
    fn look_again(&mut self) {
        if self.ladder.phase() == Phase::Clearing {
            self.look = None;
        }
    }

    fn climb(&mut self, steps: Vec<Step>) {
        for step in steps {
            let notice = match step {
                Step::Receive => Event::Received,
                Step::Terminate => {
                    self.tree.signal(Signal::SIGTERM);
                    Event::Terminated
                }
                Step::Kill => {
                    self.kill();
                    self.look_again();
                    Event::Killed
                }
            };
            self.notices.push_back(notice);
        }
    }

    fn kill(&self) {
        self.tree.signal(Signal::SIGKILL);
        if let Some(cgroups) = &self.cgroups {
            cgroups.kill(self.spec.run);
        }
    }

    /// The next instant at which [`Live::on_time`] has something to do.
    fn wake_at(&self) -> Instant {
        let look_at = self.ladder.look_at().filter(|_| self.look.is_none());
        [self.ladder.wake_at(), look_at, self.output.due()]
            .into_iter()
            .flatten()
            .min()
            // While a look is under way; it wakes the loop itself.
            .unwrap_or_else(|| Instant::now() + PROGRESS_EVERY)
    }

    fn on_time(&mut self, now: Instant) {
        self.output.flush_due(now);
        let steps = self.ladder.tick(now);
        self.climb(steps);
        if self.look.is_none() && self.ladder.look_at().is_some_and(|at| now >= at) {
            self.begin_look(now);
        }
    }

    /// Has `/proc` looked at: for what is left now, or for figures that may be somewhat older.
    fn begin_look(&mut self, now: Instant) {
        let census = self.census.clone();
        let clearing = self.ladder.phase() == Phase::Clearing;
        let moment = match clearing {
            true => now,
            false => now.checked_sub(FRESH).unwrap_or(now),
        };
        self.look = Some(tokio::spawn(async move {
            let groups = census.after(moment).await;
            let processes = match clearing {
                true => census.processes_after(moment).await,
                false => Arc::default(),
            };
            Seen { groups, processes }
        }));
    }

    fn on_look(&mut self, seen: &Seen) {
        self.look = None;
        let group = seen.groups.get(&self.tree.id());
        if let Some(group) = group {
            self.peak.cpu = self.peak.cpu.max(group.cpu);
            self.peak.rss_bytes = self.peak.rss_bytes.max(group.rss_bytes);
        }
        match self.ladder.phase() {
            Phase::Running => {
                self.ladder.looked(Instant::now());
                self.report();
            }
            Phase::Clearing => {
                self.clear(group.map_or(&[], |group| &group.alive), &seen.processes);
            }
            Phase::Draining(_) => {}
        }
    }

    /// Goes on ending the group, of which `alive` is left, and then what has left it and carries
    /// the run's marker among `processes`.
    fn clear(&mut self, alive: &[i32], processes: &[Process]) {
        let last = alive.is_empty() || self.ladder.has_killed();
        let keeper = Some(self.tree.keeper());
        let inside = self.cgroups.as_ref().map(|c| c.processes(self.spec.run)).unwrap_or_default();
        let ours = marker::of_run(processes, self.spec.run, keeper, &inside, &mut self.groups);
        let strayed: Vec<&Process> =
            ours.into_iter().filter(|p| p.group != self.tree.id()).collect();
        let left: Vec<i32> = alive.iter().copied().chain(strayed.iter().map(|p| p.pid)).collect();
        let beyond_reach = last && left.iter().all(|&id| !process::may_signal(id));
        if last {
            // A scan can miss a process that is born behind its back; the signal cannot.
            self.kill();
            for process in strayed {
                process.signal(ToOne::KILL);
            }
        }
        let now = Instant::now();
        if left.is_empty() || beyond_reach {
            self.survivors = left;
            self.ended = Some((now, clock::now()));
            self.ladder.clear(now);
        } else if self.ladder.looked(now) && last {
            tracing::warn!(run = %self.spec.run, pids = ?left, "SIGKILL has no effect yet; waiting");
        }
    }

    fn report(&mut self) {
        let progress = Progress {
            cpu_millis: millis(self.peak.cpu),
            max_rss_bytes: self.peak.rss_bytes,
            output_bytes: self.output.bytes(),
            last_line: self.output.last_line(),
        };
        if progress != self.reported {
            self.reported = progress.clone();
            self.notices.retain(|n| !matches!(n, Event::Progress(_)));
            self.notices.push_back(Event::Progress(progress));
        }
    }

    fn has_event(&self) -> bool {
        !self.notices.is_empty() || self.output.has_batch()
    }

    fn hand_over(&mut self, permit: mpsc::Permit<'_, Event>) {
        let notice = self.notices.pop_front();
        permit.send(notice.unwrap_or_else(|| Event::Output(self.output.take_batch())));
    }

    /// Has it reaped, and says what became of it.
    pub(super) async fn finish(self) -> Finished {
        let now = clock::now();
        let kept = self.output.finish(now);
        let remains = self.tree.reap().await;
        let status = remains.as_ref().ok().map(|r| r.status);
        let (gone, ended) = self.ended.unwrap_or_else(|| (Instant::now(), now));
        let ending = self.ladder.ending();
        let took = ending.map(|ending| gone.saturating_duration_since(ending.since));
        let (outcome, mut err) = match (ending, status) {
            (Some(ending), _) => (ending.cause.outcome(), ending.words(took.unwrap_or_default())),
            (None, Some(status)) => by_itself(status, self.spec.launch.limits.cpu_secs),
            (None, None) => (Cause::Unkept.outcome(), Cause::Unkept.words()),
        };
        if !self.survivors.is_empty() {
            let left: Vec<String> = self.survivors.iter().map(i32::to_string).collect();
            let left = left.join(", ");
            err.push_str("; still running, the worker may not signal it: process ");
            err.push_str(&left);
            tracing::warn!(run = %self.spec.run, pids = left, "not permitted to kill processes of the run");
        }
        let (cpu, rss) = remains.map_or((Duration::ZERO, None), |r| (r.cpu, r.max_rss_bytes));
        let used = self.cgroups.as_ref().and_then(|c| c.used(self.spec.run)).unwrap_or_default();
        let (cpu, rss) = (cpu.max(used.cpu), used.memory_peak.max(rss));
        Finished {
            outcome,
            err,
            exit_code: status.and_then(|s| s.code()),
            signal: status.and_then(|s| s.signal()),
            started: self.started,
            ended,
            cpu_millis: millis(cpu.max(self.peak.cpu)),
            max_rss_bytes: rss.unwrap_or(0).max(self.peak.rss_bytes),
            output: kept.text,
            rest: kept.rest,
            output_bytes: kept.bytes,
            truncated: kept.truncated,
            killed_by: ending.and_then(|ending| ending.cause.killed_by()),
            ending_took: took,
        }
    }
}

fn by_itself(status: ExitStatus, cpu_secs: Option<u64>) -> (Outcome, String) {
    if status.success() {
        return (Outcome::Succeeded, String::new());
    }
    // What a shell says of a child that a signal has ended.
    let of_child = status.code().map(|code| code - 128);
    let err = match (status.code(), status.signal()) {
        (Some(code), _) if of_child == Some(Signal::SIGXCPU as i32) && cpu_secs.is_some() => {
            format!("exit code {code}: a process of it reached limits.cpuSecs")
        }
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) if number == Signal::SIGXCPU as i32 => {
            let limit = cpu_secs.map(|secs| format!(" of {secs} s")).unwrap_or_default();
            format!("ended by signal {number} (SIGXCPU): it reached limits.cpuSecs{limit}")
        }
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("ended by signal {number} ({signal})"),
            Err(_) => format!("ended by signal {number}"),
        },
        (None, None) => status.to_string(),
    };
    (Outcome::Failed, err)
}

/// What a look at `/proc` has seen.
#[derive(Debug, Default)]
struct Seen {
    groups: Arc<Groups>,
    /// Only while the run is being ended.
    processes: Arc<Vec<Process>>,
}

/// Waits for a look that is under way; none is there if the runtime is stopping.
async fn look(look: &mut Option<JoinHandle<Seen>>) -> Seen {
    match look {
        Some(look) => look.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
