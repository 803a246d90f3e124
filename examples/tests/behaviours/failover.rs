//! Two ways between two nodes: the one in use dies, and it goes on over the other.

use std::{sync::atomic::Ordering, time::Instant};

use sync_core::{
    machine::{Event, SyncOutcome},
    manager::Access,
};

use crate::common::*;

/// The size of a value.
const VALUE_LEN: usize = 4096;

/// The transport in use is cut in the middle of a first sync of 10 MB; it goes on over the other. What had arrived is
/// not sent again, and a sender has no more than a twentieth on its way on a link that is given up.
#[tokio::test]
async fn b12_a_first_sync_goes_on_over_the_other_transport_and_little_is_sent_twice() {
    const ENTRIES: u64 = 2_600;
    let ways = [(Wire::Quic, Wire::Http), (Wire::Http, Wire::Quic), (Wire::Iroh, Wire::Http), (Wire::Quic, Wire::Iroh)];
    for (first, second) in ways {
        let world = World::new(first, Keep::Memory);
        let a = world.node_on("a", &[first, second]).await;
        // B reads no more than a fifth of it by either way.
        let b = world.builder("b").spawn().await.unwrap();
        let mut moods = Vec::new();
        for wire in [first, second] {
            let (transport, mood) = Moody::new(world.transport(wire, "b").await);
            mood.freezes_after.store(VALUE_LEN * ENTRIES as usize / 5, Ordering::SeqCst);
            b.add_transport(wire.name(), transport).await.unwrap();
            moods.push(mood);
        }
        let left = a.create_replica().await.unwrap();
        for batch in 0..ENTRIES / 100 {
            let mut transaction = left.write();
            for n in 0..100 {
                transaction.put(format!("{batch:02}/{n:03}"), vec![batch as u8; VALUE_LEN]).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        let mut ticket = left.share(Access::READ).await.unwrap();
        ticket.addresses.sort_by_key(|address| address.scheme() != first.scheme());
        let mut events = b.events();
        let right = b.join(ticket).await.unwrap();
        let mut sessions = 0;
        event(&mut events, "entries arrive", |event| {
            sessions += u64::from(matches!(event, Event::SyncStarted { .. }));
            sessions > 0 && matches!(event, Event::Received { .. })
        })
        .await;
        // The first address has a head start, which a busy machine may eat.
        let used = peer_status(&b, right.id(), a.node_id()).await.unwrap().transport.expect("it is being synced");
        let other = if used == first.name() { second.name() } else { first.name() };
        a.remove_transport(&used).await.unwrap();
        let cut = Instant::now();
        moods.iter().for_each(|mood| mood.freezes_after.store(0, Ordering::SeqCst));
        let left_to_do = ENTRIES - right.state().await.unwrap().root.count.min(ENTRIES);
        assert!(left_to_do > ENTRIES / 2, "it was not cut in the middle: {left_to_do} are left");
        event(&mut events, "entries arrive again", |event| {
            sessions += u64::from(matches!(event, Event::SyncStarted { .. }));
            sessions > 1 && matches!(event, Event::Received { .. })
        })
        .await;
        let resumed = cut.elapsed();
        b.wait_synced(right.id(), a.node_id(), LONG).await.unwrap();
        equal(&[&left, &right]).await;
        sessions += past(&mut events).iter().filter(|event| matches!(event, Event::SyncStarted { .. })).count() as u64;
        let given_up = sessions - 1;
        let now = peer_status(&b, right.id(), a.node_id()).await.unwrap();
        assert_eq!(now.transport.as_deref(), Some(other));
        let sent = peer_status(&a, left.id(), b.node_id()).await.unwrap().traffic.sent;
        let total = left.state().await.unwrap().root.count;
        println!("{used}: resumed after {resumed:?}, {sent} entries sent for {total}, links given up: {given_up}");
        assert!(
            sent <= total + given_up * total / 20,
            "{used}: {sent} entries sent for {total}, links given up: {given_up}, cut with {left_to_do} to do"
        );
    }
}

#[tokio::test]
async fn b12_two_links_carry_each_entry_once_and_the_peer_is_gone_with_the_last() {
    let world = World::new(Wire::Quic, Keep::Memory);
    let wires = [Wire::Quic, Wire::Http, Wire::Iroh];
    let a = world.node_on("a", &wires).await;
    let b = world.node_on("b", &wires).await;
    let left = a.create_replica().await.unwrap();
    fill(&left, "base ", 100).await;
    let right = join(&left, &b, Access::WRITE).await;
    // A second and a third link, each by its address.
    for address in a.addresses().await.unwrap() {
        let report = b.sync_with(address, right.id(), LONG).await.unwrap();
        assert_eq!(report.outcome, SyncOutcome::Synced);
    }
    assert_eq!(b.peers().await.unwrap()[0].links.len(), 3);
    a.flush(LONG).await.unwrap();
    b.flush(LONG).await.unwrap();
    let before = peer_status(&b, right.id(), a.node_id()).await.unwrap().traffic;
    let mut events = b.events();
    for round in 0..3 {
        fill(&left, &format!("left {round} "), 50).await;
        fill(&right, &format!("right {round} "), 50).await;
        equal(&[&left, &right]).await;
        a.flush(LONG).await.unwrap();
        b.flush(LONG).await.unwrap();
        let moved = peer_status(&b, right.id(), a.node_id()).await.unwrap().traffic.since(&before);
        assert_eq!((moved.sent, moved.received), (50 * (round + 1), 50 * (round + 1)), "each once, round {round}");
        if round < 2 {
            let used = peer_status(&b, right.id(), a.node_id()).await.unwrap().transport.unwrap();
            a.remove_transport(&used).await.unwrap();
            // What is written while the next link is taken into use may be sent over it once more.
            for (node, peer) in [(&a, b.node_id()), (&b, a.node_id())] {
                peer_is(node, left.id(), peer, "it goes on over another link", |peer| {
                    peer.synced && peer.transport.as_ref().is_some_and(|now| *now != used)
                })
                .await;
                node.flush(LONG).await.unwrap();
            }
        }
    }
    assert!(!past(&mut events).iter().any(|event| matches!(event, Event::PeerDown { .. })), "a link was always left");
    let last = peer_status(&b, right.id(), a.node_id()).await.unwrap().transport.unwrap();
    a.remove_transport(&last).await.unwrap();
    event(&mut events, "the last link is gone", |event| matches!(event, Event::PeerDown { .. })).await;
}
