//! The rule written a second time, slowly and obviously, and the engine held against it.
//!
//! The model shares nothing with the engine: it reads the expression by itself, walks UTC by the
//! minute or the second, asks `chrono-tz` what the clock on the wall shows, and asks chrono's
//! calendar about days. What it does not do is refuse: it is given only what the engine accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::offset::LocalResult;
use chrono::{
    DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Timelike,
};
use chrono_tz::{Africa, America, Asia, Australia, Europe, Pacific, TZ_VARIANTS, Tz};
use proptest::prelude::*;

use super::zone::{self, Clock, HORIZON};
use super::{Schedule, generate};

pub(super) const ZONES: [Tz; 10] = [
    Tz::UTC,
    America::New_York,
    Europe::Berlin,
    Australia::Lord_Howe,
    Africa::Casablanca,
    Asia::Shanghai,
    America::Sao_Paulo,
    Pacific::Apia,
    Europe::Dublin,
    Asia::Kathmandu,
];

/// The year 2000, and the end of 2037: what tests walk through.
const FROM: i64 = 946_684_800;
const UNTIL: i64 = 2_145_916_800;

/// One expression.
pub(super) enum Model {
    Fields(Box<Fields>),
    Every { period: i64, from: i64 },
    At(i64),
}

pub(super) struct Fields {
    seconds: Vec<bool>,
    minutes: Vec<bool>,
    hours: Vec<bool>,
    days: Vec<Day>,
    months: Vec<bool>,
    weekdays: Vec<Weekday>,
    years: Vec<bool>,
    either_day: bool,
    pub(super) fixed: bool,
}

enum Day {
    Numbers(Vec<bool>),
    BeforeTheLast(i64),
    NearestTo(u32),
    LastOfTheWorkingWeek,
}

enum Weekday {
    Every(Vec<bool>),
    Nth(u32, usize),
    Last(u32),
}

impl Model {
    pub(super) fn read(expr: &str) -> Self {
        Self::anchored(expr, 0)
    }

    pub(super) fn anchored(expr: &str, anchor: i64) -> Self {
        let expr = expr.trim().to_ascii_uppercase();
        let (name, rest) = expr.split_once([' ', '\t']).unwrap_or((&expr, ""));
        match name {
            "@YEARLY" | "@ANNUALLY" => Self::read("0 0 1 1 *"),
            "@MONTHLY" => Self::read("0 0 1 * *"),
            "@WEEKLY" => Self::read("0 0 * * 0"),
            "@DAILY" | "@MIDNIGHT" => Self::read("0 0 * * *"),
            "@HOURLY" => Self::read("0 * * * *"),
            "@EVERY" => Self::Every { period: duration(rest.trim()), from: anchor },
            "@AT" => Self::once(rest.trim()),
            _ => Self::Fields(Box::new(Fields::read(&expr))),
        }
    }

    /// `2030-12-24T09:30:00`, with less or more behind it.
    fn once(text: &str) -> Self {
        let number = |range: std::ops::Range<usize>| match text.get(range) {
            Some(digits) => digits.parse::<u32>().unwrap(),
            None => 0,
        };
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        let has_seconds = text.get(16..17) == Some(":");
        let (hour, minute) = (number(11..13), number(14..16));
        let second = if has_seconds { number(17..19) } else { 0 };
        let wall = format!("{second} {minute} {hour} {day} {month} ? {year}");
        let sign = match text.get(19..20) {
            None => return Self::read(&wall),
            Some("-") => -1,
            Some(_) => 1,
        };
        let offset = match text.len() {
            20 => 0,
            _ => i64::from(number(20..22) * 3600 + number(23..25) * 60) * sign,
        };
        let date = NaiveDate::from_ymd_opt(year.try_into().unwrap(), month, day).unwrap();
        let reading = date.and_hms_opt(hour, minute, second).unwrap();
        Self::At(reading.and_utc().timestamp() - offset)
    }

    /// When it fires in a window.
    pub(super) fn firings(&self, window: &Window) -> Vec<i64> {
        let mut within = (window.after + 1).max(0)..=window.through.min(HORIZON - 1);
        match self {
            Self::Fields(fields) => fields.firings(window),
            Self::Every { period, from } => {
                within.filter(|t| t >= from && (t - from) % period == 0).collect()
            }
            Self::At(at) => within.find(|t| t == at).into_iter().collect(),
        }
    }
}

