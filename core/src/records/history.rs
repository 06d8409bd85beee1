//! Records, newest first, in pages without end.
//!
//! A page is read in windows of time that grow until it is full: the server is asked for an index
//! on what the filter names, the window is the range on it, and what no index knows (text, a second
//! condition) is left to a later stage. So a page costs what is in its windows, whatever the size
//! of the collection, also where a server sorts all that it finds before it takes the first.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use mongodb::bson::{Document, doc};
use tokio::time::Instant;

use super::documents::{date, instant};
use super::{Records, RecordsError};
use crate::id::{JobName, RunId};
use crate::run::{Outcome, RunRecord, Trigger};

/// The first window: most of what is asked for has just happened.
const FIRST: TimeDelta = TimeDelta::seconds(1);
/// A window wider than this has no lower end: so old is nothing.
const WIDEST: TimeDelta = TimeDelta::days(10 * 366);
/// How many times wider the next window is at most.
const GROWTH: i32 = 4;
/// A window that took longer is followed by a narrower one.
const SLOW: Duration = Duration::from_millis(200);
/// How many times narrower a window is that was not answered in time, and how often that is tried.
const RETREAT: (i32, u32) = (16, 2);
/// After this a page is handed out as it is, to be gone on with: nobody waits in vain for text that
/// does not occur.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which records to show. Each condition that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Of one job.
    pub job: Option<JobName>,
    /// With one outcome.
    pub outcome: Option<Outcome>,
    /// Of one worker.
    pub worker: Option<String>,
    /// Started for this reason.
    pub trigger: Option<Trigger>,
    /// Not started before this instant.
    pub since: Option<DateTime<Utc>>,
    /// Started before this instant.
    pub until: Option<DateTime<Utc>>,
    /// With this text in the job's name, the reason, the kept output or the worker.
    pub text: Option<String>,
}

/// Where a page ends: the start and the id of its last record.
pub type Place = (DateTime<Utc>, RunId);

/// One page of history, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The records. They may be fewer than asked for, or none, although there are older ones.
    pub records: Vec<RunRecord>,
    /// Whether there may be older ones.
    pub more: bool,
    /// Where to go on: what the next page is to be before.
    pub reached: Option<Place>,
}

/// What a step of a page cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCost {
    /// The index that was used, where one was.
    pub index: Option<String>,
    /// How many documents the server looked at, where it says so.
    pub examined: Option<i64>,
}

impl Records {
    /// Records, newest first, from before the record at `before` on.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn history(
        &self,
        filter: &HistoryFilter,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Page, RecordsError> {
        self.page(filter, before, limit, None, |_| ()).await
    }

    /// The same page as a list shows it: without the kept output, unless the filter asks for a text,
    /// which may be in it.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn overview(
        &self,
        filter: &HistoryFilter,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Page, RecordsError> {
        let fields = filter.text.is_none().then(|| doc! {"output": 0});
        self.page(filter, before, limit, fields.as_ref(), |_| ()).await
    }

    /// The same page, and what each of its steps cost the server, by its own account.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn explain_history(
        &self,
        filter: &HistoryFilter,
        before: Option<Place>,
        limit: usize,
    ) -> Result<(Page, Vec<StepCost>), RecordsError> {
        let mut steps = Vec::new();
        let page = self.page(filter, before, limit, None, |pipeline| steps.push(pipeline)).await?;
        let mut costs = Vec::new();
        for pipeline in steps {
            let command = doc! {"aggregate": "log", "pipeline": pipeline, "cursor": {}};
            let explain = doc! {"explain": command, "verbosity": "executionStats"};
            let answer = self.bounded(self.database.run_command(explain)).await?;
            let mut cost = StepCost { index: None, examined: None };
            add_cost(&answer, &mut cost);
            costs.push(cost);
        }
        Ok((page, costs))
    }

    async fn page(
        &self,
        filter: &HistoryFilter,
        before: Option<Place>,
        limit: usize,
        fields: Option<&Document>,
        mut seen: impl FnMut(Vec<Document>),
    ) -> Result<Page, RecordsError> {
        let mut walk = Walk::new(self, filter, before);
        let begun = Instant::now();
        let mut documents = Vec::new();
        while documents.len() <= limit && !walk.over && begun.elapsed() < PATIENCE {
            let wanted = limit + 1 - documents.len();
            documents.extend(walk.step(wanted, fields, &mut seen).await?);
        }
        let mut page = Page {
            more: !walk.over || documents.len() > limit,
            reached: walk.place(),
            ..Page::default()
        };
        if documents.len() > limit {
            documents.truncate(limit);
            page.reached = documents.last().map(place_of);
        }
        // A document that another tool wrote in another shape must not hide the rest.
        page.records = documents.into_iter().filter_map(|d| self.record(d).ok()).collect();
        Ok(page)
    }

    /// The records of runs that are live, with their telemetry.
    ///
    /// # Errors
    /// When MongoDB does not answer or refuses.
    pub async fn live(&self, limit: usize) -> Result<Vec<RunRecord>, RecordsError> {
        let running = HistoryFilter { outcome: Some(Outcome::Running), ..Default::default() };
        Ok(self.overview(&running, None, limit).await?.records)
    }
}

