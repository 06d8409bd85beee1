//! Starts before everything else: what is due does not wait for what is over.
//!
//! A hundred jobs of one second are started in a tenth of it when nothing but starts is done; their
//! ends, records and answers would take three times as long from the processor meanwhile.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

/// Processes that are being started at once for each processor, and the fewest and the most. Hundreds
/// of them would keep everything else, the claims of the next second too, from the processor; the
/// guard forks one after the other.
const PLACES: (usize, usize, usize) = (2, 4, 16);
/// How long a start waits for a place, and how long it keeps it: one that hangs, in a directory of a
/// dead server, must not keep the others waiting.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long all else waits for the starts. Meanwhile a run that has ended counts as live: it blocks
/// the next of its job, and is lost if its worker dies.
const WAIT: Duration = Duration::from_millis(100);

/// The starts that are asked for. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Starts {
    places: Arc<Semaphore>,
    /// How many wait or are under way.
    pending: watch::Sender<usize>,
}

impl Default for Starts {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(places())), pending: watch::Sender::new(0) }
    }
}

fn places() -> usize {
    let (each, fewest, most) = PLACES;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors * each).clamp(fewest, most)
}

impl Starts {
    /// Carries a start out as soon as there is a place for it.
    pub(super) async fn carry<T>(&self, start: impl Future<Output = T>) -> T {
        let place = Place::take(self).await;
        let mut start = pin!(start);
        if let Ok(started) = timeout(PATIENCE, &mut start).await {
            return started;
        }
        drop(place);
        start.await
    }

    /// Waits until no start is asked for, 100 ms at most.
    pub(super) async fn none(&self) {
        let mut pending = self.pending.subscribe();
        timeout(WAIT, pending.wait_for(|pending| *pending == 0)).await.ok();
    }
}

/// A start that others wait for, until this is dropped.
struct Place<'a> {
    pending: &'a watch::Sender<usize>,
    _place: Option<SemaphorePermit<'a>>,
}

impl<'a> Place<'a> {
    async fn take(starts: &'a Starts) -> Self {
        starts.pending.send_if_modified(|pending| {
            *pending += 1;
            // Nobody waits for more of them.
            false
        });
        let mut place = Self { pending: &starts.pending, _place: None };
        place._place = timeout(PATIENCE, starts.places.acquire()).await.ok().and_then(Result::ok);
        place
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pending.send_if_modified(|pending| {
            *pending -= 1;
            *pending == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn all_else_waits_for_the_starts() {
        let starts = Starts::default();
        starts.none().await;
        let start = starts.carry(pending::<()>());
        let mut rest = pin!(starts.none());
        {
            let mut start = pin!(start);
            timeout(WAIT / 10, &mut start).await.unwrap_err();
            timeout(WAIT / 10, &mut rest).await.unwrap_err();
        }
        timeout(Duration::ZERO, rest).await.unwrap();
    }

    #[tokio::test]
    async fn what_hangs_keeps_nobody_waiting_for_long() {
        let starts = Starts::default();
        let hang = |starts: Starts| async move { starts.carry(pending::<()>()).await };
        let hanging: Vec<_> = (0..places()).map(|_| tokio::spawn(hang(starts.clone()))).collect();
        let begun = Instant::now();
        tokio::task::yield_now().await;
        assert_eq!(starts.carry(async { 5 }).await, 5);
        assert!(begun.elapsed() >= PATIENCE, "no place was free");
        starts.none().await;
        let begun = Instant::now();
        starts.carry(async {}).await;
        timeout(Duration::ZERO, starts.none()).await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "they have no places any more");
        for hanging in hanging {
            hanging.abort();
        }
    }
}
