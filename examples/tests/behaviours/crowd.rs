//! Many replicas and peers on one node: none waits for another.

use sync_core::{machine::Event, manager::Access};

use crate::common::*;

everywhere! {
    ten_replicas_on_one_node_are_synced_at_once
}

on_every_wire! {
    b34_many_messages_in_one_frame_have_the_effect_of_the_same_singly
    b35_one_huge_sync_delays_nobody_else
}

async fn ten_replicas_on_one_node_are_synced_at_once(world: World) {
    let (a, b) = (world.node("a").await, world.node("b").await);
    let mut pairs = Vec::new();
    for n in 0..10 {
        let left = a.create_replica().await.unwrap();
        fill(&left, &format!("{n} "), 50).await;
        let right = b.join(left.share(Access::WRITE).await.unwrap()).await.unwrap();
        pairs.push((left, right));
    }
    let all = pairs.iter().map(|(left, right)| async move {
        left.put("from a", "1").await.unwrap();
        right.put("from b", "2").await.unwrap();
        equal(&[left, right]).await;
    });
    futures_util::future::join_all(all).await;
    for (n, (left, right)) in pairs.iter().enumerate() {
        assert_eq!(value(left, "from b").await.unwrap(), b"2");
        assert_eq!(value(right, &format!("{n} 00049")).await.unwrap(), format!("value of {n} 49").as_bytes());
        let other = (n + 1) % pairs.len();
        assert_eq!(value(right, &format!("{other} 00000")).await, None, "replicas are apart");
    }
    assert_eq!(b.peers().await.unwrap().len(), 1, "over one peer");
    assert_eq!(b.status().await.unwrap().replicas.len(), 10);
}

async fn b34_many_messages_in_one_frame_have_the_effect_of_the_same_singly(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    // Live, each write is a frame of its own; for who was away all of them share frames.
    for n in 0..60 {
        left.put(format!("{:02}", n % 20), format!("{n}")).await.unwrap();
        if n % 7 == 0 {
            left.delete(format!("{:02}", (n + 3) % 20)).await.unwrap();
        }
    }
    equal(&[&left, &right]).await;
    let c = world.node("c").await;
    let third = join(&left, &c, Access::READ).await;
    equal(&[&left, &right, &third]).await;
    let frames = |status: sync_core::machine::PeerStatus| status.traffic.messages;
    let live = frames(peer_status(&b, left.id(), a.node_id()).await.unwrap());
    let whole = frames(peer_status(&c, left.id(), a.node_id()).await.unwrap());
    assert!(whole < live, "{whole} messages at once, {live} one by one");
    for n in 0..20 {
        let key = format!("{n:02}");
        assert_eq!(value(&third, &key).await, value(&right, &key).await, "{key}");
    }
}

async fn b35_one_huge_sync_delays_nobody_else(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let c = world.node("c").await;
    let huge = a.create_replica().await.unwrap();
    for batch in 0..40 {
        let mut transaction = huge.write();
        for n in 0..1000 {
            transaction.put(format!("{batch:02}/{n:03}"), vec![batch as u8; 300]).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
    let mut events = c.events();
    let copy = c.join(huge.share(Access::READ).await.unwrap()).await.unwrap();
    event(&mut events, "the huge sync is under way", |event| matches!(event, Event::Received { .. })).await;
    left.put("small", "x").await.unwrap();
    reads(&right, "small", "x").await;
    let total = huge.state().await.unwrap().root.count;
    let so_far = copy.state().await.unwrap().root.count;
    assert!(so_far < total, "the small change did not wait for {total} entries");
    c.wait_synced(copy.id(), a.node_id(), LONG).await.unwrap();
    drop(b);
}

#[tokio::test]
async fn b49_a_peer_that_is_linked_and_does_not_read_delays_no_other() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let Pair { a, b, left, right } = pair(&world).await;
    let c = world.node("c").await;
    let third = join(&left, &c, Access::READ).await;
    world.network.freeze("c");
    // More than any queue or window holds.
    for batch in 0..24 {
        let mut transaction = left.write();
        for n in 0..64 {
            transaction.put(format!("{batch:02}/{n:02}"), vec![batch as u8; 16 * 1024]).await.unwrap();
        }
        transaction.commit().await.unwrap();
        equal(&[&left, &right]).await;
    }
    assert!(third.state().await.unwrap().root.count < 64);
    world.network.thaw("c");
    equal(&[&left, &right, &third]).await;
    drop((a, b, c));
}
