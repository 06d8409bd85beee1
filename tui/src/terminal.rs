//! The terminal: taken over at the start, given back whatever happens.
//!
//! Everything that is drawn between two flushes goes out in one write, wrapped as one synchronized
//! update; a frame in which no cell changed sends nothing at all.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::queue;
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use nix::sys::signal::{Signal, raise};
use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::{Frame, Terminal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whether the terminal is taken over now. Global, because a panic hook has no other way to know.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether there is a terminal to take over, on both sides.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Gives the terminal back, once; a second call does nothing. Never fails: there is nobody to tell.
pub fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = Vec::new();
        let _ =
            queue!(out, EndSynchronizedUpdate, DisableBracketedPaste, LeaveAlternateScreen, Show);
        let mut stdout = io::stdout();
        let _ = stdout.write_all(&out).and_then(|()| stdout.flush());
        let _ = disable_raw_mode();
    }
}

/// Whether the console still has the terminal; false after a panic anywhere gave it back.
pub fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Makes a panic give the terminal back before it prints.
pub fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}

/// The terminal while the console has it. Dropping it gives it back.
#[derive(Debug)]
pub struct Tty {
    terminal: Terminal<Screen>,
}

impl Tty {
    /// Takes the terminal over: raw mode, alternate screen, bracketed paste.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn take() -> io::Result<Self> {
        let screen = Screen::new()?;
        take()?;
        let terminal = Terminal::new(screen).inspect_err(|_| restore())?;
        Ok(Self { terminal })
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Draws one frame; only the cells that differ from the last one are sent.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Forgets what is on the screen: the next frame sends every cell.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn repaint(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Sends a sequence that draws nothing.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn send(&mut self, sequence: &str) -> io::Result<()> {
        let screen = self.terminal.backend_mut();
        screen.out.write_all(sequence.as_bytes())
    }

    /// Gives the terminal back, stops this process as Ctrl-Z does, and takes the terminal again
    /// when the process goes on.
    ///
    /// # Errors
    /// When the terminal cannot be taken again.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        raise(Signal::SIGTSTP)?;
        take()?;
        self.terminal.backend_mut().cursor = None;
        self.repaint()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = Vec::new();
    queue!(out, EnterAlternateScreen, EnableBracketedPaste, Hide)?;
    let mut stdout = io::stdout();
    stdout.write_all(&out).and_then(|()| stdout.flush())
}

/// Notices that the terminal is gone. crossterm does not: at end of file it reads for ever.
#[derive(Debug)]
pub struct Hangup(AsyncFd<OwnedFd>);

impl Hangup {
    /// Watches the terminal on standard input.
    ///
    /// # Errors
    /// When standard input cannot be watched.
    #[expect(deprecated, reason = "its replacement is unsafe; an `OwnedFd` stays open")]
    pub fn watch() -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        AsyncFd::with_interest(stdin, Interest::READABLE).map(Self)
    }

    /// Returns when the terminal is gone. May be dropped and called again.
    pub async fn happened(&self) {
        while let Ok(mut guard) = self.0.readable().await {
            if guard.ready().is_read_closed() {
                return;
            }
            // Input came; who reads it is not our business.
            guard.clear_ready();
        }
    }
}

/// Collects a frame and sends it in one write.
#[derive(Debug)]
struct Screen {
    inner: CrosstermBackend<Collected>,
    collected: Collected,
    out: File,
    /// What the terminal's cursor was last told; `None` when unknown.
    cursor: Option<Cursor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    shown: bool,
    at: Option<Position>,
}

#[derive(Debug, Clone, Default)]
struct Collected(Rc<RefCell<Vec<u8>>>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Nothing: crossterm flushes after each cursor command, a frame ends in [`Screen::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn new() -> io::Result<Self> {
        let collected = Collected::default();
        Ok(Self {
            inner: CrosstermBackend::new(collected.clone()),
            collected,
            // Past the line buffer of `Stdout`, which would cut a frame into several writes.
            out: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            cursor: None,
        })
    }

    fn told(&mut self, change: impl FnOnce(&mut Cursor)) -> bool {
        let mut cursor = self.cursor.unwrap_or(Cursor { shown: true, at: None });
        change(&mut cursor);
        let new = self.cursor != Some(cursor);
        self.cursor = Some(cursor);
        new
    }
}

impl Backend for Screen {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut content = content.peekable();
        if content.peek().is_none() {
            return Ok(());
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.at = None;
        }
        self.inner.draw(content)
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        match self.told(|c| c.shown = false) {
            true => self.inner.hide_cursor(),
            false => Ok(()),
        }
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        match self.told(|c| c.shown = true) {
            true => self.inner.show_cursor(),
            false => Ok(()),
        }
    }

    /// Never asks the terminal: its answer would arrive among the keys.
    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(self.cursor.and_then(|c| c.at).unwrap_or_default())
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let position = position.into();
        match self.told(|c| c.at = Some(position)) {
            true => self.inner.set_cursor_position(position),
            false => Ok(()),
        }
    }

    fn clear(&mut self) -> io::Result<()> {
        self.inner.clear()
    }

    fn clear_region(&mut self, clear_type: ClearType) -> io::Result<()> {
        self.inner.clear_region(clear_type)
    }

    fn size(&self) -> io::Result<Size> {
        self.inner.size()
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        self.inner.window_size()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut frame = self.collected.0.borrow_mut();
        if frame.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(frame.len() + 16);
        queue!(bytes, BeginSynchronizedUpdate)?;
        bytes.append(&mut frame);
        queue!(bytes, EndSynchronizedUpdate)?;
        self.out.write_all(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use ratatui::widgets::Paragraph;

    use super::*;

    fn screen(out: &File) -> Screen {
        let collected = Collected::default();
        Screen {
            inner: CrosstermBackend::new(collected.clone()),
            collected,
            out: out.try_clone().unwrap(),
            cursor: None,
        }
    }

    #[test]
    fn a_frame_is_one_synchronized_write_and_an_unchanged_one_is_none() {
        use ratatui::{TerminalOptions, Viewport};
        let out = tempfile::tempfile().unwrap();
        let area = ratatui::layout::Rect::new(0, 0, 20, 3);
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        let mut terminal = Terminal::with_options(screen(&out), options).unwrap();
        let mut draw = |text: &'static str| {
            let area = Paragraph::new(text);
            terminal.draw(|f| f.render_widget(area, f.area())).unwrap();
            out.metadata().unwrap().len()
        };
        let first = draw("hello");
        assert!(first > 0);
        assert_eq!(draw("hello"), first);
        assert!(draw("hellO") - first < 60);
        let bytes = {
            use std::io::{Read, Seek};
            let mut text = String::new();
            let mut file = out.try_clone().unwrap();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(bytes.matches("\x1b[?2026h").count(), 2);
        assert_eq!(bytes.matches("\x1b[?2026l").count(), 2);
    }
}
