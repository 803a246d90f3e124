//! Two and more nodes become equal, and stay so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use sync_core::{
    machine::{Event, PeerState, SyncOutcome},
    manager::{Access, ManagerError, Replica, SyncManager},
    model::{ReplicaId, SecretKey, Timestamp},
    store::{NodeKind, Query, Select, StoreError},
};

use crate::{common::*, registry::port_is_free};

everywhere! {
    b17_first_contact_syncs_everything_in_one_call
    b18_what_moves_follows_the_difference
    b19_reconnecting_costs_what_changed_and_nothing_when_equal
    b20_a_wiped_peer_is_filled_again_and_no_edit_is_lost
    b46_what_was_syncing_before_a_restart_syncs_after_it
}

on_every_wire! {
    b17_a_wrong_or_unknown_replica_is_an_error_and_stores_nothing
    b28_a_hub_forwards_to_all_others_and_never_back_to_the_source
    b33_a_late_older_value_never_moves_anything_back
    b11_dialling_each_other_at_once_ends_with_one_session
    b23_one_key_written_by_several_authors_reads_the_same_everywhere
    b24_a_partition_heals_with_no_local_action
    b25_one_session_at_a_time_and_no_ask_is_left_without_an_answer
    b29_only_what_the_peer_confirmed_is_called_synced
    b29_a_refused_write_shows_as_refused_at_its_writer
    b33_a_clock_ten_days_behind_writes_after_what_it_has_seen
    b33_a_clock_ten_days_ahead_is_refused_until_it_is_right_and_moves_nothing_back
    b33_a_newer_state_replaces_what_waits_for_its_retry
}

async fn b17_first_contact_syncs_everything_in_one_call(world: World) {
    let (a, b) = (world.node("a").await, world.node("b").await);
    let left = a.create_replica().await.unwrap();
    fill(&left, "key ", 2000).await;
    left.delete("key 00007").await.unwrap();
    left.delete_prefix("key 0001").await.unwrap();
    let mut ticket = left.share(Access::WRITE).await.unwrap();
    let address = ticket.addresses[0].clone();
    (ticket.peer, ticket.addresses) = (None, Vec::new());
    let right = b.join(ticket).await.unwrap();
    let report = b.sync_with(address, right.id(), LONG).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Synced);
    assert_eq!(report.peer, Some(a.node_id()));
    assert_eq!(right.state().await.unwrap().root, left.state().await.unwrap().root);
    assert_eq!(value(&right, "key 00007").await, None);
    assert_eq!(value(&right, "key 00012").await, None);
    assert_eq!(value(&right, "key 01999").await.unwrap(), b"value of key 1999");
    // Live from now on, both ways.
    right.put("from b", "hello").await.unwrap();
    reads(&left, "from b", "hello").await;
    left.put("from b", "answer").await.unwrap();
    reads(&right, "from b", "answer").await;
}

async fn b17_a_wrong_or_unknown_replica_is_an_error_and_stores_nothing(world: World) {
    let world = World::new(world.wire, Keep::Redb);
    let (a, b) = (world.node("a").await, world.node("b").await);
    let here = b.create_replica().await.unwrap();
    let unknown = ReplicaId(SecretKey::generate().public());
    let address = a.addresses().await.unwrap()[0].clone();
    let report = b.sync_with(address.clone(), unknown, LONG).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::UnknownReplica);
    assert!(matches!(
        b.open_replica(unknown).await,
        Err(ManagerError::Store(StoreError::UnknownReplica(id))) if id == unknown
    ));
    // The other side does not have ours, and gets nothing of it.
    let report = b.sync_with(address, here.id(), LONG).await.unwrap();
    assert!(matches!(report.outcome, SyncOutcome::Refused(_)), "{report:?}");
    assert!(a.replicas().await.unwrap().is_empty());
    assert_eq!(b.replicas().await.unwrap(), [here.id()]);
    a.shutdown(LONG).await.unwrap();
    drop(a);
    let jobs = world.store("a").node_records(NodeKind::Job).await.unwrap();
    assert_eq!(jobs, [], "nothing is owed to whoever names a replica");
}

