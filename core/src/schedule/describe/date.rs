//! The days in words: `on weekdays`, `on the 1st of each month and on Mondays`.

use super::super::calendar::{FIRST_YEAR, LAST_YEAR};
use super::super::masks::{Fields, Join};
use super::numbers::{Span, Steps, amount, and, numbers, or, ordinal, spans, unrolled};

const ALL_DAYS: u32 = !1;
/// So many months, weekdays on end are told by the first and the last, fewer one by one.
const SHORTEST_RUN: usize = 4;

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
/// A week is told from Monday.
const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONDAY_TO_FRIDAY: [u32; 5] = [0, 1, 2, 3, 4];
const WEEKEND: [u32; 2] = [5, 6];

/// The days of a rule.
pub(super) struct Date {
    /// Empty for every day.
    pub(super) words: String,
    /// No day of a chosen month and year is left out.
    pub(super) every_day: bool,
}

impl Date {
    pub(super) fn of(fields: &Fields) -> Self {
        let either = fields.join == Join::Either;
        let years: Vec<u32> = fields.chosen_years().collect();
        let every_year = years.len() == (FIRST_YEAR..=LAST_YEAR).count();
        let months = Months::of(fields, every_year);
        let week = Week::of(fields);
        let (any_date, any_weekday) = (fields.days == ALL_DAYS, week.plain.len() == 7);
        let every_day = match either {
            true => any_date || any_weekday,
            false => any_date && any_weekday,
        };

        let mut words = if every_day {
            months.within()
        } else if any_date && !either {
            week.on(&months)
        } else if any_weekday && !either {
            format!("{} {}", days(fields), months.of_them())
        } else if either {
            format!("{} {} and {}", days(fields), months.of_them(), week.on(&months))
        } else {
            format!("{} {}, {}", days(fields), months.of_them(), week.condition())
        };
        if !every_year {
            let both = !either && !any_date && !any_weekday;
            words.push_str(match (words.is_empty(), both) {
                (true, _) => "",
                (false, true) => ", ",
                (false, false) => " ",
            });
            words.push_str(&in_years(&years));
        }
        Self { words, every_day }
    }
}

/// The one day of a rule that has no other, as `2030-12-24`.
pub(super) fn only_day(fields: &Fields) -> Option<String> {
    let mut years = fields.chosen_years();
    let (Some(year), None) = (years.next(), years.next()) else {
        return None;
    };
    let one = fields.days.count_ones() == 1
        && fields.months.count_ones() == 1
        && fields.last_days | fields.near_days == 0
        && fields.join != Join::Either
        && fields.weekdays == [1; 7];
    let (month, day) = (fields.months.trailing_zeros(), fields.days.trailing_zeros());
    one.then(|| format!("{year}-{month:02}-{day:02}"))
}

/// `on the 1st and 15th`, `on the 1st, the weekday (Mon-Fri) nearest to the 15th and the last day`.
fn days(fields: &Fields) -> String {
    let plain = spans(&numbers(fields.days.into()), 3);
    let special = fields.last_days | fields.near_days != 0;
    match plain.as_slice() {
        [Span::Run(first, last)] if !special => {
            return format!("from the {} to the {}", ordinal(*first), ordinal(*last));
        }
        _ if special || plain.iter().any(|span| matches!(span, Span::Steps(_))) => {}
        _ => {
            let items = plain.iter().map(|span| day(*span));
            return format!("on the {}", and(&items.collect::<Vec<_>>()));
        }
    }
    let mut items: Vec<String> = plain
        .into_iter()
        .map(|span| match span {
            Span::Steps(_) => day(span),
            Span::One(_) | Span::Run(..) => format!("the {}", day(span)),
        })
        .collect();
    let near = numbers((fields.near_days & !1).into());
    match near.as_slice() {
        [] => {}
        [day] => items.push(format!("the weekday (Mon-Fri) nearest to the {}", ordinal(*day))),
        days => {
            let days: Vec<String> = days.iter().map(|day| ordinal(*day)).collect();
            items.push(format!("the weekdays (Mon-Fri) nearest to the {}", and(&days)));
        }
    }
    if fields.near_days & 1 == 1 {
        items.push("the last weekday (Mon-Fri)".to_owned());
    }
    items.extend(spans(&numbers(fields.last_days.into()), 3).into_iter().rev().map(last_day));
    format!("on {}", and(&items))
}

fn day(span: Span) -> String {
    match span {
        Span::One(day) => ordinal(day),
        Span::Run(first, last) => format!("{} to {}", ordinal(first), ordinal(last)),
        Span::Steps(Steps { first, step, last }) => {
            format!(
                "every {} day from the {} to the {}",
                ordinal(step),
                ordinal(first),
                ordinal(last)
            )
        }
    }
}

/// Days counted back from the last one of the month.
fn last_day(span: Span) -> String {
    match span {
        Span::One(0) => "the last day".to_owned(),
        Span::One(1) => "the day before the last".to_owned(),
        Span::One(days) => format!("the {} day before the last", ordinal(days)),
        Span::Run(0, first) => format!("the last {}", amount(first + 1, "day")),
        Span::Run(last, first) => {
            format!("the {} to the {} day before the last", ordinal(first), ordinal(last))
        }
        Span::Steps(Steps { first, step, last }) => format!(
            "every {} day from the {} to the {} before the last",
            ordinal(step),
            ordinal(last),
            ordinal(first)
        ),
    }
}

/// The months of a rule.
enum Months {
    All,
    /// From the first to the last.
    Run(&'static str, &'static str),
    /// `every 2nd month from January to November`.
    Steps(String),
    Some(String),
}

