//! One line of typed text with a cursor, for the filter, the palette and typed confirmations.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The longest line that is taken, in characters: more is a paste gone astray.
const LONGEST: usize = 4_096;

/// A line that is being typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    text: String,
    /// Byte position, always on a character boundary.
    cursor: usize,
}

impl Input {
    /// A line with the cursor at its end.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), cursor: text.len() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text before the cursor, and the text from it on.
    pub fn parts(&self) -> (&str, &str) {
        self.text.split_at_checked(self.cursor).unwrap_or((&self.text, ""))
    }

    /// Adds text at the cursor; control characters are left out.
    pub fn insert(&mut self, text: &str) {
        let room = LONGEST.saturating_sub(self.text.chars().count());
        let clean: String = text.chars().filter(|c| !c.is_control()).take(room).collect();
        self.text.insert_str(self.cursor, &clean);
        self.cursor += clean.len();
    }

    /// Takes a key; false when it is not one that edits a line.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        let (before, after) = self.parts();
        let left = before.chars().next_back().map_or(0, char::len_utf8);
        let right = after.chars().next().map_or(0, char::len_utf8);
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('u') if ctrl => {
                self.text = after.to_owned();
                self.cursor = 0;
            }
            KeyCode::Char('w') if ctrl => {
                let kept = before.trim_end().rfind(' ').map_or(0, |i| i + 1);
                self.text.replace_range(kept..self.cursor, "");
                self.cursor = kept;
            }
            KeyCode::Char('a') if ctrl => self.cursor = 0,
            KeyCode::Char('e') if ctrl => self.cursor = self.text.len(),
            KeyCode::Char(c) if !ctrl && !key.modifiers.contains(KeyModifiers::ALT) => {
                self.insert(c.encode_utf8(&mut [0; 4]));
            }
            KeyCode::Backspace => {
                self.text.replace_range(self.cursor - left..self.cursor, "");
                self.cursor -= left;
            }
            KeyCode::Delete => self.text.replace_range(self.cursor..self.cursor + right, ""),
            KeyCode::Left => self.cursor -= left,
            KeyCode::Right => self.cursor += right,
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn press(input: &mut Input, code: KeyCode) {
        input.key(KeyEvent::new(code, KeyModifiers::NONE));
    }

    #[test]
    fn a_line_is_edited_by_characters() {
        let mut input = Input::new("每日x");
        press(&mut input, KeyCode::Left);
        press(&mut input, KeyCode::Backspace);
        assert_eq!(input.text(), "每x");
        press(&mut input, KeyCode::Home);
        press(&mut input, KeyCode::Delete);
        assert_eq!(input.text(), "x");
        input.insert("a\u{1b}\nb");
        assert_eq!(input.text(), "abx");
        input.key(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL));
        assert_eq!(input.text(), "x");
    }

    proptest! {
        #[test]
        fn no_key_breaks_a_line(start in ".{0,10}", keys in proptest::collection::vec((0u8..12, any::<char>()), 0..40)) {
            let mut input = Input::new(&start);
            for (which, c) in keys {
                let (code, mods) = match which {
                    0 => (KeyCode::Backspace, KeyModifiers::NONE),
                    1 => (KeyCode::Delete, KeyModifiers::NONE),
                    2 => (KeyCode::Left, KeyModifiers::NONE),
                    3 => (KeyCode::Right, KeyModifiers::NONE),
                    4 => (KeyCode::Home, KeyModifiers::NONE),
                    5 => (KeyCode::Char('w'), KeyModifiers::CONTROL),
                    6 => (KeyCode::Char('u'), KeyModifiers::CONTROL),
                    _ => (KeyCode::Char(c), KeyModifiers::NONE),
                };
                input.key(KeyEvent::new(code, mods));
                let (before, after) = input.parts();
                prop_assert_eq!(format!("{before}{after}"), input.text());
            }
        }
    }
}
