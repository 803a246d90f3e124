//! Long values: their entries come first, their bytes by and by, from whoever has them.

use sync_core::{
    machine::Event,
    manager::{Access, DownloadPolicy, ManagerError, Replica, SyncManager},
    model::{Hash, HybridClock, Key, Op, Prefix, Timestamp, Value, sign_commit},
    store::{Apply, ContentStatus, Origin},
};

use crate::common::*;

everywhere! {
    b73_a_file_goes_in_here_and_comes_out_there
}

on_every_wire! {
    b37_a_value_of_64_mib_passes
    b64_a_planted_reference_gives_no_byte_of_another_replica
    b64_equal_content_of_two_replicas_arrives_in_both_and_moves_once
}

/// Bytes that repeat nowhere.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = sync_core::testing::random::Random::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes()).take(len).collect()
}

pub async fn blob_of(replica: &Replica, key: &str) -> Hash {
    match replica.get(key).await.unwrap().unwrap().entry.op {
        Op::Put { value: Value::Blob { hash, .. }, .. } => hash,
        other => panic!("{other:?} is no blob"),
    }
}

/// Waits until the content at a key is here.
pub async fn content_ready(node: &SyncManager, replica: &Replica, key: &str) {
    let mut events = node.events();
    let hash = blob_of(replica, key).await;
    while !matches!(replica.content_status(hash).await.unwrap(), ContentStatus::Complete { .. }) {
        event(&mut events, "content becomes ready", |event| *event == Event::ContentReady { hash }).await;
    }
}

async fn b37_a_value_of_64_mib_passes(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let value = bytes(64 << 20, 37);
    left.put("large", value.clone()).await.unwrap();
    left.put("small", "x").await.unwrap();
    // Entries go first: a small change is not behind a large content.
    reads(&right, "small", "x").await;
    content_ready(&b, &right, "large").await;
    assert!(right.read("large").await.unwrap().unwrap() == value, "every byte");
    assert_eq!(b.status().await.unwrap().replicas[0].blobs_missing, 0);
    drop(a);
}

async fn b73_a_file_goes_in_here_and_comes_out_there(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let dir = tempfile::tempdir().unwrap();
    for (len, is_blob) in [(0, false), (16 * 1024, false), (16 * 1024 + 1, true), (1 << 20, true)] {
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, bytes(len, len as u64)).unwrap();
        let key = format!("{len}");
        assert_eq!(left.put_file(&key, &from).await.unwrap(), len as u64);
        equal(&[&left, &right]).await;
        if is_blob {
            content_ready(&b, &right, &key).await;
        }
        assert!(right.export(&key, &to).await.unwrap());
        assert!(std::fs::read(&to).unwrap() == bytes(len, len as u64), "{len} bytes");
    }
    assert!(!right.export("nothing", dir.path().join("nothing")).await.unwrap());
    assert!(!dir.path().join("nothing").exists());
    assert!(left.put_file("k", dir.path().join("absent")).await.is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    drop(a);
}

#[tokio::test]
async fn b48_pending_content_is_ready_once_when_nothing_of_a_replica_is_left() {
    let world = World::new(Wire::Quic, Keep::Redb);
    let Pair { a, b, left, right } = pair(&world).await;
    let mut events = b.events();
    let ready = Event::PendingContentReady { replica: left.id() };
    // One commit of many contents, large and small, some of which the policy leaves out.
    right.set_download_policy(DownloadPolicy::EverythingExcept(vec![Prefix::new("video/").unwrap()])).await.unwrap();
    for round in 0..3 {
        let mut all = left.write();
        for number in 0..20_usize {
            all.put(format!("{round} {number}"), bytes(17_000 * (number + 1), (round * 100 + number) as u64))
                .await
                .unwrap();
            all.put(format!("video/{round} {number}"), bytes(20_000 + number, 7_000 + round as u64)).await.unwrap();
        }
        all.commit().await.unwrap();
        let mut arrived = 0;
        event(&mut events, "all of it is ready", |event| {
            arrived += usize::from(matches!(event, Event::ContentReady { .. }));
            *event == ready
        })
        .await;
        assert_eq!(arrived, 20, "not before the last");
    }
    fill(&left, "more ", 3).await;
    equal(&[&left, &right]).await;
    assert!(!past(&mut events).contains(&ready), "once each");
    drop(a);
}

