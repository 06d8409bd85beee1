//! The ordered list of what is due: for every job the instant of its next slot. Pure: it knows no
//! clock and decides nothing; whoever holds it says what time it is.
//!
//! # When the clock is set
//!
//! Nothing here measures how much time passed: only instants are compared.
//!
//! - A step *backwards* makes nothing due again. What was popped is off the list until its owner
//!   says from which slot it goes on; what is on it waits until the clock shows its instant.
//! - A jump *forwards* makes everything that it passed due at once. It is popped in the order of
//!   its instants, each job once however many of its slots were passed; the owner settles those by
//!   arithmetic ([`Schedule::slots_between`](crate::schedule::Schedule::slots_between)).
//!
//! # Cost
//!
//! A job takes 8 bytes, and 8 more while it waits, beside its key; a plan takes 64, and some 16
//! around it, however many jobs share it. An operation on one job takes about the same time among
//! ten as among ten million, spread over many of them: now and then one clears up after the others.

mod plans;
mod wheel;

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::Plan;
pub use plans::PlanId;
use plans::Plans;
use wheel::{Entry, Wheel};

/// A job's place on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u32);

/// A job whose slot is due.
#[derive(Debug, PartialEq, Eq)]
pub struct Due<'a, K> {
    /// The job's place: it waits for nothing until [`Timetable::renew`] or
    /// [`Timetable::replace`].
    pub ticket: Ticket,
    /// The job.
    pub key: &'a K,
    /// The instant at which it was due: its slot and its spread.
    pub at: DateTime<Utc>,
}

/// The second of a job that waits for nothing: after every instant of a schedule.
const NEVER: u32 = u32::MAX;
/// Outdated entries that are always tolerated in the queue; beyond, as many as there are jobs.
const TOLERATED: usize = 1024;
/// Answers that are remembered, so that jobs on one plan do not ask it one by one.
const REMEMBERED: usize = 1024;

/// Jobs by the instant of their next slot.
///
/// A job is on a [`Plan`], which many may share, and waits for the first slot after the one up to
/// which it is decided.
#[derive(Debug, Clone)]
pub struct Timetable<K> {
    places: Vec<Place>,
    keys: Vec<Option<K>>,
    free: Vec<u32>,
    plans: Plans,
    queue: Wheel,
    /// How many jobs wait.
    waiting: usize,
    memory: Vec<Answer>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    /// The second that it waits for. An entry of the queue counts while it agrees.
    at: u32,
    plan: u32,
}

/// When the first slot of a plan after `through` is due.
#[derive(Debug, Clone, Copy)]
struct Answer {
    plan: u32,
    through: i64,
    at: u32,
}

const NOTHING: Answer = Answer { plan: u32::MAX, through: 0, at: NEVER };

impl<K> Default for Timetable<K> {
    fn default() -> Self {
        Self::with_capacity(0, 0)
    }
}

impl<K> Timetable<K> {
    /// An empty list with room for so many jobs on so many plans.
    #[must_use]
    pub fn with_capacity(jobs: usize, plans: usize) -> Self {
        Self {
            places: Vec::with_capacity(jobs),
            keys: Vec::with_capacity(jobs),
            free: Vec::new(),
            plans: Plans::with_capacity(plans),
            queue: Wheel::default(),
            waiting: 0,
            memory: vec![NOTHING; REMEMBERED],
        }
    }

    /// The place of a plan on this list, the same for equal plans.
    pub fn plan(&mut self, plan: &Plan) -> PlanId {
        let id = self.plans.intern(plan);
        let number = id.number();
        // What is remembered of a number may be of a plan that had it before.
        if self.plans.jobs(number) == 0
            && let Some(answer) = self.memory.get_mut(number as usize % REMEMBERED)
        {
            *answer = NOTHING;
        }
        id
    }

    /// The same plan for one more job.
    pub fn share(&mut self, plan: &PlanId) -> PlanId {
        self.plans.share(plan)
    }

    /// Gives back a plan that no job was put on.
    pub fn give_back(&mut self, plan: PlanId) {
        self.plans.give_back(plan);
    }

