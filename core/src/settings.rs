//! Where the stores are: one file format, one set of variables and flags, for both programs.
//!
//! This module reads no environment: `main.rs` of each program hands in what it found, in order of
//! precedence: flag, variable, file, default. The only files that it opens are those with the password
//! and the certificates.

use std::fmt;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::keys::{BadPrefix, DEFAULT_PREFIX, Keys};

/// The etcd endpoint used where none is configured.
pub const DEFAULT_ETCD: &str = "http://127.0.0.1:2379";
/// The MongoDB URI used where none is configured.
pub const DEFAULT_MONGO: &str = "mongodb://127.0.0.1:27017";

/// The bit of a file's mode that lets everybody read it.
const READABLE_BY_ALL: u32 = 0o004;

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
    /// A file with a password, a certificate or a key that is of no use.
    #[error("the etcd {what} file {path}: {detail}")]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it, without any of its text.
        detail: String,
    },
    /// One setting without another that it needs.
    #[error("{0} needs {1}")]
    Alone(&'static str, &'static str),
}

/// Some of the connection settings, from one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Partial {
    /// etcd endpoints, separated by commas.
    pub etcd: Option<String>,
    /// MongoDB connection string.
    pub mongo: Option<MongoUri>,
    /// Key prefix.
    pub prefix: Option<String>,
    /// Whom etcd knows us as.
    pub etcd_user: Option<String>,
    /// The file with that user's password, on one line.
    pub etcd_password_file: Option<PathBuf>,
    /// The file with the authorities that etcd's certificates are checked against, in PEM.
    pub etcd_ca: Option<PathBuf>,
    /// The file with our certificate for etcd, in PEM.
    pub etcd_cert: Option<PathBuf>,
    /// The file with the key of that certificate, in PEM.
    pub etcd_key: Option<PathBuf>,
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
            etcd_user: self.etcd_user.or(weaker.etcd_user),
            etcd_password_file: self.etcd_password_file.or(weaker.etcd_password_file),
            etcd_ca: self.etcd_ca.or(weaker.etcd_ca),
            etcd_cert: self.etcd_cert.or(weaker.etcd_cert),
            etcd_key: self.etcd_key.or(weaker.etcd_key),
        }
    }

    /// The files with secrets in them that everybody can read, each in words for whoever can mend it.
    pub fn exposed_files(&self) -> impl Iterator<Item = String> {
        let secret = [&self.etcd_password_file, &self.etcd_key].into_iter().flatten();
        let mode = |file: &PathBuf| std::fs::metadata(file).map_or(0, |about| about.mode());
        secret
            .filter(move |file| mode(file) & READABLE_BY_ALL != 0)
            .map(|file| format!("everybody can read {}: chmod 600 keeps it secret", file.display()))
    }

    /// Fills in the defaults, reads the files with secrets, and checks the whole.
    ///
    /// # Errors
    /// A prefix or an endpoint that cannot be one; a file that cannot be read or does not hold
    /// what it should, by its name.
    pub fn resolve(self) -> Result<Connection, SettingsError> {
        self.resolve_with(|file| std::fs::read(file))
    }

    fn resolve_with(
        self,
        read: impl Fn(&Path) -> std::io::Result<Vec<u8>>,
    ) -> Result<Connection, SettingsError> {
        let login = self.login(&read)?;
        let tls = self.tls(&read)?;
        let etcd = self.etcd.unwrap_or_else(|| DEFAULT_ETCD.to_owned());
        let urls: Vec<String> =
            etcd.split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned).collect();
        if urls.is_empty() {
            return Err(SettingsError::NoEndpoint);
        }
        for endpoint in &urls {
            let rest = endpoint.strip_prefix("http://").or(endpoint.strip_prefix("https://"));
            if endpoint.contains('@') {
                // It would be shown in every error, so it is not repeated in this one either.
                return Err(SettingsError::Endpoint("…@…".to_owned()));
            }
            if rest.unwrap_or(endpoint).is_empty() || rest.is_none() && endpoint.contains("://") {
                return Err(SettingsError::Endpoint(endpoint.clone()));
            }
            if !tls.is_empty() && endpoint.starts_with("http://") {
                return Err(SettingsError::Alone(
                    "a CA or a certificate for etcd",
                    "endpoints that begin with https://",
                ));
            }
        }
        Ok(Connection {
            endpoints: Endpoints { urls, login, tls },
            mongo: self.mongo.unwrap_or_else(|| DEFAULT_MONGO.to_owned().into()),
            keys: Keys::new(self.prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?,
        })
    }

    fn login(
        &self,
        read: impl Fn(&Path) -> std::io::Result<Vec<u8>>,
    ) -> Result<Option<Login>, SettingsError> {
        let (user, path) = match (&self.etcd_user, &self.etcd_password_file) {
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                return Err(SettingsError::Alone("a password file for etcd", "a user"));
            }
            (Some(_), None) => {
                return Err(SettingsError::Alone("a user for etcd", "a password file"));
            }
            (Some(user), Some(path)) => (user.clone(), path),
        };
        let wrong = |detail: String| SettingsError::File {
            what: "password",
            path: path.display().to_string(),
            detail,
        };
        let text = read(path).map_err(|e| wrong(e.to_string()))?;
        let text = String::from_utf8(text).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.contains('\n') {
            return Err(wrong("it should hold the password on one line".to_owned()));
        }
        Ok(Some(Login { user, password: Secret(password.as_bytes().to_vec()) }))
    }

    fn tls(&self, read: impl Fn(&Path) -> std::io::Result<Vec<u8>>) -> Result<Tls, SettingsError> {
        let pem = |what: &'static str, path: &Option<PathBuf>, mark: &str| {
            let Some(path) = path else { return Ok(None) };
            let shown = path.display().to_string();
            let wrong = |detail: String| SettingsError::File { what, path: shown.clone(), detail };
            let text = read(path).map_err(|e| wrong(e.to_string()))?;
            if !text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
                return Err(wrong(format!("there is no {what} in PEM in it")));
            }
            Ok(Some(Pem { path: shown, text: Secret(text) }))
        };
        let authority = pem("CA", &self.etcd_ca, "-----BEGIN CERTIFICATE-----")?;
        let certificate = pem("certificate", &self.etcd_cert, "-----BEGIN CERTIFICATE-----")?;
        let key = pem("key", &self.etcd_key, "PRIVATE KEY-----")?;
        let own = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => {
                return Err(SettingsError::Alone("a certificate for etcd", "its key"));
            }
            (None, Some(_)) => {
                return Err(SettingsError::Alone("a key for etcd", "its certificate"));
            }
        };
        Ok(Tls { authority, own })
    }
}

