//! The rows of content, and what happens to them when an entry comes or goes.
//!
//! | space | key | value |
//! |---|---|---|
//! | content | hash | what is here: [`ContentRow`] |
//! | reference | hash, and the key of the entry's row | the length that the entry claims |
//! | want | hash | the length claimed last |
//! | doomed | hash | nothing: the collector looks at it |

use std::{collections::HashMap, ops::ControlFlow};

use sync_content::{Checkpoint, FileKind};

use crate::{
    model::Hash,
    store::{
        EngineRead, EngineWrite, Scan, StoreError,
        rows::{Fields, after, corrupt},
    },
};

const CONTENT: u8 = 20;
const REFERENCE: u8 = 21;
const WANT: u8 = 22;
const DOOMED: u8 = 23;

fn of_hash(space: u8, hash: &Hash) -> Vec<u8> {
    [&[space][..], &hash.0].concat()
}

/// What is here of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContentRow {
    /// All of it, with its outboard when that is small.
    Complete { len: u64, outboard: Vec<u8> },
    /// What a download has.
    Partial(Checkpoint),
}

const COMPLETE: u8 = 1;
const PARTIAL: u8 = 2;

impl ContentRow {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Complete { len, outboard } => [&[COMPLETE][..], &len.to_be_bytes(), outboard].concat(),
            Self::Partial(checkpoint) => {
                postcard::to_extend(checkpoint, vec![PARTIAL]).expect("a checkpoint has an encoding")
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        const WHAT: &str = "a content's row";
        let mut fields = Fields(bytes);
        match fields.u8(WHAT)? {
            COMPLETE => Ok(Self::Complete { len: fields.u64(WHAT)?, outboard: fields.0.to_vec() }),
            PARTIAL => postcard::from_bytes(fields.0).map(Self::Partial).map_err(|_| corrupt(WHAT)),
            _ => Err(corrupt(WHAT)),
        }
    }

    pub fn load(rows: &dyn EngineRead, hash: &Hash) -> Result<Option<Self>, StoreError> {
        rows.get(&of_hash(CONTENT, hash))?.map(|row| Self::decode(&row)).transpose()
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
}

/// An entry with a blob came into a replica. What is not here in full is wanted.
pub(in crate::store) fn refer(rows: &mut dyn EngineWrite, reference: &Reference) -> Result<(), StoreError> {
    let len = reference.len.to_be_bytes();
    rows.put(&reference.key(), &len)?;
    match ContentRow::load(rows, &reference.hash)? {
        Some(ContentRow::Complete { .. }) => Ok(()),
        _ => rows.put(&of_hash(WANT, &reference.hash), &len),
    }
}

/// An entry with a blob left a replica. Without another reference nothing is wanted, and what is
/// here is for the collector.
pub(in crate::store) fn unrefer(rows: &mut dyn EngineWrite, reference: &Reference) -> Result<(), StoreError> {
    rows.delete(&reference.key())?;
    if !is_referenced(rows, &reference.hash)? {
        rows.delete(&of_hash(WANT, &reference.hash))?;
        rows.put(&of_hash(DOOMED, &reference.hash), &[])?;
    }
    Ok(())
}

pub(super) fn is_referenced(rows: &dyn EngineRead, hash: &Hash) -> Result<bool, StoreError> {
    let mut found = false;
    references(rows, hash, &mut |_| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Shows the key of each entry that refers to `hash`.
pub(super) fn references(
    rows: &dyn EngineRead,
    hash: &Hash,
    visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let start = of_hash(REFERENCE, hash);
    // The byte of the space makes it the entry's key again; which one it is nobody looks at.
    rows.scan(&start, after(&start).as_deref(), Scan::Forward, &mut |key, _| visit(&key[start.len() - 1..]))
}

/// All of a content is here: nothing is wanted, and without a reference it is for the collector.
pub(super) fn put_complete(
    rows: &mut dyn EngineWrite,
    hash: &Hash,
    len: u64,
    outboard: Vec<u8>,
) -> Result<(), StoreError> {
    rows.put(&of_hash(CONTENT, hash), &ContentRow::Complete { len, outboard }.encode())?;
    rows.delete(&of_hash(WANT, hash))?;
    doom_unless_referenced(rows, hash)
}

/// A download has something. What is complete stays so: it was finished, or imported, meanwhile.
pub(super) fn put_partial(rows: &mut dyn EngineWrite, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let hash = checkpoint.hash().into();
    if let Some(ContentRow::Complete { .. }) = ContentRow::load(rows, &hash)? {
        return Ok(());
    }
    rows.put(&of_hash(CONTENT, &hash), &ContentRow::Partial(checkpoint.clone()).encode())?;
    doom_unless_referenced(rows, &hash)
}

/// Nothing is here any more. Where an entry refers to it, it is wanted.
pub(super) fn put_missing(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    rows.delete(&of_hash(CONTENT, hash))?;
    let start = of_hash(REFERENCE, hash);
    let mut claimed = None;
    rows.scan(&start, after(&start).as_deref(), Scan::Forward, &mut |_, len| {
        claimed = Some(len.to_vec());
        ControlFlow::Break(())
    })?;
    match claimed {
        Some(len) => rows.put(&of_hash(WANT, hash), &len),
        None => Ok(()),
    }
}

/// The collector took it.
pub(super) fn remove(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    rows.delete(&of_hash(CONTENT, hash))?;
    rows.delete(&of_hash(WANT, hash))?;
    rows.delete(&of_hash(DOOMED, hash))
}

/// The collector saw a reference.
pub(super) fn spare(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    rows.delete(&of_hash(DOOMED, hash))
}

fn doom_unless_referenced(rows: &mut dyn EngineWrite, hash: &Hash) -> Result<(), StoreError> {
    if is_referenced(rows, hash)? { Ok(()) } else { rows.put(&of_hash(DOOMED, hash), &[]) }
}

/// The wants after `from`, by hash: with the claimed lengths.
pub(super) fn wants(rows: &dyn EngineRead, from: Option<&Hash>, limit: usize) -> Result<Vec<(Hash, u64)>, StoreError> {
    let mut found = Vec::new();
    hashes(rows, WANT, from, limit, |hash, value| {
        let len = value.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a want"))?;
        found.push((hash, len));
        Ok(())
    })?;
    Ok(found)
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
    let mut result = Ok(());
    rows.scan(&start, Some(&[space + 1]), Scan::Forward, &mut |key, value| {
        if seen == limit {
            return ControlFlow::Break(());
        }
        seen += 1;
        result = match <[u8; 32]>::try_from(&key[1..]) {
            Ok(hash) => visit(Hash(hash), value),
            Err(_) => Err(corrupt("the key of a content's row")),
        };
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}
