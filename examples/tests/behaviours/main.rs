//! The behaviours of Syncline through its public door, over every transport and store to which they apply.
//! A test's name begins with the number of the behaviour that it shows.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod contents;
mod crowd;
mod directions;
mod failover;
mod faults;
mod hostile;
mod jobs;
mod liars;
mod local;
mod lost;
mod proxied;
mod registry;
mod rights;
mod stores;
mod stranger;
mod sync;
mod threats;
