//! Colours by semantic role.
use ratatui::style::{Modifier, Style};
use std::path::Path;

/// What a piece of the screen means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Role {
    Text,
    Dim,
    Accent,
    Title,
    Border,
    BorderFocused,
    Selected,
    Header,
    Ok,
    Warn,
    Error,
    Running,
    Key,
    StatusBar,
    Match,
    Marked,
}
/// Colour depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Depth {
    TrueColor,
    Ansi256,
    Ansi16,
    None,
}
/// Why a theme cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ThemeError(pub String);
/// A theme.
#[derive(Debug, Clone)]
pub struct Theme;
impl Theme {
    /// The style of a role.
    pub fn get(&self, role: Role) -> Style {
        match role {
            Role::Selected => Style::new().add_modifier(Modifier::REVERSED),
            Role::Dim => Style::new().add_modifier(Modifier::DIM),
            _ => Style::new(),
        }
    }
    /// Loads.
    ///
    /// # Errors
    /// Unknown.
    pub fn load(_name: &str, _user: Option<&Path>, _depth: Depth) -> Result<Self, ThemeError> {
        Ok(Self)
    }
    /// Names.
    pub fn names() -> &'static [&'static str] {
        &["dark", "light"]
    }
}
