//! Where the programs are: ours beside the running one, the servers in `target/stack/bin`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The root of the checkout this was compiled in.
#[must_use]
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// One of our own programs, of the same profile as the running one.
///
/// # Errors
///
/// When it has not been built.
pub fn own(name: &str) -> Result<PathBuf> {
    let running = env::current_exe().context("cannot tell where the running program is")?;
    // Tests and benchmarks run from deps/, one folder below the programs.
    running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} is not built: run `cargo build --workspace --bins`, or `make test`")
        })
}

/// A program of the stack: from `target/stack/bin`, where `tests/setup` puts it, else from PATH.
///
/// # Errors
///
/// When it is in neither.
pub fn stack(name: &str) -> Result<PathBuf> {
    match find(name) {
        Some(path) => Ok(path),
        None => bail!("{name} is neither in target/stack/bin nor on PATH: run `make setup`"),
    }
}

/// As [`stack`], for one that may be missing.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let installed = root().join("target/stack/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(installed)
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
