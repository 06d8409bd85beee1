//! What Carillon promises, each promise shown on real servers with real processes.
//!
//! One program, so that it is linked once and its tests share the servers that none of them stops.

mod bad_input;
mod commands;
mod firing;
mod killing;
mod outages;
mod support;
