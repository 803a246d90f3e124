//! The seam of the transports: how one dials, listens, and hands over encrypted connections.
//!
//! A transport gives [`Connection`]s: encrypted end to end, reliable, with many ordered byte
//! streams. It knows nothing of replicas, peers' identities or the protocol; who is at the
//! other end is settled by the signed handshake, which is the same on every transport.
//!
//! A transport that has only a byte pipe hands it to [`upgrade`] and has a `Connection`.

pub mod memory;
pub mod upgrade;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::address::PeerAddress;

/// Dials addresses of its schemes and accepts connections.
///
/// # Contract
///
/// Each sentence is a case of the conformance suite (`testing::transport_suite`).
///
/// - *dial reaches a listener*: what `listen` returned can be dialled, and both ends get a connection.
/// - *port zero reports the real port*: `listen` returns addresses that can be dialled from another node.
/// - *listen twice is an error that changes nothing*: the second call fails with
///   [`TransportErrorKind::AlreadyListening`]; the first listener goes on.
/// - *stop when stopped is an error that changes nothing*: [`TransportErrorKind::NotListening`].
/// - *stop frees the port*: after `stop_listening`, `listen` again gives the same port where the port is fixed.
/// - *dial fails within the deadline*: an unreachable, refused or silent address gives a typed error
///   within [`DIAL_DEADLINE`]; never a panic.
/// - *a cancelled dial leaves no connection*: the future may be dropped at any time, as whoever races addresses does; what
///   the listener saw of it ends.
/// - *a foreign scheme is refused*: [`TransportErrorKind::UnsupportedAddress`].
/// - *close ends everything*: connections end, ports and tasks are freed, later calls fail with
///   [`TransportErrorKind::Closed`].
/// - *dropping closes*: the last handle's drop does the same without waiting.
///
/// The names of the cases are those of `testing::transport_suite::CASES`.
#[async_trait]
pub trait SyncTransport: fmt::Debug + Send + Sync + 'static {
    /// The schemes that it dials, in lower case: `["https", "http"]`.
    fn schemes(&self) -> &[&'static str];

    /// Opens a connection to `address`, or says why not within [`DIAL_DEADLINE`].
    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError>;

    /// Starts to accept connections, each handed to `incoming`, and returns the addresses where
    /// others can dial. A client-only transport returns an empty list.
    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError>;

    /// Stops accepting and frees the port; connections go on.
    async fn stop_listening(&self) -> Result<(), TransportError>;

    /// What must be kept so that the next start has the same keys and port, or nothing.
    /// It is saved under the name under which the transport is registered.
    fn state(&self) -> Option<TransportState> {
        None
    }

    /// Ends every connection, stops listening and frees all that is held. A second call does nothing.
    async fn close(&self);
}

/// An encrypted, reliable connection of many ordered byte streams.
///
/// # Contract
///
/// - *streams carry bytes both ways, in order*.
/// - *a stream's end is seen as end of file*: after the writer has shut down. A stream that is dropped without
///   that is over for the other end too, but it may look like an end or like an error: messages on a stream
///   say themselves how long they are.
/// - *many streams at once*: at least 100 streams open at a time, none blocks another.
/// - *a full stream blocks only itself*: a stream that nobody reads exerts backpressure on its writer alone.
/// - *accept sees a stream at the latest at its first byte*. Streams are taken promptly: a connection may stand
///   still while more than a few wait for `accept`.
/// - *a cancelled accept loses no stream*: the future may be dropped at any time, and the next call gets the stream.
/// - *both ends have the same channel binding*, and no two connections share one.
/// - *close reaches the other end*: its `closed` resolves and its streams fail.
/// - *closed resolves when the other end is gone* within [`IDLE_DEADLINE`].
/// - *dropping closes*.
#[async_trait]
pub trait Connection: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream.
    async fn open(&self) -> Result<ByteStream, TransportError>;

    /// Waits for the next stream that the other end opened.
    async fn accept(&self) -> Result<ByteStream, TransportError>;

    /// 32 bytes that only the two ends of this very connection share: a TLS exporter (RFC 5705,
    /// label [`CHANNEL_BINDING_LABEL`], empty context) or the hash of a Noise handshake.
    fn channel_binding(&self) -> [u8; 32];

    /// Resolves when the connection has ended, with the reason.
    async fn closed(&self) -> TransportError;

    /// Ends the connection. What was not yet delivered may be lost.
    fn close(&self, reason: CloseReason);
}

/// The label of the TLS exporter that gives the channel binding.
pub const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-syncline-channel-binding-v1";

/// No dial takes longer.
pub const DIAL_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// A connection whose other end is silent for this long has ended.
pub const IDLE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// Why a connection is closed, told to the other end as far as the transport can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseReason {
    /// The node shuts down or the connection is not needed.
    Done = 0,
    /// The other end broke the protocol.
    Protocol = 1,
    /// Another connection to the same peer is used instead.
    Duplicate = 2,
    /// The peer is blocked or has no business here.
    Refused = 3,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "not needed any more",
            Self::Protocol => "the protocol was broken",
            Self::Duplicate => "another connection is used instead",
            Self::Refused => "refused",
        })
    }
}

