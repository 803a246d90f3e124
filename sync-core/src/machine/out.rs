//! Where the machine's parts put what is to be done.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::{io::*, limits::CHECK_INTERVAL, random::Random};
use crate::{
    model::{PeerId, ReplicaId},
    store::NodeRecord,
};

/// What an operation was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpFor {
    /// A session: replica, peer, serial.
    Session(ReplicaId, PeerId, u64),
    /// Records were saved.
    Save,
}

/// Outputs, the time and the machine's randomness.
#[derive(Debug)]
pub(super) struct Io {
    pub now: Now,
    pub random: Random,
    /// How often idle sessions compare roots.
    pub check_interval: Duration,
    outputs: VecDeque<Output>,
    ops: BTreeMap<OpId, OpFor>,
    next: u64,
    /// Job records that changed and are not saved yet.
    pub dirty_jobs: BTreeMap<(ReplicaId, PeerId), NodeRecord>,
}

impl Io {
    pub fn new(now: Now, random: Random) -> Self {
        Self {
            now,
            random,
            check_interval: CHECK_INTERVAL,
            outputs: VecDeque::new(),
            ops: BTreeMap::new(),
            next: 0,
            dirty_jobs: BTreeMap::new(),
        }
    }

    pub fn put(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub fn take(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A fresh number, the same sequence for everything that the machine numbers.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A fresh number for a stream that the machine opens: even.
    pub fn stream(&mut self) -> StreamId {
        StreamId(self.number() * 2)
    }

    pub fn store(&mut self, session: (ReplicaId, PeerId, u64), request: StoreRequest) {
        let op = OpId(self.number());
        self.ops.insert(op, OpFor::Session(session.0, session.1, session.2));
        self.put(Output::Store { op, request });
    }

    pub fn save(&mut self, records: Vec<NodeRecord>) {
        let op = OpId(self.number());
        self.ops.insert(op, OpFor::Save);
        self.put(Output::Store { op, request: StoreRequest::Save { records } });
    }

    pub fn finish(&mut self, op: OpId) -> Option<OpFor> {
        self.ops.remove(&op)
    }

    /// The unsaved record of a job, to go with a batch of its session.
    pub fn take_dirty_job(&mut self, replica: ReplicaId, peer: PeerId) -> Vec<NodeRecord> {
        self.dirty_jobs.remove(&(replica, peer)).into_iter().collect()
    }

    pub fn event(&mut self, event: Event) {
        self.put(Output::Event(event));
    }

    pub fn send(&mut self, connection: ConnectionId, stream: StreamId, frame: Bytes) {
        self.put(Output::Send { connection, stream, frame });
    }
}
