//! O7 on the wire: what is sent follows from what is to be sent. Entries that a peer has acknowledged are not sent to it
//! again, and messages are as many as there is something to say.

use std::collections::{BTreeMap, BTreeSet};

use super::{wire::Side, world::World};
use crate::{
    machine::wire::{Message, Ranges, Symbols, decode_bundles},
    model::{Item, entry_hash},
    store::{Position, reconcile::Widths},
};

/// So many entries may be sent again to a peer, beside a twentieth of what it has acknowledged: what comes to a node while
/// it sends what a reconciliation has found missing may be in that, and follows once more with its change log; what was
/// under way when the peer took its part of a reconciliation is missing in that. In simulations that is a commit or two.
const SENT_AGAIN: u64 = 96;

/// Positions that were saved so late before a crash may be lost: what they say is delivered is sent again.
const SAVED_WITHIN_US: u64 = 2_000_000;

/// So many messages of a session need no reason: the opening, credentials, questions of applications.
const MESSAGES: u64 = 30;

/// So many bytes of coded symbols and of what they tell need no reason, for each reconciliation that was begun; so many more
/// for each entry that differs, and for each that came meanwhile, since symbols of another moment begin anew.
const SYMBOL_BYTES: u64 = 3_000;
const TOLD_BYTES: u64 = 128;
const ANEW_BYTES: u64 = 1_600;

/// So many bytes of ranges need no reason, and so many, and a key, for each entry that either side holds: where limits are
/// small, or keys differ in their last bytes, all of them are named, more than once.
const RANGE_BYTES: u64 = 8_192;
const NAMED_BYTES: u64 = 256;

/// What one side of a session has said.
#[derive(Debug, Default)]
pub struct Said {
    /// The entries of each frame.
    frames: Vec<Vec<[u8; 32]>>,
    /// How many of these frames the other has acknowledged as durable.
    acknowledged: usize,
    /// Up to where it said that it has sent its change log.
    pub told: Position,
    /// How many messages, and how many of them belong to a reconciliation.
    messages: u64,
    rounds: u64,
    /// How many bytes of them were ranges and how many symbols, how many of them began a reconciliation, how many entries
    /// it held at most, and how many differed at most when one began.
    range_bytes: u64,
    symbol_bytes: u64,
    begun: u64,
    held: u64,
    apart: u64,
    /// Where its change log ended when it said something first, and when that was.
    began: Option<(Position, u64)>,
    /// It has said that it has so little that all is sent without asking.
    is_small: bool,
}

impl Said {
    /// Whether it has sent an entry.
    pub fn has_sent(&self, hash: &[u8; 32]) -> bool {
        self.frames.iter().flatten().any(|sent| sent == hash)
    }
}

/// What one node has acknowledged to another of a replica.
#[derive(Debug, Default)]
pub struct Delivered {
    /// The entries, with when the sender learned of it.
    entries: BTreeMap<[u8; 32], u64>,
    /// How many of them were sent again without a reason.
    again: u64,
}

