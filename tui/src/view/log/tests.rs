use carillon_core::id::JobName;
use carillon_core::run::{Chunk, Outcome, RunRecord};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::*;
use crate::theme::Depth;
use crate::update::log::{LogReply, key, paste};

const RUN: &str = "01KAVQ4ZJ8Q8H5N7C3M2R1T0XY";

fn now() -> DateTime<Utc> {
    "2026-11-25T01:00:12Z".parse().unwrap()
}

fn record(outcome: Outcome) -> RunRecord {
    let job = JobName::new("pay/settle".replace('/', "-").as_str()).unwrap();
    let mut record =
        RunRecord::new(RUN.parse().unwrap(), &job, outcome, now() - TimeDelta::seconds(12));
    record.worker = "w3.example".to_owned();
    record
}

fn view() -> LogView {
    LogView::new(RUN.parse().unwrap(), "pay-settle").of_record(&record(Outcome::Running))
}

struct Feeder(u64);

impl Feeder {
    fn out(&mut self, log: &mut LogView, text: &[u8]) {
        self.send(log, Stream::Stdout, text);
    }

    fn err(&mut self, log: &mut LogView, text: &[u8]) {
        self.send(log, Stream::Stderr, text);
    }

    fn send(&mut self, log: &mut LogView, stream: Stream, data: &[u8]) {
        let at = now() - TimeDelta::seconds(11)
            + TimeDelta::milliseconds(37 * i64::try_from(self.0).unwrap());
        let data = data.to_vec();
        log.push(vec![Chunk { seq: self.0, at, stream, data }]);
        self.0 += 1;
    }
}

fn press(log: &mut LogView, keys: &str) -> LogReply {
    let mut reply = LogReply::Stay;
    for word in keys.split(' ') {
        let (code, mods) = match word {
            "esc" => (KeyCode::Esc, KeyModifiers::NONE),
            "enter" => (KeyCode::Enter, KeyModifiers::NONE),
            "pgup" => (KeyCode::PageUp, KeyModifiers::NONE),
            "ctrl-d" => (KeyCode::Char('d'), KeyModifiers::CONTROL),
            "ctrl-u" => (KeyCode::Char('u'), KeyModifiers::CONTROL),
            c => (KeyCode::Char(c.chars().next().unwrap()), KeyModifiers::NONE),
        };
        reply = key(log, KeyEvent::new(code, mods));
    }
    reply
}

fn type_text(log: &mut LogView, text: &str) {
    for c in text.chars() {
        key(log, KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
    }
}

fn buffer_in(log: &LogView, theme: &Theme, cols: u16, rows: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(cols, rows)).unwrap();
    let drawn = terminal.draw(|frame| {
        let area = frame.area();
        frame.buffer_mut().set_style(area, theme.get(Role::Text));
        draw(frame, area, log, theme, now());
    });
    drawn.unwrap().buffer.clone()
}

fn lines_of(buffer: &Buffer) -> Vec<String> {
    let rows = buffer.area.rows();
    rows.map(|row| {
        let mut line = String::new();
        let mut skip = 0;
        for x in row.columns() {
            let symbol = buffer[(x.x, x.y)].symbol();
            if skip == 0 {
                line.push_str(symbol);
                skip = text::grapheme_width(symbol);
            }
            skip -= 1;
        }
        line.trim_end().to_owned()
    })
    .collect()
}

fn screen(log: &LogView, cols: u16, rows: u16) -> Vec<String> {
    lines_of(&buffer_in(log, &Theme::default(), cols, rows))
}

fn show(title: &str, lines: &[String], cols: u16) {
    println!("{title}\n┌{0}┐", "─".repeat(cols.into()));
    for line in lines {
        println!("│{line}{:1$}│", "", usize::from(cols).saturating_sub(text::width(line)));
    }
    println!("└{}┘", "─".repeat(cols.into()));
}

