//! Output of jobs, written for a terminal, turned into rows that can be drawn: colours are kept,
//! and nothing else of what a terminal would obey.
//!
//! What is only finery (clearing to the end of a line, hiding the cursor, hyperlinks) is left out;
//! every other control sequence is shown as text, `^[[2J`, so that it does nothing and can be
//! seen. A carriage return begins the row anew, as progress bars expect. A line that is longer
//! than a row may be continues in the next, so no row costs more than any other.

use std::ops::Range;

use ratatui::style::{Color, Modifier, Style};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

use super::{grapheme_width, is_plain, push_clean};
use crate::theme::{Role, Theme};

/// The longest row, in columns: several screens, and still nothing to draw.
const ROW_COLS: usize = 1_024;
/// The longest row, in bytes: for heaps of combining marks, which take no columns.
const ROW_BYTES: usize = 8 * 1_024;
/// The longest control sequence that is waited for, in characters.
const SEQUENCE_MAX: usize = 512;
/// Where tabs stop.
const TAB: usize = 8;

/// How a piece of output is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paint {
    fg: Option<Color>,
    bg: Option<Color>,
    add: Modifier,
    /// A control character made visible.
    control: bool,
}

impl Paint {
    const CONTROL: Self = Self { fg: None, bg: None, add: Modifier::empty(), control: true };

    /// As the terminal can show it. Ink that is the colour of its ground is drawn without the
    /// ground, and ink that would be lost on the theme's paper is dim: output has no right to be
    /// invisible.
    pub fn style(self, theme: &Theme) -> Style {
        if self.control {
            return theme.get(Role::Control);
        }
        let mut style = Style::new().add_modifier(self.add);
        style.fg = self.fg;
        style.bg = self.bg.filter(|bg| Some(*bg) != self.fg);
        let on_paper = style.bg.is_none() && !self.add.contains(Modifier::REVERSED);
        let lost = match theme.is_light() {
            Some(true) => matches!(self.fg, Some(Color::White | Color::Gray)),
            Some(false) => self.fg == Some(Color::Black),
            None => false,
        };
        if on_paper && lost {
            style.fg = theme.get(Role::Dim).fg;
        }
        theme.adapt(style)
    }
}

/// From `start` to the next one, a row looks like `paint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Byte position in the row's text.
    pub start: u32,
    /// How it looks.
    pub paint: Paint,
}

/// A row of output: harmless text and its colours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// What is shown; no control characters.
    pub text: Box<str>,
    /// Colours, in order; what comes before the first has none.
    pub spans: Box<[Span]>,
    /// Columns of the text.
    pub cols: u16,
    /// Whether the line goes on in the next row.
    pub continues: bool,
    /// Whether earlier text of this row was overwritten after a carriage return.
    pub overwritten: bool,
}

impl Row {
    /// The bytes that it takes beside its own size.
    pub fn heap(&self) -> usize {
        self.text.len() + size_of_val(&*self.spans)
    }

    /// Whether bytes are columns.
    fn is_plain(&self) -> bool {
        // Every character that is not ASCII takes more bytes than columns.
        self.text.len() == usize::from(self.cols)
    }

    /// How many lines of the screen it takes when wrapped; never none.
    pub fn height(&self, cols: usize) -> usize {
        if self.is_plain() {
            self.text.len().div_ceil(cols.max(1)).max(1)
        } else {
            self.pieces(cols).len()
        }
    }

    /// The byte ranges that are a line of the screen each when wrapped; never none.
    pub fn pieces(&self, cols: usize) -> Vec<Range<usize>> {
        let cols = cols.max(1);
        let mut pieces = Vec::new();
        let (mut start, mut used) = (0, 0);
        if self.is_plain() {
            while self.text.len() - start > cols {
                pieces.push(start..start + cols);
                start += cols;
            }
        } else {
            for (at, grapheme) in self.text.grapheme_indices(true) {
                let wide = grapheme_width(grapheme);
                if used + wide > cols && used > 0 {
                    pieces.push(start..at);
                    (start, used) = (at, 0);
                }
                used += wide;
            }
        }
        pieces.push(start..self.text.len());
        pieces
    }
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Ground,
    /// After an escape.
    Escape,
    /// In `ESC [ …`.
    Csi(String),
    /// In a string such as `ESC ] … BEL`, and whether the last character was an escape.
    Text(String, bool),
    /// After `ESC (`.
    Charset,
}

