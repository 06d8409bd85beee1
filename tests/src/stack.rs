//! The two servers: etcd, and one that speaks MongoDB's protocol.
//!
//! `mongod` is used where there is one, as a replica set of one; otherwise SecantusDB, which
//! presents itself as such a set. Ports are free ones on 127.0.0.1 and stay the same when a
//! server is stopped and started again, as does its data.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use carillon_core::etcd::Etcd;
use carillon_core::keys::DEFAULT_PREFIX;
use carillon_core::records::Records;
use carillon_core::settings::Partial;
use etcd_client::{
    Certificate, Client as EtcdClient, ConnectOptions, Identity, Permission, TlsOptions,
};
use mongodb::Client as MongoClient;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::certificates::{Certificates, secret_file};
use crate::process::{Process, Spec};
use crate::programs;

/// How long a server may take until it answers. Far more than it needs: machines are shared.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long a server may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A port that does not answer yet offers no event to wait for, so it is asked this often.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long one question to a starting server may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How a stack is made up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where data and logs go; `None` for a temporary folder that goes with the stack.
    pub folder: Option<PathBuf>,
    /// How many members etcd has: 1 or 3.
    pub etcd_nodes: usize,
    /// Further arguments for every member, such as `--quota-backend-bytes=16777216`.
    pub etcd_arguments: Vec<String>,
    /// Whether etcd speaks TLS and asks its clients for certificates.
    pub tls: bool,
    /// Whether etcd asks for users: see [`Stack::admit`].
    pub auth: bool,
    /// Whether MongoDB takes `configureFailPoint`, which makes it fail.
    pub fail_points: bool,
}

/// The user that may do all, and the one for a fleet, with their passwords.
const ROOT: (&str, &str) = ("root", "opens-all-doors");
const WORKER: (&str, &str) = ("worker", "opens-one-door");
/// The role of [`WORKER`].
const ROLE: &str = "fleet";

impl Default for Options {
    fn default() -> Self {
        Self {
            folder: None,
            etcd_nodes: 1,
            etcd_arguments: Vec::new(),
            tls: false,
            auth: false,
            fail_points: false,
        }
    }
}

/// A running etcd and a running MongoDB-protocol server, both gone when this is dropped.
#[derive(Debug)]
pub struct Stack {
    etcd: Vec<Server>,
    mongo: Server,
    certificates: Option<Certificates>,
    auth: bool,
    folder: PathBuf,
    /// After the servers, so that it is removed when they are gone.
    _temporary: Option<TempDir>,
}

/// One server, running or not, with what it takes to start it again.
#[derive(Debug)]
struct Server {
    kind: Kind,
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    log: PathBuf,
    /// What it speaks TLS with.
    certificates: Option<Certificates>,
    process: Option<Process>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Etcd,
    Mongod,
    Secantus,
}

