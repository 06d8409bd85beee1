//! When the answers of a burst are acted on. Pure.
//!
//! Hundreds of processes that start take the processor from the claims that are still on their way.
//! So the first answers of many claims wait for the rest of them, for a moment.

use std::time::Duration;

use tokio::time::Instant;

/// From so many claims under way on the first answers wait.
const CLAIMS: usize = 240;
/// How long they wait at most.
const WAIT: Duration = Duration::from_millis(250);

/// Answers that wait for the rest of a burst.
pub(crate) struct Burst<T> {
    arrived: Vec<T>,
    until: Option<Instant>,
}

impl<T> Default for Burst<T> {
    fn default() -> Self {
        Self { arrived: Vec::new(), until: None }
    }
}

impl<T> Burst<T> {
    /// An answer has arrived at `now`. There are so many `claims` whose answers were not acted on,
    /// and `more` answers are to come or not. Returns those to act on now, in order.
    pub fn arrive(&mut self, answer: T, claims: usize, more: bool, now: Instant) -> Vec<T> {
        self.arrived.push(answer);
        if self.until.is_none() && claims >= CLAIMS {
            self.until = Some(now + WAIT);
        }
        match self.until {
            Some(until) if more && now < until => Vec::new(),
            _ => self.release(),
        }
    }

    /// Until when those that have arrived wait, if they do.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The time is over: returns all that wait.
    pub fn release(&mut self) -> Vec<T> {
        self.until = None;
        std::mem::take(&mut self.arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_claims_wait_for_nothing() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        assert_eq!(burst.arrive('a', CLAIMS - 1, true, now), ['a']);
        assert_eq!(burst.until(), None);
    }

    #[test]
    fn many_wait_for_the_last_of_them() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        assert!(burst.arrive('a', CLAIMS, true, now).is_empty());
        // That fewer are left changes nothing.
        assert!(burst.arrive('b', 1, true, now + WAIT / 2).is_empty());
        assert_eq!(burst.until(), Some(now + WAIT));
        assert_eq!(burst.arrive('c', 1, false, now + WAIT / 2), ['a', 'b', 'c']);
        assert_eq!(burst.until(), None);
    }

    #[test]
    fn they_wait_no_longer_than_a_moment() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        assert!(burst.arrive('a', CLAIMS, true, now).is_empty());
        assert_eq!(burst.arrive('b', CLAIMS, true, now + WAIT), ['a', 'b']);
        assert!(burst.arrive('c', CLAIMS, true, now).is_empty());
        assert_eq!(burst.release(), ['c']);
    }
}
