//! What this worker does about what it knows: feeds, answers and the clock in, steps and acts out.
//! Pure: it sends nothing and starts nothing, so that the whole of it can be run against a model of
//! etcd, thousands of times a second.
//!
//! It knows nothing for certain but what the watch has shown. Everything that it proposes is
//! compared again by the transaction; everything that it starts, it has seen carried out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use carillon_core::claims::{Answer, BATCH};
use carillon_core::decide::{Move, follow_up};
use carillon_core::etcd::EtcdError;
use carillon_core::fleet::{FleetSettings, is_older, rules_version};
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::{Concurrency, JobEntry};
use carillon_core::keys::{Key, Keys};
use carillon_core::rank::Call;
use carillon_core::replica::{Feed, Versioned};
use carillon_core::run::{KillRequest, LiveRun, Outcome, RunRecord};
use carillon_core::steps::Step;
use chrono::{DateTime, TimeDelta, Utc};
use tracing::{debug, info, warn};

use crate::agenda::moved;
use crate::claim::{Effect, Proposal, propose, propose_lost, propose_trigger, propose_unstarted};
use crate::runs::Runs;
use crate::schedule::{Due, Schedule};

/// How many things are looked at in one turn: less than a millisecond's work, after which kills,
/// edits and signals have theirs.
const TURN: usize = 64;
/// Steps under way at once. All that thousands of slots ask for in one second is on its way before
/// the first of their processes takes the processor.
const UNDER_WAY: usize = 64 * BATCH;
/// After a refusal the watch brings what changed; this is for the case that it does not.
const SECOND_LOOK: TimeDelta = TimeDelta::milliseconds(500);
/// After a cursor that nobody needs could not be deleted.
const COLLECT_AGAIN: TimeDelta = TimeDelta::seconds(2);
/// After a failure to reach etcd.
const AFTER_FAILURE: TimeDelta = TimeDelta::seconds(1);

/// What the worker is, for as long as it lives.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub id: WorkerId,
    pub labels: BTreeMap<String, String>,
    pub capacity: usize,
    /// How far two clocks of the fleet may be apart.
    pub max_skew: TimeDelta,
}

/// What is to be done outside, in order.
#[derive(Debug)]
pub(crate) enum Act {
    /// A claimed run is started.
    Start {
        live: LiveRun,
        entry: Arc<JobEntry>,
        /// When its process must be there, by the clock as it is set now.
        start_before: DateTime<Utc>,
        retention_days: Option<u32>,
        /// Somebody asked for its end already.
        kill: Option<KillRequest>,
    },
    /// A live run of ours is killed.
    Kill(RunId, KillRequest),
    /// A live run of ours is ended, because this worker cannot keep it.
    Abandon(RunId, String),
    /// A decision is taken to MongoDB.
    Report(JobName, Box<Versioned<RunRecord>>),
    /// Write a decision down that its own worker has left behind.
    Complete(JobName, Box<Versioned<RunRecord>>),
    /// The fleet's settings are written, if they are still at this revision.
    Raise(i64, FleetSettings),
}

/// What the fleet is told of this worker's state, in its registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub running: u32,
    pub full: bool,
    pub draining: bool,
    pub standing_by: Option<String>,
}

/// A run that waits for the end of those it replaces.
struct Waiting {
    live: LiveRun,
    entry: Arc<JobEntry>,
    start_before: DateTime<Utc>,
}

/// One worker's mind.
pub(crate) struct Decider {
    pub schedule: Schedule,
    pub runs: Runs,
    me: Me,
    keys: Keys,
    /// The lease that the worker is registered under; 0 while it is not.
    lease: i64,
    /// Whether the whole list has been read.
    synced: bool,
    /// Asked through etcd to take nothing new.
    draining: bool,
    /// Asked by a signal to end.
    stopping: bool,
    /// Why every run is to end at once.
    last_call: Option<String>,
    /// The fleet knows that nothing new is taken.
    announced: bool,
    /// Jobs with a step under way: one at a time for each.
    deciding: BTreeSet<JobName>,
    waiting: HashMap<RunId, Waiting>,
    /// What the log was told about jobs that cannot be scheduled.
    told: BTreeMap<JobName, String>,
    proposals: Vec<Proposal>,
    acts: Vec<Act>,
}

