//! The seam of the stores: what the manager needs of a place that keeps replicas.
//!
//! [`ReplicaStore`] is coarse, async, dyn-safe and fallible. An embedded engine does not implement
//! it by hand: it implements the small synchronous [`Engine`] and gets the rest from `EngineStore`.

mod contract;
mod engine;
mod types;

pub use contract::ReplicaStore;
pub use engine::{Engine, EngineRead, EngineWrite, Scan};
pub use types::*;
