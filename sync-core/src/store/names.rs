//! Short numbers for replicas and public keys, so that rows stay small.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use super::{
    engine::{EngineRead, EngineWrite},
    rows::{self, Fields, KeyNo, ReplicaNo, corrupt},
    types::StoreError,
};
use crate::model::{PublicKey, ReplicaId};

/// How many committed numbers are remembered in each direction before all are forgotten again.
const REMEMBERED: usize = 65_536;

/// The committed numbers of public keys. They never change, so what is here is always right.
#[derive(Debug, Default)]
pub(super) struct Names(RwLock<Maps>);

#[derive(Debug, Default)]
struct Maps {
    numbers: HashMap<PublicKey, KeyNo>,
    keys: HashMap<KeyNo, PublicKey>,
}

impl Names {
    fn remember(&self, key: PublicKey, number: KeyNo) {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if maps.numbers.len() >= REMEMBERED {
            *maps = Maps::default();
        }
        maps.numbers.insert(key, number);
        maps.keys.insert(number, key);
    }

    /// The key with this number.
    pub fn key(&self, rows: &dyn EngineRead, number: KeyNo) -> Result<PublicKey, StoreError> {
        if let Some(key) = self.0.read().unwrap_or_else(PoisonError::into_inner).keys.get(&number) {
            return Ok(*key);
        }
        let row = rows.get(&rows::key_key(number))?.ok_or_else(|| corrupt("the number of a public key"))?;
        let key = PublicKey(Fields(&row).take("a public key")?);
        self.remember(key, number);
        Ok(key)
    }

    /// The number of a key, if it has one.
    pub fn number(&self, rows: &dyn EngineRead, key: &PublicKey) -> Result<Option<KeyNo>, StoreError> {
        if let Some(number) = self.0.read().unwrap_or_else(PoisonError::into_inner).numbers.get(key) {
            return Ok(Some(*number));
        }
        let Some(row) = rows.get(&rows::number_key(key))? else { return Ok(None) };
        let number = KeyNo(Fields(&row).u32("the number of a public key")?);
        self.remember(*key, number);
        Ok(Some(number))
    }
}

/// The numbers within one transaction: new ones are known to others only when it is committed.
#[derive(Debug, Default)]
pub(super) struct NewNames {
    numbers: HashMap<PublicKey, KeyNo>,
    keys: HashMap<KeyNo, PublicKey>,
}

impl NewNames {
    /// The number of a key, a new one if it has none.
    pub fn number(&mut self, rows: &mut dyn EngineWrite, names: &Names, key: &PublicKey) -> Result<KeyNo, StoreError> {
        if let Some(number) = self.numbers.get(key) {
            return Ok(*number);
        }
        // A number that this transaction gave is in `self`, so what is found here is committed.
        if let Some(number) = names.number(rows, key)? {
            return Ok(number);
        }
        let number = KeyNo(next_number(rows, "next key")?);
        rows.put(&rows::number_key(key), &number.0.to_be_bytes())?;
        rows.put(&rows::key_key(number), &key.0)?;
        self.numbers.insert(*key, number);
        self.keys.insert(number, *key);
        Ok(number)
    }

    /// The key with this number.
    pub fn key(&self, rows: &dyn EngineRead, names: &Names, number: KeyNo) -> Result<PublicKey, StoreError> {
        match self.keys.get(&number) {
            Some(key) => Ok(*key),
            None => names.key(rows, number),
        }
    }

    /// The transaction was committed.
    pub fn committed(self, names: &Names) {
        for (key, number) in self.numbers {
            names.remember(key, number);
        }
    }
}

fn next_number(rows: &mut dyn EngineWrite, counter: &str) -> Result<u32, StoreError> {
    let at = rows::meta_key(counter);
    let number = match rows.get(&at)? {
        Some(row) => Fields(&row).u32("a counter")?,
        None => 1,
    };
    let next = number
        .checked_add(1)
        .filter(|next| *next < u32::MAX)
        .ok_or_else(|| StoreError::Limit("the store has no short numbers left".into()))?;
    rows.put(&at, &next.to_be_bytes())?;
    Ok(number)
}

/// The number of a replica, or the error that there is none.
pub(super) fn replica_number(rows: &dyn EngineRead, replica: &ReplicaId) -> Result<ReplicaNo, StoreError> {
    find_replica(rows, replica)?.ok_or(StoreError::UnknownReplica(*replica))
}

/// The number of a replica, if it is here.
pub(super) fn find_replica(rows: &dyn EngineRead, replica: &ReplicaId) -> Result<Option<ReplicaNo>, StoreError> {
    let row = rows.get(&rows::replica_key(&replica.0))?;
    row.map(|row| Ok(ReplicaNo(Fields(&row).u32("a replica's number")?))).transpose()
}

/// Gives a replica a number that no other ever had.
pub(super) fn number_replica(rows: &mut dyn EngineWrite, replica: &ReplicaId) -> Result<ReplicaNo, StoreError> {
    let number = next_number(rows, "next replica")?;
    rows.put(&rows::replica_key(&replica.0), &number.to_be_bytes())?;
    Ok(ReplicaNo(number))
}
