use std::collections::HashMap;

use chrono_tz::{America, Asia, Europe};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::super::Schedule;
use super::super::masks::Sixty;
use super::*;

fn words(expr: &str) -> String {
    Schedule::for_job(expr, "settle", None).unwrap().describe()
}

#[test]
fn times_of_day() {
    for (expr, expected) in [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("3-59/5 * * * *", "every 5 minutes, starting 3 minutes past the hour"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("5/20 * * * * *", "every 20 seconds, starting 5 seconds past the minute"),
        ("15 * * * * *", "at 15 seconds past every minute"),
        ("15 */5 * * * *", "every 5 minutes, starting 15 seconds past the hour"),
        ("0,7 * * * * *", "at seconds 0 and 7 of every minute"),
        ("*/7 * * * * *", "every 7th second from 0 to 56 of every minute"),
        ("5 * * * *", "at 5 minutes past every hour"),
        ("1 * * * *", "at 1 minute past every hour"),
        ("15 30 * * * *", "at 30 minutes 15 seconds past every hour"),
        ("@hourly", "every hour"),
        ("0,20 * * * *", "at minutes 0 and 20 of every hour"),
        ("0,30 * * * *", "every 30 minutes"),
        ("*/7 * * * *", "every 7th minute from 0 to 56 of every hour"),
        ("*/7,58,59 * * * *", "at minutes 58, 59 and every 7th from 0 to 56 of every hour"),
        (
            "0-20/5,30-58/7 * * * *",
            "every 5th minute from 0 to 20 and every 7th from 30 to 58 of every hour",
        ),
        ("0-9,20,30-59/5 * * * *", "at minutes 0-9, 20 and every 5th from 30 to 55 of every hour"),
        ("0 */2 * * *", "every 2 hours"),
        ("0 */6 * * *", "every 6 hours"),
        ("30 1/2 * * *", "every 2 hours starting at 01:30"),
        (
            "0 */5 * * *",
            "every 5 hours from 00:00 to 20:00 (skipped or repeated when the clocks change)",
        ),
        (
            "30 8-20/2 * * *",
            "every 2 hours from 08:30 to 20:30 (skipped or repeated when the clocks change)",
        ),
        ("0 9-17 * * *", "every hour from 09:00 to 17:00"),
        ("15 9-17 * * *", "every hour from 09:15 to 17:15"),
        ("0 22-2 * * *", "every hour from 22:00 to 02:00"),
        ("0 22-2 * * 1", "at 00:00, 01:00, 02:00, 22:00 and 23:00 on Mondays"),
        ("0 0,5,9-17 * * *", "every day at 00:00, 05:00 and every hour from 09:00 to 17:00"),
        ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:45"),
        ("*/15 9-11,13-17 * * *", "every 15 minutes from 09:00 to 11:45 and from 13:00 to 17:45"),
        ("*/5 */2 * * *", "every 5 minutes of every 2nd hour from 0 to 22"),
        (
            "3/5 */2 * * *",
            "every 5 minutes, starting 3 minutes past the hour, of every 2nd hour from 0 to 22",
        ),
        ("* 9-17 * * *", "every minute from 09:00 to 17:59"),
        ("*/10 * 9-17 * * *", "every 10 seconds from 09:00:00 to 17:59:50"),
        ("10-40 2 * * *", "every minute from 02:10 to 02:40"),
        ("10-40/5 2 * * *", "every 5 minutes from 02:10 to 02:40"),
        ("*/5 30 2 * * *", "every 5 seconds from 02:30:00 to 02:30:55"),
        ("30 1 * * *", "every day at 01:30"),
        ("@daily", "every day at 00:00"),
        ("0 1,13 * * *", "every day at 01:00 and 13:00"),
        ("0,30 8,9 * * *", "every day at 08:00, 08:30, 09:00 and 09:30"),
        ("15 30 1 * * *", "every day at 01:30:15"),
        (
            "*/10 30 2 * * *",
            "every day at 02:30:00, 02:30:10, 02:30:20, 02:30:30, 02:30:40 and 02:30:50",
        ),
        ("1-9 22-2 * * *", "every day at minutes 1-9 of hours 0-2, 22 and 23"),
        ("0,20 0 9-17 * * *", "every day at seconds 0 and 20 of minute 0 of hours 9-17"),
        ("~ 3 * * *", "every day at 03:25"),
    ] {
        assert_eq!(words(expr), expected, "{expr}");
    }
}

#[test]
fn days() {
    for (expr, expected) in [
        ("* * 1 * *", "every minute on the 1st of each month"),
        ("0 9 * * MON-FRI", "at 09:00 on weekdays"),
        ("0 9-17 * * 1-5", "every hour from 09:00 to 17:00 on weekdays"),
        ("0 9 * * SAT,SUN", "at 09:00 on weekends"),
        ("0 9 * * SUN,MON,wed", "at 09:00 on Mondays, Wednesdays and Sundays"),
        ("0 9 * * THU-SUN", "at 09:00 from Thursday to Sunday"),
        ("0 9 * * FRI-TUE", "at 09:00 from Friday to Tuesday"),
        ("0 1 1 * 1", "at 01:00 on the 1st of each month and on Mondays"),
        (
            "0 1 1 1,7 1",
            "at 01:00 on the 1st of January and July and on Mondays in January and July",
        ),
        ("0 1 1-31 * 1", "every day at 01:00"),
        (
            "0 1 */10 * 1",
            "at 01:00 on the 1st, 11th, 21st and 31st of each month, if that is a Monday",
        ),
        (
            "0 1 */10 * 1-5",
            "at 01:00 on the 1st, 11th, 21st and 31st of each month, if that is a weekday (Mon-Fri)",
        ),
        (
            "0 1 */10 * 1-6",
            "at 01:00 on the 1st, 11th, 21st and 31st of each month, unless that is a Sunday",
        ),
        ("0 1 *,L * 1", "at 01:00 on Mondays"),
        ("0 0 */2 * *", "at 00:00 on every 2nd day from the 1st to the 31st of each month"),
        ("0 0 1-7,15 * *", "at 00:00 on the 1st to 7th and 15th of each month"),
        ("0 0 1-7 * *", "at 00:00 from the 1st to the 7th of each month"),
        ("0 0 * 6-8 *", "every day at 00:00 in June, July and August"),
        ("0 0 * 3-8 *", "every day at 00:00 from March to August"),
        ("0 0 * OCT-MAR *", "every day at 00:00 from October to March"),
        ("0 0 1 */2 *", "at 00:00 on the 1st of every 2nd month from January to November"),
        ("0 0 1 */3 *", "at 00:00 on the 1st of January, April, July and October"),
        ("@yearly", "at 00:00 on the 1st of January"),
        ("@weekly", "at 00:00 on Sundays"),
        ("0 0 0 1 1 ? 2026-2030", "at 00:00 on the 1st of January from 2026 to 2030"),
        ("0 0 0 * * ? 2030-2100", "every day at 00:00 from 2030 on"),
        ("0 0 0 * * ? 1970-2030", "every day at 00:00 until 2030"),
        ("0 0 0 * * ? 2030/2", "every day at 00:00 in every 2nd year from 2030 on"),
        ("0 0 0 * * ? 2030-2040/2", "every day at 00:00 in every 2nd year from 2030 to 2040"),
        ("0 0 0 * * ? 2026,2030-2033", "every day at 00:00 in 2026 and 2030 to 2033"),
        (
            "0 0 0 */10 * 1 2030",
            "at 00:00 on the 1st, 11th, 21st and 31st of each month, if that is a Monday, in 2030",
        ),
        ("0 0 0 * * ? 2030", "every day at 00:00 in 2030"),
    ] {
        assert_eq!(words(expr), expected, "{expr}");
    }
}

#[test]
fn special_days() {
    for (expr, expected) in [
        ("0 1 L * *", "at 01:00 on the last day of each month"),
        ("0 1 L-1 * *", "at 01:00 on the day before the last of each month"),
        ("0 1 L-3 * *", "at 01:00 on the 3rd day before the last of each month"),
        ("0 1 L,L-1,L-2 * *", "at 01:00 on the last 3 days of each month"),
        ("0 1 L,L-5 * *", "at 01:00 on the 5th day before the last and the last day of each month"),
        ("0 1 LW * *", "at 01:00 on the last weekday (Mon-Fri) of each month"),
        ("0 1 15W * *", "at 01:00 on the weekday (Mon-Fri) nearest to the 15th of each month"),
        (
            "0 1 1W,15W 3 *",
            "at 01:00 on the weekdays (Mon-Fri) nearest to the 1st and 15th of March",
        ),
        (
            "0 1 1,15W,LW,L * *",
            "at 01:00 on the 1st, the weekday (Mon-Fri) nearest to the 15th, the last weekday (Mon-Fri) and the last day of each month",
        ),
        ("0 1 1-3,L * *", "at 01:00 on the 1st to 3rd and the last day of each month"),
        ("0 1 L 2,12 *", "at 01:00 on the last day of February and December"),
        ("0 1 * * FRI#2", "at 01:00 on the 2nd Friday of each month"),
        ("0 1 * * 5L", "at 01:00 on the last Friday of each month"),
        ("0 1 * 1 1#1,1#3,5L", "at 01:00 on the 1st and 3rd Monday and the last Friday of January"),
        ("0 1 * * MON,FRI#2", "at 01:00 on Mondays and the 2nd Friday of each month"),
        (
            "0 1 * * MON-THU,FRI#2",
            "at 01:00 from Monday to Thursday and on the 2nd Friday of each month",
        ),
        ("0 1 L * FRI", "at 01:00 on the last day of each month and on Fridays"),
        ("0 1 1 * FRI#2", "at 01:00 on the 1st of each month and on the 2nd Friday of each month"),
        (
            "0 1 */31,8-14 * 1#2,3",
            "at 01:00 on the 1st and 8th to 14th of each month, if that is a Wednesday or the 2nd Monday",
        ),
    ] {
        assert_eq!(words(expr), expected, "{expr}");
    }
}

#[test]
fn instants_and_periods() {
    for (expr, expected) in [
        ("@every 90s", "every 90 seconds"),
        ("@every 1h30m", "every 90 minutes"),
        ("@every 60m", "every hour"),
        ("@every 6h", "every 6 hours from 00:00 UTC on"),
        ("@every 36h", "every 36 hours"),
        ("@every 15s", "every 15 seconds"),
        ("@every 1d", "every day at 00:00 UTC"),
        ("@every 2d", "every 2 days at 00:00 UTC"),
        ("@every 1d1m", "every 1 day 1 minute"),
        ("@every 1h1m1s", "every 1 hour 1 minute 1 second"),
        ("@at 2030-12-24T09:30:00+08:00", "once at 2030-12-24 01:30:00 UTC"),
        ("@at 2030-12-24 09:30", "once at 2030-12-24 09:30"),
        ("@at 2030-12-24 09:30:05", "once at 2030-12-24 09:30:05"),
        ("0 30 9 24 12 ? 2030", "once at 2030-12-24 09:30"),
        ("0 30 9,10 24 12 ? 2030", "at 09:30 and 10:30 on the 24th of December in 2030"),
    ] {
        assert_eq!(words(expr), expected, "{expr}");
    }
    for (expr, anchor, expected) in [
        ("@every 90m", "2026-01-01T00:00:00Z", "every 90 minutes from 2026-01-01 00:00 UTC on"),
        ("@every 2d", "2026-01-01T08:30:15Z", "every 2 days from 2026-01-01 08:30:15 UTC on"),
        ("@every 2d", "1970-01-01T00:00:00Z", "every 2 days at 00:00 UTC"),
        ("0 1 * * *", "2026-01-01T00:00:00Z", "every day at 01:00"),
    ] {
        let anchor = Some(anchor.parse().unwrap());
        let schedule = Schedule::for_job(expr, "settle", anchor).unwrap();
        assert_eq!(schedule.describe(), expected, "{expr}");
    }
}

#[test]
fn the_zone_and_its_changes_are_named_where_they_matter() {
    let (ny, shanghai) = (America::New_York, Asia::Shanghai);
    for (expr, zone, expected) in [
        ("0 1 1 * 1", shanghai, "at 01:00 on the 1st of each month and on Mondays, Asia/Shanghai"),
        ("@at 2030-12-24 09:30", Europe::Berlin, "once at 2030-12-24 09:30, Europe/Berlin"),
        ("@at 2030-12-24T09:30:00Z", Europe::Berlin, "once at 2030-12-24 09:30:00 UTC"),
        ("@every 90m", ny, "every 90 minutes"),
        ("@hourly", shanghai, "every hour, Asia/Shanghai"),
        ("*/5 * * * *", shanghai, "every 5 minutes"),
        ("* * * * * *", ny, "every second"),
        ("*/20 * * * *", ny, "every 20 minutes, America/New_York"),
        ("*/5 * * 6 *", shanghai, "every 5 minutes in June, Asia/Shanghai"),
        ("30 2 * * *", ny, "every day at 02:30, America/New_York"),
        (
            "*/30 2 * * *",
            ny,
            "every day at 02:00 and 02:30 (skipped or repeated when the clocks change), America/New_York",
        ),
        ("*/30 2 * * *", shanghai, "every day at 02:00 and 02:30, Asia/Shanghai"),
        ("*/30 12 * * *", ny, "every day at 12:00 and 12:30, America/New_York"),
        ("0 */12 * * *", ny, "every day at 00:00 and 12:00, America/New_York"),
        (
            "0 0-23 * * *",
            ny,
            "every hour (never skipped or repeated when the clocks change), America/New_York",
        ),
        ("0 0-23 * * *", Tz::UTC, "every hour, UTC"),
    ] {
        let schedule = Schedule::parse(expr).unwrap();
        assert_eq!(schedule.describe_in(zone), expected, "{expr}");
    }
}

fn item(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (low..=high).prop_map(|a| a.to_string()),
        2 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a}-{b}")),
        1 => (low..=high, low..=high, 1..=6_u32).prop_map(|(a, b, s)| format!("{a}-{b}/{s}")),
        1 => (low..=high, 1..=6_u32).prop_map(|(a, s)| format!("{a}/{s}")),
        1 => (1..=6_u32).prop_map(|s| format!("*/{s}")),
    ]
}

