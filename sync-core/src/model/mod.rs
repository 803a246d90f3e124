//! The data model: values only. Nothing here waits, reads a clock or draws randomness.

mod clock;
mod commit;
pub mod domain;
mod entry;
mod fingerprint;
mod identity;
pub mod merkle;
mod rights;
mod ticket;

pub use clock::{HybridClock, MAX_AHEAD};
#[cfg(any(test, feature = "testing"))]
pub(crate) use commit::reseal;
pub use commit::{
    Bundle, CommitError, Item, Seal, SealedEntry, VerifiedBundle, VerifiedEntry, Verifier, VerifyError, sign_commit,
};
#[cfg(any(test, feature = "testing"))]
pub(crate) use entry::entry_hash;
pub use entry::{
    Entry, EntryError, Key, MAX_INLINE_LEN, MAX_KEY_LEN, Op, Order, Prefix, SlotKey, SlotRange, Timestamp, Value,
    dominates, successor_of_prefix,
};
pub use fingerprint::{Digest, SUMMARY_LEN, Summary};
#[cfg(any(test, feature = "testing"))]
pub(crate) use identity::stand_in;
pub use identity::{AuthorId, Hash, KeyError, PeerId, PublicKey, ReplicaId, SecretKey, Signature};
pub use merkle::MAX_COMMIT_LEN;
pub(crate) use rights::grant_of_key;
pub use rights::{EVERYBODY, Grant, GrantId, MAX_CHAIN, ReadScope, Right, Rights, RightsError, grant_key};
pub use ticket::{Invite, MAX_TICKET_LEN, Ticket, TicketError};
