//! The output as the record itself has it: its beginning, its end and its last line.

use std::collections::VecDeque;

use super::dropped_note;

/// How much of the beginning and of the end is in the record itself.
const SUMMARY_BYTES: usize = 32 * 1024;

/// The longest last line that is reported, in characters.
const LAST_LINE_CHARS: usize = 200;

/// The beginning and the end of both streams together, as they arrived.
#[derive(Debug, Default)]
pub(super) struct Summary {
    head: Vec<u8>,
    /// The newest bytes, also those that `head` has.
    recent: VecDeque<u8>,
    /// All bytes so far, kept or not.
    pub(super) total: u64,
}

impl Summary {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = SUMMARY_BYTES - self.head.len();
        self.head.extend(bytes.iter().take(room));
        let newest = last(bytes, SUMMARY_BYTES);
        let excess = (self.recent.len() + newest.len()).saturating_sub(SUMMARY_BYTES);
        self.recent.drain(..excess);
        self.recent.extend(newest);
    }

    /// The beginning and the end, with a note between them where bytes are missing.
    pub(super) fn text(mut self) -> String {
        let unseen = self.total.saturating_sub(self.head.len() as u64);
        let recent = self.recent.make_contiguous();
        let tail = last(recent, usize::try_from(unseen).unwrap_or(usize::MAX));
        let between = unseen - tail.len() as u64;
        if between == 0 {
            self.head.extend_from_slice(tail);
            return String::from_utf8_lossy(&self.head).into_owned();
        }
        let (head, tail) = (whole_end(&self.head), whole_start(tail));
        let mut text = String::from_utf8_lossy(head).into_owned();
        text.push_str(&dropped_note(self.total - (head.len() + tail.len()) as u64));
        text.push_str(&String::from_utf8_lossy(tail));
        text
    }

    /// The last line with anything in it, cut off where it is long.
    pub(super) fn last_line(&self) -> String {
        let (older, newer) = self.recent.as_slices();
        let recent = [older, newer].concat();
        // A progress bar ends its lines with a carriage return.
        recent
            .rsplit(|b| matches!(b, b'\n' | b'\r'))
            .find(|line| !line.trim_ascii().is_empty())
            .map(|line| {
                let text = String::from_utf8_lossy(line);
                text.trim_end().chars().take(LAST_LINE_CHARS).collect()
            })
            .unwrap_or_default()
    }
}

fn last(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(count)..).unwrap_or_default()
}

/// Without the beginning of a character that was cut off after it.
fn whole_end(bytes: &[u8]) -> &[u8] {
    let is_inside = |b: &&u8| (0x80..0xC0).contains(*b);
    let inside = bytes.iter().rev().take(3).take_while(is_inside).count();
    let end = last(bytes, inside + 1);
    match std::str::from_utf8(end) {
        // Only an unfinished character has no length; one that is wrong stays.
        Err(e) if e.error_len().is_none() => {
            bytes.get(..bytes.len() - end.len()).unwrap_or_default()
        }
        _ => bytes,
    }
}

/// Without the end of a character that was cut off before it.
fn whole_start(bytes: &[u8]) -> &[u8] {
    let is_inside = |b: &&u8| (0x80..0xC0).contains(*b);
    let cut = bytes.iter().take(3).take_while(is_inside).count();
    bytes.get(cut..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_cut_between_characters() {
        let mut summary = Summary::default();
        let text = "a".to_owned() + &"清".repeat(100_000);
        summary.push(text.as_bytes());
        let text = summary.text();
        assert!(text.starts_with("a清") && text.ends_with('清'));
        assert!(!text.contains('\u{fffd}') && text.contains("bytes dropped"));
        assert!(text.len() <= 2 * SUMMARY_BYTES + 64);
    }

    #[test]
    fn short_summaries_are_whole() {
        for length in [0, 1, SUMMARY_BYTES, SUMMARY_BYTES + 1, 2 * SUMMARY_BYTES] {
            let mut summary = Summary::default();
            let all: Vec<u8> = (0..length).map(|n| b'a' + (n % 26) as u8).collect();
            for part in all.chunks(1000) {
                summary.push(part);
            }
            assert_eq!(summary.text().as_bytes(), all, "{length}");
        }
    }

    #[test]
    fn the_last_line_skips_blank_ones_and_is_bounded() {
        let line_of = |text: &str| {
            let mut summary = Summary::default();
            summary.push(text.as_bytes());
            summary.last_line()
        };
        assert_eq!(line_of(""), "");
        assert_eq!(line_of("one\n  two \n\n \n"), "  two");
        assert_eq!(line_of("10%\r20%\r"), "20%");
        assert_eq!(line_of(&"清".repeat(9000)).chars().count(), 200);
    }
}
