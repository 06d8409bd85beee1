//! What the records say of a job, computed by the server: how often it ran, how it ended, how long
//! it took, and whether that changed.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use mongodb::bson::{Bson, Document, doc};

use super::documents::{date, instant};
use super::history::Walk;
use super::{HistoryFilter, Records, RecordsError};
use crate::id::JobName;
use crate::run::Outcome;

/// The most records of one window: the newest ones.
pub const STATS_MAX: usize = 1_000;
/// How many of the newest outcomes are told.
const LAST: i64 = 20;
/// What a run ends with that has a duration; when a lost one ended, nobody knows.
const TIMED: [Outcome; 4] =
    [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::Killed];

/// How long runs took, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// Half of them took no longer.
    pub p50: i64,
    /// 95 of 100 took no longer.
    pub p95: i64,
    /// The longest.
    pub max: i64,
}

/// A stretch of a job's past.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Its beginning, which is in it.
    pub since: DateTime<Utc>,
    /// Its end, which is not.
    pub until: DateTime<Utc>,
    /// How many records there are of each outcome; of live runs there are none.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How long the runs took, where there are any.
    pub durations: Option<Durations>,
    /// The newest outcomes, newest first.
    pub last: Vec<Outcome>,
}

impl Window {
    /// How many records of this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.as_str()).copied().unwrap_or_default()
    }

    /// How many runs ended, in whatever way.
    pub fn runs(&self) -> u64 {
        TIMED.into_iter().chain([Outcome::Lost]).map(|outcome| self.count(outcome)).sum()
    }

    /// Which part of the runs succeeded, 0 to 1, where there are any.
    pub fn success_rate(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "at most a thousand")]
        let of = |n: u64| n as f64;
        let runs = self.runs();
        (runs > 0).then(|| of(self.count(Outcome::Succeeded)) / of(runs))
    }
}

/// A job's past in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStats {
    /// The window that was asked for, or its end, where it has more than [`STATS_MAX`] records.
    pub now: Window,
    /// The window of the same length before it.
    pub before: Window,
    /// Whether the window is shorter than was asked for.
    pub cut: bool,
}

impl Records {
    /// The figures of a job since an instant, and of the same time before that.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn stats(
        &self,
        job: &JobName,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<JobStats, RecordsError> {
        let (this, cut) = self.window(job, since, now).await?;
        let length = this.until - this.since;
        let earlier = this.since.checked_sub_signed(length).unwrap_or(DateTime::UNIX_EPOCH);
        let (before, _) = self.window(job, earlier, this.since).await?;
        Ok(JobStats { now: this, before, cut })
    }

    async fn window(
        &self,
        job: &JobName,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<(Window, bool), RecordsError> {
        let of_job = HistoryFilter {
            job: Some(job.clone()),
            since: Some(since),
            until: Some(until),
            ..Default::default()
        };
        // Where the thousandth is, so that no server computes with more.
        let (mut walk, mut found) = (Walk::new(self, &of_job, None), Vec::new());
        while !walk.over && found.len() < STATS_MAX {
            let fields = doc! {"startTime": 1};
            found.extend(walk.step(STATS_MAX - found.len(), Some(&fields), &mut |_| ()).await?);
        }
        let oldest = found.last().and_then(|d| d.get_datetime("startTime").ok());
        let oldest = oldest.map(|at| instant(*at)).filter(|_| found.len() == STATS_MAX);
        let since = oldest.map_or(since, |oldest| oldest.max(since));
        let log = self.log();
        let answer = self.collect(log.aggregate(self.figures(job, since, until))).await?;
        let figures = answer.first().map(|d| read_window(d, since, until));
        let empty = || read_window(&Document::new(), since, until);
        Ok((figures.unwrap_or_else(empty), oldest.is_some()))
    }

    fn figures(&self, job: &JobName, since: DateTime<Utc>, until: DateTime<Utc>) -> [Document; 6] {
        let after = date(since - TimeDelta::milliseconds(1));
        let range = doc! {"$gt": after, "$lt": date(until)};
        // `$percentile` came with mongod 7; a thousand numbers in order do as well.
        let count = || doc! {"$size": "$all"};
        let at = |part: f64| {
            let index = doc! {"$multiply": [part, {"$subtract": [count(), 1]}]};
            doc! {"$arrayElemAt": ["$all", {"$toInt": {"$ceil": index}}]}
        };
        let timed = doc! {"$in": TIMED.map(Outcome::as_str).to_vec()};
        let durations = vec![
            doc! {"$match": {"outcome": timed, "took": {"$gte": 0}}},
            doc! {"$sort": {"took": 1}},
            doc! {"$group": {"_id": Bson::Null, "all": {"$push": "$took"}}},
            doc! {"$project": {"p50": at(0.5), "p95": at(0.95), "max": {"$arrayElemAt": ["$all", -1]}}},
        ];
        let outcomes = vec![doc! {"$group": {"_id": "$outcome", "n": {"$sum": 1}}}];
        let last = vec![doc! {"$limit": LAST}, doc! {"$project": {"outcome": 1}}];
        [
            doc! {"$match": {"fleet": &self.fleet, "jobName": job.as_str(), "startTime": range}},
            doc! {"$match": {"outcome": {"$ne": Outcome::Running.as_str()}}},
            doc! {"$sort": {"startTime": -1, "_id": -1}},
            doc! {"$limit": i64::try_from(STATS_MAX).unwrap_or(i64::MAX)},
            doc! {"$project": {"outcome": 1, "took": {"$subtract": ["$endTime", "$startTime"]}}},
            doc! {"$facet": {"outcomes": outcomes, "durations": durations, "last": last}},
        ]
    }
}

fn read_window(figures: &Document, since: DateTime<Utc>, until: DateTime<Utc>) -> Window {
    let each = |part: &str| {
        let part = figures.get_array(part).map(Vec::as_slice).unwrap_or_default();
        part.iter().filter_map(Bson::as_document)
    };
    let outcome = |d: &Document, field: &str| d.get_str(field).ok()?.parse::<Outcome>().ok();
    let counted = each("outcomes").filter_map(|d| {
        let count = u64::try_from(number(d, "n")?).ok()?;
        Some((outcome(d, "_id")?.as_str(), count))
    });
    let durations = each("durations").find_map(|d| {
        Some(Durations { p50: number(d, "p50")?, p95: number(d, "p95")?, max: number(d, "max")? })
    });
    Window {
        since,
        until,
        outcomes: counted.collect(),
        durations,
        last: each("last").filter_map(|d| outcome(d, "outcome")).collect(),
    }
}

/// Servers differ in how wide their whole numbers are.
fn number(document: &Document, field: &str) -> Option<i64> {
    match document.get(field)? {
        Bson::Int32(n) => Some(i64::from(*n)),
        Bson::Int64(n) => Some(*n),
        #[allow(clippy::cast_possible_truncation, reason = "milliseconds, or a count")]
        Bson::Double(n) => Some(n.round() as i64),
        _ => None,
    }
}
