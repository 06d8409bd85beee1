//! Ends of runs that etcd does not take now, on disk: a worker that is stopped or dies meanwhile
//! tells them in its next life, and what has succeeded is not recorded as lost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::run::{LiveRun, RunRecord, Running, TriggerRequest};
use serde::{Deserialize, Serialize};

use crate::state;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct End {
    job: String,
    on: Option<WorkerId>,
    fence: i64,
    value: Running,
    /// What becomes of it.
    pub record: RunRecord,
    /// The attempt that follows.
    pub again: Option<(RunId, TriggerRequest)>,
}

impl End {
    /// Of this run.
    pub fn of(live: &LiveRun, record: &RunRecord, again: Option<&(RunId, TriggerRequest)>) -> Self {
        Self {
            job: live.job.to_string(),
            on: live.on.clone(),
            fence: live.fence,
            value: live.value.clone(),
            record: record.clone(),
            again: again.cloned(),
        }
    }

    /// The run, as it was last known.
    fn live(&self) -> Option<LiveRun> {
        Some(LiveRun {
            job: JobName::new(&self.job).ok()?,
            on: self.on.clone(),
            run: self.record.id,
            fence: self.fence,
            value: self.value.clone(),
        })
    }
}

/// The folder with one file for each.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    folder: PathBuf,
}

impl Ends {
    /// In the worker's state folder.
    pub fn in_folder(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("ends") }
    }

    /// Writes an end down.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn keep(&self, end: &End) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        state::write_whole(&self.path(end.record.id), &serde_json::to_vec(end)?)
    }

    /// Etcd has it.
    pub fn forget(&self, run: RunId) {
        // Told again in the next life, it is refused.
        fs::remove_file(self.path(run)).ok();
    }

    /// What an earlier life has left. What cannot be read is passed over: the others settle it.
    pub fn left(&self) -> Vec<(LiveRun, End)> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let paths =
            files.map(|file| file.path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
        let read = |path: PathBuf| -> Option<(LiveRun, End)> {
            let end: End = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            Some((end.live()?, end))
        };
        paths.filter_map(read).collect()
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.folder.join(format!("{run}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::id::Slot;
    use carillon_core::run::{Outcome, RunState, Trigger};
    use chrono::Utc;

    #[test]
    fn what_is_kept_is_found_in_the_next_life_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ends = Ends::in_folder(folder.path());
        assert_eq!(ends.left(), []);
        let (now, job) = (Utc::now(), JobName::new("每日清算").unwrap());
        let value = Running {
            worker: WorkerId::new("w1").unwrap(),
            lease: 7,
            slot: Some(Slot::at(now)),
            attempt: 2,
            trigger: Trigger::Schedule,
            pid: Some(5),
            state: RunState::Running,
            since: now,
            spawn_before: now,
            grace_secs: 10,
            continues_secs: None,
            job_revision: 3,
        };
        let live = LiveRun { job: job.clone(), on: None, run: RunId::new(now), fence: 9, value };
        let record = RunRecord::new(live.run, &job, Outcome::Succeeded, now);
        let end = End::of(&live, &record, None);
        ends.keep(&end).unwrap();
        fs::write(folder.path().join("ends/torn.json"), "{\"jo").unwrap();
        assert_eq!(ends.left(), [(live.clone(), end)]);
        ends.forget(live.run);
        assert_eq!(ends.left(), []);
    }
}
