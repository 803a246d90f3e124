//! Entries: what an application wrote, where it lives, and which entry makes another forgotten.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    domain,
    identity::{AuthorId, Hash, ReplicaId},
};

/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = 1024;

/// The longest value that lives in its entry, in bytes; a longer one is a blob. redb rounds a
/// 20 KiB value up to 32 KiB, 16 KiB fits, and it is one chunk group of a blob.
pub const MAX_INLINE_LEN: usize = 16 * 1024;

/// Why some bytes are not a key, a prefix or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A key of no bytes.
    #[error("a key must have at least 1 byte")]
    EmptyKey,
    /// A key or prefix over [`MAX_KEY_LEN`].
    #[error("the key has {0} bytes; at most {MAX_KEY_LEN} are allowed")]
    KeyTooLong(usize),
    /// An inline value over [`MAX_INLINE_LEN`].
    #[error("the inline value has {0} bytes; more than {MAX_INLINE_LEN} must be a blob")]
    ValueTooLong(usize),
    /// A system entry that is none: deleted, a blob, or of an unknown kind.
    #[error("keys that begin with byte 0 belong to the system")]
    SystemKey,
}

/// The name of a value: 1 to [`MAX_KEY_LEN`] bytes. Keys that begin with byte 0 belong to the system.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Checks the length.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, EntryError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(EntryError::EmptyKey),
            len if len > MAX_KEY_LEN => Err(EntryError::KeyTooLong(len)),
            _ => Ok(Self(bytes)),
        }
    }

    /// Whether the key belongs to the system.
    pub fn is_system(&self) -> bool {
        self.0[0] == 0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = EntryError;

    fn try_from(text: &str) -> Result<Self, EntryError> {
        Self::new(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = EntryError;

    fn try_from(bytes: &[u8]) -> Result<Self, EntryError> {
        Self::new(Bytes::copy_from_slice(bytes))
    }
}

/// What keys begin with: 0 to [`MAX_KEY_LEN`] bytes. The empty prefix covers every key but the system's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prefix(Bytes);

impl Prefix {
    /// Checks the length.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, EntryError> {
        let bytes = bytes.into();
        if bytes.len() > MAX_KEY_LEN {
            return Err(EntryError::KeyTooLong(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// Whether `key` begins with this prefix.
    pub fn covers(&self, key: &[u8]) -> bool {
        key.starts_with(&self.0)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl std::ops::Deref for Prefix {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! bytes_serde {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.0.escape_ascii())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.escape_ascii())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(Bytes::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}
bytes_serde!(Key);
bytes_serde!(Prefix);

/// Microseconds since the Unix epoch, from a hybrid logical clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This much later; stays at the end of time.
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Value {
    /// Up to [`MAX_INLINE_LEN`] bytes, in the entry.
    Inline(Bytes),
    /// Content that is kept and moved apart from the entry.
    Blob {
        /// BLAKE3 of the content.
        hash: Hash,
        /// Its length in bytes.
        len: u64,
    },
}

impl Value {
    /// The length of the value in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob { len, .. } => *len,
        }
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// BLAKE3 of the value's bytes: the same whether it is inline or a blob.
    pub fn hash(&self) -> Hash {
        match self {
            Self::Inline(bytes) => Hash(*blake3::hash(bytes).as_bytes()),
            Self::Blob { hash, .. } => *hash,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Blob { hash, len } => write!(f, "Blob({hash:?}, {len} bytes)"),
        }
    }
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Op {
    /// The key holds the value, as far as this author knows.
    Put {
        /// The key.
        key: Key,
        /// Its value.
        value: Value,
    },
    /// A tombstone: whatever the key held before, of any author, is gone.
    Delete {
        /// The key.
        key: Key,
    },
    /// A prefix tombstone: whatever keys with this prefix held before is gone.
    DeletePrefix {
        /// The prefix.
        prefix: Prefix,
    },
}

impl Op {
    /// The key or prefix that it is about.
    pub fn key_bytes(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key.as_bytes(),
            Self::DeletePrefix { prefix } => prefix.as_bytes(),
        }
    }

    /// Whether it belongs to the system: a put to a key that begins with byte 0.
    pub fn is_system(&self) -> bool {
        matches!(self, Self::Put { key, .. } if key.is_system())
    }

    /// Where it lives in the order of a replica's slots.
    pub fn slot_key(&self) -> SlotKey {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => SlotKey::of_key(key),
            Self::DeletePrefix { prefix } => SlotKey::of_prefix(prefix),
        }
    }

    /// Refuses what no honest writer makes: long inline values, tombstones and blobs on system keys.
    pub fn check(&self) -> Result<(), EntryError> {
        match self {
            Self::Put { value: Value::Inline(bytes), .. } if bytes.len() > MAX_INLINE_LEN => {
                Err(EntryError::ValueTooLong(bytes.len()))
            }
            Self::Put { key, value: Value::Blob { .. } } if key.is_system() => Err(EntryError::SystemKey),
            Self::Delete { key } if key.is_system() => Err(EntryError::SystemKey),
            Self::DeletePrefix { prefix } if prefix.first() == Some(&0) => Err(EntryError::SystemKey),
            _ => Ok(()),
        }
    }
}

/// One fact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The replica that it belongs to.
    pub replica: ReplicaId,
    /// Who wrote it.
    pub author: AuthorId,
    /// When, by the author's hybrid clock.
    pub timestamp: Timestamp,
    /// What.
    pub op: Op,
}

impl Entry {
    /// The entry's hash: a leaf of its commit's Merkle tree (PROTOCOL.md, "Entry hash").
    pub fn hash(&self) -> Hash {
        entry_hash(&self.replica, &self.author, self.timestamp, &self.op)
    }
}

/// Computes an entry's hash from its parts.
pub(crate) fn entry_hash(replica: &ReplicaId, author: &AuthorId, timestamp: Timestamp, op: &Op) -> Hash {
    let mut hasher = domain::entry_hasher();
    let mut head = [0u8; 32 + 32 + 8 + 1 + 2];
    head[..32].copy_from_slice(replica.as_bytes());
    head[32..64].copy_from_slice(author.as_bytes());
    head[64..72].copy_from_slice(&timestamp.0.to_be_bytes());
    let (tag, key) = match op {
        Op::Put { key, value: Value::Inline(_) } => (0, key.as_bytes()),
        Op::Put { key, value: Value::Blob { .. } } => (1, key.as_bytes()),
        Op::Delete { key } => (2, key.as_bytes()),
        Op::DeletePrefix { prefix } => (3, prefix.as_bytes()),
    };
    head[72] = tag;
    head[73..75].copy_from_slice(&u16::try_from(key.len()).expect("keys have at most 1,024 bytes").to_be_bytes());
    hasher.update(&head).update(key);
    match op {
        Op::Put { value: Value::Inline(bytes), .. } => {
            hasher.update(bytes);
        }
        Op::Put { value: Value::Blob { hash, len }, .. } => {
            hasher.update(&hash.0).update(&len.to_be_bytes());
        }
        Op::Delete { .. } | Op::DeletePrefix { .. } => {}
    }
    Hash(*hasher.finalize().as_bytes())
}

/// The place of an entry in the total order of a replica: (timestamp, author, entry hash).
/// *Newer* means later in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Order {
    /// The entry's timestamp.
    pub timestamp: Timestamp,
    /// Its author.
    pub author: AuthorId,
    /// Its hash.
    pub hash: Hash,
}

/// Whether the entry `t` dominates the entry `e`: whether `e` is forgotten where `t` is known.
///
/// `t` must be newer, and either both are values in the same slot, or `t` is a tombstone that
/// covers `e`. A value never dominates a tombstone. So the relation is transitive, and the
/// surviving set does not depend on the order of arrival. System entries are never dominated
/// by tombstones.
pub fn dominates(t: (&Op, &Order), e: (&Op, &Order)) -> bool {
    if t.1 <= e.1 {
        return false;
    }
    match (t.0, e.0) {
        (Op::Put { key: a, .. }, Op::Put { key: b, .. }) => a == b && t.1.author == e.1.author,
        (Op::Put { .. }, _) => false,
        (_, e) if e.is_system() => false,
        (Op::Delete { key: a }, Op::Put { key: b, .. } | Op::Delete { key: b }) => a == b,
        (Op::Delete { .. }, Op::DeletePrefix { .. }) => false,
        (Op::DeletePrefix { prefix }, e) => prefix.covers(e.key_bytes()),
    }
}

/// A place in the order of a replica's slots: a section byte, then the key or prefix.
///
/// Section 0 holds the system's entries, so that rights come before what they cover; section 1
/// the prefix tombstones; section 2 everything else. Reconciliation ranges, scopes and the
/// store's index are all in this order. Slots of one key (several authors' values, its
/// tombstone) share one place: ranges never cut between them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotKey(Bytes);

impl SlotKey {
    /// The first place of all.
    pub const FIRST: Self = Self(Bytes::new());

    /// The place of a key.
    pub fn of_key(key: &Key) -> Self {
        Self::build(if key.is_system() { 0 } else { 2 }, key)
    }

    /// The place of a prefix tombstone.
    pub fn of_prefix(prefix: &Prefix) -> Self {
        Self::build(1, prefix)
    }

    /// The place of `bytes` in the section of ordinary keys; `bytes` may be empty.
    pub fn ordinary(bytes: &[u8]) -> Self {
        Self::build(2, bytes)
    }

    fn build(section: u8, rest: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(rest.len() + 1);
        bytes.push(section);
        bytes.extend_from_slice(rest);
        Self(bytes.into())
    }

    /// A place from its bytes, as they stand in ranges on the wire; any bytes are a place.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A range of places: from `start`, inclusive, to `end`, exclusive; `None` is the end of all.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SlotRange {
    /// The first place in the range.
    pub start: SlotKey,
    /// The first place after it.
    pub end: Option<SlotKey>,
}

impl SlotRange {
    /// Everything.
    pub const ALL: Self = Self { start: SlotKey::FIRST, end: None };

    /// Ordinary keys that begin with `prefix`.
    pub fn of_prefix(prefix: &[u8]) -> Self {
        let start = SlotKey::ordinary(prefix);
        let end = successor_of_prefix(start.as_bytes()).map(SlotKey);
        Self { start, end }
    }

    /// Whether the place is in the range.
    pub fn contains(&self, place: &SlotKey) -> bool {
        *place >= self.start && self.end.as_ref().is_none_or(|end| place < end)
    }

    /// Whether nothing can be in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// The first byte string after all that begin with `prefix`; none when the prefix is all 0xff.
pub fn successor_of_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_1_to_1024_bytes() {
        assert_eq!(Key::new(Bytes::new()), Err(EntryError::EmptyKey));
        assert!(Key::new(vec![7; MAX_KEY_LEN]).is_ok());
        assert_eq!(Key::new(vec![7; MAX_KEY_LEN + 1]), Err(EntryError::KeyTooLong(MAX_KEY_LEN + 1)));
    }

    #[test]
    fn sections_put_rights_first_and_prefix_tombstones_before_keys() {
        let system = SlotKey::of_key(&Key::new(vec![0, 255]).unwrap());
        let prefix = SlotKey::of_prefix(&Prefix::new(vec![255; 9]).unwrap());
        let key = SlotKey::of_key(&Key::new(vec![1]).unwrap());
        assert!(SlotKey::FIRST < system && system < prefix && prefix < key);
    }

    #[test]
    fn the_range_of_a_prefix_holds_exactly_the_keys_with_it() {
        for (prefix, inside, outside) in [(&b"a"[..], &b"a1"[..], &b"b"[..]), (b"\xff", b"\xff\xff\x01", b"\xfe")] {
            let range = SlotRange::of_prefix(prefix);
            assert!(range.contains(&SlotKey::ordinary(inside)));
            assert!(range.contains(&SlotKey::ordinary(prefix)));
            assert!(!range.contains(&SlotKey::ordinary(outside)));
        }
    }
}