impl Fields {
    fn read(expr: &str) -> Self {
        let mut parts: Vec<&str> = expr.split_whitespace().collect();
        if parts.len() == 5 {
            parts.insert(0, "0");
        }
        if parts.len() == 6 {
            parts.push("*");
        }
        let plain = |i: usize, low, high| set(parts[i].split(','), low, high);
        let star = |i: usize| parts[i].starts_with(['*', '?']);
        let exact = |i: usize| !parts[i].contains(['*', '/']);
        Self {
            seconds: plain(0, 0, 59),
            minutes: plain(1, 0, 59),
            hours: plain(2, 0, 23),
            days: parts[3].split(',').map(day).collect(),
            months: plain(4, 1, 12),
            weekdays: parts[5].split(',').map(weekday).collect(),
            years: plain(6, 1970, 2100),
            either_day: !star(3) && !star(5),
            fixed: exact(1) && exact(2),
        }
    }

    /// The values chosen in the n-th of six fields, the first of which is the second.
    fn values(&self, field: usize) -> BTreeSet<u32> {
        let by_number = |day: &Day| match day {
            Day::Numbers(days) => Some(days.clone()),
            _ => None,
        };
        let every = |weekday: &Weekday| match weekday {
            Weekday::Every(weekdays) => Some(weekdays.clone()),
            _ => None,
        };
        let chosen: Vec<Vec<bool>> = match field {
            0 => vec![self.seconds.clone()],
            1 => vec![self.minutes.clone()],
            2 => vec![self.hours.clone()],
            3 => self.days.iter().filter_map(by_number).collect(),
            4 => vec![self.months.clone()],
            _ => self.weekdays.iter().filter_map(every).collect(),
        };
        let numbers = |set: &Vec<bool>| {
            let chosen = (0..).zip(set).filter(|(_, chosen)| **chosen);
            chosen.map(|(n, _)| n).collect::<Vec<u32>>()
        };
        chosen.iter().flat_map(numbers).collect()
    }

    /// Whether it fires on a day at all.
    pub(super) fn on(&self, date: NaiveDate) -> bool {
        let by_date = self.days.iter().any(|day| day.is(date));
        let by_weekday = self.weekdays.iter().any(|weekday| weekday.is(date));
        self.months[date.month() as usize]
            && usize::try_from(date.year()).is_ok_and(|y| self.years.get(y) == Some(&true))
            && match self.either_day {
                true => by_date || by_weekday,
                false => by_date && by_weekday,
            }
    }

    fn firings(&self, window: &Window) -> Vec<i64> {
        let days: Vec<bool> = window.dates.iter().map(|date| self.on(*date)).collect();
        let matches = |wall: &Wall| {
            self.seconds[wall.second]
                && self.minutes[wall.minute]
                && self.hours[wall.hour]
                && days[wall.date]
        };
        let fires = |tick: &&Tick| match self.fixed {
            false => matches(&tick.wall),
            true => tick.skipped.iter().any(matches) || tick.first && matches(&tick.wall),
        };
        window.ticks.iter().filter(fires).map(|tick| tick.instant).collect()
    }
}

impl Day {
    fn is(&self, date: NaiveDate) -> bool {
        let month = || (1..=31).filter_map(|day| date.with_day(day));
        let working = |date: &NaiveDate| date.weekday().number_from_monday() <= 5;
        match *self {
            Self::Numbers(ref days) => days[date.day() as usize],
            Self::BeforeTheLast(days) => {
                month().next_back().map(|last| last - TimeDelta::days(days)) == Some(date)
            }
            Self::NearestTo(day) => {
                let Some(wanted) = date.with_day(day) else { return false };
                let distance = |date: &NaiveDate| (*date - wanted).abs();
                month().filter(working).min_by_key(distance) == Some(date)
            }
            Self::LastOfTheWorkingWeek => month().rfind(working) == Some(date),
        }
    }
}

impl Weekday {
    fn is(&self, date: NaiveDate) -> bool {
        let number = |date: NaiveDate| date.weekday().num_days_from_sunday();
        let all = |weekday: u32| {
            let month = (1..=31).filter_map(move |day| date.with_day(day));
            month.filter(move |date| number(*date) == weekday)
        };
        match *self {
            Self::Every(ref weekdays) => weekdays[number(date) as usize],
            Self::Nth(weekday, n) => all(weekday).nth(n - 1) == Some(date),
            Self::Last(weekday) => all(weekday).next_back() == Some(date),
        }
    }
}

/// One item of the field for days of the month, in capitals.
fn day(item: &str) -> Day {
    match item.strip_suffix('W') {
        Some("L") => return Day::LastOfTheWorkingWeek,
        Some(day) => return Day::NearestTo(day.parse().unwrap()),
        None => {}
    }
    match item.strip_prefix('L') {
        Some("") => Day::BeforeTheLast(0),
        Some(minus) => Day::BeforeTheLast(minus[1..].parse().unwrap()),
        None => Day::Numbers(set([item].into_iter(), 1, 31)),
    }
}

