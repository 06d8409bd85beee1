//! A job as it stands in etcd: its fields, their defaults, and the check that names every problem
//! at once. What a policy *does* is decided in [`crate::decide`] and in the worker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{JobName, RunId};
use crate::notice::Policy;
use crate::schedule::{Interner, Schedule, spread_of};
use crate::zones::parse_zone;

/// The largest command, and the largest `NAME=value` of the environment, in bytes: Linux takes at
/// most 128 KiB in one argument, its final NUL included (`MAX_ARG_STRLEN`, execve(2)).
pub const COMMAND_MAX_BYTES: usize = 128 * 1024 - 1;

/// The largest job that is accepted, in bytes of JSON.
pub const JOB_MAX_BYTES: usize = 512 * 1024;

/// A job: what to run, when, and under which policies.
///
/// Only `name`, `command` and `cronExpr` are needed. Fields at their default are not written, and
/// fields that this version does not know are kept in `extra`, so a rewrite loses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Job {
    /// The job's name. In etcd the key is authoritative over this field.
    pub name: String,
    /// The text given to the shell.
    pub command: String,
    /// When to run, in the dialect of [`crate::schedule`].
    pub cron_expr: String,
    /// Whether the schedule is followed. A paused job can still be run by hand.
    #[serde(skip_serializing_if = "is_default_true")]
    pub enabled: bool,
    /// IANA zone of the schedule; the fleet's default zone where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Free text for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Who to ask about the job.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Describe the job: `team=pay`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The labels that a worker must carry to run this job.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Once in the fleet, or once on every worker.
    #[serde(skip_serializing_if = "is_default")]
    pub scope: Scope,
    /// What happens when a slot comes while an earlier run is live.
    #[serde(skip_serializing_if = "is_default")]
    pub concurrency: Concurrency,
    /// How late a run may start, in seconds after its slot.
    #[serde(skip_serializing_if = "is_start_deadline")]
    pub start_deadline_secs: u32,
    /// What becomes of slots that passed while no worker could run them.
    #[serde(skip_serializing_if = "is_default")]
    pub catch_up: CatchUp,
    /// How far back catch-up reaches, in seconds.
    #[serde(skip_serializing_if = "is_catch_up_window")]
    pub catch_up_window_secs: u32,
    /// After how many seconds a run is ended; 0 is never.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_secs: u32,
    /// Further attempts after a failure.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Retries,
    /// What a worker that lost its lease does with its runs.
    #[serde(skip_serializing_if = "is_default")]
    pub on_lease_loss: OnLeaseLoss,
    /// What follows when a worker is lost in the middle of a run.
    #[serde(skip_serializing_if = "is_default")]
    pub on_lost: OnLost,
    /// Seconds between SIGTERM and SIGKILL.
    #[serde(skip_serializing_if = "is_kill_grace")]
    pub kill_grace_secs: u32,
    /// Where the periods of `@every` begin; the Unix epoch where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<DateTime<Utc>>,
    /// Starts are spread over this many seconds, by a hash of the name.
    #[serde(skip_serializing_if = "is_default")]
    pub spread_secs: u32,
    /// The system user that the command runs as; the worker's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory the command starts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment variables for the command.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The shell, called as `SHELL -c COMMAND`.
    #[serde(skip_serializing_if = "is_shell")]
    pub shell: String,
    /// File mode mask of the command, in octal: `"027"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// How much the command yields to others, from -20 (not at all) to 19 (always), as nice(1); the
    /// worker's own where absent. Less than the worker's own takes root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// Resource limits of the command.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// How much output of one run is kept, in bytes.
    #[serde(skip_serializing_if = "is_output_limit")]
    pub output_limit_bytes: u64,
    /// What happens past the output limit.
    #[serde(skip_serializing_if = "is_default")]
    pub overflow: Overflow,
    /// For how many days the job's records are kept; the fleet's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Whom to tell about what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<Box<Policy>>,
    /// When Carillon last wrote the job; absent when another tool did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    /// Fields of other tools or later versions, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Once in the fleet, or once on every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// One worker runs each slot.
    #[default]
    Once,
    /// Every eligible worker runs each slot.
    EveryWorker,
}

