//! The layout of the keys in etcd. No other file spells a key.

use std::fmt;

use thiserror::Error;

use crate::id::{IdError, JobName, RunId, WorkerId};
use crate::run::LiveRun;

/// The prefix used where none is configured.
pub const DEFAULT_PREFIX: &str = "/cron";

/// A prefix that no key can be built on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a key prefix: it must begin with `/`, not end with one, and hold no control characters"
)]
pub struct BadPrefix(String);

/// Builds and reads the keys of one fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// A key under the prefix, taken apart. Ordered so that it can index a set of touched keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `jobs/<job>`
    Job(JobName),
    /// `cursor/<job>`, or `cursor/<job>/<worker>` of a job that runs on every worker
    Cursor(JobName, Option<WorkerId>),
    /// `running/<job>/<run>`, or `running/<job>/<worker>/<run>` of such a job
    Running(JobName, Option<WorkerId>, RunId),
    /// `done/<job>/<id>`
    Done(JobName, RunId),
    /// `trigger/<job>/<id>`
    Trigger(JobName, RunId),
    /// `killer/<job>`: every live run of the job
    KillJob(JobName),
    /// `killer/<job>/<run>`
    KillRun(JobName, RunId),
    /// `workers/<worker>`
    Worker(WorkerId),
    /// `drain/<worker>`
    Drain(WorkerId),
    /// `settings`
    Settings,
    /// A key that this version does not know: left alone.
    Unknown(String),
    /// A key in the place of a job whose name breaks the rules.
    Misnamed(String, IdError),
}

/// The key without the prefix.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(text) => f.write_str(text),
            Self::Misnamed(name, _) => write!(f, "jobs/{name}"),
            Self::Job(job) => write!(f, "jobs/{job}"),
            Self::Cursor(job, None) => write!(f, "cursor/{job}"),
            Self::Cursor(job, Some(on)) => write!(f, "cursor/{job}/{on}"),
            Self::Running(job, None, run) => write!(f, "running/{job}/{run}"),
            Self::Running(job, Some(on), run) => write!(f, "running/{job}/{on}/{run}"),
            Self::Done(job, id) => write!(f, "done/{job}/{id}"),
            Self::Trigger(job, id) => write!(f, "trigger/{job}/{id}"),
            Self::KillJob(job) => write!(f, "killer/{job}"),
            Self::KillRun(job, run) => write!(f, "killer/{job}/{run}"),
            Self::Worker(worker) => write!(f, "workers/{worker}"),
            Self::Drain(worker) => write!(f, "drain/{worker}"),
            Self::Settings => f.write_str("settings"),
        }
    }
}

impl Keys {
    /// Keys under `prefix`, such as `/cron`.
    ///
    /// # Errors
    /// Refuses a prefix without leading `/`, with a trailing one, or with control characters.
    pub fn new(prefix: &str) -> Result<Self, BadPrefix> {
        let fine = prefix.len() > 1
            && prefix.starts_with('/')
            && !prefix.ends_with('/')
            && !prefix.chars().any(char::is_control);
        if fine {
            Ok(Self { prefix: prefix.to_owned() })
        } else {
            Err(BadPrefix(prefix.to_owned()))
        }
    }

    /// The prefix itself, which also names the fleet in MongoDB.
    pub fn fleet(&self) -> &str {
        &self.prefix
    }

    /// Everything of this fleet, as a range prefix.
    pub fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// `jobs/<job>`
    pub fn job(&self, job: &JobName) -> String {
        self.under("jobs", job)
    }

    /// All jobs, as a range prefix.
    pub fn jobs(&self) -> String {
        format!("{}/jobs/", self.prefix)
    }

    /// `cursor/<job>`, or `cursor/<job>/<worker>` of a job that runs on every worker
    pub fn cursor(&self, job: &JobName, on: Option<&WorkerId>) -> String {
        match on {
            None => self.under("cursor", job),
            Some(worker) => format!("{}/cursor/{job}/{worker}", self.prefix),
        }
    }

    /// `running/<job>/<run>`, or `running/<job>/<worker>/<run>` of a job that runs on every worker
    pub fn running(&self, job: &JobName, on: Option<&WorkerId>, run: RunId) -> String {
        format!("{}{run}", self.running_of(job, on))
    }

    /// The key of a live run.
    pub fn running_key(&self, live: &LiveRun) -> String {
        self.running(&live.job, live.on.as_ref(), live.run)
    }

    /// All live runs of one job, or those that are `on` one worker, as a range prefix.
    pub fn running_of(&self, job: &JobName, on: Option<&WorkerId>) -> String {
        match on {
            None => format!("{}/running/{job}/", self.prefix),
            Some(worker) => format!("{}/running/{job}/{worker}/", self.prefix),
        }
    }

    /// `done/<job>/<id>`
    pub fn done(&self, job: &JobName, id: RunId) -> String {
        format!("{}/done/{job}/{id}", self.prefix)
    }

