//! What a job may use: its limits, its user, its output.

use carillon_core::job::{Limits, Overflow};
use nix::unistd::geteuid;

use super::*;

#[tokio::test]
async fn umask_nice_and_limits_are_those_of_the_job() {
    let job = Job {
        command: "umask; nice; cat /proc/self/limits; ps -o sid= -p $$".into(),
        umask: Some("027".into()),
        nice: Some(19),
        ..Job::default()
    };
    let mut spec = Spec::new(RunId::new(Utc::now()), &job, Vec::new());
    spec.launch.limits = Limits {
        memory_bytes: Some(1 << 30),
        cpu_secs: Some(7),
        open_files: Some(20),
        processes: Some(5000),
        ..Limits::default()
    };
    let done = run(spec).await;
    let lines: Vec<Vec<&str>> =
        done.output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[0][0], lines[1][0]), ("0027", "19"), "{}", done.err);
    for line in [
        "Max address space 1073741824 1073741824 bytes",
        "Max cpu time 7 12 seconds",
        "Max open files 20 20 files",
        "Max processes 5000 5000 processes",
    ] {
        assert!(lines.iter().any(|l| l.join(" ") == line), "{line} in {}", done.output);
    }
}

#[tokio::test]
async fn processor_time_that_is_used_up_is_named() {
    let mut spec = spec("while :; do :; done");
    spec.launch.limits.cpu_secs = Some(1);
    let done = run(spec).await;
    let expected = "ended by signal 24 (SIGXCPU): it reached limits.cpuSecs of 1 s";
    assert_eq!((done.outcome, done.err.as_str()), (Outcome::Failed, expected));
    assert!(done.cpu_millis >= 900, "{}", done.cpu_millis);
}

#[tokio::test]
async fn memory_and_open_files_end_where_the_limits_are() {
    let mut hungry = spec("head -c 300000000 /dev/zero | tail -c 300000000 | wc -c; echo over");
    hungry.launch.limits.memory_bytes = Some(100 << 20);
    let done = run(hungry).await;
    // Which of the two streams is read first is not certain.
    assert!(done.output.contains("memory") && done.output.contains("over\n"), "{}", done.output);
    let mut many = spec("exec 3</dev/null; echo three; cat /etc/passwd | cat; echo cat");
    many.launch.limits.open_files = Some(4);
    let done = run(many).await;
    assert_eq!(done.outcome, Outcome::Failed);
    assert!(done.output.starts_with("three\n") && !done.output.contains("root"), "{}", done.output);
}

#[tokio::test]
async fn a_fork_storm_ends_at_the_limit_of_processes() {
    if !geteuid().is_root() {
        println!("skipped: only root becomes a user of whom nothing else runs");
        return;
    }
    let mut storm = spec("while :; do sleep 600 & done");
    storm.launch.user = Some("nobody".into());
    storm.launch.limits.processes = Some(20);
    let id = storm.run;
    let executor = executor();
    let done = Followed::start_by(&executor, storm).end().await;
    assert_eq!(done.outcome, Outcome::Failed, "{}", done.err);
    executor.sweep(id).await;
    assert!(marker::scan().iter().all(|process| process.run != Some(id)));
}

/// A user, other than root, that is a member of further groups.
fn user_with_groups() -> Option<(String, usize)> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let count = |user: &str| {
        let lists = groups.lines().filter_map(|line| line.rsplit(':').next());
        lists.filter(|list| list.split(',').any(|member| member == user)).count()
    };
    let names = users.lines().filter_map(|line| line.split(':').next());
    names.filter(|name| *name != "root").map(|n| (n.to_owned(), count(n))).find(|(_, n)| *n > 0)
}

#[tokio::test]
async fn a_run_has_all_groups_of_its_user() {
    let Some((user, further)) = user_with_groups().filter(|_| geteuid().is_root()) else {
        println!("skipped: not root, or no user here is in further groups");
        return;
    };
    let mut spec = spec("id -G");
    spec.launch.user = Some(user);
    let done = run(spec).await;
    assert!(done.output.split_whitespace().count() > further, "{} {}", done.output, done.err);
}

#[tokio::test]
async fn what_may_not_be_set_is_named() {
    let mut open = spec("true");
    open.launch.limits.open_files = Some(u64::MAX >> 1);
    let done = run(open).await;
    assert!(done.err.starts_with("limits.openFiles 9223372036854775807: "), "{}", done.err);
    assert_eq!(done.outcome, Outcome::Failed);
}

#[tokio::test]
async fn a_run_that_blocks_loses_nothing_however_slowly_it_is_read() {
    let job = Job {
        command: "head -c 20000000 /dev/zero; echo the end".into(),
        overflow: Overflow::Block,
        ..Job::default()
    };
    let mut run = Followed::start(Spec::new(RunId::new(Utc::now()), &job, Vec::new()));
    run.until(|e| matches!(e, Event::Output(_))).await;
    // As long as the flood takes that is not held up.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let done = run.end().await;
    assert!(!done.truncated && done.outcome == Outcome::Succeeded, "{}", done.err);
    assert_eq!(run.bytes(None).len(), 20_000_008);
}

#[tokio::test]
async fn a_run_may_open_as_many_files_as_the_worker_was_given_and_the_worker_more() {
    let hard = "ulimit -Hn";
    let done = Followed::start(spec(&format!("ulimit -Sn; {hard}"))).end().await;
    let limits: Vec<&str> = done.output.lines().collect();
    let [given, most] = limits[..] else { panic!("{}", done.output) };
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(own.current.map(|own| own.to_string()).as_deref(), Some(most));
    let before = super::super::guard::OPEN_FILES.get().unwrap().current;
    assert_eq!(before.map(|before| before.to_string()).as_deref(), Some(given));
}
