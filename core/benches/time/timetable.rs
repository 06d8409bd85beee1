//! A timetable of ten million jobs, from compiled schedules to the first hundred thousand popped in
//! order, against sorting ten million random pairs. Tickets tell the jobs apart: names are somebody
//! else's memory.

use std::hint::black_box;
use std::time::Duration;

use carillon_core::schedule::{Plan, Schedule};
use carillon_core::timetable::{PlanId, Ticket, Timetable};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::{America, Tz};

use crate::ALLOCATED;
use crate::ratio::{Random, Ratio, Shown, timed};

const JOBS: usize = 10_000_000;
const POPPED: usize = 100_000;
const SHARED: usize = 1_000;
const ROUNDS: usize = 5;

pub(crate) fn run(wanted: impl Fn(&str) -> bool) {
    println!("timetable of {JOBS} jobs, {ROUNDS} rounds\n");
    let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
    let mut random = Random(0x00c0_ffee);
    if wanted("shared") {
        build_shared(now, &mut random);
    }
    if wanted("own") || wanted("replace") {
        print!("compiling {JOBS} distinct expressions ... ");
        let (spent, plans) = timed(|| own_plans(&mut random));
        println!("{:.1} s", spent.as_secs_f64());
        if wanted("own") {
            build_own(&plans, now);
        }
        if wanted("replace") {
            replace(&plans, now, &mut random);
        }
    }
    if wanted("pop") {
        pop_at_once(now);
    }
    if wanted("forecast") {
        forecast(now, &mut random);
    }
}

fn build_shared(now: DateTime<Utc>, random: &mut Random) {
    let plans = shared_plans(random);
    let choices: Vec<u16> = (0..JOBS).map(|_| random.below(SHARED as u64) as u16).collect();
    let mut bytes = 0;
    let ratio = Ratio::measure(ROUNDS, (1, 1), sort, || {
        let before = reset_peak();
        let mut table = Timetable::with_capacity(JOBS, SHARED);
        let ids: Vec<PlanId> = plans.iter().map(|plan| table.plan(plan)).collect();
        let (spent, ()) = timed(|| {
            for choice in &choices {
                let plan = table.share(&ids[usize::from(*choice)]);
                table.insert((), plan, now);
            }
            pop(&mut table, now);
        });
        bytes = ALLOCATED.peak_usage() - before;
        spent
    });
    report("build, 1,000 shared expressions", &ratio, "0.6", bytes, "40");
}

fn build_own(plans: &[Plan], now: DateTime<Utc>) {
    let mut bytes = 0;
    let ratio = Ratio::measure(ROUNDS, (1, 1), sort, || {
        let before = reset_peak();
        let mut table = Timetable::with_capacity(JOBS, JOBS);
        let ids: Vec<PlanId> = plans.iter().map(|plan| table.plan(plan)).collect();
        let compiled = JOBS * size_of::<PlanId>();
        let (spent, ()) = timed(|| {
            for plan in ids {
                table.insert((), plan, now);
            }
            pop(&mut table, now);
        });
        bytes = ALLOCATED.peak_usage() - before - compiled;
        spent
    });
    report("build, every job its own expression and spread", &ratio, "1.5", bytes, "100");
}

fn report(what: &str, ratio: &Ratio, bar: &str, bytes: usize, most: &str) {
    println!(
        "{what:48} {:>8}   sort {:>8}   {} (bar {bar})   {:.1} bytes a job at the peak (bar {most})",
        Shown(ratio.ours),
        Shown(ratio.theirs),
        ratio.share(),
        bytes as f64 / JOBS as f64,
    );
}

fn sort() -> Duration {
    let mut random = Random(0x5eed);
    let mut pairs: Vec<(i64, u32)> =
        (0..JOBS as u32).map(|n| (random.below(1 << 62).cast_signed(), n)).collect();
    let (spent, ()) = timed(|| pairs.sort_unstable());
    black_box(pairs);
    spent
}

fn pop(table: &mut Timetable<()>, now: DateTime<Utc>) {
    let end = now + TimeDelta::days(36_500);
    let mut last = now;
    for _ in 0..POPPED {
        let due = table.pop_due(end).unwrap();
        assert!(due.at >= last, "{} after {last}", due.at);
        last = black_box(due.at);
    }
}

/// What a fleet's crontabs are like: mostly every few minutes, hourly and daily.
fn shared_plans(random: &mut Random) -> Vec<Plan> {
    (0..SHARED)
        .map(|_| {
            let mut up_to = |end| random.below(end);
            let (minute, hour, day) = (up_to(60), up_to(24), up_to(28) + 1);
            let expr = match up_to(10) {
                0 => format!("{} * * * * *", up_to(60)),
                1..=3 => format!("{}/{} * * * *", up_to(5), up_to(25) + 5),
                4..=5 => format!("{minute} * * * *"),
                6..=7 => format!("{minute} {hour} * * *"),
                8 => format!("{minute} {hour} * * MON-FRI"),
                _ => format!("{minute} {hour} {day} * *"),
            };
            let zone = if up_to(2) == 0 { Tz::UTC } else { America::New_York };
            Plan::new(&Schedule::parse(&expr).unwrap(), zone, 0)
        })
        .collect()
}

