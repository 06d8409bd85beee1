//! The time of day in words: `at 01:00`, `every 5 minutes`, `every hour from 09:00 to 17:00`.

use super::super::masks::Fields;
use super::numbers::{Span, Steps, amount, and, counted, every, numbers, spans, unrolled};

/// More times of day than this are not listed one by one.
const LISTED: usize = 6;
/// At one time an hour, so many hours on end are told as a stretch, fewer one by one.
const SHORTEST_STRETCH: usize = 5;
/// More stretches of hours than this are not told by their ends.
const STRETCHES: usize = 4;

/// The time of day of a rule.
pub(super) struct Time {
    pub(super) words: String,
    /// The words let expect a rule that follows the clock through a change.
    pub(super) flows: bool,
    /// Without a date beside it the same instants in every zone, as offsets are whole quarters of
    /// an hour.
    pub(super) zoneless: bool,
}

impl Time {
    /// `around`: a stretch may go on past midnight.
    pub(super) fn of(fields: &Fields, around: bool) -> Self {
        let seconds = numbers(fields.seconds.bits());
        let minutes = numbers(fields.minutes.bits());
        let hours = numbers(fields.hours.into());
        let hour: Vec<u32> =
            minutes.iter().flat_map(|m| seconds.iter().map(move |s| m * 60 + s)).collect();
        let parts = Parts { short: seconds == [0], seconds, minutes, hours, around };
        let pace = Steps::of(&hour);
        let plain = |(words, flows)| Self { words, flows, zoneless: false };
        match (hour.as_slice(), pace) {
            ([once], _) => plain(parts.once_an_hour(*once)),
            _ if hour.len() * parts.hours.len() <= LISTED => {
                let times =
                    |h: &u32| hour.iter().map(|s| parts.clock(h * 3600 + s)).collect::<Vec<_>>();
                let times: Vec<String> = parts.hours.iter().flat_map(times).collect();
                plain((format!("at {}", and(&times)), false))
            }
            (_, Some(pace)) if pace.is_cycle(3600) => Self {
                words: parts.paced(pace),
                flows: true,
                zoneless: parts.hours.len() == 24 && 900_u32.is_multiple_of(pace.step),
            },
            (_, Some(pace)) if parts.hours.len() == 1 => {
                plain((parts.stretches(pace), Steps::of(&parts.minutes).is_some_and(skips)))
            }
            _ => plain(parts.in_general()),
        }
    }
}

fn skips(steps: Steps) -> bool {
    steps.step > 1
}

struct Parts {
    seconds: Vec<u32>,
    minutes: Vec<u32>,
    hours: Vec<u32>,
    /// Times are told without seconds.
    short: bool,
    around: bool,
}

impl Parts {
    /// At `second` of each of the hours.
    fn once_an_hour(&self, second: u32) -> (String, bool) {
        if self.hours.len() == 24 {
            return match second {
                0 => ("every hour".to_owned(), true),
                _ => (format!("at {} past every hour", minutes_and_seconds(second)), true),
            };
        }
        if let Some(steps) = Steps::of(&self.hours).filter(|s| s.is_cycle(24))
            && self.hours.len() > 2
        {
            let start = steps.first * 3600 + second;
            let pace = every(steps.step, "hour");
            return match start {
                0 => (pace, true),
                _ => (format!("{pace} starting at {}", self.clock(start)), true),
            };
        }
        let at = |hour: u32| self.clock(hour * 3600 + second);
        let (mut times, mut paces) = (Vec::new(), Vec::new());
        for span in spans(&self.clockwise(), SHORTEST_STRETCH) {
            match span {
                Span::One(hour) => times.push(at(hour)),
                Span::Run(first, last) => {
                    paces.push(format!("every hour from {} to {}", at(first), at(last)));
                }
                Span::Steps(Steps { first, step, last }) => {
                    paces.push(format!("every {step} hours from {} to {}", at(first), at(last)));
                }
            }
        }
        let words = match times.is_empty() {
            true => and(&paces),
            false => format!("at {}", and(&[times, paces].concat())),
        };
        (words, false)
    }

    /// At an even pace through each of the hours.
    fn paced(&self, pace: Steps) -> String {
        let words = every_seconds(pace.step);
        let start = match (pace.first, pace.step) {
            (0, _) => String::new(),
            (second, ..60) => format!(", starting {} past the minute", amount(second, "second")),
            (second, _) => format!(", starting {} past the hour", minutes_and_seconds(second)),
        };
        if self.hours.len() < 24 {
            return match self.clockwise().chunk_by(|a, b| b - a == 1).count() <= STRETCHES {
                true => self.stretches(pace),
                false if start.is_empty() => format!("{words} of {}", counted("hour", &self.hours)),
                false => format!("{words}{start}, of {}", counted("hour", &self.hours)),
            };
        }
        match (pace.first, pace.step) {
            (second @ 1.., 60) => format!("at {} past every minute", amount(second, "second")),
            _ => format!("{words}{start}"),
        }
    }

    /// `every 15 minutes from 09:00 to 11:45 and from 13:00 to 17:45`.
    fn stretches(&self, pace: Steps) -> String {
        let hours = self.clockwise();
        let stretches = hours.chunk_by(|a, b| b - a == 1).filter_map(|run| {
            let (first, last) = (*run.first()?, *run.last()?);
            let (start, end) = (first * 3600 + pace.first, last * 3600 + pace.last);
            Some(format!("from {} to {}", self.clock(start), self.clock(end)))
        });
        format!("{} {}", every_seconds(pace.step), and(&stretches.collect::<Vec<_>>()))
    }

    /// `at seconds 0 and 7 of minutes 0-9 of every hour`.
    fn in_general(&self) -> (String, bool) {
        let (every_minute, every_hour) = (self.minutes.len() == 60, self.hours.len() == 24);
        let mut parts = Vec::new();
        if !self.short {
            parts.push(match Steps::of(&self.seconds) {
                Some(pace) if pace.first == 0 && pace.is_cycle(60) => every(pace.step, "second"),
                _ => counted("second", &self.seconds),
            });
        }
        parts.push(match every_minute {
            true => "every minute".to_owned(),
            false => counted("minute", &self.minutes),
        });
        if !every_hour {
            parts.push(counted("hour", &self.hours));
        } else if !every_minute {
            parts.push("every hour".to_owned());
        }
        let words = parts.join(" of ");
        let words = if words.starts_with("every") { words } else { format!("at {words}") };
        let stepped = Steps::of(&self.minutes).is_some_and(skips) && self.minutes.len() > 2;
        (words, every_hour || every_minute || stepped)
    }

    /// The hours in the order in which a person tells them.
    fn clockwise(&self) -> Vec<u32> {
        if self.around { unrolled(&self.hours, 0, 24) } else { self.hours.clone() }
    }

    /// A time of day in seconds since midnight, or since the one before.
    fn clock(&self, time: u32) -> String {
        let (hour, minute, second) = (time / 3600 % 24, time / 60 % 60, time % 60);
        match self.short {
            true => format!("{hour:02}:{minute:02}"),
            false => format!("{hour:02}:{minute:02}:{second:02}"),
        }
    }
}

/// A pace within an hour.
fn every_seconds(step: u32) -> String {
    match step % 60 {
        0 => every(step / 60, "minute"),
        _ => every(step, "second"),
    }
}

/// `30 minutes 15 seconds`.
fn minutes_and_seconds(seconds: u32) -> String {
    let parts = [(seconds / 60, "minute"), (seconds % 60, "second")];
    let words = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| amount(*n, unit));
    words.collect::<Vec<_>>().join(" ")
}
