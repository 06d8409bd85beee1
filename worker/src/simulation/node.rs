//! One worker: a [`Decider`], and around it in short what the daemon, the keeper of the lease, the
//! supervisor of each run, the reporter and the guard do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use carillon_core::decide::follow_up;
use carillon_core::etcd::EtcdError;
use carillon_core::fleet::{Registration, rules_version};
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::JobEntry;
use carillon_core::replica::{Feed, Versioned};
use carillon_core::run::{LiveRun, Outcome, RunRecord, RunState, TriggerRequest};
use carillon_core::steps::{Answer, Step, Write};
use chrono::{DateTime, TimeDelta, Utc};

use super::mutation::Mutation;
use super::random::Random;
use super::world::{Cargo, Cause, Flight, GRAIN, Process, World};
use crate::decider::{Act, Decider, Me, Told};
use crate::ending::{Finish, Next, after, must_not_start};
use crate::lease::TTL_SECS;

const TTL: TimeDelta = TimeDelta::seconds(TTL_SECS);
/// How long before its end a lease is not certain any more.
const MARGIN: TimeDelta = TimeDelta::seconds(2);
const RENEWED_EVERY: TimeDelta = TimeDelta::milliseconds(3_333);
const REGISTERED_AGAIN: TimeDelta = TimeDelta::milliseconds(500);
const HANDOVER: TimeDelta = TimeDelta::seconds(2);
const DRAIN_TIMEOUT: TimeDelta = TimeDelta::seconds(6);
const LAST_ENDS: TimeDelta = TimeDelta::seconds(5);

/// What the worker knows of its registration, as in [`crate::lease::Standing`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    lease: i64,
    /// When the last acknowledged renewal was sent.
    confirmed: DateTime<Utc>,
    draining: bool,
}

impl Standing {
    fn may_act(&self, now: DateTime<Utc>) -> bool {
        self.lease != 0 && now < self.confirmed + TTL - MARGIN
    }
}

/// A run on its way from the claim to its record.
struct Supervised {
    live: LiveRun,
    entry: Arc<JobEntry>,
    /// By when its process must be there, whatever clocks show.
    start_by: DateTime<Utc>,
    retention_days: Option<u32>,
    /// What it was told before it started.
    ordered: Option<Cause>,
    stage: Stage,
}

enum Stage {
    Starting,
    Running,
    Ending {
        record: Box<RunRecord>,
        again: Option<(RunId, TriggerRequest)>,
        asked_before: bool,
        /// When it is sent next; `None` while the answer is awaited.
        next: Option<DateTime<Utc>>,
    },
}

/// On its way out.
struct Leaving {
    hands_over: Option<DateTime<Utc>>,
    drained: Option<DateTime<Utc>>,
    last_call: Option<DateTime<Utc>>,
}

/// See the module.
pub(super) struct Node {
    pub me: Me,
    index: usize,
    /// Its clock less true time.
    skew: TimeDelta,
    /// By how much its clock was set while it was paused.
    set_by: TimeDelta,
    pub linked: bool,
    pub paused: bool,
    pub life: u32,
    /// The decider, while the worker is up.
    pub mind: Option<Decider>,
    seen: Option<i64>,
    /// The rest of a list that is being delivered.
    list: Option<Feed>,
    standing: Standing,
    /// Whether the daemon has not heard of it.
    standing_is_news: bool,
    /// When the lease is renewed or asked for.
    renews: DateTime<Utc>,
    /// What the guard was told of the lease.
    certain_until: Option<DateTime<Utc>>,
    told: Option<Told>,
    runs: BTreeMap<(JobName, RunId), Supervised>,
    /// Runs whose end the daemon has not heard of.
    over: VecDeque<(RunId, Option<i64>)>,
    reports: VecDeque<(JobName, Box<Versioned<RunRecord>>)>,
    leaving: Option<Leaving>,
}

