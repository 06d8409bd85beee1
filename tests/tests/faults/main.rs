//! Whatever breaks: at most one run for each slot, exactly one record for each slot.
//!
//! Each scenario is a fleet of its own on three members of etcd, to which several things are done
//! one after the other; after each the outside oracle judges. Several at once would share two
//! processors, so what is slow here is the waiting for leases.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a scenario that meets something unexpected has failed"
)]

mod clocks;
mod edits;
mod etcd;
mod network;
mod support;
mod workers;
