//! The frames on a stream of kind `Content`: a length (u32, big-endian), a kind (u8), a body.
//!
//! | kind | from | body | meaning |
//! |---|---|---|---|
//! | 64 `Get` | asker | postcard | send a run of groups of a content |
//! | 65 `Prove` | asker | postcard | show that you have a run of groups, without sending it |
//! | 66 `Tree` | asker | postcard | send the tree above a run of groups, without the groups |
//! | 80 `Data` | server | bytes | the next bytes of the encoding of the oldest unanswered request |
//! | 81 `Done` | server | nothing | the oldest request is answered in full |
//! | 82 `None` | server | nothing | it will not be: not here, not any more, or not for you |
//! | 83 `Part` | server | postcard | it will not be, but these groups can be had |
//! | 84 `Ready` | server | 64 bytes | a content that was answered with `None` or `Part` is here now |
//! | 85 `Proof` | server | 32 bytes | the answer to `Prove` |
//!
//! Answers come in the order of the requests. Unknown kinds are skipped.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{BlobError, MAX_PROOF_RUN, MAX_RUN, MAX_TREE_RUN};
use crate::{
    model::{Hash, ReplicaId},
    store::GroupRanges,
};

/// The longest frame from a server, kind included: a piece of an encoder.
const MAX_REPLY_LEN: usize = 96 * 1024;

/// The longest frame from an asker, kind included.
const MAX_ASK_LEN: usize = 128;

/// The most runs in a [`Reply::Part`]; a server names the first.
pub(super) const MAX_PART_RUNS: usize = 256;

const GET: u8 = 64;
const PROVE: u8 = 65;
const TREE: u8 = 66;
const DATA: u8 = 80;
const DONE: u8 = 81;
const NONE: u8 = 82;
const PART: u8 = 83;
const READY: u8 = 84;
const PROOF: u8 = 85;

/// A run of groups of a content, as entries of a replica refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The replica on whose behalf it is asked for.
    pub replica: ReplicaId,
    /// The content.
    pub hash: Hash,
    /// The length that the asker takes it to have. With another length the groups are others.
    pub len: u64,
    /// The first group.
    pub start: u64,
    /// One past the last group.
    pub end: u64,
}

impl Run {
    /// The groups.
    pub fn groups(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// What an asker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Send these groups, at most [`MAX_RUN`].
    Get(Run),
    /// Show that you have them, at most [`MAX_PROOF_RUN`]: the bytes are here already.
    Prove(Run, Nonce),
    /// Send the encoding of these groups without their bytes, at most [`MAX_TREE_RUN`].
    Tree(Run),
}

/// Fresh randomness of an asker, so that no answer can be given twice.
pub type Nonce = [u8; 32];

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The next bytes of the encoding.
    Data(Bytes),
    /// The request is answered in full.
    Done,
    /// It will not be.
    None,
    /// It will not be, but these groups can be had.
    Part(GroupRanges),
    /// The replica holds this content here now.
    Ready(ReplicaId, Hash),
    /// What only who has the groups can compute: see `possession`.
    Proof([u8; 32]),
}

impl Ask {
    /// The frame's contents.
    pub fn encode(&self) -> Bytes {
        let frame = match self {
            Self::Get(run) => postcard::to_extend(run, vec![GET]),
            Self::Tree(run) => postcard::to_extend(run, vec![TREE]),
            Self::Prove(run, nonce) => postcard::to_extend(&(run, nonce), vec![PROVE]),
        };
        frame.expect("a request has an encoding").into()
    }

    /// Reads a frame; nothing for an unknown kind.
    pub fn decode(frame: &[u8]) -> Result<Option<Self>, BlobError> {
        let (ask, longest) = match frame.split_first() {
            Some((&GET, body)) => (Self::Get(decode_all(body)?), MAX_RUN),
            Some((&TREE, body)) => (Self::Tree(decode_all(body)?), MAX_TREE_RUN),
            Some((&PROVE, body)) => {
                let (run, nonce) = decode_all(body)?;
                (Self::Prove(run, nonce), MAX_PROOF_RUN)
            }
            _ => return Ok(None),
        };
        let run = ask.run();
        if run.start >= run.end || run.end - run.start > longest {
            return Err(BlobError::Protocol("a request for no groups or too many"));
        }
        Ok(Some(ask))
    }