/// One item of the field for days of the week, in capitals.
fn weekday(item: &str) -> Weekday {
    if let Some((weekday, n)) = item.split_once('#') {
        return Weekday::Nth(number(weekday) % 7, n.parse().unwrap());
    }
    match item.strip_suffix('L') {
        Some(weekday) => Weekday::Last(number(weekday) % 7),
        None => Weekday::Every(set([item].into_iter(), 0, 6)),
    }
}

/// Numbers, names, `*`, `?`, `a-b` (wrapping where backwards), `/n`.
fn set<'a>(items: impl Iterator<Item = &'a str>, low: u32, high: u32) -> Vec<bool> {
    let mut chosen = vec![false; high as usize + 1];
    for item in items {
        let (base, step) = item.split_once('/').unwrap_or((item, ""));
        let (first, last) = match base.split_once('-') {
            _ if base == "*" || base == "?" => (low, high),
            // Sunday begins the week as 0 and ends it as 7.
            Some((a, b)) if high == 6 && number(a) == 7 => (0, number(b) % 7),
            Some((a, b)) => (number(a), number(b)),
            None if high == 6 && step.is_empty() => (number(base) % 7, number(base) % 7),
            None if high == 6 => (number(base) % 7, high),
            None if step.is_empty() => (number(base), number(base)),
            None => (number(base), high),
        };
        let size = high - low + 1;
        let last = if last < first { last + size } else { last };
        for value in (first..=last).step_by(step.parse().unwrap_or(1)) {
            chosen[(low + (value - low) % size) as usize] = true;
        }
    }
    chosen
}

fn number(text: &str) -> u32 {
    const MONTHS: [&str; 12] =
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
    const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    if let Ok(number) = text.parse() {
        return number;
    }
    let index = |names: &[&str]| names.iter().position(|name| text.starts_with(name));
    let number = index(&WEEKDAYS).or_else(|| Some(index(&MONTHS)? + 1)).unwrap();
    u32::try_from(number).unwrap()
}

/// `1D2H3M4S`, in seconds.
fn duration(text: &str) -> i64 {
    let mut total = 0;
    let mut digits = 0;
    for c in text.chars() {
        let seconds = match c {
            'D' => 86_400,
            'H' => 3600,
            'M' => 60,
            'S' => 1,
            _ => {
                digits = digits * 10 + i64::from(c.to_digit(10).unwrap());
                continue;
            }
        };
        total += digits * seconds;
        digits = 0;
    }
    total
}

/// What the clock of a zone shows at every `step`-th second of `(after, through]`, looked up once
/// for any number of expressions.
pub(super) struct Window {
    zone: Tz,
    after: i64,
    through: i64,
    ticks: Vec<Tick>,
    dates: Vec<NaiveDate>,
}

struct Tick {
    instant: i64,
    wall: Wall,
    /// The clock has not shown this before.
    first: bool,
    /// What the clock jumped over to get here.
    skipped: Vec<Wall>,
}

/// A date is its position in the window's list.
struct Wall {
    date: usize,
    hour: usize,
    minute: usize,
    second: usize,
}

impl Window {
    pub(super) fn new(zone: Tz, after: i64, through: i64, step: i64) -> Self {
        let mut dates = Vec::new();
        let mut ticks = Vec::new();
        let mut wall = |reading: NaiveDateTime| {
            let date = reading.date();
            let known = dates.iter().rposition(|known| *known == date);
            let date = known.unwrap_or_else(|| {
                dates.push(date);
                dates.len() - 1
            });
            let part = |number: u32| number as usize;
            Wall {
                date,
                hour: part(reading.hour()),
                minute: part(reading.minute()),
                second: part(reading.second()),
            }
        };
        let first = (after.div_euclid(step) * step + step).max(0);
        let mut before = reading(zone, first - step);
        for instant in (first..=through.min(HORIZON - 1)).step_by(step.try_into().unwrap()) {
            let now = reading(zone, instant);
            let mut skipped = Vec::new();
            let mut due = before + TimeDelta::seconds(step);
            while due < now {
                skipped.push(wall(due));
                due += TimeDelta::seconds(step);
            }
            let first = match zone.offset_from_local_datetime(&now) {
                LocalResult::Single(_) => true,
                LocalResult::Ambiguous(a, b) => {
                    let utc = |offset: chrono_tz::TzOffset| (now - offset.fix()).and_utc();
                    utc(a).min(utc(b)).timestamp() == instant
                }
                LocalResult::None => unreachable!("an instant always has a reading"),
            };
            ticks.push(Tick { instant, wall: wall(now), first, skipped });
            before = now;
        }
        Self { zone, after, through, ticks, dates }
    }

