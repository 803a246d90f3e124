//! The driver's part about connections: frames in, frames out, bounded queues between.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
    task::JoinSet,
};

use super::driver::Message;
use crate::{
    machine::{ConnectionId, Input, StreamId, limits::*, wire::StreamKind},
    transport::{ByteStream, Connection, StreamWrite},
};

/// How many frames may wait to be written on one stream. The machine's window keeps entries far
/// below it; only a peer that asks and never reads fills it, and loses its connection.
const QUEUE_LEN: usize = 2048;

/// How long a peer may take to say what a stream that it opened is for.
const KIND_DEADLINE: Duration = Duration::from_secs(5);

/// A connection, as the driver holds it. Dropping it ends its tasks.
#[derive(Debug)]
pub(super) struct Held {
    pub connection: Arc<dyn Connection>,
    pub admitted: Arc<Notify>,
    streams: std::collections::HashMap<StreamId, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
}

/// A stream that a peer opened, with its kind read.
#[derive(Debug)]
pub(super) struct Accepted {
    pub stream: StreamId,
    pub kind: StreamKind,
    pub bytes: ByteStream,
}

impl Held {
    pub fn new(
        id: ConnectionId,
        connection: Arc<dyn Connection>,
        accepts_control: bool,
        messages: mpsc::Sender<Message>,
    ) -> Self {
        let admitted = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(id, connection.clone(), accepts_control, admitted.clone(), messages.clone()));
        let watched = connection.clone();
        tasks.spawn(async move {
            let reason = watched.closed().await.to_string();
            let _ = messages.send(Message::Input(Input::Disconnected { connection: id, reason })).await;
        });
        Self { connection, admitted, streams: Default::default(), tasks }
    }

    /// Opens a stream; what is sent on it meanwhile waits.
    pub fn open(&mut self, id: ConnectionId, stream: StreamId, kind: StreamKind, messages: mpsc::Sender<Message>) {
        let (sender, frames) = mpsc::channel(QUEUE_LEN);
        self.streams.insert(stream, sender);
        let connection = self.connection.clone();
        self.tasks.spawn(async move {
            let opened = async {
                let mut bytes = connection.open().await.map_err(io::Error::other)?;
                bytes.write.write_all(&[kind as u8]).await?;
                Ok::<_, io::Error>(bytes)
            };
            match opened.await {
                Ok(bytes) => carry(id, stream, kind, bytes, frames, messages).await,
                Err(error) => ended(id, stream, Some(error), &messages).await,
            }
        });
    }

    /// Takes over a stream that the peer opened.
    pub fn take(&mut self, id: ConnectionId, accepted: Accepted, messages: mpsc::Sender<Message>) {
        let (sender, frames) = mpsc::channel(QUEUE_LEN);
        self.streams.insert(accepted.stream, sender);
        self.tasks.spawn(carry(id, accepted.stream, accepted.kind, accepted.bytes, frames, messages));
    }

    /// Queues a frame. False when the peer does not read and the queue is full.
    pub fn send(&mut self, stream: StreamId, frame: Bytes) -> bool {
        match self.streams.get(&stream) {
            Some(sender) => !matches!(sender.try_send(frame), Err(mpsc::error::TrySendError::Full(_))),
            None => true,
        }
    }

    /// Lets what is queued be written, then ends the stream.
    pub fn close(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        // Finished tasks are taken out now and then, so that they do not pile up.
        while self.tasks.try_join_next().is_some() {}
    }
}

/// Accepts streams: the control stream at once, the others when the peer has proved who it is.
async fn accept(
    id: ConnectionId,
    connection: Arc<dyn Connection>,
    accepts_control: bool,
    admitted: Arc<Notify>,
    messages: mpsc::Sender<Message>,
) {
    let mut number = 1;
    let next = async |number: &mut u64| {
        let mut bytes = connection.accept().await.ok()?;
        let kind = tokio::time::timeout(KIND_DEADLINE, bytes.read.read_u8()).await.ok()?.ok()?;
        let kind = StreamKind::from_byte(kind)?;
        let stream = StreamId(*number);
        *number += 2;
        let accepted = Accepted { stream, kind, bytes };
        messages.send(Message::Accepted { connection: id, accepted }).await.ok()
    };
    if accepts_control && next(&mut number).await.is_none() {
        return connection.close(crate::transport::CloseReason::Protocol);
    }
    admitted.notified().await;
    while next(&mut number).await.is_some() {}
    connection.close(crate::transport::CloseReason::Protocol);
}

