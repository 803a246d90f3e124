//! The rows of content, and what happens to them when an entry comes or goes.
//!
//! | space | key | value |
//! |---|---|---|
//! | content | hash | what is here: [`ContentRow`] |
//! | reference | hash, and the key of the entry's row | the length that the entry claims |
//! | doomed | hash | nothing: the collector looks at it |
//! | want | replica, hash | the length claimed last; the hash of the older version, if one is here |
//! | held | hash, replica | nothing: the replica was given the content |
//! | base | hash of the older version, and the want's replica and hash | nothing: it is not collected |
//! | standing | hash of a content, and that of one that stands on it | nothing: it is not collected |
//!
//! The bytes are here once, whoever refers to them. Whether a *replica* holds them is another
//! question: only when they were written into it here, or a peer of it proved to have them. So an
//! entry that merely names a hash gives nobody the bytes that another replica brought here. A
//! replica wants what its entries refer to until it holds that and all of it is here.

use std::{collections::HashMap, ops::ControlFlow};

use serde::{Deserialize, Serialize};
use sync_content::{Checkpoint, FileKind, GroupRanges, Overlay, groups::group_count};

use crate::{
    model::{Hash, ReplicaId},
    store::{
        EngineRead, EngineWrite, Origin, Scan, Scope, StoreError,
        rows::{Fields, ReplicaNo, after, corrupt, entry_key, scan},
    },
};

const CONTENT: u8 = 20;
const REFERENCE: u8 = 21;
const DOOMED: u8 = 23;
const WANT: u8 = 24;
const HELD: u8 = 25;
const BASE: u8 = 26;
const STANDING: u8 = 27;

fn of_hash(space: u8, hash: &Hash) -> Vec<u8> {
    [&[space][..], &hash.0].concat()
}

fn of_replica(space: u8, replica: ReplicaNo) -> Vec<u8> {
    [&[space][..], &replica.0.to_be_bytes()].concat()
}

fn want_key(replica: ReplicaNo, hash: &Hash) -> Vec<u8> {
    [&of_replica(WANT, replica)[..], &hash.0].concat()
}

fn base_key(base: &Hash, replica: ReplicaNo, hash: &Hash) -> Vec<u8> {
    [&of_hash(BASE, base)[..], &replica.0.to_be_bytes(), &hash.0].concat()
}

fn standing_key(base: &Hash, hash: &Hash) -> Vec<u8> {
    [&of_hash(STANDING, base)[..], &hash.0].concat()
}

fn held_key(hash: &Hash, replica: ReplicaNo) -> Vec<u8> {
    [&of_hash(HELD, hash)[..], &replica.0.to_be_bytes()].concat()
}

/// What is here of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContentRow {
    /// All of it, with its outboard when that is small; and what it stands on, which is complete then and stands on
    /// nothing itself.
    Complete { len: u64, outboard: Vec<u8>, over: Option<Overlay> },
    /// What a download has.
    Partial(Checkpoint, CameFor),
}

/// The replicas on whose behalf the bytes of a download came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::store) enum CameFor {
    /// Nothing came yet.
    #[default]
    Nobody,
    /// All of it came from peers of this one: with the last byte it holds the content.
    One(ReplicaId),
    /// Peers of several gave parts, so that none of them has shown to have the whole.
    Several,
}

