//! Text to [`Rule`]: splits an expression into fields, spells each for the `cron` crate, which
//! parses and validates, adds what the crate does not know, and refuses what could never fire.
//!
//! The crate joins the two day fields with AND and goes wrong where clocks change, so only its
//! parsed values are used, never its iterator.

use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};
use cron::TimeUnitSpec;

use super::ScheduleError;
use super::calendar::{FIRST_YEAR, LAST_YEAR};
use super::compiled::Rule;
use super::field::{
    DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, MONTHS, Piece, Reader, SECOND, YEAR, foreign,
    is_blank,
};
use super::masks::{ALL_YEARS, Fields, Join, Sixty};
use super::zone::HORIZON;

/// Longest expression in bytes. Every second, minute, hour, day, month and year written out as
/// numbers takes about 1,200; anything longer is an accident or an attack.
const MAX_BYTES: usize = 2048;

/// Longest period of `@every`: a hundred years of 365 days, in seconds.
const MAX_PERIOD: i64 = 36_500 * 86_400;

/// What an expression may refer to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context<'a> {
    /// The job that `~` chooses for.
    pub(super) name: Option<&'a str>,
    /// Where the periods of `@every` begin; the Unix epoch where absent.
    pub(super) anchor: Option<DateTime<Utc>>,
}

/// Reads an expression.
pub(super) fn parse(expr: &str, context: Context<'_>) -> Result<Rule, ScheduleError> {
    let whole = Piece { text: expr, start: 0 };
    if expr.len() > MAX_BYTES {
        let rest = expr.get(expr.floor_char_boundary(MAX_BYTES)..);
        let rest = rest.unwrap_or_default();
        return Err(Piece { text: rest, start: expr.len() - rest.len() }.error(
            "schedule",
            format!(
                "is {} bytes long, at most {MAX_BYTES} are read: use ranges and steps, or several \
                 jobs",
                expr.len()
            ),
        ));
    }
    let body = whole.trim();
    if body.text.is_empty() {
        return Err(whole.error(
            "schedule",
            "is empty: write five fields such as `0 1 * * *`, or a name such as `@daily`",
        ));
    }
    if body.text.starts_with('@') {
        return parse_nickname(body, context);
    }
    parse_fields(body, context)
}

fn parse_nickname(body: Piece<'_>, context: Context<'_>) -> Result<Rule, ScheduleError> {
    let (name, rest) = match body.text.find(is_blank) {
        Some(end) => (
            Piece { text: body.text.get(..end).unwrap_or_default(), ..body },
            Piece { text: body.text.get(end..).unwrap_or_default(), start: body.start + end }
                .trim(),
        ),
        None => (body, Piece { text: "", start: body.start + body.text.len() }),
    };
    let fields = match name.text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        "@every" => return parse_every(rest, context),
        "@at" => return parse_at(rest),
        "@reboot" => {
            return Err(name.error(
                "schedule",
                "`@reboot` cannot work here, because there is no one machine whose boot it could \
                 mean: start the command from the machine's own init system (systemd), or give a \
                 time",
            ));
        }
        _ => {
            return Err(name.error(
                "schedule",
                format!(
                    "{} is not known: use @yearly, @monthly, @weekly, @daily, @hourly, \
                     `@every 90s` or `@at 2030-12-24T09:30:00Z`",
                    name.quoted()
                ),
            ));
        }
    };
    if !rest.text.is_empty() {
        return Err(rest.error("schedule", format!("{} takes nothing after it", name.quoted())));
    }
    parse_fields(Piece { text: fields, start: 0 }, context)
}

