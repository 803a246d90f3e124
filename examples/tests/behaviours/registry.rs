//! Transports by name: registered, listening, routed, remembered, removed.

use std::{
    net::{TcpListener, UdpSocket},
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::join_all;
use sync_core::{
    PeerAddress,
    machine::{DialFailure, Event, SyncOutcome},
    manager::{Access, ManagerError, SyncManager},
    store::{NodeKind, ReplicaStore},
    transport::{TransportErrorKind, memory::MemoryTransport},
};

use crate::{common::*, contents};

on_every_wire! {
    b1_any_number_of_one_kind_side_by_side_and_removed_at_run_time
    b2_registering_gives_outbound_only_at_every_start_anew
    b3_idle_listening_stopped_and_listening_again
    b4_an_unknown_scheme_is_an_error_that_lists_the_known
    b5_a_transport_of_any_name_yields_addresses_that_others_can_dial
    b6_each_name_keeps_its_own_state_over_restarts
    b10_fifty_tasks_share_one_connection_and_a_broken_one_is_replaced_unseen
    b16_a_manager_that_ends_frees_its_ports_and_can_start_again_on_the_same
    b16_dropping_the_last_handle_ends_the_node
    b16_amid_a_huge_sync_and_beside_a_frozen_peer_a_node_ends_within_its_deadline
    b16_a_transport_that_never_closes_keeps_no_node_from_its_end
}

async fn b1_any_number_of_one_kind_side_by_side_and_removed_at_run_time(world: World) {
    let (a, b) = (world.node_on("a", &[]).await, world.node_on("b", &[]).await);
    let replica = a.create_replica().await.unwrap();
    for name in ["one", "two", "three"] {
        world.register(&a, name, world.wire, &format!("a {name}")).await;
    }
    a.accept_connections().await.unwrap();
    let names: Vec<_> = a.transports().await.unwrap().into_iter().map(|transport| transport.name).collect();
    assert_eq!(names, ["one", "two", "three"]);
    assert!(matches!(
        a.register_transport("two", MemoryTransport::builder(&world.network, "x")).await,
        Err(ManagerError::NameTaken(name)) if name == "two"
    ));
    world.register(&b, "mine", world.wire, "b").await;
    let joined = join(&replica, &b, Access::WRITE).await;
    fill(&replica, "early ", 20).await;
    equal(&[&replica, &joined]).await;

    // Work in flight on a removed transport goes back to its job, which finds another way.
    let used = peer_status(&a, replica.id(), b.node_id()).await.unwrap().transport.unwrap();
    fill(&replica, "in flight ", 500).await;
    a.remove_transport(&used).await.unwrap();
    let left: Vec<_> = a.transports().await.unwrap().into_iter().map(|transport| transport.name).collect();
    assert_eq!(left.len(), 2);
    assert!(!left.contains(&used));
    fill(&joined, "late ", 20).await;
    equal(&[&replica, &joined]).await;
    let now = peer_is(&a, replica.id(), b.node_id(), "they meet over another transport", |peer| peer.synced).await;
    assert_ne!(now.transport.as_ref(), Some(&used));
    match a.remove_transport(&used).await {
        Err(ManagerError::UnknownTransport { name, known }) => {
            assert_eq!((name, known), (used, left.join(", ")));
        }
        other => panic!("{other:?}"),
    }
}

async fn b2_registering_gives_outbound_only_at_every_start_anew(world: World) {
    let a = world.node("a").await;
    let replica = a.create_replica().await.unwrap();
    for round in 0..2 {
        let b = world.builder("b").spawn().await.unwrap();
        world.register(&b, "mine", world.wire, "b").await;
        assert!(b.addresses().await.unwrap().is_empty(), "round {round}");
        let joined = join(&replica, &b, Access::WRITE).await;
        fill(&replica, &format!("{round} "), 3).await;
        equal(&[&replica, &joined]).await;
        assert!(b.addresses().await.unwrap().is_empty(), "round {round}");
        // The ticket of a node that does not listen has no address.
        assert!(joined.share(Access::READ).await.unwrap().addresses.is_empty());
        b.accept_connections().await.unwrap();
        assert!(!b.addresses().await.unwrap().is_empty());
        b.shutdown(LONG).await.unwrap();
    }
}

async fn b3_idle_listening_stopped_and_listening_again(world: World) {
    let a = world.builder("a").spawn().await.unwrap();
    world.register(&a, "mine", world.wire, "a").await;
    assert!(matches!(a.stop_accepting().await, Err(ManagerError::NotAccepting)), "it does not listen yet");
    let first = a.accept_connections().await.unwrap();
    assert!(!first.addresses.is_empty() && first.failed.is_empty());
    assert!(matches!(a.accept_connections().await, Err(ManagerError::AcceptingAlready)));
    assert_eq!(a.addresses().await.unwrap(), first.addresses, "listening twice changes nothing");
    a.stop_accepting().await.unwrap();
    assert!(a.addresses().await.unwrap().is_empty());
    assert!(matches!(a.stop_accepting().await, Err(ManagerError::NotAccepting)), "nor any more");
    let dialer = world.transport(world.wire, "dialer").await;
    let refused = dialer.dial(&first.addresses[0]).await;
    assert!(refused.unwrap_err().is_temporary());
    let second = a.accept_connections().await.unwrap();
    assert_eq!(second.addresses, first.addresses, "the same port again");
    assert!(dialer.dial(&second.addresses[0]).await.is_ok());
}

async fn b4_an_unknown_scheme_is_an_error_that_lists_the_known(world: World) {
    let a = world.builder("a").spawn().await.unwrap();
    let replica = a.create_replica().await.unwrap();
    let pigeon: PeerAddress = "pigeon:loft-7".parse().unwrap();
    let report = a.sync_with(pigeon.clone(), replica.id(), LONG).await.unwrap();
    let SyncOutcome::Unreachable { why, error } = report.outcome else { panic!("{report:?}") };
    assert_eq!(why, DialFailure::NoTransport);
    assert!(error.contains("known are: none"), "{error}");
    world.register(&a, "first", world.wire, "a1").await;
    world.register(&a, "second", world.wire, "a2").await;
    world.register(&a, "third", Wire::Http, "a3").await;
    for _ in 0..3 {
        let report = a.sync_with(pigeon.clone(), replica.id(), LONG).await.unwrap();
        let SyncOutcome::Unreachable { why: DialFailure::NoTransport, error } = report.outcome else {
            panic!("{report:?}")
        };
        let mut known = vec!["http", "https", world.wire.scheme()];
        known.sort_unstable();
        known.dedup();
        assert!(error.contains("unknown scheme") && error.contains("pigeon"), "{error}");
        assert!(error.contains(&format!("known are: {}", known.join(", "))), "{error}");
    }
}

#[tokio::test]
async fn b4_routing_takes_the_transport_of_the_scheme_that_was_registered_first() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let (a, b) = (world.node_on("a", &Wire::ALL).await, world.builder("b").spawn().await.unwrap());
    let replica = a.create_replica().await.unwrap();
    let mut counted = Vec::new();
    for wire in Wire::ALL {
        for priority in ["first", "second"] {
            let transport = Counting::new(world.transport(wire, &format!("b {priority}")).await);
            b.add_transport(format!("{priority} {}", wire.name()), transport.clone()).await.unwrap();
            counted.push((wire, priority, transport));
        }
    }
    let ticket = replica.share(Access::READ).await.unwrap();
    for address in a.addresses().await.unwrap() {
        let mut only = ticket.clone();
        (only.addresses, only.peer) = (vec![address.clone()], None);
        for (.., transport) in &counted {
            transport.dials.store(0, Ordering::SeqCst);
        }
        b.remove_peer(a.node_id()).await.unwrap();
        let joined = b.join(only).await.unwrap();
        let report = b.sync_with(address.clone(), joined.id(), LONG).await.unwrap();
        assert_eq!(report.outcome, SyncOutcome::Synced, "{address}");
        for (wire, priority, transport) in &counted {
            let wanted = wire.scheme() == address.scheme() && *priority == "first";
            assert_eq!(transport.dials.load(Ordering::SeqCst) > 0, wanted, "{address}: {priority} {}", wire.name());
        }
    }
}

