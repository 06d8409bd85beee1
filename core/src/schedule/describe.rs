//! A rule in plain English, from its masks alone: two spellings of one rule read the same.
//!
//! The common shapes get the words that a person would use; all others are enumerated, which is
//! longer but never wrong.

use super::calendar::{FIRST_YEAR, LAST_YEAR};
use super::compiled::{Fields, Join, Rule};

const ALL_DAYS: u32 = !1;
const ALL_MONTHS: u16 = 0b1_1111_1111_1110;
const ALL_WEEKDAYS: u8 = 0b111_1111;
/// More times of day than this are not listed one by one.
const LISTED_TIMES: usize = 6;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays"];

/// One sentence, without a capital and a full stop.
pub(super) fn sentence(rule: &Rule) -> String {
    match rule {
        Rule::Every { period, .. } => every(i64::from(*period)),
        Rule::At(at) => format!("once at {at}"),
        Rule::Fields(fields) => {
            let time = time(fields);
            let date = date(fields);
            let in_the_day = time.starts_with("at ") && fields.hours.count_ones() < 24;
            match (date.is_empty(), in_the_day) {
                (false, _) => format!("{time} {date}"),
                (true, true) => format!("every day {time}"),
                (true, false) => time,
            }
        }
    }
}

fn every(period: i64) -> String {
    let parts = [
        (period / 86_400, "day"),
        (period / 3600 % 24, "hour"),
        (period / 60 % 60, "minute"),
        (period % 60, "second"),
    ];
    let words: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| match n {
            1 => format!("1 {unit}"),
            _ => format!("{n} {unit}s"),
        })
        .collect();
    let words = words.join(" ");
    let single = words.strip_prefix("1 ").filter(|rest| !rest.contains(' '));
    let words = single.unwrap_or(&words);
    match period % 86_400 {
        0 => format!("every {words} at 00:00 UTC"),
        _ => format!("every {words}"),
    }
}

/// The time of day: `at 01:00`, `every 5 minutes`, `every hour from 09:00 to 17:00`.
fn time(fields: &Fields) -> String {
    let seconds = bits(fields.seconds.bits());
    let minutes = bits(fields.minutes.bits());
    let hours = bits(u64::from(fields.hours));
    let on_the_minute = seconds == [0];

    let total = seconds.len() * minutes.len() * hours.len();
    if total <= LISTED_TIMES {
        let mut times = Vec::with_capacity(total);
        for hour in &hours {
            for minute in &minutes {
                for second in &seconds {
                    times.push(clock(*hour, *minute, *second, on_the_minute));
                }
            }
        }
        return format!("at {}", list(&times));
    }
    let every_hour = hours.len() == 24;
    let every_minute = minutes.len() == 60;
    if every_hour && every_minute && !on_the_minute {
        return match cycle(&seconds, 60) {
            Some((step, 0)) => repeat(step, "second"),
            Some((step, first)) => format!(
                "{}, starting {} past the minute",
                repeat(step, "second"),
                amount(first, "second")
            ),
            None => format!("at {} of every minute", values("second", &seconds)),
        };
    }
    if on_the_minute && every_hour {
        return match (minutes.as_slice(), cycle(&minutes, 60)) {
            ([0], _) => "every hour".to_owned(),
            ([minute], _) => format!("at {} past every hour", amount(*minute, "minute")),
            (_, Some((step, 0))) => repeat(step, "minute"),
            (_, Some((step, first))) => format!(
                "{}, starting {} past the hour",
                repeat(step, "minute"),
                amount(first, "minute")
            ),
            (_, None) => format!("at {} of every hour", values("minute", &minutes)),
        };
    }
    if on_the_minute
        && let ([minute], Some((step, first))) = (minutes.as_slice(), cycle(&hours, 24))
    {
        return match (first, minute) {
            (0, 0) => repeat(step, "hour"),
            _ => format!("{} starting at {}", repeat(step, "hour"), clock(first, *minute, 0, true)),
        };
    }
    if on_the_minute
        && let Some(pace) = match (minutes.as_slice(), cycle(&minutes, 60)) {
            ([_], _) => Some("every hour".to_owned()),
            (_, Some((step, _))) => Some(repeat(step, "minute")),
            _ => None,
        }
        && is_run(&hours)
        && let (Some(first_hour), Some(last_hour)) = (hours.first(), hours.last())
        && let (Some(first), Some(last)) = (minutes.first(), minutes.last())
    {
        return format!(
            "{pace} from {} to {}",
            clock(*first_hour, *first, 0, true),
            clock(*last_hour, *last, 0, true)
        );
    }
    let mut parts = Vec::new();
    if !on_the_minute {
        parts.push(if seconds.len() == 60 {
            "every second".to_owned()
        } else {
            values("second", &seconds)
        });
    }
    parts.push(if every_minute { "every minute".to_owned() } else { values("minute", &minutes) });
    parts.push(if every_hour { "every hour".to_owned() } else { values("hour", &hours) });
    let words = parts.join(" of ");
    if words.starts_with("every") { words } else { format!("at {words}") }
}

