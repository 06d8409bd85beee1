//! The console, driven by keys in a real pseudo-terminal, read back from etcd.

use std::time::{Duration, Instant};

use carillon_core::run::Outcome;
use serde_json::Value;
use system_tests::console::{Console, Size};

use crate::support::{PATIENCE, Scene, eventually, put};
use system_tests::fleet::Fleet;
use system_tests::stack::Stack;

const ENTER: &str = "\r";
const TAB: &str = "\t";
const ESCAPE: &str = "\x1b";
const CTRL_S: &str = "\x13";
const END: &str = "\x1b[F";

fn open(scene: &Scene) -> Console {
    Console::open(&scene.stack, scene.fleet.prefix(), Size::new(80, 24)).unwrap()
}

impl Scene {
    /// The stored value of a job, read with etcdctl.
    fn stored(&self, job: &str) -> Option<Value> {
        let key = format!("{}/jobs/{job}", self.fleet.prefix());
        let text = self.stack.etcdctl(&["get", "--print-value-only", &key]).unwrap();
        serde_json::from_str(&text).ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_written_changed_paused_and_deleted_by_keys() {
    let scene = Scene::shared(1).await;
    let console = open(&scene);
    console.wait_for_text("no jobs yet", PATIENCE).unwrap();

    console.send("n").unwrap();
    console.wait_for_text("Schedule", PATIENCE).unwrap();
    console.send("greet").unwrap();
    console.send(TAB).unwrap();
    console.send("0 24 * * *").unwrap();
    // The mistake is pointed at as it is typed.
    console.wait_for_text("24 is out of range 0-23", PATIENCE).unwrap();
    console.send("\x15").unwrap();
    console.send("* * * * * *").unwrap();
    console.wait_for_text("every second", PATIENCE).unwrap();
    // Past the zone into the command.
    console.send(TAB).unwrap();
    console.send(TAB).unwrap();
    console.send("echo good morning").unwrap();
    console.send(CTRL_S).unwrap();
    let stored = eventually("the job in etcd", || async { scene.stored("greet") }).await;
    assert_eq!(stored["command"], "echo good morning");
    assert_eq!(stored["cronExpr"], "* * * * * *");
    assert!(stored["updatedAt"].is_string());
    assert_eq!(scene.finished("greet").await.output, "good morning\n");

    console.wait_for_text("greet", PATIENCE).unwrap();
    console.send("e").unwrap();
    console.wait_for_text("good morning", PATIENCE).unwrap();
    console.send(TAB).unwrap();
    console.send(TAB).unwrap();
    console.send(END).unwrap();
    console.send(" to you").unwrap();
    console.send(CTRL_S).unwrap();
    eventually("the change in etcd", || async {
        scene.stored("greet").filter(|job| job["command"] == "echo good morning to you")
    })
    .await;

    console.wait_for(|screen| !screen.contains("ctrl-s"), PATIENCE).unwrap();
    console.send("p").unwrap();
    eventually("the pause in etcd", || async {
        scene.stored("greet").filter(|job| job["enabled"] == false)
    })
    .await;
    console.wait_for_text("paused", PATIENCE).unwrap();

    console.send("D").unwrap();
    console.wait_for_text("Cancel", PATIENCE).unwrap();
    // Cancel has the focus: Enter alone deletes nothing.
    console.send(ENTER).unwrap();
    console.wait_for(|screen| !screen.contains("Cancel"), PATIENCE).unwrap();
    assert!(scene.stored("greet").is_some());
    console.send("D").unwrap();
    console.wait_for_text("Cancel", PATIENCE).unwrap();
    console.send(TAB).unwrap();
    console.send(ENTER).unwrap();
    console.wait_for_text("no jobs yet", PATIENCE).unwrap();
    assert_eq!(scene.stored("greet"), None);

    // The trace of a write follows the write.
    let what = eventually("four traces", || async {
        let changes = scene.records.changes_of(None, 10).await.ok()?;
        let what: Vec<String> = changes.into_iter().rev().map(|c| c.what).collect();
        (what.len() >= 4).then_some(what)
    })
    .await;
    assert_eq!(what, ["create", "edit", "pause", "delete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_output_is_on_the_screen_within_half_a_second_and_a_kill_is_followed_to_its_end() {
    const PROMISED: Duration = Duration::from_millis(500);
    let scene = Scene::shared(1).await;
    let go = scene.file("go");
    let said = scene.file("said");
    let json = format!(
        r#"{{"name":"slow","command":"echo ready; while [ ! -e {} ]; do sleep 0.05; done; date +%s.%N > {}; echo {}; exec sleep 100","cronExpr":"0 0 1 1 *"}}"#,
        go.display(),
        said.display(),
        "hello-from-the-run"
    );
    scene.put("slow", &json);
    let console = open(&scene);
    console.wait_for_text("slow", PATIENCE).unwrap();
    console.send("r").unwrap();
    scene.started("slow").await;
    console.send("2").unwrap();
    console.wait_for(|screen| screen.contains("slow") && screen.contains("w1"), PATIENCE).unwrap();
    console.send(ENTER).unwrap();
    console.wait_for_text("ready", PATIENCE).unwrap();

    std::fs::write(&go, "").unwrap();
    console.wait_for_text("hello-from-the-run", PATIENCE).unwrap();
    let seen = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let written: f64 = std::fs::read_to_string(&said).unwrap().trim().parse().unwrap();
    let delay = Duration::from_secs_f64((seen.as_secs_f64() - written).max(0.0));
    assert!(delay <= PROMISED, "on the screen after {delay:?}");

    console.send(ESCAPE).unwrap();
    console.wait_for(|screen| !screen.contains("hello-from-the-run"), PATIENCE).unwrap();
    console.send("x").unwrap();
    let dialog = console.wait_for_text("Cancel", PATIENCE).unwrap();
    assert!(dialog.contains("slow") && dialog.contains("w1"), "{dialog}");
    console.send(TAB).unwrap();
    console.send(ENTER).unwrap();
    console.wait_for_text("gone after", PATIENCE).unwrap();
    let record = scene.finished("slow").await;
    assert_eq!(record.outcome, Outcome::Killed);
    assert!(record.killed_by.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_value_is_shown_with_its_error() {
    let scene = Scene::shared(0).await;
    scene.put("torn", "{\"name\": ");
    scene.put("fine", r#"{"name":"fine","command":"c","cronExpr":"@daily"}"#);
    let console = open(&scene);
    console.wait_for_text("broken", PATIENCE).unwrap();
    console.send("/torn").unwrap();
    console.send(ENTER).unwrap();
    console.wait_for(|screen| !screen.contains("fine"), PATIENCE).unwrap();
    console.send(ENTER).unwrap();
    console.wait_for_text("not JSON", PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_terminal_ends_the_console_within_a_second() {
    let scene = Scene::shared(0).await;
    let mut console = open(&scene);
    console.wait_for_text("no jobs yet", PATIENCE).unwrap();
    let closed = Instant::now();
    console.hang_up();
    let status = console.exited_within(Duration::from_secs(1)).unwrap();
    assert!(status.is_some(), "still there {:?} after the terminal was closed", closed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_goes_on_after_etcd_was_restarted() {
    let mut stack = Stack::start().await.unwrap();
    let fleet = Fleet::start(&stack, 0).await.unwrap();
    let one = r#"{"name":"before","command":"c","cronExpr":"@daily"}"#;
    put(&stack, fleet.prefix(), "before", one);
    let console = Console::open(&stack, fleet.prefix(), Size::new(80, 24)).unwrap();
    console.wait_for_text("before", PATIENCE).unwrap();
    stack.stop_etcd().await.unwrap();
    // It keeps what it has and says that the store is away.
    let screen = console.wait_for_text("etcd ✗", PATIENCE).unwrap();
    assert!(screen.contains("before"), "{screen}");
    stack.start_etcd().await.unwrap();
    put(&stack, fleet.prefix(), "after", &one.replace("before", "after"));
    console.wait_for_text("after", PATIENCE).unwrap();
    console.wait_for_text("etcd ✓", PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_changes_nothing() {
    let scene = Scene::shared(0).await;
    scene.put("safe", r#"{"name":"safe","command":"c","cronExpr":"@daily"}"#);
    let mut options = system_tests::console::Options::carillon(
        &scene.stack,
        scene.fleet.prefix(),
        Size::new(80, 24),
    )
    .unwrap();
    options.arguments.push("--read-only".to_owned());
    let console = Console::run(&options).unwrap();
    console.wait_for_text("safe", PATIENCE).unwrap();
    let before = scene.stored("safe");
    console.send("pDrxn?").unwrap();
    let help = console.wait_for_text("Everywhere", PATIENCE).unwrap();
    assert!(!help.contains("delete the job"), "{help}");
    console.send(ESCAPE).unwrap();
    // What is written after those keys is shown after whatever they would have done.
    scene.put("later", r#"{"name":"later","command":"c","cronExpr":"@daily"}"#);
    console.wait_for_text("later", PATIENCE).unwrap();
    assert_eq!(scene.stored("safe"), before);
    let output = scene.carillon(&["--read-only", "delete", "safe"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(scene.stored("safe"), before);
}
