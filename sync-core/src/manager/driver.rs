//! The driver: one task that runs the command loop. It takes what happened, tells the machine,
//! and performs what the machine asks for, each piece in a bounded task of its own. It decides
//! nothing and waits for nothing but the next message.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    error::ManagerError,
    shared::Shared,
    streams::{Accepted, Held},
    transports::{Registered, Transports, dial},
};
use crate::{
    address::PeerAddress,
    machine::{
        AskId, ConnectionId, DialFailure, DialId, DisconnectReason, Input, Now, Obstacle, OpId, Output, PeerInfo,
        ReplicaStatus, StoreReply, StoreRequest, SyncReport, Synchronizer, Target, WorkError, perform,
        wire::StreamKind,
    },
    model::ReplicaId,
    store::{NodeKind, NodeRecord, StoreError},
    transport::{CloseReason, Connection, Incoming, SyncTransport, TransportError, TransportErrorKind},
};

/// How many messages may wait for the driver. Readers of connections wait when it is full.
pub(super) const QUEUE_LEN: usize = 1024;

/// How many saves go into one transaction.
const SAVES_AT_ONCE: usize = 256;

/// Up to how many bytes of received entries are verified in the loop itself: they hold four signatures at most, which
/// cost less than waking a thread twice.
const VERIFY_HERE_LEN: usize = 512;

/// How long a node that nobody holds any more may take to end in good order.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How many messages are handled before outputs are performed and others get their turn.
const BURST: usize = 64;

/// What the driver is told.
#[derive(Debug)]
pub(super) enum Message {
    /// For the machine.
    Input(Input),
    /// A dial succeeded.
    Dialed { dial: DialId, transport: String, connection: Box<dyn Connection> },
    /// A listening transport has accepted a connection.
    Incoming { transport: String, connection: Box<dyn Connection> },
    /// A peer opened a stream.
    Accepted { connection: ConnectionId, accepted: Accepted },
    /// Sync now and tell.
    Sync { replica: ReplicaId, target: Target, timeout: Duration, answer: oneshot::Sender<SyncReport> },
    /// A transport was built.
    Register { name: String, transport: Arc<dyn SyncTransport>, answer: oneshot::Sender<Result<(), ManagerError>> },
    /// Remove a transport and close it.
    Remove { name: String, answer: oneshot::Sender<Result<Arc<dyn SyncTransport>, ManagerError>> },
    /// Which transports there are.
    Transports { answer: oneshot::Sender<Vec<Registered>> },
    /// A transport listens, or does not any more.
    Listening { name: String, addresses: Option<Vec<PeerAddress>>, answer: oneshot::Sender<()> },
    /// How things stand.
    Report { answer: oneshot::Sender<Report> },
    /// Answer when everything is saved that the machine has asked for so far.
    Saved { answer: oneshot::Sender<Result<(), StoreError>> },
    /// End everything. Answered is whether it ended in good order, within this time.
    Shutdown { within: Duration, answer: oneshot::Sender<bool> },
}

/// How things stand.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub addresses: Vec<PeerAddress>,
    pub replicas: Vec<ReplicaStatus>,
    pub peers: Vec<PeerInfo>,
    pub obstacles: Vec<Obstacle>,
    pub links_refused: u64,
}

/// What is to be saved, in order.
enum Saving {
    Records(OpId, Vec<NodeRecord>),
    /// Answered with the result of what was saved just before.
    Barrier(oneshot::Sender<Result<(), StoreError>>),
}

pub(super) struct Driver {
    machine: Synchronizer,
    shared: Arc<Shared>,
    messages: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    saves: mpsc::UnboundedSender<Saving>,
    /// Who waits for what the machine will want saved when a batch under way is in.
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    started: Instant,
    transports: Transports,
    dials: HashMap<DialId, AbortHandle>,
    held: HashMap<ConnectionId, Held>,
    asks: HashMap<AskId, oneshot::Sender<SyncReport>>,
    events: broadcast::Sender<crate::machine::Event>,
    progress: watch::Sender<u64>,
    /// Whether anything but questions came in since `progress` was last told.
    moved: bool,
    tasks: JoinSet<()>,
    next: u64,
}