impl Node {
    pub fn new(index: usize, max_skew: TimeDelta, random: &mut Random) -> Self {
        let labels = match random.percent(70) {
            true => [("gpu".to_owned(), "yes".to_owned())].into(),
            false => BTreeMap::new(),
        };
        let id = WorkerId::new(&format!("w{index}")).unwrap();
        let capacity = random.pick(&[1, 2, 8, 8]);
        Self {
            me: Me { id, labels, capacity, max_skew },
            index,
            skew: TimeDelta::zero(),
            set_by: TimeDelta::zero(),
            linked: true,
            paused: false,
            life: 0,
            mind: None,
            seen: None,
            list: None,
            standing: Standing::default(),
            standing_is_news: false,
            renews: DateTime::UNIX_EPOCH,
            certain_until: None,
            told: None,
            runs: BTreeMap::new(),
            over: VecDeque::new(),
            reports: VecDeque::new(),
            leaving: None,
        }
    }

    /// Until when its guard lets runs go on.
    pub fn certain_until(&self) -> Option<DateTime<Utc>> {
        self.certain_until
    }

    fn supervises(&self, process: &Process) -> bool {
        self.runs.contains_key(&(process.live.job.clone(), process.live.run))
    }

    fn is_awake(&self) -> bool {
        self.mind.is_some() && !self.paused
    }

    /// When something is due next, by true time.
    pub fn next(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut next = self.renews;
        if let Some(mind) = &mut self.mind
            && self.standing.may_act(now)
            && let Some(due) = mind.next()
        {
            next = next.min(due - self.skew);
        }
        for run in self.runs.values() {
            if let Stage::Ending { next: Some(at), .. } = &run.stage {
                next = next.min(*at);
            }
        }
        next
    }
}

impl World {
    /// What the worker's clock shows.
    fn clock(&self, node: usize) -> DateTime<Utc> {
        self.now + self.nodes[node].skew
    }

