//! What is told, to whom, and that it is told once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_core::id::{JobName, RunId};
use carillon_core::notice::{Call, Event};
use carillon_core::notify::signature::SigningKey;
use carillon_core::records::Records;
use carillon_core::run::{Outcome, RunRecord};
use chrono::{TimeDelta, Utc};
use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use system_tests::certificates::Certificates;
use system_tests::fleet::{Fleet, Options, WorkerOptions};
use system_tests::programs;
use system_tests::receiver::{Receiver, Reply, Request};
use system_tests::stack::Stack;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::{PATIENCE, Scene, eventually};

const NEVER: &str = "0 0 1 1 *";
/// Nobody may see any of these.
const SECRET: &str = "opens-the-pager";
const TOKEN: &str = "bearer-of-news";
const PATH: &str = "hook-of-nobody-else";

fn job(name: &str, command: &str, further: &str) -> String {
    format!(r#"{{"name":"{name}","command":"{command}","cronExpr":"{NEVER}"{further}}}"#)
}

/// A file with the targets, each on its port.
fn targets(folder: &Path, ports: &[(&str, u16)]) -> PathBuf {
    let secret = folder.join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let mut text = String::new();
    for (name, port) in ports {
        text.push_str(&format!(
            "[targets.{name}]\nurl = \"http://127.0.0.1:{port}/{PATH}\"\nsecret_file = \"{}\"\n\
             headers = {{ Authorization = \"{TOKEN}\" }}\n",
            secret.display()
        ));
    }
    let file = folder.join("notify.toml");
    fs::write(&file, text).unwrap();
    for file in [&secret, &file] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    file
}

fn arguments(file: &Path) -> Vec<String> {
    vec!["--notify-file".to_owned(), file.display().to_string()]
}

/// Workers that all know these targets.
async fn fleet(workers: usize, ports: &[(&str, u16)], further: &[&str]) -> (Scene, TempDir) {
    let folder = TempDir::new().unwrap();
    let mut all = arguments(&targets(folder.path(), ports));
    all.extend(further.iter().map(|&argument| argument.to_owned()));
    let stack = Stack::shared().await.unwrap();
    let options = Options { arguments: all, ..Options::default() };
    let fleet = Fleet::start_with(&stack, workers, options).await.unwrap();
    (Scene::of(stack, fleet).await, folder)
}

/// Which event of which job, by what it is told under.
fn told(request: &Request) -> (String, String) {
    let body = request.json();
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    assert_eq!(request.header("webhook-id"), text("id"));
    assert_eq!(request.header("idempotency-key"), text("id"));
    assert_eq!(text("id"), format!("{}:{}", text("run"), text("event")));
    (text("job"), text("event"))
}

fn is_signed(request: &Request) {
    let seconds: i64 = request.header("webhook-timestamp").parse().unwrap();
    assert!((Utc::now().timestamp() - seconds).abs() < 60);
    let key = SigningKey::read(SECRET).unwrap();
    let signature = key.sign(request.header("webhook-id"), seconds, request.body.as_bytes());
    assert_eq!(request.header("webhook-signature"), signature);
    assert_eq!(request.header("authorization"), TOKEN);
    assert_eq!(request.line, format!("POST /{PATH} HTTP/1.1"));
}

/// Everything in MongoDB and etcd, and all that the workers said or were started with.
async fn everything(scene: &Scene) -> String {
    let mut all = scene.stack.etcdctl(&["get", "--prefix", "/"]).unwrap();
    let database = scene.stack.mongo().await.unwrap().database("cron");
    for name in ["log", "output", "outbox", "changes"] {
        let found = database.collection::<Document>(name).find(doc! {}).await.unwrap();
        let documents: Vec<Document> = found.try_collect().await.unwrap();
        all.push_str(&format!("{documents:?}"));
    }
    for id in scene.fleet.ids() {
        all.push_str(&fs::read_to_string(scene.fleet.log(id)).unwrap());
        let pid = scene.fleet.worker(id).unwrap().pid();
        all.push_str(&fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap());
    }
    all
}

/// What a record calls for, to these targets, and no recovery.
fn call(event: Event, to: &[&str]) -> Call {
    let to = to.iter().map(|&to| to.to_owned()).collect();
    Call { event, to, recovery: false, on_worker: None, pending: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_and_the_recovery_from_it_are_told_once_by_three_workers() {
    let receiver = Receiver::start().await.unwrap();
    let (scene, _folder) = fleet(3, &[("pager", receiver.port())], &[]).await;
    let file = scene.file("mended");
    let notify = r#","notify":{"on":["failure","recovery"],"to":["pager"]},"retries":{"max":1,"delaySecs":0}"#;
    scene.put("shaky", &job("shaky", &format!("test -e {}", file.display()), notify));
    // A success from before, and one after which nothing is told.
    fs::write(&file, "").unwrap();
    scene.carillon_ok(&["run", "shaky"]);
    scene.record("shaky", |r| r.outcome == Outcome::Succeeded).await;
    fs::remove_file(&file).unwrap();

    scene.carillon(&["run", "shaky"]);
    let requests = receiver.received(1).await.unwrap();
    assert_eq!(told(&requests[0]), ("shaky".to_owned(), "failure".to_owned()));
    is_signed(&requests[0]);
    let body = requests[0].json();
    assert_eq!((body["attempt"].as_u64(), body["exitCode"].as_i64()), (Some(2), Some(1)));
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("shaky failed on w") && text.contains("(attempt 2)"), "{text}");

    fs::write(&file, "").unwrap();
    scene.carillon_ok(&["run", "shaky"]);
    let requests = receiver.received(2).await.unwrap();
    assert_eq!(told(&requests[1]), ("shaky".to_owned(), "recovery".to_owned()));
    is_signed(&requests[1]);

    // Had anything else been told of it, it would have come before this.
    scene.carillon_ok(&["run", "shaky"]);
    scene.put("other", &job("other", "exit 7", r#","notify":{"on":["failure"],"to":["pager"]}"#));
    scene.carillon(&["run", "other"]);
    let requests = receiver.received(3).await.unwrap();
    assert_eq!(told(&requests[2]), ("other".to_owned(), "failure".to_owned()));
    eventually("nothing that is still to be told", || async {
        (scene.records.pending().await.ok()? == 0).then_some(())
    })
    .await;
    assert_eq!(receiver.requests().len(), 3);

    let all = everything(&scene).await;
    for secret in [SECRET, TOKEN, PATH] {
        assert!(!all.contains(secret), "{secret} can be read");
    }
    assert!(all.contains("told of the recovery"), "the logs were looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_does_not_take_is_told_again_under_the_same_id() {
    // The port of one that is gone.
    let port = Receiver::start().await.unwrap().port();
    let (scene, _folder) = fleet(2, &[("pager", port)], &[]).await;
    scene.put("down", &job("down", "exit 3", r#","notify":{"on":["failure"],"to":["pager"]}"#));
    scene.carillon(&["run", "down"]);
    eventually("a try in the log", || async {
        let says = |id| fs::read_to_string(scene.fleet.log(id)).unwrap();
        let logs = says("w1") + &says("w2");
        logs.contains("is not told yet, trying again: cannot connect to 127.0.0.1").then_some(())
    })
    .await;
    let receiver = Receiver::on(port).await.unwrap();
    let elsewhere = Receiver::start().await.unwrap();
    let location = format!("location: http://127.0.0.1:{}/", elsewhere.port());
    receiver.reply([Reply::Status(500, String::new()), Reply::Status(307, location)]);
    let requests = receiver.received(3).await.unwrap();
    for request in &requests {
        assert_eq!(told(request), told(&requests[0]));
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
        is_signed(request);
    }
    assert_eq!(elsewhere.requests(), [], "a redirect is not followed");
    eventually("the mark", || async { (scene.records.pending().await.ok()? == 0).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_holds_up_neither_others_nor_the_end_of_a_worker() {
    let (slow, quick) = (Receiver::start().await.unwrap(), Receiver::start().await.unwrap());
    slow.reply(vec![Reply::Hang; 100]);
    let (mut scene, _folder) =
        fleet(1, &[("slow", slow.port()), ("quick", quick.port())], &[]).await;
    let notify = r#","notify":{"on":["failure"],"to":["slow","quick"]},"concurrency":"allow""#;
    scene.put("both", &job("both", "exit 3", notify));
    for _ in 0..6 {
        scene.carillon(&["run", "both"]);
    }
    quick.received(6).await.unwrap();
    let waiting = slow.received(4).await.unwrap();
    assert_eq!(waiting.len(), 4, "no more than four at once");
    let begun = Instant::now();
    scene.fleet.stop_all(Duration::from_secs(20)).await.unwrap();
    // Two for handing over, three for the last messages.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_that_dies_did_not_tell_is_told_by_another() {
    let receiver = Receiver::start().await.unwrap();
    let (mut scene, _folder) = fleet(0, &[("pager", receiver.port())], &[]).await;
    let dying = ["--fault", "due"].map(str::to_owned).to_vec();
    let options = WorkerOptions { arguments: dying, ..WorkerOptions::default() };
    scene.fleet.add_with("w1", &options).await.unwrap();
    scene.put("orphan", &job("orphan", "exit 3", r#","notify":{"on":["failure"],"to":["pager"]}"#));
    scene.carillon(&["run", "orphan"]);
    scene.fleet.ended("w1", PATIENCE).await.unwrap();
    assert_eq!(scene.finished("orphan").await.outcome, Outcome::Failed);
    assert_eq!(receiver.requests(), []);

    scene.fleet.add("w2").await.unwrap();
    let requests = receiver.received(1).await.unwrap();
    assert_eq!(told(&requests[0]), ("orphan".to_owned(), "failure".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_knows_the_target_tells_what_another_ran() {
    let receiver = Receiver::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let file = targets(folder.path(), &[("pager", receiver.port())]);
    let stack = Stack::shared().await.unwrap();
    let mut fleet = Fleet::start(&stack, 0).await.unwrap();
    let label = ["--label", "role=runs"].map(str::to_owned).to_vec();
    let runs = WorkerOptions { arguments: label, ..WorkerOptions::default() };
    fleet.add_with("runs", &runs).await.unwrap();
    let tells = WorkerOptions { arguments: arguments(&file), ..WorkerOptions::default() };
    fleet.add_with("tells", &tells).await.unwrap();
    let scene = Scene::of(stack, fleet).await;
    let further =
        r#","selector":{"role":"runs"},"notify":{"on":["failure"],"to":["pager","nobody"]}"#;
    scene.put("far", &job("far", "exit 3", further));
    scene.carillon(&["run", "far"]);
    let requests = receiver.received(1).await.unwrap();
    assert_eq!(told(&requests[0]), ("far".to_owned(), "failure".to_owned()));
    assert_eq!(requests[0].json()["worker"], "runs");
    eventually("only nobody's message to wait", || async {
        (scene.records.pending().await.ok()? == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_long_is_told_once_while_it_runs() {
    let receiver = Receiver::start().await.unwrap();
    let (scene, _folder) = fleet(2, &[("pager", receiver.port())], &[]).await;
    let further = r#","notify":{"runningAfterSecs":1,"to":["pager"]}"#;
    let file = scene.file("enough");
    let command = format!("until test -e {}; do sleep 0.1; done", file.display());
    scene.put("slow", &job("slow", &command, further));
    scene.carillon_ok(&["run", "slow"]);
    let requests = receiver.received(1).await.unwrap();
    assert_eq!(told(&requests[0]), ("slow".to_owned(), "running".to_owned()));
    let body = requests[0].json();
    assert_eq!(body["outcome"], "running");
    assert!(body["text"].as_str().unwrap().starts_with("slow is still running on w"), "{body}");
    fs::write(&file, "").unwrap();
    assert_eq!(scene.finished("slow").await.outcome, Outcome::Succeeded);
    scene.put("last", &job("last", "exit 3", r#","notify":{"on":["failure"],"to":["pager"]}"#));
    scene.carillon(&["run", "last"]);
    let requests = receiver.received(2).await.unwrap();
    assert_eq!(told(&requests[1]), ("last".to_owned(), "failure".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_while_etcd_is_away_is_not_told_as_running() {
    let receiver = Receiver::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let file = targets(folder.path(), &[("pager", receiver.port())]);
    let stack = Arc::new(Stack::start().await.unwrap());
    let options = Options { arguments: arguments(&file), ..Options::default() };
    let fleet = Fleet::start_with(&stack, 1, options).await.unwrap();
    let scene = Scene::of(stack, fleet).await;
    let further = r#","notify":{"on":["failure"],"runningAfterSecs":3,"to":["pager"]}"#;
    scene.put("brief", &job("brief", "sleep 1; exit 3", further));
    scene.carillon_ok(&["run", "brief"]);
    scene.started("brief").await;
    scene.stack.pause_etcd().unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(receiver.requests(), []);
    scene.stack.resume_etcd().unwrap();
    let requests = receiver.received(1).await.unwrap();
    assert_eq!(told(&requests[0]), ("brief".to_owned(), "failure".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_run_goes_on_is_told_however_late_its_record_comes() {
    let receiver = Receiver::start().await.unwrap();
    let (mut scene, _folder) = fleet(0, &[("pager", receiver.port())], &[]).await;
    let (records, now) = (&scene.records, Utc::now());
    let slow =
        RunRecord::new(RunId::new(now), &JobName::new("slow").unwrap(), Outcome::Running, now);
    let call = Call { pending: false, ..call(Event::Running, &["pager"]) };
    records.put_out(&slow, &call, now).await.unwrap();
    let id = records.due(&["pager"], 1, now).await.unwrap().remove(0).0;
    let at = |n| now + TimeDelta::milliseconds(n);
    for n in 0..9 {
        let held = records.hold(&id, "w0", TimeDelta::milliseconds(1), at(n)).await.unwrap();
        assert_eq!(held.unwrap().tries, u32::try_from(n).unwrap() + 1);
    }
    scene.fleet.add("w1").await.unwrap();
    let outbox = scene.stack.mongo().await.unwrap().database("cron").collection("outbox");
    eventually("a look in vain", || async {
        let found: Document = outbox.find_one(doc! {"_id": &id}).await.unwrap().unwrap();
        (found.get_i32("tries").unwrap() > 9 && found.contains_key("lastError")).then_some(())
    })
    .await;
    system_tests::write::started(&scene.records, &slow).await.unwrap();
    let requests = receiver.received(1).await.unwrap();
    assert_eq!(told(&requests[0]), ("slow".to_owned(), "running".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_wrong_tells_nothing_until_it_is_right() {
    let receiver = Receiver::start().await.unwrap();
    let (mut scene, _folder) = fleet(0, &[("pager", receiver.port())], &[]).await;
    let (records, now) = (&scene.records, Utc::now());
    let call = call(Event::Failure, &["pager"]);
    let failed = RunRecord {
        notify: Some(Box::new(call)),
        ..RunRecord::new(RunId::new(now), &JobName::new("far").unwrap(), Outcome::Failed, now)
    };
    system_tests::write::finished(records, &failed).await.unwrap();
    let clock = scene.file("clock");
    fs::write(&clock, TimeDelta::hours(25).num_milliseconds().to_string()).unwrap();
    let offset = vec!["--clock-offset-file".to_owned(), clock.display().to_string()];
    let options = WorkerOptions { arguments: offset, ..WorkerOptions::default() };
    scene.fleet.add_with("fast", &options).await.unwrap();
    eventually("the verdict on its clock", || async {
        let log = fs::read_to_string(scene.fleet.log("fast")).unwrap();
        log.contains("our clock is").then_some(())
    })
    .await;
    // Longer than between two looks.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(receiver.requests(), []);
    assert_eq!(scene.records.pending().await.unwrap(), 0, "nothing was taken over");
    fs::write(&clock, "0").unwrap();
    let requests = receiver.received(1).await.unwrap();
    assert_eq!(told(&requests[0]), ("far".to_owned(), "failure".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_nobody_runs_is_told_as_missed_and_a_dead_worker_as_lost() {
    let receiver = Receiver::start().await.unwrap();
    let (mut scene, _folder) = fleet(2, &[("pager", receiver.port())], &["--max-skew", "1"]).await;
    let further = r#","notify":{"on":["lost"],"to":["pager"]},"killGraceSecs":1"#;
    scene.put("dear", &job("dear", "sleep 60", further));
    scene.carillon_ok(&["run", "dear"]);
    let run = scene.started("dear").await;
    scene.fleet.kill9(&run.worker).unwrap();

    // Of a worker that there is not.
    let further = r#","selector":{"disk":"none"},"startDeadlineSecs":1,"notify":{"on":["missed"],"to":["pager"]}"#;
    scene.put("nowhere", &job("nowhere", "true", further).replace(NEVER, "*/3 * * * * *"));
    let missed = receiver.received(1).await.unwrap();
    assert_eq!(told(&missed[0]), ("nowhere".to_owned(), "missed".to_owned()));
    let text = missed[0].json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("nowhere did not run "), "{text}");
    scene.stack.etcdctl(&["del", &scene.key("jobs/nowhere")]).unwrap();

    let lost = eventually("the loss", || async {
        let requests = receiver.requests();
        requests.into_iter().find(|request| told(request).0 == "dear")
    })
    .await;
    assert_eq!(told(&lost).1, "lost");
    assert_eq!(lost.json()["run"], run.id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_held_by_one_at_a_time_and_given_up_after_a_day() {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    let (now, name) = (Utc::now(), JobName::new("held").unwrap());
    let call = |to: &[&str]| Call { recovery: true, ..call(Event::Failure, to) };
    let targets = ["pager", "nobody", "late"];
    let failed = RunRecord {
        notify: Some(Box::new(call(&targets))),
        ..RunRecord::new(RunId::new(now), &name, Outcome::Failed, now)
    };
    system_tests::write::finished(&records, &failed).await.unwrap();
    // Each of two workers takes it over, and one of them again later.
    assert_eq!(records.take_over(now).await.unwrap(), 1);
    records.put_out(&failed, &call(&targets), now).await.unwrap();
    assert_eq!(records.take_over(now).await.unwrap(), 0);
    let due = records.due(&["pager"], 10, now).await.unwrap();
    assert_eq!(due.len(), 1);
    let (id, lease) = (&due[0].0, TimeDelta::seconds(40));
    let first = records.hold(id, "w1", lease, now).await.unwrap().unwrap();
    assert_eq!((first.tries, first.event, first.waiting), (1, Event::Failure, false));
    assert_eq!(records.hold(id, "w2", lease, now).await.unwrap(), None);
    assert_eq!(records.due(&["pager"], 10, now).await.unwrap(), []);

    // The first one died: the next takes hold of it, and what the first marks changes nothing.
    let later = now + lease;
    let second = records.hold(id, "w2", lease, later).await.unwrap().unwrap();
    assert_eq!(second.tries, 2);
    records.dropped(&first, later).await.unwrap();
    records.told(&second, later).await.unwrap();
    let waiting = later + TimeDelta::seconds(5);
    let waits = records.hold(id, "w1", lease, waiting).await.unwrap().unwrap();
    assert!(waits.waiting);

    let strangers = records.strangers(&["pager", "late"], later).await.unwrap();
    assert_eq!(strangers, ["nobody"]);
    assert_eq!(records.pending().await.unwrap(), 2);
    assert_eq!(records.give_up(now + TimeDelta::hours(23)).await.unwrap(), []);
    // The last try of one is under way when its time is over.
    let over = now + TimeDelta::hours(24);
    let last = &records.due(&["late"], 10, now).await.unwrap()[0].0;
    let begun = over - TimeDelta::seconds(1);
    assert!(records.hold(last, "w1", lease, begun).await.unwrap().is_some());
    let given_up = records.give_up(over).await.unwrap();
    assert_eq!((given_up.len(), given_up[0].tries), (1, 0));
    let noted = || async { records.get(failed.id).await.unwrap().unwrap().notify_note };
    let note = "failure was not told to nobody: no worker knows it";
    assert_eq!(noted().await.as_deref(), Some(note));
    // It was not heard of again: it is not tried anew.
    let ended = begun + lease;
    assert_eq!(records.due(&["late"], 10, ended).await.unwrap(), []);
    assert_eq!(records.hold(last, "w2", lease, ended).await.unwrap(), None);
    let given_up = records.give_up(ended).await.unwrap();
    assert_eq!((given_up.len(), given_up[0].tries), (1, 1));
    assert_eq!(noted().await.as_deref(), Some("failure was not told to late in 1 tries"));
}

/// What `carillon-worker notify-test` says.
async fn sample(target: &'static str, file: PathBuf) -> Output {
    let run = move || {
        let mut command = Command::new(programs::own("carillon-worker").unwrap());
        command.args(["notify-test", target, "--notify-file"]).arg(file).output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_can_be_sent_and_its_answer_read() {
    let receiver = Receiver::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let file = targets(folder.path(), &[("pager", receiver.port())]);
    let said = sample("pager", file.clone()).await;
    assert!(said.status.success(), "{said:?}");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "pager answered 200 OK\nso\n");
    is_signed(&receiver.requests()[0]);
    receiver.reply([Reply::Status(403, String::new())]);
    let said = sample("pager", file.clone()).await;
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("pager answered 403"), "{said:?}");
    let said = sample("nobody", file).await;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(error.contains("has no target \"nobody\"; it has pager"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_with_tls_is_told_where_its_authority_is_trusted() {
    let folder = TempDir::new().unwrap();
    let certificates = Certificates::make(folder.path()).unwrap();
    let receiver = Receiver::start_with_tls(&certificates).await.unwrap();
    let url = format!("url = \"https://127.0.0.1:{}/{PATH}\"\n", receiver.port());
    let file = folder.path().join("tls.toml");
    let authority = certificates.authority.display();
    let text = format!("[targets.known]\n{url}ca_file = \"{authority}\"\n[targets.unknown]\n{url}");
    fs::write(&file, text).unwrap();
    let said = sample("known", file.clone()).await;
    assert_eq!(String::from_utf8_lossy(&said.stdout), "known answered 200 OK\nso\n", "{said:?}");
    assert_eq!(receiver.requests().len(), 1);
    let said = sample("unknown", file).await;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(error.contains("no TLS with 127.0.0.1: invalid peer certificate"), "{error}");
    assert!(error.contains("everybody can read") && !error.contains(PATH), "{error}");
    assert_eq!(receiver.requests().len(), 1);
}
