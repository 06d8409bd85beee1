//! The rule written a second time, slowly and obviously, and the engine held against it.
//!
//! The model shares nothing with the engine: it reads the expression by itself, walks UTC by the
//! minute or the second, and asks `chrono-tz` what the clock on the wall shows.

use std::collections::BTreeSet;

use chrono::offset::LocalResult;
use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::{Africa, America, Asia, Australia, Europe, Pacific, Tz};
use proptest::prelude::*;

use super::{Schedule, zone};

const ZONES: [Tz; 10] = [
    Tz::UTC,
    America::New_York,
    Europe::Berlin,
    Australia::Lord_Howe,
    Africa::Casablanca,
    Asia::Shanghai,
    America::Sao_Paulo,
    Pacific::Apia,
    Europe::Dublin,
    Asia::Kathmandu,
];

/// One expression, as sets of numbers.
struct Model {
    fields: [BTreeSet<u32>; 7],
    either_day: bool,
    fixed: bool,
}

impl Model {
    fn read(expr: &str) -> Self {
        let mut parts: Vec<&str> = expr.split_whitespace().collect();
        if parts.len() == 5 {
            parts.insert(0, "0");
        }
        if parts.len() == 6 {
            parts.push("*");
        }
        let lowest = [0, 0, 0, 1, 1, 0, 1970];
        let highest = [59, 59, 23, 31, 12, 6, 2100];
        let fields = std::array::from_fn(|i| set(parts[i], lowest[i], highest[i]));
        let star = |i: usize| parts[i].starts_with(['*', '?']);
        let exact = |i: usize| !parts[i].contains(['*', '/']);
        Self { fields, either_day: !star(3) && !star(5), fixed: exact(1) && exact(2) }
    }

    fn matches(&self, wall: NaiveDateTime) -> bool {
        let [seconds, minutes, hours, days, months, weekdays, years] = &self.fields;
        let by_date = days.contains(&wall.day());
        let by_weekday = weekdays.contains(&wall.weekday().num_days_from_sunday());
        seconds.contains(&wall.second())
            && minutes.contains(&wall.minute())
            && hours.contains(&wall.hour())
            && months.contains(&wall.month())
            && years.contains(&u32::try_from(wall.year()).unwrap())
            && match self.either_day {
                true => by_date || by_weekday,
                false => by_date && by_weekday,
            }
    }

    /// Whether it fires at an instant, for a clock looked at every `step` seconds.
    fn fires(&self, zone: Tz, utc: NaiveDateTime, step: i64) -> bool {
        let step = TimeDelta::seconds(step);
        let offset = |utc: NaiveDateTime| zone.offset_from_utc_datetime(&utc).fix();
        let wall = utc + offset(utc);
        if !self.fixed {
            return self.matches(wall);
        }
        // Just after a gap: anything that the clock jumped over is due now.
        let mut skipped = (utc - step) + offset(utc - step) + step;
        while skipped < wall {
            if self.matches(skipped) {
                return true;
            }
            skipped += step;
        }
        let first = match zone.offset_from_local_datetime(&wall) {
            LocalResult::Single(_) => true,
            LocalResult::Ambiguous(a, b) => {
                let earlier = (wall - a.fix()).min(wall - b.fix());
                earlier == utc
            }
            LocalResult::None => unreachable!("an instant always has a wall time"),
        };
        first && self.matches(wall)
    }

    fn between(&self, zone: Tz, after: i64, through: i64, step: i64) -> Vec<DateTime<Utc>> {
        let first = after.div_euclid(step) * step + step;
        (first..=through)
            .step_by(usize::try_from(step).unwrap())
            .map(|t| DateTime::from_timestamp(t, 0).unwrap())
            .filter(|t| self.fires(zone, t.naive_utc(), step))
            .collect()
    }
}

/// Numbers, `*`, `?`, `a-b` (wrapping where backwards), `/n`, and lists of them.
fn set(field: &str, lowest: u32, highest: u32) -> BTreeSet<u32> {
    let mut values = BTreeSet::new();
    for item in field.split(',') {
        let (base, step) = item.split_once('/').unwrap_or((item, ""));
        let (mut at, end) = match base.split_once('-') {
            _ if base == "*" || base == "?" => (lowest, highest),
            Some((a, b)) => (a.parse().unwrap(), b.parse().unwrap()),
            None if step.is_empty() => (base.parse().unwrap(), base.parse().unwrap()),
            None => (base.parse().unwrap(), highest),
        };
        let step: u32 = step.parse().unwrap_or(1);
        let mut count = 0;
        loop {
            if count % step == 0 {
                values.insert(at);
            }
            if at == end {
                break;
            }
            count += 1;
            at = if at == highest { lowest } else { at + 1 };
        }
    }
    values
}

/// Holds the engine against the model over `(after, through]`.
fn agree(expr: &str, zone: Tz, after: i64, through: i64, step: i64) {
    let schedule = Schedule::parse(expr).unwrap();
    let start = DateTime::from_timestamp(after, 0).unwrap();
    let end = DateTime::from_timestamp(through, 0).unwrap();
    let expected = Model::read(expr).between(zone, after, through, step);
    let found: Vec<_> =
        schedule.upcoming(zone, start).take_while(|t| *t <= end).take(expected.len() + 5).collect();
    assert_eq!(found, expected, "`{expr}` in {zone} after {start}");
    assert_eq!(
        schedule.slots_between(zone, start, end, usize::MAX),
        (expected.len(), expected.last().copied()),
        "slots of `{expr}` in {zone} between {start} and {end}"
    );
}

