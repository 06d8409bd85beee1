//! The output of one run, as it is looked at: what has come, where the view stands in it, what is
//! searched. Keys are read in [`crate::update::log`].

pub mod lines;
pub mod search;

use std::cell::Cell;

use carillon_core::id::RunId;
use carillon_core::run::{Chunk, LiveRun, Outcome, RunRecord, Stream};
use chrono::{DateTime, Utc};

use self::lines::{Line, Lines, Streams};
use self::search::{Needle, Search};
use super::input::Input;
use crate::text;
use crate::theme::Role;

/// What stands before each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stamps {
    /// Nothing.
    #[default]
    Off,
    /// The time of day, UTC.
    Clock,
    /// The time since the run began.
    Elapsed,
}

impl Stamps {
    /// The next choice.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Off => Self::Clock,
            Self::Clock => Self::Elapsed,
            Self::Elapsed => Self::Off,
        }
    }

    /// The columns that they take, with a space.
    pub fn cols(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Clock => 13,
            Self::Elapsed => 12,
        }
    }
}

/// How far the run and the reading of its output have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing has come yet.
    Waiting,
    /// Output may follow.
    Live,
    /// The run is over.
    Ended,
    /// The output cannot be read.
    Failed,
}

/// What is known of the run.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Who runs it.
    pub worker: String,
    /// When it began.
    pub since: Option<DateTime<Utc>>,
    /// Its final record.
    pub record: Option<Box<RunRecord>>,
}

/// A place in the output: a line, and a row within it where lines are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The line's number.
    pub number: u64,
    /// The row within the line.
    pub row: usize,
}

/// The output of a run and where the operator is in it.
#[derive(Debug)]
pub struct LogView {
    /// Whose.
    pub run: RunId,
    /// Its job.
    pub job: String,
    /// What is known of it.
    pub facts: Facts,
    /// How far it has come.
    pub state: State,
    /// What has come.
    pub lines: Lines,
    /// Which streams are shown.
    pub streams: Streams,
    /// Whether long lines are broken.
    pub wrap: bool,
    /// What stands before each line.
    pub stamps: Stamps,
    /// Whether the newest line is kept in sight.
    pub follow: bool,
    /// How many lines came since it is not.
    pub arrived: u64,
    /// How many columns are scrolled away.
    pub left: usize,
    /// What is searched.
    pub search: Option<Search>,
    /// The search that is being typed.
    pub typing: Option<Input>,
    before_typing: Option<Search>,
    top: Place,
    next_seq: u64,
    /// Columns and rows of the text when it was last drawn: what a page is.
    drawn: Cell<(usize, usize)>,
}

impl LogView {
    /// The empty output of a run: it follows.
    pub fn new(run: RunId, job: &str) -> Self {
        Self {
            run,
            job: job.to_owned(),
            facts: Facts::default(),
            state: State::Waiting,
            lines: Lines::default(),
            streams: Streams::Both,
            wrap: true,
            stamps: Stamps::Off,
            follow: true,
            arrived: 0,
            left: 0,
            search: None,
            typing: None,
            before_typing: None,
            top: Place::default(),
            next_seq: 0,
            drawn: Cell::new((80, 20)),
        }
    }

    /// With what etcd says of the run.
    #[must_use]
    pub fn of_live(mut self, live: &LiveRun) -> Self {
        self.facts.worker = live.value.worker.to_string();
        self.facts.since = Some(live.value.since);
        self
    }

    /// With what a record says of the run.
    #[must_use]
    pub fn of_record(mut self, record: &RunRecord) -> Self {
        self.facts.worker.clone_from(&record.worker);
        self.facts.since = Some(record.start_time);
        self
    }

    /// Takes output. Pieces that came before are ignored, so a tail may begin anew.
    pub fn push(&mut self, chunks: Vec<Chunk>) {
        if self.state != State::Ended {
            self.state = State::Live;
        }
        for chunk in chunks {
            if chunk.seq < self.next_seq {
                continue;
            }
            if chunk.seq > self.next_seq {
                let words = match self.next_seq {
                    0 => "… earlier output is not shown here",
                    _ => "… some output was not kept here",
                };
                self.lines.notice(words, Role::Dim, chunk.at);
            }
            self.next_seq = chunk.seq + 1;
            let (streams, follow) = (self.streams, self.follow);
            let (arrived, search) = (&mut self.arrived, &mut self.search);
            self.lines.feed(&chunk, |number, line| {
                if Lines::shows(streams, line.source) {
                    *arrived += u64::from(!follow);
                    if let Some(search) = search {
                        search.add(number, line);
                    }
                }
            });
        }
        self.forget();
    }

