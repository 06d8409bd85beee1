//! A machine of its own, as far as the network goes: a namespace at the end of a cable that can be
//! pulled. Unlike a [`proxy`](crate::proxy) nobody closes a connection then: what is sent is gone.

use std::net::Ipv4Addr;
use std::process::{Command, id};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

/// Each namespace has a network of its own: `10.213.N.0/24`.
static NUMBER: AtomicU8 = AtomicU8::new(1);

/// Dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    number: u8,
    /// Of the namespace, and of the cable's end outside: at most 15 characters.
    name: String,
}

impl Namespace {
    /// Makes one; `None` where that takes rights or programs that are not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made although it should.
    pub fn make() -> Result<Option<Self>> {
        if !geteuid().is_root() || ip("netns").is_err() {
            return Ok(None);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("carn{}-{number}", id() % 1_000_000);
        ip(&format!("netns add {name}"))?;
        // From here on it is removed whatever happens.
        let made = Self { number, name };
        let (name, inside) = (&made.name, format!("netns exec {} ip", made.name));
        ip(&format!("link add {name} type veth peer name cable netns {name}"))?;
        ip(&format!("address add {}/24 dev {name}", made.outside()))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("{inside} address add 10.213.{number}.2/24 dev cable"))?;
        ip(&format!("{inside} link set cable up"))?;
        ip(&format!("{inside} link set lo up"))?;
        Ok(Some(made))
    }

    /// The address of this machine, seen from inside.
    #[must_use]
    pub fn outside(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// What runs a program inside, before its own words.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    /// Pulls the cable.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub fn pull(&self) -> Result<()> {
        ip(&format!("link set {} down", self.name))
    }

    /// Plugs it in again.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub fn plug(&self) -> Result<()> {
        ip(&format!("link set {} up", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // With processes in it, it goes when they have ended.
        ip(&format!("link delete {}", self.name)).ok();
        ip(&format!("netns delete {}", self.name)).ok();
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.with_context(|| format!("cannot run ip {arguments}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", told.trim());
    Ok(())
}
