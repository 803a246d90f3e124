//! p2panda-sync 0.7: logs of operations from a SQLite store in memory, over channels in one process, neither
//! encrypted nor encoded for a wire. The protocol's receiver decodes operations and hands them on; to check their
//! signatures and to store them is the application's, and not in the time. `peer-p2panda (bootstrap N | differ N)`.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc};
use p2panda_core::{
    Body, Hash, Header, Operation, SigningKey, VerifyingKey, cbor::encode_cbor, operation::validate_operation,
};
use p2panda_store::{SqliteStore, SqliteStoreBuilder, Transaction, logs::LogStore, operations::OperationStore};
use p2panda_sync::{
    protocols::{LogSync, LogSyncEvent, LogSyncMessage, Logs},
    traits::Protocol,
};
use tokio::sync::broadcast;

type Error = Box<dyn std::error::Error>;

/// One author and what its log ends with.
struct Author {
    key: SigningKey,
    length: u32,
    last: Option<Hash>,
}

impl Author {
    fn new() -> Self {
        Self { key: SigningKey::generate(), length: 0, last: None }
    }

    /// The next `count` operations of its log.
    fn write(&mut self, count: u32) -> Vec<Operation> {
        let next = |_| {
            let body = Body::from_bytes([self.length as u8; 32]);
            let header = Header::builder().body(&body).seq_num(self.length).backlink(self.last).build(&self.key, ());
            let hash = header.hash();
            (self.length, self.last) = (self.length + 1, Some(hash));
            Operation { hash, header, body: Some(body) }
        };
        (0..count).map(next).collect()
    }
}

/// The only log of each author.
const LOG: usize = 0;

fn logs(authors: &[&Author]) -> Logs<usize> {
    authors.iter().map(|author| (author.key.verifying_key(), vec![LOG])).collect()
}

async fn store() -> Result<SqliteStore, Error> {
    Ok(SqliteStoreBuilder::memory().build().await?)
}

async fn insert(store: &SqliteStore, operations: &[Operation]) -> Result<(), Error> {
    let permit = store.begin().await?;
    for operation in operations {
        store.insert_operation(&operation.hash, operation, &LOG).await?;
    }
    store.commit(permit).await?;
    Ok(())
}

/// One side of a session: its store, and how many operations will come.
struct Side<'a> {
    store: &'a SqliteStore,
    coming: u32,
}

/// What a session took and moved: values from one task to another, the bytes of operations as its own metrics count
/// them, those of the few other messages as CBOR has them. And what came, on the left and on the right.
struct Session {
    time: Duration,
    cpu: f64,
    messages: u32,
    bytes: usize,
    came: [Vec<Operation>; 2],
}

impl Session {
    fn report(&self) {
        contest::report(&[
            ("seconds", self.time.as_secs_f64()),
            ("cpu_s", self.cpu),
            ("bytes", self.bytes as f64),
            ("messages", f64::from(self.messages)),
        ]);
    }
}

fn size(message: &LogSyncMessage<usize>) -> usize {
    match message {
        LogSyncMessage::Operation((header, body)) => header.len() + body.as_ref().map_or(0, Vec::len),
        other => encode_cbor(other).map_or(0, |bytes| bytes.len()),
    }
}

fn came(events: &mut broadcast::Receiver<LogSyncEvent<()>>) -> Vec<Operation> {
    let mut operations = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let LogSyncEvent::OperationReceived { operation, .. } = event {
            operations.push(*operation);
        }
    }
    operations
}