impl Stack {
    /// Starts one etcd and one MongoDB-protocol server, with data in a temporary folder.
    ///
    /// # Errors
    ///
    /// When a program is missing, or does not answer in time; then with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(&Options::default()).await
    }

    /// As [`start`](Self::start), made up as `options` say.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(options: &Options) -> Result<Self> {
        let mut stack = Self::prepare(options)?;
        stack.launch().await?;
        Ok(stack)
    }

    /// The stack that the tests of one program share. It lives as long as any of them holds it;
    /// each uses a key prefix of its own, see [`fresh_prefix`](Self::fresh_prefix). A test that
    /// stops or pauses a server starts its own.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Stack>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(stack) = shared.upgrade() {
            return Ok(stack);
        }
        let stack = Arc::new(Self::start().await?);
        *shared = Arc::downgrade(&stack);
        Ok(stack)
    }

    /// Everything but the processes, so that what will listen where can be told beforehand.
    ///
    /// # Errors
    ///
    /// When a program is missing, or no port is free.
    pub fn prepare(options: &Options) -> Result<Self> {
        ensure!(options.etcd_nodes > 0, "etcd needs at least one member");
        let (folder, temporary) = if let Some(folder) = &options.folder {
            (folder.clone(), None)
        } else {
            let temporary = temporary_folder()?;
            (temporary.path().to_owned(), Some(temporary))
        };
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let certificates = options.tls.then(|| Certificates::make(&folder)).transpose()?;
        Ok(Self {
            etcd: etcd_servers(&folder, options, certificates.as_ref())?,
            mongo: mongo_server(&folder, options.fail_points)?,
            certificates,
            auth: options.auth,
            folder,
            _temporary: temporary,
        })
    }

    /// Starts the servers of a prepared stack.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn launch(&mut self) -> Result<()> {
        // Members of one etcd wait for each other, so all are spawned before any is awaited.
        for server in self.servers() {
            server.spawn()?;
        }
        for server in self.servers() {
            server.answers().await?;
        }
        if self.auth {
            self.ask_for_users().await?;
        }
        self.make_collections().await
    }

    /// Makes the users and lets etcd ask for them from now on.
    async fn ask_for_users(&self) -> Result<()> {
        secret_file(&self.password_file(), WORKER.1)?;
        let options = client_options(self.certificates.as_ref())?;
        let mut etcd = EtcdClient::connect(self.etcd_member_urls(), Some(options)).await?;
        etcd.role_add(ROOT.0).await?;
        etcd.role_add(ROLE).await?;
        for ((user, password), role) in [(ROOT, ROOT.0), (WORKER, ROLE)] {
            etcd.user_add(user, password, None).await?;
            etcd.user_grant_role(user, role).await?;
        }
        etcd.auth_enable().await.context("cannot let etcd ask for users")?;
        Ok(())
    }

    /// Lets the fleets' user read and write the keys under `prefix`, where etcd asks for users.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub async fn admit(&self, prefix: &str) -> Result<()> {
        let permission = Permission::read_write(format!("{prefix}/")).with_prefix();
        self.etcd().await?.role_grant_permission(ROLE, permission).await?;
        Ok(())
    }

    /// The file with the password of the fleets' user, which is in `--etcd-password-file`.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.folder.join("worker.password")
    }

    /// The password in it, which nobody should see anywhere.
    #[must_use]
    pub fn password(&self) -> &'static str {
        WORKER.1
    }

    /// What a program needs beside `--etcd` to be let in, as settings.
    #[must_use]
    pub fn access(&self) -> Partial {
        let mut access = Partial { etcd: Some(self.etcd_url()), ..Partial::default() };
        if let Some(certificates) = self.certificates.clone() {
            access.etcd_ca = Some(certificates.authority);
            access.etcd_cert = Some(certificates.client.0);
            access.etcd_key = Some(certificates.client.1);
        }
        if self.auth {
            access.etcd_user = Some(WORKER.0.to_owned());
            access.etcd_password_file = Some(self.password_file());
        }
        access
    }

    /// The same as arguments.
    #[must_use]
    pub fn access_arguments(&self) -> Vec<String> {
        let access = self.access();
        let shown = |path: PathBuf| path.to_string_lossy().into_owned();
        [
            ("--etcd-ca", access.etcd_ca.map(shown)),
            ("--etcd-cert", access.etcd_cert.map(shown)),
            ("--etcd-key", access.etcd_key.map(shown)),
            ("--etcd-user", access.etcd_user),
            ("--etcd-password-file", access.etcd_password_file.map(shown)),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some([flag.to_owned(), value?]))
        .flatten()
        .collect()
    }

    /// Etcd as the programs see it, under `prefix`.
    ///
    /// # Errors
    ///
    /// When a file of secrets cannot be read.
    pub async fn connect(&self, prefix: &str) -> Result<Etcd> {
        let settings = Partial { prefix: Some(prefix.to_owned()), ..self.access() };
        let connection = settings.resolve()?;
        Ok(Etcd::connect(&connection.endpoints, connection.keys).await?)
    }

    /// SecantusDB 0.7 hangs for good when one client makes a collection's index while another's
    /// insert makes the collection, as workers on a new database do. So it gets its collections
    /// before there are any.
    async fn make_collections(&self) -> Result<()> {
        if self.mongo.kind == Kind::Secantus {
            let records = Records::connect(&self.mongo_uri(), DEFAULT_PREFIX).await?;
            records.ensure_indexes().await.context("cannot make the collections")?;
        }
        Ok(())
    }

    /// What is where, for a person: `etcd on 127.0.0.1:12345`.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.etcd
            .iter()
            .chain(std::iter::once(&self.mongo))
            .map(|server| format!("{} on 127.0.0.1:{}", server.name, server.port))
            .collect()
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut Server> {
        self.etcd.iter_mut().chain(std::iter::once(&mut self.mongo))
    }

    /// Etcd's address, of all its members separated by commas: what `--etcd` takes.
    #[must_use]
    pub fn etcd_url(&self) -> String {
        self.etcd_member_urls().join(",")
    }

    /// The address of each of etcd's members, running or not.
    #[must_use]
    pub fn etcd_member_urls(&self) -> Vec<String> {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        self.etcd.iter().map(|server| format!("{scheme}://127.0.0.1:{}", server.port)).collect()
    }

    /// MongoDB's address: what `--mongo` takes.
    #[must_use]
    pub fn mongo_uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.mongo.port)
    }

    /// Where data and logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A key prefix that nobody else uses. The database is the same for all, so records are told
    /// apart by their `fleet` field, which is the prefix.
    #[must_use]
    pub fn fresh_prefix(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("/t{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The ports of etcd's members, running or not.
    #[must_use]
    pub fn etcd_ports(&self) -> Vec<u16> {
        self.etcd.iter().map(|server| server.port).collect()
    }

    /// The port of the MongoDB-protocol server.
    #[must_use]
    pub fn mongo_port(&self) -> u16 {
        self.mongo.port
    }

    /// A client of etcd that may do all.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub async fn etcd(&self) -> Result<EtcdClient> {
        let mut options = client_options(self.certificates.as_ref())?;
        if self.auth {
            options = options.with_user(ROOT.0, ROOT.1).with_auto_token_refresh(true);
        }
        EtcdClient::connect(self.etcd_member_urls(), Some(options))
            .await
            .with_context(|| format!("cannot connect to etcd at {}", self.etcd_url()))
    }

    /// A client of the MongoDB-protocol server.
    ///
    /// # Errors
    ///
    /// When its address is refused; whether it answers shows with the first operation.
    pub async fn mongo(&self) -> Result<MongoClient> {
        mongo_client(&self.mongo_uri()).await
    }

    /// Runs the real `etcdctl` and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with its words.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(programs::stack("etcdctl")?)
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", self.etcd_url())
            .envs(self.etcdctl_secrets())
            .args(arguments)
            .output()
            .context("cannot run etcdctl")?;
        ensure!(
            output.status.success(),
            "etcdctl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        String::from_utf8(output.stdout).context("etcdctl printed something that is not UTF-8")
    }

    fn etcdctl_secrets(&self) -> Vec<(&'static str, OsString)> {
        let mut secrets = Vec::new();
        if let Some(Certificates { authority, client: (certificate, key), .. }) = &self.certificates
        {
            secrets.push(("ETCDCTL_CACERT", authority.into()));
            secrets.push(("ETCDCTL_CERT", certificate.into()));
            secrets.push(("ETCDCTL_KEY", key.into()));
        }
        if self.auth {
            secrets.push(("ETCDCTL_USER", format!("{}:{}", ROOT.0, ROOT.1).into()));
        }
        secrets
    }

    /// Stops all of etcd with SIGTERM.
    ///
    /// # Errors
    ///
    /// When a process cannot be ended.
    pub async fn stop_etcd(&mut self) -> Result<()> {
        for server in &mut self.etcd {
            server.stop().await?;
        }
        Ok(())
    }

    /// Starts all of etcd again, on the same ports and data; members that run go on.
    ///
    /// # Errors
    ///
    /// When it does not answer in time.
    pub async fn start_etcd(&mut self) -> Result<()> {
        for server in self.etcd.iter_mut().filter(|server| server.process.is_none()) {
            server.spawn()?;
        }
        for server in &mut self.etcd {
            server.answers().await?;
        }
        Ok(())
    }

    /// Puts a snapshot, made with `etcdctl snapshot save`, in the place of the data of all members,
    /// which must be stopped.
    ///
    /// # Errors
    ///
    /// When a member runs, or etcdctl cannot restore it.
    pub fn restore_etcd(&self, snapshot: &Path) -> Result<()> {
        for server in &self.etcd {
            ensure!(server.process.is_none(), "{} is running", server.name);
            let data = self.folder.join(&server.name);
            fs::remove_dir_all(&data)
                .with_context(|| format!("cannot remove {}", data.display()))?;
            let kept =
                ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls"];
            let is_kept = |argument: &&str| {
                argument.split_once('=').is_some_and(|(option, _)| kept.contains(&option))
            };
            let own = server.arguments.iter().map(String::as_str).filter(is_kept);
            let file = snapshot.to_string_lossy();
            let arguments: Vec<&str> =
                ["snapshot", "restore", &file].into_iter().chain(own).collect();
            self.etcdctl(&arguments)?;
        }
        Ok(())
    }

    /// Freezes all of etcd: connections stay open, nothing answers.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause_etcd(&self) -> Result<()> {
        self.etcd.iter().try_for_each(Server::pause)
    }

    /// Ends a [`pause_etcd`](Self::pause_etcd).
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume_etcd(&self) -> Result<()> {
        self.etcd.iter().try_for_each(|server| server.running()?.resume())
    }

    /// How many members etcd has, running or not.
    #[must_use]
    pub fn members(&self) -> usize {
        self.etcd.len()
    }

    /// Kills one member of etcd with SIGKILL; members count from 0.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn kill_etcd_member(&mut self, member: usize) -> Result<()> {
        let server = self.etcd.get_mut(member).with_context(|| no_member(member))?;
        let mut process =
            server.process.take().with_context(|| format!("{} is not running", server.name))?;
        process.kill().map(drop)
    }

    /// Starts a member again, on the same ports and data, and waits until it is of use: a majority
    /// of the members must run.
    ///
    /// # Errors
    ///
    /// When it is running, or does not answer in time.
    pub async fn start_etcd_member(&mut self, member: usize) -> Result<()> {
        let server = self.etcd.get_mut(member).with_context(|| no_member(member))?;
        server.spawn()?;
        server.answers().await
    }

    /// Freezes one member: its connections stay open, it answers nothing.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause_etcd_member(&self, member: usize) -> Result<()> {
        self.etcd.get(member).with_context(|| no_member(member))?.pause()
    }

    /// Ends a [`pause_etcd_member`](Self::pause_etcd_member).
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume_etcd_member(&self, member: usize) -> Result<()> {
        self.etcd.get(member).with_context(|| no_member(member))?.running()?.resume()
    }

    /// Which member leads, by its own word; waits while none does.
    ///
    /// # Errors
    ///
    /// When no member that answers says that it leads.
    pub async fn etcd_leader(&self) -> Result<usize> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            for (member, url) in self.etcd_member_urls().into_iter().enumerate() {
                if let Ok(Ok(true)) = timeout(ANSWER_LIMIT, self.leads(&url)).await {
                    return Ok(member);
                }
            }
            ensure!(Instant::now() < deadline, "no member of etcd leads after {START_LIMIT:?}");
            sleep(ASK_AGAIN).await;
        }
    }

    async fn leads(&self, url: &str) -> Result<bool> {
        let options = client_options(self.certificates.as_ref())?;
        let mut client = EtcdClient::connect([url], Some(options)).await?;
        let status = client.status().await?;
        let own = status.header().context("etcd answered without a header")?.member_id();
        Ok(status.leader() == own)
    }

    /// Stops the MongoDB-protocol server. `mongod` gets SIGTERM; SecantusDB, which would wait
    /// seconds for its clients, SIGKILL, and loses nothing by it.
    ///
    /// # Errors
    ///
    /// When the process cannot be ended.
    pub async fn stop_mongo(&mut self) -> Result<()> {
        self.mongo.stop().await
    }

    /// Starts the MongoDB-protocol server again, on the same port and data.
    ///
    /// # Errors
    ///
    /// When it does not answer in time.
    pub async fn start_mongo(&mut self) -> Result<()> {
        self.mongo.spawn()?;
        self.mongo.answers().await
    }

    /// Freezes the MongoDB-protocol server: connections stay open, nothing answers.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause_mongo(&self) -> Result<()> {
        self.mongo.pause()
    }

    /// Ends a [`pause_mongo`](Self::pause_mongo).
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume_mongo(&self) -> Result<()> {
        self.mongo.running()?.resume()
    }

    /// The process ids of the running servers.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.etcd
            .iter()
            .chain(std::iter::once(&self.mongo))
            .filter_map(|server| server.process.as_ref().map(Process::pid))
            .collect()
    }
}