    /// Puts a job on the list; it waits for the first slot of its plan after `through`.
    pub fn insert(&mut self, key: K, plan: PlanId, through: DateTime<Utc>) -> Ticket {
        let place = Place { at: NEVER, plan: self.plans.enter(plan) };
        let free = self.free.pop().and_then(|ticket| {
            let index = ticket as usize;
            Some((ticket, self.places.get_mut(index)?, self.keys.get_mut(index)?))
        });
        let ticket = match free {
            Some((ticket, free_place, free_key)) => {
                (*free_place, *free_key) = (place, Some(key));
                ticket
            }
            None => {
                self.places.push(place);
                self.keys.push(Some(key));
                (self.places.len() - 1) as u32
            }
        };
        self.wait(ticket, place.plan, through);
        Ticket(ticket)
    }

    /// Puts a job on another plan.
    pub fn replace(&mut self, ticket: Ticket, plan: PlanId, through: DateTime<Utc>) {
        let known = self.get(ticket).is_some();
        let Some(place) = self.places.get_mut(ticket.0 as usize).filter(|_| known) else {
            return self.plans.give_back(plan);
        };
        let plan = self.plans.enter(plan);
        let old = std::mem::replace(&mut place.plan, plan);
        self.plans.leave(old);
        self.wait(ticket.0, plan, through);
    }

    /// Makes a job wait for the first slot of its plan after `through`.
    pub fn renew(&mut self, ticket: Ticket, through: DateTime<Utc>) {
        if self.get(ticket).is_some()
            && let Some(place) = self.places.get(ticket.0 as usize)
        {
            self.wait(ticket.0, place.plan, through);
        }
    }

    /// Takes a job off the list.
    pub fn remove(&mut self, ticket: Ticket) -> Option<K> {
        let key = self.keys.get_mut(ticket.0 as usize)?.take()?;
        let place = self.places.get_mut(ticket.0 as usize)?;
        if std::mem::replace(&mut place.at, NEVER) != NEVER {
            self.waiting -= 1;
        }
        self.plans.leave(place.plan);
        self.free.push(ticket.0);
        self.tidy();
        Some(key)
    }

    /// The job at a place.
    #[must_use]
    pub fn get(&self, ticket: Ticket) -> Option<&K> {
        self.keys.get(ticket.0 as usize)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut K> {
        self.keys.get_mut(ticket.0 as usize)?.as_mut()
    }

    /// The instant that a job waits for.
    #[must_use]
    pub fn waits_for(&self, ticket: Ticket) -> Option<DateTime<Utc>> {
        instant(self.places.get(ticket.0 as usize)?.at)
    }

    /// The earliest instant that any job waits for.
    pub fn peek(&mut self) -> Option<DateTime<Utc>> {
        let places = &self.places;
        instant(self.queue.peek(|entry| counts(places, entry))?.at)
    }

    /// Takes the first job that is due at `now` or before. Called until it returns none, it yields
    /// everything due, in the order of the instants.
    pub fn pop_due(&mut self, now: DateTime<Utc>) -> Option<Due<'_, K>> {
        let now = u32::try_from(now.timestamp().clamp(0, i64::from(NEVER) - 1)).ok()?;
        let places = &self.places;
        let entry = self.queue.pop(now, |entry| counts(places, entry))?;
        self.places.get_mut(entry.ticket as usize)?.at = NEVER;
        self.waiting -= 1;
        let key = self.keys.get(entry.ticket as usize)?.as_ref()?;
        Some(Due { ticket: Ticket(entry.ticket), key, at: instant(entry.at)? })
    }

    /// How many slots of all jobs are due in `(after, through]`. Takes as long as there are plans.
    #[must_use]
    pub fn count_between(&self, after: DateTime<Utc>, through: DateTime<Utc>) -> u64 {
        let (after, through) = (after.timestamp(), through.timestamp());
        self.plans.used().map(|(plan, jobs)| jobs * plan.count_due(after, through)).sum()
    }

    /// How many slots of all jobs are due in each of so many steps, the first of which begins at
    /// `from` and does not hold it. A step is at least a second.
    #[must_use]
    pub fn forecast(&self, from: DateTime<Utc>, step: TimeDelta, steps: usize) -> Vec<u64> {
        let mut counts = vec![0; steps];
        let (from, step) = (from.timestamp(), step.num_seconds().max(1));
        for (plan, jobs) in self.plans.used() {
            plan.count_steps(from, step, &mut counts, jobs);
        }
        counts
    }

