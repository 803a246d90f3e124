//! The file system beneath the content: a real one, or one in memory.
//!
//! The seam is as small as content needs. It exists for two reasons: a store in memory keeps
//! its content in memory, and a test can cut the power between any two operations and see what
//! a disk may have forgotten ([`MemoryDisk::power_cut`]).

mod memory;
mod real;

use std::{fmt, io, path::Path, sync::Arc};

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// A file system.
///
/// # Contract
///
/// - *what was synced stays*: bytes after [`DiskFile::sync`], names after [`Disk::sync_dir`].
/// - *a rename is atomic*: after a power cut the name leads to the old file or the new one.
/// - *what was not synced may stay, vanish or be torn*, in any order.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file. Reading needs no write permission.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file a new name, in place of what was there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and those above it; fine when it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory; empty when it is not there.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must be there.
    Read,
    /// For reading and writing; it must be there.
    Write,
    /// For reading and writing, empty, in place of what was there.
    Create,
}

/// An open file, read and written at positions.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`, or fails with `UnexpectedEof`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the file grows, with a hole if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}
