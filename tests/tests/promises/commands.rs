//! The subcommands are a stable interface: what they print, where they exit, what they leave.

use std::io::Write;
use std::process::{Command, Stdio};

use carillon_core::id::JobName;
use serde_json::Value;
use system_tests::programs;

use crate::support::{Scene, carillon};

const SLEEPY: &str = r#"{"name":"sleepy","command":"sleep 60","cronExpr":"0 0 1 1 *"}"#;

impl Scene {
    fn apply(&self, json: &str) -> String {
        let mut command = carillon(&self.stack, self.fleet.prefix());
        let mut child = command
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(json.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_lives_from_apply_to_delete_and_every_write_leaves_its_trace() {
    let scene = Scene::shared(0).await;
    let json = r#"{"name":"a","command":"true","cronExpr":"0 1 * * *","x-team":{"keep":1}}"#;
    assert_eq!(scene.apply(json), "a created\n");
    assert_eq!(scene.apply(json), "a unchanged\n");
    assert_eq!(scene.apply(&json.replace("0 1", "0 2")), "a changed\n");
    assert_eq!(scene.carillon_ok(&["pause", "a"]), "a paused\n");
    assert_eq!(scene.carillon_ok(&["pause", "a"]), "a was paused already\n");
    let stored: Value =
        serde_json::from_str(&scene.carillon_ok(&["get", "a", "-o", "json"])).unwrap();
    assert_eq!((&stored["enabled"], &stored["x-team"]["keep"]), (&false.into(), &1.into()));
    assert_eq!(scene.carillon_ok(&["resume", "a"]), "a resumed\n");
    let shown = scene.carillon_ok(&["get", "a"]);
    assert!(shown.contains("next firings") && shown.contains("T02:00:00"), "{shown}");
    assert_eq!(scene.carillon_ok(&["delete", "a"]), "a deleted\n");
    assert_eq!(scene.carillon(&["get", "a"]).status.code(), Some(1));
    assert_eq!(scene.carillon(&["delete", "a"]).status.code(), Some(1));

    let name = JobName::new("a").unwrap();
    let changes = scene.records.changes_of(Some(&name), 10).await.unwrap();
    let what: Vec<&str> = changes.iter().rev().map(|c| c.what.as_str()).collect();
    assert_eq!(what, ["create", "edit", "pause", "resume", "delete"]);
    for change in &changes {
        assert!(!change.who.is_empty() && !change.host.is_empty() && change.revision > 0);
    }
    assert!(changes[0].before.is_some() && changes[0].after.is_none());
    assert!(changes[4].before.is_none() && changes[4].after.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_writes_nothing() {
    let scene = Scene::shared(0).await;
    let file = scene.file("job.json");
    std::fs::write(&file, SLEEPY).unwrap();
    let said = scene.carillon_ok(&["apply", "--dry-run", "-f", file.to_str().unwrap()]);
    assert_eq!(said, "sleepy would be created\n");
    assert_eq!(scene.carillon_ok(&["jobs", "-o", "json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_wait_streams_the_output_and_exits_as_the_job_does() {
    let scene = Scene::shared(1).await;
    let cases = [
        ("ok", "echo one; echo two >&2; echo three", Some(0), "one\n"),
        ("three", "echo bye; exit 3", Some(3), "bye\n"),
        ("term", "kill -TERM $$", Some(143), ""),
    ];
    for (name, command, code, begins) in cases {
        let json = format!(r#"{{"name":"{name}","command":"{command}","cronExpr":"0 0 1 1 *"}}"#);
        scene.put(name, &json);
        let output = scene.carillon(&["run", name, "--wait"]);
        assert_eq!(output.status.code(), code, "{name}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(begins), "{name}: {text:?}");
    }
    let json = r#"{"name":"calm","command":"trap 'exit 0' TERM; sleep 60 & wait","cronExpr":"0 0 1 1 *","timeoutSecs":1}"#;
    scene.put("calm", json);
    let output = scene.carillon(&["run", "calm", "--wait"]);
    assert_eq!(output.status.code(), Some(125), "it timed out, whatever it says itself");
    assert_eq!(scene.finished("calm").await.exit_code, Some(0));
    assert_eq!(scene.carillon(&["run", "nobody", "--wait"]).status.code(), Some(125));
    assert_eq!(scene.carillon(&["run", "nobody"]).status.code(), Some(1));
    let records: Value =
        serde_json::from_str(&scene.carillon_ok(&["history", "--job", "three", "-o", "json"]))
            .unwrap();
    assert_eq!((&records[0]["exitCode"], &records[0]["trigger"]), (&3.into(), &"manual".into()));
    assert_eq!(scene.carillon_ok(&["logs", "three"]), "bye\n");
    let workers = scene.carillon_ok(&["workers"]);
    assert!(workers.contains("w1") && workers.contains("ready"), "{workers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_follow_a_live_run_to_its_end() {
    let scene = Scene::shared(1).await;
    let json = r#"{"name":"chatty","command":"for i in 1 2 3 4; do echo line $i; sleep 0.4; done","cronExpr":"0 0 1 1 *"}"#;
    scene.put("chatty", json);
    let id = scene.carillon_ok(&["run", "chatty"]);
    scene.started("chatty").await;
    let text = scene.carillon_ok(&["logs", id.trim(), "-f"]);
    assert_eq!(text, "line 1\nline 2\nline 3\nline 4\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_job_are_those_of_its_run_and_not_of_a_skipped_slot() {
    let scene = Scene::shared(1).await;
    let json = r#"{"name":"busy","command":"echo here; sleep 4","cronExpr":"* * * * * *"}"#;
    scene.put("busy", json);
    scene.record("busy", |r| r.outcome == carillon_core::run::Outcome::Skipped).await;
    assert_eq!(scene.carillon_ok(&["logs", "busy"]), "here\n");
    assert_eq!(scene.carillon_ok(&["logs", "busy", "-f"]), "here\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_usage_an_absent_store_and_nothing_to_kill_have_their_own_exit_codes() {
    let scene = Scene::shared(0).await;
    assert_eq!(scene.carillon(&["jobs", "--nonsense"]).status.code(), Some(2));
    assert_eq!(scene.carillon(&["pause"]).status.code(), Some(2));
    scene.put("idle", SLEEPY);
    let kill = scene.carillon(&["kill", "idle"]);
    assert_eq!(kill.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&kill.stderr).contains("no live run"));
    // Port 1 on the loopback address: nobody listens.
    let away = ["--etcd", "http://127.0.0.1:1", "--mongo", "mongodb://me:secret@127.0.0.1:1"];
    let program = || Command::new(programs::own("carillon").unwrap());
    let output = program().args(away).arg("jobs").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("127.0.0.1:1"), "{error}");
    let info = program().args(away).arg("info").output().unwrap();
    let text = String::from_utf8_lossy(&info.stdout).into_owned();
    assert_eq!(info.status.code(), Some(3));
    assert!(text.contains("mongodb://***@127.0.0.1:1") && !text.contains("secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn next_prints_firings_and_points_at_mistakes() {
    let scene = Scene::shared(0).await;
    let from = "2026-03-27T12:00:00Z";
    let said = scene.carillon_ok(&[
        "next",
        "30 2 * * *",
        "--tz",
        "Europe/Berlin",
        "--from",
        from,
        "-n",
        "3",
    ]);
    let firings: Vec<&str> = said.lines().collect();
    assert_eq!(firings.len(), 3);
    assert_eq!(firings[0], "2026-03-28T02:30:00+01:00");
    // On the 29th the clock jumps from 02:00 to 03:00.
    assert_eq!(firings[1], "2026-03-29T03:00:00+02:00  moved from 02:30 by the clock change");
    assert_eq!(firings[2], "2026-03-30T02:30:00+02:00");

    // What is no firing goes to standard error.
    let told = |arguments: &[&str]| {
        let zone = ["--tz", "America/New_York", "--from", "2026-03-07T08:00:00Z", "-n", "1"];
        let output = scene.carillon(&[&["next"], arguments, &zone].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (firings, aside) = told(&["*/30 2 * * *"]);
    assert_eq!(firings, "2026-03-09T02:00:00-04:00\n");
    assert_eq!(
        aside,
        "every day at 02:00 and 02:30 (skipped or repeated when the clocks change), \
         America/New_York\n  \
         2026-03-08 02:00-02:59 does not exist in America/New_York: 2 firings skipped\n"
    );
    let (json, aside) = told(&["*/30 2 * * *", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["firings"][0].as_str(), aside.as_str()),
        (Some("2026-03-09T02:00:00-04:00"), "")
    );
    assert_eq!(
        (&json["notes"][0]["kind"], &json["notes"][0]["times"]),
        (&"skipped".into(), &2.into())
    );

    let (_, aside) = told(&["~ 3 * * *"]);
    assert!(aside.contains("add --name JOB"), "{aside}");
    let (firings, _) = told(&["~ 3 * * *", "--name", "settle"]);
    assert_eq!(firings, "2026-03-07T03:25:00-05:00\n");
    let (firings, aside) = told(&["@every 2d", "--anchor", "2027-01-01T00:00:00Z"]);
    assert_eq!(firings, "2026-12-31T19:00:00-05:00\n");
    assert_eq!(aside, "every 2 days from 2027-01-01 00:00 UTC on\n");

    let output = scene.carillon(&["next", "0 24 * * *"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(error, "carillon: hour: 24 is out of range 0-23\n0 24 * * *\n  ^^\n");
}
