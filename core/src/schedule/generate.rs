//! Random expressions for the properties: every form of the dialect, in any mixture. Some can never
//! fire and are refused.

use proptest::prelude::*;
use proptest::sample::select;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

fn number(low: u32, high: u32) -> BoxedStrategy<String> {
    (low..=high).prop_map(|n| n.to_string()).boxed()
}

/// Values, ranges and steps of them.
fn item(value: BoxedStrategy<String>, most: u32) -> BoxedStrategy<String> {
    let range = (value.clone(), value.clone()).prop_map(|(a, b)| format!("{a}-{b}"));
    let range = range.boxed();
    let stepped = prop_oneof![range.clone(), value.clone(), Just("*".to_owned())];
    prop_oneof![
        3 => value,
        2 => range,
        2 => (stepped, 1..=most).prop_map(|(base, step)| format!("{base}/{step}")),
    ]
    .boxed()
}

/// `*`, steps of it, and lists: in the day fields it matters whether one begins with `*`.
fn list(item: impl Strategy<Value = String> + 'static, most: u32) -> BoxedStrategy<String> {
    let items = prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")).boxed();
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (1..=most).prop_map(|step| format!("*/{step}")),
        1 => (1..=most, items.clone()).prop_map(|(step, items)| format!("*/{step},{items}")),
        6 => items,
    ]
    .boxed()
}

/// A field of numbers: seconds, minutes, hours.
pub(super) fn field(low: u32, high: u32) -> BoxedStrategy<String> {
    list(item(number(low, high), high), high)
}

fn month() -> BoxedStrategy<String> {
    let name = select(&MONTHS[..]).prop_map(str::to_owned);
    list(item(prop_oneof![number(1, 12), name].boxed(), 12), 12)
}

fn special_day() -> BoxedStrategy<String> {
    prop_oneof![
        Just("L".to_owned()),
        Just("LW".to_owned()),
        (0..=30).prop_map(|n| format!("L-{n}")),
        (1..=31).prop_map(|day| format!("{day}W")),
    ]
    .boxed()
}

fn weekday_value() -> BoxedStrategy<String> {
    prop_oneof![number(0, 7), select(&WEEKDAYS[..]).prop_map(str::to_owned)].boxed()
}

fn special_weekday() -> BoxedStrategy<String> {
    prop_oneof![
        (weekday_value(), 1..=5).prop_map(|(day, n)| format!("{day}#{n}")),
        weekday_value().prop_map(|day| format!("{day}L")),
    ]
    .boxed()
}

fn day_of_month() -> BoxedStrategy<String> {
    prop_oneof![
        1 => Just("?".to_owned()),
        4 => list(item(number(1, 31), 31), 31),
        4 => list(prop_oneof![item(number(1, 31), 31), special_day()], 31),
    ]
    .boxed()
}

fn day_of_week() -> BoxedStrategy<String> {
    prop_oneof![
        1 => Just("?".to_owned()),
        4 => list(item(weekday_value(), 7), 7),
        4 => list(prop_oneof![item(weekday_value(), 7), special_weekday()], 7),
    ]
    .boxed()
}

fn year() -> BoxedStrategy<String> {
    let range = (1970..=2100_u32, 1970..=2100_u32);
    let range = range.prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let range = range.boxed();
    let stepped = prop_oneof![range.clone(), number(1970, 2100), Just("*".to_owned())];
    list(
        prop_oneof![
            1 => number(1970, 2100),
            2 => range,
            2 => (stepped, 1..=130).prop_map(|(base, step)| format!("{base}/{step}")),
        ],
        130,
    )
}

/// In capitals, small letters and a mixture.
fn any_case(expr: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (expr, prop_oneof![Just(0), Just(u64::MAX), any::<u64>()])
        .prop_map(|(expr, small)| {
            let letters = expr.chars().enumerate();
            let cased = letters.map(|(i, c)| match small >> (i % 64) & 1 {
                1 => c.to_ascii_lowercase(),
                _ => c,
            });
            cased.collect()
        })
        .boxed()
}

