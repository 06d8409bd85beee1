//! The cursors of many jobs in little memory: what most of them have in common is kept once. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::decide::Cursor;
use crate::id::JobName;

/// A decoded value with the revision of its last write.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// etcd revision of the last write: what a compare-and-swap compares.
    pub mod_revision: i64,
}

/// Fewer common parts than this are kept whether anybody uses them or not.
const KEPT: usize = 1024;

/// Cursors by job.
#[derive(Debug, Clone, Default)]
pub struct Cursors {
    cursors: BTreeMap<JobName, Kept>,
    common: HashSet<Arc<Cursor>>,
    /// When so many common parts are known, those that nobody uses any more are forgotten.
    full: usize,
}

/// A cursor as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    mod_revision: i64,
    rev: i64,
    through: DateTime<Utc>,
    updated_at: Option<DateTime<Utc>>,
    /// The rest of it: a cursor whose own part says nothing.
    common: Arc<Cursor>,
}

impl Cursors {
    /// The cursor of a job.
    pub fn get(&self, job: &JobName) -> Option<Versioned<Cursor>> {
        let Kept { mod_revision, rev, through, updated_at, common } = self.cursors.get(job)?;
        let (rev, through, updated_at) = (*rev, *through, *updated_at);
        let value = Cursor { rev, through, updated_at, ..Cursor::clone(common) };
        Some(Versioned { value, mod_revision: *mod_revision })
    }

    /// The revision of a job's cursor.
    pub fn revision(&self, job: &JobName) -> Option<i64> {
        self.cursors.get(job).map(|kept| kept.mod_revision)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }

    /// The jobs that have one, in order.
    pub fn names(&self) -> impl Iterator<Item = &JobName> {
        self.cursors.keys()
    }

    pub(crate) fn name(&self, job: &JobName) -> Option<&JobName> {
        self.cursors.get_key_value(job).map(|(name, _)| name)
    }

    pub(crate) fn insert(&mut self, job: JobName, cursor: Versioned<Cursor>) {
        let kept = self.kept(cursor);
        self.cursors.insert(job, kept);
    }

    /// Takes in many at once.
    pub(crate) fn append(&mut self, mut cursors: BTreeMap<JobName, Kept>) {
        self.cursors.append(&mut cursors);
    }

    /// A cursor as it is kept.
    pub(crate) fn kept(&mut self, cursor: Versioned<Cursor>) -> Kept {
        let Versioned { value, mod_revision } = cursor;
        let Cursor { rev, through, updated_at, .. } = value;
        let common = Cursor { rev: 0, through: DateTime::UNIX_EPOCH, updated_at: None, ..value };
        Kept { mod_revision, rev, through, updated_at, common: self.shared(common) }
    }

    pub(crate) fn remove(&mut self, job: &JobName) {
        self.cursors.remove(job);
    }

    fn shared(&mut self, common: Cursor) -> Arc<Cursor> {
        if let Some(known) = self.common.get(&common) {
            return known.clone();
        }
        if self.common.len() >= self.full {
            self.common.retain(|common| Arc::strong_count(common) > 1);
            self.full = (self.common.len() * 2).max(KEPT);
        }
        let common = Arc::new(common);
        self.common.insert(common.clone());
        common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(expr: &str, through: &str) -> Cursor {
        let json = format!(
            r#"{{"rev":5,"expr":"{expr}","zone":"UTC","enabled":true,"rules":"r","through":"{through}","offset":3600,"updatedAt":"2026-01-01T00:00:00Z"}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_and_what_it_shares_is_kept_once() {
        let mut cursors = Cursors::default();
        let [a, b] = ["a", "b"].map(|name| JobName::new(name).unwrap());
        let one = cursor("0 1 * * *", "2026-01-01T00:00:00.5Z");
        let other = cursor("0 1 * * *", "2026-01-02T00:00:00Z");
        cursors.insert(a.clone(), Versioned { value: one.clone(), mod_revision: 7 });
        cursors.insert(b.clone(), Versioned { value: other, mod_revision: 8 });
        assert_eq!(cursors.get(&a), Some(Versioned { value: one, mod_revision: 7 }));
        assert_eq!((cursors.revision(&b), cursors.common.len()), (Some(8), 1));
        cursors.remove(&b);
        assert_eq!(cursors.get(&b), None);
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut cursors = Cursors::default();
        let job = JobName::new("a").unwrap();
        for n in 0..5 * KEPT {
            let value = cursor(&format!("{n} * * * *"), "2026-01-01T00:00:00Z");
            cursors.insert(job.clone(), Versioned { value, mod_revision: 1 });
        }
        assert!(cursors.common.len() <= KEPT, "{}", cursors.common.len());
    }
}
