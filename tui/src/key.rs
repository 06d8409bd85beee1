//! Chords: one key with its modifiers, in the form in which a configuration file and the help
//! spell it: `k`, `G`, `ctrl-u`, `space`, `f5`.

use std::fmt;
use std::str::FromStr;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// One key with its modifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Hash)]
pub struct Chord {
    code: KeyCode,
    mods: KeyModifiers,
}

impl From<KeyEvent> for Chord {
    fn from(key: KeyEvent) -> Self {
        let (mut code, mut mods) = (key.code, key.modifiers);
        mods &= KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT;
        // Terminals disagree on whether they report shift with a capital; the letter says it.
        if let KeyCode::Char(c) = code {
            mods.remove(KeyModifiers::SHIFT);
            if mods.contains(KeyModifiers::CONTROL) {
                code = KeyCode::Char(c.to_ascii_lowercase());
            }
        }
        if code == KeyCode::BackTab || (code == KeyCode::Tab && mods.contains(KeyModifiers::SHIFT))
        {
            (code, mods) = (KeyCode::BackTab, mods - KeyModifiers::SHIFT);
        }
        Self { code, mods }
    }
}

const NAMED: [(&str, KeyCode); 15] = [
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("shift-tab", KeyCode::BackTab),
    ("space", KeyCode::Char(' ')),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
    ("delete", KeyCode::Delete),
    ("backspace", KeyCode::Backspace),
];

impl Chord {
    /// Whether this is the key that terminals send for Ctrl-C.
    pub fn is_interrupt(self) -> bool {
        self.code == KeyCode::Char('c') && self.mods == KeyModifiers::CONTROL
    }

    /// Whether the chord can be typed into a text.
    pub fn is_text(self) -> bool {
        matches!(self.code, KeyCode::Char(_))
            && !self.mods.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
    }

    /// Whether a destructive command may never hang on this chord: a bare Ctrl key, Delete or
    /// Backspace, all of which fingers press out of habit.
    pub fn is_careless(self) -> bool {
        self.mods == KeyModifiers::CONTROL
            || matches!(self.code, KeyCode::Delete | KeyCode::Backspace)
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (flag, name) in [
            (KeyModifiers::CONTROL, "ctrl-"),
            (KeyModifiers::ALT, "alt-"),
            (KeyModifiers::SHIFT, "shift-"),
        ] {
            if self.mods.contains(flag) {
                text.push_str(name);
            }
        }
        match (NAMED.iter().find(|(_, code)| *code == self.code), self.code) {
            (Some((name, _)), _) => text.push_str(name),
            (None, KeyCode::Char(c)) => text.push(c),
            (None, KeyCode::F(n)) => text.push_str(&format!("f{n}")),
            (None, other) => text.push_str(&format!("{other:?}").to_lowercase()),
        }
        f.pad(&text)
    }
}

impl FromStr for Chord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a key; keys look like `k`, `G`, `ctrl-u`, `space`, `pgdn`, `f5`"
            )
        };
        if let Some((_, code)) = NAMED.iter().find(|(name, _)| *name == text) {
            let mods = KeyModifiers::NONE;
            return Ok(Self { code: *code, mods });
        }
        let mut mods = KeyModifiers::NONE;
        let mut rest = text;
        loop {
            let (flag, after) = if let Some(after) = rest.strip_prefix("ctrl-") {
                (KeyModifiers::CONTROL, after)
            } else if let Some(after) = rest.strip_prefix("alt-") {
                (KeyModifiers::ALT, after)
            } else if let Some(after) = rest.strip_prefix("shift-") {
                (KeyModifiers::SHIFT, after)
            } else {
                break;
            };
            mods |= flag;
            rest = after;
        }
        let mut chars = rest.chars();
        let code = match (chars.next(), chars.as_str()) {
            (Some(c), "") => KeyCode::Char(c),
            (Some('f'), digits) if digits.parse::<u8>().is_ok_and(|n| (1..=24).contains(&n)) => {
                KeyCode::F(digits.parse().map_err(|_| bad())?)
            }
            _ => {
                let named = NAMED.iter().find(|(name, _)| *name == rest);
                named.map(|(_, code)| *code).ok_or_else(bad)?
            }
        };
        Ok(Self::from(KeyEvent::new(code, mods)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chords_round_trip() {
        for text in [
            "k",
            "G",
            "?",
            "<",
            "ctrl-u",
            "space",
            "pgdn",
            "f5",
            "shift-tab",
            "alt-x",
            "enter",
            "-",
            "ctrl-right",
        ] {
            assert_eq!(text.parse::<Chord>().unwrap().to_string(), text);
        }
        for bad in ["", "ctrl-", "hyper-x", "f99", "kk"] {
            assert!(bad.parse::<Chord>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_capital_is_the_same_with_and_without_reported_shift() {
        let plain = Chord::from(KeyEvent::new(KeyCode::Char('G'), KeyModifiers::NONE));
        let shifted = Chord::from(KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT));
        assert_eq!(plain, shifted);
    }

    #[test]
    fn careless_keys_are_known() {
        for text in ["ctrl-d", "delete", "backspace"] {
            assert!(text.parse::<Chord>().unwrap().is_careless());
        }
        assert!(!"x".parse::<Chord>().unwrap().is_careless());
    }
}
