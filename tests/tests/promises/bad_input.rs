//! What is wrong is named in plain words, and disturbs nothing else.

use carillon_core::run::Outcome;

use crate::support::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn broken_values_show_as_broken_and_all_others_keep_firing() {
    let scene = Scene::shared(1).await;
    scene.put("good", r#"{"name":"good","command":"echo fine","cronExpr":"* * * * * *"}"#);
    let wrong = [
        ("torn", "{\"name\": \"torn\", \"comm", "not JSON"),
        ("list", "[]", "a job is a JSON object"),
        (
            "typed",
            r#"{"name":"typed","command":5,"cronExpr":"* * * * *"}"#,
            "invalid type: integer `5`",
        ),
        (
            "zone",
            r#"{"name":"zone","command":"c","cronExpr":"* * * * *","timezone":"Mars/Base"}"#,
            "`Mars/Base` is not a time zone",
        ),
        ("never", r#"{"name":"never","command":"c","cronExpr":"0 0 30 2 *"}"#, "no 30 February"),
        ("empty", "", "not JSON"),
    ];
    for (name, value, _) in wrong {
        scene.put(name, value);
    }
    scene
        .put("other", r#"{"name":"else","command":"echo $CARILLON_JOB","cronExpr":"* * * * * *"}"#);
    let strange = format!("{}/jobs/a/b", scene.fleet.prefix());
    scene.stack.etcdctl(&["put", &strange, "{}"]).unwrap();

    let listed = scene.carillon_ok(&["jobs", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    for (name, _, why) in wrong {
        let job = listed.as_array().unwrap().iter().find(|job| job["name"] == name).unwrap();
        assert_eq!(job["state"], "broken", "{name}");
        assert!(job["problems"].to_string().contains(why), "{name}: {}", job["problems"]);
    }
    let before = scene.finished("good").await;
    scene.record("good", |r| r.start_time > before.start_time).await;
    // The key is authoritative over the name in the value.
    assert_eq!(scene.finished("other").await.output, "other\n");
    let table = scene.carillon(&["jobs"]);
    let notes = String::from_utf8_lossy(&table.stderr);
    assert!(notes.contains("a/b") && notes.contains("not allowed in names"), "{notes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_refuses_what_is_wrong_and_writes_nothing() {
    let scene = Scene::shared(0).await;
    let huge = format!(
        r#"[{{"name":"fine","command":"c","cronExpr":"@daily"}},{{"name":"huge","command":"{}","cronExpr":"@daily"}}]"#,
        "x".repeat(2 << 20)
    );
    let long = format!(r#"{{"name":"{}","command":"c","cronExpr":"@daily"}}"#, "n".repeat(300));
    let named = |name: &str| format!(r#"{{"name":"{name}","command":"c","cronExpr":"@daily"}}"#);
    let cases = [
        (huge, "at most 131071"),
        (long, "300 bytes long; at most 200"),
        (named("a/b"), "`/`, which is not allowed in names"),
        (named("a@b"), "`@`, which is not allowed in names"),
        (named(r"a\u001b[2J"), "U+001B, which is not allowed in names"),
        (named(r"a\u202eb"), "U+202E"),
        (r#"{"name":"n","command":"c","cronExpr":"61 * * * *"}"#.to_owned(), "out of range"),
        (r#"{"name":"n","command":"c","cronExpr":"@reboot"}"#.to_owned(), "@reboot"),
        ("nonsense".to_owned(), "not JSON"),
    ];
    for (json, why) in cases {
        let file = scene.file("job.json");
        std::fs::write(&file, json).unwrap();
        let output = scene.carillon(&["apply", "-f", file.to_str().unwrap()]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(why), "{error} should name {why}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
    assert_eq!(scene.carillon_ok(&["jobs", "-o", "json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_shell_user_or_folder_fails_the_run_in_plain_words() {
    let scene = Scene::shared(1).await;
    let cases = [
        ("shell", r#""shell":"/bin/nosuch""#, "/bin/nosuch"),
        ("user", r#""user":"nobody-at-all""#, "nobody-at-all"),
        ("folder", r#""cwd":"/no/such/folder""#, "/no/such/folder"),
    ];
    for (name, field, _) in cases {
        let json =
            format!(r#"{{"name":"{name}","command":"true","cronExpr":"0 0 1 1 *",{field}}}"#);
        scene.put(name, &json);
        let output = scene.carillon(&["run", name, "--wait"]);
        assert_eq!(output.status.code(), Some(125), "{name}");
    }
    for (name, _, why) in cases {
        let record = scene.finished(name).await;
        assert_eq!(record.outcome, Outcome::Failed);
        assert!(record.err.contains(why), "{}", record.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_any_bytes_is_kept_as_it_is() {
    let scene = Scene::shared(1).await;
    let json = r#"{"name":"bytes","command":"printf '\\033[2J\\377\\376 \\000 \\303\\244\\033]0;title\\007'","cronExpr":"0 0 1 1 *"}"#;
    scene.put("bytes", json);
    scene.carillon_ok(&["run", "bytes"]);
    scene.finished("bytes").await;
    let output = scene.carillon(&["logs", "bytes"]);
    assert_eq!(output.stdout, b"\x1b[2J\xff\xfe \x00 \xc3\xa4\x1b]0;title\x07");
}
