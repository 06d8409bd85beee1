//! The worker's spool against bare appends to a file, each group of them synced.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::programs;
use tempfile::TempDir;

use crate::bars::Spread;

const ENTRIES: usize = 20_000;
/// As large as the record of a run.
const BYTES: usize = 1_000;
/// What comes together, and is on the disk before the next.
const TOGETHER: [usize; 2] = [1, 50];
const ROUNDS: usize = 5;

pub(crate) fn run() {
    println!("\nspool: entries of {BYTES} bytes, {ROUNDS} rounds");
    for together in TOGETHER {
        let entries = ENTRIES.min(together * 1_000);
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            times[0].push(bare(entries, together).as_secs_f64());
            let told = spool(entries, together);
            times[1].push(told["appendSecs"].as_f64().unwrap());
            times[2].push(told["replaySecs"].as_f64().unwrap());
        }
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let count = entries as f64;
        let [bare, append, replay] = times.map(|times| count / Spread::of(times).percentile(50));
        println!("    {together:2} at a time    bare appends {bare:9.0}/s");
        println!("                    spooled      {append:9.0}/s, {:.2} of that", append / bare);
        println!("                    read again   {replay:9.0}/s, {:.2} of that", replay / bare);
    }
}

fn folder() -> TempDir {
    // Beside the build, on a disk rather than in memory.
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn bare(entries: usize, together: usize) -> Duration {
    let folder = folder();
    let options = OpenOptions::new().create(true).append(true).open(folder.path().join("bare"));
    let mut file = options.unwrap();
    let entry = [b'x'; BYTES];
    let begun = Instant::now();
    for n in 1..=entries {
        file.write_all(&entry).unwrap();
        if n.is_multiple_of(together) || n == entries {
            file.sync_data().unwrap();
        }
    }
    begun.elapsed()
}

fn spool(entries: usize, together: usize) -> Value {
    let folder = folder();
    let output = Command::new(programs::own("carillon-worker").unwrap())
        .arg("spool-trial")
        .arg(folder.path())
        .args(["--entries", &entries.to_string()])
        .args(["--bytes", &BYTES.to_string()])
        .args(["--together", &together.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "nothing but the reserve");
    serde_json::from_slice(&output.stdout).unwrap()
}
