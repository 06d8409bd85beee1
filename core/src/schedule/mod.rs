//! Schedules: a text in Carillon's cron dialect becomes a [`Schedule`], and
//! [`Schedule::next_after`] says when it fires next in a time zone.
//!
//! # Dialect
//!
//! | form | meaning |
//! | --- | --- |
//! | 5 fields | minute, hour, day of month, month, day of week |
//! | 6 fields | the same after a field of seconds |
//! | 7 fields | the same before a field of years, 1970 to 2100 |
//! | `*` | every value; `?` is the same, in the two day fields |
//! | `a`, `a-b`, `a,b` | a value, a range, a list of both; a range may wrap around (`22-2`, `FRI-MON`) |
//! | `*/n`, `a-b/n`, `a/n` | each n-th value from the first; `a/n` runs to the end of the field |
//! | `JAN`, `MON` | names of months and weekdays, in any case; Sunday is 0 and 7 |
//! | `L`, `L-3`, `LW` | the last day of the month, the third before it, the last from Monday to Friday |
//! | `15W` | the day from Monday to Friday nearest to the 15th, in the same month |
//! | `FRI#2`, `5L` | the second Friday of the month, the last one |
//! | `~`, `a~b`, `~/n` | a value, or the first value of a step, that the job's name chooses |
//! | `@yearly @annually @monthly @weekly @daily @midnight @hourly` | at the first second of it |
//! | `@every 1h30m` | at the multiples of a duration since the Unix epoch or the job's anchor, in any zone |
//! | `@at 2030-12-24T09:30:00Z` | once; `@at 2030-12-24 09:30` is the clock in the job's zone |
//!
//! When neither day field begins with `*` or `?`, a day matches if *either* does, else if *both*
//! do: the rule of Vixie cron. A lone `~` chooses a day of the month from 1 to 28.
//!
//! # When the clocks change
//!
//! | | hour and minute without `*` and step | `*` or a step in hour or minute |
//! | --- | --- | --- |
//! | gap | a skipped firing runs once, at the first instant after the gap | follows the clock |
//! | fold | runs once, at the first occurrence | runs in both hours |
//!
//! Nothing here reads a clock, and nothing fires before 1970 or after 2100.

mod calendar;
mod chosen;
mod compiled;
mod describe;
mod error;
mod field;
mod intern;
mod notes;
mod parse;
mod plan;
mod print;
mod zone;

#[cfg(test)]
mod generate;
#[cfg(test)]
mod model;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

pub use chosen::spread_of;
pub use error::ScheduleError;
pub use intern::Interner;
pub use notes::{ClockNote, Skipped, Times, Upcoming};
pub use plan::Plan;

use compiled::Rule;
use parse::Context;
use zone::Clock;

/// A parsed schedule. Cloning shares it; two are equal when their texts and their rules are.
#[derive(Clone)]
pub struct Schedule(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    text: Arc<str>,
    rule: Rule,
}

impl Schedule {
    /// Reads an expression.
    ///
    /// ```
    /// use carillon_core::schedule::Schedule;
    /// let error = Schedule::parse("0 24 * * *").unwrap_err();
    /// assert_eq!(error.to_string(), "hour: 24 is out of range 0-23");
    /// assert_eq!(error.caret("0 24 * * *"), "0 24 * * *\n  ^^");
    /// ```
    ///
    /// # Errors
    /// Names the field, the mistake and its place where the expression is not in the dialect, could
    /// never fire, or needs a job's name to choose a value by.
    pub fn parse(expr: &str) -> Result<Self, ScheduleError> {
        Self::read(expr, Context::default())
    }

    /// Reads the expression of a job, whose name chooses what `~` stands for. The periods of
    /// `@every` begin at the anchor, and nothing fires before it.
    ///
    /// ```
    /// use carillon_core::schedule::Schedule;
    /// let nightly = Schedule::for_job("~ 3 * * *", "settle", None).unwrap();
    /// assert_eq!(nightly.canonical(), "25 3 * * *");
    /// ```
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn for_job(
        expr: &str,
        name: &str,
        anchor: Option<DateTime<Utc>>,
    ) -> Result<Self, ScheduleError> {
        Self::read(expr, Context { name: Some(name), anchor })
    }

