//! A terminal screen as an SVG picture: text that can be searched, in the colours of the screen.
//!
//! Fonts differ in how wide and how high their characters are. So every piece of text is told how
//! wide it has to be, and lines, corners and blocks, which have to meet their neighbours, are
//! drawn rather than written.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

/// The size of one character cell, in the picture's units.
const CELL_WIDTH: f64 = 8.4;
const CELL_HEIGHT: f64 = 18.0;
const FONT_SIZE: f64 = 14.0;
/// How far below a cell's top the text stands.
const BASELINE: f64 = 13.5;
/// Around the screen.
const MARGIN: f64 = 14.0;
/// What the terminal's own colours are taken to be.
const FOREGROUND: Rgb = (0xd4, 0xd7, 0xdd);
const BACKGROUND: Rgb = (0x14, 0x16, 0x1b);

type Rgb = (u8, u8, u8);

/// How a cell is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Style {
    foreground: Rgb,
    background: Rgb,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
}

/// Draws the screen.
#[must_use]
pub fn draw(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let width = f64::from(columns.get()) * CELL_WIDTH + 2.0 * MARGIN;
    let height = f64::from(rows.get()) * CELL_HEIGHT + 2.0 * MARGIN;
    let mut picture = format!(
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.1} {1:.1}" "#,
            r#"width="{0:.0}" height="{1:.0}" font-size="{2}" font-family="ui-monospace, "#,
            r#"'SF Mono', 'JetBrains Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace">"#,
            "\n",
            r#"<rect width="100%" height="100%" rx="9" fill="{3}"/>"#,
            "\n",
        ),
        width,
        height,
        FONT_SIZE,
        hex(BACKGROUND),
    );
    for row in 0..rows.get() {
        draw_row(&mut picture, screen, row, columns.get());
    }
    picture.push_str("</svg>\n");
    picture
}

