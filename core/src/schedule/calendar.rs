//! The calendar from 1970 to 2100, in whole days and months since 1970-01-01. A table of the first
//! days of the months answers everything; arithmetic on years would take twice the time.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};

/// The first year of the table; the `cron` crate's own first year.
pub(super) const FIRST_YEAR: u32 = 1970;
/// The last year of the table; the `cron` crate's own last year.
pub(super) const LAST_YEAR: u32 = 2100;

pub(super) const DAY: u32 = 86_400;
/// The first day and the first month after the table.
pub(super) const END: u32 = 47_847;
const YEARS: usize = (LAST_YEAR + 1 - FIRST_YEAR) as usize;
const MONTHS: usize = 12 * YEARS;

/// The first day of each month, and at last [`END`].
static FIRST_DAYS: [u16; MONTHS + 1] = first_days();

#[allow(clippy::indexing_slicing)] // evaluated by the compiler: a wrong index does not compile
const fn first_days() -> [u16; MONTHS + 1] {
    let mut days = [0; MONTHS + 1];
    let mut month = 0;
    while month < MONTHS {
        let year = FIRST_YEAR as usize + month / 12;
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let length = match month % 12 + 1 {
            2 => 28 + leap as u16,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        days[month + 1] = days[month] + length;
        month += 1;
    }
    days
}

/// The first day of each year as chrono has it.
static NEW_YEARS: [NaiveDate; YEARS] = new_years();

#[allow(clippy::indexing_slicing)] // as above
const fn new_years() -> [NaiveDate; YEARS] {
    let mut days = [NaiveDate::MIN; YEARS];
    let mut year = 0;
    while year < YEARS {
        if let Some(day) = NaiveDate::from_yo_opt(FIRST_YEAR as i32 + year as i32, 1) {
            days[year] = day;
        }
        year += 1;
    }
    days
}

/// The first day of a month; [`END`] for every month after the table.
pub(super) fn first_day(month: u32) -> u32 {
    FIRST_DAYS.get(month as usize).map_or(END, |day| u32::from(*day))
}

/// The month that a day lies in; of a later day the last one.
pub(super) fn month_of(day: u32) -> u32 {
    // A month has 30.436875 days; two days too few and the guess is never too high, and never more
    // than one too low, which a test asserts for each day.
    const SHIFT: u32 = 21;
    const PER_DAY: u32 = 68_901;
    let guess = (day.min(END - 1) * PER_DAY).saturating_sub(2 * PER_DAY) >> SHIFT;
    guess + u32::from(first_day(guess + 1) <= day.min(END - 1))
}

/// The month that a year begins with.
pub(super) fn first_month(year: u32) -> u32 {
    12 * year.saturating_sub(FIRST_YEAR)
}

/// The year and, from 1 to 12, the month in it.
pub(super) fn year_and_month(month: u32) -> (u32, u32) {
    (FIRST_YEAR + month / 12, month % 12 + 1)
}

/// From Sunday, which is 0.
pub(super) fn weekday(day: u32) -> u32 {
    // 1970-01-01 was a Thursday.
    (day + 4) % 7
}

/// chrono's form of so many seconds since the epoch; none outside the calendar. A good deal faster
/// than chrono's own conversion, which serves many thousand years.
pub(super) fn instant(seconds: i64) -> Option<DateTime<Utc>> {
    let seconds = u32::try_from(seconds).ok()?;
    let (day, time) = (seconds / DAY, seconds % DAY);
    if day >= END {
        return None;
    }
    let year = month_of(day) / 12;
    let new_year = NEW_YEARS.get(year as usize)?;
    let date = new_year.with_ordinal0(day - first_day(12 * year))?;
    let time = NaiveTime::from_num_seconds_from_midnight_opt(time, 0)?;
    Some(date.and_time(time).and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_chrono_on_every_day() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for day in 0..END {
            let date = epoch + chrono::TimeDelta::days(day.into());
            let month = month_of(day);
            assert_eq!(
                year_and_month(month),
                (u32::try_from(date.year()).unwrap(), date.month()),
                "{date}"
            );
            assert_eq!(first_day(month) + date.day0(), day);
            assert_eq!(
                first_day(month + 1) - first_day(month),
                u32::from(date.num_days_in_month())
            );
            assert_eq!(weekday(day), date.weekday().num_days_from_sunday());
        }
        assert_eq!(epoch + chrono::TimeDelta::days(END.into()), {
            NaiveDate::from_ymd_opt(2101, 1, 1).unwrap()
        });
        for beyond in [END, END + 1, u32::MAX] {
            assert_eq!(month_of(beyond), 131 * 12 - 1);
        }
        assert_eq!((first_day(131 * 12), first_day(u32::MAX)), (END, END));
    }
    #[test]
    fn makes_the_instants_that_chrono_makes() {
        let end = i64::from(END) * 86_400;
        for seconds in (0..end).step_by(40_009).chain([0, 1, 86_399, 86_400, end - 1]) {
            assert_eq!(instant(seconds), DateTime::from_timestamp(seconds, 0));
        }
        for beyond in [-1, end, i64::MIN, i64::MAX] {
            assert_eq!(instant(beyond), None);
        }
    }
}
