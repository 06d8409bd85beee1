//! Everything an operator can do to the fleet, for the console and the subcommands alike. Each
//! write leaves a document in the audit trail; where MongoDB is away the write still happens and
//! the answer says that its trace is missing.

use std::collections::BTreeSet;

use carillon_core::claims::{Answer, BATCH, Claims, Step};
use carillon_core::decide::Cursor;
use carillon_core::etcd::{Etcd, EtcdError};
use carillon_core::fleet::FleetSettings;
use carillon_core::id::{JobName, RunId, Slot, WorkerId};
use carillon_core::job::{Change, Job, JobEntry};
use carillon_core::jobs::{Expected, Jobs, SaveError};
use carillon_core::records::{Purged, Records, RecordsError};
use carillon_core::recover::Reset;
use carillon_core::run::{KillRequest, LiveRun, Trigger, TriggerRequest};
use carillon_core::settings::Connection;
use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;

/// Who acts, for the audit trail. Read from the environment by `main.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user behind sudo, else the login name.
    pub user: String,
    /// The host that the action comes from.
    pub host: String,
    /// The SSH client's address.
    pub from: Option<String>,
}

impl Who {
    /// Finds out from environment variables, the host name and the user id.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
        host: String,
        login: Option<String>,
    ) -> Self {
        let set = |name| variable(name).filter(|text| !text.is_empty());
        let user = set("SUDO_USER")
            .or(login)
            .or_else(|| set("LOGNAME"))
            .or_else(|| set("USER"))
            .unwrap_or_else(|| "unknown".to_owned());
        let ssh = set("SSH_CONNECTION").or_else(|| set("SSH_CLIENT"));
        let from = ssh.and_then(|text| text.split_whitespace().next().map(str::to_owned));
        Self { user, host, from }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

/// Why something was not done.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// A job was wrong, or somebody else wrote it meanwhile.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// etcd did not answer or refused.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// MongoDB did not answer or refused.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// There is no such job.
    #[error("there is no job {0}")]
    NoSuchJob(JobName),
    /// The job's stored value is broken.
    #[error("the stored value of {name} is broken: {problems}")]
    Broken {
        /// The job.
        name: JobName,
        /// Everything that is wrong with it.
        problems: String,
    },
    /// Nobody answered when a run was asked for: it may come all the same.
    #[error("{error}; the run may start all the same, as {id}")]
    Unanswered {
        /// The id that it would have.
        id: RunId,
        /// What happened.
        error: EtcdError,
    },
    /// The run has ended already.
    #[error("the run {0} is not live any more")]
    NotLive(RunId),
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<T> {
    /// What came of it.
    pub value: T,
    /// Why the audit trail has no trace of it, where it has none.
    pub untraced: Option<String>,
}

/// The connections to both stores and the one who acts.
#[derive(Clone)]
pub struct Operator {
    /// etcd, for reading.
    pub etcd: Etcd,
    /// Records and output.
    pub records: Records,
    /// Who acts.
    pub who: Who,
    jobs: Jobs,
    claims: Claims,
}

impl Operator {
    /// Prepares both connections; nothing is sent yet.
    ///
    /// # Errors
    /// An address that cannot be one.
    pub async fn connect(connection: &Connection, who: Who) -> Result<Self, OperatorError> {
        let etcd = Etcd::connect(&connection.endpoints, connection.keys.clone()).await?;
        let records = Records::connect(connection.mongo.reveal(), connection.keys.fleet()).await?;
        Ok(Self {
            jobs: Jobs::new(etcd.clone()),
            claims: Claims::new(etcd.clone()),
            etcd,
            records,
            who,
        })
    }

    /// Reads one job, broken or whole.
    ///
    /// # Errors
    /// When etcd does not answer or refuses, or there is no such job.
    pub async fn job(&self, name: &JobName) -> Result<JobEntry, OperatorError> {
        let entry = self.jobs.get(name).await?;
        entry.ok_or_else(|| OperatorError::NoSuchJob(name.clone()))
    }

    /// Writes a job by compare-and-swap; the value is the revision of the write.
    ///
    /// # Errors
    /// Every problem of the job at once, a conflict, or a store's error.
    pub async fn save(
        &self,
        mut job: Job,
        expected: Expected,
        what: &str,
        now: DateTime<Utc>,
    ) -> Result<Done<i64>, OperatorError> {
        job.updated_at = Some(now);
        let checked = job.check().map_err(SaveError::from)?;
        let before = match expected {
            Expected::Absent => None,
            Expected::Revision(_) => self.jobs.get(&checked.name).await?.map(|entry| entry.raw),
        };
        let revision = match self.jobs.save(&job, expected).await {
            // The answer to an earlier save of the same was lost: it was carried out.
            Err(SaveError::Conflict(Some(theirs))) if is_same(&theirs, &job) => theirs.mod_revision,
            saved => saved?,
        };
        let after = Some(job.to_json());
        let untraced = self.trace(checked.name.as_str(), what, before, after, revision, now).await;
        Ok(Done { value: revision, untraced })
    }

    /// Pauses or resumes a job; the value says whether that changed anything.
    ///
    /// # Errors
    /// When the job is missing, broken or written by somebody else meanwhile, or etcd fails.
    pub async fn set_enabled(
        &self,
        name: &JobName,
        enabled: bool,
        now: DateTime<Utc>,
    ) -> Result<Done<bool>, OperatorError> {
        let entry = self.job(name).await?;
        let checked = entry.state.map_err(|problems| OperatorError::Broken {
            name: name.clone(),
            problems: problems.to_string(),
        })?;
        if checked.job.enabled == enabled {
            return Ok(Done { value: false, untraced: None });
        }
        let job = Job { enabled, ..checked.job };
        let what = if enabled { "resume" } else { "pause" };
        let expected = Expected::Revision(entry.mod_revision);
        let done = self.save(job, expected, what, now).await?;
        Ok(Done { value: true, untraced: done.untraced })
    }

    /// Deletes a job that stands at `revision`.
    ///
    /// # Errors
    /// A conflict where it was written meanwhile, or a store's error.
    pub async fn delete(
        &self,
        name: &JobName,
        revision: i64,
        now: DateTime<Utc>,
    ) -> Result<Done<i64>, OperatorError> {
        let before = self.jobs.get(name).await?.map(|entry| entry.raw);
        let revision = self.jobs.delete(name, revision).await?;
        let untraced = self.trace(name.as_str(), "delete", before, None, revision, now).await;
        Ok(Done { value: revision, untraced })
    }

    /// Asks for a run of the job now; the value is the id that the run will have.
    ///
    /// # Errors
    /// When the job is missing, broken or deleted meanwhile, or etcd fails.
    pub async fn run_now(
        &self,
        name: &JobName,
        now: DateTime<Utc>,
    ) -> Result<Done<RunId>, OperatorError> {
        let entry = self.job(name).await?;
        let checked = entry.state.map_err(|problems| OperatorError::Broken {
            name: name.clone(),
            problems: problems.to_string(),
        })?;
        let id = RunId::new(now);
        let deadline = TimeDelta::seconds(checked.job.start_deadline_secs.into());
        let request = TriggerRequest {
            kind: Trigger::Manual,
            slot: None,
            attempt: 1,
            not_before: now,
            not_after: now + deadline,
            on: None,
            job_created: entry.create_revision,
            by: self.who.to_string(),
        };
        let answer = self.claims.request_run(name, id, &request).await.map_err(|error| {
            if error.is_ambiguous() {
                OperatorError::Unanswered { id, error }
            } else {
                error.into()
            }
        })?;
        match answer {
            Answer::Done(revision) => {
                let untraced = self.trace(name.as_str(), "run", None, None, revision, now).await;
                Ok(Done { value: id, untraced })
            }
            Answer::Refused(_) => Err(OperatorError::NoSuchJob(name.clone())),
        }
    }

    /// Asks for the end of a run.
    ///
    /// # Errors
    /// When the run has ended already, or etcd fails.
    pub async fn kill(
        &self,
        job: &JobName,
        run: RunId,
        now: DateTime<Utc>,
    ) -> Result<Done<i64>, OperatorError> {
        let request = KillRequest { grace_secs: None, by: self.who.to_string(), at: now };
        match self.claims.request_kill(job, run, &request).await? {
            Answer::Done(revision) => {
                let untraced = self
                    .trace(job.as_str(), &format!("kill {run}"), None, None, revision, now)
                    .await;
                Ok(Done { value: revision, untraced })
            }
            Answer::Refused(_) => Err(OperatorError::NotLive(run)),
        }
    }

    /// Asks a worker to take nothing new, or to take work again.
    ///
    /// # Errors
    /// When etcd fails.
    pub async fn drain(
        &self,
        worker: &WorkerId,
        on: bool,
        now: DateTime<Utc>,
    ) -> Result<Done<()>, OperatorError> {
        let revision = self.claims.request_drain(worker, on).await?;
        let what = format!("{} {worker}", if on { "drain" } else { "undrain" });
        let untraced = self.trace("", &what, None, None, revision, now).await;
        Ok(Done { value: (), untraced })
    }

    /// Puts cursors where they belong, each if it still stands where it was read. The value is, for
    /// each, whether that was so.
    ///
    /// # Errors
    /// When etcd fails; then some may have been put and others not.
    pub async fn reset_cursors(
        &self,
        resets: &[Reset],
        now: DateTime<Utc>,
    ) -> Result<Done<Vec<bool>>, OperatorError> {
        let steps: Vec<Step> = resets.iter().map(|r| r.step(self.etcd.keys())).collect();
        let answers = self.send_all(&steps).await?;
        let mut untraced = None;
        for (reset, answer) in resets.iter().zip(&answers) {
            let Answer::Done(revision) = answer else { continue };
            let on = reset.on.as_ref().map(|on| format!(" of {on}")).unwrap_or_default();
            let what = format!("recover: cursor{on} to {}", Slot::at(reset.cursor.through));
            let before =
                serde_json::to_vec(&Cursor { through: reset.from, ..reset.cursor.clone() });
            let after = serde_json::to_string(&reset.cursor);
            let trace =
                self.trace(reset.job.as_str(), &what, before.ok(), after.ok(), *revision, now);
            untraced = trace.await.or(untraced);
        }
        let put = answers.iter().map(|answer| matches!(answer, Answer::Done(_))).collect();
        Ok(Done { value: put, untraced })
    }

    /// Clears away what a restored etcd still holds that is over; the value is how many of the
    /// steps were still needed.
    ///
    /// # Errors
    /// When etcd fails.
    pub async fn clear_away(
        &self,
        steps: &[Step],
        what: &str,
        now: DateTime<Utc>,
    ) -> Result<Done<usize>, OperatorError> {
        let answers = self.send_all(steps).await?;
        let mut untraced = None;
        for (step, answer) in steps.iter().zip(&answers) {
            if let Answer::Done(revision) = answer {
                let trace = self.trace(step.job.as_str(), what, None, None, *revision, now);
                untraced = trace.await.or(untraced);
            }
        }
        let count = answers.iter().filter(|answer| matches!(answer, Answer::Done(_))).count();
        Ok(Done { value: count, untraced })
    }

    /// Tells the workers that a restored etcd was recovered: those that stand by go on. The value
    /// says whether the settings were still at the revision `read`.
    ///
    /// # Errors
    /// When etcd fails.
    pub async fn set_recovered(
        &self,
        settings: FleetSettings,
        read: i64,
        now: DateTime<Utc>,
    ) -> Result<Done<bool>, OperatorError> {
        // It must be newer than what the workers remember, whatever clock wrote that.
        let later = settings.recovered.map(|at| at + TimeDelta::milliseconds(1));
        let recovered = later.map_or(now, |later| later.max(now));
        let before = serde_json::to_vec(&settings).ok();
        let settings = FleetSettings { recovered: Some(recovered), ..settings };
        match self.claims.write_settings(read, &settings).await? {
            Answer::Done(revision) => {
                let after = serde_json::to_string(&settings).ok();
                let untraced = self.trace("", "recover", before, after, revision, now).await;
                Ok(Done { value: true, untraced })
            }
            Answer::Refused(_) => Ok(Done { value: false, untraced: None }),
        }
    }

    /// Deletes the records and the output of what is over and started before `older_than`; what
    /// was deleted so far is told after each batch.
    ///
    /// # Errors
    /// When MongoDB fails; then some was deleted, which is in the audit trail too.
    pub async fn purge(
        &self,
        older_than: DateTime<Utc>,
        job: Option<&JobName>,
        now: DateTime<Utc>,
        mut told: impl FnMut(Purged),
    ) -> Result<Done<Purged>, OperatorError> {
        let mut purge = self.records.purge(older_than, job, true);
        let mut so_far = Purged::default();
        let failed = loop {
            match purge.next().await {
                Ok(Some(purged)) => {
                    if purged.records > so_far.records {
                        told(purged);
                    }
                    so_far = purged;
                }
                Ok(None) => break None,
                Err(e) => break Some(e),
            }
        };
        let Purged { records, .. } = so_far;
        let mut untraced = None;
        if records > 0 {
            let before = older_than.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            let what = format!("purge: {records} records older than {before}");
            let job = job.map(JobName::as_str).unwrap_or_default();
            untraced = self.trace(job, &what, None, None, 0, now).await;
        }
        match failed {
            Some(e) => Err(e.into()),
            None => Ok(Done { value: so_far, untraced }),
        }
    }

    /// Sends steps in batches in which no job occurs twice.
    async fn send_all(&self, steps: &[Step]) -> Result<Vec<Answer>, OperatorError> {
        let mut answers = Vec::with_capacity(steps.len());
        let mut rest = steps;
        while !rest.is_empty() {
            let mut jobs = BTreeSet::new();
            let alone = |step: &&Step| jobs.insert(step.job.clone());
            let count = rest.iter().take(BATCH).take_while(alone).count();
            let (batch, left) = rest.split_at(count);
            for answer in self.claims.send(batch).await {
                answers.push(answer?);
            }
            rest = left;
        }
        Ok(answers)
    }

    /// Leaves a document in the audit trail; returns why there is none.
    async fn trace(
        &self,
        job: &str,
        what: &str,
        before: Option<Vec<u8>>,
        after: Option<String>,
        revision: i64,
        now: DateTime<Utc>,
    ) -> Option<String> {
        let change = Change {
            id: RunId::new(now),
            job_name: job.to_string(),
            what: what.to_owned(),
            who: self.who.user.clone(),
            host: self.who.host.clone(),
            from: self.who.from.clone(),
            before: before.map(|raw| String::from_utf8_lossy(&raw).into_owned()),
            after,
            revision,
        };
        self.records.record_change(&change).await.err().map(|e| e.to_string())
    }
}

/// Whether two writes of a job differ in nothing but their date.
pub fn is_same(stored: &JobEntry, job: &Job) -> bool {
    let without_date = |job: &Job| Job { updated_at: None, ..job.clone() };
    stored.misnamed().is_none()
        && stored.job().is_some_and(|stored| without_date(stored) == without_date(job))
}

/// The live runs of one job, oldest first, read now.
///
/// # Errors
/// When etcd does not answer or refuses.
pub async fn live_runs(etcd: &Etcd, job: &JobName) -> Result<Vec<LiveRun>, EtcdError> {
    let mut replica: carillon_core::replica::Replica = Default::default();
    replica.apply(etcd.keys(), &etcd.snapshot().await?, Utc::now());
    Ok(replica.live_of(job).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_behind_sudo_and_ssh_is_named() {
        let variable = |name: &str| match name {
            "SUDO_USER" => Some("alice".to_owned()),
            "SSH_CONNECTION" => Some("10.1.2.3 55000 10.0.0.1 22".to_owned()),
            _ => None,
        };
        let who = Who::from_environment(variable, "ops1".into(), Some("root".into()));
        assert_eq!(who.to_string(), "alice@ops1");
        assert_eq!(who.from.as_deref(), Some("10.1.2.3"));
        let nobody = Who::from_environment(|_| None, "ops1".into(), None);
        assert_eq!(nobody.user, "unknown");
    }
}
