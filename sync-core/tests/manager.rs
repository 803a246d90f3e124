//! The manager over the transport in memory and the store in memory: whole nodes in one process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use sync_core::{
    machine::{Direction, Event, SyncOutcome},
    manager::{Access, DownloadPolicy, ManagerError, Replica, SyncManager},
    model::{Right, Ticket, Timestamp},
    store::{NodeKind, NodeRecord, Position, Progress, ReplicaStore, StoreError},
    transport::memory::{MemoryNetwork, MemoryTransport},
};

const LONG: Duration = Duration::from_secs(20);

/// Waits until `node` is synced with `other`; shows both sides' status when that does not happen.
async fn synced(node: &SyncManager, replica: &Replica, other: &SyncManager) {
    if let Err(error) = node.wait_synced(replica.id(), other.node_id(), LONG).await {
        panic!("{error}: {:#?} {:#?}", node.status().await, other.status().await);
    }
}

async fn node_on(store: Arc<dyn ReplicaStore>, network: &MemoryNetwork, name: &str) -> SyncManager {
    let manager = SyncManager::builder(store).spawn().await.unwrap();
    manager.register_transport("memory", MemoryTransport::builder(network, name)).await.unwrap();
    manager.accept_connections().await.unwrap();
    manager
}

async fn node(network: &MemoryNetwork, name: &str) -> SyncManager {
    node_on(Arc::new(store_mem::open().unwrap()), network, name).await
}

