//! A worker that starts among a hundred thousand jobs: how soon it knows them, against the bare
//! list of the same keys, and how much memory they take.

use std::fs;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use etcd_client::{Client, DeleteOptions, GetOptions};
use system_tests::fleet::Fleet;
use system_tests::stack::Stack;
use tokio::time::sleep;

use crate::bars::{Bars, Spread};
use crate::ratio::Random;
use crate::scene::{count, put_jobs};

const JOBS: usize = 100_000;
const MILLION: usize = 1_000_000;
const ROUNDS: usize = 3;
/// About as the worker's own: the fastest that was measured.
const PAGE: i64 = 5_000;
const LONGEST_PAGE: i64 = 20_000;
const PAGES: i64 = 40;
const DECODE_LIMIT: usize = 1 << 30;
/// Different schedules among the jobs.
const SCHEDULES: u64 = 1_000;
/// A process that used less than a tenth of this in it is at rest.
const REST: Duration = Duration::from_millis(300);
/// For what takes as long as there are jobs.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn run(stack: &Stack, bars: &mut Bars) {
    let mut none = Fleet::start(stack, 1).await.unwrap();
    at_rest(none.worker("w1").unwrap().pid(), Utc::now()).await;
    let empty = Memory::of(none.worker("w1").unwrap().pid());
    none.stop("w1").await.unwrap();
    Box::pin(measure(stack, JOBS, ROUNDS, &empty, bars)).await;
    if std::env::var_os("BENCH_MILLION").is_some() {
        Box::pin(measure(stack, MILLION, 1, &empty, bars)).await;
    }
}

async fn measure(stack: &Stack, jobs: usize, rounds: usize, empty: &Memory, bars: &mut Bars) {
    println!("\na worker that starts with {jobs} jobs, {rounds} rounds\n");
    let mut fleet = Fleet::start(stack, 0).await.unwrap();
    let mut etcd = stack.etcd().await.unwrap();
    let text = put(&etcd, fleet.prefix(), jobs).await;

    // The first one makes the cursors.
    let begun = Instant::now();
    fleet.add("first").await.unwrap();
    let cursors = format!("{}/cursor/", fleet.prefix());
    while count(&mut etcd, &cursors).await.0 < jobs && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50)).await;
    }
    println!("the first of all, with cursors to make   {:6.0} ms", millis(begun.elapsed()));
    fleet.stop("first").await.unwrap();

    let (mut lists, mut starts, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = None;
    for round in 0..rounds {
        let list = bare_list(stack, fleet.prefix(), 2 * jobs).await;
        let id = format!("w{round}");
        let begun = Utc::now();
        fleet.add(&id).await.unwrap();
        let read = logged(&fleet, &id, &format!("read {jobs} jobs")).await;
        let registered = logged(&fleet, &id, "registered as").await;
        let pid = fleet.worker(&id).unwrap().pid();
        let filed = at_rest(pid, read.max(registered)).await;
        known = Some(Memory::of(pid));
        fleet.stop(&id).await.unwrap();
        let since = |at: DateTime<Utc>| (at - begun).as_seconds_f64() * 1e3;
        println!(
            "bare list {:6.0} ms   worker registered {:6.0}, knows all {:6.0} ({:.2} x), at rest {:6.0} ms",
            millis(list),
            since(registered),
            since(read),
            since(read.max(registered)) / millis(list),
            since(filed),
        );
        lists.push(millis(list));
        starts.push(since(read.max(registered)));
        ratios.push(starts[round] / lists[round]);
    }
    let ratio = Spread::of(ratios).percentile(50);
    bars.at_most(&format!("cold start with {jobs} jobs against the bare list"), ratio, 1.5, "");

    let known = known.unwrap();
    let a_job = (known.resident - empty.resident) / jobs as f64;
    let beyond = a_job - text;
    println!(
        "memory {:.1} MB, {:.1} at the peak, {:.1} without jobs: {a_job:.0} bytes a job, {beyond:.0} beyond its own text of {text:.0}",
        known.resident / 1e6,
        known.peak / 1e6,
        empty.resident / 1e6,
    );
    bars.at_most(&format!("memory a job of {jobs} beyond its own text"), beyond, 400.0, " bytes");
    // A million at once take longer than etcd gives a call.
    let all = DeleteOptions::new().with_prefix();
    etcd.delete(format!("{}/", fleet.prefix()), Some(all)).await.ok();
}

