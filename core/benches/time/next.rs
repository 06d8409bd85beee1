//! The next firing after random instants of the years 2024 to 2029, with the types that each
//! library takes and gives.

use std::hint::black_box;
use std::str::FromStr;

use carillon_core::schedule::Schedule;
use chrono::{DateTime, Utc};
use chrono_tz::{America, Tz};
use croner::parser::{CronParser, Seconds, Year};

use crate::ratio::{Random, Ratio, Shown, timed};

const INSTANTS: usize = 4096;
/// croner is slow at what is rare.
const FEW: usize = 64;
const ROUNDS: usize = 15;

/// Ours, and the same for the `cron` crate, which counts seconds and joins day fields with AND.
const ORDINARY: [(&str, &str); 5] = [
    ("*/10 * * * * *", "*/10 * * * * *"),
    ("*/5 * * * *", "0 */5 * * * *"),
    ("0 1 * * *", "0 0 1 * * *"),
    ("0 9 * * MON-FRI", "0 0 9 * * MON-FRI"),
    ("0 0 1 * *", "0 0 0 1 * *"),
];
/// `*/7` is Sunday, in a field that begins with `*`: 29 February and Sunday, the 13th and Sunday.
const NASTY: [(&str, &str); 3] = [
    ("0 0 29 2 */7", "0 0 0 29 2 SUN"),
    ("0 0 13 * */7", "0 0 0 13 * SUN"),
    ("0 0 0 1 1 ? 2099", "0 0 0 1 1 * 2099"),
];

pub(crate) fn run() {
    println!(
        "next_after, {INSTANTS} random instants, {ROUNDS} rounds; bar: 8 x faster than cron\n"
    );
    println!(
        "{:18} {:17} {:>10} {:>10} {:25} {:>10} {:25}",
        "expression", "zone", "ours", "cron", "", "croner", ""
    );
    for (expr, theirs) in ORDINARY {
        compare(expr, theirs);
    }
    println!();
    for (expr, theirs) in NASTY {
        compare(expr, theirs);
    }
    println!();
}

fn compare(expr: &str, spelled: &str) {
    let schedule = Schedule::parse(expr).unwrap();
    let cron = cron::Schedule::from_str(spelled).unwrap();
    let croner = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Optional)
        .dom_and_dow(true)
        .build()
        .parse(spelled)
        .unwrap();
    let mut random = Random(0x00c0_ffee);
    let instants: Vec<DateTime<Utc>> = (0..INSTANTS)
        .map(|_| 1_704_067_200 + random.below(6 * 365 * 86_400).cast_signed())
        .map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap())
        .collect();
    for zone in [Tz::UTC, America::New_York] {
        let ours = || {
            timed(|| {
                for at in &instants {
                    black_box(schedule.next_after(zone, black_box(*at)));
                }
            })
            .0
        };
        let local: Vec<DateTime<Tz>> = instants.iter().map(|at| at.with_timezone(&zone)).collect();
        let with_cron = || {
            timed(|| {
                for (at, local) in instants.iter().zip(&local) {
                    // UTC is what it is fastest in.
                    if zone == Tz::UTC {
                        black_box(cron.after(black_box(at)).next());
                    } else {
                        black_box(cron.after(black_box(local)).next());
                    }
                }
            })
            .0
        };
        let with_croner = || {
            timed(|| {
                for (at, local) in instants.iter().zip(&local).take(FEW) {
                    if zone == Tz::UTC {
                        black_box(croner.find_next_occurrence(black_box(at), false).ok());
                    } else {
                        black_box(croner.find_next_occurrence(black_box(local), false).ok());
                    }
                }
            })
            .0
        };
        let cron = Ratio::measure(ROUNDS, (INSTANTS, INSTANTS), with_cron, ours);
        let croner = Ratio::measure(3, (FEW, INSTANTS), with_croner, ours);
        println!(
            "{expr:18} {:17} {:>10} {:>10} {:25} {:>10} {:25}",
            zone.name(),
            Shown(cron.ours),
            Shown(cron.theirs),
            cron.faster(),
            Shown(croner.theirs),
            croner.faster(),
        );
    }
}
