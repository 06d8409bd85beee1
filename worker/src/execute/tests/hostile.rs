//! Runs that try to get away, and what is done to them from outside.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::cgroup::Cgroups;
use super::super::guard::Lease;
use super::super::launch::StartError;
use super::super::ledger;
use super::super::proc;
use super::super::process::Tree;
use super::*;
use crate::clock::since_boot;

fn is_running(pid: i32) -> bool {
    proc::read(&pid.to_string()).is_some_and(|stat| stat.runs)
}

/// The number on the first line of output.
async fn number(run: &mut Followed) -> i32 {
    run.until_output("\n").await;
    let text = String::from_utf8(run.bytes(None)).unwrap();
    text.lines().next().unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_double_fork_in_another_session_with_no_environment_is_killed_too() {
    let escape = "setsid env -i sh -c 'trap \"\" TERM; sleep 600 & echo $!'";
    let mut run = Followed::start(spec(&format!("{escape}; sleep 600")));
    let escaped = number(&mut run).await;
    assert!(is_running(escaped));
    run.kill("alice", None).await;
    let done = run.end().await;
    assert_eq!((done.outcome, done.killed_by.as_deref()), (Outcome::Killed, Some("alice")));
    assert!(!is_running(escaped));
    assert_gone(run.pid()).await;
}

#[tokio::test]
async fn a_shell_that_is_killed_from_outside_has_failed_by_that_signal() {
    let mut run = Followed::start(spec("echo up; sleep 600"));
    run.until_output("up").await;
    let shell = Pid::from_raw(run.pid());
    kill(shell, Signal::SIGKILL).unwrap();
    let done = run.end().await;
    assert_eq!((done.outcome, done.signal), (Outcome::Failed, Some(9)));
    assert_eq!((done.err.as_str(), done.ending_took), ("ended by signal 9 (SIGKILL)", None));
    nix::sys::signal::killpg(shell, Signal::SIGKILL).ok();
}

#[tokio::test]
async fn every_signal_that_ends_a_shell_is_named() {
    let executor = executor();
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGABRT,
        Signal::SIGUSR1,
        Signal::SIGSEGV,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        Signal::SIGALRM,
        Signal::SIGTERM,
        Signal::SIGXFSZ,
        Signal::SIGSYS,
    ] {
        let number = signal as i32;
        let command = format!("ulimit -c 0; kill -{number} $$; sleep 600");
        let done = Followed::start_by(&executor, spec(&command)).end().await;
        assert_eq!((done.outcome, done.signal), (Outcome::Failed, Some(number)), "{signal}");
        assert_eq!(done.err, format!("ended by signal {number} ({signal})"));
    }
}

#[tokio::test]
async fn a_run_whose_keeper_is_killed_is_lost_and_leaves_nothing() {
    let spec = spec("echo $PPID; setsid sleep 600 & sleep 600");
    let id = spec.run;
    let mut run = Followed::start(spec);
    let keeper = number(&mut run).await;
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    let done = run.end().await;
    assert_eq!(done.outcome, Outcome::Lost);
    assert!(
        done.err.starts_with("ended because the process that kept it was killed"),
        "{}",
        done.err
    );
    assert!(marker::scan().iter().all(|process| process.run != Some(id)));
}

#[tokio::test]
async fn a_run_survives_its_guard_and_the_next_has_another() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let wait = format!("echo $PPID; until [ -e {} ]; do sleep 0.02; done", go.display());
    let executor = executor();
    let mut run = Followed::start_by(&executor, spec(&wait));
    let keeper = number(&mut run).await;
    let guard = proc::read(&keeper.to_string()).unwrap().parent;
    kill(Pid::from_raw(guard), Signal::SIGKILL).unwrap();
    let next = Followed::start_by(&executor, spec("echo next")).end().await;
    // The one that was killed may have been asked for it.
    assert!(matches!(next.outcome, Outcome::Succeeded | Outcome::Lost), "{}", next.err);
    let next = Followed::start_by(&executor, spec("echo next")).end().await;
    assert_eq!(next.output, "next\n", "{}", next.err);
    fs::write(go, "").unwrap();
    assert_eq!(run.end().await.outcome, Outcome::Succeeded);
}

/// A guard that is stopped until this is dropped.
struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).ok();
    }
}

