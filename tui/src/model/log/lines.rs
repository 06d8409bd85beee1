//! The lines of a run's output, in bounded memory: the newest are kept.

use std::collections::VecDeque;

use carillon_core::run::{Chunk, Stream};
use chrono::{DateTime, Utc};

use crate::text::ansi::{Reader, Row};
use crate::theme::Role;

/// How many lines are kept.
pub const LINES_MAX: usize = 200_000;
/// How many bytes of memory the kept lines take.
pub const BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The job.
    Stream(Stream),
    /// Carillon: a remark on the output.
    Notice(Role),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its end was read.
    pub at: DateTime<Utc>,
    /// Where it comes from.
    pub source: Source,
    /// What it says.
    pub row: Row,
}

/// Which streams are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    /// Both, in the order in which they were read.
    #[default]
    Both,
    /// One.
    Only(Stream),
}

impl Streams {
    /// The next choice.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Both => Self::Only(Stream::Stdout),
            Self::Only(Stream::Stdout) => Self::Only(Stream::Stderr),
            Self::Only(Stream::Stderr) => Self::Both,
        }
    }

    fn shows(self, source: Source) -> bool {
        match (self, source) {
            (Self::Both, _) | (_, Source::Notice(_)) => true,
            (Self::Only(only), Source::Stream(stream)) => only == stream,
        }
    }
}

/// The kept lines. Every line has a number that it keeps; what is shown depends on [`Streams`] and
/// is counted by an index from 0.
#[derive(Debug, Default)]
pub struct Lines {
    kept: VecDeque<Line>,
    /// The number of the first kept line.
    first: u64,
    bytes: usize,
    notices: u64,
    /// The numbers of the lines of each stream, and of the notices.
    of: [VecDeque<u64>; 2],
    readers: [Reader; 2],
    /// The line of each stream that has not ended yet.
    open: [Option<Line>; 2],
}

/// Where a stream's part is in the arrays of [`Lines`].
fn slot(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl Lines {
    /// Reads a piece of output; `added` gets every finished line.
    pub fn feed(&mut self, chunk: &Chunk, mut added: impl FnMut(u64, &Line)) {
        let slot = slot(chunk.stream);
        let source = Source::Stream(chunk.stream);
        let Some(mut reader) = self.readers.get_mut(slot).map(std::mem::take) else {
            return;
        };
        let at = chunk.at;
        reader.feed(&chunk.data, &mut |row| {
            self.push(Line { at, source, row }, &mut added);
        });
        if let (Some(open), Some(place)) = (self.open.get_mut(slot), self.readers.get_mut(slot)) {
            *open = reader.open().map(|row| Line { at, source, row });
            *place = reader;
        }
    }

    /// Ends the lines that are open: nothing more will come.
    pub fn finish(&mut self, mut added: impl FnMut(u64, &Line)) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let slot = slot(stream);
            let open = self.open.get_mut(slot).and_then(Option::take);
            let Some(mut reader) = self.readers.get_mut(slot).map(std::mem::take) else {
                continue;
            };
            let at = open.map_or_else(|| self.newest(), |line| line.at);
            let source = Source::Stream(stream);
            reader.finish(&mut |row| self.push(Line { at, source, row }, &mut added));
        }
    }

    /// Adds a remark.
    pub fn notice(&mut self, text: &str, role: Role, at: DateTime<Utc>) {
        let mut reader = Reader::default();
        let source = Source::Notice(role);
        self.notices += 1;
        let mut keep = |row| self.push(Line { at, source, row }, &mut |_, _| ());
        reader.feed(text.as_bytes(), &mut keep);
        reader.finish(&mut keep);
    }

    fn newest(&self) -> DateTime<Utc> {
        self.kept.back().map_or_else(DateTime::default, |l| l.at)
    }

    fn push(&mut self, line: Line, added: &mut impl FnMut(u64, &Line)) {
        let number = self.first + self.kept.len() as u64;
        added(number, &line);
        for stream in [Stream::Stdout, Stream::Stderr] {
            if Streams::Only(stream).shows(line.source)
                && let Some(of) = self.of.get_mut(slot(stream))
            {
                of.push_back(number);
            }
        }
        self.bytes += cost(&line);
        self.kept.push_back(line);
        while self.kept.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= cost(&oldest);
            for of in &mut self.of {
                if of.front() == Some(&self.first) {
                    of.pop_front();
                }
            }
            self.first += 1;
        }
    }

    /// How many lines are no longer kept.
    pub fn dropped(&self) -> u64 {
        self.first
    }

    /// How many lines have ended so far, dropped ones included.
    pub fn total(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// How many lines the job has ended so far.
    pub fn said(&self) -> u64 {
        self.total().saturating_sub(self.notices)
    }

    /// The bytes of memory that the kept lines take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn ended(&self, streams: Streams) -> usize {
        match streams {
            Streams::Both => self.kept.len(),
            Streams::Only(stream) => self.of.get(slot(stream)).map_or(0, VecDeque::len),
        }
    }

    fn opened(&self, streams: Streams) -> impl Iterator<Item = &Line> {
        let open = self.open.iter().flatten();
        open.filter(move |line| streams.shows(line.source))
    }

    /// How many lines are shown.
    pub fn len(&self, streams: Streams) -> usize {
        self.ended(streams) + self.opened(streams).count()
    }

    /// A shown line by its index.
    pub fn get(&self, streams: Streams, index: usize) -> Option<&Line> {
        let ended = self.ended(streams);
        if index >= ended {
            return self.opened(streams).nth(index - ended);
        }
        let number = self.number(streams, index);
        self.kept.get(usize::try_from(number - self.first).ok()?)
    }

    /// The number of a shown line.
    pub fn number(&self, streams: Streams, index: usize) -> u64 {
        let ended = self.ended(streams);
        if index >= ended {
            return self.total() + (index - ended) as u64;
        }
        match streams {
            Streams::Both => self.first + index as u64,
            Streams::Only(stream) => {
                let of = self.of.get(slot(stream));
                of.and_then(|of| of.get(index)).copied().unwrap_or(self.first)
            }
        }
    }

    /// The index of the first shown line whose number is not smaller.
    pub fn index(&self, streams: Streams, number: u64) -> usize {
        let within = match streams {
            Streams::Both => {
                usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX)
            }
            Streams::Only(stream) => {
                let of = self.of.get(slot(stream));
                let ended = of.map_or(0, |of| of.partition_point(|n| *n < number));
                let open = number.saturating_sub(self.total());
                ended + usize::try_from(open).unwrap_or(usize::MAX)
            }
        };
        within.min(self.len(streams).saturating_sub(1))
    }

    /// The kept lines that have ended and are shown, with their numbers.
    pub fn iter(&self, streams: Streams) -> impl Iterator<Item = (u64, &Line)> {
        (self.first..).zip(&self.kept).filter(move |(_, line)| streams.shows(line.source))
    }

    /// Whether a line of this source is shown.
    pub fn shows(streams: Streams, source: Source) -> bool {
        streams.shows(source)
    }
}

/// The memory of one line, with its place in the lists.
fn cost(line: &Line) -> usize {
    size_of::<Line>() + 2 * size_of::<u64>() + line.row.heap()
}
