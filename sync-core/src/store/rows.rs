//! The rows of an embedded store: key spaces in one ordered byte space, and their encodings.
//!
//! | space | key | value |
//! |---|---|---|
//! | meta | name | format, store id, salt, next short numbers, the last position of the replicas that were removed |
//! | replica | replica id | its number |
//! | number, key | public key; number | number; public key |
//! | head | replica | [`Head`] |
//! | entry | replica, place, `00 00`, author or `ff ff ff ff` for a tombstone | [`EntryRow`] and the op |
//! | log | replica, position | the entry row's place and author |
//! | commit, tree, name | replica, commit; replica, hash of the seal and root | [`CommitRow`]; tree; commit |
//! | index | replica, level, place | a summary (see `index`) |
//! | node | kind, name | the node's own records |
//! | 20 to 25 | | what is here of contents (see `content::rows`) |
//!
//! Numbers are big-endian, so they sort. In entry keys the byte 00 of a place is written `00 ff`,
//! so that `00 00` ends it and the order of keys is the order of places.

use bytes::Bytes;

use super::{
    engine::{EngineRead, Scan},
    types::{NodeKind, StoreError},
};
use crate::model::{Hash, Key, Op, Prefix, PublicKey, Signature, SlotRange, Timestamp, Value};

/// The format that this version writes, and the newest it can read. 2: an engine may keep a journal beside its
/// rows, which a program that knows only 1 would not look at. 3: a content may stand on another. The other rows are
/// the same, and a store of an older format is one of this when it is opened.
pub(super) const FORMAT: u32 = 3;

/// Stands for the author in the key of a tombstone: whoever wrote it, a key has one.
const TOMBSTONE: u32 = u32::MAX;

const META: u8 = 0;
const REPLICA: u8 = 1;
const NUMBER: u8 = 2;
const KEY: u8 = 3;
const HEAD: u8 = 4;
const ENTRY: u8 = 5;
const LOG: u8 = 6;
const COMMIT: u8 = 7;
const TREE: u8 = 8;
const COMMIT_NAME: u8 = 9;
const INDEX: u8 = 10;
const NODE: u8 = 11;

/// A replica's short number in this store; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ReplicaNo(pub u32);

/// A public key's short number in this store, for authors and peers; from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct KeyNo(pub u32);

/// A commit's short number in its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CommitNo(pub u64);

pub(super) fn meta_key(name: &str) -> Vec<u8> {
    [&[META], name.as_bytes()].concat()
}

pub(super) fn replica_key(replica: &PublicKey) -> Vec<u8> {
    [&[REPLICA][..], &replica.0].concat()
}

/// All replica rows.
pub(super) fn replica_rows() -> (Vec<u8>, Vec<u8>) {
    (vec![REPLICA], vec![REPLICA + 1])
}

pub(super) fn number_key(key: &PublicKey) -> Vec<u8> {
    [&[NUMBER][..], &key.0].concat()
}

pub(super) fn key_key(number: KeyNo) -> Vec<u8> {
    [&[KEY][..], &number.0.to_be_bytes()].concat()
}

fn of_replica(space: u8, replica: ReplicaNo) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(space);
    key.extend_from_slice(&replica.0.to_be_bytes());
    key
}

pub(super) fn head_key(replica: ReplicaNo) -> Vec<u8> {
    of_replica(HEAD, replica)
}

pub(super) fn log_key(replica: ReplicaNo, position: u64) -> Vec<u8> {
    let mut key = of_replica(LOG, replica);
    key.extend_from_slice(&position.to_be_bytes());
    key
}

/// The position in the key of a log row.
pub(super) fn position_of(key: &[u8]) -> Result<u64, StoreError> {
    Fields(&key[5.min(key.len())..]).u64("a log row's key")
}

/// A log row: where the entry came from, and its place and author.
pub(super) fn log_row(origin: Option<KeyNo>, slot: &[u8]) -> Vec<u8> {
    [&origin.map_or(0, |key| key.0).to_be_bytes()[..], &slot[5..]].concat()
}

/// The origin and the entry's key from a log row.
pub(super) fn of_log_row(replica: ReplicaNo, row: &[u8]) -> Result<(Option<KeyNo>, Vec<u8>), StoreError> {
    let mut fields = Fields(row);
    let origin = Some(fields.u32("a log row")?).filter(|number| *number != 0).map(KeyNo);
    let mut slot = of_replica(ENTRY, replica);
    slot.extend_from_slice(fields.0);
    Ok((origin, slot))
}

pub(super) fn commit_key(replica: ReplicaNo, commit: CommitNo) -> Vec<u8> {
    let mut key = of_replica(COMMIT, replica);
    key.extend_from_slice(&commit.0.to_be_bytes());
    key
}

