//! Dials over TCP as samod's own dialer does, with its framing, but sends small frames at once, and counts what passes.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use samod::{DialError, Dialer, Transport};
use tokio::net::TcpStream;
use tokio_util::{
    bytes::Bytes,
    codec::{Framed, LengthDelimitedCodec},
};

/// The largest frame, as samod has it: a document travels in one.
const FRAME_BYTES_MAX: usize = 8 << 30;

/// The frames that have passed, both ways, and their bytes with the four that tell a frame's length. The handshake of
/// a connection counts.
#[derive(Default)]
pub struct Passed {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Passed {
    fn count(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64 + 4, Ordering::Relaxed);
    }

    /// The messages and bytes until now, when none has passed for a while.
    pub async fn settled(&self) -> [f64; 2] {
        loop {
            let messages = self.messages.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if self.messages.load(Ordering::Relaxed) == messages {
                return [messages as f64, self.bytes.load(Ordering::Relaxed) as f64];
            }
        }
    }
}

pub struct Dial {
    pub address: SocketAddr,
    pub passed: Arc<Passed>,
}

impl Dialer for Dial {
    type Error = Infallible;

    fn url(&self) -> url::Url {
        url::Url::parse(&format!("tcp://{}", self.address)).expect("an address and a scheme are a URL")
    }

    fn connect(&self) -> BoxFuture<'static, Result<Transport, DialError<Infallible>>> {
        let (address, sent, received) = (self.address, self.passed.clone(), self.passed.clone());
        async move {
            let io = TcpStream::connect(address).await.map_err(DialError::transient)?;
            io.set_nodelay(true).map_err(DialError::transient)?;
            let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
            let (sink, stream) = Framed::new(io, codec).split::<Bytes>();
            let stream = stream.map(move |frame| {
                frame.map(|frame| {
                    received.count(frame.len());
                    frame.to_vec()
                })
            });
            let sink = sink.with(move |frame: Vec<u8>| {
                sent.count(frame.len());
                std::future::ready(Ok::<_, io::Error>(Bytes::from(frame)))
            });
            Ok(Transport::new(stream, sink))
        }
        .boxed()
    }
}