/// Where etcd is, and what it lets us in with. Stands for its list of URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    urls: Vec<String>,
    /// User and password, where etcd asks for them.
    pub login: Option<Login>,
    /// Certificates, where there are some of our own.
    pub tls: Tls,
}

impl Deref for Endpoints {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.urls
    }
}

impl From<&Endpoints> for Endpoints {
    fn from(endpoints: &Endpoints) -> Self {
        endpoints.clone()
    }
}

impl From<&[String]> for Endpoints {
    fn from(urls: &[String]) -> Self {
        Self { urls: urls.to_vec(), ..Self::default() }
    }
}

impl From<&Vec<String>> for Endpoints {
    fn from(urls: &Vec<String>) -> Self {
        urls.as_slice().into()
    }
}

impl<const COUNT: usize> From<&[String; COUNT]> for Endpoints {
    fn from(urls: &[String; COUNT]) -> Self {
        urls.as_slice().into()
    }
}

/// A user of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// What a connection to etcd is secured with, beside the usual authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities to check etcd's certificates against, instead of the usual ones.
    pub authority: Option<Pem>,
    /// Our certificate and its key, for an etcd that asks for them.
    pub own: Option<(Pem, Pem)>,
}

impl Tls {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.authority.is_none() && self.own.is_none()
    }

    /// The files that it came from, for messages.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let own = self.own.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.authority.iter().chain(own).map(|pem| pem.path.as_str())
    }
}

/// The text of a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pem {
    /// The file.
    pub path: String,
    /// What it holds.
    pub text: Secret,
}

/// Bytes that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, for the one who needs them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything needed to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// etcd endpoints.
    pub endpoints: Endpoints,
    /// MongoDB connection string.
    pub mongo: MongoUri,
    /// The fleet's keys.
    pub keys: Keys,
}

/// A MongoDB connection string, which may hold a password: printed, it has `***` for that.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct MongoUri(String);

impl MongoUri {
    /// As it is, for the one who connects.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for MongoUri {
    fn from(uri: String) -> Self {
        Self(uri)
    }
}

impl fmt::Display for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hide_password(&self.0))
    }
}

