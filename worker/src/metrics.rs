//! What this worker tells Prometheus, and the small HTTP server that tells it.
//!
//! Telling costs a firing nothing that can be measured: numbers are added up in memory, no lock is
//! held across an await, and what a scrape asks for is written by a task of its own. Nothing is
//! decided from these numbers.
//!
//! `/metrics` answers in the OpenMetrics text format, `/healthz` whether this worker does its part.
//! There is no encryption and no password: the address belongs on a network that is trusted.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use carillon_core::claims::Refusal;
use carillon_core::id::WorkerId;
use carillon_core::run::Outcome;
use chrono::TimeDelta;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::claim::Decision;

/// Upper bounds of the lateness buckets, seconds.
const LATENESS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds of the claim buckets, seconds: from a local etcd to one that is lost.
const CLAIM: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Upper bounds of the buckets for the steps in one transaction.
const STEPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0];
/// Connections at once, a scraper's and a few probes'; more wait for their turn.
const CONNECTIONS: usize = 8;
/// How long one connection may take, from the first byte to the last.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
/// The most that a request may be, bytes: the least that hyper allows.
const REQUEST_BYTES: usize = 8 * 1024;
/// How many headers a request may have.
const HEADERS: usize = 32;
/// After a connection could not be accepted, for want of file descriptors mostly.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The worker's numbers. Cheap to clone; all clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    numbers: Arc<Numbers>,
}

/// Counters by the value of one label.
type ByLabel = Family<[(&'static str, &'static str); 1], Counter>;

