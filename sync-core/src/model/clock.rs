//! The hybrid logical clock (Kulkarni et al. 2014), reduced to what an order needs: one number.

use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Timestamp;

/// How far an entry may be ahead of the local wall clock before it is not accepted yet.
pub const MAX_AHEAD: std::time::Duration = std::time::Duration::from_secs(600);

/// The clock of one replica: the newest timestamp seen in it.
#[derive(Debug, Default)]
pub struct HybridClock(AtomicU64);

impl HybridClock {
    /// A clock that has seen `newest`.
    pub fn new(newest: Timestamp) -> Self {
        Self(AtomicU64::new(newest.0))
    }

    /// Takes note of a timestamp in the replica.
    pub fn observe(&self, seen: Timestamp) {
        self.0.fetch_max(seen.0, Ordering::Relaxed);
    }

    /// The newest timestamp seen.
    pub fn newest(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    /// The first of `count` fresh timestamps: `max(wall, newest + 1)`. A local write never fails
    /// because of a clock.
    pub fn next(&self, wall: Timestamp, count: u32) -> Timestamp {
        let count = u64::from(count.max(1));
        let mut first = 0;
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| {
                // At the end of time the order is kept by author and hash alone.
                first = wall.0.max(newest.saturating_add(1)).min(u64::MAX - count);
                Some(first + count - 1)
            })
            .expect("the update always answers");
        Timestamp(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_never_repeats() {
        let clock = HybridClock::default();
        assert_eq!(clock.next(Timestamp(100), 3), Timestamp(100));
        assert_eq!(clock.next(Timestamp(50), 1), Timestamp(103));
        clock.observe(Timestamp(1_000));
        assert_eq!(clock.next(Timestamp(500), 1), Timestamp(1_001));
        assert_eq!(clock.next(Timestamp(2_000), 1), Timestamp(2_000));
    }

    #[test]
    fn at_the_end_of_time_writing_goes_on() {
        let clock = HybridClock::new(Timestamp(u64::MAX));
        assert_eq!(clock.next(Timestamp(0), 5), Timestamp(u64::MAX - 5));
    }
}
