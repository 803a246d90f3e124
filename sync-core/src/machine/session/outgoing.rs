//! A session's part about what goes out: within the window, in order, acknowledged.

use bytes::Bytes;

use super::{Effect, Frame, Known, Session};
use crate::{
    machine::{
        io::StoreRequest,
        limits::*,
        out::Io,
        wire::{Mark, Message},
    },
    store::{Changes, ChangesRequest, MissingPage},
};

impl Session {
    pub(super) fn window_open(&self, limits: &Limits, known: &Known) -> bool {
        // Room for a frame is left; below a receipt's length the peer need not say that something has arrived.
        let part = usize::try_from(self.expected_len(known) / FLIGHT_PART as u64).unwrap_or(usize::MAX);
        let flight = part.saturating_sub(limits.entries_frame_len).max(limits.receipt_len);
        self.in_flight_len < limits.window_len
            && self.frames_sent - self.frames_acked < limits.window_frames
            && self.flying_len < flight
    }

    /// About how many bytes of entries the session is to send by all that is known now, with those that it has sent:
    /// what is left of the change log is taken to be like them.
    fn expected_len(&self, known: &Known) -> u64 {
        let sent = (self.flying_len + self.landed_len) as u64;
        let left = self.tail.map_or(0, |sent| known.head.0.saturating_sub(sent.0)).min(known.root.count);
        let each = sent.checked_div(self.traffic.sent).unwrap_or(0);
        sent.saturating_add(left.saturating_mul(each))
    }

    /// How many bytes of entries go into a frame.
    fn frame_len(&self, limits: &Limits) -> usize {
        (limits.entries_frame_len >> self.narrow).max(1)
    }

    /// How often the next session with the peer is to halve them: more often when not one of this one's frames has
    /// arrived, as the connection may not live long enough for one.
    pub fn narrow_next(&self) -> u32 {
        let is_stuck = self.frames_sent > 0 && self.frames_arrived == 0;
        (self.narrow + u32::from(is_stuck)).min(MAX_NARROW)
    }

    /// Whether no more entries may be under way.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.in_flight_len >= limits.window_len || self.frames_sent - self.frames_acked >= limits.window_frames
    }

    /// Sends on, as far as the window allows. Answers whether something is being read.
    pub fn pump_out(&mut self, io: &mut Io, known: &Known) -> bool {
        if !self.is_live() || self.hold || self.reading || !self.window_open(&io.limits, known) {
            return self.reading;
        }
        if !self.missing.is_empty() {
            self.reading = true;
            let request = StoreRequest::Missing {
                replica: self.replica,
                scope: self.scope.clone(),
                missing: std::mem::take(&mut self.missing),
                max_bytes: self.frame_len(&io.limits),
            };
            io.store(self.key(), request);
        } else if self.is_reconcile_over() {
            if self.finish_reconcile() {
                let mark = self.mark(known);
                self.send(io, Message::Mark(mark));
            }
            return self.pump_out(io, known);
        } else if self.gives
            && self.reconcile.is_none()
            && let Some(sent) = self.tail
            && sent < known.head
        {
            self.reading = true;
            let request = ChangesRequest {
                replica: self.replica,
                since: sent,
                not_from: (sent >= self.echo_until).then_some(self.peer),
                scope: self.scope.clone(),
                max_bytes: self.frame_len(&io.limits),
            };
            io.store(self.key(), StoreRequest::Changes { request, rights_version: known.rights_version });
        } else if !self.scope.is_nothing() && self.root(known).is_none() && !self.asking_root {
            self.asking_root = true;
            let request = StoreRequest::ScopeRoot { replica: self.replica, scope: self.scope.clone() };
            io.store(self.key(), request);
        }
        self.reading
    }

    pub(super) fn send_entries(&mut self, io: &mut Io, known: &Known, payload: Bytes, entries: u64) {
        self.synced = false;
        let mark = self.mark(known);
        self.told = None;
        self.frames_sent += 1;
        self.in_flight_len += payload.len();
        self.flying_len += payload.len();
        self.in_flight.push_back(Frame { len: payload.len(), through: mark.through });
        self.traffic.sent += entries;
        self.send(io, Message::Entries(mark, payload));
    }

    /// A piece of the change log was read.
    pub fn changes_read(&mut self, io: &mut Io, known: &Known, payload: Bytes, changes: Changes) -> Vec<Effect> {
        self.reading = false;
        if changes.rights_version != known.rights_version {
            // It was read by another right than the peer had at that moment, or has now.
            self.pump_out(io, known);
            return Vec::new();
        }
        let before = self.tail;
        // A reconciliation that began meanwhile does not undo what was read.
        self.tail = before.map(|sent| sent.max(changes.through));
        let mut effects = Vec::new();
        if changes.entries > 0 {
            self.send_entries(io, known, payload, changes.entries);
        } else if self.in_flight.is_empty() && before == Some(self.confirmed) && self.is_sure() {
            self.confirmed = changes.through.max(self.confirmed);
            effects.push(Effect::Confirmed(self.confirmed));
        }
        let reading = self.pump_out(io, known);
        if changes.entries == 0 && !reading && !self.synced {
            // Nothing of it was for the peer; it can compare roots now.
            let mark = self.mark(known);
            self.send(io, Message::Mark(mark));
        }
        effects
    }

    /// A page of what the peer lacks was read.
    pub fn missing_read(&mut self, io: &mut Io, known: &Known, payload: Bytes, page: MissingPage) {
        self.reading = false;
        let more = std::mem::take(&mut self.missing);
        self.missing = page.rest;
        self.missing.extend(more);
        if page.entries > 0 {
            if self.is_reconcile_over() {
                // The mark that goes with the last of them says so.
                self.finish_reconcile();
            }
            self.send_entries(io, known, payload, page.entries);
        }
        self.pump_out(io, known);
    }

    /// A mark's news about what we sent: frames that have arrived, and frames that are durable.
    pub(super) fn acknowledge(&mut self, mark: &Mark, effects: &mut Vec<Effect>) {
        let arrived = mark.received.max(mark.durable);
        if arrived > self.frames_sent {
            effects.push(Effect::Violation(format!("it acknowledges {arrived} frames of {}", self.frames_sent)));
            return;
        }
        while self.frames_arrived < arrived {
            let at = usize::try_from(self.frames_arrived - self.frames_acked).expect("a window of frames");
            let len = self.in_flight[at].len;
            self.frames_arrived += 1;
            self.narrow = self.narrow.saturating_sub(1);
            self.flying_len -= len;
            self.landed_len += len;
        }
        let before = self.confirmed;
        while self.frames_acked < mark.durable {
            let frame = self.in_flight.pop_front().expect("unacknowledged frames are in flight");
            self.frames_acked += 1;
            self.in_flight_len -= frame.len;
            self.confirmed = frame.through.unwrap_or(self.confirmed).max(self.confirmed);
        }
        // What was skipped behind the last frame is confirmed with it.
        if self.in_flight.is_empty()
            && let Some(sent) = self.tail.filter(|_| self.is_sure())
        {
            self.confirmed = self.confirmed.max(sent);
        }
        if self.confirmed > before {
            effects.push(Effect::Confirmed(self.confirmed));
        }
    }
}
