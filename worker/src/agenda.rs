//! What comes up for this worker beside the slots of jobs, in order. Pure: it knows no clock and
//! decides nothing; whoever holds it says what time it is.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use chrono::{DateTime, TimeDelta, Utc};

/// Keys by the instant at which each is due, at most one instant for each key.
#[derive(Debug, Clone)]
pub(crate) struct Agenda<K> {
    order: BTreeSet<(DateTime<Utc>, K)>,
    due: HashMap<K, DateTime<Utc>>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), due: HashMap::new() }
    }
}

impl<K: Ord + Clone + Hash> Agenda<K> {
    /// Sets when a key is due, whether it was on the list or not.
    pub(crate) fn insert(&mut self, key: K, at: DateTime<Utc>) {
        self.remove(&key);
        self.order.insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// Takes a key off the list. Returns when it was due.
    pub(crate) fn remove(&mut self, key: &K) -> Option<DateTime<Utc>> {
        let (key, at) = self.due.remove_entry(key)?;
        self.order.remove(&(at, key));
        Some(at)
    }

    /// When a key is due.
    #[must_use]
    pub(crate) fn get(&self, key: &K) -> Option<DateTime<Utc>> {
        self.due.get(key).copied()
    }

    /// The earliest instant at which anything is due.
    #[must_use]
    pub(crate) fn peek(&self) -> Option<DateTime<Utc>> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes off the earliest key that is due at `now` or before; of equal instants, the lowest
    /// key. Called until it returns none, it yields everything due, in order.
    pub(crate) fn pop_due(&mut self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, K)> {
        if self.peek()? > now {
            return None;
        }
        let (at, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some((at, key))
    }

    /// Moves the keys that are `wanted` to other instants, all by the same length of time.
    pub(crate) fn shift(&mut self, by: TimeDelta, wanted: impl Fn(&K) -> bool) {
        let found: Vec<_> = self.order.iter().filter(|(_, key)| wanted(key)).cloned().collect();
        for (at, key) in found {
            self.insert(key, moved(at, by));
        }
    }
}

/// The instant that a clock shows in place of `at` once it was set by so much.
pub(crate) fn moved(at: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    at.checked_add_signed(by).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn all_due<K: Ord + Clone + Hash>(
        agenda: &mut Agenda<K>,
        now: DateTime<Utc>,
    ) -> Vec<(DateTime<Utc>, K)> {
        std::iter::from_fn(|| agenda.pop_due(now)).collect()
    }

    #[test]
    fn pops_in_order_and_only_what_is_due() {
        let mut agenda = Agenda::default();
        for (key, seconds) in [("c", 3), ("b", 1), ("a", 1), ("d", 9)] {
            agenda.insert(key, at(seconds));
        }
        assert_eq!(agenda.peek(), Some(at(1)));
        assert_eq!(agenda.pop_due(at(0)), None);
        assert_eq!(all_due(&mut agenda, at(3)), [(at(1), "a"), (at(1), "b"), (at(3), "c")]);
        assert_eq!(agenda.peek(), Some(at(9)));
    }

    #[test]
    fn inserting_again_replaces() {
        let mut agenda = Agenda::default();
        agenda.insert("a", at(5));
        agenda.insert("a", at(2));
        assert_eq!(agenda.get(&"a"), Some(at(2)));
        assert_eq!(all_due(&mut agenda, at(9)), [(at(2), "a")]);
        assert_eq!(agenda.peek(), None);
        assert_eq!(agenda.remove(&"a"), None);
    }

    #[test]
    fn shifts_only_what_is_wanted() {
        let mut agenda = Agenda::default();
        for (key, seconds) in [("a", 1), ("b", 2), ("c", 3)] {
            agenda.insert(key, at(seconds));
        }
        agenda.shift(TimeDelta::seconds(5), |key| *key != "b");
        assert_eq!(all_due(&mut agenda, at(9)), [(at(2), "b"), (at(6), "a"), (at(8), "c")]);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(steps in prop::collection::vec((0_u8..3, 0_u8..8, 0_i64..20), 0..60)) {
            let mut agenda = Agenda::default();
            let mut plain: Vec<(DateTime<Utc>, u8)> = Vec::new();
            for (step, key, seconds) in steps {
                match step {
                    0 => {
                        plain.retain(|(_, k)| *k != key);
                        plain.push((at(seconds), key));
                        agenda.insert(key, at(seconds));
                    }
                    1 => {
                        plain.retain(|(_, k)| *k != key);
                        agenda.remove(&key);
                    }
                    _ => {
                        plain.sort();
                        let due: Vec<_> = plain.extract_if(.., |(t, _)| *t <= at(seconds)).collect();
                        prop_assert_eq!(all_due(&mut agenda, at(seconds)), due);
                    }
                }
                prop_assert_eq!(agenda.peek(), plain.iter().map(|(t, _)| *t).min());
            }
        }
    }
}
