//! What a job, a schedule, a run and a store *are*: the part of Carillon that the worker and the
//! console share. It starts no process, draws no screen and reads no environment.
//!
//! Floors, from pure to effectful; a module imports only from floors below its own:
//!
//! 1. [`id`], [`schedule`], [`notice`]
//! 2. [`zones`], [`run`], [`keys`], [`timetable`]
//! 3. [`job`], [`fleet`], [`settings`]
//! 4. [`decide`], [`notify`], [`records`]
//! 5. [`cursors`], and above it [`replica`]
//! 6. [`rank`], [`steps`], [`etcd`]
//! 7. [`why`], [`recover`], [`jobs`], [`claims`]

pub mod claims;
pub mod cursors;
pub mod decide;
pub mod etcd;
pub mod fleet;
pub mod id;
pub mod job;
pub mod jobs;
pub mod keys;
pub mod notice;
pub mod notify;
pub mod rank;
pub mod records;
pub mod recover;
pub mod replica;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod steps;
#[cfg(test)]
mod testing;
pub mod timetable;
pub mod why;
pub mod zones;