/// A run that has said a few things.
fn talkative() -> LogView {
    let mut log = view();
    let mut feeder = Feeder(0);
    feeder.out(&mut log, b"settling 2026-11-24 for 4 merchants\n");
    feeder.out(&mut log, b"\x1b[32mok\x1b[0m   acme        1,204 payments  EUR 88,213.10\n\x1b[32mok\x1b[0m   globex        310 payments  EUR  9,001.99\n");
    feeder.err(&mut log, b"WARN ledger 7 is slow: 2,140 ms (limit 2,000 ms); retrying once with a fresh connection before giving up\n");
    feeder.out(
        &mut log,
        "\x1b[33mlate\x1b[0m 每日商店        18 payments  CNY   412.00\n".as_bytes(),
    );
    feeder.err(&mut log, b"hostile \x1b[2J\x1b]0;owned\x07 caf\xe9 \xe2\x80\xaeexe.cod\n");
    feeder.out(&mut log, b" 10 %\r 50 %\r100 %\n");
    feeder.out(&mut log, b"closing the books ...");
    log
}

#[test]
fn it_looks_right_at_every_size() {
    for (cols, rows) in [(160, 49), (80, 23), (60, 14)] {
        let mut log = talkative();
        let lines = screen(&log, cols, rows);
        show("live", &lines, cols);
        assert!(lines[0].starts_with(" pay-settle  on w3.example"), "{}", lines[0]);
        assert!(lines[0].ends_with("» running 12s"), "{}", lines[0]);
        assert!(lines[1].contains(" stdout + stderr ") && lines[1].contains(" 7 lines "));
        assert_eq!(lines[2], " settling 2026-11-24 for 4 merchants");
        assert!(lines.iter().any(|l| l == "▌hostile ^[[2J^[]0;owned^G caf<E9> <U+202E>exe.cod"));
        assert!(lines.iter().any(|l| l == "«100 %"));
        assert!(lines.iter().any(|l| l == " closing the books ..."));
        let last = lines.last().unwrap();
        assert!(
            last.starts_with(" esc back  / search  f follow") && last.ends_with("following"),
            "{last}"
        );

        press(&mut log, "t g");
        let mut failed = record(Outcome::Failed);
        failed.end_time = Some(now());
        failed.exit_code = Some(3);
        failed.err = "exit code 3".to_owned();
        log.ended(failed);
        press(&mut log, "G");
        let lines = screen(&log, cols, rows);
        show("ended", &lines, cols);
        assert!(lines[0].ends_with("✗ failed 12s"));
        assert!(lines.iter().any(|l| l.ends_with(" ── failed after 12s, exit code 3 ──")));
        assert!(lines[1].contains(" 8 lines "));
        let first = if cols < 80 { "01:00:01.037  ok   acme" } else { "01:00:01.000  settling" };
        assert!(lines[2].starts_with(first), "{}", lines[2]);
    }
}

#[test]
fn colours_are_those_of_the_job_as_far_as_the_terminal_has_them() {
    let log = talkative();
    let at = |theme: &Theme| buffer_in(&log, theme, 80, 23)[(1, 3)].clone();
    assert_eq!(at(&Theme::default()).fg, Color::Green);
    let plain = Theme::load("carillon-dark", None, Depth::None).unwrap();
    assert_eq!((at(&plain).fg, at(&plain).symbol()), (Color::Reset, "o"));
}

fn counting(lines: u64) -> (LogView, Feeder) {
    let mut log = view();
    let mut feeder = Feeder(0);
    let text: String = (0..lines).map(|n| format!("line {n}\n")).collect();
    feeder.out(&mut log, text.as_bytes());
    (log, feeder)
}

