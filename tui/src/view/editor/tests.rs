use carillon_core::id::JobName;
use carillon_core::job::{Job, JobEntry};
use carillon_core::jobs::Expected;
use chrono_tz::Asia::Shanghai;
use chrono_tz::Europe::Berlin;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use super::*;
use crate::effect::{SaveJob, SaveKind};
use crate::theme::Depth;
use crate::update::editor::{Ctx, EditorReply, key, paste};

const STORED: &str = r#"{"name":"settle","command":"set -e\n/opt/settle.sh --all","cronExpr":"0 1 * * *","timezone":"Asia/Shanghai","labels":{"env":"prod","team":"pay"},"timeoutSecs":5400,"retries":{"max":2,"delaySecs":10,"maxDelaySecs":600,"jitter":true},"x-team":{"a":[1,2]}}"#;

fn now() -> DateTime<Utc> {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn ctx() -> Ctx {
    Ctx { now: now(), zone: Tz::UTC }
}

fn entry(text: &str, revision: i64) -> JobEntry {
    JobEntry::read(JobName::new("settle").unwrap(), text.as_bytes(), revision, 1)
}

fn send(editor: &mut Editor, code: KeyCode, mods: KeyModifiers) -> EditorReply {
    key(editor, KeyEvent::new(code, mods), &ctx())
}

/// Keys by name; anything else is typed.
fn press(editor: &mut Editor, keys: &[&str]) -> EditorReply {
    let mut reply = EditorReply::Stay;
    for word in keys {
        let named = match *word {
            "tab" => Some((KeyCode::Tab, KeyModifiers::NONE)),
            "shift-tab" => Some((KeyCode::BackTab, KeyModifiers::SHIFT)),
            "esc" => Some((KeyCode::Esc, KeyModifiers::NONE)),
            "enter" => Some((KeyCode::Enter, KeyModifiers::NONE)),
            "space" => Some((KeyCode::Char(' '), KeyModifiers::NONE)),
            "end" => Some((KeyCode::End, KeyModifiers::NONE)),
            "ctrl-s" => Some((KeyCode::Char('s'), KeyModifiers::CONTROL)),
            "clear" => Some((KeyCode::Char('u'), KeyModifiers::CONTROL)),
            _ => None,
        };
        if let Some((code, mods)) = named {
            reply = send(editor, code, mods);
        } else {
            for c in word.chars() {
                reply = send(editor, KeyCode::Char(c), KeyModifiers::NONE);
            }
        }
    }
    reply
}

fn saved(reply: EditorReply) -> SaveJob {
    match reply {
        EditorReply::Save(save) => save,
        other => panic!("{other:?}"),
    }
}

fn buffer_in(editor: &Editor, theme: &Theme, cols: u16, rows: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(cols, rows)).unwrap();
    let drawn = terminal.draw(|frame| {
        let area = frame.area();
        frame.buffer_mut().set_style(area, theme.get(Role::Text));
        draw(frame, area, editor, theme, now());
    });
    drawn.unwrap().buffer.clone()
}

fn screen(editor: &Editor, cols: u16, rows: u16) -> Vec<String> {
    let buffer = buffer_in(editor, &Theme::default(), cols, rows);
    let rows = buffer.area.rows();
    let lines = rows.map(|row| {
        let mut line = String::new();
        let mut skip = 0;
        for at in row.columns() {
            let symbol = buffer[(at.x, at.y)].symbol();
            if skip == 0 {
                line.push_str(symbol);
                skip = text::grapheme_width(symbol);
            }
            skip -= 1;
        }
        line.trim_end().to_owned()
    });
    lines.collect()
}

fn show(title: &str, lines: &[String], cols: u16) {
    println!("{title}\n┌{0}┐", "─".repeat(cols.into()));
    for line in lines {
        let rest = usize::from(cols).saturating_sub(text::width(line));
        println!("│{line}{:rest$}│", "");
    }
    println!("└{}┘", "─".repeat(cols.into()));
}