    pub fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.life += 1;
        node.mind = Some(Decider::new(self.keys.clone(), node.me.clone()));
        (node.seen, node.list) = (None, None);
        node.paused = false;
        node.renews = self.now;
        node.told = None;
        node.leaving = None;
        node.certain_until = None;
        self.tell(|_| format!("w{index} starts"));
    }

    pub fn crash(&mut self, index: usize) {
        self.tell(|_| format!("w{index} dies"));
        self.end_life(index);
    }

    fn end_life(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.mind = None;
        node.standing = Standing::default();
        node.standing_is_news = false;
        node.runs.clear();
        node.over.clear();
        node.reports.clear();
        if self.conditions.mutation == Some(Mutation::NoGuard) {
            return;
        }
        for process in 0..self.processes.len() {
            let Process { alive, node, .. } = self.processes[process];
            if alive && node == index {
                self.end_process(process, self.now, Cause::Guard);
            }
        }
    }

    pub fn resume(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if std::mem::take(&mut node.paused) {
            let by = std::mem::take(&mut node.set_by);
            self.tell(|_| format!("w{index} goes on"));
            self.clock_was_set(index, by);
        }
    }

    /// Sets a clock somewhere within the conditions.
    pub fn set_clock(&mut self, index: usize) {
        let most = match self.random.below(3) {
            0 => self.conditions.skew,
            1 => self.conditions.skew.min(2_000),
            _ => 0,
        };
        let grain = GRAIN.num_milliseconds();
        let millis = self.random.between(-most / grain, most / grain) * grain;
        let node = &mut self.nodes[index];
        // No two clocks show the same millisecond.
        let skew = TimeDelta::milliseconds(millis + i64::try_from(node.index).unwrap());
        let by = skew - node.skew;
        node.skew = skew;
        self.tell(|_| format!("the clock of w{index} is set by {by}, and is {skew} ahead"));
        if self.nodes[index].paused {
            self.nodes[index].set_by += by;
        } else {
            self.clock_was_set(index, by);
        }
    }

    fn clock_was_set(&mut self, index: usize, by: TimeDelta) {
        let now = self.clock(index);
        if let Some(mind) = &mut self.nodes[index].mind
            && !by.is_zero()
        {
            mind.on_clock_set(by, now);
        }
    }

    pub fn stop(&mut self, index: usize) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        if let (Some(mind), None, false) = (&mut node.mind, &node.leaving, node.paused) {
            mind.stop();
            let (hands_over, drained) = (Some(now + HANDOVER), Some(now + DRAIN_TIMEOUT));
            node.leaving = Some(Leaving { hands_over, drained, last_call: None });
            self.tell(|_| format!("w{index} is told to stop"));
        }
    }

    /// The deadlines of a worker that is told to stop.
    pub fn leave_in_time(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let (Some(leaving), Some(mind), false) = (&mut node.leaving, &mut node.mind, node.paused)
        else {
            return;
        };
        let past = |at: &mut DateTime<Utc>| *at <= now;
        if leaving.hands_over.take_if(past).is_some() {
            mind.announced(true);
        }
        if mind.has_announced() {
            leaving.hands_over = None;
        }
        if leaving.drained.take_if(past).is_some() {
            let grace = mind.call_last("the worker stopped and its drain time was over");
            leaving.last_call = Some(now + TimeDelta::from_std(grace).unwrap() + LAST_ENDS);
        }
        let idle = leaving.hands_over.is_none() && mind.is_idle() && node.runs.is_empty();
        if idle || leaving.last_call.take_if(past).is_some() {
            let lease = node.standing.lease;
            if node.linked && lease != 0 {
                self.etcd.end_lease(lease);
            }
            self.tell(|_| format!("w{index} has left"));
            self.end_life(index);
        }
    }

    /// Registers, renews and notices losses, as the keeper does.
    pub fn keep_lease(&mut self, index: usize) {
        let now = self.now;
        let node = &self.nodes[index];
        if !node.is_awake() {
            return;
        }
        if node.standing.lease == 0 {
            if now >= node.renews && node.linked {
                self.register(index);
            }
            return;
        }
        if !node.standing.may_act(now) {
            return self.lose(index, "silence");
        }
        if now < node.renews || !node.linked {
            return;
        }
        let (lease, confirmed) = (node.standing.lease, node.standing.confirmed);
        if !self.quiet && self.random.percent(8) {
            self.nodes[index].renews = now + TimeDelta::milliseconds(200);
            return;
        }
        let Some(until) = self.etcd.leases.get_mut(&lease) else {
            return self.lose(index, "expired");
        };
        *until = (*until).max(now + TTL);
        self.nodes[index].renews = now + RENEWED_EVERY;
        if !self.quiet && self.random.percent(8) {
            return;
        }
        let sent = confirmed.max(now - TimeDelta::milliseconds(self.random.between(0, 900)));
        let node = &mut self.nodes[index];
        node.standing.confirmed = sent;
        node.certain_until = Some(sent + TTL);
        let told = node.mind.as_ref().map(Decider::told);
        let draining = told.as_ref().is_some_and(|told| told.draining);
        node.told = told;
        if !self.write_registration(index, lease) {
            return self.lose(index, "another holds the name");
        }
        let node = &mut self.nodes[index];
        node.standing_is_news |=
            std::mem::replace(&mut node.standing.draining, draining) != draining;
    }

    fn register(&mut self, index: usize) {
        let now = self.now;
        let lease = self.etcd.grant(now + TTL);
        self.nodes[index].renews = now + REGISTERED_AGAIN;
        self.nodes[index].told = self.nodes[index].mind.as_ref().map(Decider::told);
        if !self.write_registration(index, lease) {
            self.etcd.end_lease(lease);
            return;
        }
        if !self.quiet && self.random.percent(10) {
            self.tell(|_| format!("w{index} does not hear that it is registered"));
            return;
        }
        let sent = now - TimeDelta::milliseconds(self.random.between(0, 900));
        let node = &mut self.nodes[index];
        let draining = node.told.as_ref().is_some_and(|told| told.draining);
        node.certain_until = Some(sent + TTL);
        node.standing = Standing { lease, confirmed: sent, draining };
        node.standing_is_news = true;
        node.renews = now + RENEWED_EVERY;
        self.tell(|_| format!("w{index} is registered under lease {lease}"));
    }

    fn lose(&mut self, index: usize, why: &str) {
        let node = &mut self.nodes[index];
        node.standing = Standing::default();
        node.standing_is_news = true;
        node.renews = self.now + REGISTERED_AGAIN;
        self.tell(|_| format!("w{index} loses its registration: {why}"));
    }

    /// As [`carillon_core::claims::Claims::register`]: returns whether the name is its own.
    fn write_registration(&mut self, index: usize, lease: i64) -> bool {
        let clock = self.clock(index);
        let node = &self.nodes[index];
        let key = self.keys.worker(&node.me.id);
        if self.etcd.get(&key).is_some_and(|kv| kv.lease != lease) {
            return false;
        }
        let Some(told) = node.told.clone() else { return false };
        let registration = Registration {
            host: "h".to_owned(),
            pid: 1,
            labels: node.me.labels.clone(),
            version: "0".to_owned(),
            rules_version: rules_version().to_owned(),
            capacity: 1,
            running: told.running,
            lateness_p99_millis: None,
            clock,
            started: clock,
            draining: told.draining,
            full: told.full,
            standing_by: told.standing_by,
            restored: false,
            watch_revision: 0,
            table_hash: String::new(),
            spool_bytes: 0,
        };
        let value = serde_json::to_vec(&registration).unwrap();
        self.etcd.write(vec![(Write::Put(key, value), lease)]);
        true
    }

    /// Somebody deletes a registration by hand.
    pub fn lose_registration(&mut self, index: usize) {
        let key = self.keys.worker(&self.nodes[index].me.id);
        if let Some(kv) = self.etcd.get(&key) {
            self.audit.by_hand.insert(kv.lease);
            self.etcd.delete(key);
            self.tell(|_| format!("somebody deletes the registration of w{index}"));
        }
    }

    /// The watch delivers something.
    pub fn deliver(&mut self, index: usize) -> bool {
        let count = if self.quiet { 1_000 } else { 1 + self.random.below(5) };
        let now = self.clock(index);
        let node = &mut self.nodes[index];
        if !node.is_awake() || !node.linked {
            return false;
        }
        // One that is broken off is made anew.
        let list = node.list.take().filter(|_| self.quiet || !self.random.percent(10));
        let Some(mut feed) = list.or_else(|| self.etcd.next_feed(node.seen, count)) else {
            return false;
        };
        if let Feed::Snapshot { revision, cluster, items } = &mut feed
            && !self.quiet
            && self.random.percent(50)
        {
            let (revision, cluster) = (*revision, *cluster);
            let rest = items.split_off(self.random.below(items.len()));
            let part = Feed::Part { revision, cluster, items: std::mem::take(items) };
            node.list = Some(Feed::Snapshot { revision, cluster, items: rest });
            feed = part;
        }
        let revision = match feed {
            Feed::Snapshot { revision, .. } | Feed::Changes { revision, .. } => {
                node.seen = Some(revision);
                revision
            }
            Feed::Part { revision, .. } => revision,
            Feed::Lost { .. } => return false,
        };
        if let Some(mind) = &mut node.mind {
            mind.on_feed(&feed, now);
        }
        if !self.quiet {
            self.tell(|_| format!("w{index} sees revision {revision}"));
        }
        self.turn(index);
        true
    }

    /// The daemon hears of the lease, of runs that are over, and tells MongoDB.
    pub fn hear_of_runs(&mut self, index: usize) -> bool {
        let now = self.clock(index);
        let node = &mut self.nodes[index];
        let (Some(mind), false) = (&mut node.mind, node.paused) else { return false };
        let mut busy = false;
        if std::mem::take(&mut node.standing_is_news) {
            let standing = node.standing;
            mind.on_lease(standing.lease, now);
            mind.announced(standing.draining);
            busy = true;
        }
        if let Some((run, ended_at)) = node.over.pop_front() {
            mind.on_over(run, ended_at);
            busy = true;
        }
        if let Some((job, done)) = node.reports.pop_front() {
            self.audit.record(&done.value);
            let step = Step::acknowledged(&self.keys, &job, &done);
            self.send(index, vec![step], Cargo::Nothing);
            busy = true;
        }
        if busy {
            self.turn(index);
        }
        busy
    }

    /// One round of the daemon's loop, as often as more is due.
    pub fn turn(&mut self, index: usize) {
        let mut more = true;
        while more {
            self.now += GRAIN;
            let (now, clock) = (self.now, self.clock(index));
            let node = &mut self.nodes[index];
            let (Some(mind), false) = (&mut node.mind, node.paused) else { return };
            more = node.standing.may_act(now) && mind.tick(clock);
            let mut acts = mind.acts();
            // What is done for different runs has no order of its own.
            acts.sort_by_key(|act| node.place_of(act));
            for act in acts {
                self.act(index, act);
            }
            let Some(mind) = &mut self.nodes[index].mind else { return };
            let proposals = mind.proposals(more);
            if !proposals.is_empty() {
                let steps = proposals.iter().map(|proposal| proposal.step.clone()).collect();
                self.send(index, steps, Cargo::Proposals(proposals));
            }
        }
        let node = &mut self.nodes[index];
        if let (Some(mind), Some(told)) = (&node.mind, &node.told) {
            let news = mind.told();
            if (news.draining, news.full, &news.standing_by)
                != (told.draining, told.full, &told.standing_by)
            {
                node.renews = node.renews.min(self.now);
            }
        }
    }

    fn act(&mut self, index: usize, act: Act) {
        match act {
            Act::Start { live, entry, start_before, retention_days, kill } => {
                let ordered = kill.map(|_| Cause::Kill);
                let at = (live.job.clone(), live.run);
                let stage = Stage::Starting;
                let start_by = start_before - self.nodes[index].skew;
                let run = Supervised { live, entry, start_by, retention_days, ordered, stage };
                self.nodes[index].runs.insert(at, run);
            }
            Act::Kill(run, _) => self.order(index, run, Cause::Kill),
            Act::Abandon(run, _) => self.order(index, run, Cause::Abandon),
            Act::Report(job, done) | Act::Complete(job, done) => {
                if self.quiet || self.random.percent(80) {
                    self.nodes[index].reports.push_back((job, done));
                }
            }
            Act::Raise(revision, settings) => {
                let key = self.keys.settings();
                let stands = self.etcd.get(&key).map_or(0, |kv| kv.modified);
                if stands == revision && self.nodes[index].linked {
                    self.etcd.put(key, &serde_json::to_string(&settings).unwrap());
                }
            }
        }
    }

    fn order(&mut self, index: usize, run: RunId, cause: Cause) {
        let mut runs = self.nodes[index].runs.values_mut();
        let Some(found) = runs.find(|supervised| supervised.live.run == run) else { return };
        match found.stage {
            Stage::Starting => drop(found.ordered.get_or_insert(cause)),
            Stage::Running => {
                let of_run = |p: &Process| p.live.run == run && p.node == index;
                if let Some(process) = self.processes.iter().position(of_run) {
                    self.end_process(process, self.now, cause);
                }
            }
            Stage::Ending { .. } => {}
        }
    }

    /// One of the runs gets on, if one can.
    pub fn see_through(&mut self, index: usize) -> bool {
        let node = &self.nodes[index];
        if !node.is_awake() || node.runs.is_empty() {
            return false;
        }
        let first = self.random.below(node.runs.len());
        let places: Vec<_> = self.nodes[index].runs.keys().cloned().collect();
        let count = places.len();
        (0..count).any(|n| self.get_on(index, &places[(first + n) % count]))
    }

    fn get_on(&mut self, index: usize, place: &(JobName, RunId)) -> bool {
        let Some(run) = self.nodes[index].runs.get(place) else { return false };
        match &run.stage {
            Stage::Starting => {
                self.spawn(index, place);
                true
            }
            Stage::Running => self.notice_end(index, place),
            Stage::Ending { record, again, next, .. } => {
                if next.is_none_or(|next| next > self.now) {
                    return false;
                }
                let step = Step::end(&self.keys, &run.live, record, again.as_ref());
                self.wait_for_end(index, place, None);
                self.send(index, vec![step], Cargo::End(place.0.clone(), place.1));
                true
            }
        }
    }

    fn wait_for_end(&mut self, index: usize, place: &(JobName, RunId), at: Option<DateTime<Utc>>) {
        let run = self.nodes[index].runs.get_mut(place);
        if let Some(Supervised { stage: Stage::Ending { next, .. }, .. }) = run {
            *next = at;
        }
    }

    /// A process is started, unless it must not.
    fn spawn(&mut self, index: usize, place: &(JobName, RunId)) {
        let node = &self.nodes[index];
        let run = &node.runs[place];
        let live = run.live.clone();
        let certain = node.standing.lease == live.value.lease && node.standing.may_act(self.now);
        let unleased = self.conditions.mutation == Some(Mutation::SpawnUnleased);
        let past = self.now >= run.start_by;
        if let Some((outcome, reason)) = must_not_start(past, certain || unleased) {
            self.tell(|w| format!("w{index} does not start {}: {reason}", w.name(live.run)));
            return self.conclude(index, place, outcome, None, reason);
        }
        let (job, ordered, life) = (run.entry.job().unwrap().clone(), run.ordered, node.life);
        if run.entry.mod_revision != live.value.job_revision {
            self.audit.breaks(format!("{}: what runs is not what was claimed", live.job));
        }
        let alive = self.processes.iter().filter(|process| process.alive);
        self.audit.starts(&self.etcd, &live, alive);
        let outcome = self.random.pick(&[Outcome::Succeeded, Outcome::Failed]);
        let millis = match self.random.below(4) {
            _ if self.conditions.long_runs => self.random.between(15_000, 60_000),
            0 => self.random.between(8, 500),
            1..3 => self.random.between(500, 6_000),
            _ => self.random.between(6_000, 20_000),
        };
        let seconds = |secs: u32| TimeDelta::seconds(secs.into());
        let times_out = (job.timeout_secs > 0).then(|| self.now + seconds(job.timeout_secs));
        let grace = seconds(job.kill_grace_secs);
        let ends = self.now + TimeDelta::milliseconds(millis);
        let process = Process {
            live: live.clone(),
            node: index,
            life,
            grace,
            ends,
            outcome,
            times_out,
            dies: None,
            alive: true,
        };
        let nodes = &self.nodes;
        self.processes.retain(|process| process.alive || nodes[process.node].supervises(process));
        self.processes.push(process);
        if let Some(cause) = ordered {
            self.end_process(self.processes.len() - 1, self.now, cause);
        }
        self.tell(|w| format!("w{index} starts a process of {}", w.name(live.run)));
        let mut advanced = live;
        (advanced.value.pid, advanced.value.state) = (Some(1), RunState::Running);
        let step = Step::advance(&self.keys, &advanced);
        self.send(index, vec![step], Cargo::Nothing);
        if let Some(run) = self.nodes[index].runs.get_mut(place) {
            run.stage = Stage::Running;
        }
    }

    fn notice_end(&mut self, index: usize, place: &(JobName, RunId)) -> bool {
        let life = self.nodes[index].life;
        let of_run = |p: &&Process| p.live.run == place.1 && (p.node, p.life) == (index, life);
        let Some(process) = self.processes.iter().find(of_run).filter(|p| !p.alive) else {
            return false;
        };
        let told = process.dies.filter(|(dies, _)| *dies < process.ends).map(|(_, cause)| cause);
        let (standing, value) = (self.nodes[index].standing, &process.live.value);
        let leased = standing.lease == value.lease && standing.may_act(self.now);
        let (outcome, killed_by, err) = match told {
            None => (process.outcome, None, "as it ended"),
            Some(Cause::TimeOut) => (Outcome::TimedOut, None, "timed out"),
            Some(Cause::Kill) => (Outcome::Killed, Some("somebody".to_owned()), "killed"),
            Some(Cause::Guard) => (Outcome::Failed, None, "ended by a signal"),
            Some(Cause::Abandon) => (Outcome::Killed, None, "abandoned"),
        };
        let finish = Finish {
            outcome,
            asked_for: killed_by.is_some(),
            signalled: matches!(told, Some(Cause::Guard)),
            continues: value.continues_secs.is_some(),
        };
        let outcome = finish.outcome(leased);
        self.conclude(index, place, outcome, killed_by, err);
        true
    }

    /// What became of the run is known, and to be written into etcd.
    fn conclude(
        &mut self,
        index: usize,
        place: &(JobName, RunId),
        outcome: Outcome,
        killed_by: Option<String>,
        err: &str,
    ) {
        let (now, clock) = (self.now, self.clock(index));
        let Some(run) = self.nodes[index].runs.get_mut(place) else { return };
        let record = RunRecord::of_run(&run.live, "c", clock).ended(outcome, clock, err);
        let record = RunRecord { killed_by, ..record.kept_for(run.retention_days) };
        let again = follow_up(&run.entry, &run.live, outcome, clock);
        let record = Box::new(record);
        run.stage = Stage::Ending { record, again, asked_before: false, next: Some(now) };
    }

    /// The answers to a flight are heard; `lost`: it is only known that there are none.
    pub fn take_answers(&mut self, flight: Flight, lost: bool) {
        let unreachable =
            || EtcdError::Unreachable { endpoints: String::new(), detail: "x".into() };
        let answers: Vec<_> = match flight.answers {
            Some(answers) if !lost => answers.into_iter().map(Ok).collect(),
            _ => flight.steps.iter().map(|_| Err(unreachable())).collect(),
        };
        self.hear(flight.node, flight.cargo, answers);
    }

    /// etcd says for certain that it has done nothing.
    pub fn refuse_answers(&mut self, flight: Flight) {
        let refused = || EtcdError::Refused { endpoints: String::new(), detail: "x".to_owned() };
        let answers = flight.steps.iter().map(|_| Err(refused())).collect();
        self.hear(flight.node, flight.cargo, answers);
    }

    fn hear(&mut self, index: usize, cargo: Cargo, answers: Vec<Result<Answer, EtcdError>>) {
        self.tell(|_| {
            let short = |answer: &Result<Answer, EtcdError>| match answer {
                Ok(answer) => format!("{answer:?}"),
                Err(e) if e.is_ambiguous() => "nothing".to_owned(),
                Err(_) => "an error".to_owned(),
            };
            format!("w{index} hears {}", answers.iter().map(short).collect::<Vec<_>>().join(", "))
        });
        match cargo {
            Cargo::Proposals(proposals) => {
                let clock = self.clock(index);
                let Some(mind) = &mut self.nodes[index].mind else { return };
                for (proposal, answer) in proposals.into_iter().zip(answers) {
                    mind.on_answer(proposal, answer, clock);
                }
            }
            Cargo::End(job, run) => {
                for answer in answers {
                    self.on_end(index, &(job.clone(), run), answer);
                }
            }
            Cargo::Nothing => {}
        }
        self.turn(index);
    }

    /// As in [`crate::supervise`].
    fn on_end(
        &mut self,
        index: usize,
        place: &(JobName, RunId),
        answer: Result<Answer, EtcdError>,
    ) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let Some(Supervised { stage, .. }) = node.runs.get_mut(place) else { return };
        let Stage::Ending { record, again, asked_before, next } = stage else { return };
        match after(&answer, record.outcome, again.is_some(), *asked_before) {
            Next::Done(mod_revision) => {
                let value = (**record).clone();
                let done = Box::new(Versioned { value, mod_revision });
                node.reports.push_back((place.0.clone(), done));
                node.over.push_back((place.1, Some(mod_revision)));
                node.runs.remove(place);
            }
            Next::WithoutFollowUp => (*again, *next) = (None, Some(now)),
            Next::TooLate | Next::Over => {
                node.over.push_back((place.1, None));
                node.runs.remove(place);
            }
            Next::Again => {
                *asked_before |= answer.is_err_and(|e| e.is_ambiguous());
                *next = Some(now + TimeDelta::milliseconds(300));
            }
        }
    }

    /// Before all is well: what is on its way arrives or is lost.
    pub fn clear_the_way(&mut self) {
        while let Some(index) = self.flights.iter().position(|f| matches!(f.cargo, Cargo::Nothing))
        {
            self.flights.swap_remove(index);
        }
        for index in 0..self.nodes.len() {
            if let Some(leaving) = &mut self.nodes[index].leaving {
                leaving.drained = leaving.drained.map(|at| at.min(self.now));
            }
        }
    }
}

impl Node {
    /// Which job and run an act is about, for an order that does not hang on chance.
    fn place_of(&self, act: &Act) -> (DateTime<Utc>, Option<JobName>) {
        let run_of = |run: RunId| {
            let place = self.runs.keys().find(|(_, known)| *known == run);
            (run.made_at(), place.map(|(job, _)| job.clone()))
        };
        match act {
            Act::Start { live, .. } => (live.run.made_at(), Some(live.job.clone())),
            Act::Kill(run, _) | Act::Abandon(run, _) => run_of(*run),
            Act::Report(job, done) | Act::Complete(job, done) => {
                (done.value.id.made_at(), Some(job.clone()))
            }
            Act::Raise(..) => (DateTime::UNIX_EPOCH, None),
        }
    }
}
