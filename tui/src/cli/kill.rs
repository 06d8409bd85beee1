//! `carillon kill`: the live runs of a job, and with `--wait` until they are gone.

use std::collections::BTreeSet;

use carillon_core::id::{JobName, RunId};
use carillon_core::replica::{Feed, Replica};
use chrono::Utc;

use super::{Failure, print, told};
use crate::operator::{Operator, OperatorError, live_runs};

pub(super) async fn kill(
    operator: &Operator,
    name: &JobName,
    only: Option<RunId>,
    wait: bool,
) -> Result<(), Failure> {
    let live = live_runs(&operator.etcd, name).await?;
    let targets: Vec<RunId> =
        live.iter().map(|live| live.run).filter(|run| only.is_none_or(|id| id == *run)).collect();
    if targets.is_empty() {
        return Err(Failure::Failed(match only {
            Some(run) => format!("the run {run} of {name} is not live"),
            None => format!("{name} has no live run"),
        }));
    }
    let mut waited_for = BTreeSet::new();
    for run in targets {
        match operator.kill(name, run, Utc::now()).await {
            Ok(done) => {
                told(done);
                print::line(&format!("{run} kill requested"))?;
                waited_for.insert(run);
            }
            Err(OperatorError::NotLive(_)) => print::line(&format!("{run} had ended already"))?,
            Err(e) => return Err(e.into()),
        }
    }
    if wait { until_gone(operator, name, waited_for).await } else { Ok(()) }
}

async fn until_gone(
    operator: &Operator,
    name: &JobName,
    mut runs: BTreeSet<RunId>,
) -> Result<(), Failure> {
    let mut feed = operator.etcd.feed();
    let mut replica: Replica = Replica::default();
    while !runs.is_empty() {
        let Some(fed) = feed.recv().await else { break };
        if let Feed::Lost { reason } = &fed {
            print::note(&format!("{reason}; waiting for it"));
            continue;
        }
        replica.apply(operator.etcd.keys(), &fed, Utc::now());
        if matches!(fed, Feed::Part { .. }) {
            // What is live stands in no replica before the whole list does.
            continue;
        }
        let live: BTreeSet<RunId> = replica.live_of(name).map(|live| live.run).collect();
        for gone in runs.difference(&live) {
            print::line(&format!("{gone} gone"))?;
        }
        runs.retain(|run| live.contains(run));
    }
    Ok(())
}
