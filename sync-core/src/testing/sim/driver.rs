//! What the manager's driver does, in virtual time: inputs in, outputs performed.

use std::{collections::BTreeMap, hash::Hasher};

use super::{
    draw::Stream,
    node::place,
    wire::{Item, Side, Wire},
    world::{Done, Event, Work, World},
};
use crate::{
    canary::{self, Canary},
    machine::{
        ConnectionId, DialFailure, DialId, Input, Output, StoreReply, StoreRequest, StreamId, SyncOutcome, is_known,
        limits::*, perform, wire::StreamKind,
    },
    model::{Op, Order},
    store::{Apply, NodeKind, Origin, Outcome, Write, Written},
    testing::block_on,
};

/// So many dials of one node to another in ten seconds are too many: with full jitter, backoff allows
/// about eight an address, and each crash and each request to retry begins anew.
const MAX_DIALS: u64 = 60;

/// So many messages of reconciliations in ten seconds are too many, beside one for each entry where a message has place
/// for next to nothing.
const MAX_ROUNDS_SENT: u64 = 400;

/// Counts in windows of ten seconds.
fn grown(rates: &mut BTreeMap<(usize, usize), (u64, u64)>, of: (usize, usize), now_us: u64) -> u64 {
    let (since, count) = rates.entry(of).or_insert((now_us, 0));
    if now_us > *since + 10_000_000 {
        (*since, *count) = (now_us, 0);
    }
    *count += 1;
    *count
}