const AROUND_A_CHANGE: [&str; 16] = [
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "15,45 0-4 * * *",
    "59 23 * * *",
    "10 1,2,3 * * 0",
    "0 12 30 12 *",
    "*/30 * * * *",
    "30 * * * *",
    "* 2 * * *",
    "*/20 1-3 * * *",
    "0 */2 * * *",
    "5 22-2/2 * * *",
    "0 1 1-7 * 0",
];

#[test]
fn every_transition_until_2037_follows_the_rule() {
    let first = 946_684_800;
    let last = 2_145_916_800;
    for zone in ZONES {
        let mut after = first;
        while let Some(change) = zone::next_transition(zone, after, last) {
            for expr in AROUND_A_CHANGE {
                agree(expr, zone, change - 3 * 3600, change + 3 * 3600, 60);
            }
            after = change;
        }
    }
}

#[test]
fn a_skipped_day_and_a_whole_day_around_each_kind_of_change() {
    for (zone, change) in [
        (Pacific::Apia, "2011-12-30T10:00:00Z"),
        (America::New_York, "2026-03-08T07:00:00Z"),
        (America::New_York, "2026-11-01T06:00:00Z"),
        (Australia::Lord_Howe, "2026-04-04T15:00:00Z"),
        (Australia::Lord_Howe, "2026-10-03T15:30:00Z"),
        (America::Sao_Paulo, "2018-11-04T03:00:00Z"),
        (Africa::Casablanca, "2026-02-15T02:00:00Z"),
    ] {
        let change = DateTime::parse_from_rfc3339(change).unwrap().timestamp();
        assert!(zone::next_transition(zone, change - 1, change).is_some());
        for expr in AROUND_A_CHANGE {
            agree(expr, zone, change - 30 * 3600, change + 30 * 3600, 60);
        }
    }
}

#[test]
fn seconds_around_a_change() {
    for (zone, change) in [
        (America::New_York, 1_772_953_200),
        (America::New_York, 1_793_512_800),
        (Australia::Lord_Howe, 1_775_314_800),
    ] {
        for expr in [
            "*/10 30 1 * * *",
            "*/7 0-59 2 * * *",
            "0,59 * * * * *",
            "30 59 1 * * *",
            "5-3/9 */15 * * * *",
        ] {
            agree(expr, zone, change - 4000, change + 4000, 1);
        }
    }
}

fn item(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (low..=high).prop_map(|a| a.to_string()),
        2 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a}-{b}")),
        1 => (low..=high, low..=high, 1..=high).prop_map(|(a, b, s)| format!("{a}-{b}/{s}")),
        1 => (low..=high, 1..=high).prop_map(|(a, s)| format!("{a}/{s}")),
        1 => (1..=high).prop_map(|s| format!("*/{s}")),
    ]
}

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("*".to_owned()),
        3 => prop::collection::vec(item(low, high), 1..4).prop_map(|items| items.join(",")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).prop_map(
        |(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn agrees_with_the_model_in_any_window(
        expr in expression(),
        zone in prop::sample::select(&ZONES[..]),
        after in 946_684_800_i64..2_145_916_800,
    ) {
        if Schedule::parse(&expr).is_ok() {
            agree(&expr, zone, after, after + 2 * 86_400, 60);
        }
    }

    #[test]
    fn agrees_with_the_model_by_the_second(
        second in field(0, 59),
        expr in expression(),
        zone in prop::sample::select(&ZONES[..]),
        after in 946_684_800_i64..2_145_916_800,
    ) {
        let expr = format!("{second} {expr}");
        if Schedule::parse(&expr).is_ok() {
            agree(&expr, zone, after, after + 1500, 1);
        }
    }

    /// Rare firings too: nothing lies between an instant and its next firing, and each counts.
    #[test]
    fn strictly_increasing_whole_seconds_and_counted(
        expr in expression(),
        zone in prop::sample::select(&chrono_tz::TZ_VARIANTS[..]),
        after in -10_i64..4_200_000_000,
        nanos in 0_u32..2_000_000_000,
    ) {
        let Ok(schedule) = Schedule::parse(&expr) else { return Ok(()) };
        let Some(start) = DateTime::from_timestamp(after, nanos.min(999_999_999)) else {
            return Ok(());
        };
        let mut last = start;
        let mut seen = 0;
        for at in schedule.upcoming(zone, start).take(20) {
            prop_assert!(at > last, "{at} after {last}");
            prop_assert_eq!(at.timestamp_subsec_nanos(), 0);
            seen += 1;
            prop_assert_eq!(
                schedule.slots_between(zone, start, at, usize::MAX),
                (seen, Some(at))
            );
            let before = at - TimeDelta::nanoseconds(1);
            prop_assert_eq!(schedule.next_after(zone, before), Some(at));
            let told = schedule.dst_note(zone, at);
            prop_assert!(told.is_none() || zone != Tz::UTC);
            last = at;
        }
        prop_assert!(!schedule.describe().is_empty());
    }

    #[test]
    fn random_text_is_refused_or_works(text in "\\PC{0,40}|[-0-9*/,?@LW#~ A-Za-z]{0,30}( [-0-9*/,]{1,4}){0,6}") {
        match Schedule::parse(&text) {
            Ok(schedule) => {
                let mut last = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
                for at in schedule.upcoming(America::New_York, last).take(3) {
                    prop_assert!(at > last);
                    last = at;
                }
                prop_assert!(!schedule.describe().is_empty());
            }
            Err(error) => {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error.span);
                prop_assert_eq!(error.caret(&text).lines().count(), 2);
                prop_assert!(!error.message.is_empty());
            }
        }
    }
}