/// Counters by a target's name.
type ByTarget = Family<[(&'static str, String); 1], Counter>;

struct Numbers {
    registry: Registry,
    told: ByTarget,
    not_told: ByTarget,
    given_up: Counter,
    to_tell: Gauge,
    decisions: ByLabel,
    ended: ByLabel,
    refusals: ByLabel,
    lateness: Histogram,
    claim: Histogram,
    steps: Histogram,
    transactions: Counter,
    etcd_retries: Counter,
    etcd_used: Gauge,
    lease_losses: Counter,
    running: Gauge,
    capacity: Gauge,
    jobs: Gauge,
    applied_revision: Gauge,
    skew: Gauge<f64, AtomicU64>,
    draining: Gauge,
    registered: Gauge,
    standing_by: Gauge,
    mongo_away: Gauge,
    spool: Gauge,
    output_dropped: Counter,
    /// Why it claims nothing although it is registered.
    reason: watch::Sender<Option<String>>,
}

impl Metrics {
    /// All at zero, not registered.
    pub fn new(worker: &WorkerId) -> Self {
        let labels = [("worker".into(), worker.to_string().into())];
        let registry = Registry::with_prefix_and_labels("carillon_worker", labels.into_iter());
        let mut numbers = Numbers {
            registry,
            told: ByTarget::default(),
            not_told: ByTarget::default(),
            given_up: Counter::default(),
            to_tell: Gauge::default(),
            decisions: ByLabel::default(),
            ended: ByLabel::default(),
            refusals: ByLabel::default(),
            lateness: Histogram::new(LATENESS),
            claim: Histogram::new(CLAIM),
            steps: Histogram::new(STEPS),
            transactions: Counter::default(),
            etcd_retries: Counter::default(),
            etcd_used: Gauge::default(),
            lease_losses: Counter::default(),
            running: Gauge::default(),
            capacity: Gauge::default(),
            jobs: Gauge::default(),
            applied_revision: Gauge::default(),
            skew: Gauge::default(),
            draining: Gauge::default(),
            registered: Gauge::default(),
            standing_by: Gauge::default(),
            mongo_away: Gauge::default(),
            spool: Gauge::default(),
            output_dropped: Counter::default(),
            reason: watch::Sender::new(None),
        };
        numbers.register();
        Self { numbers: Arc::new(numbers) }
    }

    /// The worker decided this about `slots` slots: one, or those of a gap; 1 for a rebase.
    pub fn decided(&self, decision: Decision, slots: usize) {
        let labels = [("decision", decision.as_str())];
        self.numbers.decisions.get_or_create(&labels).inc_by(slots.try_into().unwrap_or(u64::MAX));
    }

    /// A process was started so long after its slot was due.
    pub fn started(&self, lateness: TimeDelta) {
        self.numbers.lateness.observe(lateness.as_seconds_f64().max(0.0));
    }

    /// A run of this worker ended.
    pub fn ended(&self, outcome: Outcome) {
        self.numbers.ended.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// etcd answered a transaction with so many steps, so long after it was sent.
    pub fn answered(&self, latency: Duration, steps: usize) {
        self.numbers.claim.observe(latency.as_secs_f64());
        self.numbers.steps.observe(f64::from(u32::try_from(steps).unwrap_or(u32::MAX)));
        self.numbers.transactions.inc();
    }

    /// A predicate of a step did not hold.
    pub fn refused(&self, why: Refusal) {
        self.numbers.refusals.get_or_create(&[("reason", why.as_str())]).inc();
    }

    /// So many runs are live.
    pub fn running(&self, runs: usize) {
        self.numbers.running.set(number(runs));
    }

    /// So many runs are taken at once.
    pub fn capacity(&self, runs: usize) {
        self.numbers.capacity.set(number(runs));
    }

    /// So many jobs are known.
    pub fn jobs(&self, jobs: usize) {
        self.numbers.jobs.set(number(jobs));
    }

    /// The watch has reached this revision.
    pub fn applied_revision(&self, revision: i64) {
        self.numbers.applied_revision.set(revision);
    }

    /// Our clock minus the median of all.
    pub fn skew(&self, by: TimeDelta) {
        self.numbers.skew.set(by.as_seconds_f64());
    }

    /// So many requests to etcd were sent again, since the start.
    pub fn etcd_retries(&self, total: u64) {
        self.numbers.etcd_retries.inner().fetch_max(total, Ordering::Relaxed);
    }

    /// So many bytes of etcd's quota are in use.
    pub fn etcd_used(&self, bytes: u64) {
        self.numbers.etcd_used.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The lease was lost while registered.
    pub fn lease_lost(&self) {
        self.numbers.lease_losses.inc();
    }

    /// Whether nothing new is taken. A draining worker is healthy.
    pub fn draining(&self, draining: bool) {
        self.numbers.draining.set(draining.into());
    }

    /// Whether the worker is registered under a live lease.
    pub fn registered(&self, registered: bool) {
        self.numbers.registered.set(registered.into());
    }

    /// So many bytes wait on disk for MongoDB, which does not answer at all where it is `away`.
    pub fn spool(&self, bytes: u64, away: bool) {
        self.numbers.spool.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.numbers.mongo_away.set(away.into());
    }

    /// So many bytes of output found no room on disk while MongoDB was away.
    pub fn output_dropped(&self, bytes: u64) {
        self.numbers.output_dropped.inc_by(bytes);
    }

    /// Why it claims nothing although it is registered; `None` where all is well.
    pub fn standing_by(&self, reason: Option<&str>) {
        self.numbers.standing_by.set(reason.is_some().into());
        self.numbers.reason.send_if_modified(|held| {
            let changed = held.as_deref() != reason;
            if changed {
                *held = reason.map(str::to_owned);
            }
            changed
        });
    }

    /// A target of notifications is known: its numbers are there from the start.
    pub fn target(&self, name: &str) {
        drop(self.numbers.told.get_or_create(&[("target", name.to_owned())]));
        drop(self.numbers.not_told.get_or_create(&[("target", name.to_owned())]));
    }

    /// A target took a notification.
    pub fn told(&self, target: &str) {
        self.numbers.told.get_or_create(&[("target", target.to_owned())]).inc();
    }

    /// A target did not take a notification, which is tried again.
    pub fn not_told(&self, target: &str) {
        self.numbers.not_told.get_or_create(&[("target", target.to_owned())]).inc();
    }

    /// A notification was not told in time.
    pub fn given_up(&self) {
        self.numbers.given_up.inc();
    }

    /// So many notifications of the whole fleet are still to be told.
    pub fn pending(&self, notifications: u64) {
        self.numbers.to_tell.set(i64::try_from(notifications).unwrap_or(i64::MAX));
    }

    /// Whether this worker does its part; else why not.
    fn health(&self) -> Result<(), String> {
        if self.numbers.registered.get() == 0 {
            return Err("not registered in etcd".to_owned());
        }
        match &*self.numbers.reason.borrow() {
            Some(reason) => Err(format!("standing by: {reason}")),
            None => Ok(()),
        }
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.numbers.registry)?;
        Ok(text)
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return answer;
        }
        match request.uri().path() {
            "/metrics" => match self.text() {
                Ok(text) => response(StatusCode::OK, OPEN_METRICS, text),
                Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
            },
            "/healthz" => match self.health() {
                Ok(()) => plain(StatusCode::OK, "ok"),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
            },
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics and /healthz"),
        }
    }
}

impl Numbers {
    /// Gives every number its name; each value of a label is there from the start.
    fn register(&mut self) {
        for decision in Decision::ALL {
            drop(self.decisions.get_or_create(&[("decision", decision.as_str())]));
        }
        for outcome in Outcome::ALL.into_iter().filter(|o| o.is_final()) {
            drop(self.ended.get_or_create(&[("outcome", outcome.as_str())]));
        }
        for why in Refusal::ALL {
            drop(self.refusals.get_or_create(&[("reason", why.as_str())]));
        }
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let r = &mut self.registry;
        r.register("build", "The program", version);
        let about = "Slots this worker decided, by what became of them";
        r.register("decisions", about, self.decisions.clone());
        r.register("runs_ended", "Runs of this worker that ended", self.ended.clone());
        let about = "Steps that etcd refused, by the predicate that did not hold";
        r.register("refusals", about, self.refusals.clone());
        let about = "From when a slot was due to the start of its process";
        r.register_with_unit("start_lateness", about, Unit::Seconds, self.lateness.clone());
        let about = "From sending a transaction to etcd's answer";
        r.register_with_unit("claim", about, Unit::Seconds, self.claim.clone());
        r.register("claim_steps", "Steps in one transaction", self.steps.clone());
        r.register("claim_transactions", "Transactions answered", self.transactions.clone());
        r.register("etcd_retries", "Requests to etcd sent again", self.etcd_retries.clone());
        let about = "etcd's space in use, as last asked";
        r.register_with_unit("etcd_used", about, Unit::Bytes, self.etcd_used.clone());
        r.register("lease_losses", "Leases lost while registered", self.lease_losses.clone());
        r.register("running", "Live runs of this worker", self.running.clone());
        r.register("capacity", "Runs this worker takes at once", self.capacity.clone());
        r.register("jobs", "Jobs this worker knows", self.jobs.clone());
        let about = "The etcd revision that the watch has reached";
        r.register("applied_revision", about, self.applied_revision.clone());
        let about = "This worker's clock minus the median of all clocks it knows";
        r.register_with_unit("clock_skew", about, Unit::Seconds, self.skew.clone());
        r.register("draining", "1 while nothing new is taken", self.draining.clone());
        r.register("registered", "1 while registered in etcd", self.registered.clone());
        let about = "1 while nothing is claimed although registered: /healthz says why";
        r.register("standing_by", about, self.standing_by.clone());
        r.register("mongo_away", "1 while MongoDB does not answer", self.mongo_away.clone());
        let about = "Results that wait on disk for MongoDB";
        r.register_with_unit("spool", about, Unit::Bytes, self.spool.clone());
        let about = "Output that found no room on disk while MongoDB was away";
        r.register_with_unit("output_dropped", about, Unit::Bytes, self.output_dropped.clone());
        let about = "Notifications that a target took";
        r.register("notifications_sent", about, self.told.clone());
        let about = "Tries at a notification that failed; each is tried again";
        r.register("notifications_failed", about, self.not_told.clone());
        let about = "Notifications that were given up after a day";
        r.register("notifications_given_up", about, self.given_up.clone());
        let about = "Notifications of the fleet that are still to be sent, as last counted";
        r.register("notifications_pending", about, self.to_tell.clone());
    }
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, PLAIN, format!("{text}\n"))
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The address at which the numbers are told.
pub(crate) struct Desk {
    listener: TcpListener,
}

impl Desk {
    /// Listens on `HOST:PORT`.
    ///
    /// # Errors
    /// Names the address, and why it cannot be listened on.
    pub async fn open(address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot serve metrics on {address} (give another --metrics-addr HOST:PORT)")
        })?;
        Ok(Self { listener })
    }

    /// Where it listens: the port, if that was left to the system.
    ///
    /// # Errors
    /// None that is known.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers, for as long as it is polled.
    pub async fn serve(self, metrics: Metrics) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut told = false;
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let metrics = metrics.clone();
                    tokio::spawn(async move {
                        attend(stream, &metrics).await;
                        drop(place);
                    });
                }
                Err(e) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!("a connection for metrics could not be accepted: {e}");
                    }
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// One connection: one request, one answer.
async fn attend(stream: TcpStream, metrics: &Metrics) {
    let answer = service_fn(|request: Request<Incoming>| {
        std::future::ready(Ok::<_, Infallible>(metrics.answer(&request)))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(REQUEST_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION_LIMIT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => debug!("a request for metrics: {e}"),
        Err(_) => debug!("a connection for metrics took longer than {CONNECTION_LIMIT:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&WorkerId::new("w1").unwrap())
    }

    #[track_caller]
    fn says(metrics: &Metrics, line: &str) {
        let text = metrics.text().unwrap();
        let with_worker = match line.split_once(['{', ' ']) {
            Some((name, rest)) if line.contains('{') => {
                format!("carillon_worker_{name}{{worker=\"w1\",{rest}")
            }
            Some((name, rest)) => format!("carillon_worker_{name}{{worker=\"w1\"}} {rest}"),
            None => panic!("{line} has no value"),
        };
        assert!(text.lines().any(|l| l == with_worker), "{with_worker} is not in\n{text}");
    }

    #[test]
    fn what_is_told_is_counted() {
        let m = metrics();
        m.decided(Decision::Run, 1);
        m.decided(Decision::Run, 1);
        m.decided(Decision::Missed, 179);
        m.started(TimeDelta::milliseconds(3));
        m.started(TimeDelta::seconds(-1));
        m.started(TimeDelta::hours(1));
        m.ended(Outcome::Succeeded);
        m.answered(Duration::from_millis(2), 32);
        m.answered(Duration::from_millis(2), 1);
        m.refused(Refusal::CursorMoved);
        m.lease_lost();
        // Of the same total, told twice and once too late.
        for total in [5, 7, 6] {
            m.etcd_retries(total);
        }
        for line in [
            r#"build_info{version="0.1.0"} 1"#,
            r#"decisions_total{decision="run"} 2"#,
            r#"decisions_total{decision="missed"} 179"#,
            r#"decisions_total{decision="rebased"} 0"#,
            r#"start_lateness_seconds_bucket{le="0.001"} 1"#,
            r#"start_lateness_seconds_bucket{le="0.005"} 2"#,
            r#"start_lateness_seconds_bucket{le="60.0"} 2"#,
            r#"start_lateness_seconds_bucket{le="+Inf"} 3"#,
            "start_lateness_seconds_sum 3600.003",
            r#"runs_ended_total{outcome="succeeded"} 1"#,
            "claim_seconds_count 2",
            r#"claim_steps_bucket{le="1.0"} 1"#,
            "claim_steps_sum 33.0",
            "claim_transactions_total 2",
            r#"refusals_total{reason="cursorMoved"} 1"#,
            "lease_losses_total 1",
            "etcd_retries_total 7",
        ] {
            says(&m, line);
        }
    }

    #[test]
    fn what_stands_is_shown_as_it_stands() {
        let m = metrics();
        m.clone().running(3);
        m.running(2);
        m.capacity(64);
        m.jobs(10_000);
        m.applied_revision(77);
        m.skew(TimeDelta::milliseconds(-1500));
        m.draining(true);
        m.target("chat");
        m.told("pager");
        m.not_told("pager");
        m.given_up();
        m.pending(7);
        for line in [
            r#"notifications_sent_total{target="chat"} 0"#,
            r#"notifications_sent_total{target="pager"} 1"#,
            r#"notifications_failed_total{target="pager"} 1"#,
            "notifications_given_up_total 1",
            "notifications_pending 7",
            "running 2",
            "capacity 64",
            "jobs 10000",
            "applied_revision 77",
            "clock_skew_seconds -1.5",
            "draining 1",
            "registered 0",
            "standing_by 0",
        ] {
            says(&m, line);
        }
    }

    #[test]
    fn a_name_with_quotes_stays_one_label() {
        let m = Metrics::new(&WorkerId::new(r#"a"b\c"#).unwrap());
        let text = m.text().unwrap();
        assert!(text.contains(r#"carillon_worker_running{worker="a\"b\\c"} 0"#), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_worker_is_healthy_while_registered_and_not_standing_by() {
        let m = metrics();
        assert_eq!(m.health(), Err("not registered in etcd".to_owned()));
        m.registered(true);
        assert_eq!(m.health(), Ok(()));
        m.draining(true);
        assert_eq!(m.health(), Ok(()));
        m.standing_by(Some("the fleet is frozen"));
        assert_eq!(m.health(), Err("standing by: the fleet is frozen".to_owned()));
        says(&m, "standing_by 1");
        m.standing_by(None);
        assert_eq!(m.health(), Ok(()));
        m.registered(false);
        assert!(m.health().is_err());
    }

    async fn open() -> (Metrics, SocketAddr) {
        let desk = Desk::open("127.0.0.1:0").await.unwrap();
        let address = desk.address().unwrap();
        let metrics = metrics();
        tokio::spawn(desk.serve(metrics.clone()));
        (metrics, address)
    }

    /// Sends a request as it is and reads to the end.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // One that is refused half-way is closed while we write.
        stream.write_all(request.as_bytes()).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: w1\r\n\r\n")).await
    }

    #[tokio::test]
    async fn metrics_and_health_are_served() {
        let (metrics, address) = open().await;
        metrics.jobs(3);
        let answer = get(address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(answer.contains("\ncarillon_worker_jobs{worker=\"w1\"} 3\n"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");

        let answer = get(address, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nnot registered in etcd\n"), "{answer}");
        metrics.registered(true);
        let answer = get(address, "/healthz?verbose").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        let (_metrics, address) = open().await;
        for path in ["/", "/metrics/", "/../etc/passwd"] {
            let answer = get(address, path).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        }
        for method in ["POST", "HEAD", "DELETE"] {
            let answer =
                ask(address, &format!("{method} /metrics HTTP/1.1\r\nHost: w\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
            assert!(answer.contains("\r\nallow: GET\r\n"), "{answer}");
        }
        let long = "x".repeat(REQUEST_BYTES);
        let request = format!("GET /metrics HTTP/1.1\r\nHost: w\r\nX: {long}\r\n\r\n");
        assert!(!ask(address, &request).await.contains(" 200 "), "a long header is refused");
        let many = "X: y\r\n".repeat(HEADERS);
        let request = format!("GET /metrics HTTP/1.1\r\nHost: w\r\n{many}\r\n");
        assert!(!ask(address, &request).await.contains(" 200 "), "many headers are refused");
        assert!(!ask(address, "nonsense\r\n\r\n").await.contains(" 200 "));
        assert!(get(address, "/metrics").await.contains(" 200 "), "it goes on");
    }

    #[tokio::test]
    async fn those_who_say_nothing_do_not_keep_others_out_for_long() {
        let (_metrics, address) = open().await;
        let begun = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(get(address, "/metrics").await.contains(" 200 "));
        assert!(begun.elapsed() >= CONNECTION_LIMIT, "more than {CONNECTIONS} at once");
    }

    #[tokio::test]
    async fn an_address_that_is_taken_or_none_is_named() {
        let (_metrics, address) = open().await;
        for address in [address.to_string(), "9090".to_owned()] {
            let error = Desk::open(&address).await.err().unwrap();
            let shown = format!("{error:#}");
            assert!(shown.starts_with(&format!("cannot serve metrics on {address} ")), "{shown}");
        }
    }
}
