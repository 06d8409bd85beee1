//! A worker tells Prometheus what it does, where it is asked to.

use std::io::{Read, Write};
use std::net::TcpStream;

use system_tests::fleet::{Fleet, Options};
use system_tests::process::Spec;
use system_tests::programs;
use system_tests::stack::Stack;
use tempfile::TempDir;

use crate::support::{PATIENCE, eventually};

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_metrics_where_it_is_told_to() {
    let stack = Stack::shared().await.unwrap();
    let arguments = ["--metrics-addr", "127.0.0.1:0"].map(str::to_owned).to_vec();
    let options = Options { arguments, ..Default::default() };
    let fleet = Fleet::start_with(&stack, 1, options).await.unwrap();
    let address = eventually("the address in the log", || async {
        let log = std::fs::read_to_string(fleet.log("w1")).unwrap();
        let (_, rest) = log.split_once("metrics on http://")?;
        rest.split_once("/metrics").map(|(address, _)| address.to_owned())
    })
    .await;
    let answer = get(&address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\ncarillon_worker_running{worker=\"w1\"} 0\n"), "{answer}");

    // A second one on the same address says so instead of starting.
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let spec = Spec::new(&programs::own("carillon-worker").unwrap())
        .args(["--etcd", &stack.etcd_url(), "--mongo", &stack.mongo_uri()])
        .args(["--prefix", &stack.fresh_prefix(), "--metrics-addr", &address])
        .arg("--state-dir")
        .arg(folder.path());
    let mut process = spec.spawn(&log).unwrap();
    let status = process.exited_within(PATIENCE).await.unwrap().expect("it ends");
    assert_eq!(status.code(), Some(1));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains(&format!("cannot serve metrics on {address} ")), "{said}");
}
