//! The clocks of this machine: the alarm on the wall clock by which the loop sleeps, and the time
//! since boot by which a lease is trusted.
//!
//! # When the wall clock is set
//!
//! The alarm notices it at once ([`Rang::ClockSet`]), and then every job is looked at again.
//!
//! - A step *backwards*: nothing that was decided is decided again, because the cursor stands;
//!   what is due later waits until the clock shows its instant. A cursor further in the future
//!   than clocks may be apart stops its job, which goes on by itself when the clock has caught up
//!   or is put right.
//! - A jump *forwards*: all that it passed is due at once, the oldest first, each job once. What
//!   is past its deadline is settled as missed, a whole gap by arithmetic.
//! - What waits for a length of time and not for an instant, such as the grace of a dead worker's
//!   children, goes on waiting for the rest of that length: [`crate::schedule`] moves it along.
//!
//! A machine that was suspended looks the same, with a clock that moved by nothing: what passed
//! meanwhile is due at once.
//!
//! In a debug build a file can set this worker's clock alone ([`follow`]), and all of this holds.

mod shift;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use nix::time::{ClockId, clock_gettime};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

pub(crate) use shift::follow;
use shift::{changes, shift};

/// What the wall clock shows.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now() + shift()
}

/// Time since boot, suspended time included, which the monotonic clock leaves out.
pub(crate) fn since_boot() -> Duration {
    // CLOCK_BOOTTIME cannot fail on Linux 2.6.39 and later; zero would only distrust the lease.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// The seconds since the epoch that an alarm can be set to: a timer set to zero is off, and the
/// kernel's nanoseconds end in the year 2262.
const SECONDS: std::ops::RangeInclusive<i64> = 1..=9_000_000_000;

/// Two readings of the clock differ by less while it only runs.
const SET_FROM: TimeDelta = TimeDelta::milliseconds(100);

/// Why the alarm rang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rang {
    /// The clock shows the instant, or a later one.
    Due,
    /// The clock was set, or the machine was suspended.
    ClockSet {
        /// How far the clock was moved, forwards or backwards; about nothing for a machine that
        /// was suspended.
        by: TimeDelta,
    },
}

/// Rings when the wall clock shows an instant, and whenever it is set.
///
/// It is a timer of the kernel (timerfd_create(2)) on the wall clock itself: it never rings early,
/// and while the clock merely runs nothing wakes up before.
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// What it is set to.
    at: Option<Timespec>,
    /// The kernel said that the clock was set when the alarm was.
    clock_set: bool,
    /// The wall clock less the time since boot: only setting the clock changes it.
    offset: TimeDelta,
    /// By how much this worker's clock alone is set off.
    shift: watch::Receiver<TimeDelta>,
}

impl Alarm {
    /// An alarm that rings only when the clock is set.
    ///
    /// # Errors
    /// When the kernel has no timer left.
    pub fn new() -> io::Result<Self> {
        Self::shifted(changes())
    }

    #[allow(
        deprecated,
        reason = "its successor asks for `unsafe`, to promise what an `OwnedFd` always keeps"
    )]
    fn shifted(shift: watch::Receiver<TimeDelta>) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        let offset = offset(*shift.borrow());
        let mut alarm = Self { timer, at: None, clock_set: false, offset, shift };
        alarm.set(None)?;
        Ok(alarm)
    }

    /// Sets it to an instant instead of what it was set to; `None` is never.
    ///
    /// # Errors
    /// None that is known.
    pub fn set(&mut self, at: Option<DateTime<Utc>>) -> io::Result<()> {
        // The kernel's clock is not shifted.
        let shift = *self.shift.borrow();
        let it_value = timespec(at.map(|at| at.checked_sub_signed(shift).unwrap_or(at)));
        if self.at == Some(it_value) {
            return Ok(());
        }
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(&self.timer, flags, &Itimerspec { it_interval, it_value }) {
            Ok(_) => {}
            // It is set all the same, and no read will say this again.
            Err(Errno::CANCELED) => self.clock_set = true,
            Err(e) => return Err(e.into()),
        }
        self.at = Some(it_value);
        Ok(())
    }

    /// When the clock shows an instant, since boot, as it was set when that was last asked.
    pub fn since_boot_at(&self, at: DateTime<Utc>) -> Duration {
        let at = at - DateTime::UNIX_EPOCH;
        (at - self.offset).to_std().unwrap_or_default()
    }

    /// By how much the clock was set since this was asked or rang, if it was. Whoever acts on
    /// what the clock shows must know first; the timer says the same, but may be heard later.
    pub fn was_set(&mut self) -> Option<TimeDelta> {
        let by = offset(*self.shift.borrow()) - self.offset;
        if by.abs() < SET_FROM {
            return None;
        }
        self.offset += by;
        Some(by)
    }

    /// Waits until it rings. Afterwards it is set to nothing that is still to come. Nothing is
    /// lost when the wait is given up.
    ///
    /// # Errors
    /// None that is known.
    pub async fn rings(&mut self) -> io::Result<Rang> {
        let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut [0; 8])?);
        let clock_set = if std::mem::take(&mut self.clock_set) {
            true
        } else {
            tokio::select! {
                Ok(()) = self.shift.changed() => true,
                read = self.timer.async_io(Interest::READABLE, read) => says_clock_set(read)?,
            }
        };
        self.at = None;
        if !clock_set {
            return Ok(Rang::Due);
        }
        let now = offset(*self.shift.borrow_and_update());
        let before = std::mem::replace(&mut self.offset, now);
        Ok(Rang::ClockSet { by: self.offset - before })
    }
}

