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

#[test]
fn who_knows_something_is_told_the_difference() {
    let terms = Terms { grace: Duration::from_secs(1), keep: false, keeper: None };
    let (a, b) = (RunId::FIRST, RunId::LAST);
    let (mut guard, mut known) = (Told::default(), Known::default());
    assert_eq!(guard.catch_up(&mut known), "");
    known.lease = Some(lease(1, 9));
    known.runs.insert(a, terms);
    known.tell_again();
    assert_eq!(guard.catch_up(&mut known), format!("lease 9000\nrun {a} 1000 kill\n"));
    known.tell_again();
    assert_eq!(guard.catch_up(&mut known), "");
    known.runs = BTreeMap::from([(b, terms)]);
    known.changed = BTreeSet::from([a, b]);
    assert_eq!(guard.catch_up(&mut known), format!("end {a}\nrun {b} 1000 kill\n"));
    known.runs.clear();
    known.changed = BTreeSet::from([a, b]);
    assert_eq!(guard.catch_up(&mut known), format!("end {b}\n"), "it has forgotten the other");
}

fn lease(id: i64, secs: u64) -> Lease {
    Lease { id, until: Duration::from_secs(secs) }
}

#[test]
fn a_start_may_wait_until_its_own_lease_or_its_deadline_is_over() {
    let until = |under, held| deadline(under, held, None).map(|until| until.as_secs());
    assert_eq!(until(None, Some(lease(1, 9))), None);
    assert_eq!(until(Some(1), Some(lease(1, 9))), Some(9));
    assert_eq!(until(Some(1), Some(lease(2, 12))), Some(0), "it may be settled as lost");
    assert_eq!(until(Some(1), None), Some(0));
    let start_by = |secs| Some(Duration::from_secs(secs));
    assert_eq!(deadline(Some(1), Some(lease(1, 9)), start_by(5)), start_by(5));
    assert_eq!(deadline(Some(1), Some(lease(1, 9)), start_by(15)), start_by(9));
    assert_eq!(deadline(None, None, start_by(5)), start_by(5));
}

#[test]
fn a_guard_learns_of_the_keeper_that_an_earlier_one_has_forked_off() {
    let terms = Terms { grace: Duration::ZERO, keep: false, keeper: None };
    let mut known = Known::default();
    let (ours, earlier) = (RunId::FIRST, RunId::LAST);
    known.runs = [ours, earlier].map(|run| (run, terms)).into();
    known.tell_again();
    let mut guard = Told::default();
    guard.catch_up(&mut known);
    guard.started(ours);
    for (run, keeper) in [(ours, 5), (earlier, 6)] {
        known.runs.insert(run, Terms { keeper: Some(keeper), ..terms });
    }
    known.tell_again();
    assert_eq!(guard.catch_up(&mut known), format!("run {earlier} 0 kill 6\n"));
    assert_eq!(guard.catch_up(&mut known), "");
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
