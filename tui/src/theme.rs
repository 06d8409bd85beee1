//! Colours by meaning. A view asks for a [`Role`] and never names a colour; a theme file says how
//! each role looks, and [`Depth`] what of that the terminal can show. The format is explained in
//! `themes/README.md`.

mod color;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;
use thiserror::Error;

pub use self::color::Depth;

/// The theme that is used when none is asked for.
pub const DEFAULT_THEME: &str = "carillon-dark";

/// The themes that are part of the program.
const BUILT_IN: [(&str, &str); 2] = [
    (DEFAULT_THEME, include_str!("../../themes/carillon-dark.toml")),
    ("carillon-light", include_str!("../../themes/carillon-light.toml")),
];

/// The names of [`BUILT_IN`].
const NAMES: [&str; BUILT_IN.len()] = [BUILT_IN[0].0, BUILT_IN[1].0];

macro_rules! roles {
    ($($(#[$doc:meta])* $role:ident = $name:literal,)+) => {
        /// What a piece of the screen means.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Role {
            $($(#[$doc])* $role,)+
        }

        impl Role {
            /// Every role.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$role),+];

            /// Its name in a theme file.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$role => $name,)+
                }
            }
        }
    };
}

roles! {
    /// The screen: its ink and its paper. Every other role lies over it.
    Text = "text",
    /// What matters less.
    Dim = "dim",
    /// What leads the eye.
    Accent = "accent",
    /// Headings.
    Title = "title",
    /// A frame.
    Border = "border",
    /// The frame of what gets the keys.
    BorderFocused = "border-focused",
    /// The row under the cursor. Sets no ink, so that the cells keep theirs.
    Selected = "selected",
    /// The heads of columns.
    Header = "header",
    /// The name of a view.
    Tab = "tab",
    /// The name of the view that is shown.
    TabActive = "tab-active",
    /// A key in a hint.
    Key = "key",
    /// The line at the bottom.
    StatusBar = "status-bar",
    /// The surface of a dialog.
    Popup = "popup",
    /// Succeeded, alive.
    Ok = "ok",
    /// Late, missed, skipped, draining.
    Warn = "warn",
    /// Failed, refused.
    Error = "error",
    /// Live.
    Running = "running",
    /// Not scheduled.
    Paused = "paused",
    /// A run whose worker is gone.
    Lost = "lost",
    /// What a store that is away said last.
    Stale = "stale",
    /// What a search found.
    Match = "match",
    /// Where the search stands.
    MatchCurrent = "match-current",
    /// A row marked for an action.
    Marked = "marked",
    /// A small notice over content: `42 new`.
    Badge = "badge",
    /// A button of a dialog.
    Button = "button",
    /// The button that Enter presses.
    ButtonFocused = "button-focused",
    /// The name of a field.
    Label = "label",
    /// The name of the field that gets the keys.
    LabelFocused = "label-focused",
    /// A field.
    Input = "input",
    /// The field that gets the keys.
    InputFocused = "input-focused",
    /// What an empty field stands for.
    Placeholder = "placeholder",
    /// The character under the cursor of a field.
    Cursor = "cursor",
    /// A line of standard error.
    Stderr = "stderr",
    /// A control character made visible.
    Control = "control",
    /// Only in the new text.
    Added = "added",
    /// Only in the old text.
    Removed = "removed",
    /// Different in both.
    Changed = "changed",
}

impl Role {
    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Why a theme cannot be used.
#[derive(Debug, Error)]
pub enum ThemeError {
    /// Neither built in nor in the user's folder.
    #[error("there is no theme `{name}`; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The file is there and cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a theme.
    #[error("theme {theme}: {message}")]
    Syntax {
        /// Which theme.
        theme: String,
        /// Where and why, from the TOML reader.
        message: String,
    },
    /// A role that the program does not have.
    #[error("theme {theme}: `{role}` is not a role (see themes/README.md)")]
    UnknownRole {
        /// Which theme.
        theme: String,
        /// What it says.
        role: String,
    },
    /// Not a colour.
    #[error(
        "theme {theme}, role {role}: `{color}` is neither in the palette nor a colour such as \"#83b4ee\", \"red\" or \"default\""
    )]
    UnknownColor {
        /// Which theme.
        theme: String,
        /// Where.
        role: &'static str,
        /// What it says.
        color: String,
    },
    /// Neither the theme nor what it inherits from says how these look.
    #[error("theme {theme}: no style for {missing} (or say: inherits = \"{DEFAULT_THEME}\")")]
    Incomplete {
        /// Which theme.
        theme: String,
        /// The roles.
        missing: String,
    },
    /// A theme inherits from itself.
    #[error("theme {0} inherits from itself")]
    Circle(String),
}

