//! One request and its answer, bounded in time and size. Redirects are not followed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::targets::{Address, Target};

/// How long one request may take, from the look-up of the name to the answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long the body of an answer may take.
const BODY_LIMIT: Duration = Duration::from_secs(1);
/// The most of an answer that is read, in bytes. Nobody but a person reads it.
const ANSWER_BYTES: usize = 16 * 1024;
const AGENT: &str = concat!("carillon/", env!("CARGO_PKG_VERSION"));

/// The authorities that a receiver's certificate is checked against.
#[derive(Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// Those in a file in PEM, or the usual ones.
    ///
    /// # Errors
    /// A file that has none in it, by its name.
    pub fn new(file: Option<&Path>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        match file {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                let shown = path.display();
                let all = CertificateDer::pem_file_iter(path)
                    .map_err(|e| anyhow!("cannot read {shown}: {e}"))?;
                for authority in all {
                    let authority = authority.map_err(|e| anyhow!("{shown}: {e}"))?;
                    roots.add(authority).with_context(|| format!("cannot use {shown}"))?;
                }
                if roots.is_empty() {
                    bail!("there is no certificate in PEM in {shown}");
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// What a receiver answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of its body.
    pub body: String,
}

/// Sends one message.
///
/// # Errors
/// When no answer came in time. The error names the host at most.
pub(crate) async fn post(target: &Target, headers: HeaderMap, body: String) -> Result<Answer> {
    let exchange = async {
        let Address { host, port, tls, .. } = &target.address;
        let stream = TcpStream::connect((host.as_str(), *port))
            .await
            .with_context(|| format!("cannot connect to {host}:{port}"))?;
        if !tls {
            return exchange(stream, target, headers, body).await;
        }
        let name = ServerName::try_from(host.clone())
            .map_err(|_| anyhow!("{host} cannot be in a certificate"))?;
        let stream = TlsConnector::from(target.trust.0.clone())
            .connect(name, stream)
            .await
            .with_context(|| format!("no TLS with {host}"))?;
        exchange(stream, target, headers, body).await
    };
    match timeout(REQUEST_LIMIT, exchange).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", REQUEST_LIMIT.as_secs()),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
    headers: HeaderMap,
    body: String,
) -> Result<Answer> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(ANSWER_BYTES).handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.address.path.parse().map_err(|_| anyhow!("its path is not one"))?;
    let all = request.headers_mut();
    all.extend(headers);
    all.extend(target.headers.clone());
    all.insert(HOST, HeaderValue::from_str(&target.address.authority)?);
    all.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    all.insert(CONTENT_TYPE, target.content_type.clone());
    let answered = async {
        let answer = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let seconds = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        // A body that is too long, too slow or breaks off changes nothing about the status.
        let body = timeout(BODY_LIMIT, Limited::new(body, ANSWER_BYTES).collect()).await;
        let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
        Ok(Answer {
            status: head.status,
            retry_after: seconds.map(Duration::from_secs),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    // The connection does its work beside the request, and ends with it.
    tokio::pin!(connection, answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended?;
            answered.await
        }
    }
}