async fn b5_a_transport_of_any_name_yields_addresses_that_others_can_dial(world: World) {
    let (a, b) = (world.node_on("a", &[]).await, world.node_on("b", &[]).await);
    let name = "only-a-knows-this-name";
    world.register(&a, name, world.wire, "a").await;
    world.register(&b, "office", world.wire, "b").await;
    a.accept_connections().await.unwrap();
    let replica = a.create_replica().await.unwrap();
    let ticket = replica.share(Access::READ).await.unwrap();
    assert!(!ticket.addresses.is_empty());
    assert!(ticket.addresses.iter().all(|address| address.scheme() == world.wire.scheme()));
    assert!(!ticket.to_string().contains(name));
    let joined = b.join(ticket.to_string().parse().unwrap()).await.unwrap();
    b.wait_synced(joined.id(), a.node_id(), LONG).await.unwrap();
    let seen = peer_status(&b, joined.id(), a.node_id()).await.unwrap();
    assert_eq!(seen.transport.as_deref(), Some("office"), "names are local");
}

async fn b6_each_name_keeps_its_own_state_over_restarts(world: World) {
    let start = async || {
        let node = world.builder("a").spawn().await.unwrap();
        for name in ["one", "two"] {
            world.register(&node, name, world.wire, name).await;
        }
        node.accept_connections().await.unwrap();
        node
    };
    let node = start().await;
    let addresses = node.addresses().await.unwrap();
    let id = node.node_id();
    let states = node.store().node_records(NodeKind::Transport).await.unwrap();
    if world.wire == Wire::Memory {
        assert!(states.is_empty(), "no state means no write");
        return;
    }
    assert_eq!(states.len(), 2);
    assert_ne!(states[0].value, states[1].value, "each name has its own");
    node.shutdown(LONG).await.unwrap();
    drop(node);
    for address in &addresses {
        port_is_free(address).await;
    }
    let node = start().await;
    assert_eq!(node.addresses().await.unwrap(), addresses);
    assert_eq!(node.node_id(), id);
    assert_eq!(node.store().node_records(NodeKind::Transport).await.unwrap(), states);
    // State of another kind under a name is a typed mismatch, and changes nothing.
    node.remove_transport("one").await.unwrap();
    let other = if world.wire == Wire::Quic {
        node.register_transport("one", http()).await
    } else {
        node.register_transport("one", quic()).await
    };
    assert!(matches!(other, Err(ManagerError::Transport(error)) if error.kind == TransportErrorKind::StateMismatch));
    assert_eq!(node.store().node_records(NodeKind::Transport).await.unwrap(), states);
    assert_eq!(node.transports().await.unwrap().len(), 1);
}

