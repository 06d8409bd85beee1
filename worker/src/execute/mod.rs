//! One run: a checked job's command is started, its output captured, its time-out and every kill
//! honoured, and what became of it reported.
//!
//! A run is one session and process group, led by its shell. It ends when the shell ends: what the
//! shell left in the background goes on after a run that ended by itself, as under cron, with its
//! output closed. After a kill or a time-out nothing of it is left: the group gets SIGTERM, the
//! grace period, then SIGKILL, until `/proc` shows no process of it. A process that has left the
//! group (`setsid`) gets SIGKILL as soon as the group is gone, found by the run's marker
//! `CARILLON_RUN=<run>` in its environment, by standing below the run's keeper, or by being in the
//! run's control group, where it has one.
//!
//! The processes are started by the worker's [`guard`], off its own address space, which also does
//! what a worker that dies or freezes cannot do any more.
//!
//! Everything of one run happens in one loop that never waits for whoever receives its events.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use carillon_core::id::RunId;
use chrono::{DateTime, Utc};
use rustix::process::Signal;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use capture::Pipes;
pub(crate) use capture::dropped_note;
use cgroup::Cgroups;
use guard::Guard;
use ladder::Cause;
use launch::{Launch, StartError};
use ledger::Ledger;
use live::{Live, Orders};
use process::Tree;
pub(crate) use run::{Event, Finished, Order, Progress, Spec};
use starts::Starts;
use usage::Census;

use crate::clock;
use crate::ending::late;

mod account;
mod capture;
pub(crate) mod cgroup;
mod earlier;
pub(crate) mod guard;
mod ladder;
mod launch;
mod ledger;
mod live;
mod marker;
mod proc;
mod process;
mod run;
mod starts;
#[cfg(test)]
mod tests;
pub(crate) mod trial;
mod usage;

/// How long a start may still take that is to be ended: one that succeeds meanwhile is ended as every
/// run is, with its grace.
const HANGS: Duration = Duration::from_secs(1);

/// How often, and how many times in a row, nothing of an abandoned run must be seen: a process that
/// is just being started has no marker until it executes its program.
const QUIET: (Duration, usize) = (Duration::from_millis(50), 3);

/// Runs jobs. Cheap to clone; all clones share their looks at `/proc`.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    census: Census,
    guard: Guard,
    starts: Starts,
    ledger: Option<Ledger>,
    cgroups: Option<Cgroups>,
}

impl Executor {
    /// One whose runs are started by `guard`, and ended by it when the worker cannot.
    pub(crate) fn new(guard: Guard) -> Self {
        let (census, starts) = (Census::default(), Starts::default());
        Self { census, guard, starts, ledger: None, cgroups: None }
    }

    /// The same, with a control group for each run; absent is none.
    pub(crate) fn grouping(self, cgroups: Option<Cgroups>) -> Self {
        Self { cgroups, ..self }
    }

    /// The same, which keeps a list of its live runs in this folder, and begins to end what is left
    /// of those that an earlier life of the worker has left in it. Needs a runtime.
    pub(crate) fn keeping_ledger(self, folder: &Path) -> Self {
        let (ledger, runs) = match Ledger::open(folder) {
            Ok(opened) => opened,
            Err(e) => {
                warn!("cannot keep a list of live runs in {}: {e}", folder.display());
                return self;
            }
        };
        let (census, cgroups) = (self.census.clone(), self.cgroups.clone());
        tokio::spawn(earlier::end(ledger.clone(), runs, census, cgroups));
        Self { ledger: Some(ledger), ..self }
    }

    /// Runs `spec` to its end.
    ///
    /// `orders` may be closed at any time; that is no order. `events` is never waited for, and each
    /// may carry 1 MiB of output, so a small bound does: output that does not fit waits in up to
    /// 4 MiB of memory and is then dropped, which the output itself says; a run that `blocks` is
    /// stopped by its pipe before. If the future is dropped,
    /// the whole process group is killed.
    ///
    /// Only a few processes are started at once, as long as none hangs. A start that hangs is given up
    /// a second after an order or the time-out; past its deadline or its lease it comes to nothing.
    pub(crate) async fn run(
        &self,
        spec: Spec,
        orders: mpsc::Receiver<Order>,
        events: mpsc::Sender<Event>,
    ) -> Finished {
        let mut orders = Orders::new(orders);
        let asked = clock::now();
        if let Some(order) = orders.already() {
            return before_start(&Cause::from_order(&order), asked);
        }
        let run = spec.run;
        if let Some(ledger) = &self.ledger {
            ledger.begin(run);
        }
        let finished = self.launch(spec, orders, events, asked).await;
        // Not where this future is dropped: then there may still be what to end.
        self.forget(run);
        finished
    }