/// Puts jobs that are due next year, and returns how long the JSON of one is.
async fn put(etcd: &Client, prefix: &str, jobs: usize) -> f64 {
    let mut random = Random(0x5eed);
    let jobs: Vec<(String, String)> = (0..jobs)
        .map(|n| {
            let name = format!("settle-{n:07}");
            let kind = random.below(SCHEDULES);
            let expr = format!("{} {} {} 1 *", kind % 60, kind / 60 % 24, kind / 60 + 1);
            let json = serde_json::json!({
                "name": name,
                "command": format!("/opt/pay/bin/settle --account {n:07} --quiet"),
                "cronExpr": expr,
            });
            (name, json.to_string())
        })
        .collect();
    let text: usize = jobs.iter().map(|(_, json)| json.len()).sum();
    let count = jobs.len();
    put_jobs(etcd, prefix, jobs).await;
    text as f64 / count as f64
}

/// The time of the list that a worker makes, connection included, by etcd's own client.
async fn bare_list(stack: &Stack, prefix: &str, expected: usize) -> Duration {
    let begun = Instant::now();
    let client = Client::connect([stack.etcd_url()], None).await.unwrap();
    let mut kv = client.kv_client().max_decoding_message_size(DECODE_LIMIT);
    let mut from = format!("{prefix}/").into_bytes();
    let end = format!("{prefix}0");
    let (mut revision, mut items) = (0, Vec::new());
    let page = (expected as i64 / PAGES).clamp(PAGE, LONGEST_PAGE);
    loop {
        let mut options = GetOptions::new().with_range(end.as_str()).with_limit(page);
        if revision > 0 {
            options = options.with_revision(revision);
        }
        let answer = kv.get(from, Some(options)).await.unwrap();
        revision = answer.header().unwrap().revision();
        items.extend(answer.kvs().iter().map(|kv| (kv.key().to_vec(), kv.value().to_vec())));
        if !answer.more() {
            break;
        }
        from = items.last().unwrap().0.clone();
        from.push(0);
    }
    let spent = begun.elapsed();
    assert!(items.len() >= expected, "{} of {expected} keys", items.len());
    spent
}

/// When a worker logged this, by its own clock.
async fn logged(fleet: &Fleet, id: &str, what: &str) -> DateTime<Utc> {
    let begun = Instant::now();
    loop {
        let log = fs::read_to_string(fleet.log(id)).unwrap();
        if let Some(line) = log.lines().find(|line| line.contains(what)) {
            return line.split(' ').next().unwrap().parse().unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "{id} did not log {what:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Since when a process has been at rest, but not before `from`.
async fn at_rest(pid: u32, from: DateTime<Utc>) -> DateTime<Utc> {
    let mut since = from.max(Utc::now());
    let mut used = processor_time(pid);
    let begun = Instant::now();
    loop {
        sleep(REST / 10).await;
        let now = processor_time(pid);
        if now - used > REST / 100 {
            since = Utc::now();
        }
        used = now;
        if Utc::now() - since > TimeDelta::from_std(REST).unwrap() || begun.elapsed() > PATIENCE {
            return since;
        }
    }
}

/// Of all threads, to the hundredth of a second that Linux counts in.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// In bytes.
struct Memory {
    resident: f64,
    peak: f64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            kib * 1024.0
        };
        Self { resident: field("VmRSS:"), peak: field("VmHWM:") }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