/// What happens when a slot comes while an earlier run of the job is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Concurrency {
    /// The slot is skipped.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The earlier run is killed first.
    Replace,
}

impl Concurrency {
    /// Every policy, in the order shown to a user.
    pub const ALL: [Self; 3] = [Self::Forbid, Self::Allow, Self::Replace];
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Forbid => "forbid",
            Self::Allow => "allow",
            Self::Replace => "replace",
        })
    }
}

/// What becomes of slots that passed while no worker could run them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CatchUp {
    /// They are recorded as missed.
    #[default]
    None,
    /// The newest runs, the others are recorded as missed.
    Latest,
    /// All run, oldest first.
    All,
}

/// Further attempts after a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retries {
    /// How many attempts may follow the first.
    pub max: u32,
    /// Seconds before the first retry; doubled before each further one.
    pub delay_secs: u32,
    /// The longest delay, in seconds.
    pub max_delay_secs: u32,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 0, delay_secs: 10, max_delay_secs: 600, extra: Map::new() }
    }
}

/// What a worker that lost its lease does with its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnLeaseLoss {
    /// They are killed.
    #[default]
    Kill,
    /// They go on to their end or their time-out.
    Continue,
}

/// What follows when a worker is lost in the middle of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnLost {
    /// The run is recorded as lost.
    #[default]
    Record,
    /// And it runs again.
    Rerun,
}

/// What happens when a run writes faster than its output can be stored. Past `outputLimitBytes` only
/// the tail is kept either way, and nothing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Overflow {
    /// What comes meanwhile is dropped, and counted in the output; the run is never slowed.
    #[default]
    DropMiddle,
    /// The run waits when it writes, and nothing within its limit is dropped. While MongoDB is away,
    /// it stands still.
    Block,
}

/// Resource limits of the command, as in setrlimit(2), each for every single process but
/// `processes`; absent is the worker's own limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Address space, in bytes (`RLIMIT_AS`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processor time, in seconds (`RLIMIT_CPU`): then SIGXCPU, and SIGKILL five seconds later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_secs: Option<u64>,
    /// File descriptors (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes and threads that the user has on the machine (`RLIMIT_NPROC`); root is not bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: String::new(),
            cron_expr: String::new(),
            enabled: true,
            timezone: None,
            description: String::new(),
            owner: String::new(),
            labels: BTreeMap::new(),
            selector: BTreeMap::new(),
            scope: Scope::Once,
            concurrency: Concurrency::Forbid,
            start_deadline_secs: DEFAULT_START_DEADLINE_SECS,
            catch_up: CatchUp::None,
            catch_up_window_secs: DEFAULT_CATCH_UP_WINDOW_SECS,
            timeout_secs: 0,
            retries: Retries::default(),
            on_lease_loss: OnLeaseLoss::Kill,
            on_lost: OnLost::Record,
            kill_grace_secs: DEFAULT_KILL_GRACE_SECS,
            anchor: None,
            spread_secs: 0,
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            shell: DEFAULT_SHELL.to_owned(),
            umask: None,
            nice: None,
            limits: Limits::default(),
            output_limit_bytes: DEFAULT_OUTPUT_LIMIT_BYTES,
            overflow: Overflow::DropMiddle,
            retention_days: None,
            notify: None,
            updated_at: None,
            extra: Map::new(),
        }
    }
}

impl Retries {
    /// How many seconds an attempt comes after the one before it ended; the first retry is the
    /// attempt 2.
    pub fn delay_before(&self, attempt: u32) -> u32 {
        let doublings = attempt.saturating_sub(2);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.delay_secs.saturating_mul(factor).min(self.max_delay_secs)
    }
}