#[test]
fn it_looks_right_at_every_size() {
    for (cols, rows) in [(160, 49), (80, 23), (60, 14)] {
        let mut editor = Editor::create();
        show("new", &screen(&editor, cols, rows), cols);
        press(&mut editor, &["settle", "tab", "0 24 * * *"]);
        let lines = screen(&editor, cols, rows);
        show("wrong", &lines, cols);
        assert!(lines[0].starts_with("  New job  "));
        let at = lines.iter().position(|l| l.contains("0 24 * * *")).unwrap();
        assert!(
            lines[at + 1].starts_with("                  ^^ hour: 24 is out of"),
            "{}",
            lines[at + 1]
        );

        let mut editor = Editor::edit(&entry(STORED, 1042));
        press(&mut editor, &["tab"]);
        let lines = screen(&editor, cols, rows);
        show("edit", &lines, cols);
        assert!(lines[0].starts_with("  Edit settle") && lines[0].ends_with("revision 1042"));
        assert!(lines.iter().any(|l| l.contains("every day at 01:00")));
        assert!(
            lines
                .iter()
                .any(|l| l.contains("Wed 25 Nov") && l.contains("01:00:00") && l.contains("in 5h"))
        );
        for stop in 0..12 {
            press(&mut editor, &["tab"]);
            let Body::Form(form) = &editor.body else { panic!() };
            let label = form.focus.label();
            let lines = screen(&editor, cols, rows);
            assert!(
                lines.iter().any(|l| l.contains(label)),
                "{label} at stop {stop} is out of sight"
            );
        }
        press(&mut editor, &["shift-tab", "shift-tab"]);
        show("end", &screen(&editor, cols, rows), cols);
    }
}

#[test]
fn typing_makes_a_job() {
    let mut editor = Editor::create();
    let keys = [
        "backup",
        "tab",
        "*/5 * * * *",
        "tab",
        "Europe/Berlin",
        "tab",
        "set -e",
        "enter",
        "run",
        "tab",
        "tab",
        "space",
        "tab",
        "1h30m",
        "tab",
        "tab",
        "tab",
        "www",
        "tab",
        "/opt",
        "tab",
        "team=pay env=prod",
        "tab",
        "Nightly 每日",
    ];
    press(&mut editor, &keys);
    let save = saved(press(&mut editor, &["ctrl-s"]));
    assert_eq!((save.expected, save.what), (Expected::Absent, SaveKind::Create));
    let json = r#"{"name":"backup","command":"set -e\nrun","cronExpr":"*/5 * * * *","timezone":"Europe/Berlin","description":"Nightly 每日","labels":{"env":"prod","team":"pay"},"concurrency":"allow","timeoutSecs":5400,"user":"www","cwd":"/opt"}"#;
    assert_eq!(save.job.to_json(), json);
    assert!(editor.saving);
    assert_eq!(press(&mut editor, &["x", "ctrl-s"]), EditorReply::Stay);
    assert_eq!(saved_text(&editor, Field::Description), "Nightly 每日");
}

fn saved_text(editor: &Editor, field: Field) -> String {
    match &editor.body {
        Body::Form(form) => form.text(field),
        Body::Raw(raw) => raw.text.text(),
    }
}

#[test]
fn everything_else_of_a_job_stays() {
    let mut editor = Editor::edit(&entry(STORED, 7));
    assert!(!editor.is_dirty());
    assert_eq!(press(&mut editor, &["ctrl-s"]), EditorReply::Stay);
    assert!(screen(&editor, 80, 23)[21].contains("nothing was changed"));
    press(&mut editor, &["clear", "0 2 * * *"]);
    let save = saved(press(&mut editor, &["ctrl-s"]));
    assert_eq!((save.expected, save.what), (Expected::Revision(7), SaveKind::Edit));
    assert_eq!(save.job.to_json(), STORED.replace("0 1 * * *", "0 2 * * *"));
}

#[test]
fn only_enabling_is_a_pause_or_a_resume() {
    let mut editor = Editor::edit(&entry(STORED, 7));
    let save = saved(press(&mut editor, &["tab", "tab", "tab", "space", "ctrl-s"]));
    assert_eq!((save.what, save.job.enabled), (SaveKind::Pause, false));
    let paused = STORED.replace("\"command\"", "\"enabled\":false,\"command\"");
    let mut editor = Editor::edit(&entry(&paused, 7));
    assert!(screen(&editor, 80, 23).iter().any(|l| l.contains("next (paused)")));
    let save = saved(press(&mut editor, &["tab", "tab", "tab", "space", "ctrl-s"]));
    assert_eq!(save.what, SaveKind::Resume);
}

