//! Output and records outlive everything that happens to MongoDB, and to the worker meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use carillon_core::fleet::Registration;
use carillon_core::id::RunId;
use carillon_core::run::{Chunk, Outcome, RunRecord};
use mongodb::bson::doc;
use system_tests::fleet::{Fleet, Options};
use system_tests::stack::{Options as StackOptions, Stack};

use crate::support::{Scene, eventually};

/// Lines of one run of `talker`, a tenth of a second apart.
const LINES: usize = 40;

fn talker(ended: &Path) -> String {
    let ended = ended.display();
    format!(
        r#"{{"name":"talker","cronExpr":"* * * * * *","concurrency":"allow","command":"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done; echo $CARILLON_RUN >> {ended}"}}"#
    )
}

/// The runs that have written down their end.
fn ended(file: &Path) -> BTreeSet<RunId> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Waits until so many runs that began since now have ended.
async fn whole_runs(file: &Path, count: usize) {
    let since = RunId::new(chrono::Utc::now());
    eventually("whole runs", || async {
        (ended(file).range(since..).count() >= count).then_some(())
    })
    .await;
}

async fn chunks(scene: &Scene, run: RunId) -> Vec<Chunk> {
    let chunks = scene.records.output_from(run, 0, 10_000).await.unwrap();
    let seqs: Vec<u64> = chunks.iter().map(|chunk| chunk.seq).collect();
    assert_eq!(seqs, (0..chunks.len() as u64).collect::<Vec<_>>(), "gapless");
    chunks
}

async fn text(scene: &Scene, run: RunId) -> String {
    joined(chunks(scene, run).await)
}

/// Of a run of which output was dropped: a mark has the number of the last piece that it stands for.
async fn all_text(scene: &Scene, run: RunId) -> String {
    joined(scene.records.output_from(run, 0, 10_000).await.unwrap())
}

fn joined(chunks: Vec<Chunk>) -> String {
    String::from_utf8(chunks.into_iter().flat_map(|chunk| chunk.data).collect()).unwrap()
}

async fn final_record(scene: &Scene, run: RunId) -> RunRecord {
    eventually(&format!("the record of {run}"), || async {
        scene.records.get(run).await.ok()?.filter(|record| record.outcome.is_final())
    })
    .await
}

