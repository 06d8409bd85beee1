//! The compiled form of a schedule: bit masks, and arithmetic on them.
//!
//! Everything here is a pure function of (rule, clock, instant). Nothing loops over seconds or
//! days: a step costs at most one look at each month until the horizon, however rare the firing.
//!
//! The daylight-saving rule is Debian cron(8)'s, in two sentences. A rule with a *fixed* hour and
//! minute fires at the first instant at which the clock shows its time or a later one: that is the
//! end of the gap in spring and the first occurrence in autumn. Any other rule fires at every
//! instant whose reading matches: it follows the clock.

use super::calendar::{
    DAY, END, FIRST_YEAR, first_day, first_month, month_of, weekday, year_and_month,
};
use super::zone::{Clock, HORIZON, Segment};

/// Every day of each of the seven weekdays: bit 0 of each byte.
const EVERY_ONE: u64 = 0x0001_0101_0101_0101;

/// Every year of the calendar.
pub(super) const ALL_YEARS: [u8; 17] = {
    let mut years = [u8::MAX; 17];
    years[16] = 0b111;
    years
};

/// When a schedule fires. All numbers are seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// At the readings of a wall clock that match.
    Fields(Fields),
    /// At `from` and at every multiple of `period` (at least 1) after it, whatever the zone.
    Every { period: u32, from: u32 },
    /// Once, whatever the zone.
    At(u32),
}

/// One bit for each accepted value of each field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fields {
    pub(super) seconds: Sixty,
    pub(super) minutes: Sixty,
    /// Bits 0 to 23.
    pub(super) hours: u32,
    /// Bits 1 to 31.
    pub(super) days: u32,
    /// Bit n: the n-th day before the last day of the month.
    pub(super) last_days: u32,
    /// Bit d: the day from Monday to Friday nearest to the d-th; bit 0: the last one of the month.
    pub(super) near_days: u32,
    /// From Sunday. Bit 0: every one, and then no other bit; bits 1 to 5: the n-th of the month;
    /// bit 6: the last.
    pub(super) weekdays: [u8; 7],
    /// Bits 1 to 12.
    pub(super) months: u16,
    /// Bit `year - 1970`, eight to a byte.
    pub(super) years: [u8; 17],
    pub(super) join: Join,
    /// Hour and minute are fixed; else the rule follows the clock through a change.
    pub(super) fixed: bool,
}

/// How the two day fields make a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Join {
    /// Both must match, and both always do, in every month and year.
    Every,
    /// Both must match, and only weekdays are restricted, none of them to some of the month.
    Weekly,
    /// Both must match, and only days of the month are restricted, all of them by number.
    Monthly,
    /// Both must match.
    Both,
    /// One of them must match: the rule of Vixie cron when both are restricted.
    Either,
}

/// Bits 0 to 59, aligned so that a rule, its zone and its spread fill one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sixty([u32; 2]);

impl Sixty {
    pub(super) fn new(bits: u64) -> Self {
        Self([bits as u32, (bits >> 32) as u32])
    }

    pub(super) fn bits(self) -> u64 {
        let [low, high] = self.0;
        u64::from(high) << 32 | u64::from(low)
    }
}

impl Rule {
    /// The first firing after `after`, in seconds since the epoch.
    #[inline]
    pub(super) fn next_after(&self, clock: &Clock, after: i64) -> Option<i64> {
        let after = after.max(-1);
        if after >= HORIZON {
            return None;
        }
        let next = match *self {
            Self::Fields(ref fields) => fields.next_after(clock, after)?,
            Self::Every { period, from } => {
                let (period, from) = (i64::from(period), i64::from(from));
                if after < from { from } else { after + period - (after - from) % period }
            }
            Self::At(at) => Some(i64::from(at)).filter(|at| *at > after)?,
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
        match *self {
            Self::Fields(ref fields) if fields.fixed => fields.count_fixed(clock, after, through),
            Self::Fields(ref fields) => fields.count_following(clock, after, through),
            Self::Every { period, from } => {
                let (period, from) = (i64::from(period), i64::from(from));
                let until = |end: i64| if end < from { 0 } else { (end - from) / period + 1 };
                (until(through) - until(after)).unsigned_abs()
            }
            Self::At(at) => u64::from((after + 1..=through).contains(&i64::from(at))),
        }
    }
}

impl Fields {
    #[inline]
    fn next_after(&self, clock: &Clock, after: i64) -> Option<i64> {
        let segments = clock.segments_from(after);
        let (now, later) = segments.split_first()?;
        if later.is_empty() && now.start <= after - i64::from(DAY) {
            // Its last change, if it had any, is so long ago that every rule follows the clock.
            return Some(self.next_reading(after + now.offset + 1)? - now.offset);
        }
        if self.fixed {
            let reading = self.next_reading(now.reached.max(after + now.offset) + 1)?;
            return match later.first() {
                Some(next) if next.reached < reading => Some(clock.first_instant(reading)),
                _ => Some(now.start.max(reading - now.offset)),
            };
        }
        let reading = self.next_reading(after + 1 + now.offset);
        match (reading, later.first()) {
            (Some(reading), Some(next)) if reading - now.offset < next.start => {
                Some(reading - now.offset)
            }
            (_, Some(_)) => self.next_following(reading, segments),
            (_, None) => Some(reading? - now.offset),
        }
    }