const DEFAULT_START_DEADLINE_SECS: u32 = 60;
const DEFAULT_CATCH_UP_WINDOW_SECS: u32 = 86_400;
const DEFAULT_KILL_GRACE_SECS: u32 = 10;
const DEFAULT_OUTPUT_LIMIT_BYTES: u64 = 100 * 1024 * 1024;
const DEFAULT_SHELL: &str = "/bin/sh";
/// Less, and no shell starts.
const MIN_MEMORY_BYTES: u64 = 1 << 20;
/// The three streams, and one for the program loader.
const MIN_OPEN_FILES: u64 = 4;
/// What the stores keep as a number.
const MAX_LIMIT: u64 = i64::MAX as u64;
const MAX_SPREAD_SECS: u32 = 64_800;
const ANCHOR_YEARS: std::ops::RangeInclusive<i32> = 1970..=2100;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
fn is_default_true(value: &bool) -> bool {
    *value
}
fn is_start_deadline(value: &u32) -> bool {
    *value == DEFAULT_START_DEADLINE_SECS
}
fn is_catch_up_window(value: &u32) -> bool {
    *value == DEFAULT_CATCH_UP_WINDOW_SECS
}
fn is_kill_grace(value: &u32) -> bool {
    *value == DEFAULT_KILL_GRACE_SECS
}
fn is_output_limit(value: &u64) -> bool {
    *value == DEFAULT_OUTPUT_LIMIT_BYTES
}
fn is_shell(value: &str) -> bool {
    value == DEFAULT_SHELL
}

/// One thing that is wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The field as it is spelled in JSON; empty when the whole text is meant.
    pub field: String,
    /// What is wrong, in words for an operator.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

/// Everything that is wrong with a job; never empty where it stands in an `Err`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(Problem { field: field.to_owned(), message: message.into() });
    }

    /// The first problem of `field`, if it has one.
    pub fn of(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|p| p.field == field).map(|p| p.message.as_str())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A job that may be written or run: it has passed [`Job::check`], and its parsed parts are at
/// hand.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The validated name.
    pub name: JobName,
    /// The job as written.
    pub job: Job,
    /// The compiled schedule.
    pub schedule: Schedule,
    /// The job's own zone; `None` means the fleet's default.
    pub zone: Option<Tz>,
}

impl Job {
    /// Reads a job from JSON text. The job is well-formed but not yet checked for sense.
    ///
    /// # Errors
    /// Names every field whose type is wrong, not only the first.
    pub fn from_json(text: &[u8]) -> Result<Self, Problems> {
        // The way of a value takes several times as long, and only tells more of what is wrong.
        if let Ok(job) = serde_json::from_slice(text) {
            return Ok(job);
        }
        match serde_json::from_slice(text) {
            Ok(value) => Self::from_value(value),
            Err(e) => {
                let mut problems = Problems::default();
                problems.add("", format!("not JSON: {e}"));
                Err(problems)
            }
        }
    }