/// The days: `on weekdays`, `on the 1st of each month and on Mondays`; empty for every day.
fn date(fields: &Fields) -> String {
    let days_open = fields.days & ALL_DAYS == ALL_DAYS;
    let weekdays_open = fields.whole_weekdays() == ALL_WEEKDAYS;
    let every_day = match fields.join == Join::Either {
        true => days_open || weekdays_open,
        false => days_open && weekdays_open,
    };
    let months: Vec<&str> = bits(u64::from(fields.months))
        .iter()
        .filter_map(|m| MONTHS.get(usize::try_from(*m).ok()?.checked_sub(1)?))
        .copied()
        .collect();
    let every_month = fields.months & ALL_MONTHS == ALL_MONTHS;
    let of_months = match every_month {
        true => "of each month".to_owned(),
        false => format!("of {}", list(&months)),
    };
    let dates = || format!("on the {} {of_months}", ordinals(&bits(u64::from(fields.days))));
    let in_months = match every_month {
        true => String::new(),
        false => format!(" in {}", list(&months)),
    };
    let week = weekdays(fields.whole_weekdays());

    let mut words = if every_day {
        in_months.trim_start().to_owned()
    } else if fields.join == Join::Either {
        format!("{} and on {week}{in_months}", dates())
    } else if days_open {
        format!("on {week}{in_months}")
    } else if weekdays_open {
        dates()
    } else {
        format!("{}, if on {week}", dates())
    };
    let years: Vec<i64> = fields.chosen_years().map(i64::from).collect();
    if let (Some(first), Some(last)) = (years.first(), years.last())
        && (*first, *last, years.len())
            != (i64::from(FIRST_YEAR), i64::from(LAST_YEAR), every_year())
    {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(&match (years.len() > 2, is_run(&years), *last as u32) {
            (true, true, LAST_YEAR) => format!("from {first} on"),
            (true, true, _) => format!("from {first} to {last}"),
            _ => format!("in {}", list(&years)),
        });
    }
    words
}

fn every_year() -> usize {
    (LAST_YEAR - FIRST_YEAR + 1) as usize
}

fn weekdays(mask: u8) -> String {
    match mask {
        0b011_1110 => "weekdays".to_owned(),
        0b100_0001 => "weekends".to_owned(),
        _ => {
            // A week is read from Monday.
            let names: Vec<&str> = [1, 2, 3, 4, 5, 6, 0]
                .into_iter()
                .filter(|day| mask >> day & 1 == 1)
                .filter_map(|day: usize| WEEKDAYS.get(day).copied())
                .collect();
            list(&names)
        }
    }
}

