//! Where the machine's parts put what is to be done.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::{
    io::*,
    limits::{CHECK_INTERVAL, Limits},
    random::Random,
    synchronizer::JobKey,
};
use crate::{
    model::{PeerId, ReplicaId, VerifiedBundle},
    store::NodeRecord,
};

/// What an operation was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpFor {
    /// A session: replica, peer, serial.
    Session(ReplicaId, PeerId, u64),
    /// The same, and the record of its job rides with it.
    Ride(ReplicaId, PeerId, u64),
    /// Records are saved, these jobs' among them.
    Save(Vec<JobKey>),
}

/// Outputs, the time and the machine's randomness.
#[derive(Debug)]
pub(super) struct Io {
    pub now: Now,
    pub random: Random,
    pub limits: Limits,
    /// How often idle sessions compare roots.
    pub check_interval: Duration,
    outputs: VecDeque<Output>,
    ops: BTreeMap<OpId, OpFor>,
    next: u64,
    /// Job records that changed and are not on their way to the store yet.
    pub dirty_jobs: BTreeMap<JobKey, NodeRecord>,
    /// Jobs whose records ride with a batch, and those that are being saved, with the number of saves. Saves are in
    /// order among themselves, but not with batches: so a record does not set out one way while it is
    /// under way the other, or an older one could win.
    riding: BTreeSet<JobKey>,
    saving: BTreeMap<JobKey, u32>,
    /// Jobs that began or ended while their record rode: what is to be saved of them waits until it has arrived.
    late: BTreeSet<JobKey>,
}

impl Io {
    pub fn new(now: Now, random: Random, limits: Limits) -> Self {
        Self {
            now,
            random,
            limits,
            check_interval: CHECK_INTERVAL,
            outputs: VecDeque::new(),
            ops: BTreeMap::new(),
            next: 0,
            dirty_jobs: BTreeMap::new(),
            riding: BTreeSet::new(),
            saving: BTreeMap::new(),
            late: BTreeSet::new(),
        }
    }

    pub fn put(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub fn take(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many outputs nobody has taken.
    pub fn waiting(&self) -> usize {
        self.outputs.len()
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

    /// Applies a batch of a session; the unsaved record of its job goes with it.
    pub fn apply(&mut self, session: (ReplicaId, PeerId, u64), bundles: Vec<VerifiedBundle>) {
        let (replica, peer, serial) = session;
        let job = (replica, peer);
        let free = !self.riding.contains(&job) && !self.saving.contains_key(&job);
        let records: Vec<_> = free.then(|| self.dirty_jobs.remove(&job)).flatten().into_iter().collect();
        let op = OpId(self.number());
        let rides = !records.is_empty();
        if rides {
            self.riding.insert(job);
        }
        let for_whom = if rides { OpFor::Ride(replica, peer, serial) } else { OpFor::Session(replica, peer, serial) };
        self.ops.insert(op, for_whom);
        let request = StoreRequest::Apply { replica, bundles, peer, now: self.now.wall, records };
        self.put(Output::Store { op, request });
    }

    /// Saves records other than jobs'.
    pub fn save(&mut self, records: Vec<NodeRecord>) {
        self.save_jobs(Vec::new(), records);
    }

    /// Saves records of jobs, and others with them.
    pub fn save_jobs(&mut self, jobs: Vec<(JobKey, NodeRecord)>, mut records: Vec<NodeRecord>) {
        let op = OpId(self.number());
        let (keys, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        for key in &keys {
            *self.saving.entry(*key).or_default() += 1;
        }
        records.splice(0..0, jobs);
        self.ops.insert(op, OpFor::Save(keys));
        self.put(Output::Store { op, request: StoreRequest::Save { records } });
    }

    /// Saves that a job has begun or ended: now, or when its record that rides with a batch has arrived.
    pub fn save_job(&mut self, key: JobKey, record: NodeRecord) {
        if self.riding.contains(&key) {
            self.dirty_jobs.insert(key, record);
            self.late.insert(key);
        } else {
            self.dirty_jobs.remove(&key);
            self.save_jobs(vec![(key, record)], Vec::new());
        }
    }

    /// Whether the beginning or the end of a job is not on its way to the store yet.
    pub fn is_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// What an operation that is done was for.
    pub fn finish(&mut self, op: OpId) -> Option<OpFor> {
        let done = self.ops.remove(&op)?;
        match &done {
            OpFor::Session(..) => {}
            OpFor::Ride(replica, peer, _) => {
                let key = (*replica, *peer);
                self.riding.remove(&key);
                if self.late.remove(&key)
                    && let Some(record) = self.dirty_jobs.remove(&key)
                {
                    self.save_jobs(vec![(key, record)], Vec::new());
                }
            }
            OpFor::Save(keys) => {
                for key in keys {
                    let left = self.saving.get_mut(key).expect("what is being saved is counted");
                    *left -= 1;
                    if *left == 0 {
                        self.saving.remove(key);
                    }
                }
            }
        }
        Some(done)
    }

    /// The unsaved records of jobs that do not ride with a batch just now.
    pub fn take_dirty_jobs(&mut self) -> Vec<(JobKey, NodeRecord)> {
        let riding = &self.riding;
        self.dirty_jobs.extract_if(.., |key, _| !riding.contains(key)).collect()
    }

    /// Whether sessions about a replica wait for the store.
    pub fn is_working(&self, replica: ReplicaId) -> bool {
        self.ops.values().any(|op| match op {
            OpFor::Session(it, ..) | OpFor::Ride(it, ..) => *it == replica,
            OpFor::Save(_) => false,
        })
    }

    pub fn event(&mut self, event: Event) {
        self.put(Output::Event(event));
    }

    pub fn send(&mut self, connection: ConnectionId, stream: StreamId, frame: Bytes) {
        self.put(Output::Send { connection, stream, frame });
    }
}