impl fmt::Debug for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn no_file(path: &Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::Error::other(format!("nobody should read {}", path.display())))
    }

    /// What each file holds, by its name.
    fn files(path: &Path) -> std::io::Result<Vec<u8>> {
        match path.to_str() {
            Some("pw") => Ok(b"s3cret\n".to_vec()),
            Some("empty") => Ok(b"\n".to_vec()),
            Some("cert") => Ok(b"-----BEGIN CERTIFICATE-----\nAAAA".to_vec()),
            Some("key") => Ok(b"-----BEGIN PRIVATE KEY-----\ns3cret".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn error(toml: &str) -> String {
        Partial::from_toml("c", toml).unwrap().resolve_with(files).unwrap_err().to_string()
    }

    #[test]
    fn the_stronger_source_wins_and_defaults_fill_in() {
        let flag = Partial { etcd: Some("http://a:1, http://b:2".into()), ..Partial::default() };
        let file =
            Partial::from_toml("c", "etcd = \"http://c:3\"\nprefix = \"/ops\"\ntheme = \"x\"");
        let connection = flag.or(file.unwrap()).resolve_with(no_file).unwrap();
        assert_eq!(*connection.endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!((connection.keys.fleet(), connection.mongo.reveal()), ("/ops", DEFAULT_MONGO));
    }

    #[test]
    fn wrong_settings_are_named() {
        let wrong = Partial::from_toml("/etc/c.toml", "etcd = 5").unwrap_err().to_string();
        assert!(wrong.starts_with("/etc/c.toml: ") && wrong.contains("line 1"), "{wrong}");
        let ftp = Partial { etcd: Some("ftp://x".into()), ..Partial::default() };
        assert!(matches!(ftp.resolve_with(no_file), Err(SettingsError::Endpoint(_))));
    }

    #[test]
    fn a_password_is_never_shown() {
        let torn = Partial::from_toml("c", "prefix = \"/a\"\nmongo = \"mongodb://u:secret@h");
        let error = torn.unwrap_err().to_string();
        assert!(error.starts_with("c: line 2: ") && !error.contains("secret"), "{error}");
        assert_eq!(hide_password("mongodb://u:p@ss@h:1/x"), "mongodb://***@h:1/x");
        assert_eq!(hide_password("mongodb://h:1"), "mongodb://h:1");
        let file = Partial::from_toml("c", "mongo = \"mongodb://u:secret@h:1\"").unwrap();
        let shown = format!("{file:?} {:?}", file.clone().resolve_with(no_file).unwrap());
        assert_eq!((shown.matches("mongodb://***@h:1").count(), shown.find("secret")), (2, None));
    }

    #[test]
    fn files_of_secrets_are_read_and_never_shown() {
        let all = "etcd = \"https://a:1\"\netcd_user = \"u\"\netcd_password_file = \"pw\"\n\
                   etcd_ca = \"cert\"\netcd_cert = \"cert\"\netcd_key = \"key\"";
        let partial = Partial::from_toml("c", all).unwrap();
        let connection = partial.resolve_with(files).unwrap();
        let login = connection.endpoints.login.as_ref().unwrap();
        assert_eq!((login.user.as_str(), login.password.reveal()), ("u", b"s3cret".as_slice()));
        assert!(connection.endpoints.tls.files().eq(["cert", "cert", "key"]));
        let shown = format!("{connection:?}");
        assert!(shown.contains("***") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_file_of_secrets_that_everybody_can_read_is_named() {
        let key = std::env::temp_dir().join(format!("carillon-key-{}", std::process::id()));
        let exposed = |mode| {
            std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            let public = Some(PathBuf::from("/"));
            let partial =
                Partial { etcd_key: Some(key.clone()), etcd_ca: public, ..Partial::default() };
            partial.exposed_files().collect::<Vec<_>>()
        };
        std::fs::write(&key, "").unwrap();
        assert_eq!(exposed(0o600), Vec::<String>::new());
        let named = format!("everybody can read {}: chmod 600 keeps it secret", key.display());
        assert_eq!(exposed(0o644), [named]);
        std::fs::remove_file(key).unwrap();
    }

    #[test]
    fn a_wrong_file_is_named() {
        let user = "etcd_user = \"u\"\netcd_password_file =";
        let gone = error(&format!("{user} \"gone\""));
        assert!(gone.starts_with("the etcd password file gone: "), "{gone}");
        let empty = error(&format!("{user} \"empty\""));
        assert_eq!(empty, "the etcd password file empty: it should hold the password on one line");
        let key = error("etcd_cert = \"cert\"\netcd_key = \"pw\"");
        assert_eq!(key, "the etcd key file pw: there is no key in PEM in it");
        assert_eq!(error("etcd_user = \"u\""), "a user for etcd needs a password file");
        assert_eq!(error("etcd_cert = \"cert\""), "a certificate for etcd needs its key");
        assert!(error("etcd = \"http://a\"\netcd_ca = \"cert\"").contains("https://"));
    }
}
