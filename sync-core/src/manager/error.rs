//! What can go wrong for an application.

use crate::{
    model::{CommitError, EntryError, KeyError, RightsError, TicketError},
    store::{ContentError, StoreError},
    transport::TransportError,
};

/// An error of the manager or of a replica: what, on what, and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A transport could not.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The text is not a ticket.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The text is not an id.
    #[error(transparent)]
    Id(#[from] KeyError),
    /// The key or value breaks a limit.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The transaction breaks a limit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The author may not write this.
    #[error("this node may not write to replica {replica}: {reason}; ask its owner for a ticket with --write")]
    NotPermitted {
        /// The replica, short.
        replica: String,
        /// Why.
        reason: RightsError,
    },
    /// The ticket's right has ended.
    #[error("the ticket has expired; ask for a new one with `syncline ticket`")]
    TicketExpired,
    /// The ticket's grants give nothing.
    #[error("the ticket's invitation is not valid: {0}; ask for a new one")]
    TicketInvalid(String),
    /// The ticket asks instead of inviting.
    #[error("the ticket has no invitation; ask for one made with --read or --write")]
    TicketWithoutInvite,
    /// Nobody may give what he does not have.
    #[error("this node may not give that right on replica {0}; ask its owner for a ticket")]
    CannotShare(String),
    /// The node does not have the author's key.
    #[error("the key of author {0} is not on this node; import it first")]
    UnknownAuthor(String),
    /// The default author is the node itself.
    #[error("the default author is the node's own key and cannot be deleted")]
    DefaultAuthor,
    /// A transport is registered under the name already.
    #[error("a transport named `{0}` is registered already; choose another name or remove it first")]
    NameTaken(String),
    /// No transport is registered under the name.
    #[error("no transport named `{name}` is registered; there are: {known}")]
    UnknownTransport {
        /// What was asked for.
        name: String,
        /// The registered names.
        known: String,
    },
    /// Every transport listens already.
    #[error("this node accepts connections already; nothing was changed")]
    AcceptingAlready,
    /// No transport listens.
    #[error("this node accepts no connections; nothing was changed")]
    NotAccepting,
    /// No transport could listen.
    #[error("no transport could listen: {0}")]
    CannotListen(String),
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// Content that is not here yet.
    #[error("the content of this key is not here yet; it comes when a peer that has it is connected")]
    ContentMissing,
    /// The deadline passed first.
    #[error("the time was up: {0}")]
    TimedOut(String),
    /// The manager was shut down.
    #[error("the manager was shut down")]
    Closed,
    /// A file could not be read or written.
    #[error("{context}: {source}")]
    Io {
        /// What was attempted, on what.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ManagerError {
    /// Whether trying again later, with nothing changed here, can help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Store(error) => error.is_temporary(),
            Self::Transport(error) => error.is_temporary(),
            Self::ContentMissing | Self::TimedOut(_) => true,
            _ => false,
        }
    }

    /// Whether a content that was read is not what was written: see [`super::Replica::content_damaged`].
    pub fn is_damage(&self) -> bool {
        let found = match self {
            Self::Store(StoreError::Content(error)) => Some(&**error),
            Self::Io { source, .. } => source.get_ref().and_then(|error| error.downcast_ref()),
            _ => None,
        };
        matches!(found, Some(ContentError::Damaged { .. }))
    }
}
