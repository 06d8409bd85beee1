//! The compiled form of a schedule: bit masks, and arithmetic on them.
//!
//! Everything here is a pure function of (rule, clock, instant). Nothing loops over seconds or
//! days: a step costs at most one look at each month until the horizon, however rare the firing.
//!
//! The daylight-saving rule is Debian cron(8)'s, in two sentences. A rule with a *fixed* hour and
//! minute fires at the first instant at which the clock shows its time or a later one: that is the
//! end of the gap in spring and the first occurrence in autumn. Any other rule fires at every
//! instant whose reading matches: it follows the clock.

use super::zone::{Clock, HORIZON, Segment};

/// The first year a mask can hold; the `cron` crate's own first year.
pub(super) const FIRST_YEAR: i64 = 1970;
/// The last year a mask can hold; the `cron` crate's own last year.
pub(super) const LAST_YEAR: i64 = 2100;

const DAY: i64 = 86_400;

/// When a schedule fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// At the readings of a wall clock that match.
    Fields(Fields),
    /// At the multiples of so many seconds since the Unix epoch, whatever the zone. At least 1.
    Every(i64),
}

/// One bit for each accepted value of each field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fields {
    /// Bits 0 to 59.
    pub(super) seconds: u64,
    /// Bits 0 to 59.
    pub(super) minutes: u64,
    /// Bit `year - 1970`.
    pub(super) years: [u64; 3],
    /// Bits 0 to 23.
    pub(super) hours: u32,
    /// Bits 1 to 31.
    pub(super) days: u32,
    /// Bits 1 to 12.
    pub(super) months: u16,
    /// Bits 0 (Sunday) to 6.
    pub(super) weekdays: u8,
    /// A day matches when *either* day field does (Vixie cron, both restricted), not both.
    pub(super) either_day: bool,
    /// Hour and minute are fixed; else the rule follows the clock through a change.
    pub(super) fixed: bool,
}

impl Rule {
    /// The first firing after `after`, in seconds since the epoch.
    pub(super) fn next_after(&self, clock: &Clock, after: i64) -> Option<i64> {
        let after = after.max(-1);
        if after >= HORIZON {
            return None;
        }
        let next = match self {
            Self::Every(period) => (after.div_euclid(*period) + 1) * period,
            Self::Fields(fields) if fields.fixed => fields.next_fixed(clock, after)?,
            Self::Fields(fields) => fields.next_following(clock, after)?,
        };
        (next < HORIZON).then_some(next)
    }

    /// How many firings lie in `(after, through]`.
    pub(super) fn count(&self, clock: &Clock, after: i64, through: i64) -> u64 {
        let after = after.max(-1);
        let through = through.min(HORIZON - 1);
        if after >= through {
            return 0;
        }
        match self {
            Self::Every(period) => {
                (through.div_euclid(*period) - after.div_euclid(*period)).unsigned_abs()
            }
            Self::Fields(fields) if fields.fixed => fields.count_fixed(clock, after, through),
            Self::Fields(fields) => fields.count_following(clock, after, through),
        }
    }
}

impl Fields {
    fn next_fixed(&self, clock: &Clock, after: i64) -> Option<i64> {
        let reading = self.next_reading(clock.highest_reading(after) + 1)?;
        Some(clock.first_instant(reading))
    }

    fn next_following(&self, clock: &Clock, after: i64) -> Option<i64> {
        let mut segments = clock.segments_from(after).iter().peekable();
        let mut from = after + 1 + segments.peek()?.offset;
        let mut candidate = self.next_reading(from);
        while let Some(segment) = segments.next() {
            let next = segments.peek();
            if let Some(reading) = candidate
                && next.is_none_or(|n| reading - segment.offset < n.start)
            {
                return Some(reading - segment.offset);
            }
            let next = next?;
            from = next.first_reading();
            // Only a step back can show a match that the search has already passed.
            if next.offset < segment.offset || candidate.is_some_and(|c| c < from) {
                candidate = self.next_reading(from);
            }
        }
        None
    }