impl Decider {
    pub fn new(keys: Keys, me: Me) -> Self {
        let (id, labels) = (me.id.clone(), me.labels.clone());
        Self {
            schedule: Schedule::new(keys.clone(), id, labels, me.max_skew),
            runs: Runs::default(),
            me,
            keys,
            lease: 0,
            synced: false,
            draining: false,
            stopping: false,
            last_call: None,
            announced: false,
            deciding: BTreeSet::new(),
            waiting: HashMap::new(),
            told: BTreeMap::new(),
            proposals: Vec::new(),
            acts: Vec::new(),
        }
    }

    /// What is to be done outside, since the last time it was asked.
    pub fn acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// What is to be sent: whole batches while more is due, then all.
    pub fn proposals(&mut self, more_is_due: bool) -> Vec<Proposal> {
        // With so many under way there may be more due; the next answers will tell.
        let wait = more_is_due || self.deciding.len() >= UNDER_WAY;
        let rest = if wait { self.proposals.len() % BATCH } else { 0 };
        let whole = self.proposals.len() - rest;
        self.proposals.drain(..whole).collect()
    }

    /// Whether nothing that was begun is unfinished; a run that waits for another's end counts.
    pub fn is_idle(&self) -> bool {
        self.runs.load() == 0 && self.deciding.is_empty() && self.waiting.is_empty()
    }

    /// Whether anything may be decided, as far as this is to say.
    pub fn may_decide(&self) -> bool {
        self.synced && self.lease != 0 && self.deciding.len() < UNDER_WAY
    }

    /// When something is due next.
    pub fn next(&mut self) -> Option<DateTime<Utc>> {
        // What may not be decided yet is not waited for: an event will tell.
        if self.may_decide() { self.schedule.peek() } else { None }
    }

    /// Acts on what is due, for one turn. Returns whether more is due that may be acted on.
    pub fn tick(&mut self, now: DateTime<Utc>) -> bool {
        for _ in 0..TURN {
            if !self.may_decide() {
                return false;
            }
            let Some(due) = self.schedule.pop_due(now, self.takes_new()) else {
                return false;
            };
            match due {
                Due::Job(job) => self.consider(&job, true, now),
                Due::JobTurn(job) => self.consider(&job, false, now),
                Due::Trigger(job, id) => self.consider_trigger(&job, id, true, now),
                Due::TriggerTurn(job, id) => self.consider_trigger(&job, id, false, now),
                Due::Lost(job, run) => self.settle_lost(&job, run, now),
                Due::Spawn(_, run) => self.go_ahead(run),
                Due::Lingering(job, id) => self.complete(&job, id, now),
                Due::Cursor(job, on) => self.collect(&job, on.as_ref(), now),
            }
        }
        true
    }

    fn takes_new(&self) -> bool {
        let leaving = self.stopping || self.draining;
        // Until the others know that they come first, a slot would wait for their patience.
        !(self.is_full() || leaving && self.announced)
    }

    fn is_full(&self) -> bool {
        self.runs.load() >= self.me.capacity
    }

    fn may_run(&self, entry: &JobEntry) -> bool {
        entry.job().is_some_and(|job| job.selects(&self.me.labels))
    }

