//! A queue of tickets by the second at which each is due: a timing wheel of six levels.
//!
//! A level has 64 slots. Those of the lowest are one second wide, those of each other level as wide
//! as the whole level below. A ticket goes to the slot in whose digit its second and the wheel's
//! floor first differ, and moves down when its time comes near: most of what waits is never sorted.
//! (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987.)
//!
//! Nothing is taken out of the middle. Whoever asks says which entries still count, and the others
//! are dropped when they come up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A ticket, and the second at which it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) at: u32,
    pub(super) ticket: u32,
}

const BITS: u32 = 6;
const SLOTS: u32 = 1 << BITS;
/// Enough for 32 bits.
const LEVELS: u32 = 6;
/// Entries in one block of a slot: a page of memory. A slot grows by blocks and is never copied.
const BLOCK: usize = 512;
/// Empty blocks that are kept for later: a megabyte.
const SPARE: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Wheel {
    /// No slot holds anything that is due before, and above the lowest level the slot that the
    /// floor lies in is empty. Never after what [`Wheel::pop`] was told the time is.
    floor: u32,
    /// Level by level.
    slots: Vec<Slot>,
    /// For each level one bit for each slot that holds something.
    occupied: [u64; LEVELS as usize],
    /// The slot that was reached: entries of one second, which is the floor.
    open: VecDeque<Vec<Entry>>,
    /// How many of the first block of `open` are gone.
    taken: usize,
    /// What came when the floor was past it already.
    strays: BinaryHeap<Reverse<Entry>>,
    spare: Vec<Vec<Entry>>,
    len: usize,
}

/// The entries of a slot, in the order in which they came.
#[derive(Debug, Clone, Default)]
struct Slot {
    last: Vec<Entry>,
    full: VecDeque<Vec<Entry>>,
    /// One that is due first.
    first: Option<Entry>,
}

impl Slot {
    /// Makes room for the first entry, or for one more after a full block.
    #[cold]
    fn begin_block(&mut self, spare: &mut Vec<Vec<Entry>>) {
        let block = spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
        let full = std::mem::replace(&mut self.last, block);
        if !full.is_empty() {
            self.full.push_back(full);
        }
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            floor: 0,
            slots: vec![Slot::default(); (LEVELS * SLOTS) as usize],
            occupied: [0; LEVELS as usize],
            open: VecDeque::new(),
            taken: 0,
            strays: BinaryHeap::new(),
            spare: Vec::new(),
            len: 0,
        }
    }
}

impl Wheel {
    /// How many entries there are, those that do not count any more included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Says that hardly anything will be due before `floor`. An empty wheel that was told puts
    /// what comes next where it belongs at once.
    pub(super) fn begin_at(&mut self, floor: u32) {
        if self.len == 0 {
            self.floor = floor;
        }
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        self.len += 1;
        if entry.at < self.floor {
            self.strays.push(Reverse(entry));
        } else {
            self.file(entry);
        }
    }

    /// The first entry that counts, and stays.
    pub(super) fn peek(&mut self, counts: impl Fn(Entry) -> bool) -> Option<Entry> {
        while let Some(entry) = self.at_hand() {
            if counts(entry) {
                return Some(entry);
            }
            self.drop_first();
        }
        loop {
            let (level, slot) = self.next_slot()?;
            let place = self.slots.get_mut((level * SLOTS + slot) as usize)?;
            if let Some(first) = place.first.filter(|first| counts(*first)) {
                return Some(first);
            }
            // The first of them is outdated: drop all that are, and look who is first now.
            let Slot { last, full, .. } = std::mem::take(place);
            if let Some(occupied) = self.occupied.get_mut(level as usize) {
                *occupied &= !(1 << slot);
            }
            for entry in full.into_iter().chain([last]).flatten() {
                if counts(entry) {
                    self.file(entry);
                } else {
                    self.len -= 1;
                }
            }
        }
    }

    /// Takes out the first entry that counts, if it is due at `now` or before.
    pub(super) fn pop(&mut self, now: u32, counts: impl Fn(Entry) -> bool) -> Option<Entry> {
        loop {
            let Some(entry) = self.at_hand() else {
                self.reach_next_slot(now)?;
                continue;
            };
            if counts(entry) {
                if entry.at > now {
                    return None;
                }
                self.drop_first();
                return Some(entry);
            }
            self.drop_first();
        }
    }

    /// The first entry that is in no slot any more; of those of one second, the first that came.
    fn at_hand(&self) -> Option<Entry> {
        // All strays are before the floor, and what is open is at it.
        if let Some(Reverse(stray)) = self.strays.peek() {
            return Some(*stray);
        }
        self.open.front()?.get(self.taken).copied()
    }

    /// Removes what [`Self::at_hand`] has just returned.
    fn drop_first(&mut self) {
        self.len -= 1;
        if self.strays.pop().is_some() {
            return;
        }
        self.taken += 1;
        if self.open.front().is_some_and(|block| block.len() == self.taken) {
            self.taken = 0;
            if let Some(block) = self.open.pop_front() {
                self.keep(block);
            }
        }
    }

