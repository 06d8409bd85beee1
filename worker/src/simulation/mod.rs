//! The whole protocol against a model of etcd: a fleet of [`Decider`](crate::decider::Decider)s,
//! without a clock, a thread or a socket. A seed decides what happens next: what the watch
//! delivers, which transaction arrives, whose answer is lost, who dies, freezes, is cut off or has
//! its clock set, and what people do. After every event it is looked at what must hold, and in the
//! end, once all is well again, that everything is decided and nothing is left.
//!
//! It finds a violation when any predicate of the transactions is taken away: one test for each.
//!
//! - `SIMULATION_SEEDS=200000` lives through so many worlds instead of a few, `SIMULATION_FROM=7`
//!   begins with that seed. Best with `cargo test --release -p carillon-worker simulation`.
//! - `SIMULATION_FROM=7 SIMULATION_SEEDS=1` lives through one again. A world that breaks tells its
//!   last events.

mod audit;
mod etcd;
mod mutation;
mod node;
mod operator;
mod random;
mod world;

use std::time::Instant;

use carillon_core::job::{Concurrency, Job, OnLeaseLoss, Scope};
use carillon_core::steps::Refusal;

use mutation::Mutation;
use world::{Conditions, Often, live_through};

/// Clocks that are as near to each other as they must be.
const TAME: Conditions = Conditions {
    mutation: None,
    events: 900,
    comes_to_rest: true,
    jobs: |_| {},
    often: Often::Nothing,
    long_runs: false,
    skew: 990,
    max_skew: 2,
};
/// Clocks that are not.
const WILD: Conditions = Conditions { skew: 30_000, ..TAME };
/// What breaks does so before all is well again.
const BRIEF: Conditions = Conditions { comes_to_rest: false, ..TAME };
const FORBID: Conditions =
    Conditions { jobs: |job| job.concurrency = Concurrency::Forbid, ..BRIEF };

fn replaces(job: &mut Job) {
    (job.concurrency, job.scope, job.enabled) = (Concurrency::Replace, Scope::Once, true);
}

/// Time enough to start for a run to be settled meanwhile.
fn starts_late(job: &mut Job) {
    (job.start_deadline_secs, job.kill_grace_secs, job.enabled) = (60, 0, true);
}

/// Nothing but the end of its worker ends a run soon, and then the next one comes.
fn lasts(job: &mut Job) {
    starts_late(job);
    (job.concurrency, job.scope, job.timeout_secs) = (Concurrency::Forbid, Scope::Once, 0);
    job.on_lease_loss = OnLeaseLoss::Kill;
    job.selector.clear();
}

/// How many worlds a missing predicate may take to be missed.
const BOUND: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lives through many worlds, and panics with the story of the first that breaks.
fn hold(name: &str, conditions: &Conditions, count: u64) {
    let from = number("SIMULATION_FROM").unwrap_or(0);
    let count = number("SIMULATION_SEEDS").unwrap_or(count);
    let begun = Instant::now();
    let (mut events, mut decisions) = (0, 0);
    for seed in from..from + count {
        let story = live_through(seed, conditions, false);
        if let Some(what) = story.broken {
            let told = live_through(seed, conditions, true).told;
            panic!("{told}\n{name}, seed {seed}, after {} events: {what}", story.events);
        }
        events += story.events;
        decisions += story.decisions;
    }
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    println!("{name}: {count} worlds, {events} events, {decisions} decisions; {rate:.0} events/s");
}

/// Lives through worlds without a part of the protocol until one breaks.
fn is_missed(mutation: Mutation, conditions: &Conditions) {
    let conditions = Conditions { mutation: Some(mutation), ..conditions.clone() };
    let begun = Instant::now();
    let mut events = 0;
    for seed in 0..BOUND {
        let story = live_through(seed, &conditions, false);
        events += story.events;
        if let Some(what) = story.broken {
            let (after, took) = (story.events, begun.elapsed());
            println!(
                "{mutation:?}: seed {seed}, {after} events ({events} in all, {took:.1?}): {what}"
            );
            return;
        }
    }
    panic!("{mutation:?} is not missed in {BOUND} worlds");
}