/// A run by this executor whose start hangs, until its guard may go on.
async fn hanging(executor: &Executor, spec: Spec) -> (Followed, Stopped) {
    let mut first = Followed::start_by(executor, super::spec("echo $PPID; sleep 600"));
    let keeper = number(&mut first).await;
    let guard = Stopped(Pid::from_raw(proc::read(&keeper.to_string()).unwrap().parent));
    kill(guard.0, Signal::SIGSTOP).unwrap();
    first.kill("alice", Some(Duration::ZERO)).await;
    first.end().await;
    let run = Followed::start_by(executor, spec);
    // It asks the guard meanwhile.
    tokio::time::sleep(Duration::from_millis(100)).await;
    (run, guard)
}

/// The same, when its start has hung until then, since boot.
async fn hanging_until(executor: &Executor, spec: Spec, then: Duration) -> (Followed, Stopped) {
    let hanging = hanging(executor, spec).await;
    tokio::time::sleep(then.saturating_sub(since_boot())).await;
    hanging
}

#[tokio::test]
async fn a_start_that_hangs_can_be_killed_and_starts_nothing_later() {
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let executor = executor();
    let spec = spec(&format!("touch {}", ran.display()));
    let (mut run, guard) = hanging(&executor, spec).await;
    run.kill("alice", None).await;
    let done = timeout(Duration::from_secs(10), run.end()).await.unwrap();
    assert_eq!((done.outcome, done.killed_by.as_deref()), (Outcome::Killed, Some("alice")));
    assert_eq!(done.err, "killed by alice before it started");
    drop(guard);
    let done = Followed::start_by(&executor, super::spec("echo next")).end().await;
    assert_eq!(done.output, "next\n", "{}", done.err);
    assert!(!ran.exists());
}

/// A run whose shell is stopped in its control group before its first instruction; nothing where no
/// group can be made.
fn frozen() -> Option<(Executor, Spec, PathBuf)> {
    let cgroups = Cgroups::find().inspect_err(|why| println!("skipped: {why}")).ok()?;
    let mut spec = spec("sleep 600");
    let group = cgroups.make(spec.run).unwrap();
    fs::write(group.join("cgroup.freeze"), "1").unwrap();
    spec.launch.cgroup = Some(group.clone());
    Some((executor().grouping(Some(cgroups)), spec, group))
}

#[tokio::test]
async fn nothing_is_left_of_a_start_that_hangs_half_way() {
    let Some((executor, spec, group)) = frozen() else { return };
    let run = spec.run;
    let starting = Tree::start(&executor.guard, &spec);
    timeout(Duration::from_millis(500), starting).await.unwrap_err();
    let keeper = executor.guard.keeper_of(run).unwrap();
    let all = marker::scan();
    let child = all.iter().find(|process| process.parent == keeper).unwrap().pid;
    executor.sweep(run).await;
    assert!(!is_running(keeper) && !is_running(child));
    assert!(!group.exists());
}

#[tokio::test]
async fn a_start_that_a_frozen_guard_comes_to_after_the_lease_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let executor = executor();
    let until = since_boot() + Duration::from_secs(2);
    executor.guard.hold(Lease { id: 1, until });
    let kept = Spec {
        keep_on_lease_loss: true,
        lease: Some(1),
        ..spec(&format!("touch {}", ran.display()))
    };
    let (mut run, guard) = hanging_until(&executor, kept, until).await;
    executor.guard.hold(Lease { id: 1, until: until + Duration::from_secs(60) });
    drop(guard);
    let done = run.end().await;
    assert_eq!(done.outcome, Outcome::Lost);
    assert_eq!(done.err, "the worker was no longer sure of its lease");
    assert!(!ran.exists());
}

#[tokio::test]
async fn a_start_that_comes_to_the_guard_after_its_deadline_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let executor = executor();
    let by = since_boot() + Duration::from_secs(1);
    let mut spec = spec(&format!("touch {}", ran.display()));
    spec.launch.start_by = Some(by);
    let (mut run, guard) = hanging_until(&executor, spec, by).await;
    drop(guard);
    let done = run.end().await;
    assert_eq!(done.outcome, Outcome::Missed);
    assert_eq!(done.err, "its start deadline passed after it was claimed");
    assert!(!ran.exists());
}

