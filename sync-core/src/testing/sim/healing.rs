//! Liveness: what ends when the faults do, and how long the nodes may take from there until they are equal and know it.

use super::world::{Event, World};
use crate::machine::Input;

/// The longest waits that may add up at a node once everything is healed: a silent link (25 s), a backoff (60 s), a
/// check of idle sessions (60 s); twice.
const WAITS_US: u64 = 290_000_000;

/// And for each node that what is written may have to pass.
const HOP_US: u64 = 35_000_000;

/// How long it may take from there until every node knows it.
const KNOWLEDGE_US: u64 = 200_000_000;

impl World<'_> {
    /// The end of all faults: the network is whole, clocks are set, disks work, and who has not left is there.
    pub fn heal(&mut self) {
        self.healed = true;
        self.blocked.clear();
        // Who has left does not come back.
        for node in 0..self.nodes.len() {
            self.keep_away(node);
        }
        // The clocks are set: to the one that is furthest ahead, so that nothing is in its future.
        let fastest = self.nodes.iter().map(|node| node.drift_ppm).max().unwrap_or(0).max(0);
        let ahead = self.furthest_us + self.now_us as i64 * fastest / 1_000_000;
        for node in 0..self.nodes.len() {
            let it = &mut self.nodes[node];
            it.unreachable = 0;
            it.disk.set_trouble(Default::default());
            it.paused_us = self.now_us;
            it.crash = None;
            if !self.scenario.is_hostile(node) {
                it.clock_us = ahead + 1_000_000 * 10;
                (it.drift_ppm, it.stopped_us) = (0, None);
                it.jumped_us = Some(self.now_us);
            }
            if it.dishonest {
                self.end_process(node, 0);
                self.replace_disk(node, (self.devices)());
                self.nodes[node].stores += 1;
                self.nodes[node].dishonest = false;
            }
        }
        self.release();
        for node in 0..self.nodes.len() {
            match self.nodes[node].process.is_none() {
                true => self.restart(node),
                false => self.rejoin(node),
            }
            for peer in 0..self.nodes.len() {
                if node != peer && self.scenario.shared(node, peer).next().is_some() {
                    let id = self.nodes[peer].id;
                    // Whoever knew where it was is told where it is now.
                    let knows = self.nodes[peer].moves > 0
                        && self.scenario.paths.iter().any(|path| (path.from, path.to) == (node, peer));
                    let addresses = if knows { self.nodes[peer].addresses.clone() } else { Vec::new() };
                    self.input(node, Input::BlockPeer { peer: id, blocked: false });
                    self.input(node, Input::AddPeer { peer: id, addresses });
                }
            }
        }
        self.progress = Some((self.now_us, self.difference()));
        self.at(self.now_us + 1_000_000, Event::Check);
    }

    /// Whether it has become equal, and how long that may still take.
    pub fn check(&mut self) {
        if self.converged_us.is_none() {
            if self.is_converged() {
                self.converged_us = Some(self.now_us);
                self.counters.converged_ms = (self.now_us / 1_000).saturating_sub(self.scenario.heal_ms);
            } else if self.now_us > self.scenario.heal_ms * 1_000 + self.convergence_us() {
                let who = self.who_waits();
                return self.fail("O1", format!("the nodes do not become equal.\n{who}"));
            } else {
                self.check_progress();
            }
        }
        if let Some(since) = self.converged_us {
            match self.unaware() {
                // What had stood still until now may have written on.
                None => self.done = self.is_converged(),
                Some(who) if self.now_us > since + KNOWLEDGE_US => {
                    return self.fail("O11", format!("the nodes are equal and do not say so: {who}"));
                }
                Some(_) => {}
            }
        }
        self.at(self.now_us + 1_000_000, Event::Check);
    }

    /// How long nodes may take to become equal once everything is healed: waits, the way from one to the next, and the
    /// time that the entries take where each is a message of its own that waits for the last one's acknowledgement.
    fn convergence_us(&self) -> u64 {
        let knobs = &self.scenario.knobs;
        let hops = self.scenario.nodes.len() as u64 - 1;
        let entries: u64 = match knobs.tight {
            Some(_) => self.replicas.iter().map(|replica| replica.truth.len() as u64).sum(),
            None => 0,
        };
        let turn_us = 2 * knobs.latency_us.1 + knobs.execute_us.1 + knobs.reply_us.1;
        WAITS_US + hops * HOP_US + entries * turn_us
    }
}
