//! A network that can fail: a TCP proxy between one worker and one server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::stack::free_port;

/// How much is passed on at once, in bytes.
const PIECE: usize = 64 * 1024;
/// How long to wait when the own port cannot be had again at once.
const AGAIN: Duration = Duration::from_millis(20);

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Everything arrives.
    #[default]
    Pass,
    /// Connections are closed and refused, as by a server that is not there.
    Drop,
    /// Connections stay open and are accepted; nothing arrives, in either direction. What was sent
    /// meanwhile arrives when this ends.
    Hang,
    /// Each piece arrives so much later.
    Delay(Duration),
    /// Requests arrive and are carried out, answers do not, and are lost: a connection that missed
    /// one is closed when this ends.
    LoseAnswers,
}

/// A proxy for one server, on a port of its own.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Stands at an address of this machine before the server on this port of 127.0.0.1, and passes
    /// everything on.
    ///
    /// # Errors
    ///
    /// When the machine has no such address, or no port is free.
    pub async fn start(address: Ipv4Addr, server: u16) -> Result<Self> {
        let address = SocketAddr::from((address, free_port()?));
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot use {address}"))?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let task = tokio::spawn(serve(listener, address, server, modes));
        Ok(Self { address, mode, task })
    }

    /// Where to connect to instead of the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the network does this.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections are its own, and end with it.
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    server: u16,
    mut modes: watch::Receiver<Mode>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if *modes.borrow_and_update() == Mode::Drop {
            listener = None;
            connections.shutdown().await;
            if modes.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(listening) = &listener else {
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                sleep(AGAIN).await;
            }
            continue;
        };
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            Ok((client, _)) = listening.accept() => {
                connections.spawn(connect(client, server, modes.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until either side or the network ends it.
async fn connect(client: TcpStream, server: u16, modes: watch::Receiver<Mode>) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server));
    let Ok(server) = TcpStream::connect(address).await else { return };
    // Small requests must not wait for each other.
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, false, modes.clone()) => {}
        () = pass(from_server, to_client, true, modes) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    answers: bool,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; PIECE];
    let mut lost = false;
    loop {
        let mode = *modes.borrow_and_update();
        if mode == Mode::Hang {
            if modes.changed().await.is_err() {
                return;
            }
            continue;
        }
        let read = tokio::select! {
            changed = modes.changed() => {
                if changed.is_err() || lost {
                    return;
                }
                continue;
            }
            read = from.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        let Some(piece) = buffer.get(..count) else { return };
        match mode {
            Mode::LoseAnswers if answers => {
                lost = true;
                continue;
            }
            Mode::Delay(by) => sleep(by).await,
            _ => {}
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that meets something unexpected has failed"
    )]

    use std::io::ErrorKind;

    use tokio::time::{Instant, timeout};

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    /// A server that answers with what it is sent, and tells how many bytes it got.
    async fn echo() -> (u16, watch::Receiver<usize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (got, counted) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let got = got.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 16];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        got.send_modify(|got| *got += count);
                        stream.write_all(&buffer[..count]).await.unwrap();
                    }
                });
            }
        });
        (port, counted)
    }

    async fn client(proxy: &Proxy) -> std::io::Result<TcpStream> {
        TcpStream::connect(proxy.address()).await
    }

    async fn answer(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.read_u8().await
    }

    #[tokio::test]
    async fn what_hangs_arrives_later() {
        let (port, _) = echo().await;
        let proxy = Proxy::start(Ipv4Addr::LOCALHOST, port).await.unwrap();
        let mut stream = client(&proxy).await.unwrap();
        stream.write_u8(1).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), 1);
        proxy.set(Mode::Hang);
        stream.write_u8(2).await.unwrap();
        assert!(timeout(SOON, answer(&mut stream)).await.is_err());
        assert!(client(&proxy).await.is_ok());
        proxy.set(Mode::Pass);
        assert_eq!(answer(&mut stream).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn what_is_dropped_is_closed_and_refused_until_it_passes_again() {
        let (port, _) = echo().await;
        let proxy = Proxy::start(Ipv4Addr::LOCALHOST, port).await.unwrap();
        let mut stream = client(&proxy).await.unwrap();
        stream.write_u8(1).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), 1);
        proxy.set(Mode::Drop);
        assert!(answer(&mut stream).await.is_err());
        assert_eq!(client(&proxy).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        proxy.set(Mode::Pass);
        let until = Instant::now() + SOON;
        let mut stream = loop {
            match client(&proxy).await {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        };
        stream.write_u8(3).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_lost_answer_was_to_a_request_that_arrived() {
        let (port, mut got) = echo().await;
        let proxy = Proxy::start(Ipv4Addr::LOCALHOST, port).await.unwrap();
        let mut stream = client(&proxy).await.unwrap();
        proxy.set(Mode::LoseAnswers);
        stream.write_u8(1).await.unwrap();
        got.wait_for(|got| *got == 1).await.unwrap();
        assert!(timeout(SOON, answer(&mut stream)).await.is_err());
        proxy.set(Mode::Pass);
        assert!(answer(&mut stream).await.is_err(), "the answer came after all");
    }

    #[tokio::test]
    async fn a_delay_is_at_least_as_long_as_it_was_said_to_be() {
        let (port, _) = echo().await;
        let proxy = Proxy::start(Ipv4Addr::LOCALHOST, port).await.unwrap();
        proxy.set(Mode::Delay(SOON));
        let mut stream = client(&proxy).await.unwrap();
        let sent = Instant::now();
        stream.write_u8(1).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), 1);
        assert!(sent.elapsed() >= 2 * SOON);
    }
}
