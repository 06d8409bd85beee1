//! The wiring of the worker, and how it leaves.
//!
//! One loop owns everything that is decided here. It hears from the watch, the clock, the claims,
//! the runs and the lease, and never waits for a store: whatever does is a task that reports back.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carillon_core::claims::{Answer, Claims};
use carillon_core::decide::Move;
use carillon_core::etcd::Etcd;
use carillon_core::fleet::{Registration, rules_version};
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::{Concurrency, JobEntry};
use carillon_core::keys::{Key, Keys};
use carillon_core::records::Records;
use carillon_core::replica::{Feed, Versioned};
use carillon_core::run::{LiveRun, Outcome, RunRecord};
use carillon_core::settings::Connection;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::claim::{Effect, Settled, take_step, take_trigger};
use crate::clock::{self, Alarm, Rang};
use crate::execute::{Executor, Order};
use crate::fault::Fault;
use crate::lease::{Keeper, Standing};
use crate::report::{REPORTS_BOUND, Report, Reporter};
use crate::runs::Runs;
use crate::schedule::{Due, Schedule};
use crate::supervise::{Over, Supervisor, order};

/// How many things are looked at in one turn of the loop: less than a millisecond's work, after
/// which kills, edits and signals have their turn.
const TURN: usize = 64;
/// After a refusal the watch brings what changed; this is for the case that it does not.
const SECOND_LOOK: TimeDelta = TimeDelta::milliseconds(500);
/// After a failure to reach etcd.
const AFTER_FAILURE: TimeDelta = TimeDelta::seconds(1);
/// Transactions under way at once, measured to be enough for one node (64 in flight).
const CLAIMS: usize = 64;
/// A clock that was moved by less was not set: reading it twice takes about so long.
const TOLD_FROM: TimeDelta = TimeDelta::milliseconds(1);
/// Starts over which the lateness percentile is computed.
const LATENESS_WINDOW: usize = 256;
/// How long the last runs may take to end after their grace.
const LAST_ENDS: Duration = Duration::from_secs(5);
/// How long the reporter may go on after the last run, at the end.
const LAST_REPORTS: Duration = Duration::from_secs(5);

/// What the worker is told at its start.
pub(crate) struct Options {
    pub id: WorkerId,
    pub host: String,
    pub labels: BTreeMap<String, String>,
    pub capacity: u32,
    pub state_dir: PathBuf,
    pub drain_timeout: Duration,
    pub max_skew: TimeDelta,
    pub fault: Fault,
    pub connection: Connection,
}

