//! The jobs' next slots: the timetable, and where on it each job is. Pure.

use std::collections::HashMap;

use carillon_core::decide::{Cursor, plan};
use carillon_core::id::JobName;
use carillon_core::job::Checked;
use carillon_core::timetable::{Ticket, Timetable};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// Which job waits for which slot.
#[derive(Default)]
pub(crate) struct Slots {
    table: Timetable<JobName>,
    places: HashMap<JobName, Place>,
}

/// Where a job is on the timetable, and what its plan there was made of.
struct Place {
    ticket: Ticket,
    revision: i64,
    zone: Tz,
}

impl Slots {
    /// Makes a job wait for its first slot after `through`. `revision` is the job's.
    pub fn wait(&mut self, job: &Checked, revision: i64, zone: Tz, through: DateTime<Utc>) {
        let known = self.places.get_mut(&job.name);
        if let Some(place) = &known
            && (place.revision, place.zone) == (revision, zone)
        {
            return self.table.renew(place.ticket, through);
        }
        let plan = self.table.plan(&plan(job, zone));
        if let Some(place) = known {
            (place.revision, place.zone) = (revision, zone);
            return self.table.replace(place.ticket, plan, through);
        }
        let ticket = self.table.insert(job.name.clone(), plan, through);
        self.places.insert(job.name.clone(), Place { ticket, revision, zone });
    }

    /// Makes a job wait for its first slot after its cursor, if its plan is still the one that the
    /// cursor belongs to.
    pub fn go_on(&mut self, job: &JobName, cursor: &Cursor) -> bool {
        match self.places.get(job) {
            Some(place) if place.revision == cursor.rev && place.zone.name() == cursor.zone => {
                self.table.renew(place.ticket, cursor.through);
                true
            }
            _ => false,
        }
    }

    /// Takes a job off the timetable.
    pub fn forget(&mut self, job: &JobName) {
        if let Some(place) = self.places.remove(job) {
            self.table.remove(place.ticket);
        }
    }

    /// Takes the first job whose slot is due. It waits for no slot until it is told to.
    pub fn pop_due(&mut self, now: DateTime<Utc>) -> Option<JobName> {
        self.table.pop_due(now).map(|due| due.key.clone())
    }

    /// The earliest instant at which a slot is due.
    pub fn peek(&mut self) -> Option<DateTime<Utc>> {
        self.table.peek()
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::decide::due_at;
    use carillon_core::job::JobEntry;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn checked(json: &str) -> Checked {
        let entry = JobEntry::read(JobName::new("j").unwrap(), json.as_bytes(), 1, 1);
        entry.state.unwrap()
    }

    fn cursor(rev: i64, zone: &str, through: &str) -> Cursor {
        Cursor {
            rev,
            expr: String::new(),
            zone: zone.to_owned(),
            anchor: None,
            enabled: true,
            rules: String::new(),
            offset: 0,
            through: at(through),
            updated_at: None,
        }
    }

    const HOURLY: &str = r#"{"command":"c","cronExpr":"0 * * * *","spreadSecs":60}"#;

    #[test]
    fn a_slot_is_due_when_the_job_says_so() {
        let (job, mut slots) = (checked(HOURLY), Slots::default());
        slots.wait(&job, 5, Tz::UTC, at("2026-01-01T00:00:00Z"));
        let due = due_at(&job, at("2026-01-01T01:00:00Z"));
        assert!(due > at("2026-01-01T01:00:00Z"));
        assert_eq!(slots.peek(), Some(due));
        assert_eq!((slots.pop_due(due), slots.peek()), (Some(job.name), None));
    }

    #[test]
    fn a_cursor_moves_its_job_along_unless_it_belongs_to_another_plan() {
        let (job, mut slots) = (checked(HOURLY), Slots::default());
        let moved = "2026-01-01T03:00:00Z";
        assert!(!slots.go_on(&job.name, &cursor(5, "UTC", moved)));
        slots.wait(&job, 5, Tz::UTC, at("2026-01-01T00:00:00Z"));
        assert!(!slots.go_on(&job.name, &cursor(6, "UTC", moved)));
        assert!(!slots.go_on(&job.name, &cursor(5, "Asia/Tokyo", moved)));
        assert!(slots.go_on(&job.name, &cursor(5, "UTC", moved)));
        assert_eq!(slots.peek(), Some(due_at(&job, at("2026-01-01T04:00:00Z"))));
        slots.forget(&job.name);
        assert_eq!(slots.peek(), None);
        assert!(!slots.go_on(&job.name, &cursor(5, "UTC", moved)));
    }

    #[test]
    fn an_edited_job_is_on_its_new_plan() {
        let mut slots = Slots::default();
        slots.wait(&checked(HOURLY), 5, Tz::UTC, at("2026-01-01T00:00:00Z"));
        let daily = checked(r#"{"command":"c","cronExpr":"0 9 * * *"}"#);
        slots.wait(&daily, 6, Tz::UTC, at("2026-01-01T00:00:00Z"));
        assert_eq!(slots.peek(), Some(at("2026-01-01T09:00:00Z")));
        slots.wait(&daily, 6, Tz::Asia__Tokyo, at("2026-01-01T00:30:00Z"));
        assert_eq!(slots.peek(), Some(at("2026-01-02T00:00:00Z")));
        assert_eq!(slots.table.len(), 1);
    }
}