    /// How many jobs are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether no job is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many distinct plans the jobs are on.
    #[must_use]
    pub fn plans(&self) -> usize {
        self.plans.len()
    }

    fn wait(&mut self, ticket: u32, plan: u32, through: DateTime<Utc>) {
        let at = self.next_due(plan, through.timestamp());
        let Some(place) = self.places.get_mut(ticket as usize) else { return };
        let before = std::mem::replace(&mut place.at, at);
        if before == at {
            return;
        }
        self.waiting += usize::from(before == NEVER);
        if at == NEVER {
            self.waiting -= 1;
        } else {
            let begin = u32::try_from(through.timestamp().max(0)).unwrap_or(NEVER);
            self.queue.begin_at(begin.min(at));
            self.queue.push(Entry { at, ticket });
        }
        self.tidy();
    }

    fn next_due(&mut self, number: u32, through: i64) -> u32 {
        let Some(plan) = self.plans.get(number) else { return NEVER };
        let ask = || plan.next_due(through).and_then(|at| u32::try_from(at).ok()).unwrap_or(NEVER);
        if self.plans.jobs(number) < 2 {
            return ask();
        }
        match self.memory.get_mut(number as usize % REMEMBERED) {
            Some(answer) if (answer.plan, answer.through) == (number, through) => answer.at,
            Some(answer) => {
                *answer = Answer { plan: number, through, at: ask() };
                answer.at
            }
            None => ask(),
        }
    }

    /// Makes the queue anew when more of it is outdated than not.
    fn tidy(&mut self) {
        if self.queue.len() <= 2 * self.waiting + TOLERATED {
            return;
        }
        self.queue = Wheel::default();
        for (ticket, place) in (0..).zip(&self.places) {
            if place.at != NEVER {
                self.queue.push(Entry { at: place.at, ticket });
            }
        }
    }
}

fn counts(places: &[Place], entry: Entry) -> bool {
    places.get(entry.ticket as usize).is_some_and(|place| place.at == entry.at)
}