/// A theme as it stands in its file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    inherits: Option<String>,
    #[serde(default)]
    palette: BTreeMap<String, String>,
    #[serde(default)]
    roles: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    fg: Option<String>,
    bg: Option<String>,
    #[serde(default)]
    add: Vec<Add>,
    ansi: Option<Look>,
    mono: Option<Look>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Look {
    fg: Option<String>,
    bg: Option<String>,
    #[serde(default)]
    add: Vec<Add>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Add {
    Bold,
    Dim,
    Italic,
    Underlined,
    Reversed,
    CrossedOut,
}

impl From<Add> for Modifier {
    fn from(add: Add) -> Self {
        match add {
            Add::Bold => Self::BOLD,
            Add::Dim => Self::DIM,
            Add::Italic => Self::ITALIC,
            Add::Underlined => Self::UNDERLINED,
            Add::Reversed => Self::REVERSED,
            Add::CrossedOut => Self::CROSSED_OUT,
        }
    }
}

/// A style for every role, for one depth of colour.
#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    name: String,
    depth: Depth,
    styles: [Style; Role::ALL.len()],
}

impl Default for Theme {
    /// The default theme in full colour.
    fn default() -> Self {
        // The built-in themes are tested; were one broken, the screen would be without colours.
        Self::load(DEFAULT_THEME, None, Depth::TrueColor).unwrap_or_else(|_| Self {
            name: DEFAULT_THEME.to_owned(),
            depth: Depth::None,
            styles: [Style::new(); Role::ALL.len()],
        })
    }
}

