//! Everything the operator can ask for, in one table: name, help, danger and default keys.
//!
//! The keymap, the palette, the help and the manual are made from [`TABLE`]; a command that is
//! not in it does not exist, and one that is cannot be forgotten by any of them.

use crate::effect::Danger;

/// Where a key means something. A view looks keys up in its [`Context::chain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// Everywhere but in text fields.
    Global,
    /// Whatever moves up and down.
    Scroll,
    /// Every table.
    Table,
    /// The jobs.
    Jobs,
    /// The live runs.
    Running,
    /// The records.
    History,
    /// The workers.
    Workers,
    /// One job in full.
    Details,
}

impl Context {
    /// The contexts that are active together with this one, most specific first.
    pub fn chain(self) -> &'static [Self] {
        match self {
            Self::Global => &[Self::Global],
            Self::Scroll => &[Self::Scroll, Self::Global],
            Self::Table => &[Self::Table, Self::Scroll, Self::Global],
            Self::Jobs => &[Self::Jobs, Self::Table, Self::Scroll, Self::Global],
            Self::Running => &[Self::Running, Self::Table, Self::Scroll, Self::Global],
            Self::History => &[Self::History, Self::Table, Self::Scroll, Self::Global],
            Self::Workers => &[Self::Workers, Self::Table, Self::Scroll, Self::Global],
            Self::Details => &[Self::Details, Self::Scroll, Self::Global],
        }
    }

    /// The contexts that an operator can be in.
    pub const PLACES: [Self; 5] =
        [Self::Jobs, Self::Running, Self::History, Self::Workers, Self::Details];

    /// The heading in the help.
    pub fn title(self) -> &'static str {
        match self {
            Self::Global => "Everywhere",
            Self::Scroll => "Moving",
            Self::Table => "Lists",
            Self::Jobs => "Jobs",
            Self::Running => "Running",
            Self::History => "History",
            Self::Workers => "Workers",
            Self::Details => "Job details",
        }
    }
}

/// Something the operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is described by its help in the table")]
pub enum Command {
    ViewJobs,
    ViewRunning,
    ViewHistory,
    ViewWorkers,
    NextView,
    PreviousView,
    Palette,
    Help,
    Back,
    Quit,
    Suspend,
    Repaint,
    Theme,
    Down,
    Up,
    HalfDown,
    HalfUp,
    PageDown,
    PageUp,
    Top,
    Bottom,
    Open,
    Filter,
    SortLeft,
    SortRight,
    SortInvert,
    Mark,
    MarkAll,
    New,
    Edit,
    Clone,
    Pause,
    Run,
    Output,
    Kill,
    Delete,
    Reload,
    Drain,
    Undrain,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The command.
    pub command: Command,
    /// Its name in the palette and in the configuration.
    pub name: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// The most that it can lead to: read-only mode removes all but [`Danger::Reads`].
    pub danger: Danger,
    /// Where it works.
    pub contexts: &'static [Context],
    /// The keys it has unless the configuration says otherwise.
    pub keys: &'static [&'static str],
}

const fn row(
    command: Command,
    name: &'static str,
    help: &'static str,
    danger: Danger,
    contexts: &'static [Context],
    keys: &'static [&'static str],
) -> Spec {
    Spec { command, name, help, danger, contexts, keys }
}

const GLOBAL: &[Context] = &[Context::Global];
const SCROLL: &[Context] = &[Context::Scroll];
const TABLES: &[Context] = &[Context::Table];
const JOB: &[Context] = &[Context::Jobs, Context::Details];
const RUNS: &[Context] = &[Context::Jobs, Context::Details, Context::Running];
const RUNNABLE: &[Context] = &[Context::Jobs, Context::Details, Context::History];
const MARKS: &[Context] = &[Context::Jobs, Context::Running];

use Danger::{Destroys, Reads, Writes};