async fn b18_what_moves_follows_the_difference(world: World) {
    const SHARED: usize = 3000;
    let Pair { a, b, left, right } = pair(&world).await;
    fill(&left, "shared ", SHARED).await;
    equal(&[&left, &right]).await;
    a.flush(LONG).await.unwrap();
    for (case, (ahead, behind)) in [(20, 0), (0, 20), (20, 20)].into_iter().enumerate() {
        b.remove_transport(world.wire.name()).await.unwrap();
        if ahead > 0 {
            fill(&left, &format!("{case} left "), ahead).await;
        }
        if behind > 0 {
            fill(&right, &format!("{case} right "), behind).await;
        }
        let before = peer_status(&b, right.id(), a.node_id()).await.unwrap().traffic;
        world.register(&b, world.wire.name(), world.wire, "b").await;
        let report = b.sync_with(a.node_id(), right.id(), LONG).await.unwrap();
        assert_eq!(report.outcome, SyncOutcome::Synced);
        let after = peer_is(&b, right.id(), a.node_id(), "all is confirmed", |peer| peer.pending == 0).await;
        let moved = after.traffic.since(&before);
        let context = format!("{ahead} ahead, {behind} behind: {moved:?}");
        assert_eq!((moved.received, moved.sent), (ahead as u64, behind as u64), "{context}");
        assert!(moved.bytes_sent + moved.bytes_received < 1500 + 300 * (ahead + behind) as u64, "{context}");
        assert_eq!(right.state().await.unwrap().root, left.state().await.unwrap().root);
    }
}

async fn b19_reconnecting_costs_what_changed_and_nothing_when_equal(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    fill(&left, "key ", 1000).await;
    equal(&[&left, &right]).await;
    a.flush(LONG).await.unwrap();
    b.flush(LONG).await.unwrap();
    b.shutdown(LONG).await.unwrap();
    let (id, peer) = (left.id(), a.node_id());
    drop((b, right));
    // It comes back and does not listen, so that only one side opens.
    let b = world.builder("b").spawn().await.unwrap();
    let mut events = b.events();
    world.register(&b, world.wire.name(), world.wire, "b").await;
    event(&mut events, "the node is synced again", |event| matches!(event, Event::Synced { .. })).await;
    let traffic = peer_status(&b, id, peer).await.unwrap().traffic;
    assert_eq!((traffic.sent, traffic.received, traffic.messages, traffic.round_trips), (0, 0, 2, 1));
    assert!(traffic.bytes_sent + traffic.bytes_received <= 400, "{traffic:?}");
    b.shutdown(LONG).await.unwrap();
    drop(b);
    fill(&left, "meanwhile ", 10).await;
    let b = world.builder("b").spawn().await.unwrap();
    world.register(&b, world.wire.name(), world.wire, "b").await;
    let right = b.open_replica(id).await.unwrap();
    equal(&[&left, &right]).await;
    let traffic = peer_is(&b, id, peer, "it is synced", |peer| peer.synced).await.traffic;
    assert_eq!((traffic.sent, traffic.received), (0, 10), "{traffic:?}");
}

async fn b20_a_wiped_peer_is_filled_again_and_no_edit_is_lost(world: World) {
    let key = SecretKey::generate();
    let a = world.node("a").await;
    let left = a.create_replica().await.unwrap();
    let b = world.start(world.builder("b").node_key(key.clone()), "b", &[world.wire]).await;
    let right = join(&left, &b, Access::WRITE).await;
    fill(&left, "from a ", 50).await;
    fill(&right, "from b ", 50).await;
    equal(&[&left, &right]).await;
    b.flush(LONG).await.unwrap();
    let ticket = left.share(Access::WRITE).await.unwrap();
    b.shutdown(LONG).await.unwrap();
    drop((b, right));
    world.wipe("b");
    fill(&left, "while away ", 10).await;
    let b = world.start(world.builder("b").node_key(key), "b", &[world.wire]).await;
    let right = b.join(ticket).await.unwrap();
    // An edit before it has met anyone again.
    right.put("early edit", "kept").await.unwrap();
    equal(&[&left, &right]).await;
    assert_eq!(value(&left, "early edit").await.unwrap(), b"kept");
    assert_eq!(value(&right, "from b 00049").await.unwrap(), b"value of from b 49", "its own come back");
    assert_eq!(value(&right, "while away 00009").await.unwrap(), b"value of while away 9");
    a.flush(LONG).await.unwrap();
    b.flush(LONG).await.unwrap();
}