#[test]
fn the_protocol_holds() {
    hold("clocks together", &TAME, 60);
}

#[test]
fn the_protocol_holds_although_clocks_are_wrong() {
    hold("clocks apart", &WILD, 60);
}

#[test]
fn a_seed_is_one_story() {
    for seed in 0..5 {
        assert_eq!(live_through(seed, &WILD, true), live_through(seed, &WILD, true), "seed {seed}");
    }
}

#[test]
fn the_cursors_revision_is_needed() {
    is_missed(Mutation::Without(Refusal::CursorMoved), &BRIEF);
}

#[test]
fn the_jobs_revision_is_needed() {
    is_missed(Mutation::Without(Refusal::JobChanged), &BRIEF);
}

#[test]
fn the_settings_revision_is_needed() {
    is_missed(Mutation::Without(Refusal::SettingsChanged), &BRIEF);
}

#[test]
fn the_triggers_revision_is_needed() {
    is_missed(Mutation::Without(Refusal::TriggerGone), &BRIEF);
}

#[test]
fn the_runs_fence_is_needed() {
    is_missed(Mutation::Without(Refusal::NotTheRun), &BRIEF);
}

#[test]
fn that_a_worker_is_dead_is_needed() {
    let conditions = Conditions { often: Often::Unregistering, ..BRIEF };
    is_missed(Mutation::Without(Refusal::WorkerAlive), &conditions);
}

#[test]
fn that_no_kill_was_asked_for_is_needed() {
    let conditions = Conditions { jobs: |job| job.retries.max = 2, ..BRIEF };
    is_missed(Mutation::Without(Refusal::KillAsked), &conditions);
}

#[test]
fn that_no_run_is_live_is_needed_under_forbid() {
    is_missed(Mutation::ForbidRange, &Conditions { often: Often::Asking, ..FORBID });
}

#[test]
fn that_no_newer_run_is_live_is_needed_under_replace() {
    let conditions = Conditions { often: Often::Asking, jobs: replaces, ..BRIEF };
    is_missed(Mutation::ReplaceRange, &conditions);
}

#[test]
fn that_those_to_be_replaced_are_live_is_needed() {
    is_missed(Mutation::ReplaceVictims, &Conditions { jobs: replaces, ..TAME });
}

#[test]
fn that_the_blocking_run_is_live_is_needed() {
    is_missed(Mutation::SkipBlocking, &FORBID);
}

#[test]
fn a_certain_lease_is_needed_to_start() {
    let conditions = Conditions { often: Often::Freezing, jobs: starts_late, ..BRIEF };
    is_missed(Mutation::SpawnUnleased, &conditions);
}

#[test]
fn the_guard_is_needed() {
    let conditions = Conditions { jobs: lasts, long_runs: true, ..BRIEF };
    is_missed(Mutation::NoGuard, &conditions);
}

/// It is there for progress: without it a dead worker's claim is carried out, and then settled.
#[test]
fn the_registration_is_not_needed_for_safety() {
    let mutation = Some(Mutation::Without(Refusal::NotRegistered));
    hold("without the lease", &Conditions { mutation, ..TAME }, 40);
}

/// One that goes on without its lease is given its whole time-out, counted from its start.
fn goes_on(job: &mut Job) {
    lasts(job);
    (job.on_lease_loss, job.timeout_secs) = (OnLeaseLoss::Continue, 20);
}

#[test]
fn a_run_that_goes_on_without_its_lease_is_not_settled_early() {
    let (skew, max_skew) = (4_900, 10);
    let conditions = Conditions { jobs: goes_on, long_runs: true, skew, max_skew, ..BRIEF };
    hold("going on", &conditions, 100);
}
