//! A WebSocket as a pipe of bytes: binary frames whose borders mean nothing.
//!
//! Pings and pongs are answered below and skipped here; a text frame is an error, because nothing of ours
//! sends one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::extract::ws as server;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{WebSocketStream, tungstenite as client};

use crate::limits::{FRAME_LEN, MAX_FRAME_LEN, SOCKET_BUFFER};

/// How the WebSocket of a dialler is set up; [`limit`] does the same for the server's.
pub(crate) fn config() -> client::protocol::WebSocketConfig {
    client::protocol::WebSocketConfig::default()
        .read_buffer_size(SOCKET_BUFFER)
        .write_buffer_size(SOCKET_BUFFER)
        .max_write_buffer_size(SOCKET_BUFFER + 4 * MAX_FRAME_LEN)
        .max_message_size(Some(MAX_FRAME_LEN))
        .max_frame_size(Some(MAX_FRAME_LEN))
}

/// How the WebSocket of a server is set up. The limits hold from the first frame: before anybody has proved anything.
pub(crate) fn limit(upgrade: server::WebSocketUpgrade) -> server::WebSocketUpgrade {
    upgrade
        .read_buffer_size(SOCKET_BUFFER)
        .write_buffer_size(SOCKET_BUFFER)
        .max_write_buffer_size(SOCKET_BUFFER + 4 * MAX_FRAME_LEN)
        .max_message_size(MAX_FRAME_LEN)
        .max_frame_size(MAX_FRAME_LEN)
}

/// What a message is to a pipe.
pub(crate) enum Part {
    Bytes(Bytes),
    Skip,
    End,
    Foreign,
}

/// A message of either library.
pub(crate) trait Message {
    fn binary(bytes: Bytes) -> Self;
    fn part(self) -> Part;
}

impl Message for server::Message {
    fn binary(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }

    fn part(self) -> Part {
        match self {
            Self::Binary(bytes) => Part::Bytes(bytes),
            Self::Ping(_) | Self::Pong(_) => Part::Skip,
            Self::Close(_) => Part::End,
            Self::Text(_) => Part::Foreign,
        }
    }
}

impl Message for client::Message {
    fn binary(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }

    fn part(self) -> Part {
        match self {
            Self::Binary(bytes) => Part::Bytes(bytes),
            Self::Ping(_) | Self::Pong(_) => Part::Skip,
            Self::Close(_) => Part::End,
            Self::Text(_) | Self::Frame(_) => Part::Foreign,
        }
    }
}

/// A WebSocket of either library, as a pipe.
pub(crate) struct Pipe<S, M> {
    socket: S,
    unread: Bytes,
    /// The library copies what it is given, so the same memory does for every frame.
    frame: BytesMut,
    message: std::marker::PhantomData<fn() -> M>,
}

/// The server's end.
pub(crate) type ServerPipe = Pipe<server::WebSocket, server::Message>;
/// The dialler's end.
pub(crate) type ClientPipe = Pipe<WebSocketStream<reqwest::Upgraded>, client::Message>;

impl<S, M> Pipe<S, M> {
    pub fn new(socket: S) -> Self {
        Self { socket, unread: Bytes::new(), frame: BytesMut::new(), message: std::marker::PhantomData }
    }
}

impl<S, M, E> AsyncRead for Pipe<S, M>
where
    S: Stream<Item = Result<M, E>> + Unpin,
    M: Message,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(message)) => match message.part() {
                    Part::Bytes(bytes) => self.unread = bytes,
                    Part::Skip => {}
                    Part::End => return Poll::Ready(Ok(())),
                    Part::Foreign => {
                        let error = io::Error::new(io::ErrorKind::InvalidData, "a WebSocket frame that is not binary");
                        return Poll::Ready(Err(error));
                    }
                },
            }
        }
        let len = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..len]);
        self.unread.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S, M> AsyncWrite for Pipe<S, M>
where
    S: Sink<M> + Unpin,
    M: Message,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let len = bytes.len().min(FRAME_LEN);
        self.frame.extend_from_slice(&bytes[..len]);
        let message = M::binary(self.frame.split().freeze());
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}
