//! The endpoints: a client for each, which of them is in use, and signing in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, LeaseClient, MaintenanceClient,
    TlsOptions, WatchClient,
};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Etcd;
use super::error::{EtcdError, forgotten};
use crate::settings::Tls;

/// The decoding limit: a page of the largest jobs does not fit in gRPC's default 4 MiB.
const DECODE_LIMIT: usize = 1 << 30;
/// A silent connection is found out after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

pub(super) struct Endpoint {
    pub(super) url: String,
    client: Client,
    pub(super) clients: Clients,
    signed: Mutex<Signed>,
    /// Whether it has failed since it last answered.
    pub(super) down: AtomicBool,
}

#[derive(Clone)]
pub(super) struct Clients {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) lease: LeaseClient,
    pub(super) maintenance: MaintenanceClient,
}

/// Our standing with one endpoint: a token is good for the one that gave it.
#[derive(Default)]
struct Signed {
    /// How often we have signed in.
    times: u64,
    /// Whether that gave us a token; without authentication there is none.
    token: bool,
}

impl Endpoint {
    /// Prepares the client; nothing is sent yet.
    pub(super) async fn prepare(url: &str, tls: &Tls) -> Result<Self, etcd_client::Error> {
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
    /// The endpoint in use, by its place in the list.
    pub(super) fn current(&self) -> Result<(usize, &Endpoint), EtcdError> {
        let place = self.shared.current.load(Ordering::Relaxed);
        let endpoint = self.shared.endpoints.get(place).ok_or_else(|| EtcdError::Refused {
            endpoints: self.shared.shown.clone(),
            detail: "no endpoint is given".to_owned(),
        })?;
        Ok((place, endpoint))
    }

    /// Goes on with another endpoint, one that has not failed if there is one.
    pub(super) fn leave(&self, place: usize, reason: &str) {
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

    /// Calls an endpoint; signs in before where that is needed, and again if etcd has forgotten us:
    /// tokens expire, and a member that is started again knows none.
    pub(super) async fn signed<T, F>(
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
    pub(super) async fn sign_in_anew(&self, place: usize, reason: &str) -> bool {
        let Some(endpoint) = self.shared.endpoints.get(place) else { return false };
        if self.shared.login.is_none() {
            return false;
        }
        self.count(&format!("etcd {}: {reason}", endpoint.url));
        let times = endpoint.signed.lock().await.times;
        matches!(timeout(self.patience(), self.sign_in(endpoint, times)).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

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
}
