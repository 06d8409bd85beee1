//! Where a job's slots are decided, and how far each of these places has come.

use chrono::{DateTime, Utc};

use crate::id::{Slot, WorkerId};
use crate::job::{Checked, Scope};
use crate::replica::Replica;

/// Where a job's slots are decided: in the fleet, or on one worker.
pub(super) struct Place {
    /// That worker.
    pub(super) on: Option<WorkerId>,
    /// Up to where it has decided.
    pub(super) through: Option<DateTime<Utc>>,
    /// When that worker started.
    pub(super) registered: Option<DateTime<Utc>>,
}

impl Place {
    /// All places of a job, the one that is furthest behind first.
    pub(super) fn of(replica: &Replica, checked: &Checked) -> Vec<Self> {
        let through = |on: Option<&WorkerId>| {
            replica.cursor(&checked.name, on).map(|cursor| cursor.value.through)
        };
        if checked.job.scope == Scope::Once {
            return vec![Self { on: None, through: through(None), registered: None }];
        }
        let mut places: Vec<Self> = replica
            .workers
            .values()
            .filter_map(|worker| {
                let registration = worker.value.as_ref().ok()?;
                checked.job.selects(&registration.labels).then(|| Self {
                    through: through(Some(&worker.id)),
                    registered: Some(registration.started),
                    on: Some(worker.id.clone()),
                })
            })
            .collect();
        places.sort_by(|a, b| (a.through, &a.on).cmp(&(b.through, &b.on)));
        places
    }

    /// Whether it has decided the slot, or began after it.
    pub(super) fn has_passed(&self, slot: Slot) -> bool {
        self.through.is_some_and(|through| through >= slot.instant())
            || self.registered.is_some_and(|registered| registered > slot.instant())
    }
}
