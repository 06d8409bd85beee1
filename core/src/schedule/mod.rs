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
//!
//! # Disagreements with other libraries
//!
//! Tests hold random expressions that mean the same everywhere against croner (4.0), and against the
//! `cron` crate (0.17) away from clock changes. These tables say where the three part, and are read
//! by a test too: a cell is what comes of the expression, `never` where it is accepted and does not
//! fire. Each library is as it is by default; the `cron` crate, which needs a field of seconds, is
//! given `0` where there are five fields; `~` chooses for the job `settle`.
//!
//! The sources are crontab(5) and `entry.c` of Vixie cron, cron(8) of Debian for clocks that change,
//! and Quartz for `L`, `W` and `#`, which Vixie cron does not know.
//!
//! From 2026-01-01T00:00:00Z in UTC, the days:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | both day fields | `0 9 1 * MON` | 1 Jun 09:00 | 1 Jan 09:00, 5 Jan 09:00 | 1 Jan 09:00, 5 Jan 09:00 | crontab(5): either matches |
//! | one begins with `*` | `0 9 */2 * MON` | 5 Jan 09:00, 19 Jan 09:00 | 1 Jan 09:00, 3 Jan 09:00 | 5 Jan 09:00, 19 Jan 09:00 | `entry.c`: both match, as the first character decides; the manual ("aren't `*`") can be read as croner does |
//! | one begins with `?` | `0 9 ?/2 * MON` | 5 Jan 09:00, 19 Jan 09:00 | 1 Jan 09:00, 3 Jan 09:00 | 5 Jan 09:00, 19 Jan 09:00 | as `*` |
//! | one only contains `*` | `0 9 1,* * MON` | 5 Jan 09:00, 12 Jan 09:00 | refused | 1 Jan 09:00, 2 Jan 09:00 | `entry.c`, again by the first character |
//! | weekdays by number | `0 9 * * 1` | 4 Jan 09:00 | 5 Jan 09:00 | 5 Jan 09:00 | crontab(5): Monday; Quartz and the `cron` crate call Sunday 1 |
//! | Sunday as 0 | `0 9 * * 0` | refused | 4 Jan 09:00 | 4 Jan 09:00 | crontab(5): 0 or 7 |
//! | Sunday as 7 | `0 9 * * 7` | 3 Jan 09:00 | 4 Jan 09:00 | 4 Jan 09:00 | crontab(5): 0 or 7 |
//! | Sunday ends a week | `0 9 * * FRI-SUN` | refused | 2 Jan 09:00, 3 Jan 09:00, 4 Jan 09:00 | 2 Jan 09:00, 3 Jan 09:00, 4 Jan 09:00 | as 5-7 in crontab(5) |
//! | from Sunday to itself | `0 9 * * SUN-SUN` | 4 Jan 09:00, 11 Jan 09:00 | 1 Jan 09:00, 2 Jan 09:00 | 4 Jan 09:00, 11 Jan 09:00 | the `cron` crate and Carillon: croner reads 0-7 |
//! | a range that wraps around | `0 22-2 * * *` | refused | refused | 1 Jan 01:00, 1 Jan 02:00, 1 Jan 22:00 | Quartz; Vixie cron refuses it |
//! | steps from a value | `5/20 * * * *` | 1 Jan 00:05, 1 Jan 00:25, 1 Jan 00:45 | refused | 1 Jan 00:05, 1 Jan 00:25, 1 Jan 00:45 | Quartz; croner asks for `sloppy_ranges` |
//! | steps from a name | `0 9 * * MON/2` | refused | refused | 2 Jan 09:00, 5 Jan 09:00, 7 Jan 09:00 | Quartz |
//! | a range of a number and a name | `0 9 * * 5-SAT` | refused | 2 Jan 09:00, 3 Jan 09:00 | 2 Jan 09:00, 3 Jan 09:00 | harmless |
//! | a step past the end | `*/90 * * * *` | refused | 1 Jan 01:00, 1 Jan 02:00 | refused | crontab(5) sets no limit; but this is each hour, which 90 hardly meant |
//! | steps of years | `0 0 0 1 1 ? */2` | 1 Jan 2028 00:00, 1 Jan 2030 00:00 | 1 Jan 2027 00:00, 1 Jan 2029 00:00 | 1 Jan 2028 00:00, 1 Jan 2030 00:00 | the `cron` crate and Carillon count from 1970, croner from the year 1 |
//! | a year past 2100 | `0 0 0 1 1 ? 2101` | refused | 1 Jan 2101 00:00 | refused | nobody: a limit |
//! | the last day | `0 9 L * *` | refused | 31 Jan 09:00, 28 Feb 09:00 | 31 Jan 09:00, 28 Feb 09:00 | Quartz |
//! | days before it | `0 9 L-3 * *` | refused | refused | 28 Jan 09:00, 25 Feb 09:00 | Quartz |
//! | the last working day | `0 9 LW * *` | refused | 30 Jan 09:00, 27 Feb 09:00 | 30 Jan 09:00, 27 Feb 09:00 | Quartz |
//! | both in one list | `0 9 L,LW * *` | refused | 30 Jan 09:00, 27 Feb 09:00 | 30 Jan 09:00, 31 Jan 09:00 | Carillon: a list is all that is in it |
//! | the nearest working day | `0 9 1W,15W 8 *` | refused | 3 Aug 09:00, 14 Aug 09:00 | 3 Aug 09:00, 14 Aug 09:00 | Quartz: not across the end of the month |
//! | the n-th weekday | `0 9 * * FRI#2` | refused | 9 Jan 09:00, 13 Feb 09:00 | 9 Jan 09:00, 13 Feb 09:00 | Quartz |
//! | the last weekday | `0 9 * * FRIL` | refused | 30 Jan 09:00, 27 Feb 09:00 | 30 Jan 09:00, 27 Feb 09:00 | Quartz |
//! | the same, croner's way | `0 9 * * FRI#L` | refused | 30 Jan 09:00, 27 Feb 09:00 | refused | croner's own |
//! | several n-th weekdays | `0 9 * * MON-FRI#2` | refused | 8 Jan 09:00, 9 Jan 09:00, 12 Jan 09:00 | refused | croner's own |
//! | `L` for a weekday | `0 9 * * L` | refused | never | refused | Quartz: Saturdays; refused with a hint, as the last Saturday of the month may be meant |
//! | both days, by a plus | `0 9 13 * +FRI` | refused | 13 Feb 09:00, 13 Mar 09:00 | refused | croner's own |
//! | a date that is not | `0 0 30 2 *` | never | never | refused | Carillon: an error when it is saved, not a job that never runs |
//!
//! The text:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | long names | `0 9 * * monday` | 5 Jan 09:00 | refused | 5 Jan 09:00 | crontab(5) has three letters; harmless |
//! | longer short names | `0 9 1 sept *` | refused | refused | 1 Sep 09:00 | as above |
//! | a name in another field | `FRI * * * *` | refused | 1 Jan 00:05, 1 Jan 01:05 | refused | crontab(5): for months and weekdays only |
//! | nothing beside a comma | `5,,10 * * * *` | refused | 1 Jan 00:05, 1 Jan 00:10 | refused | crontab(5): commas stand between values |
//! | `*` in a list | `5,* * * * *` | 1 Jan 00:01, 1 Jan 00:02 | refused | 1 Jan 00:01, 1 Jan 00:02 | `entry.c`: `*` is a range like others |
//! | fields without a blank | `30* * * * *` | 1 Jan 00:30 | refused | refused | crontab(5): separated by blanks |
//! | lines as blanks | `30 9\n* * *` | 1 Jan 09:30 | 1 Jan 09:30 | refused | crontab(5): a line is a job |
//! | wide blanks | `30 9 *\u{3000}* *` | refused | 1 Jan 09:30 | refused | crontab(5): blanks and tabs |
//! | `@annually` | `@annually` | refused | 1 Jan 2027 00:00 | 1 Jan 2027 00:00 | crontab(5) |
//! | `@midnight` | `@midnight` | refused | refused | 2 Jan 00:00 | crontab(5) |
//! | in capitals | `@DAILY` | refused | 2 Jan 00:00 | 2 Jan 00:00 | harmless |
//! | a period | `@every 1h30m` | refused | refused | 1 Jan 01:30, 1 Jan 03:00 | of Go's robfig/cron, which counts from its own start; Carillon from the epoch or the anchor |
//! | an instant | `@at 2026-02-03 04:05` | refused | refused | 3 Feb 04:05 | Carillon's own |
//! | a chosen value | `0~30 9 * * *` | refused | refused | 1 Jan 09:13 | cronie and OpenBSD choose at random, Carillon by name |
//!
//! From 1950-06-01T00:00:00Z in UTC, before the calendar:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | the first year | `0 0 1 1 *` | 1 Jan 1970 00:00 | 1 Jan 1951 00:00 | 1 Jan 1970 00:00 | nobody: a limit |
//!
//! From 2100-06-01T00:00:00Z in UTC, behind it:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | the last year | `0 0 1 1 *` | never | 1 Jan 2101 00:00 | never | nobody: a limit |
//!
//! From 2026-03-08T05:00:00Z in America/New_York, two hours before a gap from 02:00 to 03:00:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | once a day | `30 2 * * *` | 9 Mar 02:30-04, 10 Mar 02:30-04 | 8 Mar 03:00-04, 9 Mar 02:30-04 | 8 Mar 03:00-04, 9 Mar 02:30-04 | cron(8): what was skipped runs soon after |
//! | twice in the gap | `0,30 2 * * *` | 9 Mar 02:00-04, 9 Mar 02:30-04 | 9 Mar 02:00-04, 9 Mar 02:30-04 | 8 Mar 03:00-04, 9 Mar 02:00-04 | cron(8): no `*` in hour or minute; but Carillon runs once for both |
//! | with steps of seconds | `*/30 30 2 * * *` | 9 Mar 02:30-04 | 9 Mar 02:30-04 | 8 Mar 03:00-04 | cron(8): hour and minute decide |
//!
//! From 2026-11-01T04:45:00Z in America/New_York, before 01:00 to 02:00 comes twice:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | once a day | `30 1 * * *` | 1 Nov 01:30-04, 1 Nov 01:30-05 | 1 Nov 01:30-04, 2 Nov 01:30-05 | 1 Nov 01:30-04, 2 Nov 01:30-05 | cron(8): what falls into the repeated time is not run again |
//! | twice in the hour | `0,30 1 * * *` | 1 Nov 01:00-04, 1 Nov 01:00-05, 1 Nov 01:30-04 | 1 Nov 01:00-04, 1 Nov 01:30-04, 1 Nov 01:00-05 | 1 Nov 01:00-04, 1 Nov 01:30-04, 2 Nov 01:00-05 | cron(8): no `*` in hour or minute |
//! | each half hour | `*/30 * * * *` | 1 Nov 01:00-04, 1 Nov 01:00-05, 1 Nov 01:30-04, 1 Nov 01:30-05 | 1 Nov 01:00-04, 1 Nov 01:30-04, 1 Nov 01:00-05, 1 Nov 01:30-05 | 1 Nov 01:00-04, 1 Nov 01:30-04, 1 Nov 01:00-05, 1 Nov 01:30-05 | croner and Carillon: time does not run backwards |
//!
//! From 2026-11-01T05:45:00Z in America/New_York, within the first of these hours:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | each half hour | `*/30 * * * *` | 1 Nov 02:00-05, 1 Nov 02:30-05 | 1 Nov 01:00-05, 1 Nov 01:30-05 | 1 Nov 01:00-05, 1 Nov 01:30-05 | croner and Carillon: the `cron` crate leaves out the second hour |
//!
//! From 2026-11-01T06:10:00Z in America/New_York, within the second:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | once a day | `30 1 * * *` | 1 Nov 01:30-04, 1 Nov 01:30-05 | 2 Nov 01:30-05, 3 Nov 01:30-05 | 2 Nov 01:30-05, 3 Nov 01:30-05 | croner and Carillon: the next firing is not in the past |
//!
//! From 2011-12-29T20:00:00Z in Pacific/Apia, where 30 December 2011 was skipped:
//!
//! | what | expression | `cron` | croner | Carillon | who is right |
//! | --- | --- | --- | --- | --- | --- |
//! | once a day | `0 9 * * *` | 31 Dec 09:00+14, 1 Jan 2012 09:00+14 | never | 31 Dec 00:00+14, 31 Dec 09:00+14 | cron(8) takes three hours and more for a correction, and the job is lost; Carillon has one rule for all gaps; croner gives up for good |

mod calendar;
mod chosen;
mod compiled;
mod days;
mod describe;
mod error;
mod field;
mod intern;
mod masks;
mod notes;
mod parse;
mod plan;
mod print;
mod zone;

#[cfg(test)]
mod generate;
#[cfg(test)]
mod model;
#[cfg(test)]
mod oracle;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

pub use chosen::spread_of;
pub(crate) use chosen::{gathered, mixed};
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
    use crate::testing::at;
    use chrono_tz::{America, Asia, Europe, Pacific};

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
