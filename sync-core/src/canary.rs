//! Canaries: deliberate bugs that show that the oracles of the simulator can fail. Each is one line
//! where the right thing is done. Only a running simulation can let one out, on its own thread; without
//! the feature `testing` the question is the constant `false`.

/// A deliberate bug.
#[cfg_attr(not(any(test, feature = "testing")), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// A write is acknowledged when it is handed to the store, not when it is durable.
    AcknowledgeBeforeCommit,
    /// A write is announced when it is handed to the store, not when it can be served.
    AnnounceBeforeCommit,
    /// Whoever relays an entry is trusted to have checked its author's rights.
    SkipRelayedCheck,
    /// Jobs are not read back after a restart.
    ForgetJobs,
    /// Fingerprints are XOR over a few bytes: writers can forge them by linear algebra.
    XorFingerprint,
    /// Of two entries of one slot and time, the one that comes last stays.
    TieBreakByArrival,
    /// What is summed up for a peer is cut down to what it may read only afterwards.
    ClampLate,
    /// Everything is tried again at once.
    RetryWithoutBackoff,
    /// What comes in when its session is over already is not told to the application.
    DropEvent,
    /// Passers-by are remembered for ever.
    KeepStrangers,
    /// Whether a right has ended is asked of the local clock, not of the entry's time.
    ExpiryByClock,
    /// A disk that did not flush is asked again, and believed.
    RetryFlush,
    /// A position in a store's change log is used in the next store of the same peer.
    KeepCursor,
    /// A peer that ends every link as soon as it is up is dialled again at once.
    DialAgainAtOnce,
    /// What a reconciliation was good for is judged before its refusals are here.
    ResendRefused,
    /// A deletion of a prefix covers keys of longer names only when it comes after them.
    ForgetPrefixTombstones,
    /// Roots that differ are no reason to do anything.
    IgnoreMismatch,
    /// Each message of the first round says that it begins a reconciliation.
    BeginTwice,
    /// As many entries are the same entries.
    CompareCounts,
    /// Of several authors' values of a key, the oldest is read.
    ReadOldest,
    /// A change log is sent from its beginning, whatever the peer has of it.
    StartOver,
    /// Of who may read a part, what differs is not repaired.
    NeglectParts,
    /// A position is believed though the peer may read more since.
    BelieveOldPositions,
    /// A position says of entries that they are here which were refused, as the rights of their authors were not.
    PlaceRefused,
    /// What a reconciliation leaves out because of its limits is taken for sent.
    LeaveOutInSilence,
    /// Who might write once may write for ever.
    NeverExpires,
    /// What a machine draws does not follow from its seed.
    DrawAnything,
}

#[cfg(any(test, feature = "testing"))]
impl Canary {
    /// Those that must be caught.
    pub const ALL: [Self; 27] = [
        Self::AcknowledgeBeforeCommit,
        Self::AnnounceBeforeCommit,
        Self::SkipRelayedCheck,
        Self::ForgetJobs,
        Self::XorFingerprint,
        Self::TieBreakByArrival,
        Self::ClampLate,
        Self::RetryWithoutBackoff,
        Self::DropEvent,
        Self::KeepStrangers,
        Self::ExpiryByClock,
        Self::RetryFlush,
        Self::KeepCursor,
        Self::DialAgainAtOnce,
        Self::ResendRefused,
        Self::ForgetPrefixTombstones,
        Self::IgnoreMismatch,
        Self::BeginTwice,
        Self::CompareCounts,
        Self::ReadOldest,
        Self::StartOver,
        Self::NeglectParts,
        Self::BelieveOldPositions,
        Self::PlaceRefused,
        Self::LeaveOutInSilence,
        Self::NeverExpires,
        Self::DrawAnything,
    ];

    /// Three of them; each is among those of some turn.
    pub fn three(turn: usize) -> [Self; 3] {
        [0, 1, 2].map(|at| Self::ALL[(turn * 3 + at) % Self::ALL.len()])
    }
}

#[cfg(any(test, feature = "testing"))]
mod cage {
    use std::cell::Cell;

    use super::Canary;

    thread_local! {
        static OUT: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Whether this canary is out.
    pub(crate) fn is_out(canary: Canary) -> bool {
        OUT.get() == Some(canary)
    }

    /// Does something with a canary out, or with none.
    pub(crate) fn with<T>(canary: Option<Canary>, work: impl FnOnce() -> T) -> T {
        struct Back(Option<Canary>);
        impl Drop for Back {
            fn drop(&mut self) {
                OUT.set(self.0);
            }
        }
        let _back = Back(OUT.replace(canary));
        work()
    }
}

#[cfg(any(test, feature = "testing"))]
pub(crate) use cage::{is_out, with};

#[cfg(not(any(test, feature = "testing")))]
pub(crate) const fn is_out(_: Canary) -> bool {
    false
}
