//! A disk in memory that records what is written, and can be full, fail, and lose power.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::{BackendError, StorageBackend};
use sync_content::MemoryDisk;
use sync_core::testing::random::Random;

/// What a write may be torn into: a sector is there or not.
const SECTOR: usize = 512;

/// What the system keeps in memory and marks as written: whole pages.
const PAGE: usize = 4096;

/// What was done to the file.
#[derive(Debug, Clone)]
pub enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
    /// A flush that failed: what was to be flushed may or may not be on the disk, and no later flush
    /// brings it there, as the system takes it for written (it is read back all the same).
    LostSync,
}

#[derive(Debug, Default)]
struct State {
    /// What is read: the system's memory of the file.
    file: Vec<u8>,
    operations: Vec<Operation>,
    failure: Option<Failure>,
    /// Fails one operation, counted down from here, reads included.
    fails_in: Option<u64>,
    /// Fails one flush, counted down from here.
    flush_fails_in: Option<u64>,
    /// Another disk on the same power: when it ends.
    power: Option<Power>,
    /// Ends the power of this and of others.
    fuse: Option<Fuse>,
    /// Where this and others write down whose turn it was, and as what this one does.
    order: Option<(Order, usize)>,
    /// Pages that a flush that failed left in doubt. A later write brings the whole page.
    in_doubt: BTreeSet<usize>,
}

/// When the power of two disks ends.
#[derive(Debug, Clone)]
pub struct Power {
    pub other: MemoryDisk,
    /// It ends after so many operations here, or so many there.
    pub here: usize,
    pub there: u64,
}

/// Ends the power of all the disks that it is in, after so many changes of any of them.
#[derive(Debug, Clone, Default)]
pub struct Fuse(Arc<Mutex<Option<u64>>>);