    /// Reads a job from a JSON value; see [`Job::from_json`].
    ///
    /// # Errors
    /// Names every field whose type is wrong, not only the first.
    pub fn from_value(value: Value) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let Value::Object(fields) = value else {
            problems
                .add("", "a job is a JSON object, {\"name\": …, \"command\": …, \"cronExpr\": …}");
            return Err(problems);
        };
        match serde_json::from_value(Value::Object(fields.clone())) {
            Ok(job) => return Ok(job),
            Err(e) => {
                // Ask again field by field, so that all wrong ones are named at once, and check what
                // the others hold.
                let mut sound = Map::new();
                for (field, value) in fields {
                    let alone = Map::from_iter([(field.clone(), value.clone())]);
                    match serde_json::from_value::<Self>(Value::Object(alone)) {
                        Ok(_) => drop(sound.insert(field, value)),
                        Err(e) => problems.add(&field, e.to_string()),
                    }
                }
                let rest = serde_json::from_value::<Self>(Value::Object(sound)).ok();
                if let Some(Err(more)) = rest.map(|job| job.check()) {
                    let new = |p: &Problem| problems.of(&p.field).is_none();
                    let more: Vec<Problem> = more.0.into_iter().filter(new).collect();
                    problems.0.extend(more);
                }
                if problems.0.is_empty() {
                    problems.add("", e.to_string());
                }
            }
        }
        Err(problems)
    }

    /// The job as the JSON text that is stored in etcd.
    pub fn to_json(&self) -> String {
        // A struct of strings, numbers and maps with string keys always serializes.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Checks everything that can be known without a worker.
    ///
    /// # Errors
    /// Returns every problem at once.
    pub fn check(&self) -> Result<Checked, Problems> {
        self.check_sharing(&mut Interner::default())
    }

    /// As [`Self::check`], sharing the schedule with jobs that are spelled alike.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_sharing(&self, schedules: &mut Interner) -> Result<Checked, Problems> {
        self.clone().into_checked(schedules, usize::MAX)
    }

    /// As [`Self::check_sharing`], of a job that was written in so many bytes of JSON.
    fn into_checked(self, schedules: &mut Interner, written: usize) -> Result<Checked, Problems> {
        let mut problems = Problems::default();
        let name = JobName::new(&self.name).map_err(|e| problems.add("name", e.to_string())).ok();
        self.check_command(&mut problems);
        let schedule = if self.cron_expr.trim().is_empty() {
            problems.add("cronExpr", "a schedule is needed, for example `0 1 * * *` or `@hourly`");
            None
        } else {
            schedules
                .for_job(&self.cron_expr, &self.name, self.anchor)
                .map_err(|e| problems.add("cronExpr", e.to_string()))
                .ok()
        };
        let zone = match self.timezone.as_deref().map(parse_zone) {
            Some(Err(message)) => {
                problems.add("timezone", message);
                None
            }
            Some(Ok(zone)) => Some(zone),
            None => None,
        };
        self.check_policies(&mut problems);
        // Written anew it may be longer, by a number's zeros, but not many times.
        if written > JOB_MAX_BYTES / 8 && self.to_json().len() > JOB_MAX_BYTES {
            problems.add("", format!("the job is larger than {JOB_MAX_BYTES} bytes of JSON"));
        }
        match (name, schedule) {
            (Some(name), Some(schedule)) if problems.0.is_empty() => {
                Ok(Checked { name, job: self, schedule, zone })
            }
            _ => Err(problems),
        }
    }

    fn check_command(&self, problems: &mut Problems) {
        if self.command.trim().is_empty() {
            problems.add("command", "a command is needed");
        } else if self.command.len() > COMMAND_MAX_BYTES {
            let size = self.command.len();
            problems.add(
                "command",
                format!("{size} bytes; at most {COMMAND_MAX_BYTES} are allowed (put long scripts in a file)"),
            );
        } else if self.command.contains('\0') {
            problems.add("command", "contains a NUL character, which no shell accepts");
        }
    }

    fn check_policies(&self, problems: &mut Problems) {
        if self.on_lease_loss == OnLeaseLoss::Continue
            && self.concurrency != Concurrency::Allow
            && self.timeout_secs == 0
        {
            let concurrency = self.concurrency;
            problems.add(
                "onLeaseLoss",
                format!("`continue` with concurrency `{concurrency}` needs a timeoutSecs"),
            );
        }
        if self.start_deadline_secs == 0 {
            problems.add("startDeadlineSecs", "must be at least 1");
        }
        if !self.shell.starts_with('/') || self.shell.contains('\0') {
            problems.add("shell", "must be an absolute path such as /bin/sh");
        }
        if self.cwd.as_ref().is_some_and(|d| !d.starts_with('/') || d.contains('\0')) {
            problems.add("cwd", "must be an absolute path");
        }
        if self.user.as_ref().is_some_and(|u| u.is_empty() || u.contains(['\0', ':', '/'])) {
            problems.add("user", "is not a user name");
        }
        if self.umask.is_some() && self.umask_bits().is_none() {
            problems.add("umask", "must be octal digits such as \"027\"");
        }
        if self.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
            problems.add("nice", "must be between -20 and 19");
        }
        for (field, limit, least) in [
            ("memoryBytes", self.limits.memory_bytes, MIN_MEMORY_BYTES),
            ("cpuSecs", self.limits.cpu_secs, 1),
            ("openFiles", self.limits.open_files, MIN_OPEN_FILES),
            ("processes", self.limits.processes, 1),
        ] {
            if limit.is_some_and(|limit| !(least..=MAX_LIMIT).contains(&limit)) {
                problems.add("limits", format!("{field} must be between {least} and {MAX_LIMIT}"));
            }
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                problems.add("env", format!("{key:?} cannot be an environment variable"));
            } else if key.len() + 1 + value.len() > COMMAND_MAX_BYTES {
                problems.add("env", format!("{key} is longer than {COMMAND_MAX_BYTES} bytes"));
            }
        }
        if self.spread_secs > MAX_SPREAD_SECS {
            problems.add("spreadSecs", format!("must be at most {MAX_SPREAD_SECS} (18 hours)"));
        }
        if self.anchor.is_some_and(|at| !ANCHOR_YEARS.contains(&at.year())) {
            problems.add("anchor", "must be an instant between 1970 and 2100");
        }
        if self.output_limit_bytes == 0 {
            problems.add("outputLimitBytes", "must be at least 1");
        }
        if self.retention_days.is_some_and(|days| days == 0 || days > 36_500) {
            problems.add("retentionDays", "must be between 1 and 36500");
        }
        if let Some(policy) = &self.notify {
            for problem in policy.problems(self.timeout_secs) {
                problems.add("notify", problem);
            }
        }
    }

    /// How late a run may start.
    pub fn start_deadline(&self) -> TimeDelta {
        TimeDelta::seconds(self.start_deadline_secs.into())
    }

    /// The grace period between SIGTERM and SIGKILL.
    pub fn kill_grace(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.kill_grace_secs.into())
    }

    /// The time-out of a run, if it has one.
    pub fn timeout(&self) -> Option<std::time::Duration> {
        (self.timeout_secs > 0).then(|| std::time::Duration::from_secs(self.timeout_secs.into()))
    }

    /// The bits of the umask, where there is one that is right.
    pub fn umask_bits(&self) -> Option<u32> {
        let text = self.umask.as_deref().filter(|text| !text.starts_with('+'))?;
        u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777)
    }

    /// By how many seconds each start is put off after its slot.
    pub fn spread(&self) -> u32 {
        spread_of(&self.name, self.spread_secs)
    }

    /// Whether a worker with these labels may run the job.
    pub fn selects(&self, worker_labels: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(k, v)| worker_labels.get(k) == Some(v))
    }
}

