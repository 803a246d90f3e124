//! Fetchers and servers over pipes, with peers that cut, lie, stall and flood.

use std::{
    collections::HashSet,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use sync_content::{ContentDir, MemoryDisk};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, WriteHalf},
    sync::broadcast,
    task::JoinHandle,
};

use super::*;
use crate::{
    model::{PeerId, ReplicaId, SecretKey},
    store::{
        Begun, ContentStatus, ContentStore, EngineStore, Origin, Want,
        content::tests::{MapEngine, OTHER, REPLICA, number_replicas, refer_to, replace, unrefer_to},
    },
    transport::{ByteStream, StreamWrite},
};

const LONG: Duration = Duration::from_secs(30);
const MIB: u64 = 1024 * 1024;

fn peer(number: u8) -> PeerId {
    PeerId(SecretKey::from_bytes([number; 32]).public())
}

fn bytes(number: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn run(hash: Hash, len: u64, groups: std::ops::Range<u64>) -> Run {
    Run { replica: REPLICA, hash, len, start: groups.start, end: groups.end }
}

fn prove(hash: Hash, len: u64, groups: std::ops::Range<u64>) -> Ask {
    Ask::Prove(run(hash, len, groups), [5; 32])
}

struct All;

#[async_trait]
impl WantFilter for All {
    async fn is_allowed(&self, _: Want) -> bool {
        true
    }

    async fn base(&self, _: Want) -> Option<Hash> {
        None
    }

    async fn is_wanted(&self, _: PeerId, _: Want) -> bool {
        true
    }
}

#[async_trait]
impl MayRead for All {
    async fn may_read(&self, _: PeerId, _: ReplicaId, _: Hash) -> bool {
        true
    }
}

struct AllBut(Mutex<HashSet<Hash>>);

#[async_trait]
impl MayRead for AllBut {
    async fn may_read(&self, _: PeerId, _: ReplicaId, hash: Hash) -> bool {
        !self.0.lock().unwrap().contains(&hash)
    }
}

struct Node {
    store: Arc<EngineStore<MapEngine>>,
    engine: MapEngine,
    ready: ContentReady,
}

impl Node {
    fn on(engine: MapEngine, disk: &MemoryDisk) -> Self {
        let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
        number_replicas(&engine);
        let store = Arc::new(EngineStore::open_with(engine.clone(), [3; 32], dir).unwrap());
        Self { store, engine, ready: broadcast::channel(1024).0 }
    }

    fn new() -> Self {
        Self::on(MapEngine::default(), &MemoryDisk::new())
    }

    /// A node that has these contents.
    async fn with(contents: &[Vec<u8>]) -> Self {
        let node = Self::new();
        for content in contents {
            node.import(content).await;
        }
        node
    }

    async fn import(&self, content: &[u8]) -> Hash {
        let imported = self.store.import_bytes(content.to_vec().into()).await.unwrap();
        refer_to(&self.engine, REPLICA, imported.hash, imported.len, Origin::Local);
        // Nobody listening is no error.
        let _ = self.ready.send(Arrived::Held(REPLICA, imported.hash));
        imported.hash
    }

    fn want(&self, content: &[u8]) -> Hash {
        let hash = blake3::hash(content).into();
        refer_to(&self.engine, REPLICA, hash, content.len() as u64, Origin::Peer(peer(9)));
        hash
    }

    fn fetcher(&self) -> Arc<Fetcher> {
        Arc::new(Fetcher::new(self.store.clone(), Arc::new(All), self.ready.clone(), peer(100)))
    }

    fn server(&self, may_read: impl MayRead) -> Server {
        Server::new(self.store.clone(), Arc::new(may_read), self.ready.clone(), peer(101))
    }

    fn serve(&self, stream: ByteStream) -> JoinHandle<Result<(), BlobError>> {
        self.serve_as(peer(1), stream)
    }

    fn serve_as(&self, asker: PeerId, stream: ByteStream) -> JoinHandle<Result<(), BlobError>> {
        let server = self.server(All);
        tokio::spawn(async move { server.serve(asker, stream).await })
    }

    async fn has(&self, content: &[u8]) {
        let hash = blake3::hash(content).into();
        let mut ready = self.ready.subscribe();
        let wait = async {
            while !matches!(self.store.content_status(hash).await.unwrap(), ContentStatus::Complete { .. }) {
                let _ = tokio::time::timeout(Duration::from_millis(50), ready.recv()).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("the content arrives");
        let reader = self.store.reader(hash).await.unwrap().unwrap();
        assert_eq!(reader.read_to_vec(0..reader.len()).unwrap(), content);
    }
}

struct Writer(WriteHalf<DuplexStream>);

impl AsyncWrite for Writer {
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

impl StreamWrite for Writer {}

fn stream(end: DuplexStream) -> ByteStream {
    let (read, write) = tokio::io::split(end);
    ByteStream { read: Box::new(read), write: Box::new(Writer(write)) }
}

fn pipe() -> (ByteStream, ByteStream) {
    let (one, other) = tokio::io::duplex(64 * 1024);
    (stream(one), stream(other))
}

/// What happens to the bytes on their way from the server.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    /// The byte at this place is changed.
    Flip(u64),
    /// The stream ends here.
    Cut(u64),
}

/// Two ends of a stream with something in between; counts what the server sends.
fn meddled(way: Way) -> (ByteStream, ByteStream, Arc<AtomicU64>) {
    let (asker, near) = tokio::io::duplex(64 * 1024);
    let (far, server) = tokio::io::duplex(64 * 1024);
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
            (tokio::io::split(near), tokio::io::split(far));
        let requests = tokio::io::copy(&mut near_read, &mut far_write);
        let replies = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let len = far_read.read(&mut buffer).await?;
                if len == 0 {
                    return near_write.shutdown().await;
                }
                let at = counted.fetch_add(len as u64, Ordering::Relaxed);
                match way {
                    Way::Flip(place) if (at..at + len as u64).contains(&place) => buffer[(place - at) as usize] ^= 4,
                    Way::Cut(place) if at + len as u64 > place => return near_write.shutdown().await,
                    _ => {}
                }
                near_write.write_all(&buffer[..len]).await?;
            }
        };
        let _: io::Result<()> = tokio::select! {
            result = requests => result.map(drop),
            result = replies => result,
        };
    });
    (stream(asker), stream(server), count)
}

