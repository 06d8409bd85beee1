//! Pages of history, searches and figures among very many records.

use std::time::{Duration, Instant};

use carillon_core::id::JobName;
use carillon_core::records::{Batch, HistoryFilter, Records};
use carillon_core::run::{Outcome, RunRecord, Trigger};
use chrono::{TimeDelta, Utc};
use futures::{StreamExt, stream};
use system_tests::stack::Stack;

use crate::bars::{Bars, Spread};
use crate::record;

/// Records per insert, and inserts at once.
const BATCH: u32 = 250;
const WRITERS: usize = 2;
/// Records per page, as in the console.
const PAGE: usize = 200;
/// How often each page is read.
const ROUNDS: usize = 15;

pub(crate) async fn run(stack: &Stack, bars: &mut Bars) {
    let count = std::env::var("BENCH_RECORDS").ok().and_then(|n| n.parse().ok());
    let count: u32 = count.unwrap_or(1_000_000);
    let records = Records::connect(&stack.mongo_uri(), "/history").await.unwrap();
    let now = Utc::now();
    let begun = Instant::now();
    // The oldest first, as they are in life.
    let batches = (0..count).step_by(BATCH as usize).map(|first| {
        let range = first..count.min(first + BATCH);
        store(&records, range.map(move |n| record(count - 1 - n, now)).collect())
    });
    stream::iter(batches).buffer_unordered(WRITERS).collect::<()>().await;
    let stored = begun.elapsed();
    // Once all is there: that is quicker.
    records.ensure_indexes().await.unwrap();
    println!(
        "\nhistory: {count} records, stored in {:.0} s, indexed in {:.0} s",
        stored.as_secs_f64(),
        (begun.elapsed() - stored).as_secs_f64()
    );
    let job = |name: &str| Some(JobName::new(name).unwrap());
    let ago = |part: f64| {
        #[allow(clippy::cast_possible_truncation, reason = "seconds")]
        let seconds = (f64::from(count) * part) as i64;
        Some(now - TimeDelta::seconds(seconds))
    };
    let all = HistoryFilter::default;
    for (what, filter) in [
        ("the newest", all()),
        ("from the middle on", HistoryFilter { until: ago(0.5), ..all() }),
        ("of one job in 500", HistoryFilter { job: job("job-7"), ..all() }),
        ("of a job that runs seldom", HistoryFilter { job: job("seldom"), ..all() }),
        ("of a job that never ran", HistoryFilter { job: job("nobody"), ..all() }),
        ("one in a thousand failed", HistoryFilter { outcome: Some(Outcome::Failed), ..all() }),
        ("live", HistoryFilter { outcome: Some(Outcome::Running), ..all() }),
        ("of one worker in 7", HistoryFilter { worker: Some("w3".to_owned()), ..all() }),
        ("one in a hundred by hand", HistoryFilter { trigger: Some(Trigger::Manual), ..all() }),
        (
            "of ten minutes",
            HistoryFilter {
                since: ago(0.1).map(|at| at - TimeDelta::minutes(10)),
                until: ago(0.1),
                ..all()
            },
        ),
    ] {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            found = records.history(&filter, None, PAGE).await.unwrap().records.len();
            times.push(millis(begun.elapsed()));
        }
        let times = Spread::of(times);
        println!("    {what:<28} {found:4}  {}", times.millis());
        bars.at_most(&format!("a page, {what}"), times.percentile(50), 300.0, " ms");
    }
    // Text that stands once near the beginning, and text that no record has.
    for (what, text, limit) in [
        ("text in the newest 5,000", format!("line {}:", count.min(5_000) - 1), 1),
        ("text that is nowhere", "no such text".to_owned(), 1),
    ] {
        let filter = HistoryFilter { text: Some(text), ..all() };
        let begun = Instant::now();
        let page = records.history(&filter, None, limit).await.unwrap();
        let took = millis(begun.elapsed());
        let back = page.reached.map_or(0, |(at, _)| (now - at).num_seconds());
        let found = page.records.len();
        println!("    {what:<28} {found:4}  {took:10.1} ms, back over {back} records");
    }
    let name = JobName::new("job-7").unwrap();
    let begun = Instant::now();
    let stats = records.stats(&name, now - TimeDelta::days(30), now).await.unwrap();
    let runs = stats.now.runs();
    println!("    {:<28} {runs:4}  {:10.1} ms", "figures of a job", millis(begun.elapsed()));
}

/// Stores them, again where the machine is too busy for the first try, which adds nothing twice.
async fn store(records: &Records, batch: Vec<RunRecord>) {
    let together = Batch { finished: batch.iter().collect(), ..Batch::default() };
    let mut tries = 0;
    while let Err(e) = records.write(&together).await {
        tries += 1;
        assert!(tries < 100, "{e}");
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
