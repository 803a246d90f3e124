//! A connection and its streams, and the list of those that are open.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use iroh::endpoint::{Connection as IrohConn, RecvStream, SendStream, VarInt, WeakConnectionHandle};
use sync_core::transport::{
    ByteStream, CHANNEL_BINDING_LABEL, CloseReason, Connection, StreamWrite, TransportError, TransportErrorKind,
};
use tokio::io::AsyncWrite;

use crate::{error::connection_ended, limits};

/// A connection of iroh. Dropping it closes it, and its streams fail.
pub(crate) struct IrohConnection {
    iroh: IrohConn,
    channel_binding: [u8; 32],
}

impl IrohConnection {
    /// Takes over an established connection and lists it in `open`.
    pub fn new(iroh: IrohConn, open: &OpenConnections) -> Result<Self, TransportError> {
        let mut channel_binding = [0; 32];
        if iroh.export_keying_material(&mut channel_binding, CHANNEL_BINDING_LABEL, b"").is_err() {
            return Err(TransportError::new(
                TransportErrorKind::Protocol,
                format!("the connection to {} has no TLS exporter", iroh.remote_id()),
            ));
        }
        iroh.set_max_concurrent_bi_streams(VarInt::from_u32(limits::MAX_STREAMS));
        open.add(&iroh);
        Ok(Self { iroh, channel_binding })
    }
}

impl fmt::Debug for IrohConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IrohConnection({})", self.iroh.remote_id().fmt_short())
    }
}

#[async_trait]
impl Connection for IrohConnection {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        let (send, receive) = self.iroh.open_bi().await.map_err(|cause| connection_ended("opening a stream", cause))?;
        Ok(byte_stream(send, receive))
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        let (send, receive) =
            self.iroh.accept_bi().await.map_err(|cause| connection_ended("accepting a stream", cause))?;
        Ok(byte_stream(send, receive))
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.channel_binding
    }

    async fn closed(&self) -> TransportError {
        connection_ended("waiting", self.iroh.closed().await)
    }

    fn close(&self, reason: CloseReason) {
        close(&self.iroh, reason);
    }
}

impl Drop for IrohConnection {
    fn drop(&mut self) {
        // Streams and other clones hold the connection open in iroh; the contract says that dropping closes.
        self.close(CloseReason::Done);
    }
}

/// Ends a connection, telling why.
pub(crate) fn close(connection: &IrohConn, reason: CloseReason) {
    connection.close(VarInt::from_u32(reason as u32), b"");
}

fn byte_stream(send: SendStream, receive: RecvStream) -> ByteStream {
    ByteStream { read: Box::new(receive), write: Box::new(Writer(send)) }
}

/// The writing half. Dropping it ends the stream like a shutdown, as long as the connection lives.
struct Writer(SendStream);

impl StreamWrite for Writer {
    fn set_priority(&mut self, priority: i32) {
        // An ended stream has nothing left to be sent sooner.
        let _ = self.0.set_priority(priority);
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.0), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}

/// The connections of a transport, and the dials that may become one.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    known: Mutex<Vec<WeakConnectionHandle>>,
    dials: Arc<AtomicUsize>,
}

impl OpenConnections {
    fn add(&self, connection: &IrohConn) {
        let mut known = self.known();
        if known.len() == known.capacity() {
            known.retain(is_open);
        }
        known.push(connection.weak_handle());
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        let mut known = self.known();
        known.retain(is_open);
        known.len()
    }

    /// Whether nothing is open and nothing is being dialled.
    pub fn is_idle(&self) -> bool {
        self.dials.load(Ordering::SeqCst) == 0 && self.count() == 0
    }

    /// Notes a dial until the guard is dropped.
    pub fn dialling(&self) -> Dialling {
        self.dials.fetch_add(1, Ordering::SeqCst);
        Dialling(self.dials.clone())
    }

    /// Ends them all.
    pub fn close_all(&self) {
        for connection in self.known().drain(..).filter_map(|weak| weak.upgrade()) {
            close(&connection, CloseReason::Done);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<WeakConnectionHandle>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_open(weak: &WeakConnectionHandle) -> bool {
    weak.upgrade().is_some_and(|connection| connection.close_reason().is_none())
}

/// A dial under way.
pub(crate) struct Dialling(Arc<AtomicUsize>);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
