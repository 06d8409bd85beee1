//! How a process becomes the shell of a run.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use carillon_core::job::Limits;
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{
    Gid, Pid, Uid, chdir, dup2_stderr, dup2_stdout, execve, getgrouplist, getppid, setgroups,
    setresgid, setresuid, setsid,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit, umask};

use super::clone::beget;
use super::system::reset_signals;
use crate::clock::since_boot;
use crate::execute::account::Account;
use crate::execute::launch::{Launch, StartError};

/// How many seconds after SIGXCPU the kernel sends SIGKILL.
pub(crate) const CPU_GRACE_SECS: u64 = 5;

/// What can fail between the birth of the process and execve(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Streams,
    Nice,
    Limit(usize),
    User,
    Directory,
    Execute,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Streams,
        Self::Nice,
        Self::Limit(0),
        Self::Limit(1),
        Self::Limit(2),
        Self::Limit(3),
        Self::User,
        Self::Directory,
        Self::Execute,
    ];
}

/// The limits with their names in a job.
fn limits(limits: &Limits) -> [(&'static str, Resource, Option<u64>); 4] {
    [
        ("cpuSecs", Resource::Cpu, limits.cpu_secs),
        ("openFiles", Resource::Nofile, limits.open_files),
        ("processes", Resource::Nproc, limits.processes),
        // Last: the others are set without it.
        ("memoryBytes", Resource::As, limits.memory_bytes),
    ]
}

/// Everything that a child needs, made before its birth.
struct Prepared<'a> {
    launch: &'a Launch,
    shell: CString,
    arguments: [CString; 3],
    environment: Vec<CString>,
    user: Option<(Uid, Gid, Vec<Gid>)>,
    home: &'a Path,
    out: OwnedFd,
    err: OwnedFd,
    keeper: Pid,
    talk: &'a UnixStream,
}

/// Starts the shell as the leader of a session of its own, with these as its output and the input of
/// this process, as `own` where the job names nobody, and returns once it runs. What of its directory,
/// user or name service hangs, hangs here; what has hung past its deadline, or until the worker, at
/// the other end of `talk`, or this process was gone, is not started.
///
/// # Errors
/// Says what the operator has to mend.
pub(super) fn start(
    launch: &Launch,
    own: Account,
    out: OwnedFd,
    err: OwnedFd,
    talk: &UnixStream,
) -> Result<Pid, StartError> {
    let fail = |e: io::Error| StartError::Other(launch.shell.clone(), e);
    let account = launch.user.as_deref().map_or(Ok(own), Account::find)?;
    let environment = account.environment(&launch.shell, &launch.env, &launch.vars);
    let size = environment.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
    let text = |text: String| CString::new(text).map_err(|e| fail(e.into()));
    let variables = environment.into_iter().map(|(k, v)| text(format!("{k}={v}")));
    let prepared = Prepared {
        launch,
        shell: text(launch.shell.clone())?,
        arguments: [text(launch.shell.clone())?, c"-c".into(), text(launch.command.clone())?],
        environment: variables.collect::<Result<_, _>>()?,
        user: identity(&account)?,
        home: &account.home,
        out,
        err,
        keeper: Pid::this(),
        talk,
    };
    let (mut told, tell) = io::pipe().map_err(fail)?;
    let group = launch.cgroup.as_ref().and_then(|group| File::open(group).ok());
    // Where there is none, the marker and descent do.
    let shell = beget(group.as_ref(), &|| {
        let Err((step, error)) = prepared.become_shell();
        say(&tell, step, error);
    })
    .map_err(fail)?;
    // Theirs only from here on: the pipes must close with the last process of the run.
    drop((prepared, tell));
    let mut why = Vec::new();
    told.read_to_end(&mut why).map_err(fail)?;
    if why.is_empty() {
        return Ok(shell);
    }
    waitpid(shell, None).ok();
    let (step, error) = understand(&why).ok_or_else(|| fail(io::ErrorKind::InvalidData.into()))?;
    Err(explain(step, error, launch, &account, size))
}

/// User, group and supplementary groups to become.
fn identity(account: &Account) -> Result<Option<(Uid, Gid, Vec<Gid>)>, StartError> {
    let Some((uid, gid)) = account.become_ids else { return Ok(None) };
    let group = Gid::from_raw(gid);
    let groups = CString::new(account.name.as_str())
        .map_err(|_| Errno::EINVAL)
        .and_then(|name| getgrouplist(&name, group))
        .map_err(|e| StartError::UserLookup(account.name.clone(), e.desc()))?;
    Ok(Some((Uid::from_raw(uid), group, groups)))
}

