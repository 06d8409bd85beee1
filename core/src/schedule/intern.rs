//! One schedule for all jobs that are spelled alike: a million jobs share few expressions.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Schedule, ScheduleError};

/// Fewer than this are kept whether anybody uses them or not.
const KEPT: usize = 1024;

/// The schedules that were read so far.
#[derive(Debug, Clone, Default)]
pub struct Interner {
    known: HashMap<Arc<str>, Schedule>,
    /// When so many are known, those that nobody uses any more are forgotten.
    full: usize,
}

impl Interner {
    /// As [`Schedule::for_job`], but an expression that was read before is not read again.
    ///
    /// # Errors
    /// As [`Schedule::for_job`].
    pub fn for_job(
        &mut self,
        expr: &str,
        name: &str,
        anchor: Option<DateTime<Utc>>,
    ) -> Result<Schedule, ScheduleError> {
        if anchor.is_some() || expr.contains('~') {
            return Schedule::for_job(expr, name, anchor);
        }
        if let Some(schedule) = self.known.get(expr) {
            return Ok(schedule.clone());
        }
        let schedule = Schedule::parse(expr)?;
        if self.known.len() >= self.full {
            self.known.retain(|_, schedule| Arc::strong_count(&schedule.0) > 1);
            self.full = (self.known.len() * 2).max(KEPT);
        }
        self.known.insert(schedule.0.text.clone(), schedule.clone());
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_is_shared_unless_it_depends_on_the_job() {
        let mut interner = Interner::default();
        let mut read = |expr, name| interner.for_job(expr, name, None).unwrap();
        let daily = read("0 1 * * *", "a");
        assert!(Arc::ptr_eq(&daily.0, &read("0 1 * * *", "b").0));
        let [a, b] = ["a", "b"].map(|name| read("~ ~ ~ * *", name));
        assert!(!a.means_the_same(&b));
        assert!(interner.for_job("0 25 * * *", "a", None).is_err());
        let anchor = "2026-01-01T00:00:07Z".parse().ok();
        let anchored = interner.for_job("@every 1h", "a", anchor).unwrap();
        assert!(!anchored.means_the_same(&interner.for_job("@every 1h", "a", None).unwrap()));
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut interner = Interner::default();
        let kept = interner.for_job("0 0 1 1 *", "a", None).unwrap();
        for n in 0..5 * KEPT {
            let expr = format!("{} {} * * {}", n % 60, n / 60 % 24, n / 1440);
            interner.for_job(&expr, "a", None).unwrap();
        }
        assert!(interner.known.len() <= KEPT, "{}", interner.known.len());
        assert!(Arc::ptr_eq(&kept.0, &interner.for_job("0 0 1 1 *", "b", None).unwrap().0));
    }
}