/// A job as it was found in etcd: whole, or broken and why.
#[derive(Debug, Clone)]
pub struct JobEntry {
    /// From the key.
    pub name: JobName,
    /// The job, or what is wrong with the stored value.
    pub state: Result<Checked, Problems>,
    /// The stored text, kept so that a broken value can be shown and mended.
    pub raw: Vec<u8>,
    /// etcd revision of the last write.
    pub mod_revision: i64,
    /// etcd revision at which the key was created: the job's incarnation.
    pub create_revision: i64,
}

impl JobEntry {
    /// Reads a stored value. The key is authoritative: a different `name` field is overruled.
    pub fn read(name: JobName, raw: &[u8], mod_revision: i64, create_revision: i64) -> Self {
        let schedules = &mut Interner::default();
        Self::read_sharing(schedules, name, raw, mod_revision, create_revision)
    }

    /// As [`Self::read`], sharing the schedule with jobs that are spelled alike.
    pub fn read_sharing(
        schedules: &mut Interner,
        name: JobName,
        raw: &[u8],
        mod_revision: i64,
        create_revision: i64,
    ) -> Self {
        let state = Job::from_json(raw).and_then(|mut job| {
            name.as_str().clone_into(&mut job.name);
            job.into_checked(schedules, raw.len())
        });
        Self { name, state, raw: raw.to_vec(), mod_revision, create_revision }
    }

    /// The job, unless its value is broken.
    pub fn job(&self) -> Option<&Job> {
        self.state.as_ref().ok().map(|checked| &checked.job)
    }

    /// The `name` field of the stored value where it differs from the key.
    pub fn misnamed(&self) -> Option<String> {
        let job = Job::from_json(&self.raw).ok()?;
        (job.name != self.name.as_str()).then_some(job.name)
    }
}

/// A job as the text that stands in etcd, read when it is needed: what a worker keeps of each.
#[derive(Debug, Clone)]
pub struct StoredJob {
    raw: Box<[u8]>,
    mod_revision: i64,
    create_revision: i64,
    /// Where it can be told without reading the whole.
    scope: Option<Scope>,
}