impl Driver {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        machine: Synchronizer,
        shared: Arc<Shared>,
        messages: mpsc::Receiver<Message>,
        sender: mpsc::Sender<Message>,
        started: Instant,
        events: broadcast::Sender<crate::machine::Event>,
        progress: watch::Sender<u64>,
    ) -> Self {
        let (saves, queue) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(save_in_order(shared.clone(), queue, sender.clone()));
        Self {
            machine,
            shared,
            messages,
            sender,
            saves,
            waiting: Vec::new(),
            started,
            transports: Transports::default(),
            dials: HashMap::new(),
            held: HashMap::new(),
            asks: HashMap::new(),
            events,
            progress,
            moved: false,
            tasks,
            next: 0,
        }
    }

    fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), wall: (self.shared.wall)() }
    }

    /// Runs until it is told to stop or nobody holds the manager any more.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let deadline = self.machine.poll_timeout().map(|at| tokio::time::Instant::from_std(self.started + at));
            let timer = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                () = stop.cancelled() => break,
                message = self.messages.recv() => message,
                () = timer => Some(Message::Input(Input::Tick)),
            };
            let Some(mut message) = message else { break };
            let mut left = BURST;
            let stopping = loop {
                if let Message::Shutdown { within, answer } = message {
                    break Some((within, answer));
                }
                self.take(message);
                self.perform_all();
                left -= 1;
                match self.messages.try_recv() {
                    Ok(next) if left > 0 || matches!(next, Message::Shutdown { .. }) => message = next,
                    Ok(next) => {
                        self.take(next);
                        self.perform_all();
                        break None;
                    }
                    Err(_) => break None,
                }
            };
            if std::mem::take(&mut self.moved) {
                self.progress.send_modify(|version| *version += 1);
            }
            while self.tasks.try_join_next().is_some() {}
            if let Some((within, answer)) = stopping {
                let in_order = self.end(within).await;
                // Whoever waits may open the store again when the handles are gone.
                drop(self);
                let _ = answer.send(in_order);
                return;
            }
        }
        self.end(END_WITHIN).await;
    }

    /// Ends in good order, or, when a transport or a disk keeps it from that for so long, without: then what is under
    /// way is cut off. Answers which.
    async fn end(&mut self, within: Duration) -> bool {
        let in_order = tokio::time::timeout(within, self.finish()).await.is_ok();
        if !in_order {
            self.shared.refuse_writes();
            warn!(?within, "the node could not end in good order in time");
        }
        // Links, listeners and tasks end with what holds them.
        self.shared.content.cut_off();
        self.held.clear();
        self.transports.0.clear();
        self.tasks.abort_all();
        in_order
    }

    /// Ends everything in good order: sessions, saves, connections, transports.
    async fn finish(&mut self) {
        // What was begun is done, and tells of itself; whoever comes now is told that this is the end.
        let shared = self.shared.clone();
        let mut written = std::pin::pin!(shared.end_writes());
        loop {
            tokio::select! {
                biased;
                () = &mut written => break,
                message = self.messages.recv() => match message {
                    Some(Message::Shutdown { .. }) => {}
                    Some(message) => {
                        self.take(message);
                        self.perform_all();
                    }
                    None => break,
                },
            }
        }
        // What waits for a batch under way is saved before the end.
        while self.machine.saves_later()
            && let Some(message) = self.messages.recv().await
        {
            if !matches!(message, Message::Shutdown { .. }) {
                self.take(message);
                self.perform_all();
            }
        }
        let now = self.now();
        self.machine.handle(now, Input::Shutdown);
        self.perform_all();
        // The saves that were just asked for are the last; when the queue is closed and its task
        // done, they are on disk.
        let (closed, _) = mpsc::unbounded_channel();
        self.saves = closed;
        self.shared.content.close().await;
        self.held.clear();
        for dial in self.dials.values() {
            dial.abort();
        }
        // At once: one that takes its time does not keep the others listening.
        let transports: Vec<_> = self.transports.0.drain(..).collect();
        join_all(transports.iter().map(|registered| registered.transport.close())).await;
        // Work under way finishes; its answers find nobody.
        self.messages.close();
        while self.messages.try_recv().is_ok() {}
        while self.tasks.join_next().await.is_some() {}
    }

    fn input(&mut self, input: Input) {
        self.moved = true;
        let now = self.now();
        self.machine.handle(now, input);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Input(input) => {
                match &input {
                    Input::Disconnected { connection, .. } => {
                        self.held.remove(connection);
                        self.shared.content.unlinked(*connection);
                    }
                    Input::DialFailed { dial, .. } => {
                        self.dials.remove(dial);
                    }
                    Input::Stored { result: Ok(StoreReply::Applied { state, rights_changed: _, .. }), op: _ } => {
                        self.shared.observe(state);
                    }
                    Input::Changed { state, .. } => self.shared.observe(state),
                    _ => {}
                }
                self.input(input);
            }
            Message::Dialed { dial, transport, connection } => {
                self.dials.remove(&dial);
                self.connected(Some(dial), transport, connection);
            }
            Message::Incoming { transport, connection } => self.connected(None, transport, connection),
            Message::Accepted { connection, accepted } => self.stream_accepted(connection, accepted),
            Message::Sync { replica, target, timeout, answer } => {
                self.next += 1;
                let ask = AskId(self.next);
                self.asks.insert(ask, answer);
                self.input(Input::Sync { ask, replica, target, timeout });
            }
            Message::Register { name, transport, answer } => {
                let result = if self.transports.find(&name).is_some() {
                    Err(ManagerError::NameTaken(name))
                } else {
                    self.transports.0.push(Registered { name, transport, listening: None });
                    // Peers that could not be reached for want of a transport are tried at once.
                    self.input(Input::TransportAdded);
                    Ok(())
                };
                let _ = answer.send(result);
            }
            Message::Remove { name, answer } => {
                let result = match self.transports.remove(&name) {
                    Some(registered) => Ok(registered.transport),
                    None => Err(ManagerError::UnknownTransport { name, known: self.transports.names() }),
                };
                let addresses = self.transports.addresses();
                self.input(Input::Listening { addresses });
                let _ = answer.send(result);
            }
            Message::Transports { answer } => {
                let _ = answer.send(self.transports.0.clone());
            }
            Message::Listening { name, addresses, answer } => {
                if let Some(registered) = self.transports.0.iter_mut().find(|registered| registered.name == name) {
                    registered.listening = addresses;
                }
                let addresses = self.transports.addresses();
                self.input(Input::Listening { addresses });
                let _ = answer.send(());
            }
            Message::Report { answer } => {
                let _ = answer.send(Report {
                    addresses: self.transports.addresses(),
                    replicas: self.machine.status(),
                    peers: self.machine.peers(),
                    obstacles: self.machine.obstacles(),
                    links_refused: self.machine.links_refused(),
                });
            }
            Message::Saved { answer } => self.waiting.push(answer),
            Message::Shutdown { .. } => unreachable!("the loop ends at a shutdown"),
        }
    }

    fn connected(&mut self, dial: Option<DialId>, transport: String, connection: Box<dyn Connection>) {
        self.next += 1;
        let id = ConnectionId(self.next);
        let connection: Arc<dyn Connection> = connection.into();
        let binding = connection.channel_binding();
        let held = Held::new(id, connection, dial.is_none(), self.sender.clone());
        self.held.insert(id, held);
        self.input(Input::Connected { connection: id, dial, transport, binding });
    }

    fn stream_accepted(&mut self, connection: ConnectionId, accepted: Accepted) {
        let Some(held) = self.held.get_mut(&connection) else { return };
        let (stream, kind) = (accepted.stream, accepted.kind);
        if kind == StreamKind::Content {
            if let Some(peer) = self.machine.peer_of(connection) {
                self.shared.content.serve(peer, accepted.bytes);
            }
            return;
        }
        held.take(connection, accepted, self.sender.clone());
        self.input(Input::StreamAccepted { connection, stream, kind });
    }

    fn perform_all(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            self.perform(output);
        }
        if !self.machine.saves_later() {
            for answer in self.waiting.drain(..) {
                // A closed queue means that the node has shut down; the answer's end says so.
                let _ = self.saves.send(Saving::Barrier(answer));
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { dial, address } => self.dial(dial, address),
            Output::CancelDial { dial } => {
                if let Some(task) = self.dials.remove(&dial) {
                    task.abort();
                }
            }
            Output::Admit { connection, peer } => {
                if let Some(held) = self.held.get(&connection) {
                    held.admitted.notify_one();
                    self.shared.content.linked(peer, connection, held.connection.clone());
                }
            }
            Output::Disconnect { connection, reason } => {
                if let Some(held) = self.held.remove(&connection) {
                    debug!(?connection, ?reason, "disconnect");
                    self.shared.content.unlinked(connection);
                    let reason = match reason {
                        DisconnectReason::Done => CloseReason::Done,
                        DisconnectReason::Protocol | DisconnectReason::Silent => CloseReason::Protocol,
                        DisconnectReason::Duplicate => CloseReason::Duplicate,
                        DisconnectReason::Refused => CloseReason::Refused,
                    };
                    held.connection.close(reason);
                }
            }
            Output::OpenStream { connection, stream, kind } => {
                if let Some(held) = self.held.get_mut(&connection) {
                    held.open(connection, stream, kind, self.sender.clone());
                }
            }
            Output::Send { connection, stream, frame } => {
                if let Some(held) = self.held.get_mut(&connection)
                    && !held.send(stream, frame)
                {
                    warn!(?connection, "a peer does not read what it asked for; its connection is closed");
                    held.connection.close(CloseReason::Protocol);
                }
            }
            Output::CloseStream { connection, stream } => {
                if let Some(held) = self.held.get_mut(&connection) {
                    held.close(stream);
                }
            }
            Output::Store { op, request } => self.store(op, request),
            Output::Event(event) => {
                debug!(?event);
                // Nobody listening is no error.
                let _ = self.events.send(event);
            }
            Output::Answer { ask, report } => {
                if let Some(answer) = self.asks.remove(&ask) {
                    let _ = answer.send(*report);
                }
            }
        }
    }

    fn dial(&mut self, id: DialId, address: PeerAddress) {
        let routes = self.transports.route(&address);
        let sender = self.sender.clone();
        let task = self.tasks.spawn(async move {
            let dialed = match routes {
                Ok(routes) => dial(routes, &address).await,
                Err(error) => Err(error),
            };
            let message = match dialed {
                Ok((transport, connection)) => Message::Dialed { dial: id, transport, connection },
                Err(error) => {
                    Message::Input(Input::DialFailed { dial: id, why: failure(&error), error: chain(&error) })
                }
            };
            let _ = sender.send(message).await;
        });
        self.dials.insert(id, task);
    }

    fn store(&mut self, op: OpId, request: StoreRequest) {
        if let StoreRequest::Save { records } = request {
            // A closed queue means that the node has shut down.
            let _ = self.saves.send(Saving::Records(op, records));
            return;
        }
        let (store, sender) = (self.shared.store.clone(), self.sender.clone());
        let to_verify = match &request {
            StoreRequest::Verify { payloads, .. } => payloads.iter().map(bytes::Bytes::len).sum(),
            _ => 0,
        };
        let work = async move { contained(perform(&*store, request)).await };
        if (1..=VERIFY_HERE_LEN).contains(&to_verify) {
            let result = work.now_or_never().expect("verification waits for nothing");
            return self.input(Input::Stored { op, result });
        }
        self.tasks.spawn(async move {
            let result = if to_verify > 0 {
                let runtime = tokio::runtime::Handle::current();
                let work = tokio::task::spawn_blocking(move || runtime.block_on(work));
                work.await.unwrap_or_else(|error| Err(failed(&error)))
            } else {
                work.await
            };
            let _ = sender.send(Message::Input(Input::Stored { op, result })).await;
        });
    }
}

