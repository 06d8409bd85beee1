//! Names of time zones: reading one, and what may have been meant by a wrong one.

use chrono_tz::{TZ_VARIANTS, Tz};

use crate::id::is_deceptive;

/// The longest text that is looked at, in bytes. The longest name has 32.
const MAX_BYTES: usize = 64;
/// How many names are suggested at most.
const SUGGESTED: usize = 3;
/// How many letters may be wrong at most, and of how many letters one may.
const WRONG_LETTERS: usize = 3;
const LETTERS_TO_A_WRONG_ONE: usize = 4;

/// Reads a name of the IANA time zone database, an old one too.
///
/// ```
/// use carillon_core::zones::parse_zone;
/// assert!(parse_zone("Asia/Calcutta").is_ok());
/// assert_eq!(
///     parse_zone("shanghai").unwrap_err(),
///     "`shanghai` is not a time zone: did you mean Asia/Shanghai?"
/// );
/// ```
///
/// # Errors
/// Says what was not recognized and what may have been meant, for an operator.
pub fn parse_zone(text: &str) -> Result<Tz, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a time zone is needed, such as Asia/Shanghai".to_owned());
    }
    if text.len() > MAX_BYTES {
        let length = text.len();
        return Err(format!(
            "{} ({length} bytes) is not a time zone such as Asia/Shanghai",
            quoted(text)
        ));
    }
    text.parse().map_err(|_| {
        let wrong = format!("{} is not a time zone", quoted(text));
        if let Some((zone, meaning)) = offset(text) {
            return format!("{wrong}: did you mean {zone}, which is {meaning}?");
        }
        match meant(text).as_slice() {
            [] => format!("{wrong} such as Asia/Shanghai"),
            [others @ .., last] if !others.is_empty() => {
                format!("{wrong}: did you mean {} or {last}?", others.join(", "))
            }
            one => format!("{wrong}: did you mean {}?", one.concat()),
        }
    })
}

/// The names that a text may stand for: without regard to case, the end of a name, or nearly one.
fn meant(text: &str) -> Vec<&'static str> {
    let text = text.to_lowercase().replace(' ', "_");
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    let place = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
    if let Some(name) = names().find(|name| name.eq_ignore_ascii_case(&text)) {
        return vec![name];
    }
    let ends = names().filter(|name| place(name).eq_ignore_ascii_case(&text));
    let ends: Vec<_> = ends.take(SUGGESTED).collect();
    if !ends.is_empty() {
        return ends;
    }
    let letters: Vec<char> = text.chars().collect();
    let mut allowed = (letters.len() / LETTERS_TO_A_WRONG_ONE).min(WRONG_LETTERS);
    let mut nearest = Vec::new();
    if allowed == 0 {
        return nearest;
    }
    for name in names() {
        let whole = if text.contains('/') { name } else { place(name) };
        let wrong = distance(&letters, &whole.to_ascii_lowercase());
        if wrong < allowed {
            nearest.clear();
        }
        if wrong <= allowed {
            allowed = wrong;
            nearest.push(name);
        }
    }
    nearest.truncate(SUGGESTED);
    nearest
}

/// How many letters are to be changed, added, left out or swapped with their neighbour to get from
/// one name to the other: optimal string alignment.
fn distance(from: &[char], to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    if from.len().abs_diff(to.len()) > WRONG_LETTERS {
        return usize::MAX;
    }
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX);
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    let mut before = None;
    for (y, a) in from.iter().enumerate() {
        let mut next = vec![y + 1];
        let mut left = None;
        for (x, b) in to.iter().enumerate() {
            let change = at(&row, x) + usize::from(a != b);
            let mut best = change.min(at(&row, x + 1) + 1).min(at(&next, x) + 1);
            if before == Some(b) && left == Some(a) {
                best = best.min(at(&above, x - 1) + 1);
            }
            next.push(best);
            left = Some(b);
        }
        above = std::mem::replace(&mut row, next);
        before = Some(a);
    }
    at(&row, to.len())
}