#[tokio::test]
async fn b7_accepting_succeeds_when_one_transport_starts_and_says_which_failed() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let a = world.node_on("a", &[]).await;
    a.register_transport("taken", quic().bind(udp.local_addr().unwrap())).await.unwrap();
    let error = a.accept_connections().await.unwrap_err();
    assert!(matches!(&error, ManagerError::CannotListen(what) if what.contains("taken")), "{error}");
    a.register_transport("taken too", http().bind(tcp.local_addr().unwrap())).await.unwrap();
    a.register_transport("fine", quic()).await.unwrap();
    a.register_transport("client", http().client_only()).await.unwrap();
    let report = a.accept_connections().await.unwrap();
    let failed: Vec<_> = report.failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(failed, ["taken", "taken too"]);
    assert!(report.addresses.iter().all(|address| address.scheme() == "quic") && !report.addresses.is_empty());
    // A node of clients only succeeds and advertises nothing.
    let b = world.node_on("b", &[]).await;
    b.register_transport("client", http().client_only()).await.unwrap();
    b.register_transport("other", quic().client_only()).await.unwrap();
    assert!(b.accept_connections().await.unwrap().addresses.is_empty());
    let replica = a.create_replica().await.unwrap();
    join(&replica, &b, Access::READ).await;
    // When the port is free again, only what failed starts.
    drop(tcp);
    let again = a.accept_connections().await.unwrap();
    assert_eq!(again.failed.len(), 1, "{:?}", again.failed);
    assert!(again.addresses.iter().any(|address| address.scheme() == "http"));
}

