//! How fast time is: the next firing against two other libraries, and the timetable of ten million
//! jobs against sorting ten million numbers.
//!
//! Every figure is a ratio of two things measured in turns in this process, because machines are
//! noisy and differ; the times beside it belong to this machine.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

mod next;
mod ratio;
mod timetable;

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Runs all, or what the first argument names: `cargo bench --bench time -- own`.
fn main() {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("next") {
        next::run();
    }
    timetable::run(wanted);
}