    /// Waits until no run is to be started, 100 ms at most: what is due goes before what is over, and
    /// before what is only told.
    pub(crate) async fn starts_first(&self) {
        self.starts.none().await;
    }

    /// Nothing is left of the run that is to be ended.
    fn forget(&self, run: RunId) {
        self.guard.ended(run);
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove(run);
        }
        if let Some(ledger) = &self.ledger {
            ledger.end(run);
        }
    }

    /// Kills at once what is left of a run whose future was dropped, wherever it went, until nothing
    /// is, or nothing that the worker may signal.
    pub(crate) async fn sweep(&self, run: RunId) {
        let (pause, times) = QUIET;
        let (mut groups, mut quiet) = (HashSet::new(), 0);
        let keeper = self.guard.keeper_of(run);
        while quiet < times {
            let all = self.census.processes_after(Instant::now()).await;
            let inside = self.cgroups.as_ref().map(|c| c.processes(run)).unwrap_or_default();
            let left = marker::of_run(&all, run, keeper, &inside, &mut groups);
            let killed = left.into_iter().filter(|process| process.signal(Signal::KILL)).count();
            quiet = if killed == 0 { quiet + 1 } else { 0 };
            sleep(pause).await;
        }
        self.forget(run);
    }

    async fn launch(
        &self,
        spec: Spec,
        mut orders: Orders,
        events: mpsc::Sender<Event>,
        asked: DateTime<Utc>,
    ) -> Finished {
        let cgroup = self.cgroups.as_ref().and_then(|cgroups| cgroups.make(spec.run));
        let spec = Spec { launch: Launch { cgroup, ..spec.launch }, ..spec };
        let (tree, pipes) = match self.start(&spec, &mut orders, asked).await {
            Ok(started) => started,
            Err(finished) => return finished,
        };
        let cgroups = self.cgroups.clone().filter(|_| spec.launch.cgroup.is_some());
        let live = Live::new(spec, tree, pipes, self.census.clone()).in_cgroup(cgroups);
        let over = live.follow(&mut orders, &events).await;
        self.starts_first().await;
        over.finish().await
    }

    /// Has its shell started; an error is what became of a run that has none.
    async fn start(
        &self,
        spec: &Spec,
        orders: &mut Orders,
        asked: DateTime<Utc>,
    ) -> Result<(Tree, Pipes), Finished> {
        let started = select! {
            biased;
            started = self.starts.carry(Tree::start(&self.guard, spec)) => started,
            cause = given_up(orders, spec.timeout) => {
                self.sweep(spec.run).await;
                return Err(before_start(&cause, asked));
            }
        };
        match started {
            Ok(started) => Ok(started),
            Err(StartError::TooLate) => {
                let past = spec.launch.start_by.is_some_and(|by| by <= clock::since_boot());
                let (outcome, why) = late(past);
                Err(Finished::without_process(outcome, why.to_owned(), asked, None))
            }
            Err(e) => {
                if matches!(e, StartError::Gone) {
                    // It may have been started in the very moment.
                    self.sweep(spec.run).await;
                }
                Err(Finished::without_process(e.outcome(), e.to_string(), asked, None))
            }
        }
    }
}

/// Waits for an order or the time-out, and then a little longer, and returns why a start that still
/// hangs is given up.
async fn given_up(orders: &mut Orders, limit: Option<Duration>) -> Cause {
    let ordered = async { Cause::from_order(orders.coming().await) };
    let cause = match limit {
        Some(limit) => timeout(limit, ordered).await.unwrap_or(Cause::TimeOut(limit)),
        None => ordered.await,
    };
    sleep(HANGS).await;
    cause
}

/// What became of a run that was ended while nothing of it ran yet.
fn before_start(cause: &Cause, asked: DateTime<Utc>) -> Finished {
    let err = format!("{} before it started", cause.words());
    Finished::without_process(cause.outcome(), err, asked, cause.killed_by())
}
