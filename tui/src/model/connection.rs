//! How fresh what is on the screen is: both stores, apart.

use chrono::{DateTime, Utc};

use crate::msg::{Health, Store};

/// What is known about one store.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where it is looked for, without credentials: for the operator.
    pub place: String,
    /// Its connection, once anything is known about it.
    pub health: Option<Health>,
    /// When it last delivered anything.
    pub heard: Option<DateTime<Utc>>,
    /// Whether what it delivers by itself has stopped: it may answer a question all the same.
    torn: bool,
}

impl Link {
    /// Nothing known yet.
    pub fn new(place: &str) -> Self {
        Self { place: place.to_owned(), health: None, heard: None, torn: false }
    }

    /// It delivered.
    pub fn delivered(&mut self, now: DateTime<Utc>) {
        self.heard = Some(now);
        self.torn = false;
        match &mut self.health {
            Some(health) if health.up => {}
            health => {
                let rtt = health.as_ref().and_then(|h| h.rtt);
                *health = Some(Health { up: true, rtt, since: now, detail: String::new() });
            }
        }
    }

    /// Its connection broke.
    pub fn lost(&mut self, reason: &str, now: DateTime<Utc>) {
        let since = match &self.health {
            Some(health) if !health.up => health.since,
            _ => now,
        };
        self.health = Some(Health { up: false, rtt: None, since, detail: reason.to_owned() });
        self.torn = true;
    }

    /// Its pulse was taken. One that answers is still away while it delivers nothing: what is shown
    /// may be out of date.
    pub fn measured(&mut self, health: Health) {
        if !(self.torn && health.up) {
            self.health = Some(health);
        }
    }

    /// Whether it was there and is away: what is shown of it may be out of date.
    pub fn is_stale(&self) -> bool {
        self.health.as_ref().is_some_and(|h| !h.up)
    }
}

/// Both stores.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Jobs, live runs, workers.
    pub etcd: Link,
    /// Records and output.
    pub mongo: Link,
}

impl Connection {
    /// The store's link.
    pub fn of(&mut self, store: Store) -> &mut Link {
        match store {
            Store::Etcd => &mut self.etcd,
            Store::Mongo => &mut self.mongo,
        }
    }

    /// Whether some shown age grows with the time.
    pub fn wants_ticks(&self) -> bool {
        self.etcd.is_stale() || self.mongo.is_stale()
    }
}
