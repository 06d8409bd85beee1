//! What the changes of a clock do to firings: which are moved, which come twice or only once, and
//! which never come.

use std::fmt;

use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Tz;

use super::Schedule;
use super::compiled::Rule;
use super::masks::Fields;
use super::zone::{Clock, HORIZON};

/// What a clock change does to one firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockNote {
    /// The clock skips `times`: they fire as one, at the first instant after the gap.
    Moved {
        /// What the clock skips.
        times: Times,
        /// What it shows instead.
        to: NaiveDateTime,
        /// Whether `to` is a time of the schedule too.
        due: bool,
    },
    /// The clock shows this time twice, and it fires both times.
    Repeated {
        /// The time.
        reading: NaiveDateTime,
        /// Whether this is the second time.
        again: bool,
    },
    /// The clock shows this time twice, and it fires only the first time.
    Once {
        /// The time.
        reading: NaiveDateTime,
    },
}

/// Times of a schedule on a wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The first of them.
    pub first: NaiveDateTime,
    /// The last of them.
    pub last: NaiveDateTime,
    /// How many there are, at least 1.
    pub count: u64,
}

/// Times of a schedule that follows the clock, and that the clock skips: they never fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// When the clock jumps.
    pub at: DateTime<Utc>,
    /// Whose clock.
    pub zone: Tz,
    /// The first second that it does not show.
    pub first: NaiveDateTime,
    /// The last second that it does not show.
    pub last: NaiveDateTime,
    /// How many times of the schedule lie between them, at least 1.
    pub count: u64,
}

/// What comes next of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upcoming {
    /// A firing.
    Firing {
        /// When.
        at: DateTime<Utc>,
        /// What a clock change does to it; none for an ordinary one.
        note: Option<ClockNote>,
    },
    /// Firings that are not going to be.
    Skipped(Skipped),
}

impl Schedule {
    /// What a clock change does to the firing at this instant, none for an ordinary one. `at` must
    /// be a firing of this schedule in this zone.
    ///
    /// ```
    /// use carillon_core::schedule::Schedule;
    /// let nightly = Schedule::parse("30 2 * * *").unwrap();
    /// let note = nightly.dst_note(chrono_tz::America::New_York, "2026-03-08T07:00:00Z".parse().unwrap());
    /// assert_eq!(note.unwrap().to_string(), "moved from 02:30 by the clock change");
    /// ```
    #[must_use]
    pub fn dst_note(&self, zone: Tz, at: DateTime<Utc>) -> Option<ClockNote> {
        let Rule::Fields(fields) = &self.0.rule else {
            return None;
        };
        let (clock, at) = (Clock::of(zone), at.timestamp());
        let reading = shown(clock.reading(at));
        if fields.fixed
            && let Some((first, last)) = clock.change_at(at).and_then(|s| s.skipped())
            && let Some(times) = times_between(fields, first, last)
        {
            let due = fields.matches(clock.reading(at));
            return Some(ClockNote::Moved { times, to: reading, due });
        }
        clock.repeats(at).then(|| match fields.fixed {
            true => ClockNote::Once { reading },
            false => ClockNote::Repeated { reading, again: clock.has_shown(at) },
        })
    }

    /// So many firings after an instant, in order, with what clock changes do to them; and, between
    /// them, the times that a clock skips and that therefore never fire.
    pub fn timeline(
        &self,
        zone: Tz,
        after: DateTime<Utc>,
        firings: usize,
    ) -> impl Iterator<Item = Upcoming> + use<> {
        let (schedule, told) = (self.clone(), after.timestamp());
        Timeline { schedule, zone, left: firings, after, told, next: None }
    }
}

struct Timeline {
    schedule: Schedule,
    zone: Tz,
    /// How many firings are still to be given.
    left: usize,
    /// The firing that was given last.
    after: DateTime<Utc>,
    /// All clock changes through this instant are told.
    told: i64,
    /// The firing to give next, once it is known; at last none.
    next: Option<Option<DateTime<Utc>>>,
}

impl Timeline {
    /// The first untold gap, through an instant, with something in it.
    fn skipped(&mut self, through: i64) -> Option<Skipped> {
        let Rule::Fields(fields) = &self.schedule.0.rule else {
            return None;
        };
        if fields.fixed {
            return None;
        }
        let changes = Clock::of(self.zone).segments_from(self.told).iter().skip(1);
        for change in changes.take_while(|change| change.start <= through) {
            self.told = change.start;
            if let Some((first, last)) = change.skipped()
                && let Some(times) = times_between(fields, first, last)
            {
                return Some(Skipped {
                    at: DateTime::from_timestamp(change.start, 0)?,
                    zone: self.zone,
                    first: shown(first),
                    last: shown(last),
                    count: times.count,
                });
            }
        }
        self.told = self.told.max(through);
        None
    }
}

