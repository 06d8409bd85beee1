//! The jobs' next slots: the timetable, and where on it each job is. Pure.

use std::hash::BuildHasher;

use carillon_core::decide::{Cursor, plan};
use carillon_core::id::JobName;
use carillon_core::job::Checked;
use carillon_core::timetable::{Ticket, Timetable};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Which job waits for which slot.
#[derive(Default)]
pub(crate) struct Slots {
    table: Timetable<Place>,
    /// The places of the jobs on the table, found by the job's name.
    tickets: HashTable<Ticket>,
    hasher: DefaultHashBuilder,
}

/// A job on the timetable, and what its plan there was made of.
struct Place {
    job: JobName,
    revision: i64,
    zone: Tz,
}

impl Slots {
    /// Makes a job wait for its first slot after `through`. `revision` is the job's.
    pub fn wait(&mut self, job: &Checked, revision: i64, zone: Tz, through: DateTime<Utc>) {
        let known = self.ticket(&job.name);
        if let Some((ticket, place)) = known
            && (place.revision, place.zone) == (revision, zone)
        {
            return self.table.renew(ticket, through);
        }
        let known = known.map(|(ticket, _)| ticket);
        let plan = self.table.plan(&plan(job, zone));
        let place = Place { job: job.name.clone(), revision, zone };
        if let Some(ticket) = known {
            if let Some(known) = self.table.get_mut(ticket) {
                *known = place;
            }
            return self.table.replace(ticket, plan, through);
        }
        let ticket = self.table.insert(place, plan, through);
        let Self { table, tickets, hasher } = self;
        let hash = |ticket: &Ticket| hasher.hash_one(table.get(*ticket).map(|place| &place.job));
        tickets.insert_unique(hash(&ticket), ticket, hash);
    }

    /// Makes a job wait for its first slot after its cursor, if its plan is still the one that the
    /// cursor belongs to.
    pub fn go_on(&mut self, job: &JobName, cursor: &Cursor) -> bool {
        match self.ticket(job) {
            Some((ticket, place))
                if place.revision == cursor.rev && place.zone.name() == cursor.zone =>
            {
                self.table.renew(ticket, cursor.through);
                true
            }
            _ => false,
        }
    }

    /// Takes a job off the timetable.
    pub fn forget(&mut self, job: &JobName) {
        let Some((ticket, _)) = self.ticket(job) else { return };
        let hash = self.hasher.hash_one(Some(job));
        if let Ok(known) = self.tickets.find_entry(hash, |known| *known == ticket) {
            known.remove();
        }
        self.table.remove(ticket);
    }

    fn ticket(&self, job: &JobName) -> Option<(Ticket, &Place)> {
        let of_job = |ticket: &Ticket| self.table.get(*ticket).is_some_and(|p| p.job == *job);
        let ticket = *self.tickets.find(self.hasher.hash_one(Some(job)), of_job)?;
        Some((ticket, self.table.get(ticket)?))
    }

    /// Takes the first job whose slot is due. It waits for no slot until it is told to.
    pub fn pop_due(&mut self, now: DateTime<Utc>) -> Option<JobName> {
        self.table.pop_due(now).map(|due| due.key.job.clone())
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
    use crate::testing::at;

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
