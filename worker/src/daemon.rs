//! The wiring of the worker, and how it leaves.
//!
//! One loop hears from the watch, the clock, the answers, the runs and the lease, has the decider
//! say what follows, and does it. It never waits for a store: whatever does is a task that reports
//! back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, Result};
use carillon_core::claims::{Answer, Claims};
use carillon_core::etcd::{Etcd, EtcdError};
use carillon_core::fleet::{Registration, rules_version};
use carillon_core::id::{RunId, WorkerId};
use carillon_core::records::Records;
use carillon_core::replica::Feed;
use carillon_core::settings::Connection;
use chrono::TimeDelta;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info, warn};

use crate::burst::Burst;
use crate::claim::Proposal;
use crate::clock::{self, Alarm, Rang, since_boot, until};
use crate::courier::Courier;
use crate::decider::{Act, Decider, Me};
use crate::ends::Ends;
use crate::execute::cgroup::Cgroups;
use crate::execute::guard::Guard;
use crate::execute::{Executor, Order};
use crate::fault::Fault;
use crate::lease::{Keeper, Standing};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::notify::{Sender, Targets};
use crate::report::{self, Report, Reporter, Reports, Store, Telling};
use crate::room;
use crate::skew::Skew;
use crate::state::StateDir;
use crate::supervise::{Charge, ORDERS_BOUND, Over, Supervisor, order};
use crate::trust::Trust;

/// A clock that was moved by less was not set: reading it twice takes about so long.
const TOLD_FROM: TimeDelta = TimeDelta::milliseconds(1);
/// Starts over which the lateness percentile is computed.
const LATENESS_WINDOW: usize = 256;
/// How often MongoDB is asked for its clock.
const CLOCK_READ_EVERY: Duration = Duration::from_secs(30);
/// The same after it did not answer.
const CLOCK_READ_AGAIN: Duration = Duration::from_secs(2);
/// How long the others may take to hear that this worker takes nothing new.
const HANDOVER: Duration = Duration::from_secs(2);
/// How long the last runs may take to end after their grace.
const LAST_ENDS: Duration = Duration::from_secs(5);
/// How long the last messages to the targets may take after that.
const LAST_MESSAGES: Duration = Duration::from_secs(3);
/// How long the reporter may go on after the last run, at the end.
const LAST_REPORTS: Duration = Duration::from_secs(5);

/// What the worker is told at its start.
pub(crate) struct Options {
    pub id: WorkerId,
    pub host: String,
    pub labels: BTreeMap<String, String>,
    pub capacity: u32,
    pub state: StateDir,
    /// How much may wait on disk for MongoDB, in bytes.
    pub spool_bytes: u64,
    /// How large etcd may grow, in bytes, where it does not say.
    pub etcd_quota: u64,
    pub drain_timeout: Duration,
    pub max_skew: TimeDelta,
    pub fault: Fault,
    pub connection: Connection,
    pub targets: Targets,
}

