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
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::clock::{self, since_boot};
use crate::execute::guard::{Guard, Lease};

/// Seconds after which a worker that does not renew is dead.
pub(crate) const TTL_SECS: i64 = 10;
/// How long before that it stops acting, so that a slow step cannot outlive the lease.
const MARGIN: Duration = Duration::from_secs(2);
const TTL: Duration = Duration::from_secs(TTL_SECS.unsigned_abs());
/// How long after the registration was written the others hear that there is room again. A worker
/// that has all it takes has room for a moment at each end of a run, and everybody reckons anew with
/// each word of it.
const ROOM_TOLD_AFTER: Duration = Duration::from_millis(250);

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
    /// The registration as it should stand.
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
        let mut written = self.registration.borrow_and_update().clone();
        // If the answer is lost, our own name would read as taken.
        self.former = Some(lease);
        match self.write(lease, &written).await {
            Ok(Answer::Done(_)) => self.former = None,
            Ok(Answer::Refused(_)) => {
                // Not worth reporting: an unused lease ends by itself.
                self.etcd.revoke(lease).await.ok();
                return Loss::NameTaken;
            }
            Err(e) => return Loss::Etcd(e),
        }
        self.guard.hold(Lease { id: lease, until: sent + TTL });
        let draining = written.draining;
        self.standing.send_replace(Standing { lease, confirmed: sent, draining });
        info!("registered as {} under lease {lease:x}", self.id);
        let mut renewals = None;
        loop {
            // Renewing early does no harm.
            self.wait(&written).await;
            let left = self.standing.borrow().left();
            match timeout(left, Self::renewed(&self.etcd, &mut renewals, lease)).await {
                Ok(Ok(confirmed)) => {
                    self.guard.hold(Lease { id: lease, until: confirmed + TTL });
                    self.standing.send_modify(|standing| standing.confirmed = confirmed);
                }
                Ok(Err(loss)) => return loss,
                Err(_) => return Loss::Silence,
            }
            written = self.registration.borrow_and_update().clone();
            // It must not hold up the next renewal.
            match timeout(TTL / 4, self.write(lease, &written)).await {
                Ok(Ok(Answer::Done(_))) => {
                    let draining = written.draining;
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

    /// Waits until the lease is to be renewed, or the registration to be written anew after `written`.
    async fn wait(&mut self, written: &Registration) {
        let since = Instant::now();
        loop {
            let after = told_after(written, &self.registration.borrow_and_update());
            let until = since + after.unwrap_or(TTL / 3);
            if !matches!(timeout_at(until, self.registration.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Renews, again and again until it is answered; returns when the answered one was sent.
    async fn renewed(
        etcd: &Etcd,
        renewals: &mut Option<Renewals>,
        lease: i64,
    ) -> Result<Duration, Loss> {
        let mut told = String::new();
        loop {
            let sent = since_boot();
            match Self::renew(etcd, renewals, lease).await {
                Ok(true) => return Ok(sent),
                Ok(false) => return Err(Loss::Expired),
                Err(e) => {
                    let why = e.to_string();
                    if why != told {
                        warn!("cannot renew the lease yet: {why}");
                        told = why;
                    }
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

    async fn write(&self, lease: i64, registration: &Registration) -> Result<Answer, EtcdError> {
        let now = Registration { clock: clock::now(), ..registration.clone() };
        self.claims.register(&self.id, lease, &now).await
    }
}

/// How long after `written` was the others hear of what has changed since: load is told with the next
/// renewal; whether the worker takes anything new, at once.
fn told_after(written: &Registration, now: &Registration) -> Option<Duration> {
    let same = (written.draining, &written.standing_by) == (now.draining, &now.standing_by);
    match (written.full, now.full) {
        (full, still) if same && full == still => None,
        (true, false) if same => Some(ROOM_TOLD_AFTER),
        _ => Some(Duration::ZERO),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_is_no_room_is_told_at_once_and_that_there_is_again_a_little_later() {
        let room: Registration = serde_json::from_str(
            r#"{"host":"h","pid":1,"version":"1","rulesVersion":"x","capacity":1,
            "clock":"2026-01-01T00:00:00Z","started":"2026-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        let none = Registration { full: true, running: 1, ..room.clone() };
        assert_eq!(told_after(&room, &none), Some(Duration::ZERO));
        assert_eq!(told_after(&none, &room), Some(ROOM_TOLD_AFTER));
        assert_eq!(told_after(&none, &none), None);
        let leaving = Registration { draining: true, ..room.clone() };
        assert_eq!(told_after(&none, &leaving), Some(Duration::ZERO));
        let busy = Registration { running: 1, ..room.clone() };
        assert_eq!(told_after(&room, &busy), None, "with the next renewal");
    }
}
