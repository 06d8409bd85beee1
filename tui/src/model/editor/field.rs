//! The fields of the form: how each is shown as text, and read from it.

use std::collections::BTreeMap;

use carillon_core::job::{Concurrency, Job};
use carillon_core::zones::parse_zone;

/// A field of the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the job's fields")]
pub enum Field {
    Name,
    Schedule,
    Zone,
    Command,
    Enabled,
    Concurrency,
    Timeout,
    KillGrace,
    StartDeadline,
    User,
    Cwd,
    Labels,
    Description,
}

/// What a field is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One line.
    Line,
    /// Several lines.
    Lines,
    /// One of a few.
    Choice,
}

impl Field {
    /// Every field, in the order of Tab.
    pub const ALL: [Self; 13] = [
        Self::Name,
        Self::Schedule,
        Self::Zone,
        Self::Command,
        Self::Enabled,
        Self::Concurrency,
        Self::Timeout,
        Self::KillGrace,
        Self::StartDeadline,
        Self::User,
        Self::Cwd,
        Self::Labels,
        Self::Description,
    ];

    /// What it is filled with.
    pub fn kind(self) -> Kind {
        match self {
            Self::Command => Kind::Lines,
            Self::Enabled | Self::Concurrency => Kind::Choice,
            _ => Kind::Line,
        }
    }

    /// Its name on the screen.
    pub fn label(self) -> &'static str {
        match self {
            Self::Name => "Name",
            Self::Schedule => "Schedule",
            Self::Zone => "Time zone",
            Self::Command => "Command",
            Self::Enabled => "Enabled",
            Self::Concurrency => "Concurrency",
            Self::Timeout => "Time-out",
            Self::KillGrace => "Kill grace",
            Self::StartDeadline => "Start within",
            Self::User => "User",
            Self::Cwd => "Directory",
            Self::Labels => "Labels",
            Self::Description => "Description",
        }
    }

    /// Its name in JSON.
    pub fn json(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Schedule => "cronExpr",
            Self::Zone => "timezone",
            Self::Command => "command",
            Self::Enabled => "enabled",
            Self::Concurrency => "concurrency",
            Self::Timeout => "timeoutSecs",
            Self::KillGrace => "killGraceSecs",
            Self::StartDeadline => "startDeadlineSecs",
            Self::User => "user",
            Self::Cwd => "cwd",
            Self::Labels => "labels",
            Self::Description => "description",
        }
    }

    /// The field with this name in JSON.
    pub fn of_json(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.json() == name)
    }

    /// What to write in it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Name => "any name without / and @; it cannot be changed later",
            Self::Schedule => {
                "minute hour day month weekday; @hourly, @every 10m, @at 2030-12-24 09:30"
            }
            Self::Zone => "such as Asia/Shanghai; empty is the fleet's own",
            Self::Command => "given to the shell as it stands",
            Self::Enabled => "a paused job can still be run by hand; space changes it",
            Self::Concurrency => "when the last run is still live: skip, start anyway, or kill it",
            Self::Timeout => "when a run is ended: 90, 5m, 1h30m; empty is never",
            Self::KillGrace => "the time between SIGTERM and SIGKILL: 10s",
            Self::StartDeadline => "how late a run may start; later it is missed",
            Self::User => "who runs it; empty is the worker's own user",
            Self::Cwd => "where it starts: an absolute path; empty is the worker's",
            Self::Labels => "describe the job: team=pay env=prod note=\"two words\"",
            Self::Description => "what it is for, in a line",
        }
    }

    /// What stands in it while it is empty.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Name => "needed",
            Self::Schedule => "needed: 0 1 * * *",
            Self::Command => "needed",
            Self::Timeout => "none",
            Self::KillGrace | Self::StartDeadline => "needed: 10s",
            Self::User | Self::Cwd => "the worker's",
            Self::Labels => "team=pay env=prod",
            Self::Zone | Self::Enabled | Self::Concurrency | Self::Description => "",
        }
    }

    /// The choices, where there are only a few.
    pub fn choices(self) -> &'static [&'static str] {
        match self {
            Self::Enabled => &["yes", "no"],
            Self::Concurrency => &["forbid", "allow", "replace"],
            _ => &[],
        }
    }

    /// The job's value as text.
    pub fn text(self, job: &Job) -> String {
        match self {
            Self::Name => job.name.clone(),
            Self::Schedule => job.cron_expr.clone(),
            Self::Zone => job.timezone.clone().unwrap_or_default(),
            Self::Command => job.command.clone(),
            Self::Enabled => if job.enabled { "yes" } else { "no" }.to_owned(),
            Self::Concurrency => job.concurrency.to_string(),
            Self::Timeout if job.timeout_secs == 0 => String::new(),
            Self::Timeout => duration_text(job.timeout_secs),
            Self::KillGrace => duration_text(job.kill_grace_secs),
            Self::StartDeadline => duration_text(job.start_deadline_secs),
            Self::User => job.user.clone().unwrap_or_default(),
            Self::Cwd => job.cwd.clone().unwrap_or_default(),
            Self::Labels => labels_text(&job.labels),
            Self::Description => job.description.clone(),
        }
    }

    /// Sets the job's value from text.
    ///
    /// # Errors
    /// Says what is wrong with the text, for an operator.
    pub fn set(self, job: &mut Job, text: &str) -> Result<(), String> {
        let optional = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
        match self {
            Self::Name => text.trim().clone_into(&mut job.name),
            Self::Schedule => text.trim().clone_into(&mut job.cron_expr),
            Self::Zone => {
                job.timezone = optional(text);
                if let Some(zone) = &job.timezone {
                    parse_zone(zone)?;
                }
            }
            Self::Command => text.clone_into(&mut job.command),
            Self::Enabled => job.enabled = text == "yes",
            Self::Concurrency => {
                let policy = Concurrency::ALL.into_iter().find(|c| c.to_string() == text);
                job.concurrency = policy.ok_or_else(|| format!("`{text}` is not a policy"))?;
            }
            Self::Timeout if text.trim().is_empty() => job.timeout_secs = 0,
            Self::Timeout => job.timeout_secs = parse_duration(text)?,
            Self::KillGrace => job.kill_grace_secs = parse_duration(text)?,
            Self::StartDeadline => job.start_deadline_secs = parse_duration(text)?,
            Self::User => job.user = optional(text),
            Self::Cwd => job.cwd = optional(text),
            Self::Labels => job.labels = parse_labels(text)?,
            Self::Description => text.clone_into(&mut job.description),
        }
        Ok(())
    }
}

