//! What each command does, whether it came from a key or from the palette.

use std::collections::BTreeSet;

use carillon_core::id::JobName;
use carillon_core::job::JobEntry;
use carillon_core::jobs::Expected;
use carillon_core::records::HistoryFilter;
use carillon_core::run::LiveRun;

use super::keys::{apply_filter, fleet_zone, open_log};
use crate::command::Command;
use crate::effect::{Effect, SaveJob, SaveKind, Ticket};
use crate::model::editor::Editor;
use crate::model::filter::Filter;
use crate::model::input::Input;
use crate::model::layers::{Confirm, Details, KillTarget, Layer, Palette, Pending};
use crate::model::runs::find;
use crate::model::toasts::Level;
use crate::model::{Model, View};

/// How many records the details of a job show.
pub const DETAIL_RECORDS: usize = 20;

/// How many lines the details of a job may be scrolled: policies, firings, runs and records.
const DETAIL_LINES: usize = 90;

/// Does `command`, with what was typed after it in the palette.
pub fn run(model: &mut Model, command: Command, argument: Option<&str>) -> Vec<Effect> {
    if let Some(spec) = command.spec()
        && !spec.is_offered(model.read_only)
    {
        let text = format!("read-only: this console does not {}", spec.name);
        return note(model, Level::Error, text);
    }
    match command {
        Command::ViewJobs => show(model, View::Jobs),
        Command::ViewRunning => show(model, View::Running),
        Command::ViewHistory => show(model, View::History),
        Command::ViewWorkers => show(model, View::Workers),
        Command::NextView => show(model, neighbour(model.view, 1)),
        Command::PreviousView => show(model, neighbour(model.view, View::ALL.len() - 1)),
        Command::Palette => open(model, Layer::Palette(Palette::default())),
        Command::Help => {
            let place = model.place();
            open(model, Layer::Help { place, scroll: 0 })
        }
        Command::Back => back(model),
        Command::Quit => quit(model),
        Command::Suspend => vec![Effect::Suspend],
        Command::Repaint => vec![Effect::Repaint],
        Command::Theme => {
            if let Some(name) = argument {
                return vec![Effect::LoadTheme(name.to_owned())];
            }
            let names = crate::theme::Theme::names().join(", ");
            note(model, Level::Note, format!("type :theme and one of: {names}"))
        }
        Command::Down => step(model, 1),
        Command::Up => step(model, -1),
        Command::HalfDown => step(model, pages(model, 2)),
        Command::HalfUp => step(model, -pages(model, 2)),
        Command::PageDown => step(model, pages(model, 1)),
        Command::PageUp => step(model, -pages(model, 1)),
        Command::Top => step(model, isize::MIN),
        Command::Bottom => step(model, isize::MAX),
        Command::Open => open_selected(model),
        Command::Filter => filter(model, argument),
        Command::SortLeft => sort(model, Some(false)),
        Command::SortRight => sort(model, Some(true)),
        Command::SortInvert => sort(model, None),
        Command::Mark => mark(model, false),
        Command::MarkAll => mark(model, true),
        Command::New => {
            let editor = Editor::create();
            edit(model, editor)
        }
        Command::Edit => match target(model) {
            Some(entry) => {
                let editor = Editor::edit(&entry);
                edit(model, editor)
            }
            None => nothing(model, "no job is selected"),
        },
        Command::Clone => match target(model) {
            Some(entry) => match entry.job() {
                Some(job) => {
                    let editor = Editor::copy_of(job);
                    edit(model, editor)
                }
                None => nothing(model, "this job is broken: edit it first"),
            },
            None => nothing(model, "no job is selected"),
        },
        Command::Pause => pause(model),
        Command::Run => run_now(model),
        Command::Output => output(model),
        Command::Kill => kill(model),
        Command::Delete => delete(model),
        Command::Reload => {
            let generation = model.number();
            vec![model.history.reload(generation)]
        }
        Command::Drain => drain(model, true),
        Command::Undrain => drain(model, false),
    }
}

fn note(model: &mut Model, level: Level, text: impl Into<String>) -> Vec<Effect> {
    model.toasts.show(level, text, model.now);
    Vec::new()
}

fn nothing(model: &mut Model, text: &str) -> Vec<Effect> {
    note(model, Level::Note, text)
}

