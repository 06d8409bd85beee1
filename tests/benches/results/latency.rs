//! How soon a piece of output is with its reader, from just before it is written.

use std::time::{Duration, Instant};

use carillon_core::id::{JobName, RunId};
use carillon_core::records::{Records, TailEvent};
use carillon_core::run::{Chunk, Outcome, RunRecord, Stream};
use chrono::Utc;
use system_tests::stack::Stack;
use system_tests::write;
use tokio::time::sleep;

use crate::bars::{Bars, Spread};

/// Pieces per way.
const PIECES: u64 = 200;
/// Between two pieces: not a multiple of how often a poll looks, so that all its phases are met.
const PAUSE: Duration = Duration::from_millis(137);

pub(crate) async fn run(stack: &Stack, bars: &mut Bars) {
    let records = Records::connect(&stack.mongo_uri(), "/latency").await.unwrap();
    println!("\noutput to its reader: {PIECES} pieces, one after the other");
    for (what, polling, bar) in [("by polling", true, 200.0), ("by change stream", false, 120.0)] {
        let times = one_way(&records, polling).await;
        println!("    {what:<28}       {}", times.millis());
        bars.at_most(&format!("output {what}, half of it"), times.percentile(50), bar, " ms");
    }
}

async fn one_way(records: &Records, polling: bool) -> Spread {
    let name = JobName::new("latency").unwrap();
    let now = Utc::now();
    let record = RunRecord::new(RunId::new(now), &name, Outcome::Running, now);
    let run = record.id;
    write::started(records, &record).await.unwrap();
    let tail = records.tail(run, 0);
    let mut tail = if polling { tail.by_polling() } else { tail };
    let begun = Instant::now();
    let reader = async {
        let mut times = Vec::new();
        loop {
            match tail.next().await.unwrap() {
                TailEvent::Output(chunks) => {
                    let read = begun.elapsed();
                    // Each says when it was written.
                    times.extend(chunks.iter().map(|chunk| {
                        let written: u64 = String::from_utf8_lossy(&chunk.data).parse().unwrap();
                        (read - Duration::from_micros(written)).as_secs_f64() * 1_000.0
                    }));
                }
                TailEvent::Ended(_) => return times,
            }
        }
    };
    let writer = async {
        // The tail is there first: it is not its opening that is measured.
        sleep(Duration::from_secs(1)).await;
        for seq in 0..PIECES {
            let data = begun.elapsed().as_micros().to_string().into_bytes();
            let chunk = Chunk { seq, at: Utc::now(), stream: Stream::Stdout, data };
            write::output(records, run, &[chunk]).await.unwrap();
            sleep(PAUSE).await;
        }
        write::finished(records, &record.clone().ended(Outcome::Succeeded, Utc::now(), ""))
            .await
            .unwrap();
    };
    let (times, ()) = tokio::join!(reader, writer);
    Spread::of(times)
}