impl Server {
    fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} is already running", self.name);
        let spec = Spec::new(&self.program).without_env("ETCD").args(&self.arguments);
        self.process = Some(spec.spawn(&self.log)?);
        Ok(())
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} is not running", self.name))
    }

    /// Freezes it, and waits until the last of its threads has stopped: one that runs on another
    /// processor may answer a little longer.
    fn pause(&self) -> Result<()> {
        let process = self.running()?;
        process.pause()?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        while !all_stopped(process.pid()) {
            ensure!(Instant::now() < deadline, "{} does not freeze", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        if self.kind != Kind::Secantus && process.signal(Signal::TERM).is_ok() {
            process.exited_within(STOP_LIMIT).await?;
        }
        process.kill()?;
        Ok(())
    }

    /// Waits until it answers as a client would ask.
    async fn answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let process =
                self.process.as_mut().with_context(|| format!("{} is not running", self.name))?;
            if let Some(status) = process.try_exit()? {
                let tail = process.log_tail();
                self.process = None;
                bail!("{} did not start ({status})\n{tail}", self.name);
            }
            let question = async {
                match self.kind {
                    Kind::Etcd => ask_etcd(self.port, self.certificates.as_ref()).await,
                    Kind::Mongod => ask_mongod(self.port).await,
                    Kind::Secantus => ask_mongo(self.port, false).await,
                }
            };
            let answer = timeout(ANSWER_LIMIT, question)
                .await
                .unwrap_or_else(|_| Err(anyhow!("no answer within {ANSWER_LIMIT:?}")));
            match answer {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    let tail = self.running()?.log_tail();
                    return Err(error.context(format!(
                        "{} on 127.0.0.1:{} is not ready after {START_LIMIT:?}\n{tail}",
                        self.name, self.port
                    )));
                }
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }
}

