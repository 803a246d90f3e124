//! Syncline over raw QUIC.