fn instant(at: u32) -> Option<DateTime<Utc>> {
    (at != NEVER).then(|| DateTime::from_timestamp(at.into(), 0)).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::Schedule;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn plan(expr: &str, spread: u32) -> Plan {
        Plan::new(&Schedule::parse(expr).unwrap(), Tz::UTC, spread)
    }

    fn all_due<K: Copy>(table: &mut Timetable<K>, now: i64) -> Vec<(i64, K)> {
        std::iter::from_fn(|| table.pop_due(at(now)).map(|due| (due.at.timestamp(), *due.key)))
            .collect()
    }

    #[test]
    fn pops_in_order_and_only_what_is_due() {
        let mut table = Timetable::default();
        for (key, expr, spread) in [
            ("d", "@hourly", 0),
            ("c", "* * * * *", 30),
            ("a", "* * * * *", 0),
            ("b", "* * * * *", 0),
        ] {
            let plan = table.plan(&plan(expr, spread));
            table.insert(key, plan, at(0));
        }
        assert_eq!((table.len(), table.plans()), (4, 3));
        assert_eq!(table.peek(), Some(at(60)));
        assert_eq!(all_due(&mut table, 59), []);
        assert_eq!(all_due(&mut table, 90), [(60, "a"), (60, "b"), (90, "c")]);
        assert_eq!((table.len(), table.peek()), (4, Some(at(3600))));
    }

    #[test]
    fn a_popped_job_waits_for_nothing_until_it_is_renewed() {
        let mut table = Timetable::default();
        let minutely = table.plan(&plan("* * * * *", 0));
        let ticket = table.insert("a", minutely, at(0));
        assert_eq!(all_due(&mut table, 600), [(60, "a")]);
        assert_eq!((table.peek(), table.waits_for(ticket)), (None, None));
        table.renew(ticket, at(60));
        assert_eq!(table.waits_for(ticket), Some(at(120)));
        let hourly = table.plan(&plan("@hourly", 5));
        table.replace(ticket, hourly, at(60));
        assert_eq!(table.peek(), Some(at(3605)));
        assert_eq!(table.get(ticket), Some(&"a"));
        assert_eq!(table.remove(ticket), Some("a"));
        assert_eq!((table.get(ticket), table.waits_for(ticket)), (None, None));
        assert_eq!(table.remove(ticket), None);
        assert_eq!((table.len(), table.plans(), table.peek()), (0, 0, None));
    }

    #[test]
    fn a_job_whose_schedule_is_over_stays_without_waiting() {
        let mut table = Timetable::default();
        let once = table.plan(&plan("@at 1970-01-01T00:01:00Z", 0));
        let ticket = table.insert("a", once, at(0));
        assert_eq!(all_due(&mut table, 60), [(60, "a")]);
        table.renew(ticket, at(60));
        assert_eq!((table.peek(), table.len()), (None, 1));
        table.renew(ticket, at(0));
        assert_eq!(table.peek(), Some(at(60)));
    }

    #[test]
    fn a_clock_that_jumps() {
        let mut table = Timetable::default();
        let tickets = [("a", "0 1 * * *"), ("b", "30 0 * * *")].map(|(key, expr)| {
            let plan = table.plan(&plan(expr, 0));
            table.insert(key, plan, at(0))
        });
        // Forwards by a week: each once, the oldest first.
        assert_eq!(all_due(&mut table, 7 * 86_400), [(1800, "b"), (3600, "a")]);
        // Backwards: nothing again, and what comes next waits for its instant.
        for ticket in tickets {
            table.renew(ticket, at(7 * 86_400));
        }
        assert_eq!(all_due(&mut table, 3600), []);
        assert_eq!(table.peek(), Some(at(7 * 86_400 + 1800)));
    }

    #[test]
    fn plans_are_shared_and_forgotten() {
        let mut table = Timetable::default();
        let a = table.plan(&plan("0 1 * * *", 0));
        let b = table.plan(&plan("00 01 * * *", 0));
        assert_eq!(table.plans(), 1);
        table.give_back(b);
        let ticket = table.insert("a", a, at(0));
        let other = table.plan(&plan("0 1 * * *", 1));
        assert_eq!(table.plans(), 2);
        table.give_back(other);
        assert_eq!((table.plans(), table.remove(ticket), table.plans()), (1, Some("a"), 0));
        let again = table.plan(&plan("0 2 * * *", 0));
        table.insert("b", again, at(0));
        assert_eq!((table.peek(), table.plans()), (Some(at(7200)), 1));
    }

    #[test]
    fn replacing_for_ever_does_not_grow() {
        let mut table = Timetable::default();
        let minutely = table.plan(&plan("* * * * *", 0));
        let ticket = table.insert("a", minutely, at(0));
        for minute in 0..100_000 {
            table.renew(ticket, at(60 * minute));
        }
        assert!(table.queue.len() <= TOLERATED + 2);
        assert_eq!(all_due(&mut table, 60 * 100_000), [(60 * 100_000, "a")]);
    }

    #[test]
    fn counts_for_the_forecast() {
        let mut table = Timetable::default();
        for (key, (expr, spread)) in
            [("* * * * * *", 0), ("*/5 * * * *", 30), ("0 1 * * *", 0), ("@every 7m", 3)]
                .into_iter()
                .cycle()
                .take(12)
                .enumerate()
        {
            let plan = table.plan(&plan(expr, spread));
            table.insert(key, plan, at(0));
        }
        let (from, day) = (at(86_400 * 365 + 17), TimeDelta::days(1));
        let minutes = table.forecast(from, TimeDelta::minutes(1), 1440);
        assert_eq!(minutes.iter().sum::<u64>(), 3 * (86_400 + 288 + 1 + 206));
        assert_eq!(minutes.iter().sum::<u64>(), table.count_between(from, from + day));
        for (index, count) in minutes.iter().enumerate() {
            let start = from + TimeDelta::minutes(index as i64);
            assert_eq!(*count, table.count_between(start, start + TimeDelta::minutes(1)));
        }
        assert!(table.forecast(from, TimeDelta::zero(), 0).is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(usize, i64),
        Replace(usize, usize, i64),
        Renew(usize, i64),
        Remove(usize),
        Pop(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let through = prop_oneof![Just(0_i64), Just(100), 0_i64..20_000];
        prop_oneof![
            4 => (0_usize..6, through.clone()).prop_map(|(p, t)| Step::Insert(p, t)),
            2 => (0_usize..20, 0_usize..6, through.clone()).prop_map(|(j, p, t)| Step::Replace(j, p, t)),
            2 => (0_usize..20, through.clone()).prop_map(|(j, t)| Step::Renew(j, t)),
            1 => (0_usize..20).prop_map(Step::Remove),
            6 => through.prop_map(Step::Pop),
        ]
    }

    #[test]
    fn a_new_plan_is_not_mistaken_for_one_that_is_gone() {
        let mut table = Timetable::default();
        let mut waits = |expr: &str| {
            let tickets = [0, 1].map(|job| {
                let plan = table.plan(&plan(expr, 0));
                table.insert(job, plan, at(100))
            });
            tickets.map(|ticket| (table.waits_for(ticket), table.remove(ticket)).0.unwrap())
        };
        assert_eq!(waits("0 0 1 1 *"), [at(365 * 86_400); 2]);
        assert_eq!(waits("* * * * *"), [at(120); 2]);
    }

    #[test]
    fn a_ticket_that_was_given_up_does_nothing() {
        let mut table = Timetable::default();
        let [gone, stays] = ["gone", "stays"].map(|key| {
            let plan = table.plan(&plan("* * * * *", 0));
            table.insert(key, plan, at(0))
        });
        table.remove(gone);
        table.renew(gone, at(0));
        let other = table.plan(&plan("0 0 * * *", 0));
        table.replace(gone, other, at(0));
        assert_eq!((table.plans(), table.len(), table.waits_for(gone)), (1, 1, None));
        assert_eq!(all_due(&mut table, 60), [(60, "stays")]);
        table.renew(stays, at(60));
        assert_eq!(table.peek(), Some(at(120)));
    }

    proptest! {
        /// The clock of `Pop` goes forwards and backwards as it likes.
        #[test]
        fn agrees_with_a_plain_list(steps in prop::collection::vec(step(), 0..200)) {
            let plans = ["* * * * * *", "*/5 * * * *", "7 * * * *", "@every 61s", "@at 1970-01-01T02:00:00Z", "0 0 1 1 *"]
                .map(|expr| plan(expr, (expr.len() as u32 - 9) % 5));
            let mut table = Timetable::default();
            let mut list: BTreeMap<Ticket, (usize, Option<i64>)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(p, t) => {
                        let id = table.plan(&plans[p]);
                        let ticket = table.insert(p, id, at(t));
                        prop_assert!(list.insert(ticket, (p, plans[p].next_due(t))).is_none());
                    }
                    Step::Replace(job, p, t) => {
                        let Some(ticket) = list.keys().nth(job).copied() else { continue };
                        let id = table.plan(&plans[p]);
                        table.replace(ticket, id, at(t));
                        list.insert(ticket, (p, plans[p].next_due(t)));
                    }
                    Step::Renew(job, t) => {
                        let Some((ticket, (p, due))) = list.iter_mut().nth(job) else { continue };
                        table.renew(*ticket, at(t));
                        *due = plans[*p].next_due(t);
                    }
                    Step::Remove(job) => {
                        let Some(ticket) = list.keys().nth(job).copied() else { continue };
                        prop_assert!(table.remove(ticket).is_some());
                        list.remove(&ticket);
                    }
                    Step::Pop(now) => {
                        let first = list.values().filter_map(|(_, due)| *due).min();
                        prop_assert_eq!(table.peek(), first.map(at));
                        match table.pop_due(at(now)) {
                            Some(due) => {
                                prop_assert_eq!(Some(due.at.timestamp()), first);
                                prop_assert!(due.at <= at(now));
                                let place = list.get_mut(&due.ticket).unwrap();
                                prop_assert_eq!(place.1.take(), first);
                            }
                            None => prop_assert!(first.is_none_or(|first| first > now)),
                        }
                    }
                }
                prop_assert_eq!(table.len(), list.len());
                let used: std::collections::BTreeSet<usize> = list.values().map(|(p, _)| *p).collect();
                prop_assert_eq!(table.plans(), used.len());
            }
            let (after, through) = (at(100), at(9000));
            let expected: u64 = list.values().map(|(p, _)| plans[*p].count_due(100, 9000)).sum();
            prop_assert_eq!(table.count_between(after, through), expected);
        }
    }
}