/// Whether every thread of a process is stopped, by proc(5).
fn all_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("status"))
            .is_ok_and(|status| status.contains("\nState:\tT"))
    })
}

fn no_member(member: usize) -> String {
    format!("etcd has no member {member}")
}

fn etcd_servers(
    folder: &Path,
    options: &Options,
    certificates: Option<&Certificates>,
) -> Result<Vec<Server>> {
    let count = options.etcd_nodes;
    let mut common = options.etcd_arguments.clone();
    if options.auth {
        // The least that it takes: every worker signs in, and the machines are shared.
        common.push("--bcrypt-cost=4".to_owned());
    }
    if let Some(certificates) = certificates {
        let file = |option: &str, path: &Path| format!("--{option}={}", path.display());
        common.push(file("cert-file", &certificates.server.0));
        common.push(file("key-file", &certificates.server.1));
        common.push(file("trusted-ca-file", &certificates.authority));
        common.push("--client-cert-auth".to_owned());
    }
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let program = programs::stack("etcd")?;
    let mut members = Vec::new();
    for number in 1..=count {
        let name = if count == 1 { "etcd".to_owned() } else { format!("etcd{number}") };
        members.push((name, free_port()?, free_port()?));
    }
    let cluster: Vec<String> =
        members.iter().map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}")).collect();
    let cluster = cluster.join(",");
    Ok(members
        .into_iter()
        .map(|(name, port, peer)| {
            let data = folder.join(&name);
            let client = format!("{scheme}://127.0.0.1:{port}");
            let peer = format!("http://127.0.0.1:{peer}");
            let arguments = [
                ("name", name.as_str()),
                ("data-dir", &data.to_string_lossy()),
                ("listen-client-urls", &client),
                ("advertise-client-urls", &client),
                ("listen-peer-urls", &peer),
                ("initial-advertise-peer-urls", &peer),
                ("initial-cluster", &cluster),
                ("initial-cluster-state", "new"),
            ]
            .into_iter()
            .map(|(option, value)| format!("--{option}={value}"))
            .chain(common.iter().cloned())
            .collect();
            Server {
                kind: Kind::Etcd,
                log: folder.join(format!("{name}.log")),
                program: program.clone(),
                arguments,
                port,
                certificates: certificates.cloned(),
                process: None,
                name,
            }
        })
        .collect())
}

