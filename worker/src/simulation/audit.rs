//! What must hold whatever happens: looked at with every transaction that etcd carries out and with
//! every process that starts. It knows the true state and the true time, and none of the code that
//! it judges but the schedules' one step forward.

use std::collections::{BTreeMap, BTreeSet};

use carillon_core::decide::Cursor;
use carillon_core::fleet::FleetSettings;
use carillon_core::id::{JobName, RunId, Slot, WorkerId};
use carillon_core::job::{Concurrency, JobEntry};
use carillon_core::keys::{Key, Keys};
use carillon_core::run::{LiveRun, Outcome, RunRecord, Running, Trigger, TriggerRequest};
use carillon_core::schedule::Schedule;
use carillon_core::steps::{Refusal, Step, Write};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::de::DeserializeOwned;

use super::etcd::Etcd;
use super::world::Process;

/// A slot of one incarnation of a job, on one worker where the job runs on every worker.
type Place = (JobName, i64, Option<WorkerId>, Slot);

/// A claimed run.
struct Claimed {
    place: (JobName, Option<WorkerId>),
    concurrency: Concurrency,
    fence: i64,
    started: bool,
}

/// The judge of one world.
pub(super) struct Audit {
    keys: Keys,
    claimed: BTreeMap<RunId, Claimed>,
    /// Slots that the cursor has passed.
    decided: BTreeSet<Place>,
    /// Which run or decision each attempt at a slot was.
    attempts: BTreeMap<(Place, u32), RunId>,
    /// What became of each decision.
    finals: BTreeMap<RunId, Outcome>,
    /// What MongoDB was told of each.
    recorded: BTreeMap<RunId, Outcome>,
    /// Leases whose registration somebody deleted by hand.
    pub by_hand: BTreeSet<i64>,
    /// When each revision of a job was written, by the true time.
    pub written: BTreeMap<i64, DateTime<Utc>>,
    /// How far a clock may be from the true time.
    pub apart: TimeDelta,
    /// What was found to be broken first.
    pub broken: Option<String>,
}

fn decoded<T: DeserializeOwned>(value: &[u8]) -> T {
    serde_json::from_slice(value).unwrap()
}

impl Audit {
    pub fn new(keys: Keys, apart: TimeDelta) -> Self {
        Self {
            keys,
            claimed: BTreeMap::new(),
            decided: BTreeSet::new(),
            attempts: BTreeMap::new(),
            finals: BTreeMap::new(),
            recorded: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            written: BTreeMap::new(),
            apart,
            broken: None,
        }
    }

    pub fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// How many decisions were made.
    pub fn decisions(&self) -> usize {
        self.finals.len()
    }

    fn job(&self, etcd: &Etcd, job: &JobName) -> Option<JobEntry> {
        let kv = etcd.get(&self.keys.job(job))?;
        Some(JobEntry::read(job.clone(), &kv.value, kv.modified, kv.created))
    }

    fn settings(&self, etcd: &Etcd) -> FleetSettings {
        etcd.get(&self.keys.settings()).map(|kv| decoded(&kv.value)).unwrap_or_default()
    }

    /// The step is carried out on what `etcd` holds now, and makes it this revision.
    pub fn commit(&mut self, etcd: &Etcd, step: &Step, now: DateTime<Utc>) {
        let mut records = Vec::new();
        let (mut cursor, mut begun, mut ended) = (None, None, None);
        for write in &step.then {
            match write {
                Write::Put(key, value) => match self.keys.parse(key.as_bytes()) {
                    Key::Cursor(_, on) => cursor = Some((on, decoded::<Cursor>(value))),
                    Key::Running(job, on, run) if etcd.get(key).is_none() => {
                        let value = decoded::<Running>(value);
                        let fence = etcd.revision + 1;
                        begun = Some(LiveRun { job, on, run, fence, value });
                    }
                    Key::Done(..) => records.push(decoded::<RunRecord>(value)),
                    Key::Trigger(..) => self.may_follow(etcd, step, &decoded(value)),
                    _ => {}
                },
                Write::Delete(key) => {
                    if let Key::Running(_, on, run) = self.keys.parse(key.as_bytes()) {
                        ended =
                            Some((on, run, etcd.get(key).map(|kv| decoded::<Running>(&kv.value))));
                    }
                }
            }
        }
        for record in &records {
            self.settle(etcd, step, record);
        }
        if let Some((_, run, Some(_))) = &ended
            && !records.iter().any(|record| record.id == *run)
        {
            self.breaks(format!("the run of {} vanished without a record", step.job));
        }
        if let Some((on, cursor)) = &cursor {
            let by = (begun.as_ref(), records.first());
            self.moves(etcd, (&step.job, on.as_ref()), cursor, by, now);
        }
        if let Some(live) = begun {
            self.begin(etcd, step, live, cursor.is_some());
        }
    }