async fn b10_fifty_tasks_share_one_connection_and_a_broken_one_is_replaced_unseen(world: World) {
    let a = world.node("a").await;
    let replica = a.create_replica().await.unwrap();
    let b = world.builder("b").spawn().await.unwrap();
    let counted = Counting::new(world.transport(world.wire, "b").await);
    b.add_transport("counted", counted.clone()).await.unwrap();
    let mut ticket = replica.share(Access::WRITE).await.unwrap();
    let address = ticket.addresses[0].clone();
    ticket.addresses.truncate(1);
    let joined = b.join(ticket).await.unwrap();
    let id = joined.id();
    let ask = |n: usize| {
        let (b, address, peer) = (b.clone(), address.clone(), a.node_id());
        async move {
            let report = if n.is_multiple_of(2) {
                b.sync_with(peer, id, LONG).await
            } else {
                b.sync_with(address, id, LONG).await
            };
            report.unwrap().outcome
        }
    };
    let outcomes = join_all((0..50).map(|n| tokio::spawn(ask(n)))).await;
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap() == SyncOutcome::Synced));
    let dials = counted.dials.load(Ordering::SeqCst);
    assert_eq!((counted.connections.load(Ordering::SeqCst), dials), (1, 1));
    assert_eq!(b.peers().await.unwrap()[0].links.len(), 1);
    // The other end drops it: what is asked next goes over a new one.
    a.block_peer(b.node_id()).await.unwrap();
    a.unblock_peer(b.node_id()).await.unwrap();
    fill(&replica, "after ", 5).await;
    equal(&[&replica, &joined]).await;
    assert_eq!(b.sync_with(a.node_id(), id, LONG).await.unwrap().outcome, SyncOutcome::Synced);
}

async fn b16_a_manager_that_ends_frees_its_ports_and_can_start_again_on_the_same(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let addresses = a.addresses().await.unwrap();
    for round in 0..3 {
        let a = if round == 0 { a.clone() } else { world.node("a").await };
        assert_eq!(a.addresses().await.unwrap(), addresses, "round {round}");
        let replica = a.open_replica(left.id()).await.unwrap();
        fill(&replica, &format!("{round} "), 3).await;
        equal(&[&replica, &right]).await;
        soon("the shutdown", a.shutdown(LONG)).await.unwrap();
        assert!(matches!(a.status().await, Err(ManagerError::Closed)));
        a.shutdown(LONG).await.unwrap();
        port_is_free(&addresses[0]).await;
    }
    drop(b);
}

