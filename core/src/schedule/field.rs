//! One field of an expression: what it accepts, how it is spelled for the `cron` crate, and what to
//! say when it is wrong.
//!
//! The crate knows neither wrap-around ranges nor a step after a name, none of `L`, `W`, `#` and
//! `~`, and counts Sunday as 1; its messages name no place. So values are read and checked here
//! first.

use std::fmt::Write;
use std::ops::Range;

use super::ScheduleError;
use super::calendar::{FIRST_YEAR, LAST_YEAR};
use super::chosen::chosen_by;

/// What one field accepts.
pub(super) struct Unit {
    pub(super) name: &'static str,
    min: u32,
    max: u32,
    /// Full names in order; the first three letters are enough.
    names: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    DayOfMonth,
    Month,
    DayOfWeek,
    Year,
}

pub(super) const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
/// The longer abbreviations that the `cron` crate knows too.
const LONGER: [&str; 4] = ["tues", "thurs", "thur", "sept"];

const fn unit(name: &'static str, min: u32, max: u32, kind: Kind) -> Unit {
    Unit {
        name,
        min,
        max,
        names: match kind {
            Kind::Month => &MONTHS,
            Kind::DayOfWeek => &WEEKDAYS,
            Kind::Time | Kind::DayOfMonth | Kind::Year => &[],
        },
        kind,
    }
}

pub(super) static SECOND: Unit = unit("second", 0, 59, Kind::Time);
pub(super) static MINUTE: Unit = unit("minute", 0, 59, Kind::Time);
pub(super) static HOUR: Unit = unit("hour", 0, 23, Kind::Time);
pub(super) static DAY_OF_MONTH: Unit = unit("day of month", 1, 31, Kind::DayOfMonth);
pub(super) static MONTH: Unit = unit("month", 1, 12, Kind::Month);
pub(super) static DAY_OF_WEEK: Unit = unit("day of week", 0, 7, Kind::DayOfWeek);
pub(super) static YEAR: Unit = unit("year", FIRST_YEAR, LAST_YEAR, Kind::Year);

/// A piece of the expression and where it begins, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) start: usize,
}

impl<'a> Piece<'a> {
    pub(super) fn span(self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    pub(super) fn trim(self) -> Self {
        let text = self.text.trim_start_matches(is_blank);
        Self {
            start: self.start + self.text.len() - text.len(),
            text: text.trim_end_matches(is_blank),
        }
    }

    /// The pieces between separators, the empty ones included.
    pub(super) fn split(self, separator: fn(char) -> bool) -> impl Iterator<Item = Self> {
        let mut start = self.start;
        self.text.split(separator).map(move |text| {
            let piece = Self { text, start };
            start += text.len() + 1;
            piece
        })
    }

    /// What stands before and after the first separator.
    fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let start = self.start + before.len() + separator.len_utf8();
        Some((Self { text: before, ..self }, Self { text: after, start }))
    }

    pub(super) fn error(self, field: &'static str, message: impl Into<String>) -> ScheduleError {
        ScheduleError { field, message: message.into(), span: self.span() }
    }

    /// The text for a message: short, whatever was pasted.
    pub(super) fn quoted(self) -> String {
        match self.text.char_indices().nth(24) {
            Some((end, _)) => format!("`{}…`", self.text.get(..end).unwrap_or_default()),
            None => format!("`{}`", self.text),
        }
    }
}

pub(super) fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// What is read of an expression, beside the values that the `cron` crate validates.
#[derive(Default)]
pub(super) struct Reader<'a> {
    /// The fields as the crate wants them.
    pub(super) spelled: String,
    /// As in [`super::masks::Fields`].
    pub(super) last_days: u32,
    pub(super) near_days: u32,
    /// As in [`super::masks::Fields`], without those that the crate reads.
    pub(super) weekdays: [u8; 7],
    /// The job that `~` chooses for.
    pub(super) name: Option<&'a str>,
}

