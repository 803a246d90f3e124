//! Settings by name, kept in the store. One that was never set has its default.

use std::time::Duration;

use bytes::Bytes;

use super::{ManagerError, SyncManager};
use crate::{
    machine::{Direction, Input, limits::CHECK_INTERVAL},
    model::ReplicaId,
    store::{NodeKind, NodeRecord, ReplicaStore, StoreError},
};

/// The shortest interval of the periodic sync: more often would be a busy loop, and live sessions
/// carry changes at once anyway.
pub const SYNC_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The longest: what was lost for any reason is found after a day at the latest.
pub const SYNC_INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The application's settings stand apart from the node's own.
const PREFIX: &[u8] = b"application ";

const DIRECTION: &[u8] = b"direction ";

const SYNC_INTERVAL: &[u8] = b"sync interval";

fn name_of(name: &str) -> Bytes {
    [PREFIX, name.as_bytes()].concat().into()
}

async fn read(store: &dyn ReplicaStore, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let records = store.node_records(NodeKind::Setting).await?;
    Ok(records.into_iter().find(|record| record.name == name).and_then(|record| record.value))
}

/// How often idle sessions compare roots.
pub(super) async fn sync_interval(store: &dyn ReplicaStore) -> Result<Duration, StoreError> {
    let saved = read(store, SYNC_INTERVAL).await?;
    let millis = saved.and_then(|value| Some(u64::from_le_bytes(value[..].try_into().ok()?)));
    Ok(millis.map_or(CHECK_INTERVAL, Duration::from_millis))
}

/// The name of a replica's direction.
pub(super) fn direction_name(replica: &ReplicaId) -> Bytes {
    [DIRECTION, replica.as_bytes()].concat().into()
}

/// Which way the entries of replicas go, where it was set.
pub(super) async fn directions(store: &dyn ReplicaStore) -> Result<Vec<(ReplicaId, Direction)>, StoreError> {
    let records = store.node_records(NodeKind::Setting).await?;
    let read = |record: NodeRecord| {
        let id = record.name.strip_prefix(DIRECTION).and_then(|id| <[u8; 32]>::try_from(id).ok())?;
        let direction = record.value.and_then(|value| postcard::from_bytes(&value).ok());
        let direction = direction.ok_or_else(|| StoreError::Corrupt("a replica's direction cannot be read".into()));
        Some(direction.map(|direction| (ReplicaId::from(id), direction)))
    };
    records.into_iter().filter_map(read).collect()
}

/// Sets which way the entries of a replica go.
pub(super) async fn save_direction(
    store: &dyn ReplicaStore,
    replica: &ReplicaId,
    direction: Direction,
) -> Result<(), StoreError> {
    let value = postcard::to_allocvec(&direction).expect("a direction can be encoded");
    let name = direction_name(replica);
    store.save(vec![NodeRecord { kind: NodeKind::Setting, name, value: Some(value.into()) }]).await
}

impl SyncManager {
    /// A setting of the application, as it was last set.
    pub async fn setting(&self, name: &str) -> Result<Option<Bytes>, ManagerError> {
        Ok(read(&**self.store(), &name_of(name)).await?)
    }

    /// Sets a setting of the application; none removes it. Durable when the future completes.
    pub async fn set_setting(&self, name: &str, value: Option<Bytes>) -> Result<(), ManagerError> {
        let record = NodeRecord { kind: NodeKind::Setting, name: name_of(name), value };
        Ok(self.store().save(vec![record]).await?)
    }

    /// How often an open session compares roots though nothing has changed, so that anything lost
    /// for any reason is found and repaired.
    pub async fn sync_interval(&self) -> Result<Duration, ManagerError> {
        Ok(sync_interval(&**self.store()).await?)
    }

    /// Sets [`Self::sync_interval`], over restarts.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Setting`] outside [`SYNC_INTERVAL_MIN`] to [`SYNC_INTERVAL_MAX`]; nothing is changed then.
    pub async fn set_sync_interval(&self, interval: Duration) -> Result<(), ManagerError> {
        if !(SYNC_INTERVAL_MIN..=SYNC_INTERVAL_MAX).contains(&interval) {
            return Err(ManagerError::Setting(format!(
                "an interval of {interval:?} makes no sense: choose one from {SYNC_INTERVAL_MIN:?} to {SYNC_INTERVAL_MAX:?}"
            )));
        }
        let millis = u64::try_from(interval.as_millis()).expect("a day in milliseconds");
        let value = Some(Bytes::copy_from_slice(&millis.to_le_bytes()));
        let name = Bytes::from_static(SYNC_INTERVAL);
        self.store().save(vec![NodeRecord { kind: NodeKind::Setting, name, value }]).await?;
        self.tell(Input::CheckInterval { interval }).await
    }
}