async fn b46_what_was_syncing_before_a_restart_syncs_after_it(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let (id, other, address) = (left.id(), a.addresses().await.unwrap(), b.addresses().await.unwrap());
    a.flush(LONG).await.unwrap();
    b.flush(LONG).await.unwrap();
    a.shutdown(LONG).await.unwrap();
    b.shutdown(LONG).await.unwrap();
    drop((a, b, left, right));
    for address in other.iter().chain(&address) {
        port_is_free(address).await;
    }
    // Both come back; nobody opens, joins or adds anything.
    let (a, b) = (world.node("a").await, world.node("b").await);
    assert_eq!(b.addresses().await.unwrap(), address);
    let of_a = peer_is(&a, id, b.node_id(), "a syncs with b", |peer| peer.synced).await.traffic;
    let of_b = peer_is(&b, id, a.node_id(), "b syncs with a", |peer| peer.synced).await.traffic;
    // Both are up, know each other and dial: one of them asks, once, and is answered. When both dial at once, one of
    // the two links is given up, and what was asked over it is asked again.
    assert_eq!((of_a.sent, of_a.received, of_b.sent, of_b.received), (0, 0, 0, 0), "{of_a:?} {of_b:?}");
    assert!((1..=3).contains(&of_a.round_trips.max(of_b.round_trips)), "{of_a:?} {of_b:?}");
    let (left, right) = (a.open_replica(id).await.unwrap(), b.open_replica(id).await.unwrap());
    left.put("after", "restart").await.unwrap();
    reads(&right, "after", "restart").await;
}

async fn b11_dialling_each_other_at_once_ends_with_one_session(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let id = left.id();
    let (peer_a, peer_b) = (a.node_id(), b.node_id());
    a.add_peer(peer_b, b.addresses().await.unwrap()).await.unwrap();
    fill(&left, "base ", 50).await;
    equal(&[&left, &right]).await;
    b.flush(LONG).await.unwrap();
    a.flush(LONG).await.unwrap();
    let before = peer_status(&a, id, peer_b).await.unwrap().traffic;
    for round in 0..5 {
        // Both lose the other at once, and both dial.
        a.block_peer(peer_b).await.unwrap();
        b.block_peer(peer_a).await.unwrap();
        let (first, second) = tokio::join!(a.unblock_peer(peer_b), b.unblock_peer(peer_a));
        first.and(second).unwrap();
        a.retry_now().await.unwrap();
        b.retry_now().await.unwrap();
        let (first, second) = tokio::join!(a.sync_with(peer_b, id, LONG), b.sync_with(peer_a, id, LONG));
        assert_eq!(first.unwrap().outcome, SyncOutcome::Synced, "round {round}");
        assert_eq!(second.unwrap().outcome, SyncOutcome::Synced, "round {round}");
        fill(&left, &format!("left {round} "), 5).await;
        fill(&right, &format!("right {round} "), 5).await;
        equal(&[&left, &right]).await;
        a.flush(LONG).await.unwrap();
        b.flush(LONG).await.unwrap();
    }
    assert_eq!(a.live_peers(id).await.unwrap(), [peer_b]);
    assert_eq!(b.live_peers(id).await.unwrap(), [peer_a]);
    // Each entry of the ten rounds was sent once. What was on its way over a link that was given up for the other one
    // is sent again over that.
    let moved = peer_status(&a, id, peer_b).await.unwrap().traffic.since(&before);
    for entries in [moved.sent, moved.received] {
        assert!((25..=100).contains(&entries), "{moved:?}");
    }
}

