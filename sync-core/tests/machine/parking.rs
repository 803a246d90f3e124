//! Jobs whose error is permanent, and peers that were removed; exact, on virtual time.

use std::time::Duration;

use sync_core::{
    machine::{
        AskId, ConnectionId, DialFailure, Event, Input, Output, PeerState, StreamId, SyncOutcome, Target,
        limits::CHECK_INTERVAL,
        wire::{Hello, Message},
    },
    model::{PeerId, ReplicaId},
    store::{NodeKind, StoreId},
};

use super::common::*;

const INTERVAL: u64 = CHECK_INTERVAL.as_millis() as u64;

/// A has a replica and wants B to have it; B knows nothing of it.
fn refused() -> (Pair, ReplicaId) {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 3);
    pair.subscribe(id);
    (pair, id)
}

#[test]
fn b39_a_refused_job_is_parked_and_asked_about_at_the_interval_only() {
    let (mut pair, _) = refused();
    let parked_at = pair.at;
    let status = pair.status();
    assert_eq!(status.state, PeerState::Parked);
    assert!(status.last_error.unwrap().contains("does not have this replica"));
    assert_eq!(status.next_try_ms, Some(INTERVAL));
    assert_eq!(pair.opened(), 1);
    pair.wait_until(parked_at + INTERVAL - 1);
    assert_eq!((pair.opened(), pair.status().state), (1, PeerState::Parked), "it has left the schedule");
    pair.wait_until(parked_at + INTERVAL);
    assert_eq!((pair.opened(), pair.status().state), (2, PeerState::Parked));
    pair.wait_until(parked_at + 2 * INTERVAL);
    assert_eq!(pair.opened(), 3, "it is never given up");
    let why = pair.a.machine.obstacles();
    assert!(why[0].cause.contains("does not have this replica") && why[0].advice.contains("ticket"), "{why:?}");
    assert_eq!(why[0].next_try, Some(INTERVAL));
}

#[test]
fn b39_a_parked_job_is_parked_after_a_restart() {
    let (mut pair, _) = refused();
    pair.wait_until(pair.at + 1000);
    pair.a = pair.a.restarted(1);
    let status = pair.status();
    assert_eq!((status.state, status.next_try_ms), (PeerState::Parked, Some(INTERVAL)));
    assert!(status.last_error.unwrap().contains("does not have this replica"));
    // A transport is registered at every start; that changes nothing about what the peer has said.
    pair.tell(Input::TransportAdded);
    assert_eq!((pair.opened(), pair.status().state), (0, PeerState::Parked));
}