/// The zone of an offset such as `UTC+8`, and the offset. Their names have the sign of POSIX.
fn offset(text: &str) -> Option<(&'static str, String)> {
    let upper = text.to_ascii_uppercase();
    let rest = upper.strip_prefix("UTC").or_else(|| upper.strip_prefix("GMT")).unwrap_or(&upper);
    let (sign, hours) = match rest.strip_prefix('+') {
        Some(hours) => ('+', hours),
        None => ('-', rest.strip_prefix('-')?),
    };
    let hours = hours.strip_suffix(":00").unwrap_or(hours);
    let hours: u8 = hours.parse().ok().filter(|n| *n > 0)?;
    let other = if sign == '+' { '-' } else { '+' };
    let zone: Tz = format!("Etc/GMT{other}{hours}").parse().ok()?;
    Some((zone.name(), format!("UTC{sign}{hours}")))
}

/// The beginning of a text, for a message; nothing in it moves a cursor or hides something.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut out = String::from("`");
    for c in text.chars().take(SHOWN) {
        if c.is_control() || is_deceptive(c) {
            out.push_str(&format!("<U+{:04X}>", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out.push('`');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_old_and_new() {
        for (text, zone) in [
            ("Asia/Shanghai", Tz::Asia__Shanghai),
            (" Asia/Calcutta ", Tz::Asia__Calcutta),
            ("US/Eastern", Tz::US__Eastern),
            ("UTC", Tz::UTC),
        ] {
            assert_eq!(parse_zone(text), Ok(zone));
        }
    }

    #[test]
    fn a_wrong_name_gets_a_suggestion() {
        for (text, meant) in [
            ("asia/shanghai", ": did you mean Asia/Shanghai?"),
            ("ASIA/SHANGHAI", ": did you mean Asia/Shanghai?"),
            ("Shanghai", ": did you mean Asia/Shanghai?"),
            ("shanghai", ": did you mean Asia/Shanghai?"),
            ("America/New York", ": did you mean America/New_York?"),
            ("New York", ": did you mean America/New_York?"),
            ("utc", ": did you mean UTC?"),
            ("Asai/Shanghai", ": did you mean Asia/Shanghai?"),
            ("Asia/Shangai", ": did you mean Asia/Shanghai?"),
            ("Europ/Berlin", ": did you mean Europe/Berlin?"),
            ("Tokio", ": did you mean Asia/Tokyo?"),
            ("Eastern", ": did you mean Canada/Eastern or US/Eastern?"),
            ("UTC+8", ": did you mean Etc/GMT-8, which is UTC+8?"),
            ("+08:00", ": did you mean Etc/GMT-8, which is UTC+8?"),
            ("gmt-5", ": did you mean Etc/GMT+5, which is UTC-5?"),
            ("UTC+19", " such as Asia/Shanghai"),
            ("+05:30", " such as Asia/Shanghai"),
            ("PST", " such as Asia/Shanghai"),
            ("Mars/Olympus", " such as Asia/Shanghai"),
            ("上海", " such as Asia/Shanghai"),
        ] {
            assert_eq!(parse_zone(text), Err(format!("`{text}` is not a time zone{meant}")));
        }
        assert_eq!(parse_zone(" "), Err("a time zone is needed, such as Asia/Shanghai".into()));
    }

    #[test]
    fn no_message_is_long_or_obeyed_by_a_terminal() {
        let start = std::time::Instant::now();
        let long = parse_zone(&"x".repeat(1 << 20)).unwrap_err();
        assert!(long.contains("(1048576 bytes)") && long.len() < 120, "{long}");
        assert!(parse_zone(&"America/".repeat(8)).is_err());
        assert!(start.elapsed().as_millis() < 50, "{:?}", start.elapsed());
        let hostile = parse_zone("Asia/\u{1b}[2J\u{202e}Shanghai").unwrap_err();
        assert!(hostile.starts_with("`Asia/<U+001B>[2J<U+202E>Shanghai`"), "{hostile}");
    }

    #[test]
    fn the_distance_counts_letters() {
        for (a, b, letters) in [
            ("", "", 0),
            ("tokyo", "tokyo", 0),
            ("tokio", "tokyo", 1),
            ("otkyo", "tokyo", 1),
            ("toky", "tokyo", 1),
            ("ttokyo", "tokyo", 1),
            ("abc", "cab", 2),
        ] {
            assert_eq!(distance(&a.chars().collect::<Vec<_>>(), b), letters, "{a} {b}");
        }
    }
}
