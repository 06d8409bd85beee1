//! `make demo` where there is no terminal: it shows a finished run, keeps to itself, and leaves
//! nothing behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use system_tests::faults::{self, Signal};

fn demo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--folder").arg(folder).stdin(Stdio::null());
    command
}

/// Starts a demo whose output is read until it says that it is ready.
fn ready(folder: &Path) -> anyhow::Result<(Child, impl BufRead)> {
    let mut child = demo(folder).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    while !line.contains("waiting for a first finished run") {
        line.clear();
        anyhow::ensure!(output.read_line(&mut line)? > 0, "it ended early");
    }
    Ok((child, output))
}

/// The command lines of running processes that name the folder.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&*folder))
        .collect()
}

#[test]
fn without_a_terminal_it_shows_a_finished_run_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();

    let output = demo(folder.path()).output().unwrap();

    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("starting etcd on 127.0.0.1:"), "{text}");
    let record = &text[text.find("{\n").unwrap()..=text.rfind('}').unwrap()];
    let record: Value = serde_json::from_str(record).unwrap();
    assert_eq!(record["outcome"], "succeeded");
    for field in ["jobName", "command", "err", "output", "startTime", "endTime"] {
        assert!(record[field].is_string(), "{field} in {record}");
    }
    assert_eq!(processes_in(folder.path()), [""; 0]);
}

#[test]
fn a_second_one_in_the_same_folder_is_refused_and_sigterm_ends_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _output) = ready(folder.path()).unwrap();

    let second = demo(folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let refusal = String::from_utf8(second.stderr).unwrap();
    assert!(refusal.contains(&format!("already running in {}", folder.path().display())));
    assert!(refusal.contains(&format!("kill {}", first.id())), "{refusal}");

    faults::signal(first.id(), Signal::TERM).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(143));
    assert_eq!(processes_in(folder.path()), [""; 0]);
}
