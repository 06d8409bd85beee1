//! What jobs themselves write down: a file that Carillon knows nothing of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use carillon_core::id::{RunId, Slot};
use chrono::{DateTime, Utc};

/// The file to which commands append one line at their start and one at their end.
#[derive(Debug, Clone)]
pub struct Witness(PathBuf);

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whether a command started here, or ended.
    pub start: bool,
    /// Its job.
    pub job: String,
    /// The slot; `None` for a run outside the schedule.
    pub slot: Option<Slot>,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The run.
    pub run: RunId,
    /// The process id of the shell.
    pub pid: u32,
    /// When, by the machine's clock.
    pub at: DateTime<Utc>,
}

impl Witness {
    /// A file in this folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.join("witness"))
    }

    /// A command that writes down its start, does `work`, and writes down its end with the exit
    /// code of `work`. Each line is a single write to a file opened for appending, so that lines
    /// never mix (write(2), `O_APPEND`).
    #[must_use]
    pub fn command(&self, work: &str) -> String {
        let file = self.0.display();
        let line = |what| {
            format!(
                "printf '{what} %s %s %s %s %s %s\\n' \"$CARILLON_JOB\" \"${{CARILLON_SLOT:--}}\" \
                 \"$CARILLON_ATTEMPT\" \"$CARILLON_RUN\" $$ \"$(date +%s%N)\" >> '{file}'"
            )
        };
        format!("{}; {work}; code=$?; {}; exit $code", line("start"), line("end"))
    }

    /// What is written down so far, in the order of writing; nothing where there is no file yet.
    ///
    /// # Errors
    ///
    /// When a whole line cannot be understood.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        // What comes after the last line break is being written.
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        whole.lines().map(Line::read).collect()
    }
}

impl Line {
    fn read(text: &str) -> Result<Self> {
        let read = || {
            let mut words = text.split(' ');
            let start = match words.next()? {
                "start" => true,
                "end" => false,
                _ => return None,
            };
            let job = words.next()?.to_owned();
            let slot = match words.next()? {
                "-" => None,
                slot => Some(slot.parse().ok()?),
            };
            let attempt = words.next()?.parse().ok()?;
            let run = words.next()?.parse().ok()?;
            let pid = words.next()?.parse().ok()?;
            let at = DateTime::from_timestamp_nanos(words.next()?.parse().ok()?);
            words.next().is_none().then_some(Self { start, job, slot, attempt, run, pid, at })
        };
        read().with_context(|| format!("not a line of a witness: {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail that way")]

    use std::process::Command;

    use super::*;

    #[test]
    fn a_command_writes_down_what_it_is_and_keeps_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::in_folder(folder.path());
        let run = RunId::new(Utc::now());
        for slot in ["2026-01-31T01:00:00Z", ""] {
            let status = Command::new("/bin/sh")
                .args(["-c", &witness.command("(exit 7)")])
                .env("CARILLON_JOB", "j")
                .env("CARILLON_SLOT", slot)
                .env("CARILLON_ATTEMPT", "2")
                .env("CARILLON_RUN", run.to_string())
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(7));
        }
        let lines = witness.lines().unwrap();
        let slots: Vec<_> = lines.iter().map(|line| line.slot).collect();
        let slot = "2026-01-31T01:00:00Z".parse().ok();
        assert_eq!(slots, [slot, slot, None, None]);
        assert!(lines[0].start && !lines[1].start);
        assert!(lines.iter().all(|line| line.run == run && line.attempt == 2 && line.job == "j"));
        assert_eq!(lines[0].pid, lines[1].pid);
        assert!(
            lines[0].at <= lines[1].at && Utc::now() - lines[0].at < chrono::Duration::minutes(1)
        );
    }

    #[test]
    fn a_line_that_is_being_written_is_not_read_yet_and_a_wrong_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::in_folder(folder.path());
        assert_eq!(witness.lines().unwrap(), []);
        fs::write(folder.path().join("witness"), "start j - 1").unwrap();
        assert_eq!(witness.lines().unwrap(), []);
        fs::write(folder.path().join("witness"), "start j - 1\n").unwrap();
        assert!(witness.lines().is_err());
    }
}