fn parse_every(body: Piece<'_>, context: Context<'_>) -> Result<Rule, ScheduleError> {
    const HOW: &str = "write days, hours, minutes and seconds in this order, such as `1h30m`, \
                       `90s` or `2d`";
    let field = "@every";
    if body.text.is_empty() {
        return Err(body.error(field, format!("a duration is missing: {HOW}")));
    }
    let mut total: i64 = 0;
    let mut units = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)].iter();
    let mut rest = body.text;
    while !rest.is_empty() {
        let part = rest.find(|c: char| !c.is_ascii_digit());
        let (digits, after) = rest.split_at(part.unwrap_or(rest.len()));
        let mut letters = after.chars();
        let letter = letters.next().map(|c| c.to_ascii_lowercase());
        let scale = units.find(|(unit, _)| Some(*unit) == letter);
        let (Some((_, scale)), false) = (scale, digits.is_empty()) else {
            return Err(body.error(field, format!("{} is not a duration: {HOW}", body.quoted())));
        };
        total = digits
            .parse()
            .ok()
            .and_then(|n: i64| n.checked_mul(*scale)?.checked_add(total))
            .filter(|total| *total <= MAX_PERIOD)
            .ok_or_else(|| body.error(field, "is longer than 36500 days"))?;
        rest = letters.as_str();
    }
    if total == 0 {
        return Err(body.error(field, "must be at least one second"));
    }
    // Nothing fires before the anchor, not even in the second that it lies in.
    let from = context
        .anchor
        .map_or(0, |anchor| anchor.timestamp() + i64::from(anchor.timestamp_subsec_nanos() > 0));
    let from = Some(from).filter(|from| (0..HORIZON).contains(from));
    let from = from.and_then(|from| u32::try_from(from).ok()).ok_or_else(|| {
        body.error(field, format!("its anchor is out of range {FIRST_YEAR}-{LAST_YEAR}"))
    })?;
    Ok(Rule::Every { period: u32::try_from(total).unwrap_or(u32::MAX), from })
}

/// Reads the instant of `@at`, or the wall-clock time in a zone that is known later.
fn parse_at(body: Piece<'_>) -> Result<Rule, ScheduleError> {
    const HOW: &str = "write `2030-12-24T09:30:00Z`, `2030-12-24T09:30:00+08:00`, or \
                       `2030-12-24 09:30` for the clock in the job's own zone";
    let field = "@at";
    if body.text.is_empty() {
        return Err(body.error(field, format!("an instant is missing: {HOW}")));
    }
    let out_of_range = || body.error(field, format!("is out of range {FIRST_YEAR}-{LAST_YEAR}"));
    // chrono keeps a leap second as a fraction of more than one.
    let fraction = || body.error(field, "is not a whole second that a clock shows");
    if let Ok(instant) = DateTime::parse_from_rfc3339(body.text) {
        if instant.nanosecond() != 0 {
            return Err(fraction());
        }
        let seconds = Some(instant.timestamp()).filter(|s| (0..HORIZON).contains(s));
        let at = seconds.and_then(|seconds| u32::try_from(seconds).ok());
        return at.map(Rule::At).ok_or_else(out_of_range);
    }
    let wall = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(body.text, form).ok())
        .ok_or_else(|| body.error(field, format!("{} is not an instant: {HOW}", body.quoted())))?;
    if wall.nanosecond() != 0 {
        return Err(fraction());
    }
    let year = u32::try_from(wall.year()).unwrap_or_default();
    if !(FIRST_YEAR..=LAST_YEAR).contains(&year) {
        return Err(out_of_range());
    }
    let mut years = [0; 17];
    choose_year(&mut years, year);
    Ok(Rule::Fields(Fields {
        seconds: Sixty::new(1 << wall.second()),
        minutes: Sixty::new(1 << wall.minute()),
        hours: 1 << wall.hour(),
        days: 1 << wall.day(),
        last_days: 0,
        near_days: 0,
        weekdays: [1; 7],
        months: 1 << wall.month(),
        years,
        join: Join::Both,
        fixed: true,
    }))
}

