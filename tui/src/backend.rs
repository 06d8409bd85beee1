//! The world outside the console: effects in, messages out. It reconnects, measures round trips,
//! and never makes the loop wait: every request is a task of its own.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::time::Duration;

use carillon_core::id::RunId;
use carillon_core::jobs::SaveError;
use carillon_core::records::{HistoryFilter, RecordsError, TailEvent};
use carillon_core::run::RunRecord;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::effect::{Effect, SaveJob, Ticket};
use crate::gate::Admitted;
use crate::msg::{ActError, Health, LogPart, Msg, Store};
use crate::operator::{Operator, OperatorError};

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

/// How much of a run's output is read when it is opened, bytes: the log begins at its end, and does
/// not wait for what it would only forget.
const LOG_BYTES: u64 = 4 * 1_024 * 1_024;

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
        let backend = Backend {
            operator,
            messages,
            logs: HashMap::new(),
            reads: JoinSet::new(),
            writes: JoinSet::new(),
        };
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
    /// Questions under way: nobody needs their answers once the console is left.
    reads: JoinSet<()>,
    /// Writes under way: the console is not left before they have ended.
    writes: JoinSet<()>,
}

impl Backend {
    async fn serve(mut self, mut effects: mpsc::Receiver<Admitted>) {
        loop {
            tokio::select! {
                effect = effects.recv() => match effect {
                    Some(admitted) => self.carry_out(admitted.into_effect()),
                    None => break,
                },
                Some(_) = self.reads.join_next() => {}
                Some(_) = self.writes.join_next() => {}
            }
        }
        for log in self.logs.into_values() {
            log.abort();
        }
        while self.writes.join_next().await.is_some() {}
    }

    fn carry_out(&mut self, effect: Effect) {
        let action = effect.describe();
        let (operator, messages) = (self.operator.clone(), self.messages.clone());
        let now = Utc::now();
        match effect {
            Effect::LoadHistory { generation, filter, before, limit } => {
                self.reads.spawn(async move {
                    let page = operator.records.overview(&filter, before, limit).await;
                    let result = page.map_err(|e| e.to_string());
                    messages.send(Msg::History { generation, result }).await.ok();
                });
            }
            Effect::OpenLog { run, .. } => {
                let task = tokio::spawn(follow_log(operator, run, messages));
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
                self.writes
                    .spawn(async move { save_job(&operator, ticket, save, &messages).await });
            }
            Effect::DeleteJobs(jobs) => {
                self.act(action, "deleted", jobs, move |(name, revision)| {
                    let operator = operator.clone();
                    async move {
                        let done = operator.delete(&name, revision, now).await;
                        (name.to_string(), done.map(|done| done.untraced))
                    }
                });
            }
            Effect::RunNow(jobs) => self.act(action, "asked to run", jobs, move |name| {
                let operator = operator.clone();
                async move {
                    let done = operator.run_now(&name, now).await;
                    (name.to_string(), done.map(|done| done.untraced))
                }
            }),
            Effect::Kill(runs) => self.act(action, "asked to end", runs, move |(job, run)| {
                let operator = operator.clone();
                async move {
                    let done = match operator.kill(&job, run, now).await {
                        // It has ended, which is what was wanted.
                        Err(OperatorError::NotLive(_)) => Ok(None),
                        done => done.map(|done| done.untraced),
                    };
                    (job.to_string(), done)
                }
            }),
            Effect::Drain { worker, on } => {
                let what = if on { "drains" } else { "takes runs again" };
                self.act(action, what, vec![worker], move |worker| {
                    let operator = operator.clone();
                    async move {
                        let done = operator.drain(&worker, on, now).await;
                        (worker.to_string(), done.map(|done| done.untraced))
                    }
                });
            }
            // The loop's own: they need the terminal, not a store.
            Effect::LoadTheme(_)
            | Effect::Copy(_)
            | Effect::Suspend
            | Effect::Repaint
            | Effect::Quit => {}
        }
    }

    /// Does one thing to each target, all at once, and reports on all of them together.
    fn act<T, F>(
        &mut self,
        action: String,
        what: &'static str,
        targets: Vec<T>,
        each: impl Fn(T) -> F + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = (String, Result<Option<String>, OperatorError>)> + Send + 'static,
    {
        let messages = self.messages.clone();
        let work = join_all(targets.into_iter().map(each));
        self.writes.spawn(async move {
            let result = summary(what, work.await);
            messages.send(Msg::Acted { action, result }).await.ok();
        });
    }
}

/// What to say of what was done to several targets.
fn summary(
    what: &str,
    results: Vec<(String, Result<Option<String>, OperatorError>)>,
) -> Result<String, ActError> {
    let several = results.len() > 1;
    let (mut done, mut untraced, mut failed) = (Vec::new(), None, Vec::new());
    for (name, result) in results {
        match result {
            Ok(why) => {
                untraced = why.or(untraced);
                done.push(name);
            }
            Err(e) => failed.push((name, e)),
        }
    }
    let succeeded = match done.as_slice() {
        [only] => format!("{only} {what}"),
        all => format!("{} {what}", all.len()),
    };
    match (failed.len(), failed.pop()) {
        (_, None) => Ok(match untraced {
            Some(why) => format!("{succeeded}, but not in the audit trail: {why}"),
            None => succeeded,
        }),
        (_, Some((_, e))) if !several => Err(act_error(e)),
        (n, Some((name, e))) => {
            Err(ActError::Refused(format!("{succeeded}, {n} not; {name}: {e}")))
        }
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

async fn save_job(
    operator: &Operator,
    ticket: Ticket,
    save: SaveJob,
    messages: &mpsc::Sender<Msg>,
) {
    let SaveJob { job, expected, what } = save;
    let name = job.name.clone();
    let saved = operator.save(*job, expected, what.verb(), Utc::now()).await;
    let (result, untraced) = match saved {
        Ok(done) => (Ok(done.value), done.untraced),
        Err(e) => (Err(act_error(e)), None),
    };
    messages.send(Msg::Saved { ticket, job: name.clone(), what, result }).await.ok();
    if let Some(why) = untraced {
        let action = format!("write {name} into the audit trail");
        messages.send(Msg::Acted { action, result: Err(ActError::Refused(why)) }).await.ok();
    }
}

/// Sends the output of a run until it ends or the log is closed.
async fn follow_log(operator: Operator, run: RunId, messages: mpsc::Sender<Msg>) {
    let mut tail = operator.records.output_of(run).last_bytes(LOG_BYTES).follow();
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
        if let Ok(page) = operator.records.overview(&HistoryFilter::default(), None, RECENT).await
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

#[cfg(test)]
mod tests {
    use carillon_core::id::JobName;

    use super::*;

    #[test]
    fn what_happened_to_each_target_is_told() {
        let missing = || OperatorError::NoSuchJob(JobName::new("b").unwrap());
        let one = |result| summary("deleted", vec![("a".to_owned(), result)]);
        assert!(one(Ok(None)).is_ok_and(|said| said == "a deleted"));
        assert!(
            matches!(one(Err(missing())), Err(ActError::Refused(e)) if e == "there is no job b")
        );
        let two = vec![("a".to_owned(), Ok(None)), ("b".to_owned(), Err(missing()))];
        let Err(ActError::Refused(said)) = summary("deleted", two) else { panic!() };
        assert_eq!(said, "a deleted, 1 not; b: there is no job b");
    }
}
