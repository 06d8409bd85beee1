//! `carillon stats`: a job's past in figures.

use carillon_core::id::JobName;
use carillon_core::records::{Durations, Window};
use carillon_core::run::Outcome;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::Failure;
use super::print::{self, clock};
use super::when::When;
use crate::operator::Operator;
use crate::text;

/// Of which job, and since when.
#[derive(Debug, clap::Args)]
pub struct Stats {
    /// The job
    pub(super) name: JobName,
    /// Since when: an instant in RFC 3339, or how long ago, like 12h
    #[arg(long, value_name = "WHEN", default_value = "30d")]
    pub(super) since: When,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn stats(operator: &Operator, asked: &Stats) -> Result<(), Failure> {
    let name = &asked.name;
    let now = Utc::now();
    let since = asked.since.instant(now);
    if since >= now {
        return Err(Failure::Failed("--since is in the future".to_owned()));
    }
    let stats = operator.records.stats(name, since, now).await?;
    let (this, before) = (&stats.now, &stats.before);
    if this.outcomes.is_empty() && before.outcomes.is_empty() {
        // A name that is none is worth more words than a table of zeros.
        operator.job(name).await?;
    }
    if asked.json {
        return print::json(&json!({
            "job": name,
            "cut": stats.cut,
            "now": in_json(this),
            "before": in_json(before),
        }));
    }
    print::clean_line(&format!(
        "{name} since {}{}",
        clock(this.since),
        if stats.cut { ", its newest 1,000 records" } else { "" }
    ))?;
    let row = |what: &str, now: String, before: String| [what.to_owned(), now, before];
    let mut rows = vec![
        row("runs", this.runs().to_string(), before.runs().to_string()),
        row("succeeded", percent(this), percent(before)),
    ];
    for outcome in Outcome::ALL {
        let (now, then) = (this.count(outcome), before.count(outcome));
        if outcome != Outcome::Succeeded && now + then > 0 {
            rows.push(row(outcome.as_str(), now.to_string(), then.to_string()));
        }
    }
    for part in [Part::Half, Part::Most, Part::Longest] {
        let of = |window: &Window| part.of(window).map_or_else(|| "-".to_owned(), took);
        rows.push(row(part.title(), of(this), of(before)));
    }
    print::table(["", "NOW", "BEFORE"], rows)?;
    if !this.last.is_empty() {
        let last: Vec<&str> = this.last.iter().map(|outcome| outcome.as_str()).collect();
        print::line(&format!("newest first: {}", last.join(", ")))?;
    }
    Ok(())
}

/// What is shown of how long runs took.
#[derive(Debug, Clone, Copy)]
enum Part {
    Half,
    Most,
    Longest,
}

impl Part {
    fn title(self) -> &'static str {
        match self {
            Self::Half => "took, half",
            Self::Most => "took, 95 of 100",
            Self::Longest => "took, longest",
        }
    }

    fn of(self, window: &Window) -> Option<i64> {
        let Durations { p50, p95, max } = window.durations?;
        Some(match self {
            Self::Half => p50,
            Self::Most => p95,
            Self::Longest => max,
        })
    }
}

fn percent(window: &Window) -> String {
    window.success_rate().map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", rate * 100.0))
}

fn took(millis: i64) -> String {
    text::duration(TimeDelta::milliseconds(millis))
}

fn in_json(window: &Window) -> Value {
    json!({
        "since": window.since,
        "until": window.until,
        "runs": window.runs(),
        "successRate": window.success_rate(),
        "outcomes": window.outcomes,
        "durationMillis": window.durations.map(|d| json!({"p50": d.p50, "p95": d.p95, "max": d.max})),
        "last": window.last,
    })
}
