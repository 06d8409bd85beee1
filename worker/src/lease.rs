//! The worker's standing in the fleet: its registration under a lease, renewed by our own loop.
//!
//! A claim is allowed only while the last acknowledged renewal was *sent* recently enough; that
//! is what [`Standing::may_act`] answers, and the claim's transaction checks it again in etcd.

use std::time::Duration;

use carillon_core::claims::{Answer, Claims};
use carillon_core::etcd::{Etcd, EtcdError, Renewals};
use carillon_core::fleet::Registration;
use carillon_core::id::WorkerId;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::clock::{self, since_boot};
use crate::execute::guard::Guard;

/// Seconds after which a worker that does not renew is dead.
pub(crate) const TTL_SECS: i64 = 10;
/// How long before that it stops acting, so that a slow step cannot outlive the lease.
const MARGIN: Duration = Duration::from_secs(2);
const TTL: Duration = Duration::from_secs(TTL_SECS.unsigned_abs());

/// What the worker knows of its own registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// The lease; 0 while not registered.
    pub lease: i64,
    /// When the last acknowledged renewal was sent, since boot.
    confirmed: Duration,
    /// Whether the fleet has been told that nothing new is taken.
    pub draining: bool,
}

impl Standing {
    /// Whether the lease is certain to be alive for a moment longer.
    pub fn may_act(&self) -> bool {
        self.lease != 0 && !self.left().is_zero()
    }

    /// For how long the lease is certain to be alive.
    fn left(&self) -> Duration {
        (self.confirmed + TTL - MARGIN).saturating_sub(since_boot())
    }
}

/// Keeps one worker registered.
pub(crate) struct Keeper {
    pub etcd: Etcd,
    pub claims: Claims,
    pub id: WorkerId,
    /// The registration as it should stand; a change is written at once.
    pub registration: watch::Receiver<Registration>,
    pub standing: watch::Sender<Standing>,
    /// Told until when the lease is certain.
    pub guard: Guard,
    /// The lease of the registration that was lost last: etcd may not know yet that it is dead.
    pub former: Option<i64>,
}

impl Keeper {
    /// Registers, renews, and registers again after a loss, until told to leave; then takes the
    /// registration away.
    pub async fn keep(mut self, mut leave: mpsc::Receiver<()>) {
        let mut told_of = String::new();
        loop {
            let lost = tokio::select! {
                lost = self.hold() => lost,
                _ = leave.recv() => {
                    let lease = self.standing.borrow().lease;
                    if lease != 0 && let Err(e) = self.etcd.revoke(lease).await {
                        warn!("the registration stays until its lease ends: {e}");
                    }
                    return;
                }
            };
            let was = self.standing.send_replace(Standing::default());
            self.former = Some(was.lease).filter(|lease| *lease != 0).or(self.former);
            let reason = lost.to_string();
            if was.lease != 0 {
                warn!("lost the registration: {reason}");
            } else if reason != told_of {
                warn!("cannot register yet: {reason}");
            }
            told_of = reason;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Registers once and holds on to it; returns why it ended.
    async fn hold(&mut self) -> Loss {
        if let Some(former) = self.former
            && (self.etcd.revoke(former).await).is_err_and(|e| e.is_ambiguous())
        {
            return Loss::Silence;
        }
        self.former = None;
        let sent = since_boot();
        let lease = match self.etcd.grant(TTL_SECS).await {
            Ok(lease) => lease,
            Err(e) => return Loss::Etcd(e),
        };
        let draining = self.registration.borrow_and_update().draining;
        // If the answer is lost, our own name would read as taken.
        self.former = Some(lease);
        match self.write(lease).await {
            Ok(Answer::Done(_)) => self.former = None,
            Ok(Answer::Refused(_)) => {
                // Not worth reporting: an unused lease ends by itself.
                self.etcd.revoke(lease).await.ok();
                return Loss::NameTaken;
            }
            Err(e) => return Loss::Etcd(e),
        }
        self.guard.lease_until(sent + TTL);
        self.standing.send_replace(Standing { lease, confirmed: sent, draining });
        info!("registered as {} under lease {lease:x}", self.id);
        let mut renewals = None;
        loop {
            // A change of the registration is written at once; renewing early does no harm.
            timeout(TTL / 3, self.registration.changed()).await.ok();
            let draining = self.registration.borrow_and_update().draining;
            let left = self.standing.borrow().left();
            match timeout(left, Self::renewed(&self.etcd, &mut renewals, lease)).await {
                Ok(Ok(confirmed)) => {
                    self.guard.lease_until(confirmed + TTL);
                    self.standing.send_modify(|standing| standing.confirmed = confirmed);
                }
                Ok(Err(loss)) => return loss,
                Err(_) => return Loss::Silence,
            }
            // It must not hold up the next renewal.
            match timeout(TTL / 4, self.write(lease)).await {
                Ok(Ok(Answer::Done(_))) => {
                    self.standing.send_if_modified(|standing| {
                        std::mem::replace(&mut standing.draining, draining) != draining
                    });
                }
                Ok(Ok(Answer::Refused(_))) => return Loss::Deleted,
                Ok(Err(e)) => warn!("cannot refresh the registration: {e}"),
                Err(_) => warn!("cannot refresh the registration: no answer"),
            }
        }
    }

    /// Renews, again and again until it is answered; returns when the answered one was sent.
    async fn renewed(
        etcd: &Etcd,
        renewals: &mut Option<Renewals>,
        lease: i64,
    ) -> Result<Duration, Loss> {
        loop {
            let sent = since_boot();
            match Self::renew(etcd, renewals, lease).await {
                Ok(true) => return Ok(sent),
                Ok(false) => return Err(Loss::Expired),
                Err(e) => {
                    warn!("cannot renew the lease yet: {e}");
                    *renewals = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn renew(
        etcd: &Etcd,
        renewals: &mut Option<Renewals>,
        lease: i64,
    ) -> Result<bool, EtcdError> {
        let stream = match renewals {
            Some(stream) => stream,
            None => renewals.insert(etcd.renewals(lease).await?),
        };
        stream.renew(TTL / 4).await
    }

    async fn write(&self, lease: i64) -> Result<Answer, EtcdError> {
        let now = Registration { clock: clock::now(), ..self.registration.borrow().clone() };
        self.claims.register(&self.id, lease, &now).await
    }
}

/// Why a registration ended.
enum Loss {
    Etcd(EtcdError),
    NameTaken,
    Expired,
    Silence,
    Deleted,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Etcd(e) => e.fmt(f),
            Self::NameTaken => f.write_str(
                "another worker holds this name, or an earlier one of this name has not expired; waiting for it",
            ),
            Self::Silence => f.write_str("etcd did not answer in time to be sure of the lease"),
            Self::Expired => f.write_str("the lease expired"),
            Self::Deleted => f.write_str("somebody deleted the registration"),
        }
    }
}