async fn b23_one_key_written_by_several_authors_reads_the_same_everywhere(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let c = world.node("c").await;
    let third = join(&left, &c, Access::WRITE).await;
    let all = [&left, &right, &third];
    tokio::try_join!(left.put("k", "from a"), right.put("k", "from b"), third.put("k", "from c")).unwrap();
    equal(&all).await;
    let newest = left.get("k").await.unwrap().unwrap();
    for replica in all {
        assert_eq!(replica.get("k").await.unwrap().unwrap().hash, newest.hash);
        let values = replica.get_all("k").await.unwrap();
        assert_eq!(values.len(), 3);
        assert_eq!(values[0].hash, newest.hash, "the newest first");
    }
    // Another author's put takes nothing away; a delete takes all.
    right.put("k", "again").await.unwrap();
    equal(&all).await;
    assert_eq!(third.get_all("k").await.unwrap().len(), 3);
    third.delete("k").await.unwrap();
    equal(&all).await;
    assert!(left.get_all("k").await.unwrap().is_empty());
    drop((a, b));
}

async fn b24_a_partition_heals_with_no_local_action(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let addresses = a.addresses().await.unwrap();
    let mut events = b.events();
    a.stop_accepting().await.unwrap();
    b.stop_accepting().await.unwrap();
    a.block_peer(b.node_id()).await.unwrap();
    let peer = a.node_id();
    event(&mut events, "b sees it", |event| matches!(event, Event::PeerDown { peer: gone } if *gone == peer)).await;
    fill(&left, "left ", 30).await;
    fill(&right, "right ", 30).await;
    left.delete("right 00001").await.unwrap();
    right.delete_prefix("left 0002").await.unwrap();
    assert_ne!(left.state().await.unwrap().root, right.state().await.unwrap().root);
    // The network comes back. B does nothing but what it does by itself.
    a.unblock_peer(b.node_id()).await.unwrap();
    a.accept_connections().await.unwrap();
    assert_eq!(a.addresses().await.unwrap(), addresses);
    equal(&[&left, &right]).await;
    assert_eq!(value(&left, "left 00021").await, None);
    b.flush(LONG).await.unwrap();
}

async fn b25_one_session_at_a_time_and_no_ask_is_left_without_an_answer(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let id = left.id();
    let asks = (0..40).map(|n| {
        let (from, to) = if n % 2 == 0 { (a.clone(), b.node_id()) } else { (b.clone(), a.node_id()) };
        let (left, right) = (left.clone(), right.clone());
        async move {
            let replica = if n % 3 == 0 { left } else { right };
            replica.put(format!("{n}"), "x").await.unwrap();
            if n % 10 == 9 {
                // Sessions break in between.
                from.block_peer(to).await.unwrap();
                from.unblock_peer(to).await.unwrap();
            }
            from.sync_with(to, id, LONG).await.unwrap().outcome
        }
    });
    for outcome in futures_util::future::join_all(asks).await {
        assert_eq!(outcome, SyncOutcome::Synced);
    }
    equal(&[&left, &right]).await;
    assert_eq!(a.live_peers(id).await.unwrap().len(), 1);
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Line,
    Star,
    Ring,
}

/// Nodes joined in a shape, each with a handle to the one replica.
async fn network(world: &World, shape: Shape, count: usize, wires: &[Wire]) -> Vec<(SyncManager, Replica)> {
    let mut nodes: Vec<(SyncManager, Replica)> = Vec::new();
    for n in 0..count {
        let wires = if wires.is_empty() {
            vec![world.wire]
        } else {
            vec![wires[n % wires.len()], wires[(n + 1) % wires.len()]]
        };
        let node = world.node_on(&format!("n{n}"), &wires).await;
        let replica = match nodes.last() {
            None => node.create_replica().await.unwrap(),
            Some(last) => {
                let from = if matches!(shape, Shape::Star) { &nodes[0] } else { last };
                // Invited by the owner, at the address of its neighbour.
                let mut ticket = nodes[0].1.share(Access::WRITE).await.unwrap();
                equal(&[&nodes[0].1, &from.1]).await;
                (ticket.peer, ticket.addresses) = (Some(from.0.node_id()), from.0.addresses().await.unwrap());
                let joined = node.join(ticket).await.unwrap();
                node.wait_synced(joined.id(), from.0.node_id(), LONG).await.unwrap();
                joined
            }
        };
        nodes.push((node, replica));
    }
    if matches!(shape, Shape::Ring) {
        let (first, last) = (&nodes[0].0, &nodes[count - 1].0);
        last.add_peer(first.node_id(), first.addresses().await.unwrap()).await.unwrap();
        last.subscribe(nodes[0].1.id(), first.node_id()).await.unwrap();
    }
    nodes
}

