//! Where a key goes: to the top layer, or to the view. A key typed into a text never reaches a
//! table.

use carillon_core::id::RunId;
use chrono_tz::Tz;
use crossterm::event::{KeyCode, KeyEvent};

use super::{commands, confirm};
use crate::command::{Command, Context};
use crate::effect::Effect;
use crate::key::Chord;
use crate::model::filter::Filter;
use crate::model::input::Input;
use crate::model::layers::{Confirm, Layer, Palette, Pending};
use crate::model::log::LogView;
use crate::model::{Model, View};
use crate::update::editor::{Ctx, EditorReply};
use crate::update::log::LogReply;

/// What becomes of the layer that got the key.
enum After {
    Stay(Vec<Effect>),
    Close(Vec<Effect>),
}

impl After {
    fn stay() -> Self {
        Self::Stay(Vec::new())
    }

    fn close() -> Self {
        Self::Close(Vec::new())
    }
}

/// Takes a key.
pub fn key(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    let chord = Chord::from(key);
    if !model.fits() {
        // Nobody sees what a key would do: only leaving is safe.
        let place = model.view.context();
        let leave = model.keymap.command(place, chord) == Some(Command::Quit);
        return match leave && model.layers.is_empty() {
            true => vec![Effect::Quit],
            false => Vec::new(),
        };
    }
    // While a handler works its layer is not in the stack; what it opens goes on top of it.
    // These two work everywhere, also over texts and dialogs.
    let anywhere = model.keymap.command(Context::Global, chord);
    if let Some(command @ (Command::Suspend | Command::Repaint)) = anywhere
        && !chord.is_text()
    {
        return commands::run(model, command, None);
    }
    if let Some(Layer::Details(_)) = model.layers.last() {
        return in_details(model, chord);
    }
    let Some(mut layer) = model.layers.pop() else {
        return in_view(model, chord);
    };
    let depth = model.layers.len();
    let after = match &mut layer {
        Layer::Help { scroll, .. } => in_help(model, scroll, chord),
        Layer::Palette(palette) => in_palette(model, palette, key),
        Layer::Filter { input, before } => in_filter(model, input, before, key),
        Layer::Confirm(question) => in_confirm(model, question, key),
        Layer::Kill(watch) => in_list(model, &mut watch.scroll, watch.runs.len(), chord),
        Layer::Details(_) => After::stay(),
        Layer::Log { run, view } => {
            let run = *run;
            match crate::update::log::key(view, key) {
                LogReply::Stay => After::stay(),
                LogReply::Close => After::Close(vec![Effect::CloseLog { run }]),
                LogReply::Effects(effects) => After::Stay(effects),
            }
        }
        Layer::Editor { ticket, editor } => {
            let ctx = editor_context(model);
            match crate::update::editor::key(editor, key, &ctx) {
                EditorReply::Stay => After::stay(),
                EditorReply::Close => After::close(),
                EditorReply::Save(save) => {
                    After::Stay(vec![Effect::SaveJob { ticket: *ticket, save }])
                }
                EditorReply::AskDiscard => {
                    let targets = vec![editor.title()];
                    let title = "Leave without saving?".to_owned();
                    let ask = Confirm::new(title, "Discard", targets, Pending::Discard)
                        .noting("What was typed is lost.");
                    model.layers.push(Layer::Confirm(Box::new(ask)));
                    After::stay()
                }
            }
        }
    };
    match after {
        After::Stay(effects) => {
            model.layers.insert(depth.min(model.layers.len()), layer);
            effects
        }
        After::Close(effects) => effects,
    }
}

/// Takes pasted text: it is text, never keys.
pub fn paste(model: &mut Model, text: &str) -> Vec<Effect> {
    // Terminals send the line ends of a paste as carriage returns.
    let text = &text.replace("\r\n", "\n").replace('\r', "\n");
    let ctx = editor_context(model);
    let filtered = match model.layers.last_mut() {
        Some(Layer::Editor { editor, .. }) => {
            crate::update::editor::paste(editor, text, &ctx);
            None
        }
        Some(Layer::Log { view, .. }) => {
            crate::update::log::paste(view, text);
            None
        }
        Some(Layer::Palette(palette)) => {
            palette.input.insert(text);
            palette.at = 0;
            None
        }
        Some(Layer::Filter { input, .. }) => {
            input.insert(text);
            Some(input.text().to_owned())
        }
        _ => None,
    };
    if let Some(text) = filtered {
        apply_filter(model, Filter::parse(&text));
    }
    Vec::new()
}

fn editor_context(model: &Model) -> Ctx {
    Ctx { now: model.now, zone: fleet_zone(model) }
}

/// The zone of jobs without their own.
pub(super) fn fleet_zone(model: &Model) -> Tz {
    model.replica.settings().0.zone().unwrap_or(Tz::UTC)
}

fn in_view(model: &mut Model, chord: Chord) -> Vec<Effect> {
    if chord.is_interrupt() {
        return commands::run(model, Command::Back, None);
    }
    match model.keymap.command(model.view.context(), chord) {
        Some(command) => commands::run(model, command, None),
        None => Vec::new(),
    }
}

