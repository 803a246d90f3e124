//! p2panda-sync 0.7: one author's log of n operations from a SQLite store in memory, over a channel in one
//! process, neither encrypted nor encoded for a wire. The protocol's receiver decodes operations and hands
//! them on; to check their signatures and to store them is the application's, and not done here.
//! `peer-p2panda bootstrap N`.

use std::{collections::BTreeMap, time::Instant};

use futures::{StreamExt, channel::mpsc};
use p2panda_core::{Body, Hash, Header, Operation, SigningKey};
use p2panda_store::{SqliteStoreBuilder, Transaction, operations::OperationStore};
use p2panda_sync::{
    protocols::{LogSync, LogSyncEvent, Logs},
    traits::Protocol,
};
use tokio::sync::broadcast;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let n: u32 = contest::argument(2);
    let (left, right) = (SqliteStoreBuilder::memory().build().await?, SqliteStoreBuilder::memory().build().await?);
    let key = SigningKey::generate();
    let mut backlink: Option<Hash> = None;
    let permit = left.begin().await?;
    for i in 0..n {
        let body = Body::from_bytes(&[i as u8; 32]);
        let header = Header::builder().body(&body).seq_num(i).backlink(backlink).build(&key, ());
        let hash = header.hash();
        backlink = Some(hash);
        left.insert_operation(&hash, &Operation { hash, header, body: Some(body) }, &0usize).await?;
    }
    left.commit(permit).await?;
    let logs: Logs<usize> = BTreeMap::from([(key.verifying_key(), vec![0])]);
    while contest::next_round().is_some() {
        // Room for all events, so that none has to be awaited.
        let (left_events, _keep) = broadcast::channel::<LogSyncEvent<()>>(16);
        let (right_events, mut received) = broadcast::channel::<LogSyncEvent<()>>(n as usize + 16);
        let from = LogSync::<usize, (), _, _>::new(left.clone(), logs.clone(), left_events);
        let to = LogSync::<usize, (), _, _>::new(right.clone(), logs.clone(), right_events);
        let started = Instant::now();
        let (mut to_right, at_right) = mpsc::channel(512);
        let (mut to_left, at_left) = mpsc::channel(512);
        let (mut at_right, mut at_left) = (at_right.map(Ok::<_, ()>), at_left.map(Ok::<_, ()>));
        let (sent, got) = tokio::join!(from.run(&mut to_right, &mut at_left), to.run(&mut to_left, &mut at_right));
        let seconds = started.elapsed().as_secs_f64();
        sent?;
        let (_, metrics) = got?;
        let mut came = 0u32;
        while let Ok(event) = received.try_recv() {
            came += u32::from(matches!(event, LogSyncEvent::OperationReceived { .. }));
        }
        if came != n {
            return Err(format!("{came} of {n} came").into());
        }
        contest::report(&[("seconds", seconds), ("bytes", f64::from(metrics.received_bytes))]);
    }
    Ok(())
}
