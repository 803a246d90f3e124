//! The folders of a node.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sync_core::{machine::Event, manager::Replica, model::ReplicaId};
use tokio::{sync::broadcast::error::RecvError, task::JoinHandle};

use super::{Node, StoreKind};
use crate::{
    data_dir::Binding,
    error::{CliError, Result},
    folder::{
        checks::{self, Missing, Shareable},
        engine::{Folder, FolderOptions},
        lock::FolderLock,
        managed::ManagedReplica,
        plan::Mode,
        watch::Inbox,
    },
};

/// A folder at work.
#[derive(Debug)]
pub(super) struct Running {
    pub path: PathBuf,
    pub replica: ReplicaId,
    pub folder: Folder,
    wake: JoinHandle<()>,
    _lock: FolderLock,
}

impl Running {
    pub fn stop(&mut self) {
        self.wake.abort();
        self.folder.stop();
    }
}

impl Node {
    /// Checks that a folder can be shared by this node, and takes it.
    pub fn check_folder(&self, folder: &Path, missing: Missing) -> Result<Shareable> {
        let settings = self.settings();
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        // A folder that was shared before and is gone is not made anew: that would look like a deletion.
        let known = settings.folders.iter().any(|binding| binding.folder == absolute);
        let missing = if known { Missing::Refuse } else { missing };
        let others: Vec<PathBuf> = settings.folders.into_iter().map(|binding| binding.folder).collect();
        checks::shareable(folder, missing, &others, self.data.path())
    }

    /// The replica that a folder is bound to.
    pub fn bound_replica(&self, folder: &Path) -> Option<ReplicaId> {
        let settings = self.settings();
        settings
            .folders
            .iter()
            .find(|binding| binding.folder == folder)
            .and_then(|binding| binding.replica.parse().ok())
    }

    /// Whether this node keeps the folder now.
    pub fn keeps(&self, folder: &Path) -> bool {
        let folder = std::fs::canonicalize(folder);
        let running = self.folders.lock().expect("nobody panics with the folders");
        folder.is_ok_and(|folder| running.iter().any(|running| running.path == folder))
    }

    /// Binds a folder to a replica, durably. What is not said about reading only stays as it was.
    pub fn bind(&self, folder: &Path, replica: &Replica, read_only: Option<bool>) -> Result<()> {
        let id = replica.id().to_string();
        for other in self.settings().folders {
            if other.folder == folder && other.replica != id {
                return Err(CliError::failed(format!(
                    "the folder {} belongs to the replica {} already: choose another folder",
                    folder.display(),
                    other.replica.get(..10).unwrap_or(&other.replica)
                )));
            }
            if other.folder != folder && other.replica == id {
                return Err(CliError::failed(format!(
                    "the replica {} is kept in {} already: use another --data directory for a second folder",
                    replica.id().short(),
                    other.folder.display()
                )));
            }
        }
        self.change_settings(|settings| match settings.folders.iter_mut().find(|other| other.folder == folder) {
            Some(binding) => binding.read_only = read_only.unwrap_or(binding.read_only),
            None => {
                let read_only = read_only.unwrap_or(false);
                let in_memory = self.kind == StoreKind::Memory;
                settings.folders.push(Binding { folder: folder.into(), replica: id, read_only, in_memory });
            }
        })
    }

    /// Starts to keep a bound folder equal with its replica; one that runs already goes on.
    pub async fn start_folder(self: &Arc<Self>, path: &Path, lock: FolderLock) -> Result<()> {
        if self.keeps(path) {
            return Ok(());
        }
        let settings = self.settings();
        let Some(binding) = settings.folders.iter().find(|binding| binding.folder == path) else { return Ok(()) };
        let id: ReplicaId = binding.replica.parse().map_err(|_| {
            CliError::failed(format!(
                "{} is damaged: `{}` is no replica",
                self.data.file("settings.json").display(),
                binding.replica
            ))
        })?;
        let replica = self.manager.open_replica(id).await?;
        let mode = if binding.read_only { Mode::ReadOnly } else { Mode::ReadWrite };
        let inbox = Inbox::default();
        let wake = tokio::spawn(wake(inbox.clone(), id, self.manager.events()));
        let options = FolderOptions {
            root: path.into(),
            state: self.data.folder_state(id),
            lifetime: self.store.store_id().0,
            mode,
            permission: self.permission,
        };
        let managed = Arc::new(ManagedReplica::new(replica, self.store.clone()));
        let state = options.state.display().to_string();
        let folder = Folder::start(options, managed, inbox).map_err(|error| {
            let path = path.display();
            CliError::failed(format!("the folder {path} cannot be kept ({error}): see to it and to {state}"))
        })?;
        let running = Running { path: path.into(), replica: id, folder, wake, _lock: lock };
        self.folders.lock().expect("nobody panics with the folders").push(running);
        Ok(())
    }

    /// Starts all folders that were shared before; one that cannot be is shown by `why`.
    pub async fn start_folders(self: &Arc<Self>) -> Result<()> {
        for binding in self.settings().folders.into_iter().filter(|binding| !self.keeps(&binding.folder)) {
            // One that is gone may come back: the folder waits for it.
            let lock = FolderLock::take(&binding.folder);
            let started = match lock {
                Ok(lock) => self.start_folder(&binding.folder, lock).await,
                Err(error) => Err(error),
            };
            if let Err(error) = started {
                self.manager.raise(sync_core::machine::Obstacle {
                    subject: binding.folder.display().to_string(),
                    replica: binding.replica.parse().ok(),
                    cause: error.line(),
                    since: Some(super::now()),
                    next_try: None,
                    advice: "see to it and start again".into(),
                });
            }
        }
        Ok(())
    }
}

/// Tells a folder what happens in its replica.
async fn wake(inbox: Inbox, id: ReplicaId, mut events: tokio::sync::broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Received { replica, .. } | Event::Written { replica, .. }) if replica == id => {
                inbox.replica_changed();
            }
            Ok(Event::ContentReady { hash }) => inbox.content_arrived(hash),
            Ok(_) => {}
            // What was missed is found by looking at everything.
            Err(RecvError::Lagged(_)) => inbox.look_at_everything(),
            Err(RecvError::Closed) => return,
        }
    }
}
