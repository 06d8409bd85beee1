//! The end of the output, past what the job's limit allows.

use std::collections::VecDeque;

use carillon_core::run::Stream;
use chrono::{DateTime, Utc};

use super::CHUNK_BYTES;

/// The most pieces that the tail may be in: two streams taking turns make tiny ones.
const TAIL_PIECES: usize = 16_384;

/// The last bytes of the output, with their streams.
#[derive(Debug, Default)]
pub(super) struct Tail {
    capacity: usize,
    pub(super) pieces: VecDeque<Piece>,
    bytes: usize,
    /// Bytes that were there and had to go.
    pub(super) dropped: u64,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub(super) stream: Stream,
    pub(super) at: DateTime<Utc>,
    pub(super) data: Vec<u8>,
}

impl Tail {
    /// Keeps this many bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Takes bytes that were read at `at`, in the place of the oldest ones.
    pub(super) fn push(&mut self, stream: Stream, data: Vec<u8>, at: DateTime<Utc>) {
        self.bytes += data.len();
        match self.pieces.back_mut() {
            Some(last) if last.stream == stream && last.data.len() + data.len() <= CHUNK_BYTES => {
                last.data.extend_from_slice(&data);
            }
            _ => self.pieces.push_back(Piece { stream, at, data }),
        }
        loop {
            let excess = self.bytes.saturating_sub(self.capacity);
            let crowded = self.pieces.len() > TAIL_PIECES;
            let Some(first) = self.pieces.front_mut() else {
                break;
            };
            let length = first.data.len();
            let gone = if crowded || excess >= length {
                self.pieces.pop_front();
                length
            } else if excess > 0 {
                first.data.drain(..excess);
                excess
            } else {
                break;
            };
            self.bytes -= gone;
            self.dropped += gone as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_pieces_of_two_streams_do_not_pile_up_in_the_tail() {
        let mut tail = Tail::new(1 << 20);
        for n in 0..100_000 {
            let stream = [Stream::Stdout, Stream::Stderr][n % 2];
            tail.push(stream, vec![b'x'], Utc::now());
        }
        assert_eq!(tail.pieces.len(), TAIL_PIECES);
        assert_eq!(tail.dropped, 100_000 - TAIL_PIECES as u64);
    }
}
