//! The ordered list of what is due. Pure: it knows no clock and decides nothing; whoever holds it
//! says what time it is.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use chrono::{DateTime, Utc};

/// Keys by the instant at which each is due, at most one instant for each key.
#[derive(Debug, Clone)]
pub struct Timetable<K> {
    order: BTreeSet<(DateTime<Utc>, K)>,
    due: HashMap<K, DateTime<Utc>>,
}

impl<K> Default for Timetable<K> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), due: HashMap::new() }
    }
}

impl<K: Ord + Clone + Hash> Timetable<K> {
    /// An empty timetable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets when a key is due, whether it was on the list or not.
    pub fn insert(&mut self, key: K, at: DateTime<Utc>) {
        self.remove(&key);
        self.order.insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// Takes a key off the list. Returns when it was due.
    pub fn remove(&mut self, key: &K) -> Option<DateTime<Utc>> {
        let (key, at) = self.due.remove_entry(key)?;
        self.order.remove(&(at, key));
        Some(at)
    }

    /// When a key is due.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<DateTime<Utc>> {
        self.due.get(key).copied()
    }

    /// The earliest instant at which anything is due.
    #[must_use]
    pub fn peek(&self) -> Option<DateTime<Utc>> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes off the earliest key that is due at `now` or before; of equal instants, the lowest
    /// key. Called until it returns none, it yields everything due, in order.
    pub fn pop_due(&mut self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, K)> {
        if self.peek()? > now {
            return None;
        }
        let (at, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some((at, key))
    }

    /// How many keys are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether nothing is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn all_due<K: Ord + Clone + Hash>(
        table: &mut Timetable<K>,
        now: DateTime<Utc>,
    ) -> Vec<(DateTime<Utc>, K)> {
        std::iter::from_fn(|| table.pop_due(now)).collect()
    }

    #[test]
    fn pops_in_order_and_only_what_is_due() {
        let mut table = Timetable::new();
        for (key, seconds) in [("c", 3), ("b", 1), ("a", 1), ("d", 9)] {
            table.insert(key, at(seconds));
        }
        assert_eq!(table.peek(), Some(at(1)));
        assert_eq!(table.pop_due(at(0)), None);
        assert_eq!(all_due(&mut table, at(3)), [(at(1), "a"), (at(1), "b"), (at(3), "c")]);
        assert_eq!((table.len(), table.peek()), (1, Some(at(9))));
    }

    #[test]
    fn inserting_again_replaces() {
        let mut table = Timetable::new();
        table.insert("a", at(5));
        table.insert("a", at(2));
        assert_eq!((table.len(), table.get(&"a")), (1, Some(at(2))));
        assert_eq!(all_due(&mut table, at(9)), [(at(2), "a")]);
        assert!(table.is_empty());
        assert_eq!(table.remove(&"a"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(steps in prop::collection::vec((0_u8..3, 0_u8..8, 0_i64..20), 0..60)) {
            let mut table = Timetable::new();
            let mut plain: Vec<(DateTime<Utc>, u8)> = Vec::new();
            for (step, key, seconds) in steps {
                match step {
                    0 => {
                        plain.retain(|(_, k)| *k != key);
                        plain.push((at(seconds), key));
                        table.insert(key, at(seconds));
                    }
                    1 => {
                        plain.retain(|(_, k)| *k != key);
                        table.remove(&key);
                    }
                    _ => {
                        plain.sort();
                        let due: Vec<_> = plain.extract_if(.., |(t, _)| *t <= at(seconds)).collect();
                        prop_assert_eq!(all_due(&mut table, at(seconds)), due);
                    }
                }
                prop_assert_eq!(table.len(), plain.len());
                prop_assert_eq!(table.peek(), plain.iter().map(|(t, _)| *t).min());
            }
        }
    }
}
