//! The distinct plans of all jobs, each kept once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::schedule::Plan;

/// A plan on a timetable. It is used up when a job is put on it, or given back.
#[derive(Debug)]
#[must_use = "a plan that nobody uses is to be given back"]
pub struct PlanId(u32);

impl PlanId {
    pub(super) fn number(&self) -> u32 {
        self.0
    }
}

/// Plans by number, and numbers by plan.
#[derive(Debug, Clone, Default)]
pub(super) struct Plans {
    plans: Vec<Plan>,
    /// How many jobs are on each plan, and how many ids of it are in somebody's hands. Two lists:
    /// as pairs they would be changed by halves and read whole, which processors are slow at.
    jobs: Vec<u32>,
    ids: Vec<u32>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    free: Vec<u32>,
}

impl Plans {
    pub(super) fn with_capacity(plans: usize) -> Self {
        Self {
            plans: Vec::with_capacity(plans),
            jobs: Vec::with_capacity(plans),
            ids: Vec::with_capacity(plans),
            numbers: HashTable::with_capacity(plans),
            ..Self::default()
        }
    }

    pub(super) fn intern(&mut self, plan: &Plan) -> PlanId {
        let Self { plans, jobs, ids, numbers, hasher, free } = self;
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
                        jobs.push(0);
                        ids.push(0);
                    }
                }
                number
            }
        };
        self.share(&PlanId(number))
    }

    pub(super) fn share(&mut self, id: &PlanId) -> PlanId {
        if let Some(ids) = self.ids.get_mut(id.0 as usize) {
            *ids += 1;
        }
        PlanId(id.0)
    }

    /// Puts a job on a plan. Returns the plan's number.
    #[allow(clippy::needless_pass_by_value)] // the id is used up
    pub(super) fn enter(&mut self, id: PlanId) -> u32 {
        let number = id.0 as usize;
        if let (Some(ids), Some(jobs)) = (self.ids.get_mut(number), self.jobs.get_mut(number)) {
            *ids -= 1;
            *jobs += 1;
        }
        id.0
    }

    /// Takes a job off a plan.
    pub(super) fn leave(&mut self, number: u32) {
        if let Some(jobs) = self.jobs.get_mut(number as usize) {
            *jobs -= 1;
        }
        self.forget_unused(number);
    }

    #[allow(clippy::needless_pass_by_value)] // the id is used up
    pub(super) fn give_back(&mut self, id: PlanId) {
        if let Some(ids) = self.ids.get_mut(id.0 as usize) {
            *ids -= 1;
        }
        self.forget_unused(id.0);
    }

    fn forget_unused(&mut self, number: u32) {
        let used = |list: &[u32]| list.get(number as usize).is_none_or(|uses| *uses > 0);
        if used(&self.jobs) || used(&self.ids) {
            return;
        }
        let hash = self.hasher.hash_one(self.plans.get(number as usize));
        if let Ok(known) = self.numbers.find_entry(hash, |known| *known == number) {
            known.remove();
        }
        self.free.push(number);
    }

    pub(super) fn get(&self, number: u32) -> Option<&Plan> {
        self.plans.get(number as usize)
    }

    /// How many jobs are on a plan.
    pub(super) fn jobs(&self, number: u32) -> u32 {
        self.jobs.get(number as usize).copied().unwrap_or_default()
    }

    /// The plans that have jobs, and how many.
    pub(super) fn used(&self) -> impl Iterator<Item = (&Plan, u64)> {
        let all = self.plans.iter().zip(&self.jobs);
        all.filter(|(_, jobs)| **jobs > 0).map(|(plan, jobs)| (plan, u64::from(*jobs)))
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}
