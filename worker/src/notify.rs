//! Tells the targets what records call for.
//!
//! Every worker that has targets looks every two seconds for what is due, sooner after a run of its
//! own, takes hold of it by a lease in MongoDB, sends it and marks it. Nothing waits for this: it is
//! a task of its own beside the loop and the reporter, each request is bounded, and of one target
//! only so many are under way. What was sent and not marked, because the worker died in between, is
//! sent again under the same id. A worker whose clock is not to be trusted tells nothing: it would
//! take what another holds, and give up what is new.

mod desk;
mod http;
mod targets;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::Job;
use carillon_core::notice::{Call, Event, Policy};
use carillon_core::notify::Message;
use carillon_core::records::{Records, RecordsError, TRIED_FOR};
use carillon_core::run::{Outcome, RunRecord};
use chrono::{TimeDelta, Utc};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, warn};

use crate::clock;
use crate::fault::{Fault, Point};
use crate::metrics::Metrics;
use desk::{Desk, send};
pub(crate) use targets::Targets;

/// Messages under way to one target: one that is slow holds up none of the others.
const PER_TARGET: usize = 4;
/// Messages that are taken hold of in one look.
const IN_ONE_LOOK: usize = 64;
/// News that wait for the sender; a worker has no more to tell within the moment that it takes.
const NEWS_BOUND: usize = 256;
/// Jobs that succeeded and whose waiting recoveries are woken; any more wait for their next look.
const JOBS_BOUND: usize = 1000;
/// How often a worker looks for what is due, in a small fleet.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Workers that look so often; of more, each looks less often, and together they look as often.
const LOOKERS: usize = 8;
/// The longest pause is so many times [`LOOK_EVERY`], however many they are.
const LOOKS_LEFT_OUT: usize = 15;
/// How often one that has no targets looks: only to say what nobody sends.
const LOOK_IDLY: Duration = Duration::from_secs(300);
/// When it looks after news of its own, which MongoDB may learn a little later.
const LOOK_AFTER_NEWS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(1)];
/// How often it counts what is pending and gives up what is too old.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// For how long something may wait for a worker that knows its target before the log says so.
const STRANGE_AFTER: TimeDelta = TimeDelta::seconds(60);
/// How long a delivery is held, by clocks that agree: longer than a request and the marks after it
/// may take.
const LEASE: TimeDelta = TimeDelta::seconds(40);
/// How long the last messages may take when the worker leaves; the others send the rest.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Something that makes the sender look at once.
enum News {
    /// A record that calls for something is on its way to MongoDB.
    Called,
    /// A job whose recoveries are told has succeeded.
    Succeeded(JobName),
}

/// The way to the sender. Cheap to clone; telling it never waits.
#[derive(Clone)]
pub(crate) struct Nudge {
    news: mpsc::Sender<News>,
    workers: Arc<AtomicUsize>,
    clock: Trust,
}

/// Whether this worker's clock is to be trusted.
pub(crate) type Trust = watch::Receiver<bool>;

impl Nudge {
    /// A final record of this job was handed to the reporter.
    pub fn filed(&self, job: Option<&Job>, name: &JobName, record: &RunRecord) {
        // What is not heard is found by the next look.
        if record.notify.is_some() {
            self.news.try_send(News::Called).ok();
        }
        let asks = |job: &Job| job.notify.as_ref().is_some_and(|n| n.asks_for(Event::Recovery));
        if record.outcome == Outcome::Succeeded && job.is_some_and(asks) {
            self.news.try_send(News::Succeeded(name.clone())).ok();
        }
    }

    /// So many workers are registered.
    pub fn workers(&self, workers: usize) {
        self.workers.store(workers, Ordering::Relaxed);
    }
}

/// Tells, once, that a run goes on: its process started now, and its record is this one. Ends when
/// the outbox has it.
pub(crate) async fn tell_of_running(
    records: Records,
    mut nudge: Nudge,
    policy: Policy,
    record: RunRecord,
) {
    let Some(secs) = policy.running_after_secs else { return };
    sleep(Duration::from_secs(secs.into())).await;
    let to = policy.targets();
    let call = Call { event: Event::Running, to, recovery: false, on_worker: None, pending: false };
    loop {
        // Where the daemon is gone, so is this soon.
        nudge.clock.wait_for(|trusted| *trusted).await.ok();
        match records.put_out(&record, &call, clock::now()).await {
            Ok(()) => break,
            Err(e) => debug!(run = %record.id, "that it still runs is not told yet: {e}"),
        }
        sleep(LOOK_EVERY).await;
    }
    nudge.news.try_send(News::Called).ok();
}

