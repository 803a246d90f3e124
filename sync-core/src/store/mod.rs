//! The seam of the stores: what the manager needs of a place that keeps replicas.
//!
//! [`ReplicaStore`] is coarse, async, dyn-safe and fallible. An embedded engine does not implement
//! it by hand: it implements the small synchronous [`Engine`] and gets the rest from `EngineStore`.

mod apply;
pub mod coded;
mod coded_sets;
mod commits;
pub mod content;
mod contract;
mod core;
mod engine;
mod engine_store;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod index;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod index_alone;
#[cfg(test)]
mod index_tests;
mod names;
mod page;
mod places;
mod queue;
mod read;
pub mod reconcile;
mod registry;
mod rights_cache;
mod rows;
mod types;

pub use self::core::{Core, MAX_RECORD_NAME_LEN, Write, Written};
pub use content::{
    Begun, ContentDir, ContentError, ContentStatus, ContentStore, Download, GroupRanges, Imported, OnProgress, Partial,
    Pin, Progress, Reader, Want,
};
pub use contract::ReplicaStore;
pub use engine::{Engine, EngineRead, EngineWrite, Scan, Visit, Work};
pub use engine_store::EngineStore;
pub use registry::{StoreFactory, StoreRegistry};
pub use types::*;
