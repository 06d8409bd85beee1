//! The connection to etcd: bounded calls with errors for an operator, the paged list, and the feed
//! that keeps a [`crate::replica::Replica`] true through compaction, disconnects and leader loss.

use std::future::Future;
use std::time::Duration;

use etcd_client::{
    Client, ConnectOptions, EventType, GetOptions, KeyValue, KvClient, LeaseClient,
    LeaseKeepAliveStream, LeaseKeeper, Txn, TxnResponse, WatchClient, WatchOptions, WatchResponse,
    WatchStream,
};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::keys::Keys;
use crate::replica::{Feed, Item};

/// Nothing that etcd answers at all takes longer.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How often a read or a compare-and-swap is tried while no endpoint answers.
const TRIES: u32 = 3;
/// Keys per page of a list: the fastest size measured for 100,000 keys (0.49 s).
const PAGE: i64 = 5_000;
/// The decoding limit: a page of the largest jobs does not fit in gRPC's default 4 MiB.
const DECODE_LIMIT: usize = 1 << 30;
/// A silent connection is found out after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// The list is made anew about this often even if nothing is known to be wrong: some versions of
/// etcd lost watch events (etcd #17529, #18089).
const ANTI_ENTROPY: Duration = Duration::from_secs(600);
/// Pauses between attempts to connect grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Why an etcd call failed, by what the caller can do about it.
#[derive(Debug, Clone, Error)]
pub enum EtcdError {
    /// Nobody answered, or the answer was lost: a write may or may not have happened.
    #[error("etcd {endpoints}: {detail}")]
    Unreachable {
        /// The configured endpoints.
        endpoints: String,
        /// What the transport said.
        detail: String,
    },
    /// etcd's access control refused.
    #[error(
        "etcd {endpoints}: {detail} (ask for access to the key prefix, or check user and password)"
    )]
    Denied {
        /// The configured endpoints.
        endpoints: String,
        /// What etcd said.
        detail: String,
    },
    /// etcd refused for another reason; nothing happened.
    #[error("etcd {endpoints}: {detail}")]
    Refused {
        /// The configured endpoints.
        endpoints: String,
        /// What etcd said.
        detail: String,
    },
}

impl EtcdError {
    /// Whether the request may have been carried out although no answer came.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A connection to one fleet's part of etcd. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    kv: KvClient,
    watch: WatchClient,
    lease: LeaseClient,
    keys: Keys,
    endpoints: String,
}

pub(crate) struct Listed {
    revision: i64,
    cluster: u64,
    pub(crate) items: Vec<Item>,
}