/// Everyone writes, overwrites and deletes at once, with a seed; then all are equal.
pub async fn churn(nodes: &[(SyncManager, Replica)], seed: u64) {
    let writers = nodes.iter().enumerate().map(|(n, (_, replica))| async move {
        let mut random = sync_core::testing::random::Random::new(seed.wrapping_mul(31).wrapping_add(n as u64));
        for step in 0..40 {
            let key = format!("{:02}", random.below(30));
            match random.below(6) {
                0 => replica.delete(&key).await.unwrap(),
                1 => replica.delete_prefix(&key[..1]).await.unwrap(),
                2 => fill(replica, &key, 3).await,
                _ => replica.put(&key, format!("{n} {step}")).await.unwrap(),
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let replicas: Vec<_> = nodes.iter().map(|(_, replica)| replica).collect();
    equal(&replicas).await;
    let mut contents = Vec::new();
    for replica in replicas {
        let query = Query { select: Select::All, tombstones: true, ..Query::default() };
        let hashes: Vec<_> = replica.query(query).await.unwrap().into_iter().map(|entry| entry.hash).collect();
        contents.push(hashes);
    }
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]), "equal roots, equal entries (seed {seed})");
}

#[tokio::test]
async fn b21_lines_stars_and_rings_converge_with_deletes_and_a_late_joiner() {
    for (shape, count, seed) in [(Shape::Line, 3, 1), (Shape::Star, 5, 2), (Shape::Ring, 5, 3), (Shape::Line, 7, 4)] {
        converges(World::new(Wire::Memory, Keep::Memory), shape, count, seed).await;
    }
}

#[tokio::test]
async fn b21_a_line_over_quic_on_disks_converges_with_deletes_and_a_late_joiner() {
    converges(World::new(Wire::Quic, Keep::Redb), Shape::Line, 4, 5).await;
}

#[tokio::test]
async fn b21_a_star_over_iroh_on_disks_converges_with_deletes_and_a_late_joiner() {
    converges(World::new(Wire::Iroh, Keep::Redb), Shape::Star, 4, 6).await;
}

#[tokio::test]
async fn b21_a_ring_over_http_on_disks_converges_with_deletes_and_a_late_joiner() {
    converges(World::new(Wire::Http, Keep::Redb), Shape::Ring, 4, 7).await;
}

async fn converges(world: World, shape: Shape, count: usize, seed: u64) {
    let mut nodes = network(&world, shape, count, &[]).await;
    churn(&nodes, seed).await;
    let late = world.node("late").await;
    let joined = join(&nodes[count / 2].1, &late, Access::WRITE).await;
    nodes.push((late, joined));
    churn(&nodes, seed + 100).await;
}

#[tokio::test]
async fn b21_a_ring_of_four_transports_converges_under_continuous_writes() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let nodes = network(&world, Shape::Ring, 4, &Wire::ALL).await;
    for seed in 10..13 {
        churn(&nodes, seed).await;
    }
}