async fn equal(nodes: &[&Replica]) {
    let wait = async {
        let mut watches: Vec<_> = nodes.iter().map(|node| node.watch("", node.head())).collect();
        loop {
            let mut roots = Vec::new();
            for node in nodes {
                roots.push(node.state().await.unwrap().root);
            }
            if roots.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            let changes = watches.iter_mut().map(|watch| Box::pin(watch.next()));
            let _ = tokio::time::timeout(Duration::from_millis(200), futures_util::future::select_all(changes)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("the replicas become equal");
}

async fn shared(manager: &SyncManager) -> (Replica, Ticket) {
    let replica = manager.create_replica().await.unwrap();
    let ticket = replica.share(Access::WRITE).await.unwrap();
    (replica, ticket)
}

#[tokio::test]
async fn b17_first_contact_syncs_everything_and_changes_are_live_both_ways() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let (left, ticket) = shared(&a).await;
    for n in 0..300 {
        left.put(format!("key {n}"), format!("value {n}")).await.unwrap();
    }
    let right = b.join(ticket).await.unwrap();
    synced(&b, &right, &a).await;
    assert_eq!(right.state().await.unwrap().root, left.state().await.unwrap().root);
    let mut watch = left.watch("from b", left.head());
    right.put("from b", "hello").await.unwrap();
    let seen = tokio::time::timeout(LONG, watch.next()).await.unwrap().unwrap();
    assert_eq!(&seen.entry.op.key_bytes()[..], b"from b");
    left.delete("key 7").await.unwrap();
    left.delete_prefix("key 1").await.unwrap();
    equal(&[&left, &right]).await;
    assert_eq!(right.get("key 7").await.unwrap(), None);
    assert_eq!(right.get("key 12").await.unwrap(), None);
    assert!(right.get("key 2").await.unwrap().is_some());
    a.flush(LONG).await.unwrap();
    b.flush(LONG).await.unwrap();
    let peer = &a.status().await.unwrap().replicas[0].peers[0];
    assert_eq!(peer.pending, 0);
}

#[tokio::test]
async fn b19_equal_replicas_cost_one_round_trip_of_constant_size() {
    let network = MemoryNetwork::new();
    let mut sizes = Vec::new();
    for count in [10, 1000] {
        let store: Arc<dyn ReplicaStore> = Arc::new(store_mem::open().unwrap());
        let (a, b) = (node(&network, "a").await, node_on(store.clone(), &network, "b").await);
        let (left, ticket) = shared(&a).await;
        let mut transaction = left.write();
        for n in 0..count {
            transaction.put(format!("key {n}"), "v").await.unwrap();
        }
        transaction.commit().await.unwrap();
        let right = b.join(ticket).await.unwrap();
        synced(&b, &right, &a).await;
        a.flush(LONG).await.unwrap();
        b.shutdown(LONG).await.unwrap();
        // It comes back and does not listen, so that only one side opens.
        let b = SyncManager::builder(store).spawn().await.unwrap();
        let mut events = b.events();
        b.register_transport("memory", MemoryTransport::builder(&network, "b")).await.unwrap();
        while !matches!(tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap(), Event::Synced { .. }) {}
        let traffic = b.status().await.unwrap().replicas[0].peers[0].traffic;
        assert_eq!((traffic.sent, traffic.received, traffic.messages, traffic.round_trips), (0, 0, 2, 1));
        sizes.push(traffic.bytes_sent + traffic.bytes_received);
        a.shutdown(LONG).await.unwrap();
        b.shutdown(LONG).await.unwrap();
    }
    assert!(sizes[1] <= 400 && sizes[1].abs_diff(sizes[0]) <= 8, "{sizes:?}");
}

#[tokio::test]
async fn b22_a_chain_converges_though_its_ends_never_meet() {
    let network = MemoryNetwork::new();
    let (a, b, c) = (node(&network, "a").await, node(&network, "b").await, node(&network, "c").await);
    let (first, ticket) = shared(&a).await;
    let middle = b.join(ticket).await.unwrap();
    synced(&b, &middle, &a).await;
    let onward = middle.share(Access::WRITE).await.unwrap();
    let last = c.join(onward).await.unwrap();
    first.put("a", "1").await.unwrap();
    last.put("c", "3").await.unwrap();
    middle.put("b", "2").await.unwrap();
    equal(&[&first, &middle, &last]).await;
    assert!(last.get("a").await.unwrap().is_some());
    assert!(first.get("c").await.unwrap().is_some());
}

#[tokio::test]
async fn b61_strangers_and_readers_get_no_further_than_their_right() {
    let network = MemoryNetwork::new();
    let (a, b, c) = (node(&network, "a").await, node(&network, "b").await, node(&network, "c").await);
    let (left, _) = shared(&a).await;
    left.put("secret", "value").await.unwrap();
    // A stranger knows the address and the replica's id, and has no ticket.
    c.store().create_replica(left.id(), vec![]).await.unwrap();
    let stranger = c.open_replica(left.id()).await.unwrap();
    let report = c.sync_with(a.addresses().await.unwrap()[0].clone(), left.id(), LONG).await.unwrap();
    assert!(matches!(report.outcome, SyncOutcome::Refused(_)), "{report:?}");
    assert_eq!(stranger.get("secret").await.unwrap(), None);
    // A reader reads, and its writes are refused where they are made.
    let reader = b.join(left.share(Access::READ).await.unwrap()).await.unwrap();
    synced(&b, &reader, &a).await;
    assert!(reader.get("secret").await.unwrap().is_some());
    assert!(matches!(reader.put("mine", "x").await, Err(ManagerError::NotPermitted { .. })));
    assert!(matches!(reader.share(Access::WRITE).await, Err(ManagerError::CannotShare(_))));
}

#[tokio::test]
async fn b39_what_was_written_while_the_peer_was_away_reaches_it_when_it_returns() {
    let network = MemoryNetwork::new();
    let a = node(&network, "a").await;
    let store: Arc<dyn ReplicaStore> = Arc::new(store_mem::open().unwrap());
    let b = node_on(store.clone(), &network, "b").await;
    let (left, ticket) = shared(&a).await;
    let right = b.join(ticket).await.unwrap();
    synced(&b, &right, &a).await;
    b.shutdown(LONG).await.unwrap();
    for n in 0..50 {
        left.put(format!("{n}"), "while away").await.unwrap();
    }
    let status = a.status().await.unwrap();
    assert_eq!(status.replicas[0].peers[0].pending, 50);
    let b = node_on(store, &network, "b").await;
    let right = b.open_replica(right.id()).await.unwrap();
    equal(&[&left, &right]).await;
    a.flush(LONG).await.unwrap();
}

#[tokio::test]
async fn a_watch_begins_where_it_is_told_and_goes_on() {
    let network = MemoryNetwork::new();
    let a = node(&network, "a").await;
    let replica = a.create_replica().await.unwrap();
    replica.put("x/1", "1").await.unwrap();
    replica.put("y/1", "1").await.unwrap();
    replica.put("x/2", "2").await.unwrap();
    let mut watch = replica.watch("x/", Position(0));
    assert_eq!(&watch.next().await.unwrap().entry.op.key_bytes()[..], b"x/1");
    assert_eq!(&watch.next().await.unwrap().entry.op.key_bytes()[..], b"x/2");
    assert_eq!(watch.try_next().await.unwrap(), None);
    let resumed = replica.watch("", watch.position());
    replica.delete_prefix("x").await.unwrap();
    assert_eq!(&watch.next().await.unwrap().entry.op.key_bytes()[..], b"x");
    let mut resumed = resumed;
    assert_eq!(&resumed.next().await.unwrap().entry.op.key_bytes()[..], b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn b69_b73_long_values_become_blobs_and_arrive_through_a_node_that_has_them() {
    let network = MemoryNetwork::new();
    let (a, b, c) = (node(&network, "a").await, node(&network, "b").await, node(&network, "c").await);
    let (first, ticket) = shared(&a).await;
    let middle = b.join(ticket).await.unwrap();
    let last = c.join(middle.share(Access::READ).await.unwrap()).await.unwrap();
    let long: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let mut events = c.events();
    first.put("long", long.clone()).await.unwrap();
    first.put("at the limit", vec![7; 16 * 1024]).await.unwrap();
    first.put("past the limit", vec![7; 16 * 1024 + 1]).await.unwrap();
    let mut ready = 0;
    while ready < 2 {
        if let Event::ContentReady { .. } = tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap() {
            ready += 1;
        }
    }
    assert_eq!(last.read("long").await.unwrap().unwrap(), long);
    assert_eq!(last.read("past the limit").await.unwrap().unwrap().len(), 16 * 1024 + 1);
    let inline = last.get("at the limit").await.unwrap().unwrap();
    assert!(matches!(inline.entry.op, sync_core::model::Op::Put { value: sync_core::model::Value::Inline(_), .. }));
    assert_eq!(c.status().await.unwrap().replicas[0].blobs_missing, 0);
}

#[tokio::test]
async fn b69_content_comes_by_policy_and_when_the_policy_changes() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let (left, ticket) = shared(&a).await;
    let right = b.join(ticket).await.unwrap();
    let film = sync_core::model::Prefix::new("film/").unwrap();
    right.set_download_policy(DownloadPolicy::EverythingExcept(vec![film])).await.unwrap();
    let mut events = b.events();
    left.put("film/1", vec![1; 50_000]).await.unwrap();
    left.put("note/1", vec![2; 50_000]).await.unwrap();
    let ready = async |events: &mut tokio::sync::broadcast::Receiver<Event>| loop {
        if let Event::ContentReady { hash } = tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap() {
            return hash;
        }
    };
    assert_eq!(ready(&mut events).await.0, *blake3::hash(&[2; 50_000]).as_bytes());
    synced(&b, &right, &a).await;
    assert!(matches!(right.read("film/1").await, Err(ManagerError::ContentMissing)));
    assert_eq!(b.status().await.unwrap().replicas[0].blobs_missing, 1);
    right.set_download_policy(DownloadPolicy::default()).await.unwrap();
    assert_eq!(ready(&mut events).await.0, *blake3::hash(&[1; 50_000]).as_bytes());
    assert_eq!(right.read("film/1").await.unwrap().unwrap().len(), 50_000);
}

#[tokio::test]
async fn ten_replicas_on_one_node_sync_at_once_and_apart() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let mut pairs = Vec::new();
    for n in 0..10 {
        let (left, ticket) = shared(&a).await;
        left.put("from a", format!("{n}")).await.unwrap();
        pairs.push((left, b.join(ticket).await.unwrap()));
    }
    for (n, (_, right)) in pairs.iter().enumerate() {
        right.put("from b", format!("{n}")).await.unwrap();
    }
    for (n, (left, right)) in pairs.iter().enumerate() {
        equal(&[left, right]).await;
        assert_eq!(left.read("from b").await.unwrap().unwrap(), format!("{n}"));
        assert_eq!(right.read("from a").await.unwrap().unwrap(), format!("{n}"));
    }
    assert_eq!(a.status().await.unwrap().replicas.len(), 10);
}

#[tokio::test]
async fn b46_whom_to_sync_with_is_on_disk_when_join_returns() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let (_, ticket) = shared(&a).await;
    let replica = b.join(ticket).await.unwrap();
    let jobs = b.store().node_records(NodeKind::Job).await.unwrap();
    let name = [replica.id().as_bytes().as_slice(), a.node_id().as_bytes()].concat();
    assert!(jobs.iter().any(|job| job.name == name));
    let peers = b.store().node_records(NodeKind::Peer).await.unwrap();
    assert!(peers.iter().any(|peer| peer.name == a.node_id().as_bytes()[..]));
}

#[tokio::test]
async fn joining_again_widens_a_right_and_makes_it_last_longer() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let left = a.create_replica().await.unwrap();
    left.put("k", "v").await.unwrap();
    let right = b.join(left.share(Access::READ).await.unwrap()).await.unwrap();
    synced(&b, &right, &a).await;
    assert!(matches!(right.put("mine", "x").await, Err(ManagerError::NotPermitted { .. })));
    let until = |seconds: u64| Some(Timestamp(wall().0 + seconds * 1_000_000));
    let held = async || {
        let rights = right.state().await.unwrap().rights;
        rights.best_grant(&b.node_id().0, Right::Write, wall()).map(|(_, grant)| grant.expires)
    };
    let long = until(60);
    for (expires, then) in [(long, long), (until(30), long), (None, None)] {
        let ticket = left.share(Access { right: Right::Write, expires }).await.unwrap();
        b.join(ticket).await.unwrap();
        assert_eq!(held().await, Some(then));
    }
    right.put("mine", "x").await.unwrap();
    equal(&[&left, &right]).await;
    assert_eq!(left.read("mine").await.unwrap().as_deref(), Some(&b"x"[..]));
    // One's own ticket is no peer.
    a.join(left.share(Access::READ).await.unwrap()).await.unwrap();
    assert!(a.peers().await.unwrap().iter().all(|peer| peer.id != a.node_id()));
}

