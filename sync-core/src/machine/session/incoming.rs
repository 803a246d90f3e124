//! A session's part about what comes in: verified and applied in order, what waits together.

use super::{Applied, Arrived, Batch, Effect, Known, Phase, Round, Session};
use crate::{
    canary::{self, Canary},
    machine::{
        io::{StoreRequest, Traffic},
        limits::*,
        out::Io,
        wire::{Message, RefusalReason, Refused},
    },
    model::VerifiedBundle,
};

impl Session {
    /// A message of a live session.
    pub fn receive(&mut self, io: &mut Io, known: &Known, message: Message, len: usize) -> Vec<Effect> {
        let mut effects = Vec::new();
        match message {
            Message::Entries(mark, payload) => {
                self.acknowledge(&mark, &mut effects);
                if !self.takes {
                    effects.push(Effect::Violation("it sends what nobody asked for".into()));
                    return effects;
                }
                self.arrived_len += payload.len();
                if self.arrived_len > io.limits.window_len + MAX_FRAME_LEN {
                    effects.push(Effect::Violation("it sends more than the window allows".into()));
                    return effects;
                }
                self.synced = false;
                self.received += 1;
                self.untold_len += payload.len();
                self.arrived.push_back(Arrived::Entries(mark, payload));
                if self.untold_len >= io.limits.receipt_len {
                    // The peer need not wait for the disk to send on.
                    let receipt = self.mark(known);
                    self.send(io, Message::Mark(receipt));
                }
            }
            Message::Mark(mark) => {
                self.acknowledge(&mark, &mut effects);
                match self.arrived.back_mut() {
                    // What a mark says, the next says anew: one that waits, behind a slow disk, need not.
                    Some(Arrived::Mark(last)) => *last = mark,
                    _ => self.arrived.push_back(Arrived::Mark(mark)),
                }
            }
            Message::Ranges(ranges) => self.arrive(Round::Ranges(ranges), len),
            Message::Symbols(symbols) => self.arrive(Round::Symbols(symbols), len),
            Message::Solved(solved) => self.arrive(Round::Solved(solved), len),
            Message::Refused(refused) => {
                self.refused_since += refused.count;
                // What it acknowledges from now on it may not have.
                self.rewound = None;
                effects.push(Effect::Refused(refused));
            }
            other => effects.push(Effect::Violation(format!("an unexpected message in a session: {}", other.name()))),
        }
        if self.arrived.len() as u64 > io.limits.waiting_messages()
            || self.rounds_len > io.limits.round_len + MAX_FRAME_LEN
        {
            effects.push(Effect::Violation("it sends more messages than the window allows".into()));
            return effects;
        }
        self.pump_in(io, known, &mut effects);
        self.pump_out(io, known);
        effects
    }

    fn arrive(&mut self, round: Round, len: usize) {
        self.rounds_len += len;
        self.arrived.push_back(Arrived::Round(round, len));
    }

    /// Moves what has arrived on: to verification, to the store, to the comparison of roots.
    pub(super) fn pump_in(&mut self, io: &mut Io, known: &Known, effects: &mut Vec<Effect>) {
        if self.applying.is_none() && !self.verified.is_empty() {
            let mut batch = Batch::default();
            while let Some(next) = self.verified.pop_front() {
                batch.frames += next.frames;
                batch.len += next.len;
                batch.mark = next.mark;
                batch.bundles.extend(next.bundles);
            }
            self.applying = Some((batch.frames, batch.len, batch.mark, known.head));
            io.apply(self.key(), batch.bundles);
        }
        // What is verified takes several times the bytes that it came in: it waits as it came while much does.
        let waiting: usize = self.verified.iter().map(Batch::weight).sum();
        if self.verifying.is_none() && waiting < io.limits.apply_len {
            let mut batch = Batch::default();
            let mut payloads = Vec::new();
            while batch.len < io.limits.apply_len / VERIFY_PART
                && let Some(Arrived::Entries(..)) = self.arrived.front()
            {
                let Some(Arrived::Entries(mark, payload)) = self.arrived.pop_front() else { unreachable!() };
                batch.frames += 1;
                batch.len += payload.len();
                batch.mark = Some(mark);
                payloads.push(payload);
            }
            if !payloads.is_empty() {
                self.verifying = Some(batch);
                io.store(self.key(), StoreRequest::Verify { replica: self.replica, payloads });
            }
        }
        if self.verifying.is_none() && self.verified.is_empty() && self.applying.is_none() {
            match self.arrived.front() {
                Some(Arrived::Mark(_)) => {
                    let Some(Arrived::Mark(mark)) = self.arrived.pop_front() else { unreachable!() };
                    self.compare(io, known, &mark, false, effects);
                    self.pump_in(io, known, effects);
                }
                // The last one has ended on the wire, and is still compared here.
                Some(Arrived::Round(round, _)) if round.begins() && self.is_last_round_compared() => {}
                Some(Arrived::Round(..)) => {
                    let Some(Arrived::Round(round, len)) = self.arrived.pop_front() else { unreachable!() };
                    self.rounds_len -= len;
                    match round {
                        Round::Ranges(ranges) => self.receive_ranges(io, known, ranges, effects),
                        Round::Symbols(symbols) => self.receive_symbols(io, known, symbols, effects),
                        Round::Solved(solved) => self.receive_solved(io, solved, effects),
                    }
                    self.pump_in(io, known, effects);
                }
                Some(Arrived::Entries(..)) | None => {}
            }
        }
    }

