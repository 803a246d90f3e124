//! The rights of the replicas, computed once for each state of their system entries.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::{
    engine::{EngineRead, Scan},
    names::Names,
    rows::{self, EntryRow, Head, ReplicaNo, entry_key},
    types::StoreError,
};
use crate::model::{AuthorId, GrantId, Op, ReplicaId, Rights, SlotKey, SlotRange, grant_of_key};

/// Rights by replica, each with the version of the system entries that they were computed from.
#[derive(Debug, Default)]
pub(super) struct RightsCache(Mutex<HashMap<ReplicaNo, (u64, Arc<Rights>)>>);

impl RightsCache {
    /// The rights that belong to `head`.
    pub fn rights(
        &self,
        rows: &dyn EngineRead,
        names: &Names,
        (id, replica): (ReplicaId, ReplicaNo),
        head: &Head,
    ) -> Result<Arc<Rights>, StoreError> {
        if let Some((version, rights)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&replica)
            && *version == head.rights_version
        {
            return Ok(rights.clone());
        }
        let rights = Arc::new(compute(rows, names, id, replica)?);
        self.put(replica, head.rights_version, rights.clone());
        Ok(rights)
    }

    /// Takes in rights whose system entries were committed.
    pub fn put(&self, replica: ReplicaNo, version: u64, rights: Arc<Rights>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cache.entry(replica).or_insert_with(|| (version, rights.clone()));
        if known.0 < version {
            *known = (version, rights);
        }
    }

    pub fn forget(&self, replica: ReplicaNo) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&replica);
    }
}

fn compute(rows: &dyn EngineRead, names: &Names, id: ReplicaId, replica: ReplicaNo) -> Result<Rights, StoreError> {
    let system = SlotRange { start: SlotKey::FIRST, end: Some(SlotKey::from_bytes(Bytes::from_static(&[1]))) };
    let (start, end) = entry_key::range(replica, &system);
    let mut waiting: Vec<(AuthorId, Op)> = Vec::new();
    let mut places: Vec<(GrantId, u64)> = Vec::new();
    rows::scan(rows, (&start, end.as_deref()), Scan::Forward, |key, value| {
        let (row, body) = EntryRow::decode(value)?;
        let op = rows::op_at(&entry_key::place(key)?, body)?;
        places.extend(grant_of_key(op.key_bytes()).map(|id| (id, row.position)));
        waiting.push((AuthorId(names.key(rows, row.author)?), op));
        Ok(true)
    })?;
    let mut rights = Rights::new(id);
    admit_all(&mut rights, &mut waiting, |(author, op)| (*author, op));
    places.iter().for_each(|(id, position)| rights.place(id, *position));
    Ok(rights)
}

/// Admits system entries, in whatever order they come, until no more of them can be; those stay in `waiting`.
pub(super) fn admit_all<T>(rights: &mut Rights, waiting: &mut Vec<T>, parts: impl Fn(&T) -> (AuthorId, &Op)) {
    loop {
        let before = waiting.len();
        waiting.retain(|entry| {
            let (author, op) = parts(entry);
            rights.admit(&author, op).is_err()
        });
        if waiting.len() == before || waiting.is_empty() {
            return;
        }
    }
}
