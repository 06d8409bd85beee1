//! Whether this worker may claim at all: whose clock it goes by, whether etcd is the one that it
//! knew, and what the other workers have found. Pure but for its memory, which it writes when told to.

use std::mem::Discriminant;
use std::time::Duration;

use carillon_core::id::WorkerId;
use carillon_core::recover::doubters;
use carillon_core::replica::{Feed, Replica};
use chrono::TimeDelta;
use tracing::{info, warn};

use crate::memory::{Memory, Seen};
use crate::skew::{Skew, Source, Verdict};

/// What one worker believes.
pub(crate) struct Trust {
    me: WorkerId,
    skew: Skew,
    memory: Memory,
    /// The last verdict on our clock, and why it bars us from claiming.
    clock_says: Option<(Discriminant<Verdict>, Option<String>)>,
    /// Why etcd must not be believed.
    restored: Option<String>,
    /// The cluster that the state was read from.
    cluster: u64,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Why nothing may be claimed.
    pub bar: Option<String>,
    /// Whether our clock may be gone by.
    pub clock: bool,
    /// How far that is from the median of all: ahead where positive.
    pub deviation: TimeDelta,
}

impl Trust {
    pub fn new(me: WorkerId, skew: Skew, memory: Memory) -> Self {
        Self { me, skew, memory, clock_says: None, restored: None, cluster: 0 }
    }

    /// Hears of etcd: `fed` was taken into the replica, whose revision was `before`, and `at` is now,
    /// since boot.
    pub fn hear<J>(&mut self, fed: &Feed, replica: &Replica<J>, before: i64, at: Duration) {
        if let Feed::Part { cluster, .. } | Feed::Snapshot { cluster, .. } = fed {
            self.cluster = *cluster;
        }
        let cluster = self.cluster;
        if let Feed::Part { revision, .. } = fed {
            // The jobs and cursors of another past are in the replica already. The settings, which
            // would tell of a recovery, come later.
            let (revision, recovered) = (*revision, self.memory.recovered());
            return self.remember(Seen { cluster, revision, recovered });
        }
        let recovered = replica.settings.as_ref().and_then(|settings| settings.value.recovered);
        self.remember(Seen { cluster, revision: replica.revision, recovered });
        self.hear_clocks(replica, before, at);
    }

    /// Compares this with what is remembered of etcd.
    fn remember(&mut self, seen: Seen) {
        let why = self.memory.see(seen);
        if why != self.restored {
            match &why {
                Some(why) => warn!("claiming nothing: {why}"),
                None => info!("etcd is believed again"),
            }
        }
        self.restored = why;
    }

    /// Hears of the clocks of those who have registered since the revision `before`.
    fn hear_clocks<J>(&mut self, replica: &Replica<J>, before: i64, at: Duration) {
        for worker in replica.workers.values().filter(|worker| worker.id != self.me) {
            match worker.skew {
                Some(offset) if worker.mod_revision > before => {
                    self.skew.hear(Source::Worker(worker.id.clone()), offset, at);
                }
                _ => self.skew.is_there(worker.id.clone(), at),
            }
        }
        self.skew.keep(|worker| replica.workers.contains_key(worker));
    }

    /// Hears how far MongoDB's clock is from ours.
    pub fn hear_mongo(&mut self, offset: TimeDelta, at: Duration) {
        self.skew.hear(Source::Mongo, offset, at);
    }

    /// Our clock was set by so much.
    pub fn clock_set(&mut self, by: TimeDelta) {
        self.skew.clock_set(by);
    }

    /// When a worker that is alone may go by its own clock, since boot.
    pub fn waits_until(&self) -> Duration {
        self.skew.waits_until()
    }

    /// Says what follows from all that was heard.
    pub fn judge<J>(&mut self, replica: &Replica<J>, at: Duration) -> Judgement {
        for news in self.skew.news(at) {
            warn!("{news}");
        }
        let verdict = self.skew.verdict(at);
        let kind = std::mem::discriminant(&verdict);
        // The words stay while the verdict does: each change of them is written at once, and would
        // have the others judge and write anew.
        if self.clock_says.as_ref().is_none_or(|(known, _)| *known != kind) {
            self.clock_says = Some((kind, verdict.bars().map(str::to_owned)));
        }
        let clock = self.clock_says.as_ref().and_then(|(_, why)| why.clone());
        Judgement {
            clock: clock.is_none(),
            deviation: self.skew.deviation(at).unwrap_or_default(),
            bar: self.restored.clone().or_else(|| self.hearsay(replica)).or(clock),
        }
    }