pub(super) fn tree_key(replica: ReplicaNo, commit: CommitNo) -> Vec<u8> {
    let mut key = of_replica(TREE, replica);
    key.extend_from_slice(&commit.0.to_be_bytes());
    key
}

pub(super) fn commit_name_key(replica: ReplicaNo, name: &[u8; 32]) -> Vec<u8> {
    let mut key = of_replica(COMMIT_NAME, replica);
    key.extend_from_slice(name);
    key
}

pub(super) fn index_key(replica: ReplicaNo, level: u8, place: &[u8]) -> Vec<u8> {
    let mut key = of_replica(INDEX, replica);
    key.push(level);
    key.extend_from_slice(place);
    key
}

/// The place in the key of an index row.
pub(super) fn place_of_index_key(key: &[u8]) -> &[u8] {
    key.get(6..).unwrap_or_default()
}

pub(super) fn node_key(kind: NodeKind, name: &[u8]) -> Vec<u8> {
    [&[NODE, kind as u8], name].concat()
}

/// The first key after all that begin with `prefix`.
pub(super) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    crate::model::successor_of_prefix(prefix).map(|end| end.to_vec())
}

/// All spaces' rows of a replica, head included, as key prefixes.
pub(super) fn prefixes_of(replica: ReplicaNo) -> impl Iterator<Item = Vec<u8>> {
    [HEAD, ENTRY, LOG, COMMIT, TREE, COMMIT_NAME, INDEX].into_iter().map(move |space| of_replica(space, replica))
}

/// The keys of entry rows.
pub(super) mod entry_key {
    use super::*;

    fn at(replica: ReplicaNo, place: &[u8], room: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(5 + place.len() + room);
        key.push(ENTRY);
        key.extend_from_slice(&replica.0.to_be_bytes());
        for &byte in place {
            key.push(byte);
            if byte == 0 {
                key.push(0xff);
            }
        }
        key
    }

    fn slot(replica: ReplicaNo, place: &[u8], author: u32) -> Vec<u8> {
        let mut key = at(replica, place, 8);
        key.extend_from_slice(&[0, 0]);
        key.extend_from_slice(&author.to_be_bytes());
        key
    }

    /// The slot of an author's value.
    pub fn value(replica: ReplicaNo, place: &[u8], author: KeyNo) -> Vec<u8> {
        slot(replica, place, author.0)
    }

    /// The slot of a tombstone.
    pub fn tombstone(replica: ReplicaNo, place: &[u8]) -> Vec<u8> {
        slot(replica, place, TOMBSTONE)
    }

    /// All rows at exactly `place`.
    pub fn group(replica: ReplicaNo, place: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut start = at(replica, place, 8);
        let mut end = start.clone();
        start.extend_from_slice(&[0, 0]);
        end.extend_from_slice(&[0, 1]);
        (start, end)
    }

    /// The first key that a row at `place` or after can have.
    pub fn from(replica: ReplicaNo, place: &[u8]) -> Vec<u8> {
        at(replica, place, 0)
    }

    /// The first key after every row at `place` or before.
    pub fn past(replica: ReplicaNo, place: &[u8]) -> Vec<u8> {
        let mut key = at(replica, place, 2);
        key.extend_from_slice(&[0, 1]);
        key
    }

    /// All rows in `range`.
    pub fn range(replica: ReplicaNo, range: &SlotRange) -> (Vec<u8>, Option<Vec<u8>>) {
        let end = match &range.end {
            Some(end) => Some(from(replica, end.as_bytes())),
            None => after(&of_replica(ENTRY, replica)),
        };
        (from(replica, range.start.as_bytes()), end)
    }

    /// The part of the key that all rows of one place share; nothing in a damaged key that is too short.
    pub fn escaped_place(key: &[u8]) -> &[u8] {
        key.get(5..key.len().saturating_sub(6)).unwrap_or_default()
    }

    /// The place in an entry's key.
    pub fn place(key: &[u8]) -> Result<Bytes, StoreError> {
        if key.len() < 5 + 6 {
            return Err(corrupt("an entry's key"));
        }
        let escaped = escaped_place(key);
        let mut place = Vec::with_capacity(escaped.len());
        let mut bytes = escaped.iter();
        while let Some(&byte) = bytes.next() {
            place.push(byte);
            if byte == 0 && bytes.next() != Some(&0xff) {
                return Err(corrupt("an entry's key"));
            }
        }
        Ok(place.into())
    }

    /// Whether the key is a tombstone's.
    pub fn is_tombstone(key: &[u8]) -> bool {
        key.ends_with(&TOMBSTONE.to_be_bytes())
    }
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read"))
}

