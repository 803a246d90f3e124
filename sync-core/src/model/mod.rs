//! The data model: values only. Nothing here waits, reads a clock or draws randomness.

pub mod domain;
mod identity;

pub use identity::{AuthorId, Hash, KeyError, PeerId, PublicKey, ReplicaId, SecretKey, Signature};