#[allow(clippy::disallowed_methods, reason = "a test is no part of the machine")]
fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_micros() as u64)
}

#[tokio::test]
async fn b55_policy_notes_and_tokens_of_a_dropped_replica_go_with_it() {
    let network = MemoryNetwork::new();
    let a = node(&network, "a").await;
    let (replica, other) = (a.create_replica().await.unwrap(), a.create_replica().await.unwrap());
    let id = replica.id();
    let token = |front: &[u8]| NodeRecord {
        kind: NodeKind::Token,
        name: [front, &[7; 32]].concat().into(),
        value: Some("x".into()),
    };
    a.store().save(vec![token(id.as_bytes()), token(&[])]).await.unwrap();
    for replica in [&replica, &other] {
        replica.set_download_policy(DownloadPolicy::NothingExcept(Vec::new())).await.unwrap();
        let mut transaction = replica.write();
        transaction.note("how far", "12");
        assert_eq!(transaction.commit().await.unwrap(), None);
    }
    drop(replica);
    a.drop_replica(id).await.unwrap();
    use NodeKind::{Job, Key, Note, Peer, Setting, Token, Transport};
    let all = [Key, Peer, Job, Transport, Setting, Token, Note];
    for kind in all {
        for record in a.store().node_records(kind).await.unwrap() {
            assert!(!record.name.windows(32).any(|part| part == id.as_bytes()), "{kind:?} {record:?}");
        }
    }
    assert_eq!(a.store().node_records(NodeKind::Token).await.unwrap().len(), 1, "that of all replicas stays");
    assert_eq!(other.download_policy(), DownloadPolicy::NothingExcept(Vec::new()));
    assert_eq!(other.note("how far").await.unwrap(), Some("12".into()));
}

