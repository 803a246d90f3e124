//! `vectors/streams.json`: the first bytes of streams, and the frames behind them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use serde_json::{Value as Json, json};
use tokio::io::{AsyncWrite, DuplexStream};

use super::*;
use crate::golden::{bytes as unhex, golden, hex, list, text};

/// The end of a pipe as a stream's.
struct End(DuplexStream);

impl AsyncWrite for End {
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

impl StreamWrite for End {}

/// What is written for frames, as the driver writes them.
async fn written(kind: StreamKind, frames: &[Vec<u8>]) -> Vec<u8> {
    let (write, mut read) = tokio::io::duplex(1 << 21);
    let mut write: Box<dyn StreamWrite> = Box::new(End(write));
    let (sender, mut queue) = mpsc::channel(frames.len().max(1));
    for frame in frames {
        sender.send(Bytes::copy_from_slice(frame)).await.unwrap();
    }
    drop(sender);
    write.write_all(&[kind as u8]).await.unwrap();
    write_frames(&mut write, &mut queue).await.unwrap();
    drop(write);
    let mut all = Vec::new();
    read.read_to_end(&mut all).await.unwrap();
    all
}

/// The kind and the frames of a stream, or why it ends.
async fn read(stream: &[u8]) -> Result<(StreamKind, Vec<Vec<u8>>), &'static str> {
    let mut stream = stream;
    let kind = stream.read_u8().await.map_err(|_| "no kind")?;
    let kind = StreamKind::from_byte(kind).ok_or("unknown kind")?;
    let mut frames = Vec::new();
    loop {
        match read_frame(&mut stream, max_frame_len(kind)).await {
            Ok(Some(frame)) => frames.push(frame.to_vec()),
            Ok(None) => return Ok((kind, frames)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err("cut"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err("length"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// By hand: a byte, then each frame behind its length.
fn by_hand(kind: u8, frames: &[Vec<u8>]) -> Vec<u8> {
    let frames = frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat());
    std::iter::once(kind).chain(frames).collect()
}

fn make() -> Json {
    let frame = |len: usize| vec![b'a'; len];
    let accepted = [
        ("a control stream with nothing", 0, vec![]),
        ("the longest frame of a control stream", 0, vec![frame(8 * 1024)]),
        ("a session with two frames", 1, vec![frame(1), frame(300)]),
        ("a frame that is not written in one piece", 1, vec![frame(1_024), frame(1)]),
        ("the longest frame of a session", 1, vec![frame(1 << 20)]),
        ("a stream of content", 2, vec![frame(70_000)]),
    ];
    let accepted = accepted.map(|(name, kind, frames)| {
        let hexed: Vec<Json> = frames.iter().map(hex).collect();
        json!({ "name": name, "kind": kind, "frames": hexed, "stream": hex(by_hand(kind, &frames)) })
    });
    let rejected = [
        ("nothing", vec![], "no kind"),
        ("a kind that there is not", vec![3], "unknown kind"),
        ("a kind of all ones", vec![0xff], "unknown kind"),
        ("an empty frame", by_hand(1, &[vec![]]), "length"),
        ("an empty frame behind a good one", by_hand(1, &[frame(1), vec![]]), "length"),
        ("a frame too long for a control stream", vec![0, 0, 0, 0x20, 1], "length"),
        ("a frame too long for a session", vec![1, 0, 0x10, 0, 1], "length"),
        ("a frame too long for content", vec![2, 0, 0x10, 0, 1], "length"),
        ("a length of all ones", vec![1, 0xff, 0xff, 0xff, 0xff], "length"),
        ("half a length", vec![1, 0, 0], "cut"),
        ("a frame that is cut", vec![1, 0, 0, 0, 3, b'a', b'a'], "cut"),
        ("a frame of which nothing comes", vec![2, 0, 0x10, 0, 0], "cut"),
    ];
    let rejected = rejected.map(|(name, stream, error)| json!({ "name": name, "stream": hex(stream), "error": error }));
    json!({ "accepted": accepted, "rejected": rejected })
}

#[tokio::test]
async fn the_vectors_of_streams_hold() {
    let file = golden("streams.json", &make());
    for vector in list(&file["accepted"]) {
        let (kind, frames) = read(&unhex(&vector["stream"])).await.expect("it is one");
        assert_eq!(Json::from(kind as u8), vector["kind"]);
        assert!(frames.iter().map(hex).eq(list(&vector["frames"]).iter().cloned()), "{}", vector["name"]);
        assert!(hex(written(kind, &frames).await) == vector["stream"], "{}", vector["name"]);
    }
    for vector in list(&file["rejected"]) {
        assert_eq!(read(&unhex(&vector["stream"])).await, Err(text(&vector["error"])), "{}", vector["name"]);
    }
}
