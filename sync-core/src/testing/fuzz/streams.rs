//! What arrives on streams, split anywhere.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use sync_content::{Checkpoint, ContentDir, GROUP_LEN};
use tokio::io::{AsyncRead, ReadBuf};

use super::Input;
use crate::{
    machine::limits::{MAX_FRAME_LEN, MAX_HANDSHAKE_FRAME_LEN},
    manager::{
        blobs::{MAX_PROOF_RUN, protocol},
        read_frame,
    },
    testing::{block_on, random::Random},
};

/// Bytes that arrive in pieces, with pauses.
struct Pieces<'a> {
    bytes: &'a [u8],
    random: Random,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.random.percent(20) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let bytes = self.bytes;
        let longest = bytes.len().min(into.remaining());
        let len = if longest == 0 { 0 } else { 1 + self.random.below(longest) };
        let (now, later) = bytes.split_at(len);
        into.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

/// The frames in `bytes`, by hand, and whether they end as they should.
fn expected(mut bytes: &[u8], max: usize) -> (Vec<&[u8]>, bool) {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        if len == 0 || len > max || len > rest.len() {
            return (frames, false);
        }
        let (frame, rest) = rest.split_at(len);
        frames.push(frame);
        bytes = rest;
    }
    (frames, bytes.is_empty())
}

/// Frames are the same however they are split.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let max = input.pick(&[1, 7, 128, MAX_HANDSHAKE_FRAME_LEN, MAX_FRAME_LEN]);
    let random = Random::new(input.long());
    let bytes = input.rest();
    let (frames, is_clean) = expected(bytes, max);
    let mut read = Pieces { bytes, random };
    block_on(async {
        for frame in frames {
            let read = read_frame(&mut read, max).await.expect("the frame is there").expect("the frame is there");
            assert_eq!(&read[..], frame);
        }
        match read_frame(&mut read, max).await {
            Ok(None) => assert!(is_clean, "the stream ends in the middle of a frame"),
            Ok(Some(frame)) => panic!("a frame of {} bytes that nobody sent", frame.len()),
            Err(error) => assert!(!is_clean, "{error}"),
        }
    });
}

/// What a server of content sends: frames that decode encode to themselves, and whatever they hold, a download
/// keeps nothing that its hash does not prove. What an asker sends is within its limits.
pub fn content(data: &[u8]) {
    let mut input = Input::new(data);
    let random = Random::new(input.long());
    let len = u64::from(input.byte() % 4) * GROUP_LEN + u64::from(input.short()) % GROUP_LEN;
    let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    let theirs = ContentDir::in_memory();
    let staged = theirs.stage_bytes(&content).expect("memory can be written");
    let there = theirs.publish(vec![staged]).expect("memory can be written").remove(0);
    let server = theirs.reader(there.hash, there.len, &there.outboard).expect("it is there");
    let mine = ContentDir::in_memory();
    let partial = mine.download(Checkpoint::start(there.hash, there.len)).expect("memory can be written");
    let mut claim = partial.claim(4).expect("nothing is here");
    // Some of what an honest server says, then whatever the input says.
    let honest = input.below(12);
    let encoded = server.encode(claim.groups().into()).expect("the server is well");
    let mut is_lying = false;
    for piece in encoded.take(honest) {
        let mut piece = piece.expect("the server is well").to_vec();
        if input.one_in(5) && !piece.is_empty() {
            let at = usize::from(input.short()) % piece.len();
            piece[at] ^= 1 + input.byte() % 255;
            is_lying = true;
        }
        if claim.push(&piece).is_err() {
            assert!(is_lying, "what an honest server sends is taken");
            break;
        }
    }
    let mut read = Pieces { bytes: input.rest(), random };
    block_on(async {
        while let Ok(Some(reply)) = protocol::read_reply(&mut read).await {
            assert_eq!(protocol::Reply::decode(reply.encode()).expect("it has an encoding"), Some(reply.clone()));
            if let protocol::Reply::Data(bytes) = &reply
                && claim.push(bytes).is_err()
            {
                break;
            }
        }
        let rest = Bytes::copy_from_slice(read.bytes);
        let mut read = Pieces { bytes: &rest, random: Random::new(1) };
        while let Ok(Some(ask)) = protocol::read_ask(&mut read).await {
            let run = ask.run();
            assert!(run.start < run.end && run.end - run.start <= MAX_PROOF_RUN);
            assert_eq!(protocol::Ask::decode(&ask.encode()).expect("it has an encoding"), Some(ask));
        }
    });
    drop(claim);
    let checkpoint = partial.checkpoint().expect("memory can be written");
    if !checkpoint.verified().is_empty() {
        let reader = mine.partial_reader(&checkpoint).expect("it is there");
        for piece in reader.encode(checkpoint.verified().clone()).expect("what is verified is here") {
            piece.expect("what is verified is proved");
        }
    }
}
