//! Draws: every random choice of a simulation is a hash of (seed, stream, entity, counter), so that
//! taking one fault away from a scenario does not move the others.

use super::super::random::Random;

/// What a draw is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Who there is and who knows whom.
    Topology = 1,
    /// Which kinds of operations and faults happen at all, and how fast everything is.
    Knobs,
    /// Operations.
    Operations,
    /// Faults.
    Faults,
    /// Keys of nodes and replicas, identities of stores, seeds of machines.
    Identity,
    /// How long messages take.
    Latency,
    /// How dials end.
    Dials,
    /// How long work on stores takes.
    Disk,
    /// What a crash does to connections.
    Crashes,
    /// The bytes of values.
    Values,
    /// What hostile peers do.
    Hostile,
}

/// A seed, from which everything is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(pub u64);

impl Draw {
    /// A generator of its own for an entity of a stream.
    pub fn random(self, stream: Stream, entity: u64, counter: u64) -> Random {
        let mut mixed = self.0;
        for part in [stream as u64, entity, counter] {
            mixed = Random::new(mixed ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).bits();
        }
        Random::new(mixed)
    }

    /// One number between two bounds, both included.
    pub fn between(self, stream: Stream, entity: u64, counter: u64, (low, high): (u64, u64)) -> u64 {
        low + self.random(stream, entity, counter).bits() % (high.saturating_sub(low) + 1)
    }

    /// Whether something of so many percent happens.
    pub fn percent(self, stream: Stream, entity: u64, counter: u64, percent: u64) -> bool {
        self.random(stream, entity, counter).bits() % 100 < percent
    }

    /// 32 bytes.
    pub fn bytes(self, stream: Stream, entity: u64, counter: u64) -> [u8; 32] {
        let mut random = self.random(stream, entity, counter);
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&random.bits().to_le_bytes());
        }
        bytes
    }
}
