//! What this worker remembers of etcd from one life to the next: which cluster it was, and how far
//! it had come. An etcd that is behind that, or another one, was restored from a backup: its cursors
//! are of the past, and a worker that believed them would run again what has run already.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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
    fn belies(&self, now: &Self) -> Option<String> {
        let recovered = now.recovered > self.recovered;
        let what = if now.cluster != self.cluster {
            "etcd is another cluster than before".to_owned()
        } else if now.revision < self.revision {
            format!("etcd is at revision {}, and was at {}", now.revision, self.revision)
        } else {
            return None;
        };
        (!recovered).then(|| format!("{what}: it was restored; run `carillon recover`"))
    }
}

/// The file that holds it.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    seen: Option<Seen>,
    /// What the file holds.
    written: Option<Seen>,
}

impl Memory {
    /// Reads what was remembered in the worker's state folder; nothing, at its first start.
    ///
    /// # Errors
    /// When the file is there and cannot be read: it is not taken for a first start.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("etcd.json");
        let seen = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(io::Error::other)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok(Self { path, seen, written: seen })
    }

    /// Compares what is seen now, and remembers it unless there is a reason not to believe it.
    pub fn see(&mut self, now: Seen) -> Option<String> {
        let reason = self.seen.and_then(|seen| seen.belies(&now));
        if reason.is_none() {
            self.seen = Some(now);
        }
        reason
    }

    /// Writes it down, if it has changed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self) -> io::Result<()> {
        if self.seen == self.written {
            return Ok(());
        }
        let text = serde_json::to_vec(&self.seen)?;
        let fresh = self.path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&text)?;
        fs::rename(&fresh, &self.path)?;
        self.written = self.seen;
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
        let other = memory.see(seen(2, 200)).unwrap();
        assert!(other.contains("another cluster"), "{other}");
        assert_eq!(memory.see(seen(1, 100)), None);
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
    fn a_torn_file_is_no_first_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("etcd.json"), "{\"clus").unwrap();
        assert!(Memory::load(dir.path()).is_err());
    }
}