/// Moves a list that is only looked at.
fn scroll_by(scroll: &mut usize, command: Command, page: usize, last: usize) -> bool {
    let half = (page / 2).max(1);
    *scroll = match command {
        Command::Down => *scroll + 1,
        Command::Up => scroll.saturating_sub(1),
        Command::HalfDown => *scroll + half,
        Command::HalfUp => scroll.saturating_sub(half),
        Command::PageDown => *scroll + page,
        Command::PageUp => scroll.saturating_sub(page),
        Command::Top => 0,
        Command::Bottom => last,
        _ => return false,
    }
    .min(last);
    true
}

fn in_help(model: &mut Model, scroll: &mut usize, chord: Chord) -> After {
    let command = model.keymap.command(Context::Scroll, chord);
    let page = model.body_rows();
    match command {
        Some(Command::Help | Command::Back | Command::Quit) => After::close(),
        _ if chord.is_interrupt() => After::close(),
        Some(command) => {
            // The view clamps to what there is; a generous end is enough here.
            scroll_by(scroll, command, page, crate::command::TABLE.len() + 20);
            After::stay()
        }
        None => After::stay(),
    }
}

fn in_list(model: &mut Model, scroll: &mut usize, rows: usize, chord: Chord) -> After {
    match model.keymap.command(Context::Scroll, chord) {
        Some(Command::Back | Command::Quit) => After::close(),
        _ if chord.is_interrupt() => After::close(),
        Some(command) => {
            scroll_by(scroll, command, 5, rows.saturating_sub(1));
            After::stay()
        }
        None if chord.to_string() == "enter" => After::close(),
        None => After::stay(),
    }
}

fn in_details(model: &mut Model, chord: Chord) -> Vec<Effect> {
    let command = model.keymap.command(Context::Details, chord);
    let leave = matches!(command, Some(Command::Back | Command::Quit));
    if leave || chord.is_interrupt() {
        model.layers.pop();
        return Vec::new();
    }
    let Some(command) = command else {
        return Vec::new();
    };
    let page = model.body_rows();
    if let Some(Layer::Details(details)) = model.layers.last_mut()
        && scroll_by(&mut details.scroll, command, page, details.lines)
    {
        return Vec::new();
    }
    commands::run(model, command, None)
}

fn in_palette(model: &mut Model, palette: &mut Palette, key: KeyEvent) -> After {
    let place = model.place();
    let choices = palette.choices(place, model.read_only);
    match key.code {
        KeyCode::Esc => return After::close(),
        _ if Chord::from(key).is_interrupt() => return After::close(),
        KeyCode::Up | KeyCode::BackTab => palette.at = palette.at.saturating_sub(1),
        KeyCode::Down => palette.at = (palette.at + 1).min(choices.len().saturating_sub(1)),
        KeyCode::Tab => {
            if let Some(spec) = choices.get(palette.at) {
                palette.input = Input::new(&format!("{} ", spec.name));
                palette.at = 0;
            }
        }
        KeyCode::Enter => {
            let Some(spec) = choices.get(palette.at) else {
                return After::stay();
            };
            let argument = palette.argument().map(str::to_owned);
            return After::Close(commands::run(model, spec.command, argument.as_deref()));
        }
        _ => {
            if palette.input.key(key) {
                palette.at = 0;
            }
        }
    }
    After::stay()
}

fn in_filter(model: &mut Model, input: &mut Input, before: &Filter, key: KeyEvent) -> After {
    match key.code {
        KeyCode::Esc => {
            apply_filter(model, before.clone());
            After::close()
        }
        _ if Chord::from(key).is_interrupt() => {
            apply_filter(model, before.clone());
            After::close()
        }
        KeyCode::Enter => {
            apply_filter(model, Filter::parse(input.text()));
            // The history is filtered by its store: asked once, when the words are complete.
            let asks = model.view == View::History && model.history.filter != *before;
            let generation = model.number();
            match asks {
                true => After::Close(vec![model.history.reload(generation)]),
                false => After::close(),
            }
        }
        _ => {
            if input.key(key) && model.view != View::History {
                apply_filter(model, Filter::parse(input.text()));
            }
            After::stay()
        }
    }
}

/// Makes `filter` the one of the view.
pub(super) fn apply_filter(model: &mut Model, filter: Filter) {
    match model.view {
        View::Jobs => {
            model.jobs.filter = filter;
            model.jobs.outdate();
        }
        View::Running => {
            model.runs.filter = filter;
            model.runs.outdate();
        }
        View::History => model.history.filter = filter,
        View::Workers => {
            model.workers.filter = filter;
            model.workers.outdate();
        }
    }
}

fn in_confirm(model: &mut Model, question: &mut Confirm, key: KeyEvent) -> After {
    match confirm::key(question, key) {
        confirm::Answer::Open => After::stay(),
        confirm::Answer::No => After::close(),
        confirm::Answer::Yes => After::Close(confirm::act(model, question.pending.clone())),
    }
}

/// Opens the output of a run.
pub(super) fn open_log(model: &mut Model, run: RunId, job: &str) -> Vec<Effect> {
    let mut view = LogView::new(run, job);
    if let Some(live) = model.replica.all_live().find(|live| live.run == run) {
        view = view.of_live(live);
    } else if let Some(record) = model.history.record(run) {
        view = view.of_record(record);
    }
    let view = Box::new(view);
    model.layers.push(Layer::Log { run, view });
    let job = job.to_owned();
    vec![Effect::OpenLog { run, job }]
}