/// What the answer to a read of the timer means.
fn says_clock_set(read: io::Result<usize>) -> io::Result<bool> {
    match read {
        Ok(_) => Ok(false),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::CANCELED) => Ok(true),
        Err(e) => Err(e),
    }
}

fn offset(shift: TimeDelta) -> TimeDelta {
    let since_boot = TimeDelta::from_std(since_boot()).unwrap_or_default();
    (Utc::now() + shift - since_boot) - DateTime::UNIX_EPOCH
}

fn timespec(at: Option<DateTime<Utc>>) -> Timespec {
    let (first, last) = (*SECONDS.start(), *SECONDS.end());
    match at {
        Some(at) if SECONDS.contains(&at.timestamp()) => {
            // A leap second has more of them than a timer takes.
            let nanos = at.timestamp_subsec_nanos().min(999_999_999);
            Timespec { tv_sec: at.timestamp(), tv_nsec: nanos.into() }
        }
        Some(at) if at.timestamp() < first => Timespec { tv_sec: first, tv_nsec: 0 },
        _ => Timespec { tv_sec: last, tv_nsec: 0 },
    }
}

/// Waits for this instant, or for ever where there is none.
pub(crate) async fn until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SOON: TimeDelta = TimeDelta::milliseconds(50);

    /// How late it rings.
    async fn rings_for(alarm: &mut Alarm, at: DateTime<Utc>) -> TimeDelta {
        assert_eq!(alarm.rings().await.unwrap(), Rang::Due);
        let late = Utc::now() - at;
        assert!(late >= TimeDelta::zero(), "{late} early");
        late
    }

    #[tokio::test]
    async fn rings_at_its_instant_and_never_before() {
        let mut alarm = Alarm::new().unwrap();
        let mut least = TimeDelta::MAX;
        for _ in 0..50 {
            let at = Utc::now() + TimeDelta::microseconds(1_234);
            alarm.set(Some(at)).unwrap();
            least = least.min(rings_for(&mut alarm, at).await);
        }
        // Of many, so that a busy machine does not matter.
        assert!(least < TimeDelta::milliseconds(2), "{least} late at best");
    }

    #[tokio::test]
    async fn set_again_it_rings_for_the_new_instant_only() {
        let mut alarm = Alarm::new().unwrap();
        let start = Utc::now();
        alarm.set(Some(start + SOON)).unwrap();
        alarm.set(Some(start + SOON * 3)).unwrap();
        rings_for(&mut alarm, start + SOON * 3).await;
        alarm.set(Some(start + SOON * 40)).unwrap();
        alarm.set(Some(start + SOON * 4)).unwrap();
        rings_for(&mut alarm, start + SOON * 4).await;
    }

    #[tokio::test]
    async fn what_rang_and_was_not_heard_is_forgotten_when_it_is_set_again() {
        let mut alarm = Alarm::new().unwrap();
        alarm.set(Some(Utc::now())).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        alarm.set(None).unwrap();
        let rang = tokio::time::timeout(Duration::from_millis(50), alarm.rings()).await;
        assert!(rang.is_err(), "{rang:?}");
    }

    #[tokio::test]
    async fn the_past_rings_at_once() {
        let mut alarm = Alarm::new().unwrap();
        for past in [DateTime::UNIX_EPOCH, DateTime::<Utc>::MIN_UTC, Utc::now()] {
            let begun = Instant::now();
            alarm.set(Some(past)).unwrap();
            assert_eq!(alarm.rings().await.unwrap(), Rang::Due);
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_nothing() {
        let mut alarm = Alarm::new().unwrap();
        let at = Utc::now() + SOON * 10;
        alarm.set(Some(at)).unwrap();
        let rang = tokio::time::timeout(SOON.to_std().unwrap(), alarm.rings()).await;
        assert!(rang.is_err(), "{rang:?}");
        rings_for(&mut alarm, at).await;
    }

    #[tokio::test]
    async fn never_is_no_instant() {
        let mut alarm = Alarm::new().unwrap();
        for never in [None, Some(DateTime::<Utc>::MAX_UTC)] {
            alarm.set(never).unwrap();
            let rang = tokio::time::timeout(Duration::from_millis(30), alarm.rings()).await;
            assert!(rang.is_err(), "{rang:?}");
        }
    }

    #[tokio::test]
    async fn a_shift_rings_as_a_clock_that_was_set_and_the_alarm_follows_it() {
        let (shift, shifts) = watch::channel(TimeDelta::zero());
        let mut alarm = Alarm::shifted(shifts).unwrap();
        for by in [TimeDelta::seconds(40), TimeDelta::seconds(-70)] {
            alarm.set(Some(Utc::now() + *shift.borrow() + SOON)).unwrap();
            shift.send_modify(|shift| *shift += by);
            let Rang::ClockSet { by: set } = alarm.rings().await.unwrap() else { panic!() };
            assert!((set - by).abs() < SOON, "{set}");
            let at = Utc::now() + SOON;
            alarm.set(Some(at + *shift.borrow())).unwrap();
            rings_for(&mut alarm, at).await;
        }
    }

    /// Setting the clock would disturb the whole machine, so that the kernel gives this answer is
    /// taken from timerfd_create(2).
    #[test]
    fn a_cancelled_read_says_that_the_clock_was_set() {
        assert!(says_clock_set(Err(Errno::CANCELED.into())).unwrap());
        assert!(!says_clock_set(Ok(8)).unwrap());
        assert!(says_clock_set(Err(Errno::BADF.into())).is_err());
    }

    #[test]
    fn the_offset_of_the_clock_stands_while_it_only_runs() {
        let before = offset(TimeDelta::zero());
        std::thread::sleep(Duration::from_millis(20));
        assert!((offset(TimeDelta::zero()) - before).abs() < TimeDelta::seconds(1));
    }
}
