//! The loop: waits for a signal, the terminal, the backend or the next second; lets
//! [`update`] change the model; hands admitted effects on; draws when
//! something changed. The only part of the console that reads the clock.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use crossterm::event::EventStream;
use futures::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::effect::Effect;
use crate::gate::{Admitted, admit};
use crate::model::toasts::Level;
use crate::model::{Model, Setup};
use crate::msg::Msg;
use crate::terminal::{self, Hangup, Tty};
use crate::theme::{Depth, Theme};
use crate::update::update;
use crate::{clipboard, view};

/// How many messages of the backend may wait: a snapshot is one message, so this is about a
/// second of a busy fleet, after which the backend is slowed instead of memory being filled.
const MESSAGES: usize = 256;

/// How many waiting messages are taken in before a frame is drawn.
const BURST: usize = 512;

/// The shortest time between two frames.
const FRAME: Duration = Duration::from_millis(16);

/// What the console is started with.
#[derive(Debug)]
pub struct AppConfig {
    /// What the model is made from.
    pub setup: Setup,
    /// Where the user's own themes are.
    pub themes: Option<PathBuf>,
    /// How many colours the terminal has.
    pub depth: Depth,
    /// Whether the terminal is tmux's: then copying needs a wrapping.
    pub in_tmux: bool,
}

/// Runs the console until the operator leaves, a signal asks for the end, or the terminal is gone.
///
/// `backend` is given where to send messages, and returns where to send effects. It ends when
/// either channel is closed.
///
/// # Errors
/// When there is no terminal, or the backend ended by itself.
pub async fn run(
    config: AppConfig,
    backend: impl FnOnce(mpsc::Sender<Msg>) -> mpsc::Sender<Admitted>,
) -> Result<()> {
    if !terminal::is_there() {
        bail!(
            "the console needs a terminal on standard input and output \
             (for scripts there are subcommands, such as `carillon jobs -o json`)"
        );
    }
    let signals = Signals::new().context("cannot listen for signals")?;
    let hangup = Hangup::watch().context("cannot watch the terminal")?;
    terminal::restore_on_panic();
    let tty = Tty::take().context("cannot take over the terminal")?;
    let mut model = Model::new(config.setup, Utc::now());
    model.screen = tty.size().context("cannot read the terminal's size")?;
    model.settle();
    let (to_app, messages) = mpsc::channel(MESSAGES);
    let app = App {
        model,
        tty,
        input: Some(EventStream::new()),
        messages,
        effects: backend(to_app),
        outbox: VecDeque::new(),
        themes: config.themes,
        depth: config.depth,
        in_tmux: config.in_tmux,
        leaving: false,
    };
    app.run(signals, hangup).await
}

/// How long leaving may take for the sake of writes that are under way.
const LAST_WRITES: Duration = Duration::from_secs(6);

struct App {
    model: Model,
    tty: Tty,
    /// Absent while the console is suspended: nothing may read the shell's keys.
    input: Option<EventStream>,
    messages: mpsc::Receiver<Msg>,
    effects: mpsc::Sender<Admitted>,
    /// Effects that the backend has no room for yet.
    outbox: VecDeque<Admitted>,
    themes: Option<PathBuf>,
    depth: Depth,
    in_tmux: bool,
    leaving: bool,
}