/// A bidirectional byte stream of a connection.
pub struct ByteStream {
    /// What the other end wrote.
    pub read: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// What the other end will read. Shutting it down ends the stream in this direction.
    pub write: Box<dyn StreamWrite>,
}

/// The writing half of a [`ByteStream`].
pub trait StreamWrite: AsyncWrite + Send + Sync + Unpin {
    /// Streams of higher priority are sent first where the transport can; 0 is the default.
    fn set_priority(&mut self, _priority: i32) {}
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

/// Where a listening transport puts the connections that it accepted.
///
/// The queue is bounded: [`Incoming::offer`] answers at once, and a connection that finds no
/// place is dropped, so that a flood of connections holds no memory.
#[derive(Clone, Debug)]
pub struct Incoming(tokio::sync::mpsc::Sender<Box<dyn Connection>>);

impl Incoming {
    /// How many accepted connections may wait to be taken. A node takes them at once; more than
    /// this at a time is a flood.
    pub const CAPACITY: usize = 64;

    /// The queue and its other end.
    pub fn channel() -> (Self, tokio::sync::mpsc::Receiver<Box<dyn Connection>>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(Self::CAPACITY);
        (Self(sender), receiver)
    }

    /// Hands over an accepted connection. False when the queue is full or nobody listens any
    /// more; the connection is closed then.
    pub fn offer(&self, connection: Box<dyn Connection>) -> bool {
        match self.0.try_send(connection) {
            Ok(()) => true,
            Err(tokio::sync::mpsc::error::TrySendError::Full(connection))
            | Err(tokio::sync::mpsc::error::TrySendError::Closed(connection)) => {
                connection.close(CloseReason::Refused);
                false
            }
        }
    }

    /// Whether the receiving end is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// What a transport wants kept between starts.
///
/// `kind` says what wrote it ("quic/1"); a builder that finds a foreign kind under its name
/// answers [`TransportErrorKind::StateMismatch`].
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TransportState {
    /// Which transport, and which version of its format.
    pub kind: String,
    /// Its own encoding. May hold secrets, so `Debug` does not show it.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for TransportState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransportState({}, {} bytes)", self.kind, self.bytes.len())
    }
}

/// Makes a transport when it is registered, from the state that was saved under its name.
#[async_trait]
pub trait TransportBuilder: Send + 'static {
    /// Builds the transport. `context` has what a transport may need of its node.
    async fn build(
        self: Box<Self>,
        context: TransportContext,
    ) -> Result<std::sync::Arc<dyn SyncTransport>, TransportError>;
}

/// What a transport may need of its node.
#[derive(Debug, Clone)]
pub struct TransportContext {
    /// The node's secret key, for transports that prove it themselves (iroh).
    pub node_key: crate::model::SecretKey,
    /// The state that was saved under this name, if any.
    pub state: Option<TransportState>,
}

/// What went wrong with a transport: what was attempted, on what, why.
#[derive(Debug, thiserror::Error)]
#[error("{kind}: {context}")]
pub struct TransportError {
    /// What a caller can act on.
    pub kind: TransportErrorKind,
    /// What was attempted, on what, and the way out.
    pub context: String,
    /// What lies beneath.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`TransportError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TransportErrorKind {
    /// The scheme is not this transport's, or the rest of the address means nothing to it.
    #[error("unsupported address")]
    UnsupportedAddress,
    /// No scheme of any registered transport matches.
    #[error("unknown scheme")]
    UnknownScheme,
    /// Nobody answers there.
    #[error("unreachable")]
    Unreachable,
    /// The other end is there and does not want, or is not what the address says.
    #[error("refused")]
    Refused,
    /// A deadline passed.
    #[error("timed out")]
    TimedOut,
    /// The connection has ended.
    #[error("connection lost")]
    ConnectionLost,
    /// The port or name is taken, or the address cannot be bound.
    #[error("cannot listen")]
    CannotListen,
    /// `listen` while listening.
    #[error("already listening")]
    AlreadyListening,
    /// `stop_listening` while not listening.
    #[error("not listening")]
    NotListening,
    /// The transport was closed.
    #[error("transport closed")]
    Closed,
    /// The saved state belongs to another kind of transport.
    #[error("state of another kind")]
    StateMismatch,
    /// The other end broke the transport's protocol.
    #[error("protocol violation")]
    Protocol,
}

impl TransportError {
    /// An error of `kind`; `context` says what was attempted, on what, and the way out.
    pub fn new(kind: TransportErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The same with what lies beneath.
    pub fn because(
        kind: TransportErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    /// Whether trying again later, with nothing changed here, can help.
    pub fn is_temporary(&self) -> bool {
        use TransportErrorKind::*;
        match self.kind {
            Unreachable | Refused | TimedOut | ConnectionLost | Protocol => true,
            UnsupportedAddress | UnknownScheme | CannotListen | AlreadyListening | NotListening | Closed
            | StateMismatch => false,
        }
    }
}
