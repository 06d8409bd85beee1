use carillon_core::id::Slot;
use carillon_core::replica::Item;
use carillon_core::run::{RunState, Running, Trigger};
use carillon_core::steps::{VICTIMS, Write};

use super::*;
use crate::testing::{self, at, put};

fn job(command: &str, revision: i64) -> Item {
    let job = serde_json::json!({
        "name": "j", "command": command, "cronExpr": "* * * * *", "concurrency": "replace",
    });
    put("jobs/j", job.to_string(), revision)
}

/// Minutely, decided up to midnight.
fn cursor() -> Item {
    testing::cursor("j", "* * * * *", "2026-01-01T00:00:00Z")
}

/// The key of a run that was claimed at midnight with the job of revision 5.
fn claimed(run: RunId, worker: &str, revision: i64) -> Item {
    let since = at("2026-01-01T00:00:00Z");
    let running = Running {
        worker: WorkerId::new(worker).unwrap(),
        lease: 7,
        slot: Some(Slot::at(since)),
        attempt: 1,
        trigger: Trigger::Schedule,
        pid: None,
        state: RunState::Claimed,
        since,
        spawn_before: since + TimeDelta::seconds(60),
        grace_secs: 10,
        continues_secs: None,
        job_revision: 5,
    };
    put(&format!("running/j/{run}"), serde_json::to_vec(&running).unwrap(), revision)
}

/// Another worker, alive.
fn other() -> Item {
    let now = at("2026-01-01T00:00:00Z");
    let registration = serde_json::json!({
        "host": "h", "pid": 1, "version": "1", "rulesVersion": rules_version(), "capacity": 500,
        "clock": now, "started": now,
    });
    Item { lease: 7, ..put("workers/other", registration.to_string(), 4) }
}

/// The worker `w`, registered under lease 7, that has read this.
fn decider(items: Vec<Item>) -> Decider {
    let id = WorkerId::new("w").unwrap();
    let max_skew = TimeDelta::seconds(10);
    let me = Me { id, labels: BTreeMap::new(), capacity: 8, max_skew };
    let mut decider = Decider::new(Keys::new("/cron").unwrap(), me);
    let now = at("2026-01-01T00:00:30Z");
    decider.on_lease(7, now);
    decider.on_feed(&Feed::Snapshot { revision: 10_000, cluster: 1, items }, now);
    decider
}

#[test]
fn a_claim_whose_answer_was_lost_runs_only_what_was_claimed() {
    let run = RunId::new(at("2026-01-01T00:00:00Z"));
    let adopted = |job: Vec<Item>| {
        let mut decider = decider([vec![cursor(), claimed(run, "w", 7)], job].concat());
        (decider.acts(), decider.proposals(false))
    };
    let (acts, proposals) = adopted(vec![job("true", 5)]);
    assert!(matches!(&acts[..], [Act::Start { live, .. }] if live.run == run));
    assert!(proposals.is_empty());
    let changed = (vec![job("false", 8)], Outcome::Skipped, "the job changed");
    let deleted = (Vec::new(), Outcome::Missed, "the job was deleted");
    for (job, outcome, why) in [changed, deleted] {
        let (acts, proposals) = adopted(job);
        assert!(acts.is_empty(), "{acts:?}");
        let [Proposal { effect: Effect::Records(record), .. }] = &proposals[..] else { panic!() };
        assert_eq!((record.id, record.outcome), (run, outcome));
        assert_eq!(record.err, format!("{why} before the run could start"));
    }
}

