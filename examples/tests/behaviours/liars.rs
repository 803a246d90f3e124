//! Peers that lie about contents: honest nodes on real transports, and what they send is meddled with on its way out.

use std::{
    collections::BTreeSet,
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    machine::wire::StreamKind,
    manager::{Access, ManagerError},
    model::Hash,
    store::ContentStatus,
    transport::{ByteStream, CloseReason, Connection, Incoming, StreamWrite, SyncTransport, TransportError},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    common::*,
    contents::{blob_of, bytes, content_ready},
};

on_every_wire! {
    b69_b70_b71_a_content_comes_from_who_is_honest_and_nothing_else_is_kept
}

/// What a liar does with the contents that it is asked for, on each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// A byte is another.
    WrongByte,
    /// A byte is missing.
    WrongLength,
    /// The stream ends.
    Stops,
}

/// After so many bytes.
const LIES_AT: u64 = 100_000;

/// The size of what is proved at once.
const GROUP_LEN: usize = 16 * 1024;

/// A transport whose owner lies.
#[derive(Debug)]
struct Lying {
    inner: Arc<dyn SyncTransport>,
    lie: Lie,
}

#[async_trait]
impl SyncTransport for Lying {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        let inner = self.inner.dial(address).await?;
        Ok(Box::new(LyingConnection { inner, lie: self.lie }))
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let (sender, mut accepted) = Incoming::channel();
        let addresses = self.inner.listen(sender).await?;
        let lie = self.lie;
        tokio::spawn(async move {
            while let Some(inner) = accepted.recv().await {
                incoming.offer(Box::new(LyingConnection { inner, lie }));
            }
        });
        Ok(addresses)
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        self.inner.stop_listening().await
    }

    async fn close(&self) {
        self.inner.close().await
    }
}

struct LyingConnection {
    inner: Box<dyn Connection>,
    lie: Lie,
}

impl fmt::Debug for LyingConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LyingConnection({:?})", self.lie)
    }
}

#[async_trait]
impl Connection for LyingConnection {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        self.inner.open().await
    }

    /// Who asks for contents opens the stream: what is accepted is answered with lies.
    async fn accept(&self) -> Result<ByteStream, TransportError> {
        let ByteStream { read, write } = self.inner.accept().await?;
        let kind = Arc::new(AtomicU8::new(u8::MAX));
        let write = LyingWrite { inner: write, kind: kind.clone(), lie: self.lie, taken: 0 };
        Ok(ByteStream { read: Box::new(KindRead { inner: read, kind }), write: Box::new(write) })
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.inner.channel_binding()
    }

    async fn closed(&self) -> TransportError {
        self.inner.closed().await
    }

    fn close(&self, reason: CloseReason) {
        self.inner.close(reason);
    }
}

/// Notes the first byte: what the stream is for.
struct KindRead {
    inner: Box<dyn AsyncRead + Send + Sync + Unpin>,
    kind: Arc<AtomicU8>,
}

impl AsyncRead for KindRead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if let Some(first) = buf.filled().get(before) {
            let _ = self.kind.compare_exchange(u8::MAX, *first, Ordering::SeqCst, Ordering::SeqCst);
        }
        Poll::Ready(Ok(()))
    }
}

struct LyingWrite {
    inner: Box<dyn StreamWrite>,
    kind: Arc<AtomicU8>,
    lie: Lie,
    /// How many bytes were taken from the liar.
    taken: u64,
}

impl StreamWrite for LyingWrite {
    fn set_priority(&mut self, priority: i32) {
        self.inner.set_priority(priority);
    }
}

