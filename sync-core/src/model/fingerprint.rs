//! Fingerprints of sets of entries: additive, wide enough that writers cannot forge them.
//!
//! The fingerprint of a set is the lane-wise sum, modulo 2^64, of 32 lanes that BLAKE3's
//! extendable output gives for each entry hash: 2,048 bits. XOR can be forged by linear algebra
//! and short sums by the generalised birthday attack (Wagner 2002); at 2,048 bits that attack
//! costs about 2^90. On the wire a summary is the 32-byte hash of (sum, count).

use serde::{Deserialize, Serialize};

use super::{domain, identity::Hash};
use crate::canary::{self, Canary};

/// The number of 64-bit lanes.
pub const LANES: usize = 32;

/// The size of a summary's encoding in bytes.
pub const SUMMARY_LEN: usize = LANES * 8 + 8;

/// The fingerprint and the number of a set of entries.
#[derive(Clone, PartialEq, Eq)]
pub struct Summary {
    sum: [u64; LANES],
    count: u64,
}

impl Summary {
    /// The summary of the empty set.
    pub const EMPTY: Self = Self { sum: [0; LANES], count: 0 };

    /// The summary of one entry.
    pub fn of(entry: &Hash) -> Self {
        if canary::is_out(Canary::XorFingerprint) {
            let mut sum = [0; LANES];
            sum[0] = u64::from_le_bytes(entry.0[..8].try_into().expect("8 of 32 bytes"));
            return Self { sum, count: 1 };
        }
        let mut bytes = [0u8; LANES * 8];
        let mut hasher = domain::fingerprint_hasher();
        hasher.update(&entry.0);
        hasher.finalize_xof().fill(&mut bytes);
        let mut sum = [0; LANES];
        for (lane, chunk) in sum.iter_mut().zip(bytes.chunks_exact(8)) {
            *lane = u64::from_le_bytes(chunk.try_into().expect("chunks of 8"));
        }
        Self { sum, count: 1 }
    }

    /// The number of entries.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a set that shares no entry with this one.
    pub fn add(&mut self, other: &Self) {
        for (lane, other) in self.sum.iter_mut().zip(&other.sum) {
            *lane = match canary::is_out(Canary::XorFingerprint) {
                true => *lane ^ *other,
                false => lane.wrapping_add(*other),
            };
        }
        self.count = self.count.wrapping_add(other.count);
    }

    /// Takes away a part of the set. As an intermediate value the count may pass below zero; it
    /// comes back modulo 2^64 when the rest is added.
    pub fn subtract(&mut self, other: &Self) {
        for (lane, other) in self.sum.iter_mut().zip(&other.sum) {
            *lane = match canary::is_out(Canary::XorFingerprint) {
                true => *lane ^ *other,
                false => lane.wrapping_sub(*other),
            };
        }
        self.count = self.count.wrapping_sub(other.count);
    }

    /// The encoding in a store's index: lanes and count, little-endian.
    pub fn to_bytes(&self) -> [u8; SUMMARY_LEN] {
        let mut bytes = [0; SUMMARY_LEN];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.sum.iter().chain([&self.count])) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Summary::to_bytes`] wrote; none when the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SUMMARY_LEN {
            return None;
        }
        let mut lanes = bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("chunks of 8")));
        let mut summary = Self::EMPTY;
        for lane in &mut summary.sum {
            *lane = lanes.next().expect("the length was checked");
        }
        summary.count = lanes.next().expect("the length was checked");
        Some(summary)
    }

    /// What goes over the wire.
    pub fn digest(&self) -> Digest {
        if self.count == 0 {
            return Digest::EMPTY;
        }
        let mut hasher = blake3::Hasher::new_derive_key(domain::SUMMARY);
        hasher.update(&self.to_bytes());
        Digest { hash: Hash(*hasher.finalize().as_bytes()), count: self.count }
    }
}

impl std::fmt::Debug for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Summary({:?})", self.digest())
    }
}

/// A summary as it travels and is shown: two nodes hold the same set exactly when their digests
/// are equal. The empty set has the hash of all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Digest {
    /// BLAKE3, in its own domain, of sum and count.
    pub hash: Hash,
    /// The number of entries.
    pub count: u64,
}

impl Digest {
    /// The digest of the empty set.
    pub const EMPTY: Self = Self { hash: Hash([0; 32]), count: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n: u8) -> Summary {
        Summary::of(&Hash([n; 32]))
    }

    #[test]
    fn the_summary_of_a_set_does_not_depend_on_order_and_undoes() {
        let mut left = of(1);
        left.add(&of(2));
        left.add(&of(3));
        let mut right = of(3);
        right.add(&of(1));
        right.add(&of(9));
        right.add(&of(2));
        assert_ne!(left.digest(), right.digest());
        right.subtract(&of(9));
        assert_eq!(left.digest(), right.digest());
        assert_eq!(Summary::from_bytes(&left.to_bytes()), Some(left));
    }

    #[test]
    fn nothing_cancels_as_it_would_under_xor() {
        let mut twice = of(1);
        twice.add(&of(1));
        assert_ne!(twice.sum, Summary::EMPTY.sum);
    }
}
