//! Every view on three sizes of screen, drawn into memory.

use carillon_core::id::RunId;
use carillon_core::records::Page;
use carillon_core::replica::Feed;
use carillon_core::run::{Outcome, RunRecord};
use chrono::TimeDelta;
use crossterm::event::Event;

use crate::model::Model;
use crate::msg::{Health, Msg, Store};
use crate::testing::{model, name, now, press, render, run_id, snapshot, type_text};
use crate::update::update;

const SIZES: [(u16, u16); 3] = [(160, 50), (80, 24), (60, 15)];

fn at(size: (u16, u16)) -> Model {
    let mut model = model(false);
    update(&mut model, Msg::Input(Event::Resize(size.0, size.1)), now());
    update(&mut model, snapshot(), now());
    let rtt = Some(std::time::Duration::from_micros(1_250));
    for store in [Store::Etcd, Store::Mongo] {
        let health = Health { up: true, rtt, since: now(), detail: String::new() };
        update(&mut model, Msg::Health { store, health }, now());
    }
    update(
        &mut model,
        Msg::Recent(vec![record(Outcome::Failed), record(Outcome::Succeeded)]),
        now(),
    );
    let mut live = RunRecord::new(run_id(0), &name("settle"), Outcome::Running, now());
    live.cpu_millis = Some(1_500);
    live.max_rss_bytes = Some(3 << 20);
    live.last_line = Some("half \u{1b}[2Jdone".to_owned());
    update(&mut model, Msg::Live(vec![live]), now());
    model.settle();
    model
}

fn record(outcome: Outcome) -> RunRecord {
    let ago = if outcome == Outcome::Failed { 30 } else { 3_630 };
    let start = now() - TimeDelta::seconds(ago);
    let mut record = RunRecord::new(RunId::new(start), &name("hourly"), outcome, start);
    record.end_time = Some(start + TimeDelta::milliseconds(2_500));
    record.worker = "w1".to_owned();
    if outcome == Outcome::Failed {
        record.exit_code = Some(3);
        record.err = "exit code 3".to_owned();
    }
    record
}

fn row<'a>(screen: &'a [String], word: &str) -> &'a str {
    let found = screen.iter().find(|line| line.contains(word));
    found.unwrap_or_else(|| panic!("no {word} in\n{}", screen.join("\n")))
}

fn has(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line:?}");
    }
}

#[test]
fn jobs_at_every_size() {
    for size in SIZES {
        let screen = render(&mut at(size));
        has(&screen[0], &["carillon", "[jobs]", "workers"]);
        has(row(&screen, "hourly"), &["✓ enabled", "in 1h", "hourly"]);
        has(row(&screen, "settle"), &["» running"]);
        has(row(&screen, "broken"), &["✗ broken"]);
        has(row(&screen, "每日清算"), &["» running"]);
        has(screen.last().unwrap(), &["etcd ✓ 1.2ms rev 35", "mongo ✓ 1.2ms"]);
    }
    let narrow = render(&mut at((80, 24)));
    has(row(&narrow, "hourly"), &["0 * * * *", "failed 27s", "2.5s"]);
    let wide = render(&mut at((160, 50)));
    has(row(&wide, "hourly"), &["13:00:00 UTC", "▪✗"]);
    has(row(&wide, "每日清算"), &["21:00:00 CST", "team=pay"]);
}

#[test]
fn running_at_every_size() {
    for size in SIZES {
        let mut model = at(size);
        press(&mut model, "2");
        let screen = render(&mut model);
        has(row(&screen, "settle"), &["w1", "1m30s"]);
    }
    let mut model = at((160, 50));
    press(&mut model, "2");
    let screen = render(&mut model);
    let line = row(&screen, "settle");
    has(line, &["running", "4711", "1.5s", "3.0 MiB", "half", "done"]);
    assert!(!line.contains('\u{1b}'), "{line:?}");
}

#[test]
fn history_at_every_size() {
    for size in SIZES {
        let mut model = at(size);
        press(&mut model, "3");
        assert!(render(&mut model).iter().any(|l| l.contains("reading…")));
        let records = vec![record(Outcome::Failed), record(Outcome::Succeeded)];
        let generation = 1;
        let result = Ok(Page { records, ..Page::default() });
        update(&mut model, Msg::History { generation, result }, now());
        let screen = render(&mut model);
        has(row(&screen, "failed"), &["Sat 11:59:30", "hourly", "2.5s"]);
        has(row(&screen, " ok "), &["Sat 10:59:30", "hourly"]);
    }
}

