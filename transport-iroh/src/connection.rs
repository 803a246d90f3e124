//! A connection and its streams.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use iroh::{
    EndpointId,
    endpoint::{Connection as IrohConn, RecvStream, SendStream, VarInt},
};
use sync_core::transport::{
    ByteStream, CHANNEL_BINDING_LABEL, CloseReason, Connection, StreamWrite, TransportError, TransportErrorKind,
};
use tokio::io::AsyncWrite;

use crate::{
    error::connection_ended,
    limits,
    open::{Held, HeldConnection, OpenConnections},
};

/// A connection of iroh. Dropping it closes it, and its streams fail.
pub(crate) struct IrohConnection {
    held: Arc<HeldConnection>,
    remote: EndpointId,
    channel_binding: [u8; 32],
}

impl IrohConnection {
    /// Takes over an established connection and lists it in `open`.
    pub fn new(iroh: IrohConn, open: &OpenConnections) -> Result<Self, TransportError> {
        let remote = iroh.remote_id();
        let mut channel_binding = [0; 32];
        if iroh.export_keying_material(&mut channel_binding, CHANNEL_BINDING_LABEL, b"").is_err() {
            let context = format!("the connection to {remote} has no TLS exporter");
            return Err(TransportError::new(TransportErrorKind::Protocol, context));
        }
        iroh.set_max_concurrent_bi_streams(VarInt::from_u32(limits::MAX_STREAMS));
        Ok(Self { held: open.hold(iroh), remote, channel_binding })
    }

    fn byte_stream(&self, send: SendStream, receive: RecvStream) -> ByteStream {
        ByteStream { read: Box::new(self.held.hold(receive)), write: Box::new(Writer(self.held.hold(send))) }
    }
}

impl fmt::Debug for IrohConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IrohConnection({})", self.remote.fmt_short())
    }
}

#[async_trait]
impl Connection for IrohConnection {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        let ended = |cause| connection_ended("opening a stream", cause);
        let (send, receive) = self.held.get().map_err(ended)?.open_bi().await.map_err(ended)?;
        Ok(self.byte_stream(send, receive))
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        let ended = |cause| connection_ended("accepting a stream", cause);
        let (send, receive) = self.held.get().map_err(ended)?.accept_bi().await.map_err(ended)?;
        Ok(self.byte_stream(send, receive))
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.channel_binding
    }

    async fn closed(&self) -> TransportError {
        let cause = match self.held.get() {
            Ok(connection) => connection.closed().await,
            Err(cause) => cause,
        };
        connection_ended("waiting", cause)
    }

    fn close(&self, reason: CloseReason) {
        if let Ok(connection) = self.held.get() {
            close(&connection, reason);
        }
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

/// The writing half. Dropping it ends the stream like a shutdown, as long as the connection lives.
struct Writer(Held<SendStream>);

impl StreamWrite for Writer {
    fn set_priority(&mut self, priority: i32) {
        // An ended stream has nothing left to be sent sooner.
        self.0.with(|stream| _ = stream.set_priority(priority));
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
