//! The system calls of a process that becomes two, which have no safe wrapper.

#![allow(
    unsafe_code,
    reason = "fork(2), clone3(2), _exit(2) and signal(2) are not wrapped safely anywhere"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// `CLONE_INTO_CGROUP` of linux/sched.h.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The members of `struct clone_args`, clone(2), that are not zero, by their places.
mod clone_args {
    pub(super) const FLAGS: usize = 0;
    pub(super) const EXIT_SIGNAL: usize = 4;
    pub(super) const CGROUP: usize = 10;
    pub(super) const COUNT: usize = 11;
}

/// Becomes two processes; `None` in the child.
///
/// # Errors
/// The machine has no room for another process.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: a child has only the thread that forks, so nothing may be locked by another one. The
    // guard and a run's keeper have one thread. (In tests a test's thread plays them, while the
    // program's main thread only waits for it.)
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// As [`fork`], and the child is born in this control group, a folder. To move there later makes
/// the kernel wait until every processor has passed by: 6 ms, in which no process of the machine can
/// be started.
///
/// # Errors
/// As [`fork`], or the group takes nobody.
pub(super) fn fork_into(cgroup: &File) -> io::Result<Option<Pid>> {
    let mut args = [0_u64; clone_args::COUNT];
    args[clone_args::FLAGS] = INTO_CGROUP;
    args[clone_args::EXIT_SIGNAL] = Signal::SIGCHLD as u64;
    args[clone_args::CGROUP] = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    // SAFETY: without a flag that shares memory this is fork(2), see there; `args` is as large as is
    // said, and its addresses are zero, that is absent. What the C library keeps of a thread's own
    // id is the parent's in the child, which uses it nowhere.
    let child =
        unsafe { nix::libc::syscall(nix::libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match Errno::result(child)? {
        0 => Ok(None),
        child => Ok(Some(Pid::from_raw(i32::try_from(child).map_err(io::Error::other)?))),
    }
}

/// Ends this process at once, as a child must that shares buffers and hooks with its parent.
pub(super) fn leave(code: i32) -> ! {
    // SAFETY: it touches no memory and does not return.
    unsafe { nix::libc::_exit(code) }
}

/// Gives every signal its usual effect again and unblocks it: what is ignored or blocked stays so
/// across execve(2), and the guard blocks what the worker, or whoever started that, ignores.
pub(super) fn reset_signals() {
    for number in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: no handler of ours is installed or replaced, and none can run in between.
        unsafe { signal(number, SigHandler::SigDfl) }.ok();
    }
    SigSet::empty().thread_set_mask().ok();
}
