//! Where the stores are: one file format, one set of variables and flags, for both programs.
//!
//! This module reads no environment and no file by itself: `main.rs` of each program hands in what
//! it found, in order of precedence: flag, variable, file, default.

use serde::Deserialize;
use thiserror::Error;

use crate::keys::{BadPrefix, DEFAULT_PREFIX, Keys};

/// The etcd endpoint used where none is configured.
pub const DEFAULT_ETCD: &str = "http://127.0.0.1:2379";
/// The MongoDB URI used where none is configured.
pub const DEFAULT_MONGO: &str = "mongodb://127.0.0.1:27017";

/// A text of settings that cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file is not TOML, or a field has the wrong type.
    #[error("{path}: {detail}")]
    Unreadable {
        /// The file.
        path: String,
        /// Line, column and what is wrong there.
        detail: String,
    },
    /// The prefix is not one.
    #[error(transparent)]
    Prefix(#[from] BadPrefix),
    /// No endpoint at all.
    #[error("no etcd endpoint is configured")]
    NoEndpoint,
    /// An endpoint that is not a URL.
    #[error("`{0}` is not an etcd endpoint such as http://127.0.0.1:2379")]
    Endpoint(String),
}

/// Some of the connection settings, from one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Partial {
    /// etcd endpoints, separated by commas.
    pub etcd: Option<String>,
    /// MongoDB connection string; may hold a password.
    pub mongo: Option<String>,
    /// Key prefix.
    pub prefix: Option<String>,
}

impl Partial {
    /// Reads a `config.toml`; fields that are not about connections are left to their owners.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong there.
    pub fn from_toml(path: &str, text: &str) -> Result<Self, SettingsError> {
        // Only the place and the reason: the line itself may hold a password.
        let line = |at: usize| text.get(..at).map_or(1, |before| 1 + before.matches('\n').count());
        toml::from_str(text).map_err(|e: toml::de::Error| SettingsError::Unreadable {
            path: path.to_owned(),
            detail: match e.span() {
                Some(span) => format!("line {}: {}", line(span.start), e.message()),
                None => e.message().to_owned(),
            },
        })
    }

    /// What is set here, else what is set in `weaker`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self {
            etcd: self.etcd.or(weaker.etcd),
            mongo: self.mongo.or(weaker.mongo),
            prefix: self.prefix.or(weaker.prefix),
        }
    }

    /// Fills in the defaults and checks the whole.
    ///
    /// # Errors
    /// A prefix or an endpoint that cannot be one.
    pub fn resolve(self) -> Result<Connection, SettingsError> {
        let etcd = self.etcd.unwrap_or_else(|| DEFAULT_ETCD.to_owned());
        let endpoints: Vec<String> =
            etcd.split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned).collect();
        if endpoints.is_empty() {
            return Err(SettingsError::NoEndpoint);
        }
        for endpoint in &endpoints {
            let rest = endpoint.strip_prefix("http://").or(endpoint.strip_prefix("https://"));
            if endpoint.contains('@') {
                // It would be shown in every error, so it is not repeated in this one either.
                return Err(SettingsError::Endpoint("…@…".to_owned()));
            }
            if rest.unwrap_or(endpoint).is_empty() || rest.is_none() && endpoint.contains("://") {
                return Err(SettingsError::Endpoint(endpoint.clone()));
            }
        }
        Ok(Connection {
            endpoints,
            mongo: self.mongo.unwrap_or_else(|| DEFAULT_MONGO.to_owned()),
            keys: Keys::new(self.prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?,
        })
    }
}

/// Everything needed to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// etcd endpoints.
    pub endpoints: Vec<String>,
    /// MongoDB connection string; may hold a password, so it is never printed as it is.
    pub mongo: String,
    /// The fleet's keys.
    pub keys: Keys,
}

impl Connection {
    /// The MongoDB connection string without what stands before the `@`.
    pub fn mongo_shown(&self) -> String {
        hide_password(&self.mongo)
    }
}

/// A connection string fit for logs: user and password are replaced.
pub fn hide_password(uri: &str) -> String {
    match (uri.find("://"), uri.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let (head, tail) = (uri.get(..scheme + 3), uri.get(at..));
            format!("{}***{}", head.unwrap_or_default(), tail.unwrap_or_default())
        }
        _ => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_source_wins_and_defaults_fill_in() {
        let flag = Partial { etcd: Some("http://a:1, http://b:2".into()), ..Partial::default() };
        let file =
            Partial::from_toml("c", "etcd = \"http://c:3\"\nprefix = \"/ops\"\ntheme = \"x\"");
        let connection = flag.or(file.unwrap()).resolve().unwrap();
        assert_eq!(connection.endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!((connection.keys.fleet(), connection.mongo.as_str()), ("/ops", DEFAULT_MONGO));
    }

    #[test]
    fn wrong_settings_are_named() {
        let wrong = Partial::from_toml("/etc/c.toml", "etcd = 5").unwrap_err().to_string();
        assert!(wrong.starts_with("/etc/c.toml: ") && wrong.contains("line 1"), "{wrong}");
        let ftp = Partial { etcd: Some("ftp://x".into()), ..Partial::default() };
        assert!(matches!(ftp.resolve(), Err(SettingsError::Endpoint(_))));
    }

    #[test]
    fn a_password_is_never_shown() {
        let torn = Partial::from_toml("c", "prefix = \"/a\"\nmongo = \"mongodb://u:secret@h");
        let error = torn.unwrap_err().to_string();
        assert!(error.starts_with("c: line 2: ") && !error.contains("secret"), "{error}");
        assert_eq!(hide_password("mongodb://u:p@ss@h:1/x"), "mongodb://***@h:1/x");
        assert_eq!(hide_password("mongodb://h:1"), "mongodb://h:1");
    }
}
