//! The connection to etcd: bounded calls with errors for an operator, going on with another endpoint
//! where one fails. The lists, the watch and the leases have rooms of their own.
//!
//! The client balances but does not fail over, so each endpoint has a client of its own here, and
//! everything uses the current one until that one fails.

mod feed;
mod lease;
mod list;

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, KeyValue, KvClient, LeaseClient,
    MaintenanceClient, TlsOptions, Txn, TxnResponse, WatchClient,
};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

pub use lease::Renewals;

use crate::keys::Keys;
use crate::replica::Item;
use crate::settings::{Endpoints, Tls};

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
/// The decoding limit: a page of the largest jobs does not fit in gRPC's default 4 MiB.
const DECODE_LIMIT: usize = 1 << 30;
/// A silent connection is found out after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

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
    /// etcd takes no more writes until somebody makes room; nothing happened.
    #[error("etcd {endpoints}: {detail} ({OUT_OF_SPACE})")]
    Full {
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

/// What to do when etcd takes no more writes: <https://etcd.io/docs/v3.5/op-guide/maintenance/>.
const OUT_OF_SPACE: &str = "it takes no more writes: compact and defragment it, then run `etcdctl alarm disarm`; \
                            a higher --quota-backend-bytes and --auto-compaction-retention keep it from happening again";

impl EtcdError {
    fn detail(&self) -> &str {
        match self {
            Self::Unreachable { detail, .. }
            | Self::Denied { detail, .. }
            | Self::Full { detail, .. }
            | Self::Refused { detail, .. } => detail,
        }
    }

    /// Whether the revision that was asked for is gone, or has not come to a member that lags.
    fn lacks_revision(&self) -> bool {
        let told = |detail: &str| {
            detail.contains("has been compacted") || detail.contains("is a future revision")
        };
        matches!(self, Self::Refused { detail, .. } if told(detail))
    }

    /// Whether the request may have been carried out although no answer came.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

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

struct Endpoint {
    url: String,
    client: Client,
    clients: Clients,
    signed: Mutex<Signed>,
    /// Whether it has failed since it last answered.
    down: AtomicBool,
}

#[derive(Clone)]
struct Clients {
    kv: KvClient,
    watch: WatchClient,
    lease: LeaseClient,
    maintenance: MaintenanceClient,
}

/// How full etcd is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes in use: what compaction and deletion have freed is used again.
    pub used: u64,
    /// Bytes at which it takes no more writes, where it says so: etcd 3.6 does.
    pub quota: Option<u64>,
}

/// Our standing with one endpoint: a token is good for the one that gave it.
#[derive(Default)]
struct Signed {
    /// How often we have signed in.
    times: u64,
    /// Whether that gave us a token; without authentication there is none.
    token: bool,
}

/// Why one call to one endpoint failed.
enum Failure {
    Silence(Duration),
    Said(etcd_client::Error),
}

impl Failure {
    /// Whether the request cannot have left this machine: only connecting is ever refused.
    fn never_sent(&self) -> bool {
        let Self::Said(etcd_client::Error::GRpcStatus(status)) = self else { return false };
        let mut cause = status.source();
        while let Some(e) = cause {
            if let Some(e) = e.downcast_ref::<std::io::Error>() {
                return e.kind() == std::io::ErrorKind::ConnectionRefused;
            }
            cause = e.source();
        }
        false
    }
}

impl Endpoint {
    async fn prepare(url: &str, tls: &Tls) -> Result<Self, etcd_client::Error> {
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_connect_timeout(Duration::from_secs(2))
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE)
            .with_keep_alive_while_idle(true);
        if url.starts_with("https://") || !tls.is_empty() {
            options = options.with_tls(tls_options(tls));
        }
        let client = Client::connect([url], Some(options)).await?;
        let clients = Clients {
            kv: client.kv_client().max_decoding_message_size(DECODE_LIMIT),
            watch: client.watch_client().max_decoding_message_size(DECODE_LIMIT),
            lease: client.lease_client(),
            maintenance: client.maintenance_client(),
        };
        Ok(Self {
            url: url.to_owned(),
            client,
            clients,
            signed: Mutex::default(),
            down: AtomicBool::new(false),
        })
    }
}