impl CameFor {
    /// Something comes for `replica`.
    pub fn and(self, replica: ReplicaId) -> Self {
        match self {
            Self::Nobody => Self::One(replica),
            Self::One(first) if first == replica => self,
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

const COMPLETE: u8 = 1;
const PARTIAL: u8 = 2;
const OVERLAY: u8 = 3;

impl ContentRow {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Complete { len, outboard, over: None } => [&[COMPLETE][..], &len.to_be_bytes(), outboard].concat(),
            Self::Complete { len, outboard, over: Some(Overlay { base, own }) } => {
                let head = [&[OVERLAY][..], &len.to_be_bytes(), base.as_bytes()].concat();
                postcard::to_extend(&(own, outboard), head).expect("groups have an encoding")
            }
            Self::Partial(checkpoint, came_for) => {
                postcard::to_extend(&(came_for, checkpoint), vec![PARTIAL]).expect("a checkpoint has an encoding")
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        const WHAT: &str = "a content's row";
        let mut fields = Fields(bytes);
        match fields.u8(WHAT)? {
            COMPLETE => Ok(Self::Complete { len: fields.u64(WHAT)?, outboard: fields.0.to_vec(), over: None }),
            OVERLAY => {
                let (len, base) = (fields.u64(WHAT)?, Hash(fields.take(WHAT)?).into());
                match postcard::take_from_bytes::<(GroupRanges, Vec<u8>)>(fields.0) {
                    Ok(((own, outboard), [])) if own.end() <= group_count(len) => {
                        Ok(Self::Complete { len, outboard, over: Some(Overlay { base, own }) })
                    }
                    _ => Err(corrupt(WHAT)),
                }
            }
            PARTIAL => {
                let (came_for, checkpoint) = postcard::from_bytes(fields.0).map_err(|_| corrupt(WHAT))?;
                Ok(Self::Partial(checkpoint, came_for))
            }
            _ => Err(corrupt(WHAT)),
        }
    }

    pub fn load(rows: &dyn EngineRead, hash: &Hash) -> Result<Option<Self>, StoreError> {
        rows.get(&of_hash(CONTENT, hash))?.map(|row| Self::decode(&row)).transpose()
    }

    /// What is here of `hash` is this now. What it stood on is for the collector, unless others need it.
    fn save(rows: &mut dyn EngineWrite, hash: &Hash, now: Option<&Self>) -> Result<(), StoreError> {
        if let Some(Self::Complete { over: Some(Overlay { base, .. }), .. }) = Self::load(rows, hash)? {
            rows.delete(&standing_key(&base.into(), hash))?;
            rows.put(&of_hash(DOOMED, &base.into()), &[])?;
        }
        if let Some(Self::Complete { over: Some(Overlay { base, .. }), .. }) = now {
            rows.put(&standing_key(&(*base).into(), hash), &[])?;
        }
        match now {
            Some(now) => rows.put(&of_hash(CONTENT, hash), &now.encode()),
            None => rows.delete(&of_hash(CONTENT, hash)),
        }
    }
}

/// A reference from an entry to a content.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Reference<'a> {
    pub hash: Hash,
    pub len: u64,
    /// The key of the entry's row.
    pub entry: &'a [u8],
}

impl Reference<'_> {
    fn key(&self) -> Vec<u8> {
        // Without the byte of its space: 32 + 1 more bytes still fit into a key.
        [&of_hash(REFERENCE, &self.hash)[..], &self.entry[1..]].concat()
    }

    fn replica(&self) -> ReplicaNo {
        ReplicaNo(u32::from_be_bytes(self.entry[1..5].try_into().expect("an entry's key names its replica")))
    }
}

/// An entry with a blob came into a replica. What is not here in full is wanted. What is here is
/// held when it was written here; from a peer it is an entry like any other, and proves nothing.
pub(in crate::store) fn refer(
    rows: &mut dyn EngineWrite,
    reference: &Reference,
    origin: Origin,
    base: Option<Hash>,
) -> Result<(), StoreError> {
    let (replica, hash) = (reference.replica(), reference.hash);
    rows.put(&reference.key(), &reference.len.to_be_bytes())?;
    let here = is_complete(rows, &hash)?;
    match here && (origin == Origin::Local || is_held(rows, replica, &hash)?) {
        true => hold(rows, replica, &hash),
        false => {
            let key = want_key(replica, &hash);
            let known = rows.get(&key)?.map_or(Ok(None), |value| want(&key, &value).map(|want| want.base))?;
            end_want(rows, replica, &hash)?;
            put_want(rows, replica, &hash, reference.len, base.filter(|base| *base != hash).or(known))
        }
    }
}

/// What of an older version can be used for a new one that replaces `hash` in a replica: it, if the
/// replica holds it, or what it was itself to be made from.
pub(in crate::store) fn base(
    rows: &dyn EngineRead,
    replica: ReplicaNo,
    hash: &Hash,
) -> Result<Option<Hash>, StoreError> {
    if is_held(rows, replica, hash)? && is_complete(rows, hash)? {
        return Ok(Some(*hash));
    }
    let key = want_key(replica, hash);
    rows.get(&key)?.map_or(Ok(None), |value| Ok(want(&key, &value)?.base))
}

fn put_want(
    rows: &mut dyn EngineWrite,
    replica: ReplicaNo,
    hash: &Hash,
    len: u64,
    base: Option<Hash>,
) -> Result<(), StoreError> {
    let mut value = len.to_be_bytes().to_vec();
    if let Some(base) = base {
        value.extend_from_slice(&base.0);
        rows.put(&base_key(&base, replica, hash), &[])?;
    }
    rows.put(&want_key(replica, hash), &value)
}

/// A replica wants a content no longer. Its older version may be collected.
fn end_want(rows: &mut dyn EngineWrite, replica: ReplicaNo, hash: &Hash) -> Result<(), StoreError> {
    let key = want_key(replica, hash);
    let Some(value) = rows.get(&key)? else { return Ok(()) };
    if let Some(base) = want(&key, &value)?.base {
        rows.delete(&base_key(&base, replica, hash))?;
        rows.put(&of_hash(DOOMED, &base), &[])?;
    }
    rows.delete(&key)
}

/// An entry with a blob left a replica. Without another one there nothing is wanted, and the
/// collector looks whether what is here, or held, is needed.
pub(in crate::store) fn unrefer(rows: &mut dyn EngineWrite, reference: &Reference) -> Result<(), StoreError> {
    rows.delete(&reference.key())?;
    if !refers(rows, reference.replica(), &reference.hash)? {
        end_want(rows, reference.replica(), &reference.hash)?;
        rows.put(&of_hash(DOOMED, &reference.hash), &[])?;
    }
    Ok(())
}

/// The same, as the replica goes with all its entries: it holds nothing any more.
pub(in crate::store) fn forget(rows: &mut dyn EngineWrite, reference: &Reference) -> Result<(), StoreError> {
    rows.delete(&held_key(&reference.hash, reference.replica()))?;
    unrefer(rows, reference)
}

/// The replica was given the content, all of which is here.
fn hold(rows: &mut dyn EngineWrite, replica: ReplicaNo, hash: &Hash) -> Result<(), StoreError> {
    rows.put(&held_key(hash, replica), &[])?;
    end_want(rows, replica, hash)
}

/// The same, if all of it is here still and an entry refers to it. Says whether it was so.
pub(super) fn hold_if_here(rows: &mut dyn EngineWrite, replica: ReplicaNo, hash: &Hash) -> Result<bool, StoreError> {
    let here = is_complete(rows, hash)?;
    let needed = here && refers(rows, replica, hash)?;
    if needed {
        hold(rows, replica, hash)?;
    }
    Ok(needed)
}

/// Whether all of it is here.
pub(super) fn is_complete(rows: &dyn EngineRead, hash: &Hash) -> Result<bool, StoreError> {
    Ok(matches!(ContentRow::load(rows, hash)?, Some(ContentRow::Complete { .. })))
}

pub(super) fn is_held(rows: &dyn EngineRead, replica: ReplicaNo, hash: &Hash) -> Result<bool, StoreError> {
    Ok(rows.get(&held_key(hash, replica))?.is_some())
}

/// Whether an entry of the replica refers to `hash`.
fn refers(rows: &dyn EngineRead, replica: ReplicaNo, hash: &Hash) -> Result<bool, StoreError> {
    has_any(rows, &[&of_hash(REFERENCE, hash)[..], &replica.0.to_be_bytes()].concat())
}

/// The replicas that refer to `hash`, each with the length that one of its entries claims.
fn referring(rows: &dyn EngineRead, hash: &Hash) -> Result<Vec<(ReplicaNo, Vec<u8>)>, StoreError> {
    let all = of_hash(REFERENCE, hash);
    let (mut start, end) = (all.clone(), after(&all));
    let mut found: Vec<(ReplicaNo, Vec<u8>)> = Vec::new();
    loop {
        let before = found.len();
        scan(rows, (&start, end.as_deref()), Scan::Forward, |key, len| {
            let number = Fields(key.get(all.len()..).unwrap_or_default()).u32("a reference to a content")?;
            found.push((ReplicaNo(number), len.to_vec()));
            Ok(false)
        })?;
        // On with the next replica: how many entries of one refer to it does not matter.
        match found[before..].first().map(|(replica, _)| replica.0.checked_add(1)) {
            Some(Some(next)) => start = [&all[..], &next.to_be_bytes()].concat(),
            Some(None) | None => return Ok(found),
        }
    }
}

/// Whether an entry refers to `hash`, or it is the older version of something wanted, or something stands on it.
pub(super) fn is_needed(rows: &dyn EngineRead, hash: &Hash) -> Result<bool, StoreError> {
    Ok(has_any(rows, &of_hash(REFERENCE, hash))?
        || has_any(rows, &of_hash(BASE, hash))?
        || has_any(rows, &of_hash(STANDING, hash))?)
}

fn has_any(rows: &dyn EngineRead, start: &[u8]) -> Result<bool, StoreError> {
    let mut found = false;
    rows.scan(start, after(start).as_deref(), Scan::Forward, &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The contents that stand on `hash`.
pub(super) fn standing_on(rows: &dyn EngineRead, hash: &Hash) -> Result<Vec<Hash>, StoreError> {
    let all = of_hash(STANDING, hash);
    let mut found = Vec::new();
    rows.scan(&all, after(&all).as_deref(), Scan::Forward, &mut |key, _| {
        found.push(<[u8; 32]>::try_from(&key[all.len()..]).map(Hash));
        ControlFlow::Continue(())
    })?;
    found.into_iter().collect::<Result<_, _>>().map_err(|_| corrupt("what stands on a content"))
}

/// The keys of the rows of at most `limit` entries inside of `scope` that refer to `hash`.
pub(super) fn references(
    rows: &dyn EngineRead,
    (replica, hash): (ReplicaNo, &Hash),
    scope: &Scope,
    limit: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let all = of_hash(REFERENCE, hash);
    let mut found = Vec::new();
    for range in scope.ranges() {
        if found.len() == limit {
            break;
        }
        // The byte of the space stands before an entry's key, the hash in its place before a reference's.
        let (start, end) = entry_key::range(replica, range);
        let space = start[0];
        let start = [&all[..], &start[1..]].concat();
        let end = match end {
            Some(end) if end[0] == space => Some([&all[..], &end[1..]].concat()),
            _ => after(&all),
        };
        rows.scan(&start, end.as_deref(), Scan::Forward, &mut |key, _| {
            found.push([&[space], &key[all.len()..]].concat());
            if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    Ok(found)
}

/// All of a content is here. Whoever holds it wants it no longer, and without a reference it is
/// for the collector.
pub(super) fn put_complete(
    rows: &mut dyn EngineWrite,
    hash: &Hash,
    len: u64,
    outboard: Vec<u8>,
) -> Result<(), StoreError> {
    put_content(rows, hash, &ContentRow::Complete { len, outboard, over: None })
}

/// The same for one that stands on another. Nothing happens, and the answer says so, when that is not here any more, or
/// stands on something itself.
pub(super) fn put_overlay(
    rows: &mut dyn EngineWrite,
    hash: &Hash,
    len: u64,
    outboard: Vec<u8>,
    over: Overlay,
) -> Result<bool, StoreError> {
    let base = ContentRow::load(rows, &over.base.into())?;
    let stands = matches!(base, Some(ContentRow::Complete { over: None, .. })) && Hash::from(over.base) != *hash;
    if stands {
        put_content(rows, hash, &ContentRow::Complete { len, outboard, over: Some(over) })?;
    }
    Ok(stands)
}

fn put_content(rows: &mut dyn EngineWrite, hash: &Hash, row: &ContentRow) -> Result<(), StoreError> {
    ContentRow::save(rows, hash, Some(row))?;
    for (replica, _) in referring(rows, hash)? {
        if is_held(rows, replica, hash)? {
            end_want(rows, replica, hash)?;
        }
    }
    doom_unless_referenced(rows, hash)
}

/// A download has something. What is complete stays so: it was finished, or imported, meanwhile.
pub(super) fn put_partial(
    rows: &mut dyn EngineWrite,
    checkpoint: &Checkpoint,
    came_for: CameFor,
) -> Result<(), StoreError> {
    let hash = checkpoint.hash().into();
    if is_complete(rows, &hash)? {
        return Ok(());
    }
    ContentRow::save(rows, &hash, Some(&ContentRow::Partial(checkpoint.clone(), came_for)))?;
    doom_unless_referenced(rows, &hash)
}

/// Nothing is here any more. Whoever refers to it wants it. Nothing may stand on it.
pub(super) fn put_missing(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    ContentRow::save(rows, hash, None)?;
    for (replica, len) in referring(rows, hash)? {
        let key = want_key(replica, hash);
        if rows.get(&key)?.is_none() {
            rows.put(&key, &len)?;
        }
    }
    Ok(())
}

/// The collector took it: no entry refers to it.
pub(super) fn remove(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    ContentRow::save(rows, hash, None)?;
    spare(rows, hash)
}

/// The collector looked. A replica that does not refer to it any more does not hold it any more: it
/// must not come back to who joins later and knows the hash.
pub(super) fn spare(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    rows.delete(&of_hash(DOOMED, hash))?;
    let all = of_hash(HELD, hash);
    let mut holders = Vec::new();
    rows.scan(&all, after(&all).as_deref(), Scan::Forward, &mut |key, _| {
        holders.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    for key in holders {
        let replica = ReplicaNo(Fields(&key[all.len()..]).u32("a holding")?);
        if !refers(rows, replica, hash)? {
            rows.delete(&key)?;
        }
    }
    Ok(())
}

fn doom_unless_referenced(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    if is_needed(rows, hash)? { Ok(()) } else { rows.put(&of_hash(DOOMED, hash), &[]) }
}

/// A row of a want.
pub(super) struct WantRow {
    pub replica: ReplicaNo,
    pub hash: Hash,
    pub len: u64,
    pub base: Option<Hash>,
}

/// The wants after `from`, by replica and hash.
pub(super) fn wants(
    rows: &dyn EngineRead,
    from: Option<(ReplicaNo, &Hash)>,
    limit: usize,
) -> Result<Vec<WantRow>, StoreError> {
    let mut start = from.map_or_else(|| vec![WANT], |(replica, hash)| want_key(replica, hash));
    if from.is_some() {
        start.push(0); // The first key after that of `from`.
    }
    let mut found = Vec::new();
    scan(rows, (&start, Some(&[WANT + 1][..])), Scan::Forward, |key, value| {
        if found.len() == limit {
            return Ok(false);
        }
        found.push(want(key, value)?);
        Ok(true)
    })?;
    Ok(found)
}

fn want(key: &[u8], value: &[u8]) -> Result<WantRow, StoreError> {
    const WHAT: &str = "a want";
    let (mut key, mut value) = (Fields(&key[1..]), Fields(value));
    let (replica, hash, len) = (ReplicaNo(key.u32(WHAT)?), Hash(key.take(WHAT)?), value.u64(WHAT)?);
    let base = if value.0.is_empty() { None } else { Some(Hash(value.take(WHAT)?)) };
    key.end(WHAT)?;
    value.end(WHAT)?;
    Ok(WantRow { replica, hash, len, base })
}

/// How many contents a replica wants; at most `limit` are counted.
pub(super) fn count_wants(rows: &dyn EngineRead, replica: ReplicaNo, limit: u64) -> Result<u64, StoreError> {
    let start = of_replica(WANT, replica);
    let mut count = 0;
    rows.scan(&start, after(&start).as_deref(), Scan::Forward, &mut |_, _| {
        count += 1;
        if count >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(count)
}

/// What the collector has to look at, after `from`.
pub(super) fn doomed(rows: &dyn EngineRead, from: Option<&Hash>, limit: usize) -> Result<Vec<Hash>, StoreError> {
    let mut found = Vec::new();
    hashes(rows, DOOMED, from, limit, |hash, _| {
        found.push(hash);
        Ok(())
    })?;
    Ok(found)
}

/// What is here, all of it: whether in full; for the start.
pub(super) fn contents(rows: &dyn EngineRead) -> Result<HashMap<Hash, FileKind>, StoreError> {
    let mut found = HashMap::new();
    hashes(rows, CONTENT, None, usize::MAX, |hash, value| {
        let kind = match value.first() {
            Some(&COMPLETE) => FileKind::Complete,
            Some(&OVERLAY) => FileKind::Overlay,
            Some(&PARTIAL) => FileKind::Partial,
            _ => return Err(corrupt("a content's row")),
        };
        found.insert(hash, kind);
        Ok(())
    })?;
    Ok(found)
}

fn hashes(
    rows: &dyn EngineRead,
    space: u8,
    from: Option<&Hash>,
    limit: usize,
    mut visit: impl FnMut(Hash, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut start = from.map_or_else(|| vec![space], |hash| of_hash(space, hash));
    if from.is_some() {
        start.push(0); // The first key after that of `from`.
    }
    let mut seen = 0;
    scan(rows, (&start, Some(&[space + 1][..])), Scan::Forward, |key, value| {
        if seen == limit {
            return Ok(false);
        }
        seen += 1;
        let hash = <[u8; 32]>::try_from(&key[1..]).map_err(|_| corrupt("the key of a content's row"))?;
        visit(Hash(hash), value)?;
        Ok(true)
    })
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::Engine, testing::sim::Disk};

    #[test]
    fn the_key_of_a_reference_that_is_cut_short_is_an_error() {
        let (disk, hash) = (Disk::default(), Hash([7; 32]));
        let key = [&of_hash(REFERENCE, &hash)[..], &[0, 0]].concat();
        disk.write(&mut |rows| rows.put(&key, &[])).expect("memory can be written");
        let found = referring(&disk.snapshot().expect("memory can be read"), &hash);
        assert!(matches!(&found, Err(StoreError::Corrupt(what)) if what.contains("reference")), "{found:?}");
    }
}