fn mongo_server(folder: &Path, fail_points: bool) -> Result<Server> {
    let data = folder.join("mongo");
    fs::create_dir_all(&data)
        .with_context(|| format!("cannot make the folder {}", data.display()))?;
    let data = data.to_string_lossy().into_owned();
    let port = free_port()?;
    let number = port.to_string();
    let (kind, name, program, mut arguments) = if let Some(program) = programs::find("mongod") {
        let arguments = ["--dbpath", &data, "--port", &number, "--bind_ip", "127.0.0.1"];
        let set = ["--replSet", "carillon", "--oplogSize", "64"];
        (Kind::Mongod, "mongod", program, [arguments.as_slice(), &set].concat())
    } else {
        let program = programs::stack("secantusd-py")?;
        let arguments = ["--storage-path", &data, "--port", &number, "--host", "127.0.0.1"];
        let cache = ["--cache-size", "128M"];
        (Kind::Secantus, "secantusd-py", program, [arguments.as_slice(), &cache].concat())
    };
    if fail_points {
        arguments.extend(match kind {
            Kind::Mongod => &["--setParameter", "enableTestCommands=1"][..],
            _ => &["--enable-test-commands"],
        });
    }
    Ok(Server {
        kind,
        name: name.to_owned(),
        program,
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        port,
        log: folder.join("mongo.log"),
        certificates: None,
        process: None,
    })
}

