use std::fs;

use super::color::rgb_of;
use super::*;

const DEPTHS: [Depth; 4] = [Depth::TrueColor, Depth::Ansi256, Depth::Ansi16, Depth::None];

/// Relative luminance, WCAG 2.1.
fn luminance(color: Color) -> f64 {
    let (r, g, b) = match color {
        Color::Rgb(r, g, b) => (r, g, b),
        Color::Indexed(n) => rgb_of(n),
        other => panic!("{other:?} has no fixed shade"),
    };
    let part = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b)
}

fn contrast(a: Color, b: Color) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Frames are not text.
fn is_text(role: Role) -> bool {
    role != Role::Border
}

#[test]
fn every_theme_defines_every_role_at_every_depth() {
    for name in Theme::names() {
        for depth in DEPTHS {
            let theme = Theme::load(name, None, depth).unwrap();
            assert_eq!((theme.name(), theme.depth()), (*name, depth));
        }
    }
}

#[test]
fn all_text_is_readable_on_every_surface() {
    for name in Theme::names() {
        for depth in [Depth::TrueColor, Depth::Ansi256] {
            let theme = Theme::load(name, None, depth).unwrap();
            let text = theme.get(Role::Text);
            let surfaces = [
                Role::Text,
                Role::Selected,
                Role::Popup,
                Role::StatusBar,
                Role::Input,
                Role::InputFocused,
            ];
            for role in Role::ALL.into_iter().filter(|role| is_text(*role)) {
                let style = theme.get(role);
                let fg = style.fg.or(text.fg).unwrap();
                let on: Vec<Color> = match style.bg {
                    Some(own) => vec![own],
                    None => surfaces.iter().map(|s| theme.get(*s).bg.unwrap()).collect(),
                };
                for bg in on {
                    let ratio = contrast(fg, bg);
                    assert!(
                        ratio >= 4.5,
                        "{name} {depth:?} {}: {fg:?} on {bg:?} is {ratio:.2}",
                        role.name()
                    );
                }
            }
        }
    }
}

#[test]
fn the_dark_theme_is_readable_without_its_own_paper() {
    let theme = Theme::default();
    for role in Role::ALL.into_iter().filter(|role| is_text(*role)) {
        let style = theme.get(role);
        if let (Some(fg), None) = (style.fg, style.bg) {
            for bg in [Color::Rgb(0, 0, 0), Color::Rgb(40, 40, 40)] {
                assert!(contrast(fg, bg) >= 4.5, "{} on {bg:?}", role.name());
            }
        }
    }
}

#[test]
fn selection_is_seen_at_every_depth() {
    for name in Theme::names() {
        for depth in DEPTHS {
            let theme = Theme::load(name, None, depth).unwrap();
            for role in [
                Role::Selected,
                Role::ButtonFocused,
                Role::Cursor,
                Role::Match,
                Role::MatchCurrent,
                Role::Badge,
            ] {
                let style = theme.get(role);
                let own_bg = style.bg.is_some() && style.bg != theme.get(Role::Text).bg;
                assert!(
                    own_bg || style.add_modifier.contains(Modifier::REVERSED),
                    "{name} {depth:?} {}: {style:?}",
                    role.name()
                );
            }
            assert_ne!(theme.get(Role::Match), theme.get(Role::MatchCurrent));
            assert_ne!(theme.get(Role::Button), theme.get(Role::ButtonFocused));
        }
    }
}

#[test]
fn without_colours_there_are_none() {
    for name in Theme::names() {
        let theme = Theme::load(name, None, Depth::None).unwrap();
        for role in Role::ALL {
            let style = theme.get(role);
            assert_eq!((style.fg, style.bg), (None, None), "{}", role.name());
        }
        let job = Style::new().fg(Color::Rgb(1, 2, 3)).add_modifier(Modifier::BOLD);
        assert_eq!(theme.adapt(job), Style::new().add_modifier(Modifier::BOLD));
    }
}

