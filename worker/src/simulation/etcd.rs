//! A model of etcd: revisions, leases, and a history that watches read from.

use std::collections::BTreeMap;

use carillon_core::replica::{Feed, Item};
use carillon_core::steps::{Answer, Predicate, Refusal, Step, Test, Write};
use chrono::{DateTime, Utc};

use super::mutation::Mutation;

/// A key's value and how it came to be.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub value: Vec<u8>,
    pub created: i64,
    pub modified: i64,
    pub lease: i64,
}

/// One cluster.
pub(super) struct Etcd {
    pub kvs: BTreeMap<String, Stored>,
    pub revision: i64,
    /// What each revision changed.
    history: BTreeMap<i64, Vec<Item>>,
    /// No watch reads from before this revision.
    compacted: i64,
    /// Until when each lease lives.
    pub leases: BTreeMap<i64, DateTime<Utc>>,
    last_lease: i64,
    mutation: Option<Mutation>,
}

impl Etcd {
    pub fn new(mutation: Option<Mutation>) -> Self {
        Self {
            kvs: BTreeMap::new(),
            revision: 1,
            history: BTreeMap::new(),
            compacted: 0,
            leases: BTreeMap::new(),
            last_lease: 0,
            mutation,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Stored> {
        self.kvs.get(key)
    }

    /// Every key that begins with `prefix`.
    pub fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Stored)> {
        let rest = self.kvs.range(prefix.to_owned()..);
        rest.take_while(move |(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.as_str(), v))
    }

    /// What becomes of each step of one transaction: `None` where it is carried out. All compares
    /// are evaluated before any write, those of the inner transactions too.
    pub fn judge(&self, steps: &[Step]) -> Vec<Option<Refusal>> {
        steps.iter().map(|step| self.refusal(step)).collect()
    }

    fn refusal(&self, step: &Step) -> Option<Refusal> {
        let dropped = |p: &Predicate| self.mutation.is_some_and(|m| m.drops(step, p));
        let broken = |p: &&Predicate| !dropped(p) && !self.holds(p);
        step.when.iter().find(broken).map(|p| p.refusal)
    }

    fn holds(&self, p: &Predicate) -> bool {
        let found = self.kvs.get(&p.key);
        let modified = found.map_or(0, |kv| kv.modified);
        let created = found.map_or(0, |kv| kv.created);
        let lease = found.map_or(0, |kv| kv.lease);
        match p.test {
            Test::ModifiedAt(revision) => modified == revision,
            Test::ModifiedBefore(revision) => modified < revision,
            Test::CreatedAt(revision) => created == revision,
            Test::Exists => created > 0,
            Test::AllCreatedBefore(revision) => {
                self.range(&p.key).all(|(_, kv)| kv.created < revision)
            }
            Test::LeaseIs(id) => lease == id,
            Test::LeaseIsNot(id) => lease != id,
        }
    }

    /// Carries out the steps that [`Self::judge`] let pass, at one revision.
    pub fn carry_out(&mut self, steps: &[Step], verdicts: &[Option<Refusal>]) -> Vec<Answer> {
        let passed = steps.iter().zip(verdicts).filter(|(_, refusal)| refusal.is_none());
        let writes: Vec<(Write, i64)> =
            passed.flat_map(|(step, _)| step.then.iter().map(|write| (write.clone(), 0))).collect();
        self.write(writes);
        let answer = |refusal: &Option<Refusal>| {
            refusal.map_or(Answer::Done(self.revision), Answer::Refused)
        };
        verdicts.iter().map(answer).collect()
    }

    /// Writes at one revision, each with the lease that its key hangs on. Deleting what is not
    /// there is no write.
    pub fn write(&mut self, writes: Vec<(Write, i64)>) {
        let revision = self.revision + 1;
        let mut items = Vec::new();
        for (write, lease) in writes {
            let (key, value) = match write {
                Write::Put(key, value) => (key, Some(value)),
                Write::Delete(key) => (key, None),
            };
            let created = match &value {
                Some(value) => {
                    let created = self.kvs.get(&key).map_or(revision, |kv| kv.created);
                    let stored =
                        Stored { value: value.clone(), created, modified: revision, lease };
                    self.kvs.insert(key.clone(), stored);
                    created
                }
                None if self.kvs.remove(&key).is_none() => continue,
                None => 0,
            };
            items.push(item(&key, value, revision, created, lease));
        }
        if !items.is_empty() {
            self.revision = revision;
            self.history.insert(revision, items);
        }
    }

    pub fn put(&mut self, key: String, value: &str) {
        self.write(vec![(Write::Put(key, value.into()), 0)]);
    }

    pub fn delete(&mut self, key: String) {
        self.write(vec![(Write::Delete(key), 0)]);
    }

    pub fn grant(&mut self, until: DateTime<Utc>) -> i64 {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, until);
        self.last_lease
    }

    /// Ends a lease, and with it the keys that hang on it.
    pub fn end_lease(&mut self, lease: i64) {
        if self.leases.remove(&lease).is_some() {
            let hanging = self.kvs.iter().filter(|(_, kv)| kv.lease == lease);
            let keys: Vec<_> = hanging.map(|(k, _)| (Write::Delete(k.clone()), 0)).collect();
            self.write(keys);
        }
    }

    pub fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    /// What a watch that has delivered everything up to `seen` delivers next, at most `count`
    /// revisions; the whole state, where that is compacted or nothing was delivered yet.
    pub fn next_feed(&self, seen: Option<i64>, count: usize) -> Option<Feed> {
        let Some(seen) = seen.filter(|seen| *seen >= self.compacted) else {
            let all = self.kvs.iter();
            let items = all
                .map(|(k, kv)| item(k, Some(kv.value.clone()), kv.modified, kv.created, kv.lease));
            let items = items.collect();
            return Some(Feed::Snapshot { revision: self.revision, cluster: 1, items });
        };
        let mut next = self.history.range(seen + 1..).take(count).peekable();
        next.peek()?;
        let (mut revision, mut items) = (seen, Vec::new());
        for (at, changed) in next {
            revision = *at;
            items.extend(changed.iter().cloned());
        }
        Some(Feed::Changes { revision, items })
    }
}

fn item(key: &str, value: Option<Vec<u8>>, modified: i64, created: i64, lease: i64) -> Item {
    Item {
        key: key.as_bytes().to_vec(),
        value,
        mod_revision: modified,
        create_revision: created,
        lease,
    }
}
