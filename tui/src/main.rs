//! `carillon`: arguments in, exit code out. Without a subcommand it is the console.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carillon_console::app::{self, AppConfig};
use carillon_console::backend;
use carillon_console::cli::{self, Command, Failure};
use carillon_console::keymap::Keymap;
use carillon_console::model::Setup;
use carillon_console::operator::{Operator, Who};
use carillon_console::theme::{DEFAULT_THEME, Depth, Theme};
use carillon_core::settings::{Connection, MongoUri, Partial};
use clap::Parser;

/// Cron for a fleet, operated from the terminal.
///
/// Without a command the console opens: ? shows its keys.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, about)]
struct Arguments {
    /// etcd endpoints, separated by commas [default: http://127.0.0.1:2379]
    #[arg(long, value_name = "URL,…", env = "CARILLON_ETCD", global = true)]
    etcd: Option<String>,
    /// Whom etcd knows us as, where it asks for users
    #[arg(long, value_name = "USER", env = "CARILLON_ETCD_USER", global = true)]
    etcd_user: Option<String>,
    /// File with that user's password, on one line
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_PASSWORD_FILE", global = true)]
    etcd_password_file: Option<PathBuf>,
    /// File with the authorities to check etcd's certificates against, in PEM
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_CA", global = true)]
    etcd_ca: Option<PathBuf>,
    /// File with our certificate for etcd, in PEM
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_CERT", global = true)]
    etcd_cert: Option<PathBuf>,
    /// File with the key of that certificate, in PEM
    #[arg(long, value_name = "FILE", env = "CARILLON_ETCD_KEY", global = true)]
    etcd_key: Option<PathBuf>,
    /// MongoDB connection string [default: mongodb://127.0.0.1:27017]; put one with a password
    /// into the variable or the file, where `ps` does not show it
    #[arg(long, value_name = "URI", env = "CARILLON_MONGO", hide_env_values = true, global = true)]
    mongo: Option<MongoUri>,
    /// Key prefix in etcd, which names the fleet [default: /cron]
    #[arg(long, env = "CARILLON_PREFIX", global = true)]
    prefix: Option<String>,
    /// Configuration file [default: $XDG_CONFIG_HOME/carillon/config.toml]
    #[arg(long, value_name = "FILE", env = "CARILLON_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Refuse everything that changes the fleet, in the console and in commands
    #[arg(long, global = true)]
    read_only: bool,
    /// The console's theme
    #[arg(long, env = "CARILLON_THEME")]
    theme: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                cli::tell(message);
            }
            ExitCode::from(failure.code())
        }
    }
}

fn start(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments
        .config
        .clone()
        .unwrap_or_else(|| folder("XDG_CONFIG_HOME", ".config").join("config.toml"));
    let state = folder("XDG_STATE_HOME", ".local/state");
    let given = Partial {
        etcd: arguments.etcd,
        mongo: arguments.mongo,
        prefix: arguments.prefix,
        etcd_user: arguments.etcd_user,
        etcd_password_file: arguments.etcd_password_file,
        etcd_ca: arguments.etcd_ca,
        etcd_cert: arguments.etcd_cert,
        etcd_key: arguments.etcd_key,
    };
    let text = read_config(&config, arguments.config.is_some())?;
    let file = Partial::from_toml(&config.display().to_string(), &text)
        .map_err(|e| Failure::Failed(e.to_string()))?;
    let given = given.or(file);
    given.exposed_files().for_each(|exposed| cli::tell(&exposed));
    let connection = given.resolve().map_err(|e| Failure::Failed(e.to_string()))?;
    let who = who();
    let failed = |e: std::io::Error| Failure::Failed(e.to_string());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let result = match arguments.command {
        Some(command) if arguments.read_only && command.writes() => {
            Err(Failure::Failed("--read-only refuses a command that changes the fleet".to_owned()))
        }
        Some(command) => runtime.block_on(cli::execute(command, &connection, who, &config, &state)),
        None => {
            if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
                return Err(Failure::Failed(
                    "the console needs a terminal; `carillon --help` lists the commands for scripts"
                        .to_owned(),
                ));
            }
            let (read_only, theme) = (arguments.read_only, arguments.theme);
            runtime.block_on(console(connection, who, read_only, theme, &config))
        }
    };
    // A request that is still waiting for a store must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn console(
    connection: Connection,
    who: Who,
    read_only: bool,
    theme: Option<String>,
    config: &Path,
) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::Failed(format!("{e:#}"));
    let operator = Operator::connect(&connection, who).await?;
    let var = |name: &str| std::env::var(name).ok();
    let depth = Depth::from_env(var);
    let themes = config.parent().map(|folder| folder.join("themes"));
    let theme = match theme {
        Some(name) => Theme::load(&name, themes.as_deref(), depth).map_err(|e| failed(&e))?,
        None => Theme::load(DEFAULT_THEME, None, depth).map_err(|e| failed(&e))?,
    };
    let setup = Setup {
        etcd: connection.endpoints.join(", "),
        mongo: connection.mongo.to_string(),
        keys: connection.keys,
        read_only,
        theme,
        keymap: Keymap::default(),
    };
    let config = AppConfig { setup, themes, depth, in_tmux: var("TMUX").is_some() };
    let backend = |messages| backend::start(operator, messages);
    app::run(config, backend).await.map_err(|e| failed(&e))
}

fn read_config(path: &Path, named: bool) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => Ok(String::new()),
        Err(e) => Err(Failure::Failed(format!("{}: {e}", path.display()))),
    }
}

/// The program's folder under the one that `variable` names, or under its default in the home.
fn folder(variable: &str, default: &str) -> PathBuf {
    let set = std::env::var_os(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(default);
    set.unwrap_or_else(home).join("carillon")
}

fn who() -> Who {
    let host = nix::unistd::gethostname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned());
    let login = nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten();
    Who::from_environment(|name| std::env::var(name).ok(), host, login.map(|user| user.name))
}