fn bits(mask: u64) -> Vec<i64> {
    (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
}

fn clock(hour: i64, minute: i64, second: i64, short: bool) -> String {
    match short {
        true => format!("{hour:02}:{minute:02}"),
        false => format!("{hour:02}:{minute:02}:{second:02}"),
    }
}

/// Step and first value, where the values repeat evenly across the end of the field too.
fn cycle(values: &[i64], length: i64) -> Option<(i64, i64)> {
    let (first, step) = match values {
        [first, second, ..] => (*first, second - first),
        _ => return None,
    };
    let even = values.windows(2).all(|w| matches!(w, [a, b] if b - a == step));
    let whole = length % step == 0 && i64::try_from(values.len()).ok()? == length / step;
    (even && whole).then_some((step, first))
}

fn is_run(values: &[i64]) -> bool {
    values.windows(2).all(|w| matches!(w, [a, b] if b - a == 1))
}

fn repeat(step: i64, unit: &str) -> String {
    match step {
        1 => format!("every {unit}"),
        _ => format!("every {step} {unit}s"),
    }
}

fn amount(n: i64, unit: &str) -> String {
    match n {
        1 => format!("1 {unit}"),
        _ => format!("{n} {unit}s"),
    }
}

/// `minute 5`, `minutes 0-9, 20 and 40`.
fn values(unit: &str, values: &[i64]) -> String {
    match values {
        [one] => format!("{unit} {one}"),
        _ => format!("{unit}s {}", list(&runs(values, i64::to_string, "-"))),
    }
}

/// `1st`, `1st to 7th and 15th`.
fn ordinals(days: &[i64]) -> String {
    let ordinal = |day: &i64| {
        let suffix = match (day % 10, day / 10) {
            (1, 0 | 2 | 3) => "st",
            (2, 0 | 2) => "nd",
            (3, 0 | 2) => "rd",
            _ => "th",
        };
        format!("{day}{suffix}")
    };
    list(&runs(days, ordinal, " to "))
}

/// Three or more neighbours become a range.
fn runs(values: &[i64], show: impl Fn(&i64) -> String, dash: &str) -> Vec<String> {
    values
        .chunk_by(|a, b| b - a == 1)
        .flat_map(|run| match run {
            [first, _, .., last] => vec![format!("{}{dash}{}", show(first), show(last))],
            _ => run.iter().map(&show).collect(),
        })
        .collect()
}

/// `a`, `a and b`, `a, b and c`.
fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    match items.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Schedule;

    #[test]
    fn plain_words() {
        for (expr, words) in [
            ("* * * * *", "every minute"),
            ("*/5 * * * *", "every 5 minutes"),
            ("3-59/5 * * * *", "every 5 minutes, starting 3 minutes past the hour"),
            ("* * * * * *", "every second"),
            ("*/10 * * * * *", "every 10 seconds"),
            ("5/20 * * * * *", "every 20 seconds, starting 5 seconds past the minute"),
            ("0,7 * * * * *", "at seconds 0 and 7 of every minute"),
            ("5 * * * *", "at 5 minutes past every hour"),
            ("1 * * * *", "at 1 minute past every hour"),
            ("@hourly", "every hour"),
            ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
            ("0 */2 * * *", "every 2 hours"),
            ("30 1/2 * * *", "every 2 hours starting at 01:30"),
            ("0 9-17 * * 1-5", "every hour from 09:00 to 17:00 on weekdays"),
            ("15 9-17 * * *", "every hour from 09:15 to 17:15"),
            ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:45"),
            ("* 9-17 * * *", "every minute from 09:00 to 17:59"),
            ("* * 1 * *", "every minute on the 1st of each month"),
            ("30 1 * * *", "every day at 01:30"),
            ("@daily", "every day at 00:00"),
            ("0 1,13 * * *", "every day at 01:00 and 13:00"),
            ("0,30 8,9 * * *", "every day at 08:00, 08:30, 09:00 and 09:30"),
            ("15 30 1 * * *", "every day at 01:30:15"),
            ("0 9 * * MON-FRI", "at 09:00 on weekdays"),
            ("0 9 * * SAT,SUN", "at 09:00 on weekends"),
            ("0 9 * * SUN,MON,wed", "at 09:00 on Mondays, Wednesdays and Sundays"),
            ("0 1 1 * 1", "at 01:00 on the 1st of each month and on Mondays"),
            (
                "0 1 1 1,7 1",
                "at 01:00 on the 1st of January and July and on Mondays in January and July",
            ),
            ("0 1 1-31 * 1", "every day at 01:00"),
            (
                "0 1 */10 * 1",
                "at 01:00 on the 1st, 11th, 21st and 31st of each month, if on Mondays",
            ),
            ("0 0 1-7,15 * *", "at 00:00 on the 1st to 7th and 15th of each month"),
            ("0 0 * 6-8 *", "at 00:00 in June, July and August"),
            ("@yearly", "at 00:00 on the 1st of January"),
            ("@weekly", "at 00:00 on Sundays"),
            ("0 30 9 24 12 ? 2030", "at 09:30 on the 24th of December in 2030"),
            ("0 0 0 1 1 ? 2026-2030", "at 00:00 on the 1st of January from 2026 to 2030"),
            ("0 0 0 * * ? 2030-2100", "at 00:00 from 2030 on"),
            (
                "0 0 0 * * ? 2030/2",
                "at 00:00 in 2030, 2032, 2034, 2036, 2038, 2040, 2042, 2044, 2046, 2048, 2050, 2052, 2054, 2056, 2058, 2060, 2062, 2064, 2066, 2068, 2070, 2072, 2074, 2076, 2078, 2080, 2082, 2084, 2086, 2088, 2090, 2092, 2094, 2096, 2098 and 2100",
            ),
            (
                "*/10 30 2 * * *",
                "every day at 02:30:00, 02:30:10, 02:30:20, 02:30:30, 02:30:40 and 02:30:50",
            ),
            (
                "*/5 30 2 * * *",
                "every day at seconds 0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50 and 55 of minute 30 of hour 2",
            ),
            ("* 5 * * * *", "every second of minute 5 of every hour"),
            ("1-9 22-2 * * *", "every day at minutes 1-9 of hours 0-2, 22 and 23"),
            ("@every 90s", "every 1 minute 30 seconds"),
            ("@every 1h30m", "every 1 hour 30 minutes"),
            ("@every 60m", "every hour"),
            ("@every 15s", "every 15 seconds"),
            ("@every 2d", "every 2 days at 00:00 UTC"),
        ] {
            assert_eq!(Schedule::parse(expr).unwrap().describe(), words, "{expr}");
        }
    }
}