#[tokio::test]
async fn a_note_is_kept_with_the_entries_of_its_transaction_or_not_at_all() {
    let network = MemoryNetwork::new();
    let a = node(&network, "a").await;
    let (replica, other) = (a.create_replica().await.unwrap(), a.create_replica().await.unwrap());
    let mut transaction = replica.write();
    for key in ["a", "b"] {
        transaction.put(key, key).await.unwrap();
    }
    transaction.note("how far", "1");
    let first = transaction.commit().await.unwrap().unwrap();
    let timestamp = |key: &'static str| {
        let replica = replica.clone();
        async move { replica.get(key).await.unwrap().unwrap().entry.timestamp }
    };
    assert_eq!([timestamp("a").await, timestamp("b").await], [first, Timestamp(first.0 + 1)]);
    assert_eq!(replica.note("how far").await.unwrap(), Some("1".into()));
    assert_eq!([replica.note("far").await.unwrap(), other.note("how far").await.unwrap()], [None, None]);
    // What is not committed leaves none.
    let mut transaction = replica.write();
    transaction.note("how far", "2");
    drop(transaction);
    assert_eq!(replica.note("how far").await.unwrap(), Some("1".into()));
}

#[tokio::test]
async fn a_value_is_put_at_another_key_as_its_own_one_is_replaced() {
    let network = MemoryNetwork::new();
    let a = node(&network, "a").await;
    let (replica, other) = (a.create_replica().await.unwrap(), a.create_replica().await.unwrap());
    let value: Vec<u8> = (0..100_000u32).map(|at| (at >> 8) as u8).collect();
    for (key, value) in [("large", value.clone()), ("small", b"inline".to_vec())] {
        replica.put(key, value.clone()).await.unwrap();
        let entry = replica.get(key).await.unwrap().unwrap();
        let mut transaction = replica.write();
        transaction.put_copy(format!("{key} copy"), &entry).await.unwrap();
        transaction.put(key, "new").await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(replica.read(format!("{key} copy")).await.unwrap().unwrap(), value);
        assert_eq!(replica.read(key).await.unwrap().unwrap(), "new");
    }
    // What another replica holds is not this one's for that.
    let entry = replica.get("large copy").await.unwrap().unwrap();
    let refused = other.write().put_copy("x", &entry).await;
    assert!(matches!(refused, Err(ManagerError::ContentMissing)), "{refused:?}");
}