    fn count_fixed(&self, clock: &Clock, after: i64, through: i64) -> u64 {
        let all = self
            .count_readings(clock.highest_reading(after) + 1, clock.highest_reading(through) + 1);
        // What a gap skipped, and what is due at its very end, is one firing.
        let merged: u64 = clock
            .segments_from(after)
            .iter()
            .skip(1)
            .take_while(|s| s.start <= through)
            .filter_map(Segment::skipped)
            .map(|(first, last)| self.count_readings(first, last + 2).saturating_sub(1))
            .sum();
        all - merged
    }

    fn count_following(&self, clock: &Clock, after: i64, through: i64) -> u64 {
        let mut segments = clock.segments_from(after).iter().peekable();
        let mut total = 0;
        while let Some(segment) = segments.next() {
            let from = segment.start.max(after + 1);
            let end = segments.peek().map_or(through + 1, |n| n.start.min(through + 1));
            if from >= end {
                break;
            }
            total += self.count_readings(from + segment.offset, end + segment.offset);
        }
        total
    }

    /// Whether a reading matches.
    pub(super) fn matches(&self, reading: i64) -> bool {
        self.next_reading(reading) == Some(reading)
    }

    /// The first matching reading at or after `from`.
    pub(super) fn next_reading(&self, from: i64) -> Option<i64> {
        let today = from.div_euclid(DAY);
        let day = self.next_day(today)?;
        if day > today {
            return Some(day * DAY + self.first_time());
        }
        match self.next_time(from.rem_euclid(DAY)) {
            Some(time) => Some(day * DAY + time),
            None => Some(self.next_day(today + 1)? * DAY + self.first_time()),
        }
    }

    /// How many matching readings lie in `[from, end)`.
    fn count_readings(&self, from: i64, end: i64) -> u64 {
        if from >= end {
            return 0;
        }
        let (first, last) = (from.div_euclid(DAY), end.div_euclid(DAY));
        let part = |day: i64, time: i64| match self.next_day(day) == Some(day) {
            true => self.times_before(time),
            false => 0,
        };
        self.count_days(first, last) * self.times_before(DAY) + part(last, end.rem_euclid(DAY))
            - part(first, from.rem_euclid(DAY))
    }

    /// The first time of day that matches, in seconds since midnight.
    fn first_time(&self) -> i64 {
        let first = |mask: u64| i64::from(mask.trailing_zeros());
        first(u64::from(self.hours)) * 3600 + first(self.minutes) * 60 + first(self.seconds)
    }

