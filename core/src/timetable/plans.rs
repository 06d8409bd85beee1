//! The distinct plans of all jobs, each kept once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::schedule::Plan;

/// A plan on a timetable. It is used up when a job is put on it, or given back.
#[derive(Debug)]
#[must_use = "a plan that nobody uses is to be given back"]
pub struct PlanId(u32);

/// How often a plan is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Uses {
    jobs: u32,
    ids: u32,
}

/// Plans by number, and numbers by plan.
#[derive(Debug, Clone, Default)]
pub(super) struct Plans {
    plans: Vec<Plan>,
    uses: Vec<Uses>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    free: Vec<u32>,
}

impl Plans {
    pub(super) fn with_capacity(plans: usize) -> Self {
        Self {
            plans: Vec::with_capacity(plans),
            uses: Vec::with_capacity(plans),
            numbers: HashTable::with_capacity(plans),
            ..Self::default()
        }
    }

    pub(super) fn intern(&mut self, plan: &Plan) -> PlanId {
        let Self { plans, uses, numbers, hasher, free } = self;
        let hash = |number: &u32| hasher.hash_one(plans.get(*number as usize));
        let wanted = hasher.hash_one(Some(plan));
        let known = numbers.find(wanted, |number| plans.get(*number as usize) == Some(plan));
        let number = match known {
            Some(number) => *number,
            None => {
                let number = free.pop().unwrap_or(plans.len() as u32);
                numbers.insert_unique(wanted, number, hash);
                match plans.get_mut(number as usize) {
                    Some(place) => *place = *plan,
                    None => {
                        plans.push(*plan);
                        uses.push(Uses::default());
                    }
                }
                number
            }
        };
        self.share(&PlanId(number))
    }

    pub(super) fn share(&mut self, id: &PlanId) -> PlanId {
        if let Some(uses) = self.uses.get_mut(id.0 as usize) {
            uses.ids += 1;
        }
        PlanId(id.0)
    }

    /// Puts a job on a plan. Returns the plan's number.
    #[allow(clippy::needless_pass_by_value)] // the id is used up
    pub(super) fn enter(&mut self, id: PlanId) -> u32 {
        if let Some(uses) = self.uses.get_mut(id.0 as usize) {
            uses.ids -= 1;
            uses.jobs += 1;
        }
        id.0
    }

    /// Takes a job off a plan.
    pub(super) fn leave(&mut self, number: u32) {
        self.end_use(number, |uses| uses.jobs -= 1);
    }

    #[allow(clippy::needless_pass_by_value)] // the id is used up
    pub(super) fn give_back(&mut self, id: PlanId) {
        self.end_use(id.0, |uses| uses.ids -= 1);
    }

    fn end_use(&mut self, number: u32, end: impl Fn(&mut Uses)) {
        let Some((uses, plan)) =
            self.uses.get_mut(number as usize).zip(self.plans.get(number as usize))
        else {
            return;
        };
        end(uses);
        if *uses == Uses::default() {
            let hash = self.hasher.hash_one(Some(plan));
            if let Ok(known) = self.numbers.find_entry(hash, |known| *known == number) {
                known.remove();
            }
            self.free.push(number);
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Plan> {
        self.plans.get(number as usize)
    }

    /// How many jobs are on a plan.
    pub(super) fn jobs(&self, number: u32) -> u32 {
        self.uses.get(number as usize).map_or(0, |uses| uses.jobs)
    }

    /// The plans that have jobs, and how many.
    pub(super) fn used(&self) -> impl Iterator<Item = (&Plan, u64)> {
        let all = self.plans.iter().zip(&self.uses);
        all.filter(|(_, uses)| uses.jobs > 0).map(|(plan, uses)| (plan, uses.jobs.into()))
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}