fn parse_fields(body: Piece<'_>, context: Context<'_>) -> Result<Rule, ScheduleError> {
    let pieces: Vec<Piece<'_>> = body.split(is_blank).filter(|p| !p.text.is_empty()).collect();
    let none = Piece { text: "", start: body.start };
    let (second, [minute, hour, day, month, weekday], year) = match *pieces.as_slice() {
        [a, b, c, d, e] => (none, [a, b, c, d, e], none),
        [s, a, b, c, d, e] => (s, [a, b, c, d, e], none),
        [s, a, b, c, d, e, y] => (s, [a, b, c, d, e], y),
        _ => return Err(wrong_count(body, &pieces)),
    };
    let mut reader = Reader { name: context.name, ..Reader::default() };
    if second.text.is_empty() {
        reader.spelled.push('0');
    } else {
        reader.field(&SECOND, second)?;
    }
    reader.field(&MINUTE, minute)?;
    reader.field(&HOUR, hour)?;
    let any_day = reader.field(&DAY_OF_MONTH, day)?;
    reader.field(&MONTH, month)?;
    let any_weekday = reader.field(&DAY_OF_WEEK, weekday)?;
    if !year.text.is_empty() {
        reader.field(&YEAR, year)?;
    }
    let parsed = cron::Schedule::from_str(&reader.spelled)
        .map_err(|e| body.error("schedule", format!("cannot be read: {e}")))?;

    let follows = |p: Piece<'_>| p.text.contains(['*', '/']);
    let open = |p: Piece<'_>| p.text.starts_with(['*', '?']);
    let mut years = [0; 17];
    for year in parsed.years().iter() {
        choose_year(&mut years, year);
    }
    let mut weekdays = reader.weekdays;
    if any_weekday {
        for ordinal in parsed.days_of_week().iter() {
            // Sunday is the crate's 1.
            if let Some(chosen) = weekdays.get_mut((ordinal - 1) as usize) {
                *chosen = 1;
            }
        }
    }
    for chosen in &mut weekdays {
        const FIRST_TO_FIFTH: u8 = 0b11_1110;
        if *chosen & FIRST_TO_FIFTH == FIRST_TO_FIFTH {
            *chosen = 1;
        }
    }
    let fields = Fields {
        seconds: Sixty::new(mask(parsed.seconds())),
        minutes: Sixty::new(mask(parsed.minutes())),
        hours: mask(parsed.hours()) as u32,
        days: if any_day { mask(parsed.days_of_month()) as u32 } else { 0 },
        last_days: reader.last_days,
        near_days: reader.near_days,
        weekdays,
        months: mask(parsed.months()) as u16,
        years,
        join: if open(day) || open(weekday) { Join::Both } else { Join::Either },
        fixed: !follows(minute) && !follows(hour),
    };
    refuse_never(&fields, day, month, year)?;
    Ok(Rule::Fields(fields.recognised()))
}

fn choose_year(years: &mut [u8; 17], year: u32) {
    let bit = year.wrapping_sub(FIRST_YEAR);
    if let Some(byte) = years.get_mut(bit as usize / 8) {
        *byte |= 1 << (bit % 8);
    }
}

fn mask(values: &impl TimeUnitSpec) -> u64 {
    values.iter().fold(0, |mask, value| mask | 1 << value)
}

fn wrong_count(body: Piece<'_>, pieces: &[Piece<'_>]) -> ScheduleError {
    if let Some((at, c)) =
        body.text.char_indices().find(|(_, c)| !c.is_ascii_graphic() && !is_blank(*c))
    {
        let end = at + c.len_utf8();
        return Piece { text: body.text.get(at..end).unwrap_or_default(), start: body.start + at }
            .error("schedule", foreign(c));
    }
    let message = format!(
        "{} {}, but 5 are needed (minute, hour, day of month, month, day of week), 6 (seconds \
         first) or 7 (a year last)",
        pieces.len(),
        if pieces.len() == 1 { "field" } else { "fields" },
    );
    match pieces.get(7) {
        Some(extra) => {
            Piece { text: body.text.get(extra.start - body.start..).unwrap_or_default(), ..*extra }
                .error("schedule", message)
        }
        None => body.error("schedule", message),
    }
}

