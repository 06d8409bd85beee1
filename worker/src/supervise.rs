//! One run from its claim to its record: start it, follow it, pass kills on, end it in etcd
//! ([`settle`]) and hand what became of it to the reporter.

use std::sync::Arc;
use std::time::Duration;

use carillon_core::claims::{Answer, Step};
use carillon_core::decide::due_at;
use carillon_core::id::{RunId, WorkerId};
use carillon_core::job::{Job, JobEntry};
use carillon_core::records::{Progress, Records};
use carillon_core::run::{
    Chunk, KillRequest, LiveRun, Outcome, RunRecord, RunState, Running, Trigger, output_expiry,
};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::clock;
use crate::courier::Courier;
use crate::ending::{Finish, must_not_start};
use crate::ends::Ends;
use crate::execute::{Event, Executor, Finished, Order, Spec};
use crate::fault::{Fault, Point};
use crate::lease::Standing;
use crate::notify::{Nudge, tell_of_running};
use crate::report::{Report, Reports};

mod settle;

/// Orders to one run: a kill, and that the worker leaves.
pub(crate) const ORDERS_BOUND: usize = 4;
/// Events of one run that wait to be passed on; what does not fit waits with the executor.
const EVENTS_BOUND: usize = 4;
/// States of one run that wait to be written: running, received, terminated, killed.
const STATES_BOUND: usize = 4;
/// What the guard ends runs with, by signal(7).
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// What the record of a run says that the worker itself has failed.
const FAILED: &str = "the worker failed while it ran; see its log";
/// How long a run must run for its key to say so: a third of what a short one asks of etcd.
const BRIEF: Duration = Duration::from_millis(50);

/// What every supervisor needs.
#[derive(Clone)]
pub(crate) struct Supervisor {
    pub courier: Courier,
    pub records: Records,
    pub executor: Executor,
    pub reports: Reports,
    pub standing: watch::Receiver<Standing>,
    pub worker: WorkerId,
    pub fault: Fault,
    pub fleet: String,
    pub ends: Ends,
    pub nudge: Nudge,
}

/// A claimed run and what its supervisor needs to know of it.
#[derive(Clone)]
pub(crate) struct Charge {
    /// The run; its fence is the revision of the claim.
    pub live: LiveRun,
    /// The job as it was claimed.
    pub entry: Arc<JobEntry>,
    /// By when its process must be there, since boot: once it is claimed, whoever sets the clock
    /// changes nothing.
    pub start_by: Duration,
    pub retention_days: Option<u32>,
}

impl Charge {
    /// The record of the run, as it stands at its start.
    fn record(&self, fleet: &str, start_time: DateTime<Utc>) -> RunRecord {
        let command = self.entry.job().map_or("", |job| job.command.as_str());
        let record = RunRecord::of_run(&self.live, command, start_time);
        RunRecord { fleet: fleet.to_owned(), ..record }
    }

    fn over(self, lateness: Option<TimeDelta>, outcome: Outcome, ended_at: Option<i64>) -> Over {
        Over { live: self.live, lateness, outcome, ended_at }
    }
}

/// How a run ended, for the daemon's books.
pub(crate) struct Over {
    /// The run.
    pub live: LiveRun,
    /// From when its slot was due to the start of the process, for a scheduled run that started.
    pub lateness: Option<TimeDelta>,
    /// What became of it.
    pub outcome: Outcome,
    /// The etcd revision of its end, where it is known.
    pub ended_at: Option<i64>,
}

