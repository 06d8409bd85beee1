//! `carillon jobs` and `carillon get`.

use std::collections::HashMap;

use carillon_core::id::JobName;
use carillon_core::job::JobEntry;
use carillon_core::records::HistoryFilter;
use carillon_core::replica::Replica;
use carillon_core::schedule::Upcoming;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Failure, Format, print, replica};
use crate::operator::Operator;
use crate::text;

/// Records looked through for the last outcome of each job.
const RECENT: usize = 500;

pub(super) async fn jobs(operator: &Operator, format: Format) -> Result<(), Failure> {
    let replica = replica(operator).await?;
    let now = Utc::now();
    for (key, why) in &replica.unreadable {
        print::note(&format!("{key}: {why}"));
    }
    if format == Format::Json {
        let all: Vec<Value> = replica.jobs.values().map(|e| as_json(e, &replica, now)).collect();
        return print::json(&all);
    }
    let last = last_outcomes(operator).await;
    let rows = replica.jobs.values().map(|entry| {
        let (schedule, zone) = match entry.job() {
            Some(job) => (job.cron_expr.clone(), job.timezone.clone().unwrap_or_default()),
            None => ("-".to_owned(), String::new()),
        };
        let next = replica
            .next_firing(entry, now)
            .map_or_else(|| "-".to_owned(), |at| format!("in {}", text::ago(at - now)));
        [
            entry.name.to_string(),
            state(entry, &replica),
            schedule,
            zone,
            next,
            last.get(entry.name.as_str()).cloned().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    print::table(["NAME", "STATE", "SCHEDULE", "ZONE", "NEXT", "LAST"], rows)?;
    for entry in replica.jobs.values() {
        if let Err(problems) = &entry.state {
            print::note(&format!("{}: {problems}", entry.name));
        }
    }
    Ok(())
}

async fn last_outcomes(operator: &Operator) -> HashMap<String, String> {
    let now = Utc::now();
    match operator.records.overview(&HistoryFilter::default(), None, RECENT).await {
        Ok(page) => {
            let newest_last = page.records.into_iter().rev();
            newest_last
                .map(|r| {
                    let age = text::ago(now - r.end_time.unwrap_or(r.start_time));
                    (r.job_name, format!("{} {age} ago", r.outcome))
                })
                .collect()
        }
        Err(e) => {
            print::note(&format!("no outcomes: {e}"));
            HashMap::new()
        }
    }
}

fn state(entry: &JobEntry, replica: &Replica) -> String {
    let live = replica.live_of(&entry.name).count();
    match entry.job() {
        None => "broken".to_owned(),
        Some(_) if live > 0 => format!("running {live}"),
        Some(job) if job.enabled => "enabled".to_owned(),
        Some(_) => "paused".to_owned(),
    }
}

fn as_json(entry: &JobEntry, replica: &Replica, now: DateTime<Utc>) -> Value {
    json!({
        "name": entry.name,
        "state": state(entry, replica),
        "revision": entry.mod_revision,
        "next": replica.next_firing(entry, now),
        "problems": entry.state.as_ref().err(),
        "job": entry.job(),
    })
}

pub(super) async fn get(
    operator: &Operator,
    name: &JobName,
    format: Format,
) -> Result<(), Failure> {
    let entry = operator.job(name).await?;
    let checked = match &entry.state {
        Ok(checked) => checked,
        Err(problems) => {
            let raw = String::from_utf8_lossy(&entry.raw);
            print::clean_line(&raw)?;
            return Err(Failure::Failed(format!("{name} is broken: {problems}")));
        }
    };
    if format == Format::Json {
        return print::json(&checked.job);
    }
    let replica = replica(operator).await?;
    let zone = replica.zone_of(checked).map_err(Failure::Failed)?;
    print::clean_line(&format!("{name}   revision {}", entry.mod_revision))?;
    if let Some(other) = entry.misnamed() {
        print::note(&format!("its name field says {other:?}; the key is authoritative"));
    }
    print::clean_line(&format!("  {}", checked.schedule.describe_in(zone)))?;
    let value = serde_json::to_value(&checked.job).unwrap_or_default();
    for (field, value) in value.as_object().into_iter().flatten() {
        let shown = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        print::clean_line(&format!("  {field:<20} {shown}"))?;
    }
    if checked.job.enabled {
        let put_off = checked.job.spread();
        // A slot whose start is still put off is to come.
        let after = Utc::now() - TimeDelta::seconds(put_off.into());
        let coming: Vec<_> = checked.schedule.timeline(zone, after, 5).collect();
        match put_off {
            _ if coming.is_empty() => print::line("  next firings: none, it never fires again")?,
            0 => print::line("  next firings:")?,
            by => print::line(&format!("  next firings, each started {by} s later:"))?,
        }
        for next in coming {
            let line = match next {
                Upcoming::Firing { at, note } => {
                    let at = at.with_timezone(&zone).to_rfc3339();
                    note.map_or(at.clone(), |note| format!("{at}  {note}"))
                }
                Upcoming::Skipped(skipped) => format!("  {skipped}"),
            };
            print::line(&format!("    {line}"))?;
        }
    } else {
        print::line("  paused: it does not fire")?;
    }
    for live in replica.live_of(name) {
        print::line(&format!("  live: run {} on {}", live.run, live.value.worker))?;
    }
    Ok(())
}
