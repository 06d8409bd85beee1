//! The ordered list of what is due. Pure: it knows no clock, and each key stands in it once.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use chrono::{DateTime, Utc};

/// Keys in the order of their instants.
#[derive(Debug, Clone)]
pub struct Timetable<K> {
    order: BTreeSet<(DateTime<Utc>, K)>,
    times: HashMap<K, DateTime<Utc>>,
}

impl<K> Default for Timetable<K> {
    fn default() -> Self {
        Self {
            order: BTreeSet::new(),
            times: HashMap::new(),
        }
    }
}

impl<K: Ord + Hash + Clone> Timetable<K> {
    /// Puts `key` at `at`; where it stood before, it stands no longer.
    pub fn insert(&mut self, key: K, at: DateTime<Utc>) {
        if let Some(before) = self.times.insert(key.clone(), at) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((at, key));
    }

    /// Takes `key` out and returns where it stood.
    pub fn remove(&mut self, key: &K) -> Option<DateTime<Utc>> {
        let at = self.times.remove(key)?;
        self.order.remove(&(at, key.clone()));
        Some(at)
    }

    /// The earliest instant.
    pub fn peek(&self) -> Option<DateTime<Utc>> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest key that is due at `now`.
    pub fn pop_due(&mut self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, K)> {
        if self.peek()? > now {
            return None;
        }
        let (at, key) = self.order.pop_first()?;
        self.times.remove(&key);
        Some((at, key))
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_order_and_once() {
        let at = |secs| DateTime::from_timestamp(secs, 0).unwrap();
        let mut table = Timetable::default();
        table.insert("b", at(20));
        table.insert("a", at(20));
        table.insert("c", at(30));
        table.insert("c", at(10));
        table.insert("d", at(15));
        assert_eq!(table.remove(&"d"), Some(at(15)));
        assert_eq!((table.len(), table.peek()), (3, Some(at(10))));
        assert_eq!(table.pop_due(at(9)), None);
        let popped: Vec<_> = std::iter::from_fn(|| table.pop_due(at(20))).collect();
        assert_eq!(popped, [(at(10), "c"), (at(20), "a"), (at(20), "b")]);
        assert!(table.is_empty());
    }
}