/// Refuses what could not fire in any zone or year.
fn refuse_never(
    fields: &Fields,
    day: Piece<'_>,
    month: Piece<'_>,
    year: Piece<'_>,
) -> Result<(), ScheduleError> {
    if fields.next_reading(0).is_some() {
        return Ok(());
    }
    let any_year = Fields { years: ALL_YEARS, ..*fields };
    if any_year.next_reading(0).is_some() {
        return Err(year.error("year", "would never fire: no chosen year has such a day"));
    }
    let plain = fields.last_days | fields.near_days == 0;
    let one = plain && fields.days.count_ones() == 1 && fields.months.count_ones() == 1;
    let name = MONTHS
        .get((fields.months.trailing_zeros() as usize).wrapping_sub(1))
        .copied()
        .unwrap_or_default();
    let message = if one {
        let mut name = name.to_owned();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        format!("would never fire: there is no {} {name}", fields.days.trailing_zeros())
    } else {
        "would never fire: no chosen month has such a day".to_owned()
    };
    Err(ScheduleError {
        field: DAY_OF_MONTH.name,
        message,
        span: day.start..month.span().end.max(day.span().end),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Schedule, ScheduleError};
    use super::*;

    fn rule(expr: &str) -> Rule {
        parse(expr, Context { name: Some("settle"), anchor: None }).unwrap()
    }

    fn fields(expr: &str) -> Fields {
        match rule(expr) {
            Rule::Fields(fields) => fields,
            other => panic!("{expr}: {other:?}"),
        }
    }

    fn bits(mask: u64) -> Vec<u32> {
        (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
    }

    #[test]
    fn two_spellings_of_one_rule() {
        for (a, b) in [
            ("0 0 * * *", "@daily"),
            ("0 0 * * *", "  0\t0  * * * "),
            ("0 0 * * *", "0 0 0 * * *"),
            ("0 0 * * *", "0 0 0 * * * 1970-2100"),
            ("0 0 * * *", "@MIDNIGHT"),
            ("0 0 1 1 *", "@annually"),
            ("0 0 1 jan *", "@yearly"),
            ("0 0 * * 7", "0 0 * * Sunday"),
            ("0 0 * * 0", "@weekly"),
            ("0 * * * *", "@hourly"),
            ("0 0 * * 5-7", "0 0 * * FRI-sun"),
            ("0 0 * * 5-1", "0 0 * * 0,1,5,6"),
            ("0 0 * * 0-7", "0 0 * * 1-7"),
            ("0 0 * * 7-2", "0 0 * * 0-2"),
            ("0 0 * * FRI-MON/2", "0 0 * * 5,0"),
            ("0 0 * * MON/2", "0 0 * * 1,3,5"),
            ("0 0 * * ?", "0 0 ? * *"),
            ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
            ("0 0 25-5/4 * 1", "0 0 25,29,2 * 1"),
            ("0 0 1 NOV-FEB *", "0 0 1 11,12,1,2 *"),
            ("0 0 1 sept *", "0 0 1 SEPTEMBER *"),
            ("05 007 * * *", "5 7 * * *"),
            ("@every 90s", "@every 1m30s"),
            ("@every 1d", "@EVERY  24H "),
            ("0 0 l,lw,15w * *", "0 0 15W,LW,L-0 * *"),
            ("0 0 * * fril", "0 0 * * 5L"),
            ("0 0 * * 7#1,0l", "0 0 * * SUN#1,SundayL"),
            ("0 0 * * MON,MON#2", "0 0 * * MON"),
            ("0 0 * * 1#1,1#2,1#3,1#4,1#5", "0 0 * * MON"),
            ("@at 2030-01-02 03:04", "0 4 3 2 1 ? 2030"),
            ("@at 2030-01-02T03:04:05", "5 4 3 2 1 ? 2030"),
            ("@at 2030-01-02T03:04:05+03:00", "@at 2030-01-02T00:04:05Z"),
        ] {
            assert_eq!(rule(a), rule(b), "{a} and {b}");
        }
    }

    #[test]
    fn values_reach_their_masks() {
        let all = fields("5/20 58-3 22-2/2 29-2 11-1 6-1 2040,1970,2100");
        assert_eq!(bits(all.seconds.bits()), [5, 25, 45]);
        assert_eq!(bits(all.minutes.bits()), [0, 1, 2, 3, 58, 59]);
        assert_eq!(bits(u64::from(all.hours)), [0, 2, 22]);
        assert_eq!(bits(u64::from(all.days)), [1, 2, 29, 30, 31]);
        assert_eq!(bits(u64::from(all.months)), [1, 11, 12]);
        assert_eq!(all.weekdays, [1, 1, 0, 0, 0, 0, 1]);
        assert_eq!(all.chosen_years().collect::<Vec<_>>(), [1970, 2040, 2100]);
        assert_eq!(fields("* * * * *").chosen_years().count(), 131);
    }

    #[test]
    fn the_day_fields_join_as_in_vixie_cron() {
        for (expr, either) in [
            ("0 0 1 * 1", true),
            ("0 0 1-31 * 0-6", true),
            ("0 0 */2 * 1", false),
            ("0 0 1 * */2", false),
            ("0 0 ? * 1", false),
            ("0 0 1 * *", false),
            ("0 0 1,* * 1", true),
        ] {
            assert_eq!(fields(expr).join == Join::Either, either, "{expr}");
        }
    }

    #[test]
    fn only_wildcards_and_steps_follow_the_clock() {
        for (expr, fixed) in [
            ("30 2 * * *", true),
            ("*/10 30 2 * * *", true),
            ("0,30 1-4 * * *", true),
            ("0 22-2 * * *", true),
            ("30 * * * *", false),
            ("*/5 2 * * *", false),
            ("0-30/5 2 * * *", false),
            ("0 1/2 * * *", false),
        ] {
            assert_eq!(fields(expr).fixed, fixed, "{expr}");
        }
    }

    #[test]
    fn the_name_chooses_within_the_range() {
        let chosen = |expr: &str, name: &str| match parse(
            expr,
            Context { name: Some(name), anchor: None },
        ) {
            Ok(Rule::Fields(fields)) => fields,
            other => panic!("{expr}: {other:?}"),
        };
        let names: Vec<String> = (0..300).map(|n| format!("job-{n}")).collect();
        for (expr, field, possible) in [
            ("~ 0 * * *", 0, (0..60).collect::<Vec<u32>>()),
            ("10~12 0 * * *", 0, vec![10, 11, 12]),
            ("57~ 0 * * *", 0, vec![57, 58, 59]),
            ("~2 0 * * *", 0, vec![0, 1, 2]),
            ("58~1 0 * * *", 0, vec![58, 59, 0, 1]),
            ("0 ~ * * *", 1, (0..24).collect()),
            ("0 0 ~ * *", 2, (1..29).collect()),
            ("0 0 20~ * *", 2, (20..32).collect()),
            ("0 0 ~3 * *", 2, vec![1, 2, 3]),
            ("0 0 30~2 * *", 2, vec![30, 31, 1, 2]),
            ("0 0 1 ~ *", 3, (1..13).collect()),
            ("0 0 * * ~", 4, (0..7).collect()),
            ("0 0 * * 7~1", 4, vec![0, 1]),
            ("0 0 * * 0~7", 4, (0..7).collect()),
            ("0 0 * * 1~7", 4, (0..7).collect()),
            ("0 0 * * FRI~7", 4, vec![5, 6, 0]),
        ] {
            let mut seen = BTreeSet::new();
            for name in &names {
                let fields = chosen(expr, name);
                assert_eq!(fields, chosen(expr, name));
                assert!(fields.fixed);
                let week = fields.whole_weekdays();
                let masks = [
                    fields.minutes.bits(),
                    fields.hours.into(),
                    fields.days.into(),
                    fields.months.into(),
                    week.into(),
                ];
                assert_eq!(masks[field].count_ones(), 1, "{expr} for {name}");
                seen.insert(masks[field].trailing_zeros());
            }
            assert_eq!(seen, possible.into_iter().collect(), "{expr}");
        }
        for name in &names {
            let fields = chosen("~/15 8~17/4 * * *", name);
            let (minutes, hours) = (bits(fields.minutes.bits()), bits(fields.hours.into()));
            assert!(minutes[0] < 15 && minutes.len() == 4 && minutes[1] - minutes[0] == 15);
            assert!((8..12).contains(&hours[0]) && hours.iter().all(|h| (8..=17).contains(h)));
            assert!(!fields.fixed);
            let pair = bits(chosen("~,~ 0 * * *", name).minutes.bits());
            assert!(pair.len() <= 2);
        }
    }

    #[test]
    fn an_anchor_begins_the_periods() {
        let every = |anchor: &str| {
            let anchor = anchor.parse().ok();
            parse("@every 1h30m", Context { name: None, anchor }).unwrap()
        };
        assert_eq!(every("1970-01-01T00:00:00Z"), rule("@every 90m"));
        assert_eq!(every("1970-01-02T00:00:01Z"), Rule::Every { period: 5400, from: 86_401 });
        assert_eq!(every("1970-01-02T00:00:00.1Z"), every("1970-01-02T00:00:01Z"));
        for out in ["1969-12-31T23:00:00Z", "2101-01-01T00:00:00Z"] {
            let error = Schedule::for_job("@every 90m", "a", out.parse().ok()).unwrap_err();
            assert_eq!(error.to_string(), "@every: its anchor is out of range 1970-2100");
        }
    }

    #[test]
    fn every_mistake_is_named_and_pointed_at() {
        for (expr, caret, message) in [
            ("61 * * * *", "^^", "minute: 61 is out of range 0-59"),
            ("0 24 * * *", "  ^^", "hour: 24 is out of range 0-23"),
            ("0 1 0 * *", "    ^", "day of month: 0 is out of range 1-31"),
            ("0 1 * 13 *", "      ^^", "month: 13 is out of range 1-12"),
            ("0 1 * * 8", "        ^", "day of week: 8 is out of range 0-7"),
            ("60 * * * * *", "^^", "second: 60 is out of range 0-59"),
            ("0 0 0 1 1 ? 1969", "            ^^^^", "year: 1969 is out of range 1970-2100"),
            ("0 1,5-99 * * *", "      ^^", "hour: 99 is out of range 0-23"),
            (
                "99999999999999999999 * * * *",
                "^^^^^^^^^^^^^^^^^^^^",
                "minute: 999999999999… is out of range 0-59",
            ),
            (
                "0 0 0 1 1 ? 2030-2020",
                "            ^^^^^^^^^",
                "year: the range `2030-2020` runs backwards: years do not wrap around",
            ),
            ("*/0 * * * *", "  ^", "minute: step 0 would never advance: use 1 or more"),
            ("*/60 * * * *", "  ^^", "minute: step 60 is out of range 1-59"),
            ("*/ * * * *", "^^", "minute: a step is missing after the `/` in `*/`"),
            ("*/5/5 * * * *", "  ^^^", "minute: the step `5/5` is not a number"),
            ("/5 * * * *", "^^", "minute: a value is missing before the `/` in `/5`"),
            ("1,,2 * * * *", "^^^^", "minute: a value is missing beside a comma in `1,,2`"),
            ("1- * * * *", "^^", "minute: `1-` is not a range: write both ends"),
            ("-1 * * * *", "^^", "minute: `-1` is not a range: write both ends"),
            ("1-2-3 * * * *", "  ^^^", "minute: `2-3` is not a value: use 0-59"),
            ("*5 * * * *", "^^", "minute: `*5` is not a value: use 0-59"),
            ("+5 * * * *", "^^", "minute: `+5` is not a value: use 0-59"),
            ("? * * * *", "^", "minute: `?` stands only in a day field: write `*`"),
            ("0 0 * FOO *", "      ^^^", "month: `FOO` is not a value: use 1-12 or JAN-DEC"),
            (
                "0 0 * * root",
                "        ^^^^",
                "day of week: `root` is not a value: use 0-7 or SUN-SAT",
            ),
            ("MON * * * *", "^^^", "minute: `MON` is not a value: use 0-59"),
            ("１ * * * *", "^^", "minute: `１` is not one of the digits 0-9"),
            ("0 ٣ * * *", "  ^", "hour: `٣` is not one of the digits 0-9"),
            ("0 0 * * é", "        ^", "day of week: `é` has no meaning in a schedule"),
            (
                "0 0 *\u{3000}* *",
                "     ^^",
                "schedule: U+3000 does not separate fields: use a space",
            ),
            ("0 0 *\n* *", "     ^", "schedule: U+000A does not separate fields: use a space"),
            (
                "",
                "^",
                "schedule: is empty: write five fields such as `0 1 * * *`, or a name such as `@daily`",
            ),
            (
                "5",
                "^",
                "schedule: 1 field, but 5 are needed (minute, hour, day of month, month, day of week), 6 (seconds first) or 7 (a year last)",
            ),
            (
                "* * * *",
                "^^^^^^^",
                "schedule: 4 fields, but 5 are needed (minute, hour, day of month, month, day of week), 6 (seconds first) or 7 (a year last)",
            ),
            (
                "* * * * * * * a b",
                "              ^^^",
                "schedule: 9 fields, but 5 are needed (minute, hour, day of month, month, day of week), 6 (seconds first) or 7 (a year last)",
            ),
            ("0 0 30 2 *", "    ^^^^", "day of month: would never fire: there is no 30 February"),
            (
                "0 0 31 4,6,9,11 *",
                "    ^^^^^^^^^^^",
                "day of month: would never fire: no chosen month has such a day",
            ),
            (
                "0 0 0 29 2 ? 2026",
                "             ^^^^",
                "year: would never fire: no chosen year has such a day",
            ),
            (
                "0 0 L-3W * *",
                "    ^^^^",
                "day of month: `L-3W` is not a day of the month: write `L`, `L-3`, `LW` or `15W`",
            ),
            ("0 0 1,L-31 * *", "        ^^", "day of month: 31 is out of range 0-30"),
            (
                "0 0 W * *",
                "    ^",
                "day of month: `W` is not a day of the month: write `L`, `L-3`, `LW` or `15W`",
            ),
            (
                "0 0 1-15W * *",
                "    ^^^^^",
                "day of month: `1-15W` is not a day of the month: write `L`, `L-3`, `LW` or `15W`",
            ),
            ("0 0 32W * *", "    ^^", "day of month: 32 is out of range 1-31"),
            (
                "0 0 L-30 2 *",
                "    ^^^^^^",
                "day of month: would never fire: no chosen month has such a day",
            ),
            (
                "0 0 * * L",
                "        ^",
                "day of week: `L` needs a weekday before it: `6L` is the last Saturday of the month",
            ),
            (
                "0 0 * * FRI#6",
                "            ^",
                "day of week: `6` is not 1-5: `FRI#2` is the second Friday of the month",
            ),
            (
                "0 0 * * MON-FRI#2",
                "        ^^^^^^^",
                "day of week: `MON-FRI` is not a value: use 0-7 or SUN-SAT",
            ),
            (
                "0 0 * * #2",
                "        ^^",
                "day of week: a weekday is missing before the `#`: `FRI#2` is the second Friday of the month",
            ),
            ("0 0 * * 8L", "        ^", "day of week: 8 is out of range 0-7"),
            (
                "~ 3 * * *",
                "^",
                "minute: `~` takes its value from the job's name, and there is none here",
            ),
            ("0 0 0 1 1 ? ~", "            ^", "year: `~` does not choose a year: write it"),
            (
                "@at",
                "   ^",
                "@at: an instant is missing: write `2030-12-24T09:30:00Z`, `2030-12-24T09:30:00+08:00`, or `2030-12-24 09:30` for the clock in the job's own zone",
            ),
            (
                "@at tomorrow",
                "    ^^^^^^^^",
                "@at: `tomorrow` is not an instant: write `2030-12-24T09:30:00Z`, `2030-12-24T09:30:00+08:00`, or `2030-12-24 09:30` for the clock in the job's own zone",
            ),
            (
                "@at 2101-01-01T00:00:00Z",
                "    ^^^^^^^^^^^^^^^^^^^^",
                "@at: is out of range 1970-2100",
            ),
            ("@at 1969-12-31 09:30", "    ^^^^^^^^^^^^^^^^", "@at: is out of range 1970-2100"),
            (
                "@at 2030-01-01T00:00:00.5Z",
                "    ^^^^^^^^^^^^^^^^^^^^^^",
                "@at: is not a whole second that a clock shows",
            ),
            (
                "@reboot",
                "^^^^^^^",
                "schedule: `@reboot` cannot work here, because there is no one machine whose boot it could mean: start the command from the machine's own init system (systemd), or give a time",
            ),
            (
                " @dailyish",
                " ^^^^^^^^^",
                "schedule: `@dailyish` is not known: use @yearly, @monthly, @weekly, @daily, @hourly, `@every 90s` or `@at 2030-12-24T09:30:00Z`",
            ),
            ("@daily 5", "       ^", "schedule: `@daily` takes nothing after it"),
            (
                "@every",
                "      ^",
                "@every: a duration is missing: write days, hours, minutes and seconds in this order, such as `1h30m`, `90s` or `2d`",
            ),
            (
                "@every 5",
                "       ^",
                "@every: `5` is not a duration: write days, hours, minutes and seconds in this order, such as `1h30m`, `90s` or `2d`",
            ),
            (
                "@every 5m 3s",
                "       ^^^^^",
                "@every: `5m 3s` is not a duration: write days, hours, minutes and seconds in this order, such as `1h30m`, `90s` or `2d`",
            ),
            (
                "@every 30m1h",
                "       ^^^^^",
                "@every: `30m1h` is not a duration: write days, hours, minutes and seconds in this order, such as `1h30m`, `90s` or `2d`",
            ),
            (
                "@every 500ms",
                "       ^^^^^",
                "@every: `500ms` is not a duration: write days, hours, minutes and seconds in this order, such as `1h30m`, `90s` or `2d`",
            ),
            ("@every 0s", "       ^^", "@every: must be at least one second"),
            (
                "@every 99999999999999999999s",
                "       ^^^^^^^^^^^^^^^^^^^^^",
                "@every: is longer than 36500 days",
            ),
            ("@every 40000d", "       ^^^^^^", "@every: is longer than 36500 days"),
        ] {
            let error = Schedule::parse(expr).unwrap_err();
            assert_eq!(error.to_string(), message, "{expr}");
            let shown = error.caret(expr);
            assert_eq!(shown.lines().nth(1), Some(caret), "{shown}");
        }
    }

    #[test]
    fn the_caret_stands_under_the_mistake_however_wide_the_text() {
        for (expr, shown) in [
            ("五 24 * * *", "五 24 * * *\n^^"),
            ("0\u{1b}[2J 1 * *", "0\u{fffd}[2J 1 * *\n ^"),
            ("1\u{202e} 1 * * *", "1\u{fffd} 1 * * *\n ^"),
        ] {
            assert_eq!(Schedule::parse(expr).unwrap_err().caret(expr), shown);
        }
        let long = format!("{}99 * * * *", "1,".repeat(90));
        let shown = Schedule::parse(&long).unwrap_err().caret(&long);
        let (text, caret) = shown.split_once('\n').unwrap();
        assert!(text.starts_with('…') && text.ends_with("99 * * * *"), "{text}");
        let column = caret.find('^').unwrap();
        assert_eq!(text.chars().skip(column).collect::<String>(), "99 * * * *");
    }

    /// The bound is a millisecond; here ten are allowed, for a debug build on a busy machine.
    #[test]
    fn monsters_are_refused_at_once() {
        let list = format!("{} * * * *", vec!["1"; 10_000].join(","));
        for expr in [
            "x".repeat(1 << 20),
            " ".repeat(1 << 20),
            "０".repeat(1 << 18),
            "* ".repeat(1 << 19),
            list,
        ] {
            let start = std::time::Instant::now();
            let error: ScheduleError = Schedule::parse(&expr).unwrap_err();
            let caret = error.caret(&expr);
            let spent = start.elapsed();
            assert!(error.message.contains("bytes long, at most 2048"), "{error}");
            assert!(caret.len() < 1000);
            assert!(spent.as_millis() < 10, "{spent:?}");
        }
    }

    #[test]
    fn the_longest_honest_expression_is_read() {
        let all = |range: std::ops::RangeInclusive<u32>| {
            range.map(|n| n.to_string()).collect::<Vec<_>>().join(",")
        };
        let expr = format!(
            "{} {} {} {} {} {} {}",
            all(0..=59),
            all(0..=59),
            all(0..=23),
            all(1..=31),
            all(1..=12),
            all(0..=7),
            all(FIRST_YEAR..=LAST_YEAR)
        );
        let written = fields(&expr);
        let stars = fields("* * * * * * *");
        assert_eq!(Fields { join: Join::Every, fixed: false, ..written }, stars);
    }
}
