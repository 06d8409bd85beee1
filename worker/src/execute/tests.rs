//! One run, with real processes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use carillon_core::id::RunId;
use carillon_core::job::Job;
use carillon_core::run::{Outcome, Stream};
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::marker;
use super::usage::{Census, Groups};
use super::{Event, Executor, Finished, Order, Spec};

mod hostile;
mod limits;

const MIB: u64 = 1 << 20;

fn spec(command: &str) -> Spec {
    let job = Job {
        command: command.into(),
        kill_grace_secs: 5,
        cwd: Some("/".into()),
        ..Job::default()
    };
    let run = RunId::new(Utc::now());
    Spec::new(run, &job, vec![("CARILLON_RUN".to_owned(), run.to_string())])
}

/// One whose guard is a process of this test program.
fn executor() -> Executor {
    Executor::new(super::guard::tests::guard())
}

/// A run that is followed from outside.
struct Followed {
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<Event>,
    run: JoinHandle<Finished>,
    seen: Vec<Event>,
}

impl Followed {
    fn start(spec: Spec) -> Self {
        Self::start_by(&executor(), spec)
    }

    /// By an executor whose guard lives as long as the executor.
    fn start_by(executor: &Executor, spec: Spec) -> Self {
        let (orders, ordered) = mpsc::channel(4);
        let (sender, events) = mpsc::channel(4);
        let executor = executor.clone();
        let run = tokio::spawn(async move { executor.run(spec, ordered, sender).await });
        Self { orders, events, run, seen: Vec::new() }
    }

    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
        loop {
            let event = self.events.recv().await.unwrap();
            self.seen.push(event.clone());
            if wanted(&event) {
                return;
            }
        }
    }

    async fn until_output(&mut self, text: &str) {
        loop {
            self.until(|e| matches!(e, Event::Output(_))).await;
            if String::from_utf8_lossy(&self.bytes(None)).contains(text) {
                return;
            }
        }
    }

    fn pid(&self) -> i32 {
        let pid = self.seen.iter().find_map(|e| match e {
            Event::Started { pid, .. } => i32::try_from(*pid).ok(),
            _ => None,
        });
        pid.unwrap()
    }

    async fn kill(&self, by: &str, grace: Option<Duration>) {
        let order = Order::Kill { grace, by: by.into() };
        self.orders.send(order).await.unwrap();
    }

    async fn end(&mut self) -> Finished {
        while let Some(event) = self.events.recv().await {
            self.seen.push(event);
        }
        let finished = (&mut self.run).await.unwrap();
        self.seen.push(Event::Output(finished.rest.clone()));
        let chunks = self.seen.iter().filter_map(|e| match e {
            Event::Output(chunks) => Some(chunks),
            _ => None,
        });
        for (n, chunk) in chunks.flatten().enumerate() {
            assert_eq!(chunk.seq, n as u64);
            assert!(!chunk.data.is_empty() && chunk.data.len() <= 64 * 1024);
        }
        finished
    }

    fn bytes(&self, stream: Option<Stream>) -> Vec<u8> {
        let mut all = Vec::new();
        for event in &self.seen {
            if let Event::Output(chunks) = event {
                let wanted = chunks.iter().filter(|c| stream.is_none_or(|s| s == c.stream));
                all.extend(wanted.flat_map(|c| c.data.clone()));
            }
        }
        all
    }
}

async fn run(spec: Spec) -> Finished {
    Followed::start(spec).end().await
}