/// Reads one stream of output, in pieces that may end anywhere.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// The first bytes of a character that is not whole yet.
    partial: Vec<u8>,
    state: State,
    paint: Paint,
    text: String,
    spans: Vec<Span>,
    cols: usize,
    returned: bool,
    overwritten: bool,
}

impl Reader {
    /// Reads bytes; every finished row is given to `done`.
    pub fn feed(&mut self, data: &[u8], done: &mut impl FnMut(Row)) {
        let joined;
        let mut rest = data;
        if !self.partial.is_empty() {
            joined = [&std::mem::take(&mut self.partial), data].concat();
            rest = &joined;
        }
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.read(text, done);
                    return;
                }
                Err(e) => {
                    let (valid, bad) = rest.split_at(e.valid_up_to());
                    self.read(std::str::from_utf8(valid).unwrap_or_default(), done);
                    let Some(len) = e.error_len() else {
                        self.partial = bad.to_vec();
                        return;
                    };
                    let (bad, after) = bad.split_at(len);
                    self.abandon(done);
                    for byte in bad {
                        self.show(&format!("<{byte:02X}>"), done);
                    }
                    rest = after;
                }
            }
        }
    }

    /// The row that is not finished yet, if there is anything in it.
    pub fn open(&self) -> Option<Row> {
        if self.text.is_empty() {
            return None;
        }
        let mut copy = self.clone();
        Some(copy.take(false))
    }

    /// Takes what is left when no more will come.
    pub fn finish(&mut self, done: &mut impl FnMut(Row)) {
        self.abandon(done);
        for byte in std::mem::take(&mut self.partial) {
            self.show(&format!("<{byte:02X}>"), done);
        }
        if !self.text.is_empty() {
            done(self.take(false));
        }
    }

    fn read(&mut self, text: &str, done: &mut impl FnMut(Row)) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if matches!(self.state, State::Ground) && matches!(first, ' '..='~') {
                // Most output is this: a run of plain characters at once.
                let room = (ROW_COLS.saturating_sub(self.cols)).max(1);
                let run = rest.bytes().take(room).take_while(|b| matches!(b, b' '..=b'~')).count();
                let (run, after) = rest.split_at(run);
                self.put(run, run.len(), done);
                rest = after;
                continue;
            }
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            self.step(first, done);
        }
    }

    fn step(&mut self, c: char, done: &mut impl FnMut(Row)) {
        match &mut self.state {
            State::Ground => self.ground(c, done),
            State::Escape => match c {
                '[' => self.state = State::Csi(String::new()),
                ']' | 'P' | 'X' | '^' | '_' => self.state = State::Text(c.to_string(), false),
                '(' => self.state = State::Charset,
                _ => {
                    self.state = State::Ground;
                    self.show("^[", done);
                    self.ground(c, done);
                }
            },
            // Back to ASCII is what `tput sgr0` says; no other set is followed.
            State::Charset => {
                self.state = State::Ground;
                if c != 'B' {
                    self.show("^[(", done);
                    self.ground(c, done);
                }
            }
            State::Csi(sequence) => match c {
                ' '..='?' if sequence.len() < SEQUENCE_MAX => sequence.push(c),
                '@'..='~' => {
                    let sequence = std::mem::take(sequence);
                    self.state = State::Ground;
                    self.control_sequence(&sequence, c, done);
                }
                _ => {
                    self.abandon(done);
                    self.ground(c, done);
                }
            },
            State::Text(text, escaped) => match c {
                '\u{7}' => self.control_string(false, done),
                '\\' if *escaped => self.control_string(true, done),
                '\u{1b}' if !*escaped => *escaped = true,
                c if *escaped || c.is_control() || text.len() >= SEQUENCE_MAX => {
                    let escaped = *escaped;
                    self.abandon(done);
                    if escaped {
                        self.state = State::Escape;
                        self.step(c, done);
                    } else {
                        self.ground(c, done);
                    }
                }
                c => text.push(c),
            },
        }
    }

    /// Shows a control sequence that did not come to its end.
    fn abandon(&mut self, done: &mut impl FnMut(Row)) {
        match std::mem::take(&mut self.state) {
            State::Ground => {}
            State::Escape => self.show("^[", done),
            State::Charset => self.show("^[(", done),
            State::Csi(sequence) => self.show(&format!("^[[{sequence}"), done),
            State::Text(text, _) => self.show(&format!("^[{text}"), done),
        }
    }

    fn control_sequence(&mut self, sequence: &str, end: char, done: &mut impl FnMut(Row)) {
        match (sequence, end) {
            (_, 'm')
                if !sequence.contains(|c: char| !c.is_ascii_digit() && c != ';' && c != ':') =>
            {
                sgr(sequence, &mut self.paint);
            }
            ("" | "0" | "1" | "2", 'K') | ("?25" | "?2026", 'h' | 'l') => {}
            ("" | "1", 'G') => self.returned = true,
            _ => self.show(&format!("^[[{sequence}{end}"), done),
        }
    }

    fn control_string(&mut self, by_escape: bool, done: &mut impl FnMut(Row)) {
        if let State::Text(text, _) = std::mem::take(&mut self.state)
            && !text.starts_with("]8;")
        {
            let end = if by_escape { "^[\\" } else { "^G" };
            self.show(&format!("^[{text}{end}"), done);
        }
    }

    fn ground(&mut self, c: char, done: &mut impl FnMut(Row)) {
        match c {
            '\u{1b}' => self.state = State::Escape,
            '\n' => {
                self.returned = false;
                done(self.take(false));
            }
            '\r' => self.returned = true,
            '\t' => {
                self.begin_again();
                let wide = TAB - self.cols % TAB;
                self.put("        ".get(..wide).unwrap_or_default(), wide, done);
            }
            '\0'..='\u{1f}' | '\u{7f}' => {
                let letter = char::from(c as u8 ^ 0x40);
                self.show(&format!("^{letter}"), done);
            }
            c if c.is_control() => self.show(&format!("<U+{:04X}>", u32::from(c)), done),
            c => self.put(c.encode_utf8(&mut [0; 4]), c.width().unwrap_or(0), done),
        }
    }

    /// Adds text that a terminal would not have shown.
    fn show(&mut self, text: &str, done: &mut impl FnMut(Row)) {
        let before = std::mem::replace(&mut self.paint, Paint::CONTROL);
        self.put(text, text.len(), done);
        self.paint = before;
    }

    fn begin_again(&mut self) {
        if std::mem::take(&mut self.returned) && !self.text.is_empty() {
            self.text.clear();
            self.spans.clear();
            self.cols = 0;
            self.overwritten = true;
        }
    }

    fn put(&mut self, text: &str, cols: usize, done: &mut impl FnMut(Row)) {
        self.begin_again();
        // A mark belongs to the character before it, unless they heap up.
        let full = self.cols + cols > ROW_COLS && cols > 0;
        if (full || self.text.len() + text.len() > ROW_BYTES) && !self.text.is_empty() {
            done(self.take(true));
        }
        let last = self.spans.last().map_or(Paint::default(), |s| s.paint);
        if last != self.paint {
            self.spans.push(Span {
                start: u32::try_from(self.text.len()).unwrap_or(u32::MAX),
                paint: self.paint,
            });
        }
        self.text.push_str(text);
        self.cols += cols;
    }

    /// Ends the row.
    fn take(&mut self, continues: bool) -> Row {
        let text = std::mem::take(&mut self.text);
        let spans = std::mem::take(&mut self.spans);
        self.cols = 0;
        let overwritten = std::mem::take(&mut self.overwritten);
        let (text, spans, cols) = if is_plain(&text) {
            let cols = text.len();
            (text, spans, cols)
        } else {
            tidy(&text, &spans)
        };
        Row {
            text: text.into(),
            spans: spans.into(),
            cols: u16::try_from(cols).unwrap_or(u16::MAX),
            continues,
            overwritten,
        }
    }
}

