//! What a wall clock in a zone shows: the zone's history as stretches of constant UTC offset, and
//! the one idea behind the daylight-saving rule, the highest reading so far.
//!
//! `chrono-tz` answers "which offset holds at this instant" but keeps its list of transitions to
//! itself, so the list is recovered by probing, once per zone and process, and kept.
//!
//! All times are whole seconds: *instants* count from the Unix epoch in UTC, *readings* count from
//! 1970-01-01 00:00 on the zone's own clock.

use std::sync::OnceLock;

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

/// The first instant that no schedule reaches any more, 2101-01-01T00:00:00Z.
pub(super) const HORIZON: i64 = 4_133_980_800;

/// Two changes of a zone's offset are never closer than this. The closest since 1970 in tz
/// database 2025b are 6.9 days apart (Recife 2000, Gaza 2040); a test holds every zone to it.
const PROBE_STEP: i64 = 2 * 86_400;

/// A stretch of time with one UTC offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first instant; `i64::MIN` for the first segment.
    pub(super) start: i64,
    /// Seconds to add to an instant to get the reading.
    pub(super) offset: i64,
    /// The highest reading at any instant before `start`; `i64::MIN` for the first segment.
    pub(super) reached: i64,
}

impl Segment {
    /// The reading at the first instant of this segment.
    pub(super) fn first_reading(&self) -> i64 {
        self.start.saturating_add(self.offset)
    }

    /// The first and the last reading that the clock jumped over to get here; none after a step
    /// backwards.
    pub(super) fn skipped(&self) -> Option<(i64, i64)> {
        let (first, last) = (self.reached.checked_add(1)?, self.first_reading().saturating_sub(1));
        (self.start > i64::MIN && first <= last).then_some((first, last))
    }

    /// The first and the last reading that the clock shows again from here on; none after a step
    /// forwards.
    pub(super) fn repeated(&self) -> Option<(i64, i64)> {
        let (first, last) = (self.first_reading(), self.reached);
        (self.start > i64::MIN && first <= last).then_some((first, last))
    }
}

/// Instants in one entry of a clock's index: 48.5 days, as a power of two.
const INDEX_SHIFT: u32 = 22;

/// The wall clock of one zone from 1970 to the horizon.
#[derive(Debug)]
pub(super) struct Clock {
    /// Never empty, ordered by `start`; `reached` never decreases either.
    segments: Box<[Segment]>,
    /// For each 2^22 seconds since the epoch, the segment that holds at their beginning: a search
    /// begins there and is over after a step or two.
    index: Box<[u16]>,
}

impl Clock {
    /// The clock of `zone`; computed at its first use, about a millisecond.
    pub(super) fn of(zone: Tz) -> &'static Self {
        static CLOCKS: [OnceLock<Clock>; TZ_VARIANTS.len()] =
            [const { OnceLock::new() }; TZ_VARIANTS.len()];
        match CLOCKS.get(zone as usize) {
            Some(place) => place.get_or_init(|| Self::probe(zone)),
            // Not reached while the list holds every variant in order, which a test asserts.
            None => Box::leak(Box::new(Self::probe(zone))),
        }
    }

    fn probe(zone: Tz) -> Self {
        let mut start = -PROBE_STEP;
        let mut last =
            Segment { start: i64::MIN, offset: offset_at(zone, start), reached: i64::MIN };
        let mut segments = vec![last];
        while let Some(change) = next_transition(zone, start, HORIZON + PROBE_STEP) {
            last = Segment {
                start: change,
                offset: offset_at(zone, change),
                reached: last.reached.max(change - 1 + last.offset),
            };
            segments.push(last);
            start = change;
        }
        let index = (0..=(HORIZON + PROBE_STEP) >> INDEX_SHIFT)
            .map(|entry| {
                let begun = segments.partition_point(|s| s.start <= entry << INDEX_SHIFT);
                u16::try_from(begun - 1).unwrap_or_default()
            })
            .collect();
        Self { segments: segments.into_boxed_slice(), index }
    }

    /// The number of the segment that holds at an instant.
    fn position(&self, instant: i64) -> usize {
        let entry = usize::try_from(instant >> INDEX_SHIFT).unwrap_or_default();
        // Past the end of the index the last segment holds.
        let mut position =
            self.index.get(entry).map_or(self.segments.len() - 1, |p| usize::from(*p));
        while self.segments.get(position + 1).is_some_and(|s| s.start <= instant) {
            position += 1;
        }
        position
    }

    /// The segment that holds at an instant, and all later ones in order.
    pub(super) fn segments_from(&self, instant: i64) -> &[Segment] {
        if self.segments.len() == 1 {
            return &self.segments;
        }
        self.segments.get(self.position(instant)..).unwrap_or(&[])
    }

    fn segment_at(&self, instant: i64) -> Segment {
        // Never empty, and the first segment has no beginning.
        self.segments.get(self.position(instant)).copied().unwrap_or(Segment {
            start: i64::MIN,
            offset: 0,
            reached: i64::MIN,
        })
    }

    /// What the clock shows at an instant.
    pub(super) fn reading(&self, instant: i64) -> i64 {
        instant + self.segment_at(instant).offset
    }

    /// The highest reading at this instant or any before it.
    pub(super) fn highest_reading(&self, instant: i64) -> i64 {
        let segment = self.segment_at(instant);
        segment.reached.max(instant + segment.offset)
    }

    /// The first instant at which the clock shows this reading or a later one: the reading's
    /// first occurrence, or the end of the gap that swallowed it.
    pub(super) fn first_instant(&self, reading: i64) -> i64 {
        // No offset is a whole day, so this segment is not too late.
        let mut position = self.position(reading - 86_400);
        while self.segments.get(position + 1).is_some_and(|s| s.reached < reading) {
            position += 1;
        }
        self.segments.get(position).map_or(reading, |s| s.start.max(reading - s.offset))
    }

    /// The segment that begins exactly at this instant.
    pub(super) fn change_at(&self, instant: i64) -> Option<Segment> {
        let segment = self.segment_at(instant);
        (segment.start == instant).then_some(segment)
    }

    /// Whether the clock has shown the reading of this instant before.
    pub(super) fn has_shown(&self, instant: i64) -> bool {
        let now = self.segment_at(instant);
        instant + now.offset <= now.reached
    }

    /// Whether the clock shows the reading of this instant at another instant too.
    pub(super) fn repeats(&self, instant: i64) -> bool {
        let mut segments = self.segments_from(instant).iter();
        let Some(now) = segments.next() else {
            return false;
        };
        let reading = instant + now.offset;
        reading <= now.reached || segments.next().is_some_and(|s| reading >= s.first_reading())
    }
}

