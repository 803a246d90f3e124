//! The domains of every hash and signature. Each signed or hashed message begins with one of
//! them, so that nothing made for one purpose passes for another.

/// Key derivation context of entry hashes, the leaves of a commit's Merkle tree.
pub const ENTRY: &str = "syncline v1 entry";
/// Key derivation context of the inner nodes of a commit's Merkle tree.
pub const NODE: &str = "syncline v1 merkle node";
/// Key derivation context of fingerprint terms.
pub const FINGERPRINT: &str = "syncline v1 fingerprint term";
/// Key derivation context of the 32-byte fingerprint of a summary.
pub const SUMMARY: &str = "syncline v1 summary";
/// First bytes of a signed commit.
pub const COMMIT: &[u8] = b"syncline v1 commit\0";
/// First bytes of a signed handshake proof.
pub const PROOF: &[u8] = b"syncline v1 handshake proof\0";
