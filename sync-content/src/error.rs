//! What can go wrong with content: what was attempted, on what, and the way out.

use std::{io, ops::Range, path::PathBuf};

use crate::Hash;

/// Why something with content failed.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The file system refused.
    #[error("cannot {attempt} {}: {source}", path.display())]
    Io {
        /// What was attempted: "read", "write", "sync".
        attempt: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file was written to while it was imported. Import it again when it is quiet.
    #[error("{} changed while it was read; try again when it is quiet", .0.display())]
    Changed(PathBuf),
    /// Only regular files have content.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// What is on the disk is not what was written: these bytes rotted. Fetch the content again.
    #[error("bytes {} to {} of content {hash} are damaged on the disk; fetch it again", range.start, range.end)]
    Damaged {
        /// Which content.
        hash: Hash,
        /// Where, in bytes.
        range: Range<u64>,
    },
    /// A peer sent bytes that the hash does not prove. Ask another peer.
    #[error("bytes {} to {} received for content {hash} are not its bytes; ask another peer", range.start, range.end)]
    Unproved {
        /// Which content.
        hash: Hash,
        /// Where, in bytes.
        range: Range<u64>,
    },
    /// These groups are not here, or not yet.
    #[error("groups {} to {} of content {hash} are not here", groups.start, groups.end)]
    NotHere {
        /// Which content.
        hash: Hash,
        /// The first missing run, in groups.
        groups: Range<u64>,
    },
    /// The range lies outside of the content.
    #[error("{} to {} lies outside of content {hash} of {len} bytes", range.start, range.end)]
    OutOfRange {
        /// Which content.
        hash: Hash,
        /// What was asked for, in bytes or groups.
        range: Range<u64>,
        /// Its length in bytes.
        len: u64,
    },
    /// A claimed length above [`crate::MAX_LEN`].
    #[error("content {hash} claims {len} bytes, which no file can hold")]
    TooLong {
        /// Which content.
        hash: Hash,
        /// What is claimed.
        len: u64,
    },
    /// This download was finished, or a write or sync of it failed before; then what was written
    /// since the last checkpoint may be lost although the system says otherwise. Open it again
    /// from its checkpoint.
    #[error("the download of content {0} has ended or failed; open it again from its last checkpoint")]
    Ended(Hash),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl ContentError {
    pub(crate) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { attempt, path, source }
    }

    /// Whether trying again later, with nothing changed here, can help. A full disk is
    /// temporary: there will be space.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Io { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ),
            Self::Changed(_) | Self::Unproved { .. } | Self::NotHere { .. } | Self::Ended(_) => true,
            Self::NotAFile(_)
            | Self::Damaged { .. }
            | Self::OutOfRange { .. }
            | Self::TooLong { .. }
            | Self::Cancelled => false,
        }
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
