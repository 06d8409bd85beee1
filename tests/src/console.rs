//! The console in a pseudo-terminal: keys in, screen out.
//!
//! A thread feeds what the program writes to a terminal emulator and wakes whoever waits for the
//! screen to look a certain way, so no wait here sleeps.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

use crate::faults::to_pid;
use crate::process::wait_readable;
use crate::programs;
use crate::stack::Stack;

/// Escape.
pub const ESC: &str = "\x1b";
/// Enter.
pub const ENTER: &str = "\r";
/// Tab.
pub const TAB: &str = "\t";
/// Backspace.
pub const BACKSPACE: &str = "\x7f";
/// The arrow up, as sent in the normal cursor mode.
pub const UP: &str = "\x1b[A";
/// The arrow down.
pub const DOWN: &str = "\x1b[B";
/// Ctrl-C.
pub const CTRL_C: &str = "\x03";
/// Ctrl-S.
pub const CTRL_S: &str = "\x13";

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// How many columns.
    pub columns: NonZeroU16,
    /// How many rows.
    pub rows: NonZeroU16,
}

impl Size {
    /// A size; at least one by one.
    #[must_use]
    pub fn new(columns: u16, rows: u16) -> Self {
        Self {
            columns: NonZeroU16::new(columns).unwrap_or(NonZeroU16::MIN),
            rows: NonZeroU16::new(rows).unwrap_or(NonZeroU16::MIN),
        }
    }

    fn to_kernel(self) -> Winsize {
        Winsize { ws_row: self.rows.get(), ws_col: self.columns.get(), ws_xpixel: 0, ws_ypixel: 0 }
    }
}

impl std::str::FromStr for Size {
    type Err = anyhow::Error;

    /// Reads `120x36`: columns, then rows.
    fn from_str(text: &str) -> Result<Self> {
        let (columns, rows) = text.split_once('x').context("a size looks like 120x36")?;
        let read = |number: &str| number.parse().context("a size looks like 120x36");
        Ok(Self { columns: read(columns)?, rows: read(rows)? })
    }
}

/// What to run in the terminal.
#[derive(Debug)]
pub struct Options {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment variables, over those that a login in a 256-colour terminal has.
    pub environment: Vec<(String, String)>,
    /// How large the terminal is.
    pub size: Size,
}

impl Options {
    /// `carillon` without a subcommand, on the stores of `stack` and the keys under `prefix`.
    ///
    /// # Errors
    ///
    /// When it has not been built.
    pub fn carillon(stack: &Stack, prefix: &str, size: Size) -> Result<Self> {
        let mongo = stack.mongo_uri();
        let etcd = stack.etcd_url();
        Ok(Self {
            program: programs::own("carillon")?,
            arguments: ["--etcd", &etcd, "--mongo", &mongo, "--prefix", prefix]
                .map(str::to_owned)
                .to_vec(),
            environment: Vec::new(),
            size,
        })
    }
}

/// A program in a pseudo-terminal of its own, with a home folder of its own. Dropping it hangs up
/// and kills it.
#[derive(Debug)]
pub struct Console {
    child: Child,
    handle: OwnedFd,
    /// `None` after hanging up.
    master: Option<Arc<OwnedFd>>,
    /// Closing it ends the reader, which holds the master side as well.
    stop_reader: Option<OwnedFd>,
    reader: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    home: TempDir,
}

#[derive(Debug)]
struct Shared {
    terminal: Mutex<Terminal>,
    changed: Condvar,
}

/// What the reader has made of the output so far.
struct Terminal {
    parser: vt100::Parser<Replies>,
    /// How many bytes have come.
    received: u64,
    /// The program's side of the terminal is closed.
    closed: bool,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Terminal")
            .field("received", &self.received)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// The answers of the terminal to the questions that programs ask it.
#[derive(Debug, Default)]
struct Replies(Vec<u8>);

impl vt100::Callbacks for Replies {
    fn unhandled_csi(
        &mut self,
        screen: &mut vt100::Screen,
        first: Option<u8>,
        _second: Option<u8>,
        parameters: &[&[u16]],
        end: char,
    ) {
        let parameter = parameters.first().and_then(|group| group.first()).copied();
        match (first, end, parameter) {
            // Where is the cursor? Counted from one.
            (None, 'n', Some(6)) => {
                let (row, column) = screen.cursor_position();
                let answer = format!("\x1b[{};{}R", row + 1, column + 1);
                self.0.extend_from_slice(answer.as_bytes());
            }
            // What are you? A VT102, the least there is.
            (None, 'c', _) => self.0.extend_from_slice(b"\x1b[?6c"),
            _ => {}
        }
    }
}

impl Console {
    /// Opens the console `carillon` in a terminal of the given size.
    ///
    /// # Errors
    ///
    /// When it has not been built or cannot be started.
    pub fn open(stack: &Stack, prefix: &str, size: Size) -> Result<Self> {
        Self::run(&Options::carillon(stack, prefix, size)?)
    }

