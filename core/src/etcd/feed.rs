//! The feed that keeps a [`crate::replica::Replica`] true through compaction, disconnects and leader
//! loss: a list, and a watch from where it ends.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::list::Pages;
use super::{Clients, Etcd, EtcdError, FIRST_PAUSE, Failure, forgotten, jittered};
use crate::replica::{Feed, Item};

/// The list is made anew about this often even if nothing is known to be wrong: some versions of
/// etcd lost watch events (etcd #17529, #18089).
const ANTI_ENTROPY: Duration = Duration::from_secs(600);
/// Pauses between attempts to connect grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// A message of less is whole, or the last fragment of one, in bytes: etcd fills the others up to
/// 2 MiB, short of what no longer fits, which is 1.5 MiB at most (its `--max-request-bytes`).
const WHOLE: usize = 256 << 10;

/// Batches and pages between etcd and their reader: a slow reader slows them, not the memory.
const FEED_BOUND: usize = 8;

impl Etcd {
    /// Keeps delivering the state of the whole prefix until the receiver is dropped: a list in parts,
    /// then changes; a new list after a gap. Never ends by itself.
    ///
    /// A batch may be delivered twice after a disconnect; applying it twice does no harm.
    pub fn feed(&self) -> mpsc::Receiver<Feed> {
        let (sender, receiver) = mpsc::channel(FEED_BOUND);
        let etcd = self.clone();
        let reader = sender.clone();
        tokio::spawn(async move {
            let listed = Instant::now();
            let mut follower =
                Follower { etcd, sender, next: None, cluster: 0, listed, denied: false };
            let mut pause = FIRST_PAUSE;
            loop {
                let begun = Instant::now();
                let end = tokio::select! {
                    end = follower.follow() => end,
                    () = reader.closed() => return,
                };
                let reason = match end {
                    End::ReceiverGone => return,
                    End::Again => continue,
                    End::Broken(reason) => reason,
                };
                if follower.sender.send(Feed::Lost { reason }).await.is_err() {
                    return;
                }
                if begun.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        receiver
    }
}

enum End {
    ReceiverGone,
    Again,
    Broken(String),
}

struct Follower {
    etcd: Etcd,
    sender: mpsc::Sender<Feed>,
    /// The revision to watch from; `None` until a list was made.
    next: Option<i64>,
    /// The cluster that was listed.
    cluster: u64,
    listed: Instant,
    /// Whether we signed in anew because a watch was denied.
    denied: bool,
}

impl Follower {
    /// Lists if need be, then watches until something ends it.
    async fn follow(&mut self) -> End {
        let from = match self.next {
            Some(revision) => revision,
            None => match self.list().await {
                Ok(Some(revision)) => revision + 1,
                Ok(None) => return End::ReceiverGone,
                Err(e) => return End::Broken(e.to_string()),
            },
        };
        let (place, mut stream) = match self.open(from).await {
            Ok(opened) => opened,
            Err(e) => return End::Broken(e.to_string()),
        };
        let relist_at = self.listed + jittered(ANTI_ENTROPY);
        loop {
            let answer = tokio::select! {
                answer = stream.message() => answer,
                () = tokio::time::sleep_until(relist_at) => {
                    self.next = None;
                    return End::Again;
                }
            };
            match answer {
                Ok(Some(answer)) => {
                    if let Some(end) = self.take(place, from, &answer).await {
                        return end;
                    }
                }
                Ok(None) => return self.broken(place, "the watch ended"),
                Err(e) => {
                    let error = self.etcd.error(&Failure::Said(e));
                    return self.broken(place, error.detail());
                }
            }
        }
    }

    /// Delivers a list page by page: the reader takes one in while the next one is on its way.
    /// Returns its revision, unless the receiver is gone.
    async fn list(&mut self) -> Result<Option<i64>, EtcdError> {
        let mut pages = self.etcd.pages(&self.etcd.keys.all());
        while let Some(items) = pages.next().await? {
            let Pages { revision, cluster, .. } = pages;
            let part = match pages.from {
                Some(_) => Feed::Part { revision, cluster, items },
                None => Feed::Snapshot { revision, cluster, items },
            };
            if self.sender.send(part).await.is_err() {
                return Ok(None);
            }
        }
        self.listed = Instant::now();
        self.cluster = pages.cluster;
        self.next = Some(pages.revision + 1);
        Ok(Some(pages.revision))
    }

    async fn open(&self, from: i64) -> Result<(usize, WatchStream), EtcdError> {
        let mut call = |mut to: Clients| {
            let options =
                WatchOptions::new().with_prefix().with_start_revision(from).with_fragment();
            let prefix = self.etcd.keys.all();
            async move { to.watch.watch(prefix, Some(options)).await }
        };
        let opened = self.etcd.once(self.etcd.patience(), &mut call).await;
        opened.map_err(|e| self.etcd.error(&e))
    }

    /// The next watch is opened elsewhere.
    fn broken(&self, place: usize, reason: &str) -> End {
        self.etcd.leave(place, reason);
        End::Broken(format!("etcd {}: {reason}", self.etcd.endpoints()))
    }

    async fn take(&mut self, place: usize, from: i64, answer: &WatchResponse) -> Option<End> {
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        if answer.canceled() || answer.compact_revision() > 0 {
            return Some(self.canceled(place, answer).await);
        }
        if answer.created() && revision + 1 < from {
            // A watch from the future is accepted and silent: this member is behind what we know.
            self.next = None;
            return Some(self.broken(place, "a member lags behind"));
        }
        let cluster = answer.header().map(etcd_client::ResponseHeader::cluster_id);
        if answer.created() && cluster.is_some_and(|cluster| cluster != self.cluster) {
            // Its revisions are not those that we count on.
            self.next = None;
            return Some(self.broken(place, "another cluster answers"));
        }
        if answer.created() {
            self.denied = false;
            // Nothing changed, and the reader knows that it is in touch again.
            let open = Feed::Changes { revision: from - 1, items: Vec::new() };
            return self.sender.send(open).await.is_err().then_some(End::ReceiverGone);
        }
        let items: Vec<Item> = answer.events().iter().filter_map(event).collect();
        let last = items.last()?.mod_revision;
        let revision = applied(&items, last);
        if self.sender.send(Feed::Changes { revision, items }).await.is_err() {
            return Some(End::ReceiverGone);
        }
        // A transaction can be cut into fragments: read its revision again after a disconnect.
        self.next = Some(last);
        None
    }

    /// Canceled by compaction the stream stays open and silent, so it must be left here.
    async fn canceled(&mut self, place: usize, answer: &WatchResponse) -> End {
        let reason = answer.cancel_reason();
        if answer.compact_revision() > 0 {
            self.next = None;
            return End::Again;
        }
        // Some versions of etcd call a forgotten token "permission denied" here.
        let denied = forgotten(reason) || reason.contains("permission denied");
        if denied && !self.denied && self.etcd.sign_in_anew(place, reason).await {
            self.denied = true;
            return End::Again;
        }
        self.next = None;
        End::Broken(format!("etcd {}: {reason}", self.etcd.endpoints()))
    }
}

/// Up to which revision everything is known after these changes, of which the last is of `last`. More
/// of that revision may follow a large message; which one is a fragment, the client does not tell.
fn applied(items: &[Item], last: i64) -> i64 {
    let bytes: usize = items.iter().map(Item::size).sum();
    if bytes < WHOLE { last } else { last - 1 }
}

fn event(event: &etcd_client::Event) -> Option<Item> {
    let mut item = Item::from(event.kv()?.clone());
    if event.event_type() == EventType::Delete {
        item.value = None;
    }
    Some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_of_what_may_be_a_fragment_is_not_known_to_the_end() {
        let item = |bytes| Item {
            key: Vec::new(),
            value: Some(vec![0; bytes]),
            mod_revision: 7,
            create_revision: 7,
            lease: 0,
        };
        assert_eq!(applied(&[item(100)], 7), 7);
        assert_eq!(applied(&[item(WHOLE)], 7), 6);
        assert_eq!(applied(&[item(WHOLE / 2), item(WHOLE / 2)], 7), 6);
    }
}
