//! Text as it is laid out on a terminal: how wide it is, how it is shortened, and how text from
//! elsewhere (names, commands, output, errors) is made harmless before it is drawn.
//!
//! Widths are those that ratatui reckons with, grapheme by grapheme, so that what is measured here
//! is what is drawn there.

pub mod ansi;

use std::borrow::Cow;

use carillon_core::id::is_deceptive;
use chrono::TimeDelta;
use ratatui::buffer::CellWidth;
use unicode_segmentation::UnicodeSegmentation;

/// What a shortened text ends with.
pub const ELLIPSIS: char = '…';

/// How many zero-width characters of one grapheme are kept. Real scripts need four or five; a
/// heap of a thousand combining marks costs the terminal a second.
const MARKS_MAX: usize = 8;

/// The columns that `text` takes once [`clean`].
pub fn width(text: &str) -> usize {
    let text = clean(text);
    if is_plain(&text) {
        return text.len();
    }
    text.graphemes(true).map(grapheme_width).sum()
}

/// The columns of one grapheme.
pub fn grapheme_width(grapheme: &str) -> usize {
    grapheme.cell_width().into()
}

/// Whether every byte is one printable ASCII character, so that bytes are columns.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// `text` with everything that could move the cursor, reorder or hide other text in a visible
/// form: `^[` for escape, `↵` for a line break, `<U+202E>` for a bidirectional override. A tab is a
/// space. Nothing is lost without a trace except the ninth and later combining marks of one
/// character.
pub fn clean(text: &str) -> Cow<'_, str> {
    if is_plain(text) || text.graphemes(true).all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for grapheme in text.graphemes(true) {
        push_clean(&mut out, grapheme);
    }
    Cow::Owned(out)
}

/// Adds one grapheme to `out` in its harmless form.
pub(crate) fn push_clean(out: &mut String, grapheme: &str) {
    if is_harmless(grapheme) {
        out.push_str(grapheme);
        return;
    }
    if matches!(grapheme, "\n" | "\r\n") {
        out.push('↵');
        return;
    }
    let mut marks = 0;
    let mut chars = grapheme.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '\t' => out.push(' '),
            '\0'..='\u{1f}' | '\u{7f}' => {
                out.push('^');
                // ^@ is NUL and ^? is delete, as on every terminal.
                out.push(char::from((c as u8) ^ 0x40));
            }
            '\u{200d}' if !first && chars.peek().is_some_and(|next| !is_mark(*next)) => {
                out.push(c);
            }
            c if c.is_control() || hides(c) => {
                out.push_str(&format!("<U+{:04X}>", u32::from(c)));
            }
            c if is_mark(c) && first => {
                // On its own it would sit on whatever is drawn before it.
                let seated = format!("◌{c}");
                match seated.graphemes(true).count() {
                    1 => out.push_str(&seated),
                    _ => out.push_str(&format!("<U+{:04X}>", u32::from(c))),
                }
            }
            c if is_mark(c) => {
                marks += 1;
                if marks <= MARKS_MAX {
                    out.push(c);
                }
            }
            c => out.push(c),
        }
        first = false;
    }
}

/// Whether a grapheme can be drawn as it is.
fn is_harmless(grapheme: &str) -> bool {
    let mut chars = grapheme.chars();
    match (chars.next(), chars.as_str()) {
        (None, _) => true,
        (Some(c), "") => !c.is_control() && !hides(c) && !is_mark(c),
        (Some(first), rest) => {
            let joined = |c: char| c == '\u{200d}';
            !first.is_control()
                && !hides(first)
                && !is_mark(first)
                && rest.chars().count() <= MARKS_MAX
                && rest.chars().all(|c| joined(c) || !(c.is_control() || hides(c)))
                && rest
                    .chars()
                    .zip(rest.chars().skip(1).map(Some).chain([None]))
                    .all(|(c, next)| !joined(c) || next.is_some_and(|next| !is_mark(next)))
        }
    }
}

/// Whether a character is drawn onto the one before it.
fn is_mark(c: char) -> bool {
    c.encode_utf8(&mut [0; 4]).cell_width() == 0
}