    /// The run is over.
    pub fn ended(&mut self, record: RunRecord) {
        if self.lines.total() == 0 && self.next_seq == 0 && !record.output.is_empty() {
            // Records of other tools have their output in one piece.
            self.push(vec![Chunk {
                seq: 0,
                at: record.end_time.unwrap_or(record.start_time),
                stream: Stream::Stdout,
                data: record.output.clone().into_bytes(),
            }]);
        }
        self.lines.finish(|_, _| ());
        let at = record.end_time.unwrap_or(record.start_time);
        if record.output_truncated {
            self.lines.notice("… not all of the output was kept", Role::Warn, at);
        }
        let (words, role) = epitaph(&record);
        self.lines.notice(&words, role, at);
        self.state = State::Ended;
        self.facts.worker.clone_from(&record.worker);
        self.facts.since = Some(record.start_time);
        self.facts.record = Some(Box::new(record));
        self.search_again();
    }

    /// The output cannot be read.
    pub fn failed(&mut self, why: &str) {
        let words = format!("the output cannot be read: {why}");
        let at = self.facts.since.unwrap_or_default();
        self.lines.notice(&words, Role::Error, at);
        self.state = State::Failed;
    }

    /// Told by the view that draws it: columns and rows that text has.
    pub fn set_drawn(&self, cols: usize, rows: usize) {
        self.drawn.set((cols.max(1), rows.max(1)));
    }

    /// Rows of text on the screen.
    pub fn page(&self) -> usize {
        self.drawn.get().1
    }

    fn forget(&mut self) {
        if let Some(search) = &mut self.search {
            search.drop_before(self.lines.dropped());
        }
    }

