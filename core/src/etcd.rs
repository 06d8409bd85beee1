//! The connection to etcd: bounded calls, tried again with another endpoint where one fails.
//! Endpoints, errors, lists, the watch and the leases have rooms of their own.
//!
//! The client balances but does not fail over, so each endpoint has a client of its own here, and
//! everything uses the current one until that one fails.

mod endpoint;
mod error;
mod feed;
mod lease;
mod list;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{GetOptions, KeyValue, Txn, TxnResponse};
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use crate::keys::Keys;
use crate::replica::Item;
use crate::settings::Endpoints;
use endpoint::{Clients, Endpoint};
pub use error::EtcdError;
use error::{Failure, forgotten, words};
pub use lease::Renewals;

/// Nothing that etcd answers at all takes longer.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long one of several endpoints may take before another is asked. A member that lives answers
/// in less, also while a leader is elected; a worker's lease outlives a few of these.
const OTHERS_LIMIT: Duration = Duration::from_secs(2);
/// How often a read or a compare-and-swap is tried while no endpoint answers: at least so often,
/// and once more than there are endpoints.
const TRIES: usize = 3;
/// The first pause between tries; each further one is four times as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A connection to one fleet's part of etcd. Cheap to clone; the clones share what they know of the
/// endpoints.
#[derive(Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
    keys: Keys,
}

struct Shared {
    /// At least one.
    endpoints: Vec<Endpoint>,
    /// The endpoint that calls and new streams go to.
    current: AtomicUsize,
    retries: AtomicU64,
    login: Option<(String, String)>,
    /// The endpoints, for messages.
    shown: String,
}

/// How full etcd is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes in use: what compaction and deletion have freed is used again.
    pub used: u64,
    /// Bytes at which it takes no more writes, where it says so: etcd 3.6 does.
    pub quota: Option<u64>,
}

impl Etcd {
    /// Prepares the connection; nothing is sent yet, so this succeeds while etcd is away.
    ///
    /// # Errors
    /// An endpoint that is not a URL, an empty list, or certificates that cannot be used.
    pub async fn connect(endpoints: impl Into<Endpoints>, keys: Keys) -> Result<Self, EtcdError> {
        let endpoints: Endpoints = endpoints.into();
        let shown = endpoints.join(",");
        let refused = |detail: String| EtcdError::Refused { endpoints: shown.clone(), detail };
        let mut prepared = Vec::new();
        for url in endpoints.iter() {
            let endpoint = Endpoint::prepare(url, &endpoints.tls).await.map_err(|e| {
                let files: Vec<&str> = endpoints.tls.files().collect();
                match files.as_slice() {
                    [] => refused(words(&e)),
                    files => refused(format!("{} (is {} right?)", words(&e), files.join(", "))),
                }
            })?;
            prepared.push(endpoint);
        }
        if prepared.is_empty() {
            return Err(refused("no endpoint is given".to_owned()));
        }
        let login = endpoints.login.as_ref().map(|login| {
            let password = String::from_utf8_lossy(login.password.reveal()).into_owned();
            (login.user.clone(), password)
        });
        // Not all of a fleet begins with the same member.
        let first = noise() % prepared.len();
        let shared = Shared {
            endpoints: prepared,
            current: AtomicUsize::new(first),
            retries: AtomicU64::new(0),
            login,
            shown,
        };
        Ok(Self { shared: Arc::new(shared), keys })
    }

    /// The key layout of this fleet.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The configured endpoints, for messages.
    pub fn endpoints(&self) -> &str {
        &self.shared.shown
    }

    /// How many calls were sent again since the connection was made, for whatever reason.
    pub fn retries(&self) -> u64 {
        self.shared.retries.load(Ordering::Relaxed)
    }

    fn error(&self, failure: &Failure) -> EtcdError {
        EtcdError::of(failure, &self.shared.shown)
    }

    /// How long one endpoint may take when there may be others to ask.
    fn patience(&self) -> Duration {
        if self.shared.endpoints.len() > 1 { OTHERS_LIMIT } else { CALL_LIMIT }
    }