    /// Holds a schedule against the model.
    fn agree(&self, schedule: &Schedule, model: &Model) {
        let told = || format!("`{schedule}` in {} after {}", self.zone, utc(self.after));
        let expected: Vec<_> = model.firings(self).into_iter().map(utc).collect();
        let (start, end) = (utc(self.after), utc(self.through));
        let found: Vec<_> = schedule
            .upcoming(self.zone, start)
            .take_while(|t| *t <= end)
            .take(expected.len() + 5)
            .collect();
        assert_eq!(found, expected, "{}", told());
        // Asked from within too: between two firings, and in an hour that comes again.
        for tick in self.ticks.iter().step_by(self.ticks.len() / 24 + 1) {
            let now = utc(tick.instant);
            let next = expected.iter().find(|at| **at > now).copied();
            let told = || format!("{}, from {now}", told());
            let found = schedule.next_after(self.zone, now).filter(|at| *at <= end);
            assert_eq!(found, next, "{}", told());
        }
        let within = utc(self.after + (self.through - self.after) * 3 / 5);
        for from in [start, within] {
            let left: Vec<_> = expected.iter().filter(|at| **at > from).collect();
            let counted = schedule.slots_between(self.zone, from, end, usize::MAX);
            let expected = (left.len(), left.last().map(|at| **at));
            assert_eq!(counted, expected, "slots of {}, from {from}", told());
        }
    }
}

fn utc(instant: i64) -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(instant, 0).unwrap()
}

/// What the clock shows at an instant.
fn reading(zone: Tz, instant: i64) -> NaiveDateTime {
    let utc = utc(instant).naive_utc();
    utc + zone.offset_from_utc_datetime(&utc).fix()
}

/// Holds the engine against the model over `(after, through]`.
fn agree(expr: &str, zone: Tz, after: i64, through: i64, step: i64) {
    let schedule = Schedule::parse(expr).unwrap();
    Window::new(zone, after, through, step).agree(&schedule, &Model::read(expr));
}

/// Fixed, step and wildcard schedules.
const AROUND_A_CHANGE: [&str; 20] = [
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "15,45 0-4 * * *",
    "59 23 * * *",
    "10 1,2,3 * * 0",
    "0 12 30 12 *",
    "30 2 * * SUNL",
    "30 0-3 LW * 0#1,0#2,0#4",
    "30 * * * *",
    "*/30 * * * *",
    "* 2 * * *",
    "*/20 1-3 * * *",
    "0 */2 * * *",
    "5 22-2/2 * * *",
    "0 1 1-7 * 0",
    "* * L-1,L,1 * *",
    "* * * * *",
];

/// A change of a zone's offset: when, and what it was before and after.
type Change = (i64, i64, i64);

fn offset(zone: Tz, instant: i64) -> i64 {
    let utc = utc(instant).naive_utc();
    zone.offset_from_utc_datetime(&utc).fix().local_minus_utc().into()
}

/// The changes of a zone in `(from, until]`, by looking every `stride` seconds and then closer.
fn changes(zone: Tz, from: i64, until: i64, stride: i64) -> Vec<Change> {
    let mut found = Vec::new();
    let (mut known, mut before) = (from, offset(zone, from));
    while known < until {
        let seen = (known + stride).min(until);
        let after = offset(zone, seen);
        if after != before {
            let (mut low, mut high) = (known, seen);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if offset(zone, middle) == before { low = middle } else { high = middle }
            }
            found.push((high, before, after));
        }
        (known, before) = (seen, after);
    }
    found
}

/// Gives each item to one of a few threads.
fn shared<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let turn = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(turn);
        }
    });
}

/// Every zone in the database, every change from 2000 to 2037.
///
/// The changes of each zone are found here by looking at each day, and must be those of the
/// engine's clock. Around each, the engine is held against the model; but where several zones
/// changed at the same second from the same offset to the same other, as the names of one zone do
/// and those of the European Union, one of them stands for all.
#[test]
fn every_transition_until_2037_follows_the_rule() {
    const HOUR: i64 = 3600;
    let all = Mutex::new(BTreeMap::new());
    shared(&TZ_VARIANTS, |&zone| {
        let found = changes(zone, FROM, UNTIL, 24 * HOUR);
        let clock = Clock::of(zone).segments_from(FROM);
        let known = clock.windows(2).map(|s| (s[1].start, s[0].offset, s[1].offset));
        let known: Vec<Change> = known.take_while(|(start, ..)| *start <= UNTIL).collect();
        assert_eq!(known, found, "{zone}");
        let mut all = all.lock().unwrap();
        for change in found {
            all.entry(change).or_insert(zone);
        }
    });
    let distinct: Vec<(Change, Tz)> = all.into_inner().unwrap().into_iter().collect();
    assert!(distinct.len() > 1000, "{}", distinct.len());

    let rules = AROUND_A_CHANGE.map(|expr| (Schedule::parse(expr).unwrap(), Model::read(expr)));
    shared(&distinct, |&((change, before, after), zone)| {
        let reach = 2 * HOUR + (after - before).abs();
        let window = Window::new(zone, change - reach, change + reach, 60);
        for (schedule, model) in &rules {
            window.agree(schedule, model);
        }
        // A change there and back between two looks would have been missed; none is so close to
        // another one.
        let week = changes(zone, change, change + 5 * 24 * HOUR, HOUR);
        assert_eq!(week, [], "{zone} {change}");
    });
}

