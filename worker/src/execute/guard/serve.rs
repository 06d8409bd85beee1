//! The guard process: one thread, asleep until the worker says something, the lease's deadline
//! passes, a keeper ends, or the socket closes.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use carillon_core::id::RunId;
use nix::sys::signal::{SigSet, Signal as Blocked};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{Signal, WaitOptions, wait as wait_for_child};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tracing::{info, warn};

use super::keeper::{self, Files};
use super::line::{Line, Lines, Terms};
use super::system::{CHILDREN, children, fork, leave};
use crate::clock::since_boot;
use crate::execute::account::Account;
use crate::execute::cgroup::Cgroups;
use crate::execute::launch::Reply;
use crate::execute::marker::{self, Process};

/// The first and the longest pause between two looks for processes that are being ended.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// A run is over when nothing of it is seen for so long: a process that is just being started has
/// no marker until it executes its program.
const QUIET: Duration = Duration::from_millis(100);
/// Signals that do not end the guard and its keepers.
const DEAF: [Blocked; 4] = [Blocked::SIGINT, Blocked::SIGTERM, Blocked::SIGHUP, Blocked::SIGQUIT];

/// Guards the runs of the worker at the other end of standard input, until it is gone and they are
/// too. `SIGINT`, `SIGTERM`, `SIGHUP` and `SIGQUIT` do not end it.
///
/// # Errors
/// The kernel refuses a timer, or standard input is no socket.
pub(crate) fn serve() -> io::Result<()> {
    // Blocked for ever is as good as ignored. Every shell has them back.
    DEAF.into_iter().chain(CHILDREN).collect::<SigSet>().thread_block()?;
    let children = children()?;
    // Fails only for the leader of a group, which is out of reach already.
    nix::unistd::setsid().ok();
    // It would be called `exe`.
    fs::write("/proc/self/comm", marker::GUARD).ok();
    // A name service that is loaded here is loaded for every keeper.
    let own = Account::own();
    let null = File::open("/dev/null")?;
    let cgroups = Cgroups::find().ok();
    let mut channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    let mut wards = Wards::default();
    loop {
        if wards.is_due(since_boot()) {
            wards.sweep(since_boot(), &marker::scan(), cgroups.as_ref());
        }
        if wards.are_over() {
            return Ok(());
        }
        let woken = wait(&timer, wards.next(), &children, (!wards.closed).then_some(&channel))?;
        if woken.by_child {
            children.read_signal()?;
        }
        while let Ok(Some(_)) = wait_for_child(WaitOptions::NOHANG) {}
        if !woken.by_worker {
            continue;
        }
        // What has run out is over, whatever the worker says now.
        wards.is_due(since_boot());
        let Some(lines) = channel.receive()? else {
            wards.close(since_boot());
            continue;
        };
        for line in lines {
            match line {
                Ok(Line::Start(run, before)) => {
                    let Some(files) = channel.files() else { continue };
                    if wards.is_doomed(run) || before.is_some_and(|before| before <= since_boot()) {
                        files.refuse(&Reply::TooLate);
                        continue;
                    }
                    match fork() {
                        Ok(Some(keeper)) => wards.kept_by(run, keeper.as_raw()),
                        Ok(None) => {
                            drop((channel, timer, children));
                            if let Err(e) = keeper::keep(files, &null, own) {
                                warn!(%run, "keeper: {e}");
                            }
                            leave(0);
                        }
                        Err(e) => {
                            files.refuse(&Reply::Failed(format!("cannot start a process: {e}")));
                        }
                    }
                }
                Ok(line) => wards.accept(line),
                Err(text) => warn!("guard: not understood: {text:?}"),
            }
        }
        wards.look_again(since_boot());
    }
}

/// The worker's words, and the files that come with them.
struct Channel {
    socket: OwnedFd,
    lines: Lines,
    /// What came with each start that has not been read yet.
    files: VecDeque<Vec<OwnedFd>>,
}

impl Channel {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, lines: Lines::default(), files: VecDeque::new() }
    }

    /// The next lines; nothing when the worker is gone.
    fn receive(&mut self) -> io::Result<Option<Vec<Result<Line, String>>>> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut buffer)];
        let got = match recvmsg(&self.socket, into, &mut along, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got,
            Err(Errno::INTR) => return Ok(Some(Vec::new())),
            // It went with words of ours unread.
            Err(Errno::CONNRESET) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut files = Vec::new();
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                files.extend(came);
            }
        }
        // Where there was no room for them, their start still has to find its place empty.
        if !files.is_empty() || got.flags.contains(ReturnFlags::CTRUNC) {
            self.files.push_back(files);
        }
        let bytes = buffer.get(..got.bytes).unwrap_or_default();
        Ok((got.bytes > 0).then(|| self.lines.take(bytes)))
    }

    /// The files of the next start; nothing where the guard had no room for them.
    fn files(&mut self) -> Option<Files> {
        let files: [OwnedFd; 3] = self.files.pop_front()?.try_into().ok()?;
        let [out, err, talk] = files;
        Some(Files { out, err, talk })
    }
}

