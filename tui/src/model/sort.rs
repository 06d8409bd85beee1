//! By which column a table is ordered.

use std::cmp::Ordering;

/// The columns of one table, in their order on the screen.
pub trait Columns: Copy + Eq + 'static {
    /// Every column.
    const ALL: &'static [Self];
    /// The heading.
    fn title(self) -> &'static str;
    /// Whether rows can be ordered by it.
    fn sorts(self) -> bool;
}

/// A column, and whether the order is turned round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort<C> {
    /// The column.
    pub column: C,
    /// Whether the order is turned round.
    pub inverted: bool,
}

impl<C: Columns> Sort<C> {
    /// Ordered by `column`.
    pub fn by(column: C) -> Self {
        Self { column, inverted: false }
    }

    /// Goes to the next column that sorts, to the right or to the left, round the ends.
    pub fn step(&mut self, right: bool) {
        let sorting: Vec<C> = C::ALL.iter().copied().filter(|c| c.sorts()).collect();
        let at = sorting.iter().position(|c| *c == self.column).unwrap_or(0);
        let step = if right { 1 } else { sorting.len().saturating_sub(1) };
        if let Some(column) = sorting.get((at + step) % sorting.len().max(1)) {
            *self = Self::by(*column);
        }
    }

    /// `order`, turned round if need be.
    pub fn apply(&self, order: Ordering) -> Ordering {
        if self.inverted { order.reverse() } else { order }
    }

    /// The mark in the heading of the sorted column.
    pub fn arrow(&self, column: C) -> &'static str {
        match (self.column == column, self.inverted) {
            (false, _) => "",
            (true, false) => "^",
            (true, true) => "v",
        }
    }
}

/// Absent values come last, whatever the order of the others.
pub fn absent_last<T: Ord>(a: Option<T>, b: Option<T>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}
