//! etcd with a member down, with TLS and with users: the fleet goes on, and wrong credentials are
//! told without being shown.

use std::time::Duration;

use carillon_core::etcd::Etcd;
use carillon_core::records::Records;
use carillon_core::replica::Feed;
use carillon_core::run::Outcome;
use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use system_tests::certificates::{Certificates, secret_file};
use system_tests::fleet::{self, Fleet};
use system_tests::stack::{Options, Stack};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{PATIENCE, carillon, eventually, put, record};

const TICK: &str = r#"{"name":"tick","command":"echo tick","cronExpr":"* * * * * *"}"#;
/// Two endpoints that do not answer in time, and one that has to elect a leader first.
const MEMBER_LIMIT: Duration = Duration::from_secs(9);

async fn cluster() -> Stack {
    Stack::start_with(&Options { etcd_nodes: 3, ..Options::default() }).await.unwrap()
}

async fn users(arguments: &[&str]) -> Stack {
    let etcd_arguments = arguments.iter().copied().map(str::to_owned).collect();
    let options = Options { auth: true, etcd_arguments, ..Options::default() };
    Stack::start_with(&options).await.unwrap()
}

/// A fleet that has what etcd asks for.
async fn admitted(stack: &Stack, workers: usize) -> (Fleet, Records) {
    let prefix = stack.fresh_prefix();
    stack.admit(&prefix).await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), &prefix).await.unwrap();
    let arguments = stack.access_arguments();
    let options = fleet::Options { prefix: Some(prefix), arguments, ..fleet::Options::default() };
    (Fleet::start_with(stack, workers, options).await.unwrap(), records)
}

/// Moves a counter from `at`, its revision; succeeds once.
fn step(etcd: &Etcd, at: i64) -> Txn {
    let key = format!("{}counter", etcd.keys().all());
    Txn::new()
        .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, at)])
        .and_then([TxnOp::put(key, "x", None)])
}