/// A walk through the records that a filter lets through, from the newest to the oldest.
pub(super) struct Walk<'a> {
    records: &'a Records,
    /// What an index knows: compared for equality.
    indexed: Document,
    /// What is asked of each document that the index finds.
    rest: Vec<Document>,
    /// No record that started before is of interest.
    since: Option<DateTime<Utc>>,
    /// Everything that started later was seen.
    high: Option<DateTime<Utc>>,
    /// Of what started at `high`, what is not before this was seen too.
    at_high: Option<Place>,
    /// How far the next window reaches; without an end where nothing is that old.
    width: Option<TimeDelta>,
    retreats: u32,
    /// Whether all was seen.
    pub(super) over: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(records: &'a Records, filter: &HistoryFilter, before: Option<Place>) -> Self {
        let (indexed, rest) = conditions(&records.fleet, filter);
        // An instant before, as the window's upper end is in it.
        let until = filter.until.map(|until| until - TimeDelta::milliseconds(1));
        let high = match (before, until) {
            (Some((at, _)), Some(until)) => Some(at.min(until)),
            (before, until) => before.map(|(at, _)| at).or(until),
        };
        // Of live runs there are few, and the index knows which.
        let few = filter.outcome == Some(Outcome::Running);
        Self {
            records,
            indexed,
            rest,
            since: filter.since,
            high,
            at_high: before,
            width: (!few).then_some(FIRST),
            retreats: 0,
            over: false,
        }
    }

    /// Where the walk stands: everything that is not before it was seen.
    pub(super) fn place(&self) -> Option<Place> {
        self.at_high.or_else(|| Some((self.high?, LAST_ID.parse().ok()?)))
    }

    /// Reads the next window, at most `wanted` documents of it, or these `fields` of them.
    pub(super) async fn step(
        &mut self,
        wanted: usize,
        fields: Option<&Document>,
        seen: &mut impl FnMut(Vec<Document>),
    ) -> Result<Vec<Document>, RecordsError> {
        let low = self.low();
        let pipeline = self.pipeline(low, wanted, fields);
        let sent = Instant::now();
        let log = self.records.log();
        let found = match self.records.collect(log.aggregate(pipeline.clone())).await {
            Ok(found) => found,
            // It may be that the window has too much in it.
            Err(RecordsError::Unreachable { .. })
                if self.retreats < RETREAT.1 && self.width != Some(FIRST) =>
            {
                self.retreats += 1;
                self.width = Some((self.width.unwrap_or(WIDEST) / RETREAT.0).max(FIRST));
                return Ok(Vec::new());
            }
            Err(e) => return Err(e),
        };
        seen(pipeline);
        if found.len() >= wanted {
            self.at_high = found.last().map(place_of);
            self.high = self.at_high.map(|(at, _)| at);
        } else {
            (self.high, self.at_high) = (low, None);
            self.over = low.is_none_or(|low| self.since.is_some_and(|since| low < since));
            self.resize(found.len(), wanted, sent.elapsed());
        }
        Ok(found)
    }

    /// The lower end of the next window, which is not in it.
    fn low(&self) -> Option<DateTime<Utc>> {
        let since = self.since.map(|since| since - TimeDelta::milliseconds(1));
        let low = self
            .width
            .and_then(|width| self.high.unwrap_or_else(Utc::now).checked_sub_signed(width));
        since.max(low)
    }

    fn pipeline(
        &self,
        low: Option<DateTime<Utc>>,
        wanted: usize,
        fields: Option<&Document>,
    ) -> Vec<Document> {
        // SecantusDB 0.7 leaves out the end of a range on the last but one field of an index where
        // it is said to be in it, so the lower end never is.
        let mut range = Document::new();
        range.extend(low.map(|low| ("$gt".to_owned(), date(low).into())));
        range.extend(self.high.map(|high| ("$lte".to_owned(), date(high).into())));
        let mut indexed = self.indexed.clone();
        if !range.is_empty() {
            indexed.insert("startTime", range);
        }
        let mut pipeline = vec![doc! {"$match": indexed}];
        if let Some((at, id)) = self.at_high {
            let older = doc! {"startTime": {"$lt": date(at)}};
            pipeline.push(doc! {"$match": {"$or": [older, {"_id": {"$lt": id.to_string()}}]}});
        }
        pipeline.extend(self.rest.iter().map(|rest| doc! {"$match": rest}));
        pipeline.push(doc! {"$sort": {"startTime": -1, "_id": -1}});
        pipeline.push(doc! {"$limit": i64::try_from(wanted).unwrap_or(i64::MAX)});
        pipeline.extend(fields.map(|fields| doc! {"$project": fields}));
        pipeline
    }

    /// Finds the next window's width: by what this one had in it, and by how long it took.
    fn resize(&mut self, found: usize, wanted: usize, took: Duration) {
        let Some(width) = self.width else { return };
        let wider = if took > SLOW {
            width / 2
        } else {
            // Half as much again as would do if it went on like this.
            let enough = |n: i32| {
                width.checked_mul(i32::try_from(3 * (wanted - found)).ok()?).map(|w| w / n)
            };
            i32::try_from(2 * found)
                .ok()
                .filter(|n| *n > 0)
                .and_then(enough)
                .map_or(width * GROWTH, |enough| enough.min(width * GROWTH))
        };
        self.width = (wider <= WIDEST).then_some(wider.max(FIRST));
    }
}