    /// Why etcd must not be believed, by what another worker has found. It is not passed on as if
    /// this worker had found it: else they would bar each other for ever.
    fn hearsay<J>(&self, replica: &Replica<J>) -> Option<String> {
        let doubter = doubters(replica).find(|worker| **worker != self.me)?;
        Some(format!("{doubter} says that etcd was restored; run `carillon recover`"))
    }

    /// Whether this worker itself has found that etcd must not be believed.
    pub fn doubts_etcd(&self) -> bool {
        self.restored.is_some()
    }

    /// Writes down what is to be remembered in the next life.
    pub fn write_memory(&mut self) {
        if let Err(e) = self.memory.write() {
            warn!("cannot write {}: {e}", self.memory.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::job::StoredJob;
    use carillon_core::keys::Keys;
    use carillon_core::replica::Item;

    use super::*;
    use crate::testing::{at, put};

    const NOW: &str = "2026-01-01T12:00:00Z";
    const BOOT: Duration = Duration::from_secs(1000);

    /// A worker that has been told enough to know that its clock is fine.
    fn trust(folder: &tempfile::TempDir) -> Trust {
        let skew = Skew::new(TimeDelta::seconds(10), BOOT);
        let me = WorkerId::new("w1").unwrap();
        let mut trust = Trust::new(me, skew, Memory::load(folder.path()).unwrap());
        trust.hear_mongo(TimeDelta::zero(), BOOT);
        trust
    }

    fn worker(id: &str, restored: bool, revision: i64) -> Item {
        let value = serde_json::json!({
            "host": "h", "pid": 1, "version": "1", "rulesVersion": "x", "capacity": 1,
            "clock": NOW, "started": NOW, "restored": restored,
        });
        put(&format!("workers/{id}"), value.to_string(), revision)
    }

    /// Takes a list of the cluster 7 into the replica and tells of it.
    fn hear(trust: &mut Trust, replica: &mut Replica<StoredJob>, items: Vec<Item>, revision: i64) {
        let before = replica.revision;
        let fed = Feed::Snapshot { revision, cluster: 7, items };
        replica.apply(&Keys::new("/cron").unwrap(), &fed, at(NOW));
        trust.hear(&fed, replica, before, BOOT);
    }

    #[test]
    fn an_etcd_that_went_back_bars_and_another_workers_word_does_without_being_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut trust, mut replica) = (trust(&folder), Replica::default());
        hear(&mut trust, &mut replica, vec![worker("w2", false, 90)], 100);
        let judged = trust.judge(&replica, BOOT);
        assert_eq!((judged.bar, judged.clock), (None, true));

        hear(&mut trust, &mut replica, vec![worker("w2", true, 101)], 101);
        let bar = trust.judge(&replica, BOOT).bar.unwrap();
        assert!(bar.starts_with("w2 says that etcd was restored"), "{bar}");
        assert!(!trust.doubts_etcd(), "that is w2's finding");

        hear(&mut trust, &mut replica, vec![worker("w2", false, 50)], 50);
        let bar = trust.judge(&replica, BOOT).bar.unwrap();
        assert!(bar.contains("revision 50, and was at 101"), "{bar}");
        assert!(trust.doubts_etcd());
    }

    #[test]
    fn its_own_word_bars_nobody_twice_and_a_clock_that_is_off_bars_in_the_same_words() {
        let folder = tempfile::tempdir().unwrap();
        let (mut trust, mut replica) = (trust(&folder), Replica::default());
        hear(&mut trust, &mut replica, vec![worker("w1", true, 90)], 100);
        assert_eq!(trust.judge(&replica, BOOT).bar, None, "it has recovered since");

        trust.hear_mongo(TimeDelta::seconds(40), BOOT);
        let first = trust.judge(&replica, BOOT);
        assert!(first.bar.is_some() && !first.clock, "{first:?}");
        trust.hear_mongo(TimeDelta::seconds(41), BOOT);
        assert_eq!(trust.judge(&replica, BOOT).bar, first.bar);
        trust.hear_mongo(TimeDelta::zero(), BOOT);
        assert_eq!(trust.judge(&replica, BOOT).bar, None);
    }
}
