//! What etcd makes of the steps: each predicate refuses what it is there to refuse, alone and in a
//! batch, and one bad step fails no other.

use carillon_core::claims::{Answer, BATCH, Claims, Refusal, Step};
use carillon_core::decide::Cursor;
use carillon_core::etcd::{Etcd, EtcdError};
use carillon_core::id::{JobName, RunId, Slot, WorkerId};
use carillon_core::keys::Keys;
use carillon_core::run::{LiveRun, Outcome, RunRecord, RunState, Running, Trigger, TriggerRequest};
use carillon_core::steps::{Grounds, Overlap, Write};
use chrono::{DateTime, Utc};
use system_tests::stack::Stack;

const JOB: &str = r#"{"command":"true","cronExpr":"@hourly"}"#;

/// One worker's view of a fleet of which it is the only one.
struct Bench {
    stack: std::sync::Arc<Stack>,
    etcd: Etcd,
    claims: Claims,
    keys: Keys,
    worker: WorkerId,
    lease: i64,
}

fn midnight() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn cursor() -> Cursor {
    Cursor {
        rev: 1,
        expr: "@hourly".into(),
        zone: "UTC".into(),
        anchor: None,
        enabled: true,
        rules: String::new(),
        through: midnight(),
        offset: 0,
        updated_at: None,
    }
}

impl Bench {
    async fn new() -> Self {
        let stack = Stack::shared().await.unwrap();
        let keys = Keys::new(&stack.fresh_prefix()).unwrap();
        let etcd = Etcd::connect(&[stack.etcd_url()], keys.clone()).await.unwrap();
        let claims = Claims::new(etcd.clone());
        let lease = etcd.grant(60).await.unwrap();
        let worker = WorkerId::new("w1").unwrap();
        let lease_hex = format!("--lease={lease:x}");
        stack.etcdctl(&["put", &lease_hex, &keys.worker(&worker), "{}"]).unwrap();
        Self { stack, etcd, claims, keys, worker, lease }
    }

    async fn revision(&self, key: &str) -> i64 {
        self.etcd.get(key).await.unwrap().map_or(0, |item| item.mod_revision)
    }

    /// A job that stands in etcd, and the grounds on which its first slot can be claimed.
    async fn job(&self, name: &str) -> Grounds {
        let job = JobName::new(name).unwrap();
        self.stack.etcdctl(&["put", &self.keys.job(&job), JOB]).unwrap();
        Grounds {
            job_revision: self.revision(&self.keys.job(&job)).await,
            job,
            on: None,
            cursor_revision: 0,
            settings_revision: 0,
            worker: self.worker.clone(),
            lease: self.lease,
        }
    }

    fn running(&self) -> Running {
        Running {
            worker: self.worker.clone(),
            lease: self.lease,
            slot: Some(Slot::at(midnight())),
            attempt: 1,
            trigger: Trigger::Schedule,
            pid: None,
            state: RunState::Claimed,
            since: midnight(),
            spawn_before: midnight(),
            grace_secs: 0,
            continues_secs: None,
            job_revision: 1,
        }
    }

    fn claim(&self, g: &Grounds, overlap: &Overlap) -> (LiveRun, Step) {
        let run = RunId::new(Utc::now());
        let value = self.running();
        let step = Step::claim_slot(&self.keys, g, &cursor(), run, &value, overlap);
        (LiveRun { job: g.job.clone(), on: None, run, fence: 0, value }, step)
    }

    /// Claims, which must succeed.
    async fn claimed(&self, g: &Grounds, overlap: &Overlap) -> LiveRun {
        let (live, step) = self.claim(g, overlap);
        match self.claims.send_one(&step).await.unwrap() {
            Answer::Done(fence) => LiveRun { fence, ..live },
            refused @ Answer::Refused(_) => panic!("{refused:?}"),
        }
    }