impl App {
    async fn run(mut self, mut signals: Signals, hangup: Hangup) -> Result<()> {
        let mut next_frame = Instant::now();
        let mut next_tick = after(Utc::now());
        let mut queue = VecDeque::new();
        while !self.leaving {
            if self.model.dirty && Instant::now() >= next_frame {
                self.draw()?;
                next_frame = Instant::now() + FRAME;
            }
            let ticking = self.model.wants_ticks();
            let input = self.input.get_or_insert_with(EventStream::new);
            tokio::select! {
                biased;
                () = signals.ending() => return Ok(()),
                () = hangup.happened() => return Ok(()),
                event = input.next() => match event {
                    Some(Ok(event)) => queue.push_back(Msg::Input(event)),
                    // The terminal is gone, or as good as gone.
                    Some(Err(_)) | None => return Ok(()),
                },
                message = self.messages.recv() => match message {
                    Some(message) => queue.push_back(message),
                    None => bail!("the console lost its connection to both stores' tasks"),
                },
                permit = self.effects.reserve(), if !self.outbox.is_empty() => {
                    let permit = permit.context("the backend ended")?;
                    if let Some(effect) = self.outbox.pop_front() {
                        permit.send(effect);
                    }
                }
                () = sleep_until(instant(next_tick)), if ticking => {}
                () = sleep_until(next_frame), if self.model.dirty => {}
            }
            let now = Utc::now();
            if now >= next_tick {
                next_tick = after(now);
                if ticking {
                    queue.push_back(Msg::Tick);
                }
            }
            self.gather(&mut queue).await;
            while let Some(msg) = queue.pop_front() {
                for effect in update(&mut self.model, msg, now) {
                    self.perform(effect)?;
                }
            }
            if !terminal::is_taken() {
                bail!("an internal error ended the console; see above");
            }
        }
        let Self { tty, effects, outbox, mut messages, .. } = self;
        // The operator has the shell back while what was asked for is finished.
        drop(tty);
        let finished = async {
            for effect in outbox {
                effects.send(effect).await.ok();
            }
            drop(effects);
            while messages.recv().await.is_some() {}
        };
        if timeout(LAST_WRITES, finished).await.is_err() {
            bail!("a store does not answer: what was asked for last may not have been done");
        }
        Ok(())
    }

    /// Takes what is ready, so that a burst costs one frame.
    async fn gather(&mut self, queue: &mut VecDeque<Msg>) {
        while queue.len() < BURST {
            let Some(msg) = self.ready_key().await.or_else(|| self.messages.try_recv().ok()) else {
                return;
            };
            queue.push_back(msg);
        }
    }

    /// The next key, if one is ready. Polled with this task's own waker: the stream keeps the first
    /// waker that it is given, so with any other the next key would wake nobody.
    async fn ready_key(&mut self) -> Option<Msg> {
        let input = self.input.as_mut()?;
        let polled = poll_fn(|cx| Poll::Ready(input.poll_next_unpin(cx))).await;
        match polled {
            Poll::Ready(Some(Ok(event))) => Some(Msg::Input(event)),
            Poll::Ready(_) | Poll::Pending => None,
        }
    }

    fn draw(&mut self) -> Result<()> {
        let model = &mut self.model;
        model.now = Utc::now();
        model.settle();
        model.dirty = false;
        let drawn = self.tty.draw(|frame| view::draw(frame, model));
        drawn.context("the terminal cannot be written to")
    }

    fn perform(&mut self, effect: Effect) -> Result<()> {
        let admitted = match admit(effect, self.model.read_only) {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.toast(Level::Error, refused.to_string());
                return Ok(());
            }
        };
        match admitted.effect() {
            Effect::Quit => self.leaving = true,
            Effect::Repaint => {
                self.tty.repaint()?;
                self.model.dirty = true;
            }
            Effect::Suspend => {
                self.input = None;
                self.tty.suspend().context("cannot take the terminal again")?;
                self.input = Some(EventStream::new());
                self.model.screen = self.tty.size()?;
                let now = Utc::now();
                update(&mut self.model, Msg::Resume, now);
            }
            Effect::Copy(text) => match clipboard::osc52(text, self.in_tmux) {
                Some(sequence) => {
                    self.tty.send(&sequence)?;
                    self.toast(Level::Done, "copied".to_owned());
                }
                None => self.toast(Level::Error, "too long for the clipboard".to_owned()),
            },
            Effect::LoadTheme(name) => {
                let theme = Theme::load(name, self.themes.as_deref(), self.depth);
                let result = theme.map(Box::new).map_err(|e| e.to_string());
                update(&mut self.model, Msg::Theme(result), Utc::now());
            }
            _ => self.outbox.push_back(admitted),
        }
        Ok(())
    }

    fn toast(&mut self, level: Level, text: String) {
        self.model.toasts.show(level, text, Utc::now());
        self.model.dirty = true;
    }
}

/// The next whole second: what is shown changes when the wall clock does.
fn after(now: DateTime<Utc>) -> DateTime<Utc> {
    let second = TimeDelta::seconds(1);
    now.duration_trunc(second).unwrap_or(now) + second
}

fn instant(at: DateTime<Utc>) -> Instant {
    Instant::now() + (at - Utc::now()).to_std().unwrap_or_default()
}

/// The signals that ask for an orderly end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn ending(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
