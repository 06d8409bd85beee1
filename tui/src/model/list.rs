//! A list with a cursor that stays on its item while rows come, go and change places.

use std::collections::BTreeSet;

/// Rows by key, a cursor, a window on them, and marks.
#[derive(Debug, Clone)]
pub struct List<K> {
    rows: Vec<K>,
    at: usize,
    top: usize,
    height: usize,
    /// The marked keys; only ones that are still there.
    marked: BTreeSet<K>,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        Self { rows: Vec::new(), at: 0, top: 0, height: 1, marked: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> List<K> {
    /// The rows in their order.
    pub fn rows(&self) -> &[K] {
        &self.rows
    }

    /// The key under the cursor.
    pub fn selected(&self) -> Option<&K> {
        self.rows.get(self.at)
    }

    /// The cursor's position, from 0.
    pub fn at(&self) -> usize {
        self.at
    }

    /// How many rows the window shows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The rows in the window, each with whether the cursor is on it.
    pub fn visible(&self) -> impl Iterator<Item = (bool, &K)> {
        let rows = self.rows.iter().enumerate().skip(self.top);
        rows.take(self.height).map(|(i, k)| (i == self.at, k))
    }

    /// Takes a new order of rows. The cursor follows its key; if that is gone, it stays where it
    /// was on the screen.
    pub fn set_rows(&mut self, rows: Vec<K>) {
        let was = self.selected().cloned();
        let from_top = self.at.saturating_sub(self.top);
        self.rows = rows;
        if let Some(was) = was
            && self.rows.get(self.at) != Some(&was)
            && let Some(at) = self.rows.iter().position(|k| *k == was)
        {
            self.at = at;
            self.top = at.saturating_sub(from_top);
        }
        self.settle();
    }

    /// Forgets the marks of keys for which `exists` is false.
    pub fn retain_marks(&mut self, exists: impl Fn(&K) -> bool) {
        self.marked.retain(|k| exists(k));
    }

    /// Says how many rows the window shows.
    pub fn set_height(&mut self, height: usize) {
        self.height = height.max(1);
        self.settle();
    }

    /// Moves the cursor by so many rows.
    pub fn move_by(&mut self, rows: isize) {
        self.at = self.at.saturating_add_signed(rows);
        self.settle();
    }

    /// Moves the cursor to the first row.
    pub fn to_top(&mut self) {
        self.at = 0;
        self.settle();
    }

    /// Moves the cursor to the last row.
    pub fn to_bottom(&mut self) {
        self.at = usize::MAX;
        self.settle();
    }

    /// Puts the cursor on `key`, if it is there.
    pub fn select(&mut self, key: &K) -> bool {
        let found = self.rows.iter().position(|k| k == key);
        if let Some(at) = found {
            self.at = at;
            self.settle();
        }
        found.is_some()
    }

    /// Whether `key` is marked.
    pub fn is_marked(&self, key: &K) -> bool {
        self.marked.contains(key)
    }

    /// How many are marked.
    pub fn marks(&self) -> usize {
        self.marked.len()
    }

    /// Marks the row under the cursor, or unmarks it, and moves on.
    pub fn toggle_mark(&mut self) {
        if let Some(key) = self.selected().cloned() {
            if !self.marked.remove(&key) {
                self.marked.insert(key);
            }
            self.move_by(1);
        }
    }

    /// Marks every row; or none, when every row is marked.
    pub fn toggle_all(&mut self) {
        if self.rows.iter().all(|k| self.marked.contains(k)) {
            self.marked.clear();
        } else {
            self.marked.extend(self.rows.iter().cloned());
        }
    }

    /// Unmarks all.
    pub fn clear_marks(&mut self) {
        self.marked.clear();
    }

    /// What a command means: the marked keys, or else the one under the cursor.
    pub fn targets(&self) -> Vec<K> {
        if self.marked.is_empty() {
            self.selected().cloned().into_iter().collect()
        } else {
            self.marked.iter().cloned().collect()
        }
    }

    fn settle(&mut self) {
        self.at = self.at.min(self.rows.len().saturating_sub(1));
        let lowest = self.rows.len().saturating_sub(self.height);
        let first = (self.at + 1).saturating_sub(self.height);
        self.top = self.top.min(lowest).clamp(first, self.at.max(first));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(rows: &[u32], height: usize) -> List<u32> {
        let mut list = List::default();
        list.set_height(height);
        list.set_rows(rows.to_vec());
        list
    }

    #[test]
    fn the_cursor_follows_its_key() {
        let mut list = list(&[10, 20, 30], 2);
        list.move_by(1);
        list.set_rows(vec![5, 6, 7, 20, 30]);
        assert_eq!(list.selected(), Some(&20));
        list.set_rows(vec![5, 6, 7]);
        assert_eq!(list.selected(), Some(&7));
        list.set_rows(vec![]);
        assert_eq!(list.selected(), None);
    }

    #[test]
    fn commands_mean_the_marked_rows_or_the_selected_one() {
        let mut list = list(&[1, 2, 3], 3);
        assert_eq!(list.targets(), [1]);
        list.toggle_mark();
        list.toggle_mark();
        assert_eq!(list.targets(), [1, 2]);
        list.retain_marks(|k| *k != 1);
        assert_eq!(list.targets(), [2]);
        list.toggle_all();
        list.toggle_all();
        assert_eq!(list.targets(), [3]);
    }

    proptest! {
        #[test]
        fn the_cursor_is_always_in_the_window(
            steps in proptest::collection::vec((0u8..6, 0usize..30), 0..60),
        ) {
            let mut list = list(&[], 5);
            for (what, n) in steps {
                match what {
                    0 => list.set_rows((0..u32::try_from(n).unwrap()).rev().collect()),
                    1 => list.set_height(n),
                    2 => list.move_by(isize::try_from(n).unwrap()),
                    3 => list.move_by(-isize::try_from(n).unwrap()),
                    4 => list.to_bottom(),
                    _ => list.toggle_mark(),
                }
                let shown: Vec<_> = list.visible().collect();
                prop_assert_eq!(shown.len(), list.rows().len().min(list.height()));
                prop_assert!(shown.is_empty() || shown.iter().any(|(selected, _)| *selected));
            }
        }
    }
}