    /// How many lines are shown.
    pub fn len(&self) -> usize {
        self.lines.len(self.streams)
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn height(&self, index: usize) -> usize {
        match self.lines.get(self.streams, index) {
            Some(line) if self.wrap => line.row.height(self.drawn.get().0),
            _ => 1,
        }
    }

    fn place(&self, index: usize, row: usize) -> Place {
        Place { number: self.lines.number(self.streams, index), row }
    }

    /// The highest place from which the end is on the screen.
    fn bottom(&self) -> Place {
        let mut room = self.page();
        let mut index = self.len();
        while index > 0 {
            index -= 1;
            let height = self.height(index);
            if height >= room {
                return self.place(index, height - room);
            }
            room -= height;
        }
        self.place(0, 0)
    }

    /// The place at the top of the screen.
    pub fn top(&self) -> Place {
        if self.follow { self.bottom() } else { self.top }
    }

    /// Each row on the screen: its line's number, the line and, where lines are wrapped, which of
    /// its rows.
    pub fn visible(&self) -> impl Iterator<Item = (u64, &Line, usize)> {
        let top = self.top();
        let start = self.lines.index(self.streams, top.number);
        // The line of the top may be gone: then its row is nobody's.
        let same = self.lines.number(self.streams, start) == top.number;
        let skip = if same { top.row } else { 0 };
        (start..self.len())
            .flat_map(move |index| {
                let number = self.lines.number(self.streams, index);
                let first = if index == start { skip } else { 0 };
                let line = self.lines.get(self.streams, index);
                let rows = first..self.height(index).max(first + 1);
                rows.filter_map(move |row| Some((number, line?, row)))
            })
            .take(self.page())
    }

    /// Scrolls by rows; negative is towards the beginning. Reaching the end follows again.
    pub fn scroll(&mut self, rows: isize) {
        let bottom = self.bottom();
        let top = if self.follow { bottom } else { self.top };
        let mut index = self.lines.index(self.streams, top.number);
        let mut row = top.row;
        for _ in 0..rows.unsigned_abs() {
            if rows < 0 {
                match (row.checked_sub(1), index.checked_sub(1)) {
                    (Some(up), _) => row = up,
                    (None, Some(up)) => {
                        index = up;
                        row = self.height(up) - 1;
                    }
                    (None, None) => break,
                }
            } else if row + 1 < self.height(index) {
                row += 1;
            } else if index + 1 < self.len() {
                (index, row) = (index + 1, 0);
            } else {
                break;
            }
        }
        self.go(self.place(index, row), bottom);
    }

    fn go(&mut self, place: Place, bottom: Place) {
        if place >= bottom {
            self.follow();
        } else {
            self.follow = false;
            self.top = place;
        }
    }

    /// To the beginning of what is kept.
    pub fn to_start(&mut self) {
        let bottom = self.bottom();
        self.go(self.place(0, 0), bottom);
    }

    /// To the end, and on with it.
    pub fn follow(&mut self) {
        self.follow = true;
        self.arrived = 0;
    }

    /// Stays where it is.
    pub fn pause(&mut self) {
        if self.follow {
            self.top = self.bottom();
            self.follow = false;
        }
    }

    /// Shows other streams; stays at the same line.
    pub fn set_streams(&mut self, streams: Streams) {
        let top = self.top();
        self.streams = streams;
        self.top = Place { number: top.number, row: 0 };
        self.search_again();
    }

    /// Breaks long lines, or not; stays at the same line.
    pub fn set_wrap(&mut self, wrap: bool) {
        self.top = Place { number: self.top().number, row: 0 };
        (self.wrap, self.left) = (wrap, 0);
    }

    fn search_again(&mut self) {
        if let Some(search) = self.search.take() {
            let at = search.at;
            let mut again = Search::new(search.needle, &self.lines, self.streams);
            again.at = at;
            self.search = Some(again);
        }
    }

    /// Begins to type a search.
    pub fn type_search(&mut self) {
        self.before_typing = self.search.clone();
        self.typing = Some(Input::default());
    }

    /// Looks for what is typed so far, without moving.
    pub fn search_typed(&mut self) {
        let text = self.typing.as_ref().map_or("", Input::text);
        self.search =
            Needle::new(text).map(|needle| Search::new(needle, &self.lines, self.streams));
    }

    /// Ends typing: goes to a match, or back to the search before.
    pub fn typed(&mut self, accepted: bool) {
        self.typing = None;
        let before = self.before_typing.take();
        if !accepted || self.search.is_none() {
            self.search = before;
            return;
        }
        // At the end, what is looked for has just passed.
        let (follow, top) = (self.follow, self.top.number);
        let from = self
            .search
            .as_ref()
            .and_then(|search| if follow { search.before(u64::MAX) } else { search.from(top) });
        self.show_match(from);
    }

    /// Goes to the next match, or the one before.
    pub fn next_match(&mut self, forward: bool) {
        let top = self.top().number;
        let to = self.search.as_ref().and_then(|search| match search.at {
            Some(at) if forward => search.from(at + 1),
            Some(at) => search.before(at),
            None if forward => search.from(top),
            None => search.before(top),
        });
        self.show_match(to);
    }

    fn show_match(&mut self, number: Option<u64>) {
        let (Some(number), Some(search)) = (number, &mut self.search) else {
            return;
        };
        search.at = Some(number);
        let needle = search.needle.clone();
        let index = self.lines.index(self.streams, number);
        let found = self.lines.get(self.streams, index).and_then(|line| {
            let range = needle.find(&line.row.text).next()?;
            let before = line.row.text.get(..range.start)?;
            let within = line.row.pieces(self.drawn.get().0);
            let row = within.iter().position(|p| p.contains(&range.start));
            Some((text::width(before), row.unwrap_or(0)))
        });
        let (col, row) = found.unwrap_or((0, 0));
        let (cols, page) = self.drawn.get();
        if !self.wrap && !(self.left..self.left + cols.saturating_sub(8)).contains(&col) {
            self.left = col.saturating_sub(cols / 3);
        }
        let row = if self.wrap { row } else { 0 };
        if self.visible().any(|(n, _, r)| n == number && r == row) {
            // It stays where it is seen, also when more comes.
            self.pause();
            return;
        }
        self.follow = false;
        self.top = Place { number, row };
        // Some of what led to it is worth seeing.
        self.scroll(-isize::try_from(page / 3).unwrap_or(0));
        self.pause();
    }

    /// The text on the screen.
    pub fn screen_text(&self) -> String {
        let mut out = String::new();
        let mut last = None;
        for (number, line, _) in self.visible() {
            if last != Some(number) {
                out.push_str(&line.row.text);
                out.push('\n');
            }
            last = Some(number);
        }
        out
    }
}

/// What became of a run, in one line.
fn epitaph(record: &RunRecord) -> (String, Role) {
    let took = text::duration(record.duration(record.start_time));
    let role = match record.outcome {
        Outcome::Succeeded => Role::Ok,
        Outcome::Running => Role::Running,
        Outcome::Skipped => Role::Dim,
        Outcome::Killed | Outcome::Missed => Role::Warn,
        Outcome::Failed | Outcome::TimedOut | Outcome::Lost => Role::Error,
    };
    let mut words = match record.outcome {
        Outcome::Succeeded => format!("succeeded after {took}"),
        Outcome::Failed => format!("failed after {took}"),
        Outcome::TimedOut => format!("timed out after {took}"),
        Outcome::Killed => format!("killed after {took}"),
        Outcome::Lost => "lost with its worker".to_owned(),
        Outcome::Skipped => "skipped: it did not run".to_owned(),
        Outcome::Missed => "missed: it did not run".to_owned(),
        Outcome::Running => "still running".to_owned(),
    };
    match (record.exit_code, record.signal) {
        (Some(code), _) if code != 0 => words.push_str(&format!(", exit code {code}")),
        (None, Some(signal)) => words.push_str(&format!(", signal {signal}")),
        _ => {}
    }
    if let Some(who) = &record.killed_by
        && !record.err.contains(&format!("by {who}"))
    {
        words.push_str(&format!(", by {who}"));
    }
    let why = record.reason.as_deref().unwrap_or_default();
    for why in [record.err.as_str(), why] {
        if !why.is_empty() && !words.contains(why) {
            words.push_str(&format!(": {why}"));
        }
    }
    (format!("── {} ──", words.replace('\n', " ")), role)
}