/// Reads fields from the front of a row.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], StoreError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| corrupt(what))?;
        self.0 = rest;
        Ok(*field)
    }

    pub fn u8(&mut self, what: &str) -> Result<u8, StoreError> {
        Ok(self.take::<1>(what)?[0])
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, StoreError> {
        Ok(u32::from_be_bytes(self.take(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, StoreError> {
        Ok(u64::from_be_bytes(self.take(what)?))
    }

    pub fn end(self, what: &str) -> Result<(), StoreError> {
        if self.0.is_empty() { Ok(()) } else { Err(corrupt(what)) }
    }
}

/// What changes with every batch of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// The last position of the change log.
    pub position: u64,
    /// The newest timestamp.
    pub newest: Timestamp,
    /// The number of the next commit.
    pub next_commit: u64,
    /// Grows with every system entry; names a state of the rights.
    pub rights_version: u64,
    /// The number of tombstones of single keys: where there are none, nobody looks for one.
    pub tombstones: u64,
    /// The number of prefix tombstones.
    pub prefix_tombstones: u64,
    /// The number of values that are blobs.
    pub blobs: u64,
    /// The length of all values.
    pub bytes: u64,
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        [
            self.position,
            self.newest.0,
            self.next_commit,
            self.rights_version,
            self.tombstones,
            self.prefix_tombstones,
            self.blobs,
            self.bytes,
        ]
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        const WHAT: &str = "a replica's head";
        let mut fields = Fields(bytes);
        let head = Self {
            position: fields.u64(WHAT)?,
            newest: Timestamp(fields.u64(WHAT)?),
            next_commit: fields.u64(WHAT)?,
            rights_version: fields.u64(WHAT)?,
            tombstones: fields.u64(WHAT)?,
            prefix_tombstones: fields.u64(WHAT)?,
            blobs: fields.u64(WHAT)?,
            bytes: fields.u64(WHAT)?,
        };
        fields.end(WHAT)?;
        Ok(head)
    }

    pub fn load(rows: &dyn EngineRead, replica: ReplicaNo) -> Result<Self, StoreError> {
        let row = rows.get(&head_key(replica))?.ok_or_else(|| corrupt("a replica's head"))?;
        Self::decode(&row)
    }
}

/// Where an entry's proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is a commit of its own: this signature is all of it.
    Alone(Signature),
    /// In the commit's rows, at this leaf.
    Part(CommitNo, u32),
}

/// An entry's row, but for its op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryRow {
    pub hash: Hash,
    pub timestamp: Timestamp,
    pub author: KeyNo,
    pub position: u64,
    /// The peer that it came from.
    pub origin: Option<KeyNo>,
    pub proof: Proof,
}

const INLINE: u8 = 0;
const BLOB: u8 = 1;
const DELETE: u8 = 2;
const DELETE_PREFIX: u8 = 3;

impl EntryRow {
    pub fn encode(&self, op: &Op) -> Vec<u8> {
        let mut row = Vec::with_capacity(
            128 + match op {
                Op::Put { value: Value::Inline(bytes), .. } => bytes.len(),
                _ => 40,
            },
        );
        row.extend_from_slice(&self.hash.0);
        row.extend_from_slice(&self.timestamp.0.to_be_bytes());
        row.extend_from_slice(&self.author.0.to_be_bytes());
        row.extend_from_slice(&self.position.to_be_bytes());
        row.extend_from_slice(&self.origin.map_or(0, |key| key.0).to_be_bytes());
        match &self.proof {
            Proof::Alone(signature) => {
                row.push(0);
                row.extend_from_slice(&signature.0);
            }
            Proof::Part(commit, index) => {
                row.push(1);
                row.extend_from_slice(&commit.0.to_be_bytes());
                row.extend_from_slice(&index.to_be_bytes());
            }
        }
        match op {
            Op::Put { value: Value::Inline(bytes), .. } => {
                row.push(INLINE);
                row.extend_from_slice(bytes);
            }
            Op::Put { value: Value::Blob { hash, len }, .. } => {
                row.push(BLOB);
                row.extend_from_slice(&hash.0);
                row.extend_from_slice(&len.to_be_bytes());
            }
            Op::Delete { .. } => row.push(DELETE),
            Op::DeletePrefix { .. } => row.push(DELETE_PREFIX),
        }
        row
    }

