//! The compiled form of a schedule: bit masks, and arithmetic on them.
//!
//! Everything here is a pure function of (rule, clock, instant). Nothing loops over seconds or
//! days: a search costs at most one look at each month until the horizon, however rare the firing,
//! and there is one search more for each change of the clock that it comes past. What makes a day
//! is in `days`.
//!
//! The daylight-saving rule is Debian cron(8)'s, in two sentences. A rule with a *fixed* hour and
//! minute fires at the first instant at which the clock shows its time or a later one: that is the
//! end of the gap in spring and the first occurrence in autumn. Any other rule fires at every
//! instant whose reading matches: it follows the clock.

use super::calendar::DAY;
use super::masks::{Fields, below, has, next_bit};
use super::zone::{Clock, HORIZON, Segment};

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
}

/// Day since the epoch, and seconds since its midnight; of a negative reading those of 0. None
/// only far beyond the horizon.
fn day_and_time(reading: i64) -> Option<(u32, u32)> {
    let reading = u32::try_from(reading.max(0)).ok()?;
    Some((reading / DAY, reading % DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_leaves_room_in_a_cache_line() {
        assert_eq!((size_of::<Rule>(), align_of::<Rule>()), (60, 4));
    }
}
