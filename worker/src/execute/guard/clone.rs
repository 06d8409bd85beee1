//! A process that is born for a program, into its control group, at the least price.
//!
//! It has the memory of its parent, which sleeps until it executes the program or ends: as after
//! vfork(2), nothing is copied, and nothing has to be thrown away again. And it is born in its
//! control group: to move there later makes the kernel wait until every processor has passed by,
//! which is 6 ms in which no process of the machine can be started.

#![allow(
    unsafe_code,
    reason = "clone3(2) is not wrapped anywhere, nor can it be: it returns twice"
)]

use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::system::{fork, leave};

/// Flags of linux/sched.h.
const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, which is all numbers of 64 bits, and the places of those that are not zero.
type Arguments = [u64; 11];
const FLAGS: usize = 0;
const EXIT_SIGNAL: usize = 4;
const STACK: usize = 5;
const STACK_SIZE: usize = 6;
const CGROUP: usize = 10;

/// The stack of the child in units of 16 bytes, to which it must be aligned: a hundred times what it
/// needs, so that it has no guard page. What is not touched costs nothing.
const STACK_UNITS: usize = 16 * 1024;

/// Has `child` run as a process of its own, in this control group if it takes it, and returns when
/// that has executed a program or ended; where `child` returns, it ends. What it changes in memory
/// stays changed, so it must leave all of it usable.
///
/// # Errors
/// The machine has no room for another process.
pub(super) fn beget(cgroup: Option<&File>, child: &dyn Fn()) -> io::Result<Pid> {
    if let Ok(pid) = born(cgroup, child) {
        return Ok(pid);
    }
    // In a sandbox that knows no clone3(2), say.
    match fork()? {
        Some(pid) => Ok(pid),
        None => {
            if let Some(cgroup) = cgroup {
                let group = format!("/proc/self/fd/{}/cgroup.procs", cgroup.as_raw_fd());
                // Where it is refused, the marker and descent do.
                fs::write(group, "0").ok();
            }
            child();
            leave(127)
        }
    }
}

fn born(cgroup: Option<&File>, child: &dyn Fn()) -> io::Result<Pid> {
    let mut stack = vec![0_u128; STACK_UNITS];
    let mut arguments: Arguments = [0; 11];
    arguments[FLAGS] = CLONE_VM | CLONE_VFORK;
    arguments[EXIT_SIGNAL] = Signal::SIGCHLD as u64;
    arguments[STACK] = stack.as_mut_ptr().expose_provenance() as u64;
    arguments[STACK_SIZE] = size_of_val(stack.as_slice()) as u64;
    if let Some(cgroup) = cgroup {
        arguments[FLAGS] |= CLONE_INTO_CGROUP;
        arguments[CGROUP] = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    // SAFETY: `child` and the stack live until the child needs them no more, for this process sleeps
    // until then. It has one thread, so nobody else touches its memory meanwhile, and no lock is
    // held that the child would wait for (see `fork` for tests). Nothing handles a signal but what
    // Rust itself does about a fault.
    let pid = unsafe { clone3(&mut arguments, (&raw const child).cast()) };
    // Whatever it is told to be: it must still be there.
    drop(stack);
    i32::try_from(pid).ok().filter(|&pid| pid > 0).map(Pid::from_raw).ok_or_else(|| {
        let error = i32::try_from(-pid).unwrap_or_default();
        io::Error::from_raw_os_error(error)
    })
}

/// Where a child begins.
extern "C" fn begin(child: *const c_void) -> ! {
    // SAFETY: it points to the argument of `born`, which waits for this.
    let child: &dyn Fn() = unsafe { *child.cast::<&dyn Fn()>() };
    child();
    leave(127)
}

/// The id of the child, or the number of an error below zero.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &mut Arguments, child: *const c_void) -> i64 {
    let pid: i64;
    // Registers by name: any other may be one that the child or the kernel overwrites.
    // SAFETY: the child is on its own stack from its first instruction on and never comes back; in
    // the parent this is a system call like any other.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "xor ebp, ebp",
            "call r13",
            "ud2",
            "2:",
            in("r12") child,
            in("r13") begin as extern "C" fn(*const c_void) -> !,
            inlateout("rax") nix::libc::SYS_clone3 => pid,
            in("rdi") arguments.as_ptr(),
            in("rsi") size_of::<Arguments>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    pid
}

/// The same with a copy of the memory, where nobody has written down how to begin on another stack.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone3(arguments: &mut Arguments, child: *const c_void) -> i64 {
    arguments[FLAGS] &= !(CLONE_VM | CLONE_VFORK);
    arguments[STACK] = 0;
    arguments[STACK_SIZE] = 0;
    // SAFETY: without a flag that shares memory this is fork(2).
    match unsafe {
        nix::libc::syscall(nix::libc::SYS_clone3, arguments.as_ptr(), size_of::<Arguments>())
    } {
        0 => begin(child),
        -1 => -i64::from(nix::errno::Errno::last_raw()),
        pid => i64::from(pid),
    }
}