#[tokio::test]
async fn b73_exports_into_one_directory_do_not_meet_and_tell_how_far_they_are() {
    let network = MemoryNetwork::new();
    let a = node(&network, "a").await;
    let replica = a.create_replica().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=16u8 {
        replica.put([number], vec![number; 10_000]).await.unwrap();
    }
    for _ in 0..8 {
        for number in 1..=16u8 {
            let (replica, to) = (replica.clone(), dir.path().join(format!("{number}")));
            tasks.spawn(async move { replica.export([number], to).await.unwrap() });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        for number in 1..=16u8 {
            assert!(std::fs::read(dir.path().join(format!("{number}"))).unwrap() == vec![number; 10_000]);
        }
    }
    // What cannot take its name leaves nothing behind.
    std::fs::create_dir(dir.path().join("taken")).unwrap();
    assert!(replica.export([1], dir.path().join("taken")).await.is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 17);
    // Progress ends at the total; breaking off leaves the file as it was.
    let value: Vec<u8> = (0..3_000_000u32).map(|at| (at >> 8) as u8).collect();
    replica.put("large", value.clone()).await.unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = told.clone();
    let to = dir.path().join("large");
    let progress = move |now: Progress| {
        tell.lock().unwrap().push((now.done, now.total));
        std::ops::ControlFlow::Continue(())
    };
    assert!(replica.export_with("large", &to, Arc::new(progress)).await.unwrap());
    let told = told.lock().unwrap().clone();
    assert!(told.len() > 1 && told.windows(2).all(|pair| pair[0].0 < pair[1].0), "{told:?}");
    assert_eq!(told.last(), Some(&(3_000_000, 3_000_000)));
    for key in [&b"large"[..], &[1]] {
        let stopped = replica.export_with(key, &to, Arc::new(|_| std::ops::ControlFlow::Break(()))).await;
        assert!(stopped.is_err());
        assert!(std::fs::read(&to).unwrap() == value);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 18, "no temporary file is left");
}

#[tokio::test]
async fn b73_an_import_tells_how_far_it_is_and_sets_nothing_when_it_is_broken_off() {
    let network = MemoryNetwork::new();
    let a = node(&network, "a").await;
    let replica = a.create_replica().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, len) in [("empty", 0usize), ("small", 10_000), ("large", 3_000_000)] {
        let from = dir.path().join(name);
        let value: Vec<u8> = (0..len).map(|at| (at >> 8) as u8).collect();
        std::fs::write(&from, &value).unwrap();
        let mut broken_off = replica.write();
        let stopped = broken_off.put_file_with(name, &from, Arc::new(|_| std::ops::ControlFlow::Break(()))).await;
        assert!(stopped.is_err(), "{name}");
        broken_off.commit().await.unwrap();
        assert!(replica.get(name).await.unwrap().is_none(), "{name}");
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tell = told.clone();
        let progress = move |now: Progress| {
            tell.lock().unwrap().push((now.done, now.total));
            std::ops::ControlFlow::Continue(())
        };
        let mut transaction = replica.write();
        let put = transaction.put_file_with(name, &from, Arc::new(progress)).await.unwrap();
        assert_eq!(put, len as u64);
        transaction.commit().await.unwrap();
        let told = told.lock().unwrap().clone();
        assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0), "{name}: {told:?}");
        assert_eq!(told.last(), Some(&(len as u64, len as u64)), "{name}");
        assert_eq!(told.len() > 1, len > 1 << 20, "{name}: {told:?}");
        assert!(replica.read(name).await.unwrap().unwrap() == value, "{name}");
    }
}

