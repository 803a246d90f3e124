//! The Syncline store on redb: the embedded default.