async fn ended(id: ConnectionId, stream: StreamId, error: Option<io::Error>, messages: &mpsc::Sender<Message>) {
    let error = error.map(|error| error.to_string());
    let _ = messages.send(Message::Input(Input::StreamEnded { connection: id, stream, error })).await;
}

/// Moves frames both ways until the stream ends.
async fn carry(
    id: ConnectionId,
    stream: StreamId,
    kind: StreamKind,
    bytes: ByteStream,
    mut frames: mpsc::Receiver<Bytes>,
    messages: mpsc::Sender<Message>,
) {
    let ByteStream { mut read, mut write } = bytes;
    let max = max_frame_len(kind);
    if kind == StreamKind::Control {
        write.set_priority(1);
    }
    let reading = async {
        loop {
            match read_frame(&mut read, max).await {
                Ok(Some(frame)) => {
                    let input = Input::Frame { connection: id, stream, frame };
                    if messages.send(Message::Input(input)).await.is_err() {
                        return None;
                    }
                }
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    };
    let writing = async { write_frames(&mut write, &mut frames).await.err() };
    tokio::pin!(reading, writing);
    let error = tokio::select! {
        error = &mut reading => error,
        error = &mut writing => match error {
            // We ended it: what the peer still says is not heard.
            None => return,
            error => error,
        },
    };
    ended(id, stream, error, &messages).await;
}

/// The longest frame that is read from a stream.
fn max_frame_len(kind: StreamKind) -> usize {
    match kind {
        StreamKind::Control => MAX_HANDSHAKE_FRAME_LEN,
        StreamKind::Session | StreamKind::Content => MAX_FRAME_LEN,
    }
}

async fn write_frames(write: &mut Box<dyn StreamWrite>, frames: &mut mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            let len = u32::try_from(frame.len()).expect("frames have at most 1 MiB");
            if frame.len() < 1024 {
                // One write, one packet.
                let mut small = BytesMut::with_capacity(frame.len() + 4);
                small.extend_from_slice(&len.to_be_bytes());
                small.extend_from_slice(&frame);
                write.write_all(&small).await?;
            } else {
                write.write_all(&len.to_be_bytes()).await?;
                write.write_all(&frame).await?;
            }
            next = frames.try_recv().ok();
        }
        write.flush().await?;
    }
    write.shutdown().await
}

/// Reads a frame; none at a clean end. Memory grows with what arrives, not with what is claimed.
pub(crate) async fn read_frame(
    read: &mut (impl tokio::io::AsyncRead + Unpin + ?Sized),
    max: usize,
) -> io::Result<Option<Bytes>> {
    let mut len = [0; 4];
    let mut have = 0;
    while have < 4 {
        match read.read(&mut len[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => have += more,
        }
    }
    let len = u32::from_be_bytes(len) as usize;
    if len == 0 || len > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {len} bytes; at most {max} are allowed"),
        ));
    }
    let mut frame = BytesMut::with_capacity(len.min(64 * 1024));
    let mut limited = read.take(len as u64);
    while frame.len() < len {
        if limited.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(frame.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn b77_a_frame_claims_no_memory_and_none_over_the_limit_is_read() {
        let mut claim = &[0xff, 0xff, 0xff, 0xff, 1, 2, 3][..];
        assert_eq!(read_frame(&mut claim, MAX_FRAME_LEN).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut cut = &[0, 0, 0, 9, 1, 2, 3][..];
        assert_eq!(read_frame(&mut cut, MAX_FRAME_LEN).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut good = &[0, 0, 0, 2, 1, 2][..];
        assert_eq!(read_frame(&mut good, 2).await.unwrap().unwrap()[..], [1, 2]);
        assert_eq!(read_frame(&mut good, 2).await.unwrap(), None);
        let mut long = &[0, 0, 0, 3, 1, 2, 3][..];
        assert!(read_frame(&mut long, 2).await.is_err());
    }
}

#[cfg(test)]
mod vectors;
