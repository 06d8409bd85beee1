//! What a worker tells its guard: short lines of text on a socket.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use carillon_core::id::RunId;

/// How long a line may be, in bytes; none that a worker writes is longer.
const LONGEST: usize = 128;

/// How a run is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Between SIGTERM and SIGKILL, in whole milliseconds; with zero there is no SIGTERM.
    pub(super) grace: Duration,
    /// It goes on when the lease runs out.
    pub(super) keep: bool,
    /// The process that keeps it, if there is one yet: everything below it is of the run.
    pub(super) keeper: Option<i32>,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// `run <run> <grace in ms> <kill|continue> [<keeper>]`: it is about to be started, or was by
    /// an earlier guard.
    Run(RunId, Terms),
    /// `start <run> [<ms>]`: it is to be started, unless it is so late since boot, with the three
    /// files that come along: where its standard output goes, where its standard error goes, and the
    /// socket of its keeper.
    Start(RunId, Option<Duration>),
    /// `end <run>`: its shell was reaped. What it left in the background is left alone.
    End(RunId),
    /// `lease <ms>`: until when the lease is certain, since boot.
    Lease(Duration),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run, Terms { grace, keep, keeper }) => {
                let at_loss = if *keep { "continue" } else { "kill" };
                write!(f, "run {run} {} {at_loss}", grace.as_millis())?;
                keeper.map_or(Ok(()), |keeper| write!(f, " {keeper}"))
            }
            Self::Start(run, None) => write!(f, "start {run}"),
            Self::Start(run, Some(before)) => write!(f, "start {run} {}", before.as_millis()),
            Self::End(run) => write!(f, "end {run}"),
            Self::Lease(until) => write!(f, "lease {}", until.as_millis()),
        }
    }
}

impl FromStr for Line {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let run = |text: &str| text.parse::<RunId>().map_err(drop);
        let millis = |text: &str| text.parse().map(Duration::from_millis).map_err(drop);
        match *text.split(' ').collect::<Vec<_>>().as_slice() {
            ["run", id, grace, at_loss @ ("kill" | "continue"), ref keeper @ ..]
                if keeper.len() < 2 =>
            {
                let keeper = keeper.first().map(|id| id.parse().map_err(drop)).transpose()?;
                let keep = at_loss == "continue";
                Ok(Self::Run(run(id)?, Terms { grace: millis(grace)?, keep, keeper }))
            }
            ["start", id] => Ok(Self::Start(run(id)?, None)),
            ["start", id, before] => Ok(Self::Start(run(id)?, Some(millis(before)?))),
            ["end", id] => Ok(Self::End(run(id)?)),
            ["lease", until] => Ok(Self::Lease(millis(until)?)),
            _ => Err(()),
        }
    }
}

/// Cuts what is read from the socket into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and returns the lines that they complete; an error is one that no
    /// worker writes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Result<Line, String>> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let text = String::from_utf8_lossy(&self.begun).into_owned();
                lines.push(text.parse().map_err(|()| text));
                self.begun.clear();
            } else if self.begun.len() <= LONGEST {
                self.begun.push(byte);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let run = RunId::new(chrono::Utc::now());
        let terms = |grace, keep| {
            let grace = Duration::from_millis(grace);
            Terms { grace, keep, keeper: keep.then_some(i32::MAX) }
        };
        for (line, text) in [
            (Line::Run(run, terms(10_000, false)), format!("run {run} 10000 kill")),
            (Line::Run(run, terms(0, true)), format!("run {run} 0 continue {}", i32::MAX)),
            (
                Line::Run(run, terms(u64::MAX, true)),
                format!("run {run} {} continue {}", u64::MAX, i32::MAX),
            ),
            (Line::Start(run, None), format!("start {run}")),
            (Line::Start(run, Some(Duration::from_millis(9))), format!("start {run} 9")),
            (Line::End(run), format!("end {run}")),
            (Line::Lease(Duration::from_millis(1234)), "lease 1234".to_owned()),
        ] {
            assert_eq!(line.to_string(), text);
            assert_eq!(text.parse(), Ok(line));
            assert!(text.len() < LONGEST, "{text}");
        }
    }

    #[test]
    fn lines_come_in_any_pieces_and_a_bad_one_harms_no_other() {
        let bad = "x".repeat(500);
        let text = format!("lease 1\nrun\n{bad}\nend 1\nlease -1\n\nlease 2\nlease 3");
        for size in [1, 7, 1000] {
            let mut lines = Lines::default();
            let pieces = text.as_bytes().chunks(size);
            let all: Vec<_> = pieces.flat_map(|piece| lines.take(piece)).collect();
            let good: Vec<_> = all.iter().flatten().copied().collect();
            let lease = |ms| Line::Lease(Duration::from_millis(ms));
            assert_eq!(good, [lease(1), lease(2)]);
            assert_eq!(all.len(), 7);
            assert!(lines.begun.len() <= LONGEST);
        }
    }
}
