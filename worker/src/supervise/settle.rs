//! The end of a run, told to etcd until it is answered, and what comes too late for that.

use std::time::Duration;

use carillon_core::claims::Step;
use carillon_core::decide::follow_up;
use carillon_core::id::RunId;
use carillon_core::job::Job;
use carillon_core::notify::attach;
use carillon_core::records::Records;
use carillon_core::replica::Versioned;
use carillon_core::run::{LiveRun, RunRecord, TriggerRequest};
use tokio::task::block_in_place;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{Charge, Supervisor};
use crate::clock;
use crate::ending::{Next, after};
use crate::ends::End;
use crate::fault::Point;
use crate::report::Report;

/// Pauses between attempts to end a run in etcd grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For how long a late result waits for the record that it belongs to.
const LATE_FOR: Duration = Duration::from_secs(3600);
/// Pauses between two looks for that record grow up to this.
const LATE_PAUSE: Duration = Duration::from_secs(60);

impl Supervisor {
    /// Turns the run's key into its `done/` record, and asks for another attempt if the job wants
    /// one, for as long as etcd takes to answer; whether an earlier try may have done so is
    /// `asked_before`. Returns the revision of the end, where it is known.
    pub(super) async fn end(
        &self,
        charge: &Charge,
        record: RunRecord,
        asked_before: bool,
    ) -> Option<i64> {
        let Charge { live, entry, .. } = charge;
        let record = record.kept_for(charge.retention_days);
        let again = follow_up(entry, live, record.outcome, clock::now());
        self.settle(live, entry.job(), record, again, asked_before).await
    }

    /// Tells etcd of an end that an earlier life of this worker could not.
    pub async fn catch_up(self, live: LiveRun, end: End) {
        info!(job = %live.job, run = %live.run, "telling etcd how it ended: {}", end.record.outcome);
        self.settle(&live, None, end.record, end.again, false).await;
    }

    /// As [`Supervisor::end`], and until then the end is on disk, should etcd not take it at once.
    async fn settle(
        &self,
        live: &LiveRun,
        job: Option<&Job>,
        record: RunRecord,
        again: Option<(RunId, TriggerRequest)>,
        asked_before: bool,
    ) -> Option<i64> {
        let ended_at = self.tell(live, job, record, again, asked_before).await;
        // However it ended, etcd has the last word by now.
        self.ends.forget(live.run);
        ended_at
    }

    async fn tell(
        &self,
        live: &LiveRun,
        job: Option<&Job>,
        mut record: RunRecord,
        mut again: Option<(RunId, TriggerRequest)>,
        mut asked_before: bool,
    ) -> Option<i64> {
        let mut pause = Duration::from_millis(100);
        let mut kept = false;
        loop {
            // One that was kept on disk has its own.
            if job.is_some() {
                attach(job, &mut record, again.is_some());
            }
            let step = Step::end(self.courier.keys(), live, &record, again.as_ref());
            let answer = self.courier.send(step).await;
            match after(&answer, record.outcome, again.is_some(), asked_before) {
                Next::Done(mod_revision) => {
                    self.fault.reach(Point::Settled);
                    let done = Box::new(Versioned { value: record, mod_revision });
                    self.send(Report::Done(live.job.clone(), done.clone())).await;
                    self.nudge.filed(job, &live.job, &done.value);
                    return Some(mod_revision);
                }
                Next::WithoutFollowUp => again = None,
                Next::TooLate => {
                    self.too_late(live, &record, asked_before);
                    return None;
                }
                Next::Over => return None,
                Next::Again => {
                    if let Err(e) = answer {
                        warn!(job = %live.job, run = %live.run, "cannot end the run in etcd yet: {e}");
                        asked_before |= e.is_ambiguous();
                    }
                    kept = kept || self.keep(&End::of(live, &record, again.as_ref()));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Writes an end down; returns whether the disk took it.
    fn keep(&self, end: &End) -> bool {
        let kept = block_in_place(|| self.ends.keep(end));
        if let Err(e) = &kept {
            warn!(run = %end.record.id, "its end is not on disk: {e}");
        }
        kept.is_ok()
    }

    /// The others took this worker for dead and settled the run: what it reports comes too late to
    /// be the outcome. Where it was `asked_before`, its end may be in etcd all the same.
    fn too_late(&self, live: &LiveRun, record: &RunRecord, asked_before: bool) {
        let late = format!("{} {}", record.outcome, record.err).trim().to_owned();
        let fate = if asked_before { "is over already" } else { "was taken for lost" };
        warn!(job = %live.job, run = %live.run, "{fate}; its late result: {late}");
        tokio::spawn(note_late(self.records.clone(), live.run, late));
    }
}

/// Notes a late result once the record is there that says the run was lost.
async fn note_late(records: Records, run: RunId, late: String) {
    let noted = async {
        let mut pause = Duration::from_secs(1);
        loop {
            match records.late_result(run, &late).await {
                Ok(true) => return,
                Ok(false) => debug!(%run, "its late result waits for its record"),
                Err(e) => debug!(%run, "its late result is not written yet: {e}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LATE_PAUSE);
        }
    };
    if timeout(LATE_FOR, noted).await.is_err() {
        warn!(%run, "its late result is not written: its record did not come");
    }
}
