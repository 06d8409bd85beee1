//! How far a run has come, and how it is ended, rung by rung: SIGTERM, its grace, SIGKILL, until
//! nothing of it is left.
//!
//! Pure: it is told what happens and when, and says what is to be done. No I/O, no async, no clock.

use std::time::Duration;

use carillon_core::run::Outcome;
use tokio::time::Instant;

use super::run::Order;

/// How long the output is still read after the shell has ended while something holds it open.
const DRAIN: Duration = Duration::from_millis(200);

/// How often a live run's figures are looked at, and reported if they changed.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The first and the longest wait between two looks for processes that are being ended.
const CLEARING_WAITS: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(500));

/// So far ahead that it is never: no clock goes that far.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Why a run is ended before it ends by itself.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    TimeOut(Duration),
    Kill(String),
    Abandon(String),
    /// Its keeper was killed, so nobody will know how the shell ended.
    Unkept,
}

impl Cause {
    pub(super) fn from_order(order: &Order) -> Self {
        match order {
            Order::Kill { by, .. } => Self::Kill(by.clone()),
            Order::Abandon { reason } => Self::Abandon(reason.clone()),
        }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::TimeOut(limit) => format!("timed out after {}", words(*limit)),
            Self::Kill(by) => format!("killed by {by}"),
            Self::Abandon(reason) => format!("ended because {reason}"),
            Self::Unkept => "ended because the process that kept it was killed".to_owned(),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::TimeOut(_) => Outcome::TimedOut,
            Self::Kill(_) | Self::Abandon(_) => Outcome::Killed,
            Self::Unkept => Outcome::Lost,
        }
    }

    pub(super) fn killed_by(&self) -> Option<String> {
        match self {
            Self::Kill(by) => Some(by.clone()),
            Self::TimeOut(_) | Self::Abandon(_) | Self::Unkept => None,
        }
    }
}

/// How far the end of a run has come.
#[derive(Debug)]
pub(super) struct Ending {
    /// Why it is ended.
    pub(super) cause: Cause,
    /// Since when.
    pub(super) since: Instant,
    kill_at: Instant,
    /// How long after `since` SIGKILL was sent.
    killed_after: Option<Duration>,
}

impl Ending {
    /// `killed by alice (SIGKILL after 10 s, gone after 10.1 s)`: what it took, and until when.
    pub(super) fn words(&self, took: Duration) -> String {
        let what = self.cause.words();
        let gone = words(took);
        match self.killed_after {
            Some(after) if self.kill_at > self.since => {
                format!("{what} (SIGKILL after {}, gone after {gone})", words(after))
            }
            Some(_) => format!("{what} (SIGKILL, gone after {gone})"),
            None => format!("{what} (SIGTERM, gone after {gone})"),
        }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The shell runs.
    Running,
    /// The shell has ended, what is left of the run is being ended.
    Clearing,
    /// Everything that had to end has ended; the output is read until this instant.
    Draining(Instant),
}

/// What is to be done, in this order, and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: a kill was read.
    Receive,
    /// SIGTERM to the group.
    Terminate,
    /// SIGKILL to the group.
    Kill,
}

/// One run's way to its end.
#[derive(Debug)]
pub(super) struct Ladder {
    grace: Duration,
    timeout: Option<Duration>,
    started: Instant,
    phase: Phase,
    ending: Option<Ending>,
    look_at: Instant,
    wait: Duration,
}

impl Ladder {
    /// That of a run that has just started. `grace` is between SIGTERM and SIGKILL.
    pub(super) fn new(grace: Duration, timeout: Option<Duration>, now: Instant) -> Self {
        Self {
            grace,
            timeout,
            started: now,
            phase: Phase::Running,
            ending: None,
            look_at: now + PROGRESS_EVERY,
            wait: CLEARING_WAITS.0,
        }
    }

