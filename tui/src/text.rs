//! Text on the screen.
use chrono::TimeDelta;
use std::borrow::Cow;
use unicode_width::UnicodeWidthStr;
/// Columns.
pub fn width(text: &str) -> usize {
    text.width()
}
/// Clean.
pub fn clean(text: &str) -> Cow<'_, str> {
    text.chars()
        .map(|c| if c.is_control() { '\u{b7}' } else { c })
        .collect::<String>()
        .into()
}
/// Fit.
pub fn fit(text: &str, cols: usize) -> String {
    let text = clean(text);
    let mut out = String::new();
    let mut used = 0;
    if width(&text) <= cols {
        out.push_str(&text);
        used = width(&text);
    } else {
        for c in text.chars() {
            let w = width(c.encode_utf8(&mut [0; 4]));
            if used + w >= cols {
                break;
            }
            out.push(c);
            used += w;
        }
        if cols > used {
            out.push('…');
            used += 1;
        }
    }
    out.extend(std::iter::repeat_n(' ', cols.saturating_sub(used)));
    out
}
/// Ago.
pub fn ago(delta: TimeDelta) -> String {
    let s = delta.num_seconds().max(0);
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m", s / 60),
        3600..86400 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86400),
    }
}
/// Duration.
pub fn duration(delta: TimeDelta) -> String {
    let ms = delta.num_milliseconds().max(0);
    if ms < 1000 {
        format!("{ms}ms")
    } else if ms < 60_000 {
        format!("{}.{}s", ms / 1000, ms % 1000 / 100)
    } else {
        format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60)
    }
}
