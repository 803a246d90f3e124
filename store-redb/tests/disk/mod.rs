//! A disk in memory that records what is written, and can be full, fail, and lose power.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::{BackendError, StorageBackend};
use sync_core::testing::random::Random;

/// What was done to the file.
#[derive(Debug, Clone)]
pub enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct State {
    file: Vec<u8>,
    operations: Vec<Operation>,
    failure: Option<Failure>,
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

    /// How many operations there were.
    pub fn operations(&self) -> usize {
        self.state().operations.len()
    }

    /// The file after a power cut behind so many operations: what was flushed is there; of what was not,
    /// each sector of 512 bytes may or may not be.
    pub fn after_power_cut(&self, operations: usize, random: &mut Random) -> Vec<u8> {
        let state = self.state();
        let done = &state.operations[..operations];
        let flushed = done.iter().rposition(|op| matches!(op, Operation::Sync)).map_or(0, |at| at + 1);
        let keeps = *random.pick(&[0, 50, 90, 100]);
        let mut file = Vec::new();
        for (at, operation) in done.iter().enumerate() {
            match operation {
                // Lengths are metadata: a journal keeps them in order.
                Operation::SetLen(len) => file.resize(*len as usize, 0),
                Operation::Sync => {}
                Operation::Write(offset, bytes) => {
                    for (number, sector) in bytes.chunks(512).enumerate() {
                        if at < flushed || random.percent(keeps) {
                            let start = *offset as usize + number * 512;
                            file.resize(file.len().max(start + sector.len()), 0);
                            file[start..start + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        file
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().file.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let start = offset as usize;
        let bytes = state.file.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if let Some(failure) = state.failure {
            return Err(failure.error());
        }
        state.operations.push(Operation::SetLen(len));
        state.file.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(failure) = state.failure {
            return Err(failure.error());
        }
        state.operations.push(Operation::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if let Some(failure) = state.failure {
            return Err(failure.error());
        }
        state.operations.push(Operation::Write(offset, data.to_vec()));
        let start = offset as usize;
        let len = state.file.len().max(start + data.len());
        state.file.resize(len, 0);
        state.file[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn try_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