/// Runs the worker until it is told to stop and has left in order.
///
/// # Errors
/// Only what makes a start impossible: a wrong address, or no timer. Stores that are away are
/// waited for.
pub(crate) async fn run(options: Options, mut stops: mpsc::Receiver<()>) -> Result<()> {
    let alarm = Alarm::new().context("cannot make a timer")?;
    let connection = &options.connection;
    let keys = connection.keys.clone();
    let etcd = Etcd::connect(&connection.endpoints, keys.clone()).await?;
    let records = Records::connect(&connection.mongo, keys.fleet())
        .await
        .with_context(|| format!("cannot use {}", connection.mongo_shown()))?;
    info!(
        "worker {} of fleet {} on etcd {} and MongoDB {}, state in {}",
        options.id,
        keys.fleet(),
        etcd.endpoints(),
        records.uri(),
        options.state_dir.display()
    );
    let claims = Claims::new(etcd.clone());
    let (reports, to_write) = mpsc::channel(REPORTS_BOUND);
    let reporter = Reporter {
        records: records.clone(),
        claims: claims.clone(),
        reports: to_write,
        patience: LAST_REPORTS,
    };
    let reporter = tokio::spawn(reporter.run());
    let (registration, registered) = watch::channel(first_registration(&options));
    let (standing, stands) = watch::channel(Standing::default());
    let (leave, leaving) = mpsc::channel(1);
    let keeper = Keeper {
        etcd: etcd.clone(),
        claims: claims.clone(),
        id: options.id.clone(),
        registration: registered,
        standing,
        leave: leaving,
    };
    let keeper = tokio::spawn(keeper.keep());
    let supervisor = Supervisor {
        claims: claims.clone(),
        records,
        executor: Executor::default(),
        reports: reports.clone(),
        standing: stands.clone(),
        worker: options.id.clone(),
        fault: options.fault,
        fleet: keys.fleet().to_owned(),
    };
    let daemon = Daemon {
        schedule: Schedule::new(keys.clone(), options.id.clone(), options.max_skew),
        id: options.id,
        labels: options.labels,
        capacity: options.capacity as usize,
        keys,
        claims,
        supervisor,
        reports,
        registration,
        standing: stands,
        synced: false,
        out_of_touch: false,
        draining: false,
        stopping: false,
        deciding: BTreeSet::new(),
        runs: Runs::default(),
        waiting: HashMap::new(),
        told: BTreeMap::new(),
        lateness: VecDeque::new(),
        settling: JoinSet::new(),
        running: JoinSet::new(),
    };
    let worked = daemon.work(etcd.feed(), alarm, &mut stops, options.drain_timeout).await;
    leave.send(()).await.ok();
    keeper.await.ok();
    reporter.await.ok();
    info!("left");
    worked.context("the alarm failed")
}

fn first_registration(options: &Options) -> Registration {
    let now = clock::now();
    Registration {
        host: options.host.clone(),
        pid: std::process::id(),
        labels: options.labels.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rules_version: rules_version(),
        capacity: options.capacity,
        running: 0,
        lateness_p99_millis: None,
        clock: now,
        started: now,
        draining: false,
        standing_by: None,
        watch_revision: 0,
        spool_bytes: 0,
    }
}

/// A run that waits for the end of those it replaces.
struct Waiting {
    live: LiveRun,
    entry: Arc<JobEntry>,
    orders: mpsc::Receiver<Order>,
}

struct Daemon {
    schedule: Schedule,
    id: WorkerId,
    labels: BTreeMap<String, String>,
    capacity: usize,
    keys: Keys,
    claims: Claims,
    supervisor: Supervisor,
    reports: mpsc::Sender<Report>,
    registration: watch::Sender<Registration>,
    standing: watch::Receiver<Standing>,
    /// Whether the whole list has been read.
    synced: bool,
    /// Whether the watch is broken, and the log was told.
    out_of_touch: bool,
    /// Asked through etcd to take nothing new.
    draining: bool,
    /// Asked by a signal to end.
    stopping: bool,
    /// Jobs with a transaction under way: one at a time for each.
    deciding: BTreeSet<JobName>,
    runs: Runs,
    waiting: HashMap<RunId, Waiting>,
    /// What the log was told about jobs that cannot be scheduled.
    told: BTreeMap<JobName, String>,
    lateness: VecDeque<u64>,
    settling: JoinSet<Settled>,
    running: JoinSet<Over>,
}

