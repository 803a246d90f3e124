//! A node: a store, a manager, transports, folders. The daemon keeps one running; a command without
//! a daemon opens one for itself.

mod folders;
mod keys;
mod listen;
mod sharing;
mod status;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use sync_core::{
    manager::{ManagerError, Replica, SyncManager},
    model::{ReplicaId, Timestamp},
    store::{ReplicaStore, StoreError},
};

pub use self::{
    keys::{Changes, change_document},
    listen::Listen,
    sharing::{TokenRecord, parse_ticket, token_hash},
};
use crate::{
    data_dir::{DataDir, Lock, Settings},
    error::{CliError, Result, with_sources},
    folder::guard::Permission,
    request::Request,
};

/// How long the end of a node may take.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Where a node keeps its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// In a file of the data directory.
    Redb,
    /// In memory: gone when the node ends.
    Memory,
}

impl std::str::FromStr for StoreKind {
    type Err = CliError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "redb" => Ok(Self::Redb),
            "mem" => Ok(Self::Memory),
            other => Err(CliError::usage(format!("there is no store `{other}`; known are: mem, redb"))),
        }
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    manager: SyncManager,
    store: Arc<dyn ReplicaStore>,
    kind: StoreKind,
    data: DataDir,
    settings: Mutex<Settings>,
    folders: Mutex<Vec<folders::Running>>,
    permission: Permission,
    /// Whether folders are kept equal: only in the daemon.
    is_daemon: bool,
    _lock: Lock,
}

impl Node {
    /// Opens the node of a data directory. The directory must be there.
    pub async fn open(
        data: DataDir,
        lock: Lock,
        kind: StoreKind,
        permission: Permission,
        is_daemon: bool,
    ) -> Result<Arc<Self>> {
        let mut settings = data.settings()?;
        // What a store in memory held is gone; a folder that it shared begins anew.
        settings.folders.retain(|binding| !binding.in_memory);
        let path = data.file("store.redb");
        if kind == StoreKind::Redb && data.has_lost_store() {
            return Err(cannot_open(&data, StoreError::Corrupt(format!("{} is gone or empty", path.display()))));
        }
        let store: Arc<dyn ReplicaStore> = match kind {
            StoreKind::Memory => Arc::new(store_mem::open()?),
            // Opening reads the file, and repairs it after a kill.
            StoreKind::Redb => tokio::task::spawn_blocking(move || store_redb::open(path))
                .await
                .expect("opening a store does not panic")
                .map(Arc::new)
                .map_err(|error| cannot_open(&data, error))?,
        };
        let manager = match SyncManager::builder(store.clone()).spawn().await {
            Ok(manager) => manager,
            Err(ManagerError::Store(error)) => return Err(cannot_open(&data, error)),
            Err(error) => return Err(error.into()),
        };
        Ok(Arc::new(Self {
            manager,
            store,
            kind,
            data,
            settings: Mutex::new(settings),
            folders: Mutex::default(),
            permission,
            is_daemon,
            _lock: lock,
        }))
    }

    /// The manager.
    pub fn manager(&self) -> &SyncManager {
        &self.manager
    }