async fn assert_gone(group: i32) {
    let groups = Census::default().after(Instant::now()).await;
    // Orphans that init has not reaped yet are no processes any more.
    let alive = groups.get(&group).map(|g| g.alive.clone());
    assert_eq!(alive.unwrap_or_default(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_success_says_nothing() {
    let done = run(spec("echo hello")).await;
    assert_eq!((done.outcome, done.err.as_str()), (Outcome::Succeeded, ""));
    assert_eq!((done.exit_code, done.signal), (Some(0), None));
    assert_eq!((done.output.as_str(), done.output_bytes), ("hello\n", 6));
    assert!(!done.truncated && done.started <= done.ended);
}

#[tokio::test]
async fn the_shortest_run_still_says_that_it_started() {
    let mut run = Followed::start(spec("true"));
    run.end().await;
    assert!(matches!(run.seen.first(), Some(Event::Started { .. })));
}

#[tokio::test]
async fn nothing_is_waited_for_once_shell_and_output_have_ended() {
    let executor = executor();
    Followed::start_by(&executor, spec("true")).end().await;
    let begin = Instant::now();
    for _ in 0..20 {
        Followed::start_by(&executor, spec("true")).end().await;
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn failures_name_the_code_or_the_signal() {
    let done = run(spec("exit 3")).await;
    assert_eq!((done.outcome, done.err.as_str()), (Outcome::Failed, "exit code 3"));
    assert_eq!(done.exit_code, Some(3));
    let done = run(spec("kill -SEGV $$")).await;
    assert_eq!(done.err, "ended by signal 11 (SIGSEGV)");
    assert_eq!((done.outcome, done.exit_code, done.signal), (Outcome::Failed, None, Some(11)));
}

#[tokio::test]
async fn both_streams_pass_as_bytes() {
    let mut run = Followed::start(spec(r"printf 'a\377\033[2J\0b'; printf 'e\200' >&2"));
    let done = run.end().await;
    assert_eq!(run.bytes(Some(Stream::Stdout)), b"a\xff\x1b[2J\0b");
    assert_eq!(run.bytes(Some(Stream::Stderr)), b"e\x80");
    assert_eq!(done.output_bytes, 10);
    assert!(done.output.contains("a\u{fffd}\u{1b}[2J\0b"));
}

#[tokio::test]
async fn the_environment_is_clean_and_has_the_runs_variables() {
    let mut spec = spec("pwd; env; cat");
    spec.launch.cwd = Some("/usr".into());
    spec.launch.env.insert("TEAM".into(), "每日".into());
    spec.launch.vars = vec![("CARILLON_JOB".into(), "settle".into())];
    let done = run(spec).await;
    assert_eq!(done.outcome, Outcome::Succeeded, "{}", done.err);
    let lines: Vec<&str> = done.output.lines().collect();
    assert_eq!(lines[0], "/usr");
    for line in ["CARILLON_JOB=settle", "TEAM=每日", "SHELL=/bin/sh", "LANG=C.UTF-8"] {
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
    assert!(!done.output.contains("CARGO"), "{}", done.output);
}

#[tokio::test]
async fn root_becomes_another_user_and_nobody_else_does() {
    let mut spec = spec("id -un; id -G; echo $USER $HOME");
    if nix::unistd::geteuid().is_root() {
        spec.launch.user = Some("nobody".into());
        let done = run(spec).await;
        assert_eq!(done.output, "nobody\n65534\nnobody /nonexistent\n", "{}", done.err);
    } else {
        spec.launch.user = Some("root".into());
        let expected = "may not switch to user \"root\": the worker does not run as root";
        assert_eq!(run(spec).await.err, expected);
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("shell");
    fs::write(&script, "#!/nosuch\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, executable).unwrap();
    let script = script.to_str().unwrap().to_owned();

    type Change<'a> = Box<dyn Fn(&mut Spec) + 'a>;
    let shell = |path: &str| -> Change<'_> {
        let path = path.to_owned();
        Box::new(move |s| s.launch.shell.clone_from(&path))
    };
    let cwd =
        |path: &'static str| -> Change<'_> { Box::new(move |s| s.launch.cwd = Some(path.into())) };
    let cases: [(Change<'_>, String); 7] = [
        (shell("/bin/nosuch"), "/bin/nosuch: no such file".into()),
        (shell("/etc/passwd"), "/etc/passwd: not an executable file".into()),
        (shell(&script), format!("{script}: its interpreter is missing")),
        (
            Box::new(|s| s.launch.user = Some("bob-nosuch".into())),
            "no user \"bob-nosuch\" on this worker".into(),
        ),
        (cwd("/nosuch"), "working directory /nosuch: no such directory".into()),
        (cwd("/etc/passwd"), "working directory /etc/passwd: not a directory".into()),
        (
            Box::new(|s| s.launch.command = "x".repeat(200_000)),
            "the command is 200000 bytes long".into(),
        ),
    ];
    for (change, expected) in cases {
        let mut spec = spec("true");
        change(&mut spec);
        let done = run(spec).await;
        assert!(done.err.starts_with(&expected), "{} / {expected}", done.err);
        assert_eq!((done.outcome, done.exit_code), (Outcome::Failed, None));
    }
}

#[tokio::test]
async fn a_held_pipe_does_not_hold_the_run() {
    let begin = Instant::now();
    let mut run = Followed::start(spec("echo done; sleep 8 & echo $! >&2"));
    let done = run.end().await;
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(
        (done.outcome, run.bytes(Some(Stream::Stdout))),
        (Outcome::Succeeded, b"done\n".to_vec())
    );
    // The child in the background was left alone.
    let child = String::from_utf8(run.bytes(Some(Stream::Stderr))).unwrap();
    let child = nix::unistd::Pid::from_raw(child.trim().parse().unwrap());
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_time_out_ends_the_whole_group() {
    let mut spec = spec("sleep 60 & sleep 60 | cat; wait");
    spec.timeout = Some(Duration::from_millis(300));
    let mut run = Followed::start(spec);
    let done = run.end().await;
    assert!(done.err.starts_with("timed out after 300 ms (SIGTERM, gone after "), "{}", done.err);
    assert_eq!(done.outcome, Outcome::TimedOut);
    assert_eq!((done.signal, done.killed_by), (Some(15), None));
    assert_gone(run.pid()).await;
}

#[tokio::test]
async fn a_killed_run_has_no_process_in_another_session_either() {
    let spec = spec("setsid sleep 60 & echo up; wait");
    let id = spec.run;
    let strays = || marker::scan().into_iter().filter(|p| p.run == Some(id)).count();
    let mut run = Followed::start(spec);
    run.until_output("up").await;
    while strays() < 2 {
        tokio::task::yield_now().await;
    }
    run.kill("alice", None).await;
    let done = run.end().await;
    assert!(done.err.starts_with("killed by alice (SIGTERM, gone after "), "{}", done.err);
    assert_eq!(strays(), 0);
}

#[tokio::test]
async fn a_run_that_ended_by_itself_leaves_other_sessions_alone() {
    let spec = spec("setsid sleep 60 & sleep 0.1");
    let id = spec.run;
    assert_eq!(run(spec).await.outcome, Outcome::Succeeded);
    let strays = marker::scan().into_iter().filter(|p| p.run == Some(id));
    let strays: Vec<_> = strays.collect();
    assert_eq!(strays.len(), 1);
    strays[0].signal(rustix::process::Signal::KILL);
}

#[tokio::test]
async fn a_kill_that_is_obeyed_needs_no_second_signal() {
    let mut run = Followed::start(spec(
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    ));
    run.until_output("up").await;
    run.kill("alice", None).await;
    let done = run.end().await;
    assert!(done.err.starts_with("killed by alice (SIGTERM, gone after "), "{}", done.err);
    assert!(done.outcome == Outcome::Killed && done.ending_took < Some(Duration::from_secs(5)));
    assert_eq!((done.exit_code, done.killed_by.as_deref()), (Some(0), Some("alice")));
    assert_eq!(run.bytes(Some(Stream::Stdout)), b"up\nbye\n");
    assert!(!run.seen.iter().any(|e| matches!(e, Event::Killed)));
    assert_gone(run.pid()).await;
}

#[tokio::test]
async fn a_kill_that_is_ignored_becomes_final() {
    let mut run = Followed::start(spec("trap '' TERM; echo up; sleep 60 & sleep 60"));
    run.until_output("up").await;
    run.kill("alice", Some(Duration::from_millis(200))).await;
    run.until(|e| matches!(e, Event::Received)).await;
    run.until(|e| matches!(e, Event::Terminated)).await;
    run.until(|e| matches!(e, Event::Killed)).await;
    let done = run.end().await;
    assert!(done.err.starts_with("killed by alice (SIGKILL after "), "{}", done.err);
    assert_eq!((done.outcome, done.signal), (Outcome::Killed, Some(9)));
    assert_gone(run.pid()).await;
}

#[tokio::test]
async fn a_child_that_outlives_the_killed_shell_is_killed_too() {
    let mut run = Followed::start(spec(
        "sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.05; done' & wait",
    ));
    run.until_output("up").await;
    run.kill("alice", Some(Duration::from_millis(300))).await;
    let done = run.end().await;
    assert!(done.err.starts_with("killed by alice (SIGKILL after "), "{}", done.err);
    assert_eq!(done.signal, Some(15), "the shell itself obeyed");
    assert_gone(run.pid()).await;
}

#[tokio::test]
async fn a_second_kill_shortens_the_grace() {
    let mut slow = spec("trap '' TERM; echo up; sleep 60");
    slow.grace = Duration::from_secs(600);
    let mut run = Followed::start(slow);
    run.until_output("up").await;
    run.kill("alice", None).await;
    run.until(|e| matches!(e, Event::Terminated)).await;
    run.kill("bob", Some(Duration::ZERO)).await;
    let done = timeout(Duration::from_secs(5), run.end()).await.unwrap();
    assert!(done.err.starts_with("killed by alice (SIGKILL after "), "{}", done.err);
    assert_gone(run.pid()).await;
}

#[tokio::test]
async fn without_grace_there_is_no_sigterm() {
    let mut run = Followed::start(spec("sleep 60"));
    run.kill("alice", Some(Duration::ZERO)).await;
    let done = run.end().await;
    assert_eq!(done.outcome, Outcome::Killed);
    assert!(!run.seen.iter().any(|e| matches!(e, Event::Terminated)));
}

#[tokio::test]
async fn a_kill_before_the_start_starts_nothing() {
    let (orders, ordered) = mpsc::channel(1);
    let (events, mut seen) = mpsc::channel(1);
    let reason = "worker w1 is stopping".to_owned();
    orders.send(Order::Abandon { reason }).await.unwrap();
    let done = executor().run(spec("echo no"), ordered, events).await;
    assert_eq!(done.outcome, Outcome::Killed);
    assert_eq!(done.err, "ended because worker w1 is stopping before it started");
    assert!(seen.recv().await.is_none());
}

#[tokio::test]
async fn a_dropped_run_is_killed() {
    let mut run = Followed::start(spec("sleep 60 & echo up; wait"));
    run.until_output("up").await;
    let group = run.pid();
    run.run.abort();
    let census = Census::default();
    let gone = async {
        let alive = |g: Arc<Groups>| g.get(&group).is_some_and(|g| !g.alive.is_empty());
        while alive(census.after(Instant::now()).await) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_run_that_is_swept() {
    let spec = spec("setsid sleep 60 & sleep 60 & echo up; wait");
    let id = spec.run;
    let mut run = Followed::start(spec);
    run.until_output("up").await;
    run.run.abort();
    timeout(Duration::from_secs(5), executor().sweep(id)).await.unwrap();
    assert!(marker::scan().iter().all(|process| process.run != Some(id)));
}

#[tokio::test]
async fn a_flood_keeps_its_head_and_its_tail() {
    let mut spec = spec("yes carillon | head -c 50000000; echo; echo the end");
    spec.output_limit = 8 * MIB;
    let mut run = Followed::start(spec);
    let done = run.end().await;
    let bytes = run.bytes(None);
    assert_eq!(done.output_bytes, 50_000_009);
    assert!(done.truncated && bytes.len() as u64 <= 8 * MIB + 200, "{}", bytes.len());
    assert!(bytes.starts_with(b"carillon\n") && bytes.ends_with(b"\nthe end\n"));
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("bytes dropped …]\n"));
    assert!(done.output.starts_with("carillon\n") && done.output.ends_with("\nthe end\n"));
    assert!(done.output.len() < 70_000 && done.cpu_millis > 0);
}

#[tokio::test]
async fn ten_megabytes_without_a_newline_are_whole() {
    let mut spec = spec("head -c 10000000 /dev/zero | tr '\\0' x");
    // On a busy machine this test itself is a slow receiver.
    spec.blocks = true;
    let mut run = Followed::start(spec);
    let done = run.end().await;
    let bytes = run.bytes(None);
    assert!(!done.truncated, "{}", bytes.len());
    assert!(bytes.len() == 10_000_000 && bytes.iter().all(|b| *b == b'x'));
}

#[tokio::test]
async fn a_run_ends_though_nobody_reads_its_events() {
    let (_orders, ordered) = mpsc::channel(1);
    let (events, _unread) = mpsc::channel(1);
    let spec = spec("head -c 30000000 /dev/zero; echo the end");
    let done = executor().run(spec, ordered, events).await;
    assert_eq!((done.outcome, done.output_bytes), (Outcome::Succeeded, 30_000_008));
    let kept: usize = done.rest.iter().map(|c| c.data.len()).sum();
    assert!(done.truncated && kept < 5 << 20, "{kept}");
    assert!(done.output.ends_with("the end\n"));
}

#[tokio::test]
async fn progress_tells_of_what_changes() {
    let mut run = Followed::start(spec("echo working; while :; do :; done"));
    run.until(|e| matches!(e, Event::Progress(_))).await;
    let Some(Event::Progress(progress)) = run.seen.last() else { unreachable!("just seen") };
    assert_eq!((progress.last_line.as_str(), progress.output_bytes), ("working", 8));
    assert!(progress.cpu_millis > 100 && progress.max_rss_bytes > 100_000, "{progress:?}");
    run.kill("alice", None).await;
    let done = run.end().await;
    assert!(done.cpu_millis > 100 && done.max_rss_bytes >= 100_000, "{done:?}");
}
