//! The machine by itself: two of them joined by hand, with no clock, socket or thread between.

#![allow(clippy::unwrap_used)]

mod common;
mod directions;
mod downgrade;
mod failover;
mod parking;
mod saving;
mod scopes;
mod timing;

use std::time::Duration;

use sync_core::machine::{
    ConnectionId, DialId, DisconnectReason, Event, Input, Output, StreamId, Synchronizer,
    wire::{Message, StreamKind},
};

use self::common::*;

fn synced_pair() -> (Node, Node) {
    let mut pair = Pair::new();
    let owner = key(7);
    let id = pair.a.replica(1, &owner, 40);
    pair.b.replica(2, &owner, 30);
    pair.subscribe(id);
    let roots = [&pair.a, &pair.b].map(|node| block_on(node.store.state(id)).unwrap().root);
    assert_eq!(roots[0], roots[1]);
    assert!(pair.a.heard_synced() && pair.b.heard_synced());
    (pair.a, pair.b)
}

#[test]
fn b82_the_same_inputs_give_the_same_outputs_byte_for_byte() {
    let (a, b) = synced_pair();
    for (n, node) in [(1, a), (2, b)] {
        assert!(node.said.len() > 10, "a run worth replaying");
        let mut again = Synchronizer::new(Node::config(n, &*node.store), now(0));
        let mut said = Vec::new();
        for (at, input) in node.told {
            again.handle(at, input);
            while let Some(output) = again.poll_output() {
                said.push(format!("{output:?}"));
            }
        }
        assert_eq!(said, node.said);
    }
}

#[test]
fn b83_a_new_link_sends_nothing_but_the_handshake_until_it_is_established() {
    let mut node = Node::new(1);
    let id = node.replica(1, &key(7), 3);
    node.to_do.clear();
    node.tell(now(2), Input::AddPeer { peer: peer(2), addresses: vec!["hand:b".parse().unwrap()] });
    node.tell(now(2), Input::Subscribe { replica: id, peer: peer(2) });
    let dial = node.to_do.iter().find_map(|output| match output {
        Output::Dial { dial, .. } => Some(*dial),
        _ => None,
    });
    node.to_do.clear();
    let connection = ConnectionId(1);
    let connected = Input::Connected { connection, dial, transport: "hand".into(), binding: BINDING };
    node.tell(now(3), connected);
    node.tell(now(1000), Input::Tick);
    let mut sent = 0;
    for output in &node.to_do {
        match output {
            Output::OpenStream { kind, .. } => assert_eq!(*kind, StreamKind::Control),
            Output::Send { frame, .. } => {
                assert!(matches!(Message::decode(frame.clone()), Ok(Some(Message::Hello(_)))));
                sent += 1;
            }
            Output::Store { .. } => {}
            other => panic!("{other:?} before the peer has proved who it is"),
        }
    }
    assert_eq!(sent, 1);
}

#[test]
fn b83_anything_but_the_handshake_on_a_new_link_ends_it() {
    let accepted = |dial: Option<DialId>| Input::Connected {
        connection: ConnectionId(1),
        dial,
        transport: "hand".into(),
        binding: BINDING,
    };
    let connection = ConnectionId(1);
    let refused = |node: &Node| {
        node.to_do.iter().any(|output| matches!(output, Output::Disconnect { reason: DisconnectReason::Protocol, .. }))
    };
    // A session before the handshake.
    let mut node = Node::new(1);
    node.tell(now(1), accepted(None));
    assert_eq!(node.machine.links_refused(), 0);
    node.tell(now(2), Input::StreamAccepted { connection, stream: StreamId(1), kind: StreamKind::Session });
    assert!(refused(&node));
    assert_eq!(node.machine.links_refused(), 1, "it is counted");
    // Something else than a hello on the control stream.
    let mut node = Node::new(1);
    node.tell(now(1), accepted(None));
    node.tell(now(2), Input::StreamAccepted { connection, stream: StreamId(1), kind: StreamKind::Control });
    let frame = Message::Ping(1).encode();
    node.tell(now(3), Input::Frame { connection, stream: StreamId(1), frame });
    assert!(refused(&node));
    // Nothing at all, for too long.
    let mut node = Node::new(1);
    node.tell(now(1), accepted(None));
    assert!(node.machine.poll_timeout().unwrap() <= Duration::from_secs(6));
    node.tell(now(6000), Input::Tick);
    assert_eq!(node.machine.links_refused(), 1);
    assert!(node.to_do.iter().any(|output| matches!(output, Output::Disconnect { .. })));
}

#[test]
fn b78_a_link_on_which_nothing_is_heard_is_closed_in_bounded_time() {
    // Nobody looked at it for long, as when the machine slept: it is an idle one.
    let at = given_up_at(20_000);
    assert!((20_001..60_000).contains(&at), "{at} ms");
}

#[test]
fn b11_a_link_that_dies_with_something_under_way_is_given_up_within_seconds() {
    // Whoever waits for more has nothing to send, and hears nothing.
    let at = given_up_at(1000);
    assert!(at < 7_000, "{at} ms");
}

/// When a node gives up a link on which nothing is heard any more, in milliseconds; it looks at `from` for the first time.
fn given_up_at(from: u64) -> u64 {
    let (mut a, _) = synced_pair();
    a.to_do.clear();
    let mut at = from;
    a.tell(now(at), Input::Tick);
    while !a.said.iter().any(|said| said.contains("Silent")) {
        let next = a.machine.poll_timeout().unwrap().as_millis() as u64;
        at = next.max(at + 1);
        assert!(at < 60_000, "the link is still up after {at} ms of silence");
        a.tell(now(at), Input::Tick);
    }
    assert!(a.said.iter().any(|said| said.contains(&format!("{:?}", Event::PeerDown { peer: peer(2) }))));
    at
}
