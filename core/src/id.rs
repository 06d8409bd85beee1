//! The names of things: a job, a worker, a run, a slot. Each is validated where it enters and has
//! one text form, so no other module checks or formats them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use ulid::Ulid;

/// The longest accepted job or worker name, in bytes of UTF-8.
pub const NAME_MAX_BYTES: usize = 200;

/// Why a text is not an acceptable name, id or slot. The message is written for an operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum IdError {
    /// Nothing at all.
    #[error("a name is needed: 1 to {NAME_MAX_BYTES} bytes")]
    Empty,
    /// More than [`NAME_MAX_BYTES`].
    #[error("the name is {0} bytes long; at most {NAME_MAX_BYTES} are allowed")]
    TooLong(usize),
    /// A character that would break a key, a command line or the operator's terminal.
    #[error("the name contains {}, which is not allowed in names", show_char(*.0))]
    Forbidden(char),
    /// `.` and `..` read as folders in paths and URLs.
    #[error("`.` and `..` are not names")]
    Dots,
    /// Not the 26 characters of a ULID.
    #[error("`{0}` is not a run id (26 characters, as printed by `carillon history`)")]
    NotARunId(String),
    /// Not an RFC 3339 instant.
    #[error("`{0}` is not an instant like 2026-01-31T01:00:00Z")]
    NotAnInstant(String),
}

fn show_char(c: char) -> String {
    match c {
        ' '..='~' => format!("`{c}`"),
        _ => format!("the character U+{:04X}", u32::from(c)),
    }
}

/// Whether `c` can reorder or hide the text around it: the bidirectional controls of UAX #9 and
/// the zero-width characters that make two different names look alike.
pub fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{061C}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}'
    )
}

fn check_name(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > NAME_MAX_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    if text == "." || text == ".." {
        return Err(IdError::Dots);
    }
    match text.chars().find(|&c| c == '/' || c == '@' || c.is_control() || is_deceptive(c)) {
        Some(c) => Err(IdError::Forbidden(c)),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 200 bytes of UTF-8 without `/`, `@`, control or bidirectional-control characters.
        /// Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes it a name.
            ///
            /// # Errors
            /// Says which rule the text breaks.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The name of a job; the last part of its key in etcd.
    JobName
}

name_type! {
    /// The name of a worker, unique in the fleet.
    WorkerId
}

/// The id of one decision about one slot: the run's id, its `done/` key and its MongoDB `_id`.
///
/// A ULID: it sorts by the time at which it was made. Text form: 26 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Ulid);

impl RunId {
    /// The first of all ids, for ranges.
    pub const FIRST: Self = Self(Ulid::from_parts(0, 0));
    /// The last of all ids, for ranges.
    pub const LAST: Self = Self(Ulid(u128::MAX));

    /// A new id, made at `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(Ulid::from_datetime(now.into()))
    }

    /// When this id was made, to the millisecond, by the clock of whoever made it.
    pub fn made_at(self) -> DateTime<Utc> {
        self.0.datetime().into()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Ulid::from_string(text).map(Self).map_err(|_| IdError::NotARunId(text.to_owned()))
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One scheduled instant of a job, in whole seconds of UTC.
///
/// Text form: RFC 3339 in UTC, `2026-01-31T01:00:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(DateTime<Utc>);

impl Slot {
    /// The slot at `instant`; what is finer than a second is cut off.
    pub fn at(instant: DateTime<Utc>) -> Self {
        let whole = Utc.timestamp_opt(instant.timestamp(), 0).single();
        Self(whole.unwrap_or(instant))
    }

    /// The instant of this slot.
    pub fn instant(self) -> DateTime<Utc> {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Slot {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        DateTime::parse_from_rfc3339(text)
            .map(|t| Self::at(t.to_utc()))
            .map_err(|_| IdError::NotAnInstant(text.to_owned()))
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_script_are_accepted() {
        for good in ["a", "settle", "每日清算", "a b", "x.y-z_1", &"n".repeat(200)] {
            assert_eq!(JobName::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn every_bad_name_is_refused_with_its_reason() {
        let cases = [
            ("", IdError::Empty),
            ("a/b", IdError::Forbidden('/')),
            ("a@b", IdError::Forbidden('@')),
            ("a\u{1b}[2J", IdError::Forbidden('\u{1b}')),
            ("a\u{202e}b", IdError::Forbidden('\u{202e}')),
            ("..", IdError::Dots),
        ];
        for (bad, why) in cases {
            assert_eq!(JobName::new(bad), Err(why), "{bad:?}");
        }
        assert_eq!(JobName::new(&"n".repeat(300)), Err(IdError::TooLong(300)));
        assert_eq!(
            IdError::Forbidden('\u{1b}').to_string(),
            "the name contains the character U+001B, which is not allowed in names"
        );
    }

    #[test]
    fn a_slot_is_whole_seconds_and_round_trips() {
        let slot: Slot = "2026-01-31T01:00:00.900+08:00".parse().unwrap();
        assert_eq!(slot.to_string(), "2026-01-30T17:00:00Z");
        assert_eq!(slot.to_string().parse(), Ok(slot));
    }

    #[test]
    fn run_ids_sort_by_time_and_round_trip() {
        let early = RunId::new("2026-01-01T00:00:00Z".parse().unwrap());
        let late = RunId::new("2026-01-01T00:00:01Z".parse().unwrap());
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert!("nonsense".parse::<RunId>().is_err());
    }
}