/// A read that needs a leader, so that etcd is not just up but of use. To be refused for want of a
/// user takes one just as well.
async fn ask_etcd(port: u16, certificates: Option<&Certificates>) -> Result<()> {
    const NO_USER: [i32; 2] = [3, 7];
    let options = client_options(certificates)?;
    let mut client = EtcdClient::connect([format!("127.0.0.1:{port}")], Some(options)).await?;
    match client.get("health", None).await {
        Err(etcd_client::Error::GRpcStatus(status))
            if NO_USER.contains(&i32::from(status.code())) =>
        {
            Ok(())
        }
        answer => Ok(answer.map(drop)?),
    }
}

fn client_options(certificates: Option<&Certificates>) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::new().with_connect_timeout(ANSWER_LIMIT);
    if let Some(Certificates { authority, client: (certificate, key), .. }) = certificates {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(fs::read(authority)?))
            .identity(Identity::from_pem(fs::read(certificate)?, fs::read(key)?));
        options = options.with_tls(tls);
    }
    Ok(options)
}

/// A fresh `mongod` has to be told that it is a replica set.
async fn ask_mongod(port: u16) -> Result<()> {
    const ALREADY_INITIATED: i32 = 23;
    let client =
        mongo_client(&format!("mongodb://127.0.0.1:{port}/?directConnection=true")).await?;
    let members = doc! { "_id": 0, "host": format!("127.0.0.1:{port}") };
    let command = doc! { "replSetInitiate": { "_id": "carillon", "members": [members] } };
    if let Err(error) = client.database("admin").run_command(command).await {
        use mongodb::error::ErrorKind;
        match *error.kind {
            ErrorKind::Command(ref refused) if refused.code == ALREADY_INITIATED => {}
            _ => return Err(error.into()),
        }
    }
    ask_mongo(port, true).await
}

/// Answers when the server can take a write.
async fn ask_mongo(port: u16, direct: bool) -> Result<()> {
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection={direct}");
    let client = mongo_client(&uri).await?;
    let hello: Document = client.database("admin").run_command(doc! { "hello": 1 }).await?;
    ensure!(hello.get_bool("isWritablePrimary").unwrap_or(false), "it is not a primary yet");
    Ok(())
}

async fn mongo_client(uri: &str) -> Result<MongoClient> {
    let mut options =
        ClientOptions::parse(uri).await.with_context(|| format!("{uri} is not an address"))?;
    options.server_selection_timeout = Some(ANSWER_LIMIT);
    options.connect_timeout = Some(ANSWER_LIMIT);
    MongoClient::with_options(options).with_context(|| format!("cannot use {uri}"))
}

/// A port on 127.0.0.1 that nobody listens on, below the range that the system gives to outgoing
/// connections: a client that retries on a stopped server's port could otherwise be given that
/// very port as its own, connect to itself, and keep the server from starting again.
pub(crate) fn free_port() -> Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Processes that start together begin far apart.
    let start = std::process::id().wrapping_mul(7919) % u32::from(COUNT);
    let start = u16::try_from(start).unwrap_or_default();
    for _ in 0..COUNT {
        let offset = start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = FIRST + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free between {FIRST} and {}", FIRST + COUNT)
}

/// A folder of this process, after removing those of processes that were killed before they could.
fn temporary_folder() -> Result<TempDir> {
    const PREFIX: &str = "carillon-test-";
    let parent = std::env::temp_dir();
    if let Ok(entries) = fs::read_dir(&parent) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))
}