    fn read(expr: &str, context: Context<'_>) -> Result<Self, ScheduleError> {
        let rule = parse::parse(expr, context)?;
        Ok(Self(Arc::new(Inner { text: expr.into(), rule })))
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The same rule in its one canonical spelling, with `~` resolved; without the anchor.
    #[must_use]
    pub fn canonical(&self) -> String {
        print::canonical(&self.0.rule)
    }

    /// Whether two schedules fire alike because they are the same rule, however they are spelled.
    #[must_use]
    pub fn means_the_same(&self, other: &Self) -> bool {
        self.0.rule == other.0.rule
    }

    /// The first firing strictly after an instant, in whole seconds; none when there is none
    /// before the end of the year 2100.
    ///
    /// ```
    /// use carillon_core::schedule::Schedule;
    /// let nightly = Schedule::parse("30 2 * * *").unwrap();
    /// let after = "2026-03-08T00:00:00Z".parse().unwrap();
    /// // 02:30 does not exist in New York on that day: it fires as the clock jumps to 03:00.
    /// let next = nightly.next_after(chrono_tz::America::New_York, after).unwrap();
    /// assert_eq!(next.to_rfc3339(), "2026-03-08T07:00:00+00:00");
    /// ```
    #[must_use]
    pub fn next_after(&self, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        calendar::instant(self.0.rule.next_after(Clock::of(zone), after.timestamp())?)
    }

    /// The firings after an instant, in order.
    pub fn upcoming(
        &self,
        zone: Tz,
        after: DateTime<Utc>,
    ) -> impl Iterator<Item = DateTime<Utc>> + use<> {
        let schedule = self.clone();
        std::iter::successors(schedule.next_after(zone, after), move |at| {
            schedule.next_after(zone, *at)
        })
    }

    /// How many firings lie in `(after, through]`, and the last of them; of more than `limit`
    /// only the first `limit` are counted. Found by arithmetic: the cost does not grow with the
    /// count.
    #[must_use]
    pub fn slots_between(
        &self,
        zone: Tz,
        after: DateTime<Utc>,
        through: DateTime<Utc>,
        limit: usize,
    ) -> (usize, Option<DateTime<Utc>>) {
        let (rule, clock) = (&self.0.rule, Clock::of(zone));
        let after = after.timestamp();
        let count = |through| {
            let count = rule.count(clock, after, through);
            usize::try_from(count).unwrap_or(usize::MAX)
        };
        let (mut before, mut last) = (after, through.timestamp());
        let total = count(last).min(limit);
        if total == 0 {
            return (0, None);
        }
        // The last one counted is where the count first reaches the total.
        while last - before > 1 {
            let middle = before + (last - before) / 2;
            if count(middle) >= total {
                last = middle;
            } else {
                before = middle;
            }
        }
        (total, DateTime::from_timestamp(last, 0))
    }

    /// One plain English sentence, such as `at 01:00 on the 1st of each month and on Mondays`.
    /// It names no zone, except UTC where the rule itself counts in it.
    #[must_use]
    pub fn describe(&self) -> String {
        describe::sentence(&self.0.rule)
    }

    /// The same, with the zone where the firings depend on it.
    ///
    /// ```
    /// use carillon_core::schedule::Schedule;
    /// use chrono_tz::Asia::Shanghai;
    /// let words = |expr: &str| Schedule::parse(expr).unwrap().describe_in(Shanghai);
    /// assert_eq!(
    ///     words("0 1 1 * 1"),
    ///     "at 01:00 on the 1st of each month and on Mondays, Asia/Shanghai"
    /// );
    /// assert_eq!(words("@every 90s"), "every 90 seconds");
    /// ```
    #[must_use]
    pub fn describe_in(&self, zone: Tz) -> String {
        describe::sentence_in(&self.0.rule, zone)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Schedule {}

impl std::hash::Hash for Schedule {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.text()).finish()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(expr: &str) -> Result<Self, Self::Err> {
        Self::parse(expr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::{America, Asia, Europe, Pacific};

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next(expr: &str, zone: Tz, after: &str) -> Option<String> {
        let schedule = Schedule::parse(expr).unwrap();
        let next = schedule.next_after(zone, at(after))?;
        Some(next.with_timezone(&zone).to_rfc3339())
    }

    #[test]
    fn firings_by_hand() {
        let ny = America::New_York;
        for (expr, zone, after, expected) in [
            ("0 1 * * *", Asia::Shanghai, "2026-01-01T00:00:00Z", "2026-01-02T01:00:00+08:00"),
            ("0 1 * * *", Tz::UTC, "2026-01-01T01:00:00Z", "2026-01-02T01:00:00+00:00"),
            ("0 1 * * *", Tz::UTC, "2026-01-01T00:59:59.999Z", "2026-01-01T01:00:00+00:00"),
            ("* * * * * *", Tz::UTC, "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01+00:00"),
            ("0 1 1 * MON", Tz::UTC, "2026-01-01T01:00:00Z", "2026-01-05T01:00:00+00:00"),
            ("0 0 29 2 *", Tz::UTC, "2096-03-01T00:00:00Z", "none"),
            ("0 0 29 2 *", Tz::UTC, "2026-01-01T00:00:00Z", "2028-02-29T00:00:00+00:00"),
            ("0 0 */29 2 MON", Tz::UTC, "2026-03-01T00:00:00Z", "2027-02-01T00:00:00+00:00"),
            ("0 0 0 1 1 ? 2020", Tz::UTC, "2026-01-01T00:00:00Z", "none"),
            ("0 0 0 1 1 ? 2020", Tz::UTC, "1900-01-01T00:00:00Z", "2020-01-01T00:00:00+00:00"),
            ("* * * * * *", Tz::UTC, "2100-12-31T23:59:58Z", "2100-12-31T23:59:59+00:00"),
            ("* * * * * *", Tz::UTC, "2100-12-31T23:59:59Z", "none"),
            ("* * * * * *", Tz::UTC, "1500-12-31T23:59:59Z", "1970-01-01T00:00:00+00:00"),
            ("@every 1h30m", Asia::Shanghai, "1970-01-01T00:00:00Z", "1970-01-01T09:30:00+08:00"),
            ("@every 2d", Tz::UTC, "2026-01-01T00:00:00Z", "2026-01-03T00:00:00+00:00"),
            // Gap: 02:00 to 03:00 on 8 March 2026.
            ("30 2 * * *", ny, "2026-03-08T06:00:00Z", "2026-03-08T03:00:00-04:00"),
            ("30 2 * * *", ny, "2026-03-08T07:00:00Z", "2026-03-09T02:30:00-04:00"),
            ("*/30 * * * *", ny, "2026-03-08T06:30:00Z", "2026-03-08T03:00:00-04:00"),
            ("*/30 2 * * *", ny, "2026-03-08T06:30:00Z", "2026-03-09T02:00:00-04:00"),
            // Fold: 01:00 to 02:00 on 1 November 2026.
            ("30 1 * * *", ny, "2026-11-01T05:00:00Z", "2026-11-01T01:30:00-04:00"),
            ("30 1 * * *", ny, "2026-11-01T05:30:00Z", "2026-11-02T01:30:00-05:00"),
            ("30 1 * * *", ny, "2026-11-01T06:15:00Z", "2026-11-02T01:30:00-05:00"),
            ("30 * * * *", ny, "2026-11-01T05:30:00Z", "2026-11-01T01:30:00-05:00"),
            // Berlin's New Year is still the old year in UTC.
            ("@yearly", Europe::Berlin, "2026-06-01T00:00:00Z", "2027-01-01T00:00:00+01:00"),
            ("0 9 * * *", Pacific::Apia, "2011-12-29T20:00:00Z", "2011-12-31T00:00:00+14:00"),
        ] {
            let found = next(expr, zone, after);
            assert_eq!(found.as_deref().unwrap_or("none"), expected, "{expr} after {after}");
        }
    }

    #[test]
    fn a_window_may_begin_in_the_last_second_before_a_change() {
        let (before, change) = (at("2026-03-08T06:59:59Z"), at("2026-03-08T07:00:00Z"));
        for expr in ["0 * * * *", "0 3 * * *", "30 2 * * *"] {
            let schedule = Schedule::parse(expr).unwrap();
            let slots = schedule.slots_between(America::New_York, before, change, 10);
            assert_eq!(slots, (1, Some(change)), "{expr}");
        }
    }

    #[test]
    fn the_ends_of_time_are_quiet() {
        for expr in ["* * * * * *", "30 2 * * *", "@every 7s", "0 0 29 2 1"] {
            let schedule = Schedule::parse(expr).unwrap();
            for zone in [Tz::UTC, America::New_York, Pacific::Kiritimati] {
                assert_eq!(schedule.next_after(zone, DateTime::<Utc>::MAX_UTC), None);
                assert!(schedule.next_after(zone, DateTime::<Utc>::MIN_UTC).is_some());
                let ever = schedule.slots_between(
                    zone,
                    DateTime::<Utc>::MIN_UTC,
                    DateTime::<Utc>::MAX_UTC,
                    usize::MAX,
                );
                let last = ever.1.unwrap();
                assert_eq!(schedule.next_after(zone, last), None, "{expr} {last}");
            }
        }
    }

    #[test]
    fn a_gap_is_counted_without_walking_it() {
        let schedule = Schedule::parse("* * * * * *").unwrap();
        let (from, to) = (at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
        let start = std::time::Instant::now();
        let counted = schedule.slots_between(America::New_York, from, to, usize::MAX);
        assert_eq!(counted, (365 * 86_400, Some(to)));
        assert!(start.elapsed().as_millis() < 500);
        assert_eq!(
            schedule.slots_between(Tz::UTC, from, to, 10),
            (10, Some(at("2025-01-01T00:00:10Z")))
        );
        assert_eq!(schedule.slots_between(Tz::UTC, from, to, 0), (0, None));
        assert_eq!(schedule.slots_between(Tz::UTC, to, from, 10), (0, None));
    }

    #[test]
    fn equal_by_text_and_shown_as_written() {
        let a = Schedule::parse(" 0 1 * * *").unwrap();
        assert_eq!((a.text(), a.to_string()), (" 0 1 * * *", " 0 1 * * *".into()));
        assert_eq!(a, a.clone());
        assert_eq!(a, " 0 1 * * *".parse().unwrap());
        assert_ne!(a, Schedule::parse("0 1 * * *").unwrap());
        assert_eq!(format!("{a:?}"), "Schedule(\" 0 1 * * *\")");
    }
}
