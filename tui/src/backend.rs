//! The world outside the console: effects in, messages out. It reconnects, measures round trips,
//! and never makes the loop wait: every request is a task of its own.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::time::Duration;

use carillon_core::id::{JobName, RunId};
use carillon_core::jobs::{Expected as Stored, SaveError};
use carillon_core::records::{HistoryFilter as Wanted, RecordsError, TailEvent};
use carillon_core::run::RunRecord;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::effect::{Effect, Expected, HistoryFilter, SaveJob, Ticket};
use crate::gate::Admitted;
use crate::msg::{ActError, Health, LogPart, Msg, Page, Store};
use crate::operator::{Done, Operator, OperatorError};

/// Effects between the loop and the backend: an operator's keys, which come slowly.
const EFFECTS_BOUND: usize = 64;
/// How often each store is asked how it is.
const HEALTH_EVERY: Duration = Duration::from_secs(2);
/// Round trips over which the median is taken.
const ROUND_TRIPS: usize = 9;
/// How often the newest records are read.
const RECENT_EVERY: Duration = Duration::from_secs(1);
/// How many of them: the last outcome of each job is found among these.
const RECENT: usize = 200;
/// How many live runs are shown with their telemetry.
const LIVE: usize = 1_000;

/// Starts the backend; it ends when the returned sender is dropped.
pub fn start(operator: Operator, messages: mpsc::Sender<Msg>) -> mpsc::Sender<Admitted> {
    let (sender, effects) = mpsc::channel(EFFECTS_BOUND);
    tokio::spawn(async move {
        let watchers = [
            tokio::spawn(follow_fleet(operator.clone(), messages.clone())),
            tokio::spawn(watch_etcd(operator.clone(), messages.clone())),
            tokio::spawn(watch_mongo(operator.clone(), messages.clone())),
            tokio::spawn(follow_records(operator.clone(), messages.clone())),
        ];
        let backend = Backend { operator, messages, logs: HashMap::new() };
        backend.serve(effects).await;
        for watcher in watchers {
            watcher.abort();
        }
    });
    sender
}

struct Backend {
    operator: Operator,
    messages: mpsc::Sender<Msg>,
    logs: HashMap<RunId, AbortHandle>,
}

impl Backend {
    async fn serve(mut self, mut effects: mpsc::Receiver<Admitted>) {
        while let Some(effect) = effects.recv().await {
            self.carry_out(effect.into_effect());
        }
        for log in self.logs.into_values() {
            log.abort();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let action = effect.describe();
        let operator = self.operator.clone();
        match effect {
            Effect::LoadHistory { generation, filter, before, limit } => self.answer(async move {
                let result = load_history(&operator, filter, before, limit).await;
                Msg::History { generation, result }
            }),
            Effect::OpenLog { run, .. } => {
                let task = tokio::spawn(follow_log(operator, run, self.messages.clone()));
                if let Some(before) = self.logs.insert(run, task.abort_handle()) {
                    before.abort();
                }
            }
            Effect::CloseLog { run } => {
                if let Some(log) = self.logs.remove(&run) {
                    log.abort();
                }
            }
            Effect::SaveJob { ticket, save } => {
                self.answer(async move { save_job(&operator, ticket, save).await });
            }
            Effect::DeleteJobs(jobs) => self.act(action, async move {
                let mut notes = Notes::default();
                for (name, revision) in &jobs {
                    notes.take(operator.delete(name, *revision, Utc::now()).await?);
                }
                Ok(notes.say(&names(jobs.iter().map(|(name, _)| name), "deleted")))
            }),
            Effect::RunNow(jobs) => self.act(action, async move {
                let mut notes = Notes::default();
                for name in &jobs {
                    notes.take(operator.run_now(name, Utc::now()).await?);
                }
                Ok(notes.say(&names(jobs.iter(), "asked to run")))
            }),
            Effect::Kill(runs) => self.act(action, async move {
                let mut notes = Notes::default();
                for (job, run) in &runs {
                    match operator.kill(job, *run, Utc::now()).await {
                        Err(OperatorError::NotLive(_)) => {}
                        done => notes.take(done?),
                    }
                }
                Ok(notes.say(&names(runs.iter().map(|(job, _)| job), "asked to end")))
            }),
            Effect::Drain { worker, on } => self.act(action, async move {
                operator.drain(&worker, on).await?;
                Ok(format!("{worker} {}", if on { "drains" } else { "takes runs again" }))
            }),
            // The loop's own: they need the terminal, not a store.
            Effect::LoadTheme(_)
            | Effect::Copy(_)
            | Effect::Suspend
            | Effect::Repaint
            | Effect::Quit => {}
        }
    }

    fn answer(&self, work: impl Future<Output = Msg> + Send + 'static) {
        let messages = self.messages.clone();
        tokio::spawn(async move { messages.send(work.await).await });
    }

    fn act(
        &self,
        action: String,
        work: impl Future<Output = Result<String, OperatorError>> + Send + 'static,
    ) {
        self.answer(async move { Msg::Acted { action, result: work.await.map_err(act_error) } });
    }
}

/// Collects what several writes have to say besides their success.
#[derive(Default)]
struct Notes(Option<String>);

impl Notes {
    fn take<T>(&mut self, done: Done<T>) {
        self.0 = done.untraced.or(self.0.take());
    }

    fn say(self, what: &str) -> String {
        match self.0 {
            Some(why) => format!("{what}, but not in the audit trail: {why}"),
            None => what.to_owned(),
        }
    }
}

fn names<'a>(jobs: impl ExactSizeIterator<Item = &'a JobName>, what: &str) -> String {
    let n = jobs.len();
    match jobs.last() {
        Some(only) if n == 1 => format!("{only} {what}"),
        _ => format!("{n} {what}"),
    }
}

