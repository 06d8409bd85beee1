//! A wall clock that a test can set: a file says by how much this worker's differs from the
//! machine's. Nothing is shifted in a release build.
//!
//! The shift is the one thing in this program that belongs to the whole process, as the clock does.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::watch;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

static SHIFT: LazyLock<watch::Sender<TimeDelta>> = LazyLock::new(watch::Sender::default);

/// By how much the wall clock is set off.
pub(super) fn shift() -> TimeDelta {
    if cfg!(debug_assertions) { *SHIFT.borrow() } else { TimeDelta::zero() }
}

/// Hears of every change of the shift.
pub(super) fn changes() -> watch::Receiver<TimeDelta> {
    SHIFT.subscribe()
}

/// Shifts the clock as a file says, in milliseconds, and goes on doing so. A file that is absent,
/// or holds no number, shifts by nothing.
pub(crate) fn follow(file: PathBuf) {
    if !cfg!(debug_assertions) {
        return;
    }
    // Before anything reads the clock.
    look(&file);
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            look(&file);
        }
    });
}

fn look(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let to = text.trim().parse().ok().and_then(TimeDelta::try_milliseconds).unwrap_or_default();
    SHIFT.send_if_modified(|shift| std::mem::replace(shift, to) != to);
}