#[test]
fn with_sixteen_colours_only_those_are_used() {
    for name in Theme::names() {
        let theme = Theme::load(name, None, Depth::Ansi16).unwrap();
        for role in Role::ALL {
            for color in [theme.get(role).fg, theme.get(role).bg].into_iter().flatten() {
                assert!(!matches!(color, Color::Rgb(..) | Color::Indexed(_)), "{}", role.name());
            }
        }
        assert_eq!(theme.get(Role::Text).bg, None, "the terminal's own background stays");
    }
}

#[test]
fn a_theme_without_fallbacks_keeps_its_selection() {
    let dir = tempfile::tempdir().unwrap();
    let text = "inherits = \"carillon-dark\"\n[roles]\nselected = { bg = \"#101318\", add = [\"bold\"] }\n";
    fs::write(dir.path().join("mine.toml"), text).unwrap();
    for depth in [Depth::Ansi16, Depth::None] {
        let theme = Theme::load("mine", Some(dir.path()), depth).unwrap();
        let selected = theme.get(Role::Selected);
        assert!(
            selected.add_modifier.contains(Modifier::REVERSED | Modifier::BOLD),
            "{selected:?}"
        );
    }
}

#[test]
fn the_users_folder_overrides_and_extends() {
    let dir = tempfile::tempdir().unwrap();
    let own = "inherits = \"carillon-dark\"\n[palette]\npaper = \"default\"\nblue = \"#aabbcc\"\n";
    fs::write(dir.path().join("carillon-dark.toml"), own).unwrap();
    fs::write(dir.path().join("mine.toml"), "inherits = \"carillon-dark\"\n").unwrap();
    for name in ["carillon-dark", "mine"] {
        let theme = Theme::load(name, Some(dir.path()), Depth::TrueColor).unwrap();
        assert_eq!(theme.get(Role::Text).bg, Some(Color::Reset));
        assert_eq!(theme.get(Role::Accent).fg, Some(Color::Rgb(0xaa, 0xbb, 0xcc)));
        assert_eq!(theme.get(Role::Ok), Theme::default().get(Role::Ok));
    }
    let names = Theme::available(Some(dir.path()));
    assert_eq!(names, ["carillon-dark", "carillon-light", "mine"]);
}

#[test]
fn a_broken_theme_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("alone", "[roles]\nok = { fg = \"red\" }\n", "no style for text, dim"),
        (
            "typo",
            "inherits = \"carillon-dark\"\n[roles]\nokay = { fg = \"red\" }\n",
            "`okay` is not a role",
        ),
        (
            "shade",
            "inherits = \"carillon-dark\"\n[roles]\nok = { fg = \"grün\" }\n",
            "`grün` is neither",
        ),
        ("toml", "inherits = \n", "line 1"),
        ("field", "inherit = \"carillon-dark\"\n", "unknown field `inherit`"),
        ("me", "inherits = \"you\"\n", "inherits from itself"),
        ("you", "inherits = \"me\"\n", "inherits from itself"),
        ("orphan", "inherits = \"nobody\"\n", "there is no theme `nobody`; there are alone"),
    ];
    for (name, text, _) in cases {
        fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
    }
    for (name, _, expected) in cases {
        let error = Theme::load(name, Some(dir.path()), Depth::TrueColor).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    assert!(Theme::load("../alone", Some(dir.path()), Depth::TrueColor).is_err());
}

#[test]
fn the_environment_tells_the_depth() {
    let cases: [(&[(&str, &str)], Depth); 9] = [
        (&[("TERM", "xterm-256color")], Depth::Ansi256),
        (&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")], Depth::TrueColor),
        (&[("TERM", "xterm-kitty")], Depth::TrueColor),
        (&[("TERM", "xterm-direct")], Depth::TrueColor),
        (&[("TERM", "vt220")], Depth::Ansi16),
        (&[], Depth::Ansi16),
        (&[("TERM", "dumb"), ("COLORTERM", "truecolor")], Depth::None),
        (&[("NO_COLOR", "1"), ("TERM", "xterm-kitty")], Depth::None),
        (&[("NO_COLOR", ""), ("TERM", "screen-256color")], Depth::Ansi256),
    ];
    for (env, depth) in cases {
        let var = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        assert_eq!(Depth::from_env(var), depth, "{env:?}");
    }
}
