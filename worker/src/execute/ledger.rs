//! The list of live runs, in a file of the worker's state folder: who starts after a worker that was
//! killed together with its guard learns from it what may be left.
//!
//! A line for each run, all of one length, and blank where its run has ended. The next run takes a
//! blank one: so a run costs two short writes to memory that the system keeps, and no file of its own.
//! It has to outlive the worker, not the machine, so nothing waits for the disk.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use carillon_core::id::RunId;
use tracing::warn;

/// What the file is called.
pub(super) const NAME: &str = "live-runs";
/// A run's id and the end of its line, in bytes.
const LINE: usize = 27;

/// The list of live runs. Cheap to clone; all clones are one list.
#[derive(Debug, Clone)]
pub(super) struct Ledger(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    file: File,
    /// Which line each run has.
    taken: BTreeMap<RunId, u64>,
    /// Blank lines before the last one.
    blank: Vec<u64>,
    lines: u64,
}

impl Ledger {
    /// The one in this folder, with the runs that an earlier life has left on it.
    ///
    /// # Errors
    /// The file can be neither opened nor made.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<RunId>)> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(folder.join(NAME))?;
        let mut text = Vec::new();
        (&file).read_to_end(&mut text)?;
        let (mut taken, mut blank, mut lines) = (BTreeMap::new(), Vec::new(), 0);
        for line in text.chunks(LINE) {
            let run = str::from_utf8(line).ok().and_then(|line| line.trim_end().parse().ok());
            match run {
                Some(run) => drop(taken.insert(run, lines)),
                None => blank.push(lines),
            }
            lines += 1;
        }
        let left = taken.keys().copied().collect();
        Ok((Self(Arc::new(Mutex::new(Places { file, taken, blank, lines }))), left))
    }

    /// The run is about to be started. Where this fails, only its trace is missing.
    pub(super) fn begin(&self, run: RunId) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = places.blank.pop().unwrap_or(places.lines);
        places.lines = places.lines.max(line + 1);
        places.taken.insert(run, line);
        places.write(line, &run.to_string()).ok();
    }

    /// Nothing of the run is to be ended any more.
    pub(super) fn end(&self, run: RunId) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = places.taken.remove(&run) else { return };
        if let Err(e) = places.write(line, "") {
            warn!(%run, "cannot strike the run off the list of live ones: {e}");
        }
        places.blank.push(line);
    }
}

impl Places {
    fn write(&self, line: u64, text: &str) -> io::Result<()> {
        let text = format!("{text:<width$}\n", width = LINE - 1);
        self.file.write_all_at(text.as_bytes(), line * LINE as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_began_and_did_not_end_is_found_by_the_next_life_and_lines_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Ledger::open(folder.path()).unwrap();
        let run = |_| RunId::new(chrono::Utc::now());
        let runs: Vec<RunId> = (0..4).map(run).collect();
        let (ledger, left) = open();
        assert_eq!(left, []);
        for &run in &runs[..3] {
            ledger.begin(run);
        }
        ledger.end(runs[1]);
        ledger.begin(runs[3]);
        ledger.end(runs[0]);
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        let line = |run: &RunId| format!("{run}\n");
        let expected = [" ".repeat(26) + "\n", line(&runs[3]), line(&runs[2])].concat();
        assert_eq!(text, expected);

        let (ledger, mut left) = open();
        left.sort();
        let mut expected = runs[2..].to_vec();
        expected.sort();
        assert_eq!(left, expected);
        for run in left {
            ledger.end(run);
        }
        assert_eq!(open().1, []);
    }

    #[test]
    fn a_line_that_a_full_disk_cut_is_a_blank_one() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunId::new(chrono::Utc::now());
        fs::write(
            folder.path().join(NAME),
            [run.to_string().as_bytes(), b"\n01ARZ\xffNDEK"].concat(),
        )
        .unwrap();
        let (ledger, left) = Ledger::open(folder.path()).unwrap();
        assert_eq!(left, [run]);
        let next = RunId::new(chrono::Utc::now());
        ledger.begin(next);
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert_eq!(text, format!("{run}\n{next}\n"));
    }
}
