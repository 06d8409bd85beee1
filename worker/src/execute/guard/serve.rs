//! The guard process: one thread, asleep until the worker says something, the lease's deadline
//! passes, or the pipe closes.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use carillon_core::id::RunId;
use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tracing::{info, warn};

use super::line::{Line, Lines, Terms};
use crate::clock::since_boot;
use crate::execute::marker::{self, Process};

/// The first and the longest pause between two looks for processes that are being ended.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// A run is over when nothing of it is seen for so long: a process that is just being started has
/// no marker until it executes its program.
const QUIET: Duration = Duration::from_millis(100);

/// Guards the runs of the worker at the other end of standard input, until it is gone and they are
/// too. `SIGINT`, `SIGTERM`, `SIGHUP` and `SIGQUIT` do not end it.
///
/// # Errors
/// The kernel refuses a timer, or standard input cannot be read.
pub(crate) fn serve() -> io::Result<()> {
    // Blocked for ever is as good as ignored. Nothing is started here that would inherit it.
    let deaf = [Blocked::SIGINT, Blocked::SIGTERM, Blocked::SIGHUP, Blocked::SIGQUIT];
    deaf.into_iter().collect::<SigSet>().thread_block()?;
    // Fails only for the leader of a group, which is out of reach already.
    nix::unistd::setsid().ok();
    // It would be called `exe`.
    fs::write("/proc/self/comm", "carillon-guard").ok();
    let mut pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    let mut lines = Lines::default();
    let mut wards = Wards::default();
    let mut buffer = [0; 4096];
    loop {
        if wards.is_due(since_boot()) {
            wards.sweep(since_boot(), &marker::scan());
        }
        if wards.are_over() {
            return Ok(());
        }
        if !wait(&timer, wards.next(), (!wards.closed).then_some(&pipe))? {
            continue;
        }
        match pipe.read(&mut buffer)? {
            0 => wards.close(since_boot()),
            read => {
                for line in lines.take(buffer.get(..read).unwrap_or_default()) {
                    match line {
                        Ok(line) => wards.accept(line),
                        Err(text) => warn!("guard: not understood: {text:?}"),
                    }
                }
                wards.look_again(since_boot());
            }
        }
    }
}

