//! Starts before everything else: what is due does not wait for what is over.
//!
//! A hundred jobs of one second are started in a tenth of it when nothing but starts is done; their
//! ends, records and answers would take three times as long from the processor meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

/// Processes that are being started at once for each processor, and the fewest and the most. Hundreds
/// of them would keep everything else, the claims of the next second too, from the processor; the
/// guard forks one after the other.
const PLACES: (usize, usize, usize) = (2, 4, 16);
/// How long a start waits for a place, and all else for the starts. With this and the wait for the
/// guard a start may come later than the lease was certain for when it was checked: the guard refuses
/// it then.
const PATIENCE: Duration = Duration::from_millis(500);

/// The starts that are asked for. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Starts {
    places: Arc<Semaphore>,
    /// How many wait or are under way.
    pending: watch::Sender<usize>,
}

/// One start, until this is dropped.
#[derive(Debug)]
pub(super) struct Start {
    pending: watch::Sender<usize>,
    _place: Option<OwnedSemaphorePermit>,
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
    /// Waits for a place, but not for ever: one that hangs, in a directory of a dead server, must not
    /// keep all others waiting.
    pub(super) async fn begin(&self) -> Start {
        self.pending.send_modify(|pending| *pending += 1);
        let mut start = Start { pending: self.pending.clone(), _place: None };
        let place = timeout(PATIENCE, self.places.clone().acquire_owned()).await;
        start._place = place.ok().and_then(Result::ok);
        start
    }

    /// Waits until no start is asked for, 500 ms at most.
    pub(super) async fn none(&self) {
        let mut pending = self.pending.subscribe();
        timeout(PATIENCE, pending.wait_for(|pending| *pending == 0)).await.ok();
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        self.pending.send_modify(|pending| *pending -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn all_else_waits_for_the_starts_and_none_waits_for_ever() {
        let starts = Starts::default();
        starts.none().await;
        let mut under_way = Vec::new();
        for _ in 0..places() {
            under_way.push(starts.begin().await);
        }
        let begun = Instant::now();
        under_way.push(starts.begin().await);
        assert!(begun.elapsed() >= PATIENCE, "no place became free");
        {
            let mut rest = pin!(starts.none());
            timeout(PATIENCE / 10, &mut rest).await.unwrap_err();
            drop(under_way);
            timeout(Duration::ZERO, rest).await.unwrap();
        }
        let _hangs = starts.begin().await;
        let begun = Instant::now();
        starts.none().await;
        assert!(begun.elapsed() >= PATIENCE);
    }
}
