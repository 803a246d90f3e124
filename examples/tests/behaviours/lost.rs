//! Pushes that are lost for good: with the connection and the node that sent them, and after they were confirmed.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::{
    PeerAddress,
    machine::wire::Message,
    manager::Access,
    transport::{
        ByteStream, CloseReason, Connection, Incoming, StreamWrite, SyncTransport, TransportError, TransportErrorKind,
    },
};
use tokio::{io::AsyncWrite, sync::watch};

use crate::common::*;

on_every_real_wire! {
    b22_a_push_that_is_lost_with_its_connection_and_its_node_is_healed_by_the_next_exchange
    b22_a_push_that_is_lost_after_it_was_confirmed_is_healed_by_the_next_exchange
    b22_a_device_and_its_clone_that_are_up_at_once_become_equal_and_lose_nothing
}

/// How many entries are lost.
const LOST: u64 = 20;

/// What becomes of the next frame with entries.
#[derive(Debug)]
struct Thief {
    waits: AtomicBool,
    /// Whether it has one. From then on nothing passes any more, in any connection.
    has_one: watch::Sender<bool>,
}

impl Thief {
    /// Whether this frame is the one.
    fn takes(&self, frame: &[u8]) -> bool {
        let is_entries = matches!(Message::decode(Bytes::copy_from_slice(frame)), Ok(Some(Message::Entries(..))));
        let taken = is_entries && self.waits.swap(false, Ordering::SeqCst);
        if taken {
            self.has_one.send_replace(true);
        }
        taken
    }

    fn has_one(&self) -> bool {
        *self.has_one.borrow()
    }
}

/// A transport that loses a frame of entries, and the connection with it.
#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn SyncTransport>,
    thief: Arc<Thief>,
}