#[test]
fn a_skipped_day_and_a_whole_day_around_each_kind_of_change() {
    for (zone, change) in [
        (Pacific::Apia, "2011-12-30T10:00:00Z"),
        (America::New_York, "2026-03-08T07:00:00Z"),
        (America::New_York, "2026-11-01T06:00:00Z"),
        (Australia::Lord_Howe, "2026-04-04T15:00:00Z"),
        (Australia::Lord_Howe, "2026-10-03T15:30:00Z"),
        (America::Sao_Paulo, "2018-11-04T03:00:00Z"),
        (Africa::Casablanca, "2026-02-15T02:00:00Z"),
    ] {
        let change = DateTime::parse_from_rfc3339(change).unwrap().timestamp();
        assert!(zone::next_transition(zone, change - 1, change).is_some());
        for expr in AROUND_A_CHANGE {
            agree(expr, zone, change - 30 * 3600, change + 30 * 3600, 60);
        }
    }
}

#[test]
fn seconds_around_a_change() {
    for (zone, change) in [
        (America::New_York, 1_772_953_200),
        (America::New_York, 1_793_512_800),
        (Australia::Lord_Howe, 1_775_314_800),
        // From 44 minutes and 30 seconds behind UTC.
        (Africa::Monrovia, 63_593_070),
    ] {
        for expr in [
            "*/10 30 1 * * *",
            "*/7 0-59 2 * * *",
            "0,59 * * * * *",
            "30 59 1 * * *",
            "10 20,50 0 * * *",
            "5-3/9 */15 * * * *",
        ] {
            agree(expr, zone, change - 4000, change + 4000, 1);
        }
    }
}

#[test]
fn the_first_and_the_last_hours_of_the_calendar() {
    for zone in ZONES {
        for expr in ["* * * * *", "30 * * * *", "0 0-23 * * *", "0 0 L,1 1,12 *", "@every 17m"] {
            agree(expr, zone, -20 * 3600, 20 * 3600, 60);
            agree(expr, zone, HORIZON - 20 * 3600, HORIZON + 20 * 3600, 60);
        }
    }
}

/// The days of the calendar on which an expression fires at noon in UTC.
fn days_of(expr: &str, years: std::ops::Range<i32>) -> Vec<i64> {
    let Model::Fields(fields) = Model::read(expr) else { panic!("{expr}") };
    let noon = |date: NaiveDate| date.and_hms_opt(12, 0, 0).unwrap().and_utc().timestamp();
    NaiveDate::from_ymd_opt(years.start, 1, 1)
        .unwrap()
        .iter_days()
        .take_while(|date| years.contains(&date.year()))
        .filter(|date| fields.on(*date))
        .map(noon)
        .collect()
}

/// Holds the engine against the model over whole years in UTC.
fn agree_about_days(expr: &str, years: std::ops::Range<i32>) {
    let schedule = Schedule::parse(expr).unwrap();
    let edge = |year| NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_time(NaiveTime::MIN);
    let (start, end) = (edge(years.start).and_utc(), edge(years.end).and_utc());
    let expected: Vec<_> = days_of(expr, years).into_iter().map(utc).collect();
    let upcoming = schedule.upcoming(Tz::UTC, start).take_while(|at| *at < end);
    let found: Vec<_> = upcoming.take(expected.len() + 5).collect();
    assert_eq!(found, expected, "{expr} from {start}");
    let counted = schedule.slots_between(Tz::UTC, start, end, usize::MAX);
    assert_eq!(counted, (expected.len(), expected.last().copied()), "{expr} from {start}");
}

/// In 28 years months of every length begin on every day of the week.
#[test]
fn each_day_in_every_kind_of_month() {
    let mut all = vec!["0 12 LW * *".to_owned()];
    all.extend((0..=30).map(|n| format!("0 12 L-{n} * *")));
    for day in 1..=31 {
        all.extend([format!("0 12 {day}W * *"), format!("0 12 {day} * *")]);
        all.extend([format!("0 12 {day},31 * *"), format!("0 12 {day} * 1")]);
    }
    for weekday in 0..=7 {
        all.push(format!("0 12 * * {weekday}L"));
        all.extend((1..=5).map(|n| format!("0 12 ? * {weekday}#{n}")));
    }
    shared(&all, |expr| agree_about_days(expr, 2000..2028));
}