    /// Runs any program in a terminal.
    ///
    /// # Errors
    ///
    /// When there is no pseudo-terminal to be had, or the program cannot be started.
    pub fn run(options: &Options) -> Result<Self> {
        let (master, path) = open_master(options.size)?;
        let home = TempDir::new().context("cannot make a folder")?;
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOCTTY.bits().cast_signed())
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;

        // The program has to lead a session whose terminal this is, or hanging up means nothing
        // to it. `setsid` arranges that and then becomes the program.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(&options.program).args(&options.arguments);
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["CARILLON_", "XDG_", "LC_", "SSH_", "NO_COLOR", "COLORTERM", "TMUX", "EDITOR"]
                .iter()
                .any(|start| name_text.starts_with(start))
            {
                command.env_remove(&name);
            }
        }
        let child = command
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8")
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path().join("config"))
            .env("XDG_STATE_HOME", home.path().join("state"))
            .env("XDG_CACHE_HOME", home.path().join("cache"))
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(home.path())
            .stdin(slave.try_clone().context("cannot share a terminal")?)
            .stdout(slave.try_clone().context("cannot share a terminal")?)
            .stderr(slave)
            .spawn()
            .context("cannot run setsid (it belongs to util-linux)")?;
        // It holds this process's copies of the program's side: with those open, the end of the
        // program would not close the terminal.
        drop(command);
        Self::attach(child, master, home, options.size)
    }

    fn attach(mut child: Child, master: OwnedFd, home: TempDir, size: Size) -> Result<Self> {
        let attached = (|| {
            let handle = pidfd_open(to_pid(child.id())?, PidfdFlags::empty())
                .context("this kernel has no pidfd (Linux 5.3 or newer is needed)")?;
            let (stopped, stop_reader) = std::io::pipe().context("cannot make a pipe")?;
            let master = Arc::new(master);
            let shared = Arc::new(Shared {
                terminal: Mutex::new(Terminal {
                    parser: vt100::Parser::new_with_callbacks(
                        size.rows,
                        size.columns,
                        0,
                        Replies::default(),
                    ),
                    received: 0,
                    closed: false,
                }),
                changed: Condvar::new(),
            });
            let reader = {
                let (master, shared) = (Arc::clone(&master), Arc::clone(&shared));
                std::thread::Builder::new()
                    .name("terminal".to_owned())
                    .spawn(move || read_all(&master, &OwnedFd::from(stopped), &shared))
                    .context("cannot start a thread")?
            };
            Ok((handle, master, OwnedFd::from(stop_reader), reader, shared))
        })();
        match attached {
            Ok((handle, master, stop_reader, reader, shared)) => Ok(Self {
                child,
                handle,
                master: Some(master),
                stop_reader: Some(stop_reader),
                reader: Some(reader),
                shared,
                home,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Types `keys`: characters, and the constants of this module.
    ///
    /// # Errors
    ///
    /// When the terminal is closed.
    pub fn send(&self, keys: &str) -> Result<()> {
        let master = self.master.as_ref().context("the terminal was hung up")?;
        write_all(master, keys.as_bytes())
    }

    /// Types `keys`, then waits as [`wait_for`](Self::wait_for) does.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_and_wait(
        &self,
        keys: &str,
        wanted: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> Result<String> {
        self.send(keys)?;
        self.wait_for(wanted, limit)
    }

    /// Waits until the text of the screen is as `wanted`, and returns it.
    ///
    /// # Errors
    ///
    /// When it is not within `limit`, or the program has closed the terminal; then with the
    /// screen as it was last.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut terminal = self.terminal();
        loop {
            let screen = terminal.text();
            if wanted(&screen) {
                return Ok(screen);
            }
            if terminal.closed {
                bail!("the program closed the terminal, which showed:\n{}", framed(&screen));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("not on the screen after {limit:?}, which shows:\n{}", framed(&screen));
            }
            terminal = self.wait_change(terminal, left);
        }
    }

    /// Waits until `text` is on the screen.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_text(&self, text: &str, limit: Duration) -> Result<String> {
        self.wait_for(|screen| screen.contains(text), limit)
            .with_context(|| format!("waited for `{text}`"))
    }

    /// Waits until nothing has come from the program for as long as `quiet`.
    ///
    /// # Errors
    ///
    /// When it has not been quiet for so long within `limit`.
    pub fn wait_quiet(&self, quiet: Duration, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut terminal = self.terminal();
        let mut since = (terminal.received, Instant::now());
        loop {
            if terminal.received != since.0 {
                since = (terminal.received, Instant::now());
            }
            let left = quiet.saturating_sub(since.1.elapsed());
            if left.is_zero() || terminal.closed {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the program is still drawing after {limit:?}");
            }
            terminal = self.wait_change(terminal, left);
        }
    }

    /// The text of the screen, one line a row, without trailing blanks.
    #[must_use]
    pub fn screen(&self) -> String {
        self.terminal().text()
    }

    /// The screen with its colours and attributes.
    #[must_use]
    pub fn cells(&self) -> vt100::Screen {
        self.terminal().parser.screen().clone()
    }

    /// How many bytes the program has written so far.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.terminal().received
    }

    /// Changes the size of the terminal; the program hears of it by SIGWINCH.
    ///
    /// # Errors
    ///
    /// When the terminal is closed.
    pub fn resize(&self, size: Size) -> Result<()> {
        let master = self.master.as_ref().context("the terminal was hung up")?;
        self.terminal().parser.set_size(size.rows, size.columns);
        tcsetwinsize(master, size.to_kernel()).context("cannot resize the terminal")
    }

    /// Closes the terminal, as when the SSH connection is lost.
    pub fn hang_up(&mut self) {
        self.stop_reader = None;
        if let Some(reader) = self.reader.take() {
            // It cannot panic short of a bug in the emulator; the screen then is what it was.
            let _ = reader.join();
        }
        self.master = None;
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.handle, signal).context("the program has ended")
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program's home folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// How the program ended, waiting for it at most so long.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn exited_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        wait_readable(&self.handle, limit)?;
        self.child.try_wait().context("cannot ask after a process")
    }

    fn terminal(&self) -> MutexGuard<'_, Terminal> {
        self.shared.terminal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_change<'a>(
        &self,
        terminal: MutexGuard<'a, Terminal>,
        limit: Duration,
    ) -> MutexGuard<'a, Terminal> {
        let woken = self.shared.changed.wait_timeout(terminal, limit);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
        let _ = self.child.wait();
        self.hang_up();
    }
}