    /// What it is about.
    pub fn run(&self) -> &Run {
        match self {
            Self::Get(run) | Self::Prove(run, _) | Self::Tree(run) => run,
        }
    }
}

impl Reply {
    /// The frame's contents in two parts, so that data need not be copied.
    fn parts(&self) -> (Vec<u8>, Bytes) {
        match self {
            Self::Data(bytes) => (vec![DATA], bytes.clone()),
            Self::Done => (vec![DONE], Bytes::new()),
            Self::None => (vec![NONE], Bytes::new()),
            Self::Part(groups) => {
                (postcard::to_extend(groups, vec![PART]).expect("groups have an encoding"), Bytes::new())
            }
            Self::Ready(replica, hash) => ([&[READY][..], replica.as_bytes(), &hash.0].concat(), Bytes::new()),
            Self::Proof(proof) => ([&[PROOF][..], proof].concat(), Bytes::new()),
        }
    }

    /// The frame's contents.
    pub fn encode(&self) -> Bytes {
        let (mut head, body) = self.parts();
        head.extend_from_slice(&body);
        head.into()
    }

    /// Reads a frame; nothing for an unknown kind.
    pub fn decode(mut frame: Bytes) -> Result<Option<Self>, BlobError> {
        if frame.is_empty() {
            return Err(BlobError::Protocol("an empty frame"));
        }
        let body = frame.split_off(1);
        Ok(Some(match (frame[0], body.len()) {
            (DATA, 1..) => Self::Data(body),
            (DONE, 0) => Self::Done,
            (NONE, 0) => Self::None,
            (PART, _) => {
                let groups: GroupRanges = decode_all(&body)?;
                if groups.runs() > MAX_PART_RUNS {
                    return Err(BlobError::Protocol("too many runs of groups"));
                }
                Self::Part(groups)
            }
            (READY, 64) => {
                let (replica, hash) = body.split_at(32);
                let replica: [u8; 32] = replica.try_into().expect("32 bytes");
                Self::Ready(ReplicaId::from(replica), Hash(hash.try_into().expect("32 bytes")))
            }
            (PROOF, 32) => Self::Proof(body[..].try_into().expect("32 bytes")),
            (DATA | DONE | NONE | READY | PROOF, _) => return Err(BlobError::Protocol("a reply of a wrong length")),
            _ => return Ok(None),
        }))
    }

    /// Writes the frame.
    pub(super) async fn write(&self, write: &mut (impl AsyncWrite + Unpin)) -> Result<(), BlobError> {
        let (head, body) = self.parts();
        let mut start = ((head.len() + body.len()) as u32).to_be_bytes().to_vec();
        start.extend_from_slice(&head);
        write.write_all(&start).await?;
        Ok(write.write_all(&body).await?)
    }
}

/// Writes the frame of a request.
pub(super) async fn write_ask(write: &mut (impl AsyncWrite + Unpin), ask: &Ask) -> Result<(), BlobError> {
    let body = ask.encode();
    let frame = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    Ok(write.write_all(&frame).await?)
}

/// Reads a request; nothing at the end of the stream.
pub(crate) async fn read_ask(read: &mut (impl AsyncRead + Unpin)) -> Result<Option<Ask>, BlobError> {
    while let Some(frame) = read_frame(read, MAX_ASK_LEN).await? {
        if let Some(ask) = Ask::decode(&frame)? {
            return Ok(Some(ask));
        }
    }
    Ok(None)
}