impl Etcd {
    /// Prepares the connection; nothing is sent yet, so this succeeds while etcd is away.
    ///
    /// # Errors
    /// An endpoint that is not a URL, or an empty list.
    pub async fn connect(endpoints: &[String], keys: Keys) -> Result<Self, EtcdError> {
        let shown = endpoints.join(",");
        let options = ConnectOptions::new()
            .with_require_leader(true)
            .with_connect_timeout(Duration::from_secs(2))
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE)
            .with_keep_alive_while_idle(true);
        let client = Client::connect(endpoints, Some(options))
            .await
            .map_err(|e| EtcdError::Refused { endpoints: shown.clone(), detail: e.to_string() })?;
        Ok(Self {
            kv: client.kv_client().max_decoding_message_size(DECODE_LIMIT),
            watch: client.watch_client().max_decoding_message_size(DECODE_LIMIT),
            lease: client.lease_client(),
            keys,
            endpoints: shown,
        })
    }

    /// The key layout of this fleet.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The configured endpoints, for messages.
    pub fn endpoints(&self) -> &str {
        &self.endpoints
    }

    fn error(&self, e: &etcd_client::Error) -> EtcdError {
        let endpoints = self.endpoints.clone();
        match e {
            etcd_client::Error::GRpcStatus(status) => {
                let detail = status.message().to_owned();
                // gRPC status codes: https://grpc.io/docs/guides/status-codes/
                match i32::from(status.code()) {
                    7 | 16 => EtcdError::Denied { endpoints, detail },
                    1 | 2 | 4 | 13 | 14 => EtcdError::Unreachable { endpoints, detail },
                    _ => EtcdError::Refused { endpoints, detail },
                }
            }
            other => EtcdError::Unreachable { endpoints, detail: other.to_string() },
        }
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, EtcdError> {
        match timeout(CALL_LIMIT, call).await {
            Ok(answer) => answer.map_err(|e| self.error(&e)),
            Err(_) => Err(EtcdError::Unreachable {
                endpoints: self.endpoints.clone(),
                detail: format!("no answer within {} s", CALL_LIMIT.as_secs()),
            }),
        }
    }

    /// Tries again, on another endpoint where there is one, while nobody answers.
    async fn retried<T, F>(&self, mut call: impl FnMut(KvClient) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut pause = Duration::from_millis(50);
        for _ in 1..TRIES {
            match self.bounded(call(self.kv.clone())).await {
                Err(e) if e.is_ambiguous() => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause *= 4;
        }
        self.bounded(call(self.kv.clone())).await
    }

    /// Reads one key.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn get(&self, key: &str) -> Result<Option<Item>, EtcdError> {
        let answer = self
            .retried(|mut kv| {
                let key = key.to_owned();
                async move { kv.get(key, None).await }
            })
            .await?;
        Ok(answer.kvs().first().map(item))
    }

    /// Sends a transaction once. An ambiguous error means that it may have happened.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn txn_once(&self, txn: Txn) -> Result<TxnResponse, EtcdError> {
        let mut kv = self.kv.clone();
        self.bounded(kv.txn(txn)).await
    }

    /// Sends a compare-and-swap, again while nobody answers: it must be one that cannot succeed
    /// twice.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, EtcdError> {
        self.retried(|mut kv| {
            let txn = txn.clone();
            async move { kv.txn(txn).await }
        })
        .await
    }

    /// The time of one linearizable read, and the store's revision.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn ping(&self) -> Result<(Duration, i64), EtcdError> {
        let mut kv = self.kv.clone();
        let sent = Instant::now();
        let options = GetOptions::new().with_keys_only();
        let answer = self.bounded(kv.get(self.keys.settings(), Some(options))).await?;
        Ok((sent.elapsed(), answer.header().map_or(0, etcd_client::ResponseHeader::revision)))
    }

    /// The whole state, as one snapshot.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn snapshot(&self) -> Result<Feed, EtcdError> {
        let prefix = self.keys.all();
        let Listed { revision, cluster, items } = self.list(&prefix).await?;
        Ok(Feed::Snapshot { revision, cluster, items })
    }

    /// Lists every key under `prefix` in pages of one revision.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Listed, EtcdError> {
        let end = range_end(prefix.as_bytes());
        let mut items = Vec::new();
        let (mut revision, mut cluster) = (0, 0);
        let mut from = prefix.as_bytes().to_vec();
        loop {
            let answer = self
                .retried(|mut kv| {
                    let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
                    if revision > 0 {
                        options = options.with_revision(revision);
                    }
                    let from = from.clone();
                    async move { kv.get(from, Some(options)).await }
                })
                .await?;
            if revision == 0
                && let Some(header) = answer.header()
            {
                (revision, cluster) = (header.revision(), header.cluster_id());
            }
            items.extend(answer.kvs().iter().map(item));
            match answer.kvs().last() {
                Some(last) if answer.more() => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                _ => return Ok(Listed { revision, cluster, items }),
            }
        }
    }

    /// Grants a lease of `ttl` seconds.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn grant(&self, ttl: i64) -> Result<i64, EtcdError> {
        let mut lease = self.lease.clone();
        Ok(self.bounded(lease.grant(ttl, None)).await?.id())
    }

    /// Ends a lease and with it the keys that hang on it.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn revoke(&self, id: i64) -> Result<(), EtcdError> {
        let mut lease = self.lease.clone();
        self.bounded(lease.revoke(id)).await.map(drop)
    }

    /// Opens the stream that renews a lease.
    ///
    /// # Errors
    /// When etcd does not answer, or the lease is gone.
    pub async fn renewals(&self, id: i64) -> Result<Renewals, EtcdError> {
        let mut lease = self.lease.clone();
        let (keeper, answers) = self.bounded(lease.keep_alive(id)).await?;
        Ok(Renewals { keeper, answers, etcd: self.clone() })
    }

    /// Keeps delivering the state of the whole prefix until the receiver is dropped: a snapshot,
    /// then changes; a new snapshot after a gap. Never ends by itself.
    ///
    /// A batch may be delivered twice after a disconnect; applying it twice does no harm.
    pub fn feed(&self) -> mpsc::Receiver<Feed> {
        let (sender, receiver) = mpsc::channel(FEED_BOUND);
        let etcd = self.clone();
        let reader = sender.clone();
        tokio::spawn(async move {
            let mut follower = Follower { etcd, sender, next: None, listed: Instant::now() };
            let mut pause = Duration::from_millis(50);
            loop {
                let begun = Instant::now();
                let end = tokio::select! {
                    end = follower.follow() => end,
                    () = reader.closed() => return,
                };
                let reason = match end {
                    End::ReceiverGone => return,
                    End::Relist => continue,
                    End::Broken(reason) => reason,
                };
                if follower.sender.send(Feed::Lost { reason }).await.is_err() {
                    return;
                }
                if begun.elapsed() > LONGEST_PAUSE {
                    pause = Duration::from_millis(50);
                }
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        receiver
    }
}

/// Batches between the watch and its reader: a slow reader slows the watch, not the memory.
const FEED_BOUND: usize = 64;

/// The renewing of one lease.
pub struct Renewals {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    etcd: Etcd,
}

impl Renewals {
    /// Renews once; returns whether the lease still exists.
    ///
    /// # Errors
    /// When no answer comes within `limit`.
    pub async fn renew(&mut self, limit: Duration) -> Result<bool, EtcdError> {
        let call = async {
            self.keeper.keep_alive().await?;
            self.answers.message().await
        };
        match timeout(limit, call).await {
            Ok(Ok(Some(answer))) => Ok(answer.ttl() > 0),
            Ok(Ok(None)) => Err(self.etcd.error(&etcd_client::Error::LeaseKeepAliveError(
                "the renewal stream ended".to_owned(),
            ))),
            Ok(Err(e)) => Err(self.etcd.error(&e)),
            Err(_) => Err(self.etcd.error(&etcd_client::Error::LeaseKeepAliveError(
                "no answer to a renewal".to_owned(),
            ))),
        }
    }
}

enum End {
    ReceiverGone,
    Relist,
    Broken(String),
}

struct Follower {
    etcd: Etcd,
    sender: mpsc::Sender<Feed>,
    /// The revision to watch from; `None` until a list was made.
    next: Option<i64>,
    listed: Instant,
}

impl Follower {
    /// Lists if need be, then watches until something ends it.
    async fn follow(&mut self) -> End {
        let from = match self.next {
            Some(revision) => revision,
            None => match self.etcd.snapshot().await {
                Ok(snapshot) => {
                    let Feed::Snapshot { revision, .. } = &snapshot else {
                        return End::Relist;
                    };
                    let from = *revision + 1;
                    if self.sender.send(snapshot).await.is_err() {
                        return End::ReceiverGone;
                    }
                    self.listed = Instant::now();
                    self.next = Some(from);
                    from
                }
                Err(e) => return End::Broken(e.to_string()),
            },
        };
        let mut stream = match self.open(from).await {
            Ok(stream) => stream,
            Err(e) => return End::Broken(e.to_string()),
        };
        let relist_at = self.listed + jittered(ANTI_ENTROPY);
        loop {
            let answer = tokio::select! {
                answer = stream.message() => answer,
                () = tokio::time::sleep_until(relist_at) => {
                    self.next = None;
                    return End::Relist;
                }
            };
            match answer {
                Ok(Some(answer)) => {
                    if let Some(end) = self.take(from, &answer).await {
                        return end;
                    }
                }
                Ok(None) => {
                    return End::Broken(format!("etcd {}: the watch ended", self.etcd.endpoints));
                }
                Err(e) => return End::Broken(self.etcd.error(&e).to_string()),
            }
        }
    }

    async fn open(&self, from: i64) -> Result<WatchStream, EtcdError> {
        let mut watch = self.etcd.watch.clone();
        let options = WatchOptions::new().with_prefix().with_start_revision(from).with_fragment();
        self.etcd.bounded(watch.watch(self.etcd.keys.all(), Some(options))).await
    }

    async fn take(&mut self, from: i64, answer: &WatchResponse) -> Option<End> {
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        if answer.canceled() || answer.compact_revision() > 0 {
            // Canceled by compaction the stream stays open and silent, so it must be left here.
            self.next = None;
            return Some(if answer.compact_revision() > 0 {
                End::Relist
            } else {
                End::Broken(format!("etcd {}: {}", self.etcd.endpoints, answer.cancel_reason()))
            });
        }
        if answer.created() && revision + 1 < from {
            // A watch from the future is accepted and silent: this member is behind what we know.
            self.next = None;
            let endpoints = &self.etcd.endpoints;
            return Some(End::Broken(format!("etcd {endpoints}: a member lags behind")));
        }
        if answer.created() {
            // Nothing changed, and the reader knows that it is in touch again.
            let open = Feed::Changes { revision: from - 1, items: Vec::new() };
            return self.sender.send(open).await.is_err().then_some(End::ReceiverGone);
        }
        let items: Vec<Item> = answer.events().iter().filter_map(event).collect();
        let last = items.last()?.mod_revision;
        if self.sender.send(Feed::Changes { revision: last, items }).await.is_err() {
            return Some(End::ReceiverGone);
        }
        // A transaction can be cut into fragments: read its revision again after a disconnect.
        self.next = Some(last);
        None
    }
}

fn event(event: &etcd_client::Event) -> Option<Item> {
    let mut item = item(event.kv()?);
    if event.event_type() == EventType::Delete {
        item.value = None;
    }
    Some(item)
}

fn item(kv: &KeyValue) -> Item {
    Item {
        key: kv.key().to_vec(),
        value: Some(kv.value().to_vec()),
        mod_revision: kv.mod_revision(),
        create_revision: kv.create_revision(),
        lease: kv.lease(),
    }
}

/// The end of the range of all keys that begin with `prefix`.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Between one and one and a half times `pause`, so that a fleet does not move in step.
fn jittered(pause: Duration) -> Duration {
    let noise = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos() % 1000);
    pause + pause.mul_f64(f64::from(noise) / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_prefix_ends_after_its_last_key() {
        assert_eq!(range_end(b"/cron/"), b"/cron0");
        assert_eq!(range_end(b"a\xff"), b"b");
        assert_eq!(range_end(b"\xff"), b"\0");
    }
}
