//! The exchange of content with peers, on streams of their own.
//!
//! Who lacks content opens one stream of kind `Content` to each peer that may have some, and
//! asks for runs of groups; the other end answers in order, each byte proved as it leaves and as
//! it arrives. Several peers serve disjoint runs of one content. A peer that is slow, has
//! nothing or lies delays nobody else: its runs are free for others again.
//!
//! | file | what it is |
//! |---|---|
//! | `protocol` | the frames |
//! | `possession` | what shows that a peer has a content, without sending it |
//! | `serve` | [`Server`]: answers a peer's requests |
//! | `fetch` | [`Fetcher`]: gets what is wanted, from all peers at once |
//! | `choose` | what a peer is asked for next |
//! | `worker` | what comes is proved and written |
//! | `pending` | when all that a replica wanted has come |

mod choose;
mod fetch;
mod pending;
pub mod possession;
pub(crate) mod protocol;
mod serve;
#[cfg(test)]
mod tests;
mod worker;

use std::{io, time::Duration};

pub use fetch::{ContentTraffic, DownloadStatus, Fetcher, WantFilter};
pub use protocol::{Ask, Nonce, Reply, Run};
pub use serve::{MayRead, Server};

use crate::{
    model::{Hash, ReplicaId},
    store::{ContentError, StoreError},
};

/// How many requests one peer may have unanswered: enough that small contents follow each other
/// without waiting for a round trip, few enough that what they hold does not count.
pub const WINDOW: usize = 32;

/// The longest run of groups in one request: 4 MiB. A peer that fails wastes at most that.
pub const MAX_RUN: u64 = 256;

/// The longest run of groups in one question for possession: 64 MiB, which are read and hashed for it.
pub const MAX_PROOF_RUN: u64 = 4096;

/// The longest run of groups in one question for a tree: 256 KiB of hashes of 64 MiB.
pub const MAX_TREE_RUN: u64 = 4096;

/// How many downloads run at once; each holds one or two files open.
pub const MAX_DOWNLOADS: usize = 128;

/// A stream on which a requested byte does not come for this long is given up.
pub const STALL_DEADLINE: Duration = Duration::from_secs(20);

/// What a peer did not have is asked of it again after this time, unless it said before that it
/// has it now; each further time after twice as long.
pub const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The longest time after which it is asked again.
pub const ASK_AGAIN_MAX: Duration = Duration::from_secs(300);

/// How many contents that it did not have a server remembers for one peer, to tell it later.
pub const MAX_REMEMBERED: usize = 65_536;

/// What became of content here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// All of its bytes are here.
    Here(Hash),
    /// A replica holds it now: its peers can have it.
    Held(ReplicaId, Hash),
    /// All that a replica wanted has come.
    All(ReplicaId),
}

/// Tells all who care. Who lags misses some, and asks the store.
pub type ContentReady = tokio::sync::broadcast::Sender<Arrived>;

/// Why an exchange with a peer ended.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The stream failed.
    #[error("the stream for content failed: {0}")]
    Stream(#[from] io::Error),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol of content: {0}")]
    Protocol(&'static str),
    /// The peer sent bytes that are not the content's.
    #[error("the peer lied: {0}")]
    Unproved(ContentError),
    /// The peer sent nothing for [`STALL_DEADLINE`].
    #[error("the peer sent no content for {STALL_DEADLINE:?}")]
    Stalled,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BlobError {
    /// Whether the peer is to blame, rather than the way to it or this node.
    pub fn is_peers_fault(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Unproved(_))
    }
}
