//! What a terminal can show, and the nearest to what was meant.

use ratatui::style::{Color, Style};

/// How many colours a terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Sixteen million.
    TrueColor,
    /// The xterm palette.
    Ansi256,
    /// The sixteen, whose shades the operator has chosen.
    #[default]
    Ansi16,
    /// None: bold, underlined and reversed remain.
    None,
}

/// Terminals that show sixteen million colours and say so only by their name, because
/// `COLORTERM` does not survive SSH.
const TRUE_COLOR_TERMS: [&str; 7] =
    ["xterm-kitty", "xterm-ghostty", "alacritty", "wezterm", "foot", "contour", "rio"];

impl Depth {
    /// Judges by the environment; `var` looks a variable up. `NO_COLOR` (<https://no-color.org>)
    /// wins over everything.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        if var("NO_COLOR").is_some_and(|v| !v.is_empty()) {
            return Self::None;
        }
        let term = var("TERM").unwrap_or_default();
        if term == "dumb" {
            return Self::None;
        }
        let colorterm = var("COLORTERM").unwrap_or_default();
        if matches!(colorterm.as_str(), "truecolor" | "24bit")
            || term.ends_with("-direct")
            || TRUE_COLOR_TERMS.iter().any(|name| term.starts_with(name))
        {
            Self::TrueColor
        } else if term.contains("256color") {
            Self::Ansi256
        } else {
            Self::Ansi16
        }
    }

    /// The nearest style that can be shown.
    pub fn reduce(self, mut style: Style) -> Style {
        style.fg = style.fg.and_then(|color| self.nearest(color));
        style.bg = style.bg.and_then(|color| self.nearest(color));
        style.underline_color = None;
        style
    }

    fn nearest(self, color: Color) -> Option<Color> {
        match (self, color) {
            (Self::None, _) => None,
            (Self::TrueColor, color) => Some(color),
            (Self::Ansi256, Color::Rgb(r, g, b)) => Some(Color::Indexed(nearest_256((r, g, b)))),
            (Self::Ansi16, Color::Rgb(r, g, b)) => Some(nearest_16((r, g, b))),
            (Self::Ansi16, Color::Indexed(n)) => Some(nearest_16(rgb_of(n))),
            (_, color) => Some(color),
        }
    }
}

type Rgb = (u8, u8, u8);

/// The levels of red, green and blue in xterm's 6 × 6 × 6 cube.
const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];

/// xterm's default shades of the sixteen.
const SIXTEEN: [(Color, Rgb); 16] = [
    (Color::Black, (0, 0, 0)),
    (Color::Red, (205, 0, 0)),
    (Color::Green, (0, 205, 0)),
    (Color::Yellow, (205, 205, 0)),
    (Color::Blue, (0, 0, 238)),
    (Color::Magenta, (205, 0, 205)),
    (Color::Cyan, (0, 205, 205)),
    (Color::Gray, (229, 229, 229)),
    (Color::DarkGray, (127, 127, 127)),
    (Color::LightRed, (255, 0, 0)),
    (Color::LightGreen, (0, 255, 0)),
    (Color::LightYellow, (255, 255, 0)),
    (Color::LightBlue, (92, 92, 255)),
    (Color::LightMagenta, (255, 0, 255)),
    (Color::LightCyan, (0, 255, 255)),
    (Color::White, (255, 255, 255)),
];

/// The shade of one of the 256.
pub(super) fn rgb_of(index: u8) -> Rgb {
    if let Some((_, rgb)) = SIXTEEN.get(usize::from(index)) {
        return *rgb;
    }
    if index >= 232 {
        let grey = 8 + 10 * (index - 232);
        return (grey, grey, grey);
    }
    let index = index - 16;
    let level = |n: u8| LEVELS.get(usize::from(n % 6)).copied().unwrap_or(0);
    (level(index / 36), level(index / 6), level(index))
}

/// Whether dark text is to be read on this.
pub(super) fn is_light((r, g, b): Rgb) -> bool {
    // Rec. 601 luma, in thousandths.
    299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) > 127_500
}

/// Distance with the weights of the eye, which tells greens apart better than blues.
fn distance(a: Rgb, b: Rgb) -> u32 {
    let part = |x: u8, y: u8, weight: u32| {
        let d = u32::from(x.abs_diff(y));
        weight * d * d
    };
    part(a.0, b.0, 3) + part(a.1, b.1, 4) + part(a.2, b.2, 2)
}

fn nearest_256(rgb: Rgb) -> u8 {
    // Not the first sixteen: what they look like is the operator's choice.
    (16..=255).min_by_key(|n| distance(rgb, rgb_of(*n))).unwrap_or(7)
}

fn nearest_16(rgb: Rgb) -> Color {
    SIXTEEN
        .iter()
        .min_by_key(|(_, shade)| distance(rgb, *shade))
        .map_or(Color::Reset, |(color, _)| *color)
}
