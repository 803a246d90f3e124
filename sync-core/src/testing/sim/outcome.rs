//! What came of a simulation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An oracle's objection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which oracle: "O1" to "O12" of TESTING.
    pub oracle: String,
    /// What is wrong.
    pub what: String,
    /// When it was seen, in milliseconds since the beginning.
    pub at_ms: u64,
}

/// What happened, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Events of the simulation.
    pub events: u64,
    /// Operations of applications.
    pub operations: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Entries that an application was told are kept.
    pub acknowledged: u64,
    /// Frames sent, by kind.
    pub frames: BTreeMap<u8, u64>,
    /// Bytes sent.
    pub bytes: u64,
    /// Entries that were sent and acknowledged.
    pub delivered: u64,
    /// Those of them that were sent again.
    pub sent_again: u64,
    /// And those that were where that is asked for: limits cut reconciliations, a store came back from a copy or lost
    /// everything, or the log goes from its beginning to who only pulls and may read more.
    pub sent_again_on_demand: u64,
    /// Dials.
    pub dials: u64,
    /// From the healing until all were equal, in milliseconds.
    pub converged_ms: u64,
    /// Rare things that have happened.
    pub marks: BTreeMap<String, u64>,
}

/// Rare things that must have happened somewhere in a few hundred seeds, or the simulation goes easy.
pub const SOMETIMES: [&str; 75] = [
    "a_right_ended",
    "announced",
    "answered_synced",
    "away_for_days",
    "blocked",
    "clock_jumped",
    "clock_jumped_by_years",
    "clock_stopped",
    "cloned_and_used_by_turns",
    "could_not_be_reached",
    "crash",
    "crash_between_outputs",
    "crash_with_pending_job",
    "cut",
    "cut_off_for_good",
    "deep_reconciliation",
    "delayed_by_a_pause",
    "dialed_where_nobody_is_any_more",
    "disk_was_full",
    "entries_refused",
    "equivocated",
    "forged",
    "full_window",
    "granted_again",
    "half_open",
    "hostile_acknowledges_what_it_was_not_sent",
    "hostile_asks_for_what_it_may_not_read",
    "hostile_begins_again",
    "hostile_changes_its_name",
    "hostile_cuts",
    "hostile_drips",
    "hostile_falls_silent",
    "hostile_floods",
    "hostile_forges",
    "hostile_garbles",
    "hostile_is_absurd",
    "hostile_lies",
    "hostile_lives_ahead",
    "hostile_proves_wrongly",
    "hostile_replays",
    "key_that_is_no_text",
    "large_frame",
    "late",
    "left_for_good",
    "lost_and_sent_again",
    "lost_with_its_connection",
    "moved",
    "only_pulls",
    "partition",
    "position_of_a_lost_log",
    "position_saved",
    "power_cut",
    "question_answered",
    "reads_more",
    "reconciliation",
    "refused_entries",
    "refused_session",
    "removed",
    "retried",
    "rollback",
    "said_what_was_sent",
    "session_failed",
    "shutdown",
    "silent_one_way",
    "stalled_and_delivered",
    "stream_waited_for_admission",
    "swallowed_by_a_half_open_connection",
    "symbols",
    "synced",
    "told_a_part",
    "too_long_to_be_written",
    "transport_timed_out",
    "unsubscribed",
    "wipe",
    "write_failed",
];

/// What is rarer: demanded of runs of 8,000 seeds and more.
pub const SELDOM: [&str; 1] = [
    // The power goes with the first write of a process that starts: in one seed of some five hundred.
    "power_cut_at_the_start",
];

/// In so many seeds [`SELDOM`] must have happened too.
const MANY_SEEDS: u64 = 8_000;

impl Counters {
    /// What of [`SOMETIMES`] has never happened in so many seeds, and of [`SELDOM`] when they are many.
    pub fn never(&self, seeds: u64) -> Vec<&'static str> {
        let seldom = SELDOM.into_iter().filter(|_| seeds >= MANY_SEEDS);
        SOMETIMES.into_iter().chain(seldom).filter(|mark| !self.marks.contains_key(*mark)).collect()
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.operations += other.operations;
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.bytes += other.bytes;
        self.dials += other.dials;
        self.delivered += other.delivered;
        self.sent_again += other.sent_again;
        self.sent_again_on_demand += other.sent_again_on_demand;
        self.converged_ms = self.converged_ms.max(other.converged_ms);
        for (kind, count) in &other.frames {
            *self.frames.entry(*kind).or_default() += count;
        }
        for (mark, count) in &other.marks {
            *self.marks.entry(mark.clone()).or_default() += count;
        }
    }
}

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first objection of an oracle.
    pub failure: Option<Failure>,
    /// What happened, counted.
    pub counters: Counters,
    /// A hash of everything that happened, in its order.
    pub trace: u64,
    /// How long it took in virtual time, in microseconds.
    pub virtual_us: u64,
}