/// Makes invisible characters visible, and measures.
fn tidy(text: &str, spans: &[Span]) -> (String, Vec<Span>, usize) {
    let mut out = String::with_capacity(text.len());
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    let mut spans = spans.iter().peekable();
    let mut paint = Paint::default();
    let mut cols = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        while let Some(span) = spans.next_if(|s| s.start as usize <= at) {
            paint = span.paint;
        }
        let start = out.len();
        push_clean(&mut out, grapheme);
        let added = out.get(start..).unwrap_or_default();
        cols += added.graphemes(true).map(grapheme_width).sum::<usize>();
        let own =
            if added.starts_with("<U+") && added != grapheme { Paint::CONTROL } else { paint };
        if kept.last().map_or(Paint::default(), |s| s.paint) != own {
            kept.push(Span { start: u32::try_from(start).unwrap_or(u32::MAX), paint: own });
        }
    }
    (out, kept, cols)
}

/// Follows "select graphic rendition": ECMA-48 8.3.117, with the colours of xterm and the colons
/// of ISO 8613-6. Blinking and concealed text are not followed.
fn sgr(sequence: &str, paint: &mut Paint) {
    let number = |text: &str| text.parse::<u16>().unwrap_or(if text.is_empty() { 0 } else { 999 });
    let mut parts = sequence.split(';');
    while let Some(part) = parts.next() {
        let mut sub = part.split(':');
        let code = number(sub.next().unwrap_or_default());
        match code {
            0 => *paint = Paint::default(),
            1 => paint.add |= Modifier::BOLD,
            2 => paint.add |= Modifier::DIM,
            3 => paint.add |= Modifier::ITALIC,
            4 if sub.next() == Some("0") => paint.add -= Modifier::UNDERLINED,
            4 | 21 => paint.add |= Modifier::UNDERLINED,
            7 => paint.add |= Modifier::REVERSED,
            9 => paint.add |= Modifier::CROSSED_OUT,
            22 => paint.add -= Modifier::BOLD | Modifier::DIM,
            23 => paint.add -= Modifier::ITALIC,
            24 => paint.add -= Modifier::UNDERLINED,
            27 => paint.add -= Modifier::REVERSED,
            29 => paint.add -= Modifier::CROSSED_OUT,
            30..=37 => paint.fg = ansi(code - 30),
            90..=97 => paint.fg = ansi(code - 82),
            40..=47 => paint.bg = ansi(code - 40),
            100..=107 => paint.bg = ansi(code - 92),
            39 => paint.fg = None,
            49 => paint.bg = None,
            38 | 48 => {
                let color = if part.contains(':') {
                    // `38:2::r:g:b` names a colour space before red; `38:2:r:g:b` does not.
                    let numbers: Vec<u16> = sub.map(number).collect();
                    match *numbers.as_slice() {
                        [5, n] => indexed(n),
                        [2, r, g, b] | [2, _, r, g, b] => rgb(r, g, b),
                        _ => None,
                    }
                } else {
                    match parts.next().map(number) {
                        Some(5) => parts.next().map(number).and_then(indexed),
                        Some(2) => {
                            let mut next = || parts.next().map(number);
                            match (next(), next(), next()) {
                                (Some(r), Some(g), Some(b)) => rgb(r, g, b),
                                _ => None,
                            }
                        }
                        _ => None,
                    }
                };
                match (code, color) {
                    (_, None) => {}
                    (38, color) => paint.fg = color,
                    (_, color) => paint.bg = color,
                }
            }
            _ => {}
        }
    }
}