/// Every run that has ended is recorded so, with all that it wrote.
async fn assert_whole(scene: &Scene, file: &Path, after: &str) {
    let wanted: String = (0..LINES).map(|i| format!("line {i}\n")).collect();
    for run in ended(file) {
        let record = final_record(scene, run).await;
        assert_eq!((record.outcome, &record.output), (Outcome::Succeeded, &wanted), "{after}");
        assert_eq!(text(scene, run).await, wanted, "{after}: {run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_and_no_record_is_lost_whatever_mongodb_does() {
    let options = StackOptions { fail_points: true, ..StackOptions::default() };
    let mut stack = Stack::start_with(&options).await.unwrap();
    let fleet = Fleet::start(&stack, 2).await.unwrap();
    let file = stack.folder().join("ended");
    crate::support::put(&stack, fleet.prefix(), "talker", &talker(&file));
    whole_runs(&file, 1).await;

    stack.stop_mongo().await.unwrap();
    whole_runs(&file, 4).await;
    stack.start_mongo().await.unwrap();
    whole_runs(&file, 1).await;

    stack.pause_mongo().unwrap();
    whole_runs(&file, 6).await;
    stack.resume_mongo().unwrap();
    whole_runs(&file, 1).await;

    // Reads go on: some of what is written is refused, as by a primary that steps down, or at all.
    let mongo = stack.mongo().await.unwrap();
    for code in [11_602, 8_000] {
        let data = doc! {"failCommands": ["insert", "update"], "errorCode": code};
        let fail = doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data};
        mongo.database("admin").run_command(fail).await.unwrap();
        whole_runs(&file, 3).await;
        let off = doc! {"configureFailPoint": "failCommand", "mode": "off"};
        mongo.database("admin").run_command(off).await.unwrap();
        whole_runs(&file, 1).await;
    }
    let scene = Scene::of(stack.into(), fleet).await;
    assert_whole(&scene, &file, "after all of it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_disk_outlives_the_worker() {
    let mut stack = Stack::start().await.unwrap();
    let mut fleet = Fleet::start(&stack, 1).await.unwrap();
    let file = stack.folder().join("ended");
    stack.stop_mongo().await.unwrap();
    crate::support::put(&stack, fleet.prefix(), "talker", &talker(&file));
    whole_runs(&file, 2).await;
    let key = format!("{}/workers/w1", fleet.prefix());
    eventually("the fleet to know what waits", || async {
        let value = stack.etcdctl(&["get", "--print-value-only", &key]).ok()?;
        let registration: Registration = serde_json::from_str(&value).ok()?;
        (registration.spool_bytes > 0).then_some(())
    })
    .await;
    let before = ended(&file);
    fleet.kill9("w1").unwrap();
    stack.start_mongo().await.unwrap();
    fleet.add("w1").await.unwrap();
    let scene = Scene::of(stack.into(), fleet).await;
    assert_outlived(&scene, before).await;
}

/// As a worker that is told to leave while MongoDB does not answer to what is under way.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_written_when_the_worker_leaves_waits_for_its_next_life() {
    let stack = Stack::start().await.unwrap();
    let mut fleet = Fleet::start(&stack, 1).await.unwrap();
    let file = stack.folder().join("ended");
    crate::support::put(&stack, fleet.prefix(), "talker", &talker(&file));
    whole_runs(&file, 1).await;
    stack.pause_mongo().unwrap();
    whole_runs(&file, 1).await;
    assert!(fleet.stop("w1").await.unwrap().success());
    stack.resume_mongo().unwrap();
    fleet.add("w1").await.unwrap();
    let scene = Scene::of(stack.into(), fleet).await;
    assert_outlived(&scene, ended(&file)).await;
}

/// What the runs wrote is there, and what became of them.
async fn assert_outlived(scene: &Scene, runs: BTreeSet<RunId>) {
    let wanted: String = (0..LINES).map(|i| format!("line {i}\n")).collect();
    for run in runs {
        let record = final_record(scene, run).await;
        // What ended in the last moment was not settled, and is lost; its output may lack the end.
        if record.outcome == Outcome::Lost {
            assert!(wanted.starts_with(&text(scene, run).await), "{run}");
        } else {
            assert_eq!(record.outcome, Outcome::Succeeded);
            let output = eventually("all of its output", || async {
                let output = text(scene, run).await;
                (output.len() == wanted.len()).then_some(output)
            })
            .await;
            assert_eq!(output, wanted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_etcd_was_away_is_told_in_a_later_life() {
    let mut stack = Stack::start().await.unwrap();
    let folder = stack.folder().join("fleet");
    let options = Options { folder: Some(folder.clone()), ..Options::default() };
    let mut fleet = Fleet::start_with(&stack, 1, options).await.unwrap();
    let file = stack.folder().join("ended");
    crate::support::put(&stack, fleet.prefix(), "talker", &talker(&file));
    eventually("a start", || async {
        let prefix = format!("{}/running/", fleet.prefix());
        let live = stack.etcdctl(&["get", "--prefix", "--keys-only", &prefix]).ok()?;
        (!live.trim().is_empty()).then_some(())
    })
    .await;
    stack.stop_etcd().await.unwrap();
    let run = eventually("an end that waits on disk", || async {
        let name = fs::read_dir(folder.join("w1/ends")).ok()?.flatten().next()?.file_name();
        name.to_str()?.strip_suffix(".json")?.parse::<RunId>().ok()
    })
    .await;
    fleet.kill9("w1").unwrap();
    // The next life cannot tell it either, and leaves all the same.
    fleet.launch("w1").unwrap();
    eventually("the next life to try", || async {
        let log = fs::read_to_string(fleet.log("w1")).ok()?;
        log.contains("telling etcd how it ended").then_some(())
    })
    .await;
    assert!(fleet.stop("w1").await.unwrap().success());
    stack.start_etcd().await.unwrap();
    fleet.add("w1").await.unwrap();
    let scene = Scene::of(stack.into(), fleet).await;
    assert_eq!(final_record(&scene, run).await.outcome, Outcome::Succeeded);
    eventually("it to be forgotten", || async {
        (fs::read_dir(folder.join("w1/ends")).ok()?.count() == 0).then_some(())
    })
    .await;
}

/// etcd must not fill up with what MongoDB does not take: a full etcd fires nothing.
#[tokio::test(flavor = "multi_thread")]
async fn past_half_of_etcds_quota_outcomes_wait_on_disk_alone() {
    let mut stack = Stack::start().await.unwrap();
    let arguments = ["--etcd-quota", "1"].map(str::to_owned).to_vec();
    let options = Options { arguments, ..Options::default() };
    let fleet = Fleet::start_with(&stack, 1, options).await.unwrap();
    let file = stack.folder().join("ended");
    let done = format!("{}/done/", fleet.prefix());
    stack.stop_mongo().await.unwrap();
    crate::support::put(&stack, fleet.prefix(), "talker", &talker(&file));
    whole_runs(&file, 2).await;
    let in_etcd = |stack: &Stack| stack.etcdctl(&["get", "--prefix", "--keys-only", &done]);
    assert!(in_etcd(&stack).unwrap().contains("/done/"), "outcomes are safe there");
    // Nothing of the fleet's, in pieces that fit into an argument.
    for piece in ["a", "b", "c", "d", "e", "f"] {
        stack.etcdctl(&["put", piece, &"x".repeat(100 << 10)]).unwrap();
    }
    eventually("etcd to be relieved", || async {
        in_etcd(&stack).ok()?.trim().is_empty().then_some(())
    })
    .await;
    let before = ended(&file);
    assert!(before.len() >= 2);
    whole_runs(&file, 1).await;
    stack.start_mongo().await.unwrap();
    let scene = Scene::of(stack.into(), fleet).await;
    assert_whole(&scene, &file, "after etcd was crowded").await;
}

/// A minute is longer than every time-out on the way.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_a_minute_without_mongodb() {
    let (stopped, frozen) = tokio::join!(minute_without(true), minute_without(false));
    assert!(stopped >= 40 && frozen >= 40, "{stopped} and {frozen} runs began and ended meanwhile");
}

/// Stops or freezes MongoDB for a minute, and returns how many runs ended in it.
async fn minute_without(stops: bool) -> usize {
    let mut stack = Stack::start().await.unwrap();
    let fleet = Fleet::start(&stack, 2).await.unwrap();
    let file = stack.folder().join("ended");
    crate::support::put(&stack, fleet.prefix(), "talker", &talker(&file));
    whole_runs(&file, 1).await;
    let before = ended(&file).len();
    if stops {
        stack.stop_mongo().await.unwrap();
    } else {
        stack.pause_mongo().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let meanwhile = ended(&file).len() - before;
    if stops {
        stack.start_mongo().await.unwrap();
    } else {
        stack.resume_mongo().unwrap();
    }
    let scene = Scene::of(stack.into(), fleet).await;
    assert_whole(&scene, &file, if stops { "after a stop" } else { "after a freeze" }).await;
    meanwhile
}

/// A file system of one megabyte; none where that takes rights that are not there.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a worker may still be ending.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_output_and_nothing_else() {
    let mut stack = Stack::start().await.unwrap();
    let folder = stack.folder().join("fleet");
    let Some(_disk) = SmallDisk::mount(&folder.join("w1")) else {
        eprintln!("skipped: it takes root, to mount a small file system");
        return;
    };
    let options = Options { folder: Some(folder), ..Options::default() };
    let fleet = Fleet::start_with(&stack, 1, options).await.unwrap();
    let file = stack.folder().join("ended");
    stack.stop_mongo().await.unwrap();
    let flood = format!(
        r#"{{"name":"flood","cronExpr":"* * * * * *","concurrency":"forbid","command":"head -c 3000000 /dev/zero | tr '\\0' x; echo $CARILLON_RUN >> {}"}}"#,
        file.display()
    );
    crate::support::put(&stack, fleet.prefix(), "flood", &flood);
    whole_runs(&file, 3).await;
    // One that goes on when MongoDB is back, and says little then.
    let go = stack.folder().join("go");
    let patient = format!(
        r#"{{"name":"patient","cronExpr":"* * * * * *","concurrency":"forbid","command":"head -c 3000000 /dev/zero | tr '\\0' x; echo $CARILLON_RUN > {0}.run; while [ ! -e {0} ]; do sleep 0.1; done; echo on"}}"#,
        go.display()
    );
    crate::support::put(&stack, fleet.prefix(), "patient", &patient);
    let patient: RunId = eventually("the patient one to have written", || async {
        fs::read_to_string(go.with_extension("run")).ok()?.trim().parse().ok()
    })
    .await;
    stack.start_mongo().await.unwrap();
    let scene = Scene::of(stack.into(), fleet).await;
    eventually("nothing to wait on disk", || async {
        let log = fs::read_to_string(scene.fleet.log("w1")).ok()?;
        log.contains("all that waited on disk is written").then_some(())
    })
    .await;
    fs::write(&go, "").unwrap();
    let runs = ended(&file);
    for run in runs.into_iter().take(3).chain([patient]) {
        let record = final_record(&scene, run).await;
        assert_eq!(record.outcome, Outcome::Succeeded);
        assert!(record.output_truncated, "three megabytes on a disk of one");
        let said = if run == patient { "on\n" } else { "" };
        assert_eq!(record.output_bytes as usize, 3_000_000 + said.len());
        let output = all_text(&scene, run).await;
        assert!(output.ends_with(said), "{run}");
        let written = output.bytes().filter(|&byte| byte == b'x').count();
        let dropped: usize = output
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse::<usize>().ok())
            .sum();
        assert!(dropped > 0, "three megabytes on a disk of one");
        assert_eq!(written + dropped, 3_000_000, "all that is missing is counted");
    }
}