impl World<'_> {
    /// A node says something in a session.
    pub fn count_said(
        &mut self,
        (from, to): (usize, usize),
        replica: usize,
        stream: (u64, usize),
        (message, len): (&Message, usize),
    ) {
        let id = self.replicas[replica].id;
        let state = self.nodes[from].process.as_ref().and_then(|process| process.store.core().state(id).ok());
        let small = self.scenario.knobs.tight.map(|tight| tight.limits).unwrap_or_default().nearly_empty;
        let now_us = self.now_us;
        let apart = match message {
            Message::Symbols(Symbols { first: true, .. }) => self.apart(replica, from, to),
            _ => 0,
        };
        let wire = self.wires.get_mut(&stream.0).expect("it is being used");
        let side = usize::from(wire.ends[0].node != from);
        let said = &mut wire.streams[stream.1].said[side];
        said.messages += 1;
        match message {
            Message::Open(open) | Message::Opened(open) => said.is_small = open.root.count <= small,
            Message::Ranges(Ranges { first, .. }) => {
                said.rounds += 1;
                said.range_bytes += len as u64;
                said.begun += u64::from(*first);
            }
            Message::Symbols(Symbols { first, .. }) => {
                said.rounds += 1;
                said.symbol_bytes += len as u64;
                said.begun += u64::from(*first);
                said.apart = said.apart.max(apart);
            }
            Message::Solved(_) => {
                said.rounds += 1;
                said.symbol_bytes += len as u64;
            }
            Message::Entries(_, payload) => {
                let mut hashes = Vec::new();
                for bundle in decode_bundles(payload).into_iter().flatten() {
                    let seal = bundle.seal;
                    let hash = |item: &Item| entry_hash(&id, &seal.author, seal.timestamp_of(item.index), &item.op).0;
                    hashes.extend(bundle.items.iter().map(hash));
                }
                said.frames.push(hashes);
            }
            _ => {}
        }
        if let Some(state) = &state {
            said.held = said.held.max(state.root.count);
            said.began.get_or_insert((state.head, now_us));
        }
        let saids = &wire.streams[stream.1].said;
        let (moved, rounds) = (
            saids.iter().map(|said| said.frames.len() as u64).sum::<u64>(),
            saids.iter().map(|said| said.rounds).sum::<u64>(),
        );
        if let (Some(state), Some((head, at))) = (state, saids[side].began) {
            let grown = state.head.0.saturating_sub(head.0);
            let most = MESSAGES + 3 * moved + 2 * rounds + 2 * grown + (now_us - at) / 10_000_000;
            if saids[side].messages > most && !self.scenario.is_hostile(to) {
                let what = format!(
                    "node {from} has sent node {to} {} messages of replica {replica}: {moved} with entries went between them, {rounds} of reconciliations, and its change log grew by {grown}",
                    saids[side].messages
                );
                return self.fail("O7", what);
            }
        }
        let is_of_a_round = matches!(message, Message::Ranges(_) | Message::Symbols(_) | Message::Solved(_));
        if is_of_a_round && !self.scenario.is_hostile(to) && !self.scenario.is_hostile(from) {
            self.count_reconciled((from, to), replica, stream);
        }
        if matches!(message, Message::Entries(..)) {
            self.count_again(from, to, replica, stream, side);
        }
    }

    /// The bytes by which two nodes have found out in a session what differs.
    fn count_reconciled(&mut self, (from, to): (usize, usize), replica: usize, stream: (u64, usize)) {
        let wire = &self.wires[&stream.0];
        let saids = &wire.streams[stream.1].said;
        let sum = |of: fn(&Said) -> u64| saids.iter().map(of).sum::<u64>();
        let (symbols, ranges) = (sum(|said| said.symbol_bytes), sum(|said| said.range_bytes));
        let (begun, held, apart) = (sum(|said| said.begun).max(1), sum(|said| said.held), sum(|said| said.apart));
        let grown = |side: usize| {
            let node = &self.nodes[wire.ends[side].node];
            let state = node.process.as_ref().and_then(|it| it.store.core().state(self.replicas[replica].id).ok());
            state.zip(saids[side].began).map_or(0, |(state, (head, _))| state.head.0.saturating_sub(head.0))
        };
        let grown = grown(0) + grown(1);
        let named = |bytes: u64| begun * (RANGE_BYTES + bytes * held);
        let what = if symbols > begun * (SYMBOL_BYTES + TOLD_BYTES * apart) + ANEW_BYTES * grown {
            format!("{symbols} bytes of symbols, where {apart} entries differed and {grown} came")
        } else if ranges > named(NAMED_BYTES) && ranges > named(NAMED_BYTES + self.longest_key(replica)) {
            format!("{ranges} bytes of ranges, where they hold {held} entries")
        } else {
            return;
        };
        self.fail("O7", format!("nodes {from} and {to} said in {begun} reconciliations of replica {replica} {what}"));
    }

    /// How many entries of a replica one of two nodes has and the other has not.
    fn apart(&self, replica: usize, one: usize, other: usize) -> u64 {
        let of = |node: usize| -> BTreeSet<[u8; 32]> {
            let live = self.live_on(&self.nodes[node].disk, node, replica);
            live.into_iter().map(|(order, _)| order.hash.0).collect()
        };
        of(one).symmetric_difference(&of(other)).count() as u64
    }

    /// How long the longest key is that anybody has written to a replica.
    fn longest_key(&self, replica: usize) -> u64 {
        let keys = self.replicas[replica].truth.iter().map(|(_, op)| op.key_bytes().len() as u64);
        keys.max().unwrap_or(0)
    }

    /// The last frame of entries that a node has sent: none of them the other has acknowledged already.
    fn count_again(&mut self, from: usize, to: usize, replica: usize, stream: (u64, usize), side: usize) {
        let Some(delivered) = self.delivered.get(&(from, to, replica)) else { return };
        let saids = &self.wires[&stream.0].streams[stream.1].said;
        let frame = saids[side].frames.last().expect("it was just sent");
        let again: Vec<([u8; 32], u64)> =
            frame.iter().filter_map(|hash| Some((*hash, *delivered.entries.get(hash)?))).collect();
        // Where ids are too many for a claim, all that is in its range is sent.
        let widths = self.scenario.knobs.tight.map(|tight| tight.widths).unwrap_or_default();
        let is_cut = self.leaves_out() || widths.max_ids < Widths::default().max_ids;
        if again.is_empty() {
            return;
        }
        // Who only pulls and may read more is sent the log from its beginning.
        let widens = self.scenario.member(replica, to).is_some_and(|member| member.widens_ms.is_some());
        if is_cut || widens || !self.is_exact(replica, from, to) {
            self.counters.sent_again_on_demand += again.len() as u64;
            return;
        }
        // What the other has forgotten since, because something covers it, it may be sent by who has not heard of that.
        let here: BTreeSet<[u8; 32]> =
            self.live_on(&self.nodes[to].disk, to, replica).into_iter().map(|(order, _)| order.hash.0).collect();
        let again: Vec<u64> = again.into_iter().filter(|(hash, _)| here.contains(hash)).map(|(_, at)| at).collect();
        self.counters.sent_again += again.len() as u64;
        // What is ahead of the other's clock is offered again, and what came with it.
        if self.nodes[to].early.contains(&replica) {
            return;
        }
        // Whoever says that it has next to nothing is sent everything, though it may have been long under way.
        if saids.iter().any(|said| said.is_small) {
            return;
        }
        let ended = self.nodes[to].ended_us;
        let started = self.nodes[to].process.as_ref().map_or(0, |process| process.started_us);
        let is_lost = |at: &u64| *at <= started && at + SAVED_WITHIN_US > ended;
        // An opening that another session has overtaken says nothing of what came in that.
        let began = |side: usize| saids[side].began.map(|(_, at)| at);
        let is_overtaken =
            |at: &u64| began(1 - side).zip(began(side)).is_some_and(|(asked, mine)| (asked..mine).contains(at));
        let count = again.iter().filter(|at| !is_lost(at) && !is_overtaken(at)).count() as u64;
        let delivered = self.delivered.get_mut(&(from, to, replica)).expect("just found");
        delivered.again += count;
        let (all, again) = (delivered.entries.len() as u64, delivered.again);
        if again > SENT_AGAIN + all / 20 {
            let what = format!(
                "node {from} has sent node {to} {again} entries of replica {replica} again, of {all} that it had acknowledged"
            );
            self.fail("O7", what);
        }
    }

    /// A node hears what another says in a session.
    pub fn count_heard(&mut self, number: u64, side: Side, stream: usize, frame: &bytes::Bytes) {
        if !matches!(frame.first(), Some(19 | 20)) {
            return;
        }
        let Ok(Some(Message::Entries(mark, _) | Message::Mark(mark))) = Message::decode(frame.clone()) else { return };
        let wire = self.wires.get_mut(&number).expect("the caller has found it");
        let (node, other) = (wire.end(side).node, wire.end(side.other()).node);
        // What it said in an earlier life it may not know any more.
        let is_there = wire.end(side.other()).epoch == self.nodes[other].epoch && self.nodes[other].process.is_some();
        if !is_there {
            return;
        }
        let it = &mut wire.streams[stream];
        let Some(replica) = it.replica else { return };
        let said = &mut it.said[side.index()];
        let delivered = self.delivered.entry((node, other, replica)).or_default();
        while (said.acknowledged as u64) < mark.durable && said.acknowledged < said.frames.len() {
            for hash in &said.frames[said.acknowledged] {
                delivered.entries.entry(*hash).or_insert(self.now_us);
                self.counters.delivered += 1;
            }
            said.acknowledged += 1;
        }
    }
}