    async fn refused(&self, step: &Step) -> Refusal {
        match self.claims.send_one(step).await.unwrap() {
            Answer::Refused(why) => why,
            done @ Answer::Done(_) => panic!("{done:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_refused_by_each_of_its_predicates() {
    let bench = Bench::new().await;
    let g = bench.job("j").await;
    let wrong = [
        (Grounds { cursor_revision: 1, ..g.clone() }, Refusal::CursorMoved),
        (Grounds { job_revision: g.job_revision - 1, ..g.clone() }, Refusal::JobChanged),
        (Grounds { settings_revision: 1, ..g.clone() }, Refusal::SettingsChanged),
        (Grounds { lease: bench.lease + 1, ..g.clone() }, Refusal::NotRegistered),
    ];
    for (grounds, refusal) in &wrong {
        let (_, step) = bench.claim(grounds, &Overlap::Forbid);
        assert_eq!(bench.refused(&step).await, *refusal);
    }
    let live = bench.claimed(&g, &Overlap::Forbid).await;
    let after = Grounds { cursor_revision: live.fence, ..g.clone() };
    let (_, step) = bench.claim(&after, &Overlap::Forbid);
    assert_eq!(bench.refused(&step).await, Refusal::RunsChanged, "one is live");
    let newer = Overlap::Replace { applied: live.fence - 1, victims: Vec::new() };
    assert_eq!(bench.refused(&bench.claim(&after, &newer).1).await, Refusal::RunsChanged);
    let known = Overlap::Replace { applied: live.fence, victims: vec![live.clone()] };
    let next = bench.claimed(&after, &known).await;
    let kill = bench.keys.kill_run(&live.job, live.run);
    assert_eq!(bench.revision(&kill).await, next.fence, "the same transaction asks for the kill");
    // Sent again unchanged it does nothing.
    assert_eq!(bench.refused(&bench.claim(&g, &Overlap::Allow).1).await, Refusal::CursorMoved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_ended_once_and_another_attempt_only_follows_where_no_kill_was_asked() {
    let bench = Bench::new().await;
    let again = |id| {
        let request = TriggerRequest {
            kind: Trigger::Retry,
            slot: None,
            attempt: 2,
            not_before: midnight(),
            not_after: midnight(),
            on: None,
            job_created: 1,
            by: "me".into(),
        };
        (id, request)
    };
    let id = RunId::new(midnight());
    let ended = |live: &LiveRun| {
        RunRecord::of_run(live, "true", midnight()).ended(Outcome::Failed, midnight(), "no")
    };
    for (name, kill) in [("by-run", true), ("by-job", false)] {
        let g = bench.job(name).await;
        let live = bench.claimed(&g, &Overlap::Forbid).await;
        let key =
            if kill { bench.keys.kill_run(&g.job, live.run) } else { bench.keys.kill_job(&g.job) };
        bench.stack.etcdctl(&["put", &key, ""]).unwrap();
        let with = Step::end(&bench.keys, &live, &ended(&live), Some(&again(id)));
        assert_eq!(bench.refused(&with).await, Refusal::KillAsked);
        let without = Step::end(&bench.keys, &live, &ended(&live), None);
        assert!(matches!(bench.claims.send_one(&without).await, Ok(Answer::Done(_))));
        assert_eq!(bench.refused(&without).await, Refusal::NotTheRun);
    }
    // An older kill of the whole job is not meant for it.
    let g = bench.job("older").await;
    bench.stack.etcdctl(&["put", &bench.keys.kill_job(&g.job), ""]).unwrap();
    let live = bench.claimed(&g, &Overlap::Forbid).await;
    let step = Step::end(&bench.keys, &live, &ended(&live), Some(&again(id)));
    assert!(matches!(bench.claims.send_one(&step).await, Ok(Answer::Done(_))));
    assert!(bench.revision(&bench.keys.trigger(&g.job, id)).await > 0);
    // The run of a worker that lives is not settled by others.
    let g = bench.job("alive").await;
    let live = bench.claimed(&g, &Overlap::Forbid).await;
    let step = Step::settle_lost(&bench.keys, &live, &ended(&live), None);
    assert_eq!(bench.refused(&step).await, Refusal::WorkerAlive);
    bench.etcd.revoke(bench.lease).await.unwrap();
    assert!(matches!(bench.claims.send_one(&step).await, Ok(Answer::Done(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_batch_each_step_is_carried_out_or_refused_by_itself() {
    let bench = Bench::new().await;
    let mut steps = Vec::new();
    for n in 0..BATCH {
        let mut g = bench.job(&format!("j{n}")).await;
        if n % 3 == 1 {
            g.job_revision -= 1;
        }
        steps.push(bench.claim(&g, &Overlap::Forbid).1);
    }
    let answers = bench.claims.send(&steps).await;
    assert_eq!(answers.len(), BATCH);
    let mut revisions = Vec::new();
    for (n, answer) in answers.into_iter().enumerate() {
        match answer.unwrap() {
            Answer::Done(revision) => revisions.push(revision),
            Answer::Refused(why) => assert_eq!((n % 3, why), (1, Refusal::JobChanged)),
        }
    }
    revisions.dedup();
    assert_eq!(revisions.len(), 1, "one transaction, one revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_etcd_refuses_outright_fails_no_other_of_its_batch() {
    let bench = Bench::new().await;
    let mut steps = Vec::new();
    for n in 0..9 {
        let g = bench.job(&format!("j{n}")).await;
        steps.push(bench.claim(&g, &Overlap::Forbid).1);
    }
    // etcd takes 1.5 MiB in one request.
    let key = format!("{}/huge", bench.keys.fleet());
    steps[4].then.push(Write::Put(key, vec![b'x'; 2 << 20]));
    let answers = bench.claims.send(&steps).await;
    for (n, answer) in answers.iter().enumerate() {
        match answer {
            Ok(Answer::Done(_)) => assert_ne!(n, 4),
            Err(EtcdError::Refused { .. }) => assert_eq!(n, 4),
            other => panic!("{n}: {other:?}"),
        }
    }
}
