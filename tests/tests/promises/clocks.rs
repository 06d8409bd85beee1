//! Clocks are compared with MongoDB's.

use std::time::Duration;

use carillon_core::records::{Records, RecordsError};
use chrono::{TimeDelta, Utc};
use system_tests::stack::Stack;
use tokio::time::{Instant, timeout};

use crate::support::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_on_this_machine_has_our_clock() {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    for _ in 0..5 {
        let before = Utc::now();
        let offset = records.clock_offset(Utc::now).await.unwrap();
        // What it showed lies between question and answer, in whole milliseconds.
        let took = Utc::now() - before;
        assert!(offset.abs() <= took + TimeDelta::milliseconds(1), "{offset} apart, took {took}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_mongodb_does_not_hold_up_the_question() {
    let stack = Stack::start().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    records.clock_offset(Utc::now).await.unwrap();
    stack.pause_mongo().unwrap();
    let asked = Instant::now();
    let answer = timeout(PATIENCE, records.clock_offset(Utc::now)).await.expect("it is bounded");
    assert!(matches!(answer, Err(RecordsError::Unreachable { .. })), "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?}", asked.elapsed());
    stack.resume_mongo().unwrap();
}
