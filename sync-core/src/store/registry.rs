//! Stores by name: a URL picks the factory.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{contract::ReplicaStore, types::StoreError};

/// Opens a store from what stands after the colon of its URL.
pub type StoreFactory = Arc<dyn Fn(&str) -> Result<Arc<dyn ReplicaStore>, StoreError> + Send + Sync>;

/// The stores that a node can open: `redb:/path`, `mem:`, and what an application registers.
///
/// ```
/// use sync_core::store::{StoreError, StoreRegistry};
///
/// let mut registry = StoreRegistry::default();
/// registry.register("mine", |place| Err(StoreError::Corrupt(place.into())));
/// assert!(matches!(registry.open("mine:/tmp/x"), Err(StoreError::Corrupt(place)) if place == "/tmp/x"));
/// let error = registry.open("yours:").expect_err("nobody registered it");
/// assert_eq!(error.to_string(), "there is no store `yours`; known are: mine");
/// ```
#[derive(Clone, Default)]
pub struct StoreRegistry(BTreeMap<String, StoreFactory>);

impl StoreRegistry {
    /// Registers a factory under a name; one that was there under it is replaced.
    pub fn register(
        &mut self,
        name: &str,
        factory: impl Fn(&str) -> Result<Arc<dyn ReplicaStore>, StoreError> + Send + Sync + 'static,
    ) {
        self.0.insert(name.into(), Arc::new(factory));
    }

    /// The registered names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Opens the store that `url`, `name:place`, stands for. May read a disk.
    pub fn open(&self, url: &str) -> Result<Arc<dyn ReplicaStore>, StoreError> {
        let (name, place) = url.split_once(':').unwrap_or((url, ""));
        let factory = self.0.get(name).ok_or_else(|| StoreError::UnknownStore {
            name: name.into(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })?;
        factory(place)
    }
}

impl fmt::Debug for StoreRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
