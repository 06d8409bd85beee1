//! A receiver of webhooks: it keeps what it is sent and answers as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificates;

/// Long enough for anything that works, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(40);

/// One request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST /hook HTTP/1.1`.
    pub line: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Request {
    /// The value of a header, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What is done with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An answer with this status, and with this header where it is not empty.
    Status(u16, String),
    /// None, until the receiver goes.
    Hang,
}

/// Listens on a port of 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    seen: watch::Receiver<Vec<Request>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// One on a free port.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        Self::on(0).await
    }

    /// One on this port.
    ///
    /// # Errors
    ///
    /// When it is taken.
    pub async fn on(port: u16) -> Result<Self> {
        Self::listen(port, None).await
    }

    /// One on a free port that speaks TLS, with the server's certificate of these.
    ///
    /// # Errors
    ///
    /// When the certificate cannot be used.
    pub async fn start_with_tls(certificates: &Certificates) -> Result<Self> {
        let (chain, key) = &certificates.server;
        let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Self::listen(0, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(port: u16, tls: Option<TlsAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on port {port}"))?;
        let port = listener.local_addr()?.port();
        let (see, seen) = watch::channel(Vec::new());
        let replies: Arc<Mutex<VecDeque<Reply>>> = Arc::default();
        let task = tokio::spawn(serve(listener, tls, Arc::new(see), Arc::clone(&replies)));
        Ok(Self { port, seen, replies, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The replies to the next requests; all further ones are answered with 200.
    pub fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).extend(replies);
    }

    /// What it was sent until now.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.seen.borrow().clone()
    }

    /// Waits until it was sent so many requests.
    ///
    /// # Errors
    ///
    /// When they do not come in time; then with those that came.
    pub async fn received(&self, count: usize) -> Result<Vec<Request>> {
        let mut seen = self.seen.clone();
        let enough = seen.wait_for(|requests| requests.len() >= count);
        if let Ok(Ok(requests)) = timeout(PATIENCE, enough).await {
            return Ok(requests.clone());
        }
        let came = self.requests();
        Err(anyhow!("not {count} requests within {PATIENCE:?}, but {}: {came:#?}", came.len()))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    see: Arc<watch::Sender<Vec<Request>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
) {
    // Whatever is under way ends with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (see, replies, tls) = (Arc::clone(&see), Arc::clone(&replies), tls.clone());
        connections.spawn(async move {
            match tls {
                None => attend(stream, &see, &replies).await.ok(),
                Some(tls) => attend(tls.accept(stream).await.ok()?, &see, &replies).await.ok(),
            }
        });
    }
}

async fn attend(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    see: &watch::Sender<Vec<Request>>,
    replies: &Mutex<VecDeque<Reply>>,
) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let reply = replies.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let request = Request { line: line.trim_end().to_owned(), headers, body };
    see.send_modify(|requests| requests.push(request));
    let (status, header) = match reply {
        Some(Reply::Hang) => return std::future::pending().await,
        Some(Reply::Status(status, header)) => (status, header),
        None => (200, String::new()),
    };
    let header = if header.is_empty() { header } else { format!("{header}\r\n") };
    let answer = format!("HTTP/1.1 {status} So\r\n{header}content-length: 3\r\n\r\nso\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
