//! `make picture`: draws the real console, on real jobs, as an SVG file.
//!
//! Without `--etcd` and `--mongo` it starts a demo of its own and lets it run for a while first,
//! so that there is something to be seen.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use system_tests::console::{self, Console, Size};
use system_tests::demo::Demo;
use system_tests::{programs, svg};

/// How long the screen may take to settle.
const SCREEN_LIMIT: Duration = Duration::from_secs(20);
/// A screen that has not changed for so long is taken to be complete.
const QUIET: Duration = Duration::from_millis(400);
/// How long the runs may take that `--runs` asks for.
const RUNS_LIMIT: Duration = Duration::from_secs(180);

/// Draws the console as an SVG file.
#[derive(Debug, Parser)]
struct Arguments {
    /// The file to write
    output: PathBuf,
    /// Columns and rows of the terminal
    #[arg(long, default_value = "120x36")]
    size: Size,
    /// Keys to type before the picture is taken, such as `2` or `/pay<Enter>`; may be repeated
    #[arg(long)]
    keys: Vec<String>,
    /// Text to wait for before the picture is taken
    #[arg(long)]
    wait: Option<String>,
    /// etcd endpoints of a running fleet
    #[arg(long, requires = "mongo")]
    etcd: Option<String>,
    /// MongoDB URI of a running fleet
    #[arg(long, requires = "etcd")]
    mongo: Option<String>,
    /// Key prefix of a running fleet
    #[arg(long, default_value = "/cron")]
    prefix: String,
    /// How many runs the demo shall have finished first
    #[arg(long, default_value_t = 24, conflicts_with = "etcd")]
    runs: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Runtime::new()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "picture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    if let (Some(etcd), Some(mongo)) = (&arguments.etcd, &arguments.mongo) {
        let connection = ["--etcd", etcd, "--mongo", mongo, "--prefix", &arguments.prefix];
        return draw(arguments, connection.map(str::to_owned).to_vec());
    }
    let demo = Demo::start(&programs::root().join("target/picture"), tell).await?;
    tell(&format!("waiting for {} finished runs", arguments.runs));
    demo.succeeded(arguments.runs, RUNS_LIMIT).await?;
    draw(arguments, demo.connection())?;
    demo.stop().await
}

fn draw(arguments: &Arguments, connection: Vec<String>) -> Result<()> {
    let console = Console::run(&console::Options {
        program: programs::own("carillon")?,
        arguments: connection,
        environment: vec![("COLORTERM".to_owned(), "truecolor".to_owned())],
        size: arguments.size,
    })?;
    console.wait_for(|screen| !screen.trim().is_empty(), SCREEN_LIMIT)?;
    settle(&console);
    for keys in &arguments.keys {
        console.send(&read_keys(keys)?)?;
        settle(&console);
    }
    if let Some(text) = &arguments.wait {
        console.wait_for_text(text, SCREEN_LIMIT)?;
        settle(&console);
    }
    fs::write(&arguments.output, svg::draw(&console.cells()))
        .with_context(|| format!("cannot write {}", arguments.output.display()))?;
    tell(&format!("drawn: {}", arguments.output.display()));
    Ok(())
}

/// Waits for a moment without drawing. There is none when something on the screen counts
/// seconds; any moment is as good then.
fn settle(console: &Console) {
    let _ = console.wait_quiet(QUIET, SCREEN_LIMIT / 10);
}

/// Keys as they are written on a command line: `<Enter>` and its like stand for one key.
fn read_keys(text: &str) -> Result<String> {
    let mut keys = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        keys.push_str(before);
        let (name, after) = after.split_once('>').unwrap_or(("", after));
        keys.push_str(match name {
            "Enter" => console::ENTER,
            "Esc" => console::ESC,
            "Tab" => console::TAB,
            "Up" => console::UP,
            "Down" => console::DOWN,
            _ => bail!("`<{name}>` is not a key; there are <Enter> <Esc> <Tab> <Up> <Down>"),
        });
        rest = after;
    }
    keys.push_str(rest);
    Ok(keys)
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stdout(), "picture: {text}");
}
