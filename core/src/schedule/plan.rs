//! A schedule where it is kept by the million: rule, zone and spread in one cache line.

use chrono_tz::Tz;

use super::Schedule;
use super::compiled::Rule;
use super::zone::Clock;

/// When a job is due: at the slots of a schedule in a zone, each put off by the same spread.
///
/// 64 bytes, without the text. Two plans are equal when their jobs are due at the same instants
/// and the rule is the same, however it was spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    rule: Rule,
    zone: Tz,
    /// In seconds.
    spread: u16,
}

impl Plan {
    /// `spread` is in seconds, as [`spread_of`](super::spread_of) gives it; of more than 65,535 the
    /// rest is dropped.
    #[must_use]
    pub fn new(schedule: &Schedule, zone: Tz, spread: u32) -> Self {
        let rule = schedule.0.rule;
        // The others are the same in every zone.
        let zone = if matches!(rule, Rule::Fields(_)) { zone } else { Tz::UTC };
        Self { rule, zone, spread: u16::try_from(spread).unwrap_or(u16::MAX) }
    }

    /// When the first slot after `through` is due. All are seconds since the epoch.
    pub(crate) fn next_due(&self, through: i64) -> Option<i64> {
        Some(self.rule.next_after(Clock::of(self.zone), through)? + i64::from(self.spread))
    }

    /// How many slots are due in `(after, through]`.
    pub(crate) fn count_due(&self, after: i64, through: i64) -> u64 {
        let spread = i64::from(self.spread);
        let early = |instant: i64| instant.saturating_sub(spread);
        self.rule.count(Clock::of(self.zone), early(after), early(through))
    }

    /// Adds `weight` for each slot to the step of `step` seconds after `from` in which it is due.
    /// A step does not hold its first instant, but the first of the next.
    pub(crate) fn count_steps(&self, from: i64, step: i64, counts: &mut [u64], weight: u64) {
        let ends = |index: usize| from.saturating_add(step.saturating_mul(index as i64 + 1));
        let Some(last) = counts.len().checked_sub(1) else { return };
        if self.count_due(from, ends(last)) > counts.len() as u64 {
            let mut before = from;
            for (index, count) in counts.iter_mut().enumerate() {
                *count += weight * self.count_due(before, ends(index));
                before = ends(index);
            }
            return;
        }
        let mut slot = from.saturating_sub(self.spread.into());
        while let Some(due) = self.next_due(slot) {
            let index = usize::try_from((due - from - 1) / step).ok();
            let Some(count) = index.and_then(|index| counts.get_mut(index)) else { return };
            *count += weight;
            slot = due - i64::from(self.spread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_one_cache_line() {
        assert_eq!(size_of::<Plan>(), 64);
    }
}
