//! What the conformance suite does not know of iroh: endpoints, sockets, saved state.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::UdpSocket;

use common::{SOON, build, echo, ip_port, listening, loopback, port_becomes_free, port_is_free};
use sync_core::{
    PeerAddress,
    model::SecretKey,
    testing::tap::Tap,
    transport::{
        CloseReason, DIAL_DEADLINE, Incoming, TransportBuilder, TransportContext, TransportErrorKind, TransportState,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use transport_iroh::{IrohTransport, STATE_KIND};

#[tokio::test]
async fn b13_a_connection_works_with_no_relay_and_no_internet_and_both_ends_share_a_binding() {
    let (server, address, mut accepted) = listening(loopback()).await;
    assert!(!address.as_str().contains("relay"), "{address}");
    let client = build(loopback(), None).await;
    let first = client.dial(&address).await.unwrap();
    let first_there = accepted.recv().await.unwrap();
    let second = client.dial(&address).await.unwrap();
    let second_there = accepted.recv().await.unwrap();
    echo(&*first, &*first_there).await;
    echo(&*first_there, &*first).await;
    assert_eq!(first.channel_binding(), first_there.channel_binding());
    assert_eq!(second.channel_binding(), second_there.channel_binding());
    assert_ne!(first.channel_binding(), second.channel_binding());
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn b13_the_defaults_listen_on_every_interface_without_waiting_to_be_online() {
    let (server, address, mut accepted) = timeout(SOON, listening(IrohTransport::builder())).await.unwrap();
    let client = build(IrohTransport::builder(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn b13_a_relay_that_cannot_be_reached_does_not_keep_from_listening_and_dialling() {
    let with_relay = || loopback().relay("http://127.0.0.1:9".parse().unwrap());
    let (server, address, mut accepted) = timeout(SOON, listening(with_relay())).await.unwrap();
    let client = build(with_relay(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
    timeout(SOON, client.close()).await.unwrap();
    timeout(SOON, server.close()).await.unwrap();
}

#[tokio::test]
async fn the_address_names_the_nodes_own_key() {
    let node_key = SecretKey::generate();
    let context = TransportContext { node_key: node_key.clone(), state: None };
    let transport = Box::new(loopback()).build(context).await.unwrap();
    let (incoming, _accepted) = Incoming::channel();
    let addresses = transport.listen(incoming).await.unwrap();
    assert_eq!(addresses[0].url().path(), node_key.public().to_string());
    transport.close().await;
}

#[tokio::test]
async fn b3_stopping_without_connections_frees_the_port_and_listening_again_takes_it() {
    let (server, address, _accepted) = listening(loopback()).await;
    assert!(!port_is_free(ip_port(&address)));
    server.stop_listening().await.unwrap();
    port_becomes_free(ip_port(&address)).await;
    assert_eq!(server.stop_listening().await.unwrap_err().kind, TransportErrorKind::NotListening);

    let (incoming, mut accepted) = Incoming::channel();
    assert_eq!(server.listen(incoming).await.unwrap(), std::slice::from_ref(&address));
    let (second, _) = Incoming::channel();
    assert_eq!(server.listen(second).await.unwrap_err().kind, TransportErrorKind::AlreadyListening);
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn connections_outlive_the_listener_while_new_ones_are_refused() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();

    server.stop_listening().await.unwrap();
    echo(&*dialled, &*there).await;
    assert_eq!(client.dial(&address).await.unwrap_err().kind, TransportErrorKind::Refused);

    let (incoming, mut accepted) = Incoming::channel();
    assert_eq!(server.listen(incoming).await.unwrap(), std::slice::from_ref(&address));
    let again = client.dial(&address).await.unwrap();
    echo(&*again, &*accepted.recv().await.unwrap()).await;
    echo(&*dialled, &*there).await;
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn b16_closing_frees_the_port_though_the_application_keeps_connections_and_streams() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    let mut stream = dialled.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut stream_there = there.accept().await.unwrap();

    timeout(SOON, server.close()).await.unwrap();
    assert_eq!(there.closed().await.kind, TransportErrorKind::Closed);
    let ended = timeout(SOON, dialled.closed()).await.expect("the other end was told");
    assert_eq!(ended.kind, TransportErrorKind::ConnectionLost);
    assert!(stream_there.read_to_end(&mut Vec::new()).await.is_err());
    assert!(stream.read_u8().await.is_err());
    port_becomes_free(ip_port(&address)).await;

    let (incoming, _) = Incoming::channel();
    for kind in [
        server.listen(incoming).await.unwrap_err().kind,
        server.dial(&address).await.unwrap_err().kind,
        server.stop_listening().await.unwrap_err().kind,
    ] {
        assert_eq!(kind, TransportErrorKind::Closed);
    }
    server.close().await;
    client.close().await;
}

#[tokio::test]
async fn b16_dropping_closes_connections_and_frees_the_port() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    drop(server);
    for connection in [&dialled, &there] {
        timeout(SOON, connection.closed()).await.expect("every connection ends");
    }
    port_becomes_free(ip_port(&address)).await;
    client.close().await;
}

#[tokio::test]
async fn b6_state_gives_the_same_port_again_and_two_transports_have_their_own() {
    let (server, address, _accepted) = listening(loopback()).await;
    let state = server.state().unwrap();
    assert_eq!(state.kind, STATE_KIND);
    server.close().await;
    port_becomes_free(ip_port(&address)).await;

    let server = build(loopback(), Some(state.clone())).await;
    let (incoming, _accepted) = Incoming::channel();
    let again = server.listen(incoming).await.unwrap().remove(0);
    assert_eq!(ip_port(&again), ip_port(&address));
    assert_eq!(server.state(), Some(state.clone()));

    // A port that somebody else holds is not waited for long.
    let second = build(loopback(), Some(state)).await;
    let (incoming, _accepted) = Incoming::channel();
    let other = second.listen(incoming).await.unwrap().remove(0);
    assert_ne!(ip_port(&other), ip_port(&address), "the remembered port is taken, so it takes another");
    assert_ne!(second.state(), server.state());
    server.close().await;
    second.close().await;
}

#[tokio::test]
async fn b9_a_demanded_port_that_is_taken_is_an_error_that_names_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let demanding = build(IrohTransport::builder().bind(address), None).await;
    let (incoming, _accepted) = Incoming::channel();
    let error = demanding.listen(incoming).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::CannotListen);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn b6_state_of_another_kind_and_damaged_state_are_mismatches() {
    let foreign = TransportState { kind: "quic/1".into(), bytes: vec![0] };
    let empty = TransportState { kind: STATE_KIND.into(), bytes: Vec::new() };
    for state in [foreign, empty] {
        let context = TransportContext { node_key: SecretKey::generate(), state: Some(state) };
        let error = Box::new(loopback()).build(context).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::StateMismatch, "{error}");
    }
}

#[tokio::test]
async fn b7_a_client_only_transport_listens_without_an_address_and_has_no_state() {
    let client = build(loopback().client_only(), None).await;
    assert!(client.state().is_none());
    let (incoming, _) = Incoming::channel();
    assert!(client.listen(incoming.clone()).await.unwrap().is_empty());
    assert_eq!(client.listen(incoming).await.unwrap_err().kind, TransportErrorKind::AlreadyListening);
    let (server, address, mut accepted) = listening(loopback()).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    client.stop_listening().await.unwrap();
    echo(&*dialled, &*there).await;
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn garbage_at_the_port_does_no_harm() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..2000 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as u8
        })
        .take(round % 1500)
        .collect();
        noise.send_to(&bytes, ("127.0.0.1", ip_port(&address))).unwrap();
        // A long header of version 1, so that the parser goes further.
        let mut first = vec![0xC0 | (round as u8 & 0x3F), 0, 0, 0, 1];
        first.extend_from_slice(&bytes);
        first.resize(first.len().max(1200), 0);
        noise.send_to(&first, ("127.0.0.1", ip_port(&address))).unwrap();
    }
    echo(&*dialled, &*there).await;
    let another = client.dial(&address).await.unwrap();
    echo(&*another, &*accepted.recv().await.unwrap()).await;
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn b16_closing_ends_a_dial_under_way() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let id = SecretKey::generate().public();
    let address: PeerAddress = format!("iroh:{id}?ip={}", silent.local_addr().unwrap()).parse().unwrap();
    let client = build(loopback(), None).await;
    let dial = tokio::spawn({
        let client = client.clone();
        async move { client.dial(&address).await.unwrap_err().kind }
    });
    // The dial has begun when its first packet is there.
    silent.set_nonblocking(true).unwrap();
    let silent = tokio::net::UdpSocket::from_std(silent).unwrap();
    silent.readable().await.unwrap();
    timeout(SOON, client.close()).await.unwrap();
    assert_eq!(timeout(SOON, dial).await.unwrap().unwrap(), TransportErrorKind::Closed);
}

#[tokio::test]
async fn b9_another_node_at_the_address_is_refused() {
    let (server, address, _accepted) = listening(loopback()).await;
    let id = SecretKey::generate().public();
    let wrong: PeerAddress = format!("iroh:{id}?ip=127.0.0.1:{}", ip_port(&address)).parse().unwrap();
    let client = build(loopback(), None).await;
    let begun = std::time::Instant::now();
    let error = client.dial(&wrong).await.unwrap_err();
    assert!(begun.elapsed() < DIAL_DEADLINE);
    assert!(matches!(error.kind, TransportErrorKind::Refused | TransportErrorKind::TimedOut), "{error}");
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn b9_an_address_without_ways_oneself_and_foreign_schemes_are_typed_errors() {
    let (server, address, _accepted) = listening(loopback()).await;
    let id = SecretKey::generate().public();
    let nowhere = server.dial(&format!("iroh:{id}").parse().unwrap()).await.unwrap_err();
    assert_eq!(nowhere.kind, TransportErrorKind::Unreachable, "{nowhere}");
    let oneself = server.dial(&address).await.unwrap_err();
    assert_eq!(oneself.kind, TransportErrorKind::UnsupportedAddress, "{oneself}");
    let foreign = server.dial(&"quic://127.0.0.1:4433".parse().unwrap()).await.unwrap_err();
    assert_eq!(foreign.kind, TransportErrorKind::UnsupportedAddress, "{foreign}");
    server.close().await;
}

#[tokio::test]
async fn closing_a_connection_reaches_the_other_end() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    dialled.close(CloseReason::Duplicate);
    let ended = timeout(SOON, there.closed()).await.unwrap();
    assert_eq!(ended.kind, TransportErrorKind::ConnectionLost);
    client.close().await;
    server.close().await;
}

/// The story: what a node once said is known to whoever sat on the path. Said again it is an opening like any other, and
/// ends there: it was encrypted for a handshake that is over, and there is no 0-RTT that would take its first words.
#[tokio::test]
async fn b61_an_opening_that_was_recorded_is_no_connection_when_it_is_said_again() {
    let key = SecretKey::generate();
    let start = async |state| {
        let context = TransportContext { node_key: key.clone(), state };
        Box::new(loopback()).build(context).await.unwrap()
    };
    let server = start(None).await;
    let (incoming, mut accepted) = Incoming::channel();
    let address = server.listen(incoming).await.unwrap().remove(0);
    let target = std::net::SocketAddr::from(([127, 0, 0, 1], ip_port(&address)));
    let tap = Tap::udp(target).await.unwrap();
    let client = build(loopback(), None).await;
    let through = format!("iroh:{}?ip={}", address.url().path(), tap.address()).parse().unwrap();
    let here = client.dial(&through).await.unwrap();
    let there = accepted.recv().await.unwrap();
    echo(&*here, &*there).await;
    let opening = tap.said();
    let state = server.state();
    here.close(CloseReason::Done);
    there.closed().await;
    server.close().await;
    drop((here, there, tap, accepted, server));
    port_becomes_free(target.port()).await;

    // The same node again, with its key and its port.
    let server = start(state).await;
    let (incoming, mut accepted) = Incoming::channel();
    let again = server.listen(incoming).await.unwrap().remove(0);
    assert_eq!(ip_port(&again), target.port());
    let replayer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 2048];
    for packet in &opening {
        replayer.send_to(packet, target).await.unwrap();
    }
    timeout(SOON, replayer.recv_from(&mut answer)).await.expect("it is answered as an opening").unwrap();
    for packet in &opening {
        replayer.send_to(packet, target).await.unwrap();
    }
    // The next that is accepted is who dials, and nobody came beside it.
    let client = build(loopback(), None).await;
    let here = client.dial(&again).await.unwrap();
    let there = accepted.recv().await.unwrap();
    assert_eq!(here.channel_binding(), there.channel_binding());
    echo(&*here, &*there).await;
    server.close().await;
    assert!(accepted.recv().await.is_none());
}