/// Reads a reply; nothing at the end of the stream.
pub(crate) async fn read_reply(read: &mut (impl AsyncRead + Unpin)) -> Result<Option<Reply>, BlobError> {
    while let Some(frame) = read_frame(read, MAX_REPLY_LEN).await? {
        if let Some(reply) = Reply::decode(frame)? {
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

async fn read_frame(read: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Option<Bytes>, BlobError> {
    let mut len = [0; 4];
    match read.read_exact(&mut len[..1]).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    };
    read.read_exact(&mut len[1..]).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len == 0 || len > limit {
        return Err(BlobError::Protocol("a frame of no bytes or too many"));
    }
    let mut frame = BytesMut::with_capacity(len);
    while frame.len() < len {
        let lacking = len - frame.len();
        if read.read_buf(&mut (&mut frame).limit(lacking)).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(Some(frame.freeze()))
}

fn decode_all<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BlobError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(BlobError::Protocol("a malformed body")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(runs: impl IntoIterator<Item = (u64, u64)>) -> GroupRanges {
        runs.into_iter().collect::<Vec<_>>().try_into().unwrap()
    }

    fn run(start: u64, end: u64) -> Run {
        Run { replica: [7; 32].into(), hash: Hash([3; 32]), len: u64::MAX, start, end }
    }

    #[test]
    fn frames_come_back_as_they_went() {
        let far = u64::MAX - MAX_PROOF_RUN;
        for ask in
            [Ask::Get(run(far, far + MAX_RUN)), Ask::Prove(run(far, u64::MAX), [9; 32]), Ask::Tree(run(far, u64::MAX))]
        {
            assert_eq!(Ask::decode(&ask.encode()).unwrap(), Some(ask.clone()));
            assert!(ask.encode().len() <= MAX_ASK_LEN);
        }
        let largest = groups((0..MAX_PART_RUNS as u64).map(|at| (u64::MAX / 2 + at * 2, u64::MAX / 2 + at * 2 + 1)));
        for reply in [
            Reply::Data(Bytes::from_static(b"x")),
            Reply::Done,
            Reply::None,
            Reply::Part(largest),
            Reply::Ready([7; 32].into(), Hash([9; 32])),
            Reply::Proof([8; 32]),
        ] {
            assert!(reply.encode().len() <= MAX_REPLY_LEN);
            assert_eq!(Reply::decode(reply.encode()).unwrap(), Some(reply));
        }
    }

    #[test]
    fn b79_unknown_kinds_are_skipped() {
        assert!(Ask::decode(&[200, 1, 2]).unwrap().is_none());
        assert!(Reply::decode(Bytes::from_static(&[200, 1, 2])).unwrap().is_none());
    }

    #[tokio::test]
    async fn b77_frames_beyond_a_limit_are_refused_before_they_are_read() {
        for len in [0, MAX_REPLY_LEN as u32 + 1, u32::MAX] {
            let bytes = len.to_be_bytes();
            assert!(matches!(read_reply(&mut &bytes[..]).await, Err(BlobError::Protocol(_))));
        }
        let get = |start, end| Ask::Get(run(start, end));
        let prove = |start, end| Ask::Prove(run(start, end), [0; 32]);
        let too_long =
            [get(0, MAX_RUN + 1), get(0, u64::MAX), prove(0, MAX_PROOF_RUN + 1), Ask::Tree(run(0, MAX_TREE_RUN + 1))];
        for ask in [get(0, 0), get(5, 4), prove(1, 1)].into_iter().chain(too_long) {
            assert!(matches!(Ask::decode(&ask.encode()), Err(BlobError::Protocol(_))));
        }
        let too_many = groups((0..MAX_PART_RUNS as u64 + 1).map(|at| (at * 2, at * 2 + 1)));
        assert!(Reply::decode(Reply::Part(too_many).encode()).is_err());
        for frame in
            [&[DATA][..], &[DONE, 0], &[READY, 1], &[PROOF, 1], &[PART, 1, 5, 5], &[PART, 0xff, 0xff, 0xff, 0xff, 0x0f]]
        {
            assert!(Reply::decode(Bytes::copy_from_slice(frame)).is_err(), "{frame:?}");
        }
    }
}