fn failed(what: &dyn std::fmt::Display) -> WorkError {
    WorkError::Store(StoreError::Failed(format!("a task failed: {what}")))
}

/// Work for the machine; a panic in it must not leave the machine waiting.
async fn contained(work: impl Future<Output = Result<StoreReply, WorkError>>) -> Result<StoreReply, WorkError> {
    std::panic::AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(failed(&"it panicked")))
}

/// Saves records in the order in which the machine asked for it; what waits goes together.
async fn save_in_order(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<Saving>, sender: mpsc::Sender<Message>) {
    let mut waiting = Vec::new();
    let mut last = Ok(());
    while queue.recv_many(&mut waiting, SAVES_AT_ONCE).await > 0 {
        let (mut ops, mut records, mut barriers) = (Vec::new(), Vec::new(), Vec::new());
        for saving in waiting.drain(..) {
            match saving {
                Saving::Records(op, more) => {
                    ops.push(op);
                    records.extend(more);
                }
                Saving::Barrier(answer) => barriers.push(answer),
            }
        }
        if !records.is_empty() {
            last = shared.store.save(records).await;
            if let Err(error) = &last {
                warn!(%error, "what the node remembers could not be saved");
            }
        }
        for barrier in barriers {
            // Whoever asked may have gone.
            let _ = barrier.send(last.clone());
        }
        for op in ops {
            let result = last.clone().map(|()| StoreReply::Saved).map_err(WorkError::Store);
            let _ = sender.send(Message::Input(Input::Stored { op, result })).await;
        }
    }
}

