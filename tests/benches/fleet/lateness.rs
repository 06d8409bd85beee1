//! From the slot to the first instruction of the command: of a lone job, and of a hundred in the
//! same second against a bare burst of a hundred spawns.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use chrono::{DateTime, TimeDelta, Utc};
use system_tests::stack::Stack;

use crate::bars::{Bars, Spread};
use crate::scene::{STAMP, Scene, Stamp, next_slot, sleep_until};

const EVERY_SECOND: &str = "* * * * * *";
/// Seconds of a lone job, and of a hundred.
const SECONDS: (i64, i64) = (100, 12);
const MANY: usize = 100;
/// Bare bursts before the hundred jobs, and as many after.
const BURSTS: usize = 4;

pub(crate) async fn run(stack: &Stack, bars: &mut Bars) {
    println!("\nfrom the slot to the start of the command\n");
    for workers in [1, 3] {
        let who = crate::bars::workers(workers);
        let mut scene = Scene::start(stack, workers).await;
        let lone = every_second(&mut scene, "lone", 1, SECONDS.0).await;
        println!("{who:9}   one each second      {}", lone.millis());
        bars.at_most(&format!("lone start p50, {who}"), lone.percentile(50), 10.0, " ms");
        bars.at_most(&format!("lone start p99, {who}"), lone.percentile(99), 25.0, " ms");

        let mut bursts = bare_bursts(&scene);
        let many = every_second(&mut scene, "many", MANY, SECONDS.1).await;
        bursts.extend(bare_bursts(&scene));
        let (low, high) = (bursts.iter(), bursts.iter());
        let low = low.map(|burst| burst.percentile(99)).fold(f64::MAX, f64::min);
        let high = high.map(|burst| burst.percentile(99)).fold(0.0, f64::max);
        let bare = Spread::of(bursts.iter().flat_map(Spread::figures));
        println!("{who:9}   {MANY} each second      {}", many.millis());
        println!(
            "            a bare burst of {MANY}  {}   (p99 {low:.1}-{high:.1})",
            bare.millis()
        );
        let ratio = many.percentile(99) / bare.percentile(99);
        let what = format!("p99 of {MANY} in a second against a bare burst, {who}");
        bars.at_most(&what, ratio, 2.0, "");
    }
}

/// How late so many jobs each second start, in milliseconds.
async fn every_second(scene: &mut Scene, name: &str, jobs: usize, seconds: i64) -> Spread {
    scene.put_jobs(name, jobs, EVERY_SECOND).await;
    let first = next_slot(1, TimeDelta::seconds(2));
    let end = first + TimeDelta::seconds(seconds);
    sleep_until(end).await;
    let last = end - TimeDelta::seconds(1);
    scene.until_stamped(last, jobs).await;
    let stamps = scene.stamps();
    let within = stamps.iter().filter(|stamp| (first..end).contains(&stamp.slot));
    let lateness = Spread::of(within.map(Stamp::lateness));
    let expected = jobs * usize::try_from(seconds).unwrap();
    if lateness.len() != expected {
        println!("    ({} of {expected} started)", lateness.len());
    }
    scene.clear().await;
    lateness
}

fn bare_bursts(scene: &Scene) -> Vec<Spread> {
    (0..BURSTS).map(|_| bare_burst(scene)).collect()
}

/// Spawns a hundred as a worker does, one after the other, with nothing around it.
fn bare_burst(scene: &Scene) -> Spread {
    let file = scene.stamp_file();
    let begun = Utc::now();
    let children: Vec<Child> = (0..MANY)
        .map(|_| {
            Command::new(STAMP)
                .arg("-c")
                .arg(&file)
                .env_clear()
                .env("CARILLON_JOB", "bare")
                .env("CARILLON_SLOT", begun.to_rfc3339())
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        child.wait().unwrap();
    }
    let since = |at: DateTime<Utc>| (at - begun).as_seconds_f64() * 1e3;
    let spread = Spread::of(scene.stamps().iter().map(|stamp| since(stamp.at)));
    assert_eq!(spread.len(), MANY);
    std::fs::remove_file(&file).unwrap();
    spread
}
