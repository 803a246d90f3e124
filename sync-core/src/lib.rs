//! The core of Syncline: the data model, the pure protocol machine, the two seams
//! (transports and stores), and the manager that drives them.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | identities, keys, entries, commits and seals, rights, tickets: values only |
//! | [`store`] | the [`store::ReplicaStore`] contract, and the logic of it written once over an [`store::Engine`] |
//! | [`machine`] | the protocol as a pure state machine: inputs and time in, outputs out |
//! | [`transport`] | the [`transport::SyncTransport`] contract, addresses, and the upgrade from a byte pipe |
//! | [`manager`] | the driver: performs what the machine asks for, decides nothing |
//! | [`testing`] | conformance suites for plug-ins |
//!
//! Without the default feature `manager` the crate builds without tokio.

pub mod address;
mod canary;
#[cfg(test)]
#[path = "../../vectors/golden.rs"]
mod golden;
pub mod machine;
#[cfg(feature = "manager")]
#[allow(clippy::disallowed_methods)]
pub mod manager;
pub mod model;
mod sequence;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
#[cfg(feature = "manager")]
#[allow(clippy::disallowed_methods)]
pub mod transport;

pub use address::{AddressError, PeerAddress};