#[test]
fn a_run_that_replaces_more_than_one_step_can_kill_is_claimed_once_all_are_asked_to_end() {
    let count = 2 * VICTIMS + 5;
    let runs = (10..)
        .take(count)
        .map(|revision| claimed(RunId::new(at("2026-01-01T00:00:00Z")), "other", revision));
    let mut decider =
        decider([other(), job("true", 5), cursor()].into_iter().chain(runs).collect());
    let mut now = at("2026-01-01T00:01:00Z");
    let (mut killed, mut revision) = (BTreeSet::new(), 10_000);
    for claims in [false, false, true] {
        // The other one comes first, and does nothing.
        let mut proposals = Vec::new();
        while proposals.is_empty() {
            now += TimeDelta::milliseconds(100);
            assert!(now < at("2026-01-01T00:01:30Z"), "{} are killed", killed.len());
            decider.tick(now);
            proposals = decider.proposals(false);
        }
        let proposal = proposals.pop().unwrap();
        let puts = |part: &str| {
            let of_part = |write: &Write| match write {
                Write::Put(key, _) => key.contains(part).then(|| key.clone()),
                Write::Delete(_) => None,
            };
            proposal.step.then.iter().filter_map(of_part).collect::<Vec<_>>()
        };
        assert_eq!(puts("/running/").len(), usize::from(claims));
        assert_eq!(decider.runs.load(), usize::from(claims), "a claim that was not made counts");
        killed.extend(puts("/killer/"));
        revision += 1;
        decider.on_answer(proposal, Ok(Answer::Done(revision)), now);
    }
    assert_eq!(killed.len(), count);
    assert!(decider.acts().is_empty(), "it waits for the end of those that it replaces");
}

/// The first claim of the job, which etcd has carried out at this revision.
fn claim(decider: &mut Decider, revision: i64) -> RunId {
    let now = at("2026-01-01T00:01:00Z");
    decider.tick(now);
    let proposal = decider.proposals(false).pop().unwrap();
    let Effect::Begins(live, _) = &proposal.effect else { panic!() };
    let run = live.run;
    decider.on_answer(proposal, Ok(Answer::Done(revision)), now);
    run
}

#[test]
fn a_run_that_ended_is_not_begun_again_after_a_list_from_before_its_claim() {
    let items = vec![job("true", 5), cursor()];
    let mut decider = decider(items.clone());
    let run = claim(&mut decider, 10_005);
    assert!(matches!(&decider.acts()[..], [Act::Start { live, .. }] if live.run == run));
    decider.on_over(run, Some(10_007));
    let now = at("2026-01-01T00:01:01Z");
    decider.on_feed(&Feed::Snapshot { revision: 10_000, cluster: 1, items }, now);
    // The watch from there on, cut between the claim and the end.
    let items = vec![claimed(run, "w", 10_005)];
    decider.on_feed(&Feed::Changes { revision: 10_005, items }, now);
    assert!(decider.acts().is_empty(), "it runs twice");
    let gone = Item { value: None, ..claimed(run, "w", 10_007) };
    decider.on_feed(&Feed::Changes { revision: 10_007, items: vec![gone] }, now);
    assert!(decider.acts().is_empty());
}

#[test]
fn a_claim_that_is_answered_after_the_last_call_ends_at_once() {
    let mut decider = decider(vec![job("true", 5), cursor()]);
    decider.call_last("the worker was told to stop at once");
    assert!(decider.acts().is_empty());
    // It was on its way.
    decider.announced = false;
    let run = claim(&mut decider, 10_005);
    let acts = decider.acts();
    let [Act::Start { live, .. }, Act::Abandon(ended, _)] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!((live.run, *ended), (run, run));
}

/// A claimed run may take as long to start as it might when it was claimed, whatever the clock shows
/// by then: taken for missed it would be wrong, and by the right clock nobody else may run it.
#[test]
fn a_clock_that_is_set_after_the_claim_changes_nothing_about_the_start() {
    let by = TimeDelta::seconds(90);
    let (now, set) = (at("2026-01-01T00:01:00Z"), at("2026-01-01T00:02:30Z"));
    for before_the_answer in [true, false] {
        let mut decider = decider(vec![job("true", 5), cursor()]);
        decider.tick(now);
        let proposal = decider.proposals(false).pop().unwrap();
        let Effect::Begins(live, _) = &proposal.effect else { panic!() };
        let spawn_before = live.value.spawn_before;
        let answer = Ok(Answer::Done(10_005));
        if before_the_answer {
            decider.on_clock_set(by, set);
            decider.on_answer(proposal, answer, set);
        } else {
            decider.on_answer(proposal, answer, now);
            decider.on_clock_set(by, set);
        }
        let acts = decider.acts();
        let [Act::Start { live, start_before, .. }] = &acts[..] else { panic!("{acts:?}") };
        assert_eq!(*start_before, spawn_before + by);
        assert_eq!(live.value.spawn_before, spawn_before, "what others go by");
    }
}
