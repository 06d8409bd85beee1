//! `carillon why`: the story of one slot, from both stores.

use carillon_core::fleet::MAX_SKEW;
use carillon_core::id::{JobName, Slot};
use carillon_core::records::{HistoryFilter, RecordsError};
use carillon_core::replica::Replica;
use carillon_core::run::RunRecord;
use carillon_core::why::{Known, blocked_by, newest_decided, next_slot, read_slot, story};
use chrono::Utc;
use chrono_tz::Tz;

use super::{Failure, Format, print, replica};
use crate::operator::Operator;
use crate::why::lines;

/// Records of the job that are read to know its newest slot and how long it usually runs.
const RECENT: usize = 50;

pub(super) async fn why(
    operator: &Operator,
    job: &JobName,
    asked: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let replica = replica(operator).await?;
    let mut away = None;
    let filter = HistoryFilter { job: Some(job.clone()), ..Default::default() };
    let recent = operator.records.history(&filter, None, RECENT).await.map(|page| page.records);
    let mut others = or_nothing(recent, &mut away);
    let slot = which(&replica, job, asked, &others)?;
    let records = match away {
        None => or_nothing(operator.records.of_slot(job, slot).await, &mut away),
        Some(_) => Vec::new(),
    };
    for run in records.iter().filter_map(blocked_by) {
        if away.is_none() && !others.iter().any(|record| record.id == run) {
            others.extend(or_nothing(operator.records.get(run).await, &mut away));
        }
    }
    let (replica, others, now) = (&replica, &others[..], Utc::now());
    let known = Known { replica, job, records: &records, others, now, max_skew: MAX_SKEW };
    let story = story(&known, slot);
    match format {
        Format::Json => print::json(&story)?,
        Format::Table => {
            for line in lines(&story, now) {
                print::clean_line(&line)?;
            }
        }
    }
    match away {
        Some(e) => {
            print::note(&format!("{e}; this is what etcd knows alone"));
            Err(Failure::Exit(Failure::from(e).code()))
        }
        None => Ok(()),
    }
}

/// What MongoDB says; nothing, and why, where it does not.
fn or_nothing<T: Default>(answer: Result<T, RecordsError>, away: &mut Option<RecordsError>) -> T {
    answer.unwrap_or_else(|e| {
        *away = Some(e);
        T::default()
    })
}

fn which(
    replica: &Replica,
    job: &JobName,
    asked: Option<&str>,
    recent: &[RunRecord],
) -> Result<Slot, Failure> {
    let entry = replica.jobs.get(job);
    if entry.is_none() && recent.is_empty() {
        return Err(Failure::Failed(format!(
            "there is no job {job}, and no record of one (`carillon jobs` lists them)"
        )));
    }
    if let Some(text) = asked {
        let checked = entry.and_then(|entry| entry.state.as_ref().ok());
        let zone = checked.map_or(Ok(Tz::UTC), |checked| replica.zone_of(checked));
        return read_slot(text, zone.unwrap_or(Tz::UTC)).map_err(Failure::Failed);
    }
    let newest = newest_decided(replica, job, recent);
    newest.or_else(|| next_slot(replica, job, Utc::now())).ok_or_else(|| {
        let problems = entry.and_then(|entry| entry.state.as_ref().err());
        Failure::Failed(match problems {
            Some(problems) => format!("{job} has never run and is broken: {problems}"),
            None => format!("{job} has never run, and its schedule never fires again"),
        })
    })
}
