//! Answers a peer's requests for content: rights first, then bytes that are proved as they leave.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use sync_content::Encoder;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{broadcast, mpsc},
    task::JoinHandle,
};

use super::{
    Arrived, BlobError, ContentReady, MAX_REMEMBERED, WINDOW,
    possession::Question,
    protocol::{self, Ask, MAX_PART_RUNS, Reply, Run},
};
use crate::{
    model::{Hash, PeerId, ReplicaId},
    store::{ContentError, ContentStore, GroupRanges, Reader, StoreError},
    transport::ByteStream,
};

/// How many pieces of 64 KiB are read ahead of the stream.
const READ_AHEAD: usize = 4;

/// How many requests are looked up, and their first pieces read, while another is answered: neither
/// the store nor the disk makes the stream wait.
const PREPARED: usize = 2;

/// Decides whether a peer may have a content: whether an entry of the replica refers to it that the
/// peer may read. (Whether the replica holds it is the store's to say.)
#[async_trait]
pub trait MayRead: Send + Sync + 'static {
    /// Asked before each answer. Fails closed.
    async fn may_read(&self, peer: PeerId, replica: ReplicaId, hash: Hash) -> bool;
}

/// Serves content to peers.
#[derive(Clone)]
pub struct Server {
    store: Arc<dyn ContentStore>,
    may_read: Arc<dyn MayRead>,
    ready: ContentReady,
    me: PeerId,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("store", &self.store).finish()
    }
}

/// What a peer asked for and did not get; it is told when it is here.
type Unanswered = HashSet<(ReplicaId, Hash)>;

/// The reader that the last request used: requests for one content follow each other.
type Last = Option<(ReplicaId, Reader)>;

impl Server {
    /// A server, at the node `me`, of what replicas hold in `store`; `ready` says what becomes so.
    pub fn new(store: Arc<dyn ContentStore>, may_read: Arc<dyn MayRead>, ready: ContentReady, me: PeerId) -> Self {
        Self { store, may_read, ready, me }
    }