fn offset_at(zone: Tz, instant: i64) -> i64 {
    let utc = DateTime::from_timestamp(instant, 0).unwrap_or_default();
    let offset = zone.offset_from_utc_datetime(&utc.naive_utc());
    i64::from(offset.fix().local_minus_utc())
}

/// The first instant in `(after, until]` whose UTC offset is not that of the instant before.
pub(super) fn next_transition(zone: Tz, after: i64, until: i64) -> Option<i64> {
    let before = offset_at(zone, after);
    let mut same = after;
    while same < until {
        let mut other = (same + PROBE_STEP).min(until);
        if offset_at(zone, other) == before {
            same = other;
            continue;
        }
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            if offset_at(zone, middle) == before {
                same = middle;
            } else {
                other = middle;
            }
        }
        return Some(other);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::{America, Pacific};

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp()
    }

    #[test]
    fn finds_the_changes_that_the_almanac_lists() {
        let from = at("2026-01-01T00:00:00Z");
        let spring = next_transition(America::New_York, from, HORIZON).unwrap();
        assert_eq!(spring, at("2026-03-08T07:00:00Z"));
        let autumn = next_transition(America::New_York, spring, HORIZON).unwrap();
        assert_eq!(autumn, at("2026-11-01T06:00:00Z"));
        assert_eq!(next_transition(Tz::UTC, 0, HORIZON), None);
        assert_eq!(next_transition(America::New_York, from, spring - 1), None);
        assert_eq!(next_transition(America::New_York, from, spring), Some(spring));
    }

    #[test]
    fn a_zone_may_skip_a_whole_day() {
        let apia = Clock::of(Pacific::Apia);
        let change = apia.change_at(at("2011-12-30T10:00:00Z")).unwrap();
        assert_eq!(
            change.skipped(),
            Some((at("2011-12-30T00:00:00Z"), at("2011-12-30T23:59:59Z")))
        );
        assert_eq!(apia.first_instant(at("2011-12-30T12:00:00Z")), at("2011-12-30T10:00:00Z"));
    }

    #[test]
    fn a_repeated_hour_is_seen_from_both_sides() {
        let clock = Clock::of(America::New_York);
        for (instant, repeats) in [
            ("2026-11-01T04:59:59Z", false),
            ("2026-11-01T05:00:00Z", true),
            ("2026-11-01T05:59:59Z", true),
            ("2026-11-01T06:00:00Z", true),
            ("2026-11-01T06:59:59Z", true),
            ("2026-11-01T07:00:00Z", false),
        ] {
            assert_eq!(clock.repeats(at(instant)), repeats, "{instant}");
        }
    }

    /// The probing step is safe only while no two changes hide between two probes.
    #[test]
    fn every_zone_is_recovered_exactly() {
        for (index, &zone) in TZ_VARIANTS.iter().enumerate() {
            assert_eq!(zone as usize, index, "{zone}");
            let clock = Clock::probe(zone);
            for pair in clock.segments.windows(2).skip(1) {
                assert!(pair[1].start - pair[0].start > 2 * PROBE_STEP, "{zone}");
                assert!(pair[1].reached >= pair[0].reached, "{zone}");
            }
            // A stride that is no multiple of anything walks through all phases of the step.
            for instant in (0..HORIZON).step_by(5_000_011) {
                assert_eq!(
                    clock.reading(instant) - instant,
                    offset_at(zone, instant),
                    "{zone} {instant}"
                );
            }
        }
    }
}
