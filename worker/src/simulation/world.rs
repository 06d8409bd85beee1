//! One world: a fleet, its etcd, what is on the way between them, and true time. A seed decides
//! what happens next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use carillon_core::id::{JobName, RunId};
use carillon_core::job::Job;
use carillon_core::keys::{Key, Keys};
use carillon_core::run::{LiveRun, Outcome};
use carillon_core::steps::{Answer, Step, Write};
use chrono::{DateTime, TimeDelta, Utc};

use super::audit::Audit;
use super::etcd::Etcd;
use super::mutation::Mutation;
use super::node::Node;
use super::random::Random;
use crate::claim::Proposal;

/// The smallest step of true time. Each worker's clock is by its own part of it off, so that no two
/// ids are made in the same millisecond.
pub(super) const GRAIN: TimeDelta = TimeDelta::milliseconds(8);
/// How many of the last events a broken world tells.
const TOLD: usize = 120;
/// How long a healthy fleet has to catch up, and then to finish what it began.
const QUIET: [TimeDelta; 2] = [TimeDelta::seconds(55), TimeDelta::seconds(75)];

/// A process of a run.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub live: LiveRun,
    pub node: usize,
    /// Which of the worker's lives it belongs to.
    pub life: u32,
    pub grace: TimeDelta,
    /// When it ends by itself, and how.
    pub ends: DateTime<Utc>,
    pub outcome: Outcome,
    pub times_out: Option<DateTime<Utc>>,
    /// When it is gone after it was told to end, and why it was told.
    pub dies: Option<(DateTime<Utc>, Cause)>,
    pub alive: bool,
}

/// Why a process was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    TimeOut,
    Kill,
    Abandon,
    Guard,
}

/// A transaction on its way.
pub(super) struct Flight {
    pub node: usize,
    pub life: u32,
    pub sent: DateTime<Utc>,
    pub steps: Vec<Step>,
    pub cargo: Cargo,
    /// What etcd answered, once it has arrived.
    pub answers: Option<Vec<Answer>>,
}

/// Who waits for the answer.
#[derive(Clone)]
pub(super) enum Cargo {
    Proposals(Vec<Proposal>),
    End(JobName, RunId),
    /// Nobody.
    Nothing,
}

/// What a world is like.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    pub mutation: Option<Mutation>,
    /// How many events before it becomes quiet.
    pub events: usize,
    /// Whether it must then come to rest: the long part.
    pub comes_to_rest: bool,
    /// What all jobs have in common.
    pub jobs: fn(&mut Job),
    /// What happens more often than everything else.
    pub often: Often,
    /// Whether runs go on for long.
    pub long_runs: bool,
    /// How far clocks are set wrong, in milliseconds, at most.
    pub skew: i64,
    /// How far two clocks may be apart, in seconds.
    pub max_skew: i64,
}

/// What happens more often than everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Often {
    Nothing,
    /// Somebody asks for runs.
    Asking,
    /// Somebody deletes registrations.
    Unregistering,
    /// Workers freeze, and go on late.
    Freezing,
}

/// See the module.
pub(super) struct World {
    pub keys: Keys,
    pub now: DateTime<Utc>,
    pub random: Random,
    pub etcd: Etcd,
    pub nodes: Vec<Node>,
    pub flights: Vec<Flight>,
    pub processes: Vec<Process>,
    pub audit: Audit,
    pub jobs: BTreeMap<JobName, Job>,
    pub conditions: Conditions,
    /// Whether nothing fails any more.
    pub quiet: bool,
    pub events: usize,
    trace: Option<VecDeque<String>>,
    names: BTreeMap<RunId, usize>,
}

/// A world's story.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Story {
    /// What broke, if anything did.
    pub broken: Option<String>,
    pub events: usize,
    pub decisions: usize,
    /// The last events, where they were listened to.
    pub told: String,
}

/// Lives through the world of this seed.
pub(super) fn live_through(seed: u64, conditions: &Conditions, listened_to: bool) -> Story {
    let mut world = World::new(seed, conditions.clone(), listened_to);
    world.run();
    let World { audit, events, trace, .. } = world;
    let told = trace.unwrap_or_default().into_iter().collect::<Vec<_>>().join("\n");
    Story { decisions: audit.decisions(), broken: audit.broken, events, told }
}

