//! A rule in plain English, from its masks alone: two spellings of one rule read the same, and two
//! rules that fire differently read differently.
//!
//! The common shapes get the words that a person would use. The others are told part by part, with
//! ranges and steps for what is long and even.

mod date;
mod numbers;
mod time;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;

use self::date::Date;
use self::numbers::{amount, every};
use self::time::Time;
use super::compiled::Rule;
use super::masks::Fields;
use super::zone::{Clock, Segment};

/// One sentence, without a capital and a full stop.
pub(super) fn sentence(rule: &Rule) -> String {
    match *rule {
        Rule::Fields(ref fields) => Phrase::of(fields).words(None),
        Rule::Every { period, from } => periods(period, from),
        Rule::At(at) => format!("once at {}", instant(at, "%F %T UTC")),
    }
}

/// The same, with the name of the zone where the firings depend on it.
pub(super) fn sentence_in(rule: &Rule, zone: Tz) -> String {
    let Rule::Fields(fields) = rule else {
        return sentence(rule);
    };
    let phrase = Phrase::of(fields);
    let words = phrase.words(Some(zone));
    match phrase.zoneless {
        true => words,
        false => format!("{words}, {}", zone.name()),
    }
}

struct Phrase<'a> {
    fields: &'a Fields,
    words: String,
    flows: bool,
    zoneless: bool,
}

impl<'a> Phrase<'a> {
    fn of(fields: &'a Fields) -> Self {
        let date = Date::of(fields);
        let Time { words: time, flows, zoneless } = Time::of(fields, date.words.is_empty());
        let a_day = fields.hours.count_ones() < 24;
        let words = match (date::only_day(fields), time.strip_prefix("at ")) {
            (Some(day), Some(time)) if a_time(fields) => format!("once at {day} {time}"),
            (_, Some(time)) if date.every_day && a_day => {
                joined(format!("every day at {time}"), &date.words)
            }
            _ => joined(time, &date.words),
        };
        let zoneless = zoneless && date.words.is_empty() && !fields.fixed;
        Self { fields, words, flows, zoneless }
    }

    /// What a clock change does is said where the words let expect something else; of a zone only
    /// where it is going to happen.
    fn words(&self, zone: Option<Tz>) -> String {
        let expected = self.flows != self.fields.fixed;
        if expected || zone.is_some_and(|zone| !self.is_met_by_a_change(Clock::of(zone))) {
            return self.words.clone();
        }
        let what = match self.fields.fixed {
            true => "never skipped or repeated when the clocks change",
            false => "skipped or repeated when the clocks change",
        };
        format!("{} ({what})", self.words)
    }

    /// Whether the clock will skip or repeat a time that is chosen: in the year of the time zone
    /// database or later.
    fn is_met_by_a_change(&self, clock: &Clock) -> bool {
        let year = chrono_tz::IANA_TZDB_VERSION.get(..4).and_then(|year| year.parse().ok());
        let day = year.and_then(|year| NaiveDate::from_yo_opt(year, 1)).unwrap_or_default();
        let from = day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp();
        let chosen = |(first, last)| self.fields.count_readings(first, last + 1) > 0;
        let changes = clock.segments_from(from).iter().skip(1);
        changes.flat_map(|s: &Segment| [s.skipped(), s.repeated()]).flatten().any(chosen)
    }
}

fn a_time(fields: &Fields) -> bool {
    let [seconds, minutes] = [fields.seconds, fields.minutes].map(|f| f.bits().count_ones());
    (seconds, minutes, fields.hours.count_ones()) == (1, 1, 1)
}

fn joined(words: String, date: &str) -> String {
    if date.is_empty() { words } else { format!("{words} {date}") }
}

/// `every 90 minutes`, `every 2 days at 00:00 UTC`, `every hour from 2026-01-01 00:30 UTC on`.
fn periods(period: u32, from: u32) -> String {
    let pace = pace(period);
    let whole = |number: u32, unit: u32| number.is_multiple_of(unit);
    match from {
        0 if whole(period, 86_400) => format!("{pace} at 00:00 UTC"),
        // Hours, unlike minutes, are told differently from zone to zone.
        0 if period > 3600 && whole(period, 3600) && whole(86_400, period) => {
            format!("{pace} from 00:00 UTC on")
        }
        0 => pace,
        _ => {
            let form = if whole(from, 60) { "%F %R UTC" } else { "%F %T UTC" };
            format!("{pace} from {} on", instant(from, form))
        }
    }
}

fn pace(period: u32) -> String {
    /// `every 90 minutes` is plain, `every 1441 minutes` is not.
    const PLAIN: u32 = 120;
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let whole = |(size, _): &&(u32, &str)| {
        period.is_multiple_of(*size) && (*size == 86_400 || period / size <= PLAIN)
    };
    if let Some((size, unit)) = units.iter().find(whole) {
        return every(period / size, unit);
    }
    let mut rest = period;
    let mut parts = Vec::new();
    for (size, unit) in units.into_iter().filter(|(size, _)| period >= *size) {
        if rest >= size {
            parts.push(amount(rest / size, unit));
        }
        rest %= size;
    }
    format!("every {}", parts.join(" "))
}

fn instant(at: u32, form: &str) -> String {
    let at: DateTime<Utc> = DateTime::from_timestamp(at.into(), 0).unwrap_or_default();
    at.format(form).to_string()
}

#[cfg(test)]
mod tests;
