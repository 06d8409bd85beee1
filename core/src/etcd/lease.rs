//! Leases: granted, revoked, and renewed on a stream of our own.

use std::time::Duration;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::timeout;

use super::{Clients, Etcd, EtcdError, Failure};

impl Etcd {
    /// Grants a lease of `ttl` seconds.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn grant(&self, ttl: i64) -> Result<i64, EtcdError> {
        // One that was granted without our learning of it ends by itself.
        let answer = self.retried(|mut to| async move { to.lease.grant(ttl, None).await }).await?;
        Ok(answer.id())
    }

    /// Ends a lease and with it the keys that hang on it.
    ///
    /// # Errors
    /// When etcd does not answer or refuses, as it does when the lease has ended.
    pub async fn revoke(&self, id: i64) -> Result<(), EtcdError> {
        self.retried(|mut to| async move { to.lease.revoke(id).await }).await.map(drop)
    }

    /// Opens the stream that renews a lease.
    ///
    /// # Errors
    /// When etcd does not answer, or the lease is gone.
    pub async fn renewals(&self, id: i64) -> Result<Renewals, EtcdError> {
        let mut call = |mut to: Clients| async move { to.lease.keep_alive(id).await };
        let opened = self.once(self.patience(), &mut call).await;
        let (place, (keeper, answers)) = opened.map_err(|e| self.error(&e))?;
        Ok(Renewals { keeper, answers, etcd: self.clone(), place })
    }
}

/// The renewing of one lease.
pub struct Renewals {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    etcd: Etcd,
    /// The endpoint of the stream.
    place: usize,
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
        let failure = match timeout(limit, call).await {
            Ok(Ok(Some(answer))) => return Ok(answer.ttl() > 0),
            Ok(Ok(None)) => Failure::Said(etcd_client::Error::LeaseKeepAliveError(
                "the renewal stream ended".to_owned(),
            )),
            Ok(Err(e)) => Failure::Said(e),
            Err(_) => Failure::Silence(limit),
        };
        let error = self.etcd.error(&failure);
        self.etcd.leave(self.place, &format!("no renewal of the lease: {}", error.detail()));
        Err(error)
    }
}
