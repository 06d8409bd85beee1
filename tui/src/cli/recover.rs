//! `carillon recover`: cursors that are of the past since etcd was restored, or in the future since
//! a clock was wrong, are put right; then the workers that stand by go on.
//!
//! The order matters: cursors, then triggers and runs that are over, and only then the word that
//! lets the workers go on. Broken off anywhere, it can be run again.

use std::collections::BTreeMap;

use carillon_core::claims::Step;
use carillon_core::id::{JobName, Slot};
use carillon_core::recover::{Known, Reset, Wrong, is_restored, resets, settle};
use carillon_core::replica::Replica;
use carillon_core::why::MAX_SKEW;
use chrono::Utc;

use super::{Failure, confirmed, print, replica, told};
use crate::operator::Operator;
use crate::text;

/// How often it looks again because a worker moved a cursor meanwhile.
const ROUNDS: usize = 5;

/// How it is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub dry_run: bool,
    pub yes: bool,
    /// Somebody says that etcd was restored.
    pub restored: bool,
}

pub(super) async fn recover(
    operator: &Operator,
    only: &[JobName],
    how: How,
) -> Result<(), Failure> {
    let state = replica(operator).await?;
    let unknown = |job: &&JobName| {
        !state.jobs.contains_key(*job)
            && state.cursors.revision(job).is_none()
            && !state.own_cursors.contains_key(*job)
    };
    if let Some(job) = only.iter().find(unknown) {
        let hint = "`carillon jobs` lists them";
        return Err(Failure::Failed(format!("there is neither a job {job} nor a cursor: {hint}")));
    }
    trust_clock(operator).await?;
    print::aside("reading the newest recorded slot of every job");
    let newest = operator.records.newest_slots().await?;
    let restored = how.restored || is_restored(&state);
    let asked = Asked { newest, only, restored };
    let plan = Plan::of(operator, &state, &asked).await?;
    plan.tell(&asked)?;
    if only.is_empty() && !restored && state.workers.is_empty() {
        print::note(
            "no worker is registered to say whether etcd was restored: if it was, add --restored",
        );
    }
    if how.dry_run || plan.is_empty() && !asked.is_of_fleet() {
        return Ok(());
    }
    if !how.yes && !confirmed()? {
        return Err(Failure::Failed("nothing was done".to_owned()));
    }
    carry_out(operator, plan, &asked).await?;
    if asked.is_of_fleet() {
        let (settings, read) = replica(operator).await?.settings();
        if !told(operator.set_recovered(settings, read, Utc::now()).await?) {
            return Err(Failure::Conflict(
                "the fleet's settings were written meanwhile: run it again".to_owned(),
            ));
        }
        print::line("recovered: the workers that stood by go on")?;
    }
    Ok(())
}

/// A wrong clock here would put cursors in a wrong place.
async fn trust_clock(operator: &Operator) -> Result<(), Failure> {
    let offset = operator.records.clock_offset(Utc::now).await?;
    if offset.abs() <= MAX_SKEW {
        return Ok(());
    }
    let (by, than) =
        (text::duration(offset), if offset.num_seconds() > 0 { "behind" } else { "ahead of" });
    Err(Failure::Failed(format!(
        "the clock of this machine is {by} {than} MongoDB's: set the wrong one right first"
    )))
}

/// What is to be put right, and after what.
struct Asked<'a> {
    /// The newest recorded slot of each job.
    newest: BTreeMap<JobName, Slot>,
    only: &'a [JobName],
    restored: bool,
}

impl Asked<'_> {
    /// Whether a restore is to be recovered from as a whole, after which the workers go on.
    fn is_of_fleet(&self) -> bool {
        self.restored && self.only.is_empty()
    }

    fn known<'a>(&'a self, replica: &'a Replica) -> Known<'a> {
        let Self { newest, only, restored } = self;
        let restored = *restored;
        Known { replica, newest, only, restored, now: Utc::now(), max_skew: MAX_SKEW }
    }
}