/// Sleeps until `until`, since boot, or until the pipe can be read; returns whether it can.
fn wait(timer: &OwnedFd, until: Option<Duration>, pipe: Option<&File>) -> io::Result<bool> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A timer set to zero is off.
    let at = until.map_or(zero, |at| Timespec {
        tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at.subsec_nanos().max(1)),
    });
    let setting = Itimerspec { it_interval: zero, it_value: at };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &setting)?;
    let mut handles = vec![PollFd::new(timer, PollFlags::IN)];
    handles.extend(pipe.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    match poll(&mut handles, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(handles.get(1).is_some_and(|pipe| !pipe.revents().is_empty()))
}

/// The runs that are guarded. All instants are since boot.
#[derive(Debug, Default)]
struct Wards {
    runs: BTreeMap<RunId, Ward>,
    lease: Option<Duration>,
    closed: bool,
    look_at: Duration,
    pause: Duration,
}

#[derive(Debug)]
struct Ward {
    terms: Terms,
    doom: Option<Doom>,
}

/// A run that is being ended. Nothing takes that back.
#[derive(Debug)]
struct Doom {
    kill_at: Duration,
    groups: HashSet<i32>,
    /// Who has had SIGTERM: id and start.
    asked: HashSet<(i32, u64)>,
    /// Since when nothing of it is seen.
    quiet: Option<Duration>,
    /// Nothing is left, or nothing that may be signalled.
    over: bool,
}

impl Wards {
    fn accept(&mut self, line: Line) {
        match line {
            Line::Run(run, terms) => {
                self.runs.entry(run).or_insert(Ward { terms, doom: None });
            }
            Line::End(run) => drop(self.runs.remove(&run)),
            Line::Lease(until) => self.lease = Some(until),
        }
    }

    /// The worker speaks, so it may have started a process of a run that was over.
    fn look_again(&mut self, now: Duration) {
        for doom in self.runs.values_mut().filter_map(|ward| ward.doom.as_mut()) {
            if doom.over {
                (doom.over, doom.quiet) = (false, None);
                (self.look_at, self.pause) = (now, PAUSES.0);
            }
        }
    }

    /// The worker is gone.
    fn close(&mut self, now: Duration) {
        self.closed = true;
        self.look_again(now);
    }

    /// Whether everything is done.
    fn are_over(&self) -> bool {
        self.closed && self.runs.values().all(|ward| ward.doom.as_ref().is_some_and(|d| d.over))
    }

    /// Begins to end what has to end by now, and returns whether `/proc` is to be looked at.
    fn is_due(&mut self, now: Duration) -> bool {
        let expired = self.lease.is_some_and(|until| until <= now);
        let closed = self.closed;
        let mut begun = 0;
        for ward in self.runs.values_mut() {
            if ward.doom.is_none() && (closed || expired && !ward.terms.keep) {
                ward.doom = Some(Doom::at(now, ward.terms.grace));
                begun += 1;
            }
        }
        if begun > 0 {
            let why = if closed { "is gone" } else { "is silent past its lease" };
            warn!(runs = begun, "guard: the worker {why}: ending its runs");
            (self.look_at, self.pause) = (now, PAUSES.0);
        }
        self.unfinished().next().is_some() && self.look_at <= now
    }

    fn unfinished(&self) -> impl Iterator<Item = &Doom> {
        self.runs.values().filter_map(|ward| ward.doom.as_ref()).filter(|doom| !doom.over)
    }

    /// When [`Wards::is_due`] must be asked again.
    fn next(&self) -> Option<Duration> {
        let hangs_on_lease = |ward: &Ward| ward.doom.is_none() && !ward.terms.keep;
        let lease = self.lease.filter(|_| self.runs.values().any(hangs_on_lease));
        let look = self.unfinished().next().map(|_| self.look_at);
        lease.into_iter().chain(look).min()
    }

    /// Goes on ending the runs of which `all` processes show something.
    fn sweep(&mut self, now: Duration, all: &[Process]) {
        for (run, ward) in &mut self.runs {
            if let Some(doom) = ward.doom.as_mut().filter(|doom| !doom.over) {
                doom.sweep(*run, now, all);
            }
        }
        self.look_at = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
        let kill_at = self.unfinished().map(|doom| doom.kill_at).filter(|&at| at > now).min();
        if let Some(kill_at) = kill_at.filter(|&at| at <= self.look_at) {
            (self.look_at, self.pause) = (kill_at, PAUSES.0);
        }
    }
}

impl Doom {
    fn at(now: Duration, grace: Duration) -> Self {
        Self {
            kill_at: now.saturating_add(grace),
            groups: HashSet::new(),
            asked: HashSet::new(),
            quiet: None,
            over: false,
        }
    }

    fn sweep(&mut self, run: RunId, now: Duration, all: &[Process]) {
        let left = marker::of_run(all, run, &mut self.groups);
        if left.is_empty() {
            self.over = now - *self.quiet.get_or_insert(now) >= QUIET;
            if self.over {
                info!(%run, "guard: nothing is left of the run");
            }
            return;
        }
        self.quiet = None;
        if now < self.kill_at {
            for process in left {
                if self.asked.insert((process.pid, process.started)) {
                    process.signal(Signal::TERM);
                }
            }
            return;
        }
        let refused = left.iter().filter(|process| !process.signal(Signal::KILL)).count();
        if refused == left.len() {
            self.over = true;
            let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
            warn!(%run, ?pids, "guard: not permitted to kill processes of the run");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn doomed(wards: &Wards) -> Vec<RunId> {
        let runs = wards.runs.iter().filter(|(_, ward)| ward.doom.is_some());
        runs.map(|(&run, _)| run).collect()
    }

    fn two() -> Wards {
        let mut wards = Wards::default();
        wards.accept(Line::Run(RunId::FIRST, Terms { grace: at(2), keep: false }));
        wards.accept(Line::Run(RunId::LAST, Terms { grace: at(2), keep: true }));
        wards
    }

    #[test]
    fn the_lease_ends_what_is_not_to_be_kept_and_a_later_one_saves_nothing() {
        let mut wards = two();
        assert_eq!((wards.is_due(at(5)), wards.next()), (false, None), "no lease yet");
        wards.accept(Line::Lease(at(10)));
        assert_eq!((wards.is_due(at(9)), wards.next()), (false, Some(at(10))));
        assert!(wards.is_due(at(10)));
        assert_eq!(doomed(&wards), [RunId::FIRST]);
        wards.accept(Line::Lease(at(20)));
        assert!(wards.is_due(at(11)));
        assert_eq!(doomed(&wards), [RunId::FIRST]);
        wards.accept(Line::End(RunId::FIRST));
        assert_eq!((wards.is_due(at(25)), wards.next()), (false, None));
        assert!(!wards.are_over());
    }

    #[test]
    fn what_a_thawed_worker_starts_late_is_looked_for_again() {
        let mut wards = two();
        wards.accept(Line::Lease(at(10)));
        assert!(wards.is_due(at(10)));
        wards.sweep(at(10), &[]);
        assert_eq!(wards.next(), Some(at(10) + PAUSES.0));
        wards.sweep(at(11), &[]);
        assert_eq!(wards.next(), None, "over, and the worker is silent");
        wards.accept(Line::Lease(at(30)));
        wards.look_again(at(20));
        assert_eq!(wards.next(), Some(at(20)));
        assert!(wards.is_due(at(20)) && wards.runs.len() == 2);
    }

    #[test]
    fn a_closed_pipe_ends_all_and_then_the_guard() {
        let mut wards = two();
        wards.close(at(5));
        assert!(wards.is_due(at(5)) && !wards.are_over());
        assert_eq!(doomed(&wards), [RunId::FIRST, RunId::LAST]);
        wards.sweep(at(5), &[]);
        wards.sweep(at(6), &[]);
        assert!(wards.are_over());
        let mut idle = Wards::default();
        idle.close(at(5));
        assert!(!idle.is_due(at(5)) && idle.are_over());
    }

    #[test]
    fn looks_grow_rare_but_none_is_later_than_a_kill() {
        let mut wards = two();
        let process = Process { pid: i32::MAX, group: 1, started: 1, run: Some(RunId::FIRST) };
        wards.close(at(5));
        let mut now = at(5);
        let mut looks = 0;
        while now < at(7) {
            assert!(wards.is_due(now));
            wards.sweep(now, std::slice::from_ref(&process));
            now = wards.next().unwrap();
            looks += 1;
        }
        assert_eq!(now, at(7));
        assert!((8..14).contains(&looks), "{looks}");
    }
}
