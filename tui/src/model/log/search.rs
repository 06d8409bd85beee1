//! Finding text in output: plain text, without regard to case unless it has capitals.

use std::collections::VecDeque;
use std::ops::Range;

use super::lines::{Line, Lines, Source, Streams};

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    text: String,
    folded: bool,
}

impl Needle {
    /// Nothing is looked for where `text` is empty.
    pub fn new(text: &str) -> Option<Self> {
        let folded = !text.chars().any(char::is_uppercase);
        (!text.is_empty()).then(|| Self { text: text.to_owned(), folded })
    }

    /// What was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it is in `hay`, in order and not overlapping.
    pub fn find<'a>(&'a self, hay: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.first(hay.get(from..)?)?;
            let found = found.start + from..found.end + from;
            from = found.end;
            Some(found)
        })
    }

    fn first(&self, hay: &str) -> Option<Range<usize>> {
        if !self.folded {
            return hay.find(&self.text).map(|at| at..at + self.text.len());
        }
        if self.text.is_ascii() {
            let (needle, hay) = (self.text.as_bytes(), hay.as_bytes());
            let mut windows = hay.windows(needle.len());
            let at = windows.position(|w| w.eq_ignore_ascii_case(needle))?;
            return Some(at..at + needle.len());
        }
        hay.char_indices().find_map(|(at, _)| {
            let mut rest = hay.get(at..)?.char_indices();
            let mut end = at;
            for wanted in self.text.chars() {
                let (offset, c) = rest.next()?;
                if !c.to_lowercase().eq(wanted.to_lowercase()) {
                    return None;
                }
                end = at + offset + c.len_utf8();
            }
            Some(at..end)
        })
    }

    fn is_in(&self, line: &Line) -> bool {
        matches!(line.source, Source::Stream(_)) && self.first(&line.row.text).is_some()
    }
}

/// A search: the lines that match, kept up as lines come and go.
#[derive(Debug, Clone)]
pub struct Search {
    /// What is looked for.
    pub needle: Needle,
    matches: VecDeque<u64>,
    /// The line where the search stands.
    pub at: Option<u64>,
}

impl Search {
    /// Looks through everything that is shown.
    pub fn new(needle: Needle, lines: &Lines, streams: Streams) -> Self {
        let found = lines.iter(streams).filter(|(_, line)| needle.is_in(line));
        Self { matches: found.map(|(number, _)| number).collect(), needle, at: None }
    }

    /// Looks at a new line.
    pub fn add(&mut self, number: u64, line: &Line) {
        if self.needle.is_in(line) {
            self.matches.push_back(number);
        }
    }

    /// Forgets what is no longer kept.
    pub fn drop_before(&mut self, first: u64) {
        while self.matches.front().is_some_and(|n| *n < first) {
            self.matches.pop_front();
        }
    }

    /// How many lines match.
    pub fn count(&self) -> usize {
        self.matches.len()
    }

    /// The place of the search among the matches, from 1.
    pub fn rank(&self) -> Option<usize> {
        let at = self.at?;
        let index = self.matches.partition_point(|n| *n < at);
        (self.matches.get(index) == Some(&at)).then_some(index + 1)
    }

    /// The first match at or after a line, else the first of all.
    pub fn from(&self, number: u64) -> Option<u64> {
        let index = self.matches.partition_point(|n| *n < number);
        self.matches.get(index).or(self.matches.front()).copied()
    }

    /// The last match before a line, else the last of all.
    pub fn before(&self, number: u64) -> Option<u64> {
        let index = self.matches.partition_point(|n| *n < number);
        let before = index.checked_sub(1).and_then(|i| self.matches.get(i));
        before.or(self.matches.back()).copied()
    }
}
