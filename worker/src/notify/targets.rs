//! The file with the targets: where each is, what it is sent, and the secrets for it.
//!
//! An address is a secret too: that of a chat's webhook lets anybody write there. So nothing here is
//! shown but names and the host.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use carillon_core::notice::wrong_name;
use carillon_core::notify::signature::SigningKey;
use carillon_core::notify::template::{Escaping, Template};
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tracing::warn;

use super::http::Trust;

/// The bit of a file's mode that lets everybody read it.
const READABLE_BY_ALL: u32 = 0o004;
const JSON: &str = "application/json";
/// The headers that are ours to set.
const OURS: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Where messages go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    by_name: BTreeMap<String, Arc<Target>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Target {
    pub name: String,
    pub address: Address,
    pub key: Option<SigningKey>,
    /// What goes with each request: its values are marked as secret.
    pub headers: HeaderMap,
    pub content_type: HeaderValue,
    /// `None`: the whole as JSON.
    pub template: Option<Template>,
    pub trust: Trust,
}

/// A URL of which only the host is shown.
#[derive(Clone)]
pub(crate) struct Address {
    pub tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// `Host` as HTTP wants it.
    pub authority: String,
    pub path: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/…", self.authority)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    targets: BTreeMap<String, Described>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    url: Option<String>,
    url_file: Option<PathBuf>,
    url_env: Option<String>,
    secret_file: Option<PathBuf>,
    secret_env: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    content_type: Option<String>,
    template: Option<String>,
    template_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Plain(String),
    File { file: PathBuf },
    Env { env: String },
}

impl Targets {
    /// Reads a file of targets, and what it names. Warns of files with secrets that everybody can
    /// read.
    ///
    /// # Errors
    /// Names every target that cannot be used, and why, without any secret.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        warn_if_exposed(path);
        Self::of(&text, |name| std::env::var(name).ok())
            .with_context(|| format!("cannot use {}", path.display()))
    }

    fn of(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|e| not_toml(text, &e))?;
        let mut by_name = BTreeMap::new();
        let mut wrong = Vec::new();
        for (name, described) in file.targets {
            match described.resolve(&name, &env) {
                Ok(target) => drop(by_name.insert(name, Arc::new(target))),
                Err(e) => wrong.push(format!("target {name}: {e:#}")),
            }
        }
        if !wrong.is_empty() {
            bail!("{}", wrong.join("; "));
        }
        Ok(Self { by_name })
    }

    /// The target of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Target>> {
        self.by_name.get(name).cloned()
    }

    /// All their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Only the place and the reason: the line itself may hold a secret.
fn not_toml(text: &str, e: &toml::de::Error) -> anyhow::Error {
    let line = |at: usize| text.get(..at).map_or(1, |before| 1 + before.matches('\n').count());
    // What a wrong type says shows the value.
    let what = match (e.message().split_once(':'), e.message().rsplit_once(", expected ")) {
        (Some((kind @ ("invalid type" | "invalid value"), _)), Some((_, expected))) => {
            format!("{kind}, expected {expected}")
        }
        _ => e.message().to_owned(),
    };
    match e.span() {
        Some(span) => anyhow!("line {}: {what}", line(span.start)),
        None => anyhow!("{what}"),
    }
}

impl Described {
    fn resolve(self, name: &str, env: &impl Fn(&str) -> Option<String>) -> Result<Target> {
        if let Some(wrong) = wrong_name(name) {
            bail!("{wrong}");
        }
        let url = one_of("url", self.url, self.url_file, self.url_env, env)?
            .context("give url, url_file or url_env")?;
        let address = Address::read(&url)?;
        let secret = one_of("secret", None, self.secret_file, self.secret_env, env)?;
        let key = secret.map(|secret| SigningKey::read(&secret).map_err(anyhow::Error::msg));
        let content_type = self.content_type.unwrap_or_else(|| JSON.to_owned());
        let escaping = if content_type.contains("json") { Escaping::Json } else { Escaping::None };
        let template = match (self.template, self.template_file) {
            (Some(_), Some(_)) => bail!("give template or template_file, not both"),
            (Some(text), None) => Some(text),
            (None, Some(path)) => Some(contents(&path)?),
            (None, None) => None,
        };
        let template = template
            .map(|text| Template::read(&text, escaping).map_err(|e| anyhow!("its template: {e}")));
        if template.is_none() && escaping == Escaping::None {
            bail!("a content_type that is not JSON needs a template");
        }
        Ok(Target {
            name: name.to_owned(),
            address,
            key: key.transpose()?,
            headers: headers(self.headers, env)?,
            content_type: HeaderValue::from_str(&content_type)
                .map_err(|_| anyhow!("its content_type cannot be a header"))?,
            template: template.transpose()?,
            trust: Trust::new(self.ca_file.as_deref())?,
        })
    }
}

