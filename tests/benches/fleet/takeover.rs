//! How long jobs wait when a worker dies, and when one leaves.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use system_tests::faults::Signal;
use system_tests::stack::Stack;

use crate::bars::Bars;
use crate::scene::{Scene, Stamp, next_slot, sleep_until};

/// Jobs each second: every worker is the first for about ten of them.
const JOBS: usize = 30;
/// How long a dead worker counts as alive.
const TTL: TimeDelta = TimeDelta::seconds(10);
/// How long before a slot a worker is asked to leave: too short to hand that one over in time.
const JUST_BEFORE: TimeDelta = TimeDelta::milliseconds(20);

pub(crate) async fn run(stack: &Stack, bars: &mut Bars) {
    println!("\n{JOBS} jobs each second on 3 workers, one of which goes\n");
    let mut scene = Scene::start(stack, 3).await;
    scene.put_jobs("tick", JOBS, "* * * * * *").await;

    let at = next_slot(1, TimeDelta::seconds(2));
    sleep_until(at - TimeDelta::milliseconds(500)).await;
    scene.fleet.kill9("w1").unwrap();
    let waited = waits(&scene, at, TTL + TimeDelta::seconds(3)).await;
    println!("killed by -9          {waited}");
    bars.at_most("longest wait after kill -9", waited.longest, 11_000.0, " ms");

    let at = next_slot(1, TimeDelta::seconds(2));
    sleep_until(at - JUST_BEFORE).await;
    scene.fleet.worker("w2").unwrap().signal(Signal::TERM).unwrap();
    let waited = waits(&scene, at, TimeDelta::seconds(5)).await;
    println!("asked to leave        {waited}");
    bars.at_most("longest wait after a drain", waited.longest, 300.0, " ms");
}

/// What the slots of a while have waited for, in milliseconds.
struct Waited {
    longest: f64,
    /// The longest time between two starts of one job, less the second that is due.
    gap: f64,
    late: usize,
    slots: usize,
    expected: usize,
}

impl std::fmt::Display for Waited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { longest, gap, late, slots, expected } = self;
        write!(
            f,
            "longest wait {longest:.0} ms, longest gap {:.2} s; {late} of {slots} slots waited over 100 ms",
            1.0 + gap / 1e3
        )?;
        if slots < expected {
            write!(f, "; {} never started", expected - slots)?;
        }
        Ok(())
    }
}

async fn waits(scene: &Scene, from: DateTime<Utc>, during: TimeDelta) -> Waited {
    let end = from + during;
    sleep_until(end + TimeDelta::milliseconds(900)).await;
    let mut stamps = scene.stamps();
    stamps.retain(|stamp| (from - TimeDelta::seconds(1)..end).contains(&stamp.slot));
    let mut by_job = BTreeMap::<&str, Vec<DateTime<Utc>>>::new();
    for stamp in &stamps {
        by_job.entry(&stamp.job).or_default().push(stamp.at);
    }
    let gaps = by_job.values_mut().flat_map(|starts| {
        starts.sort_unstable();
        let gap = |pair: &[DateTime<Utc>]| (pair[1] - pair[0]).as_seconds_f64() * 1e3 - 1e3;
        starts.windows(2).map(gap).collect::<Vec<_>>()
    });
    let gap = gaps.fold(0.0, f64::max);
    let lateness: Vec<f64> =
        stamps.iter().filter(|s| s.slot >= from).map(Stamp::lateness).collect();
    Waited {
        longest: lateness.iter().copied().fold(0.0, f64::max),
        gap,
        late: lateness.iter().filter(|lateness| **lateness > 100.0).count(),
        slots: lateness.len(),
        expected: JOBS * usize::try_from(during.num_seconds()).unwrap(),
    }
}