/// Runs the worker until it is told to stop and has left in order.
///
/// # Errors
/// Only what makes a start impossible: a wrong address, no timer, or a state folder that cannot be
/// read. Stores that are away are waited for.
pub(crate) async fn run(
    options: Options,
    metrics: Metrics,
    mut stops: mpsc::Receiver<()>,
) -> Result<()> {
    let alarm = Alarm::new().context("cannot make a timer")?;
    let memory = Memory::load(options.state.path())
        .with_context(|| format!("cannot read {}/etcd.json", options.state.path().display()))?;
    let connection = &options.connection;
    let keys = connection.keys.clone();
    let etcd = Etcd::connect(&connection.endpoints, keys.clone()).await?;
    let records = Records::connect(connection.mongo.reveal(), keys.fleet())
        .await
        .with_context(|| format!("cannot use {}", connection.mongo))?;
    info!(
        "worker {} of fleet {} on etcd {} and MongoDB {}, state in {}",
        options.id,
        keys.fleet(),
        etcd.endpoints(),
        records.uri(),
        options.state.path().display()
    );
    let claims = Claims::new(etcd.clone());
    metrics.capacity(options.capacity as usize);
    let (offsets, mongo_clock) = mpsc::channel(1);
    tokio::spawn(read_clock(records.clone(), offsets));
    let courier = Courier::start(claims.clone(), metrics.clone());
    let (reports, inbox) = report::way();
    let (registration, registered) = watch::channel(first_registration(&options));
    let spool = options.state.path().join("spool");
    let (crowding, crowded) = watch::channel(false);
    tokio::spawn(room::follow(etcd.clone(), options.etcd_quota, metrics.clone(), crowding));
    let reporter = Reporter::open(
        Store { records: records.clone(), courier: courier.clone(), crowded },
        &spool,
        options.spool_bytes,
        inbox,
        LAST_REPORTS,
        Telling { metrics: metrics.clone(), registration: registration.clone() },
    )
    .with_context(|| format!("cannot use {}", spool.display()))?;
    let reporter = tokio::spawn(reporter.run());
    let (standing, stands) = watch::channel(Standing::default());
    let (leave, leaving) = mpsc::channel(1);
    let (clock_trust, trusted) = watch::channel(false);
    let (sender, nudge) = Sender::new(
        records.clone(),
        options.targets,
        metrics.clone(),
        &options.id,
        options.fault.clone(),
        trusted,
        options.max_skew,
    );
    let (hush, hushed) = oneshot::channel();
    let sender = tokio::spawn(sender.run(hushed));
    let guard = Guard::start();
    let keeper = Keeper {
        etcd: etcd.clone(),
        claims: claims.clone(),
        id: options.id.clone(),
        registration: registered,
        standing,
        guard: guard.clone(),
        former: None,
    };
    let keeper = tokio::spawn(keeper.keep(leaving));
    let supervisor = Supervisor {
        courier: courier.clone(),
        records,
        executor: Executor::new(guard).grouping(cgroups()).keeping_ledger(options.state.path()),
        reports: reports.clone(),
        standing: stands.clone(),
        worker: options.id.clone(),
        fault: options.fault,
        fleet: keys.fleet().to_owned(),
        ends: Ends::in_folder(options.state.path()),
        nudge,
    };
    let mut left = JoinSet::new();
    for (live, end) in supervisor.ends.left() {
        left.spawn(supervisor.clone().catch_up(live, end));
    }
    let me = Me {
        id: options.id,
        labels: options.labels,
        capacity: options.capacity as usize,
        max_skew: options.max_skew,
    };
    let skew = Skew::new(options.max_skew, since_boot());
    let daemon = Daemon {
        trust: Trust::new(me.id.clone(), skew, memory),
        decider: Decider::new(keys, me),
        claims,
        courier,
        supervisor,
        reports,
        registration,
        standing: stands,
        metrics,
        clock_trust,
        etcd: etcd.clone(),
        out_of_touch: false,
        told_failure: false,
        orders: HashMap::new(),
        lateness: VecDeque::new(),
        answers: JoinSet::new(),
        burst: Burst::default(),
        running: JoinSet::new(),
        charges: HashMap::new(),
    };
    let worked =
        daemon.work(etcd.feed(), mongo_clock, alarm, &mut stops, options.drain_timeout).await;
    // What etcd still does not take waits on disk for the next life; the reporter waits for no more.
    drop(left);
    leave.send(()).await.ok();
    keeper.await.ok();
    reporter.await.ok();
    hush.send(()).ok();
    // It may be waiting for MongoDB.
    timeout(LAST_MESSAGES, sender).await.ok();
    info!("left");
    worked.context("the alarm failed")
}

/// Control groups for the runs, where there can be any.
fn cgroups() -> Option<Cgroups> {
    match Cgroups::find() {
        Ok(cgroups) => {
            info!("a control group for each run, in {}", cgroups.path().display());
            Some(cgroups)
        }
        Err(why) => {
            info!("no control group for each run: {why}");
            None
        }
    }
}

fn first_registration(options: &Options) -> Registration {
    let now = clock::now();
    Registration {
        host: options.host.clone(),
        pid: std::process::id(),
        labels: options.labels.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rules_version: rules_version().to_owned(),
        capacity: options.capacity,
        running: 0,
        lateness_p99_millis: None,
        clock: now,
        started: now,
        draining: false,
        full: false,
        standing_by: None,
        restored: false,
        watch_revision: 0,
        table_hash: String::new(),
        spool_bytes: 0,
    }
}

