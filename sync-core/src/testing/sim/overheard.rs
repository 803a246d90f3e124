//! O4, O9 and O11 on the wire: what is said to a node follows from what it may read, nobody accuses an honest node, and
//! nobody announces what he cannot serve.

use super::{
    oracles::Sayer,
    scenario::{Member, key_bytes},
    world::World,
};
use crate::{
    machine::{
        DisconnectReason,
        wire::{Message, Open, decode_bundles},
    },
    model::{Prefix, ReadScope, Timestamp},
    store::{Have, Scope, ShortId},
};

/// Until a session notices that a right has ended: it looks when the right ends by the clock that it began with, and
/// whenever it compares roots.
const NOTICED_WITHIN_US: u64 = 75_000_000;

/// From reading entries to sending them.
const SENT_WITHIN_US: u64 = 2_000_000;

/// What a member may read from the beginning.
pub fn prefix_of(member: &Member) -> Prefix {
    Prefix::new(key_bytes(&member.prefix)).expect("prefixes of scenarios are short")
}

impl World<'_> {
    /// What a node may read of a replica, by the clock of another.
    pub fn readable(&self, replica: usize, node: usize, by: usize) -> ReadScope {
        let plan = &self.scenario.replicas[replica];
        let member = self.scenario.member(replica, node);
        let reads_all = |member: &Member| member.is_full() || member.has_widened(self.now_us);
        if plan.owner == node || member.is_some_and(reads_all) {
            return ReadScope::all();
        }
        let Some(member) = member else { return ReadScope::default() };
        let wall = self.nodes[by].wall(self.now_us);
        let slept = self.now_us < self.nodes[by].paused_us + SENT_WITHIN_US;
        let jumped = slept || self.nodes[by].jumped_us.is_some_and(|at| self.now_us < at + NOTICED_WITHIN_US);
        let expired = member.expires_ms.is_some_and(|at| {
            // A coarse clock shows late that it is time.
            let late = SENT_WITHIN_US + self.scenario.knobs.grain_us;
            let end = Timestamp(super::node::BEGINNING.0 + at * 1_000 + late);
            wall >= end && !jumped
        });
        match expired {
            true => ReadScope::default(),
            false => ReadScope { prefixes: vec![prefix_of(member)] },
        }
    }

    /// O4: looks at a frame that a node sends to another.
    pub fn overhear(&mut self, from: usize, to: usize, stream: (u64, usize), frame: &bytes::Bytes) {
        let Ok(Some(message)) = Message::decode(frame.clone()) else {
            return self.fail("O9", format!("node {from} sends a frame that is none, of kind {}", frame[0]));
        };
        if let Message::Open(open) = &message
            && let Some(replica) = self.replicas.iter().position(|replica| replica.id == open.replica)
        {
            self.wires.get_mut(&stream.0).expect("it is being used").streams[stream.1].replica = Some(replica);
        }
        let Some(replica) = self.wires[&stream.0].streams[stream.1].replica else { return };
        let readable = self.readable(replica, to, from);
        // Who was granted to read more may not be known for it yet.
        let reads_all = readable.is_all() && self.scenario.member(replica, to).is_none_or(|it| it.widens_ms.is_none());
        if let Err(what) = self.can_be_served(from, replica, reads_all, &message) {
            return self.fail("O11", format!("node {from} announces to node {to} what it does not have: {what}"));
        }
        self.count_said((from, to), replica, stream, (&message, frame.len()));
        self.check_sent(from, to, replica, stream, &message);
        if let Message::Open(open) | Message::Opened(open) = &message
            && self.asks_by_a_lost_log(to, replica, open)
        {
            self.mark("position_of_a_lost_log");
        }
        if readable.is_all() {
            return;
        }
        let scope = Scope::of(&readable);
        if let Err(what) = self.may_be_said(from, replica, &scope, &message) {
            let what = format!(
                "node {from} tells node {to}, who may read {readable:?} of replica {replica}: {what} ({})",
                message.name()
            );
            self.fail("O4", what);
        } else {
            self.mark("told_a_part");
        }
    }

    /// O11: who says that his change log was sent up to somewhere has sent what the other lacks of it.
    fn check_sent(&mut self, from: usize, to: usize, replica: usize, stream: (u64, usize), message: &Message) {
        let (Message::Entries(mark, _) | Message::Mark(mark)) = message else { return };
        let wire = self.wires.get_mut(&stream.0).expect("it is being used");
        let side = usize::from(wire.ends[0].node != from);
        // Who was told before may have died since.
        let is_there = wire.ends[1 - side].epoch == self.nodes[to].epoch && self.nodes[to].process.is_some();
        let said = &mut wire.streams[stream.1].said[side];
        let Some(through) = mark.through.filter(|through| *through > said.told) else { return };
        let since = std::mem::replace(&mut said.told, through);
        if !is_there || self.leaves_out() || !self.is_exact(replica, from, to) {
            return;
        }
        self.mark("said_what_was_sent");
        let said = &self.wires[&stream.0].streams[stream.1].said[side];
        if let Some(op) = self.lacks(to, replica, (from, since, through), Sayer::Sender(Some(said))) {
            let what = format!("node {from} says that it has sent node {to} its log up to {through:?}, and not {op:?}");
            self.fail("O11", format!("replica {replica}: {what}"));
        }
    }

    /// Whether a node is told where the other stands in a log that it has lost, and could take it for a place in its own.
    fn asks_by_a_lost_log(&self, to: usize, replica: usize, open: &Open) -> bool {
        let (Some(process), Some((store, position))) = (&self.nodes[to].process, open.have) else { return false };
        let state = process.store.core().state(self.replicas[replica].id);
        store != process.store.core().store_id() && state.is_ok_and(|state| position <= state.head)
    }

    /// What a node says that it has is in its store.
    fn can_be_served(&mut self, from: usize, replica: usize, all: bool, message: &Message) -> Result<(), String> {
        let (position, root) = match message {
            Message::Open(open) | Message::Opened(open) => (Some(open.head), Some(open.root)),
            Message::Mark(mark) | Message::Entries(mark, _) => (mark.through, mark.root),
            _ => return Ok(()),
        };
        let Some(position) = position else { return Ok(()) };
        let Some(process) = &self.nodes[from].process else { return Ok(()) };
        let Ok(state) = process.store.core().state(self.replicas[replica].id) else { return Ok(()) };
        if position > state.head {
            return Err(format!("{position:?}, and its store is at {:?}", state.head));
        }
        // To whom it does not know to have a right, a node says that it has nothing.
        if all && position == state.head && root.is_some_and(|root| root.count > 0 && root != state.root) {
            return Err(format!("the root {root:?}, and its store's is {:?}", state.root));
        }
        self.mark("announced");
        Ok(())
    }

    fn may_be_said(&self, from: usize, replica: usize, scope: &Scope, message: &Message) -> Result<(), String> {
        let root = match message {
            Message::Open(open) | Message::Opened(open) => Some(open.root),
            Message::Mark(mark) | Message::Entries(mark, _) => mark.root,
            _ => None,
        };
        if let Some(root) = root
            && let Some(process) = &self.nodes[from].process
            && let Ok(state) = process.store.core().state(self.replicas[replica].id)
            && root == state.root
            && root.count > 0
        {
            // By its entries, not by the sums of the store.
            let all = super::faults::live(process.store.core(), self.replicas[replica].id);
            if all.iter().any(|(_, op)| !scope.contains(op)) {
                return Err(format!("the root of all {} entries", root.count));
            }
        }
        match message {
            Message::Opened(_) if scope.is_nothing() => Err("that the replica is here".into()),
            Message::Entries(_, payload) => {
                let bundles = decode_bundles(payload).map_err(|error| error.to_string())?;
                let ops = bundles.iter().flat_map(|bundle| bundle.items.iter().map(|item| &item.op));
                match ops.into_iter().find(|op| !scope.contains(op)) {
                    Some(op) => Err(format!("{op:?}")),
                    None => Ok(()),
                }
            }
            Message::Symbols(_) => Err("symbols of everything".into()),
            Message::Ranges(ranges) => {
                for claim in &ranges.claims {
                    if scope.clamp(&claim.range).first() != Some(&claim.range) {
                        return Err(format!("something about {:?}", claim.range));
                    }
                    let (Have::Ids(ids) | Have::Final(ids)) = &claim.have else { continue };
                    let truth = &self.replicas[replica].truth;
                    let outside = |id: &ShortId| {
                        truth.iter().any(|(order, op)| ShortId::from(&order.hash) == *id && !scope.contains(op))
                    };
                    if ids.iter().any(outside) {
                        return Err(format!("ids in {:?}", claim.range));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// O9: honest nodes do not break the protocol, so nobody says so.
    pub fn accused(&mut self, node: usize, other: usize, reason: DisconnectReason) {
        let honest = !self.scenario.is_hostile(node) && !self.scenario.is_hostile(other);
        if honest && reason == DisconnectReason::Protocol {
            let who = self.who_waits();
            self.fail("O9", format!("node {node} says that node {other} broke the protocol\n{who}"));
        }
    }
}
