//! The spool alone, without any store: what a benchmark asks the worker's program for.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use super::spool::{Entry, Rank, Spool};

/// What to put into it.
#[derive(Debug, Args)]
pub(crate) struct Trial {
    /// Where; a folder that is empty
    folder: PathBuf,
    /// How many entries
    #[arg(long, default_value_t = 20_000)]
    entries: usize,
    /// How large each is, in bytes
    #[arg(long, default_value_t = 1_000)]
    bytes: usize,
    /// How many come together and are on the disk before the next
    #[arg(long, default_value_t = 50)]
    together: usize,
}

impl Trial {
    /// Fills it and empties it, and prints one line of JSON with the seconds that each took.
    ///
    /// # Errors
    /// The disk does not take it, or does not give back what was written.
    pub(crate) fn run(self) -> Result<()> {
        let mut spool = Spool::open(&self.folder, u64::MAX)?;
        let entry = Entry { rank: Rank::Status, bytes: vec![b'x'; self.bytes] };
        let begun = Instant::now();
        for n in 1..=self.entries {
            ensure!(spool.append(&entry)?, "there is no room");
            if n.is_multiple_of(self.together) || n == self.entries {
                spool.sync()?;
            }
        }
        let appended = begun.elapsed();
        let begun = Instant::now();
        let mut read = 0;
        while !spool.is_empty() {
            let part = spool.peek(1_000, 8 << 20)?;
            read += part.entries.len();
            spool.taken(part.mark.context("something waits")?)?;
        }
        ensure!(read == self.entries, "{read} of {} came back", self.entries);
        let replayed = begun.elapsed();
        let told = json!({
            "appendSecs": appended.as_secs_f64(),
            "replaySecs": replayed.as_secs_f64(),
        });
        writeln!(io::stdout(), "{told}")?;
        Ok(())
    }
}