impl Prepared<'_> {
    /// Replaces this process; returns only what kept it from that.
    fn become_shell(&self) -> Result<Infallible, (Step, Errno)> {
        let at = |step| move |error: Errno| (step, error);
        let rustix = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
        // Cannot fail: a child leads no group.
        setsid().ok();
        reset_signals();
        dup2_stdout(&self.out).map_err(at(Step::Streams))?;
        dup2_stderr(&self.err).map_err(at(Step::Streams))?;
        if let Some(mask) = self.launch.umask {
            umask(Mode::from_raw_mode(mask));
        }
        // As whoever the worker is: another user may not raise what was lowered.
        if let Some(nice) = self.launch.nice {
            setpriority_process(None, nice).map_err(rustix).map_err(at(Step::Nice))?;
        }
        for (n, (_, resource, limit)) in limits(&self.launch.limits).into_iter().enumerate() {
            if let Some(limit) = limit {
                set_limit(resource, limit).map_err(rustix).map_err(at(Step::Limit(n)))?;
            }
        }
        if let Some((user, group, groups)) = &self.user {
            setgroups(groups).map_err(at(Step::User))?;
            setresgid(*group, *group, *group).map_err(at(Step::User))?;
            setresuid(*user, *user, *user).map_err(at(Step::User))?;
        }
        // As the run's user: a network home may be closed to root.
        match &self.launch.cwd {
            Some(cwd) => chdir(cwd.as_str()),
            None => chdir(self.home).or_else(|_| chdir("/")),
        }
        .map_err(at(Step::Directory))?;
        // The last step but one: everything before may have taken any time.
        if !self.is_wanted() {
            return Err((Step::Execute, Errno::ECANCELED));
        }
        execve(&self.shell, &self.arguments, &self.environment).map_err(at(Step::Execute))
    }

    /// Whether it is in time, and the keeper is still there, and the worker with its end of the socket:
    /// else the run may be settled by now, and have another attempt.
    fn is_wanted(&self) -> bool {
        let mut worker = [PollFd::new(self.talk, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let in_time = self.launch.start_by.is_none_or(|by| since_boot() < by);
        in_time && getppid() == self.keeper && poll(&mut worker, Some(&at_once)) == Ok(0)
    }
}

fn set_limit(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    let hard = match resource {
        // At once with SIGKILL there would be no SIGXCPU to tell why.
        Resource::Cpu => {
            let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            limit.saturating_add(CPU_GRACE_SECS).min(most.max(limit))
        }
        _ => limit,
    };
    setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(hard) })
}

/// Tells the parent; after that the child ends.
fn say(mut tell: &PipeWriter, step: Step, error: Errno) {
    let step = Step::ALL.iter().position(|known| *known == step).unwrap_or_default();
    let step = u8::try_from(step).unwrap_or_default();
    let [a, b, c, d] = (error as i32).to_le_bytes();
    tell.write_all(&[step, a, b, c, d]).ok();
}

fn understand(said: &[u8]) -> Option<(Step, Errno)> {
    let &[step, a, b, c, d] = said else { return None };
    let error = Errno::from_raw(i32::from_le_bytes([a, b, c, d]));
    Some((*Step::ALL.get(usize::from(step))?, error))
}

/// The kernel's one number in words; `size` is that of the environment, in bytes.
fn explain(
    step: Step,
    error: Errno,
    launch: &Launch,
    account: &Account,
    size: usize,
) -> StartError {
    let shell = |why| StartError::Shell(launch.shell.clone(), why);
    let found = || Path::new(&launch.shell).metadata();
    match (step, error) {
        (Step::Nice, _) => StartError::Nice(launch.nice.unwrap_or_default(), error.desc()),
        (Step::Limit(n), _) => {
            let limit = limits(&launch.limits).get(n).map(|(name, _, limit)| (*name, *limit));
            let (name, limit) = limit.unwrap_or_default();
            StartError::Limit(name, limit.unwrap_or_default(), error.desc())
        }
        (Step::User, Errno::EPERM) => StartError::MayNotSwitch(account.name.clone()),
        (Step::User, _) => StartError::Switch(account.name.clone(), error.desc()),
        (Step::Directory, _) => {
            let cwd = launch.cwd.clone().unwrap_or_else(|| "/".to_owned());
            let why = match error {
                Errno::ENOENT => "no such directory",
                Errno::ENOTDIR => "not a directory",
                Errno::EACCES => "permission denied",
                _ => error.desc(),
            };
            StartError::Directory(cwd, why)
        }
        (Step::Execute, Errno::ECANCELED) => StartError::TooLate,
        (Step::Execute, Errno::ENOENT) if found().is_ok() => shell("its interpreter is missing"),
        (Step::Execute, Errno::ENOENT | Errno::ENOTDIR) => shell("no such file"),
        (Step::Execute, Errno::ENOEXEC) => shell("not a program"),
        (Step::Execute, Errno::EACCES) => shell("not an executable file"),
        (Step::Execute, Errno::E2BIG) => StartError::TooLong(launch.command.len(), size),
        // Only with a limit does the kernel say so here, credentials(7).
        (Step::Execute, Errno::EAGAIN) => StartError::Processes(account.name.clone()),
        _ => StartError::Other(launch.shell.clone(), error.into()),
    }
}