/// What has woken the guard.
struct Woken {
    by_worker: bool,
    by_child: bool,
}

/// Sleeps until `until`, since boot, or until there is something to read.
fn wait(
    timer: &OwnedFd,
    until: Option<Duration>,
    children: &SignalFd,
    channel: Option<&Channel>,
) -> io::Result<Woken> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A timer set to zero is off.
    let at = until.map_or(zero, |at| Timespec {
        tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at.subsec_nanos().max(1)),
    });
    let setting = Itimerspec { it_interval: zero, it_value: at };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &setting)?;
    let mut handles = vec![
        PollFd::new(timer, PollFlags::IN),
        PollFd::from_borrowed_fd(children.as_fd(), PollFlags::IN),
    ];
    handles.extend(channel.map(|channel| PollFd::new(&channel.socket, PollFlags::IN)));
    match poll(&mut handles, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let is_ready = |n: usize| handles.get(n).is_some_and(|handle| !handle.revents().is_empty());
    Ok(Woken { by_child: is_ready(1), by_worker: is_ready(2) })
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
                let ward = self.runs.entry(run).or_insert(Ward { terms, doom: None });
                ward.terms.keeper = terms.keeper.or(ward.terms.keeper);
            }
            Line::End(run) => drop(self.runs.remove(&run)),
            Line::Lease(until) => self.lease = Some(until),
            Line::Start(..) => {}
        }
    }

    fn kept_by(&mut self, run: RunId, keeper: i32) {
        if let Some(ward) = self.runs.get_mut(&run) {
            ward.terms.keeper = Some(keeper);
        }
    }

    /// Whether the run is being ended.
    fn is_doomed(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|ward| ward.doom.is_some())
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
    fn sweep(&mut self, now: Duration, all: &[Process], cgroups: Option<&Cgroups>) {
        for (run, ward) in &mut self.runs {
            if let Some(doom) = ward.doom.as_mut().filter(|doom| !doom.over) {
                let inside = cgroups.map(|cgroups| cgroups.processes(*run)).unwrap_or_default();
                let left = marker::of_run(all, *run, ward.terms.keeper, &inside, &mut doom.groups);
                if let Some(cgroups) = cgroups.filter(|_| now >= doom.kill_at) {
                    cgroups.kill(*run);
                }
                doom.sweep(*run, now, &left, ward.terms.keeper);
                if let Some(cgroups) = cgroups.filter(|_| doom.over) {
                    cgroups.remove(*run);
                }
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

    /// Goes on ending the run, of which this is left.
    fn sweep(&mut self, run: RunId, now: Duration, left: &[&Process], keeper: Option<i32>) {
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
                if process.is_starter || keeper == Some(process.pid) {
                    // Nothing of the job runs in it yet, so there is no grace to be given.
                    process.signal(Signal::KILL);
                } else if self.asked.insert((process.pid, process.started)) {
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
        wards.accept(Line::Run(RunId::FIRST, Terms { grace: at(2), keep: false, keeper: None }));
        wards.accept(Line::Run(RunId::LAST, Terms { grace: at(2), keep: true, keeper: None }));
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
        wards.sweep(at(10), &[], None);
        assert_eq!(wards.next(), Some(at(10) + PAUSES.0));
        wards.sweep(at(11), &[], None);
        assert_eq!(wards.next(), None, "over, and the worker is silent");
        wards.accept(Line::Lease(at(30)));
        wards.look_again(at(20));
        assert_eq!(wards.next(), Some(at(20)));
        assert!(wards.is_due(at(20)) && wards.runs.len() == 2);
    }

    #[test]
    fn a_closed_socket_ends_all_and_then_the_guard() {
        let mut wards = two();
        wards.close(at(5));
        assert!(wards.is_due(at(5)) && !wards.are_over());
        assert_eq!(doomed(&wards), [RunId::FIRST, RunId::LAST]);
        wards.sweep(at(5), &[], None);
        wards.sweep(at(6), &[], None);
        assert!(wards.are_over());
        let mut idle = Wards::default();
        idle.close(at(5));
        assert!(!idle.is_due(at(5)) && idle.are_over());
    }

    #[test]
    fn looks_grow_rare_but_none_is_later_than_a_kill() {
        let mut wards = two();
        let process = Process { pid: i32::MAX, run: Some(RunId::FIRST), ..Process::default() };
        wards.close(at(5));
        let mut now = at(5);
        let mut looks = 0;
        while now < at(7) {
            assert!(wards.is_due(now));
            wards.sweep(now, std::slice::from_ref(&process), None);
            now = wards.next().unwrap();
            looks += 1;
        }
        assert_eq!(now, at(7));
        assert!((8..14).contains(&looks), "{looks}");
    }
}