#[test]
fn special_days_by_the_almanac() {
    let days = |expr: &str, year| {
        let from = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        let date = |at: i64| (from + TimeDelta::seconds(at)).to_string();
        days_of(expr, year..year + 1).into_iter().map(date).collect::<Vec<_>>().join(" ")
    };
    // The model itself, against a calendar on paper.
    for (expr, year, expected) in [
        ("0 12 L 1-3 *", 2024, "2024-01-31 2024-02-29 2024-03-31"),
        ("0 12 L-3 2 *", 2026, "2026-02-25"),
        (
            "0 12 L-30 * *",
            2026,
            "2026-01-01 2026-03-01 2026-05-01 2026-07-01 2026-08-01 2026-10-01 2026-12-01",
        ),
        ("0 12 LW 1,2,5 *", 2026, "2026-01-30 2026-02-27 2026-05-29"),
        ("0 12 1W 2,8 *", 2026, "2026-02-02 2026-08-03"),
        (
            "0 12 31W * *",
            2027,
            "2027-01-29 2027-03-31 2027-05-31 2027-07-30 2027-08-31 2027-10-29 2027-12-31",
        ),
        ("0 12 15W 8,11 *", 2026, "2026-08-14 2026-11-16"),
        ("0 12 ? 5 FRI#5", 2026, "2026-05-29"),
        ("0 12 ? 4 FRI#5", 2026, ""),
        ("0 12 ? 2 7#1,0L", 2026, "2026-02-01 2026-02-22"),
        ("0 12 13 2-3 5L", 2026, "2026-02-13 2026-02-27 2026-03-13 2026-03-27"),
        ("0 12 */13 3 FRI#2", 2026, ""),
        ("0 12 */12 3 FRI#2", 2026, "2026-03-13"),
    ] {
        assert_eq!(days(expr, year), expected, "{expr}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_the_model_in_any_window(
        expr in generate::by_the_minute(),
        zone in prop::sample::select(&ZONES[..]),
        after in 63_072_000..HORIZON,
    ) {
        if Schedule::parse(&expr).is_ok() {
            agree(&expr, zone, after, after + 2 * 86_400, 60);
        }
    }

    #[test]
    fn agrees_with_the_model_by_the_second(
        expr in generate::expression(),
        zone in prop::sample::select(&TZ_VARIANTS[..]),
        after in -2000..HORIZON,
    ) {
        if Schedule::parse(&expr).is_ok() {
            agree(&expr, zone, after, after + 1500, 1);
        }
    }

    /// Near the changes of any zone, where a random window hardly ever falls.
    #[test]
    fn agrees_with_the_model_near_a_change(
        expr in generate::by_the_minute(),
        zone in prop::sample::select(&TZ_VARIANTS[..]),
        from in FROM..UNTIL,
        hours in 0..30_i64,
    ) {
        let change = zone::next_transition(zone, from, UNTIL);
        if let (Ok(_), Some(change)) = (Schedule::parse(&expr), change) {
            agree(&expr, zone, change - hours * 3600, change + (30 - hours) * 3600, 60);
        }
    }

    /// Rare days too, and years in which there are none.
    #[test]
    fn agrees_with_the_model_about_days(
        [day, month, weekday] in generate::days(),
        years in prop_oneof![Just(String::new()), Just(" */4".to_owned()), Just(" 2095-2100".to_owned())],
        first in 1970..2100_i32,
        length in 1..15_i32,
    ) {
        let expr = format!("0 0 12 {day} {month} {weekday}{years}");
        if Schedule::parse(&expr).is_ok() {
            agree_about_days(&expr, first..(first + length).min(2101));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// What never fires is refused, and only that.
    #[test]
    fn refused_because_it_never_fires([day, month, weekday] in generate::days()) {
        let expr = format!("0 12 {day} {month} {weekday}");
        let days = days_of(&expr, 1970..2101);
        match Schedule::parse(&expr) {
            Ok(_) => prop_assert!(!days.is_empty(), "{} never fires", expr),
            Err(error) => {
                prop_assert!(error.message.starts_with("would never fire"), "{expr}: {error}");
                prop_assert_eq!(days, Vec::<i64>::new(), "{}", expr);
            }
        }
    }

    #[test]
    fn periods_begin_at_the_anchor(
        expr in generate::every(),
        anchor in prop_oneof![0..HORIZON, 946_684_800..946_690_000_i64],
        before in -20_000..20_000_i64,
    ) {
        let schedule = Schedule::for_job(&expr, "settle", Some(utc(anchor))).unwrap();
        let after = (anchor + before).max(0);
        let window = Window::new(Europe::Berlin, after, after + 8000, 1);
        window.agree(&schedule, &Model::anchored(&expr, anchor));
        if anchor > 0 {
            let first = schedule.next_after(Europe::Berlin, utc(-5));
            prop_assert_eq!(first, Some(utc(anchor)));
        }
    }

    /// Once, at its instant or at the first one at which the clock shows its time or a later one.
    #[test]
    fn fires_once_at_its_time(
        zone in prop::sample::select(&TZ_VARIANTS[..]),
        from in FROM..UNTIL,
        seconds in -7200..7200_i64,
        offset in -50_400..=50_400_i32,
    ) {
        let at = zone::next_transition(zone, from, UNTIL).unwrap_or(from) + seconds;
        let offset = chrono::FixedOffset::east_opt(offset / 60 * 60).unwrap();
        let expr = format!("@at {}", utc(at).with_timezone(&offset).to_rfc3339());
        let schedule = Schedule::parse(&expr).unwrap();
        prop_assert_eq!(schedule.upcoming(zone, utc(0)).collect::<Vec<_>>(), [utc(at)]);
        prop_assert_eq!(schedule.next_after(zone, utc(at)), None);

        // By the clock, which may show the time in a gap or twice.
        for earlier in [0, 1800, 5400] {
            let wall = reading(zone, at - earlier) + TimeDelta::seconds(earlier);
            let expr = format!("@at {}", wall.format("%Y-%m-%d %H:%M:%S"));
            let schedule = Schedule::parse(&expr).unwrap();
            agree(&expr, zone, at - 6000, at + 6000, 1);
            prop_assert_eq!(schedule.upcoming(zone, utc(0)).count(), 1, "{} in {}", expr, zone);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Rare firings too: nothing lies between an instant and its next firing, and each counts.
    #[test]
    fn strictly_increasing_whole_seconds_and_counted(
        expr in generate::expression(),
        zone in prop::sample::select(&TZ_VARIANTS[..]),
        after in -10_i64..4_200_000_000,
        nanos in 0_u32..2_000_000_000,
    ) {
        let Ok(schedule) = Schedule::parse(&expr) else { return Ok(()) };
        let Some(start) = DateTime::from_timestamp(after, nanos.min(999_999_999)) else {
            return Ok(());
        };
        let mut last = start;
        let mut seen = 0;
        for at in schedule.upcoming(zone, start).take(20) {
            prop_assert!(at > last, "{at} after {last}");
            prop_assert_eq!(at.timestamp_subsec_nanos(), 0);
            seen += 1;
            prop_assert_eq!(
                schedule.slots_between(zone, start, at, usize::MAX),
                (seen, Some(at))
            );
            let before = at - TimeDelta::nanoseconds(1);
            prop_assert_eq!(schedule.next_after(zone, before), Some(at));
            let told = schedule.dst_note(zone, at);
            prop_assert!(told.is_none() || zone != Tz::UTC);
            last = at;
        }
        prop_assert!(!schedule.describe().is_empty());
    }

    /// Reading what was printed gives the same rule, which prints the same and fires alike.
    #[test]
    fn printed_and_read_again(
        expr in generate::expression(),
        zone in prop::sample::select(&TZ_VARIANTS[..]),
        after in 0..HORIZON,
        change in any::<bool>(),
    ) {
        let Ok(schedule) = Schedule::parse(&expr) else { return Ok(()) };
        let printed = schedule.canonical();
        let again = Schedule::parse(&printed).unwrap();
        prop_assert!(again.means_the_same(&schedule), "`{}` as `{}`", expr, printed);
        prop_assert_eq!(again.canonical(), printed.as_str());
        prop_assert_eq!(again.describe(), schedule.describe());
        let near = zone::next_transition(zone, after, HORIZON).filter(|_| change);
        let start = utc(near.map_or(after, |at| at - 8 * 3600));
        let firings = |schedule: &Schedule| schedule.upcoming(zone, start).take(30).collect::<Vec<_>>();
        prop_assert_eq!(firings(&again), firings(&schedule));
        // The printed text means to the model what the written one does.
        let after = start.timestamp();
        let window = Window::new(zone, after, after + 600, 1);
        prop_assert_eq!(
            Model::read(&printed).firings(&window),
            Model::read(&expr).firings(&window),
            "`{}` as `{}`", expr, printed
        );
    }

    /// A chosen value lies in its range, a step goes on from it, and it is always the same.
    #[test]
    fn the_name_chooses_within_the_field(
        name in "\\PC{0,20}",
        (field, low, high) in prop_oneof![
            (Just(0_usize), 0..=59_u32, 0..=59_u32),
            (Just(1), 0..=59_u32, 0..=59_u32),
            (Just(2), 0..=23_u32, 0..=23_u32),
            (Just(3), 1..=31_u32, 1..=31_u32),
            (Just(4), 1..=12_u32, 1..=12_u32),
            (Just(5), 0..=6_u32, 0..=6_u32),
        ],
        open_low in any::<bool>(),
        open_high in any::<bool>(),
        step in prop_oneof![Just(None), (1..=6_u32).prop_map(Some)],
    ) {
        let (least, most) = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)][field];
        let end = if field == 3 && open_low { 28 } else { most };
        let text = |open: bool, n: u32| if open { String::new() } else { n.to_string() };
        let steps = step.map_or(String::new(), |n| format!("/{n}"));
        let mut fields = ["*", "*", "*", "*", "*", "*"].map(str::to_owned);
        fields[field] = format!("{}~{}{steps}", text(open_low, low), text(open_high, high));
        let expr = fields.join(" ");
        prop_assert!(Schedule::parse(&expr).is_err());
        let schedule = Schedule::for_job(&expr, &name, None).unwrap();
        prop_assert_eq!(&schedule, &Schedule::for_job(&expr, &name, None).unwrap());

        let printed = schedule.canonical();
        let Model::Fields(model) = Model::read(&printed) else { panic!("{printed}") };
        let low = if open_low { least } else { low };
        let high = if open_high { end } else { high };
        let range: Vec<u32> = match low <= high {
            true => (low..=high).collect(),
            false => (low..=most).chain(least..=high).collect(),
        };
        let each = step.unwrap_or(most + 1) as usize;
        let chosen = model.values(field);
        let possible = (0..each.min(range.len())).map(|first| {
            let values = range.iter().skip(first).step_by(each);
            values.copied().collect::<BTreeSet<u32>>()
        });
        prop_assert!(
            possible.into_iter().any(|values| values == chosen),
            "{} of {} is {}", printed, expr, name
        );
        prop_assert!(!model.fixed);
    }

    /// A chosen hour and minute are fixed, unless a step goes on from them.
    #[test]
    fn what_the_name_chose_fires_by_the_rule(
        name in "[a-z]{1,8}",
        minute in prop::sample::select(&["~", "0~30", "~/20", "50~10/5", "30", "*/30"][..]),
        hour in prop::sample::select(&["~", "1~3", "2", "~/6", "23~2", "*"][..]),
        zone in prop::sample::select(&ZONES[..]),
        from in FROM..UNTIL,
    ) {
        let expr = format!("{minute} {hour} * * *");
        let schedule = Schedule::for_job(&expr, &name, None).unwrap();
        let model = Model::read(&schedule.canonical());
        let Model::Fields(fields) = &model else { panic!("{schedule}") };
        prop_assert_eq!(fields.fixed, !expr[..expr.len() - 6].contains(['*', '/']));
        let change = zone::next_transition(zone, from, UNTIL).unwrap_or(from);
        let window = Window::new(zone, change - 20 * 3600, change + 20 * 3600, 60);
        window.agree(&schedule, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Any text is refused or works, soon; and what is wrong with it can be pointed at.
    #[test]
    fn random_text_is_refused_or_works(
        text in prop_oneof![
            "\\PC{0,40}",
            "[-0-9*/,?@LW#~ A-Za-z]{0,30}( [-0-9*/,~LW#]{1,4}){0,6}",
            generate::words(),
            generate::words(),
        ],
        name in "\\PC{0,10}",
    ) {
        let begun = std::time::Instant::now();
        for read in [Schedule::parse(&text), Schedule::for_job(&text, &name, None)] {
            match read {
                Ok(schedule) => {
                    let mut last = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
                    for at in schedule.upcoming(America::New_York, last).take(3) {
                        prop_assert!(at > last);
                        last = at;
                    }
                    prop_assert!(!schedule.describe().is_empty());
                    let printed = Schedule::parse(&schedule.canonical()).unwrap();
                    prop_assert!(printed.means_the_same(&schedule), "{}", printed);
                }
                Err(error) => {
                    prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error.span);
                    prop_assert_eq!(error.caret(&text).lines().count(), 2);
                    prop_assert!(!error.message.is_empty());
                }
            }
        }
        // Microseconds; a machine may have other things to do.
        prop_assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    }
}

/// Another name, another value: every one in the range comes up, and about as often.
#[test]
fn names_are_spread_over_the_field() {
    for (expr, field, values) in
        [("~ * * * *", 1, 60), ("* ~ * * *", 2, 24), ("* * ~ * *", 3, 28), ("* * * * ~", 5, 7)]
    {
        let mut counts = vec![0; 60];
        for n in 0..200 * values {
            let schedule = Schedule::for_job(expr, &format!("job-{n}"), None).unwrap();
            let Model::Fields(model) = Model::read(&schedule.canonical()) else { panic!("{expr}") };
            for value in model.values(field) {
                counts[value as usize] += 1;
            }
        }
        counts.retain(|n| *n > 0);
        assert_eq!(counts.len(), values, "{expr}");
        assert!(counts.iter().all(|n| (130..280).contains(n)), "{expr}: {counts:?}");
    }
}
