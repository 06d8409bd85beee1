//! `carillon next`: when a schedule fires, without any store.
//!
//! On standard output stands one firing a line, and behind it what a clock change does to it. What
//! is no firing goes to standard error.

use carillon_core::id::JobName;
use carillon_core::schedule::{ClockNote, Schedule, Upcoming};
use carillon_core::zones::parse_zone;
use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use chrono_tz::Tz;
use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Format, FormatArgument, print};

/// What is asked.
#[derive(Debug, Args)]
pub struct Next {
    /// The schedule, for example '0 1 * * MON-FRI'
    expression: String,
    /// IANA time zone
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// Start after this instant, RFC 3339 [default: now]
    #[arg(long, value_name = "INSTANT")]
    from: Option<DateTime<FixedOffset>>,
    /// How many
    #[arg(short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    n: u32,
    /// The job whose name chooses what ~ stands for
    #[arg(long, value_name = "JOB")]
    name: Option<JobName>,
    /// Where the periods of @every begin, RFC 3339 [default: the Unix epoch]
    #[arg(long, value_name = "INSTANT")]
    anchor: Option<DateTime<FixedOffset>>,
    #[command(flatten)]
    format: FormatArgument,
}

pub(super) fn next(asked: &Next) -> Result<(), Failure> {
    let schedule = read(asked)?;
    let zone = parse_zone(&asked.tz).map_err(Failure::Failed)?;
    let from = asked.from.map_or_else(Utc::now, |at| at.to_utc());
    let coming = schedule.timeline(zone, from, asked.n as usize);
    match asked.format.output {
        Format::Json => as_json(&schedule, zone, coming),
        Format::Table => as_lines(&schedule, zone, coming),
    }
}

fn read(asked: &Next) -> Result<Schedule, Failure> {
    let (expression, anchor) = (&asked.expression, asked.anchor.map(|at| at.to_utc()));
    // Without a name nothing may be chosen by it.
    let name = match &asked.name {
        Some(name) => Ok(name.as_str()),
        None => Schedule::parse(expression).map(|_| ""),
    };
    name.and_then(|name| Schedule::for_job(expression, name, anchor)).map_err(|e| {
        let named = || Schedule::for_job(expression, "a job", anchor).is_ok();
        let hint = match asked.name {
            None if expression.contains('~') && named() => ": add --name JOB",
            _ if !expression.contains([' ', '@']) => " (those of a job: `carillon get JOB`)",
            _ => "",
        };
        Failure::Failed(format!("{e}{hint}\n{}", e.caret(expression)))
    })
}

fn as_lines(
    schedule: &Schedule,
    zone: Tz,
    coming: impl Iterator<Item = Upcoming>,
) -> Result<(), Failure> {
    print::aside(&schedule.describe_in(zone));
    let mut never = true;
    for next in coming {
        match next {
            Upcoming::Firing { at, note } => {
                let text = written(at, zone);
                print::line(&note.map_or(text.clone(), |note| format!("{text}  {note}")))?;
                never = false;
            }
            Upcoming::Skipped(skipped) => print::aside(&format!("  {skipped}")),
        }
    }
    if never {
        print::note("it never fires again");
    }
    Ok(())
}

fn as_json(
    schedule: &Schedule,
    zone: Tz,
    coming: impl Iterator<Item = Upcoming>,
) -> Result<(), Failure> {
    let (mut firings, mut notes): (Vec<String>, Vec<Value>) = (Vec::new(), Vec::new());
    for next in coming {
        match next {
            Upcoming::Firing { at, note } => {
                let at = written(at, zone);
                notes.extend(note.map(|note| {
                    let (kind, times) = match note {
                        ClockNote::Moved { times, .. } => ("moved", times.count),
                        ClockNote::Repeated { .. } => ("repeated", 1),
                        ClockNote::Once { .. } => ("once", 1),
                    };
                    json!({"at": at, "kind": kind, "text": note.to_string(), "times": times})
                }));
                firings.push(at);
            }
            Upcoming::Skipped(skipped) => notes.push(json!({
                "at": written(skipped.at, zone),
                "kind": "skipped",
                "text": skipped.to_string(),
                "times": skipped.count,
            })),
        }
    }
    print::json(&json!({
        "expression": schedule.text(),
        "zone": zone.name(),
        "description": schedule.describe_in(zone),
        "firings": firings,
        "notes": notes,
    }))
}

fn written(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Secs, false)
}