impl World<'_> {
    /// Tells a machine what happened and does what it says.
    pub fn input(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].now(self.now_us);
        let Some(process) = &mut self.nodes[node].process else { return };
        tracing::debug!(now_us = self.now_us, node, ?input);
        process.machine.handle(now, input);
        let footprint = process.machine.footprint();
        self.perform_all(node);
        self.check_footprint(node, footprint);
        self.plan_wake(node);
    }

    pub fn perform_all(&mut self, node: usize) {
        while let Some(process) = &mut self.nodes[node].process
            && let Some(output) = process.machine.poll_output()
        {
            match &mut self.nodes[node].crash {
                Some((0, down_ms)) => {
                    let down_ms = *down_ms;
                    self.mark("crash_between_outputs");
                    return self.crash(node, down_ms * 1_000);
                }
                Some((left, _)) => *left -= 1,
                None => {}
            }
            self.perform(node, output);
        }
    }

    fn trace(&mut self, node: usize, what: u8, number: u64, bytes: &[u8]) {
        self.trace.write_u64(self.now_us);
        self.trace.write_u64((node as u64) << 8 | u64::from(what));
        self.trace.write_u64(number);
        self.trace.write(bytes);
    }

    fn perform(&mut self, node: usize, output: Output) {
        tracing::debug!(now_us = self.now_us, node, ?output);
        match output {
            Output::Dial { dial, address } => {
                self.trace(node, 1, dial.0, address.as_str().as_bytes());
                self.dial(node, dial, &address);
            }
            Output::CancelDial { dial } => {
                let process = self.nodes[node].process.as_mut().expect("outputs come from a running machine");
                process.dials.remove(&dial);
            }
            Output::Admit { connection, .. } => self.admit(node, connection),
            Output::Disconnect { connection, reason } => {
                self.trace(node, 2, connection.0, &[]);
                if let Some((wire, side)) = self.wire_of(node, connection) {
                    let other = self.wires[&wire].end(side.other()).node;
                    self.accused(node, other, reason);
                }
                self.disconnect(node, connection);
            }
            Output::OpenStream { connection, stream, kind } => {
                if let Some((wire, side)) = self.wire_of(node, connection) {
                    let it = self.wires.get_mut(&wire).expect("just found");
                    let index = it.open(side, stream);
                    self.send(wire, side, index, Item::Open(kind));
                }
            }
            Output::Send { connection, stream, frame } if self.scenario.is_hostile(node) => {
                self.trace(node, 3, stream.0, &frame);
                self.send_as_it_likes(node, connection, stream, frame);
            }
            Output::Send { connection, stream, frame } => {
                self.trace(node, 3, stream.0, &frame);
                *self.counters.frames.entry(frame[0]).or_default() += 1;
                self.counters.bytes += frame.len() as u64 + 4;
                match frame[0] {
                    18 => self.mark("refused_session"),
                    19 if frame.len() > 64 * 1024 => self.mark("large_frame"),
                    21 => {
                        self.mark("reconciliation");
                        self.round_sent(node, connection, stream);
                    }
                    23 => {
                        self.mark("symbols");
                        self.round_sent(node, connection, stream);
                    }
                    22 => self.mark("refused_entries"),
                    _ => {}
                }
                if frame.len() > MAX_FRAME_LEN {
                    self.fail("O6", format!("a frame of {} bytes", frame.len()));
                }
                if frame[0] >= 16
                    && let Some((wire, side)) = self.wire_of(node, connection)
                    && let Some(index) = self.wires[&wire].end(side).numbers.get(&stream).copied()
                {
                    let other = self.wires[&wire].end(side.other()).node;
                    self.overhear(node, other, (wire, index), &frame);
                }
                self.send_on(node, connection, stream, Item::Frame(frame));
            }
            Output::CloseStream { connection, stream } => {
                self.send_on(node, connection, stream, Item::End);
                if let Some((wire, side)) = self.wire_of(node, connection) {
                    let it = self.wires.get_mut(&wire).expect("just found");
                    if let Some(index) = it.end(side).numbers.get(&stream).copied() {
                        it.forget(side, index);
                    }
                }
            }
            Output::Store { op, request } => self.work(node, Work::Machine { op, request }),
            Output::Event(event) => self.told(node, &event),
            Output::Answer { ask, report } => {
                let process = self.nodes[node].process.as_mut().expect("outputs come from a running machine");
                match process.asks.remove(&ask) {
                    None => self.fail("O11", format!("a question is answered twice: {report:?}")),
                    Some((replica, peer))
                        if report.outcome == SyncOutcome::Synced && !self.scenario.is_hostile(node) =>
                    {
                        self.mark("answered_synced");
                        self.check_synced(node, replica, peer);
                    }
                    Some(_) => {}
                }
                self.mark("question_answered");
            }
        }
    }

    fn round_sent(&mut self, node: usize, connection: ConnectionId, stream: StreamId) {
        let Some((wire, side)) = self.wire_of(node, connection) else { return };
        if let Some(index) = self.wires[&wire].end(side).numbers.get(&stream).copied() {
            let stream = &mut self.wires.get_mut(&wire).expect("just found").streams[index];
            stream.rounds += 1;
            if stream.rounds == 6 {
                self.mark("deep_reconciliation");
            }
        }
        let target = self.wires[&wire].end(side.other()).node;
        // Whoever is asked without end answers without end.
        let counts = !self.scenario.is_hostile(target);
        let sent = grown(&mut self.round_rate, (node, target), self.now_us);
        if counts && sent > MAX_ROUNDS_SENT && sent > MAX_ROUNDS_SENT + self.entries_in_small_frames([node, target]) {
            self.fail(
                "O7",
                format!("node {node} reconciles with node {target} without end: {sent} messages in ten seconds"),
            );
        }
    }

    /// How many entries nodes have, if messages have place for a few claims alone.
    fn entries_in_small_frames(&self, nodes: [usize; 2]) -> u64 {
        if self.scenario.knobs.tight.is_none() {
            return 0;
        }
        let processes = nodes.iter().filter_map(|node| self.nodes[*node].process.as_ref());
        let states = processes
            .flat_map(|process| self.replicas.iter().filter_map(|replica| process.store.core().state(replica.id).ok()));
        states.map(|state| state.root.count).sum()
    }

    pub fn wire_of(&self, node: usize, connection: ConnectionId) -> Option<(u64, Side)> {
        let wire = *self.nodes[node].process.as_ref()?.wires.get(&connection)?;
        let it = self.wires.get(&wire)?;
        let side = [Side::Dialer, Side::Acceptor]
            .into_iter()
            .find(|side| it.end(*side).node == node && it.end(*side).connection == Some(connection))?;
        Some((wire, side))
    }

    fn latency(&mut self, entity: u64, counter: u64) -> u64 {
        self.draw.between(Stream::Latency, entity, counter, self.scenario.knobs.latency_us)
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|faults| *faults > 0)
    }

    fn dial(&mut self, node: usize, dial: DialId, address: &crate::PeerAddress) {
        self.counters.dials += 1;
        let it = &mut self.nodes[node];
        it.dialed += 1;
        let (entity, counter, epoch) = (node as u64, it.dialed, it.epoch);
        let process = it.process.as_mut().expect("outputs come from a running machine");
        process.dials.insert(dial, self.now_us);
        let (target, moves) = place(address).expect("addresses of the simulation name a node and its place");
        let counts = !self.scenario.is_hostile(node);
        if counts && grown(&mut self.dial_rate, (node, target), self.now_us) > MAX_DIALS {
            self.fail("O7", format!("node {node} dials node {target} more than {MAX_DIALS} times in ten seconds"));
        }
        let latency = self.draw.between(Stream::Dials, entity, counter * 4, self.scenario.knobs.latency_us);
        let is_elsewhere = self.nodes[target].moves != moves;
        if is_elsewhere {
            self.mark("dialed_where_nobody_is_any_more");
        }
        let is_unreachable = !self.healed && self.nodes[target].unreachable > 0;
        if is_unreachable {
            self.mark("could_not_be_reached");
        }
        let fails = !self.healed
            && (is_unreachable
                || self.draw.percent(Stream::Dials, entity, counter * 4 + 1, self.scenario.knobs.dial_failures));
        if fails || is_elsewhere || self.is_blocked(node, target) || self.is_blocked(target, node) {
            self.counters.faults += 1;
            let wait = match self.draw.percent(Stream::Dials, entity, counter * 4 + 2, 50) {
                true => latency,
                false => self.draw.between(Stream::Dials, entity, counter * 4 + 3, (3_000_000, 10_000_000)),
            };
            let event = Event::DialFailed { node, epoch, dial, error: "it cannot be reached" };
            return self.at(self.now_us + wait, event);
        }
        let transport = address.scheme().to_string();
        self.at(self.now_us + latency, Event::Dial { node, epoch, dial, target, transport });
    }

    /// An attempt to dial has reached its target.
    pub fn dialed(&mut self, node: usize, epoch: u64, dial: DialId, target: usize, transport: String) {
        let latency = self.latency(u64::MAX, self.next_wire);
        let is_down = self.nodes[target].process.as_ref().is_none_or(|process| process.stopping);
        if is_down || self.is_blocked(node, target) || self.is_blocked(target, node) || target == node {
            let event = Event::DialFailed { node, epoch, dial, error: "nobody listens there" };
            return self.at(self.now_us + latency, event);
        }
        self.next_wire += 1;
        let number = self.next_wire;
        let binding = self.draw.bytes(Stream::Latency, number, u64::MAX);
        let mut wire = Wire::new(dial, binding, transport.clone(), (node, epoch), (target, self.nodes[target].epoch));
        let process = self.nodes[target].process.as_mut().expect("the target is up");
        process.next += 1;
        let connection = ConnectionId(process.next);
        process.wires.insert(connection, number);
        wire.end_mut(Side::Acceptor).connection = Some(connection);
        self.wires.insert(number, wire);
        self.at(self.now_us + latency, Event::Connected { wire: number });
        self.input(target, Input::Connected { connection, dial: None, transport, binding });
    }

    /// The dialler learns that it is connected.
    pub fn connected(&mut self, number: u64) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let (dial, binding, transport) = (wire.dial, wire.binding, wire.transport.clone());
        let end = wire.end_mut(Side::Dialer);
        let (node, epoch) = (end.node, end.epoch);
        let was_open = end.open;
        let process = match self.nodes[node].epoch == epoch {
            true => self.nodes[node].process.as_mut(),
            false => None,
        };
        let Some(process) = process else {
            self.hang_up(number, Side::Dialer);
            return;
        };
        let waited_for = process.dials.remove(&dial).is_some();
        if !was_open {
            if waited_for {
                let error = "the connection was closed at once".into();
                self.input(node, Input::DialFailed { dial, why: DialFailure::Unreachable, error });
            }
            return;
        }
        // A dial that was given up a moment ago may come through all the same.
        if !waited_for && self.draw.percent(Stream::Dials, number, u64::MAX, 50) {
            return self.hang_up(number, Side::Dialer);
        }
        process.next += 1;
        let connection = ConnectionId(process.next);
        process.wires.insert(connection, number);
        end.connection = Some(connection);
        self.input(node, Input::Connected { connection, dial: Some(dial), transport, binding });
    }

    /// One side lets go of a connection; the other learns of it, if anything reaches it.
    pub fn hang_up(&mut self, number: u64, side: Side) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let end = wire.end_mut(side);
        if !std::mem::take(&mut end.open) {
            return;
        }
        wire.sent += 1;
        let counter = wire.sent;
        let latency = self.latency(number, counter);
        self.at(self.now_us + latency, Event::Gone { wire: number, side: side.other() });
    }

    fn disconnect(&mut self, node: usize, connection: ConnectionId) {
        let Some((wire, side)) = self.wire_of(node, connection) else { return };
        let process = self.nodes[node].process.as_mut().expect("outputs come from a running machine");
        process.wires.remove(&connection);
        self.hang_up(wire, side);
    }

    /// One side learns that the connection has ended.
    pub fn gone(&mut self, number: u64, side: Side, reason: &str) {
        let Some(wire) = self.wires.get(&number) else { return };
        let (node, other) = (wire.end(side).node, wire.end(side.other()).node);
        let swallowed = wire.swallows[side.index()] || self.is_blocked(other, node);
        let wire = self.wires.get_mut(&number).expect("just found");
        let end = wire.end_mut(side);
        if !end.open || swallowed {
            return;
        }
        end.open = false;
        let connection = end.connection;
        let both_know = !wire.end(side.other()).open && wire.end(Side::Dialer).connection.is_some();
        if both_know && let Some(wire) = self.wires.remove(&number) {
            self.lose(wire.broken, wire.under_way());
        }
        if let Some(connection) = connection
            && let Some(process) = &mut self.nodes[node].process
            && process.wires.remove(&connection).is_some()
        {
            self.input(node, Input::Disconnected { connection, reason: reason.into() });
        }
    }

    /// A fault ends a connection, and both sides learn of it at once.
    pub fn cut(&mut self, number: u64) {
        self.break_off(number);
        self.gone(number, Side::Dialer, "the connection was cut");
        self.gone(number, Side::Acceptor, "the connection was cut");
    }

    /// A fault ends a connection: counted once.
    pub fn break_off(&mut self, number: u64) {
        if let Some(wire) = self.wires.get_mut(&number)
            && !std::mem::replace(&mut wire.broken, true)
        {
            self.counters.faults += 1;
        }
    }

    /// So many messages are lost, with a connection that a fault has ended.
    fn lose(&mut self, by_fault: bool, messages: u64) {
        if by_fault && messages > 0 {
            self.counters.faults += messages;
            self.mark("lost_with_its_connection");
        }
    }

    pub fn send_on(&mut self, node: usize, connection: ConnectionId, stream: StreamId, item: Item) {
        let Some((wire, side)) = self.wire_of(node, connection) else { return };
        let Some(index) = self.wires[&wire].end(side).numbers.get(&stream).copied() else { return };
        self.send(wire, side, index, item);
    }

    pub fn send(&mut self, number: u64, from: Side, stream: usize, item: Item) {
        let to = from.other();
        let wire = self.wires.get_mut(&number).expect("the caller has found it");
        wire.sent += 1;
        let counter = wire.sent;
        let mut latency = self.draw.between(Stream::Latency, number, counter, self.scenario.knobs.latency_us);
        let late = self.scenario.knobs.late;
        if late > 0
            && !self.healed
            && self.draw.random(Stream::Latency, number, counter | 1 << 40).bits() % 1_000 < late
        {
            self.counters.faults += 1;
            self.mark("late");
            latency = (latency * 20).min(8_000_000);
        }
        if self.scenario.knobs.lost > 0 && !self.healed {
            latency += self.lost_on_the_way(number, counter);
        }
        let wire = self.wires.get_mut(&number).expect("the caller has found it");
        let it = &mut wire.streams[stream];
        it.queues[to.index()].push_back(item);
        let at = it.last_us[to.index()].max(self.now_us + latency);
        it.last_us[to.index()] = at;
        self.at(at, Event::Arrive { wire: number, side: to, stream });
    }

    /// How much longer a message takes that is lost and sent again.
    fn lost_on_the_way(&mut self, number: u64, counter: u64) -> u64 {
        let mut random = self.draw.random(Stream::Latency, number, counter | 1 << 41);
        // A transport notices a loss after some round trips, and then waits longer each time.
        let mut wait = 4 * self.scenario.knobs.latency_us.1 + 10_000;
        let mut waits = 0;
        while waits < 10_000_000 && random.bits() % 1_000 < self.scenario.knobs.lost {
            self.counters.faults += 1;
            self.mark("lost_and_sent_again");
            waits += wait;
            wait *= 2;
        }
        waits
    }

    /// The first item of a stream's queue arrives.
    pub fn arrive(&mut self, number: u64, side: Side, stream: usize) {
        let Some(wire) = self.wires.get(&number) else { return };
        let (node, other) = (wire.end(side).node, wire.end(side.other()).node);
        if wire.swallows[side.index()] {
            self.counters.faults += 1;
            self.wires.get_mut(&number).expect("just found").streams[stream].queues[side.index()].pop_front();
            return self.mark("swallowed_by_a_half_open_connection");
        }
        let blocked = self.is_blocked(other, node);
        let wire = self.wires.get_mut(&number).expect("just found");
        if blocked {
            self.counters.faults += 1;
            wire.end_mut(side).stalled.push_back(stream);
            if !std::mem::replace(&mut wire.timing, true) {
                // Transports differ in how long they wait: from an impatient proxy to QUIC's idle timeout.
                let wait = self.draw.between(Stream::Latency, number, u64::MAX - 2, (4_000_000, 30_000_000));
                self.at(self.now_us + wait, Event::Stall { wire: number });
            }
            return;
        }
        if !wire.end(side).open {
            let (broken, lost) = (wire.broken, wire.streams[stream].queues[side.index()].pop_front());
            self.lose(broken, u64::from(lost.is_some()));
            // A node that is up knows nothing of this connection and says so.
            if self.nodes[node].process.is_some() {
                let latency = self.latency(number, u64::MAX - 1);
                self.at(self.now_us + latency, Event::Gone { wire: number, side: side.other() });
            }
            return;
        }
        let Some(connection) = wire.end(side).connection else { return };
        let it = &mut wire.streams[stream];
        let end = &mut wire.ends[side.index()];
        if let Some(Item::Open(kind)) = it.queues[side.index()].front() {
            let kind = *kind;
            let allowed = end.admitted || (side == Side::Acceptor && end.accepted == 0);
            if !allowed {
                end.waiting.push_back(stream);
                return;
            }
            it.queues[side.index()].pop_front();
            end.accepted += 1;
            let id = StreamId(end.accepted * 2 - 1);
            it.numbers[side.index()] = Some(id);
            end.numbers.insert(id, stream);
            debug_assert_ne!(kind, StreamKind::Content, "the machine opens no streams for content");
            return self.input(node, Input::StreamAccepted { connection, stream: id, kind });
        }
        if end.waiting.contains(&stream) {
            end.waiting.push_back(stream);
            return;
        }
        let Some(item) = it.queues[side.index()].pop_front() else { return };
        let Some(id) = it.numbers[side.index()] else { return };
        match item {
            Item::Open(_) => {}
            Item::Frame(frame) => {
                self.count_heard(number, side, stream, &frame);
                self.input(node, Input::Frame { connection, stream: id, frame });
            }
            Item::End => {
                wire.forget(side, stream);
                self.input(node, Input::StreamEnded { connection, stream: id, error: None });
            }
        }
    }

    fn admit(&mut self, node: usize, connection: ConnectionId) {
        let Some((number, side)) = self.wire_of(node, connection) else { return };
        let end = self.wires.get_mut(&number).expect("just found").end_mut(side);
        end.admitted = true;
        for stream in std::mem::take(&mut end.waiting) {
            self.mark("stream_waited_for_admission");
            self.at(self.now_us, Event::Arrive { wire: number, side, stream });
        }
    }

    /// What was stalled on ways that are free now goes on.
    pub fn release(&mut self) {
        let numbers: Vec<u64> = self.wires.keys().copied().collect();
        for number in numbers {
            for side in [Side::Dialer, Side::Acceptor] {
                let wire = &self.wires[&number];
                if self.is_blocked(wire.end(side.other()).node, wire.end(side).node) {
                    continue;
                }
                let stalled = std::mem::take(&mut self.wires.get_mut(&number).expect("listed").end_mut(side).stalled);
                for stream in stalled {
                    self.mark("stalled_and_delivered");
                    let wire = self.wires.get_mut(&number).expect("listed");
                    wire.sent += 1;
                    let counter = wire.sent;
                    let latency = self.latency(number, counter);
                    let it = &mut self.wires.get_mut(&number).expect("listed").streams[stream];
                    it.last_us[side.index()] = it.last_us[side.index()].max(self.now_us + latency);
                    let at = it.last_us[side.index()];
                    self.at(at, Event::Arrive { wire: number, side, stream });
                }
            }
        }
    }

    /// A transport gives up what has been stalled for long.
    pub fn stalled(&mut self, number: u64) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        wire.timing = false;
        if wire.ends.iter().all(|end| end.stalled.is_empty()) {
            return;
        }
        for side in [Side::Dialer, Side::Acceptor] {
            let Some(wire) = self.wires.get_mut(&number) else { return };
            let end = wire.end_mut(side);
            if !std::mem::take(&mut end.open) {
                continue;
            }
            let (node, connection) = (end.node, end.connection);
            if let Some(connection) = connection
                && let Some(process) = &mut self.nodes[node].process
                && process.wires.remove(&connection).is_some()
            {
                self.mark("transport_timed_out");
                self.break_off(number);
                self.input(node, Input::Disconnected { connection, reason: "the connection timed out".into() });
            }
        }
    }

    /// Hands work to the store: it is executed after a while.
    pub fn work(&mut self, node: usize, work: Work) {
        let it = &mut self.nodes[node];
        it.operations += 1;
        let delay = self.draw.between(Stream::Disk, node as u64, it.operations * 2, self.scenario.knobs.execute_us);
        let mut at = self.now_us + delay;
        let epoch = it.epoch;
        let process = it.process.as_mut().expect("work comes from a running process");
        if matches!(work, Work::Machine { request: StoreRequest::Save { .. }, .. }) {
            at = at.max(process.saves_us);
            process.saves_us = at;
        }
        self.at(at, Event::Execute { node, epoch, work: Box::new(work) });
    }

    /// The store does its work.
    pub fn execute(&mut self, node: usize, epoch: u64, work: Work) {
        if self.nodes[node].epoch != epoch {
            return;
        }
        let Some(process) = &self.nodes[node].process else { return };
        let store = process.store.clone();
        let done = match work {
            Work::Machine { op, request } => {
                let writes = matches!(request, StoreRequest::Save { .. } | StoreRequest::Apply { .. });
                let records = match &request {
                    StoreRequest::Save { records } | StoreRequest::Apply { records, .. } => records.clone(),
                    _ => Vec::new(),
                };
                let brought = match &request {
                    StoreRequest::Apply { replica, bundles, .. } => {
                        Some((*replica, bundles.iter().map(|bundle| bundle.entries().count() as u64).sum::<u64>()))
                    }
                    _ => None,
                };
                let result = block_on(perform(&*store, request));
                if !self.has_power(node) {
                    return;
                }
                self.note_refusals(node, &result);
                // What failed may be durable all the same, and is told when that shows.
                if let (Some((id, many)), Err(_)) = (brought, &result) {
                    self.tally(node, id, |tally| tally.passed += many);
                }
                if writes && result.is_err() {
                    self.counters.faults += 1;
                    self.mark_failed_write(node);
                }
                if result.is_ok() {
                    for record in records {
                        let it = &mut self.nodes[node];
                        let (durable, is_there) = match record.kind {
                            NodeKind::Job => (&mut it.durable_jobs, record.value.is_some()),
                            NodeKind::Peer => (&mut it.durable_peers, is_known(&record)),
                            _ => continue,
                        };
                        match is_there {
                            true => durable.insert(record.name.to_vec()),
                            false => durable.remove(&record.name.to_vec()),
                        };
                        if record.kind == NodeKind::Job {
                            self.check_positions(node, &record);
                        }
                    }
                }
                Done::Machine { op, result }
            }
            Work::Forge { replica, bundle } => {
                let (id, now) = (self.replicas[replica].id, bundle.seal().timestamp);
                let apply =
                    Apply { replica: id, bundles: vec![bundle], origin: Origin::Local, now, records: Vec::new() };
                let written =
                    canary::with(Some(Canary::SkipRelayedCheck), || store.core().write(&[Write::Apply(apply)]));
                if !self.has_power(node) {
                    return;
                }
                let Some(Ok(Written::Applied(applied))) = written.into_iter().next() else { return };
                self.mark("forged");
                Done::Written { replica, entries: Vec::new(), applied }
            }
            Work::Write { replica, bundle } => {
                let now = self.nodes[node].wall(self.now_us).max(bundle.seal().timestamp);
                let entries: Vec<(Order, Op)> = bundle.entries().map(|entry| (entry.order, entry.op.clone())).collect();
                let (id, author) = (self.replicas[replica].id, bundle.seal().author);
                let apply =
                    Apply { replica: id, bundles: vec![bundle], origin: Origin::Local, now, records: Vec::new() };
                let written = store.core().write(&[Write::Apply(apply)]).pop();
                if !matches!(written, Some(Ok(_))) || !self.nodes[node].disk.has_power() {
                    self.replicas[replica].may_be_true(&entries);
                }
                if !self.has_power(node) {
                    return;
                }
                let many = entries.len() as u64;
                match written {
                    Some(Ok(Written::Applied(applied))) => {
                        let accepted: Vec<(Order, Op)> = entries
                            .into_iter()
                            .zip(&applied.outcomes)
                            .filter(|(_, outcome)| matches!(outcome, Outcome::Inserted { .. } | Outcome::Dominated))
                            .map(|(entry, _)| entry)
                            .collect();
                        if let Some((order, op)) =
                            accepted.iter().find(|entry| !self.may_write(node, replica, author, entry))
                        {
                            self.fail(
                                "O3",
                                format!("node {node} has written {op:?} at {order:?} to replica {replica} and may not"),
                            );
                        }
                        self.replicas[replica].is_true(accepted.clone());
                        let member = self.scenario.member(replica, node);
                        let keeps_it = self.scenario.is_hostile(node) || self.nodes[node].left;
                        if member.is_some_and(|member| !member.is_full()) || keeps_it {
                            // Whose right ends may not be asked for it any more, who has a part may keep it for long, and who is hostile or has left keeps it to itself.
                            let hashes = accepted.iter().map(|(order, _)| order.hash.0);
                            self.replicas[replica].at_risk.extend(hashes);
                        }
                        Done::Written { replica, entries: accepted, applied }
                    }
                    _ => {
                        // It may be durable all the same, and is told when that shows.
                        self.tally(node, id, |tally| tally.passed += many);
                        self.counters.faults += 1;
                        return self.mark_failed_write(node);
                    }
                }
            }
            Work::Given { replica, bundles } => {
                let (id, now) = (self.replicas[replica].id, self.nodes[node].wall(self.now_us));
                let entries: Vec<(Order, Op)> = bundles
                    .iter()
                    .flat_map(|bundle| {
                        bundle.entries().map(|entry| (entry.order, entry.op.clone())).collect::<Vec<_>>()
                    })
                    .collect();
                let apply = Apply { replica: id, bundles, origin: Origin::Local, now, records: Vec::new() };
                let written = store.core().write(&[Write::Apply(apply)]).pop();
                if !matches!(written, Some(Ok(_))) || !self.nodes[node].disk.has_power() {
                    self.replicas[replica].may_be_true(&entries);
                }
                if !self.has_power(node) {
                    return;
                }
                let Some(Ok(Written::Applied(applied))) = written else {
                    let many = entries.len() as u64;
                    return self.tally(node, id, |tally| tally.passed += many);
                };
                let outcomes = entries.into_iter().zip(&applied.outcomes);
                let accepted =
                    outcomes.filter(|(_, outcome)| matches!(outcome, Outcome::Inserted { .. } | Outcome::Dominated));
                self.replicas[replica].is_true(accepted.map(|(entry, _)| entry).collect());
                Done::Written { replica, entries: Vec::new(), applied }
            }
        };
        if let Done::Written { replica, applied, .. } = &done {
            let (id, durable) = (self.replicas[*replica].id, applied.inserted());
            self.tally(node, id, |tally| tally.durable += durable);
        }
        let it = &mut self.nodes[node];
        let delay = self.draw.between(Stream::Disk, node as u64, it.operations * 2 + 1, self.scenario.knobs.reply_us);
        self.at(self.now_us + delay, Event::Reply { node, epoch, done: Box::new(done) });
    }

    fn mark_failed_write(&mut self, node: usize) {
        self.mark(if self.nodes[node].disk.trouble().full { "disk_was_full" } else { "write_failed" });
    }

    /// The answer of the store has arrived.
    pub fn replied(&mut self, node: usize, epoch: u64, done: Done) {
        if self.nodes[node].epoch != epoch {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        match done {
            Done::Machine { op, result } => {
                if let Ok(StoreReply::Applied { state, .. }) = &result
                    && let Some(clock) = process.clocks.get(&state.rights.replica())
                {
                    clock.observe(state.newest);
                }
                self.trace(node, 4, op.0, &[u8::from(result.is_ok())]);
                let learned = match &result {
                    Ok(StoreReply::Applied { state, inserted, .. }) if *inserted > 0 => {
                        Some((state.rights.replica(), state.head))
                    }
                    _ => None,
                };
                let came = match &result {
                    Ok(StoreReply::Applied { state, inserted, .. }) => Some((state.rights.replica(), *inserted)),
                    Ok(StoreReply::Prepared { state, admitted, .. }) => Some((state.rights.replica(), *admitted)),
                    _ => None,
                };
                if let Some((id, entries)) = came {
                    self.tally(node, id, |tally| tally.received += entries);
                }
                self.input(node, Input::Stored { op, result });
                if let Some((id, head)) = learned {
                    self.check_told(node, id, head);
                }
            }
            Done::Written { replica, entries, applied } => {
                let (id, written, state) = (self.replicas[replica].id, applied.inserted(), applied.state);
                if let Some(clock) = process.clocks.get(&id) {
                    clock.observe(state.newest);
                }
                if !canary::is_out(Canary::AcknowledgeBeforeCommit) {
                    self.acknowledge(node, replica, entries);
                }
                let head = state.head;
                self.tally(node, id, |tally| tally.written += written);
                self.input(node, Input::Changed { replica: id, state, written: Some(written) });
                // What came from a peer at the same time is told by its own answer.
                if written > 0 {
                    self.check_told(node, id, head);
                }
            }
        }
    }
}