async fn steps(etcd: &Etcd, count: usize) -> Duration {
    let mut longest = Duration::ZERO;
    let counter = format!("{}counter", etcd.keys().all());
    for _ in 0..count {
        let begun = Instant::now();
        let at = etcd.get(&counter).await.unwrap().map_or(0, |item| item.mod_revision);
        etcd.txn(step(etcd, at)).await.unwrap();
        let after = etcd.get(&counter).await.unwrap().unwrap().mod_revision;
        assert!(after > at, "the step was not taken");
        longest = longest.max(begun.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_cluster_are_killed_started_and_frozen_one_by_one() {
    let mut stack = cluster().await;
    let leader = stack.etcd_leader().await.unwrap();
    stack.kill_etcd_member(leader).unwrap();
    let next = stack.etcd_leader().await.unwrap();
    assert_ne!(next, leader);
    stack.start_etcd_member(leader).await.unwrap();
    stack.pause_etcd_member(next).unwrap();
    let third = stack.etcd_leader().await.unwrap();
    assert_ne!(third, next);
    stack.resume_etcd_member(next).unwrap();
    assert_eq!((stack.members(), stack.etcd_member_urls().len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_succeeds_while_any_one_member_is_dead() {
    let mut stack = cluster().await;
    let etcd = stack.connect(&stack.fresh_prefix()).await.unwrap();
    steps(&etcd, 1).await;
    for member in 0..stack.members() {
        stack.kill_etcd_member(member).unwrap();
        let longest = steps(&etcd, 200).await;
        println!("member {member} dead: the longest of 200 steps took {longest:?}");
        // With its endpoint left, a claim that is sent once arrives too.
        for _ in 0..20 {
            etcd.txn_once(step(&etcd, 0)).await.unwrap();
        }
        // One that begins with the dead member does not lose a claim to it either.
        for _ in 0..6 {
            let fresh = stack.connect(etcd.keys().fleet()).await.unwrap();
            fresh.txn_once(step(&etcd, 0)).await.unwrap();
        }
        stack.start_etcd_member(member).await.unwrap();
    }
    assert!(etcd.retries() > 0, "the dead member was never met");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_go_on_while_any_one_member_is_frozen() {
    let stack = cluster().await;
    let etcd = stack.connect(&stack.fresh_prefix()).await.unwrap();
    steps(&etcd, 1).await;
    let claims = stack.connect(etcd.keys().fleet()).await.unwrap();
    let lease = claims.grant(60).await.unwrap();
    let mut renewals = claims.renewals(lease).await.unwrap();
    for member in 0..stack.members() {
        stack.pause_etcd_member(member).unwrap();
        // A claim is sent once: lost in time, and the next one goes elsewhere.
        let begun = Instant::now();
        let first = claims.txn_once(step(&claims, 0)).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "a claim took {took:?}");
        let longest = steps(&etcd, 20).await;
        println!(
            "member {member} frozen: the claim {} after {took:?}, the longest step took {longest:?}",
            if first.is_ok() { "was answered" } else { "was lost" }
        );
        assert!(longest < MEMBER_LIMIT, "a step took {longest:?}");
        // A frozen leader costs an election, which a busy machine may take its time over.
        let begun = Instant::now();
        while let Err(e) = claims.txn_once(step(&claims, 0)).await {
            assert!(begun.elapsed() < MEMBER_LIMIT, "the frozen member is asked again: {e}");
        }
        let longest = steps(&etcd, 20).await;
        assert!(longest < MEMBER_LIMIT, "the frozen member is asked again: {longest:?}");
        // So does the renewing of a lease, once its stream is opened again.
        let begun = Instant::now();
        let mut renewed = renewals.renew(Duration::from_millis(2500)).await;
        while renewed.is_err() && begun.elapsed() < MEMBER_LIMIT {
            if let Ok(opened) = claims.renewals(lease).await {
                renewals = opened;
            }
            renewed = renewals.renew(Duration::from_millis(2500)).await;
        }
        assert!(renewed.unwrap(), "the lease ended");
        stack.resume_etcd_member(member).unwrap();
        stack.etcd_leader().await.unwrap();
    }
    assert!(etcd.retries() > 0, "the frozen member was never met");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_its_lease_and_fires_while_the_leader_is_frozen() {
    let stack = cluster().await;
    let (fleet, records) = plain(&stack).await;
    put(&stack, fleet.prefix(), "tick", TICK);
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded).await;
    let leader = stack.etcd_leader().await.unwrap();
    stack.pause_etcd_member(leader).unwrap();
    // Longer than a lease.
    sleep(Duration::from_secs(12)).await;
    let late = chrono::Utc::now();
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded && r.start_time > late).await;
    stack.resume_etcd_member(leader).unwrap();
    let log = std::fs::read_to_string(fleet.log("w1")).unwrap();
    assert!(!log.contains("lost the registration"), "{log}");
}

async fn plain(stack: &Stack) -> (Fleet, Records) {
    let fleet = Fleet::start(stack, 1).await.unwrap();
    let records = Records::connect(&stack.mongo_uri(), fleet.prefix()).await.unwrap();
    (fleet, records)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_to_its_record_on_an_etcd_with_tls_and_users() {
    let options = Options { tls: true, auth: true, ..Options::default() };
    let stack = Stack::start_with(&options).await.unwrap();
    let (fleet, records) = admitted(&stack, 1).await;
    let job = r#"{"name":"safe","command":"echo safe","cronExpr":"0 0 1 1 *"}"#;
    put(&stack, fleet.prefix(), "safe", job);
    let output = carillon(&stack, fleet.prefix())
        .args(stack.access_arguments())
        .args(["run", "safe", "--wait"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "safe");
    record(&records, "safe", |r| r.outcome == Outcome::Succeeded).await;
    assert!(!error.contains("can read"), "the password file is not open: {error}");
    let log = std::fs::read_to_string(fleet.log("w1")).unwrap();
    assert!(log.contains("registered as w1") && !log.contains(stack.password()), "{log}");

    // The same from the configuration file; etcd refuses clients without a certificate, and
    // clients an etcd that another authority speaks for.
    let other = stack.folder().join("other");
    std::fs::create_dir(&other).unwrap();
    let config = stack.folder().join("config.toml");
    let access = stack.access();
    let path = |path: Option<std::path::PathBuf>| path.unwrap().display().to_string();
    let (ca, cert, key) = (path(access.etcd_ca), path(access.etcd_cert), path(access.etcd_key));
    let password = path(access.etcd_password_file);
    let user = format!("etcd_user = 'worker'\netcd_password_file = '{password}'\n");
    let open = format!("{user}etcd_ca = '{ca}'\n");
    let other = Certificates::make(&other).unwrap().authority.display().to_string();
    let own = format!("etcd_cert = '{cert}'\netcd_key = '{key}'\n");
    let wrong = format!("{user}etcd_ca = '{other}'\n{own}");
    for (text, works) in [(format!("{open}{own}"), true), (open, false), (wrong, false)] {
        std::fs::write(&config, text).unwrap();
        let output = carillon(&stack, fleet.prefix())
            .args(["--config", &config.display().to_string(), "jobs"])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), works, "{error}");
        assert!(works || error.contains("check the CA, the certificate and the key"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_or_file_is_told_and_not_shown() {
    let stack = users(&[]).await;
    let prefix = stack.fresh_prefix();
    stack.admit(&prefix).await.unwrap();
    let file = stack.folder().join("wrong.password");
    secret_file(&file, "open-sesame\n").unwrap();
    let run = |program: std::process::Command, arguments: &[&str]| {
        let mut program = program;
        let output = program.args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let arguments =
        ["--etcd-user", "worker", "--etcd-password-file", &file.display().to_string(), "jobs"];
    let (code, error) = run(carillon(&stack, &prefix), &arguments);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("authentication failed") && error.contains("password"), "{error}");
    assert!(!error.contains("sesame"), "{error}");

    std::fs::remove_file(&file).unwrap();
    let (code, error) = run(carillon(&stack, &prefix), &arguments);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&format!("the etcd password file {}: ", file.display())), "{error}");

    // A worker says the same, and goes on asking: a password can be corrected on either side.
    std::fs::write(&file, "open-sesame\n").unwrap();
    let log = stack.folder().join("w.log");
    let _worker =
        system_tests::process::Spec::new(&system_tests::programs::own("carillon-worker").unwrap())
            .args(["--etcd", &stack.etcd_url(), "--mongo", &stack.mongo_uri(), "--prefix", &prefix])
            .args(["--state-dir", &stack.folder().join("w").display().to_string()])
            .args(&arguments[..4])
            .env("CARILLON_LOG", "debug")
            .spawn(&log)
            .unwrap();
    let said = eventually("the worker's complaint", || async {
        let said = std::fs::read_to_string(&log).ok()?;
        said.contains("authentication failed").then_some(said)
    })
    .await;
    assert!(said.contains("everybody can read"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_fires_on_after_etcd_has_forgotten_its_token() {
    let mut stack = users(&["--auth-token-ttl=1"]).await;
    let (fleet, records) = admitted(&stack, 1).await;
    // A token that is not used for its time is forgotten.
    let etcd = stack.connect(fleet.prefix()).await.unwrap();
    etcd.ping().await.unwrap();
    let before = etcd.retries();
    sleep(Duration::from_secs(3)).await;
    etcd.ping().await.unwrap();
    assert!(etcd.retries() > before, "the token lives");
    etcd.txn_once(step(&etcd, 0)).await.unwrap();

    // A server that is started again knows none, and a watch opens with one all the same.
    let mut feed = etcd.feed();
    let lease = etcd.grant(60).await.unwrap();
    put(&stack, fleet.prefix(), "tick", TICK);
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded).await;
    stack.stop_etcd().await.unwrap();
    stack.start_etcd().await.unwrap();
    let back = chrono::Utc::now();
    record(&records, "tick", |r| r.outcome == Outcome::Succeeded && r.start_time > back).await;
    put(&stack, fleet.prefix(), "later", &TICK.replace("tick", "later"));
    record(&records, "later", |r| r.outcome == Outcome::Succeeded).await;

    let later = format!("{}/jobs/later", fleet.prefix()).into_bytes();
    loop {
        let fed = timeout(PATIENCE, feed.recv()).await.unwrap().unwrap();
        let items = match fed {
            Feed::Part { items, .. }
            | Feed::Snapshot { items, .. }
            | Feed::Changes { items, .. } => items,
            Feed::Lost { .. } => continue,
        };
        if items.iter().any(|item| item.key == later) {
            break;
        }
    }
    let mut renewals = etcd.renewals(lease).await.unwrap();
    assert!(renewals.renew(PATIENCE).await.unwrap(), "the lease ended");
    // Users that change make every token one of yesterday.
    stack.admit("/elsewhere").await.unwrap();
    etcd.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_begins_anew_when_its_revision_is_compacted_under_it() {
    let stack = Stack::start().await.unwrap();
    let prefix = stack.fresh_prefix();
    let mut raw = stack.etcd().await.unwrap();
    for hundred in 0..110 {
        let puts: Vec<TxnOp> = (0..100)
            .map(|one| TxnOp::put(format!("{prefix}/jobs/{hundred}-{one}"), "x", None))
            .collect();
        raw.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let etcd = stack.connect(&prefix).await.unwrap();
    let watched = etcd.clone();
    let compacting = tokio::spawn(async move {
        while watched.retries() == 0 {
            let answer = raw.put("elsewhere", "x", None).await.unwrap();
            raw.compact(answer.header().unwrap().revision(), None).await.unwrap();
        }
    });
    let begun = Instant::now();
    while etcd.retries() == 0 {
        etcd.snapshot().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "no list was ever cut short");
    }
    compacting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_without_space_says_what_to_do() {
    let options = Options {
        etcd_arguments: vec!["--quota-backend-bytes=4194304".to_owned()],
        ..Options::default()
    };
    let stack = Stack::start_with(&options).await.unwrap();
    let etcd = stack.connect(&stack.fresh_prefix()).await.unwrap();
    let large = "x".repeat(1_000_000);
    let refused = eventually("etcd to be full", || async {
        // Each of them stays in the history.
        let put = TxnOp::put("/large", large.as_str(), None);
        etcd.txn(Txn::new().and_then([put])).await.err()
    })
    .await;
    assert!(!refused.is_ambiguous());
    assert!(refused.to_string().contains("etcdctl alarm disarm"), "{refused}");
}
