//! One delivery at a time: send it, mark it, or say when it is due again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use carillon_core::notice::Event;
use carillon_core::notify::Message;
use carillon_core::records::{Delivery, Found, Records, RecordsError};
use carillon_core::run::RunRecord;
use chrono::{DateTime, TimeDelta, Utc};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::targets::Target;
use super::{http, jittered};
use crate::clock;
use crate::fault::Fault;
use crate::metrics::Metrics;

/// Marks that are tried after something was sent.
const MARKS: usize = 3;
/// The pause after the first failure, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The bounds of the pause between two looks for a success, or for a record.
const SOONEST_LOOK: TimeDelta = TimeDelta::seconds(2);
const LATEST_LOOK: TimeDelta = TimeDelta::seconds(600);

/// What every message needs.
pub(super) struct Desk {
    pub(super) records: Records,
    pub(super) metrics: Metrics,
    pub(super) worker: String,
    pub(super) fault: Fault,
}

impl Desk {
    /// Does what is due about one delivery; whether something else is due after it.
    pub(super) async fn deal_with(
        self: Arc<Self>,
        held: Delivery,
        target: Arc<Target>,
        _room: OwnedSemaphorePermit,
    ) -> bool {
        let (job, run) = (held.job.clone(), held.run);
        match self.try_to(&held, &target).await {
            Ok(more) => more,
            Err(e) => {
                // The lease runs out, and somebody tries again.
                debug!(%job, %run, target = %target.name, "not told for now: {e}");
                false
            }
        }
    }

    async fn try_to(&self, held: &Delivery, target: &Target) -> Result<bool, RecordsError> {
        let (records, now) = (&self.records, clock::now());
        if held.waiting {
            match records.look_for_success(held).await? {
                Found::Nothing => {
                    records.put_off(held, now + look_again(now - held.since), None).await?;
                }
                Found::Superseded => records.dropped(held, now).await?,
                Found::Success(run) => {
                    records.recovered(held, run, now).await?;
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        match records.get(held.run).await? {
            // It waits in the spool, for as long as that takes.
            None if held.event == Event::Running => {
                let due = now + look_again(now - held.since);
                records.put_off(held, due, Some("there is no record")).await?;
            }
            None => records.dropped(held, now).await?,
            Some(record) if held.event == Event::Running && record.outcome.is_final() => {
                records.dropped(held, now).await?;
            }
            Some(record) => self.tell(held, target, record, now).await?,
        }
        Ok(false)
    }

    async fn tell(
        &self,
        held: &Delivery,
        target: &Target,
        record: RunRecord,
        now: DateTime<Utc>,
    ) -> Result<(), RecordsError> {
        let (job, run, event, name) = (&held.job, held.run, held.event, &target.name);
        let message = Message::new(event, record, now);
        let (why, wish) = match send(target, &message, now).await {
            Ok(answer) if answer.status.is_success() => {
                info!(%job, %run, target = %name, "told of the {event}");
                self.metrics.told(name);
                return self.mark(held).await;
            }
            Ok(answer) => (format!("it answered {}", answer.status), answer.retry_after),
            Err(e) => (format!("{e:#}"), None),
        };
        self.metrics.not_told(name);
        if held.tries == 1 {
            warn!(%job, %run, target = %name, "the {event} is not told yet, trying again: {why}");
        } else {
            debug!(%job, %run, target = %name, "the {event} is not told yet: {why}");
        }
        let pause = backoff(held.tries).max(wish.unwrap_or_default()).min(LONGEST_PAUSE);
        let due = clock::now() + TimeDelta::from_std(jittered(pause)).unwrap_or(LATEST_LOOK);
        self.records.put_off(held, due, Some(&why)).await
    }

    /// Marks what was sent: until then it may be sent again.
    async fn mark(&self, held: &Delivery) -> Result<(), RecordsError> {
        for _ in 1..MARKS {
            match self.records.told(held, clock::now()).await {
                Ok(()) => return Ok(()),
                Err(e) => debug!(run = %held.run, "what was told is not marked yet: {e}"),
            }
            sleep(FIRST_PAUSE).await;
        }
        self.records.told(held, clock::now()).await
    }
}

/// Sends one message, signed where the target has a secret.
pub(super) async fn send(
    target: &Target,
    message: &Message,
    now: DateTime<Utc>,
) -> Result<http::Answer> {
    let (id, seconds) = (message.id(), now.timestamp());
    let body = match &target.template {
        Some(template) => template.render(message),
        None => message.to_json(),
    };
    let mut headers = HeaderMap::new();
    let mut add = |name, value: &str| -> Result<()> {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
        Ok(())
    };
    add("webhook-id", &id)?;
    add("idempotency-key", &id)?;
    add("webhook-timestamp", &seconds.to_string())?;
    if let Some(key) = &target.key {
        add("webhook-signature", &key.sign(&id, seconds, body.as_bytes()))?;
    }
    http::post(target, headers, body).await
}

/// How long to wait after so many tries.
fn backoff(tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    (FIRST_PAUSE * 2_u32.saturating_pow(doublings)).min(LONGEST_PAUSE)
}

/// When to look again for a success, so long after what it would be the recovery from, or for a
/// record, so long after it was missed first: a twentieth of that.
fn look_again(age: TimeDelta) -> TimeDelta {
    (age / 20).clamp(SOONEST_LOOK, LATEST_LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes_and_differ() {
        let pauses: Vec<u64> = [1, 2, 3, 4, 10, 11, 99].map(|n| backoff(n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 8, 512, 600, 600]);
        let all: std::collections::BTreeSet<_> =
            (0..50).map(|_| jittered(Duration::from_secs(100))).collect();
        assert!(all.len() > 10 && all.first().unwrap().as_secs() >= 75);
        assert!(all.last().unwrap().as_secs() <= 125);
    }

    #[test]
    fn a_success_is_looked_for_less_often_as_time_passes() {
        assert_eq!(look_again(TimeDelta::seconds(1)), SOONEST_LOOK);
        assert_eq!(look_again(TimeDelta::minutes(20)), TimeDelta::minutes(1));
        assert_eq!(look_again(TimeDelta::days(7)), LATEST_LOOK);
    }
}