    /// Where it keeps its entries.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ReplicaStore> {
        &self.store
    }

    /// The settings.
    pub fn settings(&self) -> Settings {
        self.settings.lock().expect("nobody panics with the settings").clone()
    }

    /// Changes the settings and saves them.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let mut settings = self.settings.lock().expect("nobody panics with the settings");
        change(&mut settings);
        self.data.save(&settings)
    }

    /// Answers everything but `Watch`, with the document that `--json` prints.
    pub async fn handle(self: &Arc<Self>, request: Request) -> Result<Value> {
        match request {
            Request::Put { replica, key, value } => self.put(replica.as_deref(), &key.0, value).await,
            Request::Get { replica, key, out } => self.get(replica.as_deref(), &key.0, &out).await,
            Request::Remove { replica, key } => self.remove(replica.as_deref(), &key.0).await,
            Request::RemovePrefix { replica, prefix } => self.remove_prefix(replica.as_deref(), &prefix.0).await,
            Request::List { replica, prefix, after, limit } => {
                self.list(replica.as_deref(), &prefix.0, after.map(|after| after.0), limit).await
            }
            Request::Watch { .. } => Err(CliError::usage("changes are watched through the daemon")),
            Request::Ticket { replica, write, expires_s } => {
                self.make_ticket(replica.as_deref(), write, expires_s.map(Duration::from_secs)).await
            }
            Request::Token { replica, expires_s } => {
                self.make_token(replica.as_deref(), expires_s.map(Duration::from_secs)).await
            }
            Request::Join { ticket, folder } => self.join_and_share(&ticket, folder.as_deref()).await,
            Request::Peers { replica } => self.peers(replica.as_deref()).await,
            Request::Sync { replica, timeout_ms } => {
                self.sync(replica.as_deref(), Duration::from_millis(timeout_ms)).await
            }
            Request::Status { replica } => self.status(replica.as_deref()).await,
            Request::Why { replica } => self.why(replica.as_deref()).await,
        }
    }

    /// The replica that is meant.
    pub async fn replica(&self, asked: Option<&str>) -> Result<Replica> {
        let all = self.manager.replicas().await?;
        let id = choose(&all, asked)?;
        Ok(self.manager.open_replica(id).await?)
    }

    /// Ends everything in good order.
    pub async fn shutdown(&self) -> Result<()> {
        let running = std::mem::take(&mut *self.folders.lock().expect("nobody panics with the folders"));
        for mut running in running {
            let _ = tokio::task::spawn_blocking(move || running.stop()).await;
        }
        let ended = self.manager.shutdown(SHUTDOWN).await;
        self.store.close().await;
        Ok(ended?)
    }
}

/// What the store said when it was opened, and the way out.
fn cannot_open(data: &DataDir, error: StoreError) -> CliError {
    let (said, path) = (with_sources(&error), data.path().display());
    CliError::failed(match error {
        StoreError::Corrupt(_) | StoreError::Failed(_) | StoreError::Content(_) => {
            format!(
                "{said}: restore {path} from a copy, or move it away and join again with a ticket of another device"
            )
        }
        StoreError::DiskFull(_) => format!("{said}: free some space, or choose another directory with --data"),
        StoreError::Io { .. } => format!("{said}: see to {path}, or choose another directory with --data"),
        _ => said,
    })
}

/// The replica that `asked` names, or the only one.
fn choose(all: &[ReplicaId], asked: Option<&str>) -> Result<ReplicaId> {
    let list = || all.iter().map(ReplicaId::short).collect::<Vec<_>>().join(", ");
    match asked {
        Some(asked) => {
            let asked = asked.to_ascii_lowercase();
            let mut matching = all.iter().filter(|id| !asked.is_empty() && id.to_string().starts_with(&asked));
            match (matching.next(), matching.next()) {
                (Some(id), None) => Ok(*id),
                (Some(_), Some(_)) => Err(CliError::usage(format!(
                    "several replicas begin with `{asked}`: give more digits of one of {}",
                    list()
                ))),
                (None, _) if all.is_empty() => Err(none_here()),
                (None, _) => {
                    Err(CliError::failed(format!("there is no replica `{asked}` here; there are: {}", list())))
                }
            }
        }
        None => match all {
            [] => Err(none_here()),
            [id] => Ok(*id),
            _ => Err(CliError::usage(format!("this node has several replicas: say which with --replica: {}", list()))),
        },
    }
}

fn none_here() -> CliError {
    CliError::failed("there is no replica here: make one with `syncline up`, or join one with `syncline join TICKET`")
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_chosen_by_its_first_digits_or_by_being_the_only_one() {
        let (a, b) = (ReplicaId::from([0xaa; 32]), ReplicaId::from([0xab; 32]));
        assert_eq!(choose(&[a], None), Ok(a));
        assert_eq!(choose(&[a, b], Some("AB")), Ok(b));
        assert_eq!(choose(&[a, b], None).unwrap_err().exit_code(), 2);
        assert_eq!(choose(&[a, b], Some("a")).unwrap_err().exit_code(), 2);
        assert!(choose(&[a, b], Some("cc")).unwrap_err().to_string().contains("there is no replica `cc` here"));
        assert!(choose(&[], None).unwrap_err().to_string().contains("syncline up"));
    }
}