fn act_error(e: OperatorError) -> ActError {
    match e {
        OperatorError::Save(SaveError::Conflict(theirs)) => ActError::Conflict { theirs },
        OperatorError::Etcd(ref inner) | OperatorError::Save(SaveError::Etcd(ref inner))
            if inner.is_ambiguous() =>
        {
            ActError::Unreachable(e.to_string())
        }
        OperatorError::Unanswered { .. }
        | OperatorError::Records(RecordsError::Unreachable { .. }) => {
            ActError::Unreachable(e.to_string())
        }
        other => ActError::Refused(other.to_string()),
    }
}

async fn save_job(operator: &Operator, ticket: Ticket, save: SaveJob) -> Msg {
    let SaveJob { job, expected, what } = save;
    let name = job.name.clone();
    let stored = match expected {
        Expected::Create => Stored::Absent,
        Expected::Revision(revision) => Stored::Revision(revision),
    };
    let saved = operator.save(*job, stored, what.verb(), Utc::now()).await;
    // A write without its trace is still a write; the next record that fails to appear shows why.
    let result = saved.map(|done| done.value).map_err(act_error);
    Msg::Saved { ticket, job: name, what, result }
}

async fn load_history(
    operator: &Operator,
    filter: HistoryFilter,
    before: Option<(DateTime<Utc>, RunId)>,
    limit: usize,
) -> Result<Page, String> {
    let HistoryFilter { job, outcome, worker, text } = filter;
    let job = job.map(|name| JobName::new(&name)).transpose().map_err(|e| e.to_string())?;
    let wanted = Wanted { job, outcome, worker, text };
    let page = operator.records.history(&wanted, before, limit).await.map_err(|e| e.to_string())?;
    Ok(Page { records: page.records, more: page.more })
}

/// Sends the output of a run until it ends or the log is closed.
async fn follow_log(operator: Operator, run: RunId, messages: mpsc::Sender<Msg>) {
    let mut tail = operator.records.tail(run, 0);
    let mut told = false;
    loop {
        let part = match tail.next().await {
            Ok(TailEvent::Output(chunks)) => LogPart::Chunks(chunks),
            Ok(TailEvent::Ended(record)) => LogPart::Ended(record),
            Err(e) => {
                sleep(RECENT_EVERY).await;
                if std::mem::replace(&mut told, true) {
                    continue;
                }
                LogPart::Failed(e.to_string())
            }
        };
        told &= matches!(part, LogPart::Failed(_));
        let ended = matches!(part, LogPart::Ended(_));
        if messages.send(Msg::Log { run, part }).await.is_err() || ended {
            return;
        }
    }
}

async fn follow_fleet(operator: Operator, messages: mpsc::Sender<Msg>) {
    let mut feed = operator.etcd.feed();
    while let Some(fed) = feed.recv().await {
        if messages.send(Msg::Fleet(fed)).await.is_err() {
            return;
        }
    }
}

/// What is known of one store's connection.
struct Pulse {
    store: Store,
    up: Option<bool>,
    since: DateTime<Utc>,
    trips: VecDeque<Duration>,
}

impl Pulse {
    fn new(store: Store) -> Self {
        Self { store, up: None, since: Utc::now(), trips: VecDeque::with_capacity(ROUND_TRIPS) }
    }

    fn beat(&mut self, answer: Result<Duration, String>) -> Msg {
        let up = answer.is_ok();
        if self.up != Some(up) {
            self.up = Some(up);
            self.since = Utc::now();
        }
        let detail = match answer {
            Ok(trip) => {
                if self.trips.len() == ROUND_TRIPS {
                    self.trips.pop_front();
                }
                self.trips.push_back(trip);
                String::new()
            }
            Err(e) => e,
        };
        let mut sorted: Vec<Duration> = self.trips.iter().copied().collect();
        sorted.sort_unstable();
        let rtt = sorted.get(sorted.len() / 2).copied().filter(|_| up);
        let health = Health { up, rtt, since: self.since, detail };
        Msg::Health { store: self.store, health }
    }
}

async fn watch_etcd(operator: Operator, messages: mpsc::Sender<Msg>) {
    let mut pulse = Pulse::new(Store::Etcd);
    loop {
        let answer = operator.etcd.ping().await.map(|(trip, _)| trip).map_err(|e| e.to_string());
        if messages.send(pulse.beat(answer)).await.is_err() {
            return;
        }
        sleep(HEALTH_EVERY).await;
    }
}

async fn watch_mongo(operator: Operator, messages: mpsc::Sender<Msg>) {
    let mut pulse = Pulse::new(Store::Mongo);
    loop {
        let answer = operator.records.ping().await.map_err(|e| e.to_string());
        if messages.send(pulse.beat(answer)).await.is_err() {
            return;
        }
        sleep(HEALTH_EVERY).await;
    }
}

/// Sends the newest and the live records whenever they have changed.
async fn follow_records(operator: Operator, messages: mpsc::Sender<Msg>) {
    let mut ticks = interval(RECENT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut recent, mut live): (Vec<RunRecord>, Vec<RunRecord>) = Default::default();
    loop {
        ticks.tick().await;
        // That a store is away is told by its pulse.
        if let Ok(page) = operator.records.history(&Wanted::default(), None, RECENT).await
            && page.records != recent
        {
            recent.clone_from(&page.records);
            if messages.send(Msg::Recent(page.records)).await.is_err() {
                return;
            }
        }
        if let Ok(records) = operator.records.live(LIVE).await
            && records != live
        {
            live.clone_from(&records);
            if messages.send(Msg::Live(records)).await.is_err() {
                return;
            }
        }
    }
}
