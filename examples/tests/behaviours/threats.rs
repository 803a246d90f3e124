//! Attacks that need more than garbage: a man in the middle, a member that forges, a claim without a proof.

use std::time::Duration;

use sync_core::{
    machine::{
        Direction, SyncOutcome,
        wire::{Hello, Mark, Message, Open, StreamKind, encode_bundles},
    },
    manager::Access,
    model::{Digest, HybridClock, PeerId, SecretKey, Timestamp, sign_commit},
    store::{Position, StoreId},
    testing::store_suite::world::put,
    transport::{ByteStream, Incoming},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    common::*,
    stranger::{Hostile, ends, receive, send, unharmed},
};

on_every_wire! {
    b61_a_man_in_the_middle_who_forwards_hellos_and_proofs_is_nobody_to_both
    b61_an_invalid_signature_ends_the_link_and_a_stranger_s_entry_enters_nowhere
    b61_what_is_claimed_before_the_proof_is_not_remembered
}

/// Carries frames from one end to the other until either ends.
async fn forward(mut from: ByteStream, mut to: ByteStream) {
    loop {
        tokio::select! {
            frame = receive(&mut from) => match frame {
                Ok(frame) if send(&mut to, &frame).await.is_ok() => {}
                _ => return,
            },
            frame = receive(&mut to) => match frame {
                Ok(frame) if send(&mut from, &frame).await.is_ok() => {}
                _ => return,
            },
        }
    }
}

/// The story: every transport encrypts, but to whom? Somebody who sits between two members and forwards what they
/// say has two connections with two bindings, and the proofs are about one each.
async fn b61_a_man_in_the_middle_who_forwards_hellos_and_proofs_is_nobody_to_both(world: World) {
    let pair = pair(&world).await;
    let mut events = pair.a.events();
    let middle = Hostile::new(&world).await;
    let (incoming, mut accepted) = Incoming::channel();
    let address = middle.transport.listen(incoming).await.unwrap().remove(0);
    let victim = pair.a.addresses().await.unwrap()[0].clone();
    let between = tokio::spawn(async move {
        let near = accepted.recv().await.unwrap();
        let far = middle.transport.dial(&victim).await.unwrap();
        let mut from = near.accept().await.unwrap();
        assert_eq!(from.read_u8().await.unwrap(), StreamKind::Control as u8);
        let mut to = far.open().await.unwrap();
        to.write_all(&[StreamKind::Control as u8]).await.unwrap();
        forward(from, to).await;
        (near, far)
    });
    let other = world.node("c").await;
    let replica = pair.id();
    other.store().create_replica(replica, vec![]).await.unwrap();
    other.open_replica(replica).await.unwrap();
    let report = other.sync_with(address, replica, LONG).await.unwrap();
    assert!(matches!(report.outcome, SyncOutcome::Unreachable { .. }), "{report:?}");
    drop(soon("both ends leave", between).await.unwrap());
    let known: Vec<PeerId> = pair.a.peers().await.unwrap().into_iter().map(|peer| peer.id).collect();
    assert!(!known.contains(&other.node_id()), "the forwarded proof proves nothing");
    unharmed(&pair, &mut events).await;
}

async fn b61_an_invalid_signature_ends_the_link_and_a_stranger_s_entry_enters_nowhere(world: World) {
    let pair = pair(&world).await;
    let mut events = pair.a.events();
    let replica = pair.id();
    // A member: whoever holds the key of an invitation may write.
    let secret = pair.left.share(Access::WRITE).await.unwrap().invite.unwrap().secret;
    let member = Hostile { key: secret, ..Hostile::new(&world).await };
    let root = pair.left.state().await.unwrap().root;
    let by = |author: &SecretKey| {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let ops = vec![put("forged", "x")];
        sign_commit(replica, author, &HybridClock::default(), Timestamp(now.as_micros() as u64), ops)
            .unwrap()
            .to_bundle()
    };
    let mut invalid = by(&member.key);
    invalid.seal.signature.0[7] ^= 1;
    let mark = Mark { durable: 0, received: 0, through: Some(Position(1)), root: None, synced: false };
    for (bundle, is_invalid) in [(invalid, true), (by(&SecretKey::generate()), false)] {
        let connection = member.dial(&pair.a).await;
        let _control = member.shake(&*connection).await;
        let mut session = connection.open().await.unwrap();
        session.write_all(&[StreamKind::Session as u8]).await.unwrap();
        let (store, head) = (StoreId([7; 16]), Position(1));
        let open = Open {
            replica,
            store,
            head,
            root: Digest::EMPTY,
            have: None,
            direction: Direction::Both,
            asks: false,
            credentials: Vec::new(),
        };
        send(&mut session, &Message::Open(open).encode()).await.unwrap();
        let opened = soon("a member is let in", receive(&mut session)).await.unwrap();
        assert!(matches!(Message::decode(opened), Ok(Some(Message::Opened(_)))));
        send(&mut session, &Message::Entries(mark, encode_bundles(&[bundle])).encode()).await.unwrap();
        if is_invalid {
            ends("a signature is invalid", &*connection).await;
        } else {
            // An honest relay cannot know yet; it is told, and the entry enters nowhere.
            let refused = async {
                loop {
                    if let Ok(Some(Message::Refused(refused))) = Message::decode(receive(&mut session).await.unwrap()) {
                        return refused.count;
                    }
                }
            };
            assert_eq!(soon("the entry is refused", refused).await, 1);
        }
        assert_eq!(pair.left.state().await.unwrap().root, root);
    }
    assert!(pair.right.get("forged").await.unwrap().is_none());
    unharmed(&pair, &mut events).await;
}

async fn b61_what_is_claimed_before_the_proof_is_not_remembered(world: World) {
    let a = world.node("a").await;
    let hostile = Hostile::new(&world).await;
    let connection = hostile.dial(&a).await;
    let mut control = hostile.control(&*connection).await;
    // Somebody else's name, and addresses that a node is to be sent to.
    let hello = Hello {
        oldest: 1,
        newest: 1,
        peer: PeerId(SecretKey::generate().public()),
        store: StoreId([7; 16]),
        incarnation: 1,
        nonce: [3; 32],
        addresses: vec![world.wire.dead_address(); 8],
    };
    send(&mut control, &Message::Hello(hello).encode()).await.unwrap();
    soon("a hello is answered", receive(&mut control)).await.unwrap();
    drop(control);
    connection.close(sync_core::transport::CloseReason::Done);
    tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.unwrap();
    assert!(a.peers().await.unwrap().is_empty(), "{:?}", a.peers().await);
    assert!(a.status().await.unwrap().replicas.is_empty());
}