impl AsyncWrite for LyingWrite {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let left = LIES_AT.saturating_sub(self.taken) as usize;
        let is_content = self.kind.load(Ordering::SeqCst) == StreamKind::Content as u8;
        let taken = match self.lie {
            _ if !is_content || self.taken > LIES_AT => ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?,
            _ if left > 0 => ready!(Pin::new(&mut self.inner).poll_write(cx, &bytes[..left.min(bytes.len())]))?,
            Lie::WrongByte => ready!(Pin::new(&mut self.inner).poll_write(cx, &[bytes[0] ^ 1]))?,
            Lie::WrongLength => 1,
            Lie::Stops => {
                ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        };
        self.taken += taken as u64;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How many groups of a content a node keeps; each of its bytes is one of the content.
fn kept(world: &World, node: &str, hash: Hash, value: &[u8]) -> usize {
    let path = world.content_dir(node).join("partial").join(hash.to_string());
    let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(kept.len() <= value.len());
    let groups = kept.chunks(GROUP_LEN).zip(value.chunks(GROUP_LEN));
    groups
        .enumerate()
        .filter(|(number, (kept, group))| {
            let is_here = kept.iter().any(|byte| *byte != 0);
            assert!(!is_here || kept == group, "group {number} was kept and is not the content's");
            is_here
        })
        .count()
}

async fn b69_b70_b71_a_content_comes_from_who_is_honest_and_nothing_else_is_kept(world: World) {
    let world = World::new(world.wire, Keep::Redb);
    let a = world.node("honest").await;
    let left = a.create_replica().await.unwrap();
    let value = bytes(12 << 20, 71);
    left.put("large", value.clone()).await.unwrap();
    let hash = blob_of(&left, "large").await;
    let mut ticket = left.share(Access::READ).await.unwrap();
    let mut liars = Vec::new();
    for lie in [Lie::WrongByte, Lie::WrongLength, Lie::Stops] {
        let name = format!("{lie:?}");
        let liar = world.builder(&name).spawn().await.unwrap();
        let inner = world.transport(world.wire, &name).await;
        liar.add_transport("lies", Arc::new(Lying { inner, lie })).await.unwrap();
        liar.accept_connections().await.unwrap();
        let replica = join(&left, &liar, Access::READ).await;
        content_ready(&liar, &replica, "large").await;
        liars.push((lie, liar, replica));
    }
    // B knows none but them.
    let b = world.node("b").await;
    (ticket.peer, ticket.addresses) = (Some(liars[0].1.node_id()), liars[0].1.addresses().await.unwrap());
    let right = b.join(ticket).await.unwrap();
    let id = right.id();
    for (_, liar, _) in &liars {
        b.add_peer(liar.node_id(), liar.addresses().await.unwrap()).await.unwrap();
        b.subscribe(id, liar.node_id()).await.unwrap();
        b.wait_synced(id, liar.node_id(), LONG).await.unwrap();
    }
    // Who can be caught is named; a stream may end for many reasons.
    let expected: BTreeSet<String> = liars
        .iter()
        .filter(|(lie, ..)| *lie != Lie::Stops)
        .map(|(_, liar, _)| format!("contents from peer {}", liar.node_id().short()))
        .collect();
    let mut events = b.events();
    soon("the liars are named", async {
        loop {
            let why = b.why().await.unwrap();
            let named = why.iter().filter(|obstacle| obstacle.subject.starts_with("contents from"));
            let named = named.inspect(|obstacle| {
                assert!(obstacle.cause.contains("lied") || obstacle.cause.contains("broke"), "{obstacle:?}");
                assert!(obstacle.advice.contains("others are asked"), "{obstacle:?}");
            });
            if named.map(|obstacle| obstacle.subject.clone()).collect::<BTreeSet<_>>() == expected {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
        }
    })
    .await;
    assert!(matches!(right.read("large").await, Err(ManagerError::ContentMissing)));
    b.shutdown(LONG).await.unwrap();
    drop((b, right));
    let groups = kept(&world, "b", hash, &value);
    assert!((1..value.len() / GROUP_LEN).contains(&groups), "what was proved before the lies stays: {groups} groups");
    // The liars are still there, and then somebody honest is too.
    let b = world.node("b").await;
    let right = b.open_replica(id).await.unwrap();
    let status = right.content_status(hash).await.unwrap();
    assert!(matches!(status, ContentStatus::Partial { have, .. } if have >= GROUP_LEN as u64), "{status:?}");
    b.add_peer(a.node_id(), a.addresses().await.unwrap()).await.unwrap();
    b.subscribe(id, a.node_id()).await.unwrap();
    content_ready(&b, &right, "large").await;
    assert!(right.read("large").await.unwrap().unwrap() == value, "every byte");
    assert!(b.status().await.unwrap().content_bytes.resumed > 0, "it went on where it was");
}
