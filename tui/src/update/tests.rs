//! No I/O, no async: messages in, effects and the model out.

use carillon_core::id::{JobName, RunId};
use carillon_core::jobs::Expected;
use carillon_core::records::Page;
use carillon_core::replica::{Feed, Item};
use carillon_core::run::{Outcome, RunRecord};
use chrono::{DateTime, TimeDelta, Utc};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;

use super::update;
use crate::effect::{Danger, Effect, SaveKind};
use crate::gate::admit;
use crate::model::jobs::JobColumn;
use crate::model::layers::{KillStep, Layer};
use crate::model::{Model, View};
use crate::msg::{ActError, Health, Msg, Store};
use crate::testing::{item, model, name, now, press, running, snapshot, type_text};

fn seeded() -> Model {
    let mut model = model(false);
    update(&mut model, snapshot(), now());
    model
}

fn screen_of(model: &Model) -> &[JobName] {
    model.jobs.list.rows()
}

#[test]
fn a_snapshot_fills_every_view() {
    let mut model = seeded();
    press(&mut model, "j");
    let names: Vec<_> = screen_of(&model).iter().map(JobName::as_str).collect();
    assert_eq!(names, ["broken", "hourly", "paused", "settle", "每日清算"]);
    assert_eq!(model.runs.list.rows().len(), 2);
    assert_eq!(model.workers.list.rows().len(), 2);
    assert!(model.synced && model.dirty);
}

#[test]
fn the_filter_narrows_as_it_is_typed_and_esc_brings_the_old_one_back() {
    let mut model = seeded();
    press(&mut model, "/");
    type_text(&mut model, "label:team=pay");
    assert_eq!(screen_of(&model).len(), 2);
    press(&mut model, "enter");
    press(&mut model, "/");
    type_text(&mut model, " !settle");
    assert_eq!(screen_of(&model), [name("每日清算")]);
    press(&mut model, "esc");
    assert_eq!(screen_of(&model).len(), 2);
    press(&mut model, "esc");
    assert_eq!(screen_of(&model).len(), 5);
}

#[test]
fn what_is_typed_into_a_filter_never_reaches_the_table() {
    let mut model = seeded();
    press(&mut model, "/");
    for key in ["D", "x", "q", "r", "p", "enter"] {
        assert!(press(&mut model, key).is_empty());
    }
    assert_eq!(model.jobs.filter.text(), "Dxqrp");
    assert!(model.layers.is_empty());
}

#[test]
fn sorting_steps_over_columns_that_do_not_sort() {
    let mut model = seeded();
    press(&mut model, ">");
    assert_eq!(model.jobs.sort.column, JobColumn::Next);
    press(&mut model, "<");
    press(&mut model, "i");
    assert_eq!(screen_of(&model).first(), Some(&name("每日清算")));
    press(&mut model, "<");
    assert_eq!(model.jobs.sort.column, JobColumn::State);
    assert_eq!(screen_of(&model).first(), Some(&name("broken")));
}

#[test]
fn the_cursor_stays_on_its_job_while_others_come_and_go() {
    let mut model = seeded();
    for _ in 0..3 {
        press(&mut model, "j");
    }
    assert_eq!(model.jobs.list.selected(), Some(&name("settle")));
    let items = vec![item("jobs/aaa", crate::testing::job("aaa", "{}"), 40)];
    update(&mut model, Msg::Fleet(Feed::Changes { revision: 40, items }), now());
    model.settle();
    assert_eq!(model.jobs.list.selected(), Some(&name("settle")));
}

fn select(model: &mut Model, job: &str) {
    model.settle();
    assert!(model.jobs.list.select(&name(job)));
}

#[test]
fn a_kill_names_its_frozen_targets_with_cancel_focused() {
    let mut model = seeded();
    select(&mut model, "settle");
    assert!(press(&mut model, "x").is_empty());
    let Some(Layer::Confirm(question)) = model.layers.last() else {
        panic!("no question");
    };
    let target = &question.targets[0];
    assert!(target.starts_with("settle on w1, pid 4711, run "), "{target}");
    // Enter presses Cancel.
    assert!(press(&mut model, "enter").is_empty());
    assert!(model.layers.is_empty());

    press(&mut model, "x");
    // A new run of the job does not become a target of the old question.
    let newer = running("settle", 2, "w2", 60);
    let items = vec![newer];
    update(&mut model, Msg::Fleet(Feed::Changes { revision: 60, items }), now());
    press(&mut model, "tab");
    let effects = press(&mut model, "enter");
    let [Effect::Kill(runs)] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(runs.len(), 1);
    assert!(matches!(model.layers.last(), Some(Layer::Kill(_))));
}