    /// `trigger/<job>/<id>`
    pub fn trigger(&self, job: &JobName, id: RunId) -> String {
        format!("{}/trigger/{job}/{id}", self.prefix)
    }

    /// `killer/<job>`
    pub fn kill_job(&self, job: &JobName) -> String {
        self.under("killer", job)
    }

    /// `killer/<job>/<run>`
    pub fn kill_run(&self, job: &JobName, run: RunId) -> String {
        format!("{}/killer/{job}/{run}", self.prefix)
    }

    /// `workers/<worker>`
    pub fn worker(&self, worker: &WorkerId) -> String {
        self.under("workers", worker)
    }

    /// `drain/<worker>`
    pub fn drain(&self, worker: &WorkerId) -> String {
        self.under("drain", worker)
    }

    /// `settings`
    pub fn settings(&self) -> String {
        format!("{}/settings", self.prefix)
    }

    fn under(&self, folder: &str, name: impl fmt::Display) -> String {
        format!("{}/{folder}/{name}", self.prefix)
    }

    /// Takes a key apart.
    pub fn parse(&self, key: &[u8]) -> Key {
        let text = String::from_utf8_lossy(key);
        self.try_parse(&text).unwrap_or_else(|| Key::Unknown(text.into_owned()))
    }

    fn try_parse(&self, key: &str) -> Option<Key> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        if rest == "settings" {
            return Some(Key::Settings);
        }
        let (folder, rest) = rest.split_once('/')?;
        if folder == "jobs" {
            return Some(match JobName::new(rest) {
                Ok(job) => Key::Job(job),
                Err(why) => Key::Misnamed(rest.to_owned(), why),
            });
        }
        let mut parts = rest.split('/');
        let (name, more, last) = (parts.next()?, parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        let job = || JobName::new(name).ok();
        let worker = |text: &str| WorkerId::new(text).ok();
        let id = |text: &str| text.parse::<RunId>().ok();
        Some(match (folder, more, last) {
            ("cursor", None, None) => Key::Cursor(job()?, None),
            ("cursor", Some(on), None) => Key::Cursor(job()?, Some(worker(on)?)),
            ("running", Some(run), None) => Key::Running(job()?, None, id(run)?),
            ("running", Some(on), Some(run)) => Key::Running(job()?, Some(worker(on)?), id(run)?),
            ("done", Some(done), None) => Key::Done(job()?, id(done)?),
            ("trigger", Some(trigger), None) => Key::Trigger(job()?, id(trigger)?),
            ("killer", None, None) => Key::KillJob(job()?),
            ("killer", Some(run), None) => Key::KillRun(job()?, id(run)?),
            ("workers", None, None) => Key::Worker(worker(name)?),
            ("drain", None, None) => Key::Drain(worker(name)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_round_trips() {
        let keys = Keys::new("/cron").unwrap();
        let job = JobName::new("每日清算").unwrap();
        let run: RunId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let worker = WorkerId::new("w1").unwrap();
        let cases = [
            (keys.job(&job), Key::Job(job.clone())),
            (keys.cursor(&job, None), Key::Cursor(job.clone(), None)),
            (keys.cursor(&job, Some(&worker)), Key::Cursor(job.clone(), Some(worker.clone()))),
            (keys.running(&job, None, run), Key::Running(job.clone(), None, run)),
            (
                keys.running(&job, Some(&worker), run),
                Key::Running(job.clone(), Some(worker.clone()), run),
            ),
            (keys.done(&job, run), Key::Done(job.clone(), run)),
            (keys.trigger(&job, run), Key::Trigger(job.clone(), run)),
            (keys.kill_job(&job), Key::KillJob(job.clone())),
            (keys.kill_run(&job, run), Key::KillRun(job, run)),
            (keys.worker(&worker), Key::Worker(worker.clone())),
            (keys.drain(&worker), Key::Drain(worker)),
            (keys.settings(), Key::Settings),
        ];
        for (text, key) in cases {
            assert_eq!(keys.parse(text.as_bytes()), key, "{text}");
            assert_eq!(format!("/cron/{key}"), text);
        }
    }

    #[test]
    fn strange_keys_are_told_apart() {
        let keys = Keys::new("/cron").unwrap();
        assert!(matches!(keys.parse(b"/cron/jobs/a/b"), Key::Misnamed(n, _) if n == "a/b"));
        assert!(matches!(keys.parse(b"/cron/jobs/\xff"), Key::Job(_)));
        for strange in [
            "/cron/running/a",
            "/cron/running/a/w",
            "/cron/done/a/b/c",
            "/cron/future/x",
            "/other/jobs/a",
            "/cron",
            "",
        ] {
            assert_eq!(keys.parse(strange.as_bytes()), Key::Unknown(strange.to_owned()));
        }
    }

    #[test]
    fn prefixes_are_checked() {
        assert!(Keys::new("/team/cron").is_ok());
        for bad in ["", "/", "cron", "/cron/", "/a\n"] {
            assert!(Keys::new(bad).is_err(), "{bad:?}");
        }
    }
}
