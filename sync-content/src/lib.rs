//! Verified content: the bytes of blobs, addressed by BLAKE3, kept in flat files.
//!
//! Content is cut into *groups* of 16 KiB. Above them stands the BLAKE3 tree; its inner nodes
//! make the *outboard*, 64 bytes for each pair. With hash, length and outboard every group can
//! be proved alone: received from a peer one by one, in any order and from several peers at
//! once, and validated again each time it is read. Tree and encoding are those of `bao-tree`,
//! so hashes are plain BLAKE3 and slices are what iroh-blobs sends.
//!
//! | module | what it is |
//! |---|---|
//! | [`groups`] | [`GroupRanges`]: sets of groups, and how they map to bytes |
//! | [`dir`] | [`ContentDir`]: the files, their names, publishing and sweeping |
//! | [`stage`] | [`Staged`]: content that is written but not yet under its name; import |
//! | [`partial`] | [`Partial`], [`Claim`], [`Checkpoint`]: a download |
//! | [`reuse`] | [`TreeClaim`]: what a download takes from another content here |
//! | [`overlay`] | [`Overlay`]: content that has only what another one has not |
//! | [`read`] | [`Reader`]: verified reading, and encoding for peers |
//! | [`export`] | writing content to a path of the user's |
//! | [`disk`] | [`Disk`]: the file system, a real one or one in memory that can lose its power |
//!
//! # Who owns what
//!
//! This crate holds files; it has no database. What must survive a restart and is small goes
//! back to the caller, who keeps it in a row: [`Published::outboard`] for small content, the
//! [`Checkpoint`] of a download. The order that makes it safe: first the files are synced and
//! named ([`ContentDir::publish`]), then the row is committed. A file without a row is garbage,
//! which [`ContentDir::sweep`] removes; a row without its file never happens.
//!
//! # What is absent
//!
//! Nothing here waits or draws randomness, and nothing counts references: the store does.
//! Every call may block on the disk, so an async caller uses a blocking thread.

pub mod dir;
pub mod disk;
pub mod error;
pub mod export;
pub mod groups;
pub mod overlay;
pub mod partial;
pub mod read;
pub mod reuse;
pub mod stage;
mod tree;

pub use blake3::Hash;
pub use dir::{ContentDir, FileKind, Published};
pub use disk::{Disk, MemoryDisk, RealDisk};
pub use error::ContentError;
pub use groups::{GROUP_LEN, GroupRanges};
pub use overlay::Overlay;
pub use partial::{CHECKPOINT_BYTES, CHECKPOINT_INTERVAL, Checkpoint, Claim, Partial};
pub use read::{ByteChunks, Encoder, Reader};
pub use reuse::TreeClaim;
pub use stage::Staged;

use std::ops::ControlFlow;

/// No content is longer: 256 TiB. File systems end earlier; beyond it a claimed length is an attack.
pub const MAX_LEN: u64 = 1 << 48;

/// Outboards up to this many bytes live in the caller's row, larger ones in a file of their own:
/// a second file with its own sync costs small content half its speed. 8 KiB prove 2 MiB.
pub const MAX_ROW_OUTBOARD: u64 = 8 * 1024;

/// How far an import or export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Is called now and then, at the latest every MiB and at the end; `Break` stops the work with
/// [`ContentError::Cancelled`].
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// An [`OnProgress`] that does not care.
pub fn quiet(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