fn open(model: &mut Model, layer: Layer) -> Vec<Effect> {
    model.layers.push(layer);
    Vec::new()
}

fn neighbour(view: View, step: usize) -> View {
    let at = View::ALL.iter().position(|v| *v == view).unwrap_or(0);
    let next = (at + step) % View::ALL.len();
    View::ALL.get(next).copied().unwrap_or_default()
}

fn show(model: &mut Model, view: View) -> Vec<Effect> {
    model.view = view;
    model.layers.retain(|l| !matches!(l, Layer::Details(_)));
    if view == View::History && !model.history.opened {
        let generation = model.number();
        return vec![model.history.reload(generation)];
    }
    Vec::new()
}

fn back(model: &mut Model) -> Vec<Effect> {
    if model.toasts.dismiss() {
        return Vec::new();
    }
    if model.layers.pop().is_some() {
        return Vec::new();
    }
    let marks = model.jobs.list.marks() + model.runs.list.marks();
    let filtered = match model.view {
        View::Jobs => &model.jobs.filter,
        View::Running => &model.runs.filter,
        View::History => &model.history.filter,
        View::Workers => &model.workers.filter,
    };
    if marks > 0 {
        model.jobs.list.clear_marks();
        model.runs.list.clear_marks();
        Vec::new()
    } else if !filtered.is_empty() {
        apply_filter(model, Filter::default());
        if model.view == View::History {
            let generation = model.number();
            return vec![model.history.reload(generation)];
        }
        Vec::new()
    } else {
        let key = model.keymap.hint(Command::Quit);
        note(model, Level::Note, format!("{key} leaves"))
    }
}

fn quit(model: &mut Model) -> Vec<Effect> {
    let unsaved = model.layers.iter().find_map(|layer| match layer {
        Layer::Editor { editor, .. } if editor.is_dirty() => Some(editor.title()),
        _ => None,
    });
    match unsaved {
        None => vec![Effect::Quit],
        Some(title) => {
            let title_text = "Leave without saving?".to_owned();
            let ask = Confirm::new(title_text, "Leave", vec![title], Pending::Quit)
                .noting("What was typed is lost.");
            open(model, Layer::Confirm(Box::new(ask)))
        }
    }
}

fn pages(model: &Model, parts: usize) -> isize {
    isize::try_from((model.body_rows() / parts).max(1)).unwrap_or(1)
}

fn step(model: &mut Model, rows: isize) -> Vec<Effect> {
    match model.view {
        View::Jobs => move_list(&mut model.jobs.list, rows),
        View::Running => move_list(&mut model.runs.list, rows),
        View::Workers => move_list(&mut model.workers.list, rows),
        View::History => {
            move_list(&mut model.history.list, rows);
            let generation = model.number();
            return model.history.next_page(generation).into_iter().collect();
        }
    }
    Vec::new()
}

fn move_list<K: Ord + Clone>(list: &mut crate::model::list::List<K>, rows: isize) {
    match rows {
        isize::MIN => list.to_top(),
        isize::MAX => list.to_bottom(),
        rows => list.move_by(rows),
    }
}

fn filter(model: &mut Model, argument: Option<&str>) -> Vec<Effect> {
    let before = match model.view {
        View::Jobs => model.jobs.filter.clone(),
        View::Running => model.runs.filter.clone(),
        View::History => model.history.filter.clone(),
        View::Workers => model.workers.filter.clone(),
    };
    let Some(text) = argument else {
        let input = Input::new(before.text());
        return open(model, Layer::Filter { input, before });
    };
    apply_filter(model, Filter::parse(text));
    if model.view == View::History {
        let generation = model.number();
        return vec![model.history.reload(generation)];
    }
    Vec::new()
}

fn sort(model: &mut Model, right: Option<bool>) -> Vec<Effect> {
    macro_rules! step {
        ($view:expr) => {{
            match right {
                Some(right) => $view.sort.step(right),
                None => $view.sort.inverted = !$view.sort.inverted,
            }
            $view.outdate();
        }};
    }
    match model.view {
        View::Jobs => step!(model.jobs),
        View::Running => step!(model.runs),
        View::Workers => step!(model.workers),
        View::History => return nothing(model, "the history is always newest first"),
    }
    Vec::new()
}

