//! What is recorded is found again: output by stream, from its end and byte by byte, records by what
//! they are asked for, a job's past in figures; and what is purged is gone, with nothing else.

use carillon_core::id::{JobName, RunId};
use carillon_core::records::{HistoryFilter, Records, Tail, TailEvent};
use carillon_core::run::{Chunk, Outcome, RunRecord, Stream, Trigger};
use chrono::{DateTime, TimeDelta, Utc};
use mongodb::bson::{Bson, Document, doc};
use serde_json::Value;
use system_tests::stack::{Options as StackOptions, Stack};
use system_tests::write;

use crate::support::{Scene, carillon, eventually};

fn job(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

/// A record of a run that began then and took a second.
fn ended(name: &str, at: DateTime<Utc>, outcome: Outcome) -> RunRecord {
    let worker = "w1".to_owned();
    let end_time = Some(at + TimeDelta::seconds(1));
    RunRecord { worker, end_time, ..RunRecord::new(RunId::new(at), &job(name), outcome, at) }
}

async fn store(records: &Records, all: &[RunRecord]) {
    for record in all {
        write::finished(records, record).await.unwrap();
    }
}

/// Stores a piece of output.
async fn write(records: &Records, run: RunId, seq: u64, stream: Stream, data: &[u8]) {
    let chunk = Chunk { seq, at: Utc::now(), stream, data: data.to_vec() };
    write::output(records, run, &[chunk]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_read_by_stream_from_its_end_and_byte_by_byte() {
    let scene = Scene::shared(1).await;
    // awk writes every byte value, the null byte too, and no line end after the last.
    let bytes = r#"LC_ALL=C awk 'BEGIN { for (i = 0; i < 256; i++) printf \"%c\", i }'"#;
    scene.put("bytes", &format!(r#"{{"name":"bytes","command":"{bytes}","cronExpr":"@yearly"}}"#));
    let id = scene.carillon_ok(&["run", "bytes"]);
    scene.finished("bytes").await;
    let every: Vec<u8> = (0..=255).collect();
    for extra in [&["--raw"][..], &[], &["--raw", "-f"], &["--stdout"]] {
        let output = scene.carillon(&[&["logs", id.trim()], extra].concat());
        assert_eq!(output.stdout, every, "{extra:?}");
    }

    let command = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; printf end";
    scene.put("both", &format!(r#"{{"name":"both","command":"{command}","cronExpr":"@yearly"}}"#));
    scene.carillon(&["run", "both", "--wait"]);
    let out = "out 1\nout 2\nout 3\nout 4\nout 5\nend";
    assert_eq!(scene.carillon_ok(&["logs", "both", "--stdout"]), out);
    assert_eq!(
        scene.carillon_ok(&["logs", "both", "--stderr"]),
        "err 1\nerr 2\nerr 3\nerr 4\nerr 5\n"
    );
    let last = |extra: &[&str]| scene.carillon_ok(&[&["logs", "both"], extra].concat());
    assert_eq!(last(&["--stdout", "--tail", "2"]), "out 5\nend");
    assert_eq!(last(&["--stderr", "--tail", "2"]), "err 4\nerr 5\n");
    assert_eq!(last(&["--stderr", "--tail", "2", "-f"]), "err 4\nerr 5\n");
    assert_eq!(last(&["--stderr", "--tail", "0"]), "");
    assert_eq!(last(&["--stdout", "--tail", "99"]), out);
    assert_eq!(scene.carillon(&["logs", "both", "--stdout", "--stderr"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_followed_by_change_stream_and_by_polling_alike() {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    for polling in [false, true] {
        let record =
            RunRecord::new(RunId::new(Utc::now()), &job("tailed"), Outcome::Running, Utc::now());
        let run = record.id;
        write::started(&records, &record).await.unwrap();
        write(&records, run, 0, Stream::Stdout, b"before ").await;
        let follow = |from: u64| {
            let tail = records.tail(run, from);
            if polling { tail.by_polling() } else { tail }
        };
        let (mut all, mut rest) = (follow(0), follow(1));
        let first = all.next().await.unwrap();
        let writer = async {
            for seq in 1..40 {
                // One is missing, as where output was dropped.
                if seq != 20 {
                    let stream = if seq % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
                    write(&records, run, seq, stream, format!("{seq} ").as_bytes()).await;
                }
            }
            let end = ended("tailed", record.start_time, Outcome::Succeeded);
            store(&records, &[RunRecord { id: run, ..end }]).await;
        };
        let ((), all, rest) = tokio::join!(writer, read_all(&mut all), read_all(&mut rest));
        let expected: String =
            (1..40).filter(|seq| *seq != 20).map(|seq| format!("{seq} ")).collect();
        assert_eq!(first, TailEvent::Output(records.output_from(run, 0, 1).await.unwrap()));
        assert_eq!((all, rest), (expected.clone(), expected), "polling: {polling}");
    }
}

/// As on a server that knows none, that fails over, or whose history does not go back far enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_stream_that_is_refused_or_dies_costs_a_tail_nothing() {
    let options = StackOptions { fail_points: true, ..StackOptions::default() };
    let stack = Stack::start_with(&options).await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    let mongo = stack.mongo().await.unwrap();
    let fail = |mode: Bson, command: &str| {
        let data = doc! {"failCommands": [command], "errorCode": 40_573};
        let fail = doc! {"configureFailPoint": "failCommand", "mode": mode, "data": data};
        let admin = mongo.database("admin");
        async move { admin.run_command(fail).await.unwrap() }
    };
    for refused in [true, false] {
        let record =
            RunRecord::new(RunId::new(Utc::now()), &job("tailed"), Outcome::Running, Utc::now());
        let run = record.id;
        write::started(&records, &record).await.unwrap();
        write(&records, run, 0, Stream::Stdout, b"0 ").await;
        let mut tail = records.tail(run, 0);
        if refused {
            fail(doc! {"times": 1}.into(), "aggregate").await;
        }
        let first = tail.next().await.unwrap();
        assert_eq!(first, TailEvent::Output(records.output_from(run, 0, 1).await.unwrap()));
        if !refused {
            fail("alwaysOn".into(), "getMore").await;
        }
        let writer = async {
            for seq in 1..20 {
                write(&records, run, seq, Stream::Stdout, format!("{seq} ").as_bytes()).await;
            }
            let end = ended("tailed", record.start_time, Outcome::Succeeded);
            store(&records, &[RunRecord { id: run, ..end }]).await;
        };
        let ((), rest) = tokio::join!(writer, read_all(&mut tail));
        let expected: String = (1..20).map(|seq| format!("{seq} ")).collect();
        assert_eq!(rest, expected, "refused: {refused}");
        fail("off".into(), "getMore").await;
    }
}

/// What a tail yields until the run has ended.
async fn read_all(tail: &mut Tail) -> String {
    let mut text = Vec::new();
    loop {
        match tail.next().await.unwrap() {
            TailEvent::Output(chunks) => {
                chunks.into_iter().for_each(|chunk| text.extend(chunk.data));
            }
            TailEvent::Ended(record) => {
                assert_eq!(record.outcome, Outcome::Succeeded);
                return String::from_utf8(text).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_long_output_is_found_without_what_is_before_it() {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    let run = RunId::new(Utc::now());
    // 300 pieces of ten lines, with a gap where the middle was dropped.
    let text = |seq: u64| (0..10).map(|n| format!("{seq}.{n}\n")).collect::<String>().into_bytes();
    let pieces: Vec<Chunk> = (0..100)
        .chain(300..500)
        .map(|seq| Chunk { seq, at: Utc::now(), stream: Stream::Stdout, data: text(seq) })
        .collect();
    write::output(&records, run, &pieces).await.unwrap();
    let last = |lines| {
        let mut pieces = records.output_of(run).last_lines(lines);
        async move {
            let chunks = pieces.read().await.unwrap();
            assert!(pieces.read().await.unwrap().is_empty());
            let text = chunks.iter().flat_map(|chunk| chunk.data.clone()).collect();
            (chunks.len(), String::from_utf8(text).unwrap())
        }
    };
    assert_eq!(last(3).await, (1, "499.7\n499.8\n499.9\n".to_owned()));
    let (pieces, text) = last(2_005).await;
    assert_eq!((pieces, text.lines().count(), text.lines().next()), (201, 2_005, Some("99.5")));
    assert_eq!(last(1_000_000).await.1.lines().count(), 3_000);
    let mut bytes = records.output_of(run).last_bytes(1_000);
    let read: usize = bytes.read().await.unwrap().iter().map(|chunk| chunk.data.len()).sum();
    assert!((1_000..1_100).contains(&read), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_filtered_by_everything_that_a_record_says() {
    let scene = Scene::shared(0).await;
    let now = Utc::now();
    let ago = |hours: i64| now - TimeDelta::hours(hours);
    let mut all = vec![
        ended("a", ago(1), Outcome::Succeeded),
        ended("a", ago(2), Outcome::Failed),
        ended("b", ago(30), Outcome::Failed),
        ended("b", ago(24 * 40), Outcome::Succeeded),
    ];
    all[0].trigger = Trigger::Manual;
    all[1].scheduled_time = Some(ago(2));
    all[1].err = "exit code 3 (odd [text])".to_owned();
    all[2].worker = "w2".to_owned();
    store(&scene.records, &all).await;
    let ids = |arguments: &[&str]| {
        let all = [&["history", "-o", "json"], arguments].concat();
        let found: Value = serde_json::from_str(&scene.carillon_ok(&all)).unwrap();
        let found = found.as_array().unwrap();
        found.iter().map(|r| r["_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let these = |which: &[usize]| which.iter().map(|n| all[*n].id.to_string()).collect::<Vec<_>>();
    for (arguments, which) in [
        (&[][..], &[0, 1, 2, 3][..]),
        (&["--limit", "2"], &[0, 1]),
        (&["--job", "a"], &[0, 1]),
        (&["--job", "nobody"], &[]),
        (&["--outcome", "failed"], &[1, 2]),
        (&["--outcome", "failed", "--job", "b"], &[2]),
        (&["--worker", "w2"], &[2]),
        (&["--trigger", "manual"], &[0]),
        (&["--trigger", "schedule", "--outcome", "succeeded"], &[3]),
        (&["--since", "25h"], &[0, 1]),
        (&["--until", "25h"], &[2, 3]),
        (&["--since", "31h", "--until", "90m"], &[1, 2]),
        (&["--since", &ago(30).to_rfc3339(), "--until", &ago(1).to_rfc3339()], &[1, 2]),
        (&["--text", "ODD [text]"], &[1]),
        (&["--text", "odd .text"], &[]),
    ] {
        assert_eq!(ids(arguments), these(which), "{arguments:?}");
    }
    let table = scene.carillon_ok(&["history", "--job", "a"]);
    assert!(table.contains("SLOT") && table.contains("manual"), "{table}");
    assert_eq!(scene.carillon(&["history", "--since", "yesterday"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_to_the_oldest_record_and_none_comes_twice() {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    let now = Utc::now();
    // Bursts of one instant, and long pauses between them.
    let at = |burst: i64| now - TimeDelta::seconds(7 * burst * burst * burst);
    let all: Vec<RunRecord> = (0..12)
        .flat_map(|n| (0..9).map(move |_| ended("paged", at(n), Outcome::Succeeded)))
        .collect();
    store(&records, &all).await;
    for (limit, filter) in [
        (10, HistoryFilter::default()),
        (4, HistoryFilter { job: Some(job("paged")), ..Default::default() }),
        (1, HistoryFilter { until: Some(at(9)), ..Default::default() }),
    ] {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = records.history(&filter, before, limit).await.unwrap();
            assert!(page.records.len() <= limit);
            found.extend(page.records.iter().map(|r| (r.start_time, r.id)));
            before = page.reached;
            if !page.more {
                break;
            }
        }
        assert!(found.is_sorted_by(|a, b| a > b), "{filter:?}");
        let expected = all.iter().filter(|r| filter.until.is_none_or(|until| r.start_time < until));
        assert_eq!(found.len(), expected.count(), "{filter:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_few_records_however_many_there_are() {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    records.ensure_indexes().await.unwrap();
    let now = Utc::now();
    // A run every 20 s, and among them few that are looked for.
    let all: Vec<RunRecord> = (0..3_000)
        .map(|n| {
            let rare = n % 1_000 == 500;
            let (name, outcome) =
                if rare { ("rare", Outcome::Failed) } else { ("common", Outcome::Succeeded) };
            let mut record = ended(name, now - TimeDelta::seconds(20 * n), outcome);
            if rare {
                (record.worker, record.trigger) = ("w9".to_owned(), Trigger::Manual);
            }
            record
        })
        .collect();
    for part in all.chunks(100) {
        futures::future::join_all(part.iter().map(|record| write::finished(&records, record)))
            .await;
    }
    let default = HistoryFilter::default;
    let middle = Some(now - TimeDelta::seconds(20 * 1_500));
    for (filter, expected) in [
        (default(), 50),
        (HistoryFilter { until: middle, ..default() }, 50),
        (HistoryFilter { job: Some(job("common")), ..default() }, 50),
        (HistoryFilter { job: Some(job("rare")), ..default() }, 3),
        (HistoryFilter { job: Some(job("nobody")), ..default() }, 0),
        (HistoryFilter { outcome: Some(Outcome::Failed), ..default() }, 3),
        (HistoryFilter { outcome: Some(Outcome::Running), ..default() }, 0),
        (HistoryFilter { worker: Some("w9".to_owned()), ..default() }, 3),
        (HistoryFilter { trigger: Some(Trigger::Manual), since: middle, ..default() }, 2),
        (
            HistoryFilter {
                job: Some(job("rare")),
                outcome: Some(Outcome::Succeeded),
                ..default()
            },
            0,
        ),
    ] {
        let (page, steps) = records.explain_history(&filter, None, 50).await.unwrap();
        assert_eq!(page.records.len(), expected, "{filter:?}");
        let examined: Option<i64> = steps.iter().map(|step| step.examined).sum();
        let examined = examined.expect("each step says what it looked at");
        assert!(steps.iter().all(|step| step.index.is_some()), "{filter:?}: {steps:?}");
        assert!(examined <= 400, "{examined} of 3,000: {filter:?}: {steps:?}");
        assert!(steps.len() <= 40, "{filter:?}: {steps:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_the_output_only_where_text_is_looked_for() {
    let scene = Scene::shared(0).await;
    let mut record = ended("wordy", Utc::now(), Outcome::Failed);
    (record.err, record.output) = ("exit code 3".to_owned(), "a needle\n".to_owned());
    store(&scene.records, &[record.clone()]).await;
    let full = scene.records.history(&HistoryFilter::default(), None, 9).await.unwrap();
    assert_eq!(full.records[0].output, "a needle\n");
    let listed = scene.records.overview(&HistoryFilter::default(), None, 9).await.unwrap();
    let without = RunRecord { output: String::new(), ..full.records[0].clone() };
    assert_eq!((&listed.records[..], listed.reached), (&[without][..], full.reached));
    let filter = HistoryFilter { text: Some("needle".to_owned()), ..Default::default() };
    assert_eq!(scene.records.overview(&filter, None, 9).await.unwrap().records, full.records);
    let json = scene.carillon_ok(&["history", "-o", "json"]);
    assert!(json.contains("a needle"), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_is_noted_only_of_a_run_that_was_lost() {
    let stack = Stack::shared().await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &stack.fresh_prefix()).await.unwrap();
    let now = Utc::now();
    let lost = ended("late", now, Outcome::Lost);
    let note = |run: RunId| {
        let records = records.clone();
        async move { records.late_result(run, "succeeded").await.unwrap() }
    };
    assert!(!note(lost.id).await, "there is no record");
    let running = RunRecord { outcome: Outcome::Running, end_time: None, ..lost.clone() };
    write::started(&records, &running).await.unwrap();
    assert!(!note(lost.id).await, "it is not known to be lost");
    assert_eq!(records.get(lost.id).await.unwrap().unwrap().late_result, None);
    store(&records, std::slice::from_ref(&lost)).await;
    assert!(note(lost.id).await);
    let late = records.get(lost.id).await.unwrap().unwrap().late_result;
    assert_eq!(late.as_deref(), Some("succeeded"));

    let killed = ended("late", now, Outcome::Killed);
    store(&records, std::slice::from_ref(&killed)).await;
    assert!(note(killed.id).await);
    assert_eq!(records.get(killed.id).await.unwrap().unwrap().late_result, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_record_is_kept_counts_from_its_end() {
    let scene = Scene::shared(1).await;
    let file = scene.file("enough");
    let command = format!("echo early; until test -e {}; do sleep 0.1; done", file.display());
    let json = format!(
        r#"{{"name":"kept","command":"{command}","cronExpr":"@yearly","retentionDays":1}}"#
    );
    scene.put("kept", &json);
    scene.carillon_ok(&["run", "kept"]);
    let run = scene.started("kept").await;
    assert_eq!(run.expire_at, None, "a live run is kept");
    let output = scene.stack.mongo().await.unwrap().database("cron").collection("output");
    let piece: Document = eventually("the first piece", || async {
        output.find_one(doc! {"_id": {"$gt": format!("{}|", run.id)}}).await.unwrap()
    })
    .await;
    let millis = |field| piece.get_datetime(field).unwrap().timestamp_millis();
    assert_eq!(millis("expireAt") - millis("at"), TimeDelta::days(2).num_milliseconds());
    std::fs::write(&file, "").unwrap();
    let run = scene.finished("kept").await;
    assert_eq!(run.expire_at, run.end_time.map(|end| end + TimeDelta::days(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_past_is_told_in_figures() {
    let scene = Scene::shared(0).await;
    let now = Utc::now();
    let run = |hours: i64, outcome, millis: i64| {
        let mut record = ended("figured", now - TimeDelta::hours(hours), outcome);
        record.end_time = Some(record.start_time + TimeDelta::milliseconds(millis));
        record
    };
    let mut all: Vec<RunRecord> = (1..=18).map(|n| run(n, Outcome::Succeeded, n * 100)).collect();
    all.push(run(19, Outcome::Failed, 9_000));
    all.push(run(20, Outcome::Lost, 99_000));
    all.push(run(21, Outcome::Skipped, 0));
    // The time before.
    all.push(run(25, Outcome::Succeeded, 50));
    all.push(run(26, Outcome::TimedOut, 60));
    // Another job's.
    all.push(ended("other", now - TimeDelta::hours(1), Outcome::Failed));
    store(&scene.records, &all).await;
    let stats = scene.carillon_ok(&["stats", "figured", "--since", "24h", "--json"]);
    let stats: Value = serde_json::from_str(&stats).unwrap();
    let this = &stats["now"];
    assert_eq!((&this["runs"], &this["successRate"]), (&20.into(), &0.9.into()), "{stats}");
    assert_eq!((&this["outcomes"]["lost"], &this["outcomes"]["skipped"]), (&1.into(), &1.into()));
    assert_eq!(
        this["durationMillis"],
        serde_json::json!({"p50": 1_000, "p95": 9_000, "max": 9_000})
    );
    assert_eq!(
        (&this["last"][0], this["last"].as_array().unwrap().len()),
        (&"succeeded".into(), 20)
    );
    let before = &stats["before"];
    assert_eq!((&before["runs"], &before["successRate"]), (&2.into(), &0.5.into()), "{stats}");
    assert_eq!(before["durationMillis"]["max"], 60);
    assert_eq!(stats["cut"], false);
    let table = scene.carillon_ok(&["stats", "figured", "--since", "24h"]);
    assert!(table.contains("90.0 %") && table.contains("50.0 %"), "{table}");
    assert_eq!(scene.carillon(&["stats", "nobody"]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_deletes_what_is_old_and_over_of_its_own_fleet_only() {
    let scene = Scene::shared(0).await;
    let other = scene.stack.fresh_prefix();
    let others = Records::connect(&scene.stack.mongo_uri(), &other).await.unwrap();
    let ago = |days: i64| Utc::now() - TimeDelta::days(days);
    let mine = [
        ended("a", ago(1), Outcome::Succeeded),
        ended("a", ago(31), Outcome::Succeeded),
        ended("b", ago(32), Outcome::Failed),
        ended("b", ago(33), Outcome::Skipped),
        ended("b", ago(34), Outcome::Running),
    ];
    let theirs = [ended("a", ago(31), Outcome::Succeeded)];
    store(&scene.records, &mine).await;
    store(&others, &theirs).await;
    for record in mine.iter().chain(&theirs) {
        write(&scene.records, record.id, 0, Stream::Stdout, b"something").await;
    }
    let left = || async {
        let mut left = Vec::new();
        for record in mine.iter().chain(&theirs) {
            let records = if record.id == theirs[0].id { &others } else { &scene.records };
            let output = scene.records.output_from(record.id, 0, 9).await.unwrap().len();
            let record = records.get(record.id).await.unwrap().is_some();
            assert_eq!(record, output == 1);
            left.push(record);
        }
        left
    };
    let purge = |extra: &[&'static str]| [&["purge", "--older-than", "30d"], extra].concat();
    let said = scene.carillon_ok(&purge(&["--dry-run"]));
    assert!(said.starts_with("3 records") && said.ends_with("to be deleted\n"), "{said}");
    // Nobody is there to be asked.
    assert_eq!(scene.carillon(&purge(&[])).status.code(), Some(1));
    let read_only = scene.carillon(&[&["--read-only"], purge(&["--yes"]).as_slice()].concat());
    assert_eq!(read_only.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&read_only.stderr).contains("--read-only"));
    assert_eq!(left().await, [true; 6]);

    let said = scene.carillon_ok(&purge(&["--job", "a", "--yes"]));
    assert!(said.starts_with("1 record") && said.ends_with("deleted\n"), "{said}");
    assert_eq!(left().await, [true, false, true, true, true, true]);
    scene.carillon_ok(&purge(&["--yes"]));
    assert_eq!(left().await, [true, false, false, false, true, true]);
    assert!(scene.carillon_ok(&purge(&["--yes"])).starts_with("0 records"));

    let changes = scene.records.changes_of(None, 10).await.unwrap();
    let what: Vec<&str> = changes.iter().rev().map(|change| change.what.as_str()).collect();
    assert_eq!(what.len(), 2, "{what:?}");
    assert!(what[0].starts_with("purge: 1 records") && what[1].starts_with("purge: 2 records"));
    assert_eq!((changes[1].job_name.as_str(), changes[0].job_name.as_str()), ("a", ""));
    let theirs = carillon(&scene.stack, &other).args(["history", "-o", "json"]).output().unwrap();
    let theirs: Value = serde_json::from_slice(&theirs.stdout).unwrap();
    assert_eq!(theirs.as_array().unwrap().len(), 1);
}
