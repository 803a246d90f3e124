//! Verified content: BLAKE3 trees, chunk groups, flat files with checkpoints.
