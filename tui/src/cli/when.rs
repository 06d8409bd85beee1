//! Instants as operators give them: by the calendar, or by how long ago they are.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};

/// An instant, or one that is so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// By the calendar.
    At(DateTime<Utc>),
    /// So long ago.
    Ago(TimeDelta),
}

impl When {
    /// The instant that is meant at `now`.
    pub fn instant(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH),
        }
    }
}

impl FromStr for When {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(at.to_utc()));
        }
        ago(text).map(Self::Ago).ok_or_else(|| {
            format!(
                "`{text}` is neither an instant like 2026-01-31T01:00:00Z nor a time like 2h or 7d"
            )
        })
    }
}

/// Numbers with units, each smaller than the one before: `1d12h`.
fn ago(text: &str) -> Option<TimeDelta> {
    const UNITS: [(char, i64); 5] =
        [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
    let (mut total, mut rest, mut largest) = (0_i64, text, i64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = after.chars().next()?;
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        if seconds >= largest {
            return None;
        }
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(seconds)?)?;
        (largest, rest) = (seconds, after.get(1..)?);
    }
    (!text.is_empty()).then(|| TimeDelta::try_seconds(total)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_given_by_the_calendar_or_by_how_long_ago_it_is() {
        let now: DateTime<Utc> = "2026-01-31T12:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<When>().map(|when| when.instant(now).to_rfc3339());
        for (text, instant) in [
            ("2h", "2026-01-31T10:00:00+00:00"),
            ("7d", "2026-01-24T12:00:00+00:00"),
            ("1w", "2026-01-24T12:00:00+00:00"),
            ("1h30m5s", "2026-01-31T10:29:55+00:00"),
            ("0s", "2026-01-31T12:00:00+00:00"),
            ("999999999d", "1970-01-01T00:00:00+00:00"),
            ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00+00:00"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(instant), "{text}");
        }
        for text in [
            "",
            "7",
            "d",
            "-7d",
            "7 d",
            "5m1h",
            "1d1d",
            "7y",
            "2026-01-01",
            "7dé",
            "99999999999999d",
        ] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