/// What an application can act on when a dial has failed.
fn failure(error: &TransportError) -> DialFailure {
    use TransportErrorKind::*;
    match error.kind {
        UnknownScheme | Closed | CannotListen | AlreadyListening | NotListening | StateMismatch => {
            DialFailure::NoTransport
        }
        UnsupportedAddress => DialFailure::Malformed,
        Refused => DialFailure::Refused,
        TimedOut => DialFailure::TimedOut,
        ConnectionLost | Protocol => DialFailure::Broken,
        Unreachable => DialFailure::Unreachable,
    }
}

/// An error and what lies beneath it, on one line.
fn chain(error: &TransportError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Hands the connections that a listening transport accepts to the driver.
pub(super) async fn forward(
    name: String,
    mut incoming: mpsc::Receiver<Box<dyn Connection>>,
    sender: mpsc::Sender<Message>,
) {
    while let Some(connection) = incoming.recv().await {
        if sender.send(Message::Incoming { transport: name.clone(), connection }).await.is_err() {
            return;
        }
    }
}

/// Starts a transport's listener; the state that it wants kept is saved.
pub(super) async fn listen(shared: &Shared, registered: &Registered) -> Result<Vec<PeerAddress>, ManagerError> {
    let (incoming, queue) = Incoming::channel();
    let addresses = registered.transport.listen(incoming).await?;
    save_state(shared, &registered.name, &*registered.transport).await?;
    tokio::spawn(forward(registered.name.clone(), queue, shared.sender.clone()));
    Ok(addresses)
}

/// Saves what a transport wants kept, under its name.
pub(super) async fn save_state(shared: &Shared, name: &str, transport: &dyn SyncTransport) -> Result<(), ManagerError> {
    let Some(state) = transport.state() else { return Ok(()) };
    let value = postcard::to_allocvec(&state).expect("a transport's state can be encoded");
    let name = bytes::Bytes::copy_from_slice(name.as_bytes());
    let record = NodeRecord { kind: NodeKind::Transport, name, value: Some(value.into()) };
    let saved = shared.store.node_records(NodeKind::Transport).await?;
    if !saved.contains(&record) {
        shared.store.save(vec![record]).await?;
    }
    Ok(())
}