impl Months {
    /// A run goes on past December where the years are open.
    fn of(fields: &Fields, every_year: bool) -> Self {
        let months = numbers(fields.months.into());
        let months = if every_year { unrolled(&months, 1, 12) } else { months };
        if months.len() == 12 {
            return Self::All;
        }
        let name = |month: u32| name(&MONTHS, month + 11);
        let spans = spans(&months, SHORTEST_RUN);
        let steps = |Steps { first, step, last }: Steps| {
            format!("every {} month from {} to {}", ordinal(step), name(first), name(last))
        };
        match spans.as_slice() {
            [Span::Run(first, last)] => Self::Run(name(*first), name(*last)),
            [Span::Steps(one)] => Self::Steps(steps(*one)),
            _ => {
                let items = spans.iter().map(|span| match *span {
                    Span::One(month) => name(month).to_owned(),
                    Span::Run(first, last) => format!("{} to {}", name(first), name(last)),
                    Span::Steps(one) => steps(one),
                });
                Self::Some(and(&items.collect::<Vec<_>>()))
            }
        }
    }

    /// After days of the month.
    fn of_them(&self) -> String {
        match self {
            Self::All => "of each month".to_owned(),
            Self::Run(first, last) => format!("of each month from {first} to {last}"),
            Self::Steps(words) | Self::Some(words) => format!("of {words}"),
        }
    }

    /// By themselves, or after weekdays.
    fn within(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Run(first, last) => format!("from {first} to {last}"),
            Self::Steps(words) | Self::Some(words) => format!("in {words}"),
        }
    }
}

/// The weekdays of a rule; a day is numbered from Monday.
struct Week {
    /// Those of which every one is chosen.
    plain: Vec<u32>,
    /// `the 1st and 3rd Monday`.
    some: Vec<String>,
}

impl Week {
    fn of(fields: &Fields) -> Self {
        let [sunday, others @ ..] = fields.weekdays;
        let mut week = Self { plain: Vec::new(), some: Vec::new() };
        for (day, chosen) in (0..).zip(others.into_iter().chain([sunday])) {
            if chosen & 1 == 1 {
                week.plain.push(day);
                continue;
            }
            let mut which: Vec<String> =
                (1..=5).filter(|n| chosen >> n & 1 == 1).map(ordinal).collect();
            if chosen >> 6 & 1 == 1 {
                which.push("last".to_owned());
            }
            if !which.is_empty() {
                week.some.push(format!("the {} {}", and(&which), name(&WEEKDAYS, day)));
            }
        }
        week
    }

    /// `on Mondays in January`, `on Mondays and the 2nd Friday of each month`.
    fn on(&self, months: &Months) -> String {
        let run = spans(&unrolled(&self.plain, 0, 7), SHORTEST_RUN);
        let names = match (self.plain.as_slice(), run.as_slice()) {
            (days, _) if days == MONDAY_TO_FRIDAY => vec!["weekdays".to_owned()],
            (days, _) if days == WEEKEND => vec!["weekends".to_owned()],
            (_, [Span::Run(first, last)]) => {
                let stretch =
                    format!("from {} to {}", name(&WEEKDAYS, *first), name(&WEEKDAYS, *last));
                return match self.some.is_empty() {
                    true => with(stretch, &months.within()),
                    false => format!("{stretch} and on {} {}", and(&self.some), months.of_them()),
                };
            }
            (days, _) => days.iter().map(|day| format!("{}s", name(&WEEKDAYS, *day))).collect(),
        };
        match self.some.is_empty() {
            true => with(format!("on {}", and(&names)), &months.within()),
            false => {
                let all = [names, self.some.clone()].concat();
                format!("on {} {}", and(&all), months.of_them())
            }
        }
    }

    /// `if that is a Monday or the 2nd Friday`.
    fn condition(&self) -> String {
        let article = |day: u32| format!("a {}", name(&WEEKDAYS, day));
        if self.some.is_empty() && self.plain.len() > 4 && self.plain != MONDAY_TO_FRIDAY {
            let others = (0..7).filter(|day| !self.plain.contains(day)).map(article);
            return format!("unless that is {}", or(&others.collect::<Vec<_>>()));
        }
        let mut items: Vec<String> = match self.plain == MONDAY_TO_FRIDAY {
            true => vec!["a weekday (Mon-Fri)".to_owned()],
            false => self.plain.iter().map(|day| article(*day)).collect(),
        };
        items.extend(self.some.iter().cloned());
        format!("if that is {}", or(&items))
    }
}

fn with(words: String, more: &str) -> String {
    if more.is_empty() { words } else { format!("{words} {more}") }
}

/// `in 2030`, `from 2030 on`, `in every 2nd year from 2030 to 2040`.
fn in_years(years: &[u32]) -> String {
    let spans = spans(years, 3);
    match spans.as_slice() {
        [Span::Run(first, LAST_YEAR)] => format!("from {first} on"),
        [Span::Run(FIRST_YEAR, last)] => format!("until {last}"),
        [Span::Run(first, last)] => format!("from {first} to {last}"),
        _ => {
            let items = spans.iter().map(|span| match span {
                Span::One(year) => year.to_string(),
                Span::Run(first, last) => format!("{first} to {last}"),
                Span::Steps(Steps { first, step, last }) if last + step > LAST_YEAR => {
                    format!("every {} year from {first} on", ordinal(*step))
                }
                Span::Steps(Steps { first, step, last }) => {
                    format!("every {} year from {first} to {last}", ordinal(*step))
                }
            });
            format!("in {}", and(&items.collect::<Vec<_>>()))
        }
    }
}

/// The name at a place in its cycle.
fn name<const N: usize>(names: &[&'static str; N], place: u32) -> &'static str {
    names.get(place as usize % N).copied().unwrap_or_default()
}
