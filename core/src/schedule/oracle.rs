//! Other libraries as oracles. Where the dialects agree, random expressions must fire alike; where
//! they do not, the tables of the parent module say so, and are themselves the tests.

use std::str::FromStr;

use chrono::{DateTime, Datelike, Offset, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::prelude::*;
use proptest::sample::select;

use super::Schedule;
use super::zone::{self, HORIZON};

/// How many firings are compared.
const FIRINGS: usize = 12;

fn utc(instant: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(instant, 0).unwrap()
}

fn of_cron(expr: &str) -> Result<impl Fn(DateTime<Tz>, usize) -> Vec<DateTime<Tz>>, String> {
    let schedule = cron::Schedule::from_str(expr).map_err(|e| e.to_string())?;
    Ok(move |after: DateTime<Tz>, count| schedule.after(&after).take(count).collect())
}

fn of_croner(expr: &str) -> Result<impl Fn(DateTime<Tz>, usize) -> Vec<DateTime<Tz>>, String> {
    let schedule = croner::Cron::from_str(expr).map_err(|e| e.to_string())?;
    Ok(move |after: DateTime<Tz>, count| schedule.iter_after(after).take(count).collect())
}

fn ours(schedule: &Schedule, after: DateTime<Tz>, count: usize) -> Vec<DateTime<Tz>> {
    let zone = after.timezone();
    let upcoming = schedule.upcoming(zone, after.to_utc()).take(count);
    upcoming.map(|at| at.with_timezone(&zone)).collect()
}

fn number(low: u32, high: u32) -> BoxedStrategy<String> {
    (low..=high).prop_map(|n| n.to_string()).boxed()
}

/// A value, a range that does not wrap around, and steps of it.
fn item(low: u32, high: u32) -> BoxedStrategy<String> {
    let range = (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let range = range.boxed();
    prop_oneof![
        3 => number(low, high),
        2 => range.clone(),
        1 => (range, 1..=high.min(99)).prop_map(|(range, step)| format!("{range}/{step}")),
    ]
    .boxed()
}

fn items(item: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")).boxed()
}

fn starred(most: u32) -> BoxedStrategy<String> {
    prop_oneof![2 => Just("*".to_owned()), 1 => (1..=most).prop_map(|n| format!("*/{n}"))].boxed()
}

fn field(low: u32, high: u32) -> BoxedStrategy<String> {
    prop_oneof![2 => starred(high.min(99)), 3 => items(item(low, high))].boxed()
}

fn names(names: &'static [&'static str]) -> BoxedStrategy<String> {
    let range = (0..names.len(), 0..names.len());
    let range = range.prop_map(|(a, b)| format!("{}-{}", names[a.min(b)], names[a.max(b)]));
    let range = range.boxed();
    prop_oneof![
        2 => select(names).prop_map(str::to_owned),
        1 => range.clone(),
        1 => (range, 1..names.len()).prop_map(|(range, step)| format!("{range}/{step}")),
    ]
    .boxed()
}

fn month() -> BoxedStrategy<String> {
    const MONTHS: [&str; 12] =
        ["JAN", "feb", "MAR", "Apr", "MAY", "JUN", "JUL", "AUG", "sep", "OCT", "NOV", "DEC"];
    prop_oneof![3 => starred(12), 1 => items(item(1, 12)), 1 => items(names(&MONTHS))].boxed()
}

const WEEKDAYS: [&str; 7] = ["SUN", "mon", "TUE", "Wed", "THU", "FRI", "SAT"];

/// What both Carillon and the `cron` crate read, in the same sense: one of the day fields begins
/// with `*` or `?`, weekdays have their names, ranges do not wrap around.
fn for_cron() -> BoxedStrategy<String> {
    let open = || prop_oneof![2 => starred(31), 1 => Just("?".to_owned())];
    let days = prop_oneof![
        (open(), prop_oneof![starred(6), items(names(&WEEKDAYS))]),
        (field(1, 31), prop_oneof![2 => starred(6), 1 => Just("?".to_owned())]),
    ];
    let value = |low, high: u32| {
        let from = (low..=high, 1..=high.min(99)).prop_map(|(a, step)| format!("{a}/{step}"));
        prop_oneof![4 => field(low, high), 1 => from]
    };
    let year = prop_oneof![2 => Just(String::new()), 1 => field(1970, 2100)];
    (value(0, 59), value(0, 59), value(0, 23), days, month(), year)
        .prop_map(|(second, minute, hour, (day, weekday), month, year)| {
            format!("{second} {minute} {hour} {day} {month} {weekday} {year}").trim_end().to_owned()
        })
        .boxed()
}

/// What both Carillon and croner read, in the same sense: where both day fields are restricted,
/// neither has a `*`, and `L` and `LW` are not together.
fn for_croner() -> BoxedStrategy<String> {
    let special_day = || {
        prop_oneof![
            4 => item(1, 31),
            1 => Just("L".to_owned()),
            2 => (1..=31).prop_map(|n| format!("{n}W")),
        ]
        .boxed()
    };
    let day = || prop_oneof![4 => items(special_day()), 1 => Just("LW".to_owned())].boxed();
    let weekday = || {
        let value = || prop_oneof![number(0, 7), select(&WEEKDAYS[..]).prop_map(str::to_owned)];
        let item = prop_oneof![
            3 => item(0, 7),
            // Its `SUN-SUN` is the whole week.
            2 => names(&WEEKDAYS).prop_filter("SUN-SUN", |item| !item.contains("SUN-SUN")),
            1 => Just("FRI-SUN".to_owned()),
            2 => (value(), 1..=5).prop_map(|(day, n)| format!("{day}#{n}")),
            2 => value().prop_map(|day| format!("{day}L")),
        ];
        items(item.boxed())
    };
    let open = || prop_oneof![2 => Just("*".to_owned()), 1 => Just("?".to_owned())];
    let days = prop_oneof![
        2 => (open(), prop_oneof![1 => starred(7), 4 => weekday()]),
        2 => (prop_oneof![1 => starred(31), 4 => day()], open()),
        3 => (day(), weekday()),
    ];
    let second = prop_oneof![2 => Just(String::new()), 1 => field(0, 59).prop_map(|s| s + " ")];
    // Its `*/2` counts from the year 1.
    let year = items(item(1970, 2100)).prop_map(|year| format!(" {year}"));
    let year = prop_oneof![2 => Just(String::new()), 1 => year];
    (second, field(0, 59), field(0, 23), days, month(), year)
        .prop_map(|(mut second, minute, hour, (day, weekday), month, year)| {
            if second.is_empty() && !year.is_empty() {
                second.push_str("0 ");
            }
            format!("{second}{minute} {hour} {day} {month} {weekday}{year}")
        })
        .boxed()
}

/// Both firing lists up to an instant.
fn until(mut firings: Vec<DateTime<Tz>>, end: i64) -> Vec<DateTime<Tz>> {
    firings.retain(|at| at.timestamp() < end);
    firings
}

/// An instant, and the one up to which the zone's clock does not change, with two days to spare.
fn quiet(zone: Tz, after: i64) -> (i64, i64) {
    const DAYS: i64 = 2 * 86_400;
    let start = after.max(2 * DAYS);
    let start = zone::next_transition(zone, start - DAYS, start).map_or(start, |at| at + DAYS);
    let end = zone::next_transition(zone, start, HORIZON).unwrap_or(HORIZON);
    (start, end - DAYS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn fires_as_the_cron_crate_does(
        expr in for_cron(),
        zone in prop_oneof![Just(Tz::UTC), select(&TZ_VARIANTS[..])],
        after in 0..HORIZON,
    ) {
        let theirs = of_cron(&expr).unwrap();
        let (start, end) = quiet(zone, after);
        let start = utc(start).with_timezone(&zone);
        let Ok(schedule) = Schedule::parse(&expr) else {
            prop_assert!(theirs(start, 1).is_empty(), "{}", expr);
            return Ok(());
        };
        prop_assert_eq!(
            until(ours(&schedule, start, FIRINGS), end),
            until(theirs(start, FIRINGS), end),
            "{} in {} after {}", expr, zone, start
        );
    }

    #[test]
    fn fires_as_croner_does(
        expr in for_croner(),
        zone in prop_oneof![Just(Tz::UTC), select(&TZ_VARIANTS[..])],
        after in 0..HORIZON,
    ) {
        let theirs = of_croner(&expr);
        prop_assert!(theirs.is_ok(), "{}: {:?}", expr, theirs.err());
        let theirs = theirs.unwrap();
        let (start, end) = quiet(zone, after);
        let start = utc(start).with_timezone(&zone);
        let Ok(schedule) = Schedule::parse(&expr) else { return Ok(()) };
        prop_assert_eq!(
            until(ours(&schedule, start, FIRINGS), end),
            until(theirs(start, FIRINGS), end),
            "{} in {} after {}", expr, zone, start
        );
    }

    /// One hour and one minute, or all of them, or steps: then croner has the same rule for
    /// clocks that change.
    #[test]
    fn fires_as_croner_does_when_clocks_change(
        minute in prop_oneof![number(0, 59), starred(59)],
        hour in prop_oneof![3 => number(0, 3), 1 => number(0, 23), 2 => starred(23)],
        zone in select(&TZ_VARIANTS[..]),
        from in 0..HORIZON,
        hours in 0..30_i64,
        minutes in 0..60_i64,
    ) {
        let Some(change) = zone::next_transition(zone, from, HORIZON) else { return Ok(()) };
        // Behind a longer gap it does not look.
        let offset = |at| utc(at).with_timezone(&zone).offset().fix().local_minus_utc();
        prop_assume!(offset(change) - offset(change - 1) <= 7200);
        let expr = format!("{minute} {hour} * * *");
        let start = utc(change - hours * 3600 - minutes * 60).with_timezone(&zone);
        prop_assert_eq!(
            ours(&Schedule::parse(&expr).unwrap(), start, FIRINGS),
            of_croner(&expr).unwrap()(start, FIRINGS),
            "{} in {} after {}", expr, zone, start
        );
    }
}

/// What comes of an expression, in the words of the tables.
fn told(read: Result<Vec<DateTime<Tz>>, String>, after: DateTime<Tz>) -> String {
    let Ok(firings) = read else { return "refused".to_owned() };
    if firings.is_empty() {
        return "never".to_owned();
    }
    let shown = firings.iter().map(|at| {
        let year = if at.year() == after.year() { "" } else { " %Y" };
        let offset = if after.timezone() == Tz::UTC { "" } else { "%:::z" };
        at.format(&format!("%-d %b{year} %H:%M{offset}")).to_string()
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Each row of the tables in the parent's documentation is true.
#[test]
fn the_tables_of_disagreements_are_true() {
    let docs = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! "));
    let mut start = None;
    let mut rows = 0;
    for line in docs.skip_while(|line| !line.starts_with("# Disagreements")) {
        if let Some((after, rest)) = line.strip_prefix("From ").and_then(|l| l.split_once(" in ")) {
            let zone: Tz = rest.split([',', ':']).next().unwrap().parse().unwrap();
            start = Some(after.parse::<DateTime<Utc>>().unwrap().with_timezone(&zone));
        }
        let heading = line.starts_with("| what") || line.starts_with("| --");
        let row = line.strip_prefix("| ").filter(|_| !heading);
        let Some((_, cells)) = row.and_then(|row| row.split_once(" | `")) else { continue };
        let [expr, cells @ ..] = &cells.split(" | ").collect::<Vec<_>>()[..] else { panic!() };
        let ([cron, croner, carillon, why], Some(after)) = (cells, start) else { panic!("{line}") };
        let expr =
            expr.strip_suffix('`').unwrap().replace("\\n", "\n").replace("\\u{3000}", "\u{3000}");
        let five = expr.split_whitespace().count() == 5 && !expr.starts_with('@');
        let with_seconds = if five { format!("0 {expr}") } else { expr.clone() };

        let count = |cell: &str| cell.split(',').count();
        let read = of_cron(&with_seconds).map(|firings| firings(after, count(cron)));
        assert_eq!(told(read, after), *cron, "cron: {line}");
        let read = of_croner(&expr).map(|firings| firings(after, count(croner)));
        assert_eq!(told(read, after), *croner, "croner: {line}");
        let read = Schedule::for_job(&expr, "settle", None).map_err(|e| e.to_string());
        let read = read.map(|schedule| ours(&schedule, after, count(carillon)));
        assert_eq!(told(read, after), *carillon, "Carillon: {line}");
        assert!(carillon != cron || carillon != croner, "no disagreement: {line}");
        assert!(why.ends_with(" |"), "{line}");
        rows += 1;
    }
    assert!(rows > 40, "{rows}");
}