#[tokio::test]
async fn many_small_and_a_large_content_arrive_over_one_stream() {
    let mut contents: Vec<_> = (0..300).map(|number| bytes(number, 17_000 + number * 50)).collect();
    contents.push(bytes(1000, 9 * MIB + 5));
    contents.push(Vec::new());
    let (theirs, ours) = (Node::with(&contents).await, Node::new());
    for content in &contents {
        ours.want(content);
    }
    let (asker, server, sent) = meddled(Way::Plain);
    let serving = theirs.serve(server);
    let fetcher = ours.fetcher();
    let fetching = {
        let fetcher = fetcher.clone();
        tokio::spawn(async move { fetcher.fetch_from(peer(2), asker).await })
    };
    for content in &contents {
        ours.has(content).await;
    }
    let total: u64 = contents.iter().map(|content| content.len() as u64).sum();
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < total + total / 50, "{sent} bytes were sent for {total}");
    assert!(ours.store.wants(None, 10).await.unwrap().is_empty());
    // New wants need no new stream.
    let late = bytes(2000, 100_000);
    theirs.import(&late).await;
    ours.want(&late);
    fetcher.wake();
    ours.has(&late).await;
    fetching.abort();
    assert!(matches!(serving.await.unwrap(), Ok(()) | Err(BlobError::Stream(_))));
}

#[tokio::test]
async fn what_is_wanted_while_wants_are_read_is_found_in_the_next_pass_at_once() {
    let node = Node::new();
    // More than a page, so that a pass is in its middle.
    for number in 0..300_u64 {
        refer_to(&node.engine, REPLICA, blake3::hash(&number.to_le_bytes()).into(), 1, Origin::Peer(peer(9)));
    }
    let fetcher = node.fetcher();
    let shared = &fetcher.shared;
    let view = Mutex::new(choose::View::default());
    let next = async || {
        let seen = *shared.changes().borrow();
        shared.next_want(&view, seen).await.unwrap()
    };
    assert!(next().await.is_some());
    // Before all others in the order of the store, and so before where the pass is.
    let late = Hash([0; 32]);
    refer_to(&node.engine, REPLICA, late, 1, Origin::Peer(peer(9)));
    fetcher.wake();
    let mut seen = HashSet::new();
    while let Some(want) = next().await {
        seen.insert(want.hash);
    }
    assert!(seen.contains(&late), "it would be looked for after a while only");
    assert_eq!(seen.len(), 301);
    assert!(next().await.is_none());
}