#[test]
fn b27_what_was_not_there_is_delivered_when_it_appears() {
    let (mut pair, id) = refused();
    pair.b.replica(2, &key(7), 2);
    pair.work();
    assert_eq!(pair.status().state, PeerState::Parked);
    pair.wait_until(pair.at + INTERVAL);
    let status = pair.status();
    assert_eq!((status.state, status.synced, status.last_error), (PeerState::Live, true, None));
    let roots = [&pair.a, &pair.b].map(|node| block_on(node.store.state(id)).unwrap().root);
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn b39_whatever_could_change_the_answer_wakes_a_parked_job_at_once() {
    type Change = fn(&mut Pair, ReplicaId);
    let changes: [(&str, Change); 6] = [
        ("the application retries", |pair, _| pair.tell(Input::RetryNow)),
        ("the application subscribes", |pair, replica| pair.tell(Input::Subscribe { replica, peer: peer(2) })),
        ("the application syncs", |pair, replica| {
            let timeout = Duration::from_secs(5);
            pair.tell(Input::Sync { ask: AskId(1), replica, target: Target::Peer(peer(2)), timeout });
        }),
        ("an address is added", |pair, _| {
            pair.tell(Input::AddPeer { peer: peer(2), addresses: vec!["hand:c".parse().unwrap()] });
        }),
        ("the rights in the replica change", |pair, _| pair.a.grant_everybody(&key(7))),
        ("the peer links anew", |pair, _| {
            pair.cut();
            pair.b.tell(now(pair.at), Input::AddPeer { peer: peer(1), addresses: vec!["hand:a".parse().unwrap()] });
            let (target, timeout) = (Target::Address("hand:a".parse().unwrap()), Duration::from_secs(5));
            let replica = pair.b.replica(2, &key(8), 1);
            pair.b.tell(now(pair.at), Input::Sync { ask: AskId(1), replica, target, timeout });
            pair.work();
            // The peer has dialled: this side leaves it a moment to open first.
            pair.wait_until(pair.at + 1000);
        }),
    ];
    for (what, change) in changes {
        let (mut pair, id) = refused();
        pair.at += 100;
        assert_eq!(pair.opened(), 1);
        change(&mut pair, id);
        pair.work();
        assert_eq!(pair.opened(), 2, "{what}");
        assert_eq!(pair.status().state, PeerState::Parked, "{what}: the answer is the same");
    }
}

#[test]
fn b39_a_peer_that_opens_a_session_itself_ends_the_parking() {
    let (mut pair, id) = refused();
    pair.b.replica(2, &key(7), 2);
    pair.b.tell(now(pair.at), Input::Subscribe { replica: id, peer: peer(1) });
    pair.work();
    let status = pair.status();
    assert_eq!((status.state, status.synced), (PeerState::Live, true));
}

#[test]
fn b39_what_no_transport_dials_is_parked_until_one_is_registered() {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 3);
    pair.b.replica(2, &key(7), 0);
    pair.reachable = Err(DialFailure::NoTransport);
    pair.subscribe(id);
    let status = pair.status();
    assert_eq!((status.state, status.next_try_ms), (PeerState::Parked, Some(INTERVAL)));
    assert!(status.last_error.unwrap().contains("hand:b"));
    assert!(pair.a.machine.obstacles()[0].advice.contains("transport"));
    let dials = |pair: &Pair| pair.a.said.iter().filter(|said| said.starts_with("Dial")).count();
    pair.wait_until(pair.at + INTERVAL - 1);
    assert_eq!(dials(&pair), 1);
    pair.reachable = Ok(());
    pair.tell(Input::TransportAdded);
    assert_eq!((dials(&pair), pair.status().state), (2, PeerState::Live));
}

#[test]
fn b39_an_error_that_may_pass_is_tried_again_by_the_schedule() {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 3);
    pair.reachable = Err(DialFailure::Unreachable);
    pair.subscribe(id);
    let mut ceiling = 1000;
    for _ in 0..8 {
        let status = pair.status();
        assert_eq!(status.state, PeerState::Backoff);
        let next = status.next_try_ms.unwrap();
        assert!((99..=ceiling + 100).contains(&next), "{next} of {ceiling}");
        ceiling = (ceiling * 2).min(60_000);
        pair.wait_until(pair.at + next + 1);
    }
}