    /// Another attempt is asked for by the end of a run.
    fn may_follow(&mut self, etcd: &Etcd, step: &Step, request: &TriggerRequest) {
        let run = step.then.iter().find_map(|write| match write {
            Write::Delete(key) => match self.keys.parse(key.as_bytes()) {
                Key::Running(_, _, run) => Some(run),
                _ => None,
            },
            Write::Put(..) => None,
        });
        let Some(run) = run else { return };
        let fence = self.claimed.get(&run).map_or(0, |claimed| claimed.fence);
        let of_job = etcd.get(&self.keys.kill_job(&step.job)).is_some_and(|kv| kv.modified > fence);
        if of_job || etcd.get(&self.keys.kill_run(&step.job, run)).is_some() {
            self.breaks(format!(
                "attempt {} of {} follows a run that was to be killed",
                request.attempt, step.job
            ));
        }
    }

    /// One decision is made.
    fn settle(&mut self, etcd: &Etcd, step: &Step, record: &RunRecord) {
        let job = &step.job;
        if let Some(before) = self.finals.insert(record.id, record.outcome) {
            self.breaks(format!("{job}: decided twice: {before}, then {}", record.outcome));
        }
        let by_survivor = step.when.iter().find(|p| p.refusal == Refusal::WorkerAlive);
        if let Some(alive) = by_survivor {
            let lease = etcd.get(&alive.key).map_or(0, |kv| kv.lease);
            if alive.test == carillon_core::steps::Test::LeaseIsNot(lease) {
                self.breaks(format!("{job}: settled as lost while {} is alive", record.worker));
            }
        }
        if let Some(because) = record.err.strip_prefix("the run ")
            && let Some(because) = because.strip_suffix(" was still live")
            && !etcd.range(&self.keys.running_of(job, None)).any(|(key, _)| key.ends_with(because))
        {
            self.breaks(format!("{job}: skipped because of a run that is over"));
        }
        // Attempts that were never claimed: a retry that is settled.
        if matches!(record.trigger, Trigger::Retry | Trigger::Rerun)
            && !self.claimed.contains_key(&record.id)
        {
            let request = etcd.get(&self.keys.trigger(job, record.id));
            if let Some(request) = request.map(|kv| decoded::<TriggerRequest>(&kv.value)) {
                let place = (job.clone(), request.job_created, request.on, request.slot);
                self.attempt(place, request.attempt, record.id);
            }
        }
    }

    fn attempt(
        &mut self,
        (job, created, on, slot): (JobName, i64, Option<WorkerId>, Option<Slot>),
        attempt: u32,
        id: RunId,
    ) {
        let Some(slot) = slot else { return };
        let said = format!("{job}: two decisions about attempt {attempt} at {slot}");
        let before = self.attempts.insert(((job, created, on, slot), attempt), id);
        if before.is_some_and(|before| before != id) {
            self.breaks(said);
        }
    }

