//! The domains of every hash and signature. Each signed or hashed message begins with one of
//! them, or is keyed by one, so that nothing made for one purpose passes for another.
//!
//! A hash "in domain D" is keyed BLAKE3 whose key is `derive_key(D, "")`: the same separation as
//! the derive mode, without hashing the context again for every entry.

use std::sync::LazyLock;

/// Domain of entry hashes, the leaves of a commit's Merkle tree.
pub const ENTRY: &str = "syncline v1 entry";
/// Domain of the inner nodes of a commit's Merkle tree.
pub const NODE: &str = "syncline v1 merkle node";
/// Domain of fingerprint terms.
pub const FINGERPRINT: &str = "syncline v1 fingerprint term";
/// Domain of the 32-byte digest of a summary.
pub const SUMMARY: &str = "syncline v1 summary";
/// Domain of the ids of grants.
pub const GRANT: &str = "syncline v1 grant";
/// First bytes of a signed commit.
pub const COMMIT: &[u8] = b"syncline v1 commit\0";
/// First bytes of a signed handshake proof.
pub const PROOF: &[u8] = b"syncline v1 handshake proof\0";

static ENTRY_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key(ENTRY, b""));
static NODE_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key(NODE, b""));
static FINGERPRINT_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key(FINGERPRINT, b""));

pub(crate) fn entry_hasher() -> blake3::Hasher {
    blake3::Hasher::new_keyed(&ENTRY_KEY)
}

pub(crate) fn node_key() -> &'static [u8; 32] {
    &NODE_KEY
}

pub(crate) fn fingerprint_hasher() -> blake3::Hasher {
    blake3::Hasher::new_keyed(&FINGERPRINT_KEY)
}