impl Iterator for Timeline {
    type Item = Upcoming;

    fn next(&mut self) -> Option<Upcoming> {
        let left = self.left.checked_sub(1)?;
        let (schedule, zone, after) = (&self.schedule, self.zone, self.after);
        let next = *self.next.get_or_insert_with(|| schedule.next_after(zone, after));
        let through = next.map_or(HORIZON - 1, |at| at.timestamp());
        if let Some(skipped) = self.skipped(through) {
            return Some(Upcoming::Skipped(skipped));
        }
        let at = next?;
        (self.after, self.next, self.left) = (at, None, left);
        Some(Upcoming::Firing { at, note: self.schedule.dst_note(zone, at) })
    }
}

/// The matching readings from `first` to `last`, if there are any.
fn times_between(fields: &Fields, first: i64, last: i64) -> Option<Times> {
    let count = fields.count_readings(first, last + 1);
    if count == 0 {
        return None;
    }
    let start = fields.next_reading(first)?;
    // The last one is where the count is reached.
    let (mut before, mut end) = (start - 1, last);
    while end - before > 1 {
        let middle = before + (end - before) / 2;
        if fields.count_readings(first, middle + 1) == count {
            end = middle;
        } else {
            before = middle;
        }
    }
    Some(Times { first: shown(start), last: shown(end), count })
}

fn shown(reading: i64) -> NaiveDateTime {
    DateTime::from_timestamp(reading, 0).unwrap_or_default().naive_utc()
}

impl fmt::Display for ClockNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Moved { times, to, due } => {
                let Times { first, last, count } = times;
                // A day is named where it is another one.
                let day = if first.date() == to.date() { "" } else { "%F " };
                let from = stretch(day, first, last);
                match (count, due) {
                    (1, false) => write!(f, "moved from {from} by the clock change"),
                    (1, true) => write!(f, "also for {from}, which the clock change skips"),
                    (_, false) => {
                        write!(f, "moved from {from} by the clock change, {count} firings in one")
                    }
                    (_, true) => write!(
                        f,
                        "also for {count} firings from {from}, which the clock change skips"
                    ),
                }
            }
            Self::Repeated { reading, again } => {
                let which = if again { "second" } else { "first" };
                let reading = stretch("", reading, reading);
                write!(f, "{which} of two: the clock shows {reading} twice")
            }
            Self::Once { reading } => {
                let reading = stretch("", reading, reading);
                write!(f, "only once: the clock shows {reading} twice")
            }
        }
    }
}

impl Skipped {
    /// In words, where the zone stands beside it.
    #[must_use]
    pub fn in_short(&self) -> String {
        let firings = if self.count == 1 { "firing" } else { "firings" };
        format!("{} does not exist: {} {firings} skipped", self.gap(), self.count)
    }

    fn gap(&self) -> String {
        stretch("%F ", self.first, self.last)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let firings = if self.count == 1 { "firing" } else { "firings" };
        let (gap, zone, count) = (self.gap(), self.zone.name(), self.count);
        write!(f, "{gap} does not exist in {zone}: {count} {firings} skipped")
    }
}