impl Reader<'_> {
    /// Spells one field for the crate. Returns whether there is anything for it: a day field may
    /// hold nothing but what the crate does not know, and is then spelled `*`.
    pub(super) fn field(&mut self, unit: &Unit, field: Piece<'_>) -> Result<bool, ScheduleError> {
        if let Some((at, c)) = field.text.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
            let text = field.text.get(at..at + c.len_utf8()).unwrap_or_default();
            let start = field.start + at;
            return Err(Piece { text, start }.error(unit.name, foreign(c)));
        }
        if !self.spelled.is_empty() {
            self.spelled.push(' ');
        }
        let start = self.spelled.len();
        for (index, item) in field.split(|c| c == ',').enumerate() {
            if item.text.is_empty() {
                return Err(field.error(
                    unit.name,
                    format!("a value is missing beside a comma in {}", field.quoted()),
                ));
            }
            if self.special(unit, item)? {
                continue;
            }
            if self.spelled.len() > start {
                self.spelled.push(',');
            }
            self.item(unit, item, index)?;
        }
        let any = self.spelled.len() > start;
        if !any {
            self.spelled.push('*');
        }
        Ok(any)
    }

    /// Spells one item of a list: `*`, a value, a range, each with or without a step.
    fn item(&mut self, unit: &Unit, item: Piece<'_>, index: usize) -> Result<(), ScheduleError> {
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, Some(read_step(unit, item, step)?)),
            None => (item, None),
        };
        if let Some((first, last)) = base.split_once('~') {
            return self.chosen(unit, base, (first, last), step, index);
        }
        let (first, last) = match base.text {
            "*" => return spell_all(&mut self.spelled, step),
            "?" if matches!(unit.kind, Kind::DayOfMonth | Kind::DayOfWeek) => {
                return spell_all(&mut self.spelled, step);
            }
            "?" => return Err(base.error(unit.name, "`?` stands only in a day field: write `*`")),
            "" => {
                return Err(item.error(
                    unit.name,
                    format!("a value is missing before the `/` in {}", item.quoted()),
                ));
            }
            _ => match base.split_once('-') {
                Some((first, last)) if !first.text.is_empty() && !last.text.is_empty() => {
                    (read_value(unit, first)?, Some(read_value(unit, last)?))
                }
                Some(_) => {
                    return Err(base.error(
                        unit.name,
                        format!("{} is not a range: write both ends", base.quoted()),
                    ));
                }
                None => (read_value(unit, base)?, None),
            },
        };
        spell(unit, base, first, last, step, &mut self.spelled)
    }

    /// Spells a value, or the first value of a step, that the job's name chooses out of a range.
    fn chosen(
        &mut self,
        unit: &Unit,
        base: Piece<'_>,
        (first, last): (Piece<'_>, Piece<'_>),
        step: Option<u32>,
        index: usize,
    ) -> Result<(), ScheduleError> {
        if unit.kind == Kind::Year {
            return Err(base.error(unit.name, "`~` does not choose a year: write it"));
        }
        let Some(name) = self.name else {
            return Err(base.error(
                unit.name,
                "`~` takes its value from the job's name, and there is none here",
            ));
        };
        let end = match unit.kind {
            // Left to itself it chooses a day that every month has.
            Kind::DayOfMonth if first.text.is_empty() => 28,
            Kind::DayOfWeek => 6,
            Kind::DayOfMonth | Kind::Time | Kind::Month | Kind::Year => unit.max,
        };
        let low = if first.text.is_empty() { unit.min } else { read_value(unit, first)? };
        let high = if last.text.is_empty() { end } else { read_value(unit, last)? };
        let (low, high) = match unit.kind {
            // Sunday is 7 only at the end.
            Kind::DayOfWeek if low == 7 => (0, high % 7),
            _ => (low, high),
        };
        let modulus = match unit.kind {
            Kind::DayOfWeek => 7,
            _ => unit.max - unit.min + 1,
        };
        let size = if high < low { high + modulus - low + 1 } else { high - low + 1 };
        // From 0 to 7 are seven days.
        let size = size.min(modulus);
        let among = step.map_or(size, |step| step.min(size));
        let first = low + chosen_by(name, unit.name, index, among);
        let first = if first < unit.min + modulus { first } else { first - modulus };
        spell(unit, base, first, step.map(|_| high), step, &mut self.spelled)
    }

    /// Reads what the `cron` crate does not know: `L`, `L-3`, `LW`, `15W`, `FRI#2`, `5L`.
    fn special(&mut self, unit: &Unit, item: Piece<'_>) -> Result<bool, ScheduleError> {
        let upper = item.text.to_ascii_uppercase();
        match unit.kind {
            Kind::DayOfMonth => self.special_day(unit, item, &upper),
            Kind::DayOfWeek => self.special_weekday(unit, item, &upper),
            Kind::Time | Kind::Month | Kind::Year => Ok(false),
        }
    }

    fn special_day(
        &mut self,
        unit: &Unit,
        item: Piece<'_>,
        upper: &str,
    ) -> Result<bool, ScheduleError> {
        const HOW: &str = "write `L`, `L-3`, `LW` or `15W`";
        let wrong = || {
            Err(item
                .error(unit.name, format!("{} is not a day of the month: {HOW}", item.quoted())))
        };
        if upper == "L" {
            self.last_days |= 1;
        } else if upper == "LW" {
            self.near_days |= 1;
        } else if let Some(before) = upper.strip_prefix("L-") {
            match before.parse::<u32>() {
                Ok(days) if all_digits(before) && days <= 30 => self.last_days |= 1 << days,
                Ok(_) if all_digits(before) => {
                    let start = item.start + "L-".len();
                    let text = item.text.get("L-".len()..).unwrap_or_default();
                    return Err(Piece { text, start }.error(
                        unit.name,
                        format!("{} is out of range 0-30", shortened(Piece { text, start })),
                    ));
                }
                _ => return wrong(),
            }
        } else if let Some(day) = upper.strip_suffix('W') {
            if !all_digits(day) {
                return wrong();
            }
            let text = item.text.get(..day.len()).unwrap_or_default();
            self.near_days |= 1 << read_value(unit, Piece { text, ..item })?;
        } else if upper.contains(['L', 'W']) {
            return wrong();
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn special_weekday(
        &mut self,
        unit: &Unit,
        item: Piece<'_>,
        upper: &str,
    ) -> Result<bool, ScheduleError> {
        let (day, bit) = if let Some((day, nth)) = item.split_once('#') {
            match nth.text.parse::<u32>() {
                Ok(n @ 1..=5) if all_digits(nth.text) => (day, n),
                _ => {
                    let message = format!(
                        "{} is not 1-5: `FRI#2` is the second Friday of the month",
                        nth.quoted()
                    );
                    return Err(match nth.text {
                        "" => item.error(unit.name, message),
                        _ => nth.error(unit.name, message),
                    });
                }
            }
        } else if upper == "L" {
            return Err(item.error(
                unit.name,
                "`L` needs a weekday before it: `6L` is the last Saturday of the month",
            ));
        } else if let Some(day) = upper.strip_suffix('L') {
            (Piece { text: item.text.get(..day.len()).unwrap_or_default(), ..item }, 6)
        } else {
            return Ok(false);
        };
        if day.text.is_empty() {
            return Err(item.error(
                unit.name,
                "a weekday is missing before the `#`: `FRI#2` is the second Friday of the month",
            ));
        }
        let weekday = read_value(unit, day)? % 7;
        if let Some(chosen) = self.weekdays.get_mut(weekday as usize) {
            *chosen |= 1 << bit;
        }
        Ok(true)
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn spell_all(out: &mut String, step: Option<u32>) -> Result<(), ScheduleError> {
    out.push('*');
    if let Some(step) = step {
        // Writing to a string does not fail.
        let _ = write!(out, "/{step}");
    }
    Ok(())
}

/// Spells a value (`last` is none) or a range, which may wrap around.
fn spell(
    unit: &Unit,
    base: Piece<'_>,
    first: u32,
    last: Option<u32>,
    step: Option<u32>,
    out: &mut String,
) -> Result<(), ScheduleError> {
    // Sunday is 7 only at the end of a range; as a start it is 0. The crate's Sunday is 1.
    let (first, last, max, shift) = match unit.kind {
        Kind::DayOfWeek => (first % 7, last.map(|l| if first == 7 { l % 7 } else { l }), 6, 1),
        _ => (first, last, unit.max, 0),
    };
    let modulus = max - unit.min + 1;
    // A value with a step runs to the end of the field.
    let last = last.unwrap_or(if step.is_some() { max } else { first });
    if last < first && unit.kind == Kind::Year {
        return Err(base.error(
            unit.name,
            format!("the range {} runs backwards: years do not wrap around", base.quoted()),
        ));
    }
    let step = step.unwrap_or(1);
    let end = if last < first { last + modulus } else { last };
    let _ = write!(out, "{}-{}/{step}", first + shift, end.min(max) + shift);
    if end > max {
        let around = first + ((max - first) / step + 1) * step;
        if around <= end {
            let (from, to) = (around - modulus + shift, end - modulus + shift);
            let _ = write!(out, ",{from}-{to}/{step}");
        }
    }
    Ok(())
}

fn read_step(unit: &Unit, item: Piece<'_>, step: Piece<'_>) -> Result<u32, ScheduleError> {
    if step.text.is_empty() {
        return Err(
            item.error(unit.name, format!("a step is missing after the `/` in {}", item.quoted()))
        );
    }
    if !step.text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(step.error(unit.name, format!("the step {} is not a number", step.quoted())));
    }
    // A week has seven days although Sunday has two numbers.
    let most = match unit.kind {
        Kind::Year => unit.max - unit.min,
        _ => unit.max,
    };
    match step.text.parse() {
        Ok(0) => Err(step.error(unit.name, "step 0 would never advance: use 1 or more")),
        Ok(number) if number <= most => Ok(number),
        _ => {
            Err(step.error(unit.name, format!("step {} is out of range 1-{most}", shortened(step))))
        }
    }
}

fn read_value(unit: &Unit, value: Piece<'_>) -> Result<u32, ScheduleError> {
    if value.text.bytes().all(|b| b.is_ascii_digit()) {
        return match value.text.parse() {
            Ok(number) if (unit.min..=unit.max).contains(&number) => Ok(number),
            _ => Err(value.error(
                unit.name,
                format!("{} is out of range {}-{}", shortened(value), unit.min, unit.max),
            )),
        };
    }
    let lower = value.text.to_ascii_lowercase();
    let short = lower.len() == 3 || LONGER.contains(&lower.as_str());
    let found =
        unit.names.iter().position(|name| *name == lower || short && name.starts_with(&lower));
    if let Some(number) = found.and_then(|index| u32::try_from(index).ok()) {
        // Sunday is 0, January is 1.
        return Ok(number + unit.min);
    }
    let accepted = match unit.kind {
        Kind::Month => " or JAN-DEC",
        Kind::DayOfWeek => " or SUN-SAT",
        Kind::Time | Kind::DayOfMonth | Kind::Year => "",
    };
    Err(value.error(
        unit.name,
        format!("{} is not a value: use {}-{}{accepted}", value.quoted(), unit.min, unit.max),
    ))
}

fn shortened(number: Piece<'_>) -> String {
    match number.text.get(..12) {
        Some(start) if number.text.len() > 12 => format!("{start}…"),
        _ => number.text.to_owned(),
    }
}

/// What to say about a character that has no place in any schedule.
pub(super) fn foreign(c: char) -> String {
    if c.is_numeric() {
        format!("`{c}` is not one of the digits 0-9")
    } else if c.is_control() || c.is_whitespace() {
        format!("U+{:04X} does not separate fields: use a space", u32::from(c))
    } else {
        format!("`{c}` has no meaning in a schedule")
    }
}
