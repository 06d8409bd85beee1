//! How a list, which comes in parts, is taken in.
//!
//! Jobs and their cursors, of which there may be a million, are changed in place: a second copy of
//! them would be as much memory again. Everything else changes with the last part.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::{Item, Replica, absent};
use crate::cursors::Kept;
use crate::id::JobName;
use crate::job::KeptJob;
use crate::keys::{Key, Keys};

/// A list of which not every part has come.
#[derive(Debug, Clone)]
pub(super) struct Listing<J> {
    revision: i64,
    cluster: u64,
    /// Whether it is of another past than what is known: a restored etcd counts revisions anew, and
    /// what stands at the same one may be something else.
    of_another_past: bool,
    /// What was listed so far besides jobs and their cursors: of those there are none in it.
    rest: Replica<J>,
    jobs: Listed<J>,
    cursors: Listed<Kept>,
}

/// What was listed of the jobs, or of their cursors.
#[derive(Debug, Clone)]
enum Listed<T> {
    /// None was known. A map that is made of all at once takes little more than half the memory of
    /// one that grows in order.
    New(Vec<(JobName, T)>),
    /// Some were known: these were listed, and the others have to go.
    Again(Vec<JobName>),
}

impl<T> Listed<T> {
    fn begin(first: bool) -> Self {
        if first { Self::New(Vec::new()) } else { Self::Again(Vec::new()) }
    }

    fn take_new(&mut self) -> BTreeMap<JobName, T> {
        match self {
            Self::New(new) => std::mem::take(new).into_iter().collect(),
            Self::Again(_) => BTreeMap::new(),
        }
    }

    /// Those of the names, which come in order, that were not listed.
    fn missing<'a>(self, names: impl Iterator<Item = &'a JobName>) -> Vec<JobName> {
        let Self::Again(mut listed) = self else { return Vec::new() };
        // etcd lists them in order, so that this has nothing to do.
        listed.sort_unstable();
        absent(names, listed.iter()).cloned().collect()
    }
}

impl<J: KeptJob> Replica<J> {
    /// The list that a part of this revision belongs to. One that was broken off is made anew.
    pub(super) fn listing(&mut self, revision: i64, cluster: u64) -> Box<Listing<J>> {
        let known = self.listing.take();
        known.filter(|l| (l.revision, l.cluster) == (revision, cluster)).unwrap_or_else(|| {
            self.unreadable.clear();
            Box::new(Listing {
                revision,
                cluster,
                of_another_past: revision < self.revision,
                rest: Self { revision, ..Self::default() },
                jobs: Listed::begin(self.jobs.is_empty()),
                cursors: Listed::begin(self.cursors.is_empty()),
            })
        })
    }

    /// Jobs and their cursors, of which there may be a million, are changed in place: a second copy
    /// of them would be as much memory again.
    pub(super) fn take_part(
        &mut self,
        listing: &mut Listing<J>,
        keys: &Keys,
        items: &[Item],
        now: DateTime<Utc>,
    ) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        let anew = listing.of_another_past;
        for item in items {
            let key = keys.parse(&item.key);
            let changed = match (&key, &item.value) {
                (Key::Job(job), Some(value)) => {
                    // They come after all cursors.
                    self.cursors.append(listing.cursors.take_new());
                    if anew {
                        self.delete(&key);
                    }
                    self.list_job(&mut listing.jobs, job, value, item)
                }
                (Key::Cursor(job, None), Some(value)) => {
                    self.list_cursor(&mut listing.cursors, job, value, item) || anew
                }
                _ => {
                    listing.rest.take(keys, item, now);
                    false
                }
            };
            if changed {
                touched.insert(key);
            }
        }
        touched
    }

    /// Returns whether it was not known at this revision.
    fn list_job(
        &mut self,
        listed: &mut Listed<J>,
        job: &JobName,
        value: &[u8],
        item: &Item,
    ) -> bool {
        let (rev, created) = (item.mod_revision, item.create_revision);
        let name = self.shared(job);
        match listed {
            Listed::New(new) => {
                let entry = J::take(&mut self.schedules, &name, value, rev, created);
                new.push((name, entry));
                true
            }
            Listed::Again(listed) => {
                let known = self.jobs.get(job).map(J::mod_revision);
                self.put_job(&name, value, rev, created);
                listed.push(name);
                known != Some(rev)
            }
        }
    }

    /// Returns whether it was not known at this revision.
    fn list_cursor(
        &mut self,
        listed: &mut Listed<Kept>,
        job: &JobName,
        value: &[u8],
        item: &Item,
    ) -> bool {
        // Read even at the same revision: a restored etcd counts revisions anew.
        let Some(cursor) = self.decode(&Key::Cursor(job.clone(), None), value, item.mod_revision)
        else {
            return false;
        };
        let name = self.shared(job);
        match listed {
            Listed::New(new) => {
                new.push((name, self.cursors.kept(cursor)));
                true
            }
            Listed::Again(listed) => {
                let known = self.cursors.revision(job);
                listed.push(name.clone());
                self.cursors.insert(name, cursor);
                known != Some(item.mod_revision)
            }
        }
    }

    pub(super) fn end_list(&mut self, listing: Listing<J>) -> BTreeSet<Key> {
        let Listing { mut rest, mut jobs, mut cursors, .. } = listing;
        self.cursors.append(cursors.take_new());
        let mut new = jobs.take_new();
        for (job, entry) in &new {
            self.count_job(job, entry.mod_revision());
        }
        self.jobs.append(&mut new);
        // How old a listed registration is, nobody can tell.
        for worker in rest.workers.values_mut() {
            let known = self.workers.get(&worker.id);
            let same = known.filter(|k| k.mod_revision == worker.mod_revision);
            worker.skew = same.and_then(|known| known.skew);
        }
        let mut touched = self.difference(&rest);
        let jobs = jobs.missing(self.jobs.keys()).into_iter().map(Key::Job);
        let cursors = cursors.missing(self.cursors.names()).into_iter();
        for key in jobs.chain(cursors.map(|job| Key::Cursor(job, None))) {
            self.delete(&key);
            touched.insert(key);
        }
        rest.jobs = std::mem::take(&mut self.jobs);
        rest.cursors = std::mem::take(&mut self.cursors);
        rest.schedules = std::mem::take(&mut self.schedules);
        rest.table_hash = self.table_hash;
        rest.unreadable.append(&mut self.unreadable);
        *self = rest;
        touched
    }
}