#[test]
fn a_kill_is_followed_until_the_run_is_gone() {
    let mut model = seeded();
    select(&mut model, "settle");
    press(&mut model, "x");
    press(&mut model, "tab");
    press(&mut model, "enter");
    let run = crate::testing::run_id(0);
    let step = |model: &Model| match model.layers.last() {
        Some(Layer::Kill(watch)) => (watch.runs[0].step, watch.runs[0].took),
        other => panic!("{other:?}"),
    };
    assert_eq!(step(&model).0, KillStep::Asked);
    let change = |model: &mut Model, item: Item, after: i64| {
        let revision = item.mod_revision;
        let at = now() + TimeDelta::milliseconds(after);
        let items = vec![item];
        update(model, Msg::Fleet(Feed::Changes { revision, items }), at);
    };
    let kill = format!("killer/settle/{run}");
    change(&mut model, item(&kill, String::new(), 50), 100);
    assert_eq!(step(&model).0, KillStep::Requested);
    let mut terminated = running("settle", 0, "w1", 51);
    let text = String::from_utf8(terminated.value.take().unwrap()).unwrap();
    let text = text.replace(r#""state":"running""#, r#""state":"terminated""#);
    terminated.value = Some(text.into_bytes());
    change(&mut model, terminated, 300);
    assert_eq!(step(&model).0, KillStep::Terminated);
    let mut gone = running("settle", 0, "w1", 52);
    gone.value = None;
    change(&mut model, gone, 1200);
    assert_eq!(step(&model), (KillStep::Gone, Some(TimeDelta::milliseconds(1200))));
    press(&mut model, "esc");
    assert!(model.layers.is_empty());
}

#[test]
fn more_than_one_target_asks_for_their_number() {
    let mut model = seeded();
    press(&mut model, "*");
    press(&mut model, "D");
    press(&mut model, "tab");
    assert!(press(&mut model, "enter").is_empty());
    assert!(matches!(model.layers.last(), Some(Layer::Confirm(_))));
    type_text(&mut model, "4");
    assert!(press(&mut model, "enter").is_empty());
    press(&mut model, "backspace");
    type_text(&mut model, "5");
    let effects = press(&mut model, "enter");
    let [Effect::DeleteJobs(jobs)] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(jobs.len(), 5);
    assert_eq!(jobs[1], (name("hourly"), 11));
    assert_eq!(model.jobs.list.marks(), 0);
}

#[test]
fn pausing_one_job_is_one_compare_and_swap() {
    let mut model = seeded();
    select(&mut model, "hourly");
    let effects = press(&mut model, "p");
    let [Effect::SaveJob { save, .. }] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(save.expected, Expected::Revision(11));
    assert_eq!((save.what, save.job.enabled), (SaveKind::Pause, false));
    select(&mut model, "paused");
    let effects = press(&mut model, "p");
    assert!(
        matches!(effects.as_slice(), [Effect::SaveJob { save, .. }] if save.what == SaveKind::Resume)
    );
}

fn record(job: &str, n: u64, outcome: Outcome) -> RunRecord {
    let start = now() - TimeDelta::seconds(100) + TimeDelta::seconds(i64::try_from(n).unwrap());
    let mut record = RunRecord::new(RunId::new(start), &name(job), outcome, start);
    record.end_time = Some(start + TimeDelta::seconds(1));
    record
}

#[test]
fn records_become_the_last_outcome_and_the_strip() {
    let mut model = seeded();
    let records = (0..30).map(|n| {
        let outcome = if n == 29 { Outcome::Failed } else { Outcome::Succeeded };
        record("hourly", n, outcome)
    });
    update(&mut model, Msg::Recent(records.rev().collect()), now());
    let past = model.jobs.past(&name("hourly")).unwrap();
    assert_eq!(past.strip().count(), 20);
    assert_eq!(past.last().unwrap().outcome, Outcome::Failed);
    press(&mut model, "/");
    type_text(&mut model, "state:failed");
    assert_eq!(screen_of(&model), [name("hourly")]);
}

fn asked(effects: &[Effect]) -> u64 {
    match effects {
        [Effect::LoadHistory { generation, .. }] => *generation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_history_is_read_page_by_page_and_old_answers_are_dropped() {
    let mut model = seeded();
    let first = asked(&press(&mut model, "3"));
    let page = |from: u64, more| {
        let records = (from..from + 60).rev().map(|n| record("hourly", n, Outcome::Succeeded));
        let records: Vec<_> = records.collect();
        let reached = records.last().map(|r| (r.start_time, r.id));
        Ok(Page { records, more, reached })
    };
    let answer = |model: &mut Model, generation, result| {
        update(model, Msg::History { generation, result }, now());
    };
    answer(&mut model, first + 100, page(0, false));
    assert!(model.history.list.rows().is_empty());
    answer(&mut model, first, page(100, true));
    assert_eq!(model.history.list.rows().len(), 60);
    let effects = press(&mut model, "G");
    assert!(matches!(
        effects.as_slice(),
        [Effect::LoadHistory { before: Some((start, _)), .. }]
            if *start == record("hourly", 100, Outcome::Succeeded).start_time
    ));
    assert!(press(&mut model, "k").is_empty(), "one question at a time");
    answer(&mut model, asked(&effects), page(40, false));
    assert_eq!(model.history.list.rows().len(), 120);
    assert!(press(&mut model, "G").is_empty(), "there is no more");
}

#[test]
fn the_history_filter_is_asked_of_the_store_once() {
    let mut model = seeded();
    press(&mut model, "3");
    press(&mut model, "/");
    type_text(&mut model, "job:settle outcome:failed oops");
    let effects = press(&mut model, "enter");
    let [Effect::LoadHistory { filter, .. }] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(filter.job.as_ref().map(carillon_core::id::JobName::as_str), Some("settle"));
    assert_eq!(filter.outcome, Some(Outcome::Failed));
    assert_eq!(filter.text.as_deref(), Some("oops"));
}

#[test]
fn a_lost_store_keeps_what_is_known_and_says_since_when() {
    let mut model = seeded();
    let lost = now() + TimeDelta::seconds(5);
    let reason = "connection refused".to_owned();
    update(&mut model, Msg::Fleet(Feed::Lost { reason: reason.clone() }), lost);
    assert_eq!(model.replica.jobs.len(), 5);
    let etcd = &model.connection.etcd;
    assert!(etcd.is_stale());
    assert_eq!(etcd.health.as_ref().unwrap().since, lost);
    let later = lost + TimeDelta::seconds(5);
    update(&mut model, Msg::Fleet(Feed::Lost { reason }), later);
    assert_eq!(model.connection.etcd.health.as_ref().unwrap().since, lost);
    update(&mut model, snapshot(), later);
    assert!(!model.connection.etcd.is_stale());
}

#[test]
fn a_store_that_comes_back_is_asked_again() {
    let mut model = seeded();
    let generation = asked(&press(&mut model, "3"));
    let result = Err("no answer".to_owned());
    update(&mut model, Msg::History { generation, result }, now());
    let health = |up| Health { up, rtt: None, since: now(), detail: String::new() };
    let store = Store::Mongo;
    assert!(update(&mut model, Msg::Health { store, health: health(false) }, now()).is_empty());
    let effects = update(&mut model, Msg::Health { store, health: health(true) }, now());
    asked(&effects);
}

#[test]
fn a_worker_opens_its_runs_and_drains_only_after_a_question() {
    let mut model = seeded();
    press(&mut model, "4");
    assert!(press(&mut model, "d").is_empty());
    press(&mut model, "right");
    let effects = press(&mut model, "enter");
    assert!(matches!(effects.as_slice(), [Effect::Drain { on: true, .. }]));
    assert!(matches!(press(&mut model, "u").as_slice(), [Effect::Drain { on: false, .. }]));
    press(&mut model, "enter");
    assert_eq!(model.view, View::Running);
    assert_eq!(model.runs.list.rows().len(), 1);
}

#[test]
fn details_act_on_their_own_job() {
    let mut model = seeded();
    select(&mut model, "hourly");
    asked(&press(&mut model, "enter"));
    select(&mut model, "settle");
    assert_eq!(press(&mut model, "r"), [Effect::RunNow(vec![name("hourly")])]);
    press(&mut model, "q");
    assert!(model.layers.is_empty());
    assert_eq!(press(&mut model, "q"), [Effect::Quit]);
}

#[test]
fn a_refused_action_is_told() {
    let mut model = seeded();
    let result = Err(ActError::Refused("permission denied for role viewer".to_owned()));
    let action = "run 1 job".to_owned();
    update(&mut model, Msg::Acted { action, result }, now());
    let text = &model.toasts.iter().next().unwrap().text;
    assert_eq!(text, "run 1 job: permission denied for role viewer");
}

#[test]
fn read_only_mode_offers_and_does_nothing_that_changes_anything() {
    let mut model = model(true);
    update(&mut model, snapshot(), now());
    select(&mut model, "settle");
    for key in ["n", "e", "c", "p", "r", "x", "D"] {
        assert!(press(&mut model, key).is_empty(), "{key}");
        assert!(model.layers.is_empty(), "{key}");
    }
    let palette = crate::model::layers::Palette::default();
    let offered = palette.choices(model.place(), true);
    assert!(offered.iter().all(|spec| spec.danger == Danger::Reads));
}

#[test]
fn the_palette_runs_the_best_match() {
    let mut model = seeded();
    press(&mut model, ":");
    type_text(&mut model, "wor");
    press(&mut model, "enter");
    assert_eq!(model.view, View::Workers);
    press(&mut model, ":");
    type_text(&mut model, "theme carillon-light");
    let effects = press(&mut model, "enter");
    assert_eq!(effects, [Effect::LoadTheme("carillon-light".to_owned())]);
}

#[test]
fn on_a_screen_that_is_too_small_only_leaving_works() {
    let mut model = seeded();
    update(&mut model, Msg::Input(Event::Resize(40, 10)), now());
    for key in ["D", "x", "r", ":", "p"] {
        assert!(press(&mut model, key).is_empty());
        assert!(model.layers.is_empty());
    }
    assert_eq!(press(&mut model, "q"), [Effect::Quit]);
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let plain = prop_oneof![
        6 => prop::sample::select("jkgGnecprxoDRdu12347890/:?*<>i lhqy!=".chars().collect::<Vec<_>>())
            .prop_map(KeyCode::Char),
        3 => prop::sample::select(vec![
            KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::Up, KeyCode::Down,
            KeyCode::Left, KeyCode::Right, KeyCode::PageDown, KeyCode::Home, KeyCode::End,
            KeyCode::Backspace, KeyCode::Delete,
        ]),
        1 => any::<char>().prop_map(KeyCode::Char),
    ];
    let modifiers = prop_oneof![
        9 => Just(KeyModifiers::NONE),
        1 => Just(KeyModifiers::CONTROL),
        1 => Just(KeyModifiers::ALT),
    ];
    (plain, modifiers).prop_map(|(code, mods)| KeyEvent::new(code, mods))
}

#[derive(Debug, Clone)]
enum Step {
    Key(KeyEvent),
    Resize(u16, u16),
    Paste(String),
    Snapshot,
    Empty,
    Lost,
    Records(u64),
    Tick,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => any_key().prop_map(Step::Key),
        1 => (1u16..200, 1u16..60).prop_map(|(w, h)| Step::Resize(w, h)),
        1 => ".{0,30}".prop_map(Step::Paste),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Empty),
        1 => Just(Step::Lost),
        1 => (0u64..90).prop_map(Step::Records),
        1 => Just(Step::Tick),
    ]
}

fn take(model: &mut Model, step: Step, at: DateTime<Utc>) -> Vec<Effect> {
    let msg = match step {
        Step::Key(key) => Msg::Input(Event::Key(key)),
        Step::Resize(w, h) => Msg::Input(Event::Resize(w, h)),
        Step::Paste(text) => Msg::Input(Event::Paste(text)),
        Step::Snapshot => snapshot(),
        Step::Empty => Msg::Fleet(Feed::Snapshot { revision: 1, cluster: 1, items: Vec::new() }),
        Step::Lost => Msg::Fleet(Feed::Lost { reason: "gone\u{1b}[2J".to_owned() }),
        Step::Records(n) => Msg::Recent(vec![record("settle", n, Outcome::TimedOut)]),
        Step::Tick => Msg::Tick,
    };
    update(model, msg, at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_keys_and_messages_break_the_console(
        read_only: bool,
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let mut model = model(read_only);
        update(&mut model, snapshot(), now());
        let mut at = now();
        for step in steps {
            at += TimeDelta::milliseconds(700);
            let asked_before = matches!(model.layers.last(), Some(Layer::Confirm(_)));
            let keyed = matches!(step, Step::Key(_));
            for effect in take(&mut model, step, at) {
                if effect.danger() == Danger::Destroys {
                    prop_assert!(keyed && asked_before, "{effect:?} without a question");
                }
                if let Ok(admitted) = admit(effect, read_only) {
                    prop_assert!(!read_only || admitted.effect().danger() == Danger::Reads);
                }
            }
            crate::testing::render(&mut model);
        }
    }
}