#[tokio::test]
async fn b70_several_peers_give_disjoint_parts_of_one_content() {
    let content = bytes(1, 40 * MIB + 77);
    let ours = Node::new();
    ours.want(&content);
    let fetcher = ours.fetcher();
    let mut counts = Vec::new();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::with(std::slice::from_ref(&content)).await);
    }
    for (theirs, number) in nodes.iter().zip(0..) {
        let (asker, server, sent) = meddled(Way::Plain);
        counts.push(sent);
        theirs.serve(server);
        let fetcher = fetcher.clone();
        tokio::spawn(async move { fetcher.fetch_from(peer(number), asker).await });
    }
    ours.has(&content).await;
    let counts: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert!(counts.iter().all(|count| *count > MIB), "{counts:?}: each gave a part");
    let sent: u64 = counts.iter().sum();
    assert!(sent < content.len() as u64 * 102 / 100, "{counts:?}: nothing was sent twice");
}

/// Entries of [`OTHER`] refer to what [`REPLICA`] brought here: it does not move again when a peer
/// proves that it has it, and nobody is believed who does not.
#[tokio::test]
async fn b64_what_is_here_because_of_another_replica_is_proved_and_does_not_move() {
    let contents = [bytes(1, 70 * MIB + 5), bytes(2, 20_000)];
    let (theirs, ours) = (Node::with(&contents).await, Node::with(&contents).await);
    for content in &contents {
        let (hash, len) = (blake3::hash(content).into(), content.len() as u64);
        refer_to(&ours.engine, OTHER, hash, len, Origin::Peer(peer(9)));
    }
    assert_eq!(ours.store.count_wants(OTHER, 10).await.unwrap(), 2);
    let mut ready = ours.ready.subscribe();
    let fetcher = ours.fetcher();
    let (asker, server, sent) = meddled(Way::Plain);
    theirs.serve_as(peer(100), server);
    let fetching = tokio::spawn(async move { fetcher.fetch_from(peer(101), asker).await });
    // They have it in another replica than the one that is asked about: they do not say so.
    while sent.load(Ordering::Relaxed) < 2 * 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ours.store.count_wants(OTHER, 10).await.unwrap(), 2);
    for content in &contents {
        let (hash, len) = (blake3::hash(content).into(), content.len() as u64);
        refer_to(&theirs.engine, OTHER, hash, len, Origin::Local);
        theirs.ready.send(Arrived::Held(OTHER, hash)).unwrap();
    }
    for _ in &contents {
        let arrived = tokio::time::timeout(LONG, ready.recv()).await.unwrap().unwrap();
        assert!(matches!(arrived, Arrived::Held(OTHER, _)), "{arrived:?}");
    }
    assert_eq!(ours.store.count_wants(OTHER, 10).await.unwrap(), 0);
    assert!(sent.load(Ordering::Relaxed) < 1000, "proofs are small");
    fetching.abort();
}

