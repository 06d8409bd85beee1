//! A small fleet and a screen in memory, for the tests of `update` and `view`.

use carillon_core::id::{JobName, RunId};
use carillon_core::keys::Keys;
use carillon_core::replica::{Feed, Item};
use chrono::{DateTime, TimeDelta, Utc};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::effect::Effect;
use crate::keymap::Keymap;
use crate::model::{Model, Setup};
use crate::msg::Msg;
use crate::theme::Theme;
use crate::update::update;

/// The moment at which every test happens.
pub(crate) fn now() -> DateTime<Utc> {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

pub(crate) fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

/// A console that has heard nothing yet.
pub(crate) fn model(read_only: bool) -> Model {
    let setup = Setup {
        keys: Keys::new("/cron").unwrap(),
        etcd: "http://127.0.0.1:2379".to_owned(),
        mongo: "mongodb://127.0.0.1:27017".to_owned(),
        read_only,
        theme: Theme::default(),
        keymap: Keymap::default(),
    };
    Model::new(setup, now())
}

pub(crate) fn item(key: &str, value: String, revision: i64) -> Item {
    Item {
        key: format!("/cron/{key}").into_bytes(),
        value: Some(value.into_bytes()),
        mod_revision: revision,
        create_revision: revision,
        lease: 0,
    }
}

/// A job's JSON, with further fields.
pub(crate) fn job(name: &str, more: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(more).unwrap();
    value["name"] = name.into();
    value["command"] = format!("/opt/{name}.sh").into();
    value["cronExpr"] = "0 * * * *".into();
    value.to_string()
}

/// The id of the `n`th live run.
pub(crate) fn run_id(n: u64) -> RunId {
    format!("01KGA7N00{n:017}").parse().unwrap()
}

/// A live run, claimed 90 seconds ago.
pub(crate) fn running(job: &str, n: u64, worker: &str, revision: i64) -> Item {
    let since = (now() - TimeDelta::seconds(90)).to_rfc3339();
    let value = format!(
        r#"{{"worker":"{worker}","lease":7,"attempt":1,"pid":4711,"state":"running","since":"{since}","spawnBefore":"{since}","graceSecs":10}}"#
    );
    item(&format!("running/{job}/{}", run_id(n)), value, revision)
}

fn worker(id: &str, more: &str) -> Item {
    let (clock, started) = (now().to_rfc3339(), (now() - TimeDelta::hours(5)).to_rfc3339());
    let value = format!(
        r#"{{"host":"box-{id}","pid":77,"labels":{{"zone":"a"}},"version":"0.1.0","rulesVersion":"x","capacity":64,"running":1,"latenessP99Millis":8,"clock":"{clock}","started":"{started}"{more}}}"#
    );
    item(&format!("workers/{id}"), value, 30)
}

/// Five jobs, two live runs, two workers.
pub(crate) fn snapshot() -> Msg {
    let items = vec![
        item("jobs/settle", job("settle", r#"{"labels":{"team":"pay"}}"#), 10),
        item("jobs/hourly", job("hourly", "{}"), 11),
        item("jobs/paused", job("paused", r#"{"enabled":false}"#), 12),
        item("jobs/broken", "{\"command\":7".to_owned(), 13),
        item(
            "jobs/每日清算",
            job("每日清算", r#"{"labels":{"team":"pay"},"timezone":"Asia/Shanghai"}"#),
            14,
        ),
        running("settle", 0, "w1", 20),
        running("每日清算", 1, "w2", 21),
        worker("w1", ""),
        worker("w2", r#","draining":true"#),
    ];
    Msg::Fleet(Feed::Snapshot { revision: 35, cluster: 1, items })
}

/// Presses one chord.
pub(crate) fn press(model: &mut Model, chord: &str) -> Vec<Effect> {
    let code = match chord {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "right" => KeyCode::Right,
        "backspace" => KeyCode::Backspace,
        one => KeyCode::Char(one.chars().next().unwrap()),
    };
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    update(model, Msg::Input(Event::Key(key)), now())
}

/// Types text, character by character.
pub(crate) fn type_text(model: &mut Model, text: &str) {
    for c in text.chars() {
        press(model, c.encode_utf8(&mut [0; 4]));
    }
}

/// What the screen shows, row by row, without trailing spaces.
pub(crate) fn render(model: &mut Model) -> Vec<String> {
    let (columns, rows) = model.screen;
    model.settle();
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| crate::view::draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut lines = Vec::new();
    for y in 0..rows {
        let mut line = String::new();
        let mut x = 0;
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(crate::text::width(symbol)).unwrap().max(1);
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}