    /// The first time of day at or after `from` that matches, in seconds since midnight.
    fn next_time(&self, from: i64) -> Option<i64> {
        let (hour, minute, second) = (from / 3600, from / 60 % 60, from % 60);
        let hours = u64::from(self.hours);
        let first_second = i64::from(self.seconds.trailing_zeros());
        if has(hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = next_bit(self.seconds, second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = next_bit(self.minutes, minute + 1) {
                return Some(hour * 3600 + minute * 60 + first_second);
            }
        }
        let hour = next_bit(hours, hour + 1)?;
        Some(hour * 3600 + i64::from(self.minutes.trailing_zeros()) * 60 + first_second)
    }

    /// How many times of day before `time` match.
    fn times_before(&self, time: i64) -> u64 {
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        let hours = u64::from(self.hours);
        let a_minute = u64::from(self.seconds.count_ones());
        let an_hour = u64::from(self.minutes.count_ones()) * a_minute;
        let mut total = below(hours, hour) * an_hour;
        if has(hours, hour) {
            total += below(self.minutes, minute) * a_minute;
            if has(self.minutes, minute) {
                total += below(self.seconds, second);
            }
        }
        total
    }

    /// The first matching day at or after `from`, in days since the epoch.
    fn next_day(&self, from: i64) -> Option<i64> {
        let (mut year, mut month, mut day) = civil(from.max(0));
        loop {
            let in_year = self.next_year(year)?;
            if in_year > year {
                (year, month, day) = (in_year, 1, 1);
            }
            let Some(in_month) = next_bit(u64::from(self.months), month) else {
                (year, month, day) = (year + 1, 1, 1);
                continue;
            };
            if in_month > month {
                (month, day) = (in_month, 1);
            }
            let first = days_since_epoch(year, month);
            if let Some(day) = next_bit(u64::from(self.days_of(year, month, first)), day) {
                return Some(first + day - 1);
            }
            (month, day) = (month + 1, 1);
        }
    }

    /// How many matching days lie in `[from, end)`, in days since the epoch.
    fn count_days(&self, from: i64, end: i64) -> u64 {
        let end = end.min(days_since_epoch(LAST_YEAR + 1, 1));
        let mut day = from.max(0);
        let mut total = 0;
        while day < end {
            let (year, month, first) = civil(day);
            let start = day - first + 1;
            let next = match month {
                12 => days_since_epoch(year + 1, 1),
                _ => days_since_epoch(year, month + 1),
            };
            if self.next_year(year) == Some(year) && has(u64::from(self.months), month) {
                let days = u64::from(self.days_of(year, month, start));
                total += below(days, end.min(next) - start + 1) - below(days, first);
            }
            day = next;
        }
        total
    }

    /// The matching days of one month, bits 1 to 31; `first` is its first day since the epoch.
    fn days_of(&self, year: i64, month: i64, first: i64) -> u32 {
        let real = ((1_u64 << month_length(year, month)) - 1) << 1;
        let week = u64::from(self.weekdays);
        let weeks = week | week << 7 | week << 14 | week << 21 | week << 28 | week << 35;
        // 1970-01-01 was a Thursday, which is 4.
        let by_weekday = weeks >> (first + 4).rem_euclid(7) << 1;
        let by_date = u64::from(self.days);
        let both = match self.either_day {
            true => by_date | by_weekday,
            false => by_date & by_weekday,
        };
        (both & real) as u32
    }

    fn next_year(&self, from: i64) -> Option<i64> {
        let from = (from - FIRST_YEAR).max(0);
        let first_word = usize::try_from(from / 64).ok()?;
        let mut bit = from % 64;
        for (index, word) in self.years.iter().enumerate().skip(first_word) {
            if let Some(found) = next_bit(*word, bit) {
                return Some(FIRST_YEAR + i64::try_from(index).ok()? * 64 + found);
            }
            bit = 0;
        }
        None
    }

    /// The chosen years in order.
    pub(super) fn chosen_years(&self) -> impl Iterator<Item = i64> {
        std::iter::successors(self.next_year(FIRST_YEAR), |year| self.next_year(year + 1))
    }
}

/// The position of the first set bit at or after `from`.
fn next_bit(mask: u64, from: i64) -> Option<i64> {
    let rest = mask.checked_shr(u32::try_from(from).ok()?)?;
    (rest != 0).then(|| from + i64::from(rest.trailing_zeros()))
}

fn has(mask: u64, bit: i64) -> bool {
    next_bit(mask, bit) == Some(bit)
}

/// How many bits below `end` are set.
fn below(mask: u64, end: i64) -> u64 {
    let kept = match u32::try_from(end) {
        Ok(end) if end < 64 => mask & ((1 << end) - 1),
        Ok(_) => mask,
        Err(_) => 0,
    };
    u64::from(kept.count_ones())
}

/// Year, month and day of a day since the epoch; Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The first day of a month, in days since the epoch; Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate};

    #[test]
    fn a_rule_is_at_most_64_bytes() {
        assert!(size_of::<Rule>() <= 64, "{}", size_of::<Rule>());
    }

    #[test]
    fn the_calendar_agrees_with_chrono() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for days in 0..=HORIZON / DAY {
            let date = epoch + chrono::TimeDelta::days(days);
            let (year, month, day) = civil(days);
            assert_eq!(
                (year, month, day),
                (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()))
            );
            assert_eq!(days_since_epoch(year, month) + day - 1, days);
            let length = i64::from(date.num_days_in_month());
            assert_eq!(month_length(year, month), length);
        }
    }

    #[test]
    fn bits_at_the_edges() {
        assert_eq!(next_bit(1 << 63, 63), Some(63));
        assert_eq!(next_bit(u64::MAX, 64), None);
        assert_eq!(next_bit(0, 0), None);
        assert_eq!(below(u64::MAX, 64), 64);
        assert_eq!(below(u64::MAX, 0), 0);
    }
}
