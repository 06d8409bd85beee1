//! Sorted numbers as words: `0-9, 20 and every 5th from 30 to 55`.

/// So many evenly spaced numbers are told by their step, fewer one by one.
const SHORTEST_STEPS: usize = 5;

/// Two or more evenly spaced numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub(super) first: u32,
    pub(super) step: u32,
    pub(super) last: u32,
}

impl Steps {
    /// All of `values`, where they are two or more and evenly spaced.
    pub(super) fn of(values: &[u32]) -> Option<Self> {
        let (first, step, last) = match values {
            [first, second, ..] => (*first, second - first, *values.last()?),
            _ => return None,
        };
        (evenly(values) == values.len()).then_some(Self { first, step, last })
    }

    /// Whether the next lap of `length` numbers goes on at the same pace.
    pub(super) fn is_cycle(self, length: u32) -> bool {
        self.last + self.step == self.first + length
    }
}

/// A part of a sorted list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Span {
    One(u32),
    /// Neighbours, from the first to the last.
    Run(u32, u32),
    Steps(Steps),
}

/// Cuts a sorted list into as few parts as are easily told; a run has at least `shortest_run`.
pub(super) fn spans(values: &[u32], shortest_run: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut rest = values;
    while let [first, others @ ..] = rest {
        let step = others.first().map_or(0, |second| second - first);
        let even = evenly(rest);
        let last = first + step * (even as u32).saturating_sub(1);
        let (span, taken) = match step {
            1 if even >= shortest_run => (Span::Run(*first, last), even),
            2.. if even >= SHORTEST_STEPS => {
                (Span::Steps(Steps { first: *first, step, last }), even)
            }
            _ => (Span::One(*first), 1),
        };
        spans.push(span);
        rest = rest.get(taken..).unwrap_or_default();
    }
    spans
}

/// How many numbers from the first on are as far apart as the first two.
fn evenly(values: &[u32]) -> usize {
    let mut gaps = values.iter().zip(values.iter().skip(1)).map(|(a, b)| b - a).peekable();
    let Some(step) = gaps.peek().copied() else {
        return values.len();
    };
    1 + gaps.take_while(|gap| *gap == step).count()
}

/// The same numbers of a cycle that begins with `min`, in the order of the clock: what runs up to
/// the end of the cycle and on into the next one comes first, and counts on past the end.
pub(super) fn unrolled(values: &[u32], min: u32, length: u32) -> Vec<u32> {
    let around = values.first() == Some(&min) && values.last() == Some(&(min + length - 1));
    let tail = values.iter().rev().zip((min..min + length).rev()).take_while(|(a, b)| *a == b);
    let (before, tail) = values.split_at(values.len() - tail.count());
    if !around || before.is_empty() {
        return values.to_vec();
    }
    tail.iter().copied().chain(before.iter().map(|value| value + length)).collect()
}

/// The positions of the set bits.
pub(super) fn numbers(mask: u64) -> Vec<u32> {
    (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
}

/// `minute 5`, `minutes 0-9, 20 and every 5th from 30 to 55`, `every 7th minute from 0 to 56`.
pub(super) fn counted(unit: &str, values: &[u32]) -> String {
    if let [one] = values {
        return format!("{unit} {one}");
    }
    let (mut items, mut paces) = (Vec::new(), Vec::new());
    for span in spans(values, 3) {
        match span {
            Span::One(value) => items.push(value.to_string()),
            Span::Run(first, last) => items.push(format!("{first}-{last}")),
            Span::Steps(Steps { first, step, last }) => {
                let unit = if paces.is_empty() { format!(" {unit}") } else { String::new() };
                paces.push((ordinal(step), unit, format!("from {first} to {last}")));
            }
        }
    }
    let named = items.is_empty();
    items.extend(paces.into_iter().map(|(nth, unit, range)| {
        format!("every {nth}{} {range}", if named { unit } else { String::new() })
    }));
    if named { and(&items) } else { format!("{unit}s {}", and(&items)) }
}

/// `1st`, `22nd`.
pub(super) fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number / 10 % 10) {
        (_, 1) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

/// `1 minute`, `5 minutes`.
pub(super) fn amount(number: u32, unit: &str) -> String {
    match number {
        1 => format!("1 {unit}"),
        _ => format!("{number} {unit}s"),
    }
}

/// `every minute`, `every 5 minutes`.
pub(super) fn every(number: u32, unit: &str) -> String {
    match number {
        1 => format!("every {unit}"),
        _ => format!("every {number} {unit}s"),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn and<T: AsRef<str>>(items: &[T]) -> String {
    list(items, "and")
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn or<T: AsRef<str>>(items: &[T]) -> String {
    list(items, "or")
}

fn list<T: AsRef<str>>(items: &[T], word: &str) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} {word} {last}", rest.join(", ")),
        _ => items.concat(),
    }
}
