//! A connection and its streams.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use quinn::{RecvStream, SendStream, VarInt};
use sync_core::transport::{
    ByteStream, CHANNEL_BINDING_LABEL, CloseReason, Connection, StreamWrite, TransportError, TransportErrorKind,
};
use tokio::io::AsyncWrite;

use crate::error::connection_ended;

/// A QUIC connection. Dropping it closes it, and its streams fail.
pub(crate) struct QuicConnection {
    quic: quinn::Connection,
    channel_binding: [u8; 32],
}

impl QuicConnection {
    /// Takes over an established connection.
    pub fn new(quic: quinn::Connection) -> Result<Self, TransportError> {
        let mut channel_binding = [0; 32];
        match quic.export_keying_material(&mut channel_binding, CHANNEL_BINDING_LABEL, b"") {
            Ok(()) => Ok(Self { quic, channel_binding }),
            Err(_) => Err(TransportError::new(
                TransportErrorKind::Protocol,
                format!("the connection to {} has no TLS exporter", quic.remote_address()),
            )),
        }
    }
}

impl fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuicConnection({})", self.quic.remote_address())
    }
}

#[async_trait]
impl Connection for QuicConnection {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        let (send, receive) = self.quic.open_bi().await.map_err(|cause| connection_ended("opening a stream", cause))?;
        Ok(byte_stream(send, receive))
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        let (send, receive) =
            self.quic.accept_bi().await.map_err(|cause| connection_ended("accepting a stream", cause))?;
        Ok(byte_stream(send, receive))
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.channel_binding
    }

    async fn closed(&self) -> TransportError {
        connection_ended("waiting", self.quic.closed().await)
    }

    fn close(&self, reason: CloseReason) {
        self.quic.close(VarInt::from_u32(reason as u32), b"");
    }
}

impl Drop for QuicConnection {
    fn drop(&mut self) {
        // Streams hold the connection open in quinn; the contract says that dropping closes.
        self.close(CloseReason::Done);
    }
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
