//! The worker's folder on disk. One worker has it at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The folder, locked until this is dropped, however the process ends.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Takes the folder, and makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be made, or another worker has it; that one reads `ResourceBusy`.
    pub fn take(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(path.join("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let why = "another worker uses it (each needs a --state-dir of its own)";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
            }
            // A file system that knows no locks: whoever put it there knows what they do.
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => {
                Ok(Self { path, _lock: lock })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file that is whole or as it was before, through any crash, and that nobody else reads.
///
/// # Errors
/// When the disk does not take it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| {
        // On a full disk the half of it would be in the way.
        fs::remove_file(&fresh).ok();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_worker_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let taken = StateDir::take(path.clone()).unwrap();
        let refused = StateDir::take(path.clone()).unwrap_err();
        assert!(refused.to_string().contains("--state-dir"), "{refused}");
        drop(taken);
        assert_eq!(StateDir::take(path.clone()).unwrap().path(), path);
    }
}
