//! The harness of the system tests: real servers, real worker processes, a real pseudo-terminal.
//!
//! Nothing here stands in for anything. [`stack`] runs etcd and a MongoDB-protocol server,
//! [`fleet`] runs `carillon-worker`, [`console`] runs `carillon` and reads its screen, and
//! [`faults`] is what can be done to any of them. [`demo`] is all of it at once, for `make demo`
//! and for the picture in the README. [`trial`] is a fleet to which everything is done, behind a
//! network that can fail ([`proxy`], [`namespace`]), judged by an outside [`oracle`].
//! [`receiver`] takes what is told by webhooks.
//!
//! Waiting is always for something: a key, an answer, an exit, a screen; each wait has a deadline
//! and an error that shows what was there instead. Whatever a test starts ends with it, even when
//! the test process is killed: see [`process`].

pub mod certificates;
pub mod console;
pub mod demo;
pub mod faults;
pub mod fleet;
pub mod namespace;
pub mod oracle;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod receiver;
pub mod stack;
pub mod svg;
pub mod trial;
pub mod write;