    fn consider(&mut self, job: &JobName, patient: bool, now: DateTime<Utc>) {
        self.adopt_of(job, now);
        if self.deciding.contains(job) {
            // It goes on when that is settled.
            return;
        }
        let wanted = match self.schedule.look_at(job, self.lease, now) {
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
        if patient && wanted.rank > 0 {
            self.schedule.leave_to_others(Due::JobTurn(job.clone()), wanted.rank, now);
            return;
        }
        let slow = wanted.rank > 0 && self.runs.waits_long(now);
        if self.schedule.is_coming_up(&wanted, slow, now) {
            self.schedule.leave_to_others(Due::JobTurn(job.clone()), 1, now);
            return;
        }
        let proposal = propose(&self.keys, wanted, RunId::new(now), now);
        self.put_forward(proposal);
    }

    fn consider_trigger(&mut self, job: &JobName, id: RunId, patient: bool, now: DateTime<Utc>) {
        if self.deciding.contains(job) {
            return;
        }
        let Some(wanted) = self.schedule.look_at_trigger(job, id, self.lease, now) else { return };
        if let Ok((entry, _)) = &wanted.verdict {
            let may_run = self.may_run(entry);
            if !(may_run && self.takes_new()) {
                let (due, request) = (Due::Trigger(job.clone(), id), &wanted.trigger.value);
                let expiry = self.schedule.expiry_of(request);
                self.schedule.agenda.insert(due.clone(), expiry);
                if may_run {
                    self.schedule.hold(due, request.not_before);
                }
                return;
            }
        }
        if patient && wanted.rank > 0 {
            self.schedule.leave_to_others(Due::TriggerTurn(job.clone(), id), wanted.rank, now);
            return;
        }
        let proposal = propose_trigger(&self.keys, wanted, now);
        self.put_forward(proposal);
    }

    fn put_forward(&mut self, proposal: Proposal) {
        if let Effect::Begins(live, _) = &proposal.effect {
            self.runs.claim(live.run, live.value.since);
        }
        self.deciding.insert(proposal.step.job.clone());
        self.proposals.push(proposal);
    }

    /// A proposal was answered.
    pub fn on_answer(
        &mut self,
        proposal: Proposal,
        answer: Result<Answer, EtcdError>,
        now: DateTime<Utc>,
    ) {
        let Proposal { step: Step { job, then, .. }, effect } = proposal;
        self.deciding.remove(&job);
        let set = match &effect {
            Effect::Begins(live, _) => {
                self.runs.answered(live.run).map(|at| at - live.value.since).unwrap_or_default()
            }
            Effect::Records(_) | Effect::Moves | Effect::Tidies => TimeDelta::zero(),
        };
        let settles = matches!(effect, Effect::Records(_));
        let look_again = match answer {
            Ok(Answer::Done(revision)) => {
                self.schedule.take_own(then, revision, now);
                match effect {
                    Effect::Begins(live, entry) => {
                        debug!(%job, run = %live.run, "claimed at revision {revision}");
                        self.start(LiveRun { fence: revision, ..live }, entry, set);
                    }
                    Effect::Records(record) => {
                        info!(%job, outcome = %record.outcome, "{}", record.err);
                        let done = Versioned { value: *record, mod_revision: revision };
                        self.acts.push(Act::Report(job.clone(), Box::new(done)));
                    }
                    Effect::Moves | Effect::Tidies => {}
                }
                self.schedule.go_on(&job, now);
                return self.adopt_of(&job, now);
            }
            Ok(Answer::Refused(why)) => {
                debug!(%job, "refused: {}", why.as_str());
                SECOND_LOOK
            }
            Err(e) => {
                // It may have been carried out. Then its key comes by the watch and is adopted.
                debug!(%job, "cannot decide it: {e}");
                AFTER_FAILURE
            }
        };
        self.schedule.bring_up(&job, now + look_again);
        if !settles {
            self.adopt_of(&job, now);
        }
    }

    /// Adopts what the watch has brought while a step of the job was under way. A refused claim may
    /// be a trigger's second: the first was carried out, and its answer lost.
    fn adopt_of(&mut self, job: &JobName, now: DateTime<Utc>) {
        let runs: Vec<RunId> = self.schedule.replica.live_of(job).map(|live| live.run).collect();
        for run in runs {
            self.adopt(job, run, now);
        }
    }

    /// Has a run started that was claimed before the clock was `set` by so much.
    fn start(&mut self, live: LiveRun, entry: Arc<JobEntry>, set: TimeDelta) {
        if !self.runs.begin(&live) {
            return;
        }
        let run = live.run;
        let replaces = entry.job().is_some_and(|job| job.concurrency == Concurrency::Replace);
        let job = live.job.clone();
        let start_before = moved(live.value.spawn_before, set);
        self.waiting.insert(run, Waiting { live, entry, start_before });
        if replaces {
            self.schedule.agenda.insert(Due::Spawn(job.clone(), run), start_before);
            self.let_go(&job);
        } else {
            self.go_ahead(run);
        }
    }

    /// Starts the runs of a job that wait for no earlier one any more.
    fn let_go(&mut self, job: &JobName) {
        if self.waiting.is_empty() {
            return;
        }
        let free = |w: &&Waiting| w.live.job == *job && self.schedule.older_than(&w.live) == 0;
        let runs: Vec<RunId> = self.waiting.values().filter(free).map(|w| w.live.run).collect();
        for run in runs {
            self.go_ahead(run);
        }
    }

    /// Starts a run; past its deadline whoever sees it through records that instead.
    fn go_ahead(&mut self, run: RunId) {
        let Some(Waiting { live, entry, start_before }) = self.waiting.remove(&run) else { return };
        self.schedule.agenda.remove(&Due::Spawn(live.job.clone(), run));
        let retention_days = self.schedule.retention_of(Some(&entry));
        let kill = self.schedule.replica.kill_of(&live);
        self.acts.push(Act::Start { live, entry, start_before, retention_days, kill });
        // Its claim was on its way, or it waited for another's end.
        let reason = self.last_call.clone();
        self.acts.extend(reason.map(|reason| Act::Abandon(run, reason)));
    }

    /// A run of ours is over. `ended_at` is the revision of its end in etcd, where it is known.
    pub fn on_over(&mut self, run: RunId, ended_at: Option<i64>) {
        let replica = &self.schedule.replica;
        self.runs.end(run, ended_at);
        self.runs.seen(replica.revision);
        if ended_at.is_none() && replica.all_live().all(|live| live.run != run) {
            self.runs.gone(run, replica.revision);
        }
    }

    /// The worker is registered under this lease; 0: under none.
    pub fn on_lease(&mut self, lease: i64, now: DateTime<Utc>) {
        if lease == self.lease {
            return;
        }
        self.lease = lease;
        if lease != 0 {
            self.schedule.registered(now);
        }
        // A loss and a new registration may come as one change.
        let lost: Vec<RunId> = self.runs.without_lease(lease).collect();
        let reason = "the worker lost its lease";
        self.acts.extend(lost.into_iter().map(|run| Act::Abandon(run, reason.to_owned())));
    }

    /// Whether the worker is registered.
    pub fn is_registered(&self) -> bool {
        self.lease != 0
    }

    /// Takes in what the watch delivered.
    pub fn on_feed(&mut self, fed: &Feed, now: DateTime<Utc>) {
        let touched = self.schedule.take(fed, now);
        if let Feed::Snapshot { revision, .. } = fed {
            let jobs = self.schedule.replica.jobs.len();
            info!("read {jobs} jobs at revision {revision}");
            self.synced = true;
        }
        let mut fleet_changed = false;
        for key in touched {
            match key {
                Key::Running(job, _, run) => {
                    self.adopt(&job, run, now);
                    self.notice_settled(&job, run);
                    if self.schedule.live(&job, run).is_none() {
                        self.runs.gone(run, self.schedule.replica.revision);
                    }
                    self.let_go(&job);
                }
                Key::KillRun(job, _) | Key::KillJob(job) => self.pass_kills_on(&job),
                Key::Drain(worker) if worker == self.me.id => {
                    self.draining = self.schedule.replica.drains.contains(&worker);
                    info!("{}", if self.draining { "draining" } else { "taking runs again" });
                }
                Key::Settings | Key::Worker(_) => fleet_changed = true,
                Key::Misnamed(name, why) => warn!("a key in the place of a job: {name:?}: {why}"),
                _ => {}
            }
        }
        if fleet_changed {
            self.raise_rules();
        }
        self.runs.seen(self.schedule.replica.revision);
    }

    /// The fleet goes over to newer rules when nobody is left who computes by older ones.
    fn raise_rules(&mut self) {
        let (settings, revision) = self.schedule.replica.settings();
        let ours = rules_version();
        let theirs = settings.rules_version.as_deref();
        let behind = theirs.is_none_or(|theirs| is_older(theirs, ours));
        let everybody =
            self.schedule.replica.workers.values().filter_map(|w| w.value.as_ref().ok());
        let mut versions = everybody.map(|registration| registration.rules_version.as_str());
        if self.lease == 0
            || self.schedule.stands_by()
            || !behind
            || versions.any(|version| is_older(version, ours))
        {
            return;
        }
        let Ok(fleet) = JobName::new("settings") else { return };
        if self.schedule.rank(&fleet, None, Call::Settle) == 0 {
            info!("the fleet computes by the rules {ours} from now on");
            let settings = FleetSettings { rules_version: Some(ours.to_owned()), ..settings };
            self.acts.push(Act::Raise(revision, settings));
        }
    }

    /// A run's key under our lease whose run we never started: the answer to its claim was lost.
    fn adopt(&mut self, job: &JobName, run: RunId, now: DateTime<Utc>) {
        let Some(live) = self.schedule.live(job, run) else { return };
        if !self.runs.is_orphan(live, &self.me.id, self.lease) {
            return;
        }
        let live = live.clone();
        let entry = self.schedule.replica.job(job).map(Arc::new);
        let days = self.schedule.retention_of(entry.as_deref());
        let end = match entry {
            Some(_) => (Outcome::Skipped, "the job changed before the run could start"),
            None => (Outcome::Missed, "the job was deleted before the run could start"),
        };
        // Of another revision it is not what was claimed, nor will it ever be again.
        match entry.filter(|entry| entry.mod_revision == live.value.job_revision) {
            Some(entry) => {
                info!(%job, %run, "adopted: its claim was carried out although no answer came");
                self.start(live, entry, TimeDelta::zero());
            }
            _ if self.deciding.contains(job) => {}
            _ => {
                let proposal = propose_unstarted(&self.keys, &live, end, days, now);
                self.put_forward(proposal);
            }
        }
    }

    /// A run of ours whose key is gone: the others took us for dead.
    fn notice_settled(&mut self, job: &JobName, run: RunId) {
        let revision = self.schedule.replica.revision;
        if self.schedule.live(job, run).is_none() && self.runs.is_settled_by_others(run, revision) {
            let reason = "the fleet took its worker for dead and settled it".to_owned();
            if self.waiting.remove(&run).is_some() {
                // It was never started.
                self.schedule.agenda.remove(&Due::Spawn(job.clone(), run));
                self.runs.end(run, Some(revision));
                return;
            }
            // The ordinary end of a run comes here too: nobody listens to the order then.
            self.acts.push(Act::Abandon(run, reason));
        }
    }

    fn pass_kills_on(&mut self, job: &JobName) {
        for live in self.schedule.replica.live_of(job).filter(|live| self.runs.has(live.run)) {
            if let Some(kill) = self.schedule.replica.kill_of(live) {
                info!(%job, run = %live.run, "kill asked for by {}", kill.by);
                self.acts.push(Act::Kill(live.run, kill));
            }
        }
    }

    fn settle_lost(&mut self, job: &JobName, run: RunId, now: DateTime<Utc>) {
        if self.runs.has(run) {
            // Ours, under an earlier lease: its own end settles it.
            return;
        }
        let Some(live) = self.schedule.lost(job, run).cloned() else { return };
        self.schedule.agenda.insert(Due::Lost(job.clone(), run), now + AFTER_FAILURE * 5);
        if self.deciding.contains(job) || self.schedule.stands_by() {
            self.schedule.agenda.insert(Due::Lost(job.clone(), run), now + SECOND_LOOK);
            return;
        }
        let entry = self.schedule.replica.job(job);
        let days = self.schedule.retention_of(entry.as_ref());
        // Nothing follows a run that somebody wanted dead.
        let again = entry.as_ref().filter(|_| self.schedule.replica.kill_of(&live).is_none());
        let again = again.and_then(|entry| follow_up(entry, &live, Outcome::Lost, now));
        let proposal = propose_lost(&self.keys, &live, entry.as_ref(), again.as_ref(), days, now);
        self.put_forward(proposal);
    }

    /// Takes a decision to MongoDB that its own worker has left behind.
    fn complete(&mut self, job: &JobName, id: RunId, now: DateTime<Utc>) {
        if let Some(done) = self.schedule.done(job, id).cloned() {
            debug!(%job, run = %id, "completing a record that lingers");
            self.acts.push(Act::Complete(job.clone(), Box::new(done)));
            if let Some(again) = self.schedule.completion_of(job, id, now) {
                self.schedule.agenda.insert(Due::Lingering(job.clone(), id), again);
            }
        }
    }

    fn collect(&mut self, job: &JobName, on: Option<&WorkerId>, now: DateTime<Utc>) {
        let Some((revision, job_revision, gone)) = self.schedule.collectable(job, on) else {
            return;
        };
        // Unless it goes, it is tried again.
        let due = Due::Cursor(job.clone(), on.cloned());
        self.schedule.agenda.insert(due, now + COLLECT_AGAIN);
        if self.deciding.contains(job) || self.schedule.stands_by() {
            return;
        }
        debug!(%job, "collecting a cursor that nobody needs");
        let step = Step::collect(&self.keys, job, on, revision, job_revision, gone);
        self.put_forward(Proposal { step, effect: Effect::Tidies });
    }

    /// The clock was set by so much, and shows `now`.
    pub fn on_clock_set(&mut self, by: TimeDelta, now: DateTime<Utc>) {
        self.schedule.clock_set(by, now);
        // What was claimed by the clock as it was may take as long as it might then.
        self.runs.clock_set(by);
        let waiting = self.waiting.values_mut().map(|waiting| &mut waiting.start_before);
        let starting = self.acts.iter_mut().filter_map(|act| match act {
            Act::Start { start_before, .. } => Some(start_before),
            _ => None,
        });
        for start_before in waiting.chain(starting) {
            *start_before = moved(*start_before, by);
        }
    }

    /// Why nothing at all may be claimed, by what others than the fleet's settings say.
    pub fn bar(&mut self, why: Option<String>, now: DateTime<Utc>) {
        self.schedule.bar(why, now);
    }

    /// The worker was told to end: nothing new is taken as soon as the others know.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether the fleet knows that nothing new is taken.
    pub fn announced(&mut self, announced: bool) {
        self.announced |= announced && (self.stopping || self.draining);
        self.announced &= self.stopping || self.draining;
    }

    /// Whether it takes nothing new any more, and the fleet knows.
    pub fn has_announced(&self) -> bool {
        self.announced
    }

    /// Ends all runs, and says how long that may take.
    pub fn call_last(&mut self, reason: &str) -> Duration {
        let all: Vec<RunId> = self.runs.all().collect();
        self.acts.extend(all.into_iter().map(|run| Act::Abandon(run, reason.to_owned())));
        self.last_call = Some(reason.to_owned());
        self.announced = true;
        self.runs.longest_grace()
    }

    /// What the fleet is told of this worker.
    pub fn told(&self) -> Told {
        Told {
            running: u32::try_from(self.runs.live()).unwrap_or(u32::MAX),
            full: self.is_full(),
            draining: self.draining || self.stopping,
            standing_by: self.schedule.barred(),
        }
    }
}

#[cfg(test)]
mod tests;
