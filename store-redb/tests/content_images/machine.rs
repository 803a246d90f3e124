//! What a store with content lies on: the rows, their journal, and the files of the content, on one power.

use std::{io, path::Path, sync::Arc};

use store_redb::{Limits, RedbEngine, RedbStore};
use sync_content::{
    MemoryDisk,
    disk::{Disk as Files, DiskFile, Open},
};
use sync_core::{
    store::{ContentDir, EngineStore, StoreError},
    testing::random::Random,
};

use crate::disk::{Disk, Failure, Fuse};

/// So small that a few transactions fill the journal.
const SMALL: Limits = Limits { transaction_bytes: 4_000, overlay_bytes: 8_000, half_bytes: 16 * 1_024 };

const SECRET: [u8; 32] = [5; 32];

/// The disks, by number.
pub const ROWS: usize = 0;
pub const JOURNAL: usize = 1;
pub const CONTENT: usize = 2;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    rows: [Disk; 2],
    first: [Vec<u8>; 2],
    content: MemoryDisk,
    fuse: Fuse,
}

impl Machine {
    /// A new store's: the file of the rows is there and whole, as `RedbEngine::open` makes it.
    pub fn new() -> Self {
        let unfinished = Self::with(Default::default(), MemoryDisk::recording());
        drop(unfinished.engine().expect("an empty disk can be used"));
        Self::with([unfinished.rows[ROWS].file(), Vec::new()], MemoryDisk::recording())
    }

    fn with(first: [Vec<u8>; 2], content: MemoryDisk) -> Self {
        let (rows, fuse) = (first.clone().map(Disk::with), Fuse::default());
        rows.iter().for_each(|disk| disk.on_fuse(fuse.clone()));
        Self { rows, first, content, fuse }
    }

    fn engine(&self) -> Result<RedbEngine, StoreError> {
        let [rows, journal] = self.rows.clone();
        RedbEngine::with_backends(move || Ok((rows.clone(), journal.clone())), SMALL, SECRET)
    }

    pub fn open(&self) -> Result<RedbStore, StoreError> {
        let engine = self.engine()?;
        let content = Fused { on: self.content.clone(), fuse: self.fuse.clone() };
        EngineStore::open_with(engine, [5; 32], ContentDir::open_on(Arc::new(content), "/")?)
    }

    /// The files of the content.
    pub fn content(&self) -> &MemoryDisk {
        &self.content
    }

    /// The power ends after so many changes of any disk.
    pub fn end_power_after(&self, changes: u64) {
        self.fuse.set(Some(changes));
    }

    pub fn changes_left(&self) -> u64 {
        self.fuse.changes_left().expect("it was set")
    }

    pub fn is_off(&self) -> bool {
        self.fuse.is_blown()
    }

    /// Fails one operation of a disk after `good` more.
    pub fn fail_once_after(&self, disk: usize, good: u64) {
        match self.rows.get(disk) {
            Some(disk) => disk.fail_once_after(good),
            None => self.content.fail_once_after(good),
        }
    }

    /// Fails one flush of a disk after `good` more, and loses what it was to bring.
    pub fn fail_flush_after(&self, disk: usize, good: u64) {
        match self.rows.get(disk) {
            Some(disk) => disk.fail_flush_after(good),
            None => self.content.fail_sync_after(good),
        }
    }

    pub fn has_yet_to_fail(&self) -> bool {
        self.rows.iter().any(Disk::has_yet_to_fail) || self.content.has_yet_to_fail()
    }

    /// All disks are full, or none is.
    pub fn set_full(&self, is_full: bool) {
        self.content.set_full(is_full);
        self.rows.iter().for_each(|disk| disk.fail(is_full.then_some(Failure::NoSpace)));
    }

    /// What a power cut now leaves: of what was not flushed any part, of each disk.
    pub fn after_power_cut(&self, random: &mut Random) -> Self {
        let file = |number: usize, random: &mut Random| {
            let disk = &self.rows[number];
            disk.cuts_from(self.first[number].clone()).image(disk.operations(), random)
        };
        let rows = [file(ROWS, random), file(JOURNAL, random)];
        Self::with(rows, self.content.power_cut(random.bits()))
    }
}

/// Files on a fuse.
#[derive(Debug, Clone)]
struct Fused<T> {
    on: T,
    fuse: Fuse,
}

impl<T> Fused<T> {
    fn change(&self) -> io::Result<&T> {
        if self.fuse.carries_one() { Ok(&self.on) } else { Err(io::Error::other("the power is off")) }
    }
}

impl Files for Fused<MemoryDisk> {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let on = match how {
            Open::Create => self.change()?.open(path, how)?,
            Open::Read | Open::Write => self.on.open(path, how)?,
        };
        Ok(Arc::new(Fused { on, fuse: self.fuse.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.on.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change()?.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.on.list(path)
    }
}

impl DiskFile for Fused<Arc<dyn DiskFile>> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.on.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change()?.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.change()?.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.on.len()
    }
}
