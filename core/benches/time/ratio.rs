//! Two things measured in turns.

use std::fmt;
use std::time::{Duration, Instant};

/// The best and the middle of the rounds.
pub(crate) struct Times(Vec<f64>);

impl Times {
    fn middle(&mut self) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }
}

/// The times of both, and how many of the second go into the first.
pub(crate) struct Ratio {
    /// Seconds of the middle round, per operation.
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    /// Theirs divided by ours: of the middle round, the worst and the best.
    pub(crate) middle: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Ratio {
    /// `theirs` and `ours` each return how long they took for `operations`.
    pub(crate) fn measure(
        rounds: usize,
        operations: (usize, usize),
        mut theirs: impl FnMut() -> Duration,
        mut ours: impl FnMut() -> Duration,
    ) -> Self {
        let mut times = (Times(Vec::new()), Times(Vec::new()));
        let mut ratios = Times(Vec::new());
        for _ in 0..rounds {
            let their = theirs().as_secs_f64() / operations.0 as f64;
            let our = ours().as_secs_f64() / operations.1 as f64;
            times.0.0.push(their);
            times.1.0.push(our);
            ratios.0.push(their / our);
        }
        let middle = ratios.middle();
        let (low, high) = (ratios.0[0], ratios.0[ratios.0.len() - 1]);
        Self { theirs: times.0.middle(), ours: times.1.middle(), middle, low, high }
    }

    /// How much faster ours is.
    pub(crate) fn faster(&self) -> String {
        format!("{:5.1} x faster ({:.1}-{:.1})", self.middle, self.low, self.high)
    }

    /// What part of their time ours takes.
    pub(crate) fn share(&self) -> String {
        format!(
            "{:4.2} x the time ({:.2}-{:.2})",
            1.0 / self.middle,
            1.0 / self.high,
            1.0 / self.low
        )
    }
}

/// Seconds as a person reads them.
pub(crate) struct Shown(pub(crate) f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            s if s < 1e-6 => format!("{:.1} ns", s * 1e9),
            s if s < 1e-3 => format!("{:.2} µs", s * 1e6),
            s => format!("{:.0} ms", s * 1e3),
        };
        f.pad(&text)
    }
}

pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

/// A seeded stream of numbers: xorshift64 (Marsaglia 2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
