//! Answers a peer's requests for content: rights first, then bytes that are proved as they leave.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{broadcast, mpsc},
};

use super::{
    BlobError, ContentReady, MAX_REMEMBERED, WINDOW,
    protocol::{self, Get, MAX_PART_RUNS, Reply},
};
use crate::{
    model::{Hash, PeerId},
    store::{ContentError, ContentStore, GroupRanges, Reader, StoreError},
    transport::ByteStream,
};

/// How many pieces of 64 KiB are read ahead of the stream.
const READ_AHEAD: usize = 4;

/// Decides whether a peer may have a content: whether an entry refers to it that the peer may read.
#[async_trait]
pub trait MayRead: Send + Sync + 'static {
    /// Asked before each answer. Fails closed.
    async fn may_read(&self, peer: PeerId, hash: Hash) -> bool;
}

/// Serves content to peers.
#[derive(Clone)]
pub struct Server {
    store: Arc<dyn ContentStore>,
    may_read: Arc<dyn MayRead>,
    ready: ContentReady,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("store", &self.store).finish()
    }
}

/// What a peer asked for and did not get; it is told when it is here.
type Unanswered = HashSet<Hash>;

impl Server {
    /// A server of what `store` has; `ready` says what becomes complete.
    pub fn new(store: Arc<dyn ContentStore>, may_read: Arc<dyn MayRead>, ready: ContentReady) -> Self {
        Self { store, may_read, ready }
    }

    /// Answers on `stream` until the peer ends it.
    pub async fn serve(&self, peer: PeerId, stream: ByteStream) -> Result<(), BlobError> {
        let ByteStream { mut read, mut write } = stream;
        let (sender, mut requests) = mpsc::channel(WINDOW);
        let reading = async move {
            while let Some(get) = protocol::read_get(&mut read).await? {
                // More than the window would mean a queue that the peer can grow.
                if sender.try_send(get).is_err() {
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
                        Some(get) => self.answer(peer, &get, &mut last, &mut unanswered, &mut write).await?,
                        None => return Ok(()),
                    },
                    hash = ready.recv() => match hash {
                        Ok(hash) if unanswered.contains(&hash) && self.may_read.may_read(peer, hash).await => {
                            unanswered.remove(&hash);
                            Reply::Ready(hash).write(&mut write).await?;
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

    /// Answers one request. `last` is the reader of the last one: requests for one content follow
    /// each other.
    async fn answer(
        &self,
        peer: PeerId,
        get: &Get,
        last: &mut Option<Reader>,
        unanswered: &mut Unanswered,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BlobError> {
        let refusal = match self.reader(peer, get, last).await? {
            Ok(reader) => match self.send(reader, get, write).await? {
                Sent::All => return Reply::Done.write(write).await,
                Sent::Damaged => {
                    *last = None;
                    Reply::None
                }
            },
            Err(refusal) => refusal,
        };
        if unanswered.len() < MAX_REMEMBERED {
            unanswered.insert(get.hash);
        }
        refusal.write(write).await
    }

    /// A reader that has what is asked for, or the refusal. Not here and not allowed look alike.
    async fn reader(
        &self,
        peer: PeerId,
        get: &Get,
        last: &mut Option<Reader>,
    ) -> Result<Result<Reader, Reply>, BlobError> {
        if !self.may_read.may_read(peer, get.hash).await {
            return Ok(Err(Reply::None));
        }
        let groups = get.start..get.end;
        let same = |reader: &Reader| Hash::from(reader.hash()) == get.hash && reader.len() == get.len;
        if let Some(reader) = last.as_ref().filter(|reader| same(reader) && reader.here().contains(&groups)) {
            return Ok(Ok(reader.clone()));
        }
        let reader = match self.store.reader(get.hash).await {
            Err(StoreError::Content(error)) if matches!(*error, ContentError::Damaged { .. }) => {
                self.damaged(get.hash).await?;
                None
            }
            reader => reader?,
        };
        let Some(reader) = reader.filter(same) else { return Ok(Err(Reply::None)) };
        if reader.here().contains(&groups) {
            *last = Some(reader.clone());
            return Ok(Ok(reader));
        }
        let mut some = GroupRanges::empty();
        for run in reader.here().iter().take(MAX_PART_RUNS) {
            some.insert(run);
        }
        Ok(Err(if some.is_empty() { Reply::None } else { Reply::Part(some) }))
    }

    async fn send(&self, reader: Reader, get: &Get, write: &mut (impl AsyncWrite + Unpin)) -> Result<Sent, BlobError> {
        let (sender, mut pieces) = mpsc::channel(READ_AHEAD);
        let groups = GroupRanges::from(get.start..get.end);
        tokio::task::spawn_blocking(move || {
            let encoder = match reader.encode(groups) {
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
                    self.damaged(get.hash).await?;
                    return Ok(Sent::Damaged);
                }
                Err(error) => return Err(BlobError::Store(error.into())),
            }
        }
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
