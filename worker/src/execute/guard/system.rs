//! What guard and keeper ask of the system for their children: fork(2) and other calls that have no
//! safe wrapper.

#![allow(unsafe_code, reason = "fork(2), _exit(2) and signal(2) are not wrapped safely anywhere")]

use std::io;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid};

/// What tells of a child that ended.
pub(super) const CHILDREN: [Signal; 1] = [Signal::SIGCHLD];

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

/// Ends this process at once, as a child must that shares buffers and hooks with its parent.
pub(super) fn leave(code: i32) -> ! {
    // SAFETY: it touches no memory and does not return.
    unsafe { nix::libc::_exit(code) }
}

/// Gives every signal but the real-time ones its usual effect again and unblocks it: what is ignored or
/// blocked stays so across execve(2), and the guard blocks what the worker, or whoever started that,
/// ignores.
pub(super) fn reset_signals() {
    for number in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: no handler of ours is installed or replaced, and none can run in between.
        unsafe { signal(number, SigHandler::SigDfl) }.ok();
    }
    SigSet::empty().thread_set_mask().ok();
}

/// Can be read when a child has ended.
pub(super) fn children() -> io::Result<SignalFd> {
    // Reading must not wait: where this is tested, another thread may have had the signal.
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&CHILDREN.into_iter().collect(), flags)?)
}
