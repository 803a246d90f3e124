//! The machine's randomness: a stream that follows from its seed alone.

use std::hash::{BuildHasher, RandomState};

use crate::canary::{self, Canary};

/// BLAKE3's keyed hash of a counter.
#[derive(Debug, Clone)]
pub struct Random {
    key: [u8; 32],
    counter: u64,
}

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut key = seed;
        if canary::is_out(Canary::DrawAnything) {
            key[..8].copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes());
        }
        Self { key, counter: 0 }
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.counter += 1;
        *blake3::keyed_hash(&self.key, &self.counter.to_le_bytes()).as_bytes()
    }

    /// A number below `bound`, or 0 when that is 0. The bias of the remainder is below 2^-32 for
    /// bounds below 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        let bytes = self.bytes();
        let number = u64::from_le_bytes(bytes[..8].try_into().expect("8 of 32 bytes"));
        number.checked_rem(bound).unwrap_or(0)
    }
}