impl World {
    fn new(seed: u64, conditions: Conditions, traced: bool) -> Self {
        let keys = Keys::new("/cron").unwrap();
        let apart = TimeDelta::milliseconds(conditions.skew + 1_000);
        let mut world = Self {
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
            random: Random::new(seed),
            etcd: Etcd::new(conditions.mutation),
            nodes: Vec::new(),
            flights: Vec::new(),
            processes: Vec::new(),
            audit: Audit::new(keys.clone(), apart),
            jobs: BTreeMap::new(),
            keys,
            quiet: false,
            events: 0,
            trace: traced.then(VecDeque::new),
            names: BTreeMap::new(),
            conditions,
        };
        let count = world.random.pick(&[1, 2, 2, 3, 3, 4]);
        for index in 0..count {
            let max_skew = TimeDelta::seconds(world.conditions.max_skew);
            let node = Node::new(index, max_skew, &mut world.random);
            world.nodes.push(node);
            world.start(index);
            world.set_clock(index);
        }
        for name in ["a", "b", "c"].iter().take(1 + world.random.below(3)) {
            let name = JobName::new(name).unwrap();
            let job = world.new_job(&name);
            world.write_job(&name, job);
        }
        world
    }

    /// Tells what happens, where somebody listens.
    pub fn tell(&mut self, what: impl FnOnce(&mut Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let what = what(self);
        let (at, revision) = (self.now.format("%H:%M:%S%.3f"), self.etcd.revision);
        let line = format!("{:>5} {at} r{revision:<4} {what}", self.events);
        if let Some(trace) = &mut self.trace {
            if trace.len() == TOLD {
                trace.pop_front();
            }
            trace.push_back(line);
        }
    }

    /// A short name for a run.
    pub fn name(&mut self, run: RunId) -> String {
        let next = self.names.len() + 1;
        format!("#{}", self.names.entry(run).or_insert(next))
    }

    /// What a step does, in short.
    pub fn words(&mut self, step: &Step) -> String {
        let mut words = String::new();
        for write in &step.then {
            let (sign, key) = match write {
                Write::Put(key, _) => ('+', key),
                Write::Delete(key) => ('-', key),
            };
            match self.keys.parse(key.as_bytes()) {
                Key::Running(job, _, id) => write!(words, " {sign}running/{job}/{}", self.name(id)),
                Key::Done(job, id) => write!(words, " {sign}done/{job}/{}", self.name(id)),
                Key::Trigger(job, id) => write!(words, " {sign}trigger/{job}/{}", self.name(id)),
                Key::KillRun(job, id) => write!(words, " {sign}killer/{job}/{}", self.name(id)),
                _ => write!(words, " {sign}{}", key.trim_start_matches("/cron/")),
            }
            .unwrap();
        }
        words
    }

    /// Time passes, and what happens by itself meanwhile happens.
    pub fn pass(&mut self, time: TimeDelta) {
        let grains = (time.num_milliseconds() / GRAIN.num_milliseconds()).max(1);
        self.now += GRAIN * i32::try_from(grains).unwrap();
        self.end_processes();
        let expired = self.etcd.leases.iter().filter(|(_, until)| **until <= self.now);
        let expired: Vec<i64> = expired.map(|(lease, _)| *lease).collect();
        for lease in expired {
            // etcd looks at its leases every half a second, and after an election later.
            if self.quiet || self.random.percent(40) {
                self.tell(|_| format!("lease {lease} ends in etcd"));
                self.etcd.end_lease(lease);
            }
        }
        for node in 0..self.nodes.len() {
            self.keep_lease(node);
            self.leave_in_time(node);
        }
        self.give_up_waiting();
    }

    fn end_processes(&mut self) {
        let guarded = self.conditions.mutation != Some(Mutation::NoGuard);
        for index in 0..self.processes.len() {
            let process = &self.processes[index];
            if !process.alive {
                continue;
            }
            let node = &self.nodes[process.node];
            let past = |at: &DateTime<Utc>| *at <= self.now;
            let alone = process.live.value.continues_secs.is_none() && guarded;
            let frozen = node.certain_until().filter(|_| alone).filter(past);
            let timed_out = process.times_out.filter(past);
            for (at, cause) in [(frozen, Cause::Guard), (timed_out, Cause::TimeOut)] {
                if let Some(at) = at {
                    self.end_process(index, at, cause);
                }
            }
            let process = &mut self.processes[index];
            let gone = process.dies.map_or(process.ends, |(dies, _)| dies.min(process.ends));
            if gone <= self.now {
                process.alive = false;
                let run = process.live.run;
                self.tell(|w| format!("the process of {} is gone", w.name(run)));
            }
        }
    }

    /// A process is told to end at this instant: it takes as long as its grace at most.
    pub fn end_process(&mut self, index: usize, at: DateTime<Utc>, cause: Cause) {
        let process = &mut self.processes[index];
        if process.dies.is_none() {
            let millis = self.random.between(0, process.grace.num_milliseconds());
            process.dies = Some((at + TimeDelta::milliseconds(millis), cause));
        }
    }

    pub fn send(&mut self, node: usize, steps: Vec<Step>, cargo: Cargo) {
        let (life, sent) = (self.nodes[node].life, self.now);
        self.tell(|w| {
            let words: Vec<_> = steps.iter().map(|step| w.words(step)).collect();
            format!("w{node} sends:{}", words.join(" |"))
        });
        self.flights.push(Flight { node, life, sent, steps, cargo, answers: None });
    }

    /// etcd takes in what travels there.
    fn arrive(&mut self, index: usize) {
        let steps = std::mem::take(&mut self.flights[index].steps);
        let verdicts = self.etcd.judge(&steps);
        for (step, refusal) in steps.iter().zip(&verdicts) {
            if refusal.is_none() {
                self.audit.commit(&self.etcd, step, self.now);
            }
        }
        let answers = self.etcd.carry_out(&steps, &verdicts);
        self.tell(|w| {
            let words = steps.iter().map(|step| w.words(step)).zip(&answers);
            let words: Vec<_> =
                words.map(|(words, answer)| format!("{words} {answer:?}")).collect();
            format!("etcd answers w{}:{}", w.flights[index].node, words.join(" |"))
        });
        self.flights[index].steps = steps;
        self.flights[index].answers = Some(answers);
    }

    /// One thing happens to something that is on its way. Returns whether anything did.
    fn fly(&mut self, index: usize) -> bool {
        let Some(flight) = self.flights.get(index) else { return false };
        let node = &self.nodes[flight.node];
        let nobody = matches!(flight.cargo, Cargo::Nothing);
        let listens = node.mind.is_some() && node.life == flight.life && !nobody;
        if flight.answers.is_some() {
            if listens && node.paused {
                return false;
            }
            let linked = node.linked;
            let flight = self.flights.swap_remove(index);
            if listens {
                let lost = !linked || !self.quiet && self.random.percent(8);
                self.take_answers(flight, lost);
            }
            return true;
        }
        // What nobody waits for any more may have been on its way when the link was cut.
        if !node.linked && !nobody {
            return false;
        }
        if !self.quiet && self.random.percent(2) && listens && !node.paused {
            // A definite refusal, before anything was done.
            let flight = self.flights.swap_remove(index);
            self.refuse_answers(flight);
            return true;
        }
        self.arrive(index);
        if !self.quiet && self.random.percent(6) {
            // It arrives once more, and what is answered then is what the worker hears.
            self.flights[index].answers = None;
        } else if !self.quiet && self.random.percent(3) {
            let flight = &self.flights[index];
            let (node, life, sent) = (flight.node, flight.life, flight.sent);
            let steps = flight.steps.clone();
            let again = Flight { node, life, sent, steps, cargo: Cargo::Nothing, answers: None };
            self.flights.push(again);
        }
        true
    }

    /// Workers do not wait for ever.
    fn give_up_waiting(&mut self) {
        let mut index = 0;
        while index < self.flights.len() {
            let flight = &self.flights[index];
            let node = &self.nodes[flight.node];
            let late = self.now - flight.sent > TimeDelta::seconds(5);
            let gone = node.life != flight.life || node.mind.is_none();
            let nobody = matches!(flight.cargo, Cargo::Nothing);
            if nobody || !(late || gone) || !gone && node.paused {
                index += 1;
                continue;
            }
            let may_arrive = flight.answers.is_none() && self.random.percent(60);
            let flight = self.flights.swap_remove(index);
            if may_arrive {
                let steps = flight.steps.clone();
                self.flights.push(Flight { steps, cargo: Cargo::Nothing, answers: None, ..flight });
            }
            if !gone {
                self.take_answers(flight, true);
            }
        }
    }

    fn run(&mut self) {
        while self.events < self.conditions.events && self.audit.broken.is_none() {
            self.happen();
        }
        if self.conditions.comes_to_rest && self.audit.broken.is_none() {
            self.come_to_rest();
        }
    }

    /// One event.
    fn happen(&mut self) {
        self.events += 1;
        self.pass(GRAIN);
        let node = self.random.below(self.nodes.len());
        match self.random.below(100) {
            0..26 => drop(self.deliver(node)),
            26..48 => {
                let index = self.random.below(self.flights.len());
                self.fly(index);
            }
            48..58 => drop(self.see_through(node)),
            58..66 => drop(self.hear_of_runs(node)),
            66..74 => self.turn(node),
            74..94 => {
                let millis = match self.random.below(10) {
                    0..6 => self.random.between(30, 400),
                    6..9 => self.random.between(400, 2_000),
                    _ => self.random.between(2_000, 3_300),
                };
                self.pass(TimeDelta::milliseconds(millis));
            }
            94..97 => match self.conditions.often {
                Often::Freezing if self.random.percent(70) => self.freeze(node),
                Often::Unregistering if self.random.percent(70) => self.lose_registration(node),
                _ => self.fail(node),
            },
            _ => match self.conditions.often {
                Often::Asking if self.random.percent(70) => self.ask_for_any_run(),
                _ => self.operate(),
            },
        }
    }

    fn freeze(&mut self, node: usize) {
        self.nodes[node].paused = true;
        self.tell(|_| format!("w{node} is frozen"));
        let others = self.nodes.len() - 1;
        if others > 0 && self.random.percent(60) {
            let other = node + 1 + self.random.below(others);
            self.resume(other % (others + 1));
        }
    }

    /// Something fails, or is well again.
    fn fail(&mut self, node: usize) {
        match self.random.below(20) {
            0..3 if self.nodes[node].mind.is_some() => self.crash(node),
            0..6 if self.nodes[node].mind.is_none() => self.start(node),
            3..6 => {
                self.nodes[node].paused = true;
                self.tell(|_| format!("w{node} is paused"));
            }
            6..9 => self.resume(node),
            9..11 => {
                self.nodes[node].linked = false;
                self.tell(|_| format!("w{node} is cut off"));
            }
            11..15 => {
                self.nodes[node].linked = true;
                self.tell(|_| format!("w{node} is in touch"));
            }
            15 => self.set_clock(node),
            16 => {
                self.etcd.compact();
                self.tell(|_| "etcd is compacted".to_owned());
            }
            17 => self.stop(node),
            18 => self.lose_registration(node),
            _ => {
                for node in &mut self.nodes {
                    node.linked = true;
                }
                (0..self.nodes.len()).for_each(|node| self.resume(node));
            }
        }
    }

    /// Nothing fails any more, and after a while everything is decided and settled.
    fn come_to_rest(&mut self) {
        self.quiet = true;
        self.conditions.skew = 100;
        self.tell(|_| "all is well from now on".to_owned());
        self.clear_the_way();
        self.let_go_on();
        for node in 0..self.nodes.len() {
            self.nodes[node].linked = true;
            self.resume(node);
            self.set_clock(node);
            if self.nodes[node].mind.is_none() {
                self.start(node);
            }
        }
        self.settle_down(self.now + QUIET[0]);
        self.all_is_decided();
        self.pause_all();
        self.settle_down(self.now + QUIET[1]);
        self.nothing_is_left();
    }

    fn settle_down(&mut self, until: DateTime<Utc>) {
        while self.now < until && self.audit.broken.is_none() {
            self.events += 1;
            let mut busy = false;
            for node in 0..self.nodes.len() {
                busy |= self.deliver(node);
                busy |= self.see_through(node);
                busy |= self.hear_of_runs(node);
                self.turn(node);
                if self.nodes[node].mind.is_none() {
                    self.start(node);
                }
            }
            while self.fly(0) {
                busy = true;
            }
            if !busy {
                let next = self.next_event().min(until);
                self.pass(next - self.now);
            }
        }
    }

    /// When something is due next by itself.
    fn next_event(&mut self) -> DateTime<Utc> {
        let mut next = self.now + TimeDelta::seconds(2);
        for process in self.processes.iter().filter(|process| process.alive) {
            let ends = process.dies.map_or(process.ends, |(dies, _)| dies.min(process.ends));
            next = next.min(process.times_out.map_or(ends, |at| at.min(ends)));
        }
        let now = self.now;
        for node in &mut self.nodes {
            next = next.min(node.next(now));
        }
        next.max(self.now + GRAIN)
    }

    /// Every slot that is past its time is decided.
    fn all_is_decided(&mut self) {
        use carillon_core::decide::{Cursor, due_at};
        use carillon_core::job::{CatchUp, JobEntry, Scope};
        let jobs: Vec<JobName> = self.jobs.keys().cloned().collect();
        for job in jobs {
            let Some(kv) = self.etcd.get(&self.keys.job(&job)) else { continue };
            let entry = JobEntry::read(job.clone(), &kv.value, kv.modified, kv.created);
            let Ok(checked) = &entry.state else { continue };
            let every = checked.job.scope == Scope::EveryWorker;
            // One that is caught up waits for the one before it, or for room, as long as that takes.
            if !checked.job.enabled || checked.job.catch_up != CatchUp::None {
                continue;
            }
            let places = match every {
                false => vec![None],
                true => {
                    let selected = self.nodes.iter().filter(|n| checked.job.selects(&n.me.labels));
                    selected.map(|node| Some(node.me.id.clone())).collect()
                }
            };
            for on in places {
                let cursor = self.etcd.get(&self.keys.cursor(&job, on.as_ref()));
                let cursor = cursor.map(|kv| serde_json::from_slice::<Cursor>(&kv.value).unwrap());
                let Some(cursor) = cursor.filter(|cursor| cursor.rev == entry.mod_revision) else {
                    self.audit.breaks(format!("{job}: nobody follows it"));
                    continue;
                };
                let zone = cursor.zone.parse().unwrap();
                let next = checked.schedule.next_after(zone, cursor.through).unwrap();
                let decided_by = due_at(checked, next)
                    + checked.job.start_deadline()
                    + TimeDelta::seconds(self.conditions.max_skew)
                    + TimeDelta::seconds(5);
                if decided_by < self.now {
                    self.audit.breaks(format!("{job}: nobody decides the slot {next}"));
                }
            }
        }
    }

    /// What was begun is settled, and nothing of it is left in etcd.
    fn nothing_is_left(&mut self) {
        let ours = ["running/", "trigger/", "done/"];
        let steps = self.etcd.kvs.keys().cloned().map(Write::Delete).collect();
        let all = Step { job: JobName::new("all").unwrap(), when: Vec::new(), then: steps };
        self.tell(|w| format!("in the end:{}", w.words(&all).replace(" -", " ")));
        let left: BTreeSet<&str> = self
            .etcd
            .kvs
            .keys()
            .filter_map(|key| key.strip_prefix("/cron/"))
            .filter(|key| {
                let of_run = key.starts_with("killer/") && key.matches('/').count() == 2;
                of_run || ours.iter().any(|folder| key.starts_with(folder))
            })
            // The rest of the key is different each time.
            .map(|key| key.rsplit_once('/').map_or(key, |(folder, _)| folder))
            .collect();
        if !left.is_empty() {
            let left = left.into_iter().collect::<Vec<_>>().join(", ");
            self.audit.breaks(format!("left in etcd: {left}"));
        }
        self.audit.close();
    }
}