#[test]
fn b79_a_peer_of_another_version_is_parked_with_both_versions_named() {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 3);
    pair.subscribe_only(id);
    let dial = pair.a.to_do.iter().find_map(|output| match output {
        Output::Dial { dial, .. } => Some(*dial),
        _ => None,
    });
    pair.a.to_do.clear();
    let connection = ConnectionId(9);
    pair.tell(Input::Connected { connection, dial, transport: "hand".into(), binding: BINDING });
    let control = StreamId(pair.a.control_stream());
    let hello = Hello {
        oldest: 8,
        newest: 9,
        peer: peer(2),
        store: StoreId([1; 16]),
        incarnation: 1,
        nonce: [0; 32],
        addresses: Vec::new(),
    };
    pair.tell(Input::Frame { connection, stream: control, frame: Message::Hello(hello.clone()).encode() });
    let status = pair.status();
    assert_eq!(status.state, PeerState::Parked);
    let error = status.last_error.unwrap();
    assert!(error.contains("8 to 9") && error.contains("1 to 1"), "{error}");
    assert!(pair.a.machine.obstacles()[0].advice.contains("update"));
    // Who was dialled by such a peer answers with its hello, so that the other can tell the same.
    let mut acceptor = Node::new(3);
    acceptor.tell(now(0), Input::Connected { connection, dial: None, transport: "hand".into(), binding: BINDING });
    let kind = sync_core::machine::wire::StreamKind::Control;
    acceptor.tell(now(0), Input::StreamAccepted { connection, stream: StreamId(1), kind });
    acceptor.tell(now(0), Input::Frame { connection, stream: StreamId(1), frame: Message::Hello(hello).encode() });
    let sent: Vec<_> = acceptor.to_do.drain(..).collect();
    let [Output::Send { frame, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert!(matches!(Message::decode(frame.clone()), Ok(Some(Message::Hello(_)))));
}

#[test]
fn b42_a_removed_peer_is_refused_until_it_is_added_again_over_restarts() {
    let mut pair = Pair::new();
    let id = pair.a.replica(1, &key(7), 3);
    pair.b.replica(2, &key(7), 2);
    pair.subscribe(id);
    assert_eq!(pair.status().state, PeerState::Live);
    // B has its grant still, and knows where A is.
    pair.b.tell(now(pair.at), Input::AddPeer { peer: peer(1), addresses: vec!["hand:a".parse().unwrap()] });
    for _ in 0..2 {
        pair.tell(Input::RemovePeer { peer: peer(2) });
    }
    assert!(pair.a.machine.peers().is_empty() && pair.a.machine.status()[0].peers.is_empty());
    assert!(block_on(pair.a.store.node_records(NodeKind::Job)).unwrap().is_empty());
    let ups = |node: &Node, other: PeerId| {
        node.said.iter().filter(|said| said.contains("PeerUp") && said.contains(&format!("{other:?}"))).count()
    };
    let before = ups(&pair.a, peer(2));
    pair.b.tell(now(pair.at), Input::RetryNow);
    pair.work();
    pair.wait_until(pair.at + 100_000);
    assert_eq!(ups(&pair.a, peer(2)), before, "no link of it is established");
    pair.a = pair.a.restarted(1);
    pair.at = 10;
    pair.b.tell(now(200_000), Input::RetryNow);
    pair.work();
    assert_eq!(ups(&pair.a, peer(2)), 0, "nor after a restart");
    assert!(pair.a.machine.status()[0].peers.is_empty());
    pair.tell(Input::Subscribe { replica: id, peer: peer(2) });
    pair.b.tell(now(200_001), Input::RetryNow);
    pair.work();
    assert_eq!(ups(&pair.a, peer(2)), 1, "{:?}", Event::PeerUp { peer: peer(2), transport: "hand".into() });
    assert_eq!(pair.status().state, PeerState::Live);
}

#[test]
fn b42_a_removed_peer_is_added_again_by_any_explicit_act() {
    type Act = fn(ReplicaId) -> Input;
    let acts: [(&str, Act); 4] = [
        ("its addresses", |_| Input::AddPeer { peer: peer(2), addresses: Vec::new() }),
        ("its name", |_| Input::RenamePeer { peer: peer(2), name: "desk".into() }),
        ("a subscription", |replica| Input::Subscribe { replica, peer: peer(2) }),
        ("a sync", |replica| Input::Sync {
            ask: AskId(1),
            replica,
            target: Target::Address("hand:b".parse().unwrap()),
            timeout: Duration::from_secs(5),
        }),
    ];
    for (what, act) in acts {
        let mut pair = Pair::new();
        let id = pair.a.replica(1, &key(7), 3);
        pair.b.replica(2, &key(7), 2);
        pair.subscribe(id);
        pair.tell(Input::RemovePeer { peer: peer(2) });
        pair.tell(act(id));
        assert_eq!(pair.a.machine.peers().len(), 1, "{what}");
        pair.tell(Input::BlockPeer { peer: peer(2), blocked: true });
        pair.tell(Input::AddPeer { peer: peer(2), addresses: Vec::new() });
        assert!(pair.a.machine.peers()[0].blocked, "adding does not unblock");
    }
}

#[test]
fn a_question_to_a_parked_peer_is_answered_with_its_refusal() {
    let (mut pair, replica) = refused();
    let (target, timeout) = (Target::Peer(peer(2)), Duration::from_secs(5));
    pair.tell(Input::Sync { ask: AskId(5), replica, target, timeout });
    let refusal = SyncOutcome::Refused(sync_core::machine::wire::Refusal::NotAvailable);
    assert!(pair.a.said.iter().any(|said| said.starts_with("Answer") && said.contains(&format!("{refusal:?}"))));
}
