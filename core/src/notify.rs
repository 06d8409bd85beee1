//! What a record calls for, and the message that tells it. Pure: nothing is sent here.
//!
//! Told is what stands when nothing more is going to be tried: a failed attempt that a retry follows
//! calls for nothing, and a retry that does not come about (missed, or skipped because the job was
//! paused) is told as the failure that it leaves standing. The same holds for a lost run that is run
//! again.

pub mod signature;
pub mod template;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::job::{Job, Scope};
use crate::notice::{Call, Event};
use crate::run::{Outcome, RunRecord, Trigger};

/// How much of the end of the output a template gets, in characters.
const OUTPUT_TAIL: usize = 1000;

/// What a final record of this job calls for; `followed` says that another attempt comes.
pub fn call(job: Option<&Job>, record: &RunRecord, followed: bool) -> Option<Call> {
    let job = job?;
    let policy = job.notify.as_deref()?;
    let asked = |event: &Event| policy.asks_for(*event);
    let event = if followed { None } else { events(record).iter().find(|e| asked(e)).copied() }?;
    let to = policy.targets();
    let own = job.scope == Scope::EveryWorker
        && !matches!(record.outcome, Outcome::Missed | Outcome::Skipped);
    (!to.is_empty()).then(|| Call {
        event,
        to,
        recovery: policy.asks_for(Event::Recovery),
        on_worker: own.then(|| record.worker.clone()),
        pending: true,
    })
}

/// Writes into a final record what it calls for; see [`call`].
pub fn attach(job: Option<&Job>, record: &mut RunRecord, followed: bool) {
    record.notify = call(job, record, followed).map(Box::new);
}

/// What a record may be told as, the most fitting first, if nothing follows it.
fn events(record: &RunRecord) -> &'static [Event] {
    // It was to mend what an earlier attempt left.
    let again = record.attempt > 1;
    match (record.outcome, record.trigger) {
        (Outcome::Failed | Outcome::TimedOut, _) => &[Event::Failure],
        // Not by a person: its worker stopped, for one.
        (Outcome::Killed, _) if record.killed_by.is_none() => &[Event::Failure],
        (Outcome::Lost, _) => &[Event::Lost],
        (Outcome::Missed | Outcome::Skipped, Trigger::Retry) if again => &[Event::Failure],
        (Outcome::Missed | Outcome::Skipped, Trigger::Rerun) if again => &[Event::Lost],
        (Outcome::Missed, _) => &[Event::Missed],
        _ => &[],
    }
}

/// The id of one thing that is told: the same however often it is sent, and to whomever.
pub fn event_id(record: &RunRecord, event: Event) -> String {
    format!("{}:{event}", record.id)
}

/// One thing that is told, with all its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    event: Event,
    record: RunRecord,
    /// When it is told.
    at: DateTime<Utc>,
}

/// The body where a target has no template of its own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    id: String,
    event: Event,
    text: String,
    fleet: &'a str,
    job: &'a str,
    run: String,
    outcome: Outcome,
    err: &'a str,
    trigger: Trigger,
    attempt: u32,
    worker: &'a str,
    start_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    duration_secs: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_slot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_slot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<i64>,
}

impl Message {
    /// What is told of a record at `at`.
    pub fn new(event: Event, record: RunRecord, at: DateTime<Utc>) -> Self {
        Self { event, record, at }
    }

    /// See [`event_id`].
    pub fn id(&self) -> String {
        event_id(&self.record, self.event)
    }