fn headers(
    described: BTreeMap<String, Value>,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in described {
        let text = match value {
            Value::Plain(text) => text,
            Value::File { file } => secret(&file)?,
            Value::Env { env: variable } => variable_of(&variable, env)?,
        };
        let header: HeaderName =
            name.parse().map_err(|_| anyhow!("{name:?} cannot name a header"))?;
        if OURS.contains(&header.as_str()) {
            bail!("the header {header} is set by Carillon");
        }
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| anyhow!("the value of the header {header} cannot be one"))?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

/// A value that is given in one of three ways, or not at all.
fn one_of(
    what: &str,
    plain: Option<String>,
    file: Option<PathBuf>,
    variable: Option<String>,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Option<String>> {
    Ok(match (plain, file, variable) {
        (None, None, None) => None,
        (Some(text), None, None) => Some(text),
        (None, Some(path), None) => Some(secret(&path)?),
        (None, None, Some(name)) => Some(variable_of(&name, env)?),
        _ => bail!("give one {what} only"),
    })
}

fn variable_of(name: &str, env: &impl Fn(&str) -> Option<String>) -> Result<String> {
    env(name)
        .filter(|value| !value.is_empty())
        .with_context(|| format!("the environment variable {name} is not set"))
}

/// What stands on the one line of a file.
fn secret(path: &Path) -> Result<String> {
    let text = contents(path)?;
    warn_if_exposed(path);
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains('\n') {
        bail!("{} should hold the secret on one line", path.display());
    }
    Ok(line.to_owned())
}

fn contents(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn warn_if_exposed(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|about| about.mode() & READABLE_BY_ALL != 0) {
        warn!("everybody can read {}: chmod 600 keeps it secret", path.display());
    }
}

impl Address {
    /// Reads a URL; errors show none of it.
    fn read(url: &str) -> Result<Self> {
        let uri: Uri = url.trim().parse().map_err(|_| anyhow!("its url is not one"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("its url should begin with https:// or http://"),
        };
        let authority = uri.authority().context("its url has no host")?;
        if authority.as_str().contains('@') {
            bail!("its url has a user in it: give a header Authorization instead");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            bail!("its url has no host");
        }
        Ok(Self {
            tls,
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn read(text: &str) -> Result<Targets> {
        Targets::of(text, |name| (name == "TOKEN").then(|| "s3cret".to_owned()))
    }

    fn error(text: &str) -> String {
        format!("{:#}", read(text).unwrap_err())
    }

    #[test]
    fn targets_are_read_with_their_secrets_and_show_none() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "s3cret\n").unwrap();
        let text = format!(
            r#"
            [targets.pager]
            url = "https://hooks.example.com:8443/s3cret?x=1"
            secret_file = "{0}"
            headers = {{ Authorization = {{ file = "{0}" }}, X-Team = "pay", X-Key = {{ env = "TOKEN" }} }}
            [targets.chat]
            url_env = "URL"
            template = '{{"text": "{{{{text}}}}"}}'
            "#,
            file.display()
        );
        let env = |name: &str| match name {
            "TOKEN" => Some("s3cret".to_owned()),
            "URL" => Some("http://[::1]:80/s3cret".to_owned()),
            _ => None,
        };
        let targets = Targets::of(&text, env).unwrap();
        assert!(targets.names().eq(["chat", "pager"]));
        let pager = targets.get("pager").unwrap();
        assert_eq!((pager.address.port, pager.address.path.as_str()), (8443, "/s3cret?x=1"));
        assert_eq!(pager.headers.get("authorization").unwrap(), "s3cret");
        assert_eq!(pager.headers.get("x-key").unwrap(), "s3cret");
        let chat = targets.get("chat").unwrap();
        assert_eq!((chat.address.host.as_str(), chat.address.tls), ("::1", false));
        let shown = format!("{targets:?}");
        assert!(shown.contains("hooks.example.com") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn every_wrong_target_is_named_without_its_secrets() {
        let all = error(
            r#"
            [targets.a]
            url = "ftp://s3cret"
            [targets.b]
            url = "https://u:s3cret@host/"
            [targets.c]
            [targets.d]
            url = "https://host/"
            secret_env = "NONE"
            [targets.e]
            url = "https://host/"
            template = '{"text": "{{nope}}"}'
            [targets.f]
            url = "https://host/"
            content_type = "text/plain"
            [targets.g]
            url = "https://host/"
            headers = { Host = "x" }
            [targets."h i"]
            url = "https://host/"
            "#,
        );
        for part in [
            "target a: its url should begin with https://",
            "target b: its url has a user in it",
            "target c: give url, url_file or url_env",
            "target d: the environment variable NONE is not set",
            "target e: its template: {{nope}} is not known",
            "target f: a content_type that is not JSON needs a template",
            "target g: the header host is set by Carillon",
            "target h i: \"h i\" cannot name a target",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
        assert!(!all.contains("s3cret"), "{all}");
        let torn = error("\n[targets.a]\nurl = \"s3cret");
        assert!(torn.starts_with("line 3: ") && !torn.contains("s3cret"), "{torn}");
        let unknown = error("[targets.a]\nurl = \"https://h\"\nsecret = \"s3cret\"");
        assert!(unknown.contains("unknown field `secret`"), "{unknown}");
        assert!(!unknown.contains("s3cret"), "{unknown}");
        let typed = error("[targets.a]\nurl = \"https://h\"\nheaders = \"s3cret\"");
        assert_eq!(typed, "line 3: invalid type, expected a map");
    }
}