    /// How far it has come.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// How it is being ended, if it is.
    pub(super) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Whether SIGKILL was sent.
    pub(super) fn has_killed(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.killed_after.is_some())
    }

    /// When processes are to be looked for, if they are.
    pub(super) fn look_at(&self) -> Option<Instant> {
        (!matches!(self.phase, Phase::Draining(_))).then_some(self.look_at)
    }

    /// When [`Ladder::tick`] has something to do, or the output is given up.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match (self.phase, &self.ending) {
            (Phase::Draining(until), _) => Some(until),
            (_, Some(ending)) => (!self.has_killed()).then_some(ending.kill_at),
            (Phase::Running, None) => self.timeout_at().map(|(at, _)| at),
            (Phase::Clearing, None) => None,
        }
    }

    /// The time-out, and the limit that it is of.
    fn timeout_at(&self) -> Option<(Instant, Duration)> {
        self.timeout.and_then(|limit| Some((self.started.checked_add(limit)?, limit)))
    }

    /// An order came.
    pub(super) fn order(&mut self, order: &Order, now: Instant) -> Vec<Step> {
        let grace = match order {
            Order::Kill { grace, .. } => grace.unwrap_or(self.grace),
            Order::Abandon { .. } => self.grace,
        };
        let is_received = self.ending.is_none() && matches!(order, Order::Kill { .. });
        let mut steps = Vec::from_iter(is_received.then_some(Step::Receive));
        steps.extend(self.end(Cause::from_order(order), grace, now));
        steps
    }

    /// The run's keeper was killed.
    pub(super) fn abandon(&mut self, now: Instant) -> Vec<Step> {
        self.end(Cause::Unkept, Duration::ZERO, now)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Step> {
        match (self.phase, self.timeout_at()) {
            (Phase::Draining(_), _) => Vec::new(),
            (Phase::Running, Some((at, limit))) if self.ending.is_none() && now >= at => {
                self.end(Cause::TimeOut(limit), self.grace, now)
            }
            _ => Vec::from_iter(self.kill_if_due(now)),
        }
    }

    /// Begins to end the run, or shortens the grace of an end that has begun.
    fn end(&mut self, cause: Cause, grace: Duration, now: Instant) -> Vec<Step> {
        let kill_at = now.checked_add(grace).unwrap_or(now + NEVER);
        let mut steps = Vec::new();
        if let Some(ending) = &mut self.ending {
            ending.kill_at = ending.kill_at.min(kill_at);
        } else {
            self.ending = Some(Ending { cause, since: now, kill_at, killed_after: None });
            steps.extend((!grace.is_zero()).then_some(Step::Terminate));
        }
        steps.extend(self.kill_if_due(now));
        steps
    }

    fn kill_if_due(&mut self, now: Instant) -> Option<Step> {
        let due = |ending: &&mut Ending| ending.killed_after.is_none() && now >= ending.kill_at;
        let ending = self.ending.as_mut().filter(due)?;
        ending.killed_after = Some(now - ending.since);
        if self.phase == Phase::Clearing {
            self.look_at = now;
        }
        self.wait = CLEARING_WAITS.0;
        Some(Step::Kill)
    }

    /// The shell has ended.
    pub(super) fn exit(&mut self, now: Instant) {
        if self.ending.is_some() {
            (self.phase, self.look_at) = (Phase::Clearing, now);
        } else {
            self.clear(now);
        }
    }

    /// Nothing is left that is to be ended.
    pub(super) fn clear(&mut self, now: Instant) {
        self.phase = Phase::Draining(now + DRAIN);
    }

    /// A look has seen what is left. Returns whether the waits for it have just become the longest.
    pub(super) fn looked(&mut self, now: Instant) -> bool {
        if self.phase == Phase::Running {
            self.look_at = now + PROGRESS_EVERY;
            return false;
        }
        self.look_at = now + self.wait;
        let before = self.wait;
        self.wait = (before * 2).min(CLEARING_WAITS.1);
        before < self.wait && self.wait == CLEARING_WAITS.1
    }
}

