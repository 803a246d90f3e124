//! Long values: their entries come first, their bytes by and by, from whoever has them.

use sync_core::{
    machine::Event,
    manager::{Access, ManagerError, Replica, SyncManager},
    model::{Hash, Op, Value},
    store::ContentStatus,
};

use crate::common::*;

everywhere! {
    b73_a_file_goes_in_here_and_comes_out_there
}

on_every_wire! {
    b37_a_value_of_64_mib_passes
}

/// Bytes that repeat nowhere.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = sync_core::testing::random::Random::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes()).take(len).collect()
}

async fn blob_of(replica: &Replica, key: &str) -> Hash {
    match replica.get(key).await.unwrap().unwrap().entry.op {
        Op::Put { value: Value::Blob { hash, .. }, .. } => hash,
        other => panic!("{other:?} is no blob"),
    }
}

/// Waits until the content at a key is here.
async fn content_ready(node: &SyncManager, replica: &Replica, key: &str) {
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
    assert_eq!(third.content_status(hash).await.unwrap(), ContentStatus::Missing);
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