/// Proposals that travelled together, and what etcd answered to each.
type Answered = Vec<(Proposal, Result<Answer, EtcdError>)>;

struct Daemon {
    decider: Decider,
    claims: Claims,
    courier: Courier,
    supervisor: Supervisor,
    reports: Reports,
    registration: watch::Sender<Registration>,
    standing: watch::Receiver<Standing>,
    metrics: Metrics,
    trust: Trust,
    /// Whether our clock may be gone by, for the sender of messages.
    clock_trust: watch::Sender<bool>,
    etcd: Etcd,
    /// Whether the watch is broken, and the log was told.
    out_of_touch: bool,
    /// Whether etcd did not take a decision, and the log was told.
    told_failure: bool,
    /// The way to each live run.
    orders: HashMap<RunId, mpsc::Sender<Order>>,
    lateness: VecDeque<u64>,
    answers: JoinSet<Answered>,
    burst: Burst<Answered>,
    running: JoinSet<Over>,
    /// Which run each of these tasks has in hand.
    charges: HashMap<Id, Charge>,
}

impl Daemon {
    async fn work(
        mut self,
        mut feed: mpsc::Receiver<Feed>,
        mut mongo_clock: mpsc::Receiver<TimeDelta>,
        mut alarm: Alarm,
        stops: &mut mpsc::Receiver<()>,
        drain_timeout: Duration,
    ) -> std::io::Result<()> {
        let mut stopping = false;
        let (mut handed_over, mut drained, mut last_call) = (None, None, None);
        let mut more = false;
        let mut alone =
            Some(Instant::now() + self.trust.waits_until().saturating_sub(since_boot()));
        self.judge();
        loop {
            if stopping && handed_over.is_none() && self.is_idle() {
                self.trust.write_memory();
                return Ok(());
            }
            if !more {
                let next = if self.may_act() { self.decider.next() } else { None };
                alarm.set(next)?;
            }
            let mut heard = false;
            // One of those that are ready is picked at random, so all get their turn.
            tokio::select! {
                Some(fed) = feed.recv() => {
                    self.hear(&fed);
                    heard = true;
                }
                Some(answered) = self.answers.join_next() => match answered {
                    Ok(answered) => {
                        let (claims, more) = (self.decider.runs.claiming(), !self.answers.is_empty());
                        let ready = self.burst.arrive(answered, claims, more, Instant::now());
                        self.on_answers(ready);
                    }
                    Err(e) => error!("a decision failed: {e}"),
                },
                Some(over) = self.running.join_next_with_id() => match over {
                    Ok((task, over)) => {
                        self.charges.remove(&task);
                        self.on_over(&over);
                    }
                    Err(e) => self.on_failed(&e),
                },
                Ok(()) = self.standing.changed() => self.on_standing(),
                Some(offset) = mongo_clock.recv() => {
                    self.trust.hear_mongo(offset, since_boot());
                    self.judge();
                }
                () = until(self.burst.until()), if self.burst.until().is_some() => {
                    let ready = self.burst.release();
                    self.on_answers(ready);
                }
                () = until(alone), if alone.is_some() => {
                    alone = None;
                    self.judge();
                }
                _ = stops.recv() => {
                    if std::mem::replace(&mut stopping, true) {
                        let grace = self.decider.call_last("the worker was told to stop at once");
                        last_call = Some(Instant::now() + grace + LAST_ENDS);
                    } else {
                        let (live, secs) = (self.orders.len(), drain_timeout.as_secs());
                        info!("draining: {live} live runs may take {secs} s");
                        self.decider.stop();
                        handed_over = Some(Instant::now() + HANDOVER);
                        drained = Some(Instant::now() + drain_timeout);
                    }
                }
                () = until(handed_over), if handed_over.is_some() => {
                    self.decider.announced(true);
                }
                () = until(drained), if drained.is_some() => {
                    drained = None;
                    let reason = "the worker stopped and its drain time was over";
                    last_call = Some(Instant::now() + self.decider.call_last(reason) + LAST_ENDS);
                }
                () = until(last_call), if last_call.is_some() => {
                    warn!("leaving although etcd does not take the ends of the last runs: unless this worker starts again soon, the others settle them as lost");
                    return Ok(());
                }
                rang = alarm.rings(), if !more => if let Rang::ClockSet { by } = rang? {
                    self.on_clock_set(by);
                },
                () = std::future::ready(()), if more => {}
            }
            if let Some(by) = alarm.was_set() {
                self.on_clock_set(by);
            }
            // Nothing is decided on what is known to be old: it would be refused.
            for _ in 0..feed.len() {
                if let Ok(fed) = feed.try_recv() {
                    self.hear(&fed);
                    heard = true;
                }
            }
            // Once: of clocks that are told late, as after a freeze, only the last word counts.
            if heard {
                self.judge();
            }
            more = self.may_act() && self.decider.tick(clock::now());
            if self.decider.has_announced() {
                handed_over = None;
            }
            self.act(more, &alarm);
            self.publish();
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.answers.is_empty() && self.decider.is_idle()
    }

    /// Whether the lease is certain enough to decide anything.
    fn may_act(&self) -> bool {
        self.standing.borrow().may_act()
    }

    /// Does what the decider wants done.
    fn act(&mut self, more_is_due: bool, alarm: &Alarm) {
        for act in self.decider.acts() {
            match act {
                Act::Start { live, entry, start_before, retention_days, kill } => {
                    let (orders, to_run) = mpsc::channel(ORDERS_BOUND);
                    if let Some(kill) = kill {
                        orders.try_send(order(&kill)).ok();
                    }
                    self.orders.insert(live.run, orders);
                    let start_by = alarm.since_boot_at(start_before);
                    let charge = Charge { live, entry, start_by, retention_days };
                    let seen = self.supervisor.clone().see_through(charge.clone(), to_run);
                    self.charges.insert(self.running.spawn(seen).id(), charge);
                }
                Act::Kill(run, request) => self.order(run, order(&request)),
                Act::Abandon(run, reason) => self.order(run, Order::Abandon { reason }),
                // A full channel is no loss: the done/ key lingers and is completed later.
                Act::Report(job, done) => {
                    self.supervisor.nudge.filed(None, &job, &done.value);
                    drop(self.reports.try_send(Report::Done(job, done)));
                }
                Act::Complete(job, done) => {
                    drop(self.reports.try_send(Report::Lingers(job, done)));
                }
                Act::Raise(revision, settings) => {
                    let claims = self.claims.clone();
                    tokio::spawn(async move {
                        match claims.write_settings(revision, &settings).await {
                            Ok(answer) => debug!("raised the rules: {answer:?}"),
                            Err(e) => warn!("cannot raise the rules: {e}"),
                        }
                    });
                }
            }
        }
        let proposals = self.decider.proposals(more_is_due);
        if proposals.is_empty() {
            return;
        }
        let courier = self.courier.clone();
        self.answers.spawn(async move {
            let steps: Vec<_> = proposals.iter().map(|proposal| proposal.step.clone()).collect();
            let answers = courier.send_all(steps.into_iter()).await;
            proposals.into_iter().zip(answers).collect()
        });
    }

    /// Gives a run an order; a run that does not listen any more has ended.
    fn order(&self, run: RunId, order: Order) {
        if let Some(orders) = self.orders.get(&run) {
            // A full channel holds a kill already.
            orders.try_send(order).ok();
        }
    }

    fn on_clock_set(&mut self, by: TimeDelta) {
        if by.abs() < TOLD_FROM {
            info!(
                "the machine was suspended, or its clock set by next to nothing: looking at every job again"
            );
        } else {
            let direction = if by < TimeDelta::zero() { "backwards" } else { "forwards" };
            let seconds = by.abs().as_seconds_f64();
            warn!("the clock was set {direction} by {seconds:.3} s: looking at every job again");
        }
        self.trust.clock_set(by);
        self.judge();
        self.decider.on_clock_set(by, clock::now());
    }

    fn on_answers(&mut self, ready: Vec<Answered>) {
        let now = clock::now();
        for (proposal, answer) in ready.into_iter().flatten() {
            if let (Ok(Answer::Done(_)), Some((what, slots))) = (&answer, proposal.decision()) {
                self.metrics.decided(what, slots);
            }
            match &answer {
                Ok(_) if std::mem::take(&mut self.told_failure) => info!("etcd decides again"),
                Err(e) if !std::mem::replace(&mut self.told_failure, true) => {
                    warn!("nothing is decided for now: {e}");
                }
                _ => {}
            }
            self.decider.on_answer(proposal, answer, now);
        }
    }

    fn on_over(&mut self, over: &Over) {
        self.orders.remove(&over.live.run);
        self.decider.on_over(over.live.run, over.ended_at);
        self.metrics.ended(over.outcome);
        if let Some(late) = over.lateness {
            self.metrics.started(late);
            if self.lateness.len() == LATENESS_WINDOW {
                self.lateness.pop_front();
            }
            self.lateness.push_back(u64::try_from(late.num_milliseconds()).unwrap_or(0));
        }
    }

    /// The supervisor of a run has failed, which only a bug can do: the run must not stay live for
    /// ever.
    fn on_failed(&mut self, e: &JoinError) {
        let Some(charge) = self.charges.remove(&e.id()) else { return };
        let (job, run) = (charge.live.job.clone(), charge.live.run);
        if self.orders.remove(&run).is_some() {
            error!(%job, %run, "a run was not seen through, and is given up: {e}");
            let given_up = self.supervisor.clone().give_up(charge.clone());
            self.charges.insert(self.running.spawn(given_up).id(), charge);
        } else {
            error!(%job, %run, "a run is left to the others, who settle it after this worker: {e}");
            self.decider.on_over(run, None);
        }
    }

    fn on_standing(&mut self) {
        let standing = *self.standing.borrow_and_update();
        if standing.lease == 0 && self.decider.is_registered() {
            self.metrics.lease_lost();
        }
        self.metrics.registered(standing.lease != 0);
        self.metrics.etcd_retries(self.etcd.retries());
        self.decider.on_lease(standing.lease, clock::now());
        self.decider.announced(standing.draining);
        self.judge();
        self.trust.write_memory();
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
        let before = self.decider.schedule.replica.revision;
        self.decider.on_feed(fed, clock::now());
        let replica = &self.decider.schedule.replica;
        self.trust.hear(fed, replica, before, since_boot());
        if matches!(fed, Feed::Part { .. }) {
            return;
        }
        let (revision, table_hash) = (replica.revision, format!("{:016x}", replica.table_hash()));
        self.metrics.applied_revision(revision);
        self.metrics.jobs(replica.jobs.len());
        self.supervisor.nudge.workers(replica.workers.len());
        self.registration.send_if_modified(|r| {
            (r.watch_revision, r.table_hash) = (revision, table_hash);
            false
        });
    }

    /// Goes by what the clocks, the memory and the others tell: whether this worker may claim.
    fn judge(&mut self) {
        let judged = self.trust.judge(&self.decider.schedule.replica, since_boot());
        self.metrics.skew(judged.deviation);
        let trusted = judged.clock;
        self.clock_trust.send_if_modified(|trust| std::mem::replace(trust, trusted) != trusted);
        self.decider.bar(judged.bar, clock::now());
    }

    /// Publishes load and state in the registration.
    fn publish(&mut self) {
        let told = self.decider.told();
        self.metrics.running(told.running as usize);
        self.metrics.draining(told.draining);
        self.metrics.standing_by(told.standing_by.as_deref());
        let (lateness, restored) = (&self.lateness, self.trust.doubts_etcd());
        self.registration.send_if_modified(|r| {
            // The keeper tells it to the others as soon as need be.
            let news = (r.draining, r.full, &r.standing_by)
                != (told.draining, told.full, &told.standing_by);
            if r.running != told.running {
                r.lateness_p99_millis = percentile_99(lateness);
            }
            r.running = told.running;
            (r.draining, r.full, r.standing_by) = (told.draining, told.full, told.standing_by);
            r.restored = restored;
            news
        });
    }
}

/// Asks MongoDB what its clock shows, now and then.
async fn read_clock(records: Records, offsets: mpsc::Sender<TimeDelta>) {
    loop {
        let pause = match records.clock_offset(clock::now).await {
            Ok(offset) if offsets.send(offset).await.is_err() => return,
            Ok(_) => CLOCK_READ_EVERY,
            Err(_) => CLOCK_READ_AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}

fn percentile_99(all: &VecDeque<u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = all.iter().copied().collect();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) * 99 / 100).copied()
}