async fn session(left: Side<'_>, right: Side<'_>, logs: &Logs<usize>) -> Result<Session, Error> {
    // Room for all events, so that none has to be awaited.
    let events = |side: &Side| broadcast::channel::<LogSyncEvent<()>>(side.coming as usize + 16);
    let (left_events, mut at_left) = events(&left);
    let (right_events, mut at_right) = events(&right);
    let from = LogSync::<usize, (), _, _>::new(left.store.clone(), logs.clone(), left_events);
    let to = LogSync::<usize, (), _, _>::new(right.store.clone(), logs.clone(), right_events);
    // A side sends all it has before it reads on: what both send has to fit, or both wait for ever.
    let room = 512.max(left.coming.min(right.coming) as usize + 16);
    let (messages, bytes) = (Cell::new(0), Cell::new(0));
    let count = |message: &LogSyncMessage<usize>| {
        messages.set(messages.get() + 1);
        bytes.set(bytes.get() + size(message));
    };
    let started = Instant::now();
    let (mut to_right, from_left) = mpsc::channel(room);
    let (mut to_left, from_right) = mpsc::channel(room);
    let mut from_left = from_left.inspect(count).map(Ok::<_, ()>);
    let mut from_right = from_right.inspect(count).map(Ok::<_, ()>);
    let (sent, got) = tokio::join!(from.run(&mut to_right, &mut from_right), to.run(&mut to_left, &mut from_left));
    let (time, cpu) = (started.elapsed(), contest::cpu_of_round());
    sent?;
    got?;
    let came = [came(&mut at_left), came(&mut at_right)];
    for (came, coming) in came.iter().zip([left.coming, right.coming]) {
        if came.len() as u32 != coming {
            return Err(format!("{} of {coming} came", came.len()).into());
        }
    }
    Ok(Session { time, cpu, messages: messages.get(), bytes: bytes.get(), came })
}

async fn bootstrap(n: u32) -> Result<(), Error> {
    let (left, right) = (store().await?, store().await?);
    let mut author = Author::new();
    insert(&left, &author.write(n)).await?;
    let logs = logs(&[&author]);
    while contest::next_round().is_some() {
        session(Side { store: &left, coming: 0 }, Side { store: &right, coming: n }, &logs).await?.report();
    }
    Ok(())
}

/// Checks what came as an application must, and keeps it.
async fn keep(store: &SqliteStore, came: &[Operation], sent: &[Operation]) -> Result<(), Error> {
    if came != sent {
        return Err("what came is not what was sent".into());
    }
    came.iter().try_for_each(validate_operation)?;
    insert(store, came).await
}

async fn heights(store: &SqliteStore, logs: &Logs<usize>) -> Result<BTreeMap<VerifyingKey, u64>, Error> {
    let mut heights = BTreeMap::new();
    for (author, ids) in logs {
        let height = LogStore::<Operation, _, _, _, Hash>::get_log_heights(store, author, ids).await?;
        heights.extend(height.and_then(|logs| logs.get(&LOG).map(|height| (*author, u64::from(*height)))));
    }
    Ok(heights)
}

/// Two authors, whose logs of half of `n` both sides have; the left one writes as the first, the right one as the
/// second. What was exchanged stays.
async fn differ(n: u32) -> Result<(), Error> {
    let (left, right) = (store().await?, store().await?);
    let mut authors = [Author::new(), Author::new()];
    for author in &mut authors {
        let operations = author.write(n / 2);
        insert(&left, &operations).await?;
        insert(&right, &operations).await?;
    }
    let logs = logs(&[&authors[0], &authors[1]]);
    while let Some(d) = contest::next_round() {
        let d = u32::try_from(d)?;
        let [here, there] = &mut authors;
        let (here, there) = (here.write(d), there.write(d));
        insert(&left, &here).await?;
        insert(&right, &there).await?;
        contest::begin();
        let session = session(Side { store: &left, coming: d }, Side { store: &right, coming: d }, &logs).await?;
        session.report();
        keep(&left, &session.came[0], &there).await?;
        keep(&right, &session.came[1], &here).await?;
        if heights(&left, &logs).await? != heights(&right, &logs).await? {
            return Err("the logs are not as long on both sides".into());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let n = contest::argument(2);
    match contest::argument::<String>(1).as_str() {
        "bootstrap" => bootstrap(n).await,
        "differ" => differ(n).await,
        other => Err(format!("no such work: {other}").into()),
    }
}