#[test]
fn scrolling_up_pauses_and_counts_what_comes() {
    let (mut log, mut feeder) = counting(100);
    assert_eq!(screen(&log, 80, 23)[21], " line 99");
    press(&mut log, "k k k");
    assert!(!log.follow);
    feeder.out(&mut log, b"new\nnewer\n");
    let lines = screen(&log, 80, 23);
    assert_eq!(lines[21], " line 96", "the view stands still");
    assert!(
        lines[22].contains(" 2 new ") && lines[22].ends_with("paused at 95 %"),
        "{}",
        lines[22]
    );
    press(&mut log, "f");
    let lines = screen(&log, 80, 23);
    assert_eq!(lines[21], " newer");
    assert!(lines[22].ends_with("following"));
    press(&mut log, "g");
    assert_eq!(screen(&log, 80, 23)[2], " line 0");
    press(&mut log, "G k");
    assert!(!log.follow);
    press(&mut log, "j");
    assert!(log.follow, "the end follows again");
    press(&mut log, "pgup ctrl-u");
    assert_eq!(screen(&log, 80, 23)[2], " line 53");
}

#[test]
fn short_output_cannot_be_scrolled_away() {
    let (mut log, _) = counting(3);
    for keys in ["k", "g", "ctrl-u", "ctrl-d", "j"] {
        press(&mut log, keys);
        assert_eq!(screen(&log, 80, 23)[2], " line 0");
        assert!(log.follow);
    }
}

#[test]
fn streams_can_be_seen_alone() {
    let mut log = talkative();
    press(&mut log, "o");
    let lines = screen(&log, 80, 23);
    assert!(lines[1].contains("stdout only") && !lines.iter().any(|l| l.starts_with('▌')));
    press(&mut log, "o");
    let lines = screen(&log, 80, 23);
    assert!(lines[1].contains("stderr only"));
    assert!(lines[2].starts_with("▌WARN ledger 7"));
    assert!(lines[4].starts_with("▌hostile"));
    press(&mut log, "o");
    assert!(screen(&log, 80, 23)[1].contains("stdout + stderr"));
}

#[test]
fn long_lines_wrap_or_go_sideways() {
    let mut log = view();
    let text: String = (0..30).map(|n| format!("word{n:02} ")).collect();
    Feeder(0).out(&mut log, format!("{text}end\n每日每日每日\n").as_bytes());
    let wrapped = screen(&log, 60, 14);
    assert!(wrapped[2].starts_with(" word00") && wrapped[5].ends_with("end"));
    press(&mut log, "w");
    let cut = screen(&log, 60, 14);
    assert!(cut[2].starts_with(" word00") && cut[2].ends_with('›'), "{}", cut[2]);
    assert_eq!(cut[3], " 每日每日每日");
    press(&mut log, "l");
    let moved = screen(&log, 60, 14);
    assert!(moved[2].starts_with(" ‹rd01") || moved[2].starts_with(" ‹ord01"), "{}", moved[2]);
    press(&mut log, "h");
    assert_eq!(screen(&log, 60, 14), cut);
}

#[test]
fn search_finds_marks_and_goes_round() {
    let (mut log, mut feeder) = counting(100);
    feeder.out(&mut log, b"LINE nine\n");
    screen(&log, 80, 23);
    press(&mut log, "/");
    type_text(&mut log, "line 7");
    let lines = screen(&log, 80, 23);
    assert!(lines[22].starts_with(" /line 7") && lines[22].ends_with("11 lines"), "{}", lines[22]);
    press(&mut log, "enter");
    let lines = screen(&log, 80, 23);
    assert!(lines[22].contains("/line 7 11 of 11"), "{}", lines[22]);
    assert!(lines.iter().any(|l| l == " line 79"));
    press(&mut log, "n");
    let lines = screen(&log, 80, 23);
    assert!(lines[22].contains("1 of 11") && lines.iter().any(|l| l == " line 7"), "{}", lines[22]);
    let buffer = buffer_in(&log, &Theme::default(), 80, 23);
    let row = u16::try_from(lines.iter().position(|l| l == " line 7").unwrap()).unwrap();
    assert_eq!(buffer[(1, row)].bg, Theme::default().get(Role::MatchCurrent).bg.unwrap());
    press(&mut log, "N");
    assert!(screen(&log, 80, 23)[22].contains("11 of 11"));
    press(&mut log, "/");
    type_text(&mut log, "nothing like it");
    press(&mut log, "esc");
    assert!(screen(&log, 80, 23)[22].contains("/line 7"), "esc brings the last search back");
    assert_eq!(press(&mut log, "esc"), LogReply::Stay);
    assert!(log.search.is_none());
    press(&mut log, "/");
    paste(&mut log, "LINE");
    press(&mut log, "enter");
    assert!(screen(&log, 80, 23)[22].contains("1 of 1"), "capitals are meant");
    press(&mut log, "esc");
    assert_eq!(press(&mut log, "q"), LogReply::Close);
}

