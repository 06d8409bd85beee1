//! The way of reports to the reporter: bounded in number, and for output in bytes.

use std::sync::Arc;

use carillon_core::run::Chunk;
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::{Semaphore, mpsc};

use super::Report;

/// Reports on their way: senders never wait longer than it takes to file them.
pub(super) const REPORTS_BOUND: usize = 1024;
/// What all output on its way and in memory may take, in bytes. It is used up only while a write to
/// MongoDB does not end; then runs that flood wait, for seconds, until what waits goes to disk.
const OUTPUT_BOUND: usize = 64 << 20;

/// What supervisors send reports with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reports {
    way: mpsc::Sender<Report>,
    room: Arc<Semaphore>,
}

/// Where they arrive.
pub(crate) struct Inbox {
    pub(super) reports: mpsc::Receiver<Report>,
    room: Arc<Semaphore>,
}

/// Both ends of the way.
pub(crate) fn way() -> (Reports, Inbox) {
    let (sender, reports) = mpsc::channel(REPORTS_BOUND);
    let room = Arc::new(Semaphore::new(OUTPUT_BOUND));
    (Reports { way: sender, room: room.clone() }, Inbox { reports, room })
}

/// How many bytes of output these are.
pub(super) fn output_bytes<'a>(chunks: impl IntoIterator<Item = &'a Chunk>) -> usize {
    chunks.into_iter().map(|chunk| chunk.data.len()).sum()
}

impl Reports {
    /// Sends a report, output once there is room for it.
    ///
    /// # Errors
    /// When the reporter is gone.
    pub(crate) async fn send(&self, report: Report) -> Result<(), SendError<Report>> {
        if let Report::Output { chunks, .. } = &report {
            let bytes = output_bytes(chunks).min(OUTPUT_BOUND);
            // It is never closed; the reporter gives the room back.
            if let Ok(room) = self.room.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).await
            {
                room.forget();
            }
        }
        self.way.send(report).await
    }

    /// Sends a report other than output now.
    ///
    /// # Errors
    /// When too many are on their way.
    pub(crate) fn try_send(&self, report: Report) -> Result<(), TrySendError<Report>> {
        self.way.try_send(report)
    }
}

impl Inbox {
    /// So many bytes of output are not in memory any more.
    pub(super) fn release(&self, bytes: usize) {
        self.room.add_permits(bytes.min(OUTPUT_BOUND));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::id::RunId;
    use carillon_core::run::Stream;
    use chrono::Utc;

    #[tokio::test]
    async fn output_waits_for_room_and_nothing_else_does() {
        let (reports, mut inbox) = way();
        let megabyte = || {
            let chunk =
                Chunk { seq: 0, at: Utc::now(), stream: Stream::Stdout, data: vec![0; 1 << 20] };
            Report::Output { run: RunId::FIRST, chunks: vec![chunk], expire_at: None }
        };
        for _ in 0..OUTPUT_BOUND >> 20 {
            reports.send(megabyte()).await.unwrap();
        }
        let waiting = reports.send(megabyte());
        tokio::pin!(waiting);
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err(), "there is no room");
        let figures = carillon_core::records::Progress {
            id: RunId::FIRST,
            cpu_millis: None,
            max_rss_bytes: None,
            output_bytes: 0,
            last_line: None,
        };
        reports.send(Report::Progress(figures)).await.unwrap();
        inbox.reports.recv().await.unwrap();
        inbox.release(1 << 20);
        waiting.await.unwrap();
    }
}