impl StoredJob {
    /// The job, whole or broken.
    pub fn read(&self, name: JobName) -> JobEntry {
        JobEntry::read(name, &self.raw, self.mod_revision, self.create_revision)
    }

    /// Once in the fleet, or once on every worker; `None` where the text does not say. A job with a
    /// scope may still be broken.
    pub fn scope(&self) -> Option<Scope> {
        self.scope
    }
}

/// What a [`Replica`](crate::replica::Replica) keeps of each job.
pub trait KeptJob {
    /// Takes in a stored value; `schedules` are shared by all jobs.
    fn take(
        schedules: &mut Interner,
        name: &JobName,
        raw: &[u8],
        mod_revision: i64,
        create_revision: i64,
    ) -> Self;
    /// etcd revision of the last write.
    fn mod_revision(&self) -> i64;
    /// etcd revision at which the key was created.
    fn create_revision(&self) -> i64;
}

impl KeptJob for Arc<JobEntry> {
    fn take(
        schedules: &mut Interner,
        name: &JobName,
        raw: &[u8],
        mod_revision: i64,
        create_revision: i64,
    ) -> Self {
        let name = name.clone();
        Self::new(JobEntry::read_sharing(schedules, name, raw, mod_revision, create_revision))
    }

    fn mod_revision(&self) -> i64 {
        self.mod_revision
    }

    fn create_revision(&self) -> i64 {
        self.create_revision
    }
}

impl KeptJob for StoredJob {
    fn take(
        _: &mut Interner,
        _: &JobName,
        raw: &[u8],
        mod_revision: i64,
        create_revision: i64,
    ) -> Self {
        #[derive(Deserialize)]
        struct Glance {
            #[serde(default)]
            scope: Scope,
        }
        let scope = serde_json::from_slice(raw).ok().map(|Glance { scope }| scope);
        Self { raw: raw.into(), mod_revision, create_revision, scope }
    }

    fn mod_revision(&self) -> i64 {
        self.mod_revision
    }

    fn create_revision(&self) -> i64 {
        self.create_revision
    }
}