impl Daemon {
    async fn work(
        mut self,
        mut feed: mpsc::Receiver<Feed>,
        mut alarm: Alarm,
        stops: &mut mpsc::Receiver<()>,
        drain_timeout: Duration,
    ) -> std::io::Result<()> {
        let mut drained = None;
        let mut last_call = None;
        let mut more = false;
        loop {
            if self.stopping && self.is_idle() {
                return Ok(());
            }
            if !more {
                // What may not be decided yet is not waited for: an event will tell.
                let next = if self.may_decide() { self.schedule.peek() } else { None };
                alarm.set(next)?;
            }
            // One of those that are ready is picked at random, so all get their turn.
            tokio::select! {
                Some(fed) = feed.recv() => self.hear(&fed),
                Some(settled) = self.settling.join_next() => match settled {
                    Ok(settled) => self.on_settled(settled),
                    Err(e) => error!("a decision failed: {e}"),
                },
                Some(over) = self.running.join_next() => match over {
                    Ok(over) => self.on_over(&over),
                    Err(e) => error!("a run was not seen through: {e}"),
                },
                Ok(()) = self.standing.changed() => self.on_standing(),
                _ = stops.recv() => {
                    if std::mem::replace(&mut self.stopping, true) {
                        last_call = Some(self.call_last("the worker was told to stop at once"));
                    } else {
                        info!("draining: {} live runs may take {} s", self.runs.live(), drain_timeout.as_secs());
                        drained = Some(Instant::now() + drain_timeout);
                        self.publish();
                    }
                }
                () = until(drained), if drained.is_some() => {
                    drained = None;
                    last_call = Some(self.call_last("the worker stopped and its drain time was over"));
                }
                () = until(last_call), if last_call.is_some() => {
                    warn!("leaving although etcd does not take the ends of the last runs: the others settle them as lost");
                    return Ok(());
                }
                rang = alarm.rings(), if !more => if let Rang::ClockSet { by } = rang? {
                    self.on_clock_set(by);
                },
                () = std::future::ready(()), if more => {}
            }
            more = self.tick(clock::now());
        }
    }

