//! The canonical text of a rule: what it means, spelled one way, with `~` resolved. Reading it
//! gives the same rule again.

use std::fmt::{Display, Write};

use chrono::{DateTime, SecondsFormat};

use super::compiled::Rule;
use super::masks::{ALL_YEARS, Fields, Join};

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The expression that stands for every spelling of a rule. The anchor of `@every` is not in it.
pub(super) fn canonical(rule: &Rule) -> String {
    match *rule {
        Rule::Fields(ref fields) => expression(fields),
        Rule::Every { period, .. } => every(period),
        Rule::At(at) => {
            let at = DateTime::from_timestamp(at.into(), 0).unwrap_or_default();
            format!("@at {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
    }
}

fn every(period: u32) -> String {
    let parts = [(period / 86_400, 'd'), (period / 3600 % 24, 'h'), (period / 60 % 60, 'm')];
    let mut text = "@every ".to_owned();
    for (n, unit) in parts.into_iter().chain([(period % 60, 's')]).filter(|(n, _)| *n > 0) {
        // Writing to a string does not fail.
        let _ = write!(text, "{n}{unit}");
    }
    text
}

fn expression(fields: &Fields) -> String {
    let following = !fields.fixed;
    let minutes = Set::new(fields.minutes.bits(), 0, 59);
    let hours = Set::new(fields.hours.into(), 0, 23);
    let (mut minute, hour) = (minutes.text(following), hours.text(following));
    if following && !minute.contains(['*', '/']) && !hour.contains(['*', '/']) {
        // Only a step in it makes the rule follow the clock.
        minute = minutes.with_a_step();
    }
    let (day, weekday) = days(fields);
    let month = Set::new(fields.months.into(), 1, 12).text(true);
    let every_year = fields.years == ALL_YEARS;

    let mut text = format!("{minute} {hour} {day} {month} {weekday}");
    if fields.seconds.bits() != 1 || !every_year {
        text = format!("{} {text}", Set::new(fields.seconds.bits(), 0, 59).text(true));
    }
    if !every_year {
        let years: Vec<u32> = fields.chosen_years().collect();
        text = format!("{text} {}", runs(&years, number).join(","));
    }
    text
}

/// The two day fields. That one of them begins with `*`, and which one may, is part of the rule.
fn days(fields: &Fields) -> (String, String) {
    let open = fields.join != Join::Either;
    let plain = Set::new(fields.days.into(), 1, 31);
    let week = Set::new(fields.whole_weekdays().into(), 0, 6);
    let both_restricted = open && !plain.is_full() && !week.is_full();
    let by_day_first = both_restricted && plain.has(1);

    let mut day = match () {
        () if by_day_first => plain.starred(),
        () if plain.is_full() && open => vec!["*".to_owned()],
        () => plain.items(),
    };
    let numbers = |mask: u32| (0..32).filter(move |n| mask >> n & 1 == 1);
    day.extend(numbers(fields.last_days).map(|n| match n {
        0 => "L".to_owned(),
        _ => format!("L-{n}"),
    }));
    day.extend(numbers(fields.near_days).map(|n| match n {
        0 => "LW".to_owned(),
        _ => format!("{n}W"),
    }));

    let mut weekday = match () {
        () if both_restricted && !by_day_first => week.starred(),
        () if week.is_full() && open => vec!["*".to_owned()],
        () if week.is_full() => vec!["0-6".to_owned()],
        () => runs(&week.values, weekday_name),
    };
    for (name, chosen) in WEEKDAYS.iter().zip(fields.weekdays) {
        for n in (1..=5).filter(|n| chosen >> n & 1 == 1) {
            weekday.push(format!("{name}#{n}"));
        }
        if chosen >> 6 & 1 == 1 {
            weekday.push(format!("{name}L"));
        }
    }
    (day.join(","), weekday.join(","))
}

/// The values of one field.
struct Set {
    values: Vec<u32>,
    min: u32,
    max: u32,
}

impl Set {
    fn new(mask: u64, min: u32, max: u32) -> Self {
        Self { values: (min..=max).filter(|n| mask >> n & 1 == 1).collect(), min, max }
    }

    fn is_full(&self) -> bool {
        self.values.len() == (self.min..=self.max).count()
    }

    fn has(&self, value: u32) -> bool {
        self.values.contains(&value)
    }

    fn items(&self) -> Vec<String> {
        runs(&self.values, number)
    }

    /// With `*` and steps where they are shorter, if the field may have them.
    fn text(&self, steps: bool) -> String {
        match self.progression() {
            _ if !steps => self.items().join(","),
            _ if self.is_full() => "*".to_owned(),
            Some((first, step)) if first == self.min => format!("*/{step}"),
            Some((first, step)) => format!("{first}/{step}"),
            None => self.items().join(","),
        }
    }

    /// First value and step, where every step-th value from the first to the end is chosen.
    fn progression(&self) -> Option<(u32, u32)> {
        let (first, second) = match self.values.as_slice() {
            [first, second, _, ..] => (*first, *second),
            _ => return None,
        };
        let step = second - first;
        let all = (first..=self.max).step_by(step as usize);
        (step > 1 && all.eq(self.values.iter().copied())).then_some((first, step))
    }

    fn with_a_step(&self) -> String {
        let mut items = self.items();
        if let (Some(item), Some(first)) = (items.first_mut(), self.values.first()) {
            *item =
                if item.contains('-') { format!("{item}/1") } else { format!("{first}-{first}/1") };
        }
        items.join(",")
    }

    /// Beginning with `*`, though not all are chosen; the lowest value is.
    fn starred(&self) -> Vec<String> {
        let text = self.text(true);
        if text.starts_with('*') {
            return vec![text];
        }
        // A step past the end chooses the lowest value alone.
        let mut items = vec![format!("*/{}", self.max.max(7))];
        items.extend(runs(self.values.get(1..).unwrap_or_default(), number));
        items
    }
}

/// Three or more neighbours become a range.
fn runs<T: Display>(values: &[u32], show: impl Fn(u32) -> T) -> Vec<String> {
    values
        .chunk_by(|a, b| b - a == 1)
        .flat_map(|run| match run {
            [first, _, .., last] => vec![format!("{}-{}", show(*first), show(*last))],
            _ => run.iter().map(|value| show(*value).to_string()).collect(),
        })
        .collect()
}

fn number(value: u32) -> u32 {
    value
}

fn weekday_name(day: u32) -> &'static str {
    WEEKDAYS.get(day as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Schedule;

    #[test]
    fn one_text_for_every_spelling() {
        for (expr, canonical) in [
            ("@daily", "0 0 * * *"),
            ("00 1 * * 1,2,3,4,5", "0 1 * * MON-FRI"),
            ("0,5,10,15,20,25,30,35,40,45,50,55 * * * *", "*/5 * * * *"),
            ("*/7 0-23 * * *", "*/7 * * * *"),
            ("3/20 * * * *", "3/20 * * * *"),
            ("0 0-23 * * *", "0 0-23 * * *"),
            ("0-30/5 2 * * *", "0-0/1,5,10,15,20,25,30 2 * * *"),
            ("0 0 1-31 * 1", "0 0 1-31 * MON"),
            ("0 0 1 * 0-7", "0 0 1 * 0-6"),
            ("0 0 */2 * 1", "0 0 */2 * MON"),
            ("0 0 */31 * 1", "0 0 */31 * MON"),
            ("0 0 */2,4 * 1", "0 0 */31,3-5,7,9,11,13,15,17,19,21,23,25,27,29,31 * MON"),
            ("0 0 2 * */3", "0 0 2 * */3"),
            ("0 0 13 * */7", "0 0 13 * */7"),
            ("0 0 lw,l-3,15w,1 jan 5l,2#1,0", "0 0 1,L-3,LW,15W 1 SUN,TUE#1,FRIL"),
            ("0 0 1W * 1,5#1,5#2,5#3,5#4,5#5", "0 0 1W * MON,FRI"),
            ("0 0 *,L * 1", "0 0 *,L * MON"),
            ("10 0 0 1 1 ? 2030-2033,2040", "10 0 0 1 1 * 2030-2033,2040"),
            ("@EVERY 90m", "@every 1h30m"),
            ("@at 2030-12-24T09:30:00+08:00", "@at 2030-12-24T01:30:00Z"),
            ("@at 2030-12-24 09:30", "0 30 9 24 12 * 2030"),
        ] {
            let schedule = Schedule::parse(expr).unwrap();
            assert_eq!(schedule.canonical(), canonical, "{expr}");
            let again = Schedule::parse(canonical).unwrap();
            assert!(again.means_the_same(&schedule), "{expr}: {again:?} {schedule:?}");
        }
    }
}