/// The three fields that say on which days.
pub(super) fn days() -> BoxedStrategy<[String; 3]> {
    let names = |field| any_case(field);
    (names(day_of_month()), names(month()), names(day_of_week()))
        .prop_map(|(day, month, weekday)| [day, month, weekday])
        .boxed()
}

/// Five fields.
pub(super) fn by_the_minute() -> BoxedStrategy<String> {
    (field(0, 59), field(0, 23), days())
        .prop_map(|(minute, hour, [day, month, weekday])| {
            format!("{minute} {hour} {day} {month} {weekday}")
        })
        .boxed()
}

/// Six or seven fields.
pub(super) fn by_the_second() -> BoxedStrategy<String> {
    let year = prop_oneof![Just(String::new()), year().prop_map(|year| format!(" {year}"))];
    (field(0, 59), by_the_minute(), year)
        .prop_map(|(second, expr, year)| format!("{second} {expr}{year}"))
        .boxed()
}

/// A period, in the units of `@every`.
pub(super) fn every() -> BoxedStrategy<String> {
    let parts = (0_u32..3, 0_u32..30, 0_u32..100, 1_u32..4000);
    let every = parts.prop_map(|(days, hours, minutes, seconds)| {
        let parts = [(days, 'd'), (hours, 'h'), (minutes, 'm'), (seconds, 's')];
        let parts =
            parts.map(|(n, unit)| if n == 0 { String::new() } else { format!("{n}{unit}") });
        format!("@every {}", parts.concat())
    });
    any_case(every.boxed())
}

/// Every form that needs neither a name nor an anchor.
pub(super) fn expression() -> BoxedStrategy<String> {
    let name = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    let name = select(name.to_vec()).prop_map(str::to_owned);
    prop_oneof![
        8 => by_the_minute(),
        8 => by_the_second(),
        1 => any_case(name.boxed()),
        1 => every(),
        1 => at(),
    ]
    .boxed()
}

/// `@at` with an offset, or by the clock in the job's zone.
pub(super) fn at() -> BoxedStrategy<String> {
    let date = (1970..=2100, 1..=12, 1..=28);
    let time = (0..=23, 0..=59, prop_oneof![Just(None), (0..=59).prop_map(Some)]);
    let offset = prop_oneof![
        2 => Just(String::new()),
        1 => Just("Z".to_owned()),
        2 => (any::<bool>(), 0..=14, 0..=59).prop_map(|(east, hours, minutes)| {
            format!("{}{hours:02}:{minutes:02}", if east { '+' } else { '-' })
        }),
    ];
    (date, time, offset, any::<bool>())
        .prop_map(|((year, month, day), (hour, minute, second), offset, letter)| {
            let second = match second {
                Some(second) => format!(":{second:02}"),
                // An offset comes only behind seconds.
                None if !offset.is_empty() => ":00".to_owned(),
                None => String::new(),
            };
            let between = if letter { 'T' } else { ' ' };
            format!("@at {year}-{month:02}-{day:02}{between}{hour:02}:{minute:02}{second}{offset}")
        })
        .boxed()
}

/// Text of the dialect's own words in no order.
pub(super) fn words() -> BoxedStrategy<String> {
    const WORDS: [&str; 46] = [
        "*",
        "*",
        " ",
        " ",
        " ",
        ",",
        "-",
        "/",
        "~",
        "#",
        "?",
        "L",
        "W",
        "l",
        "w",
        "LW",
        "L-",
        "0",
        "1",
        "5",
        "7",
        "15",
        "31",
        "60",
        "2100",
        "MON",
        "fri",
        "jan",
        "Sept",
        "@at ",
        "@every ",
        "@daily",
        "@",
        "2030-12-24",
        "T",
        "09:30",
        ":",
        "Z",
        "+08:00",
        "1h30m",
        "1d",
        "\t",
        "é",
        "１",
        "\u{3000}",
        "999999999999",
    ];
    let word = select(&WORDS[..]);
    prop_oneof![
        prop::collection::vec(word.clone(), 0..24).prop_map(|words| words.concat()),
        prop::collection::vec(prop::collection::vec(word, 1..4).prop_map(|w| w.concat()), 5..8)
            .prop_map(|fields| fields.join(" ")),
    ]
    .boxed()
}
