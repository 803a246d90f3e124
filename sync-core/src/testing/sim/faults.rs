//! What goes wrong, and how nodes begin and end.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use super::{
    disk::{Device, Logic, SimStore, Trouble},
    draw::Stream,
    node::{Acknowledged, Process, Snapshot, addresses},
    scenario::{Fault, Habit, Leave, YEAR_MS},
    wire::Side,
    world::{Event, World},
};
use crate::{
    machine::{Config, Input, Synchronizer, is_known},
    model::{Op, Order, PeerId, SecretKey, dominates},
    store::{NodeKind, NodeRecord, Position, StoreError, Write, reconcile::Widths},
};

/// How far a clock is off at most, in microseconds.
const CLOCK_OFF_US: i64 = 10 * YEAR_MS * 1_000;

impl World<'_> {
    pub fn fault(&mut self, at: usize) {
        let now_ms = self.now_us / 1_000;
        let until = |for_ms: &u64| (now_ms + for_ms) * 1_000;
        match &self.scenario.faults[at].what {
            fault @ (Fault::Partition { for_ms, .. } | Fault::OneWay { for_ms, .. }) => {
                self.counters.faults += 1;
                self.mark(if matches!(fault, Fault::OneWay { .. }) { "silent_one_way" } else { "partition" });
                for way in self.ways(at) {
                    *self.blocked.entry(way).or_default() += 1;
                }
                self.at(until(for_ms), Event::EndFault(at));
            }
            Fault::Cut { a, b } => {
                for number in self.wires_between(*a, *b) {
                    self.mark("cut");
                    self.cut(number);
                }
            }
            Fault::HalfOpen { a, b } => {
                for number in self.wires_between(*a, *b) {
                    self.mark("half_open");
                    self.counters.faults += 1;
                    self.wires.get_mut(&number).expect("just listed").swallows = [true; 2];
                }
            }
            Fault::Unreachable { node, for_ms } => {
                self.counters.faults += 1;
                self.nodes[*node].unreachable += 1;
                self.at(until(for_ms), Event::EndFault(at));
            }
            Fault::Crash { node, after_outputs, down_ms } => {
                if self.nodes[*node].process.is_some() {
                    self.nodes[*node].crash = Some((*after_outputs, *down_ms));
                }
            }
            Fault::PowerCut { node, after_operations, down_ms } => {
                let it = &mut self.nodes[*node];
                it.without_power_ms = *down_ms;
                let trouble = it.disk.trouble();
                it.disk.set_trouble(Trouble { power_ends_after: Some(*after_operations), ..trouble });
            }
            Fault::Wipe { node, down_ms } => {
                self.crash(*node, down_ms * 1_000);
                let it = &mut self.nodes[*node];
                it.stores += 1;
                self.counters.faults += 1;
                self.replace_disk(*node, (self.devices)());
                self.mark("wipe");
            }
            Fault::Rollback { node, down_ms, .. } => {
                let Some(Snapshot { disk, stores, acknowledged }) = self.snapshots.get(&at).cloned() else { return };
                self.crash(*node, down_ms * 1_000);
                let has_more = |one: &[Acknowledged], other: &[Acknowledged]| {
                    let other: BTreeSet<_> = other.iter().map(|it| it.order.hash.0).collect();
                    one.iter().any(|it| !other.contains(&it.order.hash.0))
                };
                let mine = &self.nodes[*node].acknowledged;
                if has_more(mine, &acknowledged) && has_more(&acknowledged, mine) {
                    self.mark("cloned_and_used_by_turns");
                }
                self.nodes[*node].stores = stores;
                self.replace_disk(*node, disk);
                self.nodes[*node].acknowledged = acknowledged;
                self.is_back(*node);
                self.counters.faults += 1;
                self.mark("rollback");
            }
            Fault::ClockJump { node, by_ms } => {
                self.counters.faults += 1;
                let it = &mut self.nodes[*node];
                it.clock_us = (it.clock_us + by_ms * 1_000).clamp(-CLOCK_OFF_US, CLOCK_OFF_US);
                it.jumped_us = Some(self.now_us);
                self.furthest_us = self.furthest_us.max(it.clock_us);
                self.mark("clock_jumped");
                if by_ms.abs() > YEAR_MS {
                    self.mark("clock_jumped_by_years");
                }
            }
            Fault::DiskError { node, after_writes } => {
                let trouble = self.nodes[*node].disk.trouble();
                let trouble = Trouble { fails_after: Some(*after_writes), ..trouble };
                self.nodes[*node].disk.set_trouble(trouble);
            }
            Fault::DiskFull { node, for_ms } => {
                let trouble = self.nodes[*node].disk.trouble();
                self.nodes[*node].disk.set_trouble(Trouble { full: true, ..trouble });
                self.at(until(for_ms), Event::EndFault(at));
            }
            Fault::Pause { node, for_ms } => {
                self.counters.faults += 1;
                self.nodes[*node].paused_us = self.nodes[*node].paused_us.max(until(for_ms));
            }
            Fault::ClockStops { node, for_ms } => {
                let it = &mut self.nodes[*node];
                // One that stands still already goes on standing still.
                if it.stopped_us.is_none() {
                    it.stopped_us = Some(self.now_us);
                    it.jumped_us = Some(self.now_us);
                    self.counters.faults += 1;
                    self.mark("clock_stopped");
                    self.at(until(for_ms), Event::EndFault(at));
                }
            }
            Fault::Move { node } => {
                for other in 0..self.nodes.len() {
                    for number in self.wires_between(*node, other) {
                        self.wires.get_mut(&number).expect("just listed").swallows = [true; 2];
                    }
                }
                let it = &mut self.nodes[*node];
                it.moves += 1;
                it.addresses = addresses(*node, it.moves, self.scenario.nodes[*node].addresses);
                let addresses = it.addresses.clone();
                self.counters.faults += 1;
                self.mark("moved");
                self.input(*node, Input::Listening { addresses });
            }
        }
    }

    /// A node leaves for good: what only it has may be gone with it.
    pub fn leave(&mut self, node: usize) {
        let nothing = (self.devices)();
        self.at_risk(node, &nothing);
        self.nodes[node].left = true;
        self.counters.faults += 1;
        match self.scenario.nodes[node].leaves.as_ref().map(|leaves| leaves.what) {
            Some(Leave::Dies) => {
                self.mark("left_for_good");
                self.crash(node, 0);
            }
            Some(Leave::CutOff) => self.mark("cut_off_for_good"),
            None => {}
        }
        self.keep_away(node);
    }

    /// Nothing passes between the others and a node that is cut off.
    pub fn keep_away(&mut self, node: usize) {
        if self.nodes[node].left {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                *self.blocked.entry((node, other)).or_default() += 1;
                *self.blocked.entry((other, node)).or_default() += 1;
            }
        }
    }

    /// Whether a node never starts again.
    fn is_dead(&self, node: usize) -> bool {
        let dies = self.scenario.nodes[node].leaves.as_ref().is_some_and(|leaves| leaves.what == Leave::Dies);
        self.nodes[node].left && dies
    }

    pub fn end_fault(&mut self, at: usize) {
        if self.healed {
            return;
        }
        match &self.scenario.faults[at].what {
            Fault::Partition { .. } | Fault::OneWay { .. } => {
                for way in self.ways(at) {
                    if let Some(faults) = self.blocked.get_mut(&way) {
                        *faults = faults.saturating_sub(1);
                    }
                }
                self.release();
            }
            Fault::Unreachable { node, .. } => {
                self.nodes[*node].unreachable = self.nodes[*node].unreachable.saturating_sub(1);
            }
            Fault::DiskFull { node, .. } => {
                let trouble = self.nodes[*node].disk.trouble();
                self.nodes[*node].disk.set_trouble(Trouble { full: false, ..trouble });
            }
            Fault::ClockStops { node, .. } => {
                let it = &mut self.nodes[*node];
                it.stopped_us = None;
                it.jumped_us = Some(self.now_us);
            }
            _ => {}
        }
    }

    /// The ways that a fault blocks.
    fn ways(&self, at: usize) -> Vec<(usize, usize)> {
        match &self.scenario.faults[at].what {
            Fault::Partition { side, .. } => (0..self.nodes.len())
                .flat_map(|from| (0..self.nodes.len()).map(move |to| (from, to)))
                .filter(|(from, to)| side.contains(from) != side.contains(to))
                .collect(),
            Fault::OneWay { from, to, .. } => vec![(*from, *to)],
            _ => Vec::new(),
        }
    }

    pub fn wires_between(&self, a: usize, b: usize) -> Vec<u64> {
        self.wires
            .iter()
            .filter(|(_, wire)| {
                let (one, other) = (wire.ends[0].node, wire.ends[1].node);
                (one, other) == (a, b) || (one, other) == (b, a)
            })
            .map(|(number, _)| *number)
            .collect()
    }

    /// A copy of a disk that a later fault brings back.
    pub fn snapshot(&mut self, at: usize) {
        if let Fault::Rollback { node, .. } = &self.scenario.faults[at].what {
            let it = &self.nodes[*node];
            let (disk, acknowledged) = (it.disk.copy(), it.acknowledged.clone());
            self.snapshots.insert(at, Snapshot { disk, stores: it.stores, acknowledged });
        }
    }

    /// The process dies; it starts again after a while.
    pub fn crash(&mut self, node: usize, down_us: u64) {
        let Some(process) = &self.nodes[node].process else { return };
        let is_pending =
            process.machine.status().iter().any(|replica| replica.peers.iter().any(|peer| peer.pending > 0));
        let connections: Vec<u64> = process.wires.values().copied().collect();
        if is_pending {
            self.mark("crash_with_pending_job");
        }
        self.mark("crash");
        self.counters.faults += 1;
        for number in connections {
            self.break_off(number);
        }
        self.end_process(node, down_us);
    }

    /// The process ends, of itself or not; it starts again after a while.
    pub fn end_process(&mut self, node: usize, down_us: u64) {
        let it = &mut self.nodes[node];
        it.crash = None;
        it.paused_us = it.paused_us.min(self.now_us);
        let Some(process) = it.process.take() else { return };
        it.ended_us = self.now_us;
        let epoch = it.epoch;
        let ends: Vec<(u64, Side)> = self
            .wires
            .iter()
            .flat_map(|(number, wire)| [(*number, wire, Side::Dialer), (*number, wire, Side::Acceptor)])
            .filter(|(_, wire, side)| wire.end(*side).node == node && wire.end(*side).open)
            .map(|(number, _, side)| (number, side))
            .collect();
        for (number, side) in ends {
            let silent = self.draw.percent(Stream::Crashes, number, epoch, self.scenario.knobs.silent_crashes);
            match silent {
                true => self.wires.get_mut(&number).expect("just listed").end_mut(side).open = false,
                false => self.hang_up(number, side),
            }
        }
        self.cut_power(node);
        // Whatever its store still wants to do comes too late.
        drop(process);
        self.at(self.now_us + down_us, Event::Restart { node, epoch });
    }

    fn cut_power(&mut self, node: usize) {
        let epoch = self.nodes[node].epoch;
        let draw = self.draw.random(Stream::Crashes, node as u64, 1 << 32 | epoch).bits();
        self.nodes[node].disk.cut_power(draw);
    }

    /// Something was written: when the power went meanwhile, the process has ended. Answers whether it has not.
    pub fn has_power(&mut self, node: usize) -> bool {
        if self.nodes[node].disk.has_power() {
            return true;
        }
        self.mark("power_cut");
        let down_ms = self.nodes[node].without_power_ms;
        self.crash(node, down_ms * 1_000);
        false
    }

    /// The process ends in good order: what its machine still says is done.
    pub fn shut_down(&mut self, node: usize, down_ms: u64) {
        let Some(process) = &mut self.nodes[node].process else {
            // It was about to start again, and stays away instead.
            let it = &mut self.nodes[node];
            it.epoch += 1;
            let epoch = it.epoch;
            return self.at(self.now_us + down_ms * 1_000, Event::Restart { node, epoch });
        };
        if process.stopping {
            return;
        }
        process.stopping = true;
        self.input(node, Input::Shutdown);
        self.mark("shutdown");
        if down_ms >= 24 * 3_600_000 {
            self.mark("away_for_days");
        }
        // The saves that were just asked for are the last; they are done before the process ends.
        let Some(process) = &self.nodes[node].process else { return };
        let wait = process.saves_us.saturating_sub(self.now_us) + 1;
        self.nodes[node].crash = None;
        let epoch = self.nodes[node].epoch;
        self.at(self.now_us + wait, Event::Stop { node, epoch, down_us: down_ms * 1_000 });
    }

    pub fn replace_disk(&mut self, node: usize, disk: Rc<dyn Device>) {
        self.at_risk(node, &disk);
        let it = &mut self.nodes[node];
        it.disk = disk;
        it.replaced_us = Some(self.now_us);
        it.acknowledged.clear();
        it.added.clear();
        it.durable_jobs.clear();
        it.durable_peers.clear();
        it.refused.clear();
        it.positions.clear();
        self.delivered.retain(|(from, to, _), _| *from != node && *to != node);
    }

    /// What is on the disk that has come back is no longer at risk, when others rely on its node to spread it.
    fn is_back(&mut self, node: usize) {
        for replica in 0..self.replicas.len() {
            if self.scenario.full_members(replica).any(|member| member == node) {
                for (order, _) in self.live_on(&self.nodes[node].disk, node, replica) {
                    self.replicas[replica].at_risk.remove(&order.hash.0);
                }
            }
        }
    }

    /// Entries that only this node had may go with its disk.
    fn at_risk(&mut self, node: usize, new: &Rc<dyn Device>) {
        for replica in 0..self.replicas.len() {
            let mine = self.live_on(&self.nodes[node].disk, node, replica);
            let mut kept = self.live_on(new, node, replica);
            for other in self.scenario.full_members(replica).filter(|other| *other != node) {
                kept.extend(self.live_on(&self.nodes[other].disk, other, replica));
            }
            for (order, op) in mine {
                let safe = kept.iter().any(|(other, by)| *other == order || dominates((by, other), (&op, &order)));
                if !safe {
                    self.replicas[replica].at_risk.insert(order.hash.0);
                }
            }
        }
    }

    /// The live entries of a replica on a disk.
    pub fn live_on(&self, disk: &Rc<dyn Device>, node: usize, replica: usize) -> Vec<(Order, Op)> {
        // An empty disk must stay empty: opening a store would make one there.
        if disk.is_empty() {
            return Vec::new();
        }
        let id = self.replicas[replica].id;
        if let Some(process) = &self.nodes[node].process
            && Rc::ptr_eq(disk, &self.nodes[node].disk)
        {
            // While its disk is in trouble, a store may be closed; what is there is there all the same.
            match process.store.core().state(id) {
                Ok(_) | Err(StoreError::UnknownReplica(_)) => return live(process.store.core(), id),
                Err(_) => {}
            }
        }
        let store = disk.copy().open([0; 32], Widths::default()).expect("the simulated disk can be read");
        live(store.core(), id)
    }

    /// The process starts: what the manager does when it is spawned.
    pub fn restart(&mut self, node: usize) {
        if self.is_dead(node) {
            return;
        }
        let it = &mut self.nodes[node];
        it.epoch += 1;
        let epoch = it.epoch;
        if epoch > 1 && self.scenario.nodes[node].habits.contains(&Habit::ChangeName) {
            it.key = SecretKey::from_bytes(self.draw.bytes(Stream::Identity, node as u64, 1 << 33 | epoch));
            it.id = PeerId(it.key.public());
            self.by_id.insert(it.id, node);
        }
        let fresh = self.draw.bytes(Stream::Identity, node as u64, 100 + it.stores);
        let tight = self.scenario.knobs.tight;
        let widths = tight.map(|tight| tight.widths).unwrap_or_default();
        let booted = boot(&*it.disk, fresh, widths).map(|(store, incarnation)| {
            let config = Config {
                key: it.key.clone(),
                store: store.core().store_id(),
                incarnation,
                seed: self.draw.bytes(Stream::Identity, node as u64, 1 << 32 | epoch),
            };
            let limits = tight.map(|tight| tight.limits).unwrap_or_default();
            let machine = Synchronizer::with_limits(config, it.now(self.now_us), limits);
            Process {
                machine,
                store: Arc::new(store),
                clocks: BTreeMap::new(),
                started_us: self.now_us,
                next: 0,
                wires: BTreeMap::new(),
                dials: BTreeMap::new(),
                asks: Default::default(),
                saves_us: 0,
                wake_us: None,
                stopping: false,
                mute: Default::default(),
                unsubscribed: Default::default(),
                watchers: Default::default(),
                tallies: Default::default(),
            }
        });
        let Ok(process) = booted else {
            // The disk is in trouble: whoever watches over the process starts it again.
            if !self.nodes[node].disk.has_power() {
                self.mark("power_cut_at_the_start");
                self.counters.faults += 1;
                self.cut_power(node);
            }
            return self.at(self.now_us + 1_000_000, Event::Restart { node, epoch });
        };
        let store = process.store.clone();
        self.nodes[node].process = Some(process);
        let mut records = store.core().node_records(NodeKind::Peer).expect("the simulated disk can be read");
        let known: Vec<_> = records.iter().filter(|record| is_known(record)).cloned().collect();
        self.nodes[node].durable_peers = names(&known);
        let jobs = store.core().node_records(NodeKind::Job).expect("the simulated disk can be read");
        self.nodes[node].durable_jobs = names(&jobs);
        records.extend(jobs);
        self.input(node, Input::Restored { records });
        for replica in 0..self.replicas.len() {
            self.direct(replica, node);
        }
        let replicas = store.core().replicas().expect("the simulated disk can be read");
        for id in replicas {
            self.open_replica(node, id);
        }
        let addresses = self.nodes[node].addresses.clone();
        self.input(node, Input::Listening { addresses });
        self.rejoin(node);
        self.check_acknowledged(node);
    }
}