#[tokio::test]
async fn b22_a_chain_over_two_transports_converges_and_what_was_lost_is_healed() {
    for (first, second) in [(Wire::Iroh, Wire::Http), (Wire::Quic, Wire::Memory), (Wire::Http, Wire::Quic)] {
        let world = World::new(first, Keep::Memory);
        let a = world.node_on("a", &[first]).await;
        let b = world.node_on("b", &[first, second]).await;
        let c = world.node_on("c", &[second]).await;
        let left = a.create_replica().await.unwrap();
        let middle = join(&left, &b, Access::WRITE).await;
        let right = join(&middle, &c, Access::WRITE).await;
        // b8: what came in by one transport reaches a peer on another through the shared node.
        left.put("a", "1").await.unwrap();
        reads(&right, "a", "1").await;
        right.put("c", "3").await.unwrap();
        reads(&left, "c", "3").await;
        assert!(a.peers().await.unwrap().iter().all(|peer| peer.id != c.node_id()), "they never met");
        // The node between is away while both ends write: the next exchange heals it.
        b.shutdown(LONG).await.unwrap();
        drop((b, middle));
        fill(&left, "left ", 20).await;
        fill(&right, "right ", 20).await;
        left.delete("c").await.unwrap();
        let b = world.node_on("b", &[first, second]).await;
        equal(&[&left, &right]).await;
        assert_eq!(value(&right, "c").await, None);
        drop(b);
    }
}

#[tokio::test]
async fn b8_data_that_came_in_by_one_transport_reaches_peers_on_all_others() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let hub = world.node_on("hub", &Wire::ALL).await;
    let replica = hub.create_replica().await.unwrap();
    let mut spokes = Vec::new();
    for wire in Wire::ALL {
        let spoke = world.node_on(wire.name(), &[wire]).await;
        let joined = join(&replica, &spoke, Access::WRITE).await;
        let used = peer_status(&spoke, joined.id(), hub.node_id()).await.unwrap().transport;
        assert_eq!(used.as_deref(), Some(wire.name()));
        spokes.push((wire, spoke, joined));
    }
    for (wire, _, joined) in &spokes {
        joined.put(wire.name(), "hello").await.unwrap();
        for (_, _, other) in &spokes {
            reads(other, wire.name(), "hello").await;
        }
    }
}

async fn b28_a_hub_forwards_to_all_others_and_never_back_to_the_source(world: World) {
    let nodes = network(&world, Shape::Star, 5, &[]).await;
    let (hub, id) = (&nodes[0].0, nodes[0].1.id());
    // What was there already counts as received nowhere: what came back to the source shows where it was sent.
    let both = async |spoke: &SyncManager| {
        let at_spoke = peer_is(spoke, id, hub.node_id(), "the spoke is synced", |peer| peer.synced).await;
        let at_hub = peer_is(hub, id, spoke.node_id(), "the hub is synced", |peer| peer.synced).await;
        (at_spoke.traffic, at_hub.traffic)
    };
    let mut before = Vec::new();
    for (spoke, replica) in &nodes[1..] {
        equal(&[&nodes[0].1, replica]).await;
        before.push(both(spoke).await);
    }
    fill(&nodes[1].1, "from one ", 100).await;
    let replicas: Vec<_> = nodes.iter().map(|(_, replica)| replica).collect();
    equal(&replicas).await;
    for (n, (spoke, _)) in nodes[1..].iter().enumerate() {
        let (at_spoke, at_hub) = both(spoke).await;
        let (at_spoke, at_hub) = (at_spoke.since(&before[n].0), at_hub.since(&before[n].1));
        let (from, to) = if n == 0 { (100, 0) } else { (0, 100) };
        assert_eq!((at_spoke.sent, at_spoke.received), (from, to), "spoke {n}");
        assert_eq!((at_hub.received, at_hub.sent), (from, to), "the hub with spoke {n}");
    }
}

/// A wall clock that stands apart from the true one, and can be set.
pub fn clock(offset_s: i64) -> (Arc<AtomicU64>, impl Fn() -> Timestamp + Send + Sync + 'static) {
    let offset = Arc::new(AtomicU64::new((offset_s * 1_000_000).cast_unsigned()));
    let read = offset.clone();
    let clock = move || {
        let true_time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64;
        Timestamp(true_time.wrapping_add(read.load(Ordering::SeqCst)))
    };
    (offset, clock)
}

const TEN_DAYS_S: i64 = 10 * 24 * 60 * 60;