/// Looks for what is due and sends it.
pub(crate) struct Sender {
    desk: Arc<Desk>,
    targets: Targets,
    room: BTreeMap<String, Arc<Semaphore>>,
    news: mpsc::Receiver<News>,
    /// How many workers there are.
    workers: Arc<AtomicUsize>,
    /// Jobs that succeeded, and until when their waiting recoveries are woken.
    succeeded: BTreeMap<JobName, Instant>,
    /// Targets of which the log was told that nobody knows them.
    strangers: Vec<String>,
    flights: JoinSet<bool>,
    clock: Trust,
    /// How long a delivery is held.
    lease: TimeDelta,
    /// Whether MongoDB did not answer the last look.
    away: bool,
}

impl Sender {
    /// A sender for these targets, and the way to it.
    pub fn new(
        records: Records,
        targets: Targets,
        metrics: Metrics,
        worker: &WorkerId,
        fault: Fault,
        clock: Trust,
        max_skew: TimeDelta,
    ) -> (Self, Nudge) {
        let (nudge, news) = mpsc::channel(NEWS_BOUND);
        let workers = Arc::new(AtomicUsize::new(1));
        for name in targets.names() {
            metrics.target(name);
        }
        let room = |name: &str| (name.to_owned(), Arc::new(Semaphore::new(PER_TARGET)));
        let sender = Self {
            room: targets.names().map(room).collect(),
            desk: Arc::new(Desk { records, metrics, worker: worker.to_string(), fault }),
            targets,
            news,
            workers: Arc::clone(&workers),
            succeeded: BTreeMap::new(),
            strangers: Vec::new(),
            flights: JoinSet::new(),
            clock: clock.clone(),
            lease: LEASE + max_skew,
            away: false,
        };
        (sender, Nudge { news: nudge, workers, clock })
    }

    /// Runs until it is told to leave. Then it looks once more and takes two seconds at most.
    pub async fn run(mut self, mut leave: oneshot::Receiver<()>) {
        let (mut next, mut sweep) = (Instant::now(), Instant::now() + jittered(SWEEP_EVERY));
        let mut hurry = LOOK_AFTER_NEWS.iter();
        loop {
            tokio::select! {
                () = sleep_until(next) => {
                    let more = self.look().await;
                    if Instant::now() >= sweep {
                        self.sweep().await;
                        sweep = Instant::now() + jittered(SWEEP_EVERY.max(self.pause()));
                    }
                    let pause = match hurry.next() {
                        _ if more => LOOK_AFTER_NEWS[0],
                        Some(pause) => *pause,
                        None => jittered(self.pause()),
                    };
                    next = Instant::now() + pause;
                }
                Some(news) = self.news.recv() => {
                    self.hear(news);
                    // While it is in a hurry it looks soon anyway.
                    if hurry.len() == 0 {
                        hurry = LOOK_AFTER_NEWS.iter();
                        next = next.min(Instant::now() + LOOK_AFTER_NEWS[0]);
                    }
                }
                Some(ended) = self.flights.join_next() => match ended {
                    Ok(true) => next = Instant::now(),
                    Ok(false) => {}
                    Err(e) => error!("a message failed: {e}"),
                },
                Ok(()) = self.clock.changed() => next = Instant::now(),
                _ = &mut leave => break,
            }
        }
        let last = async {
            self.look().await;
            while self.flights.join_next().await.is_some() {}
        };
        if timeout(LAST_WORDS, last).await.is_err() {
            debug!("leaving with messages under way: the others send them");
        }
    }

    /// Between two looks without news.
    fn pause(&self) -> Duration {
        let workers = self.workers.load(Ordering::Relaxed);
        if self.targets.is_empty() { LOOK_IDLY } else { pause_of(workers) }
    }

    fn hear(&mut self, news: News) {
        if let News::Succeeded(job) = news
            && self.succeeded.len() < JOBS_BOUND
        {
            let long_enough = LOOK_AFTER_NEWS.iter().sum::<Duration>() * 2;
            self.succeeded.insert(job, Instant::now() + long_enough);
        }
    }

    /// Sends what is due, as far as there is room; whether there may be more.
    async fn look(&mut self) -> bool {
        if !*self.clock.borrow() {
            return false;
        }
        match self.try_look().await {
            Ok(more) => {
                self.away = false;
                more
            }
            Err(e) => {
                if !std::mem::replace(&mut self.away, true) {
                    debug!("what is to be told is not known for now: {e}");
                }
                false
            }
        }
    }

