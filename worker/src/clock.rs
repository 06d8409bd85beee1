//! The clock by which a lease is trusted: it goes on while the machine is suspended, which the
//! monotonic clock does not.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since boot, suspended time included.
pub(crate) fn since_boot() -> Duration {
    // CLOCK_BOOTTIME cannot fail on Linux 2.6.39 and later; zero would only distrust the lease.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