fn list(item: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("*".to_owned()),
        2 => item.clone(),
        1 => prop::collection::vec(item, 2..5).prop_map(|items| items.join(",")),
    ]
}

fn day() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        3 => item(1, 31).boxed(),
        1 => (0..9_u32).prop_map(|n| format!("L-{n}")).boxed(),
        1 => (1..=31_u32).prop_map(|n| format!("{n}W")).boxed(),
        1 => Just("L".to_owned()).boxed(),
        1 => Just("LW".to_owned()).boxed(),
    ]
    .boxed()
}

fn weekday() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        3 => item(0, 6).boxed(),
        1 => (0..7_u32, 1..6_u32).prop_map(|(day, n)| format!("{day}#{n}")).boxed(),
        1 => (0..7_u32).prop_map(|day| format!("{day}L")).boxed(),
    ]
    .boxed()
}

fn year() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("*".to_owned()),
        1 => (2026..2030_u32).prop_map(|a| a.to_string()),
        1 => (1970..2100_u32, 1..5_u32).prop_map(|(a, s)| format!("{a}/{s}")),
        1 => (1970..2050_u32, 2050..=2100_u32, 1..5_u32).prop_map(|(a, b, s)| format!("{a}-{b}/{s}")),
    ]
}

/// Two expressions that differ in one field at most.
fn neighbours() -> impl Strategy<Value = [String; 2]> {
    let fields = || {
        (
            prop_oneof![3 => Just("0".to_owned()), 1 => list(item(0, 59).boxed())],
            list(item(0, 59).boxed()),
            list(item(0, 23).boxed()),
            list(day()),
            list(item(1, 12).boxed()),
            list(weekday()),
            year(),
        )
    };
    (fields(), fields(), 0..7_usize).prop_map(|(a, b, changed)| {
        let a = [a.0, a.1, a.2, a.3, a.4, a.5, a.6];
        let mut other = a.clone();
        other[changed] = [b.0, b.1, b.2, b.3, b.4, b.5, b.6][changed].clone();
        [a.join(" "), other.join(" ")]
    })
}