/// `02:30`, `02:00-02:59`; each end after its day where they differ.
fn stretch(day: &str, first: NaiveDateTime, last: NaiveDateTime) -> String {
    let whole = |at: NaiveDateTime, second: i64| at.and_utc().timestamp() % 60 == second;
    let minutes = whole(first, 0) && (whole(last, 0) || whole(last, 59));
    let time = if minutes { "%H:%M" } else { "%H:%M:%S" };
    let start = first.format(&format!("{day}{time}")).to_string();
    if first.date() != last.date() {
        return format!("{start} to {}", last.format(&format!("%F {time}")));
    }
    let (from, to) = (first.format(time).to_string(), last.format(time).to_string());
    if from == to { start } else { format!("{start}-{to}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use chrono::{Offset, TimeDelta, TimeZone};
    use chrono_tz::{America, Australia, Europe, Pacific};
    use proptest::prelude::*;

    #[test]
    fn a_firing_says_what_the_clock_does_to_it() {
        let ny = America::New_York;
        for (expr, zone, when, note) in [
            ("30 2 * * *", ny, "2026-03-08T07:00:00Z", "moved from 02:30 by the clock change"),
            ("30 2 * * *", ny, "2026-03-09T06:30:00Z", ""),
            ("30 2,3 * * *", ny, "2026-03-08T07:00:00Z", "moved from 02:30 by the clock change"),
            ("30 2,3 * * *", ny, "2026-03-08T07:30:00Z", ""),
            (
                "0,30 2,3 * * *",
                ny,
                "2026-03-08T07:00:00Z",
                "also for 2 firings from 02:00-02:30, which the clock change skips",
            ),
            (
                "0 2,3 * * *",
                ny,
                "2026-03-08T07:00:00Z",
                "also for 02:00, which the clock change skips",
            ),
            (
                "5,15,25 2 * * *",
                ny,
                "2026-03-08T07:00:00Z",
                "moved from 02:05-02:25 by the clock change, 3 firings in one",
            ),
            ("7 30 2 * * *", ny, "2026-03-08T07:00:00Z", "moved from 02:30:07 by the clock change"),
            ("0 3 * * *", ny, "2026-03-08T07:00:00Z", ""),
            ("0 * * * *", ny, "2026-03-08T07:00:00Z", ""),
            (
                "@at 2026-03-08 02:30",
                ny,
                "2026-03-08T07:00:00Z",
                "moved from 02:30 by the clock change",
            ),
            ("@at 2026-03-08T07:00:00Z", ny, "2026-03-08T07:00:00Z", ""),
            (
                "0 9 * * *",
                Pacific::Apia,
                "2011-12-30T10:00:00Z",
                "moved from 2011-12-30 09:00 by the clock change",
            ),
            (
                "15 2 * * *",
                Australia::Lord_Howe,
                "2026-10-03T15:30:00Z",
                "moved from 02:15 by the clock change",
            ),
            ("30 1 * * *", ny, "2026-11-01T05:30:00Z", "only once: the clock shows 01:30 twice"),
            ("30 * * * *", ny, "2026-11-01T05:30:00Z", "first of two: the clock shows 01:30 twice"),
            (
                "30 * * * *",
                ny,
                "2026-11-01T06:30:00Z",
                "second of two: the clock shows 01:30 twice",
            ),
            ("30 * * * *", ny, "2026-11-01T04:30:00Z", ""),
            ("30 * * * *", ny, "2026-11-01T07:30:00Z", ""),
            ("@every 30m", ny, "2026-11-01T05:30:00Z", ""),
        ] {
            let schedule = Schedule::parse(expr).unwrap();
            let firing = schedule.next_after(zone, at(when) - TimeDelta::seconds(1));
            assert_eq!(firing, Some(at(when)), "{expr}");
            let found = schedule.dst_note(zone, at(when)).map(|note| note.to_string());
            assert_eq!(found.unwrap_or_default(), note, "{expr} at {when}");
        }
    }

    fn told(expr: &str, zone: Tz, after: &str, firings: usize) -> Vec<String> {
        let schedule = Schedule::parse(expr).unwrap();
        let lines = schedule.timeline(zone, at(after), firings).map(|next| match next {
            Upcoming::Firing { at, .. } => at.with_timezone(&zone).format("%F %R").to_string(),
            Upcoming::Skipped(skipped) => skipped.to_string(),
        });
        lines.collect()
    }

    #[test]
    fn what_never_comes_is_told_in_its_place() {
        let ny = America::New_York;
        assert_eq!(
            told("*/30 2 * * *", ny, "2026-03-07T08:00:00Z", 2),
            [
                "2026-03-08 02:00-02:59 does not exist in America/New_York: 2 firings skipped",
                "2026-03-09 02:00",
                "2026-03-09 02:30"
            ]
        );
        assert_eq!(
            told("30 * * * *", ny, "2026-03-08T06:00:00Z", 2),
            [
                "2026-03-08 01:30",
                "2026-03-08 02:00-02:59 does not exist in America/New_York: 1 firing skipped",
                "2026-03-08 03:30",
            ]
        );
        // It is not told again, and not where nothing is lost.
        assert_eq!(told("30 * * * *", ny, "2026-03-08T07:00:00Z", 1), ["2026-03-08 03:30"]);
        assert_eq!(told("*/30 3 * * *", ny, "2026-03-08T06:00:00Z", 1), ["2026-03-08 03:00"]);
        assert_eq!(told("30 2 * * *", ny, "2026-03-08T06:00:00Z", 1), ["2026-03-08 03:00"]);
        assert_eq!(
            told("0 30 2/23 8 3 ? 2026", ny, "2026-01-01T00:00:00Z", 1),
            ["2026-03-08 02:00-02:59 does not exist in America/New_York: 1 firing skipped"]
        );
        assert_eq!(
            told("0 */6 * * *", Pacific::Apia, "2011-12-30T09:00:00Z", 1),
            [
                "2011-12-30 00:00-23:59 does not exist in Pacific/Apia: 4 firings skipped",
                "2011-12-31 00:00"
            ]
        );
        assert_eq!(told("@every 1h", ny, "2026-03-08T06:30:00Z", 1), ["2026-03-08 03:00"]);
    }

    #[test]
    fn the_ends_of_time_are_quiet() {
        for expr in ["* * * * * *", "30 2 * * *", "*/30 2 * * *", "@every 7s"] {
            let schedule = Schedule::parse(expr).unwrap();
            for zone in [Tz::UTC, America::New_York, Pacific::Kiritimati] {
                let first = |after| schedule.timeline(zone, after, 1).next();
                assert_eq!(first(DateTime::<Utc>::MAX_UTC), None);
                assert!(first(DateTime::<Utc>::MIN_UTC).is_some());
                assert_eq!(schedule.timeline(zone, DateTime::<Utc>::MIN_UTC, 0).next(), None);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Around every change, counted by hand: each matching time of the clock is a firing, is
        /// part of a moved one, or is told as skipped.
        #[test]
        fn no_time_is_lost_without_a_word(
            minutes in prop::collection::btree_set(0_u32..60, 1..5),
            hours in prop::collection::btree_set(0_u32..5, 1..4),
            fixed in any::<bool>(),
            zone in prop::sample::select(&[
                America::New_York, Europe::Berlin, Australia::Lord_Howe, America::Sao_Paulo,
                Europe::Dublin, Pacific::Apia,
            ][..]),
            change in 0_usize..40,
        ) {
            let list = |values: &std::collections::BTreeSet<u32>| {
                values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
            };
            let step = if fixed { "" } else { ",5-5/1" };
            let expr = format!("{} {}{step} * * *", list(&minutes), list(&hours));
            let matches = |wall: NaiveDateTime| {
                let text = wall.format("%-M %-H").to_string();
                let (minute, hour) = text.split_once(' ').unwrap();
                let hour: u32 = hour.parse().unwrap();
                minutes.contains(&minute.parse().unwrap())
                    && (hours.contains(&hour) || !fixed && hour == 5)
            };
            let segments = Clock::of(zone).segments_from(at("2000-01-01T00:00:00Z").timestamp());
            let Some(change) = segments.get(change + 1) else { return Ok(()) };
            let around = |hours| DateTime::from_timestamp(change.start, 0).unwrap()
                + TimeDelta::hours(hours);
            let (start, end) = (around(-30), around(30));

            let schedule = Schedule::parse(&expr).unwrap();
            let (mut firings, mut moved, mut repeated, mut skipped) = (0, 0, 0, 0);
            for next in schedule.timeline(zone, start, usize::MAX) {
                match next {
                    Upcoming::Firing { at, .. } if at > end => break,
                    Upcoming::Firing { at, note } => {
                        firings += 1;
                        let reading = at.with_timezone(&zone).naive_local();
                        match note {
                            None => prop_assert!(matches(reading), "{expr} {at}"),
                            Some(ClockNote::Moved { times, to, due }) => {
                                prop_assert_eq!((to, due), (reading, matches(reading)));
                                prop_assert!(matches(times.first) && matches(times.last));
                                moved += times.count - u64::from(!due);
                            }
                            Some(ClockNote::Repeated { again, .. }) => {
                                prop_assert!(!fixed);
                                repeated += u64::from(again);
                            }
                            Some(ClockNote::Once { .. }) => prop_assert!(fixed),
                        }
                    }
                    Upcoming::Skipped(gap) => {
                        prop_assert!(!fixed);
                        skipped += gap.count;
                    }
                }
            }
            let offset = |at: DateTime<Utc>| {
                TimeDelta::seconds(zone.offset_from_utc_datetime(&at.naive_utc()).fix()
                    .local_minus_utc().into())
            };
            let last = end.naive_utc() + offset(end);
            let mut wall = start.naive_utc() + offset(start);
            let mut expected = 0;
            while wall < last {
                wall += TimeDelta::minutes(1);
                expected += u64::from(matches(wall));
            }
            prop_assert_eq!(firings + moved + skipped - repeated, expected, "{} {}", expr, zone);
        }
    }
}
