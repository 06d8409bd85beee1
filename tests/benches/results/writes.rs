//! Records a second, through Carillon's own functions and through the driver's bare insert.

use std::time::Instant;

use carillon_core::records::{Batch, Records};
use carillon_core::run::{Outcome, RunRecord};
use chrono::Utc;
use futures::StreamExt;
use futures::stream;
use mongodb::Client;
use mongodb::bson::{Document, serialize_to_document};
use system_tests::stack::Stack;
use system_tests::write;

use crate::bars::Spread;
use crate::record;

/// Records per way and round.
const COUNT: u32 = 1_000;
/// Runs that are written one by one at the same time.
const AT_ONCE: usize = 8;
const ROUNDS: u32 = 5;

pub(crate) async fn run(stack: &Stack) {
    let records = Records::connect(&stack.mongo_uri(), "/writes").await.unwrap();
    records.ensure_indexes().await.unwrap();
    let client = Client::with_uri_str(stack.mongo_uri()).await.unwrap();
    // Without indexes: what the server can take at all.
    let bare = client.database("bench").collection::<Document>("bare");
    println!("\nwrites: {COUNT} records a round, {ROUNDS} rounds");
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        let now = Utc::now();
        let all = |way: u32| (0..COUNT).map(move |n| record(n + (2 * round + way) * COUNT, now));
        let documents: Vec<Document> = all(0).map(|r| serialize_to_document(&r).unwrap()).collect();
        let begun = Instant::now();
        bare.insert_many(documents).ordered(false).await.unwrap();
        times[0].push(begun.elapsed().as_secs_f64());

        let ends: Vec<RunRecord> = all(0).collect();
        let together = Batch { finished: ends.iter().collect(), ..Batch::default() };
        let begun = Instant::now();
        assert_eq!(records.write(&together).await.unwrap(), []);
        times[1].push(begun.elapsed().as_secs_f64());

        let begun = Instant::now();
        stream::iter(all(1)).for_each_concurrent(AT_ONCE, |end| one_run(&records, end)).await;
        times[2].push(begun.elapsed().as_secs_f64());
    }
    let [bare, ends, alone] =
        times.map(|times| f64::from(COUNT) / Spread::of(times).percentile(50));
    println!("    bare insert_many, no index   {bare:8.0} records a second");
    println!(
        "    ends in batches              {ends:8.0} records a second, {:.2} of that",
        ends / bare
    );
    println!(
        "    starts and ends, one by one  {alone:8.0} runs a second, {:.2} of that",
        alone / bare
    );
}

async fn one_run(records: &Records, end: RunRecord) {
    let start = RunRecord { outcome: Outcome::Running, end_time: None, ..end.clone() };
    write::started(records, &start).await.unwrap();
    write::finished(records, &end).await.unwrap();
}