fn mark(model: &mut Model, all: bool) -> Vec<Effect> {
    match (model.view, all) {
        (View::Jobs, false) => model.jobs.list.toggle_mark(),
        (View::Jobs, true) => model.jobs.list.toggle_all(),
        (View::Running, false) => model.runs.list.toggle_mark(),
        (View::Running, true) => model.runs.list.toggle_all(),
        (View::History | View::Workers, _) => {}
    }
    Vec::new()
}

fn open_selected(model: &mut Model) -> Vec<Effect> {
    match model.view {
        View::Jobs => match model.jobs.list.selected().cloned() {
            Some(job) => details(model, job),
            None => Vec::new(),
        },
        View::Running => match model.runs.list.selected().cloned() {
            Some((job, run)) => open_log(model, run, job.as_str()),
            None => Vec::new(),
        },
        View::History => match model.history.selected() {
            Some(record) => {
                let (run, job) = (record.id, record.job_name.clone());
                open_log(model, run, &job)
            }
            None => Vec::new(),
        },
        View::Workers => match model.workers.list.selected().cloned() {
            Some(worker) => {
                model.view = View::Running;
                apply_filter(model, Filter::parse(&format!("worker:{worker}")));
                Vec::new()
            }
            None => Vec::new(),
        },
    }
}

fn details(model: &mut Model, job: JobName) -> Vec<Effect> {
    let generation = model.number();
    let filter = HistoryFilter { job: Some(job.clone()), ..HistoryFilter::default() };
    model.layers.push(Layer::Details(Details {
        job,
        scroll: 0,
        lines: DETAIL_LINES,
        records: None,
        generation,
    }));
    vec![Effect::LoadHistory { generation, filter, before: None, limit: DETAIL_RECORDS }]
}

fn edit(model: &mut Model, editor: Editor) -> Vec<Effect> {
    let ticket = Ticket(model.number());
    let editor = Box::new(editor.in_zone(fleet_zone(model)));
    open(model, Layer::Editor { ticket, editor })
}

/// The one job that a command means: the detailed one, or the one under the cursor.
fn target(model: &Model) -> Option<JobEntry> {
    let name = model.detailed().or_else(|| model.jobs.list.selected())?;
    model.job(name).cloned()
}

/// Every job that a command means: the detailed one, the marked ones, or the one under the cursor.
fn targets(model: &Model) -> Vec<JobName> {
    match (model.detailed(), model.view) {
        (Some(job), _) => vec![job.clone()],
        (None, View::Jobs) => model.jobs.list.targets(),
        (None, View::History) => {
            let record = model.history.selected();
            let name = record.and_then(|r| JobName::new(&r.job_name).ok());
            name.into_iter().collect()
        }
        (None, View::Running | View::Workers) => Vec::new(),
    }
}

fn pause(model: &mut Model) -> Vec<Effect> {
    let names = targets(model);
    let entries: Vec<&JobEntry> = names.iter().filter_map(|n| model.job(n)).collect();
    let whole: Vec<_> = entries.iter().filter_map(|e| Some((*e, e.job()?))).collect();
    let any_enabled = whole.iter().any(|(_, job)| job.enabled);
    let what = match any_enabled {
        true => SaveKind::Pause,
        false => SaveKind::Resume,
    };
    let to_change = whole.iter().filter(|(_, job)| job.enabled == any_enabled);
    let saves: Vec<SaveJob> = to_change
        .map(|(entry, job)| {
            let mut job = Box::new((*job).clone());
            job.enabled = !any_enabled;
            SaveJob { job, expected: Expected::Revision(entry.mod_revision), what }
        })
        .collect();
    match saves.len() {
        0 if names.is_empty() => nothing(model, "no job is selected"),
        0 => nothing(model, "a broken job neither pauses nor resumes: edit it first"),
        1 => {
            let ticket = Ticket(model.number());
            let saves = saves.into_iter();
            saves.map(|save| Effect::SaveJob { ticket, save }).collect()
        }
        n => {
            let (title, verb) = match what {
                SaveKind::Pause => (format!("Pause {n} jobs?"), "Pause"),
                _ => (format!("Resume {n} jobs?"), "Resume"),
            };
            let lines = saves.iter().map(|s| s.job.name.clone()).collect();
            let ask = Confirm::new(title, verb, lines, Pending::Save(saves));
            open(model, Layer::Confirm(Box::new(ask)))
        }
    }
}