    /// Calls the current endpoint, and leaves it if it does not answer. Returns its place with the
    /// answer.
    async fn once<T, F>(
        &self,
        limit: Duration,
        call: &mut impl FnMut(Clients) -> F,
    ) -> Result<(usize, T), Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (place, endpoint) = self
            .current()
            .map_err(|e| Failure::Said(etcd_client::Error::EndpointError(e.to_string())))?;
        let answer = timeout(limit, self.signed(endpoint, call)).await;
        let failure = match answer {
            Ok(Ok(answer)) => {
                if endpoint.down.swap(false, Ordering::Relaxed) {
                    info!("etcd {}: answers again", endpoint.url);
                }
                return Ok((place, answer));
            }
            Ok(Err(said)) => Failure::Said(said),
            Err(_) => Failure::Silence(limit),
        };
        if let EtcdError::Unreachable { detail, .. } = self.error(&failure) {
            self.leave(place, &detail);
        }
        Err(failure)
    }

    /// Counts a call that is sent again.
    fn count(&self, reason: &str) {
        let count = self.shared.retries.fetch_add(1, Ordering::Relaxed) + 1;
        debug!("trying again ({count} retries so far): {reason}");
    }

    /// Tries again, on another endpoint where there is one, while nobody answers.
    async fn retried<T, F>(&self, mut call: impl FnMut(Clients) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES.max(self.shared.endpoints.len() + 1) {
            match self.once(self.patience(), &mut call).await.map_err(|e| self.error(&e)) {
                Err(e) if e.is_ambiguous() => self.count(&e.to_string()),
                answer => return answer.map(|(_, answer)| answer),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause *= 4;
        }
        let last = self.once(CALL_LIMIT, &mut call).await;
        last.map(|(_, answer)| answer).map_err(|e| self.error(&e))
    }

    /// Reads one key.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn get(&self, key: &str) -> Result<Option<Item>, EtcdError> {
        let mut answer = self
            .retried(|mut to| {
                let key = key.to_owned();
                async move { to.kv.get(key, None).await }
            })
            .await?;
        Ok(answer.take_kvs().into_iter().next().map(Item::from))
    }

    /// Sends a transaction once. An ambiguous error means that it may have happened.
    ///
    /// Where an endpoint refuses the very connection, nothing was sent, and the next one gets it.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn txn_once(&self, txn: Txn) -> Result<TxnResponse, EtcdError> {
        let mut call = |mut to: Clients| {
            let txn = txn.clone();
            async move { to.kv.txn(txn).await }
        };
        for _ in 1..self.shared.endpoints.len() {
            match self.once(self.patience(), &mut call).await {
                Err(failure) if failure.never_sent() => {
                    self.count(&self.error(&failure).to_string());
                }
                answer => return answer.map(|(_, answer)| answer).map_err(|e| self.error(&e)),
            }
        }
        let last = self.once(self.patience(), &mut call).await;
        last.map(|(_, answer)| answer).map_err(|e| self.error(&e))
    }

    /// Sends a compare-and-swap, again while nobody answers: it must be one that cannot succeed
    /// twice.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, EtcdError> {
        self.retried(|mut to| {
            let txn = txn.clone();
            async move { to.kv.txn(txn).await }
        })
        .await
    }

    /// The time of one linearizable read, and the store's revision.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn ping(&self) -> Result<(Duration, i64), EtcdError> {
        let (trip, answer) = self
            .retried(|mut to| {
                let key = self.keys.settings();
                let options = GetOptions::new().with_keys_only();
                async move {
                    let sent = Instant::now();
                    let answer = to.kv.get(key, Some(options)).await?;
                    Ok((sent.elapsed(), answer))
                }
            })
            .await?;
        Ok((trip, answer.header().map_or(0, etcd_client::ResponseHeader::revision)))
    }

    /// How full the member is that is asked; they are all about as full.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn room(&self) -> Result<Room, EtcdError> {
        let answer = self.retried(|mut to| async move { to.maintenance.status().await }).await?;
        let quota = u64::try_from(answer.db_size_quota()).unwrap_or_default();
        Ok(Room {
            used: u64::try_from(answer.raft_used_db_size()).unwrap_or_default(),
            quota: (quota > 0).then_some(quota),
        })
    }
}

impl From<KeyValue> for Item {
    fn from(kv: KeyValue) -> Self {
        let (mod_revision, create_revision) = (kv.mod_revision(), kv.create_revision());
        let lease = kv.lease();
        let (key, value) = kv.into_key_value();
        Self { key, value: Some(value), mod_revision, create_revision, lease }
    }
}

/// Between one and one and a half times `pause`, so that a fleet does not move in step.
fn jittered(pause: Duration) -> Duration {
    pause + pause.mul_f64(f64::from(u16::try_from(noise() % 1000).unwrap_or_default()) / 2000.0)
}

/// A number that differs from one call and one process to the next.
fn noise() -> usize {
    // What a hasher starts from is chosen at random.
    RandomState::new().hash_one(()) as usize
}