/// `10 s`, `1.5 s` or `200 ms`: rounded to a tenth of a second, or to a millisecond below one.
fn words(duration: Duration) -> String {
    let tenths = (duration.as_millis() + 50) / 100;
    match (tenths / 10, tenths % 10) {
        _ if duration < Duration::from_secs(1) => format!("{} ms", duration.as_millis()),
        (seconds, 0) => format!("{seconds} s"),
        (seconds, tenth) => format!("{seconds}.{tenth} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn kill(grace: Option<u64>) -> Order {
        Order::Kill { grace: grace.map(secs), by: "alice".to_owned() }
    }

    /// One with a time-out after a minute, and the instant of its start.
    fn ladder() -> (Ladder, Instant) {
        let now = Instant::now();
        (Ladder::new(GRACE, Some(secs(60)), now), now)
    }

    fn words(ladder: &Ladder, took: u64) -> String {
        ladder.ending().unwrap().words(secs(took))
    }

    #[test]
    fn a_run_that_ends_by_itself_is_only_drained() {
        let (mut run, now) = ladder();
        assert_eq!(
            (run.wake_at(), run.look_at()),
            (Some(now + secs(60)), Some(now + PROGRESS_EVERY))
        );
        run.exit(now + secs(1));
        let until = now + secs(1) + DRAIN;
        assert_eq!((run.phase(), run.wake_at()), (Phase::Draining(until), Some(until)));
        assert_eq!((run.look_at(), run.tick(now + secs(60))), (None, vec![]));
        assert!(run.ending().is_none());
    }

    #[test]
    fn a_shell_that_ends_within_its_grace_leaves_the_rest_theirs() {
        let (mut run, now) = ladder();
        assert_eq!(run.order(&kill(None), now), [Step::Receive, Step::Terminate]);
        assert_eq!(run.wake_at(), Some(now + GRACE));
        run.exit(now + secs(1));
        assert_eq!((run.phase(), run.look_at()), (Phase::Clearing, Some(now + secs(1))));
        assert!(!run.looked(now + secs(1)));
        assert_eq!(run.look_at(), Some(now + secs(1) + CLEARING_WAITS.0));
        assert_eq!((run.wake_at(), run.tick(now + secs(4))), (Some(now + GRACE), vec![]));
        assert_eq!(run.tick(now + GRACE), [Step::Kill]);
        assert_eq!((run.wake_at(), run.look_at()), (None, Some(now + GRACE)), "at once");
        run.clear(now + secs(6));
        assert!(matches!(run.phase(), Phase::Draining(_)));
        assert_eq!(words(&run, 6), "killed by alice (SIGKILL after 5 s, gone after 6 s)");
    }

    #[test]
    fn a_second_kill_only_shortens_the_grace() {
        let (mut run, now) = ladder();
        run.order(&Order::Abandon { reason: "w1 is stopping".to_owned() }, now);
        assert_eq!(run.order(&kill(Some(60)), now + secs(1)), []);
        assert_eq!(run.wake_at(), Some(now + GRACE), "it does not prolong it");
        assert_eq!(run.order(&kill(Some(1)), now + secs(2)), []);
        assert_eq!(run.wake_at(), Some(now + secs(3)));
        assert_eq!(run.order(&kill(Some(0)), now + secs(2)), [Step::Kill]);
        assert_eq!(run.order(&kill(Some(0)), now + secs(2)), [], "once");
        assert_eq!(
            words(&run, 2),
            "ended because w1 is stopping (SIGKILL after 2 s, gone after 2 s)"
        );
        assert_eq!(run.ending().unwrap().cause.killed_by(), None, "the first decides");
    }

    #[test]
    fn without_grace_there_is_no_sigterm() {
        let (mut run, now) = ladder();
        assert_eq!(run.order(&kill(Some(0)), now), [Step::Receive, Step::Kill]);
        assert_eq!(words(&run, 1), "killed by alice (SIGKILL, gone after 1 s)");
    }

    #[test]
    fn a_time_out_ends_a_run_once() {
        let (mut run, now) = ladder();
        assert_eq!(run.tick(now + secs(59)), []);
        assert_eq!(run.tick(now + secs(60)), [Step::Terminate]);
        assert_eq!(run.tick(now + secs(61)), []);
        assert_eq!(run.order(&kill(None), now + secs(61)), [], "it is being ended already");
        assert_eq!(words(&run, 1), "timed out after 60 s (SIGTERM, gone after 1 s)");
        assert_eq!(run.ending().unwrap().cause.outcome(), Outcome::TimedOut);
    }

    #[test]
    fn a_run_whose_keeper_is_gone_is_killed_and_lost() {
        let (mut run, now) = ladder();
        assert_eq!(run.abandon(now), [Step::Kill]);
        assert_eq!(run.ending().unwrap().cause.outcome(), Outcome::Lost);
    }

    #[test]
    fn no_grace_or_time_out_is_too_long() {
        let now = Instant::now();
        let mut run = Ladder::new(Duration::MAX, Some(Duration::MAX), now);
        assert_eq!((run.wake_at(), run.tick(now + NEVER)), (None, vec![]));
        assert_eq!(run.order(&kill(None), now), [Step::Receive, Step::Terminate]);
        assert_eq!(run.tick(now + secs(60)), []);
    }

    #[test]
    fn looks_grow_rare_and_that_is_told_once() {
        let (mut run, mut now) = ladder();
        run.order(&kill(Some(0)), now);
        run.exit(now);
        let mut told = Vec::new();
        for _ in 0..10 {
            told.push(run.looked(now));
            now = run.look_at().unwrap();
        }
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "{told:?}");
        run.looked(now);
        assert_eq!(run.look_at(), Some(now + CLEARING_WAITS.1));
    }
}