#[tokio::test]
async fn a_start_that_hangs_until_its_deadline_starts_nothing() {
    let Some((executor, mut spec, group)) = frozen() else { return };
    let by = since_boot() + Duration::from_secs(1);
    spec.launch.start_by = Some(by);
    let thaw = async {
        tokio::time::sleep(by.saturating_sub(since_boot())).await;
        let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert_eq!(inside.lines().count(), 1);
        fs::write(group.join("cgroup.freeze"), "0").unwrap();
    };
    let (started, ()) = tokio::join!(Tree::start(&executor.guard, &spec), thaw);
    assert!(matches!(started, Err(StartError::TooLate)));
    executor.sweep(spec.run).await;
    assert!(!group.exists());
}

#[tokio::test]
async fn a_start_under_another_lease_than_it_was_claimed_under_is_refused() {
    let executor = executor();
    executor.guard.hold(Lease { id: 2, until: since_boot() + Duration::from_secs(60) });
    let under = |lease| Spec { lease: Some(lease), ..spec("echo ran") };
    let done = Followed::start_by(&executor, under(2)).end().await;
    assert_eq!(done.output, "ran\n");
    let done = Followed::start_by(&executor, under(1)).end().await;
    assert_eq!((done.outcome, done.output.as_str()), (Outcome::Lost, ""));
}

#[tokio::test]
async fn a_start_that_hangs_is_timed_out() {
    let spec = Spec { timeout: Some(Duration::from_millis(100)), ..spec("sleep 600") };
    let executor = executor();
    let (mut run, _guard) = hanging(&executor, spec).await;
    let done = timeout(Duration::from_secs(10), run.end()).await.unwrap();
    assert_eq!(done.outcome, Outcome::TimedOut);
    assert_eq!(done.err, "timed out after 100 ms before it started");
}

#[tokio::test]
async fn what_an_earlier_life_has_left_is_ended_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, another) = (RunId::new(Utc::now()), RunId::new(Utc::now()));
    let start = |run: RunId| {
        let mut sleep = std::process::Command::new("/bin/sleep");
        sleep.arg("600").env("CARILLON_RUN", run.to_string()).spawn().unwrap()
    };
    let (mut left, mut other) = (start(ours), start(another));
    let live = folder.path().join(ledger::NAME);
    fs::write(&live, format!("{ours}\n")).unwrap();
    let executor = executor().keeping_ledger(folder.path());
    let over = async {
        while left.try_wait().unwrap().is_none()
            || !fs::read_to_string(&live).unwrap().trim().is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), over).await.unwrap();
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
    // A run stands there while it lives.
    let mut run = Followed::start_by(&executor, spec(&format!("cat {}", live.display())));
    let id = run.end().await.output;
    assert!(id.trim().parse::<RunId>().is_ok(), "{id}");
    assert_eq!(fs::read_to_string(live).unwrap().trim(), "");
}

#[tokio::test]
async fn a_control_group_holds_what_left_everything_else() {
    let cgroups = match Cgroups::find() {
        Ok(cgroups) => cgroups,
        Err(why) => return println!("skipped: {why}"),
    };
    let executor = executor().grouping(Some(cgroups.clone()));
    let inside = "cat /proc/self/cgroup; setsid env -i sh -c 'trap \"\" TERM; sleep 600 & wait' &";
    let spec = spec(&format!("{inside} echo up; wait"));
    let id = spec.run;
    let mut run = Followed::start_by(&executor, spec);
    run.until_output("up").await;
    let text = String::from_utf8(run.bytes(None)).unwrap();
    assert!(text.contains(&format!("carillon-run-{id}")), "{text}");
    assert!(!cgroups.processes(id).is_empty());
    run.kill("alice", Some(Duration::ZERO)).await;
    let done = run.end().await;
    assert!(done.err.starts_with("killed by alice (SIGKILL, gone after "), "{}", done.err);
    assert!(cgroups.processes(id).is_empty());
    assert_eq!(cgroups.used(id), None, "its group is removed");
    let done = Followed::start_by(&executor, super::spec("head -c 100000000 /dev/zero >/dev/null"));
    let done = { done }.end().await;
    assert!(done.cpu_millis > 0 && done.outcome == Outcome::Succeeded, "{done:?}");
}