#[tokio::test]
async fn b43_an_obstacle_tells_when_it_began_not_when_all_was_well_the_last_time() {
    let network = MemoryNetwork::new();
    let ahead = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let clock = {
        let ahead = ahead.clone();
        move || Timestamp(wall().0 + ahead.load(std::sync::atomic::Ordering::SeqCst))
    };
    let a = SyncManager::builder(Arc::new(store_mem::open().unwrap())).wall_clock(clock).spawn().await.unwrap();
    a.register_transport("memory", MemoryTransport::builder(&network, "a")).await.unwrap();
    a.accept_connections().await.unwrap();
    let b = node(&network, "b").await;
    let (left, ticket) = shared(&a).await;
    let right = b.join(ticket).await.unwrap();
    synced(&b, &right, &a).await;
    a.status_when(LONG, |status| status.replicas[0].peers[0].synced).await.unwrap();
    assert!(a.why().await.unwrap().is_empty());
    // An hour later it goes away.
    let began = wall().0 + 3_600_000_000;
    ahead.store(3_600_000_000, std::sync::atomic::Ordering::SeqCst);
    b.shutdown(LONG).await.unwrap();
    a.status_when(LONG, |status| !status.replicas[0].peers[0].synced).await.unwrap();
    let why = a.why().await.unwrap();
    assert_eq!(why[0].replica, Some(left.id()));
    let since = why[0].since.unwrap().0;
    assert!(since >= began && since < began + 60_000_000, "{since} {began}");
}

/// Polls what it is given once, and gives it up. Answers whether it was waiting.
async fn begun(work: impl Future) -> bool {
    tokio::select! {
        biased;
        _ = tokio::task::unconstrained(work) => false,
        () = std::future::ready(()) => true,
    }
}

