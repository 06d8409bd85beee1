//! Which slot is asked for, and which ones are around it.

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::place::Place;
use crate::id::{JobName, Slot};
use crate::replica::Replica;
use crate::run::RunRecord;
use crate::schedule::Schedule;

/// How far back the slot before an instant is looked for, wider each time: most schedules fire
/// often, and counting in a long window costs more.
const WINDOWS: [TimeDelta; 5] = [
    TimeDelta::hours(1),
    TimeDelta::days(2),
    TimeDelta::days(62),
    TimeDelta::days(3 * 366),
    TimeDelta::days(60 * 366),
];

/// Reads the slot that is asked for: an instant in RFC 3339, or a time by the zone's clock such as
/// `2026-11-24 09:30`; of one that comes twice, the first.
///
/// # Errors
/// Says that it is neither, or that the zone's clock never shows it.
pub fn read_slot(text: &str, zone: Tz) -> Result<Slot, String> {
    let text = text.trim();
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Slot::at(at.to_utc()));
    }
    let forms = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
    let local = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    let local = local.ok_or_else(|| {
        format!(
            "`{text}` is no slot: give an instant like 2026-01-31T01:00:00Z, or a time in {zone} \
             like '2026-01-31 01:00'"
        )
    })?;
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Ok(Slot::at(at.to_utc())),
        LocalResult::None => Err(format!(
            "`{text}` is skipped by the clocks in {zone}: give the instant, like 2026-01-31T01:00:00Z"
        )),
    }
}

/// The newest slot that was decided, as far as etcd and these records tell.
pub fn newest_decided(replica: &Replica, job: &JobName, records: &[RunRecord]) -> Option<Slot> {
    let recorded = records.iter().filter_map(RunRecord::newest_slot).max();
    replica.newest_decided(job).max(recorded)
}

/// The next slot of a job: its oldest undecided one, or the first after now where it has no cursor.
pub fn next_slot(replica: &Replica, job: &JobName, now: DateTime<Utc>) -> Option<Slot> {
    let checked = replica.jobs.get(job)?.state.as_ref().ok()?;
    let zone = replica.zone_of(checked).ok()?;
    let through = Place::of(replica, checked).first().and_then(|place| place.through);
    checked.schedule.next_after(zone, through.unwrap_or(now)).map(Slot::at)
}

/// The last firing before an instant, as far back as the windows reach.
pub(super) fn last_before(
    schedule: &Schedule,
    zone: Tz,
    at: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let until = at - TimeDelta::seconds(1);
    WINDOWS.iter().find_map(|window| {
        let after = until.checked_sub_signed(*window)?;
        schedule.slots_between(zone, after, until, usize::MAX).1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_as_an_instant_or_by_the_zones_clock() {
        let berlin = Tz::Europe__Berlin;
        let reads = [
            ("2026-11-24T08:30:00Z", "2026-11-24T08:30:00Z"),
            ("2026-11-24T09:30:00+01:00", "2026-11-24T08:30:00Z"),
            ("2026-11-24 09:30", "2026-11-24T08:30:00Z"),
            ("2026-11-24T09:30:05", "2026-11-24T08:30:05Z"),
            // Twice on that day: the first.
            ("2026-10-25 02:30", "2026-10-25T00:30:00Z"),
        ];
        for (text, expected) in reads {
            assert_eq!(read_slot(text, berlin), Ok(Slot::at(expected.parse().unwrap())), "{text}");
        }
        let gap = read_slot("2026-03-29 02:30", berlin).unwrap_err();
        assert!(gap.contains("is skipped by the clocks in Europe/Berlin"), "{gap}");
        assert!(read_slot("half past nine", berlin).unwrap_err().contains("is no slot"));
    }
}
