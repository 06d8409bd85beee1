//! The read ends of the pipes, read in turns.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use carillon_core::run::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use super::CHUNK_BYTES;

/// The read ends of a run's standard output and standard error.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// In the order in which they are read next: whoever was read last stands behind.
    ends: [(Stream, Option<pipe::Receiver>); 2],
    buffer: Vec<u8>,
}

impl Pipes {
    /// Reads from these two.
    pub(crate) fn new(stdout: pipe::Receiver, stderr: pipe::Receiver) -> Self {
        Self {
            ends: [(Stream::Stdout, Some(stdout)), (Stream::Stderr, Some(stderr))],
            buffer: vec![0; CHUNK_BYTES],
        }
    }

    /// Whether nobody can write any more.
    pub(crate) fn are_closed(&self) -> bool {
        self.ends.iter().all(|(_, end)| end.is_none())
    }

    /// The next bytes of either stream, nothing when one was closed; waits for ever once both are.
    /// Dropped, it has read nothing.
    pub(crate) async fn read(&mut self) -> Option<(Stream, &[u8])> {
        let Self { ends, buffer } = self;
        let (stream, length) = poll_fn(|cx| {
            for (stream, end) in ends.iter_mut() {
                while let Some(pipe) = end {
                    let mut into = ReadBuf::new(buffer);
                    match Pin::new(pipe).poll_read(cx, &mut into) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                            return Poll::Ready(Some((*stream, into.filled().len())));
                        }
                        Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                        Poll::Ready(_) => {
                            *end = None;
                            return Poll::Ready(None);
                        }
                    }
                }
            }
            Poll::Pending
        })
        .await?;
        if ends.first().is_some_and(|(first, _)| *first == stream) {
            ends.reverse();
        }
        Some((stream, buffer.get(..length).unwrap_or_default()))
    }
}
