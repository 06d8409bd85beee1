//! Any text as a schedule, asked from any instant in any zone: no panic, no loop, and what it says
//! is consistent.
//!
//! Input: eight bytes of instant, two of zone, one of name, then the expression.
#![no_main]

use carillon_core::schedule::Schedule;
use chrono::{DateTime, TimeDelta};
use chrono_tz::TZ_VARIANTS;
use libfuzzer_sys::fuzz_target;

/// How many firings of one schedule are looked at.
const FIRINGS: usize = 8;

fuzz_target!(|input: (i64, u16, u8, &str)| {
    let (seconds, zone, name, expr) = input;
    let name = ["settle", "a", "每日清算"][usize::from(name) % 3];
    let schedule = match Schedule::for_job(expr, name, None) {
        Ok(schedule) => schedule,
        Err(error) => {
            assert!(expr.get(error.span.clone()).is_some(), "{:?}", error.span);
            assert_eq!(error.caret(expr).lines().count(), 2);
            return;
        }
    };
    assert!(!schedule.describe().is_empty());
    let canonical = Schedule::parse(&schedule.canonical()).expect("a canonical text is read");
    assert!(canonical.means_the_same(&schedule), "{} {}", schedule, schedule.canonical());

    let zone = TZ_VARIANTS[usize::from(zone) % TZ_VARIANTS.len()];
    // Mostly inside the calendar and around its ends, sometimes anywhere.
    let inside = seconds.rem_euclid(4_200_000_000) - 10_000_000;
    for seconds in [inside, seconds] {
        let Some(start) = DateTime::from_timestamp(seconds, 0) else { continue };
        let mut last = start;
        for (count, at) in (1..).zip(schedule.upcoming(zone, start).take(FIRINGS)) {
            assert!(at > last && (0..4_133_980_800).contains(&at.timestamp()));
            assert_eq!(schedule.slots_between(zone, start, at, usize::MAX), (count, Some(at)));
            assert_eq!(schedule.next_after(zone, at - TimeDelta::seconds(1)), Some(at));
            let _ = schedule.dst_note(zone, at);
            last = at;
        }
    }
});
