//! The protocol as a pure state machine, after the Elm architecture.
//!
//! # How it is used
//!
//! 1. Tell it what happened: [`Synchronizer::handle`] with the time and an [`Input`].
//! 2. Do what it says: take every [`Output`] from [`Synchronizer::poll_output`] until there is none.
//! 3. Wait for the next thing to happen, but no longer than until [`Synchronizer::poll_timeout`];
//!    then handle [`Input::Tick`].
//!
//! It never waits, reads no clock, draws no ambient randomness, touches no socket and no store.
//! The same inputs give the same outputs, byte for byte.

mod dialing;
mod direction;
mod draining;
mod footprint;
mod handshake;
mod io;
pub mod limits;
mod link;
mod linking;
mod opening;
mod out;
mod parking;
mod peer;
mod perform;
mod random;
mod report;
mod session;
mod status;
mod synchronizer;
mod timed;
pub mod wire;

#[cfg(any(test, feature = "testing"))]
pub(crate) use dialing::{SavedPositions, is_known};
pub use direction::Direction;
pub use footprint::Footprint;
pub use handshake::{Role, Transcript, common_version};
pub use io::*;
#[cfg(feature = "manager")]
pub(crate) use perform::credentials;
pub use perform::perform;
pub use random::Random;
pub use status::{Obstacle, PeerInfo, PeerState, PeerStatus, ReplicaStatus};
pub use synchronizer::{Config, Synchronizer};