/// Whether a character is invisible, or makes others so.
fn hides(c: char) -> bool {
    is_deceptive(c)
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The start of `text` that is enough to fill `cols` columns, so that a text of a million
/// characters costs as much as one of a hundred.
fn enough(text: &str, cols: usize) -> &str {
    // The longest graphemes in use, families of emoji, take about 30 bytes for two columns.
    let bytes = cols.saturating_mul(16).saturating_add(64);
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// `text` in at most `cols` columns, harmless, with `…` where something is missing.
pub fn cut(text: &str, cols: usize) -> String {
    cut_to(text, cols).0
}

/// `text` in exactly `cols` columns: harmless, shortened with `…` or filled with spaces.
pub fn fit(text: &str, cols: usize) -> String {
    let (mut out, used) = cut_to(text, cols);
    out.extend(std::iter::repeat_n(' ', cols.saturating_sub(used)));
    out
}

/// As [`fit`], with the spaces in front: for numbers.
pub fn fit_right(text: &str, cols: usize) -> String {
    let (out, used) = cut_to(text, cols);
    format!("{:1$}{out}", "", cols.saturating_sub(used))
}

fn cut_to(text: &str, cols: usize) -> (String, usize) {
    let head = enough(text, cols);
    let whole = head.len() == text.len();
    let clean = clean(head);
    // Where the text ends if it must end with the ellipsis: bytes and columns.
    let (mut end, mut end_cols) = (0, 0);
    let mut used = 0;
    for (at, grapheme) in clean.grapheme_indices(true) {
        used += grapheme_width(grapheme);
        if used < cols {
            (end, end_cols) = (at + grapheme.len(), used);
        }
        if used > cols {
            break;
        }
    }
    if whole && used <= cols {
        return (clean.into_owned(), used);
    }
    let mut out = clean.get(..end).unwrap_or_default().to_owned();
    if cols > 0 {
        out.push(ELLIPSIS);
        end_cols += 1;
    }
    (out, end_cols)
}

/// `text` in lines of at most `cols` columns, broken between words where that is possible. The
/// line breaks of the text are kept. For messages and help, not for output.
pub fn wrap(text: &str, cols: usize) -> Vec<String> {
    let cols = cols.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let clean = clean(paragraph);
        let (mut line, mut used) = (String::new(), 0);
        for word in words(&clean) {
            let wide = width(word);
            if used + wide > cols && used > 0 {
                lines.push(line.trim_end().to_owned());
                (line, used) = (String::new(), 0);
                if word.trim().is_empty() {
                    continue;
                }
            }
            if wide <= cols {
                line.push_str(word);
                used += wide;
                continue;
            }
            for grapheme in word.graphemes(true) {
                let wide = grapheme_width(grapheme);
                if used + wide > cols && used > 0 {
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push_str(grapheme);
                used += wide;
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// Words and the spaces between them. A time or a path is one word; scripts without spaces have
/// their own bounds.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ').flat_map(|piece| {
        let (word, space) = piece.split_at(piece.trim_end_matches(' ').len());
        let whole = word.is_ascii().then_some(word);
        let bounded = (!word.is_ascii()).then(|| word.split_word_bounds());
        whole.into_iter().chain(bounded.into_iter().flatten()).chain([space])
    })
}

/// How long something is away, in one unit: `3s`, `5m`, `2h`, `4d`.
pub fn ago(delta: TimeDelta) -> String {
    let s = delta.num_seconds().unsigned_abs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m", s / 60),
        3_600..86_400 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

/// How long something took, in at most six columns up to a hundred days: `420ms`, `3.2s`, `12s`,
/// `5m07s`, `2h03m`, `4d02h`.
pub fn duration(delta: TimeDelta) -> String {
    let ms = delta.num_milliseconds().unsigned_abs();
    let s = ms / 1_000;
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 => format!("{s}.{}s", ms % 1_000 / 100),
        10_000..60_000 => format!("{s}s"),
        60_000..3_600_000 => format!("{}m{:02}s", s / 60, s % 60),
        3_600_000..86_400_000 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
    }
}

/// A number of bytes: `812 B`, `4.2 KiB`, `37 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1_024 {
        return format!("{n} B");
    }
    let mut tenths = n.saturating_mul(10) / 1_024;
    let mut unit = "KiB";
    for next in UNITS.into_iter().skip(1) {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1_024;
        unit = next;
    }
    match tenths {
        0..100 => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        _ => format!("{} {unit}", tenths / 10),
    }
}

/// A number with its thousands apart: `12,000`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count and its noun: `1 run`, `3 runs`, `12,000 lines`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn wide_combining_and_joined_characters_are_measured() {
        assert_eq!(width("每日备份"), 8);
        assert_eq!(width("cafe\u{301}"), 4);
        assert_eq!(width("👩‍👩‍👧‍👦"), 2);
        assert_eq!(clean("👩‍👩‍👧‍👦 每日 cafe\u{301} नमस्ते"), "👩‍👩‍👧‍👦 每日 cafe\u{301} नमस्ते");
    }

    #[test]
    fn control_and_bidi_characters_are_visible() {
        assert_eq!(clean("a\u{1b}[2Jb"), "a^[[2Jb");
        assert_eq!(clean("a\tb\nc\r\nd\re"), "a b↵c↵d^Me");
        assert_eq!(clean("x\u{0}\u{7f}\u{9b}"), "x^@^?<U+009B>");
        assert_eq!(clean("pay\u{202e}exe.cod"), "pay<U+202E>exe.cod");
        assert_eq!(clean("pay\u{200b}roll"), "pay<U+200B>roll");
        assert_eq!(clean("a\u{200d}"), "a<U+200D>");
        assert_eq!(clean("tag\u{e0041}"), "tag<U+E0041>");
        assert_eq!(clean("\u{301}alone"), "◌\u{301}alone");
    }

    #[test]
    fn a_heap_of_marks_is_thinned() {
        let zalgo = format!("z{}", "\u{301}".repeat(1_000_000));
        assert_eq!(clean(&zalgo).chars().count(), 1 + MARKS_MAX);
        assert_eq!(width(&zalgo), 1);
    }

    #[test]
    fn text_is_fitted_to_its_columns() {
        assert_eq!(fit("settle", 8), "settle  ");
        assert_eq!(fit("settle", 6), "settle");
        assert_eq!(fit("settlement", 6), "settl…");
        assert_eq!(fit("每日备份", 5), "每日…");
        assert_eq!(fit("每日备份", 6), "每日… ");
        assert_eq!(fit("每日备份", 1), "…");
        assert_eq!(fit("anything", 0), "");
        assert_eq!(fit("", 2), "  ");
        assert_eq!(cut("settlement", 6), "settl…");
        assert_eq!(fit_right("42", 5), "   42");
        // One more escape is two more columns.
        assert_eq!(fit("ab\u{1b}", 4), "ab^[");
        assert_eq!(fit("ab\u{1b}", 3), "ab…");
    }

    #[test]
    fn a_million_characters_cost_no_more_than_a_hundred() {
        for unit in ["x", "每", "\u{1b}", "e\u{301}", "\u{301}"] {
            let long = unit.repeat(1_000_000);
            let start = Instant::now();
            for _ in 0..1_000 {
                assert_eq!(grapheme_sum(&fit(&long, 40)), 40, "{unit:?}");
            }
            // A thousand walks over all of it would take minutes.
            assert!(start.elapsed().as_secs() < 20, "{unit:?}: {:?}", start.elapsed());
        }
    }

    fn grapheme_sum(text: &str) -> usize {
        text.graphemes(true).map(grapheme_width).sum()
    }

    #[test]
    fn words_are_wrapped() {
        assert_eq!(wrap("at 01:00 every day", 9), ["at 01:00", "every day"]);
        assert_eq!(wrap("at 01:00, Asia/Shanghai", 12), ["at 01:00,", "Asia/Shangha", "i"]);
        assert_eq!(wrap("at 01:00, (Mon-Fri)", 14), ["at 01:00,", "(Mon-Fri)"]);
        assert_eq!(wrap("a\n\nb", 9), ["a", "", "b"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("每日备份", 5), ["每日", "备份"]);
    }

    #[test]
    fn times_and_sizes_read_well() {
        let ms = TimeDelta::milliseconds;
        let all = [0, 420, 1_000, 3_260, 12_900, 307_000, 7_380_000, 352_800_000];
        let shown = all.map(|n| duration(ms(n)));
        assert_eq!(shown, ["0ms", "420ms", "1.0s", "3.2s", "12s", "5m07s", "2h03m", "4d02h"]);
        let shown = [0, 59_999, 60_000, -3_600_000, 90_000_000].map(|n| ago(ms(n)));
        assert_eq!(shown, ["0s", "59s", "1m", "1h", "1d"]);
        let shown = [0, 1_023, 1_024, 4_300, 38_797_312, 5 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "4.1 KiB", "37 MiB", "5.0 TiB"]);
        assert_eq!(bytes(u64::MAX), "1677721 TiB");
        assert_eq!(count(1, "run"), "1 run");
        assert_eq!(count(1_234_567, "line"), "1,234,567 lines");
    }

    proptest! {
        #[test]
        fn what_is_fitted_fills_its_columns_on_the_screen(text in "\\PC{0,30}|[\\x00-\\x1f\u{80}-\u{ff}\u{300}-\u{310}\u{200b}-\u{2070}👩‍每a ]{0,30}", cols in 0usize..40) {
            let fitted = fit(&text, cols);
            prop_assert_eq!(grapheme_sum(&fitted), cols);
            prop_assert!(!fitted.contains(char::is_control));
            let mut buffer = Buffer::empty(Rect::new(0, 0, 60, 1));
            let (end, _) = buffer.set_stringn(0, 0, &fitted, 60, Style::new());
            prop_assert_eq!(usize::from(end), cols);
        }

        #[test]
        fn cleaning_twice_changes_nothing(text in "\\PC{0,30}|[\\x00-\\x1f\u{300}-\u{310}\u{200b}-\u{2070}a]{0,30}") {
            let once = clean(&text).into_owned();
            prop_assert_eq!(clean(&once), once.as_str());
        }
    }
}