/// Later than every id of its instant.
const LAST_ID: &str = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ";

/// What an index is asked, and what is asked of the documents that it finds. The index is that of
/// the condition which most likely leaves the fewest.
fn conditions(fleet: &str, filter: &HistoryFilter) -> (Document, Vec<Document>) {
    let job = filter.job.as_ref().map(|job| ("jobName", job.to_string()));
    let outcome = filter.outcome.map(|outcome| ("outcome", outcome.to_string()));
    let worker = filter.worker.clone().map(|worker| ("worker", worker));
    let trigger = filter.trigger.map(|trigger| ("trigger", trigger.to_string()));
    let live = filter.outcome == Some(Outcome::Running);
    let common = filter.outcome == Some(Outcome::Succeeded);
    let mut all: Vec<_> = match (live, common) {
        (true, _) => [outcome, job, worker, trigger],
        (false, true) => [job, worker, trigger, outcome],
        (false, false) => [job, outcome, worker, trigger],
    }
    .into_iter()
    .flatten()
    .collect();
    // Almost everything runs by its schedule.
    if filter.trigger == Some(Trigger::Schedule) && all.len() > 1 {
        all.retain(|(field, _)| *field != "trigger");
        all.push(("trigger", Trigger::Schedule.to_string()));
    }
    let mut indexed = doc! {"fleet": fleet};
    let mut all = all.into_iter();
    indexed.extend(all.next().map(|(field, value)| (field.to_owned(), value.into())));
    let mut rest: Vec<Document> = all.map(|(field, value)| doc! {field: value}).collect();
    if let Some(text) = &filter.text {
        let pattern = doc! {"$regex": escape(text), "$options": "i"};
        let fields = ["jobName", "err", "output", "worker"];
        rest.push(doc! {"$or": fields.map(|field| doc! {field: pattern.clone()}).to_vec()});
    }
    (indexed, rest)
}

/// Where a document stands; of one that another tool gave an id of its own, the instant's end.
fn place_of(document: &Document) -> Place {
    let at = document.get_datetime("startTime").map(|at| instant(*at)).unwrap_or_default();
    let id = document.get_str("_id").ok().and_then(|id| id.parse().ok());
    (at, id.unwrap_or_else(|| RunId::new(DateTime::UNIX_EPOCH)))
}

/// Adds up what an explanation says, wherever in it.
fn add_cost(explanation: &Document, cost: &mut StepCost) {
    for (field, value) in explanation {
        match (field.as_str(), value) {
            ("totalDocsExamined", value) => {
                let examined = value.as_i64().or_else(|| value.as_i32().map(i64::from));
                cost.examined = cost.examined.max(examined);
            }
            ("indexName", value) => {
                cost.index = cost.index.take().or_else(|| value.as_str().map(str::to_owned));
            }
            // What was thought of and not done.
            ("rejectedPlans", _) => {}
            (_, value) => {
                let inner = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let inner =
                    inner.iter().chain(std::iter::once(value)).filter_map(|v| v.as_document());
                inner.for_each(|inner| add_cost(inner, cost));
            }
        }
    }
}

/// A text as a regular expression that matches just that text.
fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_alphanumeric() && !c.is_whitespace() && c.is_ascii() {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