impl Terminal {
    fn text(&self) -> String {
        self.parser.screen().contents()
    }
}

/// The master side of a new pseudo-terminal, and the path of the other side. Not inherited by
/// other children: one of them holding it would keep the terminal from ever hanging up.
fn open_master(size: Size) -> Result<(OwnedFd, PathBuf)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).context("no pseudo-terminal can be had")?;
    grantpt(&master).context("no pseudo-terminal can be had")?;
    unlockpt(&master).context("no pseudo-terminal can be had")?;
    tcsetwinsize(&master, size.to_kernel()).context("cannot size the terminal")?;
    let name = ptsname(&master, Vec::new()).context("a pseudo-terminal without a name")?;
    Ok((master, PathBuf::from(OsStr::from_bytes(name.as_bytes()))))
}

/// Feeds the emulator until the program closes the terminal or `stopped` does.
fn read_all(master: &OwnedFd, stopped: &OwnedFd, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut ready = [PollFd::new(master, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
        let [output, stop] = ready;
        if !stop.revents().is_empty() {
            break;
        }
        if output.revents().is_empty() {
            continue;
        }
        // The end of the program shows as EIO on Linux.
        let Ok(count) = rustix::io::read(master, &mut buffer[..]) else {
            break;
        };
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let replies = {
            let mut terminal = shared.terminal.lock().unwrap_or_else(PoisonError::into_inner);
            terminal.parser.process(bytes);
            terminal.received += bytes.len() as u64;
            std::mem::take(&mut terminal.parser.callbacks_mut().0)
        };
        shared.changed.notify_all();
        if write_all(master, &replies).is_err() {
            break;
        }
    }
    shared.terminal.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    shared.changed.notify_all();
}

fn write_all(master: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(master, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot type into the terminal"),
        }
    }
    Ok(())
}

/// A screen in an error message.
fn framed(screen: &str) -> String {
    screen.lines().map(|line| format!("  | {line}\n")).collect()
}