    /// A run's key is made.
    fn begin(&mut self, etcd: &Etcd, step: &Step, live: LiveRun, scheduled: bool) {
        let LiveRun { job, on, run, fence, value } = live;
        let Some(entry) = self.job(etcd, &job) else {
            return self.breaks(format!("{job}: claimed although it is deleted"));
        };
        let Some(now) = entry.job() else {
            return self.breaks(format!("{job}: claimed although it is broken"));
        };
        if self.settings(etcd).frozen {
            self.breaks(format!("{job}: claimed although the fleet is frozen"));
        }
        if entry.mod_revision != value.job_revision {
            self.breaks(format!("{job}: claimed as it was before it was edited"));
        }
        if scheduled {
            if !now.enabled {
                self.breaks(format!("{job}: its schedule fires although it is paused"));
            }
        } else {
            match etcd.get(&self.keys.trigger(&job, run)) {
                None => self.breaks(format!("{job}: a trigger is taken that is gone")),
                Some(kv) => {
                    let request = decoded::<TriggerRequest>(&kv.value);
                    if request.job_created != entry.create_revision {
                        self.breaks(format!("{job}: a trigger of an earlier incarnation runs"));
                    }
                }
            }
        }
        let range = self.keys.running_of(&job, on.as_ref());
        if now.concurrency == Concurrency::Forbid && etcd.range(&range).next().is_some() {
            self.breaks(format!("{job}: two live runs under forbid"));
        }
        let spared = |key: &str| {
            let Key::Running(job, _, live) = self.keys.parse(key.as_bytes()) else { return false };
            let kill = self.keys.kill_run(&job, live);
            !step.then.iter().any(|write| matches!(write, Write::Put(key, _) if *key == kill))
        };
        if now.concurrency == Concurrency::Replace && etcd.range(&range).any(|(key, _)| spared(key))
        {
            self.breaks(format!("{job}: a run is replaced that nobody kills"));
        }
        let place = (job.clone(), entry.create_revision, on.clone(), value.slot);
        self.attempt(place, value.attempt, run);
        let claimed =
            Claimed { place: (job, on), concurrency: now.concurrency, fence, started: false };
        if self.claimed.insert(run, claimed).is_some() {
            self.breaks("a run is claimed twice".to_owned());
        }
    }

    /// The cursor moves, and each slot that it passes must be decided by the same step.
    fn moves(
        &mut self,
        etcd: &Etcd,
        (job, on): (&JobName, Option<&WorkerId>),
        new: &Cursor,
        (begun, record): (Option<&LiveRun>, Option<&RunRecord>),
        now: DateTime<Utc>,
    ) {
        let Some(entry) = self.job(etcd, job) else {
            return self.breaks(format!("{job}: its cursor moves although it is deleted"));
        };
        if new.rev != entry.mod_revision {
            self.breaks(format!("{job}: its cursor follows what it was before it was edited"));
        }
        let own_zone = entry.job().and_then(|job| job.timezone.clone());
        let zone = own_zone.or(self.settings(etcd).default_timezone).unwrap_or("UTC".to_owned());
        if new.zone != zone {
            self.breaks(format!("{job}: decided in the zone {}, which is {zone}", new.zone));
        }
        let old = etcd.get(&self.keys.cursor(job, on)).map(|kv| decoded::<Cursor>(&kv.value));
        self.starts_anew(&entry, old.as_ref(), new, now);
        let Some(old) = old else {
            if begun.is_some() || record.is_some() {
                self.breaks(format!("{job}: something is decided without a cursor"));
            }
            return;
        };
        if new.through < old.through {
            self.breaks(format!("{job}: its cursor moves backwards"));
        }
        let recreated = entry.create_revision > old.rev;
        let same = (&old.expr, &old.zone, old.anchor, old.enabled)
            == (&new.expr, &new.zone, new.anchor, new.enabled);
        if old.rev != new.rev && same && !recreated && old.through != new.through {
            self.breaks(format!("{job}: a change that concerns no slot moves its cursor"));
        }
        let passed = match old.enabled && !recreated {
            true => slots(job, &old, new.through),
            false => Vec::new(),
        };
        let settled = match (begun, record) {
            (Some(live), None) => live.value.slot.map(|slot| (slot.instant(), slot.instant(), 1)),
            (None, Some(record)) => record.scheduled_time.map(|from| {
                let count = record.count.map_or(1, |count| usize::try_from(count).unwrap());
                (from, record.to_slot.unwrap_or(from), count)
            }),
            _ => None,
        };
        let owed = passed.first().zip(passed.last()).map(|(a, b)| (*a, *b, passed.len()));
        if settled != owed {
            self.breaks(format!("{job}: passes the slots {owed:?} and settles {settled:?}"));
        }
        for slot in passed {
            let place = (job.clone(), entry.create_revision, on.cloned(), Slot::at(slot));
            if !self.decided.insert(place) {
                self.breaks(format!("{job}: the slot {slot} is decided twice"));
            }
        }
    }