/// The names of records that are there.
fn names(records: &[NodeRecord]) -> BTreeSet<Vec<u8>> {
    records.iter().filter(|record| record.value.is_some()).map(|record| record.name.to_vec()).collect()
}

fn boot(disk: &dyn Device, fresh: [u8; 32], widths: Widths) -> Result<(SimStore, u64), StoreError> {
    let store = disk.open(fresh, widths)?;
    let name = bytes::Bytes::from_static(b"incarnation");
    let last = store
        .core()
        .node_records(NodeKind::Setting)?
        .into_iter()
        .find(|record| record.name == name)
        .and_then(|record| Some(u64::from_le_bytes(record.value?[..].try_into().ok()?)))
        .unwrap_or(0);
    let value = Some(bytes::Bytes::copy_from_slice(&(last + 1).to_le_bytes()));
    let record = NodeRecord { kind: NodeKind::Setting, name, value };
    store.core().write(&[Write::Save { records: vec![record] }]).pop().expect("one request, one answer")?;
    Ok((store, last + 1))
}

/// The live entries of a replica in a store; none when it is not there.
pub fn live(core: &dyn Logic, id: crate::model::ReplicaId) -> Vec<(Order, Op)> {
    let Ok(log) = core.log(id, Position(0), usize::MAX) else { return Vec::new() };
    log.into_iter()
        .map(|row| {
            let order = Order { timestamp: row.entry.timestamp, author: row.entry.author, hash: row.hash };
            (order, row.entry.op)
        })
        .collect()
}