#[tokio::test]
async fn b69_b70_what_nobody_has_now_is_wanted_over_a_restart_and_arrives_when_somebody_has_it() {
    let world = World::new(Wire::Quic, Keep::Redb);
    let Pair { a, b, left, right } = pair(&world).await;
    let mut events = b.events();
    let value = bytes(48 << 20, 70);
    left.put("large", value.clone()).await.unwrap();
    event(&mut events, "the entry is here first", |event| matches!(event, Event::Received { .. })).await;
    a.remove_transport("quic").await.unwrap();
    let hash = blob_of(&right, "large").await;
    let status = right.content_status(hash).await.unwrap();
    assert!(!matches!(status, ContentStatus::Complete { .. }), "{status:?}");
    assert!(matches!(right.read("large").await, Err(ManagerError::ContentMissing)));
    b.status_when(LONG, |status| status.replicas[0].blobs_missing == 1).await.unwrap();
    // A third node gets the entry, and wants what its only neighbour does not have.
    let c = world.node("c").await;
    let third = join(&right, &c, Access::READ).await;
    assert!(!matches!(third.content_status(hash).await.unwrap(), ContentStatus::Complete { .. }));
    b.shutdown(LONG).await.unwrap();
    let id = right.id();
    drop((b, right));
    let b = world.node("b").await;
    let right = b.open_replica(id).await.unwrap();
    assert!(matches!(right.read("large").await, Err(ManagerError::ContentMissing)));
    // Somebody who has it comes back: it arrives everywhere, through the node between.
    world.register(&a, "quic", world.wire, "a").await;
    a.accept_connections().await.unwrap();
    a.add_peer(b.node_id(), b.addresses().await.unwrap()).await.unwrap();
    content_ready(&b, &right, "large").await;
    content_ready(&c, &third, "large").await;
    assert!(third.read("large").await.unwrap().unwrap() == value);
}

/// The old version is here: of the new one only the tree and what changed moves, whoever wrote the two.
#[tokio::test]
async fn b18_a_new_version_of_a_large_value_moves_what_changed() {
    let world = World::new(Wire::Quic, Keep::Redb);
    let Pair { a, b, left, right } = pair(&world).await;
    let mut value = bytes(16 << 20, 18);
    let len = value.len() as u64;
    left.put("large", value.clone()).await.unwrap();
    equal(&[&left, &right]).await;
    content_ready(&b, &right, "large").await;
    for (number, (from, to, node)) in
        [(&left, &right, &b), (&right, &left, &a), (&left, &right, &b)].into_iter().enumerate()
    {
        let before = node.status().await.unwrap().content_bytes;
        let at = (number + 1) * 3_000_000;
        value[at..at + 65_536].iter_mut().for_each(|byte| *byte ^= 0x55);
        from.put("large", value.clone()).await.unwrap();
        equal(&[&left, &right]).await;
        content_ready(node, to, "large").await;
        assert!(to.read("large").await.unwrap().unwrap() == value);
        let after = node.status().await.unwrap().content_bytes;
        let received = after.received - before.received;
        // 64 bytes of tree for each of 1,024 groups, and few groups.
        assert!(received < 64 * 1024 + 12 * 16_384 + 16_384, "{number}: {received} bytes");
        assert!(after.reused - before.reused > len - 12 * 16_384, "{number}");
    }
}

