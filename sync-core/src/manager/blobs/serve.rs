//! Answers a peer's requests for content: rights first, then bytes that are proved as they leave.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use sync_content::Encoder;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{broadcast, mpsc},
};

use super::{
    Arrived, BlobError, ContentReady, MAX_REMEMBERED, WINDOW,
    possession::Question,
    protocol::{self, Ask, MAX_PART_RUNS, Nonce, Reply, Run},
};
use crate::{
    model::{Hash, PeerId, ReplicaId},
    store::{ContentError, ContentStore, GroupRanges, Reader, StoreError},
    transport::ByteStream,
};

/// How many pieces of 64 KiB are read ahead of the stream.
const READ_AHEAD: usize = 4;

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
        let mut ready = self.ready.subscribe();
        let answering = async {
            let mut unanswered = Unanswered::new();
            let mut last = None;
            loop {
                tokio::select! {
                    biased;
                    request = requests.recv() => match request {
                        Some(ask) => self.answer(peer, &ask, &mut last, &mut unanswered, &mut write).await?,
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
                if requests.is_empty() {
                    write.flush().await?;
                }
            }
        };
        tokio::try_join!(reading, answering).map(drop)?;
        Ok(write.shutdown().await?)
    }

    async fn answer(
        &self,
        peer: PeerId,
        ask: &Ask,
        last: &mut Last,
        unanswered: &mut Unanswered,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BlobError> {
        let run = ask.run();
        let refusal = match self.reader(peer, run, last).await? {
            Ok(reader) => {
                let sent = match ask {
                    Ask::Get(run) => self.send(reader, run, Reader::encode, write).await?,
                    Ask::Tree(run) => self.send(reader, run, Reader::encode_tree, write).await?,
                    Ask::Prove(run, nonce) => self.prove(reader, peer, run, nonce, write).await?,
                };
                match sent {
                    Sent::All => return Ok(()),
                    Sent::Damaged => {
                        *last = None;
                        Reply::None
                    }
                }
            }
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

    async fn prove(
        &self,
        reader: Reader,
        asker: PeerId,
        run: &Run,
        nonce: &Nonce,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Sent, BlobError> {
        let (server, asked, nonce) = (self.me, run.clone(), *nonce);
        let proving =
            tokio::task::spawn_blocking(move || Question { asker, server, run: &asked, nonce: &nonce }.answer(&reader));
        match proving.await.map_err(|_| StoreError::Failed("hashing content panicked".into()))? {
            Ok(proof) => {
                Reply::Proof(proof).write(write).await?;
                Ok(Sent::All)
            }
            Err(ContentError::Damaged { .. }) => {
                self.damaged(run.hash).await?;
                Ok(Sent::Damaged)
            }
            Err(error) => Err(BlobError::Store(error.into())),
        }
    }

    async fn send(
        &self,
        reader: Reader,
        run: &Run,
        encode: fn(&Reader, GroupRanges) -> Result<Encoder, ContentError>,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Sent, BlobError> {
        let (sender, mut pieces) = mpsc::channel(READ_AHEAD);
        let groups = GroupRanges::from(run.groups());
        tokio::task::spawn_blocking(move || {
            let encoder = match encode(&reader, groups) {
                Ok(encoder) => encoder,
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            for piece in encoder {
                if sender.blocking_send(piece).is_err() {
                    return; // The stream is gone.
                }
            }
        });
        while let Some(piece) = pieces.recv().await {
            match piece {
                Ok(bytes) => Reply::Data(bytes).write(write).await?,
                Err(ContentError::Damaged { .. }) => {
                    self.damaged(run.hash).await?;
                    return Ok(Sent::Damaged);
                }
                Err(error) => return Err(BlobError::Store(error.into())),
            }
        }
        Reply::Done.write(write).await?;
        Ok(Sent::All)
    }

    async fn damaged(&self, hash: Hash) -> Result<(), StoreError> {
        tracing::warn!(%hash, "content is damaged on the disk; it is fetched again");
        self.store.content_damaged(hash).await
    }
}

enum Sent {
    All,
    Damaged,
}
