//! What is told of a job, and to whom: the policy that stands in the job, and what one record calls
//! for. Who the names belong to is known to the workers alone.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How many targets one job may name.
const MOST_TARGETS: usize = 16;
/// The longest name of a target, in bytes.
const LONGEST_NAME: usize = 64;

/// Something that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// A run failed or ran out of time, and no further attempt follows.
    Failure,
    /// The first success after something bad that was told.
    Recovery,
    /// A slot did not run: nobody started it in time.
    Missed,
    /// The worker was lost during the run, and it does not run again.
    Lost,
    /// A run takes longer than the job says.
    Running,
}

impl Event {
    /// What a job can ask for in `on`; [`Event::Running`] is asked for by its number of seconds.
    pub const CHOICES: [Self; 4] = [Self::Failure, Self::Recovery, Self::Missed, Self::Lost];

    /// The name used in jobs, records and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Recovery => "recovery",
            Self::Missed => "missed",
            Self::Lost => "lost",
            Self::Running => "running",
        }
    }

    /// Whether a later success is the recovery from it.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failure | Self::Missed | Self::Lost)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Event {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::CHOICES.into_iter().chain([Self::Running]);
        known
            .into_iter()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not an event"))
    }
}

/// The field `notify` of a job. Nothing is told where it is empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// The events that are told: `failure`, `recovery`, `missed`, `lost`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
    /// After how many seconds it is told, once, that a run still goes on; never where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_after_secs: Option<u32>,
    /// The names of the targets, as in the workers' `--notify-file`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Policy {
    /// Whether this event is told.
    pub fn asks_for(&self, event: Event) -> bool {
        self.on.iter().any(|on| on == event.as_str())
    }

    /// The targets, each once.
    pub fn targets(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.to.iter().filter(|to| seen.insert(*to)).cloned().collect()
    }

    /// Everything that is wrong with it, in words; `timeout_secs` is the job's, 0 for none.
    pub fn problems(&self, timeout_secs: u32) -> Vec<String> {
        if self.on.is_empty() && self.to.is_empty() && self.running_after_secs.is_none() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for on in &self.on {
            if !Event::CHOICES.iter().any(|event| event.as_str() == on) {
                let hint = match on.as_str() {
                    "running" => " (give runningAfterSecs)",
                    _ => "",
                };
                problems.push(format!(
                    "on: `{on}` is none of failure, recovery, missed and lost{hint}"
                ));
            }
        }
        let bad = Event::CHOICES.into_iter().filter(|event| event.is_bad());
        if self.asks_for(Event::Recovery) && !bad.into_iter().any(|event| self.asks_for(event)) {
            problems.push("on: `recovery` follows failure, missed or lost: name one".to_owned());
        }
        if self.on.is_empty() && self.running_after_secs.is_none() {
            problems.push("nothing is told without `on` or `runningAfterSecs`".to_owned());
        }
        match self.running_after_secs {
            Some(0) => problems.push("runningAfterSecs: must be at least 1".to_owned()),
            Some(secs) if timeout_secs > 0 && secs >= timeout_secs => problems.push(format!(
                "runningAfterSecs: the run is ended by timeoutSecs, {timeout_secs}, before that"
            )),
            _ => {}
        }
        if self.to.is_empty() {
            let needed = "to: name the targets, as in the workers' --notify-file";
            problems.push(needed.to_owned());
        }
        if self.to.len() > MOST_TARGETS {
            problems.push(format!("to: at most {MOST_TARGETS} targets are allowed"));
        }
        let names = self.to.iter().filter_map(|name| wrong_name(name));
        problems.extend(names.map(|wrong| format!("to: {wrong}")));
        problems
    }
}

/// Why a text cannot be the name of a target, if it cannot.
pub fn wrong_name(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
        return Some(format!(
            "{name:?} cannot name a target: 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`"
        ));
    }
    None
}

/// What a record calls for. It is decided with the record, from the job as it was then, and travels
/// in it: through `done/` in etcd into MongoDB, whoever brings it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// What is told.
    pub event: Event,
    /// To whom.
    pub to: Vec<String>,
    /// Whether the recovery from it is told too.
    #[serde(default)]
    pub recovery: bool,
    /// The worker whose success is the recovery, where each has runs of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_worker: Option<String>,
    /// Whether the outbox has yet to take it over.
    #[serde(default)]
    pub pending: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str, timeout_secs: u32) -> Vec<String> {
        serde_json::from_str::<Policy>(json).unwrap().problems(timeout_secs)
    }

    #[test]
    fn a_whole_policy_is_accepted_and_an_empty_one_tells_nothing() {
        let whole = r#"{"on":["failure","recovery","missed","lost"],"runningAfterSecs":600,"to":["pager","chat-1"]}"#;
        assert_eq!(problems(whole, 0), [""; 0]);
        assert_eq!(problems(whole, 601), [""; 0]);
        assert_eq!(problems("{}", 0), [""; 0]);
        assert_eq!(problems(r#"{"runningAfterSecs":5,"to":["a"]}"#, 0), [""; 0]);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let found = problems(
            r#"{"on":["recovery","fail","running"],"runningAfterSecs":0,"to":["a b",""]}"#,
            0,
        );
        for part in [
            "`fail` is none of failure, recovery, missed and lost",
            "`running` is none of failure, recovery, missed and lost (give runningAfterSecs)",
            "`recovery` follows failure, missed or lost",
            "runningAfterSecs: must be at least 1",
            "\"a b\" cannot name a target",
            "\"\" cannot name a target",
        ] {
            assert!(found.iter().any(|p| p.contains(part)), "{part} in {found:?}");
        }
        assert_eq!(found.len(), 6);
        assert_eq!(problems(r#"{"on":["lost"]}"#, 0).len(), 1);
        assert_eq!(problems(r#"{"to":["a"]}"#, 0).len(), 1);
        let late = problems(r#"{"runningAfterSecs":600,"to":["a"]}"#, 600);
        assert!(late[0].contains("ended by timeoutSecs, 600"), "{late:?}");
    }

    #[test]
    fn unknown_fields_survive_and_a_target_is_told_once() {
        let json = r#"{"on":["lost"],"to":["a","b","a"],"x":1}"#;
        let policy: Policy = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), json);
        assert_eq!(policy.targets(), ["a", "b"]);
    }

    #[test]
    fn names_of_events_are_the_stored_ones() {
        for event in Event::CHOICES.into_iter().chain([Event::Running]) {
            assert_eq!(event.as_str().parse(), Ok(event));
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
        }
    }
}