#[test]
fn what_is_wrong_is_said_where_it_is() {
    let mut editor = Editor::create();
    let lines = screen(&editor, 80, 23);
    assert!(!lines.iter().any(|l| l.contains('✗')), "an empty form complains of nothing");
    assert_eq!(press(&mut editor, &["ctrl-s"]), EditorReply::Stay);
    let lines = screen(&editor, 80, 23);
    assert!(lines.iter().any(|l| l.starts_with("✗ Name")), "{lines:#?}");
    assert!(lines[21].starts_with("  Name: a name is needed"), "{}", lines[21]);
    press(
        &mut editor,
        &[
            "a/b",
            "tab",
            "0 1 * * *",
            "tab",
            "Mars",
            "tab",
            "x",
            "tab",
            "tab",
            "tab",
            "soon",
            "ctrl-s",
        ],
    );
    let lines = screen(&editor, 80, 23);
    show("wrong", &lines, 80);
    for label in ["✗ Name", "✗ Time zone", "✗ Time-out"] {
        assert!(lines.iter().any(|l| l.starts_with(label)), "{label}");
    }
    assert!(lines[21].starts_with("  Name: "), "{}", lines[21]);
}

#[test]
fn hidden_fields_can_be_wrong_too() {
    let text = STORED.replace("\"x-team\"", "\"umask\":\"999\",\"x-team\"");
    let editor = Editor::edit(&entry(&text, 3));
    assert!(matches!(editor.body, Body::Raw(_)), "only raw text can mend it");
    let wrong = STORED.replace("0 1 * * *", "0 1 * * * * * *");
    let editor = Editor::edit(&entry(&wrong, 3));
    assert!(matches!(editor.body, Body::Form(_)), "the form can mend it");
    assert!(screen(&editor, 80, 23).iter().any(|l| l.starts_with("✗ Schedule")));
}

#[test]
fn a_broken_value_opens_as_it_stands() {
    let text = "{\"name\":\"settle\",\"command\":\"x\",\"cronExpr\":\"@daily\",}";
    let mut editor = Editor::edit(&entry(text, 9));
    let lines = screen(&editor, 80, 23);
    show("raw", &lines, 80);
    assert!(lines[2].starts_with("  ✗ not JSON: trailing comma"), "{}", lines[2]);
    assert_eq!(press(&mut editor, &["ctrl-s"]), EditorReply::Stay);
    press(&mut editor, &["end"]);
    send(&mut editor, KeyCode::Left, KeyModifiers::NONE);
    send(&mut editor, KeyCode::Backspace, KeyModifiers::NONE);
    let lines = screen(&editor, 80, 23);
    assert!(lines[2].starts_with("  ✓ this is a job"), "{}", lines[2]);
    let save = saved(press(&mut editor, &["ctrl-s"]));
    assert_eq!((save.expected, save.what), (Expected::Revision(9), SaveKind::Edit));
    assert_eq!((save.job.name.as_str(), save.job.cron_expr.as_str()), ("settle", "@daily"));
    let hostile = Editor::edit(&entry("\u{1b}[2J\u{202e}{]\tx\n每日", 9));
    let lines = screen(&hostile, 60, 14);
    assert!(lines.iter().any(|l| l.contains("^[[2J<U+202E>{]")), "{lines:#?}");
}

#[test]
fn esc_asks_only_when_something_would_be_lost() {
    let mut editor = Editor::create();
    assert_eq!(press(&mut editor, &["esc"]), EditorReply::Close);
    assert_eq!(press(&mut editor, &["x", "esc"]), EditorReply::AskDiscard);
    assert_eq!(editor.title(), "the new job x");
    press(&mut editor, &["clear"]);
    assert_eq!(press(&mut editor, &["esc"]), EditorReply::Close);
    let mut copy = Editor::copy_of(&Job::from_json(STORED.as_bytes()).unwrap());
    assert_eq!((copy.heading(), saved_text(&copy, Field::Name)), ("Copy of settle", String::new()));
    assert_eq!(press(&mut copy, &["esc"]), EditorReply::Close);
    let save = saved(press(&mut copy, &["settle2", "ctrl-s"]));
    assert_eq!(save.job.to_json(), STORED.replace("\"settle\"", "\"settle2\""));
}

