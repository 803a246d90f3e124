//! Peers that speak garbage, nothing, too much, or another version: only their own link ends.

use std::time::Duration;

use sync_core::{
    machine::{
        DialFailure, SyncOutcome,
        limits::{HANDSHAKE_DEADLINE, MAX_FRAME_LEN},
        wire::{Message, StreamKind},
    },
    manager::{
        Access, Replica, SyncManager,
        blobs::{Ask, Run},
    },
    model::{Hash, Op, ReplicaId, Right, SecretKey, Timestamp, Value},
    transport::Incoming,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::common::*;
use crate::stranger::{Hostile, ends, receive, send, unharmed};

on_every_wire! {
    b77_garbage_floods_and_huge_claims_end_their_own_link_only
    b77_a_peer_with_a_name_that_breaks_the_protocol_loses_its_link_only
    b64_b66_content_is_for_who_may_read_it_in_the_replica_that_he_names
    b78_a_silent_or_dripping_peer_holds_nothing_but_its_own_link
    b79_another_version_is_an_error_that_names_both
}

async fn b77_garbage_floods_and_huge_claims_end_their_own_link_only(world: World) {
    let pair = pair(&world).await;
    let mut events = pair.a.events();
    let hostile = Hostile::new(&world).await;
    let mut random = sync_core::testing::random::Random::new(77);
    let noise: Vec<u8> = (0..200_000).map(|_| random.bits() as u8).collect();
    let mutated = {
        let mut hello = hostile.hello(1, 1).to_vec();
        let last = hello.len() - 1;
        hello[last] = 0xff;
        let mut bytes = u32::try_from(hello.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(hello);
        bytes
    };
    let unasked = {
        let frame = Message::Ping(1).encode();
        let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(&frame);
        bytes
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("noise", [&[0], &noise[..]].concat()),
        ("a length of all ones", vec![0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
        ("a frame of no bytes", vec![0, 0, 0, 0, 0]),
        ("a frame over the limit before the proof", vec![0, 0, 0, 0xff, 0xff, 1]),
        ("an unknown kind of stream", vec![99, 1, 2, 3]),
        ("a mutated hello", [vec![0], mutated].concat()),
        ("a ping before the handshake", [vec![0], unasked].concat()),
    ];
    for (what, bytes) in cases {
        let connection = hostile.dial(&pair.a).await;
        let mut stream = connection.open().await.unwrap();
        // It may be cut off in the middle of it.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.flush().await;
        ends(what, &*connection).await;
    }
    let refused = pair.a.status().await.unwrap().links_refused;
    assert!(refused >= 2, "what reached the handshake is counted: {refused}");
    unharmed(&pair, &mut events).await;
}

async fn b77_a_peer_with_a_name_that_breaks_the_protocol_loses_its_link_only(world: World) {
    let pair = pair(&world).await;
    let mut events = pair.a.events();
    let hostile = Hostile::new(&world).await;
    let id = pair.id();
    let entries = |replica: ReplicaId| {
        let mut frame = vec![19];
        frame.extend([0; 5]);
        frame.extend(replica.as_bytes());
        frame.extend(vec![0xee; 1000]);
        frame
    };
    let cases: [(&str, StreamKind, Vec<Vec<u8>>); 5] = [
        ("entries without an Open", StreamKind::Session, vec![entries(id)]),
        ("a mark without an Open", StreamKind::Session, vec![vec![20, 0, 0, 0, 0, 0]]),
        ("a frame of one MiB of noise", StreamKind::Session, vec![vec![16; MAX_FRAME_LEN]]),
        ("a second control stream", StreamKind::Control, vec![Message::Ping(1).encode().to_vec()]),
        ("a malformed message", StreamKind::Session, vec![vec![16, 1, 2]]),
    ];
    for (what, kind, frames) in cases {
        let connection = hostile.dial(&pair.a).await;
        let _control = hostile.shake(&*connection).await;
        let mut stream = connection.open().await.unwrap();
        stream.write_all(&[kind as u8]).await.unwrap();
        for frame in frames {
            let _ = send(&mut stream, &frame).await;
        }
        ends(what, &*connection).await;
    }
    // Messages of unknown kinds are skipped, any number of them, and pings still answered.
    let connection = hostile.dial(&pair.a).await;
    let mut control = hostile.shake(&*connection).await;
    for _ in 0..10_000 {
        send(&mut control, &[200, 1, 2, 3]).await.unwrap();
    }
    send(&mut control, &Message::Ping(42).encode()).await.unwrap();
    let answered = async {
        loop {
            if let Ok(Some(Message::Pong(42))) = Message::decode(receive(&mut control).await.unwrap()) {
                return;
            }
        }
    };
    soon("the ping is answered", answered).await;
    // Streams without a word: they come and go, and the session of the honest is served.
    let mut streams = Vec::new();
    for _ in 0..60 {
        let Ok(Ok(mut stream)) = timeout(Duration::from_secs(1), connection.open()).await else { break };
        let _ = timeout(Duration::from_secs(1), stream.write_all(&[StreamKind::Session as u8])).await;
        streams.push(stream);
    }
    unharmed(&pair, &mut events).await;
}

/// What the victim answers on a stream of content, to the last byte, to who has this key.
async fn content_answer(world: &World, key: SecretKey, victim: &SyncManager, asks: &[Ask]) -> Vec<u8> {
    let hostile = Hostile { key, ..Hostile::new(world).await };
    let connection = hostile.dial(victim).await;
    let _control = hostile.shake(&*connection).await;
    let mut stream = connection.open().await.unwrap();
    stream.write_all(&[StreamKind::Content as u8]).await.unwrap();
    for ask in asks {
        send(&mut stream, &ask.encode()).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon("the stream is answered", stream.read_to_end(&mut answer)).await.unwrap();
    answer
}

async fn b64_b66_content_is_for_who_may_read_it_in_the_replica_that_he_names(world: World) {
    let a = world.node("a").await;
    let (secret, other) = (a.create_replica().await.unwrap(), a.create_replica().await.unwrap());
    secret.put("k", vec![7; 20_000]).await.unwrap();
    other.put("k", vec![8; 20_000]).await.unwrap();
    let Op::Put { value: Value::Blob { hash, len }, .. } = secret.get("k").await.unwrap().unwrap().entry.op else {
        panic!("20,000 bytes are a blob")
    };
    let asks = |replica: ReplicaId, hash: Hash| {
        let run = Run { replica, hash, len, start: 0, end: 1 };
        [Ask::Get(run.clone()), Ask::Prove(run, [1; 32])]
    };
    let invited = async |replica: &Replica, expires| {
        let access = Access { right: Right::Read, expires };
        replica.share(access).await.unwrap().invite.unwrap().secret
    };
    let nothing = content_answer(&world, SecretKey::generate(), &a, &asks(secret.id(), Hash([9; 32]))).await;
    assert_eq!(nothing.len(), 2 * 5, "two frames of one byte");
    let unknown = ReplicaId(SecretKey::generate().public());
    let expired = Some(Timestamp(1));
    for (who, key, replica) in [
        ("a stranger", SecretKey::generate(), secret.id()),
        ("a reader of another replica", invited(&other, None).await, secret.id()),
        ("a reader of another replica, which he names", invited(&other, None).await, other.id()),
        ("a reader who names a replica that is not here", invited(&secret, None).await, unknown),
        ("a reader whose right has ended", invited(&secret, expired).await, secret.id()),
    ] {
        assert_eq!(content_answer(&world, key, &a, &asks(replica, hash)).await, nothing, "{who}");
    }
    let reader = content_answer(&world, invited(&secret, None).await, &a, &asks(secret.id(), hash)).await;
    assert!(reader.len() > 16_384, "who may have it has the group that he asked for");
}

async fn b78_a_silent_or_dripping_peer_holds_nothing_but_its_own_link(world: World) {
    let pair = pair(&world).await;
    let mut events = pair.a.events();
    let hostile = Hostile::new(&world).await;
    let silent = hostile.dial(&pair.a).await;
    let half = hostile.dial(&pair.a).await;
    let mut stream = hostile.control(&*half).await;
    send(&mut stream, &hostile.hello(1, 1)).await.unwrap();
    let dripping = hostile.dial(&pair.a).await;
    let mut drip = hostile.control(&*dripping).await;
    let dropped = async {
        // A byte a second of a frame that is never whole.
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        for byte in [0, 0, 1, 0].into_iter().chain(std::iter::repeat(7)) {
            ticks.tick().await;
            if drip.write_all(&[byte]).await.is_err() || drip.flush().await.is_err() {
                return;
            }
        }
    };
    let began = tokio::time::Instant::now();
    unharmed(&pair, &mut events).await;
    let all = async {
        tokio::select! {
            () = async { tokio::join!(silent.closed(), half.closed(), dripping.closed()); } => {}
            () = async { dropped.await; std::future::pending::<()>().await } => {}
        }
    };
    soon("each is cut off", all).await;
    assert!(began.elapsed() < HANDSHAKE_DEADLINE + Duration::from_secs(30), "{:?}", began.elapsed());
    unharmed(&pair, &mut events).await;
}

async fn b79_another_version_is_an_error_that_names_both(world: World) {
    let a = world.node("a").await;
    let replica = a.create_replica().await.unwrap();
    let hostile = Hostile::new(&world).await;
    // It dials us: its link ends.
    let connection = hostile.dial(&a).await;
    let mut control = hostile.control(&*connection).await;
    send(&mut control, &hostile.hello(8, 9)).await.unwrap();
    ends("version 9", &*connection).await;
    // We dial it: the error names both versions.
    let future = world.transport(world.wire, "future").await;
    let (incoming, mut accepted) = Incoming::channel();
    let address = future.listen(incoming).await.unwrap().remove(0);
    let answering = tokio::spawn(async move {
        let connection = accepted.recv().await.unwrap();
        let mut control = connection.accept().await.unwrap();
        assert_eq!(control.read_u8().await.unwrap(), StreamKind::Control as u8);
        let _hello = receive(&mut control).await.unwrap();
        send(&mut control, &hostile.hello(8, 9)).await.unwrap();
        connection.closed().await;
    });
    let report = a.sync_with(address, replica.id(), LONG).await.unwrap();
    let SyncOutcome::Unreachable { why: DialFailure::Version, error } = report.outcome else { panic!("{report:?}") };
    assert!(error.contains("8 to 9") && error.contains("1 to 1"), "{error}");
    soon("the other end hears of it", answering).await.unwrap();
}
