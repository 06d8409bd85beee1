//! What is done to the fleet under trial.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use etcd_client::{Client as EtcdClient, CompactionOptions, DeleteOptions, Txn, TxnOp};
use tokio::time::{Instant, sleep, timeout};

use super::{Load, ONE_TRY, PATIENCE, Trial};
use crate::proxy::Mode;

/// The points at which a worker can be made to die: see `--fault`.
pub const POINTS: [&str; 4] = ["claimed", "started", "ended", "settled"];
/// Past the lease of a worker, of ten seconds, and the moment until the others notice.
const PAST_LEASE: Duration = Duration::from_secs(14);
/// How much is put at once to fill etcd, in bytes; it takes at most 1.5 MiB.
const FILLER: usize = 1 << 20;

/// From what a worker is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutOff {
    /// From etcd.
    Etcd,
    /// From MongoDB.
    Mongo,
    /// From both.
    Both,
}

impl Trial {
    /// Kills a worker with SIGKILL. Its guard ends what it started.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn kill_worker(&mut self, id: &str) -> Result<()> {
        self.fleet.kill9(id).map(drop)
    }

    /// Starts a worker that dies at one of [`POINTS`], and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not start, or lives for longer than a minute.
    pub async fn die_at(&mut self, id: &str, point: &str) -> Result<()> {
        self.start_worker(id, &["--fault", point]).await?;
        self.fleet.ended(id, PATIENCE).await?;
        Ok(())
    }

    /// Restarts a worker so that it dies at one of [`POINTS`], and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not end in order first, or lives for longer than a minute.
    pub async fn restart_to_die(&mut self, id: &str, point: &str) -> Result<()> {
        self.fleet.stop(id).await?;
        self.die_at(id, point).await
    }

    /// Freezes a worker until its lease is over.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn pause_worker(&self, id: &str) -> Result<()> {
        self.fleet.pause(id)?;
        sleep(PAST_LEASE).await;
        self.fleet.resume(id)
    }

    /// Stops a worker in order and starts it again.
    ///
    /// # Errors
    ///
    /// When it does not end or start in time.
    pub async fn restart_worker(&mut self, id: &str) -> Result<()> {
        self.fleet.stop(id).await?;
        self.start_worker(id, &[]).await
    }

    /// Restarts every worker, one after the other.
    ///
    /// # Errors
    ///
    /// When one does not end or start in time.
    pub async fn restart_all(&mut self) -> Result<()> {
        for id in self.workers() {
            self.restart_worker(&id).await?;
        }
        Ok(())
    }

    /// Kills a member of etcd with SIGKILL and starts it again after a while.
    ///
    /// # Errors
    ///
    /// When it is not running, or does not start.
    pub async fn kill_member(&mut self, member: usize, away: Duration) -> Result<()> {
        self.stack.kill_etcd_member(member)?;
        sleep(away).await;
        self.stack.start_etcd_member(member).await
    }

    /// Kills two of etcd's members and starts them again after a while: nothing can be decided
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// When one is not running, or does not start.
    pub async fn lose_quorum(&mut self, away: Duration) -> Result<()> {
        let members = [1, 2];
        self.is_ill();
        for member in members {
            self.stack.kill_etcd_member(member)?;
        }
        sleep(away).await;
        for member in members {
            self.stack.start_etcd_member(member).await?;
        }
        self.is_well();
        Ok(())
    }

    /// Freezes etcd's leader for a while.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn pause_leader(&self, away: Duration) -> Result<()> {
        let leader = self.stack.etcd_leader().await?;
        self.stack.pause_etcd_member(leader)?;
        sleep(away).await;
        self.stack.resume_etcd_member(leader)
    }

    /// Does something to the network between a worker and the servers.
    ///
    /// # Errors
    ///
    /// When there is no such worker.
    pub fn set_network(&self, id: &str, from: CutOff, mode: Mode) -> Result<()> {
        let link = self.link(id)?;
        if from != CutOff::Mongo {
            link.etcd.iter().for_each(|proxy| proxy.set(mode));
        }
        if from != CutOff::Etcd {
            link.mongo.set(mode);
        }
        Ok(())
    }

    /// As [`set_network`](Self::set_network), for a while.
    ///
    /// # Errors
    ///
    /// When there is no such worker.
    pub async fn network(
        &self,
        id: &str,
        from: CutOff,
        mode: Mode,
        duration: Duration,
    ) -> Result<()> {
        self.set_network(id, from, mode)?;
        sleep(duration).await;
        self.set_network(id, from, Mode::Pass)
    }

    /// Pulls the cable of a worker that was started far away, for a while.
    ///
    /// # Errors
    ///
    /// When there is no such worker.
    pub async fn pull_cable(&self, id: &str, duration: Duration) -> Result<()> {
        let namespace = self.link(id)?.namespace.as_ref();
        let namespace = namespace.with_context(|| format!("worker {id} has no cable"))?;
        namespace.pull()?;
        sleep(duration).await;
        namespace.plug()
    }

    /// Compacts etcd up to now.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub async fn compact(&self) -> Result<()> {
        let mut etcd = self.etcd().await?;
        let answer = etcd.get("any", None).await.context("cannot read etcd")?;
        let revision = answer.header().context("etcd answered without a revision")?.revision();
        let options = CompactionOptions::new().with_physical();
        match etcd.compact(revision, Some(options)).await {
            // Nothing was written since the last time.
            Err(e) if e.to_string().contains("has been compacted") => Ok(()),
            compacted => compacted.map(drop).context("cannot compact"),
        }
    }

    /// Compacts etcd up to where it is, while a worker cannot hear what goes on.
    ///
    /// # Errors
    ///
    /// When etcd does not answer, or there is no such worker.
    pub async fn compact_behind(&self, id: &str) -> Result<()> {
        self.set_network(id, CutOff::Etcd, Mode::Drop)?;
        // Something has to happen of which it hears nothing.
        self.fires().await?;
        self.fires().await?;
        let compacted = self.compact().await;
        self.set_network(id, CutOff::Etcd, Mode::Pass)?;
        compacted
    }

    /// Puts so many keys that mean nothing among those of the fleet: a list of them has pages.
    ///
    /// # Errors
    ///
    /// When etcd does not take them.
    pub async fn fill_keys(&self, count: usize) -> Result<()> {
        let mut etcd = self.etcd().await?;
        let keys: Vec<usize> = (0..count).collect();
        for some in keys.chunks(100) {
            let put =
                |number| TxnOp::put(format!("{}/later/{number}", self.fleet.prefix()), "", None);
            let puts: Vec<TxnOp> = some.iter().map(put).collect();
            etcd.txn(Txn::new().and_then(puts)).await.context("cannot put keys")?;
        }
        Ok(())
    }

    /// Fills etcd until it takes no more, leaves it so for a while, then makes room again. Etcd
    /// needs a small quota for that: see [`Options::etcd_arguments`](super::Options).
    ///
    /// # Errors
    ///
    /// When it cannot be filled or emptied.
    pub async fn fill_etcd(&mut self, full: Duration) -> Result<()> {
        let value = vec![b'x'; FILLER];
        let until = Instant::now() + PATIENCE;
        let mut etcd = self.etcd().await?;
        for number in 0.. {
            ensure!(Instant::now() < until, "etcd is not full after {PATIENCE:?}");
            let put = etcd.put(format!("/filler/{number}"), value.clone(), None);
            if let Err(error) = timeout(ONE_TRY * 5, put).await? {
                let told = error.to_string();
                ensure!(told.contains("space exceeded"), "etcd cannot be filled: {told}");
                break;
            }
        }
        self.is_ill();
        sleep(full).await;
        let until = Instant::now() + PATIENCE;
        etcd.delete("/filler/", Some(DeleteOptions::new().with_prefix())).await?;
        self.compact().await?;
        // Members compact each in its own time, and a member that is still large raises the alarm
        // again, so this is done until a put succeeds.
        loop {
            for url in self.stack.etcd_member_urls() {
                let mut member = EtcdClient::connect([url], None).await?;
                member.defragment().await.context("cannot defragment")?;
            }
            // Of every member that raised it, which `etcdctl` finds out.
            self.stack.etcdctl(&["alarm", "disarm"])?;
            match etcd.put("/filler", "", None).await {
                Ok(_) => break,
                Err(error) if Instant::now() >= until => {
                    return Err(error).context("etcd is full for good");
                }
                Err(_) => sleep(ONE_TRY / 4).await,
            }
        }
        self.is_well();
        Ok(())
    }

    /// Sets the clock of one worker off by so many milliseconds.
    ///
    /// # Errors
    ///
    /// When there is no such worker, or its file cannot be written.
    pub fn set_clock(&self, id: &str, millis: i64) -> Result<()> {
        let file = &self.link(id)?.clock;
        let new = file.with_extension("new");
        fs::write(&new, millis.to_string())
            .and_then(|()| fs::rename(&new, file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Edits, pauses, deletes and makes a job again, each at the moment of a slot.
    ///
    /// # Errors
    ///
    /// When etcd does not take a change.
    pub async fn change_at_slots(&mut self, name: &str, load: &Load) -> Result<()> {
        let edited = Load { every: load.every + 1, ..load.clone() };
        at_a_slot().await;
        self.put(name, &edited).await?;
        at_a_slot().await;
        self.pause(name, &edited).await?;
        at_a_slot().await;
        self.put(name, &edited).await?;
        at_a_slot().await;
        self.delete(name).await?;
        at_a_slot().await;
        self.put(name, load).await
    }
}

/// Waits until the next second begins.
async fn at_a_slot() {
    let past = u64::from(Utc::now().timestamp_subsec_micros());
    sleep(Duration::from_micros(1_000_000_u64.saturating_sub(past))).await;
}