#[test]
fn a_conflict_is_shown_and_nothing_is_overwritten_silently() {
    let mut editor = Editor::edit(&entry(STORED, 7));
    press(&mut editor, &["clear", "0 2 * * *", "tab", "tab"]);
    paste(&mut editor, "# mine\n", &ctx());
    saved(press(&mut editor, &["ctrl-s"]));
    let theirs = STORED
        .replace("0 1 * * *", "0 3 * * *")
        .replace("--all", "--all --fast")
        .replace("\"team\":\"pay\"", "\"team\":\"ops\"");
    editor.conflict(Some(entry(&theirs, 9)));
    for (cols, rows) in [(80, 23), (60, 14)] {
        let lines = screen(&editor, cols, rows);
        show("conflict", &lines, cols);
        assert!(lines[2].starts_with("  command  changed by both"));
        assert!(
            lines[rows as usize - 2]
                .contains("changed by somebody else meanwhile (revision 9); not saved")
        );
    }
    let lines = screen(&editor, 80, 23);
    for text in [
        "mine    + # mine",
        "theirs  - /opt/settle.sh --all",
        "was     0 1 * * *",
        "mine    0 2 * * *",
        "theirs  0 3 * * *",
        "labels  changed by them",
    ] {
        assert!(lines.iter().any(|l| l.contains(text)), "{text}");
    }
    assert_eq!(press(&mut editor, &["m"]), EditorReply::Stay);
    let lines = screen(&editor, 80, 23);
    assert!(lines[0].ends_with("revision 9") && lines[21].contains("stand on revision 9"));
    let save = saved(press(&mut editor, &["ctrl-s"]));
    assert_eq!(save.expected, Expected::Revision(9));
    assert_eq!(save.job.cron_expr, "0 2 * * *", "both changed it: mine, as was asked");
    assert_eq!(save.job.labels["team"], "ops", "only they changed it: theirs");
    assert!(save.job.command.starts_with("# mine\nset -e"));
    assert!(save.job.extra.contains_key("x-team"));
}

#[test]
fn a_conflict_can_be_given_up_or_put_off() {
    let make = || {
        let mut editor = Editor::edit(&entry(STORED, 7));
        press(&mut editor, &["clear", "0 2 * * *"]);
        saved(press(&mut editor, &["ctrl-s"]));
        editor
    };
    let theirs = STORED.replace("0 1 * * *", "0 3 * * *");
    let mut editor = make();
    editor.conflict(Some(entry(&theirs, 9)));
    assert_eq!(press(&mut editor, &["t"]), EditorReply::Stay);
    assert_eq!(saved_text(&editor, Field::Schedule), "0 3 * * *");
    assert!(!editor.is_dirty() && editor.revision() == Some(9));

    let mut editor = make();
    editor.conflict(Some(entry(&theirs, 9)));
    assert_eq!(press(&mut editor, &["esc"]), EditorReply::Stay);
    assert_eq!(saved(press(&mut editor, &["ctrl-s"])).expected, Expected::Revision(7));

    let mut editor = make();
    editor.conflict(None);
    assert!(screen(&editor, 80, 23)[21].contains("deleted by somebody else"));
    press(&mut editor, &["m"]);
    let save = saved(press(&mut editor, &["ctrl-s"]));
    assert_eq!((save.expected, save.what), (Expected::Absent, SaveKind::Create));

    let mut editor = make();
    editor.conflict(None);
    assert_eq!(press(&mut editor, &["t"]), EditorReply::Close);

    let mut editor = Editor::create();
    press(&mut editor, &["settle", "tab", "@daily", "tab", "tab", "x"]);
    saved(press(&mut editor, &["ctrl-s"]));
    editor.conflict(Some(entry(STORED, 7)));
    assert!(editor.conflict.is_none());
    assert!(screen(&editor, 80, 23)[21].contains("a job named settle exists already"));
}

#[test]
fn a_failed_save_loses_nothing() {
    let mut editor = Editor::edit(&entry(STORED, 7));
    press(&mut editor, &["clear", "0 2 * * *", "ctrl-s"]);
    editor.failed("etcd 10.0.0.5:2379: no answer");
    let lines = screen(&editor, 80, 23);
    assert!(lines[21].contains("not saved: etcd 10.0.0.5:2379: no answer"));
    assert_eq!(saved(press(&mut editor, &["ctrl-s"])).job.cron_expr, "0 2 * * *");
}

