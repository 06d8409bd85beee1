//! What Carillon promises, each promise shown on real servers with real processes.
//!
//! One program, so that it is linked once and its tests share the servers that none of them stops.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a scenario that meets something unexpected has failed"
)]

mod bad_input;
mod clocks;
mod commands;
mod console;
mod fairness;
mod firing;
mod guard;
mod killing;
mod metrics;
mod notify;
mod outages;
mod policies;
mod results;
mod secured;
mod slots;
mod spool;
mod steps;
mod support;
mod why;