async fn b33_a_clock_ten_days_behind_writes_after_what_it_has_seen(world: World) {
    let a = world.node("a").await;
    let left = a.create_replica().await.unwrap();
    left.put("k", "from a").await.unwrap();
    let (offset, behind) = clock(-TEN_DAYS_S);
    let b = world.start(world.builder("b").wall_clock(behind), "b", &[world.wire]).await;
    let right = b.join(left.share(Access::WRITE).await.unwrap()).await.unwrap();
    // B cannot believe entries of ten days ahead yet, and says so.
    let mut events = b.events();
    let about_clock = |obstacles: Vec<sync_core::machine::Obstacle>| {
        obstacles.into_iter().any(|obstacle| obstacle.cause.contains("clock") && obstacle.advice.contains("clock"))
    };
    soon("b says what is wrong with its clock", async {
        while !about_clock(b.why().await.unwrap()) {
            let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
        }
    })
    .await;
    assert!(value(&right, "k").await.is_none());
    // What it writes all the same comes after all that it has seen.
    right.put("k", "from b").await.unwrap();
    assert!(
        right.get("k").await.unwrap().unwrap().entry.timestamp > left.get("k").await.unwrap().unwrap().entry.timestamp
    );
    // Its clock is set right: nothing is lost, nothing moves back.
    offset.store(0, Ordering::SeqCst);
    let report = b.sync_with(a.node_id(), right.id(), LONG).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Synced);
    assert_eq!(value(&left, "k").await.unwrap(), b"from b");
    assert_eq!(value(&right, "k").await.unwrap(), b"from b");
    assert!(!about_clock(b.why().await.unwrap()));
}

async fn b33_a_clock_ten_days_ahead_is_refused_until_it_is_right_and_moves_nothing_back(world: World) {
    let a = world.node("a").await;
    let left = a.create_replica().await.unwrap();
    let (offset, ahead) = clock(TEN_DAYS_S);
    let b = world.start(world.builder("b").wall_clock(ahead), "b", &[world.wire]).await;
    let mut events = b.events();
    let right = b.join(left.share(Access::WRITE).await.unwrap()).await.unwrap();
    right.put("k", "from the future").await.unwrap();
    event(&mut events, "a refuses the future", |event| {
        matches!(event, Event::Refused { reason: sync_core::machine::wire::RefusalReason::Future, .. })
    })
    .await;
    left.put("k", "from now").await.unwrap();
    left.put("other", "from now").await.unwrap();
    // A's entries reach B; B's newer value is not moved back by A's older one.
    reads(&right, "other", "from now").await;
    assert_eq!(value(&right, "k").await.unwrap(), b"from the future");
    assert_eq!(value(&left, "k").await.unwrap(), b"from now");
    let why = b.why().await.unwrap();
    assert!(why.iter().any(|obstacle| obstacle.advice.contains("clock")), "{why:?}");
    drop(offset);
}

async fn b33_a_late_older_value_never_moves_anything_back(world: World) {
    let a = world.node("a").await;
    let left = a.create_replica().await.unwrap();
    let (b, mood) = Moody::node(&world, "b").await;
    let right = join(&left, &b, Access::WRITE).await;
    let (id, peer) = (left.id(), b.node_id());
    let sent = async || peer_is(&a, id, peer, "all is confirmed", |peer| peer.synced).await.traffic.sent;
    let before = sent().await;
    mood.frozen.store(true, Ordering::SeqCst);
    let mut transaction = left.write();
    for key in ["k", "of one author", "of two authors"] {
        transaction.put(key, "old").await.unwrap();
    }
    transaction.commit().await.unwrap();
    peer_is(&a, id, peer, "they are on their way", |peer| peer.traffic.sent == before + 3).await;
    // B does not have them yet when it writes what is newer: as itself, and as the author of the old ones.
    let same = right.with_author(a.export_author(a.default_author()).await.unwrap());
    right.put("of two authors", "new").await.unwrap();
    same.put("of one author", "new").await.unwrap();
    for n in 0..20 {
        left.put("k", format!("{n}")).await.unwrap();
    }
    assert!(value(&right, "k").await.is_none(), "what B was sent is late");
    mood.frozen.store(false, Ordering::SeqCst);
    let mut watch = right.watch("k", right.head());
    let mut newest = Timestamp(0);
    soon("the last value arrives", async {
        while value(&right, "k").await.as_deref() != Some(b"19") {
            let entry = watch.next().await.unwrap();
            assert!(entry.entry.timestamp > newest, "values only move forward");
            newest = entry.entry.timestamp;
            for key in ["of one author", "of two authors"] {
                assert_eq!(value(&right, key).await.unwrap(), b"new", "{key}");
            }
        }
    })
    .await;
    equal(&[&left, &right]).await;
    for key in ["of one author", "of two authors"] {
        assert_eq!(value(&left, key).await.unwrap(), b"new", "{key}");
    }
    let status = peer_is(&a, left.id(), b.node_id(), "all is confirmed", |peer| peer.synced).await;
    assert_eq!((status.pending, status.position), (0, left.head().0), "{status:?}");
}