/// Writes an entry that names a content which its author does not have.
async fn plant(node: &SyncManager, replica: &Replica, key: &str, hash: Hash, len: u64) {
    let author = node.export_author(node.default_author()).await.unwrap();
    let op = Op::Put { key: Key::try_from(key).unwrap(), value: Value::Blob { hash, len } };
    let newest = HybridClock::new(replica.state().await.unwrap().newest);
    let bundles = vec![sign_commit(replica.id(), &author, &newest, Timestamp(0), vec![op]).unwrap()];
    let now = newest.newest();
    let batch = Apply { replica: replica.id(), bundles, origin: Origin::Local, now, records: Vec::new() };
    node.store().apply(batch).await.unwrap();
    // Written beneath the manager, it is noticed when the replica is opened.
    node.open_replica(replica.id()).await.unwrap();
}

/// The story: content is kept once for all replicas of a node, and whoever could write to one of
/// them and knew a hash was served what another one had.
async fn b64_a_planted_reference_gives_no_byte_of_another_replica(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let secret = a.create_replica().await.unwrap();
    let value = bytes(300_000, 64);
    secret.put("secret", value.clone()).await.unwrap();
    let hash = blob_of(&secret, "secret").await;
    plant(&b, &right, "planted", hash, value.len() as u64).await;
    let mut honest = 0;
    // What is asked for after it arrives, twice: by then it was asked for, too.
    for (key, len) in [("first", 100_000), ("second", 200_000)] {
        left.put(key, bytes(len, len as u64)).await.unwrap();
        honest += len;
        equal(&[&left, &right]).await;
        content_ready(&b, &right, key).await;
    }
    assert_eq!(blob_of(&left, "planted").await, hash, "the entry is there");
    assert_eq!(b.store().content_status(hash).await.unwrap(), ContentStatus::Missing);
    assert!(matches!(right.read("planted").await, Err(ManagerError::ContentMissing)));
    let received = b.status().await.unwrap().content_bytes.received;
    assert!(received < honest as u64 * 101 / 100, "{received} bytes for {honest}");
    // Both want it in this replica, and neither has been given it.
    assert_eq!(b.status().await.unwrap().replicas[0].blobs_missing, 1);
    let status = a.status().await.unwrap();
    assert_eq!(status.replicas.iter().find(|replica| replica.id == left.id()).unwrap().blobs_missing, 1);
    // Who has the bytes may write them into it: that is no planting.
    left.put("planted", value.clone()).await.unwrap();
    content_ready(&b, &right, "planted").await;
    assert!(right.read("planted").await.unwrap().unwrap() == value);
    let status = a.status().await.unwrap();
    assert!(status.replicas.iter().all(|replica| replica.blobs_missing == 0), "{status:?}");
}

async fn b64_equal_content_of_two_replicas_arrives_in_both_and_moves_once(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let second = a.create_replica().await.unwrap();
    let second_right = join(&second, &b, Access::READ).await;
    let value = bytes(3 << 20, 64);
    left.put("one", value.clone()).await.unwrap();
    second.put("other", value.clone()).await.unwrap();
    equal(&[&left, &right]).await;
    equal(&[&second, &second_right]).await;
    let status = b.status_when(LONG, |status| status.replicas.iter().all(|replica| replica.blobs_missing == 0)).await;
    let received = status.unwrap().content_bytes.received;
    assert!(received < value.len() as u64 * 102 / 100, "{received} bytes");
    assert!(right.read("one").await.unwrap().unwrap() == value);
    assert!(second_right.read("other").await.unwrap().unwrap() == value);
    // It is for the peers of both: a third node gets it from the second, in a replica where it was only proved.
    a.remove_transport(world.wire.name()).await.unwrap();
    for replica in [&right, &second_right] {
        let c = world.node(&format!("c{}", replica.id().short())).await;
        let joined = join(replica, &c, Access::READ).await;
        let key = if replica.id() == right.id() { "one" } else { "other" };
        content_ready(&c, &joined, key).await;
    }
}