/// In random order; each differs from all others in its expression already.
fn own_plans(random: &mut Random) -> Vec<Plan> {
    let chosen = |mask: usize, first: usize| -> String {
        let values: Vec<String> = (0..7)
            .filter(|bit| mask >> bit & 1 == 1)
            .map(|bit| (bit + first).to_string())
            .collect();
        values.join(",")
    };
    let mut plans: Vec<Plan> = (0..JOBS)
        .map(|n| {
            let (second, minute, hour) = (n % 60, n / 60 % 60, n / 3600 % 24);
            let kind = n / 86_400;
            let expr = match kind {
                0..40 => format!("{second} {minute} {hour} * * {}", chosen(kind + 1, 0)),
                40..80 => {
                    format!("{second} {minute} {hour} {} * *", chosen(kind - 39, kind % 20 + 1))
                }
                _ => format!("{second} {minute} {hour} * {} *", chosen(kind - 79, 1)),
            };
            let zone = if random.below(2) == 0 { Tz::UTC } else { America::New_York };
            let spread = random.below(3600) as u32;
            Plan::new(&Schedule::parse(&expr).unwrap(), zone, spread)
        })
        .collect();
    for n in (1..JOBS).rev() {
        plans.swap(n, random.below(n as u64 + 1) as usize);
    }
    plans
}

/// Replaces one job after the other among ten million.
fn replace(plans: &[Plan], now: DateTime<Utc>, random: &mut Random) {
    let mut table = Timetable::with_capacity(JOBS, JOBS);
    let tickets: Vec<Ticket> = plans
        .iter()
        .map(|plan| {
            let plan = table.plan(plan);
            table.insert((), plan, now)
        })
        .collect();
    let changes: Vec<(Ticket, Plan)> = (0..POPPED)
        .map(|_| {
            let mut any = || random.below(JOBS as u64) as usize;
            (tickets[any()], plans[any()])
        })
        .collect();
    let (spent, ()) = timed(|| {
        for (ticket, plan) in &changes {
            let plan = table.plan(plan);
            table.replace(*ticket, plan, now);
        }
    });
    println!(
        "{:48} {:>8}   (bar 2 µs)",
        "replace one job among ten million",
        Shown(spent.as_secs_f64() / POPPED as f64)
    );
}

/// Pops a hundred thousand that are due in one second, against popping them off a heap.
fn pop_at_once(now: DateTime<Utc>) {
    let plan = Plan::new(&Schedule::parse("0 0 * * *").unwrap(), Tz::UTC, 0);
    let end = now + TimeDelta::days(2);
    let ratio = Ratio::measure(
        ROUNDS,
        (POPPED, POPPED),
        || {
            let mut random = Random(0x5eed);
            let mut heap: std::collections::BinaryHeap<(i64, u32)> =
                (0..POPPED as u32).map(|n| (random.below(1 << 62).cast_signed(), n)).collect();
            timed(|| while black_box(heap.pop()).is_some() {}).0
        },
        || {
            let mut table = Timetable::with_capacity(POPPED, 1);
            let id = table.plan(&plan);
            for _ in 0..POPPED {
                let plan = table.share(&id);
                table.insert((), plan, now);
            }
            timed(|| while black_box(table.pop_due(end)).is_some() {}).0
        },
    );
    println!(
        "{:48} {:>8}   heap {:>8}   {}",
        "pop one of 100,000 that are due at once",
        Shown(ratio.ours),
        Shown(ratio.theirs),
        ratio.share()
    );
}

/// The forecast of a day by the minute, for ten million jobs on a thousand plans.
fn forecast(now: DateTime<Utc>, random: &mut Random) {
    let mut table = Timetable::with_capacity(JOBS, SHARED);
    let plans = shared_plans(random);
    let ids: Vec<PlanId> = plans.iter().map(|plan| table.plan(plan)).collect();
    for _ in 0..JOBS {
        let plan = table.share(&ids[random.below(SHARED as u64) as usize]);
        table.insert((), plan, now);
    }
    let (spent, minutes) = timed(|| table.forecast(now, TimeDelta::minutes(1), 1440));
    println!(
        "{:48} {:>8}   {} slots",
        "forecast of a day by the minute",
        Shown(spent.as_secs_f64()),
        minutes.iter().sum::<u64>()
    );
}

fn reset_peak() -> usize {
    ALLOCATED.reset_peak_usage();
    ALLOCATED.current_usage()
}
