//! Canaries: deliberate bugs that show that the oracles of the simulator can fail. Each is one line
//! where the right thing is done. Only a running simulation can let one out, on its own thread; without
//! the feature `testing` the question is the constant `false`.

/// A deliberate bug.
#[cfg_attr(not(any(test, feature = "testing")), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// A write is acknowledged when it is handed to the store, not when it is durable.
    AcknowledgeBeforeCommit,
    /// Whoever relays an entry is trusted to have checked its author's rights.
    SkipRelayedCheck,
    /// Jobs are not read back after a restart.
    ForgetJobs,
    /// Of two entries of one slot and time, the one that comes last stays.
    TieBreakByArrival,
    /// Everything is tried again at once.
    RetryWithoutBackoff,
    /// A peer that ends every link as soon as it is up is dialled again at once.
    DialAgainAtOnce,
    /// What a reconciliation was good for is judged before its refusals are here.
    ResendRefused,
    /// A deletion of a prefix covers keys of longer names only when it comes after them.
    ForgetPrefixTombstones,
}

#[cfg(any(test, feature = "testing"))]
impl Canary {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AcknowledgeBeforeCommit,
        Self::SkipRelayedCheck,
        Self::ForgetJobs,
        Self::TieBreakByArrival,
        Self::RetryWithoutBackoff,
        Self::DialAgainAtOnce,
        Self::ResendRefused,
        Self::ForgetPrefixTombstones,
    ];
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