impl Fuse {
    fn left(&self) -> MutexGuard<'_, Option<u64>> {
        self.0.lock().expect("nothing panics while it holds the fuse")
    }

    /// The power ends after so many changes, or does not.
    pub fn set(&self, changes: Option<u64>) {
        *self.left() = changes;
    }

    /// After how many changes it ends.
    pub fn changes_left(&self) -> Option<u64> {
        *self.left()
    }

    /// Whether the power has ended.
    pub fn is_blown(&self) -> bool {
        *self.left() == Some(0)
    }

    /// Whether a change can still be made.
    pub fn carries_one(&self) -> bool {
        match &mut *self.left() {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

/// The order in which several disks were changed: which of them, operation for operation.
#[derive(Debug, Clone, Default)]
pub struct Order(Arc<Mutex<Vec<usize>>>);

impl Order {
    fn turns(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().expect("nothing panics while it holds the order")
    }

    /// How many operations there were on all of them.
    pub fn operations(&self) -> usize {
        self.turns().len()
    }

    /// The disk of each operation.
    pub fn disks(&self) -> Vec<usize> {
        self.turns().clone()
    }
}

/// What every write and flush from now on answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    NoSpace,
    Broken,
}

impl Failure {
    fn error(self) -> io::Error {
        match self {
            Self::NoSpace => io::ErrorKind::StorageFull.into(),
            Self::Broken => io::Error::other("the disk is broken"),
        }
    }
}

/// Counts down; true when it is the one.
fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

impl State {
    fn read_or_fail(&mut self) -> io::Result<()> {
        if is_due(&mut self.fails_in) { Err(Failure::Broken.error()) } else { Ok(()) }
    }

    /// Nothing changes here any more once the power has ended here or there.
    fn has_power(&self) -> bool {
        if self.fuse.as_ref().is_some_and(|fuse| !fuse.carries_one()) {
            return false;
        }
        let Some(Power { other, here, there }) = &self.power else { return true };
        if self.operations.len() >= *here {
            other.end_power_at(other.operations());
        }
        self.operations.len() < *here && other.operations() < *there
    }

    fn change_or_fail(&mut self) -> io::Result<()> {
        self.read_or_fail()?;
        if !self.has_power() {
            return Err(io::Error::other("the power is off"));
        }
        self.failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn record(&mut self, operation: Operation) {
        self.operations.push(operation);
        if let Some((order, disk)) = &self.order {
            order.turns().push(*disk);
        }
    }

    fn lose_flush(&mut self) {
        let flushed = self.operations.iter().rposition(|op| matches!(op, Operation::Sync | Operation::LostSync));
        for operation in &self.operations[flushed.map_or(0, |at| at + 1)..] {
            if let Operation::Write(offset, bytes) = operation {
                let start = *offset as usize;
                self.in_doubt.extend(start / PAGE..(start + bytes.len()).div_ceil(PAGE));
            }
        }
        self.record(Operation::LostSync);
    }
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// A disk with a file on it.
    pub fn with(file: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { file, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the disk")
    }

    pub fn fail(&self, failure: Option<Failure>) {
        self.state().failure = failure;
    }

    /// Fails one operation after `good` more, reads included.
    pub fn fail_once_after(&self, good: u64) {
        self.state().fails_in = Some(good);
    }

    /// Fails one flush after `good` more, and loses what it was to bring to the disk.
    pub fn fail_flush_after(&self, good: u64) {
        self.state().flush_fails_in = Some(good);
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.failure, state.fails_in, state.flush_fails_in) = (None, None, None);
    }

    /// Writes its operations down in an order with those of other disks, as the disk of this number.
    pub fn in_order(&self, order: Order, disk: usize) {
        self.state().order = Some((order, disk));
    }

    /// Puts a fuse in.
    pub fn on_fuse(&self, fuse: Fuse) {
        self.state().fuse = Some(fuse);
    }

    /// Puts another disk on the same power.
    pub fn on_power(&self, power: Power) {
        power.other.end_power_at(power.there);
        self.state().power = Some(power);
    }

    /// Whether what was to fail has not yet.
    pub fn has_yet_to_fail(&self) -> bool {
        let state = self.state();
        state.fails_in.is_some() || state.flush_fails_in.is_some()
    }

    /// How many operations there were.
    pub fn operations(&self) -> usize {
        self.state().operations.len()
    }

    /// What was done since there were so many operations.
    pub fn since(&self, operations: usize) -> Vec<Operation> {
        self.state().operations[operations..].to_vec()
    }

    /// The file after a power cut behind so many operations.
    pub fn after_power_cut(&self, operations: usize, random: &mut Random) -> Vec<u8> {
        self.cuts().image(operations, random)
    }

    /// The file as it is read now.
    pub fn file(&self) -> Vec<u8> {
        self.state().file.clone()
    }

    /// What was done until now, to be cut anywhere.
    pub fn cuts(&self) -> Cuts {
        self.cuts_from(Vec::new())
    }

    /// The same for a disk that began with a file.
    pub fn cuts_from(&self, file: Vec<u8>) -> Cuts {
        Cuts { operations: self.state().operations.clone(), certain: file.clone(), first: file, done: 0 }
    }
}

/// How much of what was not flushed is there after a power cut.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    Everything,
    /// So many percent of the sectors.
    Sectors(usize),
    /// So many percent of the writes, whole.
    Writes(usize),
    /// All but one write, or one alone.
    AllBut(usize),
    Only(usize),
}

/// The images that power cuts leave. Cuts that come in ascending order cost less.
#[derive(Debug)]
pub struct Cuts {
    operations: Vec<Operation>,
    first: Vec<u8>,
    /// What is on the disk for certain after `done` operations.
    certain: Vec<u8>,
    done: usize,
}

impl Cuts {
    /// The number of operations: so many can be cut after.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// The file after a power cut behind so many operations: what was flushed is there; of what was not, each
    /// sector of 512 bytes may or may not be. Lengths are metadata: a journal keeps them in order.
    pub fn image(&mut self, cut: usize, random: &mut Random) -> Vec<u8> {
        let is_lost = |op: &Operation| matches!(op, Operation::LostSync);
        let is_flush = |op: &Operation| matches!(op, Operation::Sync);
        let until_lost = self.operations[..cut].iter().position(is_lost).unwrap_or(cut);
        let flushed = self.operations[..until_lost].iter().rposition(is_flush).map_or(0, |at| at + 1);
        if flushed < self.done {
            (self.certain, self.done) = (self.first.clone(), 0);
        }
        for operation in &self.operations[self.done..flushed] {
            perform(&mut self.certain, operation, |_| true);
        }
        self.done = flushed;
        let rest = &self.operations[flushed..cut];
        // From the end: a write is certain when the next flush after it succeeded.
        let mut certain = vec![false; rest.len()];
        let mut is_certain = false;
        for (at, operation) in rest.iter().enumerate().rev() {
            match operation {
                Operation::Sync => is_certain = true,
                Operation::LostSync => is_certain = false,
                _ => {}
            }
            certain[at] = is_certain;
        }
        let one = random.below(rest.len().max(1));
        let left = *random.pick(&[
            Left::Nothing,
            Left::Everything,
            Left::Sectors(10),
            Left::Sectors(50),
            Left::Sectors(90),
            Left::Writes(20),
            Left::Writes(50),
            Left::Writes(80),
            Left::AllBut(one),
            Left::Only(one),
        ]);
        let mut file = self.certain.clone();
        for (at, operation) in rest.iter().enumerate() {
            let whole = random.percent(match left {
                Left::Writes(percent) => percent,
                _ => 50,
            });
            perform(&mut file, operation, |_| {
                certain[at]
                    || match left {
                        Left::Nothing => false,
                        Left::Everything => true,
                        Left::Sectors(percent) => random.percent(percent),
                        Left::Writes(_) => whole,
                        Left::AllBut(one) => at != one,
                        Left::Only(one) => at == one,
                    }
            });
        }
        file
    }
}

fn perform(file: &mut Vec<u8>, operation: &Operation, mut is_there: impl FnMut(usize) -> bool) {
    match operation {
        Operation::SetLen(len) => file.resize(*len as usize, 0),
        Operation::Sync | Operation::LostSync => {}
        Operation::Write(offset, bytes) => {
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                if is_there(number) {
                    let start = *offset as usize + number * SECTOR;
                    file.resize(file.len().max(start + sector.len()), 0);
                    file[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().file.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.read_or_fail()?;
        let start = offset as usize;
        let bytes = state.file.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.change_or_fail()?;
        state.record(Operation::SetLen(len));
        state.file.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let is_on = state.fuse.as_ref().is_none_or(|fuse| !fuse.is_blown());
        if is_on && (is_due(&mut state.flush_fails_in) || state.fails_in == Some(0)) {
            state.fails_in = None;
            state.lose_flush();
            return Err(Failure::Broken.error());
        }
        state.change_or_fail()?;
        state.record(Operation::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.change_or_fail()?;
        perform(&mut state.file, &Operation::Write(offset, data.to_vec()), |_| true);
        let start = offset as usize;
        let pages = start / PAGE..(start + data.len()).div_ceil(PAGE);
        let again: Vec<usize> = state.in_doubt.range(pages).copied().collect();
        state.record(Operation::Write(offset, data.to_vec()));
        for page in again {
            state.in_doubt.remove(&page);
            let end = state.file.len().min((page + 1) * PAGE);
            let whole = state.file[page * PAGE..end].to_vec();
            state.record(Operation::Write((page * PAGE) as u64, whole));
        }
        Ok(())
    }

    fn try_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