    /// Puts an entry that is not before the floor into its slot.
    #[inline]
    fn file(&mut self, entry: Entry) {
        let differing = u32::BITS - 1 - (entry.at ^ self.floor | 1).leading_zeros();
        let level = differing / BITS;
        let slot = entry.at >> (level * BITS) & (SLOTS - 1);
        let Some(place) = self.slots.get_mut((level * SLOTS + slot) as usize) else { return };
        if place.last.len() == place.last.capacity() {
            place.begin_block(&mut self.spare);
            if let Some(occupied) = self.occupied.get_mut(level as usize) {
                *occupied |= 1 << slot;
            }
        }
        place.last.push(entry);
        if place.first.is_none_or(|first| entry.at < first.at) {
            place.first = Some(entry);
        }
    }

    /// The level and the number of the first slot that holds anything.
    fn next_slot(&self) -> Option<(u32, u32)> {
        let (level, occupied) = (0..).zip(&self.occupied).find(|(_, occupied)| **occupied != 0)?;
        Some((level, occupied.trailing_zeros()))
    }

    /// Opens the first slot that holds anything, or moves what it holds down, unless it begins
    /// after `now`.
    fn reach_next_slot(&mut self, now: u32) -> Option<()> {
        let (level, slot) = self.next_slot()?;
        let place = self.slots.get_mut((level * SLOTS + slot) as usize)?;
        let second = place.first?.at;
        let width = level * BITS;
        let begins = second >> width << width;
        if begins > now {
            return None;
        }
        let Slot { last, full: mut blocks, .. } = std::mem::take(place);
        blocks.push_back(last);
        if let Some(occupied) = self.occupied.get_mut(level as usize) {
            *occupied &= !(1 << slot);
        }
        // Slots are often of one minute or hour and hold one second of it alone.
        if second <= now && blocks.iter().flatten().all(|entry| entry.at == second) {
            self.floor = second;
            self.open = blocks;
            return Some(());
        }
        self.floor = begins;
        for mut block in blocks {
            for entry in block.drain(..) {
                self.file(entry);
            }
            self.keep(block);
        }
        Some(())
    }

    fn keep(&mut self, mut block: Vec<Entry>) {
        if self.spare.len() < SPARE {
            block.clear();
            self.spare.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn in_order_and_first_come_first_served() {
        let mut wheel = Wheel::default();
        for (ticket, at) in (0..).zip([70, 5, 64, 5, 4_000_000_000, 63, 4096]) {
            wheel.push(Entry { at, ticket });
        }
        let mut found = Vec::new();
        while let Some(entry) = wheel.pop(u32::MAX, |_| true) {
            found.push((entry.at, entry.ticket));
            if entry.ticket == 5 {
                // While the second 63 is open: later, at it, and before it.
                for (ticket, at) in [(10, 65), (11, 63), (12, 1), (13, 0)] {
                    wheel.push(Entry { at, ticket });
                }
            }
        }
        let expected = [
            (5, 1),
            (5, 3),
            (63, 5),
            (0, 13),
            (1, 12),
            (63, 11),
            (64, 2),
            (65, 10),
            (70, 0),
            (4096, 6),
            (4_000_000_000, 4),
        ];
        assert_eq!(found, expected);
        assert_eq!(wheel.len(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            steps in prop::collection::vec((0_u32..3, 0_u32..6, 0_u32..u32::MAX), 0..300),
        ) {
            let mut wheel = Wheel::default();
            let mut list: Vec<(u32, usize, u32)> = Vec::new();
            let mut now = 0;
            for (index, (what, scale, number)) in steps.into_iter().enumerate() {
                // Near and far seconds alike.
                let number = number >> (scale * 6);
                if what < 2 {
                    let ticket = index as u32;
                    wheel.push(Entry { at: number, ticket });
                    list.push((number, index, ticket));
                    list.sort_unstable();
                } else {
                    now = number;
                    let first = list.first().copied();
                    prop_assert_eq!(wheel.peek(|_| true).map(|e| e.at), first.map(|f| f.0));
                    let expected = first.filter(|first| first.0 <= now);
                    let found = wheel.pop(now, |_| true);
                    prop_assert_eq!(found.map(|e| e.at), expected.map(|e| e.0));
                    if let Some(found) = found {
                        // Of one second any may come first once there were strays.
                        list.retain(|entry| entry.2 != found.ticket);
                    }
                }
                prop_assert_eq!(wheel.len(), list.len());
            }
            let rest: Vec<u32> =
                std::iter::from_fn(|| wheel.pop(u32::MAX, |_| true).map(|e| e.at)).collect();
            let expected: Vec<u32> = list.iter().map(|entry| entry.0).collect();
            prop_assert_eq!(rest, expected, "{}", now);
        }
    }
}