    /// The body as JSON, where the target has no template of its own. The output is not in it.
    pub fn to_json(&self) -> String {
        let r = &self.record;
        let body = Body {
            id: self.id(),
            event: self.event,
            text: self.text(),
            fleet: &r.fleet,
            job: &r.job_name,
            run: r.id.to_string(),
            outcome: r.outcome,
            err: &r.err,
            trigger: r.trigger,
            attempt: r.attempt,
            worker: &r.worker,
            start_time: instant(r.start_time),
            end_time: r.end_time.map(instant),
            duration_secs: self.seconds(),
            slot: r.scheduled_time.map(instant),
            exit_code: r.exit_code,
            signal: r.signal,
            from_slot: r.from_slot.map(instant),
            to_slot: r.to_slot.map(instant),
            count: r.count,
        };
        // A struct of strings and numbers always serializes.
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// The value of one of [`template::PLACEHOLDERS`]; empty where there is none.
    pub fn value(&self, placeholder: &str) -> String {
        let r = &self.record;
        let number = |n: Option<i32>| n.map(|n| n.to_string()).unwrap_or_default();
        let time = |at: Option<DateTime<Utc>>| at.map(instant).unwrap_or_default();
        match placeholder {
            "attempt" => r.attempt.to_string(),
            "count" => r.count.unwrap_or(1).to_string(),
            "durationSecs" => self.seconds().to_string(),
            "endTime" => time(r.end_time),
            "err" => r.err.clone(),
            "event" => self.event.to_string(),
            "exitCode" => number(r.exit_code),
            "fleet" => r.fleet.clone(),
            "fromSlot" => time(r.from_slot.or(r.scheduled_time)),
            "id" => self.id(),
            "job" => r.job_name.clone(),
            "outcome" => r.outcome.to_string(),
            "output" => tail(&r.output),
            "run" => r.id.to_string(),
            "signal" => number(r.signal),
            "slot" => time(r.scheduled_time),
            "startTime" => instant(r.start_time),
            "text" => self.text(),
            "toSlot" => time(r.to_slot.or(r.scheduled_time)),
            "worker" => r.worker.clone(),
            _ => String::new(),
        }
    }

    /// The whole in one English sentence.
    fn text(&self) -> String {
        let r = &self.record;
        let (job, worker, err) = (&r.job_name, &r.worker, &r.err);
        let slot = r.scheduled_time.map(instant);
        let attempt =
            if r.attempt > 1 { format!(" (attempt {})", r.attempt) } else { String::new() };
        match (self.event, r.outcome) {
            (Event::Recovery, _) => format!("{job} succeeded again on {worker}"),
            (Event::Running, _) => {
                let seconds = (self.at - r.start_time).num_seconds().max(0);
                format!("{job} is still running on {worker} after {seconds} s")
            }
            (_, Outcome::Missed | Outcome::Skipped) if r.attempt > 1 => {
                format!("{job} failed, and attempt {} did not come about: {err}", r.attempt)
            }
            (_, Outcome::Missed | Outcome::Skipped) => match (r.count, r.from_slot, r.to_slot) {
                (Some(count), Some(from), Some(to)) => {
                    let (from, to) = (instant(from), instant(to));
                    format!("{job} did not run {count} times from {from} to {to}: {err}")
                }
                _ => {
                    let slot = slot.unwrap_or_else(|| "when it was asked for".to_owned());
                    format!("{job} did not run at {slot}: {err}")
                }
            },
            (_, Outcome::TimedOut) => format!("{job} timed out on {worker}{attempt}: {err}"),
            (Event::Lost, _) => format!("{job} was lost on {worker}{attempt}: {err}"),
            _ => format!("{job} failed on {worker}{attempt}: {err}"),
        }
    }

    fn seconds(&self) -> f64 {
        let millis = self.record.duration(self.at).num_milliseconds().max(0);
        f64::from(u32::try_from(millis).unwrap_or(u32::MAX)) / 1000.0
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The end of a text.
fn tail(text: &str) -> String {
    let start = text.char_indices().rev().nth(OUTPUT_TAIL - 1).map_or(0, |(at, _)| at);
    text.get(start..).unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::{JobName, RunId};
    use crate::notice::Policy;

    fn record(outcome: Outcome) -> RunRecord {
        let at: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let job = JobName::new("settle").unwrap();
        let run: RunId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        RunRecord {
            worker: "w1".into(),
            end_time: Some(at + chrono::TimeDelta::milliseconds(1500)),
            scheduled_time: Some(at),
            ..RunRecord::new(run, &job, outcome, at)
        }
    }

    /// A message of a failure for this reason.
    pub(crate) fn failed(err: &str) -> Message {
        let record = RunRecord { err: err.into(), exit_code: Some(3), ..record(Outcome::Failed) };
        Message::new(Event::Failure, record.clone(), record.start_time)
    }

    fn job(on: &[&str]) -> Job {
        let on = on.iter().map(|&on| on.to_owned()).collect();
        let policy = Policy { on, to: vec!["pager".into()], ..Policy::default() };
        Job { notify: Some(Box::new(policy)), ..Job::default() }
    }

    fn told(on: &[&str], record: &RunRecord, followed: bool) -> Option<Event> {
        call(Some(&job(on)), record, followed).map(|call| call.event)
    }

    const ALL: [&str; 4] = ["failure", "recovery", "missed", "lost"];

    #[test]
    fn a_failure_is_told_when_nothing_follows_it() {
        for outcome in [Outcome::Failed, Outcome::TimedOut] {
            assert_eq!(told(&ALL, &record(outcome), false), Some(Event::Failure));
            assert_eq!(told(&ALL, &record(outcome), true), None);
            assert_eq!(told(&["lost"], &record(outcome), false), None);
        }
        assert_eq!(told(&ALL, &record(Outcome::Lost), false), Some(Event::Lost));
        assert_eq!(told(&ALL, &record(Outcome::Lost), true), None);
        for outcome in [Outcome::Succeeded, Outcome::Skipped, Outcome::Running] {
            assert_eq!(told(&ALL, &record(outcome), false), None);
        }
        assert_eq!(call(None, &record(Outcome::Failed), false), None);
        assert_eq!(call(Some(&Job::default()), &record(Outcome::Failed), false), None);
    }

    #[test]
    fn what_a_person_killed_is_not_told_and_what_the_fleet_ended_is() {
        let mut killed = record(Outcome::Killed);
        assert_eq!(told(&ALL, &killed, false), Some(Event::Failure));
        killed.killed_by = Some("alice".into());
        assert_eq!(told(&ALL, &killed, false), None);
    }

    #[test]
    fn a_retry_that_does_not_come_about_leaves_a_failure() {
        let asked = |outcome, trigger| RunRecord { trigger, attempt: 2, ..record(outcome) };
        for outcome in [Outcome::Missed, Outcome::Skipped] {
            let retry = told(&ALL, &asked(outcome, Trigger::Retry), false);
            assert_eq!(retry, Some(Event::Failure));
            let rerun = told(&ALL, &asked(outcome, Trigger::Rerun), false);
            assert_eq!(rerun, Some(Event::Lost));
        }
        assert_eq!(told(&ALL, &record(Outcome::Missed), false), Some(Event::Missed));
    }

    #[test]
    fn a_call_carries_the_policy_of_its_moment() {
        let asked = call(Some(&job(&ALL)), &record(Outcome::Failed), false).unwrap();
        assert_eq!((asked.to.as_slice(), asked.recovery), (["pager".to_owned()].as_slice(), true));
        assert!(asked.pending && asked.on_worker.is_none());
        let each = Job { scope: Scope::EveryWorker, ..job(&ALL) };
        let asked = call(Some(&each), &record(Outcome::Failed), false).unwrap();
        assert_eq!(asked.on_worker.as_deref(), Some("w1"));
        assert_eq!(call(Some(&each), &record(Outcome::Missed), false).unwrap().on_worker, None);
    }

    #[test]
    fn the_body_is_json_with_a_sentence_and_a_stable_id() {
        let body: serde_json::Value =
            serde_json::from_str(&failed("exit code 3").to_json()).unwrap();
        assert_eq!(body["id"], "01ARZ3NDEKTSV4RRFFQ69G5FAV:failure");
        assert_eq!(body["text"], "settle failed on w1: exit code 3");
        assert_eq!((&body["exitCode"], &body["durationSecs"]), (&3.into(), &1.5.into()));
        assert_eq!(body["slot"], "2026-01-01T00:00:00Z");
        assert!(body.get("output").is_none());
    }

    #[test]
    fn each_event_has_its_sentence() {
        let now = record(Outcome::Running).start_time + chrono::TimeDelta::seconds(600);
        let text = |event, record| Message::new(event, record, now).text();
        let missed = RunRecord { err: "nobody was there".into(), ..record(Outcome::Missed) };
        assert_eq!(
            text(Event::Missed, missed.clone()),
            "settle did not run at 2026-01-01T00:00:00Z: nobody was there"
        );
        let at = missed.scheduled_time;
        let gap = RunRecord { count: Some(7), from_slot: at, to_slot: at, ..missed.clone() };
        assert!(text(Event::Missed, gap).contains("did not run 7 times from 2026-01-01T00:00:00Z"));
        let retry = RunRecord { attempt: 2, ..missed };
        assert!(text(Event::Failure, retry).contains("attempt 2 did not come about"));
        let running = record(Outcome::Running);
        assert_eq!(text(Event::Running, running), "settle is still running on w1 after 600 s");
        let again = text(Event::Recovery, record(Outcome::Succeeded));
        assert_eq!(again, "settle succeeded again on w1");
    }

    #[test]
    fn of_the_output_a_template_gets_the_end() {
        let output = format!("{}é{}", "a".repeat(5000), "b".repeat(OUTPUT_TAIL - 1));
        let long = RunRecord { output, ..record(Outcome::Failed) };
        let value = Message::new(Event::Failure, long, Utc::now()).value("output");
        assert!(value.starts_with('é') && value.chars().count() == OUTPUT_TAIL);
    }
}
