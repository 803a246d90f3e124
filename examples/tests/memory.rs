//! With every byte counted that nodes hold: no ceiling but the disk, as what is larger than the memory that two nodes
//! together may hold passes on every transport; and floods that have no end are held in a few megabytes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "an allocator that counts can be written in no other way")]

#[allow(dead_code, unused_imports, unused_macros, reason = "the behaviours' tests use all of it")]
#[path = "behaviours/common.rs"]
mod common;
#[allow(dead_code, reason = "the behaviours' tests use all of it")]
#[path = "behaviours/stranger.rs"]
mod stranger;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use common::{Keep, Pair, Wire, World, pair, soon};
use stranger::{Hostile, receive, send, unharmed};
use sync_core::{
    machine::{
        Direction,
        wire::{Mark, Message, Open, StreamKind},
    },
    manager::Access,
    model::{Digest, ReplicaId, SecretKey},
    store::{Position, StoreId},
    transport::{ByteStream, Connection},
};
use tokio::{io::AsyncWriteExt, sync::Mutex};

/// Held by the test that counts.
static COUNTS: Mutex<()> = Mutex::const_new(());

/// The system's allocator, with what the process holds.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn hold(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
}

fn release(bytes: usize) {
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        release(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it is moved both are held.
        hold(size);
        release(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that both nodes may hold together, their stores' caches included.
const BOUND: usize = 160 << 20;

/// What passes: so much in entries, and as much again in one value.
const SIZE: usize = 192 << 20;

const VALUE_LEN: usize = 16 * 1024;

/// What takes this long does not happen.
const PATIENCE: Duration = Duration::from_secs(300);

/// Writes a file that repeats nowhere.
fn write_file(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let mut random = sync_core::testing::random::Random::new(37);
    for _ in 0..SIZE >> 20 {
        let piece: Vec<u8> = (0..1 << 17).flat_map(|_| random.bits().to_le_bytes()).collect();
        file.write_all(&piece).unwrap();
    }
}

fn same(left: &Path, right: &Path) -> bool {
    let [mut left, mut right] = [left, right].map(|path| std::fs::File::open(path).unwrap());
    let (mut mine, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    left.metadata().unwrap().len() == right.metadata().unwrap().len()
        && (0..SIZE >> 20).all(|_| {
            left.read_exact(&mut mine).unwrap();
            right.read_exact(&mut theirs).unwrap();
            mine == theirs
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b37_a_bootstrap_and_a_value_larger_than_memory_pass_on_every_transport() {
    let _alone = COUNTS.lock().await;
    let world = World::new(Wire::Memory, Keep::Redb);
    let a = world.node_on("a", &Wire::ALL).await;
    let left = a.create_replica().await.unwrap();
    for batch in 0..SIZE >> 20 {
        let mut transaction = left.write();
        for n in 0..(1 << 20) / VALUE_LEN {
            transaction.put(format!("{batch:03}/{n:02}"), vec![(batch ^ n) as u8; VALUE_LEN]).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let (file, copy) = (dir.path().join("file"), dir.path().join("copy"));
    write_file(&file);
    left.put_file("file", &file).await.unwrap();
    for wire in Wire::ALL {
        MOST.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
        let b = world.node_on(wire.name(), &[wire]).await;
        let mut ticket = left.share(Access::READ).await.unwrap();
        ticket.addresses.retain(|address| address.scheme() == wire.scheme());
        let right = b.join(ticket).await.unwrap();
        b.wait_synced(right.id(), a.node_id(), PATIENCE).await.unwrap();
        assert_eq!(right.state().await.unwrap().root, left.state().await.unwrap().root);
        b.status_when(PATIENCE, |status| status.replicas[0].blobs_missing == 0).await.unwrap();
        assert!(right.export("file", &copy).await.unwrap());
        let most = MOST.load(Ordering::Relaxed);
        println!(
            "{}: {} MiB held at most for {} MiB of entries and as much content",
            wire.name(),
            most >> 20,
            SIZE >> 20
        );
        assert!(most < BOUND, "{}: {most} bytes held of {BOUND}", wire.name());
        assert!(same(&file, &copy));
        b.shutdown(PATIENCE).await.unwrap();
        drop((b, right));
        world.wipe(wire.name());
    }
}

/// Who is not read for so long gives up flooding.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// The most that a flood may add to what is held, at the node and at the stranger. Each flood would be more.
const FLOOD_BOUND: usize = 32 << 20;

/// How many messages a flood has: over three transports it makes a million.
const FLOOD: usize = 333_334;

/// How many pings it has, and how many marks in a session.
const MORE: usize = 200_000;

/// Writes frames again and again, until there were enough or nobody takes them any more. Answers how many there were.
async fn pour(stream: &mut ByteStream, frame: &[u8], count: usize, patience: Duration) -> usize {
    let one = [&u32::try_from(frame.len()).unwrap().to_be_bytes(), frame].concat();
    let (piece, mut poured) = (one.repeat((64 << 10) / one.len() + 1), 0);
    while poured < count {
        let written = tokio::time::timeout(patience, stream.write_all(&piece)).await;
        if !matches!(written, Ok(Ok(()))) || stream.flush().await.is_err() {
            break;
        }
        poured += piece.len() / one.len();
    }
    poured
}

/// A session of a member with a node, once the node has let it in.
async fn session(member: &Hostile, connection: &dyn Connection, pair: &Pair) -> ByteStream {
    let mut session = connection.open().await.unwrap();
    session.write_all(&[StreamKind::Session as u8]).await.unwrap();
    let open = Open {
        replica: pair.id(),
        store: StoreId([7; 16]),
        head: Position(1),
        root: Digest::EMPTY,
        have: None,
        direction: Direction::Both,
        asks: false,
        credentials: Vec::new(),
    };
    send(&mut session, &Message::Open(open).encode()).await.unwrap();
    let opened = soon("a member is let in", receive(&mut session)).await.unwrap();
    assert!(matches!(Message::decode(opened), Ok(Some(Message::Opened(_)))), "{:?}", member.key);
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b77_a_million_frames_and_streams_and_marks_without_end_are_held_in_a_few_megabytes() {
    let _alone = COUNTS.lock().await;
    for wire in [Wire::Quic, Wire::Iroh, Wire::Http] {
        let world = World::new(wire, Keep::Memory);
        let pair = pair(&world).await;
        let mut events = pair.a.events();
        let secret = pair.left.share(Access::WRITE).await.unwrap().invite.unwrap().secret;
        let member = Hostile { key: secret, ..Hostile::new(&world).await };
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let held = |what: &str| {
            let most = MOST.swap(HELD.load(Ordering::Relaxed), Ordering::Relaxed).saturating_sub(before);
            println!("{}: {} KiB more held at most: {what}", wire.name(), most >> 10);
            assert!(most < FLOOD_BOUND, "{}: {most} bytes held of {FLOOD_BOUND}: {what}", wire.name());
        };

        // What a later version may say is skipped, and what follows is answered.
        let connection = member.dial(&pair.a).await;
        let mut control = member.shake(&*connection).await;
        let poured = pour(&mut control, &[200; 250], FLOOD, PATIENCE).await;
        assert!(poured >= FLOOD, "{poured} unknown messages taken");
        send(&mut control, &Message::Ping(42).encode()).await.unwrap();
        let answered =
            async { while Message::decode(receive(&mut control).await.unwrap()) != Ok(Some(Message::Pong(42))) {} };
        soon("the ping is answered", answered).await;
        held(&format!("{poured} unknown messages of 250 bytes"));

        // Who asks and does not listen is not read any more, or loses the link.
        let poured = pour(&mut control, &Message::Ping(7).encode(), MORE, GIVEN_UP).await;
        drop((control, connection));
        held(&format!("{poured} pings whose answers nobody reads"));

        // Streams without end.
        let connection = member.dial(&pair.a).await;
        let control = member.shake(&*connection).await;
        let mut streams = 0;
        for _ in 0..5_000 {
            let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_secs(2), connection.open()).await else {
                break;
            };
            let kind = [StreamKind::Session as u8];
            if tokio::time::timeout(GIVEN_UP, stream.write_all(&kind)).await.is_err() {
                break;
            }
            streams += 1;
        }
        drop((control, connection));
        held(&format!("{streams} streams that say nothing"));

        // Marks without end in a session.
        let connection = member.dial(&pair.a).await;
        let control = member.shake(&*connection).await;
        let mut marks = session(&member, &*connection, &pair).await;
        let mark = Mark { durable: 0, received: 0, through: Some(Position(1)), root: None, synced: false };
        let poured = pour(&mut marks, &Message::Mark(mark).encode(), MORE, GIVEN_UP).await;
        drop((marks, control, connection));
        held(&format!("{poured} marks"));

        unharmed(&pair, &mut events).await;
        pair.a.shutdown(PATIENCE).await.unwrap();
        pair.b.shutdown(PATIENCE).await.unwrap();
    }
}

/// How many strangers come and go, and how many bytes one of them may leave behind.
const STRANGERS: usize = 3_000;
const LEFT: usize = 100;

/// How long nothing more is given back before what is held counts as what stays.
const SETTLED: Duration = Duration::from_secs(2);

/// What is held when everything that is going is gone.
async fn what_stays() -> usize {
    let (mut least, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < SETTLED {
        let held = HELD.load(Ordering::Relaxed);
        if held < least {
            (least, since) = (held, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    least
}

/// So many strangers, each under a name of its own, ask for a replica that is not here, and go.
async fn pass_by(road: &Hostile, pair: &Pair, strangers: usize) {
    for _ in 0..strangers {
        let stranger = Hostile { key: SecretKey::generate(), transport: road.transport.clone() };
        let connection = stranger.dial(&pair.a).await;
        let _control = stranger.shake(&*connection).await;
        let mut session = connection.open().await.unwrap();
        session.write_all(&[StreamKind::Session as u8]).await.unwrap();
        let open = Open {
            replica: ReplicaId(SecretKey::generate().public()),
            store: StoreId([7; 16]),
            head: Position(1),
            root: Digest::EMPTY,
            have: None,
            direction: Direction::Both,
            asks: false,
            credentials: Vec::new(),
        };
        send(&mut session, &Message::Open(open).encode()).await.unwrap();
        let refused = soon("a stranger is refused", receive(&mut session)).await.unwrap();
        assert!(matches!(Message::decode(refused), Ok(Some(Message::Refuse(_)))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b80_of_thousands_of_strangers_who_asked_and_went_no_byte_each_is_left() {
    let _alone = COUNTS.lock().await;
    for wire in [Wire::Quic, Wire::Http] {
        let world = World::new(wire, Keep::Memory);
        let pair = pair(&world).await;
        let road = Hostile::new(&world).await;
        // Then tables and caches, those of the strangers' own transport too, are as large as they get.
        pass_by(&road, &pair, STRANGERS / 3).await;
        let before = what_stays().await;
        pass_by(&road, &pair, STRANGERS).await;
        let after = what_stays().await;
        println!("{}: {before} bytes held before, {after} after {STRANGERS} strangers", wire.name());
        assert!(after < before + STRANGERS * LEFT, "{}: {before} bytes before, {after} after", wire.name());
        assert_eq!(pair.a.peers().await.unwrap().len(), 1, "those who passed by are no peers");
        pair.a.shutdown(PATIENCE).await.unwrap();
        pair.b.shutdown(PATIENCE).await.unwrap();
    }
}