    /// Answers on `stream` until the peer ends it.
    pub async fn serve(&self, peer: PeerId, stream: ByteStream) -> Result<(), BlobError> {
        let ByteStream { mut read, mut write } = stream;
        let (sender, mut requests) = mpsc::channel(WINDOW);
        let reading = async move {
            while let Some(ask) = protocol::read_ask(&mut read).await? {
                // More than the window would mean a queue that the peer can grow.
                if sender.try_send(ask).is_err() {
                    return Err(BlobError::Protocol("more requests than the window"));
                }
            }
            Ok(())
        };
        let (prepared, mut to_answer) = mpsc::channel(PREPARED);
        let preparing = async move {
            let mut last = None;
            while let Some(ask) = requests.recv().await {
                let answer = self.prepare(peer, &ask, &mut last).await?.ok();
                if prepared.send((ask, answer)).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let mut ready = self.ready.subscribe();
        let answering = async {
            let mut unanswered = Unanswered::new();
            loop {
                tokio::select! {
                    biased;
                    next = to_answer.recv() => match next {
                        Some((ask, answer)) => self.answer(peer, &ask, answer, &mut unanswered, &mut write).await?,
                        None => return Ok(()),
                    },
                    arrived = ready.recv() => match arrived {
                        Ok(Arrived::Held(replica, hash))
                            if unanswered.contains(&(replica, hash))
                                && self.may_read.may_read(peer, replica, hash).await =>
                        {
                            unanswered.remove(&(replica, hash));
                            Reply::Ready(replica, hash).write(&mut write).await?;
                        }
                        // What was missed is asked for again in time.
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    },
                }
                if to_answer.is_empty() {
                    write.flush().await?;
                }
            }
        };
        tokio::try_join!(reading, preparing, answering).map(drop)?;
        Ok(write.shutdown().await?)
    }

    /// Looks up who may have what, and begins to read it.
    async fn prepare(&self, peer: PeerId, ask: &Ask, last: &mut Last) -> Result<Result<Answer, Reply>, BlobError> {
        let run = ask.run();
        let reader = match self.reader(peer, run, last).await? {
            Ok(reader) => reader,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let groups = GroupRanges::from(run.groups());
        Ok(Ok(match ask {
            Ask::Get(_) => Answer::Pieces(pieces(move || reader.encode(groups))),
            Ask::Tree(_) => Answer::Pieces(pieces(move || reader.encode_tree(groups))),
            Ask::Prove(_, nonce) => {
                let (asker, server, run, nonce) = (peer, self.me, run.clone(), *nonce);
                Answer::Proof(tokio::task::spawn_blocking(move || {
                    Question { asker, server, run: &run, nonce: &nonce }.answer(&reader)
                }))
            }
        }))
    }

    /// Answers one request. Without a prepared answer it is looked up anew: what was not here a
    /// moment ago may have come since, and nobody would tell the peer.
    async fn answer(
        &self,
        peer: PeerId,
        ask: &Ask,
        prepared: Option<Answer>,
        unanswered: &mut Unanswered,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BlobError> {
        let run = ask.run();
        let answer = match prepared {
            Some(answer) => Ok(answer),
            None => self.prepare(peer, ask, &mut None).await?,
        };
        let refusal = match answer {
            Ok(answer) => match self.send(run, answer, write).await? {
                Sent::All => return Ok(()),
                Sent::Damaged => Reply::None,
            },
            Err(refusal) => refusal,
        };
        if unanswered.len() < MAX_REMEMBERED {
            unanswered.insert((run.replica, run.hash));
        }
        refusal.write(write).await
    }

    /// A reader that has what is asked for, or the refusal. Not here, not given to this replica and
    /// not allowed look alike.
    async fn reader(&self, peer: PeerId, run: &Run, last: &mut Last) -> Result<Result<Reader, Reply>, BlobError> {
        if !self.may_read.may_read(peer, run.replica, run.hash).await {
            return Ok(Err(Reply::None));
        }
        let groups = run.groups();
        let same = |reader: &Reader| Hash::from(reader.hash()) == run.hash && reader.len() == run.len;
        if let Some((replica, reader)) = last
            && *replica == run.replica
            && same(reader)
            && reader.here().contains(&groups)
        {
            return Ok(Ok(reader.clone()));
        }
        let reader = match self.store.held_reader(run.replica, run.hash).await {
            Err(StoreError::Content(error)) if matches!(*error, ContentError::Damaged { .. }) => {
                self.damaged(run.hash).await?;
                None
            }
            reader => reader?,
        };
        let Some(reader) = reader.filter(same) else { return Ok(Err(Reply::None)) };
        if reader.here().contains(&groups) {
            *last = Some((run.replica, reader.clone()));
            return Ok(Ok(reader));
        }
        let mut some = GroupRanges::empty();
        for run in reader.here().iter().take(MAX_PART_RUNS) {
            some.insert(run);
        }
        Ok(Err(if some.is_empty() { Reply::None } else { Reply::Part(some) }))
    }

    async fn send(&self, run: &Run, answer: Answer, write: &mut (impl AsyncWrite + Unpin)) -> Result<Sent, BlobError> {
        let result = match answer {
            Answer::Pieces(mut pieces) => loop {
                match pieces.recv().await {
                    Some(Ok(bytes)) => Reply::Data(bytes).write(write).await?,
                    Some(Err(error)) => break Err(error),
                    None => break Ok(Reply::Done),
                }
            },
            Answer::Proof(proving) => {
                let proof = proving.await.map_err(|_| StoreError::Failed("hashing content panicked".into()))?;
                proof.map(Reply::Proof)
            }
        };
        match result {
            Ok(end) => {
                end.write(write).await?;
                Ok(Sent::All)
            }
            Err(ContentError::Damaged { .. }) => {
                self.damaged(run.hash).await?;
                Ok(Sent::Damaged)
            }
            Err(error) => Err(BlobError::Store(error.into())),
        }
    }

    async fn damaged(&self, hash: Hash) -> Result<(), StoreError> {
        tracing::warn!(%hash, "content is damaged on the disk; it is fetched again");
        self.store.content_damaged(hash).await
    }
}

/// An answer that is being made.
enum Answer {
    Pieces(mpsc::Receiver<Result<Bytes, ContentError>>),
    Proof(JoinHandle<Result<[u8; 32], ContentError>>),
}

/// Reads pieces ahead, on a blocking thread.
fn pieces(
    encode: impl FnOnce() -> Result<Encoder, ContentError> + Send + 'static,
) -> mpsc::Receiver<Result<Bytes, ContentError>> {
    let (sender, pieces) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || match encode() {
        // The stream is gone when nobody takes them.
        Ok(mut encoder) => {
            let _ = encoder.try_for_each(|piece| sender.blocking_send(piece));
        }
        Err(error) => drop(sender.blocking_send(Err(error))),
    });
    pieces
}

enum Sent {
    All,
    Damaged,
}
