//! What a job, a schedule, a run and a store *are*: the part of Carillon that the worker and the
//! console share. It starts no process, draws no screen and reads no environment.
//!
//! Floors, from pure to effectful; a module imports only from floors below its own:
//!
//! 1. [`id`], [`schedule`], [`zones`]
//! 2. [`job`], [`run`]
//! 3. [`keys`], [`timetable`], [`decide`]
//! 4. [`fleet`], [`replica`], [`etcd`], [`jobs`], [`claims`], [`records`]
//! 5. [`settings`], [`why`], [`recover`]

pub mod claims;
pub mod cursors;
pub mod decide;
pub mod etcd;
pub mod fleet;
pub mod id;
pub mod job;
pub mod jobs;
pub mod keys;
pub mod rank;
pub mod records;
pub mod recover;
pub mod replica;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod steps;
pub mod timetable;
pub mod why;
pub mod zones;
