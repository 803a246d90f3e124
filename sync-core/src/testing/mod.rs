//! Conformance suites for plug-ins and the tools that they need (feature `testing`).

mod block_on;
pub mod fuzz;
pub mod pair;
#[cfg(feature = "manager")]
pub mod proxy;
pub mod random;
pub mod reference;
pub mod sim;
mod skipped;
pub mod store_suite;
#[cfg(feature = "manager")]
pub mod transport_suite;

pub use block_on::block_on;
pub use skipped::skipped;