#[test]
fn clock_changes_are_announced() {
    let text = STORED.replace("0 1 * * *", "30 2 29 3 *").replace("Asia/Shanghai", "Europe/Berlin");
    let editor = Editor::edit(&entry(&text, 7));
    let narrow = screen(&editor, 80, 23);
    let wide = screen(&editor, 160, 49);
    let Body::Form(form) = &editor.body else { panic!() };
    assert_eq!(form.zone(Shanghai), Some(Berlin));
    // 2027-03-28 is the change; 29 March is not, so nothing is said.
    assert!(!narrow.iter().chain(&wide).any(|l| l.contains("clock change")));
    let text = text.replace("30 2 29 3 *", "30 2 28 3 *");
    let editor = Editor::edit(&entry(&text, 7));
    for (cols, rows) in [(80, 23), (160, 49)] {
        let lines = screen(&editor, cols, rows);
        let moved = "moved from 02:30 by the clock change";
        assert!(lines.iter().any(|l| l.contains(moved)), "{lines:#?}");
    }
    let text = text.replace("30 2 28 3 *", "*/30 2 28,29 3 *");
    let editor = Editor::edit(&entry(&text, 7));
    for (cols, rows) in [(80, 23), (160, 49)] {
        let lines = screen(&editor, cols, rows);
        show("skipped", &lines, cols);
        assert!(lines.iter().any(|l| l.contains("2027-03-28 02:00-02:59 does not exist")));
        assert!(lines.iter().any(|l| l.contains("29 Mar")), "{lines:#?}");
    }
}

#[test]
fn long_words_have_a_second_row() {
    let text = STORED.replace("0 1 * * *", "0 1 1,15W,LW,L * MON,FRI#2");
    let editor = Editor::edit(&entry(&text, 7));
    for (cols, rows) in [(160, 49), (80, 23), (60, 14)] {
        let lines = screen(&editor, cols, rows);
        show("long", &lines, cols);
        assert!(lines.iter().any(|l| l.contains("at 01:00 on the 1st, the weekday (Mon-Fri)")));
        if rows > 20 {
            assert!(lines.iter().any(|l| l.contains("on Mon 30 Nov") || l.contains("Mon 30 Nov")));
        }
    }
    let lines = screen(&editor, 160, 49);
    assert!(lines.iter().any(|l| l.contains("of each month, Asia/Shanghai")), "{lines:#?}");
}

#[test]
fn the_name_chooses_and_a_wrong_zone_gets_a_suggestion() {
    let mut editor = Editor::create();
    press(&mut editor, &["tab", "~ 3 * * *"]);
    let lines = screen(&editor, 80, 23);
    assert!(lines.iter().any(|l| l.contains("from the job's name")), "{lines:#?}");
    press(&mut editor, &["shift-tab", "settle", "tab", "tab", "shanghai"]);
    let lines = screen(&editor, 80, 23);
    show("chosen", &lines, 80);
    assert!(lines.iter().any(|l| l.contains("every day at 03:25")), "{lines:#?}");
    let said = "  Time zone: `shanghai` is not a time zone: did you mean Asia/Shanghai?";
    assert_eq!(lines[21], said);
}

#[test]
fn pasted_text_is_text() {
    let mut editor = Editor::create();
    paste(&mut editor, "settle\n", &ctx());
    assert_eq!(saved_text(&editor, Field::Name), "settle");
    press(&mut editor, &["tab", "tab", "tab"]);
    paste(&mut editor, "a\n\tb\r\nc \u{202e}d", &ctx());
    assert_eq!(saved_text(&editor, Field::Command), "a\n\tb\nc \u{202e}d");
    let lines = screen(&editor, 80, 23);
    assert!(lines.iter().any(|l| l.ends_with("c <U+202E>d")), "{lines:#?}");
}

#[test]
fn a_long_command_is_seen_around_its_cursor() {
    let mut editor = Editor::create();
    press(&mut editor, &["tab", "tab", "tab"]);
    let text: String = (0..100).map(|n| format!("echo {n}\n")).collect();
    paste(&mut editor, &text, &ctx());
    let lines = screen(&editor, 80, 23);
    show("command", &lines, 80);
    assert!(lines.iter().any(|l| l.contains("echo 99")) && lines.iter().any(|l| l.ends_with('↑')));
    paste(&mut editor, &"x".repeat(250_000), &ctx());
    let start = std::time::Instant::now();
    press(&mut editor, &["y"]);
    screen(&editor, 80, 23);
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
}

#[test]
fn the_focused_field_is_seen_without_colours() {
    let editor = Editor::edit(&entry(STORED, 7));
    for depth in [Depth::Ansi16, Depth::None] {
        let theme = Theme::load("carillon-dark", None, depth).unwrap();
        let buffer = buffer_in(&editor, &theme, 80, 23);
        let cell = &buffer[(LABEL + 3, 3)];
        assert!(cell.modifier.contains(Modifier::UNDERLINED), "{depth:?} {cell:?}");
        let cursor = &buffer[(LABEL + 9, 3)];
        assert!(cursor.modifier.contains(Modifier::REVERSED), "{depth:?} {cursor:?}");
    }
}