/// Of writes whose callers give up at once, a stalled disk say, so many are begun and no more: each is in memory.
#[tokio::test]
async fn b53_of_writes_that_nobody_waits_for_only_so_many_are_begun() {
    let a = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
    let replica = a.create_replica().await.unwrap();
    let before = replica.state().await.unwrap().root.count;
    for n in 0..1_100 {
        assert!(begun(replica.put(format!("{n:04}"), "value")).await, "it waits for its flush");
    }
    replica.put("last", "value").await.unwrap();
    a.shutdown(LONG).await.unwrap();
    assert_eq!(replica.state().await.unwrap().root.count - before, 1_024 + 1);
}

/// The end of a node waits for what was begun: whoever opens its store again has it to itself.
#[tokio::test]
async fn b53_what_was_begun_is_written_before_the_end_and_nothing_holds_the_store_after_it() {
    for _ in 0..10 {
        let store: Arc<dyn ReplicaStore> = Arc::new(store_mem::open().unwrap());
        let a = SyncManager::builder(store.clone()).spawn().await.unwrap();
        let replica = a.create_replica().await.unwrap();
        let (id, before) = (replica.id(), replica.state().await.unwrap().root.count);
        for n in 0..200 {
            assert!(begun(replica.put(format!("{n:04}"), "value")).await, "it waits for its flush");
        }
        a.shutdown(LONG).await.unwrap();
        assert!(matches!(replica.put("too late", "value").await, Err(ManagerError::Closed)));
        drop((a, replica));
        assert_eq!(Arc::strong_count(&store), 1);
        assert_eq!(store.state(id).await.unwrap().root.count - before, 200);
    }
}

/// Whoever writes may do so from a runtime that ends before the write does, or from none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b53_a_write_is_the_nodes_whatever_runtime_it_was_begun_on() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let (left, ticket) = shared(&a).await;
    let right = b.join(ticket).await.unwrap();
    synced(&b, &right, &a).await;
    let mut arrives = right.watch("", right.head());
    let replica = left.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // The node has other threads: it may be done already.
        let _ = runtime.block_on(begun(replica.put("of a runtime that is gone", "a value")));
        drop(runtime);
        sync_core::testing::block_on(replica.put("of none", "a value")).unwrap();
    })
    .join()
    .unwrap();
    for _ in 0..2 {
        tokio::time::timeout(LONG, arrives.next()).await.expect("it arrives").unwrap();
    }
}

/// Who waits for a replica's end may give up, too.
#[tokio::test]
async fn b55_a_drop_whose_caller_gave_up_is_done_whole() {
    let a = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
    let replica = a.create_replica().await.unwrap();
    assert!(begun(a.drop_replica(replica.id())).await, "it waits for its flush");
    // The node's end waits for it.
    a.shutdown(LONG).await.unwrap();
    assert!(a.store().replicas().await.unwrap().is_empty());
}

/// Who opens it, writes into it, sets it up, or drops it too, at that moment does not bring it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b55_a_replica_that_is_dropped_beside_others_who_use_it_is_gone() {
    let a = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
    for _ in 0..200 {
        let replica = a.create_replica().await.unwrap();
        let id = replica.id();
        let drops = || {
            let node = a.clone();
            tokio::spawn(async move { node.drop_replica(id).await.is_ok() })
        };
        let opens = || {
            let node = a.clone();
            tokio::spawn(async move { node.open_replica(id).await.map(drop) })
        };
        let (first, dropped, again) = (opens(), drops(), drops());
        let _ = tokio::join!(opens(), replica.put("beside", "it"), replica.set_direction(Direction::Push), opens());
        let _ = first.await.unwrap();
        assert!(dropped.await.unwrap() != again.await.unwrap(), "one of them drops it");
        assert_eq!(a.status().await.unwrap().replicas.len(), 0);
        assert!(a.open_replica(id).await.is_err());
        let late = replica.set_direction(Direction::Push).await;
        assert!(matches!(late, Err(ManagerError::Store(StoreError::UnknownReplica(_)))), "{late:?}");
        let late = replica.set_download_policy(DownloadPolicy::NothingExcept(Vec::new())).await;
        assert!(matches!(late, Err(ManagerError::Store(StoreError::UnknownReplica(_)))), "{late:?}");
        let mut note = replica.write();
        note.note("a name", "a value");
        let late = note.commit().await;
        assert!(matches!(late, Err(ManagerError::Store(StoreError::UnknownReplica(_)))), "{late:?}");
        for kind in [NodeKind::Setting, NodeKind::Job, NodeKind::Note, NodeKind::Key] {
            let records = a.store().node_records(kind).await.unwrap();
            let of_it = |record: &NodeRecord| record.name.windows(32).any(|part| part == id.as_bytes());
            assert!(!records.iter().any(of_it), "{records:?}");
        }
    }
}

