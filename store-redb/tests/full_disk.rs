//! A real file on a real file system that is full: a small tmpfs, where one can be mounted.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use store_redb::RedbEngine;
use sync_core::{
    model::SlotRange,
    store::{Apply, Core, Origin, StoreError, Write},
    testing::store_suite::world::{NOW, World, put},
};

/// A mounted tmpfs, unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(at: &'a Path) -> Option<Self> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(at).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // A directory that stays mounted harms nobody but the machine's tidiness.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn b51_a_full_disk_loses_nothing_acknowledged_and_writing_goes_on_when_there_is_space() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let Some(_mounted) = Mounted::new(directory.path()) else {
        sync_core::testing::skipped("no tmpfs can be mounted here");
        return;
    };
    let ballast = directory.path().join("ballast");
    fs::write(&ballast, vec![1; 24 << 20]).expect("there is space");
    let world = World::default();
    let engine = RedbEngine::open(directory.path().join("store.redb")).expect("opened");
    let core = Core::open(engine, [1; 32]).expect("a store");
    core.write(&[Write::CreateReplica { replica: world.replica, records: vec![] }]).remove(0).expect("created");
    let batch = |number: i64| {
        let ops = (0..8).map(|n| put(&format!("{number} {n}"), &"x".repeat(12_000))).collect();
        Write::Apply(Apply {
            replica: world.replica,
            bundles: vec![world.commit(0, number * 100, ops)],
            origin: Origin::Local,
            now: NOW,
            records: vec![],
        })
    };
    let count = || when_it_is_over(|| core.summary(world.replica, &SlotRange::ALL)).count();
    let mut acknowledged = 0;
    let error = loop {
        match core.write(&[batch(acknowledged)]).remove(0) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 800, "48 MiB are full at some time");
    };
    assert!(matches!(error, StoreError::DiskFull(_)) && error.is_temporary(), "{error:?}");
    assert!(acknowledged > 3, "some batches fitted");
    match core.write(&[batch(acknowledged)]).remove(0) {
        // What the refused one gave back may be enough for it.
        Ok(_) => acknowledged += 1,
        Err(again) => assert!(matches!(again, StoreError::DiskFull(_)), "{again:?}"),
    }
    fs::remove_file(&ballast).expect("removed");
    assert_eq!(count(), acknowledged as u64 * 8, "what was acknowledged, and nothing else");
    when_it_is_over(|| core.write(&[batch(acknowledged)]).remove(0));
    assert_eq!(count(), (acknowledged as u64 + 1) * 8);
}

/// What is answered when there is space again. For a moment whoever folds may have the old files still, and say what it met.
fn when_it_is_over<T>(mut ask: impl FnMut() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) if error.is_temporary() && Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("it stays so: {error:?}"),
        }
    }
}