/// Whether two rules fire alike, though they may be spelled differently.
fn alike(a: &Rule, b: &Rule) -> bool {
    let (Rule::Fields(a), Rule::Fields(b)) = (a, b) else {
        return a == b;
    };
    let midnight = |fields: &Fields| Fields {
        seconds: Sixty::new(1),
        minutes: Sixty::new(1),
        hours: 1,
        ..*fields
    };
    let days = |fields: &Fields| {
        let fields = midnight(fields);
        let days =
            std::iter::successors(fields.next_reading(0), move |day| fields.next_reading(day + 1));
        days.collect::<Vec<_>>()
    };
    (a.seconds, a.minutes, a.hours, a.fixed) == (b.seconds, b.minutes, b.hours, b.fixed)
        && days(a) == days(b)
}

#[test]
fn rules_that_differ_read_differently() {
    let mut runner = TestRunner::deterministic();
    let mut seen: HashMap<String, Schedule> = HashMap::new();
    let mut longest = String::new();
    for _ in 0..4_000 {
        for expr in neighbours().new_tree(&mut runner).unwrap().current() {
            let Ok(schedule) = Schedule::parse(&expr) else { continue };
            let words = schedule.describe();
            assert_eq!(Schedule::parse(&schedule.canonical()).unwrap().describe(), words, "{expr}");
            assert_prose(&words, &expr);
            if words.len() > longest.len() {
                longest.clone_from(&words);
            }
            match seen.get(&words) {
                Some(other) => assert!(
                    other.means_the_same(&schedule) || alike(&other.0.rule, &schedule.0.rule),
                    "`{other}` and `{schedule}` both read: {words}"
                ),
                None => drop(seen.insert(words, schedule)),
            }
        }
    }
    assert!(seen.len() > 5_000, "{}", seen.len());
    println!("{} sentences, the longest: {longest}", seen.len());
}

fn assert_prose(words: &str, expr: &str) {
    assert!(words.starts_with("every ") || words.starts_with("at ") || words.starts_with("once "));
    for wrong in ["  ", " ,", ",,", "{", "}", "None", "Some", " and and ", "of of", "()", "[", "_"]
    {
        assert!(!words.contains(wrong), "{expr}: {words}");
    }
    assert_eq!(words.trim(), words, "{expr}");
    let known = |c: char| c.is_ascii_alphanumeric() || " ,:-()".contains(c);
    assert!(words.chars().all(known), "{expr}: {words}");
}
