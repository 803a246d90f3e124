//! The Syncline store in memory: the reference text of the engine seam.