#[test]
fn workers_at_every_size() {
    for size in SIZES {
        let mut model = at(size);
        press(&mut model, "4");
        let screen = render(&mut model);
        has(row(&screen, "w1"), &["ready", "1/64", "8ms"]);
        has(row(&screen, "w2"), &["draining"]);
    }
    let mut model = at((160, 50));
    press(&mut model, "4");
    has(row(&render(&mut model), "w1"), &["box-w1 (77)", "zone=a", "5h", "0.1.0"]);
}

#[test]
fn details_help_palette_and_questions_fit_every_size() {
    for size in SIZES {
        let mut model = at(size);
        model.jobs.list.select(&name("settle"));
        press(&mut model, "enter");
        let screen = render(&mut model);
        has(row(&screen, "settle"), &["running", "revision 10"]);
        row(&screen, "0 * * * *");
        row(&screen, "very hour");
        press(&mut model, "x");
        let screen = render(&mut model);
        row(&screen, "settle on w1, pid 4711");
        has(row(&screen, "> Cancel <"), &["Kill"]);
        press(&mut model, "esc");
        press(&mut model, "esc");
        press(&mut model, "?");
        has(row(&render(&mut model), "write a new job"), &["n"]);
        press(&mut model, "esc");
        press(&mut model, ":");
        type_text(&mut model, "drai");
        row(&render(&mut model), "no such command here");
        press(&mut model, "esc");
        press(&mut model, "*");
        press(&mut model, "D");
        let screen = render(&mut model);
        row(&screen, "type 5 to go on:");
        row(&screen, "> Cancel <");
    }
}

#[test]
fn a_broken_job_shows_its_error_and_its_text() {
    let mut model = at((80, 24));
    model.jobs.list.select(&name("broken"));
    press(&mut model, "enter");
    let screen = render(&mut model);
    row(&screen, "not JSON");
    row(&screen, "{\"command\":7");
}

#[test]
fn empty_states_say_what_to_do_next() {
    let mut model = model(false);
    row(&render(&mut model), "connecting to etcd at http://127.0.0.1:2379");
    let reason = "connection refused".to_owned();
    update(&mut model, Msg::Fleet(Feed::Lost { reason }), now());
    let screen = render(&mut model);
    has(row(&screen, "does not answer"), &["http://127.0.0.1:2379", "connection refused"]);
    has(screen.last().unwrap(), &["etcd ✗ not reached"]);
    let items = Vec::new();
    update(&mut model, Msg::Fleet(Feed::Snapshot { revision: 1, cluster: 1, items }), now());
    let screen = render(&mut model);
    row(&screen, "no jobs yet");
    has(row(&screen, "press n"), &["carillon apply -f FILE"]);
    press(&mut model, "4");
    row(&render(&mut model), "no worker is registered: nothing fires");
    press(&mut model, "2");
    row(&render(&mut model), "nothing is running");
}

#[test]
fn a_lost_store_is_told_with_the_age_of_the_data() {
    let mut model = at((80, 24));
    let later = now() + TimeDelta::seconds(60);
    let reason = "connection refused".to_owned();
    update(&mut model, Msg::Fleet(Feed::Lost { reason }), later);
    update(&mut model, Msg::Tick, later + TimeDelta::seconds(12));
    let screen = render(&mut model);
    row(&screen, "etcd has been away for 12s");
    has(screen.last().unwrap(), &["etcd ✗ away, data 1m old", "mongo ✓"]);
    row(&screen, "hourly");
}

#[test]
fn read_only_is_marked_and_hides_what_changes() {
    let mut model = model(true);
    update(&mut model, snapshot(), now());
    let screen = render(&mut model);
    has(screen.last().unwrap(), &["READ-ONLY"]);
    assert!(!screen.iter().any(|l| l.contains("n new") || l.contains("x kill")));
    press(&mut model, "?");
    assert!(!render(&mut model).iter().any(|l| l.contains("write a new job")));
}

#[test]
fn below_the_smallest_size_one_line_says_what_is_needed() {
    let mut model = model(false);
    update(&mut model, Msg::Input(Event::Resize(59, 15)), now());
    assert_eq!(render(&mut model)[0], "at least 60x15 is needed, this is 59x15");
    update(&mut model, Msg::Input(Event::Resize(3, 1)), now());
    assert_eq!(render(&mut model), ["at"]);
}