/// A call that is begun and then neither awaited nor dropped holds nobody up.
#[tokio::test]
async fn b53_a_call_that_nobody_goes_on_with_holds_nobody_up() {
    let a = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
    let (one, other) = (a.create_replica().await.unwrap(), a.create_replica().await.unwrap());
    let mut opening = std::pin::pin!(a.open_replica(one.id()));
    let mut setting = std::pin::pin!(one.set_direction(Direction::Push));
    let mut policy = std::pin::pin!(one.set_download_policy(DownloadPolicy::NothingExcept(Vec::new())));
    assert!(begun(opening.as_mut()).await && begun(setting.as_mut()).await && begun(policy.as_mut()).await);
    let (node, id) = (a.clone(), one.id());
    let dropped = tokio::spawn(async move { node.drop_replica(id).await });
    let written = async {
        other.put("a key", "a value").await.unwrap();
        dropped.await.unwrap().unwrap();
        other.put("a key", "another").await.unwrap();
    };
    tokio::time::timeout(LONG, written).await.expect("nobody is held up");
}

/// Who watches a replica that is dropped is told, and a handle of before is to the same one when it is here again.
#[tokio::test]
async fn b55_who_watches_a_dropped_replica_is_told_and_old_handles_are_to_the_new_one() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let (left, ticket) = shared(&a).await;
    let right = b.join(ticket.clone()).await.unwrap();
    synced(&b, &right, &a).await;
    let mut watch = right.watch("", right.head());
    let waiting = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    b.drop_replica(right.id()).await.unwrap();
    let told = tokio::time::timeout(LONG, waiting).await.expect("it is told").unwrap();
    assert!(matches!(told, Err(ManagerError::Store(StoreError::UnknownReplica(_)))), "{told:?}");
    let again = b.join(ticket).await.unwrap();
    synced(&b, &again, &a).await;
    let mut watch = right.watch("", right.head());
    left.put("seen by", "both").await.unwrap();
    let entry = tokio::time::timeout(LONG, watch.next()).await.expect("it arrives").unwrap();
    assert_eq!(entry.entry.op.key_bytes().as_ref(), b"seen by");
    assert_eq!(right.head(), again.head());
}

/// Who waits for a write may give up, a timeout say; what has begun is written all the same, and then it is owed to peers.
#[tokio::test]
async fn b53_a_write_whose_caller_gave_up_is_offered_and_told_like_any_other() {
    let network = MemoryNetwork::new();
    let (a, b) = (node(&network, "a").await, node(&network, "b").await);
    let (left, ticket) = shared(&a).await;
    let right = b.join(ticket).await.unwrap();
    synced(&b, &right, &a).await;
    let mut events = a.events();
    let mut arrives = right.watch("", right.head());
    assert!(begun(left.put("given up", "a value")).await, "it waits for its flush");
    let entry = tokio::time::timeout(LONG, arrives.next()).await.expect("it arrives").unwrap();
    assert_eq!(entry.entry.op.key_bytes().as_ref(), b"given up");
    let written =
        async { while events.recv().await.unwrap() != (Event::Written { replica: left.id(), entries: 1 }) {} };
    tokio::time::timeout(LONG, written).await.expect("it is told");
}