const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Seconds in the form in which they are typed: `1h30m`.
fn duration_text(secs: u32) -> String {
    let mut rest = secs;
    let mut out = String::new();
    for (letter, unit) in UNITS {
        if rest >= unit {
            out.push_str(&format!("{}{letter}", rest / unit));
            rest %= unit;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// Reads `90`, `90s`, `5m`, `1h30m`, `2d` as seconds.
fn parse_duration(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let bad = || match text {
        "" => "a duration is needed, such as 90, 5m or 1h30m".to_owned(),
        _ => format!("`{text}` is not a duration such as 90, 5m or 1h30m"),
    };
    if let Ok(secs) = text.parse() {
        return Ok(secs);
    }
    let mut total = 0_u32;
    let mut digits = String::new();
    let mut units = UNITS.iter();
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        // Each unit once, the larger first.
        let (_, unit) = units.find(|(letter, _)| *letter == c).ok_or_else(bad)?;
        let number: u32 = std::mem::take(&mut digits).parse().map_err(|_| bad())?;
        let part = number.checked_mul(*unit).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
    }
    if digits.is_empty() && !text.is_empty() { Ok(total) } else { Err(bad()) }
}

fn labels_text(labels: &BTreeMap<String, String>) -> String {
    let quoted = |text: &str| {
        let plain = |c: char| !c.is_whitespace() && c != '"' && c != ',' && c != '\\';
        if text.chars().all(plain) {
            text.to_owned()
        } else {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
    };
    let pairs = labels.iter().map(|(k, v)| format!("{}={}", quoted(k), quoted(v)));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Reads `team=pay, env=prod note="two words"`.
fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut words: Vec<Vec<String>> = Vec::new();
    let mut word = vec![String::new()];
    let (mut quoted, mut begun) = (false, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let add = match c {
            '"' => {
                (quoted, begun) = (!quoted, true);
                continue;
            }
            '\\' if quoted => chars.next().unwrap_or('\\'),
            '=' if !quoted && word.len() == 1 => {
                word.push(String::new());
                continue;
            }
            c if !quoted && (c.is_whitespace() || c == ',') => {
                if begun {
                    words.push(std::mem::replace(&mut word, vec![String::new()]));
                }
                begun = false;
                continue;
            }
            c => c,
        };
        begun = true;
        if let Some(part) = word.last_mut() {
            part.push(add);
        }
    }
    if quoted {
        return Err("a quotation mark is missing at the end".to_owned());
    }
    if begun || word.len() > 1 {
        words.push(word);
    }
    let mut labels = BTreeMap::new();
    for word in words {
        match <[String; 2]>::try_from(word) {
            Ok([key, value]) if !key.is_empty() => {
                if labels.insert(key.clone(), value).is_some() {
                    return Err(format!("`{key}` is there twice"));
                }
            }
            Ok([_, value]) => return Err(format!("a name is missing before `={value}`")),
            Err(word) => return Err(format!("`{}` is not name=value", word.concat())),
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, secs) in [
            ("90", 90),
            ("90s", 90),
            ("5m", 300),
            ("1h30m", 5_400),
            ("2d", 172_800),
            ("1h 5s", 3_605),
        ] {
            assert_eq!(parse_duration(text), Ok(secs));
            assert_eq!(parse_duration(&duration_text(secs)), Ok(secs));
        }
        for bad in ["", "soon", "5", "m", "5m1h", "1.5h", "-3", "5mm", "99999999d"] {
            assert_eq!(parse_duration(bad).is_ok(), bad == "5", "{bad:?}");
        }
        assert_eq!(duration_text(0), "0s");
    }

    #[test]
    fn labels_are_read() {
        let read = |text: &str| parse_labels(text).map(|l| labels_text(&l));
        assert_eq!(read("team=pay, env=prod").unwrap(), "env=prod team=pay");
        assert_eq!(read("note=\"two words\" empty=").unwrap(), "empty= note=\"two words\"");
        assert_eq!(read("  ").unwrap(), "");
        for (bad, why) in [
            ("pay", "`pay` is not"),
            ("a=1 a=2", "twice"),
            ("=x", "missing before"),
            ("a=\"x", "quotation"),
        ] {
            assert!(read(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn labels_round_trip(labels in proptest::collection::btree_map("[^=]{1,8}", "\\PC{0,8}", 0..4)) {
            prop_assert_eq!(parse_labels(&labels_text(&labels)), Ok(labels));
        }

        #[test]
        fn durations_round_trip(secs in any::<u32>()) {
            prop_assert_eq!(parse_duration(&duration_text(secs)), Ok(secs));
        }
    }
}