/// The audit trail's view of one write: who did what to which job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// `_id` of the document, and its order.
    #[serde(rename = "_id")]
    pub id: RunId,
    /// The job.
    pub job_name: String,
    /// `create`, `edit`, `delete`, `pause`, `resume`, `run` or `kill`.
    pub what: String,
    /// Login, sudo or SSH user.
    pub who: String,
    /// The host that the change was made from.
    pub host: String,
    /// SSH client address, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The stored text before, absent for a creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The stored text after, absent for a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// etcd revision of the write.
    pub revision: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = r#"{"name":"settle","command":"/opt/settle.sh","cronExpr":"0 1 * * *"}"#;

    #[test]
    fn three_fields_are_enough_and_stay_three() {
        let job = Job::from_json(THREE.as_bytes()).unwrap();
        assert!(job.check().is_ok());
        assert_eq!(job.to_json(), THREE);
        assert_eq!((job.start_deadline_secs, job.kill_grace_secs), (60, 10));
        assert_eq!(job.output_limit_bytes, 104_857_600);
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let text = r#"{"name":"a","command":"c","cronExpr":"@daily","retries":{"max":2,"delaySecs":10,"maxDelaySecs":600,"jitter":true},"x-team":{"a":[1,2]}}"#;
        let job = Job::from_json(text.as_bytes()).unwrap();
        assert_eq!(job.to_json(), text);
    }

    #[test]
    fn every_type_error_is_named() {
        let text = r#"{"name":"a","command":7,"cronExpr":"* * * * *","timeoutSecs":"soon","concurrency":"never"}"#;
        let problems = Job::from_json(text.as_bytes()).unwrap_err();
        let fields: Vec<_> = problems.0.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["command", "timeoutSecs", "concurrency"]);
    }

    #[test]
    fn a_wrong_type_hides_no_wrong_value() {
        let text = r#"{"name":"a/b","command":"","cronExpr":"61 * * * *","timezone":"Foo","timeoutSecs":-1}"#;
        let problems = Job::from_json(text.as_bytes()).unwrap_err();
        for field in ["name", "command", "cronExpr", "timezone", "timeoutSecs"] {
            assert!(problems.of(field).is_some(), "{field} in {problems}");
        }
    }

    #[test]
    fn every_problem_is_returned_at_once() {
        let job = Job {
            name: "a/b".into(),
            cron_expr: "61 * * * *".into(),
            timezone: Some("Mars/Olympus".into()),
            shell: "sh".into(),
            on_lease_loss: OnLeaseLoss::Continue,
            umask: Some("999".into()),
            nice: Some(20),
            limits: Limits { cpu_secs: Some(0), open_files: Some(3), ..Limits::default() },
            ..Job::default()
        };
        let problems = job.check().unwrap_err();
        for field in [
            "name",
            "command",
            "cronExpr",
            "timezone",
            "shell",
            "onLeaseLoss",
            "umask",
            "nice",
            "limits",
        ] {
            assert!(problems.of(field).is_some(), "{field} in {problems}");
        }
    }

    #[test]
    fn every_problem_of_its_notifications_is_returned_at_once() {
        let text = r#"{"name":"a","command":"c","cronExpr":"@daily","notify":{"on":["fail"],"to":["a b"]}}"#;
        let problems = Job::from_json(text.as_bytes()).unwrap().check().unwrap_err();
        let told: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("notify: on: `fail` is none of failure, recovery"), "{told:?}");
        let wrong = Job::from_json(text.replace(r#"["fail"]"#, "7").as_bytes()).unwrap_err();
        assert!(wrong.of("notify").unwrap().contains("invalid type"), "{wrong}");
    }

    #[test]
    fn limits_are_read_as_they_are_spelled() {
        let text = r#"{"name":"a","command":"c","cronExpr":"@daily","umask":"027","nice":-5,"limits":{"memoryBytes":1048576,"cpuSecs":1,"openFiles":4,"processes":1}}"#;
        let job = Job::from_json(text.as_bytes()).unwrap();
        assert_eq!((job.umask_bits(), job.nice), (Some(0o027), Some(-5)));
        assert_eq!(job.to_json(), text);
        job.check().unwrap();
        for umask in ["", "8", "1000", "+27", "u=rw"] {
            let job = Job { umask: Some(umask.into()), ..job.clone() };
            assert!(job.check().unwrap_err().of("umask").is_some(), "{umask}");
        }
        let limits = Limits { memory_bytes: Some(1000), processes: Some(0), ..Limits::default() };
        let problems = Job { limits, ..job }.check().unwrap_err();
        let expected = "limits: memoryBytes must be between 1048576 and 9223372036854775807; \
             limits: processes must be between 1 and 9223372036854775807";
        assert_eq!(problems.to_string(), expected);
    }

    #[test]
    fn a_two_megabyte_command_is_refused() {
        let job = Job { name: "big".into(), command: "x".repeat(2 << 20), ..Job::default() };
        assert!(job.check().unwrap_err().of("command").unwrap().contains("at most 131071"));
    }

    #[test]
    fn the_key_is_authoritative_over_the_name_field() {
        let entry = JobEntry::read(JobName::new("real").unwrap(), THREE.as_bytes(), 2, 1);
        assert_eq!(entry.job().unwrap().name, "real");
        assert_eq!(entry.misnamed().as_deref(), Some("settle"));
    }

    #[test]
    fn a_job_selects_workers_by_their_labels() {
        let job = |pairs: &[(&str, &str)]| Job {
            selector: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Job::default()
        };
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        assert!(job(&[]).selects(&labels) && job(&[("disk", "ssd")]).selects(&labels));
        assert!(
            !job(&[("disk", "hdd")]).selects(&labels) && !job(&[("gpu", "1")]).selects(&labels)
        );
    }

    #[test]
    fn broken_values_keep_their_text() {
        let entry = JobEntry::read(JobName::new("b").unwrap(), b"{not json", 2, 1);
        assert!(entry.state.unwrap_err().to_string().starts_with("not JSON"));
        assert_eq!(entry.raw, b"{not json");
    }
}