    /// The row, and what is left: the op's part.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        const WHAT: &str = "an entry's row";
        let mut fields = Fields(bytes);
        let hash = Hash(fields.take(WHAT)?);
        let timestamp = Timestamp(fields.u64(WHAT)?);
        let author = KeyNo(fields.u32(WHAT)?);
        let position = fields.u64(WHAT)?;
        let origin = Some(fields.u32(WHAT)?).filter(|number| *number != 0).map(KeyNo);
        let proof = match fields.u8(WHAT)? {
            0 => Proof::Alone(Signature(fields.take(WHAT)?)),
            1 => Proof::Part(CommitNo(fields.u64(WHAT)?), fields.u32(WHAT)?),
            _ => return Err(corrupt(WHAT)),
        };
        Ok((Self { hash, timestamp, author, position, origin, proof }, fields.0))
    }

    /// The hash alone.
    pub fn hash(bytes: &[u8]) -> Result<Hash, StoreError> {
        Ok(Hash(Fields(bytes).take("an entry's row")?))
    }
}

/// The content that an entry refers to, and its claimed length, from the last part of its row.
pub(super) fn blob_of(body: &[u8]) -> Result<Option<(Hash, u64)>, StoreError> {
    const WHAT: &str = "an entry's row";
    let Some((&BLOB, body)) = body.split_first() else { return Ok(None) };
    let mut fields = Fields(body);
    let blob = (Hash(fields.take(WHAT)?), fields.u64(WHAT)?);
    fields.end(WHAT)?;
    Ok(Some(blob))
}

/// The same from a row of any space.
pub(super) fn blob_in(key: &[u8], row: &[u8]) -> Result<Option<(Hash, u64)>, StoreError> {
    if key.first() == Some(&ENTRY) { blob_of(EntryRow::decode(row)?.1) } else { Ok(None) }
}

/// The length of an entry's value, from the last part of its row; of a tombstone nothing.
pub(super) fn value_len(body: &[u8]) -> Result<u64, StoreError> {
    match (blob_of(body)?, body.first()) {
        (Some((_, len)), _) => Ok(len),
        (None, Some(&INLINE)) => Ok(body.len() as u64 - 1),
        (None, _) => Ok(0),
    }
}

/// The op of an entry at `place`, from the last part of its row.
pub(super) fn op_at(place: &Bytes, body: &[u8]) -> Result<Op, StoreError> {
    const WHAT: &str = "an entry's row";
    let (&tag, body) = body.split_first().ok_or_else(|| corrupt(WHAT))?;
    if place.is_empty() {
        return Err(corrupt("an entry's key"));
    }
    let name = place.slice(1..);
    let key = || Key::new(name.clone()).map_err(|_| corrupt("an entry's key"));
    Ok(match tag {
        INLINE => Op::Put { key: key()?, value: Value::Inline(Bytes::copy_from_slice(body)) },
        BLOB => {
            let mut fields = Fields(body);
            let value = Value::Blob { hash: Hash(fields.take(WHAT)?), len: fields.u64(WHAT)? };
            fields.end(WHAT)?;
            Op::Put { key: key()?, value }
        }
        DELETE => Op::Delete { key: key()? },
        DELETE_PREFIX => Op::DeletePrefix { prefix: Prefix::new(name).map_err(|_| corrupt("an entry's key"))? },
        _ => return Err(corrupt(WHAT)),
    })
}

/// Shows the rows in a range to `visit` until it answers false; its first error ends the scan.
pub(super) fn scan(
    rows: &dyn EngineRead,
    range: (&[u8], Option<&[u8]>),
    order: Scan,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    rows.scan(range.0, range.1, order, &mut |key, value| match visit(key, value) {
        Ok(true) => std::ops::ControlFlow::Continue(()),
        Ok(false) => std::ops::ControlFlow::Break(()),
        Err(error) => {
            result = Err(error);
            std::ops::ControlFlow::Break(())
        }
    })?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entry_keys_sort_as_places_do_and_come_back(
            mut a in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 1..6),
            mut b in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 1..6),
            authors in (1u32..9, 1u32..9),
        ) {
            (a[0], b[0]) = (2, 2);
            let replica = ReplicaNo(7);
            let (ka, kb) = (entry_key::value(replica, &a, KeyNo(authors.0)), entry_key::value(replica, &b, KeyNo(authors.1)));
            prop_assert_eq!((&a, authors.0).cmp(&(&b, authors.1)), ka.cmp(&kb));
            prop_assert_eq!(&entry_key::place(&ka).unwrap()[..], &a[..]);
            prop_assert_eq!(entry_key::from(replica, &a) <= kb, a <= b);
            prop_assert_eq!(kb < entry_key::past(replica, &a), b <= a);
            let (start, end) = entry_key::group(replica, &a);
            prop_assert_eq!(start <= kb && kb < end, a == b);
        }
    }
}
