//! What a job, a schedule, a run and a store *are*: the part of Carillon that the worker and the
//! console share. It starts no process, draws no screen and reads no environment.
//!
//! Floors, from pure to effectful; a module imports only from floors below its own:
//!
//! 1. [`id`], [`schedule`], [`notice`]
//! 2. [`zones`], [`run`], [`timetable`]
//! 3. [`keys`], [`job`], [`fleet`]
//! 4. [`settings`], [`decide`], [`notify`]
//! 5. [`records`], [`cursors`]
//! 6. [`replica`]
//! 7. [`rank`], [`steps`], [`etcd`]
//! 8. [`why`], [`recover`], [`jobs`], [`claims`]

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