    /// A change of the schedule owes nothing of the past, and skips nothing that is to come.
    fn starts_anew(
        &mut self,
        entry: &JobEntry,
        old: Option<&Cursor>,
        new: &Cursor,
        now: DateTime<Utc>,
    ) {
        let Some(written) = self.written.get(&entry.mod_revision) else { return };
        let same = old.is_some_and(|old| {
            (&old.expr, &old.zone, old.anchor, old.enabled)
                == (&new.expr, &new.zone, new.anchor, new.enabled)
                && entry.create_revision <= old.rev
        });
        if same {
            return;
        }
        // What another tool has copied is believed where no cursor knows it.
        let says = entry.job().and_then(|job| job.updated_at);
        let known = old.is_some_and(|old| old.updated_at == says);
        if (known || says.is_none_or(|says| says == *written))
            && new.through < *written - self.apart
        {
            self.breaks(format!("{}: slots from before the change of its schedule", entry.name));
        }
        let ahead = old.is_some_and(|old| old.through == new.through);
        if new.through > now + self.apart && !ahead {
            self.breaks(format!("{}: slots are passed that are still to come", entry.name));
        }
    }

    /// A process starts, beside those that are alive.
    pub fn starts<'a>(
        &mut self,
        etcd: &Etcd,
        live: &LiveRun,
        alive: impl Iterator<Item = &'a Process>,
    ) {
        let job = &live.job;
        let standing = etcd.get(&self.keys.running_key(live));
        if standing.is_none_or(|kv| kv.created != live.fence)
            && !self.by_hand.contains(&live.value.lease)
        {
            self.breaks(format!("{job}: a process starts for a run that is settled"));
        }
        let Some(claimed) = self.claimed.get_mut(&live.run) else {
            return self.breaks(format!("{job}: a process starts for a run that nobody claimed"));
        };
        if std::mem::replace(&mut claimed.started, true) {
            return self.breaks(format!("{job}: two processes of one run"));
        }
        if claimed.concurrency == Concurrency::Allow {
            return;
        }
        let (place, policy) = (claimed.place.clone(), claimed.concurrency);
        for other in alive {
            let of_range = other.live.job == place.0
                && (place.1.is_none() || place.1 == other.live.on)
                && other.live.fence < live.fence;
            if of_range && !self.by_hand.contains(&other.live.value.lease) {
                self.breaks(format!("{job}: two processes at once under {policy:?}"));
            }
        }
    }

    /// MongoDB is told what became of a decision.
    pub fn record(&mut self, record: &RunRecord) {
        let before = self.recorded.insert(record.id, record.outcome);
        if before.is_some_and(|before| before != record.outcome) {
            self.breaks(format!("{}: two records of one decision", record.job_name));
        }
        if self.finals.get(&record.id) != Some(&record.outcome) {
            self.breaks(format!("{}: a record of what was not decided", record.job_name));
        }
    }

    /// At the end: everything that was decided has its record, and everything claimed its end.
    pub fn close(&mut self) {
        if self.claimed.keys().any(|run| !self.finals.contains_key(run)) {
            self.breaks("a run was claimed and never settled".to_owned());
        }
        if self.finals.keys().any(|id| !self.recorded.contains_key(id)) {
            self.breaks("a decision has no record".to_owned());
        }
    }
}

/// The slots that the cursor's schedule has after it up to and including `to`, one by one.
fn slots(job: &JobName, cursor: &Cursor, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let schedule = Schedule::for_job(&cursor.expr, job.as_str(), cursor.anchor).unwrap();
    let zone: Tz = cursor.zone.parse().unwrap();
    let next = |at: &DateTime<Utc>| schedule.next_after(zone, *at);
    let first = next(&cursor.through);
    std::iter::successors(first, next).take_while(|slot| *slot <= to).collect()
}