#[async_trait]
impl SyncTransport for Lossy {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        if self.thief.has_one() {
            return Err(TransportError::new(TransportErrorKind::Unreachable, "the test says so"));
        }
        let inner: Arc<dyn Connection> = self.inner.dial(address).await?.into();
        Ok(Box::new(LossyConnection { inner, thief: self.thief.clone() }))
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let (sender, mut accepted) = Incoming::channel();
        let addresses = self.inner.listen(sender).await?;
        let thief = self.thief.clone();
        tokio::spawn(async move {
            while let Some(inner) = accepted.recv().await {
                if !thief.has_one() {
                    incoming.offer(Box::new(LossyConnection { inner: inner.into(), thief: thief.clone() }));
                }
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

struct LossyConnection {
    inner: Arc<dyn Connection>,
    thief: Arc<Thief>,
}

impl fmt::Debug for LossyConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LossyConnection({:?})", self.inner)
    }
}

impl LossyConnection {
    fn lossy(&self, stream: ByteStream, kind_len: usize) -> ByteStream {
        let (inner, connection, thief) = (stream.write, self.inner.clone(), self.thief.clone());
        let write = LossyWrite { inner, connection, thief, kind_len, waiting: Vec::new(), passing: 0 };
        ByteStream { read: stream.read, write: Box::new(write) }
    }
}

#[async_trait]
impl Connection for LossyConnection {
    /// Who opens a stream says first what it is for.
    async fn open(&self) -> Result<ByteStream, TransportError> {
        Ok(self.lossy(self.inner.open().await?, 1))
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        Ok(self.lossy(self.inner.accept().await?, 0))
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

struct LossyWrite {
    inner: Box<dyn StreamWrite>,
    connection: Arc<dyn Connection>,
    thief: Arc<Thief>,
    /// How many bytes come before the first frame.
    kind_len: usize,
    /// What was written and has not passed: whole frames, and the beginning of one.
    waiting: Vec<u8>,
    /// How much of it was looked at.
    passing: usize,
}

impl LossyWrite {
    /// Looks at every frame that is whole.
    fn look(&mut self) -> io::Result<()> {
        let lost = || io::Error::from(io::ErrorKind::ConnectionReset);
        if self.thief.has_one() {
            return Err(lost());
        }
        self.passing = self.passing.max(self.kind_len.min(self.waiting.len()));
        while let Some((len, rest)) = self.waiting[self.passing..].split_first_chunk::<4>() {
            let Some(frame) = rest.get(..u32::from_be_bytes(*len) as usize) else { break };
            if self.thief.takes(frame) {
                self.connection.close(CloseReason::Done);
                return Err(lost());
            }
            self.passing += 4 + frame.len();
        }
        Ok(())
    }

    fn pass(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look()?;
        while self.passing > 0 {
            let passed = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.waiting[..self.passing]))?;
            self.waiting.drain(..passed);
            self.passing -= passed;
            self.kind_len = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl StreamWrite for LossyWrite {
    fn set_priority(&mut self, priority: i32) {
        self.inner.set_priority(priority);
    }
}

impl AsyncWrite for LossyWrite {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.pass(cx))?;
        self.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A frame with entries leaves A and never arrives; its connection ends, and then A does. What is left is what A's disk
/// says about how far B is.
async fn b22_a_push_that_is_lost_with_its_connection_and_its_node_is_healed_by_the_next_exchange(world: World) {
    let thief = Arc::new(Thief { waits: AtomicBool::new(false), has_one: watch::Sender::new(false) });
    let a = world.builder("a").spawn().await.unwrap();
    let inner = world.transport(world.wire, "a").await;
    a.add_transport(world.wire.name(), Arc::new(Lossy { inner, thief: thief.clone() })).await.unwrap();
    a.accept_connections().await.unwrap();
    let b = world.node("b").await;
    let left = a.create_replica().await.unwrap();
    let id = left.id();
    fill(&left, "base ", 50).await;
    let right = join(&left, &b, Access::WRITE).await;
    a.flush(LONG).await.unwrap();
    b.flush(LONG).await.unwrap();
    let before = peer_status(&b, id, a.node_id()).await.unwrap().traffic;
    thief.waits.store(true, Ordering::SeqCst);
    fill(&left, "lost ", LOST as usize).await;
    soon("the push is lost", thief.has_one.subscribe().wait_for(|has_one| *has_one)).await.unwrap();
    let peer = b.node_id();
    peer_is(&a, id, peer, "its connection is lost", |peer| peer.transport.is_none()).await;
    assert_eq!(value(&right, "lost 00000").await, None);
    a.shutdown(LONG).await.unwrap();
    drop((a, left));
    assert_eq!(value(&right, "lost 00000").await, None);
    // Before it meets anybody.
    let a = world.builder("a").spawn().await.unwrap();
    let left = a.open_replica(id).await.unwrap();
    assert_eq!(peer_status(&a, id, peer).await.unwrap().pending, LOST, "it is owed, the disk says");
    world.register(&a, world.wire.name(), world.wire, "a").await;
    // Nobody asks either for anything.
    equal(&[&left, &right]).await;
    let moved = peer_is(&b, id, a.node_id(), "it is synced", |peer| peer.synced).await.traffic.since(&before);
    assert_eq!((moved.received, moved.sent), (LOST, 0), "what was lost, once: {moved:?}");
}

/// B confirms a push, and its disk forgets it: it starts from a copy of what it was before, opened as often as it was,
/// so that A takes it for the same. Nothing is owed; only that the roots differ tells.
async fn b22_a_push_that_is_lost_after_it_was_confirmed_is_healed_by_the_next_exchange(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let id = left.id();
    fill(&left, "base ", 50).await;
    equal(&[&left, &right]).await;
    a.flush(LONG).await.unwrap();
    b.flush(LONG).await.unwrap();
    b.shutdown(LONG).await.unwrap();
    drop((b, right));
    world.back_up("b");
    let b = world.node("b").await;
    let (right, peer) = (b.open_replica(id).await.unwrap(), b.node_id());
    fill(&left, "lost ", LOST as usize).await;
    equal(&[&left, &right]).await;
    a.flush(LONG).await.unwrap();
    b.shutdown(LONG).await.unwrap();
    drop((b, right));
    world.restore("b");
    assert_eq!(peer_status(&a, id, peer).await.unwrap().pending, 0, "it was confirmed");
    // Before it meets anybody.
    let b = world.builder("b").spawn().await.unwrap();
    let right = b.open_replica(id).await.unwrap();
    assert_eq!(value(&right, "lost 00000").await, None, "its disk forgot it");
    assert_eq!(value(&right, "base 00049").await.unwrap(), b"value of base 49");
    world.register(&b, world.wire.name(), world.wire, "b").await;
    equal(&[&left, &right]).await;
    let moved = peer_is(&b, id, a.node_id(), "it is synced", |peer| peer.synced).await.traffic;
    assert_eq!((moved.received, moved.sent), (LOST, 0), "what was lost, once: {moved:?}");
}

/// All that a device has, its key included, is copied to another, and both are used at once: to their peer they are one node
/// with two logs, each of which goes on from the same place.
async fn b22_a_device_and_its_clone_that_are_up_at_once_become_equal_and_lose_nothing(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let id = left.id();
    fill(&left, "base ", 50).await;
    equal(&[&left, &right]).await;
    b.shutdown(LONG).await.unwrap();
    drop((b, right));
    world.back_up("b");
    let (b, clone) = (world.node("b").await, world.node("copy of b").await);
    assert_eq!(b.node_id(), clone.node_id());
    let (right, other) = (b.open_replica(id).await.unwrap(), clone.open_replica(id).await.unwrap());
    for turn in ["first ", "second "] {
        let prefixes = ["a ", "b ", "clone "].map(|name| format!("{turn}{name}"));
        tokio::join!(fill(&left, &prefixes[0], 20), fill(&right, &prefixes[1], 20), fill(&other, &prefixes[2], 20));
        equal(&[&left, &right, &other]).await;
        for replica in [&left, &right, &other] {
            for (prefix, n) in prefixes.iter().flat_map(|prefix| (0..20).map(move |n| (prefix, n))) {
                let wanted = format!("value of {prefix}{n}").into_bytes();
                assert_eq!(value(replica, &format!("{prefix}{n:05}")).await, Some(wanted), "{prefix}{n}");
            }
        }
    }
    a.shutdown(LONG).await.unwrap();
}
