//! Records a second, through Carillon's own functions and through the driver's bare insert.

use std::time::Instant;

use carillon_core::records::Records;
use carillon_core::run::{Outcome, RunRecord};
use chrono::Utc;
use futures::StreamExt;
use futures::stream;
use mongodb::Client;
use mongodb::bson::{Document, serialize_to_document};
use system_tests::stack::Stack;
use system_tests::write;

use crate::record;

/// Records per way and round.
const COUNT: u32 = 1_000;
/// Runs that begin and end at the same time: as many as there are connections.
const AT_ONCE: usize = 8;
const ROUNDS: u32 = 3;

pub(crate) async fn run(stack: &Stack) {
    let records = Records::connect(&stack.mongo_uri(), "/writes").await.unwrap();
    let client = Client::with_uri_str(stack.mongo_uri()).await.unwrap();
    // Without indexes: what the server can take at all.
    let bare = client.database("bench").collection::<Document>("bare");
    println!("\nwrites: {COUNT} records a round, {AT_ONCE} runs at a time");
    let mut lines = Vec::new();
    for round in 0..ROUNDS {
        let all = || (0..COUNT).map(|n| record(n + round * COUNT, Utc::now()));
        let documents: Vec<Document> = all().map(|r| serialize_to_document(&r).unwrap()).collect();
        let begun = Instant::now();
        for part in documents.chunks(1_000) {
            bare.insert_many(part).ordered(false).await.unwrap();
        }
        let theirs = begun.elapsed();
        let begun = Instant::now();
        stream::iter(all()).for_each_concurrent(AT_ONCE, |end| one_run(&records, end)).await;
        let ours = begun.elapsed();
        lines.push((theirs.as_secs_f64() / ours.as_secs_f64(), theirs, ours));
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, theirs, ours) = lines[lines.len() / 2];
    let rate = |time: std::time::Duration| f64::from(COUNT) / time.as_secs_f64();
    println!("    bare insert_many             {:8.0} records a second", rate(theirs));
    println!(
        "    a run's start and its end    {:8.0} runs a second, {ratio:.2} of that",
        rate(ours)
    );
}

async fn one_run(records: &Records, end: RunRecord) {
    let start = RunRecord { outcome: Outcome::Running, end_time: None, ..end.clone() };
    write::started(records, &start).await.unwrap();
    write::finished(records, &end).await.unwrap();
}
