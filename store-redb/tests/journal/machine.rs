//! Two files on one disk in memory, which records what is done to both in one order and can be cut anywhere.

use std::{
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::{BackendError, StorageBackend};
use sync_core::testing::random::Random;

const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// The rows' file and the journal's.
pub type Files = [Vec<u8>; 2];

pub const ROWS: usize = 0;
pub const JOURNAL: usize = 1;

#[derive(Debug, Default)]
struct State {
    files: Files,
    operations: Vec<(usize, Operation)>,
    /// What every write and flush of a file answers from now on.
    failures: [Option<io::ErrorKind>; 2],
}

/// The machine. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Machine(Arc<Mutex<State>>);

impl Machine {
    pub fn with(files: Files) -> Self {
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the machine")
    }

    /// Both files, to be opened.
    pub fn open(&self) -> io::Result<(File, File)> {
        Ok((File { machine: self.clone(), number: ROWS }, File { machine: self.clone(), number: JOURNAL }))
    }

    pub fn fail(&self, file: usize, failure: Option<io::ErrorKind>) {
        self.state().failures[file] = failure;
    }

    pub fn operations(&self) -> usize {
        self.state().operations.len()
    }

    /// The files as they are now: what a process that is killed leaves.
    pub fn files(&self) -> Files {
        self.state().files.clone()
    }

    /// The files after a power cut behind so many operations: what was flushed is there; of what was not,
    /// each sector may or may not be. Lengths are metadata: a journal of the file system keeps them in order.
    pub fn after_power_cut(&self, operations: usize, random: &mut Random) -> Files {
        let state = self.state();
        let done = &state.operations[..operations];
        let flushed = [ROWS, JOURNAL].map(|file| {
            done.iter().rposition(|(of, op)| *of == file && matches!(op, Operation::Sync)).map_or(0, |at| at + 1)
        });
        let keeps = [0, 1].map(|_| *random.pick(&[0, 10, 50, 90, 100]));
        let mut files = Files::default();
        for (at, (number, operation)) in done.iter().enumerate() {
            let file = &mut files[*number];
            match operation {
                Operation::SetLen(len) => file.resize(*len as usize, 0),
                Operation::Sync => {}
                Operation::Write(offset, bytes) => {
                    for (sector, bytes) in bytes.chunks(SECTOR).enumerate() {
                        if at < flushed[*number] || random.percent(keeps[*number]) {
                            write(file, *offset as usize + sector * SECTOR, bytes);
                        }
                    }
                }
            }
        }
        files
    }
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// One of the two files.
#[derive(Debug)]
pub struct File {
    machine: Machine,
    number: usize,
}

impl File {
    fn change(&self, operation: Operation) -> io::Result<()> {
        let mut state = self.machine.state();
        if let Some(failure) = state.failures[self.number] {
            return Err(failure.into());
        }
        let file = &mut state.files[self.number];
        match &operation {
            Operation::Write(offset, bytes) => write(file, *offset as usize, bytes),
            Operation::SetLen(len) => file.resize(*len as usize, 0),
            Operation::Sync => {}
        }
        state.operations.push((self.number, operation));
        Ok(())
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.machine.state().files[self.number].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        let state = self.machine.state();
        let bytes = state.files[self.number].get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Operation::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write(offset, data.to_vec()))
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
