//! Conformance suites for plug-ins and the tools that they need (feature `testing`).

mod block_on;
pub mod fuzz;
pub mod memory;
pub mod pair;
#[cfg(feature = "manager")]
pub mod proxy;
pub mod random;
pub mod reference;
pub mod sim;
mod skipped;
pub mod store_suite;
#[cfg(feature = "manager")]
pub mod tap;
#[cfg(feature = "manager")]
pub mod transport_suite;

pub use block_on::block_on;
pub use skipped::skipped;

/// The index without a store around it, for whoever measures it.
pub mod index_alone {
    pub use crate::store::index_alone::{insert, put_entries};
}
