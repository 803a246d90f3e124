//! Conformance suites for plug-ins and the tools that they need (feature `testing`).

#[cfg(feature = "manager")]
pub mod proxy;
#[cfg(feature = "manager")]
pub mod transport_suite;