/// What is to be done.
struct Plan {
    resets: Vec<Reset>,
    /// Triggers that were never taken, as far as is recorded.
    missed: Vec<Step>,
    /// Triggers and runs that are recorded to be over.
    over: Vec<Step>,
}

impl Plan {
    async fn of(operator: &Operator, state: &Replica, asked: &Asked<'_>) -> Result<Self, Failure> {
        let known = asked.known(state);
        let mut plan = Self { resets: resets(&known), missed: Vec::new(), over: Vec::new() };
        if !asked.is_of_fleet() {
            return Ok(plan);
        }
        let (keys, by) = (operator.etcd.keys(), operator.who.to_string());
        for (key, trigger) in &state.triggers {
            let recorded = operator.records.get(key.1).await?.is_some();
            let step = settle(keys, &known, key, trigger, recorded, &by);
            if recorded { plan.over.push(step) } else { plan.missed.push(step) }
        }
        for live in state.all_live() {
            let record = operator.records.get(live.run).await?;
            if record.is_some_and(|record| record.outcome.is_final()) {
                plan.over.push(Step::forget(keys, live));
            }
        }
        Ok(plan)
    }

    fn is_empty(&self) -> bool {
        self.resets.is_empty() && self.missed.is_empty() && self.over.is_empty()
    }

    fn tell(&self, asked: &Asked<'_>) -> Result<(), Failure> {
        for reset in &self.resets {
            tell_reset(reset, "goes")?;
        }
        let counts = [
            (self.missed.len(), "run that was asked for", "settled as missed"),
            (self.over.len(), "run or request", "cleared away: it is recorded to be over"),
        ];
        for (count, noun, fate) in counts.into_iter().filter(|(count, ..)| *count > 0) {
            print::line(&format!("{}: {fate}", text::count(count as u64, noun)))?;
        }
        match (asked.is_of_fleet(), self.is_empty()) {
            (true, _) => print::line("etcd was restored: then the workers that stand by go on"),
            (false, false) => Ok(()),
            (false, true) if asked.only.is_empty() => print::line(
                "nothing to recover: no cursor is wrong, and no worker says that etcd was restored",
            ),
            (false, true) => print::line("nothing to recover: no cursor is wrong"),
        }
    }
}

fn tell_reset(reset: &Reset, verb: &str) -> Result<(), Failure> {
    let (from, to) = (Slot::at(reset.from), Slot::at(reset.cursor.through));
    let on = reset.on.as_ref().map(|on| format!(" on {on}")).unwrap_or_default();
    let why = match reset.why {
        Wrong::Behind => "slots up to there are recorded",
        Wrong::Ahead if reset.cursor.through > Utc::now() + MAX_SKEW => {
            "it is in the future, and slots up to there are recorded: the job waits for them to pass"
        }
        Wrong::Ahead => "it is in the future",
    };
    print::clean_line(&format!("{}{on}: cursor {verb} from {from} to {to}: {why}", reset.job))
}

async fn carry_out(operator: &Operator, plan: Plan, asked: &Asked<'_>) -> Result<(), Failure> {
    let mut left = plan.resets;
    for _ in 0..ROUNDS {
        let put = told(operator.reset_cursors(&left, Utc::now()).await?);
        let (mut done, all) = (0_u64, put.len() as u64);
        done += put.iter().filter(|put| **put).count() as u64;
        if all > 0 {
            print::line(&format!("{} of {} put right", done, text::count(all, "cursor")))?;
        }
        if done == all {
            left.clear();
            break;
        }
        // Somebody moved the others: they may stand right now.
        let state = replica(operator).await?;
        left = resets(&asked.known(&state));
    }
    if !left.is_empty() {
        return Err(Failure::Conflict(format!(
            "{} moved again and again meanwhile: run it again",
            text::count(left.len() as u64, "cursor")
        )));
    }
    let now = Utc::now();
    let missed = "recover: a run that was asked for is settled as missed";
    told(operator.clear_away(&plan.missed, missed, now).await?);
    told(operator.clear_away(&plan.over, "recover: what is over is cleared away", now).await?);
    Ok(())
}
