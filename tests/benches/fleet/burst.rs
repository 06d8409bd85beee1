//! Many jobs due in the same second, with one worker and with several: how fast they are claimed,
//! in how many transactions, and how late their commands start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carillon_core::claims::BATCH;
use chrono::{DateTime, TimeDelta, Utc};
use system_tests::stack::Stack;
use tokio::time::sleep;

use crate::bars::{Bars, Spread};
use crate::scene::{Numbers, Scene, Stamp, next_slot, sleep_until};

const JOBS: usize = 2_000;
/// Seconds between two slots: enough for all runs, and for MongoDB to take their records.
const PERIOD: i64 = 20;
const ROUNDS: usize = 2;
/// How often the workers are asked how many they have claimed.
const ASK_EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn run(stack: &Stack, bars: &mut Bars) {
    println!("\n{JOBS} jobs in the same second, {ROUNDS} rounds, largest batch {BATCH}\n");
    for workers in [1, 3, 5] {
        let mut scene = Scene::start(stack, workers).await;
        scene.put_jobs("burst", JOBS, &format!("*/{PERIOD} * * * * *")).await;
        let desks = scene.desks();
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let slot = next_slot(PERIOD, TimeDelta::seconds(1));
            sleep_until(slot - TimeDelta::milliseconds(700)).await;
            rounds.push(Round::measure(&mut scene, &desks, slot).await);
        }
        report(workers, &rounds, bars);
    }
}

/// What one slot of all jobs came to.
struct Round {
    /// From the slot to the answer to the last claim.
    claimed: TimeDelta,
    /// Transactions that carried out claims, and the fewest that could have.
    transactions: (usize, usize),
    /// Claims that came after another worker's.
    refused: f64,
    /// Of all kinds, until nothing of the runs is left in etcd.
    all_transactions: f64,
    steps: f64,
    /// Whether that was waited for long enough.
    settled: bool,
    /// Milliseconds.
    lateness: Vec<f64>,
}

impl Round {
    async fn measure(scene: &mut Scene, desks: &[String], slot: DateTime<Utc>) -> Self {
        let revision = scene.count("running/").await.1;
        let before = Numbers::of(desks);
        let decided =
            |numbers: &Numbers| numbers.sum("decisions_total") - before.sum("decisions_total");
        sleep_until(slot).await;
        let claimed = loop {
            if decided(&Numbers::of(desks)) >= JOBS as f64 {
                break Utc::now() - slot;
            }
            if Utc::now() - slot > TimeDelta::seconds(PERIOD - 2) {
                println!("    (not all was claimed in time)");
                break Utc::now() - slot;
            }
            sleep(ASK_EVERY).await;
        };
        let stamps = scene.until_stamped(slot, JOBS).await;
        let end = slot + TimeDelta::milliseconds(PERIOD * 1000 - 1500);
        let settled = loop {
            if scene.count("done/").await.0 == 0 && scene.count("running/").await.0 == 0 {
                break true;
            }
            if Utc::now() > end {
                break false;
            }
            sleep(ASK_EVERY * 5).await;
        };
        // What is under way is answered meanwhile.
        sleep(ASK_EVERY * 5).await;
        let after = Numbers::of(desks);
        let gained = |name: &str| after.sum(name) - before.sum(name);
        let claims = scene.claims_since(revision).await;
        let mut by_worker = BTreeMap::<&str, usize>::new();
        for (_, worker) in &claims {
            *by_worker.entry(worker).or_default() += 1;
        }
        let transactions: BTreeSet<i64> = claims.iter().map(|(revision, _)| *revision).collect();
        Self {
            claimed,
            transactions: (
                transactions.len(),
                by_worker.values().map(|claims| claims.div_ceil(BATCH)).sum(),
            ),
            refused: gained("refusals_total{reason=\"cursorMoved\""),
            all_transactions: gained("claim_transactions_total"),
            steps: gained("claim_steps_sum"),
            settled,
            lateness: stamps.iter().map(Stamp::lateness).collect(),
        }
    }
}

fn report(workers: usize, rounds: &[Round], bars: &mut Bars) {
    for round in rounds {
        let (carried, least) = round.transactions;
        println!(
            "{:9}  {:6.0} claims/s   {carried:3} transactions of {least:2} ({:.2} a batch, mean {:.1}), {:.0} refused   {:.2} transactions and {:.1} steps a firing{}",
            crate::bars::workers(workers),
            JOBS as f64 / round.claimed.as_seconds_f64(),
            carried as f64 / least as f64,
            JOBS as f64 / carried as f64,
            round.refused,
            round.all_transactions / JOBS as f64,
            round.steps / JOBS as f64,
            if round.settled { "" } else { " so far" },
        );
        let lateness = Spread::of(round.lateness.iter().copied());
        println!("           start of {:4}  {}", lateness.len(), lateness.millis());
    }
    let worst = |figure: fn(&Round) -> f64| rounds.iter().map(figure).fold(0.0, f64::max);
    // Refused claims travelled in transactions of their own, at best as full as they can be.
    let a_batch = worst(|round| {
        let (carried, least) = round.transactions;
        (carried as f64 + (round.refused / BATCH as f64).ceil()) / least as f64
    });
    let fewest = 1.0 / worst(|round| round.transactions.0 as f64 / JOBS as f64);
    let who = crate::bars::workers(workers);
    bars.at_most(
        &format!("claim transactions a batch with those refused, {who}"),
        a_batch,
        1.1,
        "",
    );
    bars.at_least(&format!("mean batch of {JOBS} claims, {who}"), fewest, 32.0, "");
}
