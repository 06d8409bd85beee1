//! The harness's own terminal: keys arrive, the screen is what a person would see, and closing
//! it is a real hang-up.

use std::path::PathBuf;
use std::time::Duration;

use system_tests::console::{Console, Options, Size};

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> anyhow::Result<Console> {
    let options = Options {
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: vec![("GREETING".to_owned(), "钟".to_owned())],
        size: Size::new(40, 10),
    };
    Console::run(&options)
}

#[test]
fn keys_go_in_and_the_screen_comes_out() {
    let console =
        shell(r#"printf '\033[31m%s\033[0m ' "$GREETING"; read line; echo "got $line""#).unwrap();
    console.wait_for_text("钟", SOON).unwrap();

    console.send_and_wait("ping\r", |screen| screen.contains("got ping"), SOON).unwrap();

    let cell = console.cells().cell(0, 0).unwrap().clone();
    assert_eq!(cell.contents(), "钟");
    assert!(cell.is_wide());
    assert_eq!(cell.fgcolor(), vt100::Color::Idx(1));
}

#[test]
fn the_size_is_known_and_a_change_is_heard() {
    let console = shell("trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done").unwrap();
    console.wait_for_text("10 40", SOON).unwrap();

    console.resize(Size::new(60, 15)).unwrap();

    console.wait_for_text("15 60", SOON).unwrap();
}

#[test]
fn the_terminal_tells_where_its_cursor_is() {
    let console =
        shell(r"stty raw -echo; printf 'ab\033[6n'; dd bs=1 count=6 2>/dev/null | od -c").unwrap();
    console.wait_for(|screen| screen.contains("1   ;   3   R"), SOON).unwrap();
}

#[test]
fn hanging_up_ends_a_program_that_does_not_mind_it() {
    let mut console = shell("echo up; sleep 1000").unwrap();
    console.wait_for_text("up", SOON).unwrap();

    console.hang_up();

    assert!(console.exited_within(SOON).unwrap().is_some());
}

#[test]
fn an_early_end_is_told_with_the_last_screen() {
    let mut console = shell("echo gone; exit 3").unwrap();
    let error = console.wait_for_text("never", SOON).unwrap_err();

    assert!(format!("{error:#}").contains("gone"), "{error:#}");
    assert_eq!(console.exited_within(SOON).unwrap().unwrap().code(), Some(3));
}
