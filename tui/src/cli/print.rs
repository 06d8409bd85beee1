//! What goes to standard output: tables for people, JSON for programs, job output as it is.
//!
//! Names and output are untrusted: on a terminal everything but text, line ends and colours is
//! made visible instead of being obeyed.

use std::io::{IsTerminal, Write};

use carillon_core::id::is_deceptive;
use chrono::{DateTime, Local, Utc};
use serde::Serialize;

use super::Failure;
use crate::text;

/// Prints a table with a header; columns are as wide as their widest cell.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let rows: Vec<[String; N]> =
        rows.into_iter().map(|row| row.map(|cell| text::clean(&cell).into_owned())).collect();
    let mut widths = header.map(text::width);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(text::width(cell));
        }
    }
    let mut out = std::io::stdout().lock();
    let header = header.map(str::to_owned);
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - text::width(cell) + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// An instant in the zone of whoever asks.
pub(super) fn clock(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Prints one JSON value, indented.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.to_string()))?;
    line(&escape(&text))
}

/// The same JSON without raw characters that a terminal obeys: serde escapes only those below
/// U+0020. Outside strings there are none but line ends.
fn escape(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && (c.is_control() || is_deceptive(c)) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Prints one line.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// Prints one line with untrusted parts.
pub(super) fn clean_line(untrusted: &str) -> Result<(), Failure> {
    line(&text::clean(untrusted))
}

/// Tells something on standard error.
pub(super) fn note(message: &str) {
    // Where standard error is closed there is nobody to tell.
    let mut lead = "carillon: ";
    for line in message.lines() {
        writeln!(std::io::stderr().lock(), "{lead}{}", text::clean(line)).ok();
        lead = "";
    }
}

/// Tells something beside the output, on standard error.
pub(super) fn aside(message: &str) {
    // As above.
    writeln!(std::io::stderr().lock(), "{}", text::clean(message)).ok();
}

/// One line of output with its colours; everything else that is not text is made visible.
///
/// A colour is `ESC [`, digits and separators, `m` (ECMA-48, select graphic rendition).
fn keep_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut out = clean_but_tabs(parts.next().unwrap_or_default());
    let mut coloured = false;
    for part in parts {
        let is_parameter = |c: char| c.is_ascii_digit() || c == ';' || c == ':';
        let rest = part.strip_prefix('[').map(|p| p.trim_start_matches(is_parameter));
        match rest.and_then(|rest| rest.strip_prefix('m')) {
            Some(rest) => {
                coloured = true;
                out.push('\u{1b}');
                out.push_str(part.strip_suffix(rest).unwrap_or_default());
                out.push_str(&clean_but_tabs(rest));
            }
            None => {
                out.push_str("^[");
                out.push_str(&clean_but_tabs(part));
            }
        }
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    out
}

fn clean_but_tabs(text: &str) -> String {
    let cells: Vec<_> = text.split('\t').map(text::clean).collect();
    cells.join("\t")
}

/// Where job output goes: unchanged into a file or a pipe, harmless onto a terminal.
pub(super) struct OutputSink {
    terminal: bool,
}

impl OutputSink {
    /// Unchanged also onto a terminal, where `raw`.
    pub(super) fn new(raw: bool) -> Self {
        Self { terminal: !raw && std::io::stdout().is_terminal() }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.terminal {
            let text = String::from_utf8_lossy(bytes);
            for line in text.split_inclusive('\n') {
                let (body, end) = match line.strip_suffix('\n') {
                    Some(body) => (body.strip_suffix('\r').unwrap_or(body), "\n"),
                    None => (line, ""),
                };
                write!(out, "{}{end}", keep_colours(body))?;
            }
        } else {
            out.write_all(bytes)?;
        }
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_nothing_that_a_terminal_obeys() {
        let text = serde_json::to_string("a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}é").unwrap();
        let safe = escape(&text);
        assert_eq!(safe, r#""a\u001b[2J\u009b2J\u007f\u202eé""#);
        let back: String = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}é");
    }

    #[test]
    fn colours_are_kept_and_nothing_else_is_obeyed() {
        assert_eq!(keep_colours("a\tb"), "a\tb");
        assert_eq!(keep_colours("\u{1b}[1;31mred\u{1b}[0m"), "\u{1b}[1;31mred\u{1b}[0m\u{1b}[0m");
        let hostile = keep_colours("\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}2J\u{202e}");
        assert!(hostile.starts_with("^[[2J^[]0;x"), "{hostile:?}");
        assert!(!hostile.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{hostile:?}");
    }
}
