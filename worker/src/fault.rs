//! Points at which a worker, or the supervisor of a run, can be made to die, so that a test can show
//! what the fleet does then.
//! Nothing happens in a release build.

use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A place in the life of a run at which dying matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The claim is answered, the process not started.
    Claimed,
    /// The process has started and its key says so.
    Started,
    /// The process has ended, etcd does not know yet.
    Ended,
    /// The ending transaction is answered, MongoDB does not know yet.
    Settled,
    /// A message is due, and nobody has taken hold of it.
    Due,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Settled => "settled",
            Self::Due => "due",
        }
    }
}

/// What a point's name is preceded by where only the supervisor of the run is to die there.
const PANIC: &str = "panic-";

/// Where this worker is to die: nowhere, unless a test said so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Option<Arc<str>>);

impl Fault {
    /// To die at the point of this name; `panic-started` is death of one run's supervisor there.
    pub fn at(name: Option<&str>) -> Self {
        Self(name.map(Arc::from))
    }

    /// Dies here, as by `kill -9`, if this is the point.
    #[expect(clippy::panic, reason = "a test asks for it")]
    pub fn reach(&self, point: Point) {
        let Some(at) = self.0.as_deref().filter(|_| cfg!(debug_assertions)) else { return };
        if at == point.name() {
            // It cannot fail: the signal goes to this process.
            kill(Pid::this(), Signal::SIGKILL).ok();
        }
        if at.strip_prefix(PANIC) == Some(point.name()) {
            panic!("a test asked for a fault");
        }
    }
}