#[test]
fn a_match_far_to_the_right_is_brought_into_sight() {
    let mut log = view();
    Feeder(0).out(&mut log, format!("{}needle\n", "x".repeat(500)).as_bytes());
    screen(&log, 80, 23);
    press(&mut log, "w /");
    type_text(&mut log, "NEEDLE");
    press(&mut log, "enter");
    assert!(log.search.is_some() && !screen(&log, 80, 23)[2].contains("needle"));
    press(&mut log, "/");
    type_text(&mut log, "needle");
    press(&mut log, "enter");
    assert!(screen(&log, 80, 23)[2].contains("needle"));
}

#[test]
fn memory_is_bounded_and_it_says_so() {
    use crate::model::log::lines::{BYTES_MAX, LINES_MAX};
    let mut log = view();
    let mut feeder = Feeder(0);
    let many = "x\n".repeat(LINES_MAX + 5_000);
    feeder.out(&mut log, many.as_bytes());
    assert!(log.len() <= LINES_MAX && log.lines.bytes() <= BYTES_MAX);
    let wide = format!("{}\n", "y".repeat(1_000)).repeat(30_000);
    press(&mut log, "g");
    feeder.out(&mut log, wide.as_bytes());
    assert!(log.lines.bytes() <= BYTES_MAX);
    let lines = screen(&log, 80, 23);
    assert!(lines[1].contains("235,000 lines, the first"), "{}", lines[1]);
    assert!(lines[2].starts_with(" yyyy"), "what it looked at is gone; it shows the oldest");
}

#[test]
fn a_line_of_a_million_characters_slows_nothing() {
    let mut log = view();
    let mut feeder = Feeder(0);
    for _ in 0..16 {
        feeder.out(&mut log, &vec![b'x'; 65_536]);
    }
    let start = std::time::Instant::now();
    for _ in 0..20 {
        press(&mut log, "k");
        screen(&log, 160, 49);
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    feeder.out(&mut log, b"\n");
    assert_eq!(log.lines.total(), 1_024);
}

#[test]
fn repeated_and_missing_pieces() {
    let (mut log, _) = counting(2);
    let chunk =
        |seq, data: &[u8]| Chunk { seq, at: now(), stream: Stream::Stdout, data: data.to_vec() };
    log.push(vec![chunk(0, b"again\n"), chunk(5, b"later\n")]);
    let lines = screen(&log, 80, 23);
    assert_eq!(lines[4..6], [" … some output was not kept here", " later"]);
}

#[test]
fn a_record_with_its_output_in_one_piece_is_shown() {
    let mut log = LogView::new(RUN.parse().unwrap(), "old");
    let mut done = record(Outcome::Succeeded);
    done.output = "hello\nworld".to_owned();
    done.end_time = Some(now());
    log.ended(done);
    let lines = screen(&log, 80, 23);
    assert_eq!(lines[2..5], [" hello", " world", " ── succeeded after 12s ──"]);
    assert_eq!(
        press(&mut log, "y"),
        LogReply::Effects(vec![crate::effect::Effect::Copy(
            "hello\nworld\n── succeeded after 12s ──\n".to_owned()
        )])
    );
}

#[test]
fn without_colours_matches_are_reversed() {
    let (mut log, _) = counting(3);
    press(&mut log, "/");
    type_text(&mut log, "line 1");
    let plain = Theme::load("carillon-dark", None, Depth::None).unwrap();
    let buffer = buffer_in(&log, &plain, 80, 23);
    assert!(buffer[(1, 3)].modifier.contains(Modifier::REVERSED));
    assert!(!buffer[(1, 2)].modifier.contains(Modifier::REVERSED));
}