    /// The first match on a clock that changes before it; `candidate` is the first matching
    /// reading in the first of `segments` or after it.
    #[inline(never)] // so that the frequent, short ways stay short
    fn next_following(&self, mut candidate: Option<i64>, segments: &[Segment]) -> Option<i64> {
        let mut segments = segments.iter().peekable();
        while let Some(segment) = segments.next() {
            let next = segments.peek();
            if let Some(reading) = candidate
                && next.is_none_or(|n| reading - segment.offset < n.start)
            {
                return Some(reading - segment.offset);
            }
            let next = next?;
            let from = next.first_reading();
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
            if from > through {
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
    #[inline]
    pub(super) fn next_reading(&self, from: i64) -> Option<i64> {
        let (today, time) = day_and_time(from)?;
        let (first, last) = (self.first_time(), self.last_time());
        let day = self.next_day(today + u32::from(time > last))?;
        let time = if day > today || first == last { first } else { self.next_time(time)? };
        Some(i64::from(day * DAY + time))
    }

    /// How many matching readings lie in `[from, end)`.
    pub(super) fn count_readings(&self, from: i64, end: i64) -> u64 {
        let end = end.min(HORIZON);
        if from >= end {
            return 0;
        }
        let (Some((first, early)), Some((last, late))) = (day_and_time(from), day_and_time(end))
        else {
            return 0;
        };
        let part = |day: u32, time: u32| match self.next_day(day) == Some(day) {
            true => self.times_before(time),
            false => 0,
        };
        let whole = self.count_days(first, last) * self.times_before(DAY);
        whole + part(last, late) - part(first, early)
    }

    /// The first time of day that matches, in seconds since midnight.
    fn first_time(&self) -> u32 {
        self.hours.trailing_zeros() * 3600
            + self.minutes.bits().trailing_zeros() * 60
            + self.seconds.bits().trailing_zeros()
    }

    /// The last time of day that matches, in seconds since midnight.
    fn last_time(&self) -> u32 {
        (31 - self.hours.leading_zeros()) * 3600
            + (63 - self.minutes.bits().leading_zeros()) * 60
            + (63 - self.seconds.bits().leading_zeros())
    }

    /// The first time of day at or after `from` that matches, in seconds since midnight.
    #[inline]
    fn next_time(&self, from: u32) -> Option<u32> {
        let (hour, minute, second) = (from / 3600, from / 60 % 60, from % 60);
        let (hours, minutes, seconds) =
            (u64::from(self.hours), self.minutes.bits(), self.seconds.bits());
        let first_second = seconds.trailing_zeros();
        if has(hours, hour) {
            if has(minutes, minute)
                && let Some(second) = next_bit(seconds, second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = next_bit(minutes, minute + 1) {
                return Some(hour * 3600 + minute * 60 + first_second);
            }
        }
        let hour = next_bit(hours, hour + 1)?;
        Some(hour * 3600 + minutes.trailing_zeros() * 60 + first_second)
    }

    /// How many times of day before `time` match.
    fn times_before(&self, time: u32) -> u64 {
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        let (hours, minutes, seconds) =
            (u64::from(self.hours), self.minutes.bits(), self.seconds.bits());
        let a_minute = u64::from(seconds.count_ones());
        let an_hour = u64::from(minutes.count_ones()) * a_minute;
        let mut total = below(hours, hour) * an_hour;
        if has(hours, hour) {
            total += below(minutes, minute) * a_minute;
            if has(minutes, minute) {
                total += below(seconds, second);
            }
        }
        total
    }

    /// The first matching day at or after `from`, in days since the epoch.
    #[inline]
    fn next_day(&self, from: u32) -> Option<u32> {
        let day = match self.join {
            Join::Every => from,
            Join::Weekly => {
                let week = u32::from(self.whole_weekdays());
                let weeks = week | week << 7;
                from + (weeks >> weekday(from)).trailing_zeros()
            }
            Join::Monthly => self.next_of_month(from),
            Join::Both | Join::Either => return self.next_date(from),
        };
        (day < END).then_some(day)
    }

    /// As [`Self::next_day`], where every month and year is chosen.
    #[inline]
    fn next_of_month(&self, from: u32) -> u32 {
        let month = month_of(from);
        let (first, next) = (first_day(month), first_day(month + 1));
        let rest = self.days.checked_shr(from + 1 - first).unwrap_or_default();
        let found = from + rest.trailing_zeros();
        if rest != 0 && found < next {
            return found;
        }
        let lowest = self.days.trailing_zeros();
        let after_next = first_day(month + 2);
        // Of two months in a row one has 31 days.
        let of_next = lowest <= 28 || next + lowest <= after_next;
        lowest - 1 + if of_next { next } else { after_next }
    }

    /// As [`Self::next_day`], by the calendar: a look at each month that is chosen.
    #[inline(never)] // so that the frequent, short ways stay short
    fn next_date(&self, from: u32) -> Option<u32> {
        let mut month = month_of(from);
        let mut day = from.checked_sub(first_day(month))? + 1;
        loop {
            let (year, of_year) = year_and_month(month);
            let chosen = match next_bit(self.months.into(), of_year) {
                Some(later) if self.has_year(year) => month + later - of_year,
                _ => {
                    first_month(self.next_year(year + 1)?) + u32::from(self.months).trailing_zeros()
                        - 1
                }
            };
            if chosen > month {
                (month, day) = (chosen, 1);
            }
            let first = first_day(month);
            let found = self.days_of(month).checked_shr(day).unwrap_or_default();
            if found != 0 {
                return Some(first + day - 1 + found.trailing_zeros());
            }
            (month, day) = (month + 1, 1);
        }
    }

    /// How many matching days lie in `[from, end)`, in days since the epoch.
    fn count_days(&self, from: u32, end: u32) -> u64 {
        let end = end.min(END);
        let mut day = from;
        let mut total = 0;
        while day < end {
            let month = month_of(day);
            let (first, next) = (first_day(month), first_day(month + 1));
            let (year, of_year) = year_and_month(month);
            if self.has_year(year) && has(self.months.into(), of_year) {
                let days = u64::from(self.days_of(month));
                total += below(days, end.min(next) - first + 1) - below(days, day - first + 1);
            }
            day = next;
        }
        total
    }

    /// The matching days of one month, bits 1 to 31.
    fn days_of(&self, month: u32) -> u32 {
        let first = first_day(month);
        let length = first_day(month + 1) - first;
        let mut by_date = self.days;
        if self.last_days | self.near_days != 0 {
            by_date |= self.last_days.reverse_bits() >> (31 - length);
            by_date |= self.near(weekday(first), length);
        }
        let by_weekday = match u64::from_le_bytes(self.padded_weekdays()) {
            EVERY_ONE => u32::MAX,
            _ => self.weekdays_of(weekday(first), length),
        };
        let days =
            if self.join == Join::Either { by_date | by_weekday } else { by_date & by_weekday };
        days & real_days(length)
    }

    /// The days chosen by weekday in a month that begins on weekday `first`.
    fn weekdays_of(&self, first: u32, length: u32) -> u32 {
        let week = u64::from(self.whole_weekdays());
        let weeks = week | week << 7 | week << 14 | week << 21 | week << 28 | week << 35;
        let mut days = (weeks >> first << 1) as u32;
        if u64::from_le_bytes(self.padded_weekdays()) & !EVERY_ONE == 0 {
            return days;
        }
        for (weekday, chosen) in (0..).zip(self.weekdays) {
            let earliest = (weekday + 7 - first) % 7 + 1;
            for n in 1..=5 {
                if chosen >> n & 1 == 1 && earliest + 7 * (n - 1) <= length {
                    days |= 1 << (earliest + 7 * (n - 1));
                }
            }
            if chosen >> 6 & 1 == 1 {
                days |= 1 << (earliest + (length - earliest) / 7 * 7);
            }
        }
        days
    }

    /// The days from Monday to Friday nearest to the chosen ones.
    fn near(&self, first: u32, length: u32) -> u32 {
        let nearest = |day: u32| match (first + day - 1) % 7 {
            0 if day == length => day - 2,
            0 => day + 1,
            6 if day == 1 => day + 2,
            6 => day - 1,
            _ => day,
        };
        let last = (first + length - 1) % 7;
        let last_working = length - [2, 0, 0, 0, 0, 0, 1].get(last as usize).unwrap_or(&0);
        let mut days = (self.near_days & 1) << last_working;
        let mut rest = self.near_days & !1;
        while rest != 0 {
            let day = rest.trailing_zeros();
            if day <= length {
                days |= 1 << nearest(day);
            }
            rest &= rest - 1;
        }
        days
    }

    fn padded_weekdays(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g] = self.weekdays;
        [a, b, c, d, e, f, g, 0]
    }

    /// The weekdays of which every one is chosen, bits 0 (Sunday) to 6.
    pub(super) fn whole_weekdays(&self) -> u8 {
        // The multiplication moves bit 0 of each byte into the highest byte, side by side.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let every = u64::from_le_bytes(self.padded_weekdays()) & EVERY_ONE;
        (every.wrapping_mul(GATHER) >> 56) as u8
    }

    fn has_year(&self, year: u32) -> bool {
        let bit = year.wrapping_sub(FIRST_YEAR);
        self.years.get(bit as usize / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    fn next_year(&self, from: u32) -> Option<u32> {
        let from = from.max(FIRST_YEAR) - FIRST_YEAR;
        let [words @ .., last] = self.years;
        let rest = u128::from_le_bytes(words).checked_shr(from).unwrap_or_default();
        if rest != 0 {
            return Some(FIRST_YEAR + from + rest.trailing_zeros());
        }
        let from = from.max(128);
        let rest = last.checked_shr(from - 128).unwrap_or_default();
        (rest != 0).then(|| FIRST_YEAR + from + rest.trailing_zeros())
    }

    /// The chosen years in order.
    pub(super) fn chosen_years(&self) -> impl Iterator<Item = u32> {
        std::iter::successors(self.next_year(FIRST_YEAR), |year| self.next_year(year + 1))
    }

    /// Sets `join` to the quick form of [`Join::Both`] where there is one, so that equal rules have
    /// equal fields.
    pub(super) fn recognised(self) -> Self {
        const ALL_DAYS: u32 = !1;
        const ALL_MONTHS: u16 = 0b1_1111_1111_1110;
        let open =
            self.join != Join::Either && self.months == ALL_MONTHS && self.years == ALL_YEARS;
        let all_days = self.days == ALL_DAYS;
        let by_number = all_days || self.last_days | self.near_days == 0;
        let join = match u64::from_le_bytes(self.padded_weekdays()) {
            EVERY_ONE if open && all_days => Join::Every,
            EVERY_ONE if open && by_number => Join::Monthly,
            week if open && all_days && week & !EVERY_ONE == 0 => Join::Weekly,
            _ => self.join,
        };
        Self { join, ..self }
    }
}

/// Day since the epoch, and seconds since its midnight; of a negative reading those of 0. None
/// only far beyond the horizon.
fn day_and_time(reading: i64) -> Option<(u32, u32)> {
    let reading = u32::try_from(reading.max(0)).ok()?;
    Some((reading / DAY, reading % DAY))
}

/// Bits 1 to `length`, which is 28 to 31.
fn real_days(length: u32) -> u32 {
    u32::MAX >> (32 - length) << 1
}

/// The position of the first set bit at or after `from`, which is at most 63.
fn next_bit(mask: u64, from: u32) -> Option<u32> {
    let rest = mask >> (from & 63);
    (rest != 0).then(|| from + rest.trailing_zeros())
}

fn has(mask: u64, bit: u32) -> bool {
    mask >> (bit & 63) & 1 == 1
}

/// How many bits below `end` are set; `end` is at most 63.
fn below(mask: u64, end: u32) -> u64 {
    u64::from((mask & ((1 << (end & 63)) - 1)).count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_leaves_room_in_a_cache_line() {
        assert_eq!((size_of::<Rule>(), align_of::<Rule>()), (60, 4));
    }

    #[test]
    fn bits_at_the_edges() {
        assert_eq!(next_bit(1 << 63, 63), Some(63));
        assert_eq!(next_bit(0, 0), None);
        assert_eq!(below(u64::MAX, 63), 63);
        assert_eq!(below(u64::MAX, 0), 0);
    }
}
