//! How redb is used: two phases a commit, and no more memory than its cache may take.

#![allow(unsafe_code, reason = "an allocator that counts can be written in no other way")]

mod disk;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use disk::{Disk, Operation};
use store_redb::RedbEngine;
use sync_core::store::{Engine, EngineRead, Scan};

/// The system's allocator, with what the process holds.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The tests of this file run one after the other: each counts what the process holds.
static ONE: Mutex<()> = Mutex::new(());

fn hold(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// redb's one-phase commit flushes once and trusts checksums over data that others chose.
#[test]
fn every_commit_of_redb_has_two_phases() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let disk = Disk::default();
    let engine = {
        let disk = disk.clone();
        RedbEngine::with_backend(move || Ok(disk.clone())).expect("an empty disk can be used")
    };
    for number in 0..20u64 {
        let before = disk.operations();
        let commit = engine.write(&mut |writer| writer.put(&number.to_be_bytes(), &[7; 100]));
        commit.expect("the disk works");
        let phases = disk.since(before).iter().filter(|operation| matches!(operation, Operation::Sync)).count();
        assert_eq!(phases, 2, "commit {number}");
    }
}

#[test]
fn a_store_larger_than_its_cache_is_written_and_read_within_it() {
    const SIZE: usize = 160 << 20;
    // The cache, and in memory the rows that are being folded and as many that come meanwhile.
    const BOUND: usize = 64 << 20;
    const VALUE_LEN: usize = 16 * 1024;
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().expect("a directory can be made");
    let engine = RedbEngine::open(directory.path().join("store.redb")).expect("a store can be made");
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    // In large transactions, which go to redb, and in small ones, which go into the journal.
    let mut number = 0u64;
    while (number as usize) < SIZE / VALUE_LEN {
        let rows = if number.is_multiple_of(128) { 64 } else { 4 };
        let commit = engine.write(&mut |writer| {
            for row in number..number + rows {
                let key = blake3::hash(&row.to_be_bytes());
                writer.put(key.as_bytes(), &[row as u8; VALUE_LEN])?;
            }
            Ok(())
        });
        commit.expect("the disk works");
        number += rows;
    }
    for _ in 0..2 {
        let mut seen = 0;
        let snapshot = engine.snapshot().expect("the disk works");
        let scanned = snapshot.scan(&[], None, Scan::Forward, &mut |_, value| {
            seen += value.len();
            ControlFlow::Continue(())
        });
        scanned.expect("the disk works");
        assert!(seen >= SIZE);
    }
    let most = MOST.load(Ordering::Relaxed) - before;
    println!("{} MiB held at most for {} MiB of rows", most >> 20, SIZE >> 20);
    assert!(most < BOUND, "{most} bytes held of {BOUND}");
}