impl Theme {
    /// How a role looks. Only [`Role::Text`] and the surfaces set a background; the others are
    /// patched over what lies beneath.
    pub fn get(&self, role: Role) -> Style {
        // Role::ALL is in the order of declaration, so the discriminant is the position.
        self.styles.get(role as usize).copied().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the terminal can show.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// Whether its paper is light; `None` where the terminal's own background stays.
    pub fn is_light(&self) -> Option<bool> {
        match self.get(Role::Text).bg? {
            Color::Rgb(r, g, b) => Some(color::is_light((r, g, b))),
            Color::Indexed(n) => Some(color::is_light(color::rgb_of(n))),
            _ => None,
        }
    }

    /// A colour that is not the theme's own, such as one in a job's output, as near as the
    /// terminal can show it.
    pub fn adapt(&self, style: Style) -> Style {
        self.depth.reduce(style)
    }

    /// The names of the built-in themes.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// The names of the built-in themes and of those in the user's folder, sorted.
    pub fn available(user_dir: Option<&Path>) -> Vec<String> {
        let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
        let files = user_dir.and_then(|dir| dir.read_dir().ok());
        for file in files.into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_some_and(|e| e == "toml")
                && let Some(name) = path.file_stem().and_then(|n| n.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// Loads a theme: from the user's folder where it has one of that name, else a built-in one.
    ///
    /// # Errors
    /// Says what is wrong and in which file.
    pub fn load(name: &str, user_dir: Option<&Path>, depth: Depth) -> Result<Self, ThemeError> {
        let mut palette = BTreeMap::new();
        let mut roles: BTreeMap<&'static str, Entry> = BTreeMap::new();
        // From the theme to its furthest ancestor; what is nearer wins.
        let mut next = Some((name.to_owned(), user_dir));
        let mut seen = Vec::new();
        while let Some((name, dir)) = next {
            let (sheet, origin) = read(&name, dir)?;
            if seen.contains(&(name.clone(), origin)) {
                return Err(ThemeError::Circle(name));
            }
            for (key, color) in sheet.palette {
                palette.entry(key).or_insert(color);
            }
            for (key, entry) in sheet.roles {
                let Some(role) = Role::named(&key) else {
                    let theme = name;
                    return Err(ThemeError::UnknownRole { theme, role: key });
                };
                roles.entry(role.name()).or_insert(entry);
            }
            next = sheet.inherits.map(|parent| {
                // A user's theme of the same name as a built-in one extends that one.
                let dir = if parent == name { None } else { user_dir };
                (parent, dir)
            });
            seen.push((name, origin));
        }
        let missing: Vec<_> = Role::ALL
            .iter()
            .map(|role| role.name())
            .filter(|role| !roles.contains_key(role))
            .collect();
        if !missing.is_empty() {
            let (theme, missing) = (name.to_owned(), missing.join(", "));
            return Err(ThemeError::Incomplete { theme, missing });
        }
        let mut styles = [Style::new(); Role::ALL.len()];
        for (style, role) in styles.iter_mut().zip(Role::ALL) {
            if let Some(entry) = roles.get(role.name()) {
                let paints = Paints { theme: name, role: role.name(), palette: &palette };
                *style = paints.style(entry, depth, role == Role::Text)?;
            }
        }
        Ok(Self { name: name.to_owned(), depth, styles })
    }
}

/// Where a theme was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    BuiltIn,
    User,
}

fn read(name: &str, user_dir: Option<&Path>) -> Result<(Sheet, Origin), ThemeError> {
    let parse = |text: &str| {
        toml::from_str(text).map_err(|e| ThemeError::Syntax {
            theme: name.to_owned(),
            message: e.to_string().trim_end().to_owned(),
        })
    };
    // A name is a name, not a way out of the folder.
    if let Some(dir) = user_dir
        && !name.contains(['/', '\\', '\0'])
    {
        let path = dir.join(format!("{name}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok((parse(&text)?, Origin::User)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ThemeError::Unreadable { path, source }),
        }
    }
    match BUILT_IN.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => Ok((parse(text)?, Origin::BuiltIn)),
        None => Err(ThemeError::Unknown {
            name: name.to_owned(),
            known: Theme::available(user_dir).join(", "),
        }),
    }
}

/// Turns what a file says into styles.
struct Paints<'a> {
    theme: &'a str,
    role: &'static str,
    palette: &'a BTreeMap<String, String>,
}

impl Paints<'_> {
    fn style(&self, entry: &Entry, depth: Depth, is_paper: bool) -> Result<Style, ThemeError> {
        let full = self.look(entry.fg.as_ref(), entry.bg.as_ref(), &entry.add)?;
        let own = match depth {
            Depth::TrueColor | Depth::Ansi256 => return Ok(depth.reduce(full)),
            Depth::Ansi16 => entry.ansi.as_ref(),
            Depth::None => entry.mono.as_ref(),
        };
        if let Some(look) = own {
            return Ok(depth.reduce(self.look(look.fg.as_ref(), look.bg.as_ref(), &look.add)?));
        }
        let reduced = depth.reduce(full);
        if is_paper {
            // The operator's own sixteen colours are made to be read on their own background.
            return Ok(Style::new().add_modifier(reduced.add_modifier));
        }
        let lost = |color: Option<Color>| matches!(color, None | Some(Color::Reset | Color::Black));
        // A surface that is one only by its colour is not worth reversing half a screen for.
        let surface = ["status-bar", "popup", "button", "input", "input-focused"];
        Ok(match full.bg {
            Some(_) if lost(reduced.bg) && !surface.contains(&self.role) => {
                Style::new().add_modifier(reduced.add_modifier).add_modifier(Modifier::REVERSED)
            }
            Some(_) if lost(reduced.bg) => Style::new().add_modifier(reduced.add_modifier),
            _ => reduced,
        })
    }

    fn look(
        &self,
        fg: Option<&String>,
        bg: Option<&String>,
        add: &[Add],
    ) -> Result<Style, ThemeError> {
        let mut style = Style::new();
        style.fg = fg.map(|text| self.color(text)).transpose()?;
        style.bg = bg.map(|text| self.color(text)).transpose()?;
        style.add_modifier = add.iter().map(|add| Modifier::from(*add)).collect();
        Ok(style)
    }

    fn color(&self, text: &str) -> Result<Color, ThemeError> {
        let value = self.palette.get(text).map_or(text, String::as_str);
        if value == "default" {
            return Ok(Color::Reset);
        }
        value.parse().map_err(|_| ThemeError::UnknownColor {
            theme: self.theme.to_owned(),
            role: self.role,
            color: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
