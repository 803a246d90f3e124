//! The authors of a node: keys that sign what is written here. The node's own key is the default author.

use bytes::Bytes;

use super::{Access, ManagerError, Replica, SyncManager};
use crate::{
    model::{AuthorId, ReplicaId, SecretKey},
    store::{NodeKind, NodeRecord, ReplicaStore, StoreError},
};

const PREFIX: &[u8] = b"author ";

fn record(author: &AuthorId, key: Option<&SecretKey>) -> NodeRecord {
    NodeRecord {
        kind: NodeKind::Key,
        name: [PREFIX, author.as_bytes()].concat().into(),
        value: key.map(|key| Bytes::copy_from_slice(&key.to_bytes())),
    }
}

async fn saved(store: &dyn ReplicaStore) -> Result<Vec<SecretKey>, StoreError> {
    let records = store.node_records(NodeKind::Key).await?;
    let authors = records.into_iter().filter(|record| record.name.starts_with(PREFIX));
    Ok(authors.filter_map(|record| <[u8; 32]>::try_from(&record.value?[..]).ok()).map(SecretKey::from_bytes).collect())
}

impl SyncManager {
    /// The author that signs where no other is named: the node's own key.
    pub fn default_author(&self) -> AuthorId {
        AuthorId(self.inner.shared.key.public())
    }

    /// Makes an author and keeps its key.
    pub async fn create_author(&self) -> Result<AuthorId, ManagerError> {
        self.import_author(SecretKey::generate()).await
    }

    /// Keeps an author's key. One that is here already stays as it is.
    pub async fn import_author(&self, key: SecretKey) -> Result<AuthorId, ManagerError> {
        let author = AuthorId(key.public());
        if author != self.default_author() {
            self.store().save(vec![record(&author, Some(&key))]).await?;
        }
        Ok(author)
    }

    /// The authors whose keys are here, the default one first.
    pub async fn authors(&self) -> Result<Vec<AuthorId>, ManagerError> {
        let others = saved(&**self.store()).await?;
        Ok([self.default_author()].into_iter().chain(others.iter().map(|key| AuthorId(key.public()))).collect())
    }

    /// An author's secret key, to be imported elsewhere.
    pub async fn export_author(&self, author: AuthorId) -> Result<SecretKey, ManagerError> {
        if author == self.default_author() {
            return Ok(self.inner.shared.key.clone());
        }
        let keys = saved(&**self.store()).await?;
        keys.into_iter().find(|key| key.public() == author.0).ok_or_else(|| ManagerError::UnknownAuthor(author.short()))
    }

    /// Removes an author's key from here. What it has written stays; the default author cannot go.
    pub async fn delete_author(&self, author: AuthorId) -> Result<(), ManagerError> {
        if author == self.default_author() {
            return Err(ManagerError::DefaultAuthor);
        }
        self.export_author(author).await?;
        Ok(self.store().save(vec![record(&author, None)]).await?)
    }

    /// A handle that writes as this author of the node. The author gets the right to write from the
    /// node first, when it does not have it.
    pub async fn open_replica_as(&self, id: ReplicaId, author: AuthorId) -> Result<Replica, ManagerError> {
        let key = self.export_author(author).await?;
        let replica = self.open_replica(id).await?;
        replica.entitle(author.0, Access::WRITE).await?;
        Ok(replica.with_author(key))
    }
}
