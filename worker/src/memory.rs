//! What this worker remembers of etcd from one life to the next: which cluster it was, and how far
//! it had come. An etcd that is behind that, or another one, was restored from a backup: its cursors
//! are of the past, and a worker that believed them would run again what has run already.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::state;

/// No fleet writes so much while a worker is away, but a restore with `--bump-revision` skips as
/// much: etcd's documentation says to skip a billion revisions.
const JUMP: i64 = 500_000_000;

/// The newest state of etcd that was seen and believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
    /// The cluster's id.
    pub cluster: u64,
    /// The highest revision.
    pub revision: i64,
    /// When `carillon recover` was last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<DateTime<Utc>>,
}

impl Seen {
    /// Why what is seen now must not be believed after this.
    fn belies(&self, now: &Self) -> Option<Doubt> {
        let what = if now.cluster != self.cluster {
            "etcd is another cluster than before".to_owned()
        } else if now.revision < self.revision || now.revision - self.revision > JUMP {
            format!("etcd is at revision {}, and was at {}", now.revision, self.revision)
        } else {
            return None;
        };
        let why = format!("{what}: it was restored; run `carillon recover`");
        Some(Doubt { cluster: now.cluster, why })
    }
}

/// Why etcd is not believed. It lasts: a restored etcd, too, comes past the revision that was seen
/// before, and the workers' own registrations bring it there within seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Doubt {
    /// The cluster that is not believed.
    cluster: u64,
    why: String,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    seen: Seen,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubt: Option<Doubt>,
}

/// The file that holds it.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    kept: Option<Kept>,
    /// What the file holds.
    written: Option<Kept>,
}

impl Memory {
    /// Reads what was remembered in the worker's state folder; nothing, at its first start.
    ///
    /// # Errors
    /// When the file is there and cannot be read: it is not taken for a first start.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("etcd.json");
        let kept: Option<Kept> = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(io::Error::other)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok(Self { path, written: kept.clone(), kept })
    }

    /// Compares what is seen now, and remembers it unless there is a reason not to believe it.
    /// A doubt ends when somebody recovers, or when the cluster that was known is back.
    pub fn see(&mut self, now: Seen) -> Option<String> {
        if let Some(Kept { seen, doubt }) = &mut self.kept
            && now.recovered <= seen.recovered
        {
            let elsewhere = doubt.as_ref().is_some_and(|doubt| doubt.cluster != seen.cluster);
            let fresh = seen.belies(&now);
            if doubt.is_none() || elsewhere && now.cluster == seen.cluster {
                *doubt = fresh;
            }
            if let Some(doubt) = doubt {
                return Some(doubt.why.clone());
            }
        }
        self.kept = Some(Kept { seen: now, doubt: None });
        None
    }

    /// When `carillon recover` was last run, as far as this worker has seen.
    pub fn recovered(&self) -> Option<DateTime<Utc>> {
        self.kept.as_ref()?.seen.recovered
    }

    /// Writes it down, if it has changed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self) -> io::Result<()> {
        if self.kept == self.written {
            return Ok(());
        }
        state::write_whole(&self.path, &serde_json::to_vec(&self.kept)?)?;
        self.written.clone_from(&self.kept);
        Ok(())
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(cluster: u64, revision: i64) -> Seen {
        Seen { cluster, revision, recovered: None }
    }

    #[test]
    fn what_was_seen_is_remembered_in_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        assert_eq!(memory.see(seen(1, 100)), None);
        memory.write().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        let behind = memory.see(seen(1, 99)).unwrap();
        assert!(behind.contains("revision 99, and was at 100"), "{behind}");
    }

    #[test]
    fn a_doubt_outlives_the_revision_it_came_from_and_the_worker() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        assert_eq!(memory.see(seen(1, 100)), None);
        let doubt = memory.see(seen(1, 99));
        // Always in the same words: they stand in the registration, which raises the revision.
        assert!(doubt.is_some() && memory.see(seen(1, 200)) == doubt);
        memory.write().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        assert_eq!(memory.see(seen(1, 300)), doubt);
    }

    #[test]
    fn a_cluster_that_comes_back_is_believed_again_unless_it_is_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        assert_eq!(memory.see(seen(1, 100)), None);
        let other = memory.see(seen(2, 200)).unwrap();
        assert!(other.contains("another cluster"), "{other}");
        assert_eq!(memory.see(seen(1, 101)), None);
        assert!(memory.see(seen(2, 200)).is_some() && memory.see(seen(1, 100)).is_some());
        assert!(memory.see(seen(1, 101)).is_some());
    }

    #[test]
    fn a_restored_etcd_is_believed_once_it_was_recovered() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        let first = "2026-01-01T00:00:00Z".parse().ok();
        assert_eq!(memory.see(Seen { recovered: first, ..seen(1, 100) }), None);
        assert!(memory.see(Seen { recovered: first, ..seen(1, 50) }).is_some());
        let again = "2026-01-02T00:00:00Z".parse().ok();
        assert_eq!(memory.see(Seen { recovered: again, ..seen(1, 60) }), None);
        assert_eq!(memory.see(Seen { recovered: again, ..seen(1, 61) }), None);
    }

    #[test]
    fn a_restore_that_bumps_the_revision_is_seen_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        assert_eq!(memory.see(seen(1, 100)), None);
        assert_eq!(memory.see(seen(1, 1_000_000)), None);
        assert!(memory.see(seen(1, 1_001_000_000)).is_some());
    }

    #[test]
    fn a_torn_file_is_no_first_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("etcd.json"), "{\"clus").unwrap();
        assert!(Memory::load(dir.path()).is_err());
    }
}
