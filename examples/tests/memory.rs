//! No ceiling but the disk: what is larger than the memory that two nodes together may hold passes on every transport,
//! with every byte that they hold counted.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "an allocator that counts can be written in no other way")]

#[allow(dead_code, unused_imports, unused_macros, reason = "the behaviours' tests use all of it")]
#[path = "behaviours/common.rs"]
mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use common::{Keep, Wire, World};
use sync_core::manager::Access;

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