#[tokio::test]
async fn b37_a_bootstrap_of_many_frames_passes_on_every_transport() {
    for wire in Wire::ALL {
        let world = World::new(wire, Keep::Memory);
        let (a, b) = (world.node("a").await, world.node("b").await);
        let left = a.create_replica().await.unwrap();
        for batch in 0..8 {
            let mut transaction = left.write();
            for n in 0..200 {
                transaction.put(format!("{batch}/{n}"), vec![n as u8; 16 * 1024]).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        let right = join(&left, &b, Access::READ).await;
        assert_eq!(right.state().await.unwrap().root, left.state().await.unwrap().root);
        let traffic = peer_status(&b, right.id(), a.node_id()).await.unwrap().traffic;
        assert!(traffic.bytes_received > 25 << 20, "{traffic:?}");
    }
}

async fn b29_only_what_the_peer_confirmed_is_called_synced(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    right.put("k", "v").await.unwrap();
    reads(&left, "k", "v").await;
    let synced = peer_is(&b, right.id(), a.node_id(), "confirmed", |peer| peer.synced && peer.pending == 0).await;
    assert_eq!(synced.refused, 0);
    // The peer is cut off: nothing that follows is called synced, though nothing is heard of it either.
    a.block_peer(b.node_id()).await.unwrap();
    right.put("k", "w").await.unwrap();
    let status = peer_status(&b, right.id(), a.node_id()).await.unwrap();
    assert!(!status.synced && status.pending > 0, "{status:?}");
    let status = peer_is(&b, right.id(), a.node_id(), "it is owed", |peer| peer.state != PeerState::Live).await;
    assert!(!status.synced && status.pending > 0, "{status:?}");
}

async fn b29_a_refused_write_shows_as_refused_at_its_writer(world: World) {
    let a = world.node("a").await;
    let left = a.create_replica().await.unwrap();
    let (offset, ahead) = clock(TEN_DAYS_S);
    let b = world.start(world.builder("b").wall_clock(ahead), "b", &[world.wire]).await;
    let right = b.join(left.share(Access::WRITE).await.unwrap()).await.unwrap();
    right.put("from the future", "x").await.unwrap();
    let refused = peer_is(&b, right.id(), a.node_id(), "the refusal is told", |peer| peer.refused > 0).await;
    assert!(!refused.synced, "{refused:?}");
    assert!(left.get("from the future").await.unwrap().is_none());
    let obstacles = b.why().await.unwrap();
    let told = obstacles.iter().find(|obstacle| obstacle.cause.contains("did not accept"));
    assert!(told.is_some_and(|obstacle| obstacle.subject.contains(&right.id().short())), "{obstacles:?}");
    drop(offset);
}

async fn b33_a_newer_state_replaces_what_waits_for_its_retry(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    a.flush(LONG).await.unwrap();
    b.shutdown(LONG).await.unwrap();
    let id = left.id();
    drop((b, right));
    for n in 0..20 {
        left.put("k", format!("{n}")).await.unwrap();
    }
    let b = world.node("b").await;
    let right = b.open_replica(id).await.unwrap();
    reads(&right, "k", "19").await;
    let moved = peer_is(&b, id, a.node_id(), "all is there", |peer| peer.synced).await.traffic;
    assert_eq!(moved.received, 1, "only the newest state was owed: {moved:?}");
}
