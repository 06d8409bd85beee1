//! The sample jobs of `make demo` are jobs.

use std::fs;

use carillon_core::job::Job;
use serde_json::Value;
use system_tests::{demo, programs};

#[test]
fn every_sample_job_is_valid_and_is_written_back_unchanged() {
    let text = fs::read(programs::root().join(demo::JOBS)).unwrap();
    let Value::Array(jobs) = serde_json::from_slice(&text).unwrap() else {
        panic!("the sample jobs are not an array");
    };
    assert!(jobs.len() >= 10);
    for value in jobs {
        let job = Job::from_value(value.clone()).unwrap();
        assert!(job.check().is_ok(), "{}: {}", job.name, job.check().unwrap_err());
        assert!(job.extra.is_empty(), "{}: {:?}", job.name, job.extra);
        assert_eq!(serde_json::from_str::<Value>(&job.to_json()).unwrap(), value);
    }
}