/// Every command.
pub const TABLE: &[Spec] = &[
    row(Command::ViewJobs, "jobs", "list the jobs", Reads, GLOBAL, &["1"]),
    row(Command::ViewRunning, "running", "list the live runs", Reads, GLOBAL, &["2"]),
    row(Command::ViewHistory, "history", "list the run records", Reads, GLOBAL, &["3"]),
    row(Command::ViewWorkers, "workers", "list the workers", Reads, GLOBAL, &["4"]),
    row(
        Command::NextView,
        "next-view",
        "go to the next view",
        Reads,
        GLOBAL,
        &["tab", "l", "right"],
    ),
    row(
        Command::PreviousView,
        "previous-view",
        "go to the view before",
        Reads,
        GLOBAL,
        &["shift-tab", "h", "left"],
    ),
    row(Command::Palette, "palette", "type a command", Reads, GLOBAL, &[":"]),
    row(Command::Help, "help", "show the keys of this place", Reads, GLOBAL, &["?"]),
    row(Command::Back, "back", "go back one layer", Reads, GLOBAL, &["esc"]),
    row(Command::Quit, "quit", "leave", Reads, GLOBAL, &["q"]),
    row(Command::Suspend, "suspend", "stop in the background", Reads, GLOBAL, &["ctrl-z"]),
    row(Command::Repaint, "repaint", "draw the screen anew", Reads, GLOBAL, &["ctrl-l"]),
    row(Command::Theme, "theme", "change the colours: theme NAME", Reads, GLOBAL, &[]),
    row(Command::Down, "down", "move down", Reads, SCROLL, &["j", "down"]),
    row(Command::Up, "up", "move up", Reads, SCROLL, &["k", "up"]),
    row(Command::HalfDown, "half-page-down", "move down half a page", Reads, SCROLL, &["ctrl-d"]),
    row(Command::HalfUp, "half-page-up", "move up half a page", Reads, SCROLL, &["ctrl-u"]),
    row(Command::PageDown, "page-down", "move down a page", Reads, SCROLL, &["pgdn", "ctrl-f"]),
    row(Command::PageUp, "page-up", "move up a page", Reads, SCROLL, &["pgup", "ctrl-b"]),
    row(Command::Top, "top", "go to the beginning", Reads, SCROLL, &["g", "home"]),
    row(Command::Bottom, "bottom", "go to the end", Reads, SCROLL, &["G", "end"]),
    row(Command::Open, "open", "open what is selected", Reads, TABLES, &["enter"]),
    row(
        Command::Filter,
        "filter",
        "filter: text, !text, label:team=pay, state:failed",
        Reads,
        TABLES,
        &["/"],
    ),
    row(Command::SortLeft, "sort-left", "sort by the column to the left", Reads, TABLES, &["<"]),
    row(Command::SortRight, "sort-right", "sort by the column to the right", Reads, TABLES, &[">"]),
    row(Command::SortInvert, "sort-invert", "turn the order round", Reads, TABLES, &["i"]),
    row(Command::Mark, "mark", "mark or unmark", Reads, MARKS, &["space"]),
    row(Command::MarkAll, "mark-all", "mark all shown, or none", Reads, MARKS, &["*"]),
    row(Command::New, "new", "write a new job", Writes, &[Context::Jobs], &["n"]),
    row(Command::Edit, "edit", "edit the job", Writes, JOB, &["e"]),
    row(Command::Clone, "clone", "write a new job like this one", Writes, JOB, &["c"]),
    row(Command::Pause, "pause", "pause or resume the schedule", Writes, JOB, &["p"]),
    row(Command::Run, "run", "run once now", Writes, RUNNABLE, &["r"]),
    row(Command::Output, "output", "show the output of the newest run", Reads, JOB, &["o"]),
    row(Command::Kill, "kill", "kill live runs (asks first)", Destroys, RUNS, &["x"]),
    row(Command::Delete, "delete", "delete the job (asks first)", Destroys, JOB, &["D"]),
    row(Command::Reload, "reload", "read the records again", Reads, &[Context::History], &["R"]),
    row(
        Command::Drain,
        "drain",
        "let the worker take nothing new (asks first)",
        Writes,
        &[Context::Workers],
        &["d"],
    ),
    row(
        Command::Undrain,
        "undrain",
        "let the worker take work again",
        Writes,
        &[Context::Workers],
        &["u"],
    ),
];

impl Command {
    /// Its row of the table.
    pub fn spec(self) -> Option<&'static Spec> {
        TABLE.iter().find(|spec| spec.command == self)
    }

    /// The command of that name.
    pub fn named(name: &str) -> Option<Self> {
        let spec = TABLE.iter().find(|spec| spec.name == name)?;
        Some(spec.command)
    }
}

impl Spec {
    /// Whether the command does something in `place`.
    pub fn works_in(&self, place: Context) -> bool {
        self.contexts.iter().any(|c| place.chain().contains(c))
    }

    /// Whether read-only mode leaves the command there.
    pub fn is_offered(&self, read_only: bool) -> bool {
        !read_only || self.danger == Danger::Reads
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_has_one_row_and_its_own_name() {
        let commands: BTreeSet<_> = TABLE.iter().map(|s| s.command).collect();
        let names: BTreeSet<_> = TABLE.iter().map(|s| s.name).collect();
        assert_eq!((commands.len(), names.len()), (TABLE.len(), TABLE.len()));
    }
}