#[tokio::test]
async fn b64_a_proof_for_somebody_else_is_a_lie() {
    let content = bytes(1, 100_000);
    let (theirs, ours) =
        (Node::with(std::slice::from_ref(&content)).await, Node::with(std::slice::from_ref(&content)).await);
    let (hash, len) = (blake3::hash(&content).into(), content.len() as u64);
    for node in [&theirs, &ours] {
        let origin = if std::ptr::eq(node, &theirs) { Origin::Local } else { Origin::Peer(peer(9)) };
        refer_to(&node.engine, OTHER, hash, len, origin);
    }
    // The peer passes the question on to somebody who has it, and who takes it for the peer's own; or
    // takes the answer for its own.
    for (asks, answers) in [(peer(1), peer(101)), (peer(100), peer(2))] {
        let (asker, server) = pipe();
        theirs.serve_as(asks, server);
        let error = tokio::time::timeout(LONG, ours.fetcher().fetch_from(answers, asker)).await.unwrap().unwrap_err();
        assert!(error.is_peers_fault(), "{error}");
        assert_eq!(ours.store.count_wants(OTHER, 10).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_new_version_of_a_content_moves_what_changed() {
    let old = bytes(1, 80 * MIB + 3);
    let mut new = old.clone();
    new[33_333_333..33_398_869].iter_mut().for_each(|byte| *byte ^= 0x55);
    let (theirs, ours) = (Node::with(std::slice::from_ref(&new)).await, Node::with(std::slice::from_ref(&old)).await);
    let (before, after) = (blake3::hash(&old).into(), blake3::hash(&new).into());
    replace(&ours.engine, before, after, new.len() as u64);
    let (asker, server, sent) = meddled(Way::Plain);
    theirs.serve(server);
    let fetcher = ours.fetcher();
    let fetching = {
        let fetcher = fetcher.clone();
        tokio::spawn(async move { fetcher.fetch_from(peer(2), asker).await })
    };
    ours.has(&new).await;
    // The tree has 64 bytes a group; five groups changed.
    let tree = new.len() as u64 / 256;
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < tree + 6 * 16 * 1024 + 20_000, "{sent} bytes");
    let moved = fetcher.traffic();
    assert!(moved.received <= sent && moved.resumed == 0, "{moved:?}");
    assert_eq!(moved.reused, new.len() as u64 - 5 * 16 * 1024);
    assert!(ours.store.wants(None, 10).await.unwrap().is_empty());
    fetching.abort();
}

#[tokio::test]
async fn b48_wants_that_end_without_having_come_are_waited_for_no_longer() {
    let ours = Node::new();
    let fetcher = ours.fetcher();
    let mut ready = ours.ready.subscribe();
    let (one, two) = (ours.want(&bytes(1, 20_000)), ours.want(&bytes(2, 20_000)));
    fetcher.touched(REPLICA).await;
    unrefer_to(&ours.engine, REPLICA, one);
    fetcher.touched(REPLICA).await;
    assert!(ready.try_recv().is_err(), "one is left");
    unrefer_to(&ours.engine, REPLICA, two);
    fetcher.touched(REPLICA).await;
    assert_eq!(ready.try_recv(), Ok(Arrived::All(REPLICA)));
    fetcher.touched(REPLICA).await;
    assert!(ready.try_recv().is_err(), "once");
}

#[tokio::test]
async fn a_download_that_nobody_wants_any_more_ends_and_leaves_nothing() {
    let (theirs, ours) = (Node::new(), Node::new());
    let content = bytes(1, 500_000);
    let hash = ours.want(&content);
    let (asker, server) = pipe();
    theirs.serve(server);
    let fetcher = ours.fetcher();
    let asking = Arc::clone(&fetcher);
    let fetching = tokio::spawn(async move { asking.fetch_from(peer(6), asker).await });
    // Something that it has shows that the other was asked for before.
    let known = bytes(2, 20_000);
    theirs.import(&known).await;
    ours.want(&known);
    fetcher.wake();
    ours.has(&known).await;
    let runs = || fetcher.active().iter().any(|download| download.hash == hash);
    fetcher.touched(REPLICA).await;
    assert!(runs(), "it is wanted still");
    unrefer_to(&ours.engine, REPLICA, hash);
    fetcher.touched(REPLICA).await;
    assert!(!runs());
    fetching.abort();
    // A worker may have it still.
    let is_free = async {
        while !matches!(ours.store.begin_download(hash, 500_000).await.unwrap(), Begun::Ours(_)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, is_free).await.expect("nobody holds it");
}

#[tokio::test]
async fn b71_a_wrong_byte_ends_that_peers_part_and_not_the_download() {
    let content = bytes(1, 20 * MIB);
    let (honest, liar, ours) = (
        Node::with(std::slice::from_ref(&content)).await,
        Node::with(std::slice::from_ref(&content)).await,
        Node::new(),
    );
    ours.want(&content);
    let fetcher = ours.fetcher();
    let (asker, server, _) = meddled(Way::Flip(2 * MIB));
    liar.serve(server);
    let error = tokio::time::timeout(LONG, fetcher.fetch_from(peer(3), asker)).await.unwrap().unwrap_err();
    assert!(matches!(error, BlobError::Unproved(_) | BlobError::Protocol(_)), "{error}");
    assert!(error.is_peers_fault());
    assert_eq!(fetcher.liars(), [(peer(3), error.to_string())]);
    let have = fetcher.active()[0].here;
    assert!(have > MIB, "what came before the lie stays");
    let (asker, server, sent) = meddled(Way::Plain);
    honest.serve(server);
    let fetching = tokio::spawn(async move { fetcher.fetch_from(peer(4), asker).await });
    ours.has(&content).await;
    assert!(sent.load(Ordering::Relaxed) < 19 * MIB + MIB / 2, "it is not asked for again");
    fetching.abort();
}

#[tokio::test]
async fn b70_after_a_restart_only_the_rest_is_asked_for() {
    let content = bytes(1, 24 * MIB);
    let theirs = Node::with(std::slice::from_ref(&content)).await;
    let disk = MemoryDisk::new();
    let ours = Node::on(MapEngine::default(), &disk);
    ours.want(&content);
    let (asker, server, _) = meddled(Way::Cut(10 * MIB));
    theirs.serve(server);
    let fetcher = ours.fetcher();
    let _ = fetcher.fetch_from(peer(5), asker).await;
    fetcher.close().await;
    drop(fetcher);
    let engine = ours.engine.clone();
    drop(ours);

    let ours = Node::on(engine, &disk);
    let (asker, server, sent) = meddled(Way::Plain);
    theirs.serve(server);
    let fetcher = ours.fetcher();
    let fetching = tokio::spawn(async move { fetcher.fetch_from(peer(5), asker).await });
    ours.has(&content).await;
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 15 * MIB, "{sent} bytes were sent again for the missing 14 MiB");
    fetching.abort();
}

#[tokio::test]
async fn b70_what_a_peer_does_not_have_yet_comes_as_soon_as_it_has_it() {
    // A busy machine may be late; who asks in vain always is.
    for _ in 0..3 {
        if comes_before_it_is_asked_for_again().await {
            return;
        }
    }
    panic!("it was not told, and asked in vain");
}

async fn comes_before_it_is_asked_for_again() -> bool {
    let (theirs, ours) = (Node::new(), Node::new());
    let content = bytes(1, 500_000);
    ours.want(&content);
    let (asker, server, sent) = meddled(Way::Plain);
    theirs.serve(server);
    let fetcher = ours.fetcher();
    let start = tokio::time::Instant::now();
    let fetching = tokio::spawn(async move { fetcher.fetch_from(peer(6), asker).await });
    let is_answered = async {
        while sent.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, is_answered).await.expect("it is told that the content is not there");
    theirs.import(&content).await;
    ours.has(&content).await;
    fetching.abort();
    start.elapsed() < ASK_AGAIN
}

#[tokio::test]
async fn b62_not_here_and_not_allowed_are_the_same_bytes() {
    let content = bytes(1, 100_000);
    let theirs = Node::with(std::slice::from_ref(&content)).await;
    let forbidden = blake3::hash(&content).into();
    let server = theirs.server(AllBut(Mutex::new([forbidden].into())));
    let mut answers = Vec::new();
    for hash in [forbidden, Hash([1; 32])] {
        let (mut asker, end) = pipe();
        let server = server.clone();
        let serving = tokio::spawn(async move { server.serve(peer(7), end).await });
        for ask in [Ask::Get(run(hash, 100_000, 0..7)), Ask::Get(run(hash, 5, 0..1)), prove(hash, 100_000, 0..7)] {
            protocol::write_ask(&mut asker.write, &ask).await.unwrap();
        }
        asker.write.shutdown().await.unwrap();
        let mut answer = Vec::new();
        asker.read.read_to_end(&mut answer).await.unwrap();
        serving.await.unwrap().unwrap();
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].len(), 3 * 5, "three frames of one byte");
}

#[tokio::test]
async fn a_part_is_offered_by_who_has_a_part() {
    let content = bytes(1, 8 * MIB);
    let (theirs, between, ours) = (Node::with(std::slice::from_ref(&content)).await, Node::new(), Node::new());
    between.want(&content);
    ours.want(&content);
    let (asker, server, _) = meddled(Way::Cut(5 * MIB));
    theirs.serve(server);
    let fetcher = between.fetcher();
    let _ = fetcher.fetch_from(peer(8), asker).await;
    fetcher.checkpoint().await;
    let have = fetcher.active()[0].here;
    let (asker, server, _) = meddled(Way::Plain);
    between.serve(server);
    let fetcher = ours.fetcher();
    let wait = async {
        while fetcher.active().first().is_none_or(|download| download.here < have) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        result = fetcher.fetch_from(peer(9), asker) => panic!("{result:?}"),
        result = tokio::time::timeout(LONG, wait) => result.expect("the part arrives"),
    }
    assert!(have > 3 * MIB && have < 8 * MIB, "{have}");
}

#[tokio::test]
async fn damaged_content_is_not_sent_and_is_wanted_again_where_it_is_damaged() {
    let content = bytes(1, 3 * MIB);
    let disk = MemoryDisk::new();
    let theirs = Node::on(MapEngine::default(), &disk);
    let hash = theirs.import(&content).await;
    let name = blake3::Hash::from(hash).to_hex();
    assert!(disk.rot(&Path::new("/").join(&name[..2]).join(name.as_str()), 2 * MIB, 1));
    let (mut asker, end) = pipe();
    theirs.serve(end);
    let len = content.len() as u64;
    protocol::write_ask(&mut asker.write, &Ask::Get(run(hash, len, 0..192))).await.unwrap();
    let mut last = None;
    while let Some(reply) = protocol::read_reply(&mut asker.read).await.unwrap() {
        let ended = !matches!(reply, Reply::Data(_));
        last = Some(reply);
        if ended {
            break;
        }
    }
    assert_eq!(last, Some(Reply::None));
    assert_eq!(theirs.store.wants(None, 10).await.unwrap(), [Want { replica: REPLICA, hash, len, base: None }]);
}

#[tokio::test]
async fn b77_an_asker_that_breaks_the_protocol_loses_its_stream() {
    let content = bytes(1, MIB);
    let theirs = Node::with(std::slice::from_ref(&content)).await;
    let hash: Hash = blake3::hash(&content).into();
    // Garbage.
    let (mut asker, end) = pipe();
    let serving = theirs.serve(end);
    asker.write.write_all(&[0xff; 64]).await.unwrap();
    assert!(matches!(serving.await.unwrap(), Err(BlobError::Protocol(_))));
    // More requests than the window, and nothing read.
    let (mut asker, end) = pipe();
    let serving = theirs.serve(end);
    let get = Ask::Get(run(hash, content.len() as u64, 0..64));
    for _ in 0..4 * WINDOW {
        if protocol::write_ask(&mut asker.write, &get).await.is_err() {
            break;
        }
    }
    assert!(matches!(serving.await.unwrap(), Err(BlobError::Protocol(_))));
}

#[tokio::test]
async fn b77_a_server_that_breaks_the_protocol_loses_its_stream() {
    let content = bytes(1, MIB);
    let replies: &[&[Reply]] = &[
        // Done before all came; data that nobody asked for, after the answer.
        &[Reply::Done],
        &[Reply::None, Reply::None],
        &[Reply::Data(vec![0; 64].into())],
        &[Reply::Proof([0; 32])],
    ];
    for replies in replies {
        let ours = Node::new();
        ours.want(&content);
        let (asker, mut end) = pipe();
        let fetcher = ours.fetcher();
        let fetching = tokio::spawn(async move { fetcher.fetch_from(peer(10), asker).await });
        protocol::read_ask(&mut end.read).await.unwrap().unwrap();
        for reply in *replies {
            reply.write(&mut end.write).await.unwrap();
        }
        let result = tokio::time::timeout(LONG, fetching).await.unwrap().unwrap();
        assert!(result.is_err_and(|error| error.is_peers_fault()), "{replies:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn b78_a_silent_peer_is_given_up_and_its_part_is_free() {
    let content = bytes(1, MIB);
    let ours = Node::new();
    ours.want(&content);
    let (asker, mut end) = pipe();
    let fetcher = ours.fetcher();
    let fetching = {
        let fetcher = fetcher.clone();
        tokio::spawn(async move { fetcher.fetch_from(peer(11), asker).await })
    };
    protocol::read_ask(&mut end.read).await.unwrap().expect("it asks");
    // The clock does not go by itself while the worker waits on its thread.
    while !fetching.is_finished() {
        tokio::time::advance(STALL_DEADLINE / 4).await;
    }
    assert!(matches!(fetching.await.unwrap(), Err(BlobError::Stalled)));
    tokio::time::resume();
    assert_eq!(fetcher.active().len(), 1);
    let theirs = Node::with(std::slice::from_ref(&content)).await;
    let (asker, server) = pipe();
    theirs.serve(server);
    tokio::spawn(async move { fetcher.fetch_from(peer(12), asker).await });
    ours.has(&content).await;
}
