//! From a byte pipe to a [`Connection`]: Noise, then yamux.
//!
//! A transport that has a reliable, ordered pipe of bytes (a WebSocket, a serial line, a test's
//! [`tokio::io::duplex`]) and nothing else calls [`upgrade`] at both ends and is done:
//!
//! ```
//! # async fn example() -> Result<(), sync_core::transport::TransportError> {
//! use sync_core::transport::upgrade::{Role, upgrade};
//!
//! let (here, there) = tokio::io::duplex(64 * 1024);
//! let (dialer, listener) = tokio::join!(upgrade(here, Role::Dialer), upgrade(there, Role::Listener));
//! assert_eq!(dialer?.channel_binding(), listener?.channel_binding());
//! # Ok(())
//! # }
//! ```
//!
//! The layers, from the pipe up:
//!
//! 1. *Noise* `XX_25519_ChaChaPoly_BLAKE2s` with fresh static keys on both sides, the prologue
//!    `syncline v1 noise yamux` and a zero byte, no payloads: it encrypts and authenticates the pipe, and its handshake
//!    hash is the channel binding. Who is at the other end is not asked here: the signed handshake above
//!    proves it against that hash.
//! 2. *Messages*: each Noise message, those of the handshake too, goes behind its length (2 bytes, big-endian). After the
//!    handshake the first byte of the plaintext says what it is: 0 data, 1 keep-alive, 2 farewell with its
//!    [`CloseReason`](super::CloseReason) (4 bytes, big-endian). Others are skipped. The borders of data messages mean nothing.
//! 3. *yamux* (version 0 of its specification) over the data; the dialler is its client. One task owns it all,
//!    so a connection costs one task.
//!
//! Either end sends something at least every 10 s, and gives up after 25 s without a byte.

mod connection;
mod driver;
mod handshake;
mod noise;
mod stream;

use std::{sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, TransportError};

/// The Noise handshake ends within this time or fails.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a connection looks at itself: an end that sent nothing since the last look sends a
/// keep-alive, so that the other end hears something at least every other tick.
const TICK: Duration = Duration::from_secs(5);

/// After so many ticks without a byte from the other end the connection has ended. One less than
/// [`super::IDLE_DEADLINE`] holds, because the first tick may be cut short.
const SILENT_TICKS: u32 = 5;

/// How many streams one end may have opened at a time; [`Connection::open`] waits for a place. The
/// contract asks for 100.
const MAX_OPEN_STREAMS: usize = 112;

/// How many streams of both ends yamux bears before it ends the connection: twice
/// [`MAX_OPEN_STREAMS`], and as many again of those that one end has dropped and the other not yet.
const MAX_STREAMS: usize = 256;

/// What all streams of a connection may buffer beyond yamux's 256 KiB each, so that a fast stream over a
/// long line can grow its window.
const EXTRA_WINDOW: usize = 16 * 1024 * 1024;

/// How many streams may wait for [`Connection::accept`]. Further ones hold the whole connection up: a
/// peer that has not proved itself holds no more than these, of 256 KiB each.
const MAX_WAITING_STREAMS: usize = 8;

/// A closing connection has this long to tell the other end why.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// Which end of the pipe this is: the two must differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that opened the pipe: it speaks first.
    Dialer,
    /// The end that accepted it.
    Listener,
}

/// Makes an encrypted connection of many streams from a pipe of bytes. The other end does the
/// same in the other role.
///
/// Fails with [`TransportErrorKind::TimedOut`](super::TransportErrorKind::TimedOut) after
/// [`HANDSHAKE_DEADLINE`], with [`Protocol`](super::TransportErrorKind::Protocol) when the other
/// end speaks something else, and with
/// [`ConnectionLost`](super::TransportErrorKind::ConnectionLost) when the pipe breaks.
pub async fn upgrade<P>(mut pipe: P, role: Role) -> Result<Box<dyn Connection>, TransportError>
where
    P: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let secured = handshake::perform(&mut pipe, role).await?;
    let pipe = Arc::new(noise::NoisePipe::new(pipe, secured.noise));
    Ok(Box::new(connection::Upgraded::start(pipe, role, secured.binding)))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