fn tls_options(tls: &Tls) -> TlsOptions {
    let mut options = TlsOptions::new();
    options = match &tls.authority {
        Some(pem) => options.ca_certificate(Certificate::from_pem(pem.text.reveal())),
        None => options.with_enabled_roots(),
    };
    if let Some((certificate, key)) = &tls.own {
        let identity = Identity::from_pem(certificate.text.reveal(), key.text.reveal());
        options = options.identity(identity);
    }
    options
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
        let endpoints = self.shared.shown.clone();
        let said = match failure {
            Failure::Silence(limit) => {
                let detail = format!("no answer within {} s", limit.as_secs_f32());
                return EtcdError::Unreachable { endpoints, detail };
            }
            Failure::Said(said) => said,
        };
        let mut detail = words(said);
        if ["invalid peer certificate", "received fatal alert"].iter().any(|t| detail.contains(t)) {
            detail.push_str(" (check the CA, the certificate and the key for etcd)");
        }
        match said {
            etcd_client::Error::GRpcStatus(status) => {
                let says = |text| status.message().contains(text);
                // gRPC status codes: https://grpc.io/docs/guides/status-codes/
                match i32::from(status.code()) {
                    7 | 16 => EtcdError::Denied { endpoints, detail },
                    3 if says("authentication failed") || says("user name is empty") => {
                        EtcdError::Denied { endpoints, detail }
                    }
                    8 if says("database space exceeded") => EtcdError::Full { endpoints, detail },
                    8 if says("too many requests") => EtcdError::Unreachable { endpoints, detail },
                    1 | 2 | 4 | 13 | 14 => EtcdError::Unreachable { endpoints, detail },
                    _ => EtcdError::Refused { endpoints, detail },
                }
            }
            etcd_client::Error::LeaseKeepAliveError(text) if text.contains("not found") => {
                EtcdError::Refused { endpoints, detail }
            }
            _ => EtcdError::Unreachable { endpoints, detail },
        }
    }

    /// The endpoint in use, by its place in the list.
    fn current(&self) -> Result<(usize, &Endpoint), EtcdError> {
        let place = self.shared.current.load(Ordering::Relaxed);
        let endpoint = self.shared.endpoints.get(place).ok_or_else(|| EtcdError::Refused {
            endpoints: self.shared.shown.clone(),
            detail: "no endpoint is given".to_owned(),
        })?;
        Ok((place, endpoint))
    }

    /// Goes on with another endpoint, one that has not failed if there is one.
    fn leave(&self, place: usize, reason: &str) {
        let endpoints = &self.shared.endpoints;
        let Some(failed) = endpoints.get(place) else { return };
        let new = !failed.down.swap(true, Ordering::Relaxed);
        let mut others = (1..endpoints.len()).map(|step| (place + step) % endpoints.len());
        let works = |at: &usize| {
            endpoints.get(*at).is_some_and(|endpoint| !endpoint.down.load(Ordering::Relaxed))
        };
        let Some(next) = others.clone().find(works).or_else(|| others.next()) else {
            debug!("etcd {}: {reason}", failed.url);
            return;
        };
        // Whoever fails at the same time has moved on already.
        let current = &self.shared.current;
        let moved = current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
        let to = endpoints.get(next).map_or("", |endpoint| &endpoint.url);
        if new && moved.is_ok() {
            warn!("etcd {}: {reason}; going on with {to}", failed.url);
        } else {
            debug!("etcd {}: {reason}; going on with {to}", failed.url);
        }
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

    /// Calls an endpoint; signs in before where that is needed, and again if etcd has forgotten us:
    /// tokens expire, and a member that is started again knows none.
    async fn signed<T, F>(
        &self,
        endpoint: &Endpoint,
        call: &mut impl FnMut(Clients) -> F,
    ) -> Result<T, etcd_client::Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        if self.shared.login.is_none() {
            return call(endpoint.clients.clone()).await;
        }
        let Signed { times, token } = self.sign_in(endpoint, 0).await?;
        match call(endpoint.clients.clone()).await {
            // Refused before anything happened, so even a claim may be sent again.
            Err(etcd_client::Error::GRpcStatus(status))
                if forgotten(status.message())
                    || i32::from(status.code()) == 16
                    || i32::from(status.code()) == 7 && !token =>
            {
                self.count(&format!("etcd {}: {}", endpoint.url, status.message()));
                self.sign_in(endpoint, times).await?;
                call(endpoint.clients.clone()).await
            }
            answer => answer,
        }
    }

    /// Signs in, unless somebody did since we had done so `times` times.
    async fn sign_in(&self, endpoint: &Endpoint, times: u64) -> Result<Signed, etcd_client::Error> {
        let mut signed = endpoint.signed.lock().await;
        if let Some(login) = &self.shared.login
            && signed.times == times
        {
            signed.token = match endpoint.client.clone().update_user(Some(login.clone())).await {
                Err(etcd_client::Error::GRpcStatus(status))
                    if status.message().contains("authentication is not enabled") =>
                {
                    false
                }
                answer => answer.map(|()| true)?,
            };
            signed.times += 1;
            debug!("etcd {}: signed in as {}", endpoint.url, login.0);
        }
        Ok(Signed { ..*signed })
    }

    /// Signs in whatever we think of our token; whether that went well.
    async fn sign_in_anew(&self, place: usize, reason: &str) -> bool {
        let Some(endpoint) = self.shared.endpoints.get(place) else { return false };
        if self.shared.login.is_none() {
            return false;
        }
        self.count(&format!("etcd {}: {reason}", endpoint.url));
        let times = endpoint.signed.lock().await.times;
        matches!(timeout(self.patience(), self.sign_in(endpoint, times)).await, Ok(Ok(_)))
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

/// Whether etcd says that it does not know our token, or that users changed since we got it.
fn forgotten(message: &str) -> bool {
    [
        "invalid auth token",
        "revision in header is old",
        "revision of auth store is old",
        "user name is empty",
    ]
    .iter()
    .any(|text| message.contains(text))
}

/// What an error says, with what lies at the bottom of it: "transport error" alone helps nobody.
fn words(e: &etcd_client::Error) -> String {
    let (top, mut below): (String, Option<&dyn Error>) = match e {
        etcd_client::Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        etcd_client::Error::TransportError(e) => (e.to_string(), e.source()),
        other => (other.to_string(), None),
    };
    let mut last = None;
    while let Some(cause) = below {
        last = Some(cause.to_string());
        below = cause.source();
    }
    match last {
        Some(last) if top.is_empty() => last,
        Some(last) if !top.contains(&last) => format!("{top}: {last}"),
        _ => top,
    }
}

/// Between one and one and a half times `pause`, so that a fleet does not move in step.
fn jittered(pause: Duration) -> Duration {
    pause + pause.mul_f64(f64::from(u16::try_from(noise() % 1000).unwrap_or_default()) / 2000.0)
}

/// A number that differs from one moment and one process to the next.
fn noise() -> usize {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    usize::try_from(nanos / 7 + std::process::id()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_endpoint_is_left_for_one_that_has_not_failed() {
        let urls = ["http://a:1", "http://b:1", "http://c:1"].map(str::to_owned);
        let etcd = Etcd::connect(&urls, Keys::new("/t").unwrap()).await.unwrap();
        let place = || etcd.current().unwrap().0;
        etcd.shared.current.store(0, Ordering::Relaxed);
        etcd.leave(0, "gone");
        assert_eq!(place(), 1);
        // Calls that were under way to the same endpoint do not move it further.
        etcd.leave(0, "gone");
        assert_eq!(place(), 1);
        etcd.leave(1, "gone");
        assert_eq!(place(), 2);
        etcd.shared.endpoints[1].down.store(false, Ordering::Relaxed);
        etcd.leave(2, "gone");
        assert_eq!(place(), 1, "the first is still thought dead");
        etcd.leave(1, "gone");
        assert_eq!(place(), 2, "all are: each gets its turn");
        assert_eq!(etcd.retries(), 0);
    }

    #[tokio::test]
    async fn one_endpoint_is_never_left_and_none_is_an_error() {
        let keys = Keys::new("/t").unwrap();
        let etcd = Etcd::connect(&["http://a:1".to_owned()], keys.clone()).await.unwrap();
        etcd.leave(0, "gone");
        assert_eq!(etcd.current().unwrap().0, 0);
        assert!(matches!(Etcd::connect(&[], keys).await, Err(EtcdError::Refused { .. })));
    }

    #[test]
    fn the_range_of_a_prefix_ends_after_its_last_key() {
        assert_eq!(range_end(b"/cron/"), b"/cron0");
        assert_eq!(range_end(b"a\xff"), b"b");
        assert_eq!(range_end(b"\xff"), b"\0");
    }
}
