//! The operator's clipboard through the terminal (OSC 52), which also works over SSH and, wrapped,
//! through tmux.

/// The largest text that is copied, in bytes: terminals cut longer sequences off or hang on them.
pub const LARGEST: usize = 74_994;

/// The sequence that puts `text` on the clipboard; `None` where it is too long.
pub fn osc52(text: &str, in_tmux: bool) -> Option<String> {
    if text.len() > LARGEST {
        return None;
    }
    let sequence = format!("\x1b]52;c;{}\x07", base64(text.as_bytes()));
    Some(match in_tmux {
        // tmux passes on what is wrapped so, with every escape doubled.
        true => format!("\x1bPtmux;{}\x1b\\", sequence.replace('\x1b', "\x1b\x1b")),
        false => sequence,
    })
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let six = (bits >> (18 - 6 * i)) & 63;
            let letter = usize::try_from(six).ok().and_then(|n| ALPHABET.get(n));
            match letter {
                Some(letter) if i <= group.len() => text.push(char::from(*letter)),
                _ => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn tmux_gets_its_wrapping_and_long_texts_are_refused() {
        assert_eq!(osc52("f", false).unwrap(), "\x1b]52;c;Zg==\x07");
        assert_eq!(osc52("f", true).unwrap(), "\x1bPtmux;\x1b\x1b]52;c;Zg==\x07\x1b\\");
        assert_eq!(osc52(&"x".repeat(LARGEST + 1), false), None);
    }
}
