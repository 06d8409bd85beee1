//! The story of one slot in words, a line each: what `carillon why` prints. Names and reasons in it
//! are from elsewhere, so whoever shows the lines makes them harmless first.

use carillon_core::fleet::MAX_SKEW;
use carillon_core::id::{Slot, WorkerId};
use carillon_core::run::{Outcome, RunRecord, Trigger};
use carillon_core::why::{Decision, Fate, Hindrance, Other, Prospect, Standing, Story, ToCome};
use chrono::{DateTime, TimeDelta, Utc};

use crate::text;

/// How long after it was due a slot that somebody could take is no longer just on its way.
const ON_ITS_WAY: TimeDelta = TimeDelta::seconds(5);

/// The story as it is told at `now`.
pub fn lines(story: &Story, now: DateTime<Utc>) -> Vec<String> {
    let mut teller = Teller { story, now, lines: Vec::new() };
    teller.tell();
    teller.lines
}

struct Teller<'a> {
    story: &'a Story,
    now: DateTime<Utc>,
    lines: Vec<String>,
}

impl Teller<'_> {
    fn tell(&mut self) {
        let story = self.story;
        let headline = format!("{}, {}: {}", story.job, self.at(story.slot), self.headline());
        self.lines.push(headline);
        match &story.fate {
            Fate::NoSlot { before, after } => {
                self.neighbour("before it", *before);
                self.neighbour("after it", *after);
                return;
            }
            Fate::Decided { decisions, undecided } => {
                self.tell_due();
                for decision in decisions {
                    self.tell_decision(decision);
                }
                for to_come in &story.attempts_to_come {
                    self.tell_to_come(to_come);
                }
                self.tell_undecided(undecided);
                let ran = |d: &Decision| !is_no_run(d.record.outcome);
                if decisions.iter().any(ran) {
                    self.tell_workers();
                } else {
                    self.tell_absence(decisions);
                    self.tell_state();
                }
            }
            Fate::Overdue { prospect, undecided } => {
                self.tell_due();
                self.tell_prospect(prospect);
                self.tell_undecided(undecided);
                self.tell_state();
            }
            Fate::Ahead => {
                self.tell_due();
                self.tell_ahead();
                self.tell_state();
            }
            Fate::Unrecorded { through } => {
                self.tell_due();
                let through = self.moment(*through);
                self.fact(
                    "decided",
                    &format!(
                        "the job's slots are decided up to {through}, but nothing is recorded of \
                         this one"
                    ),
                );
                self.fact(
                    "",
                    "its record has expired, or the job was made, resumed or changed after it",
                );
                self.tell_hindrances();
            }
            Fate::Unknown => self.tell_hindrances(),
        }
        self.tell_next();
    }

    fn headline(&self) -> String {
        match &self.story.fate {
            Fate::Decided { decisions, .. } => outcome(decisions),
            Fate::Unrecorded { .. } => "decided, without a record".to_owned(),
            Fate::Overdue { .. } => "past due and not decided".to_owned(),
            Fate::Ahead => {
                let away = self.story.due.map(|due| text::duration(due - self.now));
                format!("due in {}", away.unwrap_or_default())
            }
            Fate::NoSlot { .. } => "not a slot of its schedule".to_owned(),
            Fate::Unknown => "whether this is a slot is not known".to_owned(),
        }
    }

    fn fact(&mut self, label: &str, text: &str) {
        self.lines.push(format!("  {label:<10} {text}"));
    }

    fn detail(&mut self, label: &str, text: &str) {
        self.lines.push(format!("    {label:<8} {text}"));
    }

    /// A slot by the clock of the job's zone.
    fn at(&self, slot: Slot) -> String {
        slot.instant().with_timezone(&self.story.zone).format("%Y-%m-%d %H:%M:%S %:z").to_string()
    }

    /// An instant by the same clock: its date where that is another than the slot's.
    fn moment(&self, at: DateTime<Utc>) -> String {
        let local = at.with_timezone(&self.story.zone);
        let day = self.story.slot.instant().with_timezone(&self.story.zone).date_naive();
        let form = if local.date_naive() == day { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S%.3f" };
        local.format(form).to_string()
    }

    fn neighbour(&mut self, label: &str, slot: Option<Slot>) {
        let text = slot.map_or_else(|| "no slot".to_owned(), |slot| self.at(slot));
        self.fact(label, &text);
    }

    fn tell_due(&mut self) {
        let (Some(due), Some(deadline)) = (self.story.due, self.story.deadline) else { return };
        let off = (due - self.story.slot.instant()).num_seconds();
        let within = (deadline - due).num_seconds();
        let spread =
            if off > 0 { format!(", {off} s after the slot (spread)") } else { String::new() };
        let due = self.moment(due);
        self.fact("due", &format!("{due}{spread}, to be started within {within} s"));
    }

    fn tell_decision(&mut self, decision: &Decision) {
        let record = &decision.record;
        if is_no_run(record.outcome) && record.claimed_time.is_none() {
            self.tell_no_run(decision);
            return;
        }
        let kind = match record.trigger {
            Trigger::Schedule => String::new(),
            other => format!(", {other}"),
        };
        let label = format!("attempt {}", record.attempt.max(1));
        let on = match self.story.on_every_worker {
            true => format!("on {} ", record.worker),
            false => String::new(),
        };
        self.fact(&label, &format!("{on}{}{kind}: run {}", record.outcome, record.id));
        if let Some(claimed) = record.claimed_time {
            let late = decision.late_millis.map(lateness).unwrap_or_default();
            let claimed = self.moment(claimed);
            let (worker, fence) = (&record.worker, record.fencing_token);
            self.detail("claimed", &format!("{claimed} by {worker}{late}, fence {fence}"));
        }
        if record.pid.is_some() || record.outcome != Outcome::Lost {
            let started = self.moment(record.start_time);
            let pid = record.pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
            self.detail("started", &format!("{started}{pid}"));
        }
        self.tell_end(decision);
        if let Some(kill) = &decision.kill {
            let at = self.moment(kill.at);
            self.detail("kill", &format!("asked for by {} at {at}", kill.by));
        }
        if let Some(by) = &record.killed_by {
            self.detail("kill", &format!("asked for by {by}"));
        }
        if let Some(late) = &record.late_result {
            self.detail(
                "later",
                &format!("after it was taken for lost its worker reported: {late}"),
            );
        }
        self.tell_remarks(decision);
    }

    fn tell_end(&mut self, decision: &Decision) {
        let record = &decision.record;
        let Some(ended) = record.end_time else {
            let so_far = text::duration(self.now - record.start_time);
            let state = decision.state.map_or_else(
                || "its key in etcd is gone, and what became of it is not recorded yet".to_owned(),
                |state| format!("{state} after {so_far}{}", self.usually()),
            );
            self.detail("now", &state);
            return;
        };
        let at = self.moment(ended);
        if record.outcome == Outcome::Lost {
            self.detail("noticed", &format!("{at}: {}", record.err));
            return;
        }
        let took = text::duration(ended - record.start_time);
        let how = match (record.exit_code, record.signal) {
            (Some(code), _) => format!(": exit code {code}"),
            (None, Some(signal)) => format!(": signal {signal}"),
            (None, None) => String::new(),
        };
        self.detail("ended", &format!("{at} after {took}{how}"));
        if !record.err.is_empty() {
            self.detail("reason", &record.err);
        }
    }

    fn tell_no_run(&mut self, decision: &Decision) {
        let record = &decision.record;
        let reason = record.reason.as_deref().unwrap_or(&record.err);
        self.fact(record.outcome.as_str(), reason);
        let at = self.moment(record.start_time);
        self.detail("settled", &format!("{at} by {}, record {}", record.worker, record.id));
        if let (Some(from), Some(to)) = (record.from_slot, record.to_slot) {
            let count = record.count.and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
            let (from, to) = (self.at(Slot::at(from)), self.at(Slot::at(to)));
            self.detail("with", &format!("{} from {from} to {to}", text::count(count, "slot")));
        }
        if let Some(other) = &decision.because {
            let text = self.other(other);
            self.detail("because", &text);
            self.point_at(other);
        }
        self.tell_remarks(decision);
    }

    fn tell_remarks(&mut self, decision: &Decision) {
        if decision.unacknowledged {
            self.detail("", "MongoDB has not acknowledged it: this is what etcd holds");
        }
        if decision.job_changed {
            self.detail("", "the job was written since: it may have been another then");
        }
    }

    fn tell_to_come(&mut self, to_come: &ToCome) {
        let label = format!("attempt {}", to_come.attempt);
        let (from, until) = (self.moment(to_come.not_before), self.moment(to_come.not_after));
        let (kind, by) = (to_come.kind, &to_come.by);
        let text = format!("{kind}, asked for by {by}: comes after {from}, missed after {until}");
        self.fact(&label, &text);
    }

    fn tell_undecided(&mut self, undecided: &[WorkerId]) {
        if !undecided.is_empty() {
            let all: Vec<&str> = undecided.iter().map(WorkerId::as_str).collect();
            self.fact("undecided", &format!("on {}", all.join(", ")));
        }
    }

    /// What is known of why nobody ran a slot: who was not there.
    fn tell_absence(&mut self, decisions: &[Decision]) {
        let missed = decisions.iter().any(|d| d.record.outcome == Outcome::Missed);
        let Some(deadline) = self.story.deadline.filter(|_| missed) else { return };
        let story = self.story;
        for Standing { worker, started, .. } in &story.workers {
            if let Some(started) = started.filter(|started| *started > deadline) {
                let started = self.moment(started);
                self.fact("absent", &format!("{worker}, which started only at {started}"));
            }
        }
    }

    fn tell_prospect(&mut self, prospect: &Prospect) {
        let takers = self.takers();
        let text = match prospect {
            Prospect::Follows => {
                "first a worker has the job's cursor follow a change of the job; what the job was \
                 before owes no run"
                    .to_owned()
            }
            Prospect::Runs { late, until } => {
                let until = self.moment(*until);
                let how = if *late { "it is caught up" } else { "it may start until" };
                let how = if *late { how.to_owned() } else { format!("{how} {until}") };
                let waited = self.story.due.is_some_and(|due| self.now - due > ON_ITS_WAY);
                match takers.first() {
                    Some(first) if waited => format!(
                        "{how}: {first} should have taken it by now; its log says what it does"
                    ),
                    Some(first) => format!("{how}; {first} is about to take it"),
                    None => format!("{how}, and no worker takes it"),
                }
            }
            Prospect::Skipped => "a worker is about to record it as skipped".to_owned(),
            Prospect::Missed => "a worker is about to record it as missed".to_owned(),
            Prospect::Settled { at } => {
                let at = self.moment(*at);
                format!(
                    "its deadline has passed: at {at}, when no clock of the fleet is before it any \
                     more, a worker settles it ({} s for clocks that differ)",
                    MAX_SKEW.num_seconds()
                )
            }
            Prospect::Blocked { by } => {
                format!("it is caught up when the run {by} has ended")
            }
            Prospect::Stuck => "nobody can decide it as things stand".to_owned(),
            Prospect::Waits => "an earlier slot, whose start is put off, comes first".to_owned(),
        };
        self.fact("now", &text);
        let earlier = self.story.next.filter(|next| next.slot < self.story.slot);
        if let Some(next) = earlier {
            let slot = self.at(next.slot);
            self.fact("", &format!("slots are decided in order, and {slot} comes first"));
        }
    }

    fn tell_ahead(&mut self) {
        let takers = self.takers();
        if self.story.on_every_worker && !takers.is_empty() {
            self.fact("expected", &format!("{}, each for itself", takers.join(", ")));
        } else if let Some((first, others)) = takers.split_first() {
            let then = match others {
                [] => String::new(),
                others => format!("; if it does not, {}", others.join(", then ")),
            };
            self.fact("expected", &format!("{first} takes it{then}"));
        }
    }

    fn takers(&self) -> Vec<String> {
        let ranked = self.story.workers.iter().filter(|standing| standing.rank.is_some());
        ranked.map(|standing| standing.worker.to_string()).collect()
    }

    fn tell_state(&mut self) {
        self.tell_hindrances();
        self.tell_workers();
    }

    fn tell_hindrances(&mut self) {
        let story = self.story;
        for (i, hindrance) in story.hindrances.iter().enumerate() {
            let label = if i == 0 { "hindered" } else { "" };
            let text = self.hindrance(hindrance);
            self.fact(label, &text);
            if let Hindrance::Live(other) = hindrance {
                self.point_at(other);
            }
        }
    }

    fn hindrance(&self, hindrance: &Hindrance) -> String {
        let job = &self.story.job;
        match hindrance {
            Hindrance::Gone => format!("there is no job {job} in etcd now"),
            Hindrance::Broken { why } => format!("it cannot be scheduled: {why}"),
            Hindrance::Paused => format!("the job is paused (`carillon resume {job}`)"),
            Hindrance::Frozen => "the fleet is frozen: no worker claims anything".to_owned(),
            Hindrance::CursorAhead { through } => format!(
                "its slots are decided up to {}, which is in the future: a clock is or was wrong \
                 (set it, then `carillon recover {job}`)",
                self.at(Slot::at(*through))
            ),
            Hindrance::NoWorkers => "no worker is registered".to_owned(),
            Hindrance::NobodyTakesIt => "none of the registered workers takes the job".to_owned(),
            Hindrance::Live(other) => {
                let meaning = match self.story.fate {
                    Fate::Ahead => "if it is live then, this slot is skipped",
                    _ => "under `forbid` no other run begins before it ends",
                };
                format!("{}: {meaning}", self.other(other))
            }
        }
    }

    fn other(&self, other: &Other) -> String {
        let of = match other.slot {
            Some(slot) => format!(" of {}", self.at(slot)),
            None => String::new(),
        };
        let mut text = format!("the run {}{of}", other.run);
        if !other.worker.is_empty() {
            text.push_str(&format!(" on {}", other.worker));
        }
        match (other.since, other.ended, other.outcome) {
            (Some(since), Some(ended), Some(outcome)) => {
                let (since, ended) = (self.moment(since), self.moment(ended));
                text.push_str(&format!(", from {since} to {ended}, {outcome}"));
            }
            (Some(since), None, _) => {
                let so_far = text::duration(self.now - since);
                let usually = self.usually();
                text.push_str(&format!(", live since {} ({so_far}{usually}", self.moment(since)));
                match other.times_out {
                    Some(at) => text.push_str(&format!("; timed out at {})", self.moment(at))),
                    None => text.push(')'),
                }
            }
            _ => text.push_str(", of which nothing is recorded any more"),
        }
        text
    }

    fn point_at(&mut self, other: &Other) {
        let job = &self.story.job;
        if let Some(slot) = other.slot.filter(|slot| *slot != self.story.slot) {
            let pointer = format!("see `carillon why {job} {slot}`");
            self.detail("", &pointer);
        }
    }

    fn usually(&self) -> String {
        let usual = self.story.usual_millis.map(TimeDelta::milliseconds);
        usual.map(|usual| format!(", usually {}", text::duration(usual))).unwrap_or_default()
    }

    fn tell_workers(&mut self) {
        let story = self.story;
        if story.workers.is_empty() {
            return;
        }
        let each = story.on_every_worker;
        let how =
            if each { "each runs the job" } else { "in the order in which they take the job" };
        self.fact("workers", &format!("as they are registered now, {how}"));
        for Standing { worker, rank, reason, .. } in &story.workers {
            match rank {
                Some(_) if each => self.detail("+", worker.as_str()),
                Some(rank) => self.detail(&format!("{}.", rank + 1), worker.as_str()),
                None => {
                    let reason = reason.as_deref().unwrap_or("it does not take it");
                    self.detail("-", &format!("{worker}: {reason}"));
                }
            }
        }
    }

    fn tell_next(&mut self) {
        let Some(next) = self.story.next.filter(|next| next.slot != self.story.slot) else {
            return;
        };
        let (slot, job) = (self.at(next.slot), &self.story.job);
        let overdue =
            format!("{slot} is past due and not decided: `carillon why {job} {}`", next.slot);
        let text = if next.overdue { overdue } else { slot };
        self.fact("next slot", &text);
    }
}

fn is_no_run(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Skipped | Outcome::Missed)
}

/// What became of the slot as a whole: what became of the last attempt, or on each worker.
fn outcome(decisions: &[Decision]) -> String {
    let ran = |record: &&RunRecord| !is_no_run(record.outcome) || record.attempt <= 1;
    let records = || decisions.iter().map(|decision| &decision.record);
    let Some(last) = records().rfind(ran).or_else(|| records().next_back()) else {
        return String::new();
    };
    let firsts = records().filter(|record| record.attempt <= 1).count();
    if firsts > 1 {
        let mut outcomes: Vec<&str> = records().map(|record| record.outcome.as_str()).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        return format!("{}: {}", text::count(decisions.len() as u64, "run"), outcomes.join(", "));
    }
    match last.attempt {
        0 | 1 => last.outcome.to_string(),
        attempt => format!("{} at attempt {attempt}", last.outcome),
    }
}

fn lateness(millis: i64) -> String {
    let by = text::duration(TimeDelta::milliseconds(millis));
    match millis {
        ..0 => format!(", {by} early by its clock"),
        _ => format!(", {by} late"),
    }
}

#[cfg(test)]
mod tests;
