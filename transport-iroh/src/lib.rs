//! Syncline over iroh peer-to-peer.
