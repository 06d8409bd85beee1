//! How full etcd is, and when that matters: past half of its quota.
//!
//! etcd that reaches its quota takes no more writes, and then nothing fires. While MongoDB is away
//! what becomes of runs would fill it, so from half of the quota on it waits on disk alone.

use std::time::Duration;

use carillon_core::etcd::{Etcd, Room};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::metrics::Metrics;

/// How often etcd is asked.
const ASKED_EVERY: Duration = Duration::from_secs(10);

/// Says whether etcd is past half of its quota: what it says itself, or else `assumed` bytes. Never
/// returns while anybody listens.
pub(crate) async fn follow(
    etcd: Etcd,
    assumed: u64,
    metrics: Metrics,
    crowded: watch::Sender<bool>,
) {
    loop {
        // What does not answer is no fuller than it was.
        if let Ok(room) = etcd.room().await {
            metrics.etcd_used(room.used);
            tell(room, assumed, &crowded);
        }
        tokio::select! {
            () = tokio::time::sleep(ASKED_EVERY) => {}
            () = crowded.closed() => return,
        }
    }
}

fn tell(room: Room, assumed: u64, crowded: &watch::Sender<bool>) {
    let quota = room.quota.unwrap_or(assumed);
    let now = room.used > quota / 2;
    if crowded.send_replace(now) == now {
        return;
    }
    let (used, quota) = (room.used >> 20, quota >> 20);
    if now {
        warn!(
            "{used} of etcd's {quota} MiB are in use: compact it; while MongoDB is away, what became of \
             runs waits on this worker's disk alone"
        );
    } else {
        info!("{used} of etcd's {quota} MiB are in use: enough room again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_is_crowded_past_half_of_what_it_says_or_of_what_is_assumed() {
        let crowded = watch::Sender::new(false);
        let told = |used, quota| {
            tell(Room { used, quota }, 100, &crowded);
            *crowded.borrow()
        };
        assert!(!told(50, None));
        assert!(told(51, None));
        assert!(!told(51, Some(200)));
        assert!(told(101, Some(200)));
    }
}