/// Waits until the port of an address can be bound: it is free in the end, whoever held it last.
pub async fn port_is_free(address: &PeerAddress) {
    let bind: Box<dyn Fn() -> bool> = match address.scheme() {
        "quic" => {
            let port = address.url().port().unwrap();
            Box::new(move || UdpSocket::bind(("127.0.0.1", port)).is_ok())
        }
        "http" => {
            let port = address.url().port().unwrap();
            Box::new(move || TcpListener::bind(("127.0.0.1", port)).is_ok())
        }
        "iroh" => {
            let (_, ip) = address.url().query_pairs().find(|(name, _)| name == "ip").unwrap();
            let port = ip.parse::<std::net::SocketAddr>().unwrap().port();
            Box::new(move || UdpSocket::bind(("127.0.0.1", port)).is_ok())
        }
        _ => return,
    };
    soon("the port is free", async {
        while !bind() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn b16_dropping_the_last_handle_ends_the_node(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let addresses = a.addresses().await.unwrap();
    let mut events = b.events();
    let store = Arc::downgrade(a.store());
    let second = a.clone();
    drop(a);
    fill(&left, "a handle is left ", 3).await;
    equal(&[&left, &right]).await;
    let peer = second.node_id();
    drop((second, left));
    event(&mut events, "the peer is gone", |event| matches!(event, Event::PeerDown { peer: gone } if *gone == peer))
        .await;
    port_is_free(&addresses[0]).await;
    is_gone(&store).await;
    let again: SyncManager = world.node("a").await;
    assert_eq!(again.addresses().await.unwrap(), addresses);
}

/// That nothing of a node is left: whoever holds its store is gone.
async fn is_gone(store: &std::sync::Weak<dyn ReplicaStore>) {
    soon("the node's tasks end", async {
        while store.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn b16_amid_a_huge_sync_and_beside_a_frozen_peer_a_node_ends_within_its_deadline(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let (frozen, mood) = Moody::node(&world, "frozen").await;
    let third = join(&left, &frozen, Access::READ).await;
    let addresses = a.addresses().await.unwrap();
    mood.frozen.store(true, Ordering::SeqCst);
    let mut events = b.events();
    // Entries and contents, far more than fits into any window.
    for batch in 0..10 {
        let mut transaction = left.write();
        for n in 0..200 {
            transaction.put(format!("{batch}/{n}"), vec![n as u8; 16 * 1024]).await.unwrap();
        }
        transaction.put(format!("large {batch}"), contents::bytes(4 << 20, batch)).await.unwrap();
        transaction.commit().await.unwrap();
    }
    event(&mut events, "it is under way", |event| matches!(event, Event::Received { .. })).await;
    let owed = peer_status(&a, left.id(), frozen.node_id()).await.unwrap();
    assert!(owed.pending > 0, "the frozen peer has not taken everything: {owed:?}");
    let store = Arc::downgrade(a.store());
    // Closing in good order takes no longer than a deadline that suffices on a busy machine.
    a.shutdown(LONG / 2).await.unwrap();
    drop((a, left));
    is_gone(&store).await;
    port_is_free(&addresses[0]).await;
    // And it starts again on the same, with everything in it.
    mood.frozen.store(false, Ordering::SeqCst);
    let a = world.node("a").await;
    assert_eq!(a.addresses().await.unwrap(), addresses);
    let left = a.open_replica(right.id()).await.unwrap();
    assert!(value(&left, "9/199").await.is_some());
    equal(&[&left, &right, &third]).await;
}

/// The story: only who asked for the end had a deadline. The node itself waited for its transports for ever, and kept
/// its store, its links and the ports of the other transports.
async fn b16_a_transport_that_never_closes_keeps_no_node_from_its_end(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let addresses = a.addresses().await.unwrap();
    let (transport, mood) = Moody::new(world.transport(world.wire, "second").await);
    mood.never_closes.store(true, Ordering::SeqCst);
    a.add_transport("never", transport).await.unwrap();
    let mut events = b.events();
    let (store, id) = (Arc::downgrade(a.store()), left.id());
    let error = a.shutdown(std::time::Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, ManagerError::TimedOut(_)), "{error}");
    assert!(matches!(a.status().await, Err(ManagerError::Closed)), "it has ended all the same");
    let peer = a.node_id();
    event(&mut events, "the peer is gone", |event| matches!(event, Event::PeerDown { peer: gone } if *gone == peer))
        .await;
    drop((a, left));
    is_gone(&store).await;
    port_is_free(&addresses[0]).await;
    let a = world.node("a").await;
    let left = a.open_replica(id).await.unwrap();
    left.put("again", "1").await.unwrap();
    reads(&right, "again", "1").await;
}