fn draw_row(picture: &mut String, screen: &Screen, row: u16, columns: u16) {
    let y = f64::from(row) * CELL_HEIGHT + MARGIN;
    let mut backgrounds: Vec<(u16, u16, Rgb)> = Vec::new();
    let mut texts: Vec<(u16, u16, Style, String)> = Vec::new();
    let mut shapes: Vec<(&str, Style, String)> = Vec::new();
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column) else {
            continue;
        };
        if cell.is_wide_continuation() {
            continue;
        }
        let style = style(cell);
        let cells = if cell.is_wide() { 2 } else { 1 };
        match backgrounds.last_mut() {
            Some((start, count, colour))
                if *colour == style.background && *start + *count == column =>
            {
                *count += cells;
            }
            _ => backgrounds.push((column, cells, style.background)),
        }
        let character = if cell.has_contents() { cell.contents() } else { " " };
        let x = f64::from(column) * CELL_WIDTH + MARGIN;
        if let Some(shape) = shape(character, x, y) {
            match shapes.last_mut() {
                Some((paint, of, path)) if *paint == shape.paint && *of == style => {
                    path.push_str(&shape.path);
                }
                _ => shapes.push((shape.paint, style, shape.path)),
            }
            continue;
        }
        match texts.last_mut() {
            // Wide characters stand alone: few fonts make them exactly two cells wide.
            Some((start, count, of, text))
                if *of == style
                    && *start + *count == column
                    && cells == 1
                    && text.is_ascii()
                    && character.is_ascii() =>
            {
                *count += 1;
                text.push_str(character);
            }
            _ => texts.push((column, cells, style, character.to_owned())),
        }
    }
    for (start, count, colour) in backgrounds {
        if colour != BACKGROUND {
            let _ = writeln!(
                picture,
                r#"<rect x="{:.1}" y="{y:.1}" width="{:.1}" height="{CELL_HEIGHT:.1}" fill="{}"/>"#,
                f64::from(start) * CELL_WIDTH + MARGIN,
                f64::from(count) * CELL_WIDTH,
                hex(colour)
            );
        }
    }
    for (paint, style, path) in shapes {
        let paint = paint.replace("COLOUR", &hex(style.foreground));
        let opacity = if style.dim { r#" opacity="0.6""# } else { "" };
        let _ = writeln!(picture, r#"<path d="{path}" {paint}{opacity}/>"#);
    }
    for (start, _, style, text) in texts {
        draw_text(picture, start, y, style, &text);
    }
}

/// Writes a piece of text in its parts: across a gap, columns would only meet by chance.
fn draw_text(picture: &mut String, start: u16, y: f64, style: Style, text: &str) {
    let mut from = 0;
    for part in text.split("  ") {
        let blanks = part.len() - part.trim_start_matches(' ').len();
        let column = f64::from(start) + (from + blanks) as f64;
        draw_part(picture, column, y, style, part.trim_matches(' '));
        from += part.len() + "  ".len();
    }
}

fn draw_part(picture: &mut String, column: f64, y: f64, style: Style, text: &str) {
    if text.is_empty() {
        return;
    }
    let mut attributes = String::new();
    for (wanted, attribute) in [
        (style.bold, r#" font-weight="bold""#),
        (style.dim, r#" opacity="0.6""#),
        (style.italic, r#" font-style="italic""#),
        (style.underline, r#" text-decoration="underline""#),
    ] {
        if wanted {
            attributes.push_str(attribute);
        }
    }
    if text.len() > 1 && text.is_ascii() {
        let _ = write!(
            attributes,
            r#" textLength="{:.1}" lengthAdjust="spacingAndGlyphs""#,
            text.len() as f64 * CELL_WIDTH
        );
    }
    let _ = writeln!(
        picture,
        r#"<text x="{:.1}" y="{:.1}" fill="{}" xml:space="preserve"{attributes}>{}</text>"#,
        column * CELL_WIDTH + MARGIN,
        y + BASELINE,
        hex(style.foreground),
        escape(text)
    );
}

/// A character that is drawn.
struct Shape {
    path: String,
    /// Attributes, with COLOUR in the place of the colour.
    paint: &'static str,
}

const STROKE: &str = r#"stroke="COLOUR" fill="none""#;
const HEAVY: &str = r#"stroke="COLOUR" stroke-width="2.4" fill="none""#;
const FILL: &str = r#"fill="COLOUR""#;

/// The path of a line, corner or block character; `None` for all others.
fn shape(character: &str, x: f64, y: f64) -> Option<Shape> {
    let character = character.chars().next()?;
    let (right, bottom) = (x + CELL_WIDTH, y + CELL_HEIGHT);
    let (middle_x, middle_y) = (x + CELL_WIDTH / 2.0, y + CELL_HEIGHT / 2.0);
    let filled = |left: f64, top: f64, right: f64, bottom: f64| Shape {
        path: format!("M{left:.1} {top:.1}H{right:.1}V{bottom:.1}H{left:.1}Z"),
        paint: FILL,
    };
    let eighths = |from: u32| f64::from(u32::from(character).saturating_sub(from)) / 8.0;
    match character {
        // Lower blocks, one to eight eighths high, and left blocks, eight to one wide.
        '▁'..='█' => {
            return Some(filled(x, bottom - CELL_HEIGHT * eighths(0x2580), right, bottom));
        }
        '▉'..='▏' => {
            return Some(filled(x, y, right - CELL_WIDTH * eighths(0x2588), bottom));
        }
        '▀' => return Some(filled(x, y, right, middle_y)),
        '▐' => return Some(filled(middle_x, y, right, bottom)),
        _ => {}
    }
    // Round corners: from edge to edge by way of the middle.
    let round = match character {
        '╭' => Some((middle_x, bottom, right, middle_y)),
        '╮' => Some((middle_x, bottom, x, middle_y)),
        '╰' => Some((middle_x, y, right, middle_y)),
        '╯' => Some((middle_x, y, x, middle_y)),
        _ => None,
    };
    if let Some((from_x, from_y, to_x, to_y)) = round {
        let path =
            format!("M{from_x:.1} {from_y:.1}Q{middle_x:.1} {middle_y:.1} {to_x:.1} {to_y:.1}");
        return Some(Shape { path, paint: STROKE });
    }
    // Straight ones: which of left, right, up, down they reach.
    let (arms, paint) = match character {
        '─' => ("lr", STROKE),
        '│' => ("ud", STROKE),
        '┌' => ("rd", STROKE),
        '┐' => ("ld", STROKE),
        '└' => ("ru", STROKE),
        '┘' => ("lu", STROKE),
        '├' => ("rud", STROKE),
        '┤' => ("lud", STROKE),
        '┬' => ("lrd", STROKE),
        '┴' => ("lru", STROKE),
        '┼' => ("lrud", STROKE),
        '━' => ("lr", HEAVY),
        '┃' => ("ud", HEAVY),
        '┏' => ("rd", HEAVY),
        '┓' => ("ld", HEAVY),
        '┗' => ("ru", HEAVY),
        '┛' => ("lu", HEAVY),
        _ => return None,
    };
    let reach = |arm, edge, middle| if arms.contains(arm) { edge } else { middle };
    let mut path = String::new();
    if arms.contains(['l', 'r']) {
        let (from, to) = (reach('l', x, middle_x), reach('r', right, middle_x));
        let _ = write!(path, "M{from:.1} {middle_y:.1}H{to:.1}");
    }
    if arms.contains(['u', 'd']) {
        let (from, to) = (reach('u', y, middle_y), reach('d', bottom, middle_y));
        let _ = write!(path, "M{middle_x:.1} {from:.1}V{to:.1}");
    }
    Some(Shape { path, paint })
}

fn style(cell: &Cell) -> Style {
    let foreground = colour(cell.fgcolor(), FOREGROUND);
    let background = colour(cell.bgcolor(), BACKGROUND);
    let (foreground, background) =
        if cell.inverse() { (background, foreground) } else { (foreground, background) };
    Style {
        foreground,
        background,
        bold: cell.bold(),
        dim: cell.dim(),
        italic: cell.italic(),
        underline: cell.underline(),
    }
}

fn colour(colour: Color, default: Rgb) -> Rgb {
    match colour {
        Color::Default => default,
        Color::Rgb(red, green, blue) => (red, green, blue),
        Color::Idx(index) => indexed(index),
    }
}

/// The 256 colours as xterm has them; the first sixteen a little softer.
fn indexed(index: u8) -> Rgb {
    const FIRST: [Rgb; 16] = [
        (0x22, 0x25, 0x2b),
        (0xe0, 0x6c, 0x75),
        (0x98, 0xc3, 0x79),
        (0xe5, 0xc0, 0x7b),
        (0x61, 0xaf, 0xef),
        (0xc6, 0x78, 0xdd),
        (0x56, 0xb6, 0xc2),
        (0xc8, 0xcc, 0xd4),
        (0x6b, 0x72, 0x80),
        (0xf0, 0x85, 0x8c),
        (0xb1, 0xd9, 0x95),
        (0xf2, 0xd4, 0x9b),
        (0x84, 0xc4, 0xf7),
        (0xd7, 0x98, 0xea),
        (0x7a, 0xcc, 0xd6),
        (0xff, 0xff, 0xff),
    ];
    if let Some(&colour) = FIRST.get(usize::from(index)) {
        return colour;
    }
    // 16 to 231: a cube of six levels; 232 to 255: greys.
    let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
    if index < 232 {
        let cube = index - 16;
        (level(cube / 36), level(cube / 6 % 6), level(cube % 6))
    } else {
        let grey = 8 + 10 * (index - 232);
        (grey, grey, grey)
    }
}

fn hex((red, green, blue): Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn drawn(output: &str) -> String {
        let [rows, columns] = [2, 20].map(|size| NonZeroU16::new(size).unwrap());
        let mut parser = vt100::Parser::new(rows, columns, 0);
        parser.process(output.as_bytes());
        draw(parser.screen())
    }

    #[test]
    fn text_of_one_colour_is_one_piece_and_is_escaped() {
        let picture = drawn("\x1b[31ma < b & c\x1b[0m");
        assert!(picture.contains(r##"fill="#e06c75""##), "{picture}");
        assert!(picture.contains(">a &lt; b &amp; c</text>"), "{picture}");
    }

    #[test]
    fn wide_characters_take_two_cells() {
        let picture = drawn("钟x");
        let x = format!(r#"<text x="{:.1}""#, MARGIN + 2.0 * CELL_WIDTH);
        assert!(picture.contains(&x) && picture.contains(">x</text>"), "{picture}");
    }

    #[test]
    fn text_after_a_gap_stands_in_its_own_column() {
        let picture = drawn("ab   c d");
        let x = format!(r#"<text x="{:.1}""#, MARGIN + 5.0 * CELL_WIDTH);
        assert!(picture.contains(&x) && picture.contains(">c d</text>"), "{picture}");
    }

    #[test]
    fn inverse_swaps_the_colours() {
        let picture = drawn("\x1b[7m x\x1b[0m");
        assert!(picture.contains(&format!(r#"fill="{}"/>"#, hex(FOREGROUND))), "{picture}");
    }

    #[test]
    fn lines_and_blocks_are_drawn() {
        let picture = drawn("╭─╮█▁▏");
        assert_eq!(picture.matches("<path").count(), 2, "{picture}");
        assert_eq!(picture.matches('Q').count(), 2, "{picture}");
    }

    #[test]
    fn the_colour_cube_and_the_greys_are_those_of_xterm() {
        assert_eq!(indexed(16), (0, 0, 0));
        assert_eq!(indexed(196), (255, 0, 0));
        assert_eq!(indexed(231), (255, 255, 255));
        assert_eq!(indexed(232), (8, 8, 8));
        assert_eq!(indexed(255), (238, 238, 238));
    }
}