impl Supervisor {
    /// Sees one claimed run through to its end.
    pub async fn see_through(self, charge: Charge, orders: mpsc::Receiver<Order>) -> Over {
        let record = charge.record(&self.fleet, clock::now());
        let Charge { live, entry, start_by, retention_days } = &charge;
        let Ok(checked) = &entry.state else {
            // Only a whole job is claimed.
            return charge.over(None, Outcome::Missed, None);
        };
        let past = clock::since_boot() >= *start_by;
        if let Some((outcome, reason)) = must_not_start(past, self.is_leased(live)) {
            warn!(job = %live.job, run = %live.run, "not started: {reason}");
            let record = record.ended(outcome, clock::now(), reason);
            let ended_at = self.end(&charge, record, false).await;
            return charge.over(None, outcome, ended_at);
        }
        self.fault.reach(Point::Claimed);
        let mut spec = Spec::new(live.run, &checked.job, self.variables(live));
        spec.lease = Some(live.value.lease);
        spec.launch.start_by = Some(*start_by);
        let (events, mut happened) = mpsc::channel(EVENTS_BOUND);
        let (state, states) = mpsc::channel(STATES_BOUND);
        let advancing = tokio::spawn(self.clone().advance(live.clone(), states));
        let due = match live.value.trigger {
            // One that is caught up is late on purpose.
            Trigger::Schedule => live
                .value
                .slot
                .map(|slot| due_at(checked, slot.instant()))
                .filter(|due| live.value.since < *due + checked.job.start_deadline()),
            _ => None,
        };
        let mut follower = Follower {
            supervisor: &self,
            job: &checked.job,
            retention_days: *retention_days,
            record,
            value: live.value.clone(),
            state,
            due,
            lateness: None,
            slow: JoinSet::new(),
        };
        // A task of its own, so that a kill never waits for whatever a report waits for.
        let executor = self.executor.clone();
        // In a set, it ends with this one, should this one fail.
        let mut running = JoinSet::new();
        running.spawn(async move { executor.run(spec, orders, events).await });
        while let Some(event) = happened.recv().await {
            follower.take(live, event).await;
        }
        let Follower { record, state, lateness, slow, .. } = follower;
        // It does not run any more, however long etcd takes to hear of that.
        drop(slow);
        drop(state);
        let record = match running.join_next().await {
            Some(Ok(finished)) => self.finish(&charge, record, finished).await,
            // Only a bug gets here.
            failed => {
                error!(job = %live.job, run = %live.run, "the run's task failed: {failed:?}");
                self.executor.sweep(live.run).await;
                record.ended(Outcome::Lost, clock::now(), FAILED)
            }
        };
        self.fault.reach(Point::Ended);
        let outcome = record.outcome;
        let ended_at = self.end(&charge, record, false).await;
        // It ends by itself: its watch is closed, and its writes are refused from now on.
        drop(advancing);
        charge.over(lateness, outcome, ended_at)
    }

    /// Writes each state of a run into its key, one after the other. Of a run that is over by then
    /// there is none to be written.
    async fn advance(self, mut live: LiveRun, mut states: mpsc::Receiver<Running>) {
        let mut next = states.recv().await;
        while let Some(value) = next.take() {
            if value.state == RunState::Running {
                self.executor.starts_first().await;
                match timeout(BRIEF, states.recv()).await {
                    Ok(None) => return,
                    Ok(Some(state)) => next = Some(state),
                    Err(_) => {}
                }
            }
            live.value = value;
            match self.courier.send(Step::advance(self.courier.keys(), &live)).await {
                Ok(Answer::Done(_)) => {}
                Ok(Answer::Refused(_)) => return,
                Err(e) => warn!(job = %live.job, run = %live.run, "its state is not written: {e}"),
            }
            if next.is_none() {
                next = states.recv().await;
            }
        }
    }

    /// Settles a run whose supervisor has failed, which only a bug can do, once nothing of it is left.
    pub async fn give_up(self, charge: Charge) -> Over {
        let record = charge.record(&self.fleet, charge.live.value.since);
        self.executor.sweep(charge.live.run).await;
        let outcome = Outcome::Lost;
        let record = record.ended(outcome, clock::now(), FAILED);
        // The one that failed may have ended it before.
        let ended_at = self.end(&charge, record, true).await;
        charge.over(None, outcome, ended_at)
    }

    async fn report_output(&self, run: RunId, chunks: Vec<Chunk>, retention_days: Option<u32>) {
        let expire_at = chunks.last().and_then(|last| output_expiry(last.at, retention_days));
        self.send(Report::Output { run, chunks, expire_at }).await;
    }

