//! The index without a store around it, for whoever measures it.

use super::{
    engine::{Engine, EngineWrite},
    index::{self, Deltas, Salt},
    rows::{KeyNo, ReplicaNo, entry_key},
    types::StoreError,
};
use crate::model::{Hash, SlotKey};

const REPLICA: ReplicaNo = ReplicaNo(3);
const SALT: Salt = Salt([5; 32]);

/// Writes rows of entries at these places, which hold their hashes alone, and nothing of the index.
pub fn put_entries(engine: &impl Engine, slots: &[(SlotKey, Hash)]) -> Result<(), StoreError> {
    engine.write(&mut |rows: &mut dyn EngineWrite| {
        let mut put =
            |(place, hash): &(SlotKey, Hash)| rows.put(&entry_key::value(REPLICA, place.as_bytes(), KeyNo(1)), &hash.0);
        slots.iter().try_for_each(&mut put)
    })
}

/// Brings the index up to date in one transaction, after the entries' rows were written.
pub fn insert(engine: &impl Engine, slots: &[(SlotKey, Hash)]) -> Result<(), StoreError> {
    engine.write(&mut |rows: &mut dyn EngineWrite| {
        let mut deltas = Deltas::default();
        slots.iter().for_each(|(place, hash)| deltas.inserted(place.clone(), *hash));
        index::update(rows, REPLICA, &SALT, deltas)
    })
}