fn ansi(n: u16) -> Option<Color> {
    Some(match n {
        0 => Color::Black,
        1 => Color::Red,
        2 => Color::Green,
        3 => Color::Yellow,
        4 => Color::Blue,
        5 => Color::Magenta,
        6 => Color::Cyan,
        7 => Color::Gray,
        8 => Color::DarkGray,
        9 => Color::LightRed,
        10 => Color::LightGreen,
        11 => Color::LightYellow,
        12 => Color::LightBlue,
        13 => Color::LightMagenta,
        14 => Color::LightCyan,
        15 => Color::White,
        _ => return None,
    })
}

fn indexed(n: u16) -> Option<Color> {
    match n {
        0..16 => ansi(n),
        _ => u8::try_from(n).ok().map(Color::Indexed),
    }
}

fn rgb(r: u16, g: u16, b: u16) -> Option<Color> {
    let part = |n: u16| u8::try_from(n).ok();
    Some(Color::Rgb(part(r)?, part(g)?, part(b)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::theme::Depth;

    fn rows(data: &[u8]) -> Vec<Row> {
        let mut out = Vec::new();
        let mut reader = Reader::default();
        reader.feed(data, &mut |row| out.push(row));
        reader.finish(&mut |row| out.push(row));
        out
    }

    fn texts(data: &[u8]) -> Vec<String> {
        rows(data).iter().map(|r| r.text.to_string()).collect()
    }

    #[test]
    fn lines_tabs_and_carriage_returns() {
        assert_eq!(texts(b"a\nb\r\n\nc"), ["a", "b", "", "c"]);
        assert_eq!(texts(b"a\tb\n12345678\tc"), ["a       b", "12345678        c"]);
        let bar = rows(b" 10%\r 20%\r100%\n");
        assert_eq!((&*bar[0].text, bar[0].overwritten), ("100%", true));
        assert_eq!(texts(b"done\r"), ["done"]);
    }

    #[test]
    fn colours_are_kept() {
        let row = &rows(
            b"ok \x1b[1;32mgreen\x1b[0m \x1b[38;5;208mo\x1b[38;2;1;2;3mt\x1b[38:2::4:5:6mc\x1b[m.",
        )[0];
        assert_eq!(&*row.text, "ok green otc.");
        let fg: Vec<_> = row.spans.iter().map(|s| (s.start, s.paint.fg)).collect();
        let expected = [
            (3, Some(Color::Green)),
            (8, None),
            (9, Some(Color::Indexed(208))),
            (10, Some(Color::Rgb(1, 2, 3))),
            (11, Some(Color::Rgb(4, 5, 6))),
            (12, None),
        ];
        assert_eq!(fg, expected);
        assert_eq!(row.spans[0].paint.add, Modifier::BOLD);
    }

    #[test]
    fn a_colour_lasts_over_lines_and_pieces() {
        let mut out = Vec::new();
        let mut reader = Reader::default();
        for piece in ["\x1b[3", "1mred\nsti", "ll\n"] {
            reader.feed(piece.as_bytes(), &mut |row| out.push(row));
        }
        for row in &out {
            assert_eq!(row.spans[0].paint.fg, Some(Color::Red));
        }
        assert_eq!(&*out[1].text, "still");
    }

    #[test]
    fn hidden_text_is_not_hidden() {
        let row = &rows(b"\x1b[31;41msecret\x1b[0m \x1b[8mconcealed")[0];
        let style = row.spans[0].paint.style(&Theme::default());
        assert_eq!((style.fg, style.bg), (Some(Color::Red), None));
        assert_eq!(row.spans.last().unwrap().paint, Paint::default());
        let theme = |name| Theme::load(name, None, Depth::TrueColor).unwrap();
        let (dark, light) = (theme("carillon-dark"), theme("carillon-light"));
        let fg = |code: &str, theme: &Theme| {
            let row = &rows(format!("\x1b[{code}mx").as_bytes())[0];
            row.spans[0].paint.style(theme).fg
        };
        assert_eq!(fg("30", &dark), dark.get(Role::Dim).fg);
        assert_eq!(fg("30", &light), Some(Color::Black));
        assert_eq!(fg("97", &light), light.get(Role::Dim).fg);
        assert_eq!(fg("30;47", &dark), Some(Color::Black));
    }

    #[test]
    fn hostile_sequences_are_shown_and_do_nothing() {
        let cases: [(&[u8], &str); 14] = [
            (b"\x1b[2J\x1b[Hx", "^[[2J^[[Hx"),
            (b"\x1b]0;title\x07x", "^[]0;title^Gx"),
            (b"\x1b]52;c;aGk=\x1b\\x", "^[]52;c;aGk=^[\\x"),
            (b"\x1bPq#0\x1b\\x", "^[Pq#0^[\\x"),
            (b"\x1b[6nx", "^[[6nx"),
            (b"\x1bcx", "^[cx"),
            (b"a\x08b\x07\x00\x7f", "a^Hb^G^@^?"),
            (b"caf\xe9", "caf<E9>"),
            ("pay\u{202e}exe".as_bytes(), "pay<U+202E>exe"),
            ("\u{9b}2J".as_bytes(), "<U+009B>2J"),
            (b"\x1b[31", "^[[31"),
            (b"\x1b]0;never ends", "^[]0;never ends"),
            (b"\x1b[?1049h", "^[[?1049h"),
            (b"\x1b]0;a\x1b[31mb", "^[]0;ab"),
        ];
        for (data, shown) in cases {
            assert_eq!(texts(data), [shown], "{data:?}");
        }
        let row = &rows(b"a\x1b[2Jb")[0];
        assert!(row.spans[0].paint.control && row.spans[0].start == 1);
    }

    #[test]
    fn finery_leaves_no_trace() {
        let data = b"\x1b[?25l\x1b[Kgrep\x1b[m\x1b[K\x1b(B \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1b[?25h";
        assert_eq!(texts(data), ["grep link"]);
    }

    #[test]
    fn a_long_line_is_many_rows() {
        let long = rows(&vec![b'x'; 1_000_000]);
        assert_eq!(long.len(), 1_000_000_usize.div_ceil(ROW_COLS));
        assert!(long.iter().all(|r| usize::from(r.cols) <= ROW_COLS));
        assert!(long[0].continues && !long.last().unwrap().continues);
        let marks = format!("e{}", "\u{301}".repeat(500_000));
        assert!(rows(marks.as_bytes()).iter().all(|r| r.text.len() < 64));
        let wide = rows("每".repeat(10_000).as_bytes());
        assert!(wide.iter().all(|r| usize::from(r.cols) <= ROW_COLS));
        let osc = [b"\x1b]0;".as_slice(), &vec![b'y'; 100_000]].concat();
        assert!(rows(&osc).iter().map(|r| r.text.len()).sum::<usize>() >= 100_000);
    }

    #[test]
    fn rows_are_wrapped_by_columns() {
        let row = &rows("每日backup".as_bytes())[0];
        assert_eq!(row.pieces(5), [0..7, 7..12]);
        assert_eq!(row.height(5), 2);
        let plain = &rows(b"0123456789")[0];
        assert_eq!(plain.pieces(5), [0..5, 5..10]);
        assert_eq!((plain.height(5), plain.height(4), Row::default().height(4)), (2, 3, 1));
        assert!(Row::default().pieces(4).iter().eq(&[0..0; 1]));
    }

    #[test]
    fn characters_may_be_cut_between_pieces() {
        let text = "每日 👩‍👩‍👧 é\n";
        let mut out = Vec::new();
        let mut reader = Reader::default();
        for byte in text.as_bytes() {
            reader.feed(&[*byte], &mut |row| out.push(row));
        }
        assert_eq!(&*out[0].text, text.trim_end());
        assert_eq!(usize::from(out[0].cols), super::super::width(text.trim_end()));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_harmless(data in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b']'), Just(b'm'), Just(b'\r')], 0..200), cut in 0usize..200) {
            let (a, b) = data.split_at(cut.min(data.len()));
            let mut pieces = Vec::new();
            let mut reader = Reader::default();
            reader.feed(a, &mut |row| pieces.push(row));
            let _ = reader.open();
            reader.feed(b, &mut |row| pieces.push(row));
            reader.finish(&mut |row| pieces.push(row));
            prop_assert_eq!(&pieces, &rows(&data));
            for row in pieces {
                prop_assert!(!row.text.contains(char::is_control));
                prop_assert_eq!(super::super::clean(&row.text), &*row.text);
                prop_assert_eq!(super::super::width(&row.text), usize::from(row.cols));
                prop_assert!(row.spans.iter().all(|s| row.text.is_char_boundary(s.start as usize)));
            }
        }
    }
}