    async fn finish(
        &self,
        charge: &Charge,
        mut record: RunRecord,
        finished: Finished,
    ) -> RunRecord {
        let live = &charge.live;
        let Finished { rest, .. } = finished;
        if !rest.is_empty() {
            self.report_output(live.run, rest, charge.retention_days).await;
        }
        let finish = Finish {
            outcome: finished.outcome,
            asked_for: finished.killed_by.is_some(),
            signalled: matches!(finished.signal, Some(SIGTERM | SIGKILL)),
            continues: live.value.continues_secs.is_some(),
        };
        record.outcome = finish.outcome(self.is_leased(live));
        record.err = finished.err;
        record.exit_code = finished.exit_code;
        record.signal = finished.signal;
        record.start_time = finished.started;
        record.end_time = Some(finished.ended);
        record.cpu_millis = i64::try_from(finished.cpu_millis).ok();
        record.max_rss_bytes = i64::try_from(finished.max_rss_bytes).ok();
        record.output = finished.output;
        record.output_bytes = i64::try_from(finished.output_bytes).unwrap_or(i64::MAX);
        record.output_truncated = finished.truncated;
        record.killed_by = finished.killed_by;
        record.kill_millis =
            finished.ending_took.and_then(|took| i64::try_from(took.as_millis()).ok());
        info!(job = %live.job, run = %live.run, outcome = %record.outcome, "{}", record.err);
        record
    }

    /// Whether the worker is still certain of the lease that the run was claimed under.
    fn is_leased(&self, live: &LiveRun) -> bool {
        let standing = *self.standing.borrow();
        standing.lease == live.value.lease && standing.may_act()
    }

    fn variables(&self, live: &LiveRun) -> Vec<(String, String)> {
        let slot = live.value.slot.map(|slot| slot.to_string()).unwrap_or_default();
        [
            ("CARILLON_JOB", live.job.to_string()),
            ("CARILLON_RUN", live.run.to_string()),
            ("CARILLON_SLOT", slot),
            ("CARILLON_ATTEMPT", live.value.attempt.to_string()),
            ("CARILLON_WORKER", self.worker.to_string()),
            ("CARILLON_FENCE", live.fence.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    async fn send(&self, report: Report) {
        // The reporter outlives every run; it is gone only when the whole worker is.
        self.reports.send(report).await.ok();
    }
}

/// Passes on what happens to a live run.
struct Follower<'a> {
    supervisor: &'a Supervisor,
    job: &'a Job,
    retention_days: Option<u32>,
    record: RunRecord,
    value: Running,
    state: mpsc::Sender<Running>,
    due: Option<DateTime<Utc>>,
    lateness: Option<TimeDelta>,
    /// Tells that the run is slow, and ends with it.
    slow: JoinSet<()>,
}

impl Follower<'_> {
    async fn take(&mut self, live: &LiveRun, event: Event) {
        match event {
            Event::Started { pid, at } => {
                self.lateness = self.due.map(|due| at - due);
                self.record.pid = Some(pid);
                self.record.start_time = at;
                self.value.pid = Some(pid);
                self.advance(RunState::Running);
                self.supervisor.send(Report::Started(Box::new(self.record.clone()))).await;
                if let Some(policy) = self.job.notify.as_deref() {
                    let Supervisor { records, nudge, .. } = self.supervisor.clone();
                    let (policy, record) = (policy.clone(), self.record.clone());
                    self.slow.spawn(tell_of_running(records, nudge, policy, record));
                }
                self.supervisor.fault.reach(Point::Started);
            }
            Event::Output(chunks) => {
                self.supervisor.report_output(live.run, chunks, self.retention_days).await;
            }
            Event::Progress(p) => {
                self.supervisor.send(Report::Progress(progress(live.run, &p))).await;
            }
            Event::Received => self.advance(RunState::Received),
            Event::Terminated => self.advance(RunState::Terminated),
            Event::Killed => self.advance(RunState::Killed),
        }
    }

    fn advance(&mut self, state: RunState) {
        self.value.state = state;
        // There is room for all that a run has.
        self.state.try_send(self.value.clone()).ok();
    }
}

fn progress(id: RunId, p: &crate::execute::Progress) -> Progress {
    Progress {
        id,
        cpu_millis: i64::try_from(p.cpu_millis).ok(),
        max_rss_bytes: i64::try_from(p.max_rss_bytes).ok(),
        output_bytes: i64::try_from(p.output_bytes).unwrap_or(i64::MAX),
        last_line: Some(p.last_line.clone()),
    }
}

/// The order that a kill request is for the executor.
pub(crate) fn order(request: &KillRequest) -> Order {
    Order::Kill {
        grace: request.grace_secs.map(|secs| Duration::from_secs(secs.into())),
        by: request.by.clone(),
    }
}