    /// Signatures were checked.
    pub fn entries_verified(&mut self, io: &mut Io, known: &Known, bundles: Vec<VerifiedBundle>) -> Vec<Effect> {
        let mut batch = self.verifying.take().expect("a batch is being verified");
        batch.bundles = bundles;
        self.verified.push_back(batch);
        let mut effects = Vec::new();
        self.pump_in(io, known, &mut effects);
        self.pump_out(io, known);
        effects
    }

    /// Entries are durable. `known` is the replica after it.
    pub fn entries_applied(&mut self, io: &mut Io, known: &Known, applied: &Applied) -> Vec<Effect> {
        let (frames, len, mark, head_before) = self.applying.take().expect("a batch is being applied");
        self.durable += frames;
        self.arrived_len -= len;
        // What was equal before says nothing about these.
        self.synced = false;
        self.traffic.received += applied.inserted;
        self.inserted_since += applied.inserted;
        let mut effects = Vec::new();
        // What this peer sent need not be sent back: when nothing else was accepted meanwhile, the
        // log is as good as sent.
        if self.tail == Some(head_before) && applied.head.0 == head_before.0 + applied.inserted {
            self.tail = Some(applied.head);
            if self.in_flight.is_empty() && self.confirmed == head_before && self.is_sure() {
                self.confirmed = applied.head;
                effects.push(Effect::Confirmed(applied.head));
            }
        }
        self.refused_since += applied.refused_count;
        if !applied.refused.is_empty() {
            let early = applied.refused.iter().filter(|(_, reason)| *reason == RefusalReason::Future).count();
            if early > 0 {
                self.early = true;
                effects.push(Effect::Early(early as u64));
            }
            if early < applied.refused.len() && !canary::is_out(Canary::PlaceRefused) {
                self.unplaced.get_or_insert_with(|| applied.rights.clone());
                self.unsure |= !self.is_one_way();
            }
            if self.is_live() {
                let refused = Refused { count: applied.refused_count, entries: applied.refused.clone() };
                self.send(io, Message::Refused(refused));
            }
        }
        if let Some(mark) = mark {
            self.compare(io, known, &mark, true, &mut effects);
        }
        // What the marks right behind say may be answered with the acknowledgement.
        while self.verifying.is_none()
            && self.verified.is_empty()
            && let Some(&Arrived::Mark(mark)) = self.arrived.front()
        {
            self.arrived.pop_front();
            self.compare(io, known, &mark, true, &mut effects);
        }
        if self.is_live() {
            self.pump_out(io, known);
            let ours = self.mark(known);
            self.send(io, Message::Mark(ours));
        }
        self.pump_in(io, known, &mut effects);
        self.pump_out(io, known);
        effects
    }

    /// The session is over. What has come is taken in all the same: so it need not be sent again, and the next
    /// session can say so.
    pub fn drain(&mut self, io: &mut Io, known: &Known) -> Vec<Effect> {
        self.phase = Phase::Draining;
        self.stream = None;
        self.traffic = Traffic::default();
        self.in_flight.clear();
        self.missing.clear();
        self.reconcile = None;
        self.arrived.retain(|it| matches!(it, Arrived::Entries(..) | Arrived::Mark(_)));
        self.rounds_len = 0;
        self.take_held_back();
        let mut effects = Vec::new();
        self.pump_in(io, known, &mut effects);
        effects
    }

    /// Whether everything that has come is durable.
    pub fn is_drained(&self) -> bool {
        self.arrived.is_empty() && self.verifying.is_none() && self.verified.is_empty() && self.applying.is_none()
    }

    /// What has come is of no use: it could not be verified, or the store could not take it.
    pub fn abandon(&mut self) {
        self.arrived.clear();
        (self.arrived_len, self.rounds_len) = (0, 0);
        self.verifying = None;
        self.verified.clear();
        self.applying = None;
    }

    /// Keeps a message until the session is live: what the peer sends may come before its credentials
    /// are admitted. False when it is more than the window allows.
    pub fn hold_back(&mut self, limits: &Limits, message: Message, len: usize) -> bool {
        self.held_back_len += len;
        self.held_back.push((message, len));
        self.held_back_len <= limits.window_len + MAX_FRAME_LEN
            && self.held_back.len() as u64 <= limits.window_frames * 4
    }

    /// What was held back.
    pub fn take_held_back(&mut self) -> Vec<(Message, usize)> {
        self.held_back_len = 0;
        std::mem::take(&mut self.held_back)
    }
}
