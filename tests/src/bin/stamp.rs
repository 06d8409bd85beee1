//! The command that benchmarks have run: it writes down when it began, and for which slot.
//!
//! It stands in for a job's shell, `stamp -c FILE`, so that nothing lies between the worker's
//! spawn and its first instruction but the system's own exec.

use std::fs::OpenOptions;
use std::io::{Error, Write};
use std::time::SystemTime;

fn main() -> Result<(), Error> {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let told = |name| std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    let (job, slot) = (told("CARILLON_JOB"), told("CARILLON_SLOT"));
    let line = format!("{job} {slot} {} {}\n", told("CARILLON_WORKER"), since.as_nanos());
    let file = std::env::args_os().nth(2).ok_or_else(|| Error::other("stamp -c FILE"))?;
    OpenOptions::new().append(true).create(true).open(file)?.write_all(line.as_bytes())
}