    async fn try_look(&mut self) -> Result<bool, RecordsError> {
        let (records, now) = (&self.desk.records, clock::now());
        self.succeeded.retain(|_, until| *until > Instant::now());
        if !self.succeeded.is_empty() {
            let jobs: Vec<JobName> = self.succeeded.keys().cloned().collect();
            records.wake_waiting(&jobs, now).await?;
        }
        records.take_over(now).await?;
        let room = |name: &&str| self.room.get(*name).map_or(0, |room| room.available_permits());
        let free: Vec<&str> = self.targets.names().filter(|name| room(name) > 0).collect();
        let limit = free.iter().map(room).sum::<usize>().min(IN_ONE_LOOK);
        if limit == 0 {
            return Ok(false);
        }
        let mut due = records.due(&free, limit, now).await?;
        let more = due.len() == limit;
        if more && free.len() > 1 {
            // One that has very much to be told must not keep the others waiting.
            due.clear();
            for name in &free {
                due.extend(records.due(&[*name], room(name), now).await?);
            }
        }
        if !due.is_empty() {
            self.desk.fault.reach(Point::Due);
        }
        for (id, name) in due {
            let Some(target) = self.targets.get(&name) else { continue };
            let permit =
                self.room.get(&name).and_then(|room| room.clone().try_acquire_owned().ok());
            let Some(permit) = permit else { continue };
            let held =
                self.desk.records.hold(&id, &self.desk.worker, self.lease, clock::now()).await;
            let held = match held {
                Err(e @ RecordsError::Unreadable { .. }) => {
                    error!("{e}");
                    continue;
                }
                held => held?,
            };
            if let Some(held) = held {
                self.flights.spawn(self.desk.clone().deal_with(held, target, permit));
            }
        }
        Ok(more)
    }

    /// Gives up what is too old, says what nobody sends, and counts the rest.
    async fn sweep(&mut self) {
        if !*self.clock.borrow() {
            return;
        }
        if let Err(e) = self.try_sweep().await {
            debug!("what could not be told is not known for now: {e}");
        }
    }

    async fn try_sweep(&mut self) -> Result<(), RecordsError> {
        let (records, now) = (&self.desk.records, clock::now());
        for one in records.give_up(now).await? {
            self.desk.metrics.given_up();
            let (job, run, hours) = (&one.job, one.run, TRIED_FOR.num_hours());
            let (event, target, tries) = (one.event, &one.target, one.tries);
            error!(%job, %run, %target, "the {event} was not told within {hours} h, in {tries} tries: given up");
        }
        let known: Vec<&str> = self.targets.names().collect();
        for name in records.strangers(&known, now - STRANGE_AFTER).await? {
            if !self.strangers.contains(&name) && self.strangers.len() < JOBS_BOUND {
                warn!(
                    "messages for {name:?} wait: no worker that is up knows such a target (is it in their --notify-file?)"
                );
                self.strangers.push(name);
            }
        }
        self.desk.metrics.pending(records.pending().await?);
        Ok(())
    }
}

/// Sends a sample to one target and prints what it answers.
///
/// # Errors
/// An unknown target, no answer, or one that is not a success.
pub(crate) async fn test(name: &str, file: Option<PathBuf>) -> Result<()> {
    let file = file.context("give --notify-file, the file with the targets")?;
    let targets = Targets::read(&file)?;
    let Some(target) = targets.get(name) else {
        let known: Vec<&str> = targets.names().collect();
        bail!("{} has no target {name:?}; it has {}", file.display(), known.join(", "));
    };
    let now = Utc::now();
    let job = JobName::new("carillon-test")?;
    let record = RunRecord {
        err: "this is only a test of the notifications".to_owned(),
        worker: "carillon-worker".to_owned(),
        scheduled_time: Some(now),
        end_time: Some(now),
        ..RunRecord::new(RunId::new(now), &job, Outcome::Failed, now)
    };
    let answer = send(&target, &Message::new(Event::Failure, record, now), now)
        .await
        .with_context(|| format!("target {name}"))?;
    writeln!(std::io::stdout(), "{name} answered {}", answer.status)?;
    if !answer.body.trim().is_empty() {
        writeln!(std::io::stdout(), "{}", answer.body.trim_end())?;
    }
    if !answer.status.is_success() {
        bail!("target {name} did not take the message");
    }
    Ok(())
}

/// Between two looks of one of so many workers.
fn pause_of(workers: usize) -> Duration {
    let left_out = (workers / LOOKERS).clamp(1, LOOKS_LEFT_OUT);
    LOOK_EVERY * u32::try_from(left_out).unwrap_or(1)
}

/// Between three quarters and five quarters of it, so that a fleet does not move in step.
fn jittered(pause: Duration) -> Duration {
    let noise = u32::try_from(RandomState::new().hash_one(()) % 512).unwrap_or_default();
    pause * (768 + noise) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_fleet_looks_together_as_often_as_a_small_one() {
        let pauses = [0, 1, 8, 15, 16, 80, 10_000].map(|workers| pause_of(workers).as_secs());
        assert_eq!(pauses, [2, 2, 2, 2, 4, 20, 30]);
    }
}
