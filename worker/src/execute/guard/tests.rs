//! The worker's side, with a real process: this test program itself, asked for [`as_the_guard`].

use super::*;

const AS_THE_GUARD: &[&str] =
    &["--exact", "execute::guard::tests::as_the_guard", "--ignored", "--nocapture"];

/// A guard for other tests.
pub(crate) fn guard() -> Guard {
    Guard::start_as(AS_THE_GUARD)
}

#[test]
#[ignore = "the process that other tests start"]
fn as_the_guard() {
    serve().unwrap();
}

/// The guards that this process has started.
fn guards() -> Vec<i32> {
    let parent = std::process::id();
    let children = format!("/proc/{parent}/task");
    let tasks = std::fs::read_dir(children).unwrap().flatten();
    let children =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> = children
        .flat_map(|line| {
            line.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let is_guard = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "carillon-guard\n")
    };
    pids.into_iter().filter(is_guard).collect()
}

async fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask() {
                Some(answer) => return answer,
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(Duration::from_secs(10), asking).await.unwrap()
}

fn spec(run: RunId, grace: Duration) -> Spec {
    Spec { grace, ..Spec::new(run, &carillon_core::job::Job::default(), Vec::new()) }
}

/// Files for a keeper, and our end of its socket; where the output goes is none of these tests'.
fn files() -> ([OwnedFd; 3], std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let null = || OwnedFd::from(std::fs::File::create("/dev/null").unwrap());
    ([null(), null(), theirs.into()], ours)
}

// One test, because it looks for the guards of this process.
#[tokio::test]
async fn a_killed_guard_is_replaced_by_one_that_knows_every_run() {
    let guard = guard();
    let run = RunId::new(chrono::Utc::now());
    let (to_keep, _talk) = files();
    let turn = guard.turn().await.unwrap();
    guard.keeper(&spec(run, Duration::from_millis(100)), turn, to_keep).await.unwrap();
    let mut process = std::process::Command::new("/bin/sleep")
        .arg("600")
        .env("CARILLON_RUN", run.to_string())
        .spawn()
        .unwrap();

    let first = until(|| guards().pop()).await;
    let kill = nix::sys::signal::Signal::SIGKILL;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), kill).unwrap();
    until(|| guards().into_iter().find(|&pid| pid != first)).await;
    let other = RunId::new(chrono::Utc::now());
    let (to_keep, _talk) = files();
    let turn = guard.turn().await.unwrap();
    guard.keeper(&spec(other, Duration::ZERO), turn, to_keep).await.unwrap();
    guard.ended(other);
    assert_eq!(process.try_wait().unwrap(), None, "no guard ended it by going");

    drop(guard);
    let status = until(|| process.try_wait().unwrap()).await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    until(|| guards().is_empty().then_some(())).await;
}