fn run_now(model: &mut Model) -> Vec<Effect> {
    let mut jobs = targets(model);
    jobs.retain(|name| model.job(name).is_some_and(|e| e.job().is_some()));
    match jobs.len() {
        0 => nothing(model, "there is no whole job to run here"),
        1 => vec![Effect::RunNow(jobs)],
        n => {
            let lines = jobs.iter().map(ToString::to_string).collect();
            let ask = Confirm::new(format!("Run {n} jobs now?"), "Run", lines, Pending::Run(jobs));
            open(model, Layer::Confirm(Box::new(ask)))
        }
    }
}

fn output(model: &mut Model) -> Vec<Effect> {
    let Some(job) = targets(model).into_iter().next() else {
        return nothing(model, "no job is selected");
    };
    let live = model.replica.live_of(&job).last().map(|live| live.run);
    let past = || model.jobs.past(&job)?.newest().map(|seen| seen.run);
    match live.or_else(past) {
        Some(run) => open_log(model, run, job.as_str()),
        None => nothing(model, "this job has no run that is known here yet"),
    }
}

fn kill(model: &mut Model) -> Vec<Effect> {
    let in_table = model.detailed().is_none() && model.view == View::Running;
    let runs: Vec<&LiveRun> = if in_table {
        let keys = model.runs.list.targets();
        let live = keys.iter().filter_map(|key| find(&model.replica, key));
        live.collect()
    } else {
        let jobs: BTreeSet<JobName> = targets(model).into_iter().collect();
        let live = jobs.iter().flat_map(|job| model.replica.live_of(job));
        live.collect()
    };
    if runs.is_empty() {
        return nothing(model, "nothing of this is running");
    }
    let title = match runs.len() {
        1 => "Kill this run?".to_owned(),
        n => format!("Kill {n} runs?"),
    };
    let lines = runs.iter().map(|run| describe(run)).collect();
    let grace = runs.iter().map(|run| run.value.grace_secs).max();
    let grace = grace.unwrap_or_default();
    let note = format!("SIGTERM to the whole process tree, then SIGKILL after {grace} s.");
    let pending = Pending::Kill(runs.into_iter().map(KillTarget::from).collect());
    let ask = Confirm::new(title, "Kill", lines, pending).noting(note);
    open(model, Layer::Confirm(Box::new(ask)))
}

fn describe(run: &LiveRun) -> String {
    let pid = match run.value.pid {
        Some(pid) => format!("pid {pid}"),
        None => "not started".to_owned(),
    };
    format!("{} on {}, {pid}, run {}", run.job, run.value.worker, run.run)
}

fn delete(model: &mut Model) -> Vec<Effect> {
    let names = targets(model);
    let jobs: Vec<(JobName, i64)> = names
        .into_iter()
        .filter_map(|name| {
            let revision = model.job(&name)?.mod_revision;
            Some((name, revision))
        })
        .collect();
    let title = match jobs.len() {
        0 => return nothing(model, "no job is selected"),
        1 => "Delete this job?".to_owned(),
        n => format!("Delete {n} jobs?"),
    };
    let live: usize = jobs.iter().map(|(j, _)| model.replica.live_of(j).count()).sum();
    let note = match live {
        0 => "Its records stay in the history.".to_owned(),
        1 => "Its records stay in the history. 1 run of it is live and goes on.".to_owned(),
        n => format!("Its records stay in the history. {n} runs of it are live and go on."),
    };
    let line = |(name, revision): &(JobName, i64)| format!("{name} (revision {revision})");
    let lines = jobs.iter().map(line).collect();
    let ask = Confirm::new(title, "Delete", lines, Pending::Delete(jobs)).noting(note);
    open(model, Layer::Confirm(Box::new(ask)))
}

fn drain(model: &mut Model, on: bool) -> Vec<Effect> {
    let Some(worker) = model.workers.list.selected().cloned() else {
        return nothing(model, "no worker is selected");
    };
    if !on {
        return vec![Effect::Drain { worker, on }];
    }
    let live = crate::model::workers::live_on(&model.replica, &worker);
    let lines = vec![format!("{worker}, {live} live")];
    let title = "Drain this worker?".to_owned();
    let ask = Confirm::new(title, "Drain", lines, Pending::Drain(worker))
        .noting("It takes nothing new; what it runs goes on to its end.");
    open(model, Layer::Confirm(Box::new(ask)))
}
