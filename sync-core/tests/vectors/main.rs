//! The golden vectors of PROTOCOL.md: the files in `vectors/` say what this code says, and what they
//! say is what PROTOCOL.md says.
//!
//! Each module makes its file from this code, and checks what is in the file: what stands there
//! is computed once more, by hand from the specification where that is short, and what is rejected is rejected with
//! the error that is named. A file that differs from what would be made now is a change of the protocol. When that is meant:
//!
//! ```sh
//! SYNCLINE_WRITE_VECTORS=1 cargo test -p sync-core --test vectors
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod addresses;
mod commits;
mod content;
mod dominance;
mod entries;
mod fingerprints;
mod grants;
mod handshake;
mod merkle;
mod messages;
mod node;
mod places;
mod reconciliation;
mod rows;
mod tickets;

#[path = "../../../vectors/golden.rs"]
mod golden;

use serde_json::Value as Json;
use sync_core::model::{AuthorId, EntryError, Hash, Key, Op, PeerId, Prefix, PublicKey, SecretKey, Value, VerifyError};

use self::golden::{bytes, golden, hex, list};

fn bytes32(json: &Json) -> [u8; 32] {
    bytes(json).try_into().unwrap()
}

fn hash(json: &Json) -> Hash {
    Hash(bytes32(json))
}

fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("{json} is not a number"))
}

/// The key of the seed of 32 times `seed`.
fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

fn author(seed: u8) -> AuthorId {
    AuthorId(key(seed).public())
}

/// Keyed BLAKE3 in a domain: `K` of PROTOCOL.md, section 2.
fn keyed(domain: &str, message: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(domain, b""));
    hasher.update(message);
    hasher
}

fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    let value = Value::Inline(value.as_ref().to_vec().into());
    Op::Put { key: Key::try_from(key.as_ref()).unwrap(), value }
}

fn delete(key: impl AsRef<[u8]>) -> Op {
    Op::Delete { key: Key::try_from(key.as_ref()).unwrap() }
}

fn delete_prefix(prefix: impl AsRef<[u8]>) -> Op {
    Op::DeletePrefix { prefix: Prefix::new(prefix.as_ref().to_vec()).unwrap() }
}

fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap()
}

/// Reads all of `bytes`.
fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().and_then(|(value, rest)| rest.is_empty().then_some(value))
}

fn entry_error(error: EntryError) -> &'static str {
    match error {
        EntryError::ValueTooLong(_) => "value too long",
        EntryError::SystemKey => "system key",
        EntryError::EmptyKey | EntryError::KeyTooLong(_) => "malformed",
    }
}

fn verify_error(error: VerifyError) -> &'static str {
    match error {
        VerifyError::Proof => "proof",
        VerifyError::Signature => "signature",
        VerifyError::Entry(error) => entry_error(error),
    }
}

#[test]
fn bytes_are_read_as_they_are_written() {
    for original in [vec![], vec![1, 2, 3], vec![7; 64], [vec![1], vec![0; 1000], vec![9, 9]].concat()] {
        assert_eq!(bytes(&hex(&original)), original);
    }
    assert_eq!(hex([vec![1], vec![0; 1000]].concat()), "01 00*1000");
}