    /// Whether nothing that was begun is unfinished; a run that waits for another's end counts.
    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.settling.is_empty() && self.waiting.is_empty()
    }

    /// Ends all runs, and says until when that is waited for.
    fn call_last(&self, reason: &str) -> Instant {
        self.runs.abandon(reason, None);
        Instant::now() + self.runs.longest_grace() + LAST_ENDS
    }

    /// Whether anything may be decided now.
    fn may_decide(&self) -> bool {
        self.synced && self.settling.len() < CLAIMS && self.standing.borrow().may_act()
    }

    /// Acts on what is due, for one turn. Returns whether more is due that may be acted on.
    fn tick(&mut self, now: DateTime<Utc>) -> bool {
        for _ in 0..TURN {
            if !self.may_decide() {
                return false;
            }
            let Some(due) = self.schedule.pop_due(now, self.takes_new()) else {
                return false;
            };
            match due {
                Due::Job(job) => self.consider(&job, now),
                Due::Trigger(job, id) => self.consider_trigger(&job, id, now),
                Due::Lost(job, run) => self.settle_lost(&job, run, now),
                Due::Spawn(_, run) => self.go_ahead(run),
                Due::Lingering(job, id) => self.complete(&job, id),
            }
        }
        true
    }

    fn on_clock_set(&mut self, by: TimeDelta) {
        let now = clock::now();
        if by.abs() < TOLD_FROM {
            info!(
                "the machine was suspended, or its clock set by next to nothing: looking at every job again"
            );
        } else {
            let direction = if by < TimeDelta::zero() { "backwards" } else { "forwards" };
            let seconds = by.abs().as_seconds_f64();
            warn!("the clock was set {direction} by {seconds:.3} s: looking at every job again");
        }
        self.schedule.clock_set(by, now);
    }

    fn lease(&self) -> i64 {
        self.standing.borrow().lease
    }

    fn takes_new(&self) -> bool {
        !self.draining && !self.stopping && self.runs.load() < self.capacity
    }

    fn may_run(&self, entry: &JobEntry) -> bool {
        entry.job().is_some_and(|job| job.selects(&self.labels))
    }

    fn consider(&mut self, job: &JobName, now: DateTime<Utc>) {
        if self.deciding.contains(job) {
            // It goes on when that is settled.
            return;
        }
        let wanted = match self.schedule.look_at(job, self.lease(), now) {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                self.told.remove(job);
                return;
            }
            Err(why) => {
                if self.told.get(job) != Some(&why) {
                    warn!(%job, "does not run: {why}");
                    self.told.insert(job.clone(), why);
                }
                return;
            }
        };
        if let Move::Run { slot, spawn_before, .. } = &wanted.step {
            let may_run = self.may_run(&wanted.entry);
            if !(may_run && self.takes_new()) {
                // The others take it; if nobody does, it is settled as missed after its deadline.
                let due = Due::Job(job.clone());
                self.schedule.agenda.insert(due.clone(), *spawn_before);
                if may_run {
                    self.schedule.hold(due, slot.instant());
                }
                return;
            }
        }
        self.deciding.insert(job.clone());
        let run = RunId::new(now);
        if matches!(wanted.step, Move::Run { .. }) {
            self.runs.claiming(run);
        }
        self.settling.spawn(take_step(self.claims.clone(), self.keys.clone(), wanted, run, now));
    }

    fn consider_trigger(&mut self, job: &JobName, id: RunId, now: DateTime<Utc>) {
        if self.deciding.contains(job) {
            return;
        }
        let lease = self.lease();
        let Some(wanted) = self.schedule.look_at_trigger(job, id, lease, now) else { return };
        if let Ok((entry, _)) = &wanted.verdict {
            let may_run = self.may_run(entry);
            if !(may_run && self.takes_new()) {
                let (due, request) = (Due::Trigger(job.clone(), id), &wanted.trigger.value);
                self.schedule.agenda.insert(due.clone(), Schedule::expiry_of(request));
                if may_run {
                    self.schedule.hold(due, request.not_before);
                }
                return;
            }
            self.runs.claiming(id);
        }
        self.deciding.insert(job.clone());
        self.settling.spawn(take_trigger(self.claims.clone(), self.keys.clone(), wanted, now));
    }

    fn on_settled(&mut self, settled: Settled) {
        let Settled { job, effect, puts, answer } = settled;
        self.deciding.remove(&job);
        let run = match &effect {
            Effect::Begins(live, _) => Some(live.run),
            Effect::Records(_) | Effect::Moves => None,
        };
        if let Some(run) = run {
            self.runs.answered(run);
        }
        let now = clock::now();
        let look_again = match answer {
            Ok(Answer::Done(revision)) => {
                self.schedule.take_own(puts, revision, now);
                match effect {
                    Effect::Begins(live, entry) => {
                        debug!(%job, run = %live.run, "claimed at revision {revision}");
                        self.start(LiveRun { fence: revision, ..live }, entry);
                    }
                    Effect::Records(record) => {
                        info!(%job, outcome = %record.outcome, "{}", record.err);
                        let done = Versioned { value: *record, mod_revision: revision };
                        self.report(job.clone(), done);
                    }
                    Effect::Moves => {}
                }
                self.schedule.go_on(&job, now);
                return;
            }
            Ok(Answer::Refused(why)) => {
                debug!(%job, "refused: {why:?}");
                SECOND_LOOK
            }
            Err(e) => {
                // It may have been carried out. Then its key comes by the watch and is adopted.
                warn!(%job, "cannot decide it: {e}");
                if let Some(run) = run {
                    self.adopt(&job, run);
                }
                AFTER_FAILURE
            }
        };
        self.schedule.bring_up(&job, now + look_again);
    }

    fn report(&mut self, job: JobName, done: Versioned<RunRecord>) {
        // A full channel is no loss: the done/ key lingers and is completed later.
        self.reports.try_send(Report::Done(job, Box::new(done))).ok();
    }

    fn start(&mut self, live: LiveRun, entry: Arc<JobEntry>) {
        let Some(orders) = self.runs.begin(&live) else { return };
        if let Some(kill) = self.schedule.replica.kill_of(&live) {
            self.runs.order(live.run, order(&kill));
        }
        let run = live.run;
        let replaces = entry.job().is_some_and(|job| job.concurrency == Concurrency::Replace);
        let (job, at) = (live.job.clone(), live.value.spawn_before);
        self.waiting.insert(run, Waiting { live, entry, orders });
        if replaces {
            self.schedule.agenda.insert(Due::Spawn(job.clone(), run), at);
            self.let_go(&job);
        } else {
            self.go_ahead(run);
        }
    }

    /// Starts the runs of a job that wait for no earlier one any more.
    fn let_go(&mut self, job: &JobName) {
        let free = |w: &&Waiting| w.live.job == *job && self.schedule.older_than(&w.live) == 0;
        let runs: Vec<RunId> = self.waiting.values().filter(free).map(|w| w.live.run).collect();
        for run in runs {
            self.go_ahead(run);
        }
    }

    /// Starts a run; past its deadline the supervisor records that instead.
    fn go_ahead(&mut self, run: RunId) {
        let Some(Waiting { live, entry, orders }) = self.waiting.remove(&run) else { return };
        self.schedule.agenda.remove(&Due::Spawn(live.job.clone(), run));
        let days = self.schedule.retention_of(&entry);
        self.running.spawn(self.supervisor.clone().see_through(live, entry, orders, days));
        self.publish();
    }

    fn on_over(&mut self, over: &Over) {
        self.runs.end(over.live.run, over.ended_at);
        self.runs.seen(self.schedule.replica.revision);
        if let Some(late) = over.lateness {
            if self.lateness.len() == LATENESS_WINDOW {
                self.lateness.pop_front();
            }
            self.lateness.push_back(u64::try_from(late.num_milliseconds()).unwrap_or(0));
        }
        self.publish();
    }

    fn on_standing(&mut self) {
        let standing = *self.standing.borrow_and_update();
        // A loss and a new registration may come as one change.
        self.runs.abandon("the worker lost its lease", Some(standing.lease));
    }

    fn hear(&mut self, fed: &Feed) {
        if let Feed::Lost { reason } = fed {
            if !std::mem::replace(&mut self.out_of_touch, true) {
                warn!("out of touch with etcd, trying again: {reason}");
            }
            return;
        }
        if std::mem::take(&mut self.out_of_touch) {
            info!("in touch with etcd again");
        }
        let now = clock::now();
        let touched = self.schedule.take(fed, now);
        if let Feed::Snapshot { revision, .. } = fed {
            let jobs = self.schedule.replica.jobs.len();
            info!("read {jobs} jobs at revision {revision}");
            self.synced = true;
        }
        for key in touched {
            match key {
                Key::Running(job, run) => {
                    self.adopt(&job, run);
                    self.notice_settled(&job, run);
                    self.let_go(&job);
                }
                Key::KillRun(job, _) | Key::KillJob(job) => self.pass_kills_on(&job),
                Key::Drain(worker) if worker == self.id => {
                    self.draining = self.schedule.replica.drains.contains(&worker);
                    info!("{}", if self.draining { "draining" } else { "taking runs again" });
                    self.publish();
                }
                Key::Settings => self.publish(),
                Key::Misnamed(name, why) => warn!("a key in the place of a job: {name:?}: {why}"),
                _ => {}
            }
        }
        let revision = self.schedule.replica.revision;
        self.runs.seen(revision);
        self.registration.send_if_modified(|r| {
            r.watch_revision = revision;
            false
        });
    }

    /// A run's key under our lease whose run we never started: the answer to its claim was lost.
    fn adopt(&mut self, job: &JobName, run: RunId) {
        let lease = self.lease();
        let Some(live) = self.schedule.live(job, run) else { return };
        if !self.runs.is_orphan(live, &self.id, lease) {
            return;
        }
        let live = live.clone();
        match self.schedule.replica.jobs.get(job).cloned() {
            Some(entry) if entry.state.is_ok() => {
                info!(%job, %run, "adopted: its claim was carried out although no answer came");
                self.start(live, entry);
            }
            _ => {
                let reason = "the job was deleted before the run could start";
                let now = clock::now();
                let record = RunRecord::of_run(&live, "", now).ended(Outcome::Missed, now, reason);
                self.spawn_end(live, record, false);
            }
        }
    }

    /// A run of ours whose key is gone: the others took us for dead.
    fn notice_settled(&mut self, job: &JobName, run: RunId) {
        let revision = self.schedule.replica.revision;
        if self.schedule.live(job, run).is_none() && self.runs.is_settled_by_others(run, revision) {
            let reason = "the fleet took its worker for dead and settled it".to_owned();
            // The ordinary end of a run comes here too: nobody listens to the order then.
            self.runs.order(run, Order::Abandon { reason });
        }
    }

    fn pass_kills_on(&mut self, job: &JobName) {
        for live in self.schedule.replica.live_of(job).filter(|live| self.runs.has(live.run)) {
            if let Some(kill) = self.schedule.replica.kill_of(live) {
                info!(%job, run = %live.run, "kill asked for by {}", kill.by);
                self.runs.order(live.run, order(&kill));
            }
        }
    }

    fn settle_lost(&mut self, job: &JobName, run: RunId, now: DateTime<Utc>) {
        if self.runs.has(run) {
            // Ours, under an earlier lease: its own end settles it.
            return;
        }
        let Some(live) = self.schedule.lost(job, run).cloned() else {
            return;
        };
        let entry = self.schedule.replica.jobs.get(job);
        let command = entry.and_then(|e| e.job()).map_or("", |job| job.command.as_str());
        let days = match entry {
            Some(entry) => self.schedule.retention_of(entry),
            None => self.schedule.replica.settings().0.retention_days,
        };
        let reason =
            format!("the worker {} died or lost its lease during the run", live.value.worker);
        let record = RunRecord::of_run(&live, command, live.value.since).kept_for(days).ended(
            Outcome::Lost,
            now,
            &reason,
        );
        warn!(%job, %run, "{}", record.err);
        self.schedule.agenda.insert(Due::Lost(job.clone(), run), now + AFTER_FAILURE * 5);
        self.spawn_end(live, record, true);
    }

    fn spawn_end(&mut self, live: LiveRun, record: RunRecord, lost: bool) {
        let (claims, reports) = (self.claims.clone(), self.reports.clone());
        tokio::spawn(async move {
            let answer = if lost {
                claims.settle_lost(&live, &record).await
            } else {
                claims.end(&live, &record).await
            };
            match answer {
                Ok(Answer::Done(mod_revision)) => {
                    let done = Versioned { value: record, mod_revision };
                    reports.send(Report::Done(live.job, Box::new(done))).await.ok();
                }
                Ok(Answer::Refused(_)) => debug!(run = %live.run, "somebody else settled it"),
                Err(e) => error!(run = %live.run, "cannot settle it yet: {e}"),
            }
        });
    }

    /// Takes a decision to MongoDB that its own worker has left behind.
    fn complete(&mut self, job: &JobName, id: RunId) {
        if let Some(done) = self.schedule.done(job, id).cloned() {
            debug!(%job, run = %id, "completing a record that lingers");
            self.report(job.clone(), done);
            let again = clock::now() + TimeDelta::seconds(15);
            self.schedule.agenda.insert(Due::Lingering(job.clone(), id), again);
        }
    }

    /// Publishes load and state in the registration.
    fn publish(&mut self) {
        let mut sorted: Vec<u64> = self.lateness.iter().copied().collect();
        sorted.sort_unstable();
        let p99 = sorted.get(sorted.len().saturating_sub(1) * 99 / 100).copied();
        let running = u32::try_from(self.runs.live()).unwrap_or(u32::MAX);
        let draining = self.draining || self.stopping;
        let standing_by = self.schedule.barred();
        self.registration.send_if_modified(|r| {
            r.running = running;
            r.lateness_p99_millis = p99;
            // Load is told with the next renewal; that it takes nothing new, at once.
            let news = r.draining != draining || r.standing_by != standing_by;
            (r.draining, r.standing_by) = (draining, standing_by.clone());
            news
        });
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
